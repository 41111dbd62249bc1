"""The processes that train together: one alone, or those that torchrun started."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from resnet_zoo.errors import ArgumentError, ZooError
from resnet_zoo.ranks import Ranks, num_restarts
from resnet_zoo.zoo import resolve_device


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

    Given back, every large activation is mapped and cleared anew, page by page, at each step: measured, 63,000 page
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
