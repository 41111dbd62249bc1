"""Vectors of batches as other engines hand them out: a class made once per worker, such as an actor of Ray Data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import torch

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import batched, num_cores
from resnet_zoo.images.listing import IMAGE_COLUMN, LoadedRow
from resnet_zoo.inference.embedding import Pipeline, check_numbers
from resnet_zoo.zoo import open_network


class Embedder:
    """Adds vectors to batches of images; the network is loaded once, when it is made.

    A callable for engines that share out the work, as a class or an instance: Ray Data's ``map_batches``, or any
    ``map``. The vectors are those of `embed_files`, to the last bit, however the images are dealt into batches, if
    ``batch_size``, ``fast``, ``calibration`` and the kind of device are the same.

    It pickles as its arguments, and loads the weights anew where it is unpickled: give a path that is there.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        weights: A tag or path, as in `create_model`; ``None`` means the model's default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        batch_size: Images per forward pass, whatever the size of the batches given; some are computed at a time on a
            CPU, one by each thread, so let those be larger. The last bits of a vector depend on it.
        num_threads: Threads that read images, and on a CPU compute; ``None`` means as many as torch uses (in Ray, the
            ``num_cpus`` of the worker).
        fast: Use `optimize_for_inference`, with bfloat16 where the device multiplies it.
        calibration: A folder of images like those to come: compute in 8-bit integers, on a CPU with the extra ``int8``.
            Every worker calibrates its own network: each must see the same folder.
        image_column: The key of the images in a batch.
        output_column: The key of their vectors.
        skip_bad: Leave the rows of unreadable images out of the result, instead of raising.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, WeightsMismatchError, DownloadError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        ArgumentError: The weights were not tested at ``size``, the network does not take RGB images, a number is not
            positive, there are too few calibration images, or the device is not available.
        DatasetError: The calibration images are missing or unreadable.

    Example:
        >>> embedder = resnet_zoo.Embedder("resnet18_cifar10")
        >>> batch = embedder({"image": ["photos/a.jpg", Path("photos/b.jpg").read_bytes()], "label": [3, 5]})
        >>> batch["embedding"].shape, batch["label"]
        ((2, 512), [3, 5])
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        size: int | None = None,
        device: torch.device | str = "auto",
        batch_size: int = 16,
        num_threads: int | None = None,
        fast: bool = False,
        calibration: str | os.PathLike[str] | None = None,
        image_column: str = IMAGE_COLUMN,
        output_column: str = "embedding",
        skip_bad: bool = False,
    ) -> None:
        threads = min(num_cores(), torch.get_num_threads()) if num_threads is None else num_threads
        check_numbers(batch_size, threads)
        self._remade: Callable[[], Embedder] = partial(
            type(self),
            name,
            weights=weights,
            size=size,
            device=device,
            batch_size=batch_size,
            num_threads=num_threads,
            fast=fast,
            calibration=calibration,
            image_column=image_column,
            output_column=output_column,
            skip_bad=skip_bad,
        )
        network, target = open_network(name, weights=weights, size=size), resolve_device(device)
        self._pipeline = Pipeline.of(
            network, target, fast=fast, batch_size=batch_size, num_threads=threads, calibration=calibration
        )
        self._image_column, self._output_column, self._skip_bad = image_column, output_column, skip_bad

    def __reduce__(self) -> tuple[Callable[[], Embedder], tuple[()]]:
        return self._remade, ()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return a batch with its vectors beside it.

        Args:
            batch: Columns of equal length by name. Images are paths or addresses, bytes of image files, structs with
                such ``bytes``, or (H, W, 3) uint8 RGB arrays.

        Returns:
            All columns, and the vectors (N, C) float32.

        Raises:
            DatasetError: An image is missing or unreadable, and ``skip_bad`` is not set.
            NonFiniteOutputError: A vector is infinite or NaN, as from damaged weights.
            ArgumentError: The batch has no column of images.
        """
        if self._image_column not in batch:
            raise ArgumentError(
                f"The batch has no column {self._image_column!r}; its columns are {', '.join(map(str, batch))}. Name "
                "the one that holds images (image_column)."
            )
        images = [_image_of(item, row) for row, item in enumerate(batch[self._image_column])]
        readable = np.ones(len(images), bool)
        rows = [np.empty((0, self._pipeline.channels), np.float32)]
        start = 0
        for part, vectors in self._pipeline.batches(batched(images, self._pipeline.batch_size)):
            if part.bad and not self._skip_bad:
                part.report_bad(None)
            readable[[start + at for at in part.bad]] = False
            start += len(part.titles) + len(part.bad)
            rows.append(vectors)
        return {**_some_rows(batch, readable), self._output_column: np.concatenate(rows)}


def _image_of(item: Any, row: int) -> Any:
    """Return what is read as the image of a row; bytes have no name, so that errors tell the row."""
    if isinstance(item, Mapping):
        item = item.get("bytes")
    title = f"Row {row} of the batch"
    return LoadedRow(title, title, item) if item is None or isinstance(item, bytes) else item


def _some_rows(batch: Mapping[str, Any], chosen: Any) -> dict[str, Any]:
    """Return some rows of each column; all of them as they are."""
    if chosen.all():
        return dict(batch)
    return {
        name: column[chosen] if isinstance(column, np.ndarray) else [*compress(column, chosen)]
        for name, column in batch.items()
    }
