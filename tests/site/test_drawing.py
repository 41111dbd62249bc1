"""The sketch of a network: its numbers are those of the network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from resnet_zoo.catalog.records import Entry
from resnet_zoo.site.drawing import boxes_of, layers_of, measure_layers
from tests.conftest import ENTRIES


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_sketch_shows_all_parameters_and_ends_with_the_classes(entry: Entry) -> None:
    shapes = measure_layers(entry)
    layers, boxes = layers_of(entry, shapes), boxes_of(entry, shapes)
    assert sum(layer.params for layer in layers) == entry.exact.params
    assert layers[-1].shape == boxes[-1].shape == f"{entry.num_classes:,}"
    assert [box.title for box in boxes] == ["Image", *(layer.title for layer in layers)]
    assert ("Max pool" in {layer.title for layer in layers}) is (entry.stem != "cifar")


def test_a_row_of_an_unknown_architecture_has_no_sketch() -> None:
    assert measure_layers(replace(ENTRIES[0], architecture="resnext50")) == ()
