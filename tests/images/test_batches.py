from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from resnet_zoo import create_transform
from resnet_zoo.images.batches import batched, map_in_order, num_cores, read_batch
from tests.conftest import smooth_image


def test_batches_are_full_but_the_last() -> None:
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_results_come_in_order_however_long_each_takes(num_threads: int) -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.004 * (number % 2 == 0))
        return number * number

    assert list(map_in_order(slow_if_even, range(20), num_threads=num_threads)) == [n * n for n in range(20)]


def test_threads_are_never_more_than_a_round_ahead() -> None:
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        while True:
            drawn += 1
            yield drawn

    results = map_in_order(lambda item: item, items(), num_threads=2)
    for taken in range(1, 100):
        assert next(results) == taken
        assert drawn <= taken + 4
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_turn_and_ends_the_threads() -> None:
    def fail_at_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    before = threading.active_count()
    found: list[int] = []
    with pytest.raises(ValueError, match="three"):
        found.extend(map_in_order(fail_at_three, range(100), num_threads=2))
    results = map_in_order(fail_at_three, range(100), num_threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert threading.active_count() == before


def test_an_error_while_drawing_comes_after_what_was_drawn() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise ValueError("four")

    results = map_in_order(abs, items(), num_threads=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="four"):
        next(results)


def test_a_batch_has_the_readable_images_and_the_places_of_the_others(tmp_path: Path) -> None:
    transform = create_transform("resnet18_cifar10")
    good, bad = smooth_image(32, 32), tmp_path / "missing.png"
    batch = read_batch([good, bad, good, b""], transform)
    assert sorted(batch.bad) == [1, 3]
    assert str(bad) in str(batch.bad[1])
    assert batch.titles == ["The image"] * 2
    assert torch.equal(batch.pixels, torch.from_numpy(good).permute(2, 0, 1).repeat(2, 1, 1, 1))
    assert read_batch([bad], transform).titles == []


def test_there_is_a_core() -> None:
    assert num_cores() >= 1
