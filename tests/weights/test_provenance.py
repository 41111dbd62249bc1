"""The chain: what it says of every kind of source, and that its fingerprint is of values alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import get_entry, manifest_path
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.convert import convert_checkpoint
from resnet_zoo.weights.key_layouts import LAYOUTS
from resnet_zoo.weights.loading import open_weights
from resnet_zoo.weights.opened import LoadedWeights
from resnet_zoo.weights.provenance import chain_of, tensors_sha256
from resnet_zoo.zoo import create_model
from tests.private_zoo import NAME, TAG, sha256, state_dict, upstream_checkpoint, upstream_name, write_manifest


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return state_dict()


@pytest.fixture(scope="module")
def source(tensors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_equal_tensors_have_one_fingerprint_in_every_layout_and_file(
    layout: str, suffix: str, source: Path, tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    target = tmp_path / f"other{suffix}"
    convert_checkpoint(source, target, name=NAME, layout=layout)  # type: ignore[arg-type]
    assert sha256_of(target) != sha256_of(source)
    assert tensors_sha256(load_checkpoint(target).tensors) == tensors_sha256(tensors)


def test_the_fingerprint_is_that_of_the_loaded_network(source: Path, tensors: dict[str, Tensor]) -> None:
    assert tensors_sha256(create_model(NAME, weights=source).state_dict()) == tensors_sha256(tensors)


@pytest.mark.parametrize("key", ["conv1.weight", "layer4.1.bn2.running_var", "fc.bias", "bn1.num_batches_tracked"])
def test_one_bit_changes_the_fingerprint(key: str, tensors: dict[str, Tensor]) -> None:
    changed = tensors[key].clone()
    changed.reshape(-1).view(torch.uint8)[0] ^= 1
    assert tensors_sha256({**tensors, key: changed}) != tensors_sha256(tensors)


A, B = torch.arange(6.0), torch.zeros(3)


@pytest.mark.parametrize(
    "other",
    [
        {"a": A},
        {"a": A, "c": B},
        {"a": A.reshape(2, 3), "b": B},
        {"a": A.to(torch.float64), "b": B},
        {"a": A.view(torch.int32), "b": B},
        {"a": B, "b": A},
        {"a": A, "b": -B},
    ],
    ids=["missing", "name", "shape", "precision", "type", "swapped", "negative zero"],
)
def test_the_fingerprint_depends_on_names_shapes_types_and_bytes(other: dict[str, Tensor]) -> None:
    assert tensors_sha256(other) != tensors_sha256({"a": A, "b": B})


def test_the_fingerprint_does_not_depend_on_order_or_strides() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    plain = tensors_sha256({"a": matrix, "b": B})
    assert tensors_sha256({"b": B, "a": matrix}) == plain
    assert tensors_sha256({"a": matrix.t().contiguous().t(), "b": B}) == plain


def test_scalars_and_empty_tensors_have_a_fingerprint() -> None:
    assert len({tensors_sha256({"a": torch.tensor(1)}), tensors_sha256({"a": torch.empty(0)})}) == 2


def test_a_file_given_by_path_is_vouched_for_by_nobody(source: Path, tensors: dict[str, Tensor]) -> None:
    chain = chain_of(open_weights(get_entry(NAME), source))
    assert dataclasses.asdict(chain) == {
        "manifest_sha256": sha256_of(manifest_path()),
        "source": str(source),
        "source_sha256": sha256_of(source),
        "pin": "path",
        "layout": "torchvision",
        "file": "mine.safetensors",
        "file_sha256": sha256_of(source),
        "tensors_sha256": tensors_sha256(tensors),
    }


def opened_from_a_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, digits: int
) -> tuple[LoadedWeights, bytes, str]:
    """Load a row from a folder that has its upstream checkpoint, of whose hash the manifest has so many digits."""
    content = upstream_checkpoint()
    name = upstream_name(content)
    (tmp_path / name).write_bytes(content)
    origins = {NAME: (f"https://example.org/{name}", sha256(content)[:digits])}
    manifest = write_manifest(tmp_path / "manifest.json", origins=origins)
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(manifest))
    monkeypatch.setenv("RESNET_ZOO_MIRROR", str(tmp_path))
    return open_weights(get_entry(NAME), TAG), content, str(tmp_path / name)


@pytest.mark.parametrize(
    ("digits", "pin"), [(8, "32-bit pin"), (16, "64-bit pin"), (63, "252-bit pin"), (64, "sha256")]
)
def test_the_pin_says_how_much_the_manifest_knows(
    digits: int, pin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensors: dict[str, Tensor]
) -> None:
    opened, content, source = opened_from_a_mirror(tmp_path, monkeypatch, digits=digits)
    chain = chain_of(opened)
    assert chain.manifest_sha256 == sha256_of(tmp_path / "manifest.json")
    assert (chain.pin, chain.source, chain.source_sha256) == (pin, source, sha256(content))
    assert chain.file == f"{chain.file_sha256}.safetensors"
    assert chain.tensors_sha256 == tensors_sha256(tensors)


def test_a_warm_cache_gives_the_same_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, _, _ = opened_from_a_mirror(tmp_path, monkeypatch, digits=8)
    monkeypatch.delenv("RESNET_ZOO_MIRROR")
    assert chain_of(open_weights(get_entry(NAME), TAG)) == chain_of(opened)


def test_a_published_file_has_one_chain_fetched_or_found(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = source.read_bytes()
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "a.safetensors").write_bytes(content)
    manifest = write_manifest(tmp_path / "manifest.json", files={NAME: ("a.safetensors", content)}, base_urls=["v1"])
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(manifest))
    fetched = chain_of(open_weights(get_entry(NAME), TAG))
    assert (fetched.pin, fetched.source) == ("sha256", str(tmp_path / "v1" / "a.safetensors"))
    assert fetched.source_sha256 == fetched.file_sha256 == sha256(content)
    assert chain_of(open_weights(get_entry(NAME), TAG)) == fetched


def test_a_published_file_made_from_the_upstream_checkpoint_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, content, place = opened_from_a_mirror(tmp_path, monkeypatch, digits=8)
    file = opened.checkpoint.path.read_bytes()
    name = upstream_name(content)
    manifest = write_manifest(
        tmp_path / "published.json",
        files={NAME: ("a.safetensors", file)},
        origins={NAME: (f"https://example.org/{name}", sha256(content)[:8])},
    )
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(manifest))
    for _ in range(2):
        chain = chain_of(open_weights(get_entry(NAME), TAG))
        assert (chain.pin, chain.source, chain.source_sha256) == ("sha256", place, sha256(content))
        assert chain.file_sha256 == sha256(file)
        opened.checkpoint.path.unlink(missing_ok=True)  # made again from the checkpoint in the mirror
