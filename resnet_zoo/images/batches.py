"""Batches of images, read by several threads and handed on in order.

Threads, not processes: torchvision's JPEG decoder, Pillow and numpy all release the interpreter lock while they work,
and nothing has to be sent from one process to another.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import title_of
from resnet_zoo.images.transform import ImageSource, Transform

OnBad = Callable[[DatasetError], None]
"""Called with the error of an unreadable image."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class ImageBatch:
    """Images of one batch, and those that could not be read.

    Attributes:
        titles: The name of each readable image.
        pixels: (N, 3, H, W) uint8, as the network's preprocessing leaves them before normalisation.
        bad: The error of each unreadable image, by its position in the batch.
    """

    titles: list[str]
    pixels: Tensor
    bad: dict[int, DatasetError]

    def report_bad(self, on_bad: OnBad | None) -> None:
        """Pass on the error of each unreadable image, or raise the first if there is nowhere to pass it."""
        for error in self.bad.values():
            if on_bad is None:
                raise error
            on_bad(error)


def read_batch(sources: Iterable[ImageSource], transform: Transform) -> ImageBatch:
    """Read the images of one batch."""
    titles: list[str] = []
    pixels: list[Tensor] = []
    bad: dict[int, DatasetError] = {}
    for position, source in enumerate(sources):
        try:
            pixels.append(torch.from_numpy(transform.pixels(source)).permute(2, 0, 1))
            titles.append(title_of(source))
        except DatasetError as error:
            bad[position] = error
    return ImageBatch(titles, torch.stack(pixels) if pixels else torch.empty(0, dtype=torch.uint8), bad)


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of ``size`` items, the last one possibly shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def map_in_order(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    num_threads: int,
    initializer: Callable[[], None] | None = None,
) -> Iterator[_Result]:
    """Yield ``function`` of every item in order, computed by threads that are at most one round of items ahead.

    Args:
        function: Called in the threads.
        items: Drawn from as results are taken: however many there are, only ``2 * num_threads`` are held.
        num_threads: How many threads.
        initializer: Called once in every thread.
    """
    pending: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(num_threads, "resnet-zoo", initializer)
    failed: Exception | None = None
    iterator = iter(items)
    try:
        while failed is None:
            try:
                pending.append(pool.submit(function, next(iterator)))
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001  # what was drawn before it comes first
                failed = error
            if len(pending) >= 2 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
    if failed is not None:
        raise failed


def num_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
