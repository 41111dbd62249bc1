"""``export``: a network as a file that other programs run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from resnet_zoo.catalog.names import check_name
from resnet_zoo.cli.output import echo_record, readable, weights_record
from resnet_zoo.cli.shell import examples, int8_options, size_option, weights_option


@click.command(
    epilog=examples(
        "export resnet18_cifar10 --format onnx -o resnet18.onnx --weights my.safetensors",
        "export resnetv1d50 --format torch-export -o maps.pt2 --features stage2,stage4",
        "export tuned.safetensors -o tuned.xml --int8 --calibrate photos/",
    )
)
@click.argument("name")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "openvino", "torch-export"]),
    help="File format.  [default: that of FILE's suffix]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="FILE",
    required=True,
    help="The .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 file to write.",
)
@weights_option
@size_option
@click.option("--untrained", is_flag=True, help="Export random values instead of weights, to try out a pipeline.")
@click.option("--features", metavar="LAYER,...", help="Return these feature maps instead of the logits.")
@int8_options
@click.option("--half", is_flag=True, help="OpenVINO: round weights to float16, which halves the file.")
@click.option("--opset", type=click.IntRange(min=1), help="ONNX: the opset.  [default: 18]")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def export(
    name: str,
    form: Any,
    output: str,
    weights: str | None,
    size: int | None,
    untrained: bool,
    features: str | None,
    calibration: str | None,
    half: bool,
    opset: int | None,
    force: bool,
) -> None:
    """Write a network as an ONNX, OpenVINO or torch.export file.

    NAME is a model, hf-hub:owner/name, or the path of a network file. The batch size is free. The file's metadata holds
    preprocessing, class names and the weights' hashes. The file is compared with the network before it is moved into
    place.
    """
    check_name(name, weights=weights, size=size)  # what is misspelt is reported before torch is imported
    if untrained and weights is not None:
        raise click.UsageError("Pass --weights or --untrained, not both.")
    from resnet_zoo.inference.export import export_model

    layers = None if features is None else [layer.strip() for layer in features.split(",")]
    written = export_model(
        name,
        output,
        format=form,
        weights=weights,
        size=size,
        pretrained=not untrained,
        features=layers,
        calibration=calibration,
        half=half,
        opset=opset,
        overwrite=force,
    )
    record = asdict(written)
    batches, difference = record.pop("checked_batch_sizes"), record.pop("largest_difference")
    del record["weights"]
    record |= weights_record(written.weights, "random values")
    sizes = " and ".join(map(str, batches))
    record["compared"] = f"with the network, on batches of {sizes}: outputs differ by at most {difference:.2g}"
    echo_record(readable(record))
