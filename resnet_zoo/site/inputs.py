"""What a site shows besides the manifest: trainings, the report of ``verify``, the speeds of ``benchmark``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnet_zoo.base.files import read_regular
from resnet_zoo.base.strict_json import WrongValueError, decode, expect, parse
from resnet_zoo.catalog.measurements import RowSpeed, setting_of_most
from resnet_zoo.catalog.records import Entry, Manifest, RunOrigin
from resnet_zoo.checks.report import Report
from resnet_zoo.errors import ArgumentError
from resnet_zoo.runs.curves import Curve, curve_of_log
from resnet_zoo.runs.folder import read_log, read_record
from resnet_zoo.runs.records import (
    ENVIRONMENT_NAME,
    LOG_NAME,
    RECIPE_NAME,
    RESULT_NAME,
    EnvironmentFile,
    Log,
    RecipeFile,
    ResultFile,
)

# --- trainings ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """A run folder.

    Attributes:
        name: Of the folder.
        weights: The weight set that came from it; ``None`` if none did.
        recipe: What was trained, and how.
        environment: What it depended on.
        curve: Its log.
        result: What it reached; ``None`` while it is not finished.
    """

    name: str
    weights: str | None
    recipe: RecipeFile
    environment: EnvironmentFile
    curve: Curve
    result: ResultFile | None


def shipped_trainings(entry: Entry, home: Path) -> Iterator[Training]:
    """Yield the trainings that a row's weight sets came from, where their folders lie beside the manifest.

    Args:
        entry: The row.
        home: The manifest's folder.

    Raises:
        RunError: A folder exists and cannot be read.
    """
    for tag, weights in entry.weights.items():
        if isinstance(weights.origin, RunOrigin):
            folder = home / weights.origin.run
            if folder.resolve().is_relative_to(home.resolve()) and (folder / LOG_NAME).is_file():
                yield _read_training(folder, read_log(folder / LOG_NAME), weights=tag)


def trainings_beside(manifest: Manifest, home: Path) -> list[Training]:
    """Return every finished training in the manifest's own folders: first those that weight sets came from.

    Args:
        manifest: Its relative ``base_urls`` are looked through.
        home: Its folder; nothing outside is read.

    Raises:
        RunError: A folder exists and cannot be read.
    """
    shipped = [training for entry in manifest.models for training in shipped_trainings(entry, home)]
    places = [home / base for base in manifest.base_urls if "://" not in base]
    inside = [place for place in places if place.is_dir() and place.resolve().is_relative_to(home.resolve())]
    taken = {training.name for training in shipped}
    return [*shipped, *(training for place in inside for training in find_trainings(place, without=taken)[0])]


def find_trainings(root: Path, *, without: Collection[str] = ()) -> tuple[list[Training], list[str]]:
    """Return the trainings in a folder and below, in order of their paths, and why others are left out.

    Only what has not finished its first epoch is left out, and, unread, the folders with the names ``without``.

    Raises:
        ArgumentError: The folder does not exist.
        RunError: A run folder cannot be read.
    """
    if not root.is_dir():
        raise ArgumentError(f"{root} is not a folder; pass the folder that holds the run folders.")
    found: list[Training] = []
    left_out: list[str] = []
    for folder in sorted(log.parent for log in root.rglob(LOG_NAME)):
        if folder.resolve().name in without:
            continue
        log = read_log(folder / LOG_NAME)
        if log.epochs:
            found.append(_read_training(folder, log))
        else:
            left_out.append(f"{folder}: no epoch is finished yet")
    return found, left_out


def _read_training(folder: Path, log: Log, *, weights: str | None = None) -> Training:
    result = folder / RESULT_NAME
    return Training(
        name=folder.resolve().name,
        weights=weights,
        recipe=read_record(folder / RECIPE_NAME, RecipeFile),
        environment=read_record(folder / ENVIRONMENT_NAME, EnvironmentFile),
        curve=curve_of_log(folder / LOG_NAME, log),
        result=read_record(result, ResultFile) if result.is_file() else None,
    )


# --- reports and speeds -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speeds:
    """Images per second of forward passes, all in one setting of one machine; without rows: not measured."""

    setting: str = ""
    images_per_s: Mapping[str, float] = field(default_factory=dict)


def speeds_of(found: Sequence[RowSpeed], device: str) -> Speeds:
    """Return the speeds that can be compared: numbers of different settings cannot; that of most rows is taken."""
    setting = setting_of_most(found)
    if setting is None:
        return Speeds()
    mode, dtype, batch = setting
    chosen = {one.name: one.images_per_s for one in found if (one.mode, one.dtype, one.batch_size) == setting}
    return Speeds(f"{mode} {dtype}, batch of {batch}, {device}", chosen)


_LINKS = {"source_sha256", "pin", "file", "file_sha256", "tensors_sha256"}
"""What a page shows of the chain in a report."""


def read_reports(path: Path) -> dict[str, Report]:
    """Read what ``resnet-zoo verify --format json`` wrote, by row.

    Raises:
        ArgumentError: The file is missing, or is not such a report.
    """
    form = "resnet-zoo verify --format json"
    content = _read_object(path, "reports", form)
    try:
        found: tuple[Report, ...] = decode(tuple[Report, ...], content["reports"], ("reports",))
        for report in found:
            is_whole = report.chain is None or report.chain.keys() >= _LINKS
            expect(is_whole, ", ".join(sorted(_LINKS)), report.chain, (report.name, "chain"))
    except WrongValueError as wrong:
        raise _not_from(path, form, f"{'.'.join(map(str, wrong.where))}: {wrong.why}") from None
    return {report.name: report for report in found}


def read_speeds(path: Path) -> Speeds:
    """Read what ``resnet-zoo benchmark --format json`` wrote.

    Numbers of different settings cannot be compared: of several, that of most rows is taken, and of these the fastest.

    Raises:
        ArgumentError: The file is missing, or is not such a benchmark.
    """
    form = "resnet-zoo benchmark --format json"
    content = _read_object(path, "speeds", form)
    found: list[RowSpeed] = []
    try:
        device = decode(str, content.get("device"), ("device",))
        for index, speed in enumerate(content["speeds"]):
            where = ("speeds", index)
            expect(isinstance(speed, dict), "an object", speed, where)
            kept = {key: speed.get(key) for key in RowSpeed.__dataclass_fields__}
            found.append(decode(RowSpeed, kept, where))
            pace = found[-1].images_per_s
            expect(0 < pace < float("inf"), "a positive number", pace, (*where, "images_per_s"))
    except WrongValueError as wrong:
        raise _not_from(path, form, f"{'.'.join(map(str, wrong.where))}: {wrong.why}") from None
    return speeds_of(found, device)


def unknown_rows(names: Iterable[str], known: Iterable[str], source: str) -> list[str]:
    """Return a sentence for each row that a file speaks of and the manifest lacks."""
    known = set(known)
    found = Counter(name for name in names if name not in known)
    return [f"{source}: {name} is not a row of the manifest" for name in found]


def _read_object(path: Path, key: str, form: str) -> Any:
    try:
        content = parse(read_regular(path).decode())
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror}. Pass the output of `{form}`.") from error
    except ValueError as error:
        raise _not_from(path, form, f"it is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise _not_from(path, form, f"expected an object with a list {key!r}")
    return content


def _not_from(path: Path, form: str, why: str) -> ArgumentError:
    return ArgumentError(f"{path} is not the output of `{form}`: {why}.")
