"""Vectors of a folder of JPEG files, against OpenVINO's asynchronous pipeline and a plain torchvision script."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.timing import Options, compare, jpeg_paths

NUM_FILES = 1000
"""About so many files are read: those given, copied as often as it takes."""


def measure(options: Options) -> None:
    """Print the table."""
    if options.images is None:
        click.echo("embed: not measured (give --images DIR)\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        repeats = -(-NUM_FILES // len(jpeg_paths(options.images)))
        compare_embedding(options.images, Path(folder), options.rounds, repeats)


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
    contestants: dict[str, Callable[[], Any]] = {
        "resnet_zoo, embed --fast": ours("fast.npy", fast=True),
        "resnet_zoo, embed": ours("exact.npy", fast=False),
        "torchvision: ImageFolder, 2 workers, eager": peer,
    }
    if importlib.util.find_spec("openvino"):
        openvino = partial(embed_with_openvino, pickled, folder / "images")
        contestants |= {
            "OpenVINO: AsyncInferQueue, its own precision": partial(openvino, folder / "openvino.npy", ""),
            "OpenVINO: AsyncInferQueue, float32": partial(openvino, folder / "openvino32.npy", "f32"),
        }
    compare(f"ResNet-50 vectors of {num_images} JPEG files, CPU", contestants, rounds, num_images)
    expected = np.load(folder / "peer.npy")
    for output in ("fast", "exact", *(["openvino", "openvino32"] if len(contestants) > 3 else [])):
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


MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def headless(weights: Path) -> Any:
    """Return torchvision's ResNet-50 without its classifier."""
    import torch
    import torchvision

    model = torchvision.models.resnet50()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.fc = torch.nn.Identity()
    return model.eval()


def embed_with_openvino(weights: Path, images: Path, output: Path, precision: str) -> None:
    """What OpenVINO's documentation advises for throughput: its hint, a request per image, preprocessing in the graph.

    Threads read ahead; Pillow resizes, as in the other contestants.
    """
    import numpy as np
    import openvino as ov
    import torch
    from openvino.preprocess import PrePostProcessor
    from PIL import Image
    from torchvision import transforms

    with warnings.catch_warnings():  # torch.jit.trace, which it calls, is deprecated
        warnings.simplefilter("ignore")
        converted = ov.convert_model(headless(weights), example_input=torch.zeros(1, 3, 224, 224))
    converted.reshape([1, 3, 224, 224])
    steps = PrePostProcessor(converted)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    scales = [[255 * value for value in values] for values in (MEAN, STD)]
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean(scales[0]).scale(scales[1])
    hints = {"PERFORMANCE_HINT": "THROUGHPUT"} | ({"INFERENCE_PRECISION_HINT": precision} if precision else {})
    compiled = ov.compile_model(steps.build(), "CPU", hints)
    queue, paths = ov.AsyncInferQueue(compiled), jpeg_paths(images)
    vectors = np.empty((len(paths), 2048), np.float32)

    def keep(request: Any, at: int) -> None:
        vectors[at] = request.get_output_tensor().data.reshape(-1)

    def read(path: Path) -> Any:
        with Image.open(path) as image:
            return np.asarray(crop(image.convert("RGB")))[None]

    crop = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    queue.set_callback(keep)
    with ThreadPoolExecutor(2) as pool:
        for at, pixels in enumerate(pool.map(read, paths)):
            queue.start_async({0: pixels}, at)
    queue.wait_all()
    np.save(output, vectors)


def embed_with_torchvision(weights: Path, images: Path, output: Path, batch_size: int) -> None:
    """What one writes with torchvision alone."""
    import numpy as np
    import torch
    import torchvision
    from torchvision import transforms

    model = headless(weights)
    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
    data = torchvision.datasets.ImageFolder(str(images), transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(data, batch_size, num_workers=2)
    with torch.inference_mode():
        np.save(output, torch.cat([model(x) for x, _ in loader]).numpy())
