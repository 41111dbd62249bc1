"""Shapes and parameters without a network, held against the real networks."""

from __future__ import annotations

import pytest

from resnet_zoo.catalog.architectures import PLANS, LayerShape, layer_shapes
from resnet_zoo.catalog.records import Entry
from resnet_zoo.network.building import build_on_meta
from resnet_zoo.network.counting import count_params
from resnet_zoo.network.resnet import ARCHITECTURES, BasicBlock, Bottleneck
from resnet_zoo.network.trunk import LAYERS
from tests.conftest import ENTRIES


def shapes_of(entry: Entry, size: tuple[int, ...] | None = None) -> dict[str, LayerShape]:
    """Return the layers of a row by name."""
    plan = PLANS[entry.architecture]
    size = size or entry.input_size
    layers = layer_shapes(plan, stem=entry.stem, input_size=size, num_classes=entry.num_classes)
    return {layer.name: layer for layer in layers}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_parameters_of_each_layer_are_those_of_its_modules(entry: Entry) -> None:
    model, layers = build_on_meta(entry), shapes_of(entry)
    counted = {
        name: sum(count_params(model.get_submodule(module)) for module in modules) for name, modules in LAYERS.items()
    }
    assert {name: layer.params for name, layer in layers.items()} == counted
    assert sum(counted.values()) == entry.exact.params


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
@pytest.mark.parametrize("grown", [0, 5], ids=["own size", "odd size"])
def test_shapes_are_those_of_a_forward_pass(entry: Entry, grown: int) -> None:
    import torch

    channels, height, width = entry.input_size
    size = (channels, height + grown, width + 3 * grown)
    model, layers = build_on_meta(entry).eval(), shapes_of(entry, size)
    with torch.no_grad():
        maps = model.compute_images(torch.empty(1, *size, device="meta"), tuple(LAYERS), tuple(LAYERS))
    assert list(layers) == list(maps)
    assert {name: layer.shape for name, layer in layers.items()} == {n: tuple(x.shape[1:]) for n, x in maps.items()}


def test_the_networks_are_built_from_the_plans() -> None:
    assert list(ARCHITECTURES) == list(PLANS)
    assert ARCHITECTURES["resnet34"].block is BasicBlock
    assert ARCHITECTURES["resnetv1d50"].block is Bottleneck
    assert ARCHITECTURES["resnetv1d50"].depths == PLANS["resnetv1d50"].depths
