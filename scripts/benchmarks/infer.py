"""Inference: as it comes and optimised, beside timm, torch.compile, OpenVINO and ONNX Runtime called directly."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks.timing import MEASURED, Contestants, Options, compare, jpeg_paths
from resnet_zoo.catalog.measurements import PrecisionLoss

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ARCHITECTURES = ("resnet18", "resnet50")

BATCH_SIZES = {"cpu": (1, 16), "cuda": (1, 16, 128)}

IMAGES_PER_TURN = {"cpu": 32, "cuda": 256}
"""Images that a contestant computes in a turn, in two passes at least, after a batch that is not timed: others' threads
still spin then."""

CIFAR_ROW = "resnet18_cifar10"

NUM_CALIBRATION_IMAGES = 256


def measure(options: Options) -> None:
    """Print the tables, ratios to timm as it comes."""
    for name in ARCHITECTURES:
        for batch_size, contestants in infer_contestants(name):
            compare(
                f"{name}, batch {batch_size}", contestants, options.rounds, batch_size, anchor=next(iter(contestants))
            )


def infer_contestants(name: str) -> Iterator[tuple[int, Contestants]]:
    """Yield for each batch size the same network in the hands of each contestant, on the same images.

    timm's as it comes, and compiled (on a GPU with CUDA graphs); ours as it comes and optimised (on a GPU compiled
    too); on a CPU OpenVINO and ONNX Runtime, called as their own documentation does, the batch size fixed.
    """
    import timm
    import torch

    from resnet_zoo import create_model, optimize_for_inference
    from resnet_zoo.base.devices import fast_dtype, resolve_device
    from resnet_zoo.inference import quantization

    device = resolve_device("auto")
    half = fast_dtype(device)
    kind = str(half).removeprefix("torch.")
    theirs = timm.create_model(name).eval().to(device)
    ours = create_model(name, device=device).eval().requires_grad_(False)
    int8 = None
    optimised = {dtype: optimize_for_inference(ours, dtype=dtype) for dtype in (torch.float32, half)}
    on_gpu = device.type == "cuda"
    if quantization.is_available(device):
        calibration = torch.randn(16, 3, 224, 224)
        int8 = optimised[torch.int8] = optimize_for_inference(ours, dtype=torch.int8, calibration=calibration)
        sessions = onnx_sessions(ours, calibration)

    def run(model: Any, x: Tensor) -> Callable[[], float]:
        def forward() -> None:
            with torch.inference_mode():
                model(x)
            if on_gpu:
                torch.cuda.synchronize()

        return seconds_of(forward, num_passes(len(x), device.type))

    def compiled(dtype: torch.dtype) -> Any:
        model = timm.create_model(name).eval().to(device, dtype).to(memory_format=torch.channels_last)
        how: dict[str, Any] = {"mode": "reduce-overhead"} if on_gpu else {"options": {"freezing": True}}
        return torch.compile(model, **how)

    for batch_size in BATCH_SIZES[device.type]:
        torch.compiler.reset()  # or the second size is compiled for any
        x = torch.randn(batch_size, 3, 224, 224, device=device)
        last = x.to(memory_format=torch.channels_last)
        contestants = {
            "timm, float32": run(theirs, x),
            "torch.compile, float32": run(compiled(torch.float32), last),
            f"torch.compile, {kind}": run(compiled(half), last.to(half)),
            "resnet_zoo, float32": run(ours, x),
        }
        if int8 is not None:
            contestants |= sessions(x) | openvino_contestants(ours, int8, x)
        for dtype, model in optimised.items():
            contestants[f"resnet_zoo, optimised, {str(dtype).removeprefix('torch.')}"] = run(model, x)
        if on_gpu:
            graphs = optimize_for_inference(ours, dtype=half, compile=True)
            contestants[f"resnet_zoo, optimised and compiled, {kind}"] = run(graphs, x)
        yield batch_size, contestants


def seconds_of(forward: Callable[[], object], passes: int) -> Callable[[], float]:
    """Return what tells the seconds of one forward pass, the mean of a turn of some passes."""

    def turn() -> float:
        forward()
        start = time.perf_counter()
        for _ in range(passes):
            forward()
        return (time.perf_counter() - start) / passes

    return turn


def num_passes(batch_size: int, device: str = "cpu") -> int:
    """Return how many batches a contestant computes in a turn."""
    return max(2, IMAGES_PER_TURN[device] // batch_size)


def openvino_contestants(model: Any, int8: Any, images: Tensor) -> dict[str, Callable[[], float]]:
    """OpenVINO in each precision; int8 with the graph that NNCF made for ours."""
    import torch

    from resnet_zoo.inference import openvino as ours

    openvino = ours.load("openvino")
    exact = ours.OpenVinoNetwork.of(model, images, torch.float32, names=None).model
    array, threads = images.numpy(), torch.get_num_threads()

    def run(graph: Any, precision: str) -> Callable[[], float]:
        fixed = graph.clone()
        fixed.reshape(list(array.shape))
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        request = openvino.compile_model(fixed, "CPU", settings).create_infer_request()
        return seconds_of(lambda: request.infer([array], share_inputs=True, share_outputs=True), num_passes(len(array)))

    graphs = {"float32": (exact, "f32"), "bfloat16": (exact, "bf16"), "int8": (int8.engine.model, "f32")}
    return {f"OpenVINO, {name}": run(*graph) for name, graph in graphs.items()}


def onnx_sessions(model: Any, calibration: Tensor) -> Callable[[Tensor], dict[str, Callable[[], float]]]:
    """Return what makes ONNX Runtime's contestants: float32, and int8 as NNCF quantises an ONNX file."""
    import onnxruntime
    import torch

    from resnet_zoo.inference.export_formats import FORMS, Job

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others' turns come
    sessions = {}
    for name, images in (("float32", None), ("int8", calibration)):
        (content,) = FORMS["onnx"].write(Job(model, calibration[:2], {}, ("logits",), calibration=images))
        sessions[name] = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])

    def contestants(x: Tensor) -> dict[str, Callable[[], float]]:
        fed = {"images": x.numpy()}
        return {
            f"ONNX Runtime, {name}": seconds_of(partial(session.run, None, fed), num_passes(len(x)))
            for name, session in sessions.items()
        }

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


