from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors
import torch
import torchvision
from torch import nn

from resnet_zoo import FeatureExtractor, create_model, optimize_for_inference
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    UnknownModelError,
    WeightsMismatchError,
    WeightsUnavailableError,
)
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.network_file import read_network, save_network
from tests.conftest import PETS, needs_permissions, random_network

ROW = "resnet18_cifar10"


def test_a_network_is_read_back_whole(pet_model: ResNet, pet_file: Path) -> None:
    found = read_network(pet_file)
    assert (found.entry.name, found.entry.num_classes, found.in_channels) == (ROW, 3, 3)
    assert found.class_names == tuple(PETS)
    assert found.weights.checkpoint.sha256 == hashlib.sha256(pet_file.read_bytes()).hexdigest()
    for key, tensor in pet_model.state_dict().items():
        assert torch.equal(found.weights.checkpoint.tensors[key], tensor), key


def test_equal_networks_give_equal_bytes_and_their_hash(pet_model: ResNet, pet_file: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    sha256 = save_network(again, pet_model, row=ROW, class_names=PETS)
    assert again.read_bytes() == pet_file.read_bytes()
    assert sha256 == hashlib.sha256(pet_file.read_bytes()).hexdigest()


def test_own_rules_and_metadata_are_kept(pet_model: ResNet, tmp_path: Path) -> None:
    path, rules = tmp_path / "a.safetensors", get_entry("resnet50").preprocess
    options: dict[str, Any] = {"preprocess": rules, "input_size": (3, 224, 224), "metadata": {"run": "runs/7"}}
    save_network(path, pet_model, row="resnet18_cifar10", class_names=PETS, **options)
    found = read_network(path)
    assert (found.entry.preprocess, found.entry.input_size) == (rules, (3, 224, 224))
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata()["run"] == "runs/7"


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"class_names": ["one"]}, "Expected 3 class names"),
        ({"class_names": ["a", "b", "\x1b[2J"]}, "class_names.2: expected a printable name"),
        ({"input_size": (1, 32, 32)}, "input_size of 3 channels"),
        ({"input_size": (3, 0, 32)}, "input_size: expected channels"),
        ({"preprocess": get_entry("resnet50").preprocess}, "crop of the input's 32x32"),
        ({"metadata": {"model": "x"}}, "metadata may not have model"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(
    pet_model: ResNet, tmp_path: Path, options: dict[str, Any], fact: str
) -> None:
    with pytest.raises(ArgumentError, match=fact):
        save_network(tmp_path / "a.safetensors", pet_model, **({"row": ROW, "class_names": PETS} | options))
    assert not list(tmp_path.iterdir())


def test_a_model_of_another_row_is_refused(pet_model: ResNet, tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatchError):
        save_network(tmp_path / "a.safetensors", pet_model, row="resnet34_cifar10", class_names=PETS)
    with pytest.raises(UnknownModelError):
        save_network(tmp_path / "a.safetensors", pet_model, row="reznet", class_names=PETS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrap",
    [
        nn.DataParallel,
        torch.compile,
        torch.optim.swa_utils.AveragedModel,
        lambda model: nn.DataParallel(cast("nn.Module", torch.compile(model))),
    ],
)
def test_a_wrapped_network_is_the_one_inside(
    wrap: Callable[[nn.Module], nn.Module], pet_model: ResNet, pet_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    save_network(path, wrap(pet_model), row=ROW, class_names=PETS)
    assert path.read_bytes() == pet_file.read_bytes()


CHANGES: dict[str, tuple[Callable[[ResNet], object], str]] = {
    "identity": (
        lambda model: setattr(model, "fc", nn.Identity()),
        r"`fc` is a Linear, got a classifier of type Identity\. Assign its Linear to model\.fc",
    ),
    "dropout": (
        lambda model: setattr(model, "fc", nn.Sequential(nn.Dropout(), nn.Linear(512, 3))),
        "got a classifier of type Sequential",
    ),
    "dilated": (
        lambda model: model.set_output_stride(4),
        r"Expected layer4\.0\.conv1 as in resnet18_cifar10, .*stride=\(2, 2\).*, got .*stride=\(1, 1\)",
    ),
    "pooled": (
        lambda model: setattr(model.layer1, "0", nn.Sequential(*model.layer1[0].children())),
        "does not fit",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_network_whose_file_would_compute_something_else_is_refused(kind: str, tmp_path: Path) -> None:
    change, fact = CHANGES[kind]
    model = create_model(ROW, num_classes=3)
    change(model)
    with pytest.raises((ArgumentError, WeightsMismatchError), match=fact):
        save_network(tmp_path / "a.safetensors", model, row=ROW, class_names=PETS)
    assert not list(tmp_path.iterdir())


def test_a_change_that_is_undone_is_saved(pet_model: ResNet, pet_file: Path, tmp_path: Path) -> None:
    model = copy.deepcopy(pet_model)
    model.set_output_stride(2)
    model.set_output_stride(8)
    model.fc = nn.Sequential(nn.Dropout(), model.fc)[1]  # type: ignore[assignment]
    save_network(tmp_path / "a.safetensors", model, row=ROW, class_names=PETS)
    assert (tmp_path / "a.safetensors").read_bytes() == pet_file.read_bytes()


def test_what_is_not_a_network_of_ours_is_refused(pet_model: ResNet, tmp_path: Path) -> None:
    others = [optimize_for_inference(pet_model), FeatureExtractor(pet_model), nn.Linear(3, 3)]
    for other in others:
        with pytest.raises(ArgumentError, match=f"a network of create_model .*, got {type(other).__name__}"):
            save_network(tmp_path / "a.safetensors", other, row=ROW, class_names=PETS)


def test_a_torchvision_network_with_the_same_keys_is_saved(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(num_classes=2)
    save_network(tmp_path / "a.safetensors", theirs, row="resnet18_in1k", class_names=["a", "b"])
    theirs.maxpool = nn.Identity()
    with pytest.raises(ArgumentError, match=r"Expected maxpool as in resnet18_in1k, MaxPool2d.*, got None"):
        save_network(tmp_path / "b.safetensors", theirs, row="resnet18_in1k", class_names=["a", "b"])


def test_a_file_is_replaced_only_if_that_is_asked_for(pet_model: ResNet, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(ArgumentError, match="exists already"):
        save_network(path, pet_model, row=ROW, class_names=PETS)
    assert path.read_bytes() == b"precious"
    save_network(path, pet_model, row=ROW, class_names=PETS, overwrite=True)
    assert read_network(path).class_names == tuple(PETS)


@pytest.mark.parametrize(("name", "fact"), [("a.pth", "ends in .safetensors"), ("folder.safetensors", "is a folder")])
def test_a_target_that_is_none_is_refused(pet_model: ResNet, tmp_path: Path, name: str, fact: str) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ArgumentError, match=fact):
        save_network(tmp_path / name, pet_model, row=ROW, class_names=PETS)


def test_a_folder_that_is_not_there_is_an_os_error(pet_model: ResNet, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        save_network(tmp_path / "missing" / "a.safetensors", pet_model, row=ROW, class_names=PETS)


def test_a_header_that_lies_about_the_tensors_is_found(pet_file: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(pet_file)
    lies = {
        "classes": {"num_classes": "2", "class_names": '["a", "b"]'},
        "a billion classes": {"num_classes": "999999999"},
        "row": {"model": "resnet34_cifar10"},
        "channels": {"input_size": "[1, 32, 32]"},
    }
    for kind, lie in lies.items():
        path = tmp_path / f"{kind}.safetensors"
        path.write_bytes(safetensors_bytes(checkpoint.tensors, {**checkpoint.header, **lie}))
        said = r"fits|header is wrong|said to be a network of \d+ (classes|image channels)"
        with pytest.raises((WeightsMismatchError, CheckpointError), match=said):
            read_network(path)


def test_a_flipped_bit_in_the_header_is_found_or_changes_the_hash(pet_file: Path, tmp_path: Path) -> None:
    data = bytearray(pet_file.read_bytes())
    position = data.index(b"newt")
    data[position] ^= 1
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(data)
    assert read_network(path).weights.checkpoint.sha256 != read_network(pet_file).weights.checkpoint.sha256


def test_files_without_a_network_are_refused(pet_file: Path, tmp_path: Path) -> None:
    plain, text = tmp_path / "plain.safetensors", tmp_path / "text.safetensors"
    plain.write_bytes(safetensors_bytes(load_checkpoint(pet_file).tensors, {"format": "pt"}))
    text.write_bytes(b"no network")
    with pytest.raises(CheckpointError, match="Name the model, and pass the file as its weights"):
        read_network(plain)
    with pytest.raises(CheckpointError, match="safetensors"):
        read_network(text)
    with pytest.raises(WeightsUnavailableError, match="No such file"):
        read_network(tmp_path / "missing.safetensors")


@needs_permissions
def test_a_folder_that_cannot_be_written_is_left_alone(pet_model: ResNet, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission"):
        save_network(tmp_path / "a.safetensors", pet_model, row=ROW, class_names=PETS)
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classifier", [nn.Identity(), nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 10))])
def test_a_network_with_another_kind_of_classifier_is_refused_until_it_has_a_linear_one(
    classifier: nn.Module, tmp_path: Path
) -> None:
    model = random_network()
    model.fc = classifier  # type: ignore[assignment]
    path = tmp_path / "out.safetensors"
    with pytest.raises(ArgumentError, match=rf"a classifier of type {type(classifier).__name__}.*reset_cl"):
        save_network(path, model, row="resnet18_cifar10", class_names=list("abc"))
    assert not path.exists()
    model.reset_classifier(3)
    save_network(path, model, row="resnet18_cifar10", class_names=list("abc"))
    assert read_network(path).class_names == ("a", "b", "c")


def test_what_is_not_a_network_of_this_package_is_refused(tmp_path: Path) -> None:
    model = nn.Sequential(random_network())
    with pytest.raises(ArgumentError, match=r"is a Linear, got Sequential.*save model.state_dict\(\)"):
        save_network(tmp_path / "out.safetensors", model, row="resnet18_cifar10", class_names=["a"])
