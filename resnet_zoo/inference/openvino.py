"""OpenVINO, an engine for CPUs (https://docs.openvino.ai): a torch network converted in memory, computed without torch.

It chooses the layout of every map, computes what follows a convolution together with it, and has kernels of its own for
small batches. The graph takes any batch and image size; compiling it takes a tenth of a second, so nothing is cached.
"""

from __future__ import annotations

import importlib
import tempfile
import threading
import warnings
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from resnet_zoo.errors import ArgumentError

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.int8: "f32"}
"""OpenVINO's word for what computes where nothing is quantised; left alone it takes bfloat16 if the CPU has it."""


def is_available(device: torch.device) -> bool:
    """Tell whether OpenVINO is installed and the device is a CPU."""
    return device.type == "cpu" and util.find_spec("openvino") is not None


def title() -> str:
    """Return its name and version, for records."""
    return f"OpenVINO {metadata.version('openvino')}"


def takes(x: Tensor) -> bool:
    """Tell whether images are finite: OpenVINO's max(NaN, 0) is 0, which would make an answer of no image at all.

    numpy adds them up, because torch's threads would keep the cores busy for milliseconds after it.

    Raises:
        ArgumentError: The images are not on the CPU, or torch traces the call.
    """
    if x.device.type != "cpu":
        raise ArgumentError(f"OpenVINO computes on the CPU, got images on {x.device}. Optimise the network there.")
    if torch.compiler.is_compiling() or torch.jit._trace.is_tracing():  # type: ignore[no-untyped-call]
        raise ArgumentError("torch cannot trace what OpenVINO computes. Optimise the network with engine='torch'.")
    with np.errstate(invalid="ignore"):
        return bool(np.isfinite(x.detach().to(torch.float32).numpy().sum()))


class OpenVinoNetwork:
    """A converted network: torch images in, torch outputs out. Threads may call it at the same time.

    Attributes:
        model: OpenVINO's graph.
        names: Names of the outputs in order; ``None`` for one output without a name.
        dtype: What it computes with.
        num_callers: How many threads call it at the same time, each with as many cores as torch would use there
            (``torch.get_num_threads()``). With fewer than there are, calls wait for each other.
    """

    def __init__(self, model: Any, names: Sequence[str] | None, dtype: torch.dtype, num_callers: int = 1) -> None:
        self.model, self.names, self.dtype, self.num_callers = model, names, dtype, num_callers
        self._lock = threading.Lock()
        self._compiled: dict[tuple[int, int], tuple[Any, list[Any]]] = {}
        """By threads and callers: the compiled graph, and its requests that are not in use."""

    @classmethod
    def of(
        cls, network: nn.Module, images: Tensor, dtype: torch.dtype, *, names: Sequence[str] | None
    ) -> OpenVinoNetwork:
        """Convert a float32 network in eval mode.

        Args:
            network: Its weights are shared, not copied.
            images: Images (N, C, H, W) to trace it with.
            dtype: What to compute with.
            names: Keys of the network's outputs in order, or ``None`` if it returns one tensor.

        Raises:
            ArgumentError: The network cannot be converted, as where its computation depends on the images' values.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, that torch.jit is deprecated
            warnings.simplefilter(
                "error", torch.jit._trace.TracerWarning
            )  # a branch that the trace would make permanent
            try:
                model = _openvino().convert_model(network, example_input=images)
            except RuntimeError as error:
                reason = str(error).strip().rpartition("\n")[2]
                raise ArgumentError(
                    f"OpenVINO cannot convert the network ({reason}). Pass engine='torch', in float32 or bfloat16."
                ) from error
        return cls(model, names, dtype)

    def __call__(self, x: Tensor) -> Any:
        """Return the float32 output, or the outputs by name, for images (N, C, H, W) on the CPU.

        The outputs are the caller's: OpenVINO writes each call's into new memory.
        """
        openvino, (compiled, idle) = _openvino(), self._ready()
        x = x.detach().to(torch.float32).contiguous()
        results = [
            openvino.Tensor(port.element_type, [0] * port.partial_shape.rank.get_length()) for port in compiled.outputs
        ]
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))
        for index, result in enumerate(results):
            request.set_output_tensor(index, result)
        request.infer()
        idle.append(request)
        outputs = [torch.from_numpy(result.data) for result in results]
        return outputs[0] if self.names is None else dict(zip(self.names, outputs, strict=True))

    def for_callers(self, num_callers: int) -> OpenVinoNetwork:
        """Return a twin for so many callers, with the same graph."""
        return type(self)(self.model, self.names, self.dtype, num_callers)

    def __deepcopy__(self, _memo: dict[int, Any]) -> OpenVinoNetwork:
        """Return a twin: the graph never changes, and what is compiled cannot be copied."""
        return self.for_callers(self.num_callers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the graph as OpenVINO's own files hold it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            _openvino().save_model(self.model, path, compress_to_fp16=False)
            parts = path.read_bytes(), path.with_suffix(".bin").read_bytes()
        return _unpickled, (parts, self.names, self.dtype, self.num_callers)

    def _ready(self) -> tuple[Any, list[Any]]:
        """Return the graph compiled for the threads that torch would use now, and its idle requests."""
        threads = torch.get_num_threads()
        key = threads, self.num_callers
        with self._lock:
            if key not in self._compiled:
                settings = {
                    "INFERENCE_PRECISION_HINT": DTYPES[self.dtype],
                    "INFERENCE_NUM_THREADS": threads * self.num_callers,
                    "NUM_STREAMS": self.num_callers,
                    "ENABLE_CPU_PINNING": False,  # processes beside this one would be pinned to the same cores
                }
                self._compiled[key] = _openvino().Core().compile_model(self.model, "CPU", settings), []
            return self._compiled[key]


def _openvino() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise ArgumentError(
            "The network needs OpenVINO, which is not installed. Run: pip install 'resnet-zoo[openvino]'"
        ) from error


def _unpickled(
    parts: tuple[bytes, bytes], names: Sequence[str] | None, dtype: torch.dtype, num_callers: int
) -> OpenVinoNetwork:
    return OpenVinoNetwork(_openvino().Core().read_model(*parts), names, dtype, num_callers)
