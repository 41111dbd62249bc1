"""Progress bars on stderr, drawn only if that is a terminal. rich is imported when it is needed."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from resnet_zoo.base.shown import shown

Progress = Callable[[int, int], None]
"""Called with (done, total); a total of 0 is unknown."""

TitledProgress = Callable[[str, int, int], None]
"""Called with (title, done, total), the title that of a row or a file."""


def under_title(progress: TitledProgress | None, title: str) -> Progress | None:
    """Return a function that reports progress under a title."""
    return functools.partial(progress, title) if progress else None


def progress_bar() -> AbstractContextManager[TitledProgress]:
    """Return a context that gives a function which draws a bar of images."""
    return _bars("MofNCompleteColumn", "TimeRemainingColumn")


def download_bar() -> AbstractContextManager[TitledProgress]:
    """Return a context that gives a function which draws a bar of bytes for each file name."""
    return _bars("DownloadColumn", "TransferSpeedColumn", "TimeRemainingColumn")


def is_terminal(stream: object) -> bool:
    """Tell whether a standard stream is a terminal.

    It may be ``None`` (services, ``pythonw``, ``2>&-``), closed, or an object of a notebook that cannot say.
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        return False


@contextlib.contextmanager
def _bars(*columns: str) -> Iterator[TitledProgress]:
    if not is_terminal(sys.stderr):
        yield lambda *_: None
        return
    from rich import progress
    from rich.console import Console

    drawn = [progress.TextColumn("{task.description}", markup=False), progress.BarColumn()]  # a title may be a path
    drawn += [getattr(progress, column)() for column in columns]
    with progress.Progress(*drawn, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def draw(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(shown(title))
            bars.update(tasks[title], completed=done, total=total or None)

        yield draw
