"""Which image comes when: a pure function of seed and epoch, so that a resumed training continues the same sequence."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor


def epoch_order(num_images: int, *, seed: int, epoch: int) -> Tensor:
    """Return the epoch's permutation of all images (num_images,), int64."""
    return torch.randperm(num_images, generator=generator(seed, epoch, "order"))


def shard(order: Tensor, *, rank: int, num_devices: int) -> Tensor:
    """Return a device's part of the epoch's order.

    Upstream's rule (that of torch's ``DistributedSampler``): the order is padded to a multiple of the number of devices
    by beginning again, and device r takes every ``num_devices``-th image from the r-th on.
    """
    missing = -len(order) % num_devices
    padded = torch.cat([order, order.repeat(-(-missing // len(order)))[:missing]]) if missing else order
    return padded[rank::num_devices]


def num_steps(num_images: int, total_batch: int, num_devices: int) -> int:
    """Return the steps of an epoch; the last one may be smaller, and no image is dropped."""
    return math.ceil(math.ceil(num_images / num_devices) / (total_batch // num_devices))


_STREAMS = {"order": 0, "augment": 1, "initial values": 2, "side": 3, "held out": 4}


def generator(seed: int, epoch: int, stream: str) -> torch.Generator:
    """Return a generator for one purpose in one epoch; different purposes never share numbers.

    On the CPU whatever the training's device, so that the sequence is the same everywhere.
    """
    mixed = (seed * 1_000_003 + epoch) * len(_STREAMS) + _STREAMS[stream]
    return torch.Generator().manual_seed(mixed % (1 << 63))


@contextlib.contextmanager
def initial_values(seed: int) -> Iterator[None]:
    """Let torch's own generator draw a network's initial values from the seed, and put it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, 0, "initial values").initial_seed())
        yield
