"""Work that may go on; embeddings, fine-tuning and training show it whole, in their own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnet_zoo.base.unfinished import Facts, begin_or_go_on, changes_between, hold, read_facts
from resnet_zoo.errors import TrainingError

FACTS = {"seed": 1, "tuning": {"lr": 0.1, "epochs": 2}, "classes": ["cat", "ü"]}


class Work:
    """A file of facts and a piece of work beside it."""

    def __init__(self, folder: Path) -> None:
        self.facts, self.piece = folder / "facts.json", folder / "piece"

    def go_on(self, facts: Facts, *, force: bool = False) -> bool:
        """Tell whether the work of before is still there."""
        begin_or_go_on(self.facts, facts, clear=self.clear, refuse=None if force else self.refuse)
        there = self.piece.exists()
        self.piece.touch()
        return there

    def clear(self) -> None:
        assert not self.facts.exists(), "facts must not stand beside half of the work"
        self.piece.unlink(missing_ok=True)

    def refuse(self, before: Facts) -> TrainingError:
        return TrainingError(f"began with {dict(before)}")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_work_goes_on_under_the_same_facts_only(work: Work) -> None:
    assert not work.go_on(FACTS)
    assert work.go_on(FACTS)
    with pytest.raises(TrainingError, match=r"began with {'seed': 1"):
        work.go_on({**FACTS, "seed": 2})
    assert work.go_on(FACTS)
    assert not work.go_on({**FACTS, "seed": 2}, force=True)
    assert work.go_on({**FACTS, "seed": 2})


def test_without_facts_no_work_counts(work: Work) -> None:
    work.go_on(FACTS)
    work.facts.unlink()
    assert not work.go_on(FACTS)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_damaged_facts_are_none(data: bytes, work: Work) -> None:
    work.go_on(FACTS)
    work.facts.write_bytes(data)
    assert read_facts(work.facts) == {}
    with pytest.raises(TrainingError, match=r"began with {}"):
        work.go_on(FACTS)
    assert not work.go_on(FACTS, force=True)


def test_every_change_is_named() -> None:
    now = {"seed": 1, "tuning": {"lr": 0.2, "epochs": 2}, "classes": ["cat"], "device": "cpu"}
    assert list(changes_between(FACTS, now, free=("classes",))) == [("tuning.lr", 0.1, 0.2), ("device", None, "cpu")]
    assert not list(changes_between(FACTS, FACTS))


def test_a_lock_is_held_by_one_and_let_go(tmp_path: Path) -> None:
    refusal = TrainingError("held")
    with hold(tmp_path / "lock", refusal):
        with pytest.raises(TrainingError) as caught, hold(tmp_path / "lock", refusal):
            pass
        assert caught.value is refusal
    with hold(tmp_path / "lock", refusal):
        pass
