"""Unfinished work that may go on: a lock that one process holds, and the facts that the work depends on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from resnet_zoo.base.files import write_atomically
from resnet_zoo.base.strict_json import parse
from resnet_zoo.errors import ZooError

Facts = Mapping[str, Any]
"""Plain JSON values by name."""


@contextlib.contextmanager
def hold(path: Path, refusal: ZooError, *, patience_s: float = 0) -> Iterator[None]:
    """Hold a lock file, which the operating system frees if this process is killed; or raise the refusal."""
    from filelock import FileLock, Timeout  # here, because it is slow to import

    lock = FileLock(path, timeout=patience_s)
    try:
        lock.acquire()
    except Timeout as error:
        raise refusal from error
    try:
        yield
    finally:
        lock.release()


def begin_or_go_on(
    path: Path, now: Facts, *, clear: Callable[[], None], refuse: Callable[[Facts], ZooError] | None
) -> None:
    """Leave work that began under the same facts as it is, or begin.

    Args:
        path: The file that holds the facts. Without it, nothing else of the work counts.
        now: The facts.
        clear: Removes what there is of the work.
        refuse: Makes the error for work under other facts, given those; ``None``: such work is dropped.
    """
    before = read_facts(path)
    if before == now:
        return
    if before is not None and refuse is not None:
        raise refuse(before)
    path.unlink(missing_ok=True)
    clear()
    text = json.dumps(now, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="ascii"))


def read_facts(path: Path) -> Facts | None:
    """Read a file of facts; ``None`` if it is not there, and no facts if it is damaged."""
    try:
        found = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def changes_between(
    before: Facts, now: Facts, free: tuple[str, ...] = (), place: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, old and new value of every fact that differs; those in ``free`` may."""
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if key in free or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield from changes_between(old, new, free, f"{place}{key}.")
        else:
            yield f"{place}{key}", old, new
