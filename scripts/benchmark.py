"""Measure this package beside its peers, in one run, as ratios.

Contestants take turns, and the median of the rounds is printed. Parts: startup, load, preprocess, reader (ImageNet's
training images), evaluate, infer, precision (what it changes in the answers), rows (the
speed of every network), embed, train; all by default. The peers come with
the extra `peers`; the reader is fastest with the extra `fast`.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import shlex
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import click
from benchmarks.timing import MEASURED, Options

from resnet_zoo.cli.options import HELP

PARTS = ("startup", "load", "preprocess", "reader", "evaluate", "infer", "precision", "rows", "embed", "train")

PEERS = ("timm", "openvino", "onnxruntime")


@click.command(help=__doc__, context_settings=HELP)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--images", type=click.Path(exists=True, file_okay=False), help="ImageNet JPEG files: <wnid>/*.JPEG.")
@click.option("--cifar10", type=click.Path(exists=True, file_okay=False), help="CIFAR-10: archive or class folders.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--weights", metavar="TAG|PATH", help="precision: weights of ResNet-50, to compare its best classes.")
@click.option("--cifar-weights", metavar="TAG|PATH", help="precision: the same of ResNet-18 on CIFAR-10.")
@click.option("--json", "record", type=click.Path(dir_okay=False), help="Append what was measured to this file.")
def main(
    parts: tuple[str, ...],
    images: str | None,
    cifar10: str | None,
    rounds: int,
    weights: str | None,
    cifar_weights: str | None,
    record: str | None,
) -> None:
    options = Options(
        images=Path(images) if images else None,
        cifar10=Path(cifar10) if cifar10 else None,
        rounds=rounds,
        weights=weights,
        cifar_weights=cifar_weights,
    )
    for part in parts or PARTS:
        importlib.import_module(f"benchmarks.{part}").measure(options)
    if record is not None:
        append_measurement(Path(record))


def append_measurement(path: Path) -> None:
    """Add what this run has measured to a file of measurements."""
    import torch

    from resnet_zoo.base.devices import device_title, resolve_device
    from resnet_zoo.base.files import write_atomically
    from resnet_zoo.base.machine import versions
    from resnet_zoo.catalog import measurements as written

    found = [*reversed(written.read_measurements(path))] if path.exists() else []
    measured = written.Measurement(
        command=shlex.join(["python", *sys.argv]),
        date=datetime.now(timezone.utc).date().isoformat(),
        device=device_title(resolve_device("auto")),
        num_threads=torch.get_num_threads(),
        versions=versions() | {peer: metadata.version(peer) for peer in PEERS if importlib.util.find_spec(peer)},
        comparisons=tuple(one for one in MEASURED if isinstance(one, written.Comparison)),
        speeds=tuple(one for one in MEASURED if isinstance(one, written.RowSpeed)),
        precisions=tuple(one for one in MEASURED if isinstance(one, written.PrecisionLoss)),
    )
    text = json.dumps(written.measurements_as_json([*found, measured]), indent=1) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    main()
