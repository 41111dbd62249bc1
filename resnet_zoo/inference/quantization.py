"""Convolutions in 8-bit integers: torch's own post-training quantisation, calibrated on real images.

Weights get one scale per output channel, activations one scale and zero per map (Jacob et al. 2018,
https://arxiv.org/abs/1712.05877, section 2). What follows the last map, the pool and the classifier, stays float32: it
is a thousandth of the work, and rounding there would make classes tie.

torch calls its `torch.ao.quantization` deprecated in favour of torchao, whose way to the same arithmetic needs a
compiler and, as of torchao 0.18, does not take a residual network. Three functions of it are used here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from resnet_zoo.errors import ArgumentError

ENGINE = "x86"
"""torch's name for the kernels: oneDNN's and FBGEMM's, whichever is faster for a convolution."""

_BATCH_SIZE = 32
"""Images computed at a time while ranges are observed."""


class FloatPool(nn.AdaptiveAvgPool2d):
    """A pool that quantisation leaves alone: rounded to 8 bits, an average loses what a map's many values add up to."""


def is_available(device: torch.device) -> bool:
    """Tell whether torch has 8-bit convolutions for a device: for CPUs of x86."""
    return device.type == "cpu" and ENGINE in torch.backends.quantized.supported_engines


def quantize(network: nn.Module, calibration: Tensor, *, full_range: bool) -> nn.Module:
    """Return a network whose convolutions multiply 8-bit integers; its batch-norms are folded into them.

    Args:
        network: In eval mode, float32; it is changed.
        calibration: Normalised images (N, C, H, W) on which the range of every map is observed.
        full_range: Use all 8 bits of a map, where the CPU adds products without saturation (AVX512-VNNI); 7 otherwise.

    Raises:
        ArgumentError: torch.fx cannot trace the network, or this torch has no such quantisation.
    """
    try:
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
    except ImportError as error:
        raise ArgumentError(
            f"int8 needs torch.ao.quantization, which torch {torch.__version__} does not have. Use bfloat16 or float32."
        ) from error
    _pool_in_float(network)
    config = get_default_qconfig_mapping("onednn" if full_range else ENGINE).set_object_type(nn.Linear, None)
    untouched = PrepareCustomConfig().set_non_traceable_module_classes([FloatPool])
    with _engine(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the deprecation, and what its observers say of their own arguments
        try:
            observed = prepare_fx(network, config, (calibration[:1],), prepare_custom_config=untouched)
        except torch.fx.proxy.TraceError as error:
            raise ArgumentError(f"torch.fx cannot trace the network ({error}). Use bfloat16 or float32.") from error
        for images in torch.split(calibration, _BATCH_SIZE):
            observed(images)
        quantized: nn.Module = convert_fx(observed)
    return quantized


def _pool_in_float(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.AdaptiveAvgPool2d:
                setattr(parent, name, FloatPool(child.output_size))


@contextmanager
def _engine() -> Iterator[None]:
    """Let weights be packed for `ENGINE`; packed ones run whatever is set later."""
    backend = torch.backends.quantized
    before = backend.engine
    backend.engine = ENGINE
    try:
        yield
    finally:
        backend.engine = before
