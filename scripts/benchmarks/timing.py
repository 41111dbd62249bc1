"""Contestants take turns, and medians and ratios are printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from resnet_zoo.catalog.measurements import Comparison, Contestant, PrecisionLoss, RowSpeed

Contestants = Mapping[str, Callable[[], Any]]

MEASURED: list[Comparison | RowSpeed | PrecisionLoss] = []
"""What this run has measured so far: ``--json`` writes it."""


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        images: Folder of ImageNet JPEG files, ``<wnid>/*.JPEG``.
        cifar10: Folder of CIFAR-10.
        rounds: Turns of each contestant.
        weights: Weights of ResNet-50, where trained ones are needed.
        cifar_weights: The same of ResNet-18 on CIFAR-10.
    """

    images: Path | None
    cifar10: Path | None
    rounds: int
    weights: str | None
    cifar_weights: str | None


def compare(
    title: str, contestants: Contestants, rounds: int, num_images: int = 0, *, anchor: str | None = None
) -> None:
    """Let the contestants take turns and print medians, and ratios that are taken round by round.

    The ratio of a contestant says how many times faster the first one, ours, is; with an anchor, how many times faster
    than the anchor the contestant is. A contestant that returns seconds is taken at its word: it left its own
    preparations out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()  # warm caches, imports and lazy initialisation
    for _ in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            told = run()
            seconds[name].append(told if isinstance(told, float) else time.perf_counter() - start)
    reference = seconds[anchor or next(iter(contestants))]
    click.echo(title)
    lines: list[Contestant] = []
    for name, times in seconds.items():
        median = statistics.median(times)
        rate = f"{num_images / median:9.1f} images/s" if num_images else ""
        spread = f"{min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}"
        ratios = [other / own if anchor else own / other for own, other in zip(times, reference, strict=True)]
        ratio = statistics.median(ratios)
        click.echo(f"  {name:44} {median * 1e3:9.1f} ms  (of {rounds}: {spread}) {rate}  ratio {ratio:5.2f}")
        middle, lowest, highest = (round(1e3 * value, 3) for value in (median, min(times), max(times)))
        faster = statistics.median(other / own for own, other in zip(times, reference, strict=True))
        lines.append(Contestant(name, middle, lowest, highest, round(faster, 4)))
    MEASURED.append(Comparison(title, anchor or next(iter(contestants)), num_images, rounds, tuple(lines)))
    click.echo()


def jpeg_paths(folder: Path) -> list[Path]:
    """Return every JPEG file below a folder."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch, and OpenCV where it is installed, to one core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
    yield
    torch.set_num_threads(threads)
