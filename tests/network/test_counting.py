from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.network import counting as complexity
from resnet_zoo.network.building import build, build_on_meta
from resnet_zoo.network.counting import FlopsRule, count_flops, count_params, dry_run, tally_operations
from tests.conftest import ENTRIES, NAMES


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_counts_are_the_integers_of_the_manifest(entry: Entry) -> None:
    model = build_on_meta(entry)
    tally = tally_operations(model, entry.input_size)
    assert count_params(model) == entry.exact.params
    assert complexity.flops_by_rule(tally, "openmmlab") == entry.exact.flops
    assert complexity.flops_by_rule(tally, "openmmlab_with_head") == entry.exact.flops_with_head
    assert complexity.flops_by_rule(tally, "macs") == entry.exact.macs


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_counts_round_to_the_published_digits(entry: Entry) -> None:
    model = build_on_meta(entry)
    assert str(round(count_params(model) / 1e6, 2)) == entry.published.params_m
    assert str(round(count_flops(model, entry.input_size) / 1e9, 2)) == entry.published.flops_g


def test_the_rule_with_head_misses_the_published_digits_of_one_row() -> None:
    entry = get_entry("resnetv1d50_in1k")
    flops = count_flops(build_on_meta(entry), entry.input_size, rule="openmmlab_with_head")
    assert (str(round(flops / 1e9, 2)), entry.published.flops_g) == ("4.37", "4.36")


# --- every kind of module, counted by hand -------------------------------------------------------------------------


