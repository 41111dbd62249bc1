"""Predictions as a table, as lines, as CSV, and in files."""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resnet_zoo.base.files import write_atomically
from resnet_zoo.base.progress import is_terminal
from resnet_zoo.base.shown import LONGEST_SENTENCE, printable, shown
from resnet_zoo.cli.output import as_json, echo_table, new_table

if TYPE_CHECKING:
    from resnet_zoo.inference.prediction import Prediction


def echo_predictions(predictions: Sequence[Prediction]) -> None:
    """Write predictions as a table, a line per class."""
    from rich.text import Text  # a path or a class may hold what markup would take for a tag

    table = new_table("Image", ">Probability", ">Label", "Class")
    for prediction in predictions:
        for rank, found in enumerate(prediction.classes):
            title = "" if rank else shown(prediction.image, LONGEST_SENTENCE)
            table.add_row(Text(title), f"{found.probability:.4f}", str(found.label), Text(shown(found.name)))
        if not prediction.classes:
            table.add_row(Text(shown(prediction.image, LONGEST_SENTENCE)), "-", "-", "none reaches the threshold")
    echo_table(table)


def echo_predictions_as_lines(predictions: Iterable[Prediction]) -> None:
    """Write each prediction as JSON on a line of its own, as soon as it is there."""
    for prediction in predictions:
        click.echo(as_json(asdict(prediction)))


def echo_predictions_as_csv(predictions: Iterable[Prediction]) -> None:
    """Write predictions as CSV, a line per class, each as soon as it is there.

    A spreadsheet would compute text that begins like a formula: such a path is written with ``./`` before it, which
    leads to the same file, and such a name of a class with an apostrophe.
    """
    _echo_csv(_CSV_HEADER)
    for prediction in predictions:
        for values in _csv_rows(prediction):
            _echo_csv(values)


def _csv_rows(prediction: Prediction) -> Iterator[tuple[object, ...]]:
    """Yield a prediction's lines of CSV: one per class, or one with empty fields."""
    image = f"./{prediction.image}" if prediction.image.startswith(_FORMULA) else prediction.image
    for rank, found in enumerate(prediction.classes, start=1):
        name = f"'{found.name}" if found.name.startswith(_FORMULA) else found.name
        yield image, rank, found.label, name, found.probability
    if not prediction.classes:
        yield image, "", "", "", ""


def write_predictions(predictions: Iterable[Prediction], target: Path, form: str) -> int:
    """Write predictions to a file, which is moved into place when it is complete, and return their number.

    Args:
        predictions: Any number of them; only JSON holds all in memory.
        target: The file; an existing one is replaced.
        form: ``csv``, ``jsonl`` or ``json``.

    Raises:
        OSError: It cannot be written.
    """
    counted = itertools.count()

    def each() -> Iterator[Prediction]:
        for prediction in predictions:
            next(counted)
            yield prediction

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # every byte of a name
            if form == "csv":
                file.write(f"{_csv_line(_CSV_HEADER)}\n")
                file.writelines(f"{_csv_line(values)}\n" for prediction in each() for values in _csv_rows(prediction))
            elif form == "jsonl":
                file.writelines(f"{json.dumps(asdict(prediction), allow_nan=False)}\n" for prediction in each())
            else:
                file.write(json.dumps([asdict(prediction) for prediction in each()], indent=2, allow_nan=False) + "\n")

    write_atomically(target, write)
    return next(counted)


_CSV_HEADER = ("image", "rank", "label", "name", "probability")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How text begins that spreadsheets take for a formula (OWASP, CSV injection)."""


def _echo_csv(values: Sequence[object]) -> None:
    """Write a line of CSV; on a terminal without codes that it would obey, in a pipe with every byte of a name."""
    if is_terminal(sys.stdout):
        values = [printable(value) if isinstance(value, str) else value for value in values]
    click.echo(_csv_line(values), color=True)  # color: or click takes codes out of names


def _csv_line(values: Sequence[object]) -> str:
    """Return a line of CSV without its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)  # the writer quotes what is in a line's end: \r, too
    return text.getvalue().removesuffix("\r\n")
