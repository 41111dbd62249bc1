"""The official data sets: how many images each split has, which pixels, and what a part of one says about the whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Protocol

Split = Literal["train", "test"]

NUM_IMAGES: dict[Split, dict[str, int]] = {
    "train": {"cifar10": 50_000, "cifar100": 50_000, "in1k": 1_281_167},
    "test": {"cifar10": 10_000, "cifar100": 10_000, "in1k": 50_000},
}
"""Images of each official split."""

FINGERPRINTS: dict[tuple[str, Split], str] = {
    ("cifar100", "train"): "1c57106032edd84e6a962109ce5e2460e9f9b0ef093bf138f39da3351d7b99f5",
    ("cifar100", "test"): "9441afb8a325bd66ff6bdf272a279a5b80611c688d9bf929da058b154807d930",
}
"""The `data.pixels_fingerprint` of official splits, computed from the archive's pixels and labels.

CIFAR-10's are not known here; its archive is recognised by its md5 sums.
"""

_OFFICIAL_KINDS = re.compile(
    r"(?P<dataset>cifar10|cifar100)(-png)?(-\d+images|-\d+of\d+classes)?|(?P<other>in1k)(-\d+images|-\d+of\d+classes)?"
)
"""What `LabelledImages.variant` says of images that may be those of an official set, as they are."""


class Accuracy(Protocol):
    """What was measured: an evaluation, a record in the manifest, or a run's result."""

    @property
    def dataset(self) -> str: ...  # noqa: D102
    @property
    def num_images(self) -> int: ...  # noqa: D102
    @property
    def top1(self) -> float: ...  # noqa: D102
    @property
    def top5(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class OfficialAccuracy:
    """Bounds of an accuracy on the official test set in percent, from the images that were counted.

    Attributes:
        low: If every missing image were wrong.
        high: If every missing image were right; equal to ``low`` if none is missing.
        num_missing: Images of the official set that were not counted.
        num_official: Images of the official set.
    """

    low: float
    high: float
    num_missing: int
    num_official: int

    def status(self, low: float, high: float) -> Literal["passed", "failed", "not checked"]:
        """Compare both bounds, to two decimals, with the allowed accuracies from ``low`` to ``high``.

        Passed if every possible accuracy is allowed, failed if none is.
        """
        lowest, highest = round(self.low, 2), round(self.high, 2)
        if low - 1e-9 <= lowest and highest <= high + 1e-9:
            return "passed"
        return "failed" if highest < low - 1e-9 or lowest > high + 1e-9 else "not checked"

    @property
    def words(self) -> str:
        """What the missing images leave open, empty if none is missing."""
        if not self.num_missing:
            return ""
        return (
            f"{self.low:.2f} to {self.high:.2f} on the official {self.num_official:,}, of which {self.num_missing:,} "
            "are missing here"
        )


def official_accuracy(dataset: str, measured: Accuracy, top: Literal["top1", "top5"]) -> OfficialAccuracy | None:
    """Return what a measurement says about the official test set; ``None`` for other images.

    PNG files keep pixels as they are: CIFAR in PNG files is taken for the official set, or for a part of it. Whether it
    is, is known only of a complete set whose fingerprint is known.

    Args:
        dataset: The official data set: ``cifar10``, ``cifar100`` or ``in1k``.
        measured: Its ``dataset`` is a `LabelledImages.variant`.
        top: Which accuracy.
    """
    kind = _OFFICIAL_KINDS.fullmatch(measured.dataset)
    missing = NUM_IMAGES["test"][dataset] - measured.num_images
    if kind is None or dataset not in kind.groupdict().values() or missing < 0:
        return None
    correct, total = round(getattr(measured, top) * measured.num_images / 100), measured.num_images + missing
    return OfficialAccuracy(100 * correct / total, 100 * (correct + missing) / total, missing, total)
