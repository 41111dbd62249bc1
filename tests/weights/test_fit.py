from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import CheckpointError, ManifestError, WeightsMismatchError
from resnet_zoo.network.building import Shapes, build, build_on_meta, expected_shapes, with_counters
from resnet_zoo.weights.checkpoint import Checkpoint
from resnet_zoo.weights.fit import check_fit, fitting_rows, nearest_row
from tests.conftest import ENTRIES, NAMES


def meta_state(name: str) -> dict[str, Tensor]:
    return build_on_meta(get_entry(name)).state_dict()


def checkpoint_of(tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint(tensors, "torchvision", Path("file.pth"), "0" * 64, {})


def check(name: str, tensors: dict[str, Tensor], shapes: Shapes | None = None) -> None:
    check_fit(name, shapes or expected_shapes(get_entry(name)), checkpoint_of(tensors))


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_a_network_on_meta_has_no_values(entry: Entry) -> None:
    model = build_on_meta(entry)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert model.fc.out_features == entry.num_classes


def test_classes_and_channels_can_be_changed() -> None:
    model = build_on_meta(get_entry("resnet18_in1k"), num_classes=7, in_channels=5)
    assert tuple(model.state_dict()["fc.weight"].shape) == (7, 512)
    assert tuple(model.state_dict()["conv1.weight"].shape) == (64, 5, 7, 7)


def test_an_unknown_architecture_is_a_manifest_error_with_row_and_field() -> None:
    entry = dataclasses.replace(get_entry("resnet18_in1k"), architecture="resnet19")
    with pytest.raises(ManifestError, match="resnet19") as caught:
        build(entry)
    assert (caught.value.row, caught.value.field) == ("resnet18_in1k", "architecture")


@pytest.mark.parametrize("name", NAMES)
def test_every_row_fits_itself(name: str) -> None:
    tensors = meta_state(name)
    check(name, tensors)
    assert name in fitting_rows(tensors)
    assert expected_shapes(get_entry(nearest_row(tensors))) == expected_shapes(get_entry(name))


def test_only_the_two_resnet50_rows_fit_each_other() -> None:
    twins = {name: fitting_rows(meta_state(name)) for name in NAMES}
    assert {name: rows for name, rows in twins.items() if rows != [name]} == {
        name: ["resnet50_in1k", "resnet50_fp16_in1k"] for name in ("resnet50_in1k", "resnet50_fp16_in1k")
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_with_another_head_is_nearest_to_a_row_of_its_architecture(name: str) -> None:
    tensors = {key: tensor for key, tensor in meta_state(name).items() if not key.startswith("fc.")}
    assert get_entry(nearest_row(tensors)).architecture == get_entry(name).architecture


def test_missing_unexpected_and_misshapen_keys_are_listed() -> None:
    tensors = meta_state("resnet18_cifar10")
    del tensors["fc.bias"]
    tensors["extra"] = torch.zeros(1)
    tensors["bn1.weight"] = torch.zeros(65)
    with pytest.raises(WeightsMismatchError) as caught:
        check("resnet18_cifar10", tensors)
    error = caught.value
    assert error.missing == ("fc.bias",)
    assert error.unexpected == ("extra",)
    assert error.shapes == {"bn1.weight": ((64,), (65,))}
    assert error.fits == ()
    assert "bn1.weight (expected [64], got [65])" in str(error)
    assert "It fits no other model" in str(error)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"num_classes": 7}, "create_model(…, num_classes=7) loads it"),
        ({"in_channels": 1}, "create_model(…, in_channels=1) loads it"),
        ({"num_classes": 7, "in_channels": 1}, "check which network it was saved from"),
    ],
)
@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnetv1d50_in1k"])
def test_classes_and_channels_are_the_advice_only_where_they_are_the_matter(
    name: str, options: dict[str, int], advice: str
) -> None:
    tensors = build_on_meta(get_entry(name), **options).state_dict()
    with pytest.raises(WeightsMismatchError) as caught:
        check(name, tensors)
    assert advice in str(caught.value)
    with pytest.raises(WeightsMismatchError) as caught:
        check(name, {"a.weight": torch.zeros(1)})
    assert "num_classes" not in str(caught.value)


@pytest.mark.parametrize("name", ["resnet34_cifar10", "resnetv1d50_in1k"])
def test_the_rows_that_fit_are_named(name: str) -> None:
    with pytest.raises(WeightsMismatchError) as caught:
        check("resnet18_in1k", meta_state(name))
    assert caught.value.fits == (name,)
    assert "load it under that name" in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int64])
def test_a_weight_of_integers_is_refused(dtype: torch.dtype) -> None:
    tensors = meta_state("resnet18_cifar10")
    tensors["fc.bias"] = torch.zeros(10, dtype=dtype)
    with pytest.raises(CheckpointError, match=r"fc\.bias is torch\.int64"):
        check("resnet18_cifar10", tensors)


def test_a_counter_of_floats_is_refused() -> None:
    tensors = meta_state("resnet18_cifar10")
    tensors["bn1.num_batches_tracked"] = torch.tensor(1.0)
    with pytest.raises(CheckpointError, match=r"bn1\.num_batches_tracked is torch\.float32"):
        check("resnet18_cifar10", tensors)


def test_counters_that_old_files_lack_are_added_and_others_kept() -> None:
    tensors = meta_state("resnet18_cifar10")
    old = {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
    assert with_counters(old).keys() == tensors.keys()
    assert all(int(with_counters(old)[key]) == 0 for key in tensors.keys() - old.keys())
    one = {"bn.running_var": torch.ones(1), "bn.num_batches_tracked": torch.tensor(9)}
    assert with_counters(one) == one
    check("resnet18_cifar10", old)
    assert fitting_rows(old) == ["resnet18_cifar10"]


def test_the_checkpoint_passed_in_is_not_changed() -> None:
    old = {"bn.running_var": torch.ones(1)}
    with_counters(old)
    assert list(old) == ["bn.running_var"]
