"""The evaluation of a network, against its forward passes alone."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.timing import Contestants, Options, compare


def measure(options: Options) -> None:
    """Print the table."""
    if options.cifar10 is None:
        click.echo("evaluate: not measured (give --cifar10 DIR)\n")
        return
    contestants, num_images = evaluate_contestants(options.cifar10)
    compare(f"ResNet-18 on {num_images} CIFAR-10 images", contestants, options.rounds, num_images)


def evaluate_contestants(root: Path, num_images: int = 2048, batch_size: int = 64) -> tuple[Contestants, int]:
    """The same network over the same batches: all of `evaluate`'s work against forward passes alone."""
    import torch

    from resnet_zoo import create_model, create_transform
    from resnet_zoo.catalog.manifest import get_entry
    from resnet_zoo.images.test_sets import batches, open_test_set
    from resnet_zoo.inference.counted import count_correct

    entry = get_entry("resnet18_cifar10")
    images = open_test_set(entry, root)
    images.images, images.labels = images.images[:num_images], images.labels[:num_images]
    model, transform = create_model(entry.name).eval(), create_transform(entry.name)
    ready = [transform.normalise(batch.pixels) for batch in batches(images, batch_size)]

    def bare() -> None:
        with torch.inference_mode():
            for x in ready:
                model(x)

    def whole() -> None:
        count_correct(model, batches(images, batch_size), transform.normalise, device=torch.device("cpu"))

    return {"evaluate: read, decode, normalise, run, count": whole, "the bare network": bare}, len(images)
