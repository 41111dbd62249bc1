"""Measure this package beside its peers, in one run, as ratios (above 1: we are faster).

Parts: startup (the list command against importing timm and torchvision), load (ResNet-50 from a file, ours with its
sha256 checked), preprocess (one core), reader (ImageNet's training images on one core, from the file to a batch; what
we leave to the device, normalisation, is also measured with it) and evaluate (against the bare network). All by
default. Contestants take turns, and the median of the rounds is printed. timm comes with the extra `peers`; the
reader is fastest with the extra `fast`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

PARTS = ("startup", "load", "preprocess", "reader", "evaluate")

Contestants = dict[str, Callable[[], Any]]


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--images", type=click.Path(exists=True, file_okay=False), help="ImageNet JPEG files: <wnid>/*.JPEG.")
@click.option("--cifar10", type=click.Path(exists=True, file_okay=False), help="CIFAR-10: archive or test/<class>/.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
def main(parts: tuple[str, ...], images: str | None, cifar10: str | None, rounds: int) -> None:
    for part in parts or PARTS:
        if part == "startup":
            compare("resnet-zoo list, whole process", startup_contestants(), rounds)
        elif part == "load":
            with tempfile.TemporaryDirectory() as folder:
                compare("ResNet-50: create and load", load_contestants(Path(folder)), rounds)
            del os.environ["RESNET_ZOO_HOME"], os.environ["RESNET_ZOO_MANIFEST"]
        elif part == "preprocess":
            if images is None:
                click.echo("preprocess: not measured (give --images DIR)\n")
                continue
            paths = sorted(path for path in Path(images).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            with one_thread():
                compare(
                    f"Preprocess {len(paths)} JPEG files, one core", preprocess_contestants(paths), rounds, len(paths)
                )
        elif part == "reader":
            if images is None:
                click.echo("reader: not measured (give --images DIR)\n")
                continue
            with one_thread():
                contestants, num_images = reader_contestants(Path(images))
                compare(f"Random crops of {num_images} JPEG files, one core", contestants, rounds, num_images)
        else:
            if cifar10 is None:
                click.echo("evaluate: not measured (give --cifar10 DIR)\n")
                continue
            contestants, num_images = evaluate_contestants(Path(cifar10))
            compare(f"ResNet-18 on {num_images} CIFAR-10 images", contestants, rounds, num_images)


def compare(title: str, contestants: Contestants, rounds: int, num_images: int = 0) -> None:
    """Let the contestants take turns and print medians; the first is ours, and ratios are taken round by round."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()  # warm caches, imports and lazy initialisation
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    ours = next(iter(seconds.values()))
    click.echo(title)
    for name, times in seconds.items():
        median = statistics.median(times)
        rate = f"{num_images / median:9.1f} images/s" if num_images else ""
        spread = f"{min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}"
        ratio = statistics.median(theirs / mine for theirs, mine in zip(times, ours, strict=True))
        click.echo(f"  {name:44} {median * 1e3:9.1f} ms  (of {rounds}: {spread}) {rate}  ratio {ratio:5.2f}")
    click.echo()


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch, and OpenCV where it is installed, to one core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
    yield
    torch.set_num_threads(threads)


def startup_contestants() -> Contestants:
    def run(*arguments: str) -> Callable[[], Any]:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)

    return {
        "resnet-zoo list": run("-m", "resnet_zoo", "list"),
        "import torchvision": run("-c", "import torchvision"),
        "import timm": run("-c", "import timm"),
    }


def load_contestants(folder: Path) -> Contestants:
    import timm
    import torch
    import torchvision

    from resnet_zoo import convert_checkpoint, create_model

    pickled, ours = folder / "resnet50.pth", folder / "resnet50.safetensors"
    torch.save(create_model("resnet50").state_dict(), pickled)
    convert_checkpoint(pickled, ours, name="resnet50")
    os.environ["RESNET_ZOO_HOME"] = str(folder / "home")
    os.environ["RESNET_ZOO_MANIFEST"] = str(zoo_with(ours, folder))

    def torchvision_load() -> Any:
        model = torchvision.models.resnet50()
        model.load_state_dict(torch.load(pickled, weights_only=True))
        return model

    return {
        "resnet_zoo, from its cache, full sha256": lambda: create_model("resnet50", pretrained=True),
        "timm, safetensors, unchecked": lambda: timm.create_model(
            "resnet50", pretrained=True, pretrained_cfg_overlay={"file": str(ours)}
        ),
        "torchvision, .pth, unchecked": torchvision_load,
    }


def zoo_with(weights: Path, folder: Path) -> Path:
    """Put a file into the cache and return a manifest that publishes it as ResNet-50's weights."""
    from resnet_zoo import cache
    from resnet_zoo.files import sha256_of
    from resnet_zoo.manifest import manifest_path

    content = json.loads(manifest_path().read_text(encoding="utf-8"))
    row = next(row for row in content["models"] if row["name"] == "resnet50_in1k")
    sha256 = sha256_of(weights)
    file = {"path": weights.name, "sha256": sha256, "size_bytes": weights.stat().st_size}
    row["weights"][row["default_weights"]]["file"] = file
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(content), encoding="utf-8")
    cached = cache.object_path(sha256)
    cached.parent.mkdir(parents=True)
    shutil.copyfile(weights, cached)
    return manifest


def preprocess_contestants(paths: list[Path]) -> Contestants:
    from PIL import Image
    from torchvision import transforms

    from resnet_zoo import create_transform

    peer = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    plain, v1d = create_transform("resnet50"), create_transform("resnetv1d50")
    return {
        "resnet_zoo, resnet50 (cv2 resize)": lambda: [plain(path) for path in paths],
        "resnet_zoo, resnetv1d50 (pillow resize)": lambda: [v1d(path) for path in paths],
        "torchvision, PIL": lambda: [peer(Image.open(path).convert("RGB")) for path in paths],
    }


def reader_contestants(folder: Path, batch_size: int = 64) -> tuple[Contestants, int]:
    """The same files in the same order through both readers, in this process; crops are drawn anew in every round."""
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


def evaluate_contestants(root: Path, num_images: int = 2048, batch_size: int = 64) -> tuple[Contestants, int]:
    """The same network over the same batches: all of `evaluate`'s work against forward passes alone."""
    import torch

    from resnet_zoo import create_model
    from resnet_zoo.data import batches, open_test_set
    from resnet_zoo.evaluation import count_correct
    from resnet_zoo.manifest import get_entry
    from resnet_zoo.preprocess import create_transform

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


if __name__ == "__main__":
    main()
