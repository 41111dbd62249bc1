"""The processes that train together: one alone, or those that torchrun started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from resnet_zoo.errors import ArgumentError
from resnet_zoo.zoo import resolve_device


@dataclass(frozen=True)
class Workers:
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

    def share(self, value: Any) -> Any:
        """Return the first process's value to all: plain values and paths."""
        box = [value]
        if self.num_devices > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors of all processes with the first one's."""
        if self.num_devices > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.num_devices > 1:
            dist.barrier()


@contextlib.contextmanager
def join_workers(device: torch.device | str) -> Iterator[Workers]:
    """Join the processes that torchrun started (``RANK``, ``WORLD_SIZE``), or be the only one.

    NCCL between CUDA devices, gloo between CPUs.

    Raises:
        ArgumentError: The device is not there.
    """
    num_devices = int(os.environ.get("WORLD_SIZE", "1"))
    if num_devices == 1:
        yield Workers(0, 1, resolve_device(device))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = resolve_device(device)
    if chosen.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise ArgumentError(
                f"{local_rank + 1} processes on this machine, which has {torch.cuda.device_count()} CUDA devices. Pass "
                "torchrun a smaller --nproc-per-node."
            )
        chosen = torch.device("cuda", local_rank)
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), num_devices, chosen)
    finally:
        dist.destroy_process_group()
