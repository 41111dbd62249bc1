"""Training logs as curves: ours, OpenMMLab's 0.x ``.log.json``, and mmengine's ``vis_data/*.json``.

A curve has a point an epoch, counted from 1: the state after that many epochs. What a log does not record is ``None``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from resnet_zoo.errors import RunError
from resnet_zoo.runs.folder import is_complete, read_log, read_record, read_text
from resnet_zoo.runs.records import ENVIRONMENT_NAME, LOG_NAME, RECIPE_NAME, EnvironmentFile, Log, RecipeFile

LogFormat = Literal["resnet_zoo", "openmmlab 0.x", "mmengine"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """An epoch of a curve.

    Attributes:
        epoch: From 1.
        loss: Mean training loss.
        lr: Learning rate of its last step.
        top1: Test accuracy after it, in percent.
        top5: The same among the best five.
        seconds: Time it took; of an OpenMMLab log the time its lines cover.
        images_per_s: Training images per second; ``None`` for OpenMMLab's logs.
    """

    epoch: int
    loss: float | None = None
    lr: float | None = None
    top1: float | None = None
    top5: float | None = None
    seconds: float | None = None
    images_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A training log, epoch by epoch.

    Attributes:
        title: The name of the run folder or the file.
        source: The file.
        format: Who wrote it.
        row: The row trained, where the log's folder names it.
        recipe: Name of the recipe, where the log's folder names it.
        dataset: What it was evaluated on, from the folder or the file's name; ``None``: unknown.
        points: In order of epochs.
    """

    title: str
    source: str
    format: LogFormat
    row: str | None
    recipe: str | None
    dataset: str | None
    points: tuple[Point, ...]

    @property
    def final(self) -> Point | None:
        """The last epoch that was evaluated, ``None`` if none was."""
        return next((point for point in reversed(self.points) if point.top1 is not None), None)

    def seconds_until(self, epoch: int) -> float | None:
        """Return the time of all epochs up to this one, ``None`` where the log lacks one."""
        times = [point.seconds for point in self.points if point.epoch <= epoch]
        known = [seconds for seconds in times if seconds is not None]
        return sum(known) if len(known) == len(times) == epoch else None


def read_curve(path: str | os.PathLike[str]) -> Curve:
    """Read a training log of any of the three forms.

    Args:
        path: A run folder, its ``log.jsonl``, an OpenMMLab ``.log.json``, or a ``vis_data/*.json`` of mmengine.

    Raises:
        RunError: It is missing or unreadable, of no known form, or has no epoch.
    """
    path = Path(path)
    file = path / LOG_NAME if path.is_dir() else path
    form = _format_of(file)
    return curve_of_log(file, read_log(file)) if form == "resnet_zoo" else _read_openmmlab(file, form)


def _format_of(file: Path) -> LogFormat:
    for record in _records(file):
        if "kind" in record:
            return "resnet_zoo"
        if "mode" in record or "env_info" in record:
            return "openmmlab 0.x"
        if "step" in record:
            return "mmengine"
    raise RunError(
        file, "", "is not a training log: expected our log.jsonl, OpenMMLab's .log.json or mmengine's vis_data"
    )


def _records(file: Path) -> Iterable[dict[str, Any]]:
    """Yield the object of each line; a torn last line is left out."""
    lines = read_text(file).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == len(lines) and not is_complete(line.encode())):
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RunError(file, f"line {number}", f"is not valid JSON: {error}") from error
        if not isinstance(record, dict):
            raise RunError(file, f"line {number}", f"expected an object, got {line[:80]!r}")
        yield record


def curve_of_log(file: Path, log: Log) -> Curve:
    """Return the curve of a ``log.jsonl`` that was read already.

    Raises:
        RunError: It has no epoch, or ``recipe.json`` or ``environment.json`` beside it is unreadable or malformed.
    """
    _check_begun(file, log.epochs)
    environment, recipe = file.with_name(ENVIRONMENT_NAME), file.with_name(RECIPE_NAME)
    trained = read_record(recipe, RecipeFile) if recipe.exists() else None
    title = file.resolve().parent.name if file.name == LOG_NAME else file.name
    return Curve(
        title=title if trained is None else f"{trained.row} {trained.recipe} {title}",
        source=str(file),
        format="resnet_zoo",
        row=trained.row if trained else None,
        recipe=trained.recipe if trained else None,
        dataset=read_record(environment, EnvironmentFile).data.test if environment.exists() else None,
        points=tuple(
            Point(
                epoch=line.epoch + 1,
                loss=line.loss,
                lr=line.lr,
                top1=line.top1,
                top5=line.top5,
                seconds=line.seconds,
                images_per_s=line.images_per_s,
            )
            for line in log.epochs
        ),
    )


