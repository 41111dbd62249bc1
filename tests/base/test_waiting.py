"""Waits: reported after a while, interruptible, and never without an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from resnet_zoo.base import waiting
from resnet_zoo.base.waiting import GaveUpError, call_while_progressing, reported


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "REPORTED_AFTER_S", 0.1)


@pytest.fixture
def end() -> Iterator[threading.Event]:
    """Set at the end of a test, for whoever waits for it."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize(("seconds", "said"), [(0.5, ["Waiting."]), (0.0, [])])
def test_a_long_wait_is_reported_once(seconds: float, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with reported("Waiting."):
        time.sleep(seconds)
    time.sleep(0.2)
    assert [record.getMessage() for record in caplog.records] == said


def test_a_call_without_progress_is_given_up_and_reported(
    end: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    start = time.monotonic()
    with pytest.raises(GaveUpError):
        call_while_progressing(end.wait, lambda: 0, patience_s=0.4, sentence="Waiting.")
    assert time.monotonic() - start < 3
    assert [record.getMessage() for record in caplog.records] == ["Waiting."]


def test_a_call_with_progress_takes_its_time(end: threading.Event) -> None:
    def work() -> str:
        end.wait(1.2)
        return "done"

    assert call_while_progressing(work, time.monotonic, patience_s=0.4, sentence="Waiting.") == "done"


@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("its own"), GaveUpError("inner")])
def test_what_a_call_raises_is_raised(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        call_while_progressing(fail, lambda: 0, patience_s=5, sentence="Waiting.")
