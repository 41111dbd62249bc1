"""Weight sets of others against the packages of their publishers: network, preprocessing, numbers, addresses."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_zoo import create_transform
from resnet_zoo.fit import build_on_meta
from resnet_zoo.records import Entry, PageOrigin, UpstreamOrigin, WeightSet
from tests.conftest import smooth_image
from tests.test_peers import imagenet  # noqa: F401  # a fixture
from tests.test_weight_sets import SETS

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TIMM = [(entry, tag) for entry, tag in SETS if tag.startswith("timm_")]
TORCHVISION = [(entry, tag) for entry, tag in SETS if tag.startswith("torchvision_")]
LICENCES = {"apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause"}


def timm_name(entry: Entry, tag: str) -> str:
    """Return timm's name of a set: ``resnet50d.ra2_in1k``."""
    architecture = entry.architecture
    if architecture.startswith("resnetv1d"):
        architecture = f"resnet{architecture.removeprefix('resnetv1d')}d"
    return f"{architecture}.{tag.removeprefix('timm_')}_in1k"


def address(found: WeightSet) -> str:
    if found.file is not None:
        return found.file.path
    assert isinstance(found.origin, UpstreamOrigin)
    return found.origin.url


def assert_same_network(entry: Entry, theirs: torch.nn.Module) -> None:
    """Compare every key and shape, and the number of parameters."""
    ours = build_on_meta(entry)
    shapes = [{key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    assert counts == [entry.exact.params] * 2


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> list[Image.Image]:
    """Made images of several shapes, and real ones where there are any."""
    made = [Image.fromarray(smooth_image(*size, seed=size[0])) for size in ((375, 500), (500, 333), (240, 320))]
    folder = request.getfixturevalue("imagenet") if os.environ.get("RESNET_ZOO_TEST_DATA") else None
    real = sorted(folder.rglob("*.JPEG"))[:20] if folder else []
    return [*made, *(Image.open(path).convert("RGB") for path in real)]


@pytest.mark.parametrize(("entry", "tag"), TIMM, ids=[f"{entry.name}-{tag}" for entry, tag in TIMM])
def test_a_set_of_timm_is_its_network_at_its_address(entry: Entry, tag: str) -> None:
    timm = pytest.importorskip("timm")
    name, found = timm_name(entry, tag), entry.weights[tag]
    config = timm.get_pretrained_cfg(name)
    with torch.device("meta"):
        assert_same_network(entry, timm.create_model(name, pretrained=False))
    assert found.license == LICENCES[config.license]
    if found.file is not None:
        assert found.file.path.startswith(f"hf://{config.hf_hub_id}@")
        assert found.origin == PageOrigin(f"https://huggingface.co/{config.hf_hub_id}")
    else:
        assert address(found) == config.url
    sizes = {config.input_size[-1]: config.crop_pct}
    if config.test_input_size:
        sizes[config.test_input_size[-1]] = config.test_crop_pct or config.crop_pct
    assert [own.preprocess.crop for own in found.published] == list(sizes)
    for own, (size, share) in zip(found.published, sizes.items(), strict=True):
        assert own.preprocess.short_edge == math.floor(size / share)


@pytest.mark.parametrize(("entry", "tag"), TIMM, ids=[f"{entry.name}-{tag}" for entry, tag in TIMM])
def test_pixels_are_those_of_timms_own_transform(entry: Entry, tag: str, images: list[Image.Image]) -> None:
    data = pytest.importorskip("timm.data")
    config = pytest.importorskip("timm").get_pretrained_cfg(timm_name(entry, tag))
    for own in entry.weights[tag].published:
        crop = own.preprocess.crop
        assert crop is not None
        is_usual = crop == config.input_size[-1]
        share = config.crop_pct if is_usual else config.test_crop_pct or config.crop_pct
        how: dict[str, Any] = {"crop_pct": share, "interpolation": config.interpolation, "crop_mode": config.crop_mode}
        theirs = data.create_transform((3, crop, crop), normalize=False, **how)
        ours = create_transform(entry.name, weights=tag, size=crop)
        for image in images:
            assert np.array_equal(ours.pixels(image), theirs(image).permute(1, 2, 0).numpy())
        full = data.create_transform((3, crop, crop), mean=config.mean, std=config.std, **how)
        assert torch.allclose(ours(images[0]), full(images[0]), atol=2e-6)


@pytest.mark.parametrize(("entry", "tag"), TORCHVISION, ids=[f"{entry.name}-{tag}" for entry, tag in TORCHVISION])
def test_a_set_of_torchvision_is_its_network_at_its_address_with_its_numbers_and_pixels(
    entry: Entry, tag: str, images: list[Image.Image]
) -> None:
    from torchvision import models

    weights = models.get_model_weights(entry.architecture)[f"IMAGENET1K_{tag.removeprefix('torchvision_').upper()}"]
    with torch.device("meta"):
        assert_same_network(entry, models.get_model(entry.architecture))
    found = entry.weights[tag]
    assert address(found) == weights.url
    (own,) = found.published
    accuracies = weights.meta["_metrics"]["ImageNet-1K"]
    assert (own.top1, own.top5) == (str(accuracies["acc@1"]), str(accuracies["acc@5"]))
    theirs = weights.transforms(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ours = create_transform(entry.name, weights=tag)
    for image in images:
        assert np.array_equal(ours.pixels(image), (theirs(image) * 255).round().byte().permute(1, 2, 0).numpy())
    assert torch.allclose(ours(images[0]), weights.transforms()(images[0]), atol=2e-6)


def test_networks_with_equal_keys_have_equal_logits() -> None:
    """A stem or a stride of another kind would show in keys or shapes, but for strides: the logits are equal too."""
    timm = pytest.importorskip("timm")
    for entry, tag in TIMM:
        if tag in ("timm_a1", "timm_ra2") and entry.architecture in ("resnet18", "resnetv1d50"):
            from tests.conftest import random_network

            ours = random_network(entry.name)
            theirs = timm.create_model(timm_name(entry, tag), pretrained=False).eval()
            theirs.load_state_dict(ours.state_dict())
            x = torch.randn(1, 3, 97, 130, generator=torch.Generator().manual_seed(0))
            with torch.inference_mode():
                assert torch.equal(ours(x), theirs(x))
