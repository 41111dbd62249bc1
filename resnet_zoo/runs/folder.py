"""Run folders: what a training leaves behind, written atomically and read strictly.

``runs/<row>/<stamp>/`` holds ``recipe.json``, ``environment.json``, ``log.jsonl``, ``result.json``, the weights,
``curves.png`` and a model card. The training writes the records of ``records.py``; everything else reads them. A
run with several seeds has a folder for each, and a ``<stamp>-seeds/summary.json`` beside them.
"""

from __future__ import annotations

import hashlib
import json
import re
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from resnet_zoo.base.files import read_regular, write_atomically
from resnet_zoo.base.strict_json import WrongValueError, decode, expect, expect_sha256, parse
from resnet_zoo.catalog.records import to_json
from resnet_zoo.errors import RunError
from resnet_zoo.runs.records import (
    ENVIRONMENT_NAME,
    HASHED_NAMES,
    LOG_NAME,
    RECIPE_NAME,
    RESULT_NAME,
    EnvironmentFile,
    Log,
    LogChange,
    LogEpoch,
    LogLine,
    LogResume,
    LogStep,
    RecipeFile,
    ResultFile,
    Run,
    Spread,
    SummaryFile,
)

# --- writing ------------------------------------------------------------------------------------------------------


def new_run_folder(root: Path, row: str, *, suffix: str = "") -> Path:
    """Make and return ``<root>/<row>/<stamp><suffix>``, a folder that was not there before.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        folder = root / row / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            time.sleep(0.1)  # another run began in this second
        else:
            return folder


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON, in one step.

    Raises:
        OSError: The file cannot be written; an existing one is unchanged.
        ValueError: A number is not finite.
    """
    text = json.dumps(to_json(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def format_line(line: LogLine) -> str:
    """Return a log line's text, line end included.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(to_json(line), allow_nan=False) + "\n"


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation of at least one value."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(values=tuple(values), mean=statistics.fmean(values), std=std, n=len(values))


# --- reading ------------------------------------------------------------------------------------------------------

_Record = TypeVar("_Record")


def read_run(folder: Path) -> Run:
    """Read a finished run folder; hashes and numbers are checked elsewhere (`verify_run`).

    Raises:
        RunError: A file is missing, unreadable or malformed.
    """
    if not folder.is_dir():
        raise RunError(folder, "", "is not a folder; pass a run folder, runs/<model>/<stamp>")
    result = read_record(folder / RESULT_NAME, ResultFile)
    texts = {name: read_text(folder / name) for name in HASHED_NAMES}
    return Run(
        folder=folder,
        recipe=read_record(folder / RECIPE_NAME, RecipeFile, texts[RECIPE_NAME]),
        environment=read_record(folder / ENVIRONMENT_NAME, EnvironmentFile, texts[ENVIRONMENT_NAME]),
        log=read_log(folder / LOG_NAME, texts[LOG_NAME]),
        result=result,
        sha256={name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
    )


def read_record(path: Path, kind: type[_Record], text: str | None = None) -> _Record:
    """Read one of the JSON files of a run folder, or its text where that was read already.

    Raises:
        RunError: The file is missing, unreadable or not JSON, or a field is missing, unknown or wrong.
    """
    return _decoded(path, "", _parse(path, read_text(path) if text is None else text), kind)


def read_log(path: Path, text: str | None = None) -> Log:
    """Read ``log.jsonl``, or its text where that was read already.

    A torn last line is left out and reported; anything else that is wrong is an error.

    Raises:
        RunError: The file is missing or unreadable, or a line is malformed.
    """
    lines = (read_text(path) if text is None else text).split("\n")
    is_torn = bool(lines[-1]) and not is_complete(lines[-1].encode())
    if is_torn or not lines[-1]:
        lines.pop()
    found: dict[str, dict[int, Any]] = {kind: {} for kind in _LINE_KINDS}
    for number, line in enumerate(lines, start=1):
        record = _read_line(path, number, line)
        key = {"step": record.step, "epoch": record.epoch}.get(record.kind, number)
        found[record.kind][key] = record
    steps, epochs, resumes, changes = (tuple(records[key] for key in sorted(records)) for records in found.values())
    return Log(steps=steps, epochs=epochs, resumes=resumes, changes=changes, is_torn=is_torn)


_LINE_KINDS: dict[str, type[LogLine]] = {
    "step": LogStep,
    "epoch": LogEpoch,
    "resume": LogResume,
    "change": LogChange,
}


def _read_line(path: Path, number: int, line: str) -> LogLine:
    place = f"line {number}"
    content = _parse(path, line, place)
    name = content.get("kind") if isinstance(content, dict) else None
    if not isinstance(name, str) or name not in _LINE_KINDS:
        raise RunError(path, place, f"expected an object of kind {', '.join(_LINE_KINDS)}, got {line[:80]!r}")
    return _decoded(path, place, content, _LINE_KINDS[name])


def read_text(path: Path) -> str:
    """Read a text file of a run; its line ends stay as they are.

    Raises:
        RunError: It is missing, unreadable or not UTF-8.
    """
    try:
        return read_regular(path).decode()
    except OSError as error:
        raise RunError(path, "", f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RunError(path, "", f"is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _parse(path: Path, text: str, place: str = "") -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise RunError(path, place, f"is not valid JSON: {error}") from error


def is_complete(line: bytes) -> bool:
    """Tell whether a log's last line is complete."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(path: Path, place: str, content: Any, kind: type[_Record]) -> _Record:
    try:
        record: _Record = decode(kind, content, ())
        _CHECKS.get(kind, lambda _: None)(record)
    except WrongValueError as wrong:
        field = ".".join(map(str, wrong.where))
        raise RunError(path, ", ".join(filter(None, (place, f"field {field}" if field else ""))), wrong.why) from None
    return record


# --- what types cannot say ----------------------------------------------------------------------------------------

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILE_NAME = re.compile(r"\w[\w.-]*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _check_environment(environment: EnvironmentFile) -> None:
    commit = environment.commit
    expect(commit is None or bool(_COMMIT.fullmatch(commit)), "40 hex digits or null", commit, ("commit",))
    data = environment.data
    hashes = {("code_sha256",): environment.code_sha256, ("data", "train_sha256"): data.train_sha256}
    for where, digest in {**hashes, ("data", "test_sha256"): data.test_sha256}.items():
        expect_sha256(digest, where)
    _check_counts(environment, ("num_devices",))


def _check_result(result: ResultFile) -> None:
    _check_counts(result, ("epochs", "steps", "num_images", "params", "flops"))
    expect(0 <= result.correct1 <= result.num_images, "0 to num_images", result.correct1, ("correct1",))
    expect(
        result.correct1 <= result.correct5 <= result.num_images,
        "correct1 to num_images",
        result.correct5,
        ("correct5",),
    )
    expect(bool(_DATE.fullmatch(result.date)), "a date such as 2026-11-24", result.date, ("date",))
    weights = result.weights
    expect(bool(_FILE_NAME.fullmatch(weights.path)), "a file name", weights.path, ("weights", "path"))
    expect_sha256(weights.sha256, ("weights", "sha256"))
    expect(weights.size_bytes > 0, "a positive integer", weights.size_bytes, ("weights", "size_bytes"))
    expect(sorted(result.files) == sorted(HASHED_NAMES), ", ".join(HASHED_NAMES), list(result.files), ("files",))
    for name, digest in result.files.items():
        expect_sha256(digest, ("files", name))


def _check_log_line(line: LogLine) -> None:
    expect(line.epoch >= 0, "0 or more", line.epoch, ("epoch",))
    expect(line.step >= 0, "0 or more", line.step, ("step",))


def _check_summary(summary: SummaryFile) -> None:
    for field in ("top1", "top5", "train_seconds"):
        values = getattr(summary, field).values
        expect(len(values) == len(summary.runs) > 0, "one value for each of the runs", list(values), (field, "values"))


def _check_counts(record: Any, fields: Iterable[str]) -> None:
    for field in fields:
        count = getattr(record, field)
        expect(count > 0, "a positive integer", count, (field,))


_CHECKS: dict[type, Callable[[Any], None]] = {
    EnvironmentFile: _check_environment,
    ResultFile: _check_result,
    SummaryFile: _check_summary,
    **dict.fromkeys(_LINE_KINDS.values(), _check_log_line),
}
