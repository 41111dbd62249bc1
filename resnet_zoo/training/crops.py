"""Random resized crops: where they lie, the pixels in them, and images read as such by index from any source.

The rule and the distribution are those of torchvision's and upstream's ``RandomResizedCrop``; the resize is the row's
own. The random numbers of an image follow from (seed, epoch, index) alone, so that neither the number of workers nor
the place where training resumes changes a bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_zoo.catalog.records import Entry, ResizeBackend
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.decode import Pixels, check_size, decode_bytes
from resnet_zoo.images.jpeg import can_decode_top, decode_top, size_of_plain_jpeg
from resnet_zoo.images.resize import resize_like_cv2, resize_like_pillow
from resnet_zoo.images.sources import Source
from resnet_zoo.images.test_sets import Batch, listing_sha256, some
from resnet_zoo.images.workers import from_workers, leave_interrupts, shared, wait_s

AREA = (0.08, 1.0)
"""Area of the crop as a share of the image's."""
ASPECT = (3 / 4, 4 / 3)
"""Width over height of the crop, uniform in its logarithm."""

LIGHT_AREA = (0.5, 1.0)
"""The same of a lighter augmentation, which seldom cuts off what an image shows."""

_TRIES = 10
_NUM_UNIFORM = 2 * _TRIES + 3
_RESIZE: dict[ResizeBackend, Callable[..., Pixels]] = {
    "cv2": resize_like_cv2,
    "pillow": resize_like_pillow,
    "pillow_bicubic": partial(resize_like_pillow, bicubic=True),
}


class Crop(NamedTuple):
    """A box in an image, in pixels, and whether what is in it gets mirrored."""

    top: int
    left: int
    height: int
    width: int
    is_flipped: bool


def uniform_numbers(*, seed: int, epoch: int, index: int) -> list[float]:
    """Return the numbers in [0, 1) that one image gets in one epoch.

    Philox is addressable: the seed and the epoch are its key, the image is the counter's second word, and
    the draws count up in the first.
    """
    philox = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, index, 0, 0], np.uint64))
    numbers: list[float] = np.random.Generator(philox).random(_NUM_UNIFORM).tolist()
    return numbers


def choose_crop(height: int, width: int, uniform: list[float], area: tuple[float, float] = AREA) -> Crop:
    """Choose a crop of an image, after torchvision's ``RandomResizedCrop.get_params``.

    Area and aspect are drawn up to ten times, until the box fits; else the largest central box of permitted aspect
    is taken.

    Args:
        height: Of the image.
        width: Of the image.
        uniform: From `uniform_numbers`.
        area: Of the crop, as a share of the image's.
    """
    flip, at_top, at_left, *draws = uniform
    low, high = (math.log(value) for value in ASPECT)
    for share, shape in zip(draws[::2], draws[1::2], strict=True):
        target = height * width * (area[0] + (area[1] - area[0]) * share)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(at_top * (height - h + 1)), int(at_left * (width - w + 1)), h, w, flip < 0.5)
    h, w = min(height, round(width / ASPECT[0])), min(width, round(height * ASPECT[1]))
    return Crop((height - h) // 2, (width - w) // 2, h, w, flip < 0.5)


def crop_and_resize(pixels: Pixels, crop: Crop, size: tuple[int, int], backend: ResizeBackend) -> Pixels:
    """Cut the box out of (H, W, 3) uint8, then resize it to (height, width, 3), then mirror it: upstream's order.

    Pillow's ``resize(box=...)`` would look beyond the box.
    """
    box = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    return _RESIZE[backend](box, *size, flip=crop.is_flipped)


def read_crop(
    data: Pixels,
    uniform: list[float],
    size: tuple[int, int],
    backend: ResizeBackend,
    *,
    title: str,
    area: tuple[float, float] = AREA,
) -> Pixels:
    """Decode an image file's bytes and take its random resized crop: (height, width, 3) uint8 RGB.

    The rows below the crop are not decoded where that leaves every pixel as it is (see `jpeg.decode_top`).

    Args:
        data: The bytes of the file, (n,) uint8.
        uniform: From `uniform_numbers`.
        size: Height and width of the result.
        backend: The row's.
        title: What an error calls the image.
        area: As in `choose_crop`.

    Raises:
        DatasetError: The image cannot be decoded.
    """
    image_size = size_of_plain_jpeg(data) if can_decode_top() else None
    if image_size is not None:
        check_size(*image_size, title)
        crop = choose_crop(*image_size, uniform, area)
        with suppress(ValueError):  # the other decoder reads the file, or reports what is wrong with it
            return crop_and_resize(decode_top(data, crop.top + crop.height), crop, size, backend)
    pixels = decode_bytes(data, title)
    height, width, _ = pixels.shape
    return crop_and_resize(pixels, choose_crop(height, width, uniform, area), size, backend)


class CropImages:
    """The images of a source, read by index.

    Args:
        entry: Its input size and how it resizes; a row or network that resizes.
        source: The images.
        variant: What the images are, as `LabelledImages.variant`.
        seed: Of the crops and flips, 0 to 2^64 - 1.
        num_workers: Processes that read; they stay from epoch to epoch. 0 reads in this process.
        pin_memory: Put batches into page-locked memory, where there is a GPU.
        area: Of the crops, as in `choose_crop`.

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
        area: tuple[float, float] = AREA,
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
            _Crops(source, seed, entry.input_size[1:], backend, area),
            batch_sampler=self._plan,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pin_memory and torch.cuda.is_available(),
            collate_fn=_unchanged,
            worker_init_fn=_prepare_worker,
            timeout=wait_s(num_workers),
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """The sha256 of what there is, see `data.listing_sha256`."""
        return listing_sha256(self._source.contents(), self.labels)

    def batches(self, order: Sequence[int] | Tensor, *, epoch: int, batch_size: int) -> Iterator[Batch]:
        """Yield the images of these indices in this order, the last batch possibly smaller.

        Crops depend on the seed, the epoch and the index alone: the rest of an order gives the rest of the batches, and
        a repeated index the same crop again. Pixels are (N, 3, H, W) uint8 in channels-last memory. One pass at a
        time: a new one ends the last.

        Args:
            order: Indices, as the sampler hands them out.
            epoch: Counted from 0.
            batch_size: Images per batch.

        Raises:
            ArgumentError: An index that is out of range, a negative epoch, or a batch size below 1.
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
        for batch in from_workers(self._loader, self._loader.num_workers):
            if batch.bad:
                raise DatasetError(batch.bad[0])
            yield batch


class _Plan:
    """The batches of the pass in progress, as lists of (epoch, index): all that the workers need."""

    def __init__(self) -> None:
        self.indices = np.empty(0, np.int64)
        self.epoch, self.batch_size = 0, 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.indices), self.batch_size):
            yield [(self.epoch, index) for index in self.indices[start : start + self.batch_size].tolist()]


class _Crops(Dataset[Batch]):
    """What a worker holds; it makes whole batches."""

    def __init__(
        self, source: Source, seed: int, size: tuple[int, ...], backend: ResizeBackend, area: tuple[float, float]
    ) -> None:
        self.source, self.seed, self.backend, self.area = source, seed, backend, area
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
        return Batch(shared(torch.from_numpy(pixels)).permute(0, 3, 1, 2), shared(torch.from_numpy(labels)))

    def crop(self, index: int, epoch: int) -> npt.NDArray[np.uint8]:
        uniform = uniform_numbers(seed=self.seed, epoch=epoch, index=index)
        data, title = self.source.read(index), self.source.title(index)
        return read_crop(data, uniform, (self.height, self.width), self.backend, title=title, area=self.area)


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
