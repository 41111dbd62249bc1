"""Networks by name: rows, files, and repositories (those in test_hub_load's way, against a hub on loopback)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch

from resnet_zoo import create_model, open_network, push_to_hub, save_network
from resnet_zoo.catalog.classes import class_names
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import ArgumentError, CheckpointError, UnknownModelError, WeightsUnavailableError
from resnet_zoo.inference.prediction import predict
from resnet_zoo.network.resnet import ResNet
from tests.conftest import PETS, random_network, smooth_image
from tests.hub_server import HubServer, in_new_process

ROW = "resnet18_cifar10"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_gives_its_network_names_and_chain(
    kind: type[str] | type[Path], pet_model: ResNet, pet_file: Path
) -> None:
    found = open_network(kind(pet_file))
    assert (found.entry.name, found.entry.num_classes, found.class_names) == (ROW, 3, tuple(PETS))
    sha256 = hashlib.sha256(pet_file.read_bytes()).hexdigest()
    assert (found.chain.pin, found.chain.file_sha256, found.chain.source) == ("path", sha256, str(pet_file))
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(found.load().eval()(x), pet_model(x))


def test_create_model_loads_a_file_whole(pet_model: ResNet, pet_file: Path) -> None:
    for name in (pet_file, str(pet_file)):
        loaded = create_model(name).eval()
        assert torch.equal(loaded.fc.weight, pet_model.fc.weight)
    assert create_model(pet_file, num_classes=5).fc.out_features == 5
    assert create_model(pet_file, num_classes=3).fc.weight.equal(pet_model.fc.weight)


def test_own_weights_exclude_others(pet_file: Path) -> None:
    for use in (create_model, open_network):
        with pytest.raises(ArgumentError, match="has its own weights"):
            use(pet_file, weights="openmmlab")


def test_a_row_is_described_without_its_weights_and_loads_those_given(tmp_path: Path) -> None:
    found = open_network("resnet50")
    assert found.entry == get_entry("resnet50_in1k")
    assert found.class_names[0] == "tench, Tinca tinca"
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(random_network().state_dict(), path)
    given = open_network(ROW, weights=path)
    assert given.class_names == tuple(class_names("cifar10"))
    assert given.chain.file == path.name


def test_names_that_are_none_are_refused(pet_file: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="Did you mean resnet50"):
        open_network("reznet50")
    with pytest.raises(WeightsUnavailableError, match="No such file"):
        open_network(tmp_path / "missing.safetensors")
    plain = tmp_path / "plain.safetensors"
    safetensors.torch.save_file(random_network().state_dict(), plain)
    for use in (create_model, open_network):
        with pytest.raises(CheckpointError, match="pass the file as its weights"):
            use(plain)


def test_predict_uses_the_names_of_the_file(pet_file: Path) -> None:
    (found,) = predict(pet_file, smooth_image(40, 50), device="cpu")
    assert {score.name for score in found.classes} == set(PETS)
    with pytest.raises(ArgumentError, match="top_k of 1 to 3"):
        predict(pet_file, smooth_image(40, 50), device="cpu", top_k=4)


def test_a_network_for_grey_images_takes_no_rgb_ones(tmp_path: Path) -> None:
    path = tmp_path / "grey.safetensors"
    save_network(path, random_network(in_channels=1), row=ROW, class_names=class_names("cifar10"))
    assert create_model(path).conv1.in_channels == 1
    with pytest.raises(ArgumentError, match="takes images with 1 channels"):
        predict(path, smooth_image(32, 32), device="cpu")


def push(address: str, names: list[str] | None) -> str:
    return push_to_hub(random_network(num_classes=3), address, name=ROW, class_names=names)


def names_and_chain(address: str) -> tuple[list[str], str, str]:
    (found,) = predict(address, smooth_image(32, 32), device="cpu")
    chain = open_network(address).chain
    return sorted(score.name for score in found.classes), chain.source, chain.pin


@pytest.mark.slow
def test_predict_uses_the_names_of_a_repository_and_the_chain_tells_its_commit(tmp_path: Path) -> None:
    with HubServer(tmp_path / "files") as server:
        environment = server.environment(tmp_path / "home")
        in_new_process(environment, push, "someone/named", PETS)
        in_new_process(environment, push, "someone/nameless", None)
        names, source, pin = in_new_process(environment, names_and_chain, "hf-hub:someone/named")
        assert (names, pin) == (PETS, "hub")
        assert source.startswith("hf-hub:someone/named@")
        assert in_new_process(environment, names_and_chain, "hf-hub:someone/nameless")[0] == [
            "class 0",
            "class 1",
            "class 2",
        ]