class Tiny(nn.Module):
    """Each kind once, on a (2, 8, 8) image; the shared ReLU runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, bias=False)  # 4x4x4 outputs
        self.bn = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.avgpool = nn.AvgPool2d(2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        x = self.avgpool(self.maxpool(self.relu(x)))
        x = torch.relu(x) + x
        out: Tensor = self.fc(self.pool(x).flatten(1))
        return out


CONV = 64 * 9 * 2 // 2
BATCH_NORM = 2 * 64
RELU = 64 + 64
POOL = 64 + 16 + 16  # max pool sees 4x4x4, average pool 4x2x2, adaptive pool 4x2x2
LINEAR = 4 * 3
BY_HAND: dict[FlopsRule, int] = {
    "openmmlab": CONV + BATCH_NORM + RELU + POOL,
    "openmmlab_with_head": CONV + BATCH_NORM + RELU + POOL + LINEAR,
    "macs": CONV + LINEAR,
}


@pytest.mark.parametrize(("rule", "expected"), BY_HAND.items())
def test_every_rule_counts_a_tiny_network_as_by_hand(rule: FlopsRule, expected: int) -> None:
    assert count_flops(Tiny(), (2, 8, 8), rule=rule) == expected


def test_kinds_are_tallied_apart() -> None:
    tally = tally_operations(Tiny(), (2, 8, 8))
    assert tally == {"conv": CONV, "batch_norm": BATCH_NORM, "relu": RELU, "pool": POOL, "linear": LINEAR}


def test_parameters_are_counted_whether_trainable_or_not_and_buffers_are_not() -> None:
    model = Tiny()
    expected = 4 * 9 + 2 * 4 + 4 * 3 + 3
    assert count_params(model) == expected
    model.requires_grad_(False)
    assert count_params(model) == expected


def test_a_shared_parameter_is_counted_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert count_params(nn.Sequential(first, second)) == 9 + 3 + 3


def test_a_lone_module_is_counted() -> None:
    assert count_flops(nn.Conv2d(3, 5, 1), (3, 2, 2), rule="macs") == 3 * 5 * 4


def test_a_torchvision_network_counts_as_ours_does() -> None:
    entry = get_entry("resnet50_in1k")
    assert count_flops(torchvision.models.resnet50(), entry.input_size) == entry.exact.flops


def test_count_does_not_depend_on_the_mode_of_the_model() -> None:
    model = Tiny()
    assert count_flops(model.train(), (2, 8, 8)) == count_flops(model.eval(), (2, 8, 8))


@pytest.mark.parametrize("size", [32, (32, 32), [3, 32, 32], np.int64(32), torch.Size([3, 32, 32])])
def test_an_input_size_may_leave_out_what_the_network_says(size: Any) -> None:
    model = build_on_meta(get_entry("resnet18_cifar10"))
    assert count_flops(model, size) == get_entry("resnet18_cifar10").exact.flops


def test_the_channels_left_out_are_those_of_the_network() -> None:
    assert count_flops(nn.Conv2d(6, 4, 1, groups=2), (5, 7), rule="macs") == 4 * 5 * 7 * 3


@pytest.mark.parametrize("size", ["32", 0, -1, 31.5, (32,), (1, 3, 32, 32), (3, 0, 32), None, ("3", "32", "32")])
def test_what_is_no_size_of_an_image_is_refused(size: Any) -> None:
    with pytest.raises(ArgumentError, match=r"Expected an input_size of \(C, H, W\), \(H, W\) or one positive"):
        count_flops(Tiny(), size)


def test_a_model_without_convolution_needs_its_channels() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    assert count_flops(model, (3, 2, 2), rule="macs") == 36
    with pytest.raises(ArgumentError, match="without a convolution"):
        count_flops(model, 2)


@pytest.mark.parametrize("rule", ["fvcore", "", "OPENMMLAB"])
def test_an_unknown_rule_is_an_argument_error_that_lists_the_known_ones(rule: str) -> None:
    with pytest.raises(ArgumentError, match="openmmlab, openmmlab_with_head, macs"):
        count_flops(Tiny(), (2, 8, 8), rule=cast("FlopsRule", rule))


# --- the model is left as it was -----------------------------------------------------------------------------------


class Broken(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        self.relu(self.bn(self.conv(x)))
        raise KeyError("planted")


def state_of(model: nn.Module) -> dict[str, object]:
    return {
        name: (
            module.training,
            "forward" in vars(module),
            len(module._forward_hooks),
            [id(value) for value in module._parameters.values()],
            [id(value) for value in module._buffers.values()],
            sorted(vars(module)),
        )
        for name, module in model.named_modules()
    }


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def assert_untouched_by(model: nn.Module, action: Callable[[], object]) -> None:
    state, values = state_of(model), values_of(model)
    action()
    assert state_of(model) == state
    assert all(torch.equal(tensor, values[key]) for key, tensor in model.state_dict().items())


def test_the_model_is_left_untouched() -> None:
    model = Tiny()
    model.bn.eval()
    model.conv.weight.requires_grad_(False)
    assert_untouched_by(model, lambda: count_flops(model, (2, 8, 8)))
    assert not model.bn.training
    assert model.fc.training
    assert not model.conv.weight.requires_grad
    assert model.fc.weight.requires_grad


def test_the_model_is_left_untouched_when_its_forward_raises() -> None:
    model = Broken()
    model.bn.eval()

    def count() -> None:
        with pytest.raises(KeyError, match="planted"):
            count_flops(model, (2, 8, 8))

    assert_untouched_by(model, count)


def test_the_check_of_an_untouched_model_sees_a_hook_left_behind() -> None:
    model = Tiny()
    with pytest.raises(AssertionError):
        assert_untouched_by(model, lambda: model.bn.register_forward_hook(lambda *_: None))


def test_a_forward_that_was_overridden_before_stays_overridden() -> None:
    model = Tiny()
    calls: list[int] = []

    def forward(x: Tensor) -> Tensor:
        calls.append(1)
        return x

    vars(model.bn)["forward"] = forward
    count_flops(model, (2, 8, 8))
    assert calls == [1]
    assert vars(model.bn)["forward"] is forward


def test_modules_of_other_kinds_count_nothing() -> None:
    tally = tally_operations(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(128, 3)), (2, 8, 8))
    assert dict(tally) == {"other": 0, "linear": 384}


def test_hooks_of_others_stay() -> None:
    model = Tiny()
    model.fc.register_forward_hook(lambda *_: None)
    count_flops(model, (2, 8, 8))
    assert len(model.fc._forward_hooks) == 1


def test_a_full_size_network_computes_the_same_after_a_count() -> None:
    model = build(get_entry("resnet18_cifar10")).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        count_flops(model, (3, 32, 32))
        assert torch.equal(model(x), before)


def test_a_dry_run_returns_a_shape_without_values() -> None:
    output = dry_run(build(get_entry("resnet18_cifar10")), (3, 32, 32))
    assert output.is_meta
    assert tuple(output.shape) == (1, 10)
