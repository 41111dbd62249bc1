"""Progress bars and sentences on stderr, made for a terminal if it is one. rich is imported when it is needed."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import textwrap
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


def terminal_width(stream: object) -> int | None:
    """Return how many characters a line of a standard stream holds; ``None`` if it is not a terminal."""
    if not is_terminal(stream):
        return None
    with contextlib.suppress(AttributeError, OSError):  # an object of a notebook has no number
        if "COLUMNS" not in os.environ and (width := os.get_terminal_size(stream.fileno()).columns):  # type: ignore[attr-defined]
            return width
    return shutil.get_terminal_size().columns


def folded(text: str, width: int | None, *, begin: str = "") -> str:
    """Return text in lines of a width that end between words; a longer word, a path or a hash, stays whole.

    Args:
        text: Each of its lines is folded.
        width: Characters in a line; ``None`` changes nothing.
        begin: What stands before the text in its first line, and is not returned.
    """
    if width is None:
        return text
    wrapper = textwrap.TextWrapper(max(1, width), break_long_words=False, break_on_hyphens=False)
    wrapper.initial_indent = begin
    lines = []
    for line in text.split("\n"):
        lines += wrapper.wrap(line) or [""]
        wrapper.initial_indent = ""
    return "\n".join(lines).removeprefix(begin)


def tell(sentence: str) -> None:
    """Write a sentence to stderr, on a terminal as `folded`."""
    import click

    click.echo(folded(sentence, terminal_width(sys.stderr)), err=True)


_NUMBERS_WIDTH = 42
"""Characters that stand behind the title of a bar, with a bar of eight."""


def _shortened(title: str, longest: int) -> str:
    """Return a title that fits in the line of its bar: of a longer one, its two ends."""
    half = (longest - 1) // 2
    return title if len(title) <= longest else f"{title[:half]}…{title[-half:]}"


@contextlib.contextmanager
def _bars(*columns: str) -> Iterator[TitledProgress]:
    if not is_terminal(sys.stderr):
        yield lambda *_: None
        return
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    console = Console(stderr=True)
    longest = max(_NUMBERS_WIDTH // 2, console.width - _NUMBERS_WIDTH)
    drawn = [progress.TextColumn("{task.description}", markup=False), progress.BarColumn()]  # a title may be a path
    drawn += [getattr(progress, column)(table_column=Column(no_wrap=True)) for column in columns]
    with progress.Progress(*drawn, console=console, transient=True) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def draw(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(_shortened(shown(title), longest), total=None)
            bars.update(tasks[title], completed=done, total=total or None)

        yield draw
