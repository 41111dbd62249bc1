"""A network as an ONNX, OpenVINO or torch.export file, with its preprocessing and class names inside.

The file is written beside its target, loaded by the runtime it is made for, compared with the eager network at two
batch sizes, and only then moved into place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resnet_zoo.base.files import check_target, sha256_of, write_atomically
from resnet_zoo.catalog.names import kind_of
from resnet_zoo.catalog.records import to_json
from resnet_zoo.errors import ArgumentError, ExportError
from resnet_zoo.inference.calibration import Calibration, folders_of, read_calibration
from resnet_zoo.inference.export_formats import (
    FORMS,
    INPUT,
    OPSET,
    Form,
    Format,
    Job,
    Runner,
    check_installed,
    run_eager,
)
from resnet_zoo.inference.optimization import check_calibration
from resnet_zoo.network.building import architecture_of, build
from resnet_zoo.network.features import FeatureExtractor, check_layers
from resnet_zoo.weights.provenance import Chain
from resnet_zoo.zoo import Network, open_network

LOGITS = "logits"
TOLERANCE, HALF_TOLERANCE, INT8_TOLERANCE = 1e-4, 1e-2, 0.5
"""Largest difference from the eager network: in float32, and of weights rounded to float16, relative to its largest
output where that is above 1; in 8-bit integers, relative to what distinguishes the outputs of calibration images.
"""

_CHECKED_BATCH_SIZES, _INT8_BATCH_SIZES = (1, 3), (5, 10)
_TRACED_BATCH_SIZE = 2  # other than those checked; torch would bake in a batch size of 1


@dataclass(frozen=True)
class Export:
    """What `export_model` wrote.

    Attributes:
        name: The model whose network it is.
        format: ``onnx``, ``openvino`` or ``torch-export``.
        target: The file written.
        sha256: Its sha256; an OpenVINO .xml holds that of the .bin beside it.
        size_bytes: Its size, with the .bin.
        outputs: Names of its outputs.
        weights: Where the weights come from, every link with its hash; ``None`` for fresh random values.
        checked_batch_sizes: Sizes of the batches on which it was compared with the eager network.
        largest_difference: The largest absolute difference on them.
    """

    name: str
    format: Format
    target: str
    sha256: str
    size_bytes: int
    outputs: tuple[str, ...]
    weights: Chain | None
    checked_batch_sizes: tuple[int, ...]
    largest_difference: float


def export_model(
    name: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    format: Format | None = None,  # noqa: A002  # the option's own name
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    pretrained: bool = True,
    features: Sequence[str] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    half: bool = False,
    opset: int | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a network as an ONNX, OpenVINO or torch.export file, and check that it computes the same.

    The file takes normalised float32 ``images`` (N, C, H, W) of the network's size, for any N, and returns ``logits``
    (N, K). Its metadata (`metadata_of`) hold the preprocessing, the class names in label order and where the weights
    come from. The same weights and versions give the same bytes every time.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        target: The file to write: ``.onnx``, ``.xml`` for OpenVINO, which gets a ``.bin`` beside it, or ``.pt2`` for
            torch.export.
        format: ``onnx`` (needs the extra ``export``), ``openvino`` (needs the extra ``openvino``) or ``torch-export``;
            ``None`` means what the target ends in.
        weights: A tag or path, as in `create_model`; ``None`` means the model's default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        pretrained: ``False`` without ``weights`` exports fresh random values, to try out a deployment; the metadata
            say so.
        features: Layers whose maps the file returns by name instead of the logits, see `create_feature_extractor`.
        calibration: A folder of images like those to come: write convolutions in 8-bit integers (ONNX or OpenVINO, with
            the extra ``int8``). Weights keep 7 bits, so that no CPU saturates.
        half: Round the weights to float16, which halves the file; OpenVINO only.
        opset: ONNX's, 18 or later; ``None`` means 18.
        overwrite: Replace a target that exists.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, DownloadError, WeightsMismatchError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        UnknownLayerError: The network has no layer of that name.
        DatasetError: The calibration images are missing or unreadable.
        ArgumentError: The weights were not tested at ``size``, the format is unknown or does not have what is asked
            for, the target has the wrong suffix or exists, ``features`` is empty or names a layer twice, there are too
            few calibration images, or the extra is not installed.
        ExportError: The file does not compute what the network does; it was not kept.
        NonFiniteOutputError: The network's outputs are infinite or NaN.
        OSError: The target cannot be written; nothing is left behind.

    Example:
        >>> written = resnet_zoo.export_model("resnet18_cifar10", "network.pt2", format="torch-export")
        >>> program = torch.export.load(written.target).module()
        >>> program(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    target = Path(target)
    form = _checked_form(target, format, int8=calibration is not None, half=half, opset=opset)
    places = [target.with_suffix(suffix) for suffix in form.suffixes]
    for place in places:
        check_target(place, overwrite=overwrite)
    check_installed(form, int8=calibration is not None)
    network = open_network(name, weights=weights, size=size)
    if features is not None:
        check_layers(features, architecture_of(network.entry).depths)
    images, labels = (None, None) if calibration is None else _calibration(calibration, network, features)
    is_fresh = weights is None and not pretrained
    body = (build(network.entry, in_channels=network.in_channels) if is_fresh else network.load()).eval()
    chain = None if is_fresh else network.chain
    extractor = None if features is None else FeatureExtractor(body, layers=features)
    model, outputs = (extractor, extractor.layers) if extractor else (body, (LOGITS,))
    metadata = metadata_of(network, chain, outputs)
    traced = _images(network, _TRACED_BATCH_SIZE)
    parts = form.write(Job(model, traced, metadata, outputs, half, opset or OPSET, images, labels))
    int8, differences = images is not None, list[float]()
    if images is None:
        batches = [_images(network, batch_size) for batch_size in _CHECKED_BATCH_SIZES]
    else:
        batches = [images[:: len(images) // batch_size][:batch_size] for batch_size in _INT8_BATCH_SIZES]
    tolerance = INT8_TOLERANCE if int8 else HALF_TOLERANCE if half else TOLERANCE

    def write_checked(path: Path) -> None:
        path.write_bytes(parts[-1])
        run = form.open((*parts[:-1], path.read_bytes()), outputs)
        differences.append(_checked(run, partial(run_eager, model, outputs), batches, target, tolerance, int8=int8))
        for place, part in zip(places[:-1], parts[:-1], strict=True):
            write_atomically(place, partial(Path.write_bytes, data=part))

    write_atomically(places[-1], write_checked)
    return Export(
        name=network.entry.name,
        format=next(known for known, found in FORMS.items() if found is form),
        target=str(target),
        sha256=sha256_of(target),
        size_bytes=sum(place.stat().st_size for place in places),
        outputs=outputs,
        weights=chain,
        checked_batch_sizes=_INT8_BATCH_SIZES if int8 else _CHECKED_BATCH_SIZES,
        largest_difference=differences[0],
    )


def metadata_of(network: Network, chain: Chain | None, outputs: Sequence[str]) -> dict[str, str]:
    """Return a file's metadata: strings, of which all but ``model`` and ``dataset`` (rows only) are JSON.

    ``preprocess`` is the manifest's record: an image is decoded to RGB, its short edge resized to ``short_edge`` and
    its centre cropped to ``crop`` pixels, and (value - mean) / std of values from 0 to 255 is the input.
    """
    entry = network.entry
    structured = {
        "input": {"name": INPUT, "size": _size_of(network), "layout": "NCHW", "dtype": "float32"},
        "outputs": list(outputs),
        "preprocess": {**to_json(entry.preprocess), "channel_order": "RGB", "value_range": [0, 255]},
        "classes": network.class_names,
        "weights": asdict(chain) if chain else None,
    }
    encoded = {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in structured.items()}
    dataset = {"dataset": entry.dataset} if kind_of(network.name) == "row" else {}
    return {"model": entry.name, **dataset, **encoded}


def _checked_form(target: Path, named: Format | None, *, int8: bool, half: bool, opset: int | None) -> Form:
    """Return the format asked for, or that of the target's suffix, if it has what is wanted of it."""
    if named is None:
        named = next((known for known, form in FORMS.items() if form.suffixes[0] == target.suffix), None)
        if named is None:
            endings = _any_of(form.suffixes[0] for form in FORMS.values())
            raise ArgumentError(f"{target}: expected a path that ends in {endings}, or a format.")
    if named not in FORMS:
        raise ArgumentError(f"Expected a format of {_any_of(FORMS)}, got {named!r}.")
    form = FORMS[named]
    if target.suffix != form.suffixes[0]:
        raise ArgumentError(f"{target}: expected a path that ends in {form.suffixes[0]}.")
    if half and named != "openvino":
        raise ArgumentError(f"Weights in float16 (half) are for the format openvino, got {named}. Leave it out.")
    if int8 and named == "torch-export":
        raise ArgumentError("8-bit integers are for the formats onnx and openvino, got torch-export. Choose another.")
    if opset is not None and (named != "onnx" or opset < OPSET):
        raise ArgumentError(f"An opset of {OPSET} or later is for the format onnx, got {opset} for {named}.")
    return form


