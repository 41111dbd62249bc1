"""Top-1 and top-5 accuracy, counted as upstream counts them."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnet_zoo.base.devices import borrowed, device_title, exact_float32, resolve_device
from resnet_zoo.base.machine import versions
from resnet_zoo.base.progress import Progress
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import Precision
from resnet_zoo.catalog.records import used_with
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.test_sets import Batch, batches, open_test_set
from resnet_zoo.images.transform import Transform
from resnet_zoo.inference.calibration import made_fast
from resnet_zoo.inference.finite import LateCheck
from resnet_zoo.inference.optimization import OptimizedModel
from resnet_zoo.weights.loading import assign_weights, open_weights
from resnet_zoo.weights.provenance import Chain, chain_of

TOP_K = (1, 5)


@dataclass(frozen=True)
class Evaluation:
    """A measured accuracy and everything it depends on.

    Attributes:
        name: The row.
        dataset: The images; the bare name of a data set means its complete official test set.
        num_images: Images counted.
        correct1: Images whose label is the best class.
        correct5: Images whose label is among the five best classes.
        top1_interval: 95% Wilson score interval of top-1, in percent.
        top5_interval: The same of top-5.
        num_skipped: Images left out because they could not be read.
        skipped: What was wrong with each of them.
        published_top1: What the publisher of the weights printed for this test size; otherwise the row's number.
        published_top5: The same of top-5.
        images_per_s: Images per second, reading and preprocessing included.
        precision: ``float32`` or ``bfloat16``, and what `optimize_for_inference` did if it was used.
        device: The device's name.
        chain: Where the weights come from, every link with its hash; ``None`` for a model passed in.
        versions: Of Python and of the packages that the numbers depend on.
    """

    name: str
    dataset: str
    num_images: int
    correct1: int
    correct5: int
    top1_interval: tuple[float, float]
    top5_interval: tuple[float, float]
    num_skipped: int
    skipped: tuple[str, ...]
    published_top1: str
    published_top5: str
    images_per_s: float
    precision: str
    device: str
    chain: Chain | None
    versions: dict[str, str]

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct1 / self.num_images

    @property
    def top5(self) -> float:
        """Top-5 accuracy in percent."""
        return 100 * self.correct5 / self.num_images


def evaluate(
    name: str,
    data: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    model: nn.Module | None = None,
    size: int | None = None,
    device: torch.device | str = "auto",
    precision: Precision = "float32",
    fast: bool = False,
    calibration: str | os.PathLike[str] | None = None,
    batch_size: int = 64,
    num_workers: int | None = None,
    skip_bad: bool = False,
    partial: bool = False,
    download: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure top-1 and top-5 accuracy of a row on its test set, as upstream does.

    Every image is counted once, with the preprocessing of the weight set: softmax, then the k best classes. As in
    upstream's metric, a class counts only if its probability is above zero, which matters where half precision
    underflows.

    Args:
        name: A row or alias.
        data: The folder of the test images, see `open_test_set`.
        weights: A tag or path, as in `create_model`; ``None`` means the row's default weights.
        model: A network to evaluate instead of loading ``weights``, which then only select the preprocessing. An
            optimised network keeps its own precision. The network is left as it was.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        precision: ``float32`` (TF32 off), or ``bfloat16`` for speed.
        fast: Use `optimize_for_inference`, with bfloat16 where the device multiplies it.
        calibration: A folder of images like those to come: compute in 8-bit integers, on a CPU with the extra ``int8``.
        batch_size: Images per forward pass.
        num_workers: Processes that decode images; ``None`` means 0 on a CPU, up to 8 beside an accelerator.
        skip_bad: Count and report unreadable images instead of raising.
        partial: Accept a folder in which classes are missing.
        download: CIFAR only: fetch the official archive if it is missing.
        progress: Called with (images done, images in all) after every batch.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, WeightsMismatchError, DownloadError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `create_model`.
        DatasetError: The images are missing, incomplete or unreadable.
        NonFiniteOutputError: An output is infinite or NaN, as from damaged weights.
        ArgumentError: The weights were not tested at ``size``, the model has another number of classes, the precision
            is unknown or given together with ``fast`` or ``calibration``, a number is out of range, or the device is
            not available.

    Example:
        >>> result = resnet_zoo.evaluate("resnet18_cifar10", "cifar10/")
        >>> print(f"top-1 {result.top1:.2f}%, published {result.published_top1}%")
        top-1 ...%, published 94.82%
        >>> result.num_images, result.dataset
        (10, 'cifar10-png-10images')
    """
    entry = get_entry(name)
    device = resolve_device(device)
    _check_arguments(
        precision, batch_size, num_workers, "int8" if calibration is not None else "fast" if fast else None
    )
    chosen = entry.chosen(weights) if weights is not None or model is None else None
    entry = used_with(entry, chosen, size=size)
    images = open_test_set(entry, data, skip_bad=skip_bad, partial=partial, download=download)
    chain = None
    if model is None:
        opened = open_weights(entry, entry.chosen(chosen))
        chain = chain_of(opened)
        model = assign_weights(entry, opened.checkpoint)
    transform = Transform(entry.preprocess, entry.input_size)
    model = made_fast(model, device, transform, fast=fast, calibration=calibration)
    if num_workers is None:
        num_workers = 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    count = count_correct(
        model,
        batches(images, batch_size, num_workers=num_workers, pin_memory=device.type == "cuda"),
        transform.normalise,
        device=device,
        precision=precision,
        progress=(lambda done: progress(done, len(images))) if progress else None,
        finite_only=True,
        num_classes=entry.num_classes,
    )
    if not count.num_images:
        raise DatasetError(f"{data}: none of the {len(images)} images can be read; first: {count.skipped[0]}")
    return Evaluation(
        name=entry.name,
        dataset=images.variant,
        num_images=count.num_images,
        correct1=count.correct[0],
        correct5=count.correct[1],
        top1_interval=wilson_interval(count.correct[0], count.num_images),
        top5_interval=wilson_interval(count.correct[1], count.num_images),
        num_skipped=len(count.skipped),
        skipped=tuple(count.skipped),
        published_top1=entry.published.top1,
        published_top5=entry.published.top5,
        images_per_s=count.num_images / count.seconds,
        precision=model.precision if isinstance(model, OptimizedModel) else precision,
        device=device_title(device),
        chain=chain,
        versions=versions(),
    )


