"""The training loop: epochs of steps, a log, checkpoints, and an orderly end whatever happens."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.recipes import Recipe, image_size, learning_rate
from resnet_zoo.errors import NonFiniteLossError, RunError, TrainingError, TrainingStopped
from resnet_zoo.runs.folder import format_line, read_log
from resnet_zoo.runs.records import LOG_NAME, LogChange, LogEpoch, LogLine, LogResume, LogStep
from resnet_zoo.training.best_epoch import BestEpoch
from resnet_zoo.training.held_images import TrainingImages
from resnet_zoo.training.learner import Learner
from resnet_zoo.training.measuring import TestImages
from resnet_zoo.training.order import epoch_order, num_steps, shard
from resnet_zoo.training.snapshots import Position, load_newest, save_checkpoint

CHECKPOINTS = "checkpoints"

_FLUSH_STEPS = {"cpu": 1}
"""Steps between two looks at the losses by type of device; on an accelerator, where each look waits for it, 50."""

_EPOCH_CHECKPOINT_S = 10.0
"""Seconds of training that are worth a checkpoint at the end of an epoch: one takes about a second, as an epoch may."""


@dataclass(frozen=True)
class Pace:
    """What a watcher learns while training goes on.

    Attributes:
        epoch: From 0.
        epochs: In all.
        step: Steps made in this epoch.
        steps: Of an epoch.
        loss: Of the newest step that was read.
        images_per_s: In this epoch, all devices together.
        seconds_left: Until the end of training, at the pace so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_s: float
    seconds_left: float


