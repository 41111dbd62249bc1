"""The loop: what it logs, where it goes on, and how it ends."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_zoo.errors import NonFiniteLossError, TrainingError, TrainingStopped
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.runs.folder import read_log
from resnet_zoo.runs.records import LogEpoch, LogLine, LogStep
from resnet_zoo.training.learner import Learner
from resnet_zoo.training.loop import CHECKPOINTS, Loop
from resnet_zoo.training.snapshots import Position, list_checkpoints
from tests.conftest import slow
from tests.training_tools import same_state, small_learner, small_loop, small_recipe

STEPS = 3
"""Steps of an epoch of 20 images in batches of 8."""


def test_the_log_has_every_step_and_every_epoch(tmp_path: Path) -> None:
    lines: list[LogLine] = []
    position = small_loop(tmp_path, on_line=lines.append).run()
    log = read_log(tmp_path / "log.jsonl")
    assert (position.epoch, position.step) == (2, 2 * STEPS)
    assert [step.step for step in log.steps] == list(range(2 * STEPS))
    assert [step.lr for step in log.steps] == pytest.approx([0.05] * STEPS + [0.005] * STEPS)
    assert [(epoch.epoch, epoch.step, epoch.images, epoch.size) for epoch in log.epochs] == [
        (0, 3, 20, 8),
        (1, 6, 20, 8),
    ]
    weights = torch.tensor([8.0, 8.0, 4.0])
    for epoch in log.epochs:
        losses = torch.tensor([step.loss for step in log.steps if step.epoch == epoch.epoch])
        assert epoch.loss == pytest.approx(float((losses * weights).sum() / 20), rel=1e-5)
        assert epoch.top1 is None
    assert lines == [*log.steps[:3], log.epochs[0], *log.steps[3:], log.epochs[1]]


class Killed(Exception):  # noqa: N818
    """Stands for a kill: nothing after it is run."""


@pytest.mark.parametrize("after", [1, slow(2), 3, slow(4), 5])
@pytest.mark.parametrize("checkpoint_s", [0.0, 1000.0])
def test_a_killed_training_goes_on_bit_for_bit(
    tmp_path: Path, after: int, checkpoint_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnet_zoo.training.loop._EPOCH_CHECKPOINT_S", 0.0)
    whole = small_loop(tmp_path / "whole")
    whole.run()

    def kill(line: LogLine) -> None:
        if isinstance(line, LogStep) and line.step == after:
            raise Killed

    folder = tmp_path / "killed"
    with pytest.raises(Killed):
        small_loop(folder, checkpoint_s=checkpoint_s, on_line=kill).run()
    said: list[str] = []
    resumed = small_loop(folder, checkpoint_s=checkpoint_s, say=said.append)
    resumed.run()
    assert same_state(whole.learner, resumed.learner)
    one, other = (read_log(place / "log.jsonl") for place in (tmp_path / "whole", folder))
    assert one.steps == other.steps
    assert [timeless(epoch) for epoch in one.epochs] == [timeless(epoch) for epoch in other.epochs]
    has_checkpoint = checkpoint_s == 0 or after >= STEPS
    assert len(other.resumes) == len(said) == int(has_checkpoint)


def stopped_after(folder: Path, step: int) -> bytes:
    """Train with a checkpoint after every step, be killed after one, and return the log."""

    def kill(line: LogLine) -> None:
        if isinstance(line, LogStep) and line.step == step:
            raise Killed

    with pytest.raises(Killed):
        small_loop(folder, checkpoint_s=0, on_line=kill).run()
    return (folder / "log.jsonl").read_bytes()


CHANGED_LOGS: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda log: None,
    "empty": lambda log: b"",
    "cut": lambda log: log[: len(log) // 3],
    "filled up with zeros": lambda log: log[:100].ljust(len(log), b"\0"),
    "a line less, a longer one": lambda log: log.replace(log.splitlines(True)[1], b" " * len(log.splitlines(True)[1])),
    "not text": lambda log: log.replace(b"step", b"st\xffp", 1),
    "another step": lambda log: log.replace(b'"step": 1,', b'"step": 9,'),
    "an epoch less": lambda log: b"".join(line for line in log.splitlines(True) if b'"epoch", "epoch": 0' not in line),
    "without its line ends": lambda log: log.replace(b"\n", b" "),
}


@pytest.mark.parametrize("change", CHANGED_LOGS.values(), ids=CHANGED_LOGS)
def test_a_training_whose_log_was_changed_is_refused_before_its_first_step(
    tmp_path: Path, change: Callable[[bytes], bytes | None]
) -> None:
    log, lines = stopped_after(tmp_path, 5), list[LogLine]()
    changed = change(log)
    assert changed != log
    (tmp_path / "log.jsonl").write_bytes(changed) if changed is not None else (tmp_path / "log.jsonl").unlink()
    with pytest.raises(TrainingError, match=r"log\.jsonl.*\. Restore the file to resume, or start over") as refused:
        small_loop(tmp_path, on_line=lines.append).run()
    assert refused.value.exit_code == 3
    assert lines == []
    assert (tmp_path / "log.jsonl").read_bytes() == (changed or b"")
    (tmp_path / "log.jsonl").write_bytes(log)
    assert small_loop(tmp_path).run().epoch == 2
    assert [line.step for line in read_log(tmp_path / "log.jsonl").steps] == list(range(2 * STEPS))


def test_a_training_whose_log_lacks_the_last_step_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    log, said = stopped_after(tmp_path / "killed", 5), list[str]()
    without = b"".join(line for line in log.splitlines(keepends=True) if b'"step": 5' not in line)
    (tmp_path / "killed/log.jsonl").write_bytes(without[:-1])
    loops = [small_loop(tmp_path / "killed", say=said.append), small_loop(tmp_path / "whole")]
    for loop in loops:
        loop.run()
    assert same_state(loops[0].learner, loops[1].learner)
    steps = [read_log(tmp_path / name / "log.jsonl").steps for name in ("killed", "whole")]
    assert steps[0] == steps[1]
    assert "skipping it" in said[0]


def timeless(epoch: LogEpoch) -> dict[str, Any]:
    values = dataclasses.asdict(epoch)
    return {key: value for key, value in values.items() if key not in ("seconds", "images_per_s")}


def test_another_seed_or_no_resume_would_be_seen(tmp_path: Path) -> None:
    loops = [small_loop(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    for loop in loops:
        loop.run()
    assert not same_state(loops[0].learner, loops[1].learner)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_saves_and_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    def request(line: LogLine) -> None:
        if isinstance(line, LogStep) and line.step == 1:
            os.kill(os.getpid(), number)

    said: list[str] = []
    before = signal.getsignal(number)
    with pytest.raises(TrainingStopped, match="Run the same command again to resume") as stopped:
        small_loop(tmp_path, on_line=request, say=said.append).run()
    assert stopped.value.exit_code == 130
    assert said == ["Stopping after this step with a snapshot. A second signal stops at once, without one."]
    assert signal.getsignal(number) == before
    (checkpoint,) = list_checkpoints(tmp_path / CHECKPOINTS)
    assert checkpoint.name.startswith("step-000000002")
    resumed, whole = small_loop(tmp_path), small_loop(tmp_path / "whole")
    resumed.run()
    whole.run()
    assert same_state(resumed.learner, whole.learner)


def test_a_stop_request_is_obeyed_at_the_end_of_an_epoch_too_short_for_a_look_at_the_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request(line: LogLine) -> None:
        if isinstance(line, LogEpoch):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("resnet_zoo.training.loop._FLUSH_STEPS", {"cpu": 50})
    with pytest.raises(TrainingStopped):
        small_loop(tmp_path, on_line=request).run()
    (checkpoint,) = list_checkpoints(tmp_path / CHECKPOINTS)
    assert checkpoint.name.startswith("step-000000003")


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"step \d+ is (nan|inf)") as error:
        small_loop(tmp_path, small_recipe(lr=1e12, epochs=5), checkpoint_s=0).run()
    assert error.value.exit_code == 1
    for path in list_checkpoints(tmp_path / CHECKPOINTS):
        assert int(path.name[5:14]) <= error.value.step


def test_a_disk_that_cannot_be_written_ends_with_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("resnet_zoo.training.snapshots.write_atomically", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*make room and run the same command again"):
        small_loop(tmp_path, checkpoint_s=0).run()


@pytest.mark.parametrize("seconds", [0.0, 9.9, 10.0, 60.0])
def test_an_epoch_ends_with_a_checkpoint_if_it_was_worth_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(Loop, "_seconds_unsaved", lambda _: seconds)
    small_loop(tmp_path, small_recipe(epochs=2), checkpoint_s=1000.0).run()
    found = list_checkpoints(tmp_path / CHECKPOINTS)
    assert len(found) == 1 + (seconds >= 10)  # the last epoch's is always there


class FakeImages:
    """Eight test images, of which it says how many are right: two more at each look."""

    num_images = 8

    def __init__(self) -> None:
        self.looks: list[tuple[ResNet, str]] = []

    def count(self, model: ResNet, precision: str) -> tuple[int, int]:
        """Count a look."""
        self.looks.append((model, precision))
        return len(self.looks), 2 * len(self.looks)


@pytest.mark.parametrize(
    ("every", "expected"),
    [(2, [None, 12.5, None, 25.0, 37.5]), (5, [None] * 4 + [12.5]), (0, [None] * 4 + [12.5])],
)
def test_test_images_are_measured_when_due_and_at_the_end(
    tmp_path: Path, every: int, expected: list[float | None]
) -> None:
    testing = FakeImages()
    recipe = small_recipe(epochs=5, precision="bfloat16")
    loop = small_loop(tmp_path, recipe, testing=testing, evaluate_every=every)
    position = loop.run()
    log = read_log(tmp_path / "log.jsonl")
    assert [epoch.top1 for epoch in log.epochs] == expected
    assert [precision for _, precision in testing.looks] == ["bfloat16"] * (len(testing.looks) - 1) + ["float32"]
    assert (position.test_correct1, position.test_correct5) == (len(testing.looks), 2 * len(testing.looks))
    assert all(model is loop.learner.model for model, _ in testing.looks)
    again = small_loop(tmp_path, recipe, testing=testing, evaluate_every=every)
    assert again.run().test_correct1 == position.test_correct1  # from the checkpoint, without another look
    assert len(testing.looks) == position.test_correct1


def test_a_watcher_sees_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    small_loop(tmp_path, watch=lambda now: seen.append((now.epoch, now.step, round(now.seconds_left >= 0)))).run()
    assert seen == [(epoch, step, 1) for epoch in (0, 1) for step in (1, 2, 3)]


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first = small_loop(tmp_path)
    end = first.run()
    learner = small_learner(small_recipe())
    again = small_loop(tmp_path, learner=learner)
    assert dataclasses.replace(again.run(), log_bytes=0) == dataclasses.replace(end, log_bytes=0)
    assert same_state(first.learner, learner)
    assert isinstance(end, Position)
    assert isinstance(first, Loop)
    assert isinstance(learner, Learner)
