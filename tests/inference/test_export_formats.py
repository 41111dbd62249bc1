"""The formats' own options: 8-bit integers, and ONNX's opset."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from resnet_zoo.catalog.classes import class_names
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError, DatasetError, ExportError
from resnet_zoo.inference import quantization
from resnet_zoo.inference.export import export_model
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.zoo import open_network
from tests.inference.conftest import needs_int8
from tests.inference.test_export import SUFFIXES, loaded, needs_onnx

ROW = "resnet18_cifar10"
int8_formats = pytest.mark.parametrize("form", [pytest.param("onnx", marks=needs_onnx), "openvino"])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of rising contrast, on which even a network of random values gives unlike outputs."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(12):
        pixels = 128 + (number + 1) * 10 * random.uniform(-1, 1, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.slow
@needs_int8
@int8_formats
def test_an_int8_file_is_a_quarter_of_the_size_and_computes_nearly_the_same(
    form: Any, model: ResNet, weights: Path, photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"row{SUFFIXES[form]}"
    written = export_model(ROW, target, weights=weights, calibration=photos)
    assert (written.format, written.size_bytes < 0.3 * weights.stat().st_size) == (form, True)
    run, metadata = loaded(target, ("logits",))
    transform = open_network(ROW, weights=weights).transform
    x = torch.stack([transform(path) for path in sorted(photos.iterdir())])
    with torch.no_grad():
        expected = model(x).numpy()
    for count in (1, 5, 12):
        actual = run(x[:count])["logits"]
        assert 1e-4 < np.abs(actual - expected[:count]).max() < 0.25 * np.abs(expected).max()
    actual = run(x)["logits"]
    rounding = np.linalg.norm(actual - expected) / np.linalg.norm(expected - expected.mean(0))
    assert rounding < 0.5 < np.linalg.norm(actual[::-1] - expected) / np.linalg.norm(expected - expected.mean(0))
    assert json.loads(metadata["classes"]) == class_names("cifar10")
    assert json.loads(metadata["weights"]) is not None


@pytest.mark.slow
@needs_int8
@int8_formats
def test_the_same_images_give_the_same_int8_file(form: Any, weights: Path, photos: Path, tmp_path: Path) -> None:
    targets = [tmp_path / f"{name}{SUFFIXES[form]}" for name in ("first", "second")]
    first, second = (export_model(ROW, target, weights=weights, calibration=photos).sha256 for target in targets)
    assert first == second


@pytest.mark.slow
@needs_int8
def test_an_int8_file_that_is_too_far_off_is_not_kept(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = quantization.quantize

    def of_other_images(model: Any, calibration: torch.Tensor, **options: Any) -> Any:
        return honest(model, calibration / 1000, **options)

    monkeypatch.setattr(quantization, "quantize", of_other_images)
    with pytest.raises(ExportError, match="its logits differ"):
        export_model(ROW, tmp_path / "row.xml", weights=weights, calibration=photos)
    assert list(tmp_path.iterdir()) == []


@needs_int8
def test_calibration_images_that_are_unfit_are_told_before_the_weights_are_read(
    weights: Path, photos: Path, tmp_path: Path
) -> None:
    few, same = tmp_path / "few", tmp_path / "same"
    few.mkdir()
    same.mkdir()
    for number in range(12):
        (same / f"{number}.png").write_bytes((photos / "00.png").read_bytes())
    (few / "a.png").write_bytes((photos / "00.png").read_bytes())
    target = tmp_path / "row.xml"
    with pytest.raises(ArgumentError, match=r"few holds 1 image; int8 needs 10 or more"):
        export_model(ROW, target, weights=weights, calibration=few)
    with pytest.raises(ArgumentError, match="are all the same"):
        export_model(ROW, target, weights=weights, calibration=same)
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        export_model(ROW, target, weights=weights, calibration=tmp_path / "nowhere")
    (same / "0.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"0\.png"):
        export_model(ROW, target, weights=weights, calibration=same)
    assert not target.exists()


def test_what_a_format_does_not_have_is_refused(weights: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="8-bit integers are for the formats onnx and openvino"):
        export_model(ROW, tmp_path / "row.pt2", weights=weights, calibration=photos)
    for name, opset in (("row.pt2", 20), ("row.onnx", 17), ("row.xml", 18)):
        with pytest.raises(ArgumentError, match=rf"opset of 18 or later is for the format onnx, got {opset}"):
            export_model(ROW, tmp_path / name, weights=weights, opset=opset)


@pytest.mark.parametrize(("title", "extra"), [("NNCF", "int8"), ("OpenVINO", "openvino")])
def test_a_missing_package_is_told_with_its_extra(
    title: str, extra: str, weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if title == "NNCF":
        pytest.importorskip("nncf")
    monkeypatch.setitem(sys.modules, title.lower(), None)
    with pytest.raises(ArgumentError, match=rf"written here: {title} is not installed.*resnet-zoo\[{extra}\]"):
        export_model(ROW, tmp_path / "row.xml", weights=weights, calibration=photos)


@needs_onnx
@pytest.mark.slow
def test_onnx_takes_another_opset(weights: Path, tmp_path: Path) -> None:
    import onnx

    for opset in (18, 20):
        export_model(ROW, tmp_path / f"{opset}.onnx", weights=weights, opset=opset)
        assert onnx.load(str(tmp_path / f"{opset}.onnx")).opset_import[0].version == opset
    with pytest.raises(ArgumentError, match="opset"):
        export_model(ROW, tmp_path / "row.onnx", weights=weights, opset=99)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
@needs_int8
def test_the_command_takes_calibration_images_with_int8_and_tells_one_without_the_other(
    weights: Path, photos: Path, tmp_path: Path
) -> None:
    command = ["export", ROW, "-o", str(tmp_path / "row.xml"), "--weights", str(weights)]
    for option, sentence in (
        (["--int8"], "--int8 needs images like those to come: --calibrate DIR."),
        (["--calibrate", str(photos)], "--calibrate is for --int8."),
    ):
        refused = CliRunner().invoke(main, [*command, *option])
        assert (refused.exit_code, sentence in refused.stderr) == (2, True)
    done = CliRunner().invoke(main, [*command, "--int8", "--calibrate", str(photos)])
    assert done.exit_code == 0, done.stderr
    assert "format" in done.stdout
    assert "openvino" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"row.xml", "row.bin"}
