"""The processes of one torchrun: which one this is, and how they wait for each other."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from resnet_zoo.errors import ArgumentError, DatasetError

_LONGEST_WAIT = datetime.timedelta(days=30)
"""For a slower process; gloo notices at once that one has died, nccl only by the time, so that its own limit stays."""

_STOPPED = (
    "Another process of this run stopped; its own message says why. What is done is kept: run the same command again."
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
        import torch.distributed as dist
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
        import torch
        import torch.distributed as dist

        answer = torch.tensor([int(is_good)])
        try:
            dist.all_reduce(answer, op=dist.ReduceOp.MIN)
        except RuntimeError as error:  # the connection to one that died
            raise DatasetError(_STOPPED) from error
        if not answer.item():
            raise DatasetError(_STOPPED)
