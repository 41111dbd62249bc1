"""Measure this package beside its peers, in one run, as ratios (above 1: we are faster).

Parts: startup (the list command against importing timm and torchvision), load (ResNet-50 from a file, ours with its
sha256 checked), preprocess (one core), evaluate (against the bare network) and embed (a folder of JPEG files, against
a plain torchvision script). All by default. Contestants take turns, and the median of the rounds is printed. timm comes
with the extra `peers`.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

PARTS = ("startup", "load", "preprocess", "evaluate", "embed")

Contestants = dict[str, Callable[[], Any]]


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--images", type=click.Path(exists=True, file_okay=False), help="Folder of ImageNet JPEG files.")
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
            import torch

            paths = sorted(path for path in Path(images).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            compare(f"Preprocess {len(paths)} JPEG files, one core", preprocess_contestants(paths), rounds, len(paths))
            torch.set_num_threads(threads)
        elif part == "embed":
            if images is None:
                click.echo("embed: not measured (give --images DIR)\n")
                continue
            with tempfile.TemporaryDirectory() as folder:
                compare_embedding(Path(images), Path(folder), rounds)
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


def compare_embedding(images: Path, folder: Path, rounds: int, repeats: int = 2, batch_size: int = 16) -> None:
    """ResNet-50 over a folder, whole: load, read, compute, write. Both resize with Pillow and hold the same weights."""
    import numpy as np
    import torch

    from resnet_zoo import create_model, embed_files, get_entry, save_network

    torch.manual_seed(0)
    model = with_statistics(create_model("resnet50"))
    weights, pickled = folder / "resnet50.safetensors", folder / "resnet50.pth"
    names, pillow = [f"class {label}" for label in range(1000)], get_entry("resnetv1d50").preprocess
    save_network(weights, model, row="resnet50", class_names=names, preprocess=pillow)
    torch.save(model.state_dict(), pickled)
    for repeat in range(repeats):
        shutil.copytree(images, folder / "images" / str(repeat), ignore=shutil.ignore_patterns(".*"))
    num_images = sum(path.is_file() for path in (folder / "images").rglob("*"))
    options: Any = {"batch_size": batch_size, "overwrite": True, "device": "cpu"}

    def ours(output: str, *, fast: bool) -> Callable[[], Any]:
        return lambda: embed_files(weights, [folder / "images"], folder / output, fast=fast, **options)

    peer = partial(embed_with_torchvision, pickled, folder / "images", folder / "peer.npy", batch_size)
    contestants: Contestants = {
        "resnet_zoo, embed --fast": ours("fast.npy", fast=True),
        "resnet_zoo, embed": ours("exact.npy", fast=False),
        "torchvision: ImageFolder, 2 workers, eager": peer,
    }
    compare(f"ResNet-50 vectors of {num_images} JPEG files, CPU", contestants, rounds, num_images)
    expected = np.load(folder / "peer.npy")
    for output in ("fast", "exact"):
        difference = np.abs(np.load(folder / f"{output}.npy") - expected).max()
        click.echo(f"  largest difference, {output}: {difference:.2e}, of values up to {np.abs(expected).max():.2f}")
    click.echo()


def with_statistics(model: Any) -> Any:
    """Give a fresh network batch-norms that do something: as they start, every block is an identity."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.2, 0.8)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return model.eval()


def embed_with_torchvision(weights: Path, images: Path, output: Path, batch_size: int) -> None:
    """What one writes with torchvision alone."""
    import numpy as np
    import torch
    import torchvision
    from torchvision import transforms

    model = torchvision.models.resnet50()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.fc = torch.nn.Identity()
    model.eval()
    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    data = torchvision.datasets.ImageFolder(str(images), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(data, batch_size, num_workers=2)
    with torch.inference_mode():
        np.save(output, torch.cat([model(x) for x, _ in loader]).numpy())


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
