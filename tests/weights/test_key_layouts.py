from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from resnet_zoo.catalog.architectures import ARCHITECTURES
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.network.building import expected_shapes
from resnet_zoo.weights.key_layouts import from_ours, is_deep, layout_of, renamed, to_ours
from tests.conftest import ENTRIES, NAMES

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
V1D = [entry.name for entry in ENTRIES if entry.stem == "deep"]


def upstream_keys(architecture: str) -> list[str]:
    """List the keys of OpenMMLab's networks, written down from their published structure."""

    def bn(prefix: str) -> list[str]:
        return [f"{prefix}.{name}" for name in BN]

    rules = ARCHITECTURES[architecture]
    is_v1d = rules.shortcut == "pooled"
    if is_v1d:
        keys = [
            key
            for index in range(3)
            for key in (f"backbone.stem.{index}.conv.weight", *bn(f"backbone.stem.{index}.bn"))
        ]
    else:
        keys = ["backbone.conv1.weight", *bn("backbone.bn1")]
    num_convolutions = 3 if rules.block == "bottleneck" else 2
    for stage, depth in enumerate(rules.depths, start=1):
        for block in range(depth):
            prefix = f"backbone.layer{stage}.{block}"
            for index in range(1, num_convolutions + 1):
                keys += [f"{prefix}.conv{index}.weight", *bn(f"{prefix}.bn{index}")]
            if block == 0 and (stage > 1 or num_convolutions == 3):
                first = 1 if is_v1d and stage > 1 else 0
                keys += [f"{prefix}.downsample.{first}.weight", *bn(f"{prefix}.downsample.{first + 1}")]
    return [*keys, "head.fc.weight", "head.fc.bias"]


def marked(keys: list[str]) -> dict[str, Tensor]:
    return {key: torch.tensor(index) for index, key in enumerate(keys)}


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_our_keys_become_those_of_openmmlab(entry: object) -> None:
    name, architecture = entry.name, entry.architecture  # type: ignore[attr-defined]
    ours = marked(list(expected_shapes(get_entry(name))))
    assert set(renamed(ours, from_ours(ours, "openmmlab"))) == set(upstream_keys(architecture))


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_gives_the_same_keys_and_tensors(name: str) -> None:
    ours = marked(list(expected_shapes(get_entry(name))))
    theirs = renamed(ours, from_ours(ours, "openmmlab"))
    assert len(theirs) == len(ours)
    assert renamed(theirs, to_ours(theirs, "openmmlab")) == ours


@pytest.mark.parametrize("name", V1D)
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("backbone.stem.0.conv.weight", "conv1.0.weight"),
        ("backbone.stem.1.bn.bias", "conv1.4.bias"),
        ("backbone.stem.2.conv.weight", "conv1.6.weight"),
        ("backbone.stem.2.bn.running_var", "bn1.running_var"),
        ("backbone.layer1.0.downsample.0.weight", "layer1.0.downsample.1.weight"),
        ("backbone.layer1.0.downsample.1.weight", "layer1.0.downsample.2.weight"),
        ("backbone.layer2.0.downsample.1.weight", "layer2.0.downsample.1.weight"),
        ("backbone.layer4.0.downsample.2.bias", "layer4.0.downsample.2.bias"),
        ("backbone.layer1.0.bn1.weight", "layer1.0.bn1.weight"),
        ("head.fc.bias", "fc.bias"),
    ],
)
def test_each_v1d_key_has_its_place(name: str, theirs: str, ours: str) -> None:
    keys = upstream_keys(name.split("_")[0])
    tensors = marked(keys)
    assert renamed(tensors, to_ours(keys, "openmmlab"))[ours] is tensors[theirs]


MMSEG_V1D = {  # mmseg/models/backbones/resnet.py, and mmdet's: the stem is one flat sequence, layer1 pools too
    "stem.0.weight": "conv1.0.weight",
    "stem.1.bias": "conv1.1.bias",
    "stem.3.weight": "conv1.3.weight",
    "stem.4.running_var": "conv1.4.running_var",
    "stem.6.weight": "conv1.6.weight",
    "stem.7.weight": "bn1.weight",
    "layer1.0.downsample.1.weight": "layer1.0.downsample.1.weight",
    "layer4.0.downsample.2.bias": "layer4.0.downsample.2.bias",
    "layer1.0.bn1.weight": "layer1.0.bn1.weight",
    "fc.bias": "fc.bias",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_keys_of_mmseg_are_its_own_for_v1d_and_ours_for_all_others(name: str) -> None:
    ours = marked(list(expected_shapes(get_entry(name))))
    theirs = renamed(ours, from_ours(ours, "mmseg"))
    assert renamed(theirs, to_ours(theirs, layout_of(theirs))) == ours
    if name not in V1D:
        assert theirs == ours
        return
    assert not [key for key in theirs if key.startswith(("conv1.", "bn1."))]
    assert layout_of(theirs) == "mmseg"
    for their, our in MMSEG_V1D.items():
        assert theirs[their] is ours[our]


@pytest.mark.parametrize("name", NAMES)
def test_only_v1d_has_a_deep_stem_under_either_keys(name: str) -> None:
    ours = list(expected_shapes(get_entry(name)))
    assert is_deep(ours) == (name in V1D)
    assert is_deep(upstream_keys(name.split("_")[0])) == (name in V1D)


def test_every_openmmlab_key_is_renamed() -> None:
    for architecture in ARCHITECTURES:
        keys = upstream_keys(architecture)
        assert not [key for key in renamed(marked(keys), to_ours(keys, "openmmlab")) if re.match(r"backbone|head", key)]
