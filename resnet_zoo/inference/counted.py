"""A network's answers over batches of images, counted as upstream counts them."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnet_zoo.base.devices import borrowed, exact_float32
from resnet_zoo.catalog.recipes import Precision
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.test_sets import Batch
from resnet_zoo.inference.finite import LateCheck
from resnet_zoo.inference.optimization import OptimizedModel
from resnet_zoo.inference.scores import Answers

TOP_K = (1, 5)


@dataclass(frozen=True)
class Count:
    """How many of ``num_images`` labels were among the best 1 and the best 5 classes, and the best class of each."""

    num_images: int
    correct: tuple[int, ...]
    skipped: list[str]
    seconds: float
    answers: Answers


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
    num_images, skipped, answers = 0, list[str](), list[tuple[Tensor, Tensor, Tensor]]()
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
                    scores, classes = best_classes(logits)
                    correct += correct_in_top_k(scores, classes, batch.labels.to(device, non_blocking=True))
                    answers.append((batch.labels, classes[:, 0], scores[:, 0]))
                    if late_check:
                        late_check.add(logits, x)
                if progress:
                    progress(num_images + len(skipped))
            if late_check:
                late_check.finish()
    counts, seconds = tuple(correct.tolist()), time.perf_counter() - start
    empty = torch.empty(0, dtype=torch.int64)
    columns = zip(*answers, strict=True) if answers else ([empty], [empty], [empty.float()])
    return Count(num_images, counts, skipped, seconds, Answers(*(torch.cat(list(x)).cpu().numpy() for x in columns)))


def best_classes(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities and labels of the five best classes, or of all if there are fewer: (N, 5) each.

    Args:
        logits: (N, K).
    """
    scores, classes = logits.float().softmax(dim=1).topk(min(max(TOP_K), logits.shape[1]), dim=1)
    return scores, classes


def correct_in_top_k(scores: Tensor, classes: Tensor, labels: Tensor) -> Tensor:
    """Return how many of N labels are among the 1 and the 5 best classes: a (2,) int64 tensor.

    Args:
        scores: (N, 5), of `best_classes`.
        classes: (N, 5), of `best_classes`.
        labels: (N,).
    """
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
