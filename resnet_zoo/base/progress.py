"""Progress bars on stderr, drawn only if that is a terminal. rich is imported when it is needed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

Draw = Callable[[str, int, int | None], None]
"""Called with (title, done, total); the total may be unknown."""


def progress_bar() -> AbstractContextManager[Draw]:
    """Return a context manager for a function that draws a bar of images."""
    return _bars("MofNCompleteColumn", "TimeRemainingColumn")


def download_bar() -> AbstractContextManager[Draw]:
    """Return a context manager for a function that draws a bar of bytes for each file name."""
    return _bars("DownloadColumn", "TransferSpeedColumn", "TimeRemainingColumn")


@contextlib.contextmanager
def _bars(*columns: str) -> Iterator[Draw]:
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich import progress
    from rich.console import Console

    drawn = [progress.TextColumn("{task.description}", markup=False), progress.BarColumn()]  # a title may be a path
    drawn += [getattr(progress, column)() for column in columns]
    with progress.Progress(*drawn, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def draw(title: str, done: int, total: int | None) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title)
            bars.update(tasks[title], completed=done, total=total)

        yield draw
