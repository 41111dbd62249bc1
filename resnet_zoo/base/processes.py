"""The processes of one torchrun: which one this is, how they wait for each other, and what they share."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.errors import ArgumentError, DatasetError, ZooError

_LONGEST_WAIT = datetime.timedelta(days=30)
"""For a slower process; gloo notices at once that one has died, nccl only by the time, so that its own limit stays."""

_STOPPED = (
    "Another process of this run stopped; its own message says why. Finished work is kept; run the same command again."
)


def num_restarts() -> int:
    """Return how often torchrun started all processes again, because one had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@dataclass(frozen=True)
class Ranks:
    """One process among those of a torchrun.

    Attributes:
        rank: Which one this is, from 0.
        size: How many there are.
        local_rank: Which one it is on its machine.
        local_size: How many there are on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> Ranks:
        """Read what torchrun sets; one process without it.

        Raises:
            ArgumentError: The variables make no sense.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if not os.environ.get("WORLD_SIZE"):
            return cls()
        defaults = ("", "", "0", "1")
        texts = [os.environ.get(name, default) for name, default in zip(names, defaults, strict=True)]
        numbers = [int(text) if text.isascii() and text.isdecimal() else -1 for text in texts]
        if min(numbers) < 0 or numbers[0] >= numbers[1] or numbers[2] >= numbers[3]:
            given = ", ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
            raise ArgumentError(f"Expected the variables that torchrun sets, got {given}. Start it with torchrun.")
        return cls(*numbers)

    @contextlib.contextmanager
    def connected(self, backend: str = "gloo") -> Iterator[None]:
        """Connect the processes for as long as the context lasts.

        Args:
            backend: ``gloo``, over TCP, or ``nccl``, between CUDA devices.

        Raises:
            ArgumentError: They cannot be connected.
        """
        if self.size == 1:
            yield
            return
        from torch.distributed.rendezvous import rendezvous

        wait: dict[str, Any] = {"timeout": _LONGEST_WAIT} if backend == "gloo" else {}
        try:
            store, _, _ = next(rendezvous("env://", **wait))
            # torchrun may keep its store when it starts all processes again: addresses of dead ones are in it.
            own_keys = dist.PrefixStore(f"start {num_restarts()}", store)  # type: ignore[attr-defined]
            dist.init_process_group(backend, store=own_keys, rank=self.rank, world_size=self.size, **wait)
        except (RuntimeError, ValueError) as error:
            raise ArgumentError(
                f"The {self.size} processes cannot be connected: {error}. Start with torchrun."
            ) from error
        try:
            yield
        finally:
            dist.destroy_process_group()

    def wait(self) -> None:
        """Wait until every process is here.

        Raises:
            DatasetError: One of them has stopped.
        """
        self._say(True)

    def first(self, action: Callable[[], object]) -> None:
        """Have the first process do something while the others wait for it.

        Raises:
            DatasetError: In the others, if it failed.
        """
        if self.rank:
            self.wait()
            return
        try:
            action()
        except BaseException:
            with contextlib.suppress(DatasetError):
                self._say(False)
            raise
        self.wait()

    def _say(self, is_good: bool) -> None:
        """Tell the others whether all is well here, and hear it from them."""
        if self.size == 1:
            return

        answer = torch.tensor([int(is_good)])
        try:
            dist.all_reduce(answer, op=dist.ReduceOp.MIN)
        except RuntimeError as error:  # the connection to one that died
            raise DatasetError(_STOPPED) from error
        if not answer.item():
            raise DatasetError(_STOPPED)


@dataclass(frozen=True)
class Processes:
    """This process among all.

    Attributes:
        rank: Number of this process, from 0.
        num_devices: Processes in all; each has one device.
        device: Of this process.
    """

    rank: int
    num_devices: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.num_devices > 1:
            dist.all_reduce(values)
        return values

    def first(self, action: Callable[[], Any]) -> Any:
        """Have the first process do something, and return its value, plain values and paths, in all of them.

        Raises:
            ZooError, OSError: In all of them, what it raised in the first.
        """
        outcome: list[Any] = [None, None]
        if self.is_first:
            try:
                outcome[0] = action()
            except (ZooError, OSError) as error:
                outcome[1] = error
        if self.num_devices > 1:
            dist.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors of all processes with the first one's."""
        if self.num_devices > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


@contextlib.contextmanager
def join_processes(device: torch.device | str) -> Iterator[Processes]:
    """Join the processes that torchrun started (``RANK``, ``WORLD_SIZE``), or be the only one.

    NCCL between CUDA devices, gloo between CPUs. On a CPU, this process keeps the memory that it frees from then on.

    Raises:
        ArgumentError: The device is not there, or the processes cannot be connected.
    """
    ranks = Ranks.from_environment()
    chosen = _own_device(ranks, resolve_device(device))
    if chosen.type == "cpu":
        _keep_freed_memory()
    with ranks.connected("nccl" if chosen.type == "cuda" else "gloo"):
        yield Processes(ranks.rank, ranks.size, chosen)


def _keep_freed_memory() -> None:
    """Tell glibc's malloc to keep what is freed instead of giving it back to the system.

    Given back, every large activation is mapped and cleared again, page by page, at each step: measured, 63,000 page
    faults and 12% of a step of ResNet-18 on CIFAR-10. Without glibc nothing is done.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""From glibc's malloc.h."""


def _own_device(ranks: Ranks, chosen: torch.device) -> torch.device:
    """Return the CUDA device of this process among those of its machine, or what was chosen."""
    if ranks.size == 1 or chosen.type != "cuda":
        return chosen
    if ranks.local_rank >= torch.cuda.device_count():
        raise ArgumentError(
            f"{ranks.local_rank + 1} processes on this machine, which has {torch.cuda.device_count()} CUDA devices. "
            "Pass torchrun a smaller --nproc-per-node."
        )
    own = torch.device("cuda", ranks.local_rank)
    torch.cuda.set_device(own)
    return own


def is_restarted() -> bool:
    """Tell whether torchrun started all processes again, because one had failed."""
    return num_restarts() > 0
