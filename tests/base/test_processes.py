"""What the processes of a training do together; two of them are run in test_training_reproduce."""

from __future__ import annotations

import pytest
import torch

from resnet_zoo.base.processes import Processes, is_restarted, join_processes
from resnet_zoo.errors import ArgumentError, TrainingError
from tests.training_tools import ALONE, CPU


def test_without_torchrun_a_process_is_alone() -> None:
    with join_processes("cpu") as processes:
        assert processes == Processes(0, 1, CPU)
        assert processes.total(torch.ones(2)).tolist() == [1, 1]


@pytest.mark.parametrize("error", [TrainingError("no room"), OSError(28, "No space left on device")])
def test_the_first_process_acts_and_its_error_is_raised(error: Exception) -> None:
    def fail() -> None:
        raise error

    assert ALONE.first(lambda: 3) == 3
    with pytest.raises(type(error)) as caught:
        ALONE.first(fail)
    assert caught.value is error


def test_variables_that_torchrun_did_not_set_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ArgumentError, match="Start it with torchrun"), join_processes("cpu"):
        pass


@pytest.mark.parametrize(("count", "expected"), [(None, False), ("0", False), ("2", True)])
def test_a_restart_is_known_by_torchruns_count(
    count: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    if count is not None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    assert is_restarted() is expected
