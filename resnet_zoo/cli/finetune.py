"""``finetune``: a network for one's own classes."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, get_args

import click

from resnet_zoo.catalog.names import check_name
from resnet_zoo.catalog.recipes import Precision
from resnet_zoo.cli.networks import echo_classes, evaluation_as_json
from resnet_zoo.cli.output import echo_json, echo_record, readable
from resnet_zoo.cli.shell import (
    device_option,
    examples,
    format_option,
    going_on_later,
    weights_option,
    with_options,
)
from resnet_zoo.training.tuning import FRESH, MAX_SIZE, MIN_SIZE, TUNING, Augmentation, ClassWeights

if TYPE_CHECKING:
    from resnet_zoo.training.tuner import FinetuneResult


def _tuning_option(option: str, field: str, kind: Any, text: str) -> Any:
    """Return an option that replaces a field of the tuning; its default depends on --from-scratch."""
    usual, fresh = getattr(TUNING, field), getattr(FRESH, field)
    if usual is None:
        return click.option(option, field, type=kind, metavar="PX", help=f"{text}  [default: the network's]")
    default = f"{usual}" if usual == fresh else f"{usual}; from scratch {fresh}"
    return click.option(option, field, type=kind, help=f"{text}  [default: {default}]")


_tuning_options = (
    _tuning_option("--head-epochs", "head_epochs", click.IntRange(min=0), "Epochs for the classifier alone."),
    _tuning_option(
        "--epochs", "epochs", click.IntRange(min=0), "Epochs for the whole network; 0 trains the classifier only."
    ),
    _tuning_option(
        "--patience",
        "patience",
        click.IntRange(min=0),
        "Stop after this many epochs without a better one on the validation images, and keep the best; 0: never.",
    ),
    _tuning_option("--lr", "lr", float, "Peak learning rate of the whole network; the classifier's is twice that."),
    _tuning_option("--batch-size", "batch_size", click.IntRange(min=1), "Images per step."),
    _tuning_option("--image-size", "image_size", click.IntRange(MIN_SIZE, MAX_SIZE), "Height and width of the inputs."),
    _tuning_option(
        "--augmentation",
        "augmentation",
        click.Choice(get_args(Augmentation)),
        "How much training images are changed: less where place, side or colour tell classes apart.",
    ),
    _tuning_option(
        "--label-smoothing", "label_smoothing", float, "Share of the target spread over all classes, 0 to 1."
    ),
    _tuning_option(
        "--class-weights",
        "class_weights",
        click.Choice(get_args(ClassWeights)),
        "balanced: rare classes count as much as frequent ones.",
    ),
    _tuning_option("--precision", "precision", click.Choice(get_args(Precision)), "Precision of the computation."),
)


@click.command(
    epilog=examples(
        "finetune resnet50 --data flowers/ -o flowers.safetensors",
        "finetune resnet18_cifar10 --data photos/ -o pets.safetensors --classes cat,dog --val-share 0.2",
        "predict flowers.safetensors tulip.jpg",
    ),
    short_help="Train a network on the classes of a folder.",
)
@click.argument("name")
@click.option(
    "--data",
    type=click.Path(),
    required=True,
    metavar="DIR",
    help="train/<class>/*.jpg (and val, valid or validation, and test), or <class>/*.jpg.",
)
@click.option("-o", "--output", required=True, metavar="OUT", help="The .safetensors file to write.")
@click.option("--classes", metavar="A,B,...", help="The classes to use, in this order.  [default: all, sorted]")
@click.option("--val-share", type=float, help="Share of each class to hold out, unless DIR has val.  [default: 0.1]")
@click.option("--from-scratch", is_flag=True, help="Start from random values instead of weights.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of new values, order and augmentation.",
)
@click.option(
    "--num-workers", "-j", type=click.IntRange(min=0), help="Processes that decode images.  [default: one per core]"
)
@click.option("--force", is_flag=True, help="Replace OUT, or an unfinished training that began differently.")
@with_options(*_tuning_options, weights_option, device_option, format_option("table", "json"))
def finetune(
    name: str,
    data: str,
    output: str,
    classes: str | None,
    val_share: float | None,
    from_scratch: bool,
    seed: int,
    num_workers: int | None,
    force: bool,
    weights: str | None,
    device: str,
    form: str,
    **tuning: Any,
) -> None:
    """Train a network on the classes of a folder: first a new classifier, then the whole network.

    NAME is a model, hf-hub:owner/name, or the path of a network file. OUT also holds class names and preprocessing, and
    works as NAME in predict, embed, evaluate and others. Progress goes to stderr. Run the same command again to resume
    an interrupted training.

    The report is of images that were held out: those in test, or else the validation images, or else a share of each
    class. evaluate and verify measure the same images again.
    """
    check_name(name, weights=weights)  # what is misspelt is reported before torch is imported
    given = {field: value for field, value in tuning.items() if value is not None}
    chosen = replace(FRESH if from_scratch else TUNING, **given)
    from resnet_zoo.training.display import console
    from resnet_zoo.training.finetuning import finetune as run

    with going_on_later(), console(held_out="held out") as screen:
        result = run(
            name,
            data,
            output,
            classes=None if classes is None else [part.strip() for part in classes.split(",") if part.strip()],
            weights=weights,
            from_scratch=from_scratch,
            val_share=val_share,
            tuning=chosen,
            seed=seed,
            device=device,
            num_workers=num_workers,
            overwrite=force,
            screen=screen,
        )
    if form == "json":
        report = None if result.report is None else evaluation_as_json(result.report)
        echo_json({**asdict(replace(result, report=None)), "report": report})
        return
    echo_record(readable(_shown(result)))
    if result.report is not None:
        echo_classes(result.report)


def _shown(result: FinetuneResult) -> dict[str, Any]:
    """Return the record for a person: the classes counted and some named, the accuracy with its interval."""
    names, report = result.class_names, result.report
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    images = {"training": result.num_train, "validation": result.num_val, "test": result.num_test}
    record = {
        "path": result.path,
        "sha256": result.sha256,
        "size_bytes": result.size_bytes,
        "model": result.model,
        "made_from": result.made_from,
        "classes": f"{len(names)}: {', '.join(names[:10])}{more}",
        "images": ", ".join(f"{number} for {purpose}" for purpose, number in images.items() if number),
        "top-1": None,
        "training took": f"{result.train_seconds:.1f} s",
        "device": result.device,
    }
    if report is not None:
        low, high = report.top1_interval
        where = f"{report.num_images} images, {report.dataset}"
        record["top-1"] = f"{report.top1:.2f}% of {where} (95% interval {low:.2f} to {high:.2f})"
        record["calibration"] = f"probabilities are {report.calibration_error_pct:.2f} points off the accuracy"
    if result.best_epoch is not None:
        record["best_epoch"] = result.best_epoch
        if not result.num_test:
            record["note"] = "the same images chose the epoch, which flatters the network; test images would not"
    return record
