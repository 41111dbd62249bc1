"""OpenVINO, an engine for CPUs (https://docs.openvino.ai): a torch network converted in memory, computed without torch.

It chooses the layout of every map, computes what follows a convolution together with it, and has kernels of its own for
small batches. The graph takes any batch and image size; compiling it takes a tenth of a second, so nothing is cached.
Where single images of one size come, it is compiled once more for them alone: the same bits, some 2% sooner.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import re
import sys
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
from torch.jit._trace import TracerWarning

from resnet_zoo.errors import ArgumentError

DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.int8: "f32"}
"""OpenVINO's word for what computes where nothing is quantised; left alone it takes bfloat16 if the CPU has it."""

_OLDEST = {"openvino": ("OpenVINO", (2026, 0)), "nncf": ("NNCF", (3, 0))}
"""The titles of packages, and the first versions that are called here as they want to be."""

_FAILURES = ("GeneralFailure", "OpConversionFailure", "OpValidationFailure")
"""Its errors of conversion, which have no base of their own."""

_TELEMETRY = "openvino_telemetry"
_IMPORTS = threading.Lock()


def is_available(device: torch.device) -> bool:
    """Tell whether OpenVINO is installed, new enough, and the device is a CPU."""
    return device.type == "cpu" and not lack_of("openvino")


def lack_of(package: str) -> str:
    """Say that OpenVINO or NNCF is not installed here or too old; nothing if neither."""
    title, oldest = _OLDEST[package]
    if util.find_spec(package) is None:
        return f"{title} is not installed"
    found = metadata.version(package)
    if tuple(map(int, found.split(".")[:2])) >= oldest:
        return ""
    return f"{title} {found} is too old: {'.'.join(map(str, oldest))} or later is needed"


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
        self._compiled: dict[tuple[int, tuple[int, ...] | None], tuple[Any, list[Any]]] = {}
        """By threads, and shape of the images if they have a graph of their own: the compiled graph, and its requests
        that are not in use."""
        self._last_shape: tuple[int, ...] = ()
        self._own_shape: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, network: nn.Module, images: Tensor, dtype: torch.dtype, *, names: Sequence[str] | None
    ) -> OpenVinoNetwork:
        """Convert a float32 network in eval mode.

        Args:
            network: Its weights are copied; none requires gradients.
            images: Images (N, C, H, W) to trace it with; one is enough.
            dtype: What to compute with.
            names: Keys of the network's outputs in order, or ``None`` if it returns one tensor.

        Raises:
            ArgumentError: The network cannot be converted, as where its computation depends on the images' values.
        """
        failures = [getattr(load("openvino.frontend"), name) for name in _FAILURES]
        try:
            return cls(_converted(network, images), names, dtype)
        except (RuntimeError, SystemError, TracerWarning, *failures) as error:
            reason = re.split(r"\n|\. ", str(error.__cause__ or error).strip())[0]
            raise ArgumentError(
                f"OpenVINO cannot convert the network ({reason}). Pass engine='torch', in float32 or bfloat16."
            ) from error

    def __call__(self, x: Tensor) -> Any:
        """Return the float32 output, or the outputs by name, for images (N, C, H, W) on the CPU.

        The outputs are the caller's: OpenVINO writes maps into new memory; vectors, which are small, are copied.
        """
        openvino, (compiled, idle) = load("openvino"), self._ready(tuple(x.shape))
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        x = x.detach().to(torch.float32).contiguous()  # held here, because OpenVINO computes with its memory
        request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))
        for index, port in enumerate(compiled.outputs):
            shape = port.partial_shape
            if (rank := shape.rank.get_length()) > 2:
                memory = shape.to_shape() if shape.is_static else [0] * rank
                request.set_output_tensor(index, openvino.Tensor(port.element_type, memory))
        request.infer()
        found = [request.get_output_tensor(index).data for index in range(len(compiled.outputs))]
        outputs = [torch.from_numpy(values if values.ndim > 2 else values.copy()) for values in found]
        idle.append(request)
        return outputs[0] if self.names is None else dict(zip(self.names, outputs, strict=True))

    def digest(self) -> str:
        """Return the SHA-256 of the graph's constants: weights, and the ranges of maps that calibration found."""
        return hashlib.sha256(to_bytes(self.model)[1]).hexdigest()

    def for_callers(self, num_callers: int) -> OpenVinoNetwork:
        """Return a twin for so many callers, with the same graph."""
        return type(self)(self.model, self.names, self.dtype, num_callers)

    def __deepcopy__(self, _memo: dict[int, Any]) -> OpenVinoNetwork:
        """Return a twin: the graph never changes, and what is compiled cannot be copied."""
        return self.for_callers(self.num_callers)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the graph as OpenVINO's own files hold it."""
        return opened, (to_bytes(self.model), self.names, self.dtype, self.num_callers)

    def _ready(self, shape: tuple[int, ...] = ()) -> tuple[Any, list[Any]]:
        """Return the graph compiled for the threads that torch would use now, and its idle requests.

        The first shape of a single image that comes twice in a row gets a graph of its own, and no other shape: a
        process that sees one image need not wait for it. Not in int8, where one image in 50 has other last bits there.
        """
        threads = torch.get_num_threads()
        with self._lock:
            is_again = shape[:1] == (1,) and shape == self._last_shape
            if self._own_shape is None and is_again and self.dtype is not torch.int8:
                self._own_shape = shape
            self._last_shape = shape
            own = self._own_shape if shape == self._own_shape else None
            if (threads, own) not in self._compiled:
                settings = {
                    "INFERENCE_PRECISION_HINT": DTYPES[self.dtype],
                    "INFERENCE_NUM_THREADS": threads * self.num_callers,
                    "NUM_STREAMS": self.num_callers,
                    "ENABLE_CPU_PINNING": False,  # processes beside this one would be pinned to the same cores
                }
                model = self.model
                if own:
                    model = model.clone()
                    model.reshape(list(own))
                self._compiled[threads, own] = _core().compile_model(model, "CPU", settings), []
            return self._compiled[threads, own]


