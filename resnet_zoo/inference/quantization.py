"""Convolutions in 8-bit integers: NNCF's post-training quantisation of OpenVINO's graph, calibrated on real images.

Weights get one scale per output channel, maps one scale each (Jacob et al. 2018, https://arxiv.org/abs/1712.05877,
section 2); biases are then corrected for what rounding did to the mean of each map. What follows the last map, the pool
and the classifier, stays float32: it is a thousandth of the work, and rounding there would make classes tie.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from resnet_zoo.inference import openvino

NUM_IMAGES = 300
"""How many images set the range of every map: NNCF's own number."""

MAX_DROP_PCT = 0.3
"""How many points of top-1 int8 may lose on labelled images before convolutions are left in float32."""

_BATCH_SIZE = 16
_LEFT_IN_FLOAT32 = ["ReduceMean", "MatMul", "Gemm"]
"""The names of OpenVINO and ONNX for the pool and the classifier."""

_LOUD = ("nncf", "torch.utils.cpp_extension")


def is_available(device: torch.device) -> bool:
    """Tell whether NNCF and OpenVINO are installed, new enough, and the device is a CPU."""
    return openvino.is_available(device) and not openvino.lack_of("nncf")


@dataclass(frozen=True)
class Int8Accuracy:
    """Top-1 on labelled images: in float32, in plain int8, and of what was made of it.

    Attributes:
        num_images: The labelled images.
        correct_float32: How many of them the float32 graph has right.
        correct_plain: The same with every convolution in 8-bit integers.
        correct: The same of the graph that was made.
        num_convolutions: Convolutions in all.
        num_float32: Those left in float32, because plain int8 loses more than `MAX_DROP_PCT`.
    """

    num_images: int
    correct_float32: int
    correct_plain: int
    correct: int
    num_convolutions: int
    num_float32: int

    def __str__(self) -> str:
        """Return it as a sentence."""
        exact, plain, made = (
            f"{100 * correct / self.num_images:.2f}%"
            for correct in (self.correct_float32, self.correct_plain, self.correct)
        )
        on = f"On {self.num_images:,} labelled images top-1 is"
        if not self.num_float32:
            return f"{on} {made}, and {exact} in float32."
        return (
            f"{on} {plain} in int8 alone, and {exact} in float32: {self.num_float32} of {self.num_convolutions} "
            f"convolutions stay in float32, which gives {made}."
        )


def quantize(
    model: Any, calibration: Tensor, *, full_range: bool, input_name: str | None = None, labels: Tensor | None = None
) -> tuple[Any, Int8Accuracy | None]:
    """Return a graph of OpenVINO or ONNX whose convolutions multiply 8-bit integers, and its accuracy.

    Args:
        model: A float32 graph without batch-norms; it is not changed.
        calibration: Normalised images (N, C, H, W) on which the range of every map is observed; with labels, on
            `NUM_IMAGES` of them.
        full_range: Use all 8 bits of a weight, where the CPU adds products without saturation; 7 otherwise.
        input_name: Of an ONNX graph.
        labels: Of the images (N,): where int8 loses more than `MAX_DROP_PCT` of top-1 on them, the convolutions that
            cost most stay in float32. Without labels, the accuracy is ``None``.
    """
    images = calibration.numpy()
    observed = [image[None] for image in (images if labels is None else images[:: -(-len(images) // NUM_IMAGES)])]
    with _in_silence():
        nncf = openvino.load("nncf")
        data = nncf.Dataset(observed if input_name is None else [{input_name: image} for image in observed])
        fix = nncf.OverflowFix.DISABLE if full_range else nncf.OverflowFix.ENABLE
        parameters = nncf.AdvancedQuantizationParameters(overflow_fix=fix)
        options = {
            "target_device": nncf.TargetDevice.CPU,
            "subset_size": len(observed),
            "ignored_scope": nncf.IgnoredScope(types=_LEFT_IN_FLOAT32, validate=False),  # not all networks have them
        }
        if labels is None:  # the wrapper of either function is its telemetry
            return inspect.unwrap(nncf.quantize)(model, data, advanced_parameters=parameters, **options), None
        top1 = _Top1(images, labels.numpy())
        made = inspect.unwrap(nncf.quantize_with_accuracy_control)(
            model,
            data,
            nncf.Dataset(range(len(images))),
            top1,
            max_drop=int(len(images) * MAX_DROP_PCT / 100 + 1e-9),  # of images
            advanced_quantization_parameters=parameters,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(num_ranking_workers=1),
            **options,
        )
    return made, top1.accuracy_of(made)


class _Top1:
    """Counts the images that a graph has right, as NNCF calls it, and remembers the count of every graph."""

    def __init__(self, images: Any, labels: Any) -> None:
        self._images, self._labels = images, labels
        self._counts: list[int] = []

    def __call__(self, graph: Any, indices: Iterable[int]) -> tuple[float, list[float]]:
        """Return how many of some images are right, and which."""
        run, chosen = _runner(graph), [*indices]
        right: list[float] = []
        for start in range(0, len(chosen), _BATCH_SIZE):
            batch = chosen[start : start + _BATCH_SIZE]
            right += (run(self._images[batch]).argmax(1) == self._labels[batch]).astype(float).tolist()
        if len(chosen) == len(self._images):
            self._counts.append(int(sum(right)))
        return sum(right), right

    def accuracy_of(self, made: Any) -> Int8Accuracy:
        """Return the accuracy of the graph that was made in the end."""
        exact, plain, *others = self._counts
        if others:  # the last one that was counted need not be the one returned
            graph = made if _is_onnx(made) else openvino.compiled(made)
            self(graph, range(len(self._images)))
        kinds = _weights_of_convolutions(made)
        return Int8Accuracy(len(self._images), exact, plain, self._counts[-1], len(kinds), kinds.count("float32"))


def _is_onnx(graph: Any) -> bool:
    return hasattr(graph, "opset_import")


def _runner(graph: Any) -> Callable[[Any], Any]:
    """Return what computes logits of images: a compiled graph of OpenVINO, or a session of an ONNX graph."""
    if not _is_onnx(graph):
        return lambda images: graph(images)[0]
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _weights_of_convolutions(graph: Any) -> list[str]:
    """Return ``int8`` or ``float32`` for each convolution; integers are scaled on their way to it."""
    if _is_onnx(graph):
        constants = {constant.name for constant in graph.graph.initializer}
        are_plain = [node.input[1] in constants for node in graph.graph.node if node.op_type == "Conv"]
    else:
        nodes = [node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
        are_plain = [node.input_value(1).get_node().get_type_name() == "Constant" for node in nodes]
    return ["float32" if is_plain else "int8" for is_plain in are_plain]


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """Keep NNCF from drawing progress bars on standard output and from saying what it and torch's compiler lack."""
    logs = [logging.getLogger(name) for name in _LOUD]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)
