"""``predict``: images classified."""

from __future__ import annotations

from dataclasses import asdict

import click

from resnet_zoo.commands.shell import (
    device_option,
    examples,
    fast_option,
    format_option,
    weights_option,
    with_options,
)
from resnet_zoo.errors import DatasetError
from resnet_zoo.manifest import get_entry
from resnet_zoo.terminal import echo_json, echo_predictions


@click.command(
    epilog=examples(
        "predict resnet50 cat.jpg dog.png --weights resnet50.safetensors",
        "predict resnet18_cifar10 photo.jpg --weights my.pth --top-k 3 --format json",
    )
)
@click.argument("name")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Classes per image.")
@click.option("--skip-bad", is_flag=True, help="Report unreadable images and go on.")
@with_options(weights_option, device_option, fast_option, format_option("table", "json"))
def predict(
    name: str,
    images: tuple[str, ...],
    top_k: int,
    skip_bad: bool,
    weights: str | None,
    device: str,
    fast: bool,
    form: str,
) -> None:
    """Classify images, best classes first."""
    get_entry(name)
    from resnet_zoo.prediction import predict as predict_images

    def report_bad(error: DatasetError) -> None:
        click.echo(f"Skipped: {error}", err=True)

    on_bad = report_bad if skip_bad else None
    predictions = predict_images(name, images, weights=weights, top_k=top_k, device=device, fast=fast, on_bad=on_bad)
    if form == "json":
        echo_json([asdict(prediction) for prediction in predictions])
    else:
        echo_predictions(predictions)
