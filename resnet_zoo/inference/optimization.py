"""A network prepared for inference: batch-norm folded into the convolutions, a faster engine, fewer bits.

The engine is OpenVINO on a CPU if it is installed, otherwise torch with channels_last memory.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from resnet_zoo.base.devices import cpu_flags, supported_dtypes
from resnet_zoo.base.shown import quantity
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference import openvino, quantization
from resnet_zoo.inference.finite import check_finite
from resnet_zoo.inference.folding import fold_batch_norms
from resnet_zoo.inference.openvino import OpenVinoNetwork
from resnet_zoo.inference.quantization import Int8Accuracy
from resnet_zoo.network.counting import first_convolution

Engine = Literal["openvino", "torch"]

_LOG = logging.getLogger("resnet_zoo")

PROBE_IMAGES, PROBE_SEED = 4, 0
"""How many random images the folded network and the original are compared on, and the seed they are drawn from."""

_SMALL_SIZE = 64
"""Height and width of the random images where the network takes any."""

_EXACT_INT8_FLAGS = {"avx512_vnni", "avx_vnni"}
"""The CPU flags of instructions that add up products of 8-bit integers without saturation."""


@dataclass(frozen=True)
class InferenceReport:
    """What `optimize_for_inference` did, and how far the outputs moved.

    Attributes:
        folded_batch_norms: How many batch-norms were folded into convolutions: all of them.
        engine: What computes, with its version: ``OpenVINO 2026.4.1`` or ``torch 2.14.1``.
        memory_format: ``channels_last``; ``None`` for OpenVINO, which chooses for each map.
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``int8``.
        compiled: Whether the network is compiled.
        probe_size: (N, C, H, W) of the images that both networks were compared on: drawn from a fixed seed, or for
            ``int8`` the first calibration images.
        largest_logit_difference: Largest absolute difference of an output from the original's, in float32.
        largest_logit: Largest absolute output of the original, to compare the difference with.
        argmax_agreement: Share of the images with the same best class, 0 to 1; ``None`` for feature maps.
        accuracy: For ``int8`` with labels: top-1 in float32 and in int8, and how many convolutions stay in float32.
    """

    folded_batch_norms: int
    engine: str
    memory_format: str | None
    dtype: str
    compiled: bool
    probe_size: tuple[int, ...]
    largest_logit_difference: float
    largest_logit: float
    argmax_agreement: float | None
    accuracy: Int8Accuracy | None = None

    def __str__(self) -> str:
        """Return it as a sentence."""
        probe = quantity(self.probe_size[0], "probe image")
        agreement = "" if self.argmax_agreement is None else f"; the best class agrees on {self.argmax_agreement:.0%}"
        return (
            f"Computes in {self.dtype} with {self.engine}"
            f"{f', {self.memory_format}' if self.memory_format else ''}, {self.folded_batch_norms} batch-norms folded"
            f"{', compiled' if self.compiled else ''}; on {probe} the largest logit "
            f"difference is {self.largest_logit_difference:.2g} of {self.largest_logit:.2g}{agreement}."
            f"{f' {self.accuracy}' if self.accuracy else ''}"
        )


class OptimizedModel(nn.Module):
    """What `optimize_for_inference` returns: a network with the inputs and outputs of the original.

    Attributes:
        network: The folded network, compiled on request.
        engine: What computes in place of the network, whose weights it shares: OpenVINO, or ``None``.
        report: What was done, and how far the outputs moved.
        entry: The original's, if it was created by name.
        reuses_memory: The compiled network's outputs lie where the next call's will: CUDA graphs do that.
    """

    report: InferenceReport
    entry: Entry | None = None
    reuses_memory = False

    def __init__(
        self, network: nn.Module, dtype: torch.dtype, in_channels: int, engine: OpenVinoNetwork | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.dtype = dtype
        self.in_channels = in_channels
        self.engine = engine

    @property
    def precision(self) -> str:
        """What it computes with, for records."""
        accuracy, compiled = self.report.accuracy, ", compiled" if self.report.compiled else ""
        mixed = f", {accuracy.num_float32} convolutions in float32" if accuracy and accuracy.num_float32 else ""
        return f"{self.report.dtype} with {self.report.engine}{mixed}, batch-norm folded{compiled}"

    def forward(self, x: Tensor) -> Any:
        """Return float32 logits (N, K), or float32 maps by name if the original returns maps.

        They are inference tensors: clone them before training on them.

        Args:
            x: Normalised images (N, C, H, W) of any floating type and memory format.

        Raises:
            ArgumentError: ``x`` is not such a batch; or OpenVINO computes, and the batch is not on the CPU or torch
                traces the call.
        """
        if not _is_batch(x, self.in_channels):
            raise ArgumentError(
                f"Expected normalised images (N, {self.in_channels}, H, W) of a floating type, got {_described(x)}. "
                "`create_transform` makes them from files."
            )
        if self.engine and openvino.takes(x):
            return self.engine(x)
        with torch.inference_mode():
            output = self.network(x.to(self.dtype, memory_format=torch.channels_last))
            return _in_float32(output, copy=self.reuses_memory)

    def train(self, mode: bool = True) -> OptimizedModel:  # noqa: ARG002  # torch's signature
        """Stay in eval mode whatever the surrounding module does: nothing is left to train."""
        return super().train(False)


def optimize_for_inference(
    model: nn.Module,
    *,
    dtype: torch.dtype | None = None,
    calibration: Tensor | None = None,
    labels: Tensor | None = None,
    compile: bool = False,  # noqa: A002  # torch's own word
    engine: Engine | None = None,
) -> OptimizedModel:
    """Return a faster copy of a network with nearly the same outputs; the original is not changed.

    Batch-norm is folded into the convolutions. On a CPU, OpenVINO computes if it is installed (the extra
    ``openvino``); elsewhere torch, with memory laid out channels_last. The copy is then compared with the original on a
    few images: its ``report`` says what was done and what differs, and is logged.

    Args:
        model: A network of this zoo, or a module that contains one, on the device where it will run.
        dtype: ``torch.bfloat16`` or ``torch.float16`` where the device multiplies them (`supported_dtypes`); ``None``
            means ``torch.float32``. `fast_dtype` chooses. ``torch.int8``, on CPUs with the extra ``int8``, is faster
            still: maps and weights of all convolutions are rounded to 8-bit integers. Measured: ResNet-18's 94.74% on
            9,977 test images of CIFAR-10 become 94.77%.
        calibration: Required for ``torch.int8`` and for nothing else: a hundred or more normalised images
            (N, C, H, W) like those to classify, from which the range of each map is taken.
        labels: Of the calibration images (N,), a thousand or more: where int8 loses more than 0.3 points of top-1 on
            them, NNCF leaves the convolutions that cost most in float32. The ranges are then taken from 300 of them.
        compile: Use ``torch.compile``, which takes up to minutes, here and again for each new batch size.
        engine: ``openvino`` or ``torch``, which torch can trace, compile and move to another device. ``None`` chooses:
            torch too if OpenVINO cannot convert the network.

    Raises:
        ArgumentError: The network is optimised already, the device does not multiply ``dtype``, the values do not fit
            into it, a batch-norm has no convolution before it, the calibration images or labels are missing or unfit,
            or nothing can be compiled here.
        NonFiniteOutputError: The original's outputs are infinite or NaN.

    Example:
        >>> model = resnet_zoo.create_model("resnet18_cifar10", pretrained=True)
        >>> fast = resnet_zoo.optimize_for_inference(model)
        >>> fast.report.folded_batch_norms, fast.report.argmax_agreement
        (20, 1.0)
    """
    if isinstance(model, OptimizedModel):
        raise ArgumentError(f"The network is optimised already ({model.precision}). Pass the one it was made from.")
    device = next(model.parameters()).device
    dtype = torch.float32 if dtype is None else dtype
    check_dtype(dtype, device)
    chosen = _chosen_engine(engine, device, dtype, compiled=compile)
    network = copy.deepcopy(model).float().eval().requires_grad_(False)
    in_channels = first_convolution(network).in_channels
    check_calibration(calibration, dtype, in_channels, compiled=compile)
    if calibration is None:
        probe, output = _probed(network, device, compiled=compile)
        images = probe
    else:
        images = calibration.to(device, torch.float32)
        probe = images[:PROBE_IMAGES]
        with torch.inference_mode():
            output = network(probe)
    _check_labels(labels, images, output, is_int8=calibration is not None)
    expected = _outputs(output)
    for values in expected:
        check_finite(values, network, probe)
    num_folded, converted, accuracy = fold_batch_norms(network), None, None
    if chosen == "openvino":
        converted = _converted(network, probe, dtype, output, is_required=engine is not None or calibration is not None)
    if not converted:
        network = network.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif calibration is not None:
        full_range = bool(_EXACT_INT8_FLAGS & cpu_flags())
        converted.model, accuracy = quantization.quantize(converted.model, images, full_range=full_range, labels=labels)
    optimized = OptimizedModel(network, torch.float32 if converted else dtype, in_channels, converted).eval()
    optimized.entry = getattr(model, "entry", None)
    if compile:
        optimized.network = _compiled(network, device)
        optimized.reuses_memory = device.type == "cuda"
    actual = _run_probe(optimized, probe, compiled=compile)
    if not all(output.isfinite().all() for output in actual):
        raise ArgumentError(f"The network's values do not fit into {_name(dtype)}. Use bfloat16 or float32.")
    is_logits = len(expected) == 1 and expected[0].ndim == 2
    optimized.report = InferenceReport(
        folded_batch_norms=num_folded,
        engine=openvino.title() if converted else f"torch {torch.__version__}",
        memory_format=None if converted else "channels_last",
        dtype=_name(dtype),
        compiled=compile,
        probe_size=tuple(probe.shape),
        largest_logit_difference=max((a - b).abs().max().item() for a, b in zip(actual, expected, strict=True)),
        largest_logit=max(output.abs().max().item() for output in expected),
        argmax_agreement=_argmax_agreement(actual[0], expected[0]) if is_logits else None,
        accuracy=accuracy,
    )
    _LOG.info("%s", optimized.report)
    return optimized


def _chosen_engine(engine: Engine | None, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> Engine:
    if engine not in (None, *get_args(Engine)):
        raise ArgumentError(f"Expected an engine of {' or '.join(get_args(Engine))}, got {engine!r}.")
    fits = openvino.is_available(device) and not compiled and dtype in openvino.DTYPES
    if engine == "openvino" and (lack := openvino.lack_of("openvino")):
        raise ArgumentError(f"{lack}. Run: pip install 'resnet-zoo[openvino]', or leave out engine.")
    if engine == "openvino" and not fits:
        raise ArgumentError(
            f"OpenVINO computes {', '.join(map(_name, openvino.DTYPES))} on a CPU, and is not compiled by torch; got "
            f"{_name(dtype)} on {device}{', compiled' if compiled else ''}. Leave out engine."
        )
    if engine == "torch" and dtype is torch.int8:
        raise ArgumentError("OpenVINO computes int8, and torch does not. Leave out engine.")
    return engine or ("openvino" if fits else "torch")


def _converted(
    network: nn.Module, images: Tensor, dtype: torch.dtype, output: Any, *, is_required: bool
) -> OpenVinoNetwork | None:
    """Return the network for OpenVINO; ``None`` if it cannot be converted and need not be."""
    names = tuple(output) if isinstance(output, dict) else None
    try:
        return OpenVinoNetwork.of(network, images[:1], dtype, names=names)
    except ArgumentError:
        if is_required:
            raise
        return None


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a dtype that is not fast on a device.

    Raises:
        ArgumentError: The device does not multiply it, or for int8 OpenVINO or NNCF is missing.
    """
    if dtype is torch.int8:
        if device.type != "cpu":
            raise ArgumentError(f"int8 is for CPUs, got the device {device}. Pass the device cpu, or leave out int8.")
        if lack := openvino.lack_of("openvino") or openvino.lack_of("nncf"):
            raise ArgumentError(
                f"OpenVINO computes int8, after NNCF has prepared the network. {lack}. "
                "Run: pip install 'resnet-zoo[int8]'"
            )
        return
    known = supported_dtypes(device)
    if dtype not in known:
        raise ArgumentError(
            f"Expected a dtype that is fast on {device} ({', '.join(map(_name, known))}), got {_name(dtype)}. "
            "Leave it out for float32."
        )