class Loop:
    """Trains a learner over all epochs of its recipe.

    Args:
        learner: The network and its optimiser.
        images: The training set.
        processes: The processes that train together.
        folder: The run folder; the first process writes log and checkpoints into it.
        seed: Of the order of images.
        size: Height and width of the images in pixels.
        testing: The test images; ``None``: the network is never measured.
        evaluate_every: Epochs between two measurements, 0 for none before the last epoch, which is always measured.
        checkpoint_s: Seconds between checkpoints within an epoch; after the last epoch, and after others that are ten
            seconds or more from the last checkpoint, one is made too.
        best: Told of every epoch, and ends the training when nothing better comes; ``None``: all epochs.
        changes: What has changed since the run began, for its log.
        watch: Called with the progress every few steps.
        on_line: Called with every line of the log.
        say: Called with sentences for the person at the terminal.
    """

    def __init__(
        self,
        learner: Learner,
        images: TrainingImages,
        processes: Processes,
        folder: Path,
        *,
        seed: int,
        size: int,
        testing: TestImages | None = None,
        evaluate_every: int = 1,
        checkpoint_s: float = 120.0,
        best: BestEpoch | None = None,
        changes: Sequence[str] = (),
        watch: Callable[[Pace], None] = lambda _: None,
        on_line: Callable[[LogLine], None] = lambda _: None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.learner, self.images, self.processes, self.folder, self.seed = learner, images, processes, folder, seed
        self.testing, self.evaluate_every, self.checkpoint_s = testing, evaluate_every, checkpoint_s
        self.best, self.changes = best, tuple(changes)
        self.watch, self.on_line, self.say = watch, on_line, say
        self.recipe: Recipe = learner.recipe
        self.steps_per_epoch = num_steps(images.num_images, self.recipe.total_batch, processes.num_devices)
        self.position = Position()
        self.size = size
        self.pending: list[tuple[Tensor, Tensor, int]] = []
        self.flushed_at = self.saved_at = time.monotonic()

    def run(self) -> Position:
        """Train to the end, from the newest checkpoint if there is one, and return the last position.

        Raises:
            TrainingStopped: Ctrl-C or SIGTERM; a checkpoint was written.
            NonFiniteLossError: The loss is no longer a finite number.
            TrainingError: The disk is full or cannot be written; the checkpoints are unchanged.
        """
        with writing(self.folder), _stop_requests(self.say) as stop:
            self._resume()
            self.flushed_at = self.saved_at = time.monotonic()
            while not self._is_over():
                self._train_epoch(stop)
                self._end_epoch()
                is_last = self._is_over()
                worth_s = min(self.checkpoint_s, _EPOCH_CHECKPOINT_S)
                self._pause(stop, is_due=is_last or self._seconds_unsaved() >= worth_s)
            return self.position

    def _is_over(self) -> bool:
        num_epochs = self.position.epoch
        return num_epochs == self.recipe.epochs or (self.best is not None and self.best.is_over(num_epochs))

    def _resume(self) -> None:
        found = self.processes.first(self._load)
        if found is not None:
            self.position = found
            self.processes.spread(self.learner.state().values())
            self._write(LogResume(epoch=found.epoch, step=found.step))
            self.say(f"Resuming at epoch {found.epoch + 1}, step {found.epoch_step} of {self.steps_per_epoch}.")
        if self.changes:
            self._write(LogChange(epoch=self.position.epoch, step=self.position.step, changes=self.changes))

    def _load(self) -> Position | None:
        """Load the newest checkpoint, if there is one, and cut the log off there: the rest happens again."""
        (self.folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        path = self.folder / LOG_NAME
        path.touch()
        check_log = partial(_check_log, path, path.read_bytes())
        found = load_newest(self.folder / CHECKPOINTS, self.learner, self.say, check_log)
        with path.open("ab") as log:
            log.truncate(found.log_bytes if found else 0)
        return found

    def _train_epoch(self, stop: threading.Event) -> None:
        epoch, size = self.position.epoch, image_size(self.recipe, self.position.epoch)
        order = epoch_order(self.images.num_images, seed=self.seed, epoch=epoch)
        order = shard(order, rank=self.processes.rank, num_devices=self.processes.num_devices)
        batch_size = self.recipe.total_batch // self.processes.num_devices
        rest = order[self.position.epoch_step * batch_size :]
        for batch in self.images.batches(rest, epoch=epoch, batch_size=batch_size):
            pixels, labels = (x.to(self.processes.device, non_blocking=True) for x in (batch.pixels, batch.labels))
            lr = learning_rate(self.recipe, self.position.step, self.steps_per_epoch)
            loss, correct = self.learner.step(pixels, labels, lr=lr, size=size)
            self.pending.append((loss, correct, len(labels)))
            self.position = replace(self.position, step=self.position.step + 1, epoch_step=self.position.epoch_step + 1)
            self._after_step(stop)
        self._flush()

    def _after_step(self, stop: threading.Event) -> None:
        if len(self.pending) >= _FLUSH_STEPS.get(self.processes.device.type, 50):
            self._flush()
            self._pause(stop, is_due=self._seconds_unsaved() >= self.checkpoint_s)

    def _seconds_unsaved(self) -> float:
        return time.monotonic() - self.saved_at

    def _pause(self, stop: threading.Event, *, is_due: bool) -> None:
        """Save if the first process finds it due or one was asked to stop, and then stop; all decide alike."""
        requests = [stop.is_set(), is_due and self.processes.is_first]
        found = self.processes.total(torch.tensor(requests, dtype=torch.int64, device=self.processes.device))
        must_stop, must_save = found.tolist()
        if must_stop or must_save:
            self._save()
        if must_stop:
            raise TrainingStopped(self.folder)

    def _flush(self) -> None:
        """Read the losses of the steps since the last flush, log them, and refuse one that is not finite."""
        if not self.pending:
            return
        loss_sums, correct, images = self._read_pending()
        now = time.monotonic()
        elapsed, self.flushed_at = now - self.flushed_at, now
        position = self.position = replace(
            self.position,
            loss_sum=self.position.loss_sum + float(loss_sums.sum()),
            correct=self.position.correct + int(correct.sum()),
            images=self.position.images + int(images.sum()),
            epoch_seconds=self.position.epoch_seconds + elapsed,
            seconds=self.position.seconds + elapsed,
        )
        means = (loss_sums / images).tolist()
        for step, loss in enumerate(means, start=position.step - len(means)):
            if not math.isfinite(loss):
                raise NonFiniteLossError(self.folder, step, loss)
            lr = learning_rate(self.recipe, step, self.steps_per_epoch)
            self._write(LogStep(epoch=position.epoch, step=step, loss=loss, lr=lr))
        self.watch(self._progress(means[-1]))

    def _read_pending(self) -> Tensor:
        """Return the sum of losses, the images classified right, and the images of each pending step: (3, steps)."""
        losses, corrects, counts = zip(*self.pending, strict=True)
        self.pending = []
        device = self.processes.device
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which MPS does not have
        images = torch.tensor(counts, dtype=dtype, device=device)
        sums = torch.stack([torch.stack(losses).to(dtype) * images, torch.stack(corrects).to(dtype), images])
        return self.processes.total(sums).cpu()

    def _progress(self, loss: float) -> Pace:
        position = self.position
        pace_s = position.epoch_seconds / position.epoch_step
        left = (self.recipe.epochs - position.epoch) * self.steps_per_epoch - position.epoch_step
        return Pace(
            epoch=position.epoch,
            epochs=self.recipe.epochs,
            step=position.epoch_step,
            steps=self.steps_per_epoch,
            loss=loss,
            images_per_s=position.images / position.epoch_seconds,
            seconds_left=left * pace_s,
        )

    def _end_epoch(self) -> None:
        """Measure the network if it is due, and log the epoch."""
        position = self.position
        correct1, correct5 = self._measure(position.epoch)
        if self.best is not None and correct1 is not None and correct5 is not None:
            self.best.add(position.epoch, correct1, correct5)
        self._write(
            LogEpoch(
                epoch=position.epoch,
                step=position.step,
                loss=position.loss_sum / position.images,
                lr=learning_rate(self.recipe, position.step - 1, self.steps_per_epoch),
                top1_train=100 * position.correct / position.images,
                images=position.images,
                seconds=position.epoch_seconds,
                images_per_s=position.images / position.epoch_seconds,
                size=image_size(self.recipe, position.epoch) or self.size,
                top1=self._percent(correct1),
                top5=self._percent(correct5),
            )
        )
        self.position = Position(
            epoch=position.epoch + 1,
            step=position.step,
            seconds=position.seconds,
            test_correct1=correct1 or 0,
            test_correct5=correct5 or 0,
        )

    def _measure(self, epoch: int) -> tuple[int, int] | tuple[None, None]:
        """Count the test images that are right after an epoch, if that is due; after the last one in float32."""
        is_last = epoch + 1 == self.recipe.epochs
        is_due = is_last or (self.evaluate_every > 0 and (epoch + 1) % self.evaluate_every == 0)
        if self.testing is None or not is_due:
            return None, None
        is_exact = is_last or self.best is not None or self.recipe.precision == "float32"
        return self.testing.count(self.learner.model, "float32" if is_exact else "bfloat16")

    def _percent(self, correct: int | None) -> float | None:
        return None if correct is None or self.testing is None else 100 * correct / self.testing.num_images

    def _save(self) -> None:
        self.position = self.processes.first(self._write_checkpoint)
        self.saved_at = self.flushed_at = time.monotonic()

    def _write_checkpoint(self) -> Position:
        with (self.folder / LOG_NAME).open("ab") as log:
            os.fsync(log.fileno())  # the log that the checkpoint relies on must survive a power failure
            position = replace(self.position, log_bytes=log.tell())
        save_checkpoint(self.folder / CHECKPOINTS, self.learner, position)
        return position

    def _write(self, line: LogLine) -> None:
        if self.processes.is_first:
            with (self.folder / LOG_NAME).open("a", encoding="utf-8") as file:
                file.write(format_line(line))
            self.on_line(line)


def _check_log(path: Path, content: bytes, position: Position) -> None:
    """Check that a log still begins with what it held at a position; a training with another ends without a result.

    Raises:
        RunError: It is shorter, or holds something else.
    """
    if len(content) < position.log_bytes:
        why = f"expected at least the {position.log_bytes} bytes it had at step {position.step}, got {len(content)}"
        raise RunError(path, "", why)
    text = content[: position.log_bytes].decode(errors="backslashreplace")  # which JSON does not take
    log = read_log(path, text)
    steps, epochs = [line.step for line in log.steps], [line.epoch for line in log.epochs]
    counts = (len(steps), len(epochs))
    is_whole = counts == (position.step, position.epoch) and text[-1:] in ("", "\n")
    if not is_whole or steps != list(range(counts[0])) or epochs != list(range(counts[1])):
        expected = f"{position.step} steps and {position.epoch} epochs in {position.log_bytes} bytes"
        raise RunError(path, "", f"expected the {expected} that were written to it; it was changed since")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error of writing into a sentence that says what is still intact."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{folder} cannot be written ({error.strerror or error}). The last snapshots are intact: make room and "
            "run the same command again to resume."
        ) from error


@contextlib.contextmanager
def _stop_requests(say: Callable[[str], None]) -> Iterator[threading.Event]:
    """Return an event that Ctrl-C and SIGTERM set, so that training stops between two steps.

    A second Ctrl-C ends the program at once. Outside of the main thread signals are left alone.
    """
    stop = threading.Event()

    def request(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        say("Stopping after this step with a snapshot. A second signal stops at once, without one.")

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before: dict[int, Any] = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
