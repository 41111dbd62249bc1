"""Exported files: they compute what the network does, say what they are, and are whole or not there."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from torch import nn

from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.classes import class_names
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.cli.main import main
from resnet_zoo.errors import (
    ArgumentError,
    DownloadError,
    ExportError,
    NonFiniteOutputError,
    UnknownLayerError,
    UnknownModelError,
    WeightsMismatchError,
)
from resnet_zoo.inference import export, openvino
from resnet_zoo.inference.export import export_model, metadata_of
from resnet_zoo.inference.export_formats import FORMS, Format, Job
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.network_file import save_network
from resnet_zoo.zoo import open_network
from tests.conftest import NAMES, UNFETCHED, random_network
from tests.inference.conftest import CPU, needs_openvino

ROW = "resnet18_cifar10"
QUICK_ROWS = [ROW, "resnet18_in1k", "resnetv1d50_in1k"]
FORMATS: list[Format] = ["torch-export", "onnx", "openvino"]
SUFFIXES = {name: form.suffixes[0] for name, form in FORMS.items()}
Values = dict[str, np.ndarray[Any, Any]]

HAS_ONNX = all(importlib.util.find_spec(module) for module in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs the extra `export`")
formats = pytest.mark.parametrize(
    "form",
    ["torch-export", pytest.param("onnx", marks=needs_onnx), pytest.param("openvino", marks=needs_openvino)],
)


def loaded(path: Path, outputs: tuple[str, ...]) -> tuple[Callable[[torch.Tensor], Values], dict[str, str]]:
    """Read a file as its user would: a function from images to values, and the metadata."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        assert tuple(output.name for output in session.get_outputs()) == outputs
        return (
            lambda x: dict(zip(outputs, session.run(None, {"images": x.numpy()}), strict=True)),
            session.get_modelmeta().custom_metadata_map,
        )
    if path.suffix == ".xml":
        plain = openvino.load("openvino")  # which would report its use, imported by itself
        graph = plain.Core().read_model(path)
        assert tuple(port.get_any_name() for port in graph.outputs) == outputs
        compiled = plain.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        metadata = {key: value.astype(str) for key, value in graph.get_rt_info("resnet_zoo").astype(dict).items()}
        assert metadata.pop("bin_sha256") == sha256_of(path.with_suffix(".bin"))
        return lambda x: {name: compiled({"images": x.numpy()})[name] for name in outputs}, metadata
    extra = {"metadata.json": ""}
    module = torch.export.load(path, extra_files=extra).module()

    def run(x: torch.Tensor) -> Values:
        found = module(x)
        return {name: (found[name] if isinstance(found, dict) else found).detach().numpy() for name in outputs}

    return run, json.loads(extra["metadata.json"])


