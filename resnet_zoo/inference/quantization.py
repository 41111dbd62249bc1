"""Convolutions in 8-bit integers: NNCF's post-training quantisation of OpenVINO's graph, calibrated on real images.

Weights get one scale per output channel, maps one scale each (Jacob et al. 2018, https://arxiv.org/abs/1712.05877,
section 2); biases are then corrected for what rounding did to the mean of each map. What follows the last map, the pool
and the classifier, stays float32: it is a thousandth of the work, and rounding there would make classes tie.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from importlib import util
from typing import Any

import torch
from torch import Tensor

from resnet_zoo.inference import openvino

_LEFT_IN_FLOAT32 = ["ReduceMean", "MatMul", "Gemm"]
"""The names of OpenVINO and ONNX for the pool and the classifier."""

_LOUD = ("nncf", "torch.utils.cpp_extension")


def is_available(device: torch.device) -> bool:
    """Tell whether NNCF and OpenVINO are installed and the device is a CPU."""
    return openvino.is_available(device) and util.find_spec("nncf") is not None


def quantize(model: Any, calibration: Tensor, *, full_range: bool, input_name: str | None = None) -> Any:
    """Return a graph of OpenVINO or ONNX whose convolutions multiply 8-bit integers.

    Args:
        model: A float32 graph without batch-norms; it is not changed.
        calibration: Normalised images (N, C, H, W) on which the range of every map is observed.
        full_range: Use all 8 bits of a weight, where the CPU adds products without saturation; 7 otherwise.
        input_name: Of an ONNX graph.
    """
    images = [image[None] for image in calibration.numpy()]
    with _in_silence():
        nncf = openvino.load("nncf")
        fix = nncf.OverflowFix.DISABLE if full_range else nncf.OverflowFix.ENABLE
        return inspect.unwrap(nncf.quantize)(  # the wrapper is its telemetry
            model,
            nncf.Dataset(images if input_name is None else [{input_name: image} for image in images]),
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(types=_LEFT_IN_FLOAT32, validate=False),  # not all networks have them
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
        )


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
