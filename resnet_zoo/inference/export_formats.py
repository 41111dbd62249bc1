"""The formats of exported networks: how each is written, and opened again to be compared with the network."""

from __future__ import annotations

import copy
import hashlib
import importlib
import io
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import util
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference import openvino, quantization
from resnet_zoo.inference.finite import check_finite
from resnet_zoo.inference.folding import fold_batch_norms
from resnet_zoo.inference.openvino import OpenVinoNetwork

Format = Literal["onnx", "openvino", "torch-export"]

METADATA_FILE = "metadata.json"
"""Where a torch.export file keeps the metadata: the name to pass as ``extra_files`` to ``torch.export.load``."""

RT_INFO = "resnet_zoo"
"""Where an OpenVINO file keeps the metadata: ``model.get_rt_info(["resnet_zoo", key])``."""

INPUT = "images"
OPSET = 18
"""ONNX's, unless asked for another: the first that both torch 2.6's exporter and today's write."""

_LOG = logging.getLogger("resnet_zoo")
_COUNTED = re.compile(r"[A-Za-z]+_\d+")
"""Names that OpenVINO gives to nodes without one, numbered by all that were made in this process before."""

Outputs = dict[str, np.ndarray[Any, Any]]
Runner = Callable[[Tensor], Outputs]


@dataclass(frozen=True)
class Job:
    """What a file is made of.

    Attributes:
        model: The network, in eval mode on the CPU; it is not changed.
        images: Normalised images (N, C, H, W) to trace it with.
        metadata: What the file tells of itself.
        outputs: Names of the outputs.
        half: Whether weights are rounded to float16.
        opset: ONNX's.
        calibration: Normalised images, to compute in 8-bit integers.
        labels: Of these images, to keep the accuracy.
    """

    model: nn.Module
    images: Tensor
    metadata: Mapping[str, str]
    outputs: tuple[str, ...]
    half: bool = False
    opset: int = OPSET
    calibration: Tensor | None = None
    labels: Tensor | None = None

    def quantized(self, graph: Any, *, input_name: str | None = None) -> Any:
        """Return a float32 graph in 8-bit integers if that is wanted, and log how accurate it is if that is known."""
        if self.calibration is None:
            return graph
        options: dict[str, Any] = {"labels": self.labels, "input_name": input_name}
        made, accuracy = quantization.quantize(graph, self.calibration, full_range=False, **options)
        if accuracy:
            _LOG.info("%s", accuracy)
        return made

    def folded(self) -> nn.Module:
        """Return a copy of the network whose batch-norms are in its convolutions."""
        network = copy.deepcopy(self.model).requires_grad_(False)
        fold_batch_norms(network)
        return network


@dataclass(frozen=True)
class Form:
    """A format.

    Attributes:
        suffixes: Of the file, and of the weights beside it if they have a file of their own.
        title: Its name in sentences.
        extra: The extra that it needs, which brings the modules.
        modules: What must be installed.
        write: Return the content of each file.
        open: Return what computes the outputs by name, for the content of each file and the outputs' names.
    """

    suffixes: tuple[str, ...]
    title: str
    extra: str
    modules: tuple[str, ...]
    write: Callable[[Job], tuple[bytes, ...]]
    open: Callable[[tuple[bytes, ...], tuple[str, ...]], Runner]


def check_installed(form: Form, *, int8: bool) -> None:
    """Refuse a format whose packages are missing.

    Raises:
        ArgumentError: Names the package and the extra.
    """
    for module, extra in [(module, form.extra) for module in form.modules] + [("nncf", "int8")] * int8:
        if module in ("openvino", "nncf"):
            lack = openvino.lack_of(module)
        else:
            lack = "" if util.find_spec(module) else f"{module} is not installed"
        if lack:
            raise ArgumentError(
                f"{form.title} files cannot be written here: {lack}. Run: pip install 'resnet-zoo[{extra}]'"
            )


# --- torch.export --------------------------------------------------------------------------------------------------


