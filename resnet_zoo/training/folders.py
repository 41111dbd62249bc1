"""Where a training writes: the run folder that it begins or continues, or a hidden folder beside the file it makes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_zoo.base.unfinished import Facts, begin_or_go_on, changes_between, hold
from resnet_zoo.catalog.records import Entry, to_json
from resnet_zoo.errors import RunError, TrainingError
from resnet_zoo.runs.folder import new_run_folder, read_log, read_record, write_json
from resnet_zoo.runs.records import (
    ENVIRONMENT_NAME,
    LOG_NAME,
    RECIPE_NAME,
    RESULT_NAME,
    SUMMARY_NAME,
    EnvironmentFile,
    RecipeFile,
    SummaryFile,
)
from resnet_zoo.training.loop import CHECKPOINTS
from resnet_zoo.training.tuning import Tuning

_COPIES = 4
"""Checkpoints are kept twice while a third is written; the weights and small files take less than a fourth."""

_FLOAT_BYTES = 4
_PATIENCE_S = 10
"""Processes that decode images inherit the lock, and outlive a killed training by up to five seconds."""

_FREE_FIELDS = ("commit", "dirty", "command")
"""What may differ when a run resumes: the code's own hash says more."""


def find_finished(root: Path, plan: RecipeFile, environment: EnvironmentFile) -> Path | None:
    """Return the newest run of exactly this kind, finished unchanged and in no summary yet; ``None`` if there is none.

    Raises:
        RunError: A file of a run cannot be read.
    """
    row = root / plan.row
    summaries = [read_record(path, SummaryFile) for path in row.glob(f"*/{SUMMARY_NAME}")]
    taken = {name for summary in summaries for name in summary.runs}
    for path in sorted(row.glob(f"*/{RESULT_NAME}"), reverse=True):
        folder = path.parent
        if folder.name in taken or changes_since(folder, plan, environment):
            continue
        if not read_log(folder / LOG_NAME).changes:
            return folder
    return None


def open_folder(
    root: Path, plan: RecipeFile, environment: EnvironmentFile, allow_changed: bool
) -> AbstractContextManager[Path] | None:
    """Return the newest unfinished run of this row, recipe and seed, to be entered; ``None`` if there is none.

    Raises:
        TrainingError: Code, recipe, data or versions have changed since it began, and that is not allowed.
        RunError: Its files cannot be read.
    """
    for folder in sorted((root / plan.row).glob("*"), reverse=True):
        if (folder / RESULT_NAME).exists() or not (folder / ENVIRONMENT_NAME).exists():
            continue
        began = read_record(folder / RECIPE_NAME, RecipeFile)
        there = read_record(folder / ENVIRONMENT_NAME, EnvironmentFile)
        if began.row != plan.row:
            raise RunError(folder / RECIPE_NAME, "field row", f"expected {plan.row}, got {began.row}")
        if (began.recipe, there.seed) != (plan.recipe, environment.seed):
            continue
        changes = changes_since(folder, plan, environment)
        if changes and not allow_changed:
            raise TrainingError(
                f"{folder} is unfinished and began differently: {'; '.join(changes)}. Pass --allow-changed to resume "
                "it anyway, or --new to start over."
            )
        return hold_folder(folder)
    return None


@contextlib.contextmanager
def start_folder(root: Path, plan: RecipeFile, environment: EnvironmentFile) -> Iterator[Path]:
    """Make a run folder with its recipe and environment, and hold it.

    Raises:
        TrainingError: It cannot be written.
    """
    try:
        folder = new_run_folder(root, plan.row)
        write_json(folder / RECIPE_NAME, plan)
        write_json(folder / ENVIRONMENT_NAME, environment)
    except OSError as error:
        raise TrainingError(f"{root} cannot be written: {error.strerror or error}. Pass another --runs.") from error
    with hold_folder(folder):
        yield folder


