"""Inference with ResNet-50: as it comes and optimised, beside timm and torchvision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.timing import MEASURED, Contestants, Options, compare, jpeg_paths
from resnet_zoo.catalog.measurements import PrecisionLoss

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BATCH_SIZE = 16

CIFAR_ROW = "resnet18_cifar10"

NUM_CALIBRATION_IMAGES = 256


def measure(options: Options) -> None:
    """Print the table, ratios to timm as it comes."""
    anchor, *_ = contestants = infer_contestants(BATCH_SIZE)
    compare(f"ResNet-50, batch {BATCH_SIZE}", contestants, options.rounds, BATCH_SIZE, anchor=anchor)


def infer_contestants(batch_size: int) -> Contestants:
    """ResNet-50 with the same images: timm's and torchvision's as they come, ours as it comes and optimised.

    On a GPU also the fastest that timm users have: bfloat16, channels_last, compiled.
    """
    import timm
    import torch
    import torchvision

    from resnet_zoo import create_model, optimize_for_inference
    from resnet_zoo.base.devices import fast_dtype, resolve_device
    from resnet_zoo.inference import quantization

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
    if quantization.is_available(device):
        int8 = optimize_for_inference(ours, dtype=torch.int8, calibration=images)
        contestants["resnet_zoo, optimised, int8"] = run(int8)
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
    from resnet_zoo.catalog.manifest import get_entry
    from resnet_zoo.images.test_sets import batches, open_test_set

    images = open_test_set(get_entry(CIFAR_ROW), root)
    transform = create_transform(CIFAR_ROW)
    yield from (transform.normalise(batch.pixels) for batch in batches(images, batch_size))


def tell_agreement(name: str, weights: str | None, inputs: Iterable[Tensor] | None) -> None:
    """Print on how many real images the optimised network has the best class of the one it was made from.

    Only trained weights will do: with random ones all images have nearly the same logits.
    """
    import torch

    from resnet_zoo import ZooError, create_model, optimize_for_inference
    from resnet_zoo.base.devices import fast_dtype, resolve_device

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
    kind = str(half).removeprefix("torch.")
    optimised, folded = optimize_for_inference(model, dtype=half), optimize_for_inference(model)
    for x in inputs:
        with torch.inference_mode():
            logits = model(x.to(device))
        same += int((optimised(x.to(device)).argmax(1) == logits.argmax(1)).sum())
        total += len(x)
        largest = max(largest, float((folded(x.to(device)) - logits).abs().max()))
    click.echo(f"{name}, top-1 agreement of {half} with float32: {same} of {total} images ({100 * same / total:.2f}%)")
    click.echo(f"{name}, float32 folded: largest logit difference {largest:.2g}")
    MEASURED.append(PrecisionLoss(name, weights or "default", kind, total, same, None, None))


def tell_accuracy_of_int8(weights: str | None, root: Path | None) -> None:
    """Print the top-1 of ResNet-18 on the CIFAR-10 test images in float32 and in 8-bit integers."""
    import torch

    from resnet_zoo import ZooError, create_model, evaluate, optimize_for_inference

    if root is None:
        click.echo(f"{CIFAR_ROW}, int8: not measured (give its images)")
        return
    try:
        model = create_model(CIFAR_ROW, pretrained=True, weights=weights).eval()
        int8 = optimize_for_inference(model, dtype=torch.int8, calibration=calibration_images(root))
    except ZooError as error:
        click.echo(f"{CIFAR_ROW}, int8: not measured ({error})")
        return
    exact, rounded = (evaluate(CIFAR_ROW, root, model=network, device="cpu") for network in (model, int8))
    click.echo(
        f"{CIFAR_ROW}, top-1 of {exact.num_images} images: float32 {exact.top1:.2f}%, int8 {rounded.top1:.2f}% "
        f"({rounded.top1 - exact.top1:+.2f}), calibrated on {NUM_CALIBRATION_IMAGES} training images"
    )
    accuracies = (round(found.top1, 4) for found in (exact, rounded))
    MEASURED.append(PrecisionLoss(CIFAR_ROW, weights or "default", "int8", exact.num_images, None, *accuracies))


def calibration_images(root: Path) -> Tensor:
    """Return CIFAR-10 training images from all over the set (N, 3, 32, 32), as ResNet-18 sees them."""
    import torch

    from resnet_zoo import create_transform
    from resnet_zoo.catalog.manifest import get_entry
    from resnet_zoo.images.test_sets import open_training_set

    images = open_training_set(get_entry(CIFAR_ROW), root)
    step = len(images) // NUM_CALIBRATION_IMAGES
    pixels = [images[step * index].pixels for index in range(NUM_CALIBRATION_IMAGES)]
    return create_transform(CIFAR_ROW).normalise(torch.cat(pixels))
