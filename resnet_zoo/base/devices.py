"""Devices: choosing one, its name, the types it multiplies, and waiting for it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from resnet_zoo.errors import ArgumentError


def resolve_device(device: torch.device | str) -> torch.device:
    """Turn ``auto`` or a device's name into an available device.

    Raises:
        ArgumentError: It is not a device, or not on this machine.
    """
    if device == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ArgumentError(
            f"The device {str(device)!r} is not available. Pass auto, cpu, or a device of this machine."
        ) from error
    return resolved


def device_title(device: torch.device) -> str:
    """Return a device's name as people know it; for a CPU also its number of threads, which affects the last bits."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads, cores = torch.get_num_threads(), os.cpu_count()
        return f"{_processor()}, {cores} cores" + ("" if threads == cores else f", threads used: {threads}")
    return str(device)


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def supported_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Return the floating types that a device multiplies by its own instructions, float32 first.

    A CPU has bfloat16 with AVX512-BF16, AMX or Arm's BF16 (as Linux reports); float16 on a CPU is never faster here and
    is left out.
    """
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.get_device_capability(device) >= (8, 0)  # older ones emulate it
        return (torch.float32, *((torch.bfloat16,) if has_bfloat16 else ()), torch.float16)
    if device.type == "mps":
        return (torch.float32, torch.float16)
    return (torch.float32, torch.bfloat16) if cpu_flags() & _BFLOAT16_FLAGS else (torch.float32,)


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 if the device multiplies it, else float32: the range is the same, so nothing overflows."""
    return torch.bfloat16 if torch.bfloat16 in supported_dtypes(device) else torch.float32


def cpu_flags() -> set[str]:
    """Return the CPU's feature flags as Linux lists them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()  # not Linux
    lines = (line.partition(":") for line in text.splitlines())
    return {flag for key, _, value in lines if key.strip().lower() in ("flags", "features") for flag in value.split()}


_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""What /proc/cpuinfo calls instructions that multiply bfloat16, on x86 and on Arm."""


@contextlib.contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Keep cuDNN from rounding float32 convolutions to TF32 (its default), which changes the last digits."""
    if device.type != "cuda":
        yield
        return
    backends: Any = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = False
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


@contextlib.contextmanager
def borrowed(model: torch.nn.Module) -> Iterator[None]:
    """Give a network back as it was: the mode of every module, and device, type and layout of every tensor."""
    modes = [(module, module.training) for module in model.modules()]
    tensors = [
        tensor for parameter in model.parameters() for tensor in (parameter, parameter.grad) if tensor is not None
    ]
    values = [(tensor, tensor.data) for tensor in tensors]
    buffers = [(module, dict(module.named_buffers(recurse=False))) for module in model.modules()]  # .to replaces them
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for tensor, value in values:
            tensor.data = value
        for module, kept in buffers:
            for name, buffer in kept.items():
                setattr(module, name, buffer)


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
