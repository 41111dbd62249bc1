"""What a training says on the terminal."""

from __future__ import annotations

import re
import sys

import pytest

from resnet_zoo.base.progress import progress_bar
from resnet_zoo.runs.records import LogEpoch, LogStep
from resnet_zoo.training.display import console
from resnet_zoo.training.loop import Pace

PROGRESS = Pace(epoch=2, epochs=16, step=7, steps=391, loss=1.5, images_per_s=530.4, seconds_left=3723.6)
EPOCH = LogEpoch(
    epoch=2,
    step=1173,
    loss=1.23456,
    lr=0.1,
    top1_train=56.789,
    images=50000,
    seconds=94.0,
    images_per_s=531.9,
    size=16,
    top1=61.5,
    top5=95.0,
)


def test_an_epoch_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with console() as screen:
        screen.watch(PROGRESS)
        screen.on_line(LogStep(epoch=2, step=1172, loss=1.0, lr=0.1))
        screen.on_line(EPOCH)
    out, err = capsys.readouterr()
    assert out == ""
    line = "epoch   3/16  16 px  loss 1.2346  learning rate 0.1000  train 56.79%  test 61.50%  "
    assert err == f"{line}532 images/s  1:02:04 left\n"


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            120,
            "loss 1.2346  learning rate 0.1000  train 56.79%  held out 61.50%  532 images/s  1:02:04 left",
        ),
        (80, "epoch   3/16  loss 1.2346  train 56.79%  held out 61.50%  1:02:04 left"),
        (50, "epoch   3/16  train 56.79%  held out 61.50%"),
    ],
)
def test_an_epoch_is_one_line_on_a_narrow_terminal_too(
    width: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    with console(held_out="held out") as screen:
        screen.watch(PROGRESS)
        screen.on_line(EPOCH)
        screen.say("a/" * 60)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", capsys.readouterr().err).splitlines()
    assert any(found.endswith(line) for found in lines)  # behind the bar that it replaced
    assert any(found.endswith("a/" * 60) for found in lines)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, "epoch 100/200, loss 123.4567 # 10007/10009 123457 images/s, 2 days, 7:33:20 left"),
        (80, "epoch 100/200, loss 123.4567 # 10007/10009 2 days, 7:33:20 left"),
        (60, "epoch 100/200 # 10007/10009 2 days, 7:33:20 left"),
    ],
)
def test_a_bar_is_one_line_on_a_narrow_terminal_too(
    width: int, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    pace = {"epoch": 99, "epochs": 200, "step": 10007, "steps": 10009}
    with console() as screen:
        screen.watch(Pace(**pace, loss=123.4567, images_per_s=123456.7, seconds_left=200_000))
        screen.bar.refresh()
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)  # the colours
    lines = re.split(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\n]", text)
    assert all(len(line) <= width for line in lines)
    assert expected in [re.sub("[━╸╺]+", "#", line) for line in lines]


def test_all_but_the_first_process_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with console(quiet=True) as screen:
        screen.watch(PROGRESS)
        screen.on_line(EPOCH)
        screen.say("something")
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with console() as screen:
        screen.watch(PROGRESS)
        screen.bar.refresh()
        screen.say("a [sentence]")
    err = capsys.readouterr().err
    assert "epoch 3/16, loss 1.5000" in err
    assert "530 images/s, 1:02:04 left" in err
    assert "a [sentence]" in err


@pytest.mark.parametrize("is_terminal", [False, True])
def test_text_of_others_brings_no_codes_to_the_terminal(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    with console() as screen, progress_bar() as draw:
        screen.say("\x1b]0;title\x07 is damaged; skipping it.")
        draw("\x1b]0;bar\x07", 1, 2)
    err = capsys.readouterr().err
    assert "\\x1b]0;title\\x07 is damaged" in err
    assert "\x1b]0;" not in err
    assert "\x07" not in err
