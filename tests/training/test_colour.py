from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from resnet_zoo.images.test_sets import Batch
from resnet_zoo.training.colour import STRENGTH, ColourImages, change_colours, draw_factors

PIXELS = torch.randint(0, 256, (6, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ONES = torch.ones(6, 3)


class Held:
    """Six images as they are."""

    variant, num_images, fingerprint = "held", 6, "0" * 64

    def batches(self, order: Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        for start in range(0, len(order), batch_size):
            index = order[start : start + batch_size]
            yield Batch(PIXELS[index], index)


def factors(**changed: float) -> Tensor:
    return torch.tensor([[changed.get(name, 1.0) for name in ("brightness", "contrast", "saturation")]] * 6)


def test_factors_of_one_change_nothing() -> None:
    assert torch.equal(change_colours(PIXELS, ONES), PIXELS)


def test_each_factor_changes_what_it_is_named_after() -> None:
    dark = change_colours(PIXELS, factors(brightness=0.5)).float()
    assert (dark - PIXELS.float() / 2).abs().max() <= 0.5
    flat = change_colours(PIXELS, factors(contrast=0.0))
    assert all(len(image.unique()) == 1 for image in flat)
    grey = change_colours(PIXELS, factors(saturation=0.0))
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    luma = 0.299 * PIXELS[:, 0] + 0.587 * PIXELS[:, 1] + 0.114 * PIXELS[:, 2]
    assert (grey[:, 0].float() - luma).abs().max() <= 0.51


def test_values_stay_within_0_and_255() -> None:
    assert change_colours(PIXELS, factors(brightness=9.0)).max() == 255


def test_factors_are_within_their_range_and_others_by_seed_and_epoch() -> None:
    drawn = [draw_factors(1000, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
    assert drawn[0].min() >= 1 - STRENGTH
    assert drawn[0].max() <= 1 + STRENGTH
    assert drawn[0].mean() == pytest.approx(1.0, abs=0.03)


def test_the_rest_of_an_order_gets_the_colours_of_the_whole() -> None:
    images = ColourImages(Held(), seed=3)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    whole = torch.cat([batch.pixels for batch in images.batches(order, epoch=1, batch_size=4)])
    rest = torch.cat([batch.pixels for batch in images.batches(order[2:], epoch=1, batch_size=3)])
    assert torch.equal(whole[2:], rest)
    assert not torch.equal(whole, PIXELS[order])
