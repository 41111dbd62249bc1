"""A network as an ONNX file or a torch.export program, with its preprocessing and class names inside.

The file is written beside its target, loaded by the runtime it is made for, compared with the eager network at two
batch sizes, and only then moved into place.
"""

from __future__ import annotations

import importlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from resnet_zoo.base.files import check_target, sha256_of, write_atomically
from resnet_zoo.catalog.names import kind_of
from resnet_zoo.catalog.records import to_json
from resnet_zoo.errors import ArgumentError, ExportError
from resnet_zoo.inference.finite import check_finite
from resnet_zoo.network.building import architecture_of, build
from resnet_zoo.network.features import FeatureExtractor, check_layers
from resnet_zoo.weights.provenance import Chain
from resnet_zoo.zoo import Network, open_network

Format = Literal["onnx", "torch-export"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch-export": ".pt2"}
METADATA_FILE = "metadata.json"
"""Where a torch.export file keeps the metadata: the name to pass as ``extra_files`` to ``torch.export.load``."""

INPUT, LOGITS = "images", "logits"
TOLERANCE = 1e-4
"""Largest difference from the eager network, relative to its largest output where that is above 1."""

_CHECKED_BATCH_SIZES = (1, 3)
_TRACED_BATCH_SIZE = 2  # other than those checked; torch would bake in a batch size of 1
_OPSET = 18  # the first that both torch 2.6's exporter and today's write

Outputs = dict[str, np.ndarray[Any, Any]]
Runner = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class Export:
    """What `export_model` wrote.

    Attributes:
        name: The row whose network it is.
        format: ``onnx`` or ``torch-export``.
        target: The file written.
        sha256: Its sha256.
        size_bytes: Its size.
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
    format: Format,  # noqa: A002  # the option's own name
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    pretrained: bool = True,
    features: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a network as an ONNX file or a torch.export program, and check that it computes the same.

    The file takes normalised float32 ``images`` (N, C, H, W) of the network's size, for any N, and returns ``logits``
    (N, K). Its metadata (`metadata_of`) hold the preprocessing, the class names in label order and where the weights
    come from. The same weights and versions give the same bytes every time.

    Args:
        name: A row or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        target: The file to write: ``.onnx``, or ``.pt2`` for torch.export.
        format: ``onnx`` (needs the extra ``export``) or ``torch-export``.
        weights: A tag or path, as in `create_model`; ``None`` means the row's default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        pretrained: ``False`` without ``weights`` exports fresh random values, to try out a deployment; the metadata
            say so.
        features: Layers whose maps the file returns by name instead of the logits, see `create_feature_extractor`.
        overwrite: Replace a target that exists.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, DownloadError, WeightsMismatchError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        UnknownLayerError: The network has no layer of that name.
        ArgumentError: The weights were not tested at ``size``, the format is unknown, the target has the wrong suffix
            or exists, ``features`` is empty or names a layer twice, or the extra is not installed.
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
    _check_target(target, format, overwrite=overwrite)
    if format == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            _require(module)
    network = open_network(name, weights=weights, size=size)
    if features is not None:
        check_layers(features, architecture_of(network.entry).depths)
    is_fresh = weights is None and not pretrained
    body = (build(network.entry, in_channels=network.in_channels) if is_fresh else network.load()).eval()
    chain = None if is_fresh else network.chain
    extractor = None if features is None else FeatureExtractor(body, layers=features)
    model, outputs = (extractor, extractor.layers) if extractor else (body, (LOGITS,))
    metadata = metadata_of(network, chain, outputs)
    data = (_onnx_bytes if format == "onnx" else _program_bytes)(model, _images(network, _TRACED_BATCH_SIZE), metadata)
    open_file = _open_onnx if format == "onnx" else _open_program
    differences: list[float] = []

    def write_checked(path: Path) -> None:
        path.write_bytes(data)
        differences.append(_checked(open_file(path, outputs), partial(_run_eager, model, outputs), network, target))

    write_atomically(target, write_checked)
    return Export(
        name=network.entry.name,
        format=format,
        target=str(target),
        sha256=sha256_of(target),
        size_bytes=target.stat().st_size,
        outputs=outputs,
        weights=chain,
        checked_batch_sizes=_CHECKED_BATCH_SIZES,
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


def _check_target(target: Path, form: str, *, overwrite: bool) -> None:
    if form not in SUFFIXES:
        raise ArgumentError(f"Expected a format of {' or '.join(SUFFIXES)}, got {form!r}.")
    check_target(target, (SUFFIXES[form],), overwrite=overwrite)


def _require(module: str) -> Any:
    """Import a module of the extra."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArgumentError(
            f"ONNX files need {module}, which is not installed. Run: pip install 'resnet-zoo[export]'"
        ) from error


def _size_of(network: Network) -> tuple[int, ...]:
    """Return channels, height and width of an image."""
    return (network.in_channels, *network.entry.input_size[1:])


def _images(network: Network, count: int) -> Tensor:
    """Return a batch of random values of the network's size."""
    generator = torch.Generator("cpu").manual_seed(count)
    return torch.randn(count, *_size_of(network), generator=generator, dtype=torch.float32, device="cpu")


def _dynamic_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


def _onnx_bytes(model: nn.Module, images: Tensor, metadata: Mapping[str, str]) -> bytes:
    program: Any = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        dynamic_shapes=_dynamic_batch(),
        input_names=[INPUT],
        output_names=json.loads(metadata["outputs"]),
        opset_version=_OPSET,
        verbose=False,
    )
    proto = program.model_proto
    _forget_where_it_was_made(proto)
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _forget_where_it_was_made(proto: Any) -> None:
    """Remove the exporter's notes: stack traces with this machine's paths, which differ from run to run."""
    graph = proto.graph
    for noted in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]


def _program_bytes(model: nn.Module, images: Tensor, metadata: Mapping[str, str]) -> bytes:
    program = torch.export.export(model, (images,), dynamic_shapes=_dynamic_batch(), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # this machine's paths
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(metadata, ensure_ascii=False)})
    return buffer.getvalue()


def _open_onnx(path: Path, outputs: tuple[str, ...]) -> Runner:
    session = _require("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(outputs, session.run(list(outputs), {INPUT: images.numpy()}), strict=True))


def _open_program(path: Path, outputs: tuple[str, ...]) -> Runner:
    with path.open("rb") as file:  # given a path, torch looks at its suffix
        module = torch.export.load(file).module()
    return partial(_run_eager, module, outputs)


@torch.no_grad()
def _run_eager(module: nn.Module, outputs: tuple[str, ...], images: Tensor) -> Outputs:
    found = module(images)
    maps = found if isinstance(found, dict) else dict.fromkeys(outputs, found)
    for name in outputs:
        check_finite(maps[name], module, images)
    return {name: maps[name].numpy() for name in outputs}


def _checked(run: Runner, run_eager: Runner, network: Network, target: Path) -> float:
    """Return the largest difference between a file and the eager network.

    Raises:
        ExportError: It is more than `TOLERANCE`.
        NonFiniteOutputError: The network's own outputs are infinite or NaN.
    """
    largest = 0.0
    for batch_size in _CHECKED_BATCH_SIZES:
        images = _images(network, batch_size)
        expected, actual = run_eager(images), run(images)
        for output, value in expected.items():
            difference = float(np.abs(actual[output] - value).max())
            if not difference <= TOLERANCE * max(1.0, float(np.abs(value).max())):  # also where it is not a number
                raise ExportError(target, output, batch_size, difference, TOLERANCE)
            largest = max(largest, difference)
    return largest
