"""A hidden folder beside a file that is being made: its checkpoints, and what they are of."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnet_zoo.errors import RunError, TrainingError
from resnet_zoo.runs.folder import read_record, write_json
from resnet_zoo.training.folder import changes_between, hold_folder
from resnet_zoo.training.loop import CHECKPOINTS
from resnet_zoo.tuning import Tuning

_PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Everything that the bits of the result follow from: an unfinished training goes on if it is the same."""

    model: str
    made_from: str
    weights_sha256: str | None
    class_names: tuple[str, ...]
    tuning: Tuning
    seed: int
    train_sha256: str
    val_sha256: str | None
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


def _begin_or_go_on(folder: Path, plan: Plan, *, overwrite: bool) -> None:
    file = folder / _PLAN_NAME
    changes = _changes_since(file, plan) if file.exists() else []
    if file.exists() and not changes:
        return
    if changes and not overwrite:
        raise TrainingError(
            f"{folder} is unfinished and began otherwise: {'; '.join(changes)}. Pass what it began with to go on, or "
            "begin anew (--force)."
        )
    for phase in folder.glob(f"*/{CHECKPOINTS}"):
        shutil.rmtree(phase.parent)
    write_json(file, plan)


def _changes_since(file: Path, plan: Plan) -> list[str]:
    try:
        return changes_between(read_record(file, Plan), plan)
    except RunError as error:
        return [str(error)]