def _any_of(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}"


def _calibration(folder: str | os.PathLike[str], network: Network, features: Sequence[str] | None) -> Calibration:
    """Return images to calibrate with, and labels for what returns logits."""
    found = read_calibration(folder, network.transform, folders_of(network) if features is None else ())
    check_calibration(found.images, torch.int8, network.in_channels, compiled=False)
    return found


def _size_of(network: Network) -> tuple[int, ...]:
    """Return channels, height and width of an image."""
    return (network.in_channels, *network.entry.input_size[1:])


def _images(network: Network, count: int) -> Tensor:
    """Return a batch of random values of the network's size."""
    generator = torch.Generator("cpu").manual_seed(count)
    return torch.randn(count, *_size_of(network), generator=generator, dtype=torch.float32, device="cpu")


def _checked(
    run: Runner, run_eager: Runner, batches: Sequence[Tensor], target: Path, tolerance: float, *, int8: bool
) -> float:
    """Return the largest difference between a file and the eager network.

    Raises:
        ExportError: It is more than the tolerance.
        NonFiniteOutputError: The network's own outputs are infinite or NaN.
    """
    largest = 0.0
    for images in batches:
        expected, actual = run_eager(images), run(images)
        for output, value in expected.items():
            difference = float(np.abs(actual[output] - value).max())
            scale = np.abs(value - value.mean(0)).max() if int8 else max(1.0, np.abs(value).max())
            if not difference <= tolerance * float(scale):  # also where it is not a number
                raise ExportError(target, output, len(images), difference, tolerance)
            largest = max(largest, difference)
    return largest
