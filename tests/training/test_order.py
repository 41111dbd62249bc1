"""Which image comes when."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DistributedSampler

from resnet_zoo.training.order import epoch_order, generator, num_steps, shard


def test_an_order_has_every_image_once_and_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(100, seed=3, epoch=5)
    assert sorted(order.tolist()) == list(range(100))
    torch.manual_seed(123)
    assert torch.equal(order, epoch_order(100, seed=3, epoch=5))
    assert not torch.equal(order, epoch_order(100, seed=3, epoch=6))
    assert not torch.equal(order, epoch_order(100, seed=4, epoch=5))


@pytest.mark.parametrize(("num_images", "num_devices"), [(10, 1), (10, 2), (10, 3), (10, 4), (2, 5), (50000, 8)])
def test_shards_are_those_of_torchs_distributed_sampler(num_images: int, num_devices: int) -> None:
    order = torch.arange(num_images)
    for rank in range(num_devices):
        sampler: DistributedSampler[int] = DistributedSampler(range(num_images), num_devices, rank, shuffle=False)  # type: ignore[arg-type]
        assert shard(order, rank=rank, num_devices=num_devices).tolist() == list(sampler)


@pytest.mark.parametrize(
    ("num_images", "batch", "devices", "steps"),
    [(50000, 128, 1, 391), (50000, 128, 8, 391), (1281167, 256, 8, 5005), (1281167, 256, 1, 5005), (16, 16, 2, 1)],
)
def test_an_epoch_has_upstreams_number_of_steps(num_images: int, batch: int, devices: int, steps: int) -> None:
    assert num_steps(num_images, batch, devices) == steps


def test_the_batches_of_many_devices_make_up_those_of_one() -> None:
    order = epoch_order(48, seed=0, epoch=0)
    parts = [shard(order, rank=rank, num_devices=4).view(-1, 2) for rank in range(4)]
    for step, whole in enumerate(order.view(-1, 8)):
        assert sorted(whole.tolist()) == sorted(index for part in parts for index in part[step].tolist())


def test_streams_never_share_numbers() -> None:
    places = [(seed, epoch, stream) for seed in (0, 1) for epoch in (0, 1) for stream in ("order", "augment", "side")]
    draws = {int(torch.randint(1 << 60, (1,), generator=generator(*place))) for place in places}
    assert len(draws) == len(places)
