"""What images of an official set say about the whole set."""

from __future__ import annotations

import pytest

from resnet_zoo.catalog.datasets import official_accuracy
from resnet_zoo.catalog.records import Measured


def measured(dataset: str, num_images: int, top1: float = 50.0) -> Measured:
    return Measured(top1, 90.0, num_images, dataset, "2026-11-26", {}, "a CPU")


def test_the_bounds_are_those_of_all_missing_images_wrong_and_all_right() -> None:
    found = official_accuracy("cifar10", measured("cifar10-png-9977images", 9_977, 100 * 9_460 / 9_977), "top1")
    assert found is not None
    assert (found.low, found.high) == (94.60, 94.83)
    assert found.words == "94.60 to 94.83 on the official 10,000, of which 23 are missing here"


@pytest.mark.parametrize(
    ("dataset", "num_images", "missing"),
    [
        ("cifar10", 10_000, 0),
        ("cifar10", 9_999, 1),
        ("cifar10-png", 10_000, 0),
        ("cifar10-png-9977images", 9_977, 23),
        ("cifar10-png-3of10classes", 3_000, 7_000),
        ("cifar10-png-10001images", 10_001, None),
        ("cifar10-jpeg", 10_000, None),
        ("cifar10-images-9977images", 9_977, None),
        ("cifar10-png-49919images-held-out-5000", 5_000, None),
        ("cifar100-png", 10_000, None),
        ("in1k", 50_000, None),
    ],
)
def test_only_images_of_the_official_kind_bound_the_official_accuracy(
    dataset: str, num_images: int, missing: int | None
) -> None:
    found = official_accuracy("cifar10", measured(dataset, num_images), "top1")
    assert (found and found.num_missing) == missing
    assert found is None or found.num_official == 10_000


@pytest.mark.parametrize(
    ("dataset", "num_images", "missing"),
    [("in1k", 50_000, 0), ("in1k-100of1000classes", 100, 49_900), ("in1k-49990images", 49_990, 10)],
)
def test_a_part_of_imagenet_bounds_the_whole(dataset: str, num_images: int, missing: int) -> None:
    found = official_accuracy("in1k", measured(dataset, num_images), "top1")
    assert found is not None
    assert (found.num_missing, found.num_official) == (missing, 50_000)
