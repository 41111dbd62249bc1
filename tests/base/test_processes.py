"""What the processes of a training do together; two of them are run in test_training_reproduce."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch

from resnet_zoo.base.processes import Processes, is_restarted, join_processes
from resnet_zoo.errors import ArgumentError, TrainingError
from tests.training_tools import ALONE, CPU

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def no_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_torchrun_a_process_is_alone() -> None:
    with join_processes("cpu") as processes:
        assert processes == Processes() == Processes(0, 1, CPU, 0, 1)
        assert processes.is_first
        assert processes.total(torch.ones(2)).tolist() == [1, 1]
        processes.wait()


@pytest.mark.parametrize("error", [TrainingError("no room"), OSError(28, "No space left on device")])
def test_the_first_process_acts_and_its_error_is_raised(error: Exception) -> None:
    def fail() -> None:
        raise error

    assert ALONE.first(lambda: 3) == 3
    with pytest.raises(type(error)) as caught:
        ALONE.first(fail)
    assert caught.value is error


def test_another_error_of_the_first_process_is_raised_too() -> None:
    with pytest.raises(ZeroDivisionError):
        ALONE.first(lambda: 1 / 0)


def test_torchruns_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, "5814", strict=True):
        monkeypatch.setenv(name, value)
    assert Processes.from_environment() == Processes(5, 8, CPU, 1, 4)


@pytest.mark.parametrize("values", ["2200", "-1", "a2", "", "0 2", "0231", "٠2"])
def test_variables_that_make_no_sense_are_refused(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in zip(VARIABLES, values, strict=False):
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match="Start it with torchrun"), join_processes("cpu"):
        pass


def test_processes_that_cannot_be_connected_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ArgumentError, match="2 processes cannot be connected"), Processes(0, 2).connected():
        pass


@pytest.mark.parametrize(("count", "expected"), [(None, False), ("0", False), ("2", True)])
def test_a_restart_is_known_by_torchruns_count(
    count: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    if count is not None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", count)
    assert is_restarted() is expected


TWO = """
import os, sys
from resnet_zoo.base.processes import Processes
from resnet_zoo.errors import ArgumentError, DatasetError

def refuse():
    raise ArgumentError("of the first")

def stop():
    os._exit(1)

processes = Processes.from_environment()
with processes.connected():
    assert processes.first(lambda: processes.rank + 5) == 5
    processes.wait()
    try:
        processes.first(refuse)
    except ArgumentError as error:
        assert str(error) == "of the first"
    else:
        sys.exit("not refused")
    try:
        if processes.rank == int(sys.argv[1]):
            stop()
        processes.first(lambda: None)
        processes.wait()
    except DatasetError as error:
        print(error)
"""


@pytest.mark.long
@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_is_noticed_by_the_other(dies: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(dies)],
            env=os.environ | store | {"RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [int(rank == dies) for rank in range(2)], said
    assert "Another process of this run stopped" in said[1 - dies][0]
