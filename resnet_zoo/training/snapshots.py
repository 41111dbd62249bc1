"""The state of a training on disk: whole, hashed, and enough to go on bit for bit.

A checkpoint is one safetensors file that holds parameters, batch-norm statistics, momentum, and the position in its
header; its name ends in the sha256 of its bytes. Everything else is a pure function of seed and position: the order of
images, their augmentation, and the learning rate draw from no hidden state, so there is no generator to save.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from resnet_zoo.base.files import sha256_of, write_atomically
from resnet_zoo.base.strict_json import WrongValueError, decode, expect
from resnet_zoo.errors import RunError, TrainingError
from resnet_zoo.training.learner import Learner
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.safetensors_files import read_safetensors

KEPT = 2
"""Checkpoints that stay: if the newest is damaged, training goes on from the one before."""

_NAME = re.compile(r"step-\d{9}-[0-9a-f]{64}\.safetensors")


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        epoch: From 0.
        step: Steps made over the whole run.
        epoch_step: Steps made in this epoch.
        loss_sum: Sum of the losses of this epoch's images.
        correct: Of them, classified right.
        images: Images seen in this epoch.
        epoch_seconds: Time spent in this epoch.
        seconds: Time spent training in all.
        log_bytes: Length of the log.
        test_correct1: Test images that are right with the best class, once they were measured after the last epoch.
        test_correct5: Right among the best five.
    """

    epoch: int = 0
    step: int = 0
    epoch_step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    images: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    log_bytes: int = 0
    test_correct1: int = 0
    test_correct5: int = 0


def save_checkpoint(folder: Path, learner: Learner, position: Position) -> Path:
    """Write a checkpoint and remove all but the last `KEPT`.

    Raises:
        OSError: It cannot be written; earlier ones are unchanged.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in learner.state().items()}
    data = safetensors_bytes(tensors, {"position": json.dumps(asdict(position))})
    path = folder / f"step-{position.step:09}-{hashlib.sha256(data).hexdigest()}.safetensors"
    write_atomically(path, lambda part: part.write_bytes(data))
    for old in list_checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    for stray in folder.glob(".step-*.part"):  # of a process that was killed while it wrote
        stray.unlink(missing_ok=True)
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, newest first."""
    return sorted((path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name)), reverse=True)


def load_newest(
    folder: Path,
    learner: Learner,
    say: Callable[[str], None],
    check_log: Callable[[Position], None] = lambda _: None,
) -> Position | None:
    """Put the newest whole checkpoint into a learner and return its position; ``None`` if there is none.

    Args:
        folder: The checkpoints.
        learner: Of the same row and recipe.
        say: Called with a sentence about every checkpoint that is skipped: unreadable, damaged, not of such a
            learner, or without its log.
        check_log: Raises a `RunError` where the log is not the one that a position was saved with.

    Raises:
        TrainingError: There are whole checkpoints, and none of them has its log.
    """
    lost: RunError | None = None
    for path in list_checkpoints(folder):
        try:
            digest = sha256_of(path)
        except OSError as error:
            say(f"{path} cannot be read ({error.strerror}); skipping it.")
            continue
        if not path.stem.endswith(digest):
            say(f"{path} is damaged; skipping it.")
            continue
        try:
            return _restore(learner, path, check_log)
        except RunError as error:
            lost = lost or error
            say(f"{path} cannot be resumed from ({error}); skipping it.")
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, WrongValueError) as error:
            say(f"{path} is not a snapshot of this training ({error}); skipping it.")
    if lost is not None:
        raise TrainingError(f"{lost}. Restore the file to resume, or start over (reproduce --new, finetune --force).")
    return None


def _restore(learner: Learner, path: Path, check_log: Callable[[Position], None]) -> Position:
    saved, header = read_safetensors(path)
    position: Position = decode(Position, json.loads(header["position"]), ())
    _check(position)
    state = learner.state()
    for name, tensor in state.items():  # everything is checked before anything is overwritten
        if name not in saved or (saved[name].shape, saved[name].dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(f"{name} is missing, or has a different shape or type")
    check_log(position)
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(saved[name])
    return position


def _check(position: Position) -> None:
    """Check that a training can stand at a position.

    Raises:
        WrongValueError: It cannot.
    """
    for name, value in asdict(position).items():
        expect(0 <= value < math.inf, "a finite number of at least 0", value, (name,))
    for name in ("images", "epoch_seconds") if position.epoch_step else ():
        expect(getattr(position, name) > 0, "a positive number", getattr(position, name), (name,))
