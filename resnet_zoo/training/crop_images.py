"""Training images as random resized crops, mirrored half of the time, read by index from any source."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_zoo.catalog.records import Entry, ResizeBackend
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.sources import Source
from resnet_zoo.images.test_sets import Batch, leave_interrupts, listing_sha256, some
from resnet_zoo.training.crops import read_crop, uniform_numbers


class CropImages:
    """The images of a source, read by index.

    Args:
        entry: Its input size and how it resizes; a row or network that resizes.
        source: The images.
        variant: What the images are, as `LabelledImages.variant`.
        seed: Of the crops and flips, 0 to 2^64 - 1.
        num_workers: Processes that read; they stay from epoch to epoch. 0 reads in this process.
        pin_memory: Put batches into page-locked memory, where there is a GPU.

    Attributes:
        variant: As given.
        num_images: How many images there are.
        labels: (num_images,) int64.

    Raises:
        ArgumentError: The network does not resize, or a number is out of range.
    """

    def __init__(
        self,
        entry: Entry,
        source: Source,
        variant: str,
        *,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        backend = entry.preprocess.resize_backend
        if backend is None:
            raise ArgumentError(f"{entry.name} takes images as they are; random crops need a network that resizes.")
        if not 0 <= seed < 2**64:
            raise ArgumentError(f"Expected a seed from 0 to 2^64 - 1, got {seed}.")
        if num_workers < 0:
            raise ArgumentError(f"Expected a num_workers of 0 or more, got {num_workers}.")
        self.labels, self.num_images, self.variant = source.labels, len(source.labels), variant
        self._source = source
        self._plan = _Plan()
        self._loader = DataLoader(
            _Crops(source, seed, entry.input_size[1:], backend),
            batch_sampler=self._plan,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory and torch.cuda.is_available(),
            collate_fn=_unchanged,
            worker_init_fn=_prepare_worker,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of what there is, see `data.listing_sha256`."""
        return listing_sha256(self._source.contents(), self.labels)

    def batches(self, order: Sequence[int] | Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield the images of these indices in this order, the last batch possibly smaller.

        Crops depend on the seed, the epoch and the index alone: a rest of an order gives the rest of the batches, and
        a repeated index the same crop again. Pixels are (N, 3, H, W) uint8 in channels-last memory. One pass at a
        time: a new one ends the last.

        Args:
            order: Indices, as the sampler hands them out.
            epoch: Counted from 0.
            batch_size: Images per batch.

        Raises:
            ArgumentError: An index that is none, a negative epoch, or a batch size below 1.
            DatasetError: An image cannot be read; the message names it.
        """
        indices = torch.as_tensor(order, dtype=torch.int64).cpu().numpy()
        if epoch < 0 or batch_size < 1:
            raise ArgumentError(f"Expected an epoch >= 0 and a batch size >= 1, got {epoch} and {batch_size}.")
        wrong = indices[(indices < 0) | (indices >= self.num_images)]
        if indices.ndim != 1 or len(wrong):
            found = f"a shape of {indices.shape}" if indices.ndim != 1 else some([str(index) for index in wrong])
            raise ArgumentError(f"Expected a list of indices from 0 to {self.num_images - 1}, got {found}.")
        return self._read(indices, epoch, batch_size)

    def _read(self, indices: npt.NDArray[np.int64], epoch: int, batch_size: int) -> Iterator[Batch]:
        self._plan.indices, self._plan.epoch, self._plan.batch_size = indices, epoch, batch_size
        for batch in self._loader:
            if batch.bad:
                raise DatasetError(batch.bad[0])
            yield batch


class _Plan:
    """The batches of the pass in progress, as lists of (epoch, index): all that the workers are told."""

    def __init__(self) -> None:
        self.indices = np.empty(0, np.int64)
        self.epoch, self.batch_size = 0, 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [(self.epoch, index) for index in self.indices[start : start + self.batch_size].tolist()]


class _Crops(Dataset[Batch]):
    """What a worker holds; it makes whole batches."""

    def __init__(self, source: Source, seed: int, size: tuple[int, ...], backend: ResizeBackend) -> None:
        self.source, self.seed, self.backend = source, seed, backend
        self.height, self.width = size

    def __getitems__(self, items: list[tuple[int, int]]) -> Batch:
        # A worker reports a bad image instead of raising, which would bring its traceback along.
        pixels = np.empty((len(items), self.height, self.width, 3), np.uint8)
        try:
            for image, (epoch, index) in zip(pixels, items, strict=True):
                image[:] = self.crop(index, epoch)
        except DatasetError as error:
            return Batch(torch.empty(0), torch.empty(0, dtype=torch.int64), [str(error)])
        labels = self.source.labels[[index for _, index in items]]
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.from_numpy(labels))

    def crop(self, index: int, epoch: int) -> npt.NDArray[np.uint8]:
        uniform = uniform_numbers(seed=self.seed, epoch=epoch, index=index)
        data, title = self.source.read(index), self.source.title(index)
        return read_crop(data, uniform, (self.height, self.width), self.backend, title=title)


def _unchanged(batch: Any) -> Any:
    return batch


def _prepare_worker(worker: int) -> None:
    """Keep OpenCV from starting a thread per core in every worker; torch sees to itself.

    And leave Ctrl-C to the training's own process, which still wants the batches of the step it stops after.
    """
    leave_interrupts(worker)
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)
