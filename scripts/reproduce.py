"""Retrain a row of the zoo from its recipe, evaluate it, and write a run folder that anyone can check.

Alone, or on many devices and machines: torchrun --nproc-per-node 8 scripts/reproduce.py …. Killed or stopped, the same
command goes on from the last checkpoint and ends with the same weights, bit for bit.
"""

from __future__ import annotations

from typing import Any

import click

from resnet_zoo.cli.shell import ZooCommand, debug_option, device_option


@click.command(
    cls=ZooCommand,
    help=__doc__,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("name")
@click.option("--data", type=click.Path(), required=True, metavar="DIR", help="Training and test images.")
@click.option("--recipe", default="published", show_default=True, help="published, modern or fast.")
@click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Replace a field of the recipe.")
@click.option("--epochs", metavar="N", help="Short for --set epochs=N.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--seeds", type=click.IntRange(min=2), help="Train this many times, with seeds from --seed on.")
@click.option("--runs", type=click.Path(), default="runs", show_default=True, help="Where run folders are made.")
@device_option
@click.option("--compile/--no-compile", "compile_network", default=None, help="torch.compile; default: on CUDA.")
@click.option("--num-workers", "-j", type=click.IntRange(min=0), help="Processes that decode images.")
@click.option("--partial", is_flag=True, help="Accept ImageNet folders in which classes are missing.")
@click.option(
    "--hold-out", type=click.IntRange(min=1), metavar="N", help="Measure on N training images, to choose a recipe."
)
@click.option(
    "--evaluate-every", type=click.IntRange(min=0), default=1, show_default=True, help="Epochs; 0: only at the end."
)
@click.option(
    "--checkpoint-s",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    help="Seconds between checkpoints.",
)
@click.option("--allow-changed", is_flag=True, help="Go on though something changed; such a run never verifies.")
@click.option("--new", is_flag=True, help="Begin a new run even if an unfinished one could go on.")
@click.option("--tensorboard", is_flag=True, help="Write TensorBoard event files too.")
@debug_option
def main(
    name: str,
    data: str,
    recipe: str,
    overrides: tuple[str, ...],
    epochs: str | None,
    seed: int,
    seeds: int | None,
    runs: str,
    debug: bool,  # noqa: ARG001  # ZooCommand reads it
    **settings: Any,
) -> None:
    from resnet_zoo.base.processes import Processes
    from resnet_zoo.training.reproduce import Settings, reproduce, reproduce_seeds

    fields = dict(_pair(text) for text in overrides) | ({"epochs": epochs} if epochs is not None else {})
    how: dict[str, Any] = {
        "recipe": recipe,
        "overrides": fields,
        "runs": runs,
        "settings": Settings(**settings | {"hold_out": settings["hold_out"] or 0}),
    }
    if seeds is None:
        folder = reproduce(name, data, seed=seed, **how)
    else:
        folder = reproduce_seeds(name, data, seeds=range(seed, seed + seeds), **how)
    if Processes.from_environment().is_first:
        click.echo(folder)


def _pair(text: str) -> tuple[str, str]:
    field, sign, value = text.partition("=")
    if not sign:
        raise click.UsageError(f"--set expects FIELD=VALUE, got {text!r}.")
    return field.strip(), value.strip()


if __name__ == "__main__":
    main()