def tell_accuracy(weights: str | None, root: Path | None) -> None:
    """Print the top-1 of ResNet-18 on the CIFAR-10 test images in each precision."""
    import torch

    from resnet_zoo import ZooError, create_model, evaluate, optimize_for_inference
    from resnet_zoo.base.devices import fast_dtype

    if root is None:
        click.echo(f"{CIFAR_ROW}, accuracy: not measured (give its images)")
        return
    half = fast_dtype(torch.device("cpu"))
    try:
        model = create_model(CIFAR_ROW, pretrained=True, weights=weights).eval()
        images = calibration_images(root)
        networks = [model, *(optimize_for_inference(model, dtype=dtype) for dtype in {torch.float32: 0, half: 0})]
        networks.append(optimize_for_inference(model, dtype=torch.int8, calibration=images))
    except ZooError as error:
        click.echo(f"{CIFAR_ROW}, accuracy: not measured ({error})")
        return
    exact, *others = (evaluate(CIFAR_ROW, root, model=network, device="cpu") for network in networks)
    click.echo(f"{CIFAR_ROW}, top-1 of {exact.num_images} images: {exact.top1:.2f}%")
    for found in others:
        click.echo(f"{CIFAR_ROW}, {found.precision}: {found.top1:.2f}% ({found.top1 - exact.top1:+.2f})")
        tops = (round(exact.top1, 4), round(found.top1, 4))
        MEASURED.append(PrecisionLoss(CIFAR_ROW, weights or "default", found.precision, exact.num_images, None, *tops))
    click.echo(f"int8 is calibrated on {NUM_CALIBRATION_IMAGES} training images.")


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
