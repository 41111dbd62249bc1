"""Waiting for others: reported after a few seconds, and never without an end."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

REPORTED_AFTER_S = 5.0
"""How long a wait may be silent."""

_LOG = logging.getLogger("resnet_zoo")

_Value = TypeVar("_Value")


class GaveUpError(Exception):
    """A call that made no progress; whoever made it says of what."""


def report_wait(sentence: str) -> None:
    """Log what is being waited for; without a handler, logging writes it to standard error."""
    _LOG.warning("%s", sentence)


@contextlib.contextmanager
def reported(sentence: str) -> Iterator[None]:
    """Log a sentence if the block takes longer than `REPORTED_AFTER_S`."""
    timer = threading.Timer(REPORTED_AFTER_S, report_wait, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def call_while_progressing(
    function: Callable[[], _Value], progress: Callable[[], object], *, patience_s: float, sentence: str
) -> _Value:
    """Call a function of another library, which may wait for as long as a server asks it to.

    It runs in a thread, so that this one stays interruptible. If it is given up, the thread is left behind; it does not
    keep the process from ending.

    Args:
        function: What to call.
        progress: Returns a value that changes as long as the function gets somewhere, such as bytes on disk.
        patience_s: How long that value may stay the same.
        sentence: Logged if the call takes longer than `REPORTED_AFTER_S` without progress.

    Raises:
        GaveUpError: There was no progress for that long.
        Exception: Whatever the function raises.
    """
    result: concurrent.futures.Future[_Value] = concurrent.futures.Future()

    def run() -> None:
        try:
            result.set_result(function())
        except BaseException as error:  # noqa: BLE001  # raised again by whoever waits
            result.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="resnet-zoo-wait", daemon=True).start()
    seen, since, is_reported = progress(), time.monotonic(), False
    while not concurrent.futures.wait([result], min(0.5, patience_s / 4)).done:
        now = progress()
        if now != seen:
            seen, since, is_reported = now, time.monotonic(), False
        waited_s = time.monotonic() - since
        if waited_s > patience_s:
            raise GaveUpError(f"nothing happened for {patience_s:.0f} s")
        if waited_s > REPORTED_AFTER_S and not is_reported:
            report_wait(sentence)
            is_reported = True
    return result.result()
