"""Run folders on disk: written whole, read strictly, and a log that was cut off while it was written."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.catalog.records import to_json
from resnet_zoo.errors import RunError
from resnet_zoo.runs.folder import format_line, new_run_folder, read_log, read_record, read_run, spread, write_json
from resnet_zoo.runs.records import LogLine, LogResume, RecipeFile, ResultFile, SummaryFile
from tests.run_folders import ENVIRONMENT, EPOCH, NAME, RECIPE, RESULT, STEPS

SUMMARY = SummaryFile(
    row=NAME,
    recipe="fast",
    overridden={},
    runs=("20261124T203719Z", "20261124T213719Z"),
    top1=spread([93.0, 94.0]),
    top5=spread([99.0, 99.0]),
    train_seconds=spread([10.0, 11.0]),
)
RECORDS = {"recipe": RECIPE, "environment": ENVIRONMENT, "result": RESULT, "summary": SUMMARY}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("recipe", "environment", "result"):
        write_json(tmp_path / f"{name}.json", RECORDS[name])
    (tmp_path / "log.jsonl").write_text("".join([*map(format_line, STEPS), format_line(EPOCH)]))
    return tmp_path


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_comes_back_as_it_was_written(record: Any, tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", record)
    assert read_record(tmp_path / "a.json", type(record)) == record


def test_a_run_is_read_whole(folder: Path) -> None:
    run = read_run(folder)
    assert (run.recipe, run.environment, run.result) == (RECIPE, ENVIRONMENT, RESULT)
    assert (run.log.steps, run.log.epochs, run.log.is_torn) == (tuple(STEPS), (EPOCH,), False)


# --- writing ------------------------------------------------------------------------------------------------------


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", RESULT)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", dataclasses.replace(RESULT, top1=math.nan))
    assert read_record(tmp_path / "a.json", ResultFile) == RESULT
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="JSON compliant"):
        format_line(dataclasses.replace(EPOCH, loss=math.inf))


def test_run_folders_of_one_second_are_not_the_same(tmp_path: Path) -> None:
    folders = [new_run_folder(tmp_path, NAME) for _ in range(2)]
    assert len(set(folders)) == 2
    assert all(re.fullmatch(r"\d{8}T\d{6}Z", folder.name) and folder.parent == tmp_path / NAME for folder in folders)
    assert new_run_folder(tmp_path, NAME, suffix="-seeds").name.endswith("Z-seeds")


def test_the_spread_is_the_samples() -> None:
    several = spread([1.0, 2.0, 3.0, 4.0])
    assert (several.mean, several.n) == (2.5, 4)
    assert several.std == pytest.approx(math.sqrt(5 / 3))
    assert spread([1.0]).std is None


# --- the log ------------------------------------------------------------------------------------------------------


def log_of(folder: Path, *lines: str) -> Path:
    path = folder / "log.jsonl"
    path.write_text("".join(lines))
    return path


def test_of_what_a_resume_repeats_the_last_line_counts(tmp_path: Path) -> None:
    again = dataclasses.replace(STEPS[1], loss=0.5)
    other = dataclasses.replace(EPOCH, loss=9.0)
    resume = LogResume(epoch=0, step=1)
    lines: list[LogLine] = [*STEPS, other, resume, again, EPOCH]
    log = read_log(log_of(tmp_path, *(format_line(line) for line in lines)))
    assert log.steps == (STEPS[0], again)
    assert log.epochs == (EPOCH,)
    assert log.resumes == (resume,)


def test_a_log_cut_off_anywhere_in_its_last_line_loses_that_line_only(tmp_path: Path) -> None:
    for cut in range(1, len(format_line(EPOCH)) - 1):
        log = read_log(log_of(tmp_path, *map(format_line, STEPS), format_line(EPOCH)[:cut]))
        assert (log.steps, log.epochs, log.is_torn) == (tuple(STEPS), (), True), cut


def test_a_last_line_that_lacks_its_line_end_alone_is_whole(tmp_path: Path) -> None:
    log = read_log(log_of(tmp_path, format_line(EPOCH).rstrip("\n")))
    assert (log.epochs, log.is_torn) == ((EPOCH,), False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: is not valid JSON"),
        ("", "line 2: is not valid JSON"),
        ("[1]", "line 2: expected an object of kind step, epoch, resume, change, got '[1]'"),
        ('{"kind": "note"}', "line 2: expected an object of kind step"),
        ('{"kind": ["step"]}', "line 2: expected an object of kind step"),
        ('{"kind": "resume", "epoch": 0}', "line 2, field step: missing field"),
        ('{"kind": "resume", "epoch": 0, "step": -1}', "line 2, field step: expected 0 or more, got -1"),
        ('{"kind": "resume", "epoch": 0, "step": 1, "x": 1}', "line 2, field x: unknown field"),
        ('{"kind": "resume", "epoch": 0, "step": NaN}', "expected a finite number, got NaN"),
    ],
)
def test_anything_else_wrong_in_a_log_is_an_error_with_its_line(line: str, said: str, tmp_path: Path) -> None:
    path = log_of(tmp_path, format_line(STEPS[0]), line + "\n", format_line(STEPS[1]))
    with pytest.raises(RunError, match=re.escape(said)):
        read_log(path)


# --- strict reading -----------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], None]


def put(*keys: str, value: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


WRONG: dict[str, tuple[str, Change, str]] = {
    "a missing field": ("result", lambda content: content.pop("seed"), "field seed: missing field"),
    "an unknown field": ("recipe", put("lr", value=1), "field lr: unknown field"),
    "another type": ("result", put("correct1", value="3"), "field correct1: expected an integer, got '3'"),
    "a number for a truth": ("environment", put("compiled", value=1), "field compiled: expected true or false, got 1"),
    "an unknown precision": ("environment", put("precision", value="int8"), "field precision: expected one of float32"),
    "a short hash": ("environment", put("data", "test_sha256", value="ab"), "field data.test_sha256: expected 64 hex"),
    "a short commit": ("environment", put("commit", value="abc"), "field commit: expected 40 hex digits or null"),
    "no device": ("environment", put("num_devices", value=0), "field num_devices: expected a positive integer"),
    "more right than there are": ("result", put("correct1", value=10_001), "field correct1: expected 0 to num_images"),
    "top-5 below top-1": ("result", put("correct5", value=9311), "field correct5: expected correct1 to num_images"),
    "a date of another form": ("result", put("date", value="24.11.2026"), "field date: expected a date"),
    "weights elsewhere": ("result", put("weights", "path", value="../a.safetensors"), "weights.path: expected a file"),
    "hidden weights": ("result", put("weights", "path", value=".a.safetensors"), "weights.path: expected a file name"),
    "no weights": ("result", put("weights", "size_bytes", value=0), "weights.size_bytes: expected a positive"),
    "a file without its hash": ("result", put("files", value={}), "field files: expected recipe.json, environment"),
    "a hash in capitals": ("result", put("files", "log.jsonl", value="AB" * 32), "files.log.jsonl: expected 64 hex"),
    "a value for no run": ("summary", put("runs", value=["a"]), "top1.values: expected one value for each"),
}


@pytest.mark.parametrize(("name", "change", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_an_error_that_names_file_and_field(
    name: str, change: Change, said: str, tmp_path: Path
) -> None:
    content = to_json(RECORDS[name])
    change(content)
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError) as caught:
        read_record(path, type(RECORDS[name]))
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not valid JSON"),
        (b"[]", "expected an object, got []"),
        (b'{"row": "a", "row": "b"}', "the key 'row' is given twice"),
        (b"\xff", "is not UTF-8 text"),
        (b"[" * 100_000, "is not valid JSON"),
    ],
)
def test_a_file_that_is_no_record_is_an_error(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(RunError, match=re.escape(said)):
        read_record(tmp_path / "recipe.json", RecipeFile)


def test_what_is_no_run_folder_is_an_error(folder: Path) -> None:
    with pytest.raises(RunError, match="is not a folder; pass a run folder"):
        read_run(folder / "recipe.json")
    (folder / "result.json").unlink()
    with pytest.raises(RunError, match=r"result\.json: cannot be read: No such file"):
        read_run(folder)
