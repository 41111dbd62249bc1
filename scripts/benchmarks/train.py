"""Training of ResNet-18 on CIFAR-10: our loop, the bare step of the same network, and mmpretrain's own Runner."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.timing import Options, compare
from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import Precision, find_recipe
from resnet_zoo.images.test_sets import open_training_set
from resnet_zoo.images.transform import Transform
from resnet_zoo.network.building import build
from resnet_zoo.training.held_images import HeldImages
from resnet_zoo.training.learner import Learner, make_optimizer
from resnet_zoo.training.loop import Loop, Pace

NAME, BATCH, NUM_STEPS = "resnet18_cifar10", 128, 16
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def measure(options: Options) -> None:
    """Print the table: the same batch for all, each precision beside its bare step."""
    if options.cifar10 is None:
        click.echo("train: not measured (give --cifar10 DIR)\n")
        return
    contestants, num_images = train_contestants(options.cifar10, resolve_device("auto"), NUM_STEPS)
    anchor = next((name for name in contestants if name.startswith("mmpretrain")), None)
    title = f"Training ResNet-18 on {num_images} CIFAR-10 images, batch {BATCH}"
    compare(title, contestants, options.rounds, num_images, anchor=anchor)


def train_contestants(root: Path, device: torch.device, num_steps: int) -> tuple[dict[str, Callable[[], float]], int]:
    """Return contestants, each of which trains on as many images and returns the seconds it took, and that number."""
    entry = get_entry(NAME)
    images = HeldImages(entry, open_training_set(entry, root), find_recipe("cifar10"), seed=0, device=device)
    count = num_steps * BATCH
    pixels, labels = images.padded[:count, :, 4:-4, 4:-4].contiguous(), images.labels[:count]
    images.num_images = count
    contestants: dict[str, Callable[[], float]] = {
        "resnet_zoo's loop, bfloat16": lambda: our_loop(images, "bfloat16", device),
        "the bare step, bfloat16": lambda: bare_steps(pixels, labels, "bfloat16"),
        "resnet_zoo's loop, float32": lambda: our_loop(images, "float32", device),
        "the bare step, float32": lambda: bare_steps(pixels, labels, "float32"),
    }
    try:
        contestants["mmpretrain's Runner, float32"] = upstream_loop(pixels, labels)
    except ImportError:
        click.echo("mmpretrain is not installed (extra `peers`): not measured")
    return contestants, count


def our_loop(images: HeldImages, precision: Precision, device: torch.device) -> float:
    """Train for an epoch with all that the loop does but the checkpoint at its end."""
    recipe = replace(find_recipe("cifar10"), epochs=1, total_batch=BATCH, precision=precision)
    processes, entry = Processes(0, 1, device), get_entry(NAME)
    normalise = Transform(entry.preprocess, entry.input_size).normalise
    learner = Learner(build(entry), recipe, normalise, processes, compile_network=device.type == "cuda")
    ends: list[float] = []

    def note(_: Pace) -> None:
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(learner, images, processes, Path(folder), seed=0, size=32, watch=note)
        start = time.perf_counter()
        loop.run()
    return ends[-1] - start


def bare_steps(pixels: Tensor, labels: Tensor, precision: Precision) -> float:
    """Make forward, backward and update for batches that are ready."""
    entry = get_entry(NAME)
    device, dtype = pixels.device, _DTYPES[precision]
    model = build(entry).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    network = torch.compile(model, mode="reduce-overhead") if device.type == "cuda" else model
    optimizer = make_optimizer(model, find_recipe("cifar10"))
    inputs = Transform(entry.preprocess, entry.input_size).normalise(pixels)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    start = time.perf_counter()
    for first in range(0, len(labels), BATCH):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            logits = network(inputs[first : first + BATCH])
        functional.cross_entropy(logits.float(), labels[first : first + BATCH]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def upstream_loop(pixels: Tensor, labels: Tensor) -> Callable[[], float]:
    """Return mmengine's Runner training mmpretrain's network from its own configuration, images in memory.

    Raises:
        ImportError: mmpretrain is not installed.
    """
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.runner import Runner
    from mmpretrain import get_model
    from mmpretrain.datasets import BaseDataset
    from mmpretrain.registry import DATASETS

    arrays, targets = pixels.permute(0, 2, 3, 1).cpu().numpy(), labels.tolist()

    class ImagesInMemory(BaseDataset):  # type: ignore[misc]
        def load_data_list(self) -> list[dict[str, Any]]:
            return [{"img": image, "gt_label": target} for image, target in zip(arrays, targets, strict=True)]

    class Clock(Hook):  # type: ignore[misc]
        start = end = 0.0

        def before_train_epoch(self, _runner: Any) -> None:
            self.start = time.perf_counter()

        def after_train_iter(self, *_: Any, **__: Any) -> None:
            self.end = time.perf_counter()

    DATASETS.register_module(module=ImagesInMemory, force=True)
    upstream: Any = get_model("resnet18_8xb16_cifar10", device="cpu")._config

    def run() -> float:
        clock = Clock()
        loader = dict(upstream.train_dataloader)
        loader["batch_size"] = BATCH
        loader["dataset"] = {
            "type": "ImagesInMemory",
            "ann_file": "",
            "pipeline": upstream.train_dataloader.dataset.pipeline,
        }
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "model": upstream.model,
                "default_scope": "mmpretrain",
                "work_dir": folder,
                "log_level": "ERROR",
                "train_dataloader": loader,
                "train_cfg": {"by_epoch": True, "max_epochs": 1},
                "optim_wrapper": upstream.optim_wrapper,
                "default_hooks": {"checkpoint": None},
            }
            runner = Runner.from_cfg(Config(settings))
            runner.register_hook(clock)
            runner.train()
        return clock.end - clock.start

    return run
