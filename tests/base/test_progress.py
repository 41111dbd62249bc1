"""Bars and sentences on a terminal: one line each, and no word broken."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from resnet_zoo.base.progress import download_bar, folded, progress_bar, tell, terminal_width

SHA256 = "0123456789abcdef" * 4
SENTENCE = (
    f"The file has the sha256 {SHA256}, which is not that of https://host/{'folder/' * 12}file.pth. Fetch it again."
)


class Terminal(io.StringIO):
    """A standard error that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard error a terminal of this width; not in a fixture, after which pytest puts its own in place."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    return stream


@pytest.mark.parametrize("width", [1, 20, 60, 80, 1000])
def test_lines_end_between_words(width: int) -> None:
    lines = folded(SENTENCE, width).split("\n")
    assert " ".join(lines) == SENTENCE
    assert all(len(line) <= width or " " not in line for line in lines)


def test_folded_text_keeps_its_lines_and_leaves_room_for_what_stands_before_it() -> None:
    assert folded("one two\n\nthree", 80) == "one two\n\nthree"
    assert folded("one two", None) == "one two"
    assert folded("one two", 7) == "one two"
    assert folded("one two", 7, begin="Error: ") == "one\ntwo"
    assert folded("", 7, begin="Error: ") == ""


def test_a_sentence_is_one_line_in_a_pipe_and_folded_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = terminal(60, monkeypatch)
    tell(SENTENCE)
    assert stream.getvalue() == f"{folded(SENTENCE, 60)}\n"
    assert stream.getvalue().count("\n") > 1
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    tell(SENTENCE)
    assert pipe.getvalue() == f"{SENTENCE}\n"


def test_what_is_no_terminal_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(61, monkeypatch)
    assert [terminal_width(other) for other in (io.StringIO(), None, object())] == [None] * 3
    assert terminal_width(stream) == 61


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("title", ["a.pth", "resnet50_8xb32_in1k_20210831-ea4938fc.pth", f"{SHA256}.safetensors"])
@pytest.mark.parametrize("bar", [progress_bar, download_bar])
def test_a_bar_is_one_line(bar: Callable[[], Any], title: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal(width, monkeypatch)
    with bar() as draw:
        draw(title, 0, 0)
        draw(title, 12_345_678, 123_456_789)
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())  # the colours; what moves the cursor begins a line
    drawn = [line for line in re.split(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]", text) if line.strip()]
    assert all(line.startswith(title[:8]) for line in drawn)  # none goes on in a second line
    assert all(len(line) <= width for line in drawn)
    assert any("123.5 MB" in line or "123456789" in line for line in drawn)
    assert any(title in line for line in drawn) or width < len(title) + 42