def check_calibration(calibration: Any, dtype: torch.dtype, channels: int, *, compiled: bool) -> None:
    """Refuse calibration images that are unfit, or that nothing needs.

    Raises:
        ArgumentError: Says what is expected.
    """
    if dtype is not torch.int8:
        if calibration is not None:
            raise ArgumentError(f"Calibration images are for dtype torch.int8, got {_name(dtype)}. Leave them out.")
        return
    if compiled:
        raise ArgumentError("OpenVINO computes int8, which torch cannot compile. Leave out compile.")
    if not _is_batch(calibration, channels) or not len(calibration) or not calibration.isfinite().all():
        raise ArgumentError(
            f"int8 needs calibration images: normalised, finite, of shape (N, {channels}, H, W), got "
            f"{_described(calibration)}. Pass calibration=images, a hundred or more like those to come."
        )
    if len(calibration) > 1 and (calibration == calibration[:1]).all():
        raise ArgumentError("The calibration images are all the same. Pass a hundred or more like those to come.")


def _check_labels(labels: Any, images: Tensor, output: Any, *, is_int8: bool) -> None:
    """Refuse labels that are not those of the calibration images, or that nothing can be compared with."""
    if labels is None:
        return
    if not is_int8:
        raise ArgumentError("Labels are for dtype torch.int8. Leave them out.")
    num_classes = output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 else 0
    are_integers = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.shape == images.shape[:1]
    if not (num_classes and are_integers and int(labels.min()) >= 0 and int(labels.max()) < num_classes):
        raise ArgumentError(
            f"Expected the labels of {len(images)} calibration images, integers from 0 to below the number of the "
            f"network's classes ({num_classes or 'it returns no logits'}), got {_described(labels)}. Leave them out to "
            "skip the check of accuracy."
        )


