"""The progress of a training: a line per epoch, a bar on a terminal, and TensorBoard event files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from resnet_zoo.base.progress import folded, is_terminal, tell
from resnet_zoo.base.shown import LONGEST_SENTENCE, shown
from resnet_zoo.errors import ArgumentError
from resnet_zoo.runs.records import LogEpoch, LogLine, LogStep
from resnet_zoo.training.loop import Pace

_BAR_WIDTH = 9
"""Characters of the shortest bar, and of the space beside it."""


class Console:
    """Writes the progress of a training to stderr; see `console`."""

    def __init__(self, bar: Any = None, held_out: str = "test") -> None:
        self.bar, self.held_out = bar, held_out
        self.newest: Pace | None = None
        self.task = bar.add_task("training", total=None, pace="") if bar else None

    def watch(self, progress: Pace) -> None:
        """Move the bar."""
        self.newest = progress
        if self.bar:
            epoch, left = f"epoch {progress.epoch + 1}/{progress.epochs}", f"{_clock(progress.seconds_left)} left"
            loss, speed = f", loss {progress.loss:.4f}", f"{progress.images_per_s:.0f} images/s, "
            room = self.bar.console.width - len(f" {progress.steps}/{progress.steps} ") - _BAR_WIDTH
            for part in ("", speed, loss):  # what a narrow terminal goes without, in this order
                loss, speed = (text if text != part else "" for text in (loss, speed))
                if len(f"{epoch}{loss}{speed}{left}") <= room:
                    break
            self.bar.update(
                self.task,
                description=f"{epoch}{loss}",
                completed=progress.step,
                total=progress.steps,
                pace=f"{speed}{left}",
            )

    def on_line(self, line: LogLine) -> None:
        """Write an epoch's line."""
        if not isinstance(line, LogEpoch):
            return
        parts = {
            "epoch": f"epoch {line.epoch + 1:>3}/{self.newest.epochs if self.newest else '?'}",
            "size": f"{line.size} px",
            "loss": f"loss {line.loss:.4f}",
            "lr": f"learning rate {line.lr:.4f}",
            "train": f"train {line.top1_train:.2f}%",
            "tested": "" if line.top1 is None else f"{self.held_out} {line.top1:.2f}%",
            "speed": f"{line.images_per_s:.0f} images/s",
            "left": f"{_clock(self.newest.seconds_left)} left" if self.newest else "",
        }
        for part in ("", "size", "lr", "speed", "loss", "left"):  # what a narrow terminal goes without, in this order
            parts[part] = ""
            sentence = "  ".join(filter(None, parts.values()))
            if not self.bar or len(sentence) <= self.bar.console.width:
                break
        self.say(sentence)

    def say(self, sentence: str) -> None:
        """Write a sentence, above the bar if there is one."""
        sentence = shown(sentence, LONGEST_SENTENCE)
        if self.bar:
            sentence = folded(sentence, self.bar.console.width)
            self.bar.console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        else:
            tell(sentence)


@contextlib.contextmanager
def console(*, quiet: bool = False, held_out: str = "test") -> Iterator[Console]:
    """Return a console for a training, with a bar if stderr is a terminal.

    Args:
        quiet: Say nothing; for all processes but the first.
        held_out: Name of the images that the network is measured on.
    """
    if quiet:
        yield Silent()
        return
    if not is_terminal(sys.stderr):
        yield Console(held_out=held_out)
        return
    from rich import progress
    from rich.console import Console as RichConsole
    from rich.table import Column

    columns = [
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(table_column=Column(no_wrap=True)),
        progress.TextColumn("{task.fields[pace]}"),
    ]
    with progress.Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
        yield Console(bar, held_out)


class Silent(Console):
    """Writes nothing."""

    def say(self, sentence: str) -> None:
        """Say nothing."""


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def summary_writer() -> Any:
    """Return TensorBoard's class that writes event files.

    Raises:
        ArgumentError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ArgumentError("TensorBoard is not installed: pip install 'resnet-zoo[train]'.") from error
    return SummaryWriter


def tensorboard_writer(folder: Path) -> Callable[[LogLine], None]:
    """Return a function that writes log lines as scalars into ``<folder>/tensorboard``.

    Raises:
        ArgumentError: TensorBoard is not installed.
    """
    writer = summary_writer()(str(folder / "tensorboard"))

    def write(line: LogLine) -> None:
        if isinstance(line, LogStep):
            scalars: dict[str, float | None] = {"loss/step": line.loss, "lr": line.lr}
        elif isinstance(line, LogEpoch):
            scalars = {
                "loss/epoch": line.loss,
                "images_per_s": line.images_per_s,
                "top1/train": line.top1_train,
                "top1/test": line.top1,
                "top5/test": line.top5,
            }
        else:
            return
        for name, value in scalars.items():
            if value is not None:
                writer.add_scalar(name, value, line.step)
        writer.flush()

    return write
