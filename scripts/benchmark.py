"""Measure this package beside its peers, in one run, as ratios (above 1: we are faster).

Parts: startup (the list command against importing timm and torchvision), load (ResNet-50 from a file, ours with its
sha256 checked), preprocess (one core), evaluate (against the bare network) and infer (ResNet-50 as it is and optimised,
each against timm's). All by default. Contestants take turns, and the median of the rounds is printed. timm comes with
the extra `peers`.
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
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("startup", "load", "preprocess", "evaluate", "infer")

INFER_BATCH_SIZE = 16

Contestants = dict[str, Callable[[], Any]]


@click.command(help=__doc__)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--images", type=click.Path(exists=True, file_okay=False), help="Folder of ImageNet JPEG files.")
@click.option("--cifar10", type=click.Path(exists=True, file_okay=False), help="CIFAR-10: archive or test/<class>/.")
@click.option("--weights", metavar="TAG|PATH", help="infer: weights of ResNet-50, to compare its best classes.")
@click.option("--cifar-weights", metavar="TAG|PATH", help="infer: the same of ResNet-18 on CIFAR-10.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
def main(
    parts: tuple[str, ...],
    images: str | None,
    cifar10: str | None,
    weights: str | None,
    cifar_weights: str | None,
    rounds: int,
) -> None:
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

            paths = jpeg_paths(Path(images))
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            compare(f"Preprocess {len(paths)} JPEG files, one core", preprocess_contestants(paths), rounds, len(paths))
            torch.set_num_threads(threads)
        elif part == "infer":
            anchor, *_ = contestants = infer_contestants(INFER_BATCH_SIZE)
            compare(f"ResNet-50, batch {INFER_BATCH_SIZE}", contestants, rounds, INFER_BATCH_SIZE, anchor=anchor)
            tell_agreement("resnet50_in1k", weights, None if images is None else image_batches(Path(images)))
            tell_agreement("resnet18_cifar10", cifar_weights, None if cifar10 is None else cifar_batches(Path(cifar10)))
        else:
            if cifar10 is None:
                click.echo("evaluate: not measured (give --cifar10 DIR)\n")
                continue
            contestants, num_images = evaluate_contestants(Path(cifar10))
            compare(f"ResNet-18 on {num_images} CIFAR-10 images", contestants, rounds, num_images)


def jpeg_paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def compare(
    title: str, contestants: Contestants, rounds: int, num_images: int = 0, *, anchor: str | None = None
) -> None:
    """Let the contestants take turns and print medians, and ratios that are taken round by round.

    The ratio of a contestant says how many times faster the first one, ours, is; with an anchor, how many times faster
    than the anchor the contestant is.
    """
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
        slower, faster = (times, ours) if anchor is None else (seconds[anchor], times)
        ratio = statistics.median(slow / fast for slow, fast in zip(slower, faster, strict=True))
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


def infer_contestants(batch_size: int) -> Contestants:
    """ResNet-50 with the same images: timm's and torchvision's as they come, ours as it comes and optimised.

    On a GPU also the fastest that timm users have: bfloat16, channels_last, compiled.
    """
    import timm
    import torch
    import torchvision

    from resnet_zoo import create_model, optimize_for_inference
    from resnet_zoo.inference import fast_dtype
    from resnet_zoo.zoo import resolve_device

    device = resolve_device("auto")
    images = torch.randn(batch_size, 3, 224, 224, device=device)
    last = images.to(memory_format=torch.channels_last)
    ours, half = create_model("resnet50", device=device).eval(), fast_dtype(device)
    kind = str(half).removeprefix("torch.")

    def run(model: Any, x: Tensor = images) -> Callable[[], Any]:
        def forward() -> None:
            with torch.inference_mode():
                model(x)
            if device.type == "cuda":
                torch.cuda.synchronize()

        return forward

    def of_timm(dtype: torch.dtype = torch.float32) -> Any:
        return timm.create_model("resnet50").eval().to(device, dtype).to(memory_format=torch.channels_last)

    contestants = {
        "timm, float32": run(timm.create_model("resnet50").eval().to(device)),
        "timm, float32, channels_last": run(of_timm(), last),
        "torchvision, float32": run(torchvision.models.resnet50().eval().to(device)),
        "resnet_zoo, float32": run(ours),
        "resnet_zoo, optimised, float32": run(optimize_for_inference(ours)),
        f"resnet_zoo, optimised, {kind}": run(optimize_for_inference(ours, dtype=half)),
        f"resnet_zoo, optimised, {kind}, compiled": run(optimize_for_inference(ours, dtype=half, compile=True)),
    }
    if device.type == "cuda":
        name = f"timm, {kind}, channels_last, compiled"
        contestants[name] = run(torch.compile(of_timm(half)), last.to(half))
    return contestants


def image_batches(folder: Path, batch_size: int = 20) -> Iterator[Tensor]:
    """Yield every JPEG file below a folder as ResNet-50 sees it."""
    import torch

    from resnet_zoo import create_transform

    transform, paths = create_transform("resnet50"), jpeg_paths(folder)
    for start in range(0, len(paths), batch_size):
        yield torch.stack([transform(path) for path in paths[start : start + batch_size]])


def cifar_batches(root: Path, batch_size: int = 100) -> Iterator[Tensor]:
    """Yield the CIFAR-10 test images as ResNet-18 sees them."""
    from resnet_zoo import create_transform
    from resnet_zoo.data import batches, open_test_set
    from resnet_zoo.manifest import get_entry

    images = open_test_set(get_entry("resnet18_cifar10"), root)
    transform = create_transform("resnet18_cifar10")
    yield from (transform.normalise(batch.pixels) for batch in batches(images, batch_size))


def tell_agreement(name: str, weights: str | None, inputs: Iterable[Tensor] | None) -> None:
    """Print on how many real images the optimised network has the best class of the one it was made from.

    Only trained weights will do: with random ones all images have nearly the same logits.
    """
    import torch

    from resnet_zoo import ZooError, create_model, optimize_for_inference
    from resnet_zoo.inference import fast_dtype
    from resnet_zoo.zoo import resolve_device

    device = resolve_device("auto")
    if inputs is None:
        click.echo(f"{name}, top-1 agreement: not measured (give its images)")
        return
    try:
        model = create_model(name, pretrained=True, weights=weights, device=device).eval()
    except ZooError as error:
        click.echo(f"{name}, top-1 agreement: not measured ({error})")
        return
    half, same, total, largest = fast_dtype(device), 0, 0, 0.0
    optimised, folded = optimize_for_inference(model, dtype=half), optimize_for_inference(model)
    for x in inputs:
        with torch.inference_mode():
            logits = model(x.to(device))
        same += int((optimised(x.to(device)).argmax(1) == logits.argmax(1)).sum())
        total += len(x)
        largest = max(largest, float((folded(x.to(device)) - logits).abs().max()))
    click.echo(f"{name}, top-1 agreement of {half} with float32: {same} of {total} images ({100 * same / total:.2f}%)")
    click.echo(f"{name}, float32 folded: largest logit difference {largest:.2g}")


if __name__ == "__main__":
    main()
