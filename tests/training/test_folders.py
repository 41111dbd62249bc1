"""The hidden folder beside a file in the making: when it stays, when it goes, and whose it is."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from resnet_zoo.errors import TrainingError
from resnet_zoo.runs.folder import write_json
from resnet_zoo.training.folders import Plan, hold_folder, work_folder
from resnet_zoo.training.loop import CHECKPOINTS
from resnet_zoo.training.tuning import TUNING

PLAN = Plan(
    model="resnet18_cifar10",
    made_from="fresh values",
    weights_sha256=None,
    class_names=("cat", "dog"),
    tuning=TUNING,
    seed=0,
    train_sha256="1" * 64,
    val_sha256=None,
    test_sha256=None,
    code_sha256="2" * 64,
    device="cpu",
    versions={"torch": "2"},
)


class Killed(Exception):  # noqa: N818
    """Stands for whatever ends a training."""


def leave_unfinished(target: Path, *, checkpoint: bool = True) -> Path:
    with contextlib.suppress(Killed), work_folder(target, PLAN, overwrite=False) as folder:
        (folder / "head" / CHECKPOINTS).mkdir(parents=True)
        if checkpoint:
            (folder / "head" / CHECKPOINTS / "step-1.safetensors").touch()
        raise Killed
    return folder


def test_the_folder_is_hidden_and_gone_at_the_end(tmp_path: Path) -> None:
    with work_folder(tmp_path / "out.safetensors", PLAN, overwrite=False) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith(".out.safetensors.")
    assert not list(tmp_path.iterdir())


def test_it_stays_only_if_there_is_something_to_go_on_from(tmp_path: Path) -> None:
    leave_unfinished(tmp_path / "out", checkpoint=False)
    assert not list(tmp_path.iterdir())
    folder = leave_unfinished(tmp_path / "out")
    with work_folder(tmp_path / "out", PLAN, overwrite=False) as again:
        assert again == folder
        assert list(folder.glob("head/checkpoints/step-1.safetensors"))


def test_another_plan_is_refused_or_begins_anew(tmp_path: Path) -> None:
    folder = leave_unfinished(tmp_path / "out")
    other = replace(PLAN, seed=1, tuning=replace(TUNING, lr=0.5))
    with (
        pytest.raises(TrainingError, match=r"tuning\.lr was 0\.01 and is 0\.5; seed was 0 and is 1.*--force"),
        work_folder(tmp_path / "out", other, overwrite=False),
    ):
        pass
    assert list(folder.glob("head/*/*"))
    with work_folder(tmp_path / "out", other, overwrite=True):
        assert not list(folder.glob("head/*"))


def test_a_plan_as_versions_before_wrote_it_is_the_same(tmp_path: Path) -> None:
    folder, plan = leave_unfinished(tmp_path / "out"), replace(PLAN, class_names=("chat", "épagneul"))
    write_json(folder / "plan.json", plan)
    with work_folder(tmp_path / "out", plan, overwrite=False):
        assert list(folder.glob("head/*/*"))


def test_a_damaged_plan_is_refused_or_begins_anew(tmp_path: Path) -> None:
    folder = leave_unfinished(tmp_path / "out")
    (folder / "plan.json").write_text("{")
    with pytest.raises(TrainingError, match=r"plan\.json"), work_folder(tmp_path / "out", PLAN, overwrite=False):
        pass
    with work_folder(tmp_path / "out", PLAN, overwrite=True):
        assert not list(folder.glob("head/*"))


def test_force_does_not_drop_a_training_of_the_same_plan(tmp_path: Path) -> None:
    folder = leave_unfinished(tmp_path / "out")
    with work_folder(tmp_path / "out", PLAN, overwrite=True):
        assert list(folder.glob("head/*/*"))


def test_two_processes_do_not_make_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_zoo.training.folders._PATIENCE_S", 0)
    folder = leave_unfinished(tmp_path / "out")
    with (
        filelock.FileLock(folder / ".lock"),
        pytest.raises(TrainingError, match=r"Another process.*write to another file"),
        work_folder(tmp_path / "out", PLAN, overwrite=True),
    ):
        pass
    assert list(folder.glob("head/*/*"))


def test_a_lock_that_outlives_its_training_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    lock = filelock.FileLock(tmp_path / ".lock", thread_local=False)
    lock.acquire()
    release = threading.Timer(0.3, lock.release)
    release.start()
    with hold_folder(tmp_path):
        assert not lock.is_locked
    release.join()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / ".out.finetune").touch()
    with pytest.raises(TrainingError, match="cannot be made"), work_folder(tmp_path / "out", PLAN, overwrite=False):
        pass
