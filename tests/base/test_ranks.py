from __future__ import annotations

import pytest

from resnet_zoo.base.processes import Ranks
from resnet_zoo.errors import ArgumentError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_torchrun_there_is_one_process() -> None:
    ranks = Ranks.from_environment()
    assert ranks == Ranks(0, 1, 0, 1)
    with ranks.connected():
        ranks.wait()
        done: list[int] = []
        ranks.first(lambda: done.append(1))
        assert done == [1]


def test_an_error_of_the_first_process_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        Ranks().first(lambda: 1 / 0)


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, "5814", strict=True):
        monkeypatch.setenv(name, value)
    assert Ranks.from_environment() == Ranks(5, 8, 1, 4)


@pytest.mark.parametrize("values", ["2200", "-1", "a2", "", "0 2", "0231", "٠2"])
def test_variables_that_make_no_sense_are_refused(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in zip(VARIABLES, values, strict=False):
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match="Start it with torchrun"):
        Ranks.from_environment()


def test_processes_that_cannot_be_connected_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ArgumentError, match="2 processes cannot be connected"), Ranks(0, 2).connected():
        pass
