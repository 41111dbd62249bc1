"""``verify`` and ``evaluate``: numbers re-checked and measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from resnet_zoo.commands.shell import (
    data_options,
    device_option,
    examples,
    fast_option,
    format_option,
    weights_option,
    with_options,
)
from resnet_zoo.manifest import get_entry
from resnet_zoo.progress import progress_bar
from resnet_zoo.report import exit_code, reports_as_json, reports_as_junit
from resnet_zoo.terminal import echo_evaluation, echo_json, echo_reports


@click.command(
    epilog=examples(
        "verify",
        "verify resnet50 --weights resnet50.safetensors --data imagenet/",
        "verify --format junit > verify.xml",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--data", type=click.Path(), metavar="DIR", help="Test images: measure top-1 and top-5 too.")
@click.option("--download", is_flag=True, help="Fetch weights that are not in the cache.")
@with_options(weights_option, device_option, *data_options, format_option("table", "json", "junit"))
@click.pass_context
def verify(
    ctx: click.Context,
    names: tuple[str, ...],
    data: str | None,
    download: bool,
    weights: str | None,
    device: str,
    batch_size: int,
    num_workers: int | None,
    skip_bad: bool,
    partial: bool,
    form: str,
) -> None:
    """Check every number of the rows named, or of all fifteen.

    Without options: manifest, architecture, parameters and FLOPs. With weights also the file; with --data the
    accuracy. What could not be checked is marked so and never counts as passed.
    """
    for name in names:
        get_entry(name)  # a misspelt name is told before torch is imported
    from resnet_zoo.verification import verify as verify_rows

    with progress_bar() as progress:
        reports = verify_rows(
            names or None,
            data=data,
            weights=weights,
            download=download,
            device=device,
            batch_size=batch_size,
            num_workers=num_workers,
            skip_bad=skip_bad,
            partial=partial,
            progress=progress,
        )
    if form == "json":
        echo_json(reports_as_json(reports))
    elif form == "junit":
        click.echo(reports_as_junit(reports))
    else:
        echo_reports(reports)
    asked = [*(["top1", "top5"] if data is not None else []), *(["weights"] if weights is not None or download else [])]
    ctx.exit(exit_code(reports, asked=asked))


@click.command(epilog=examples("evaluate resnet18_cifar10 --data cifar10/ --weights resnet18_cifar10.safetensors"))
@click.argument("name")
@click.option("--data", type=click.Path(), metavar="DIR", required=True, help="The folder of the test images.")
@click.option("--download", is_flag=True, help="CIFAR: fetch the official archive into DIR if it is not there.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@with_options(weights_option, device_option, fast_option, *data_options, format_option("table", "json"))
def evaluate(
    name: str,
    data: str,
    download: bool,
    precision: Any,
    weights: str | None,
    device: str,
    fast: bool,
    batch_size: int,
    num_workers: int | None,
    skip_bad: bool,
    partial: bool,
    form: str,
) -> None:
    """Measure top-1 and top-5 of a row on its test images."""
    get_entry(name)
    from resnet_zoo.evaluation import evaluate as evaluate_row

    with progress_bar() as progress:
        result = evaluate_row(
            name,
            data,
            weights=weights,
            device=device,
            precision=precision,
            fast=fast,
            batch_size=batch_size,
            num_workers=num_workers,
            skip_bad=skip_bad,
            partial=partial,
            download=download,
            progress=lambda done, total: progress(name, done, total),
        )
    for reason in result.skipped:
        click.echo(f"Skipped: {reason}", err=True)
    if form == "json":
        echo_json({**asdict(result), "top1": result.top1, "top5": result.top5})
    else:
        echo_evaluation(result)
