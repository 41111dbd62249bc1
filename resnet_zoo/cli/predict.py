"""``predict``: images classified."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from resnet_zoo.base.files import check_target
from resnet_zoo.base.progress import is_terminal, tell
from resnet_zoo.base.shown import quantity, shown
from resnet_zoo.catalog.names import check_name
from resnet_zoo.cli.output import (
    echo_json,
)
from resnet_zoo.cli.predictions import (
    echo_predictions,
    echo_predictions_as_csv,
    echo_predictions_as_lines,
    write_predictions,
)
from resnet_zoo.cli.shell import (
    batch_size_option,
    device_option,
    echo_skipped,
    examples,
    fast_option,
    format_option,
    image_column_option,
    int8_options,
    size_option,
    weights_option,
    with_options,
)
from resnet_zoo.errors import DatasetError

if TYPE_CHECKING:
    from resnet_zoo.inference.prediction import Prediction

_STDIN = "-"


@click.command(
    epilog=examples(
        "predict resnet50 cat.jpg dog.png --weights resnet50.safetensors",
        "predict resnet18_cifar10 photo.jpg --weights my.pth --top-k 3 --format json",
        "predict tuned.safetensors photos/ --skip-bad --threshold 0.5 -o photos.csv",
    )
    + "\n  find photos/ -name '*.jpg' | resnet-zoo predict resnet50 --format jsonl"
)
@click.argument("name")
@click.argument("images", nargs=-1, metavar="[IMAGE|FOLDER|-]...")
@click.option("--top-k", type=click.IntRange(min=1), help="Classes per image.  [default: 5, or all if fewer]")
@batch_size_option(16)
@click.option(
    "--threshold", type=click.FloatRange(0, 1), metavar="P", help="Only classes with a probability of P or more."
)
@click.option("-o", "--output", type=click.Path(), metavar="FILE", help="Write a .csv, .jsonl or .json file instead.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("--skip-bad", is_flag=True, help="Report unreadable images and continue.")
@with_options(image_column_option, weights_option, size_option, device_option, fast_option, int8_options)
@format_option("table", "jsonl", "csv", "json")
def predict(
    name: str,
    images: tuple[str, ...],
    top_k: int | None,
    batch_size: int,
    threshold: float | None,
    output: str | None,
    force: bool,
    skip_bad: bool,
    image_column: str,
    weights: str | None,
    size: int | None,
    device: str,
    fast: bool,
    calibration: str | None,
    form: str,
) -> None:
    """Classify images, best classes first.

    NAME is a model, hf-hub:owner/name, or the path of a network file. A FOLDER means every image below it; tar shards
    (.tar), .parquet files, patterns of them and addresses are read as in embed. With -, or
    without images, paths are read from standard input, one per line. jsonl and csv output is written as images are
    done, for any number of them. FILE is moved into place when it is complete.

    With --threshold, an image may be left without a class: "-" in the table, an empty list or empty fields
    in FILE and other formats.
    """
    check_name(name, weights=weights, size=size)  # what is misspelt is reported before torch is imported
    if not images and (sys.stdin is None or is_terminal(sys.stdin)):
        raise click.UsageError("Name images or folders, or send their paths to standard input, one per line.")
    if output is not None:
        form = _form_of(Path(output), form)
        check_target(Path(output), overwrite=force)
    from resnet_zoo.images.listing import check_there, find_all
    from resnet_zoo.inference.prediction import stream_predictions

    if not skip_bad:
        check_there(path for path in images if path != _STDIN)
    found = find_all(_paths(images or (_STDIN,)), column=image_column)
    first = next(found)  # a lack of images is reported before weights are fetched
    predictions = stream_predictions(
        name,
        itertools.chain([first], found),
        weights=weights,
        size=size,
        top_k=top_k,
        threshold=threshold or 0.0,
        device=device,
        batch_size=batch_size,
        fast=fast,
        image_column=image_column,
        calibration=calibration,
        on_bad=echo_skipped if skip_bad else None,
    )
    if output is None:
        _echo(_some(predictions), form)
        return
    num_images = write_predictions(_some(predictions), Path(output), form)
    tell(f"Wrote {quantity(num_images, 'prediction')} to {output}")


def _form_of(path: Path, form: str) -> str:
    """Return the format that a file's suffix names, which --format may repeat."""
    named = path.suffix.lower().removeprefix(".")
    if named not in ("csv", "jsonl", "json"):
        raise click.UsageError(f"-o takes a path that ends in .csv, .jsonl or .json; {shown(path)} does not.")
    source = click.get_current_context().get_parameter_source("form")
    if source is not ParameterSource.DEFAULT and form != named:
        raise click.UsageError(f"{shown(path)} is a {named} file, and --format says {form}. Leave out --format.")
    return named


def _paths(given: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths given, and for ``-`` those on standard input.

    Raises:
        DatasetError: There are none.
    """
    number = 0
    for path in given:
        for found in _lines_of_stdin() if path == _STDIN else (path,):
            number += 1
            yield found
    if not number:
        raise DatasetError("No images: standard input is empty. Name images or folders, or send paths, one per line.")


def _lines_of_stdin() -> Iterator[str]:
    """Yield the lines that hold something; as bytes, because a path need not be text."""
    lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    return (os.fsdecode(line) for line in lines if line)


def _some(predictions: Iterator[Prediction]) -> Iterator[Prediction]:
    """Yield predictions.

    Raises:
        DatasetError: There are none, because every image was skipped.
    """
    is_empty = True
    for prediction in predictions:
        is_empty = False
        yield prediction
    if is_empty:
        raise DatasetError("None of the images can be read.")


def _echo(predictions: Iterator[Prediction], form: str) -> None:
    if form == "jsonl":
        echo_predictions_as_lines(predictions)
    elif form == "csv":
        echo_predictions_as_csv(predictions)
    elif form == "json":
        echo_json([asdict(prediction) for prediction in predictions])
    else:
        echo_predictions(list(predictions))
