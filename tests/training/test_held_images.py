"""CIFAR's images on the device, and the test images that several processes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import RECIPES, find_recipe
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.identity import pixels_sha256, read_all
from resnet_zoo.images.test_sets import LabelledImages, open_test_set, open_training_set
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.training.augment import crop_and_flip, draw, pad
from resnet_zoo.training.held_images import HeldImages, hold_out
from resnet_zoo.training.measuring import TestImages
from resnet_zoo.zoo import create_model
from tests.conftest import randomise
from tests.training_tools import ALONE, CPU

ENTRY = get_entry("resnet18_cifar10")


@pytest.fixture
def root(class_tree: Callable[..., Path]) -> Path:
    class_tree(class_folders("cifar10"), split="test", per_class=3)
    return class_tree(class_folders("cifar10"), split="train", per_class=2)


def test_batches_hold_the_images_of_the_order_augmented(root: Path) -> None:
    images = HeldImages(ENTRY, open_training_set(ENTRY, root), RECIPES["cifar10"], seed=4, device=CPU)
    pixels, labels = read_all(open_training_set(ENTRY, root))
    order = torch.tensor([3, 19, 0, 3, 7])
    batches = list(images.batches(order, epoch=2, batch_size=2))
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels[order])
    expected = crop_and_flip(pad(pixels), order, draw(RECIPES["cifar10"], 20, 32, seed=4, epoch=2))
    assert torch.equal(torch.cat([batch.pixels for batch in batches]), expected)


def test_the_rest_of_an_order_gives_the_rest_of_the_batches(root: Path) -> None:
    images = HeldImages(ENTRY, open_training_set(ENTRY, root), find_recipe("cifar10", "fast"), seed=0, device=CPU)
    order = torch.arange(20)
    whole = [batch.pixels for batch in images.batches(order, epoch=1, batch_size=4)]
    rest = [batch.pixels for batch in images.batches(order[8:], epoch=1, batch_size=4)]
    assert all(torch.equal(one, other) for one, other in zip(whole[2:], rest, strict=True))


def test_a_cutout_is_in_the_mean_colour(root: Path) -> None:
    recipe = replace(find_recipe("cifar10", "fast"), cutout=32)
    images = HeldImages(ENTRY, open_training_set(ENTRY, root), recipe, seed=0, device=CPU)
    (batch,) = images.batches(torch.arange(20), epoch=0, batch_size=20)
    mean = torch.tensor(ENTRY.preprocess.mean).round().to(torch.uint8)
    share = (batch.pixels == mean[:, None, None]).all(dim=1).float().mean()
    assert share > 0.4  # half of each side on average, where the square is as large as the image


def test_images_held_out_and_the_others_are_all_images_once(root: Path) -> None:
    images = open_training_set(ENTRY, root)
    rest, held = hold_out(images, 6)
    assert (len(rest), len(held)) == (14, 6)
    assert (rest.variant, held.variant) == (f"{images.variant}-but-6", f"{images.variant}-held-out-6")
    paths = [[str(path) for path in part.images] for part in (rest, held)]
    assert sorted(paths[0] + paths[1]) == sorted(map(str, images.images))
    assert not set(paths[0]) & set(paths[1])
    for part in (rest, held):
        names = [class_folders("cifar10")[label] for label in part.labels]
        assert names == [Path(path).parent.name for path in part.images]
    again = hold_out(images, 6)[1]
    assert [str(path) for path in again.images] == paths[1]


def test_images_of_an_archive_are_held_out_alike(root: Path) -> None:
    images = open_training_set(ENTRY, root)
    pixels, _ = read_all(images)
    packed = LabelledImages("cifar10", pixels.permute(0, 2, 3, 1).numpy(), images.labels, images.pixels)
    for ours, theirs in zip(hold_out(images, 6), hold_out(packed, 6), strict=True):
        assert torch.equal(read_all(ours)[0], read_all(theirs)[0])


@pytest.mark.parametrize("count", [-1, 0, 20, 21])
def test_some_images_are_left_to_train_with(root: Path, count: int) -> None:
    with pytest.raises(ArgumentError, match=f"1 to 19 images to hold out of 20, got {count}"):
        hold_out(open_training_set(ENTRY, root), count)


def test_a_fingerprint_changes_with_a_pixel_and_with_a_label(root: Path) -> None:
    pixels, labels = read_all(open_training_set(ENTRY, root))
    other_pixels, other_labels = pixels.clone(), labels.clone()
    other_pixels[3, 1, 5, 5] ^= 1
    other_labels[0] += 1
    found = {pixels_sha256(*pair) for pair in ((pixels, labels), (other_pixels, labels), (pixels, other_labels))}
    assert len(found) == 3
    assert (
        HeldImages(ENTRY, open_training_set(ENTRY, root), RECIPES["cifar10"], seed=0, device=CPU).fingerprint in found
    )


def test_the_training_set_is_not_the_test_set(root: Path) -> None:
    training, testing = open_training_set(ENTRY, root), open_test_set(ENTRY, root)
    assert (training.variant, testing.variant) == ("cifar10-png-20images", "cifar10-png-30images")
    with pytest.raises(DatasetError, match="is not a folder"):
        open_training_set(ENTRY, root / "nowhere")


@pytest.mark.parametrize("num_devices", [1, 2, 3, 7])
def test_the_shares_of_all_processes_count_every_image_once(root: Path, num_devices: int) -> None:
    model = randomise(create_model(ENTRY.name))
    shares = [
        TestImages(ENTRY, open_test_set(ENTRY, root), Processes(rank, num_devices, CPU)) for rank in range(num_devices)
    ]
    for share in shares:
        share.processes = ALONE  # each counts by itself here; the sum over processes is tested with torchrun
    counts = [share.count(model) for share in shares]  # type: ignore[arg-type]
    expected = evaluate(ENTRY.name, root, model=model)
    assert tuple(map(sum, zip(*counts, strict=True))) == (expected.correct1, expected.correct5)
    assert 0 < expected.correct5 < expected.num_images


def test_counting_leaves_the_network_in_training(root: Path) -> None:
    model = create_model(ENTRY.name).to(memory_format=torch.channels_last)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    TestImages(ENTRY, open_test_set(ENTRY, root), ALONE).count(model)
    assert model.training
    weight: torch.Tensor = model.conv1.weight  # type: ignore[assignment]
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
