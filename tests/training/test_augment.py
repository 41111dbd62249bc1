"""CIFAR augmentation: pixel by pixel against its definition, and in distribution against torchvision's transforms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from resnet_zoo.catalog.recipes import RECIPES, find_recipe
from resnet_zoo.training.augment import crop_and_flip, cut_out, draw, pad, shrink

PUBLISHED, FAST = RECIPES["cifar10"], find_recipe("cifar10", "fast")


def images(count: int = 12, size: int = 32) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=random)


def test_every_image_is_padded_cropped_and_flipped_as_drawn() -> None:
    padded = torch.nn.functional.pad(images(), (4, 4, 4, 4))
    draws = draw(PUBLISHED, 12, 32, seed=0, epoch=0)
    index = torch.tensor([5, 0, 11, 5])
    found = crop_and_flip(pad(images()), index, draws)
    assert found.dtype == torch.uint8
    for image, number in zip(found, index.tolist(), strict=True):
        top, left = int(draws.top[number]), int(draws.left[number])
        expected = padded[number, :, top : top + 32, left : left + 32]
        assert torch.equal(image, expected.flip(2) if draws.is_flipped[number] else expected)


def chi_square(counts: np.ndarray, expected: float) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def torchvision_draws(count: int) -> tuple[np.ndarray, int]:
    """Return how often torchvision's transforms make each of the 81 crops, and how often they flip.

    Two lit pixels in the middle, told apart by their values, tell the place of the crop and the flip.
    """
    image = torch.zeros(1, 32, 32, dtype=torch.uint8)
    image[0, 16, 15], image[0, 16, 16] = 1, 2
    transform = v2.Compose([v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()])
    places, flips = np.zeros((9, 9)), 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(count):
            out = transform(image)[0]
            (row, first), (_, second) = (out == 1).nonzero()[0].tolist(), (out == 2).nonzero()[0].tolist()
            is_flipped = first > second
            flips += is_flipped
            places[20 - row, 19 - (31 - first if is_flipped else first)] += 1
    return places, flips


def test_crops_and_flips_are_distributed_as_torchvisions() -> None:
    count = 81 * 100
    draws = draw(PUBLISHED, count, 32, seed=0, epoch=0)
    ours = np.zeros((9, 9))
    np.add.at(ours, (draws.top.numpy(), draws.left.numpy()), 1)
    theirs, their_flips = torchvision_draws(count)
    # 80 degrees of freedom: above 125 with a probability of 0.1 %.
    assert chi_square(ours, 100) < 125
    assert chi_square(theirs, 100) < 125
    for flips in (int(draws.is_flipped.sum()), their_flips):
        assert abs(flips - count / 2) < 3.3 * (count / 4) ** 0.5


def test_a_wrong_distribution_would_be_seen() -> None:
    draws = draw(PUBLISHED, 8100, 32, seed=0, epoch=0)
    narrow = np.zeros((9, 9))
    np.add.at(narrow, (draws.top.clamp(max=7).numpy(), draws.left.numpy()), 1)
    assert chi_square(narrow, 100) > 125


def test_draws_depend_on_seed_and_epoch_and_on_nothing_else() -> None:
    one, again = (draw(FAST, 50, 32, seed=1, epoch=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(again).values(), strict=True))
    for other in (draw(FAST, 50, 32, seed=1, epoch=3), draw(FAST, 50, 32, seed=2, epoch=2)):
        assert not torch.equal(one.top, other.top)


def test_alternating_flips_show_both_sides_in_two_epochs_and_random_ones_do_not() -> None:
    for recipe, alternates in ((FAST, True), (PUBLISHED, False)):
        first, second = (draw(recipe, 1000, 32, seed=0, epoch=epoch).is_flipped for epoch in (4, 5))
        assert torch.equal(first, ~second) is alternates
        assert 400 < int(first.sum()) < 600


def test_a_cutout_paints_its_square_and_nothing_else() -> None:
    draws = draw(replace(FAST, cutout=8), 200, 32, seed=0, epoch=0)
    pixels, colour = images(200), torch.tensor([1, 2, 3], dtype=torch.uint8)
    painted = cut_out(pixels, 8, colour, draws, torch.arange(200))
    for number in range(200):
        expected = pixels[number].clone()
        top, left = int(draws.hole_top[number]), int(draws.hole_left[number])
        expected[:, max(top, 0) : top + 8, max(left, 0) : left + 8] = colour[:, None, None]
        assert torch.equal(painted[number], expected)
    assert int(draws.hole_top.min()) < 0
    assert int(draws.hole_top.max()) > 24


@pytest.mark.parametrize("size", [None, 32])
def test_images_of_the_right_size_are_left_alone(size: int | None) -> None:
    pixels = images().float()
    assert shrink(pixels, size) is pixels


def test_half_the_size_keeps_the_mean() -> None:
    shrunk = shrink(torch.full((1, 3, 32, 32), 7.0), 16)
    assert shrunk.shape == (1, 3, 16, 16)
    assert torch.allclose(shrunk, torch.tensor(7.0))
