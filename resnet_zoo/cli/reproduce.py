"""``reproduce``: a row trained again from its recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.cli.options import HELP, with_common_options
from resnet_zoo.cli.shell import ZooCommand, device_option, example, examples, workers_option


@click.command(
    cls=ZooCommand,
    context_settings=HELP,
    epilog=examples(
        "reproduce resnet18_cifar10 --data cifar10/ --recipe fast",
        "reproduce resnet18_cifar10 --data cifar10/ --recipe fast --epochs 4 --set lr=0.1 --hold-out 5000",
    )
    + "\n"
    + example("torchrun --nproc-per-node 8 -m resnet_zoo reproduce resnet50 --data imagenet/"),
    short_help="Train a model from its recipe, into a run folder to be checked.",
)
@click.argument("name")
@click.option("--data", type=click.Path(), required=True, metavar="DIR", help="Training and test images.")
@click.option("--recipe", default="published", show_default=True, help="published, modern or fast.")
@click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Replace a field of the recipe.")
@click.option("--epochs", metavar="N", help="Short for --set epochs=N.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of initial values, order and augmentation.")
@click.option("--seeds", type=click.IntRange(min=2), metavar="N", help="Train N times, with seeds from --seed on.")
@click.option(
    "--runs", type=click.Path(), metavar="DIR", default="runs", show_default=True, help="Where run folders are made."
)
@device_option
@click.option(
    "--compile/--no-compile", "compile_network", default=None, help="Use torch.compile.  [default: on CUDA only]"
)
@workers_option("one per core")
@click.option("--partial", is_flag=True, help="Accept ImageNet folders with missing classes.")
@click.option(
    "--hold-out", type=click.IntRange(min=1), metavar="N", help="Measure on N training images, to choose a recipe."
)
@click.option(
    "--evaluate-every",
    type=click.IntRange(min=0),
    metavar="N",
    default=1,
    show_default=True,
    help="Measure after every N epochs; 0: only at the end.",
)
@click.option(
    "--checkpoint-s",
    type=click.FloatRange(min=0),
    metavar="S",
    default=120.0,
    show_default=True,
    help="Seconds between two snapshots within an epoch.",
)
@click.option("--allow-changed", is_flag=True, help="Resume although something changed; such a run never verifies.")
@click.option("--new", is_flag=True, help="Start a new run even if an unfinished one could resume.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard event files too (extra `train`).")
def reproduce(
    name: str,
    data: str,
    recipe: str,
    overrides: tuple[str, ...],
    epochs: str | None,
    seed: int,
    seeds: int | None,
    runs: str,
    hold_out: int | None,
    **settings: Any,
) -> None:
    """Train a model from its recipe, evaluate it, and write a run folder that anyone can check.

    DIR holds train/<class>/ and test/<class>/, or the CIFAR archive; for ImageNet, train/<wnid>/ or shards, and val/.
    The run folder is printed at the end; `resnet-zoo verify --run` checks it.

    Under torchrun, many devices and machines train together. After a kill or a stop, the same command resumes from the
    last snapshot and ends with the same weights, bit for bit.
    """
    get_entry(name)  # a misspelt name is reported before torch is imported
    fields = _pairs(overrides) | ({"epochs": epochs} if epochs is not None else {})
    from resnet_zoo.base.processes import Processes
    from resnet_zoo.training import reproduce as training

    how: dict[str, Any] = {
        "recipe": recipe,
        "overrides": fields,
        "runs": runs,
        "settings": training.Settings(**settings, hold_out=hold_out or 0),
    }
    if seeds is None:
        folder = training.reproduce(name, data, seed=seed, **how)
    else:
        folder = training.reproduce_seeds(name, data, seeds=range(seed, seed + seeds), **how)
    if Processes.from_environment().is_first:
        click.echo(folder)


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        field, sign, value = text.partition("=")
        if not sign:
            raise click.UsageError(f"--set expects FIELD=VALUE, got {text!r}.")
        pairs[field.strip()] = value.strip()
    return pairs


with_common_options(reproduce, hidden=True)