def assert_same(actual: Values, expected: dict[str, torch.Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, value in expected.items():
        wanted = value.detach().numpy()
        assert actual[name].shape == wanted.shape
        assert np.abs(actual[name] - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())


# --- what is in the file -------------------------------------------------------------------------------------------


def marks_of(name: str, form: Format) -> list[pytest.MarkDecorator]:
    """Return how long it takes: the ONNX exporter takes its time."""
    if name == ROW:
        return []
    return [pytest.mark.slow if name in QUICK_ROWS and form != "onnx" else pytest.mark.long]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form"),
    [pytest.param(name, form, marks=marks_of(name, form)) for form in FORMATS for name in NAMES],
)
def test_the_file_computes_what_the_network_does_for_any_batch(name: str, form: Format, tmp_path: Path) -> None:
    if (form == "onnx" and not HAS_ONNX) or (form == "openvino" and not openvino.is_available(CPU)):
        pytest.skip("needs an extra")
    target, entry, model = tmp_path / f"row{SUFFIXES[form]}", get_entry(name), random_network(name)
    safetensors.torch.save_file(model.state_dict(), tmp_path / "row.safetensors")
    written = export_model(name, target, format=form, weights=tmp_path / "row.safetensors")
    run, metadata = loaded(target, ("logits",))
    for count in (1, 5):
        x = torch.randn(count, *entry.input_size)
        assert_same(run(x), {"logits": model(x)})
    assert written.largest_difference < 1e-4
    files = {target, target.with_suffix(".bin") if form == "openvino" else target}
    assert (written.sha256, written.size_bytes) == (sha256_of(target), sum(path.stat().st_size for path in files))
    assert metadata == metadata_of(open_network(name), written.weights, ("logits",))
    assert set(tmp_path.iterdir()) == {*files, tmp_path / "row.safetensors"}


@pytest.mark.slow
@formats
def test_the_metadata_are_enough_to_use_the_file(form: Format, weights: Path, tmp_path: Path) -> None:
    target, entry = tmp_path / f"row{SUFFIXES[form]}", get_entry(ROW)
    export_model(ROW, target, format=form, weights=weights)
    metadata = loaded(target, ("logits",))[1]
    read = {key: json.loads(value) for key, value in metadata.items() if key not in ("model", "dataset")}
    assert (metadata["model"], metadata["dataset"]) == (ROW, "cifar10")
    assert read["classes"] == class_names("cifar10")
    assert read["preprocess"] == {
        "mean": list(entry.preprocess.mean),
        "std": list(entry.preprocess.std),
        "resize_backend": None,
        "short_edge": None,
        "crop": None,
        "channel_order": "RGB",
        "value_range": [0, 255],
    }
    assert read["input"] == {"name": "images", "size": [3, 32, 32], "layout": "NCHW", "dtype": "float32"}
    assert read["weights"]["file_sha256"] == sha256_of(weights)
    assert read["weights"]["pin"] == "path"


def test_the_metadata_of_an_imagenet_row_tell_resize_and_crop() -> None:
    rules = json.loads(metadata_of(open_network("resnetv1d50"), None, ["logits"])["preprocess"])
    assert (rules["resize_backend"], rules["short_edge"], rules["crop"]) == ("pillow", 256, 224)


@pytest.mark.slow
def test_a_network_file_is_exported_with_its_own_classes_channels_and_size(tmp_path: Path) -> None:
    grey = random_network(num_classes=2, in_channels=1)
    tuned, target = tmp_path / "tuned.safetensors", tmp_path / "tuned.pt2"
    save_network(tuned, grey, row=ROW, class_names=["cat", "dog"], input_size=(1, 24, 24))
    written = export_model(tuned, target, format="torch-export")
    run, metadata = loaded(target, ("logits",))
    x = torch.randn(3, 1, 24, 24)
    assert_same(run(x), {"logits": grey(x)})
    assert (metadata["model"], "dataset" in metadata) == (ROW, False)
    assert json.loads(metadata["classes"]) == ["cat", "dog"]
    assert json.loads(metadata["input"])["size"] == [1, 24, 24]
    assert written.weights is not None
    assert written.weights.file_sha256 == sha256_of(tuned)
    with pytest.raises(ArgumentError, match="has its own weights"):
        export_model(tuned, tmp_path / "other.pt2", format="torch-export", weights="openmmlab")


@pytest.mark.slow
@formats
def test_features_are_exported_by_name(form: Format, weights: Path, model: ResNet, tmp_path: Path) -> None:
    target, layers = tmp_path / f"maps{SUFFIXES[form]}", ("stage4", "stage2")
    written = export_model(ROW, target, format=form, weights=weights, features=layers)
    run, metadata = loaded(target, layers)
    x = torch.randn(3, 3, 32, 32)
    maps = model.stages(x)
    assert_same(run(x), {layer: maps[layer] for layer in layers})
    assert written.outputs == layers
    assert json.loads(metadata["outputs"]) == list(layers)


@pytest.mark.slow
@formats
def test_the_same_weights_give_the_same_bytes_without_this_machine_s_paths(
    form: Format, weights: Path, tmp_path: Path
) -> None:
    targets = [tmp_path / f"{name}{SUFFIXES[form]}" for name in ("first", "second")]
    for target in targets:
        export_model(ROW, target, format=form, weights=weights)
    first, second = (target.read_bytes() for target in targets)
    assert first == second
    assert str(Path(export.__file__).parent).encode() not in first
    assert str(Path(torch.__file__).parent).encode() not in first


@pytest.mark.slow
@formats
def test_fresh_values_are_exported_only_if_asked_for_and_said_to_be_so(form: Format, tmp_path: Path) -> None:
    target = tmp_path / f"row{SUFFIXES[form]}"
    with pytest.raises(DownloadError):
        export_model(UNFETCHED, target, format=form)
    assert list(tmp_path.iterdir()) == []
    assert export_model(UNFETCHED, target, format=form, pretrained=False).weights is None
    assert loaded(target, ("logits",))[1]["weights"] == "null"


# --- what is refused, and what is left behind ----------------------------------------------------------------------


@pytest.mark.slow
@formats
def test_a_file_that_computes_something_else_is_not_kept(
    form: Format, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FORMS[form]

    def write_another(job: Job) -> tuple[bytes, ...]:
        other = build(get_entry(ROW)).eval()
        other.load_state_dict(job.model.state_dict())
        with torch.no_grad():
            other.fc.bias[3] += 2e-3
        return honest.write(replace(job, model=other))

    monkeypatch.setitem(FORMS, form, replace(honest, write=write_another))
    with pytest.raises(ExportError, match="its logits differ") as caught:
        export_model(ROW, tmp_path / f"row{SUFFIXES[form]}", format=form, weights=weights)
    assert caught.value.difference == pytest.approx(2e-3, rel=0.01)
    assert list(tmp_path.iterdir()) == []


def test_logits_that_are_not_numbers_are_not_kept(model: ResNet, tmp_path: Path) -> None:
    broken = random_network(ROW)
    nn.init.constant_(broken.fc.bias, float("nan"))
    safetensors.torch.save_file(broken.state_dict(), tmp_path / "nan.safetensors")
    with pytest.raises(NonFiniteOutputError, match="first behind fc: its bias"):
        export_model(ROW, tmp_path / "row.pt2", format="torch-export", weights=tmp_path / "nan.safetensors")
    assert not (tmp_path / "row.pt2").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_export_leaves_nothing(
    error: type[BaseException], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []

    def interrupt(*_: object, **__: object) -> float:
        seen.extend(tmp_path.iterdir())
        raise error

    monkeypatch.setattr(export, "_checked", interrupt)
    with pytest.raises(error):
        export_model(ROW, tmp_path / "row.pt2", format="torch-export", weights=weights)
    assert [path.suffix for path in seen] == [".part"]
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_keeps_the_file_that_was_there(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "row.pt2"
    target.write_bytes(b"old")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ExportError):
        export_model(ROW, target, format="torch-export", weights=weights, overwrite=True)
    assert target.read_bytes() == b"old"


@needs_openvino
@pytest.mark.parametrize("failing", ["_checked", "write"])
def test_an_openvino_export_that_fails_keeps_both_files_that_were_there(
    failing: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = tmp_path / "row.xml", tmp_path / "row.bin"
    for path in pair:
        path.write_bytes(b"old")
    if failing == "_checked":
        monkeypatch.setattr(export, "TOLERANCE", -1.0)
    else:
        write = Path.write_bytes

        def full(path: Path, data: bytes) -> int:
            if data.startswith(b"<?xml") and path.parent == tmp_path:
                raise OSError(28, "No space left on device")
            return write(path, data)

        monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ExportError if failing == "_checked" else OSError):
        export_model(ROW, pair[0], weights=weights, overwrite=True)
    assert [path.read_bytes() for path in pair] == [b"old", b"old"]
    assert len(list(tmp_path.iterdir())) == 2


@needs_openvino
def test_float16_halves_the_weights_and_costs_little(weights: Path, model: ResNet, tmp_path: Path) -> None:
    whole, half = (export_model(ROW, tmp_path / f"{half}.xml", weights=weights, half=half) for half in (False, True))
    assert half.size_bytes < 0.52 * whole.size_bytes
    assert whole.largest_difference < 1e-5 < half.largest_difference
    run, metadata = loaded(tmp_path / "True.xml", ("logits",))
    x = torch.randn(7, 3, 32, 32)
    with torch.no_grad():
        assert np.abs(run(x)["logits"] - model(x).numpy()).max() < 0.01
    assert json.loads(metadata["classes"]) == class_names("cifar10")
    with pytest.raises(ArgumentError, match="are for the format openvino, got torch-export"):
        export_model(ROW, tmp_path / "row.pt2", weights=weights, half=True)


@needs_openvino
def test_weights_that_float16_cannot_hold_stay_as_they_are(tmp_path: Path) -> None:
    large = random_network(ROW)
    with torch.no_grad():
        large.fc.weight.mul_(1e8)
    safetensors.torch.save_file(large.state_dict(), tmp_path / "large.safetensors")
    written = export_model(ROW, tmp_path / "row.xml", weights=tmp_path / "large.safetensors", half=True)
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = large(x).numpy()
    assert written.size_bytes < 0.52 * (tmp_path / "large.safetensors").stat().st_size
    assert np.abs(loaded(tmp_path / "row.xml", ("logits",))[0](x)["logits"] - expected).max() < 0.01 * expected.max()


def test_openvino_missing_is_told_with_its_extra(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ArgumentError, match=r"OpenVINO files.*: OpenVINO is not installed.*resnet-zoo\[openvino\]"):
        export_model(ROW, tmp_path / "row.xml", weights=weights)


def test_an_existing_file_is_replaced_only_if_asked_for(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "row.pt2"
    target.write_bytes(b"old")
    with pytest.raises(ArgumentError, match="exists already"):
        export_model(ROW, target, format="torch-export", weights=weights)
    assert target.read_bytes() == b"old"
    assert export_model(ROW, target, format="torch-export", weights=weights, overwrite=True).size_bytes > 1 << 20


@pytest.mark.parametrize(
    ("file", "form", "fact"),
    [
        ("row.onnx", "torch-export", r"row\.onnx: expected a path that ends in \.pt2"),
        ("row.pt2", "onnx", r"row\.pt2: expected a path that ends in \.onnx"),
        ("row", "onnx", r"ends in \.onnx"),
        ("row.onnx", "tflite", "Expected a format of onnx, openvino or torch-export, got 'tflite'"),
        ("row.tflite", None, r"expected a path that ends in \.onnx, \.xml or \.pt2, or a format"),
        ("taken.xml", "openvino", r"taken\.bin exists already"),
        ("folder.pt2", "torch-export", "is a folder"),
    ],
)
def test_a_target_that_cannot_be_is_told_before_the_work(file: str, form: Any, fact: str, tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    (tmp_path / "taken.bin").touch()
    with pytest.raises(ArgumentError, match=fact):
        export_model(ROW, tmp_path / file, format=form, weights=tmp_path / "never looked for.pth")


def test_a_target_in_a_missing_folder_is_told_before_the_work(tmp_path: Path) -> None:
    target = tmp_path / "missing" / "row.pt2"
    with pytest.raises(OSError, match="missing"):
        export_model(ROW, target, format="torch-export", weights=tmp_path / "never looked for.pth")


def test_a_disk_that_fails_leaves_nothing(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left.*row\.pt2"):
        export_model(ROW, tmp_path / "row.pt2", format="torch-export", weights=weights)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_extra_is_named(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None if name == module else sys)
    with pytest.raises(
        ArgumentError, match=rf"written here: {module} is not installed.*pip install 'resnet-zoo\[export\]'"
    ):
        export_model(ROW, tmp_path / "row.onnx", format="onnx", pretrained=False)


def test_what_is_not_there_is_told(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "row.pt2"
    with pytest.raises(UnknownModelError, match="resnet18"):
        export_model("resnet19", target, format="torch-export")
    with pytest.raises(WeightsMismatchError):
        export_model("resnet34_cifar10", target, format="torch-export", weights=weights)
    with pytest.raises(UnknownLayerError, match="stage2"):
        export_model(ROW, target, format="torch-export", weights=weights, features=["stag2"])
    for features in ([], ["stage2", "stage2"], "stage2"):
        with pytest.raises(ArgumentError):
            export_model(ROW, target, format="torch-export", weights=weights, features=features)
    assert list(tmp_path.iterdir()) == []


# --- the command ---------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="resnet-zoo")


@pytest.mark.slow
def test_the_command_writes_the_file_and_says_what_it_is(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "maps.pt2"
    arguments = ("export", ROW, "--format", "torch-export", "-o", target, "--weights", weights)
    done = run(*arguments, "--features", "stage2, pool")
    assert done.exit_code == 0, done.stderr
    assert sha256_of(target) in done.stdout
    assert sha256_of(weights) in done.stdout
    assert "stage2, pool" in done.stdout
    assert "with the network, on batches of 1 and 3: outputs differ by at most " in done.stdout
    assert f"{target.stat().st_size:,} bytes" in done.stdout
    assert not re.search(r"^\w+_\w+ ", done.stdout, re.M)  # a field's name
    refused = run(*arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--force" in refused.stderr
    assert run(*arguments, "--force").exit_code == 0


@pytest.mark.slow
def test_the_command_writes_random_values_only_when_told(weights: Path, tmp_path: Path) -> None:
    arguments = ("export", UNFETCHED, "--format", "torch-export", "-o", tmp_path / "row.pt2")
    assert run(*arguments).exit_code == 3
    assert run(*arguments, "--untrained", "--weights", weights).exit_code == 2
    assert list(tmp_path.iterdir()) == []
    done = run(*arguments, "--untrained")
    assert done.exit_code == 0, done.stderr
    assert "random values" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (("resnet19", "--format", "onnx", "-o", "x.onnx"), 2, "resnet18"),
        ((ROW, "--format", "tflite", "-o", "x.onnx"), 2, "tflite"),
        ((ROW, "--format", "onnx"), 2, "--output"),
        ((ROW, "--format", "onnx", "-o", "x.pt2"), 2, ".onnx"),
        ((ROW, "--format", "torch-export", "-o", "x.pt2", "--untrained", "--features", "stage9"), 2, "stage4"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(
    arguments: tuple[str, ...], code: int, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("export", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert fact in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