def load(name: str) -> Any:
    """Import OpenVINO, a module of it or NNCF, without their telemetry.

    ``openvino_telemetry`` reports their use to Google from a fork of this process, made by a thread, at import already;
    with threads of torch about, such a fork can hang or end the process. Both do without where it is not installed.

    Raises:
        ArgumentError: It is not installed.
    """
    if module := sys.modules.get(name):
        return module
    with _IMPORTS:
        telemetry = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's own sign for what cannot be imported
        try:
            return importlib.import_module(name)
        except ImportError as error:
            package = name.partition(".")[0]
            (title, _), extra = _OLDEST[package], "int8" if package == "nncf" else package
            raise ArgumentError(
                f"The network needs {title}, which is not installed. Run: pip install 'resnet-zoo[{extra}]'"
            ) from error
        finally:
            sys.modules.pop(_TELEMETRY)
            if telemetry:
                sys.modules[_TELEMETRY] = telemetry


def compiled(model: Any) -> Any:
    """Return a graph compiled to compute in float32 what is not quantised."""
    return _core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@functools.cache
def _core() -> Any:
    """Return this process's one core: a process that makes a second one can crash (OpenVINO's issue 35338)."""
    return load("openvino").Core()


def _converted(network: nn.Module, images: Tensor) -> Any:
    """Return the graph of a network, which takes images of any number and size.

    The steps of `openvino.convert_model`, which would report each of them (`load`).
    """
    openvino, frontend = load("openvino"), load("openvino.frontend")
    decoder = load("openvino.frontend.pytorch.ts_decoder").TorchScriptPythonDecoder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, that torch.jit is deprecated
        # A branch that the trace would make permanent.
        warnings.simplefilter("error", TracerWarning)  # torch makes a SystemError of some
        # As a function: for a module, torch makes a second one of each layer first, which takes three times as long.
        with torch.no_grad():
            options = {"check_trace": False, "strict": False}
            function = torch.jit.trace(lambda x: network(x), images, **options)  # type: ignore[no-untyped-call]
        # OpenVINO's threads give up shared weights without Python's lock, which can end the process.
        traced = decoder(function, example_input=images, shared_memory=False)
    converter = frontend.FrontEndManager().load_by_framework("pytorch")
    graph = converter.load(traced)
    place = graph.get_place_by_input_index(0)
    graph.set_partial_shape(place, openvino.PartialShape([-1, images.shape[1], -1, -1]))
    graph.set_element_type(place, openvino.Type.f32)
    model = converter.convert(graph)
    load("openvino._offline_transformations").apply_moc_transformations(model, cf=False, smart_reshape=True)
    return model


def to_bytes(model: Any, *, half: bool = False) -> tuple[bytes, bytes]:
    """Return a graph as OpenVINO's two files hold it: layers (.xml), and weights (.bin), on request in float16."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        load("openvino").save_model(model, path, compress_to_fp16=half)
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def opened(
    parts: tuple[bytes, bytes], names: Sequence[str] | None, dtype: torch.dtype, num_callers: int = 1
) -> OpenVinoNetwork:
    """Return the network of `to_bytes`."""
    return OpenVinoNetwork(_core().read_model(*parts), names, dtype, num_callers)
