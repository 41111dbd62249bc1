"""Processes that read images beside this one: what they send, and the ways in which they may fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch import Tensor
from torch.utils.data import get_worker_info

from resnet_zoo.errors import DatasetError

LONGEST_WAIT_S = 600.0
"""For one batch: workers that still live but send nothing are given up after it."""

_Batch = TypeVar("_Batch")


def wait_s(num_workers: int) -> float:
    """Return the ``timeout`` of a data loader, which takes none without workers."""
    return LONGEST_WAIT_S if num_workers else 0.0


def shared(tensor: Tensor) -> Tensor:
    """Put a tensor into shared memory, if this is a worker, which is how it is sent.

    torch would do so itself, but in a thread whose errors are lost: with too little shared memory the batch never
    arrives. Here the error is one of the worker. (torch's own collate function allocates in the worker, too.)
    """
    if get_worker_info() is not None and tensor.numel():
        tensor.share_memory_()  # type: ignore[no-untyped-call]
    return tensor


def from_workers(batches: Iterable[_Batch], num_workers: int) -> Iterator[_Batch]:
    """Yield the batches of a data loader.

    Raises:
        DatasetError: The workers failed, not the images: shared memory is full, or one was killed or hangs.
    """
    if not num_workers:
        yield from batches
        return
    try:
        yield from batches
    except (RuntimeError, AssertionError, OSError) as error:
        why = " ".join((str(error).strip().splitlines() or [type(error).__name__])[-1].split())
        raise DatasetError(
            f"The {num_workers} processes that read images failed ({why[:300]}). Often shared memory is full: read "
            "in this process (-j 0, num_workers=0), or make it larger (docker run --shm-size=2g, or --ipc=host)."
        ) from error


def leave_interrupts(_worker: int) -> None:
    """Leave Ctrl-C, and what else is sent to a process group, to the process that a data loader's worker works for.

    It ends the worker when it ends itself. torchrun passes SIGTERM on to the whole group of each process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):  # not on Windows
        os.setpgid(0, 0)
