"""ImageNet's training images on one core, from the file to a batch of random crops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import click

from benchmarks.timing import Contestants, Options, compare, one_thread


def measure(options: Options) -> None:
    """Print the table; what we leave to the device, normalisation, is also measured with it."""
    if options.images is None:
        click.echo("reader: not measured (give --images DIR)\n")
        return
    with one_thread():
        contestants, num_images = reader_contestants(options.images)
        title = f"Random crops of {num_images} JPEG files, one core"
        compare(title, contestants, options.rounds, num_images)


def reader_contestants(folder: Path, batch_size: int = 64) -> tuple[Contestants, int]:
    """The same files in the same order through both readers, in this process; crops are drawn afresh in every round."""
    import torch
    from torchvision import datasets, transforms

    from resnet_zoo import create_transform, get_entry
    from resnet_zoo.training.imagenet import ImageNetTraining

    augmentation = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    peer = torch.utils.data.DataLoader(datasets.ImageFolder(str(folder), augmentation), batch_size)
    plain, v1d = (ImageNetTraining(get_entry(name), folder, partial=True) for name in ("resnet50", "resnetv1d50"))
    normalise = create_transform("resnet50").normalise
    epochs = itertools.count()

    def read(images: ImageNetTraining) -> Iterator[torch.Tensor]:
        passes = images.batches(range(images.num_images), epoch=next(epochs), batch_size=batch_size)
        return (batch.pixels for batch in passes)

    return {
        "resnet_zoo, resnet50 (cv2 resize), uint8": lambda: list(read(plain)),
        "resnet_zoo, resnet50, normalised here": lambda: [normalise(pixels) for pixels in read(plain)],
        "resnet_zoo, resnetv1d50 (pillow), uint8": lambda: list(read(v1d)),
        "resnet_zoo, resnetv1d50, normalised here": lambda: [normalise(pixels) for pixels in read(v1d)],
        "torchvision ImageFolder, PIL": lambda: list(peer),
    }, plain.num_images
