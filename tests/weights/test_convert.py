from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import resnet_zoo.weights.checkpoint
from resnet_zoo import open_network, save_network
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import UpstreamOrigin
from resnet_zoo.errors import ArgumentError, CheckpointError, UnknownModelError, WeightsMismatchError
from resnet_zoo.network.building import build
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.convert import convert_checkpoint, safetensors_bytes
from resnet_zoo.weights.key_layouts import LAYOUTS, Layout
from tests.conftest import NAMES, random_network, randomise, slow


def state_of(name: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return randomise(build(get_entry(name))).state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return state_of("resnet18_cifar10")


@pytest.fixture(scope="module")
def source(folder: Path, state: dict[str, Tensor]) -> Path:
    path = folder / "mine.pth"
    torch.save(state, path)
    return path


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


# --- what is written -----------------------------------------------------------------------------------------------


def test_a_checkpoint_becomes_safetensors_with_the_same_values(
    source: Path, state: dict[str, Tensor], tmp_path: Path
) -> None:
    target = tmp_path / "out.safetensors"
    conversion = convert_checkpoint(source, target)
    assert_same(load_file(target), state)
    assert conversion.name == "resnet18_cifar10"
    assert (conversion.source, conversion.source_layout, conversion.layout) == ("mine.pth", "torchvision", "resnet_zoo")
    assert conversion.source_sha256 == sha256_of(source)
    assert (conversion.sha256, conversion.size_bytes) == (sha256_of(target), target.stat().st_size)


def test_the_header_names_row_source_and_sha256(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    convert_checkpoint(source, target)
    assert header_of(target) == {
        "format": "pt",
        "model": "resnet18_cifar10",
        "source": "mine.pth",
        "source_sha256": sha256_of(source),
    }


def test_a_converted_file_is_recognised_as_ours(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.safetensors"
    convert_checkpoint(source, target)
    assert load_checkpoint(target).layout == "resnet_zoo"


def round_trip(name: str, layout: Layout, suffix: str, folder: Path) -> None:
    state = state_of(name)
    first, second, third = (folder / file for file in ("1.pth", f"2{suffix}", "3.safetensors"))
    torch.save(state, first)
    try:
        convert_checkpoint(first, second, name=name, layout=layout)
        convert_checkpoint(second, third, name=name)
        assert_same(load_file(third), state)
    finally:
        for path in (first, second, third):
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_basic_network_survives_every_layout(layout: Layout, suffix: str, tmp_path: Path) -> None:
    round_trip("resnet18_cifar10", layout, suffix, tmp_path)


@pytest.mark.parametrize("name", [slow("resnet50_cifar100"), "resnetv1d50_in1k"])
@pytest.mark.parametrize("layout", ["timm", "openmmlab", "mmseg"])
def test_a_bottleneck_network_survives_the_layout(name: str, layout: Layout, tmp_path: Path) -> None:
    round_trip(name, layout, ".safetensors", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_row_survives_every_layout(name: str, layout: Layout, suffix: str, tmp_path: Path) -> None:
    if layout == "torchvision" and "v1d" in name:
        pytest.skip("torchvision has no such network")
    round_trip(name, layout, suffix, tmp_path)


def test_openmmlab_files_have_openmmlab_keys_under_state_dict(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pth"
    convert_checkpoint(source, target, layout="openmmlab")
    content = torch.load(target, weights_only=True)
    assert set(content) == {"meta", "state_dict"}
    assert content["meta"]["model"] == "resnet18_cifar10"
    assert {key.split(".")[0] for key in content["state_dict"]} == {"backbone", "head"}


@pytest.mark.parametrize("layout", ["resnet_zoo", "torchvision", "timm"])
def test_other_pth_files_are_plain_state_dicts(layout: Layout, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.pth"
    convert_checkpoint(source, target, layout=layout)
    build(get_entry("resnet18_cifar10")).load_state_dict(torch.load(target, weights_only=True), strict=True)


def test_the_weights_of_one_key_are_converted_and_reported(state: dict[str, Tensor], tmp_path: Path) -> None:
    average = {f"module.{key}": torch.zeros_like(tensor) for key, tensor in state.items()}
    torch.save({"model": state, "model_ema": {"n_averaged": torch.tensor(3), **average}}, tmp_path / "a.pth")
    found = convert_checkpoint(tmp_path / "a.pth", tmp_path / "1.safetensors")
    assert (found.weights_key, found.prefix) == ("model_ema", "module.")
    assert not any(tensor.any() for tensor in load_file(tmp_path / "1.safetensors").values())
    found = convert_checkpoint(tmp_path / "a.pth", tmp_path / "2.safetensors", weights_key="model")
    assert (found.weights_key, found.prefix) == ("model", "")
    assert_same(load_file(tmp_path / "2.safetensors"), state)


def test_half_precision_becomes_float32(state: dict[str, Tensor], tmp_path: Path) -> None:
    half = {key: value.half() if "conv" in key else value for key, value in state.items()}
    torch.save(half, tmp_path / "half.pth")
    convert_checkpoint(tmp_path / "half.pth", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert {tensor.dtype for tensor in found.values()} == {torch.float32, torch.int64}
    assert_same(found, {key: value.float() if value.dtype == torch.float16 else value for key, value in half.items()})


def test_missing_batch_counters_are_added(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({k: v for k, v in state.items() if "num_batches_tracked" not in k}, tmp_path / "old.pth")
    convert_checkpoint(tmp_path / "old.pth", tmp_path / "out.safetensors")
    found = load_file(tmp_path / "out.safetensors")
    assert found.keys() == state.keys()
    assert int(found["bn1.num_batches_tracked"]) == 0


# --- the same bytes ------------------------------------------------------------------------------------------------

_CONVERT_ALL = """
import sys
from tests.weights.test_convert import hashes_of_conversions
print(*hashes_of_conversions(*sys.argv[1:]))
"""


def hashes_of_conversions(source: str, folder: str) -> list[str]:
    """Convert a file to every kind that is written in a way of its own."""
    layouts: tuple[Layout, ...] = ("resnet_zoo", "openmmlab")
    return [
        convert_checkpoint(source, f"{folder}/{layout}{suffix}", layout=layout).sha256
        for suffix in (".safetensors", ".pth")
        for layout in layouts
    ]


@pytest.mark.slow
def test_another_process_with_another_seed_of_hashes_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _CONVERT_ALL, str(source), str(tmp_path / "other")],
        env={**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == hashes_of_conversions(str(source), str(tmp_path))


def test_the_order_of_tensors_and_header_does_not_change_the_bytes() -> None:
    tensors = {"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.int64)}
    header = {"x": "1", "a": "2"}
    first = safetensors_bytes(tensors, header)
    assert safetensors_bytes(dict(reversed(tensors.items())), dict(reversed(header.items()))) == first
    assert safetensors_bytes(tensors, {**header, "x": "3"}) != first


def test_the_header_is_aligned_sorted_json() -> None:
    data = safetensors_bytes({"a": torch.ones(2)}, {"z": "1", "b": "2"})
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == ["b", "z"]


def test_tensors_that_share_memory_or_are_not_contiguous_are_written(tmp_path: Path) -> None:
    base = torch.arange(6.0).view(2, 3)
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes({"a": base, "b": base.T, "c": base[0]}, {}))
    assert_same(load_file(tmp_path / "a.safetensors"), {"a": base, "b": base.T, "c": base[0]})


# --- which row -----------------------------------------------------------------------------------------------------


def test_the_first_row_that_fits_is_chosen(folder: Path, tmp_path: Path) -> None:
    torch.save(state_of("resnet50_in1k"), folder / "r50.pth")
    assert convert_checkpoint(folder / "r50.pth", tmp_path / "out.safetensors").name == "resnet50_in1k"


def test_the_fp16_row_is_chosen_by_the_name_of_its_published_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = get_entry("resnet50_fp16_in1k").weights["openmmlab"].origin
    assert isinstance(origin, UpstreamOrigin)
    torch.save(state_of("resnet50_in1k"), folder / origin.file_name)
    # Nobody can make other bytes with the published hash, so for once it is not asked for.
    monkeypatch.setattr(resnet_zoo.weights.checkpoint, "_upstream_hashes", lambda _: ())
    conversion = convert_checkpoint(folder / origin.file_name, tmp_path / "out.safetensors")
    assert conversion.name == "resnet50_fp16_in1k"
    assert header_of(tmp_path / "out.safetensors")["model"] == "resnet50_fp16_in1k"


def test_a_named_row_that_fits_is_taken_and_an_alias_becomes_the_row(folder: Path, tmp_path: Path) -> None:
    torch.save(state_of("resnet50_in1k"), folder / "r50.pth")
    conversion = convert_checkpoint(folder / "r50.pth", tmp_path / "out.safetensors", name="resnet50_fp16")
    assert conversion.name == "resnet50_fp16_in1k"


def test_a_named_row_that_does_not_fit_is_an_error_that_names_the_one_that_does(source: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError, match="fits resnet18_cifar10") as caught:
        convert_checkpoint(source, tmp_path / "out.safetensors", name="resnet34_cifar10")
    assert caught.value.name == "resnet34_cifar10"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_row_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError):
        convert_checkpoint(source, tmp_path / "out.safetensors", name="resnet19")


def test_a_checkpoint_that_fits_nothing_is_held_against_the_nearest_row(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({key: value for key, value in state.items() if key != "layer3.1.bn2.bias"}, tmp_path / "near.pth")
    with pytest.raises(WeightsMismatchError) as caught:
        convert_checkpoint(tmp_path / "near.pth", tmp_path / "out.safetensors")
    assert caught.value.name == "resnet18_cifar10"
    assert caught.value.missing == ("layer3.1.bn2.bias",)
    assert caught.value.unexpected == ()


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_an_existing_target_is_kept_unless_overwriting_is_asked_for(suffix: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"precious")
    with pytest.raises(ArgumentError, match="exists already"):
        convert_checkpoint(source, target)
    assert target.read_bytes() == b"precious"
    convert_checkpoint(source, target, overwrite=True)
    assert load_checkpoint(target).tensors
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_a_file_may_be_converted_onto_itself(source: Path, state: dict[str, Tensor], tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    save_file(state, target)
    convert_checkpoint(target, target, overwrite=True)
    assert_same(load_file(target), state)


def test_torchvision_has_no_layout_for_v1d(tmp_path: Path) -> None:
    torch.save(state_of("resnetv1d50_in1k"), tmp_path / "v1d.pth")
    with pytest.raises(ArgumentError, match="torchvision has no resnetv1d50"):
        convert_checkpoint(tmp_path / "v1d.pth", tmp_path / "out.safetensors", layout="torchvision")
    assert not (tmp_path / "out.safetensors").exists()


def test_an_unknown_layout_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="resnet_zoo, torchvision, timm, openmmlab, mmseg"):
        convert_checkpoint(source, tmp_path / "out.safetensors", layout=cast("Layout", "keras"))


@pytest.mark.parametrize("name", ["out", "out.bin", "out.onnx", "out.safetensors.txt"])
def test_an_unknown_target_suffix_is_refused(name: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"\.safetensors or \.pth"):
        convert_checkpoint(source, tmp_path / name)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_target(overwrite: bool, source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.pth").mkdir()
    with pytest.raises(ArgumentError, match="is a folder"):
        convert_checkpoint(source, tmp_path / "out.pth", overwrite=overwrite)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_target_in_a_missing_folder_is_an_os_error(suffix: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        convert_checkpoint(source, tmp_path / "missing" / f"out{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_source_leaves_no_target(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"junk")
    with pytest.raises(CheckpointError):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


_CONVERT_ON_A_FULL_DISK = """
import resource, sys
from resnet_zoo.weights.convert import convert_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    convert_checkpoint(sys.argv[1], sys.argv[2], overwrite=True)
except OSError:
    print("OSError")
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a size limit on files is POSIX")
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_write_that_fails_is_an_os_error_and_leaves_the_target_as_it_was(
    suffix: str, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"precious")
    done = subprocess.run(
        [sys.executable, "-c", _CONVERT_ON_A_FULL_DISK, str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert target.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    assert done.stdout.strip() == "OSError", done.stderr[-500:]


def test_a_network_file_keeps_its_classes_and_gives_others_a_plain_state_dict(tmp_path: Path) -> None:
    network = random_network(num_classes=2, in_channels=4)
    pets = tmp_path / "pets.safetensors"
    save_network(pets, network, row="resnet18_cifar10", class_names=["cat", "dog"], metadata={"validation": "{}"})
    written = convert_checkpoint(pets, tmp_path / "pets.pth")
    assert (written.name, written.source) == ("resnet18_cifar10", "pets.safetensors")
    assert_same(torch.load(tmp_path / "pets.pth", weights_only=True), network.state_dict())
    convert_checkpoint(pets, tmp_path / "again.safetensors")
    again = open_network(tmp_path / "again.safetensors")
    assert (again.class_names, again.in_channels) == (("cat", "dog"), 4)
    assert header_of(tmp_path / "again.safetensors")["validation"] == "{}"
    assert_same(again.load().state_dict(), network.state_dict())
    with pytest.raises(ArgumentError, match="is a network of resnet18_cifar10, not of resnet34"):
        convert_checkpoint(pets, tmp_path / "other.pth", name="resnet34_cifar10")
    assert not (tmp_path / "other.pth").exists()
