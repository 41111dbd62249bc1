"""``verify`` and ``evaluate``: numbers re-checked and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from resnet_zoo.base.progress import progress_bar, tell
from resnet_zoo.base.shown import shown
from resnet_zoo.catalog.names import check_name
from resnet_zoo.checks.report import RUN_CHECKS, exit_code, reports_as_json, reports_as_junit
from resnet_zoo.cli.networks import echo_classes, evaluation_as_json
from resnet_zoo.cli.options import RenamedOption
from resnet_zoo.cli.output import echo_evaluation, echo_json, echo_reports
from resnet_zoo.cli.shell import (
    data_options,
    device_option,
    examples,
    fast_option,
    format_option,
    int8_options,
    size_option,
    weights_option,
    with_options,
)


@click.command(
    epilog=examples(
        "verify",
        "verify resnet50 --weights resnet50.safetensors --data imagenet/",
        "verify pets.safetensors --data pets/",
        "verify --run runs/resnet18_cifar10/20261124T203719Z --data cifar10/",
        "verify --format junit > verify.xml",
    ),
    short_help="Check every published number, and weights and accuracies.",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--data", type=click.Path(), metavar="DIR", help="Test images, to measure top-1 and top-5 too.")
@click.option(
    "--download-weights",
    "download",
    cls=RenamedOption,
    earlier=["--download"],
    is_flag=True,
    help="Fetch weights that are not on this machine.",
)
@click.option("--run", type=click.Path(), metavar="DIR", help="Check this run folder instead of models.")
@with_options(weights_option, size_option, device_option, *data_options, format_option("table", "json", "junit"))
@click.pass_context
def verify(
    ctx: click.Context,
    names: tuple[str, ...],
    data: str | None,
    download: bool,
    run: str | None,
    weights: str | None,
    size: int | None,
    device: str,
    batch_size: int,
    num_workers: int | None,
    skip_bad: bool,
    partial: bool,
    form: str,
) -> None:
    """Check every number of the named models, or of all fifteen, or of your own networks.

    NAME is a model, hf-hub:owner/name, or the path of a network file. A file's counts are compared with its model's,
    and its accuracy on --data with the one that finetune recorded in it.

    Without options this checks manifest, architecture, parameters and FLOPs; with weights also the file; with --data
    also the accuracy. A number that could not be checked is marked as not checked and never counts as passed.

    --run checks a run folder from its files alone: hashes, recipe, log, counts and weights. With --data it also
    compares the accuracy with the run's result.

    Exit code 1 if a number is wrong, 3 if a number you asked for could not be checked.
    """
    for name in names:  # what is misspelt is reported before torch is imported
        check_name(name, weights=weights or None, size=size)
    options: dict[str, Any] = {"data": data, "device": device, "batch_size": batch_size, "num_workers": num_workers}
    if run is not None:
        others = {
            "--weights": weights,
            "--size": size,
            "--download-weights": download,
            "--skip-bad": skip_bad,
            "--partial": partial,
        }
        _check_run_options(names, others)
        from resnet_zoo.checks.run import verify_run

        with progress_bar() as progress:
            reports = [verify_run(run, name=next(iter(names), None), progress=progress, **options)]
    else:
        from resnet_zoo.checks.rows import verify as verify_rows

        options |= {"weights": weights, "size": size, "download": download, "skip_bad": skip_bad, "partial": partial}
        with progress_bar() as progress:
            reports = verify_rows(names or None, progress=progress, **options)
    if form == "json":
        echo_json(reports_as_json(reports))
    elif form == "junit":
        click.echo(reports_as_junit(reports))
    else:
        echo_reports(reports)
    needs_weights = weights is not None or download or run is not None
    asked = [*(["top1", "top5"] if data is not None else []), *(["weights"] if needs_weights else [])]
    ctx.exit(exit_code(reports, asked=[*asked, *(RUN_CHECKS if run is not None else ())]))


def _check_run_options(names: Sequence[str], others: Mapping[str, object]) -> None:
    """Refuse what does not go with --run: several rows, and options that name other weights."""
    if len(names) > 1:
        raise click.UsageError(f"--run checks one run; expected at most one name, got {', '.join(names)}.")
    given = [option for option, value in others.items() if value]
    if given:
        raise click.UsageError(f"--run has its own weights and images: leave out {' and '.join(given)}.")


@click.command(
    epilog=examples(
        "evaluate resnet18_cifar10 --data cifar10/ --weights resnet18_cifar10.safetensors",
        "evaluate resnet50 --data imagenet/ --fast --format json",
        "evaluate pets.safetensors --data pets/ --confusion pets.png",
    ),
    short_help="Measure the accuracy of a network on test images.",
)
@click.argument("name")
@click.option("--data", type=click.Path(), metavar="DIR", required=True, help="The test images.")
@click.option(
    "--download-data",
    "download",
    cls=RenamedOption,
    earlier=["--download"],
    is_flag=True,
    help="CIFAR: fetch the official archive into DIR if it is missing.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the computation; published accuracies are for float32.",
)
@click.option(
    "--confusion",
    type=click.Path(),
    metavar="FILE",
    help="Write the confusion matrix to a .json, .csv, .png, .svg or .pdf file.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@with_options(weights_option, size_option, device_option, fast_option, int8_options)
@with_options(*data_options, format_option("table", "json"))
def evaluate(
    name: str,
    data: str,
    download: bool,
    precision: Any,
    confusion: str | None,
    force: bool,
    weights: str | None,
    size: int | None,
    device: str,
    fast: bool,
    calibration: str | None,
    batch_size: int,
    num_workers: int | None,
    skip_bad: bool,
    partial: bool,
    form: str,
) -> None:
    """Measure a network on test images: top-1 and top-5 in percent, each class, confusions and calibration.

    NAME is a model, hf-hub:owner/name, or the path of a network file. For a model, DIR holds test/<class>/ or the CIFAR
    archive; for ImageNet, val/<wnid>/. The weights are those of --weights, or the model's default (fetched if needed).
    For a network of other classes, DIR holds test/<class>/, val/<class>/ or <class>/; if the network was
    trained on this folder, only the images held out count.

    The calibration error is how far the probabilities of the best class are from the accuracy, on average, in points.
    """
    check_name(name, weights=weights or None, size=size)  # reported before the images are looked for
    from resnet_zoo.inference.evaluation import evaluate as evaluate_network
    from resnet_zoo.inference.scores import check_confusion_target, write_confusion

    if confusion is not None:
        check_confusion_target(confusion, overwrite=force)
    with progress_bar() as progress:
        result = evaluate_network(
            name,
            data,
            weights=weights,
            size=size,
            device=device,
            precision=precision,
            fast=fast,
            calibration=calibration,
            batch_size=batch_size,
            num_workers=num_workers,
            skip_bad=skip_bad,
            partial=partial,
            download=download,
            progress=lambda done, total: progress(name, done, total),
        )
    for reason in result.skipped:
        tell(f"Skipped: {shown(reason)}")
    if confusion is not None:
        write_confusion(result.confusion, [found.name for found in result.classes], confusion)
    if form == "json":
        echo_json(evaluation_as_json(result))
    else:
        echo_evaluation(result)
        echo_classes(result)
