"""One vector per image: what a network has pooled before its classifier.

On a CPU every thread takes whole batches, from the file to the vectors, and computes them on one core. That keeps all
cores busy without waiting for each other; and a batch then always gives the same bits, however many cores, processes
and machines share the work (with several cores per batch, torch splits some sums by their number). In float32 the last
bits also depend on how many images a batch has, though not on which, nor on their order: a batch that lacks some is
filled up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import torch
from torch import Tensor, nn

from resnet_zoo.base.devices import exact_float32, resolve_device
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.batches import ImageBatch, OnBad, batched, map_in_order, num_cores, read_batch
from resnet_zoo.images.listing import IMAGE_COLUMN, find_all, with_bytes
from resnet_zoo.images.transform import ImageSource, Transform, each_image
from resnet_zoo.inference.calibration import made_fast
from resnet_zoo.inference.finite import check_finite
from resnet_zoo.inference.optimization import OptimizedModel
from resnet_zoo.inference.unfinished import Rows
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.zoo import Network, open_network

LAYER = "pool"
"""What a vector is: the maps of the last stage, averaged over their height and width."""


class Pooled(nn.Module):
    """A network without its classifier: images (N, 3, H, W) to vectors (N, C)."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the pooled maps of the last stage."""
        return self.network.forward_head(self.network.forward_features(x), pre_logits=True)


@dataclass(frozen=True)
class Pipeline:
    """A network ready to turn batches of images into vectors.

    Attributes:
        model: Images (N, 3, H, W) to vectors (N, C).
        transform: How an image gets in.
        device: Where it computes.
        channels: C.
        precision: What it computes with, for records.
        batch_size: Images per forward pass; a batch with fewer is filled up.
        num_threads: Threads that read images, and on a CPU compute.
    """

    model: nn.Module
    transform: Transform
    device: torch.device
    channels: int
    precision: str
    batch_size: int
    num_threads: int

    @classmethod
    def of(
        cls,
        network: Network,
        device: torch.device,
        *,
        fast: bool,
        batch_size: int,
        num_threads: int,
        calibration: str | os.PathLike[str] | None = None,
    ) -> Pipeline:
        """Load a network's weights and make it ready."""
        transform, model = network.transform, network.load()
        transform.notice = network.notice
        channels, precision = model.num_features, "float32"
        pooled: nn.Module = Pooled(model).to(device).eval()
        pooled = made_fast(pooled, device, transform, fast=fast, calibration=calibration)
        if isinstance(pooled, OptimizedModel):
            precision = pooled.precision
            if pooled.engine:
                pooled.engine = pooled.engine.for_callers(num_threads)
                if calibration is not None:  # other images make another network of the same weights
                    precision = f"{precision}, constants {pooled.engine.digest()[:8]}"
        return cls(pooled, transform, device, channels, precision, batch_size, num_threads)

    def batches(self, batches: Iterable[Sequence[ImageSource]]) -> Iterator[tuple[ImageBatch, Rows]]:
        """Yield each batch of images as it was read, with its vectors (N, C), in order."""
        if self.device.type != "cpu":
            read = map_in_order(partial(read_batch, transform=self.transform), batches, num_threads=self.num_threads)
            yield from ((batch, self.vectors(batch)) for batch in read)
            return
        with one_core_per_thread() as initializer:
            yield from map_in_order(self._read_and_run, batches, num_threads=self.num_threads, initializer=initializer)

    def _read_and_run(self, sources: Sequence[ImageSource]) -> tuple[ImageBatch, Rows]:
        batch = read_batch(sources, self.transform)
        return batch, self.vectors(batch)

    def vectors(self, batch: ImageBatch) -> Rows:
        """Return the vectors (N, C) of the readable images of a batch, float32; they are finite, or refused."""
        if not batch.titles:
            return np.empty((0, self.channels), np.float32)
        with torch.inference_mode(), exact_float32(self.device):
            x = self.transform.normalise(batch.pixels.to(self.device))
            if missing := max(0, self.batch_size - len(x)):
                x = torch.cat([x, x.new_zeros(missing, *x.shape[1:])])
            found: Tensor = self.model(x)[: len(batch.titles)]
            check_finite(found, self.model, x)
            rows: Rows = found.float().cpu().numpy()
        return rows


def check_numbers(batch_size: int, num_threads: int | None) -> None:
    """Refuse numbers that are not positive.

    Raises:
        ArgumentError: One is not.
    """
    for title, number in (("batch size", batch_size), ("number of threads", num_threads)):
        if number is not None and number < 1:
            raise ArgumentError(f"Expected a positive {title}, got {number}.")


@contextlib.contextmanager
def one_core_per_thread() -> Iterator[Callable[[], None]]:
    """Give what makes a new thread compute on one core, and put torch's setting back at the end."""
    before = torch.get_num_threads()
    try:
        yield partial(torch.set_num_threads, 1)
    finally:
        torch.set_num_threads(before)


def embed(
    name: str | os.PathLike[str],
    images: ImageSource | Iterable[ImageSource],
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    device: torch.device | str = "auto",
    batch_size: int = 16,
    fast: bool = False,
    image_column: str = IMAGE_COLUMN,
    calibration: str | os.PathLike[str] | None = None,
    on_bad: OnBad | None = None,
) -> Rows:
    """Return one vector per image, in memory; `embed_files` handles any number of files.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        images: One image or several: paths, bytes of image files, PIL images, (H, W, 3) uint8 RGB arrays or (3, H, W)
            uint8 tensors; several also as an array of paths, or as one array (N, H, W, 3) or tensor (N, 3, H, W). A
            path may also be a folder, a shard or an address, as in `embed_files`.
        weights: A tag or path, as in `create_model`; ``None`` means the model's default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        batch_size: Images per forward pass.
        fast: Use `optimize_for_inference`, with bfloat16 where the device multiplies it.
        image_column: The column of parquet files with the images, as in `embed_files`.
        calibration: A folder of images like those to come: compute in 8-bit integers, on a CPU with the extra ``int8``.
        on_bad: Called with the error of each unreadable image, which is then left out, instead of raising it.

    Returns:
        (N, C) float32: C is 512 (ResNet-18 and 34) or 2048.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, WeightsMismatchError, DownloadError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        DatasetError: An image is missing or unreadable; or a folder or shard, as in `embed_files`.
        NonFiniteOutputError: A vector is infinite or NaN, as from damaged weights.
        ArgumentError: The weights were not tested at ``size``, the network does not take RGB images, the batch size is
            not positive, or the device is not available.

    Example:
        >>> resnet_zoo.embed("resnet18_cifar10", ["photos/a.jpg", "photos/b.jpg"]).shape
        (2, 512)
    """
    if batch_size < 1:
        raise ArgumentError(f"Expected a positive batch size, got {batch_size}.")
    network, target = open_network(name, weights=weights, size=size), resolve_device(device)
    found = with_bytes(find_all(each_image(images), column=image_column))
    first = [*islice(found, batch_size)]
    pipeline = Pipeline.of(
        network, target, fast=fast, batch_size=len(first), num_threads=num_cores(), calibration=calibration
    )
    rows = [np.empty((0, pipeline.channels), np.float32)]
    for batch, vectors in pipeline.batches(batched(chain(first, found), batch_size)):
        batch.report_bad(on_bad)
        rows.append(vectors)
    return np.concatenate(rows)