@contextlib.contextmanager
def hold_folder(folder: Path, otherwise: str = "pass --new") -> Iterator[Path]:
    """Hold a run folder, so that no second training writes to it.

    Args:
        folder: The folder.
        otherwise: What a person can do instead of waiting for the other process.

    Raises:
        TrainingError: Another process holds it.
    """
    refusal = TrainingError(f"Another process is training in {folder} now. Wait for it, or {otherwise}.")
    with hold(folder / ".lock", refusal, patience_s=_PATIENCE_S):
        yield folder


def check_space(root: Path, entry: Entry) -> None:
    """Refuse to begin where the checkpoints would not fit.

    Raises:
        TrainingError: Says how much is needed and how much is free.
    """
    there = next(path for path in (root, *root.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    needed = 2 * _FLOAT_BYTES * entry.exact.params * _COPIES  # parameters and momentum
    if free < needed:
        raise TrainingError(
            f"{there} has {free >> 20} MiB free; a training of {entry.name} needs {needed >> 20} MiB. Pass "
            "another --runs."
        )


def changes_since(folder: Path, plan: RecipeFile, environment: EnvironmentFile) -> list[str]:
    """Describe what has changed since a run began.

    Raises:
        RunError: Its files cannot be read.
    """
    began = read_record(folder / RECIPE_NAME, RecipeFile)
    there = read_record(folder / ENVIRONMENT_NAME, EnvironmentFile)
    return [
        *_in_words(changes_between(to_json(began), to_json(plan))),
        *_in_words(changes_between(to_json(there), to_json(environment), _FREE_FIELDS)),
    ]


def _in_words(changes: Iterable[tuple[str, Any, Any]]) -> list[str]:
    return [f"{key} was {_short(old)} and is {_short(new)}" for key, old, new in changes]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"


_PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Everything that determines the bits of the result: an unfinished training resumes if all of it is the same."""

    model: str
    made_from: str
    weights_sha256: str | None
    class_names: tuple[str, ...]
    tuning: Tuning
    seed: int
    train_sha256: str
    val_sha256: str | None
    test_sha256: str | None
    code_sha256: str
    device: str
    versions: dict[str, str]


@contextlib.contextmanager
def work_folder(target: Path, plan: Plan, *, overwrite: bool) -> Iterator[Path]:
    """Hold a hidden folder beside a target; it is removed at the end, but kept where it holds a checkpoint to go on
    from.

    Args:
        target: The file to be made.
        plan: What it is made from, and how.
        overwrite: Drop an unfinished training of another plan.

    Raises:
        TrainingError: The folder cannot be made, is held by another process, or is of another plan.
    """
    folder = target.with_name(f".{target.name}.finetune")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be made: {error.strerror or error}. Choose another target.") from error
    with hold_folder(folder, "write to another file"):
        _begin_or_go_on(folder, plan, overwrite=overwrite)
        try:
            yield folder
        except BaseException:
            if any(folder.glob(f"*/{CHECKPOINTS}/*.safetensors")):
                raise
            shutil.rmtree(folder, ignore_errors=True)
            raise
    shutil.rmtree(folder, ignore_errors=True)


_OTHER_CODE = "Finish it with the version of resnet-zoo that began it"


def _begin_or_go_on(folder: Path, plan: Plan, *, overwrite: bool) -> None:
    file, now = folder / _PLAN_NAME, to_json(plan)

    def refuse(before: Facts) -> TrainingError:
        changes = _in_words(changes_between(before, now)) if before else [f"{file} is damaged"]
        resume = "Pass what it began with to resume" if before.get("code_sha256") == now["code_sha256"] else _OTHER_CODE
        return TrainingError(
            f"{folder} is unfinished and began differently: {'; '.join(changes)}. {resume}, or start over (--force)."
        )

    def clear() -> None:
        for phase in folder.glob(f"*/{CHECKPOINTS}"):
            shutil.rmtree(phase.parent)

    begin_or_go_on(file, now, clear=clear, refuse=None if overwrite else refuse)