def _check_begun(file: Path, epochs: Collection[object]) -> None:
    if not epochs:
        raise RunError(file, "", "has no finished epoch yet")


# --- OpenMMLab ----------------------------------------------------------------------------------------------------

_TOP1_KEYS, _TOP5_KEYS = ("accuracy_top-1", "accuracy/top1"), ("accuracy_top-5", "accuracy/top5")


@dataclass
class _Epoch:
    """The lines of an epoch: those of training by iteration, and that of the evaluation after it."""

    train: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)


def _read_openmmlab(file: Path, form: LogFormat) -> Curve:
    """Read a log of lines for every so many iterations; of what a resume repeated the last line counts.

    The 0.x evaluation lines carry ``epoch``; mmengine's only ``step``, which counts epochs.
    """
    epochs: dict[int, _Epoch] = {}
    for record in _records(file):
        accuracy = _number(record, *_TOP1_KEYS)
        if record.get("mode") == "train" or ("loss" in record and "iter" in record and accuracy is None):
            _epoch_of(epochs, file, record, "epoch").train[_count(file, record, "iter")] = record
        elif accuracy is not None:
            _epoch_of(epochs, file, record, "epoch" if "epoch" in record else "step").evaluation = record
    _check_begun(file, epochs)
    first = min(epochs)
    shift = 1 if first == 0 else 0
    return Curve(
        title=file.name,
        source=str(file),
        format=form,
        row=None,
        recipe=None,
        dataset=_dataset_in(str(file)),
        points=tuple(_point(number + shift, epochs[number]) for number in sorted(epochs)),
    )


def _epoch_of(epochs: dict[int, _Epoch], file: Path, record: Mapping[str, Any], key: str) -> _Epoch:
    return epochs.setdefault(_count(file, record, key), _Epoch())


def _count(file: Path, record: Mapping[str, Any], key: str) -> int:
    value = record.get(key)
    if type(value) is not int or value < 0:
        raise RunError(file, f"field {key}", f"expected an integer of 0 or more, got {value!r}")
    return value


def _point(number: int, epoch: _Epoch) -> Point:
    lines = [epoch.train[iteration] for iteration in sorted(epoch.train)]
    losses = [loss for loss in (_number(line, "loss") for line in lines) if loss is not None]
    return Point(
        epoch=number,
        loss=sum(losses) / len(losses) if losses else None,
        lr=_number(lines[-1], "lr") if lines else None,
        top1=_number(epoch.evaluation, *_TOP1_KEYS),
        top5=_number(epoch.evaluation, *_TOP5_KEYS),
        seconds=_seconds(epoch.train),
    )


def _seconds(lines: Mapping[int, Mapping[str, Any]]) -> float | None:
    """Return the time an epoch's lines cover: ``time`` is the mean over the iterations since the line before."""
    total, before = 0.0, 0
    for iteration in sorted(lines):
        seconds = _number(lines[iteration], "time")
        if seconds is None:
            return None
        total += seconds * (iteration - before)
        before = iteration
    return total if lines else None


def _number(record: Mapping[str, Any], *keys: str) -> float | None:
    """Return the first finite number under one of the keys; a diverged training logs NaN."""
    for key in keys:
        value = record.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    return None


_DATASET_NAMES = {"cifar100": "cifar100", "cifar10": "cifar10", "in1k": "in1k", "imagenet": "in1k"}


def _dataset_in(text: str) -> str | None:
    """Return the data set that a path names, as OpenMMLab's do; its last mention counts."""
    found = re.findall("|".join(_DATASET_NAMES), text.lower())
    return _DATASET_NAMES[found[-1]] if found else None
