"""How well answers fit the labels: by class, which class is taken for which, and whether probabilities can be believed.

The picture of the confusion matrix needs matplotlib (extra ``plots``), which is imported when it is drawn.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_zoo.base.files import check_target, write_atomically
from resnet_zoo.base.shown import printable
from resnet_zoo.errors import ArgumentError

Confusion = tuple[tuple[int, ...], ...]
"""Images by actual class (rows) and best class (columns)."""

SUFFIXES = (".json", ".csv", ".png", ".svg", ".pdf")
"""What a confusion matrix is written to."""

NUM_BINS = 15
"""Bins of the calibration error, as Guo et al. 2017 (https://arxiv.org/abs/1706.04599) and most after them have."""


@dataclass(frozen=True)
class ClassAccuracy:
    """How well one class is recognised.

    Attributes:
        label: Its position.
        name: Its name.
        num_images: Images of the class.
        correct1: Of them, taken for it.
        num_predicted: Images of any class taken for it.
        top1: ``correct1`` of ``num_images`` in percent (recall); ``None`` without images.
        precision_pct: ``correct1`` of ``num_predicted`` in percent; ``None`` if no image was taken for it.
    """

    label: int
    name: str
    num_images: int
    correct1: int
    num_predicted: int
    top1: float | None
    precision_pct: float | None


@dataclass(frozen=True)
class Answers:
    """The best class of each image, beside its label.

    Attributes:
        labels: (N,) int64.
        predicted: (N,) int64, the best class.
        probability: (N,) float32, that of the best class.
    """

    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    probability: npt.NDArray[np.float32]

    def confusion(self, num_classes: int) -> Confusion:
        """Count images by actual class and best class."""
        cells = np.bincount(self.labels * num_classes + self.predicted, minlength=num_classes**2)
        return tuple(map(tuple, cells.reshape(num_classes, num_classes).tolist()))

    @property
    def calibration_error_pct(self) -> float:
        """The expected calibration error in points: how far probabilities of the best class are from the accuracy.

        Images are put into `NUM_BINS` bins of equal width by their probability; in each the mean probability is
        compared with the share that is right, and the differences are averaged over images. Of few images it is larger
        than of many, by chance alone.
        """
        bins = np.clip(np.ceil(self.probability.astype(np.float64) * NUM_BINS).astype(np.int64) - 1, 0, NUM_BINS - 1)
        surplus = self.probability.astype(np.float64) - (self.labels == self.predicted)
        sums = np.bincount(bins, weights=surplus, minlength=NUM_BINS)
        return float(100 * np.abs(sums).sum() / len(self.labels))


def class_accuracies(confusion: Confusion, names: Sequence[str]) -> tuple[ClassAccuracy, ...]:
    """Return how well each class is recognised, in label order."""
    columns = np.array(confusion, dtype=np.int64).sum(axis=0).tolist()
    found = []
    for label, (row, num_predicted) in enumerate(zip(confusion, columns, strict=True)):
        num_images, correct = sum(row), row[label]
        top1 = 100 * correct / num_images if num_images else None
        precision = 100 * correct / num_predicted if num_predicted else None
        found.append(ClassAccuracy(label, names[label], num_images, correct, num_predicted, top1, precision))
    return tuple(found)


def most_confused(confusion: Confusion, count: int) -> list[tuple[int, int, int]]:
    """Return the pairs of classes that are most often confused: actual, taken for, images; the most images first."""
    cells = np.array(confusion, dtype=np.int64)
    np.fill_diagonal(cells, 0)
    order = np.argsort(-cells, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(order, cells.shape)
    pairs = zip(rows.tolist(), columns.tolist(), cells[rows, columns].tolist(), strict=True)
    return [pair for pair in pairs if pair[2]]


def check_confusion_target(target: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Refuse a target before anything is measured for it.

    Raises:
        ArgumentError: It exists, or has another suffix than `SUFFIXES`; or it is a picture, and matplotlib is missing.
        OSError: Its folder is missing or cannot be written.
    """
    target = Path(target)
    check_target(target, SUFFIXES, overwrite=overwrite)
    if target.suffix not in (".json", ".csv"):
        _matplotlib()


def write_confusion(confusion: Confusion, names: Sequence[str], target: str | os.PathLike[str]) -> None:
    """Write a confusion matrix: as ``.json`` (``class_names``, ``confusion``), ``.csv``, or a picture, by suffix.

    Raises:
        ArgumentError: The suffix is not one of `SUFFIXES`, or matplotlib is missing.
        OSError: It cannot be written; nothing is left behind.
    """
    target = Path(target)
    if target.suffix == ".json":
        rows = ",\n  ".join(json.dumps(list(row), separators=(",", ":")) for row in confusion)
        text = f'{{\n "class_names": {json.dumps(list(names))},\n "confusion": [\n  {rows}\n ]\n}}\n'
        write_atomically(target, lambda part: part.write_text(text, encoding="utf-8"))
    elif target.suffix == ".csv":
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\r\n")
        writer.writerow(["actual", *map(_cell, names)])
        writer.writerows([_cell(name), *row] for name, row in zip(names, confusion, strict=True))
        write_atomically(target, lambda part: part.write_bytes(lines.getvalue().encode()))
    else:
        figure, kind = _figure(confusion, names), target.suffix[1:]
        metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        if metadata is None:
            raise ArgumentError(f"{target}: expected a file that ends in {', '.join(SUFFIXES)}.")
        write_atomically(target, lambda part: figure.savefig(part, format=kind, metadata=metadata))


def _cell(name: str) -> str:
    """Return a name that no spreadsheet takes for a formula (OWASP, CSV injection)."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


_NAMED, _NUMBERED = 60, 25
"""Classes of the largest picture with their names at the axes, and with the numbers in the cells."""

_LONGEST_NAME = 24


def _matplotlib() -> Any:
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.layout_engine
    except ImportError as error:
        raise ArgumentError(
            "A picture of the confusion matrix needs matplotlib: pip install 'resnet-zoo[plots]'. Or write .json or "
            ".csv."
        ) from error
    return matplotlib


def _figure(confusion: Confusion, names: Sequence[str]) -> Any:
    """Draw the matrix: each row's shades are shares of its class, the numbers are images."""
    matplotlib = _matplotlib()
    cells = np.array(confusion, dtype=np.float64)
    shares = 100 * cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)
    size = 5 + min(0.32 * len(names), 11)
    layout = matplotlib.layout_engine.ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15)
    figure = matplotlib.figure.Figure(figsize=(size + 1, size), dpi=100, layout=layout)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    figure.colorbar(image, label="Share of the actual class (%)", fraction=0.046)
    axes.set_xlabel("Best class")
    axes.set_ylabel("Actual class")
    if len(names) <= _NAMED:
        texts = [_axis_text(name) for name in names]
        axes.set_xticks(range(len(names)), texts, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), texts, parse_math=False)
    if len(names) <= _NUMBERED:
        for row, column in zip(*np.nonzero(cells), strict=True):
            colour = "white" if shares[row, column] > 55 else "black"
            axes.text(column, row, f"{int(cells[row, column])}", ha="center", va="center", color=colour)
    return figure


def _axis_text(name: str) -> str:
    """Return a name as it fits beside an axis; ImageNet's have synonyms."""
    name = printable(name.partition(",")[0])
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
