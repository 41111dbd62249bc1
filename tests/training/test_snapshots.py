"""Checkpoints: whole or not there, and everything that is needed to go on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_zoo.errors import RunError, TrainingError
from resnet_zoo.training.learner import Learner
from resnet_zoo.training.snapshots import KEPT, Position, list_checkpoints, load_newest, save_checkpoint
from resnet_zoo.weights.convert import safetensors_bytes
from tests.training_tools import SmallImages, same_state, small_learner, small_recipe


def trained(steps: int = 1) -> Learner:
    learner, images = small_learner(small_recipe()), SmallImages()
    for _ in range(steps):
        learner.step(images.pixels[:8], images.labels[:8], lr=0.1, size=None)
    return learner


def test_a_checkpoint_brings_everything_back(tmp_path: Path) -> None:
    learner, position = trained(), Position(3, 17, 2, 1.5, 4, 16, 0.5, 9.25, 1234)
    save_checkpoint(tmp_path, learner, position)
    fresh = trained(0)
    assert not same_state(fresh, learner)
    assert load_newest(tmp_path, fresh, pytest.fail) == position
    assert same_state(fresh, learner)
    assert fresh.model.conv1.weight.stride() == learner.model.conv1.weight.stride()


def test_only_the_last_ones_are_kept_and_strays_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-000000001-x.safetensors.77.part").write_bytes(b"half")
    for step in range(4):
        save_checkpoint(tmp_path, trained(0), Position(step=step))
    assert [path.name[:14] for path in list_checkpoints(tmp_path)] == ["step-000000003", "step-000000002"]
    assert len(list(tmp_path.iterdir())) == KEPT


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_checkpoint_is_skipped_with_a_message(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, trained(1), Position(step=1))
    newest = save_checkpoint(tmp_path, trained(2), Position(step=2))
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    newest.write_bytes(bytes({"flip": data, "cut": data[:-1], "empty": bytearray()}[damage]))
    said: list[str] = []
    learner = trained(0)
    assert load_newest(tmp_path, learner, said.append) == Position(step=1)
    assert same_state(learner, trained(1))
    assert said == [f"{newest} is damaged; skipping it."]


def assert_skipped(folder: Path, data: bytes) -> None:
    """Check that a newer whole file of these bytes is skipped with a message, for the checkpoint of step 1."""
    path = folder / f"step-000000002-{hashlib.sha256(data).hexdigest()}.safetensors"
    path.write_bytes(data)
    said: list[str] = []
    learner = trained(0)
    assert load_newest(folder, learner, said.append) == Position(step=1)
    assert same_state(learner, trained(1))
    assert len(said) == 1
    assert said[0].startswith(f"{path} is not a snapshot of this training (")


@pytest.mark.parametrize(
    "crafted", ["no safetensors", "no position", "unknown position", "no tensors", "wrong shape", "wrong type"]
)
def test_a_whole_file_that_is_no_checkpoint_of_this_training_is_skipped(tmp_path: Path, crafted: str) -> None:
    save_checkpoint(tmp_path, trained(1), Position(step=1))
    state = {name: tensor.detach().clone() for name, tensor in trained(2).state().items()}
    if crafted == "wrong shape":
        state[next(iter(state))] = torch.zeros(3)
    if crafted == "wrong type":
        state = {name: tensor.half() for name, tensor in state.items()}
    data = {
        "no safetensors": b"\x08" + b"no safetensors",
        "no position": safetensors_bytes(state, {}),
        "unknown position": safetensors_bytes(state, {"position": '{"epoch": 1, "eval": 2}'}),
        "no tensors": safetensors_bytes({"x": torch.zeros(1)}, {"position": json.dumps(asdict(Position()))}),
        "wrong shape": safetensors_bytes(state, {"position": json.dumps(asdict(Position()))}),
        "wrong type": safetensors_bytes(state, {"position": json.dumps(asdict(Position()))}),
    }[crafted]
    assert_skipped(tmp_path, data)


WRONG_POSITIONS = {
    "a text for a number": {"step": "2"},
    "true for a number": {"step": True},
    "nothing for a number": {"loss_sum": None},
    "a fraction for a count": {"log_bytes": 1.5},
    "below zero": {"epoch": -1},
    "not a number": {"seconds": float("nan")},
    "endless": {"loss_sum": float("inf")},
    "too large for a float": {"seconds": 10**400},
    "a step without images": {"epoch_step": 1, "epoch_seconds": 1.0},
    "a step without time": {"epoch_step": 1, "images": 8},
}


@pytest.mark.parametrize("fields", WRONG_POSITIONS.values(), ids=WRONG_POSITIONS)
def test_a_position_in_which_no_training_can_be_is_skipped(tmp_path: Path, fields: dict[str, Any]) -> None:
    save_checkpoint(tmp_path, trained(1), Position(step=1))
    position = {**asdict(Position(step=2)), **fields}
    data = safetensors_bytes(trained(2).state(), {"position": json.dumps(position)})
    assert_skipped(tmp_path, data)


def test_a_checkpoint_without_its_log_is_skipped_and_the_last_of_them_refused(tmp_path: Path) -> None:
    def check_log(position: Position) -> None:
        if position.step not in known:
            raise RunError("log.jsonl", "", f"lacks step {position.step}")

    for step in (1, 2):
        save_checkpoint(tmp_path, trained(step), Position(step=step))
    said: list[str] = []
    known, learner = {1, 2}, trained(0)
    assert load_newest(tmp_path, learner, said.append, check_log) == Position(step=2)
    assert said == []
    known = {1}
    assert load_newest(tmp_path, learner, said.append, check_log) == Position(step=1)
    assert same_state(learner, trained(1))
    assert "(log.jsonl: lacks step 2); skipping it." in said[0]
    known, learner = set(), trained(0)
    with pytest.raises(TrainingError, match=r"log\.jsonl: lacks step 2\. Restore the file to resume, or start over"):
        load_newest(tmp_path, learner, said.append, check_log)
    assert same_state(learner, trained(0))


def test_a_checkpoint_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, trained(1), Position(step=1))
    (tmp_path / f"step-000000002-{64 * '0'}.safetensors").mkdir()
    said: list[str] = []
    assert load_newest(tmp_path, trained(0), said.append) == Position(step=1)
    assert len(said) == 1
    assert "cannot be read (Is a directory); skipping it." in said[0]


def test_no_checkpoint_is_no_position(tmp_path: Path) -> None:
    (tmp_path / "step-000000001-other.safetensors").write_bytes(b"no checkpoint")
    assert load_newest(tmp_path, trained(0), pytest.fail) is None


def test_a_full_disk_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = save_checkpoint(tmp_path, trained(1), Position(step=1))

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, trained(2), Position(step=2))
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [kept]
    assert load_newest(tmp_path, trained(0), pytest.fail) == Position(step=1)
