"""How fast networks are on this machine: images per second and latency, beside the speed of its matrix products."""

from __future__ import annotations

import copy
import csv
import io
import math
import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from resnet_zoo.base.devices import device_title, exact_float32, resolve_device, supported_dtypes, wait_for
from resnet_zoo.base.machine import versions
from resnet_zoo.base.progress import TitledProgress
from resnet_zoo.catalog.manifest import get_entry, list_models
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.listing import check_there
from resnet_zoo.inference.calibration import made_fast
from resnet_zoo.inference.optimization import check_dtype, optimize_for_inference
from resnet_zoo.network.building import build
from resnet_zoo.network.counting import flops_by_rule, tally_operations
from resnet_zoo.zoo import Network, open_network

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_MIN_RUNS = 5
"""Least number of runs per measurement, however long they take."""

_PEAK_SIZES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product gives the peak: large enough to fill the device."""
_OTHER_PEAK_SIZE = 4096

_OUT_OF_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory")
"""How torch words it on one kind of device or another."""


@dataclass(frozen=True)
class Speed:
    """One measurement: a network, a mode, a dtype and a batch size.

    Attributes:
        name: The model, or the file or repository as it was named.
        mode: ``eager`` (the network as `create_model` returns it), ``fast`` (`optimize_for_inference`) or
            ``fast compiled``.
        dtype: ``float32`` (TF32 off), ``bfloat16``, ``float16`` or ``int8``.
        batch_size: Images per forward pass.
        num_runs: Forward passes timed, after a warm-up.
        images_per_s: From the median.
        latency_ms: Median time of a forward pass.
        latency_p95_ms: 95% of the forward passes took no longer.
        tflops: 10^12 operations per second: two per multiply-accumulate of convolutions and the classifier.
        peak_tflops: The same of a large square matrix product of this dtype on the device, the best of several;
            ``None`` for int8, which torch does not multiply at speed.
        peak_share: ``tflops / peak_tflops``; above 1 where the measurement of the peak was disturbed.
    """

    name: str
    mode: str
    dtype: str
    batch_size: int
    num_runs: int
    images_per_s: float
    latency_ms: float
    latency_p95_ms: float
    tflops: float
    peak_tflops: float | None
    peak_share: float | None


@dataclass(frozen=True)
class Benchmark:
    """Measurements and the machine they were made on."""

    device: str
    num_threads: int
    versions: dict[str, str]
    speeds: tuple[Speed, ...]


def measure_speed(
    names: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    *,
    batch_sizes: Sequence[int] = (1, 16, 64),
    dtypes: Sequence[str] = ("float32",),
    device: torch.device | str = "auto",
    fast: bool = False,
    compile: bool = False,  # noqa: A002  # torch's own word
    calibration: str | os.PathLike[str] | None = None,
    seconds: float = 1.0,
    progress: TitledProgress | None = None,
) -> Benchmark:
    """Measure the speed of networks' forward passes, with fresh random values: they take as long as trained ones.

    Args:
        names: Models or aliases, ``hf-hub:owner/name``, or paths of network files; ``None`` means all models.
        batch_sizes: Images per forward pass.
        dtypes: ``float32``, ``bfloat16`` or ``float16``, where the device multiplies them (`supported_dtypes`).
        device: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        fast: Measure `optimize_for_inference` too.
        compile: Measure the compiled network too.
        calibration: A folder of images: measure 8-bit integers too, on a CPU with the extra ``int8``.
        seconds: Length of each measurement, after a warm-up of two runs; it takes at least five runs.
        progress: Called with (model, measurements done, measurements in all).

    Raises:
        UnknownModelError: No model has this name; other errors as `open_network`.
        ArgumentError: A batch size or the time is out of range, the device is not available or does not multiply a
            dtype, nothing can be compiled here, a batch does not fit into memory, or there are too few calibration
            images.
        DatasetError: The calibration images are missing or unreadable.

    Example:
        >>> benchmark = resnet_zoo.measure_speed("resnet18_cifar10", batch_sizes=[1], seconds=0.1)
        >>> (speed,) = benchmark.speeds
        >>> print(f"{speed.mode}, {speed.dtype}: {speed.images_per_s:.0f} images/s, {speed.latency_ms:.1f} ms")
        eager, float32: ... images/s, ... ms
    """
    names = [names] if isinstance(names, (str, os.PathLike)) else list_models() if names is None else names
    networks = [_open(name) for name in names]
    device = resolve_device(device)
    _check_arguments(batch_sizes, dtypes, device, seconds)
    if calibration is not None:
        check_dtype(torch.int8, device)
        check_there([calibration])
    modes = ("eager", *(("fast",) if fast else ()), *(("fast compiled",) if compile else ()))
    num_variants = len(dtypes) * len(modes) + (calibration is not None)
    total = len(networks) * num_variants * len(batch_sizes)
    speeds: list[Speed] = []
    with exact_float32(device):
        peaks = {dtype: matrix_peak_tflops(DTYPES[dtype], device, seconds=seconds) for dtype in dtypes}
        for network in networks:
            for speed in _speeds_of(network, modes, batch_sizes, peaks, device, calibration, seconds):
                speeds.append(speed)
                if progress:
                    progress(network.name, len(speeds), total)
    return Benchmark(device_title(device), torch.get_num_threads(), versions(), tuple(speeds))


def _open(name: str | os.PathLike[str]) -> Network:
    """Open a network; a row with its own input size, whatever its default weights were tested at."""
    network = open_network(name)
    return replace(network, entry=get_entry(str(name))) if network.kind == "row" else network


def _speeds_of(
    named: Network,
    modes: Sequence[str],
    batch_sizes: Sequence[int],
    peaks: dict[str, float],
    device: torch.device,
    calibration: str | os.PathLike[str] | None,
    seconds: float,
) -> Iterator[Speed]:
    entry = named.entry
    network = build(entry, in_channels=named.in_channels).eval().to(device)
    macs = flops_by_rule(tally_operations(network, entry.input_size), "macs")
    variants: list[tuple[str, str, float | None]] = [(mode, dtype, peaks[dtype]) for dtype in peaks for mode in modes]
    if calibration is not None:
        variants.append(("fast", "int8", None))
    for mode, dtype, peak in variants:
        if dtype == "int8":
            model = made_fast(network, device, named.transform, fast=True, calibration=calibration)
        else:
            model = _in_mode(network, mode, DTYPES[dtype])
        for batch_size in batch_sizes:
            images_dtype = DTYPES[dtype] if mode == "eager" else torch.float32
            times = _times_of_batch(model, (batch_size, *entry.input_size), images_dtype, device, seconds)
            median = statistics.median(times)
            tflops = 2 * macs * batch_size / median / 1e12
            yield Speed(
                name=named.name,
                mode=mode,
                dtype=dtype,
                batch_size=batch_size,
                num_runs=len(times),
                images_per_s=batch_size / median,
                latency_ms=median * 1e3,
                latency_p95_ms=percentile(times, 95) * 1e3,
                tflops=tflops,
                peak_tflops=peak,
                peak_share=peak and tflops / peak,
            )


def _in_mode(network: nn.Module, mode: str, dtype: torch.dtype) -> nn.Module:
    if mode == "eager":
        return copy.deepcopy(network).to(dtype)
    return optimize_for_inference(network, dtype=dtype, compile=mode == "fast compiled")


def _times_of_batch(
    model: nn.Module, size: Sequence[int], dtype: torch.dtype, device: torch.device, seconds: float
) -> list[float]:
    try:
        with torch.inference_mode():
            images = torch.randn(*size, dtype=torch.float32, device="cpu").to(device, dtype)
            return time_runs(lambda: model(images), device, seconds=seconds)
    except RuntimeError as error:  # only CUDA raises a class of its own
        if not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise ArgumentError(
            f"A batch of {size[0]} does not fit into the memory of {device}. Pass smaller batch sizes."
        ) from error


def time_runs(run: Callable[[], Any], device: torch.device, *, seconds: float) -> list[float]:
    """Return the seconds that each of several runs took, after a warm-up; asynchronous devices are waited for."""
    for _ in range(2):  # caches, autotuning, lazy initialisation, compilation
        run()
    wait_for(device)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < _MIN_RUNS or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return times


def matrix_peak_tflops(dtype: torch.dtype, device: torch.device, *, seconds: float = 1.0, size: int = 0) -> float:
    """Return the 10^12 operations per second of the best of several large square matrix products.

    Args:
        dtype: Of the matrices.
        device: Where.
        seconds: How long to try.
        size: Rows and columns; 0 chooses what fills the device.
    """
    size = size or _PEAK_SIZES.get(device.type, _OTHER_PEAK_SIZE)
    left, right = (torch.randn(size, size, dtype=torch.float32, device=device).to(dtype) for _ in range(2))
    with torch.inference_mode():
        return 2 * size**3 / min(time_runs(lambda: left @ right, device, seconds=seconds)) / 1e12


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least ``percent`` of the values do not exceed (nearest rank)."""
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]


def as_csv(benchmark: Benchmark) -> str:
    """Return the measurements as CSV with a header, a column for the device at the end."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(field.name for field in fields(Speed)), "device"])
    writer.writerows([*asdict(speed).values(), benchmark.device] for speed in benchmark.speeds)
    return text.getvalue()


def _check_arguments(batch_sizes: Sequence[int], dtypes: Sequence[str], device: torch.device, seconds: float) -> None:
    if not batch_sizes or min(batch_sizes) < 1:
        raise ArgumentError(f"Expected positive batch sizes, got {list(batch_sizes)}.")
    if not 0 < seconds < math.inf:
        raise ArgumentError(f"Expected a positive number of seconds per measurement, got {seconds}.")
    known = [name for name, dtype in DTYPES.items() if dtype in supported_dtypes(device)]
    wrong = [dtype for dtype in dtypes if dtype not in known]
    if wrong or not dtypes:
        raise ArgumentError(
            f"Expected dtypes that {device} supports natively ({', '.join(known)}), got {list(dtypes)}."
        )