def _write_program(job: Job) -> tuple[bytes]:
    program = torch.export.export(job.model, (job.images,), dynamic_shapes=_dynamic_batch(), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # this machine's paths
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA_FILE: json.dumps(job.metadata, ensure_ascii=False)})
    return (buffer.getvalue(),)


def _open_program(parts: tuple[bytes, ...], outputs: tuple[str, ...]) -> Runner:
    return partial(run_eager, torch.export.load(io.BytesIO(parts[0])).module(), outputs)


@torch.no_grad()
def run_eager(module: nn.Module, outputs: tuple[str, ...], images: Tensor) -> Outputs:
    """Return a network's outputs by name.

    Raises:
        NonFiniteOutputError: They are infinite or NaN.
    """
    found = module(images)
    maps = found if isinstance(found, dict) else dict.fromkeys(outputs, found)
    for name in outputs:
        check_finite(maps[name], module, images)
    return {name: maps[name].numpy() for name in outputs}


def _dynamic_batch() -> tuple[dict[int, Any]]:
    return ({0: torch.export.Dim("batch", min=1)},)


# --- ONNX ----------------------------------------------------------------------------------------------------------


def _write_onnx(job: Job) -> tuple[bytes]:
    program: Any = torch.onnx.export(
        job.model if job.calibration is None else job.folded(),
        (job.images,),
        dynamo=True,
        dynamic_shapes=_dynamic_batch(),
        input_names=[INPUT],
        output_names=list(job.outputs),
        opset_version=job.opset,
        verbose=False,
    )
    proto = program.model_proto
    written = max(entry.version for entry in proto.opset_import if not entry.domain)
    if written != job.opset:
        raise ArgumentError(f"torch {torch.__version__} writes ONNX's opset {written} here, not {job.opset}.")
    proto = job.quantized(proto, input_name=INPUT)
    _forget_where_it_was_made(proto)
    for key, value in job.metadata.items():
        proto.metadata_props.add(key=key, value=value)
    content: bytes = proto.SerializeToString(deterministic=True)
    return (content,)


def _forget_where_it_was_made(proto: Any) -> None:
    """Remove the exporter's notes: stack traces with this machine's paths, which differ from run to run."""
    graph = proto.graph
    for noted in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del noted.metadata_props[:]


def _open_onnx(parts: tuple[bytes, ...], outputs: tuple[str, ...]) -> Runner:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(parts[0], providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(outputs, session.run(list(outputs), {INPUT: images.numpy()}), strict=True))


# --- OpenVINO ------------------------------------------------------------------------------------------------------


def _write_openvino(job: Job) -> tuple[bytes, bytes]:
    """Return the layers and the weights; the layers tell the sha256 of the weights, as a pair may be torn apart."""
    graph = job.quantized(OpenVinoNetwork.of(job.folded(), job.images, torch.float32, names=job.outputs).model)
    graph.reshape([-1, *job.images.shape[1:]])
    for port, name in zip((*graph.inputs, *graph.outputs), (INPUT, *job.outputs), strict=True):
        port.get_tensor().set_names({name})
    graph.set_friendly_name(job.metadata["model"])
    graph.inputs[0].get_node().set_friendly_name(INPUT)
    for index, node in enumerate(graph.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{index}")
    _, values = openvino.to_bytes(graph, half=job.half)
    for key, value in {**job.metadata, "bin_sha256": hashlib.sha256(values).hexdigest()}.items():
        graph.set_rt_info(value, [RT_INFO, key])
    return openvino.to_bytes(graph, half=job.half)


def _open_openvino(parts: tuple[bytes, ...], outputs: tuple[str, ...]) -> Runner:
    layers, values = parts
    run = openvino.opened((layers, values), outputs, torch.float32)
    return lambda images: {name: value.numpy() for name, value in run(images).items()}


FORMS: dict[Format, Form] = {
    "onnx": Form((".onnx",), "ONNX", "export", ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _open_onnx),
    "openvino": Form((".xml", ".bin"), "OpenVINO", "openvino", ("openvino",), _write_openvino, _open_openvino),
    "torch-export": Form((".pt2",), "torch.export", "", (), _write_program, _open_program),
}