@dataclass(frozen=True)
class Count:
    """How many of ``num_images`` labels were among the best 1 and the best 5 classes."""

    num_images: int
    correct: tuple[int, ...]
    skipped: list[str]
    seconds: float


def count_correct(
    model: nn.Module,
    loader: Iterator[Batch],
    normalise: Callable[[Tensor], Tensor],
    *,
    device: torch.device,
    precision: Precision = "float32",
    progress: Callable[[int], None] | None = None,
    finite_only: bool = False,
    num_classes: int | None = None,
) -> Count:
    """Run the model over batches of pixels, and count the labels among its best classes.

    The model is moved to the device and put in eval mode, and afterwards left as it was; for a precision other than
    float32, a copy of it is used. An optimised network keeps its own precision and memory format.

    Raises:
        NonFiniteOutputError: An output is infinite or NaN, and ``finite_only``; otherwise it counts as wrong.
        ArgumentError: The model does not give a logit for each of ``num_classes``; ``None`` checks nothing.
    """
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    memory_format = torch.contiguous_format if precision == "float32" else torch.channels_last
    num_images, skipped = 0, list[str]()
    correct = torch.zeros(len(TOP_K), dtype=torch.int64, device=device)
    start = time.perf_counter()
    with borrowed(model):
        if isinstance(model, OptimizedModel):
            model = model.to(device)
        else:
            model = model if dtype == torch.float32 else copy.deepcopy(model)
            model = model.to(device, dtype, memory_format=memory_format).eval()  # type: ignore[call-overload]
        late_check = LateCheck(model) if finite_only else None
        with torch.inference_mode(), exact_float32(device):
            for batch in loader:
                skipped += batch.bad
                num_images += len(batch.labels)
                if len(batch.labels):
                    x = normalise(batch.pixels.to(device, non_blocking=True)).to(dtype, memory_format=memory_format)
                    logits = model(x)
                    if num_classes not in (None, logits.shape[1]):
                        raise ArgumentError(
                            f"Expected a model of {num_classes} classes; this one gives {logits.shape[1]} values per "
                            "image."
                        )
                    correct += correct_in_top_k(logits, batch.labels.to(device, non_blocking=True))
                    if late_check:
                        late_check.add(logits, x)
                if progress:
                    progress(num_images + len(skipped))
            if late_check:
                late_check.finish()
    counts = tuple(correct.tolist())
    return Count(num_images, counts, skipped, time.perf_counter() - start)


def correct_in_top_k(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how many of N labels are among the 1 and the 5 best classes: a (2,) int64 tensor.

    Args:
        logits: (N, K).
        labels: (N,).
    """
    scores, classes = logits.float().softmax(dim=1).topk(min(max(TOP_K), logits.shape[1]), dim=1)
    hits = (classes == labels[:, None]) & (scores > 0)
    return torch.stack([hits[:, :k].sum() for k in TOP_K])


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion, in percent (Wilson 1927)."""
    z = 1.959963984540054
    proportion = correct / total
    centre = proportion + z * z / (2 * total)
    margin = z * math.sqrt(proportion * (1 - proportion) / total + z * z / (4 * total * total))
    scale = 100 / (1 + z * z / total)
    return max(0.0, (centre - margin) * scale), min(100.0, (centre + margin) * scale)


def _check_arguments(precision: str, batch_size: int, num_workers: int | None, mode: str | None) -> None:
    if precision not in ("float32", "bfloat16"):
        raise ArgumentError(f"Expected precision float32 or bfloat16, got {precision!r}.")
    if mode and precision != "float32":
        raise ArgumentError(f"{mode} chooses its own precision; got precision {precision} too. Leave one of them out.")
    if batch_size < 1:
        raise ArgumentError(f"Expected a positive batch size, got {batch_size}.")
    if num_workers is not None and num_workers < 0:
        raise ArgumentError(f"Expected a num_workers of 0 or more, got {num_workers}.")
