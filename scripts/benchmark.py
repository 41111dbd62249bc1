"""Measure this package beside its peers, in one run, as ratios.

Contestants take turns, and the median of the rounds is printed. Parts: startup, load, preprocess, reader (ImageNet's
training images), evaluate, infer, embed, train; all by default. The peers come with the extra `peers`; the reader is
fastest with the extra `fast`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import click
from benchmarks.timing import Options

from resnet_zoo.cli.options import HELP

PARTS = ("startup", "load", "preprocess", "reader", "evaluate", "infer", "embed", "train")


@click.command(help=__doc__, context_settings=HELP)
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--images", type=click.Path(exists=True, file_okay=False), help="ImageNet JPEG files: <wnid>/*.JPEG.")
@click.option("--cifar10", type=click.Path(exists=True, file_okay=False), help="CIFAR-10: archive or class folders.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--weights", metavar="TAG|PATH", help="infer: weights of ResNet-50, to compare its best classes.")
@click.option("--cifar-weights", metavar="TAG|PATH", help="infer: the same of ResNet-18 on CIFAR-10.")
def main(
    parts: tuple[str, ...],
    images: str | None,
    cifar10: str | None,
    rounds: int,
    weights: str | None,
    cifar_weights: str | None,
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


if __name__ == "__main__":
    main()