def _compiled(network: nn.Module, device: torch.device) -> Any:
    """Compile; on a CPU with the weights frozen, which lets the compiler lay them out for its convolutions.

    On CUDA the kernels are launched as one graph: ResNet-50 takes 0.6 ms for an image on an H100 instead of 2.1.
    """
    if device.type == "cuda":
        return torch.compile(network, mode="reduce-overhead")
    return torch.compile(network, options={"freezing": True} if device.type == "cpu" else None)


def _run_probe(optimized: OptimizedModel, probe: Tensor, *, compiled: bool) -> list[Tensor]:
    try:
        return _outputs(optimized(probe))
    except RuntimeError as error:
        if not compiled:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ArgumentError(f"torch.compile fails on this machine ({reason}). Leave out compile.") from error


def _probed(network: nn.Module, device: torch.device, *, compiled: bool) -> tuple[Tensor, Any]:
    """Return images of random values and a network's output for them.

    They are small, which takes a twelfth of the time, unless the network takes only those of its usual size, or is to
    be compiled for them.
    """
    first = first_convolution(network)
    usual = 32 if first.stride == (1, 1) else 224  # the stems' own: CIFAR's does not stride

    def run(size: int) -> tuple[Tensor, Any]:
        generator = torch.Generator("cpu").manual_seed(PROBE_SEED)
        shape = (PROBE_IMAGES, first.in_channels, size, size)
        images = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(device)
        with torch.inference_mode():
            return images, network(images)

    if not compiled and usual > _SMALL_SIZE:
        with contextlib.suppress(RuntimeError):  # torch's own, as of a linear layer behind maps that were flattened
            return run(_SMALL_SIZE)
    return run(usual)


def _outputs(output: Any) -> list[Tensor]:
    return [value.float() for value in output.values()] if isinstance(output, dict) else [output.float()]


def _in_float32(output: Any, *, copy: bool) -> Any:
    if isinstance(output, dict):
        return {name: value.to(torch.float32, copy=copy) for name, value in output.items()}
    return output.to(torch.float32, copy=copy)


def _is_batch(x: Any, channels: int) -> bool:
    is_floating = isinstance(x, Tensor) and x.is_floating_point()
    return is_floating and x.ndim == 4 and x.shape[1] == channels and 0 not in x.shape[1:]


def _described(x: Any) -> str:
    return f"{_name(x.dtype)} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def _argmax_agreement(actual: Tensor, expected: Tensor) -> float:
    return (actual.argmax(dim=1) == expected.argmax(dim=1)).float().mean().item()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
