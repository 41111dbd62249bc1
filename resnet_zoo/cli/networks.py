"""What commands show of networks of one's own, and of every network by class."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from resnet_zoo.base.shown import shown
from resnet_zoo.catalog.classes import limits_of, listed
from resnet_zoo.catalog.records import to_json
from resnet_zoo.cli.output import echo_table, new_table, readable, vouchers

if TYPE_CHECKING:
    from resnet_zoo.inference.evaluation import Evaluation
    from resnet_zoo.inference.scores import ClassAccuracy
    from resnet_zoo.zoo import Network

MOST_CLASSES, MOST_COLUMNS, MOST_PAIRS = 20, 10, 10
"""Classes shown one by one, columns of the confusion matrix that fit a terminal, pairs of a larger matrix."""


def describe_network(network: Network) -> dict[str, str]:
    """Return what a person wants to know about a file or repository, by title."""
    facts = facts_of_network(network)
    entry, rules, recorded = network.entry, network.entry.preprocess, facts["recorded"]
    made = facts["finetuned_from"]
    shrink = "none: images of another size are shrunk or enlarged"
    resize = shrink if rules.resize_backend is None else f"short edge {rules.short_edge}, centre crop {rules.crop}"
    lines = {
        "name": network.name,
        "network of": f"{entry.name} ({entry.architecture}, {entry.stem} stem)",
        "classes": f"{len(network.class_names):,}: {listed(network.class_names)}",
        "limits": limits_of(network.class_names, entry.input_size[-1], resizes=rules.resize_backend is not None),
        "input": "x".join(map(str, entry.input_size)),
        "resize and crop": resize if rules.resize_backend is None else f"{resize} ({rules.resize_backend})",
        "mean, std (RGB, 0..255)": f"{', '.join(map(str, rules.mean))}; {', '.join(map(str, rules.std))}",
        "parameters": f"{facts['params']:,}",
        "FLOPs": f"{facts['flops']:,}; {facts['flops_with_head']:,} with the head",
        "MACs (conv and linear)": f"{facts['macs']:,}",
        "file": f"{facts['file']} ({facts['size_bytes']:,} bytes)",
        "sha256": facts["sha256"],
        "vouched for by": vouchers(facts["pin"]),
    }
    if made:
        lines["fine-tuned from"] = str(made.get("weights", "-"))
    if facts["finetuning"]:
        given = readable({key: value for key, value in facts["finetuning"].items() if value is not None})
        lines["fine-tuning"] = ", ".join(f"{key} {value}" for key, value in given.items())
    if recorded:
        note = ", which also chose the epoch" if recorded["chose_epoch"] else ""
        lines["top-1 recorded (%)"] = (
            f"{100 * recorded['correct1'] / recorded['num_images']:.2f}, {recorded['correct1']:,} of "
            f"{recorded['num_images']:,} {recorded['images']} images{note}; `resnet-zoo verify` measures"
        )
    return lines


def facts_of_network(network: Network) -> dict[str, Any]:
    """Return everything that is known about a file or repository, as plain JSON values."""
    from resnet_zoo.network.building import build_on_meta
    from resnet_zoo.network.counting import count_params, flops_by_rule, tally_operations
    from resnet_zoo.weights.network_header import RecordedAccuracy

    entry, checkpoint, chain = network.entry, network.weights.checkpoint, network.chain
    model = build_on_meta(entry, in_channels=network.in_channels)
    tally = tally_operations(model, entry.input_size)
    recorded = RecordedAccuracy.of(checkpoint)
    return {
        "name": network.name,
        "row": entry.name,
        "architecture": entry.architecture,
        "stem": entry.stem,
        "num_classes": entry.num_classes,
        "class_names": list(network.class_names),
        "input_size": list(entry.input_size),
        "preprocess": to_json(entry.preprocess),
        "params": count_params(model),
        "flops": flops_by_rule(tally, "openmmlab"),
        "flops_with_head": flops_by_rule(tally, "openmmlab_with_head"),
        "macs": flops_by_rule(tally, "macs"),
        "file": chain.file,
        "size_bytes": checkpoint.path.stat().st_size,
        "sha256": chain.file_sha256,
        "tensors_sha256": chain.tensors_sha256,
        "source": chain.source,
        "pin": chain.pin,
        "finetuned_from": _object(checkpoint.header.get("finetuned_from")),
        "finetuning": _object(checkpoint.header.get("finetuning")),
        "recorded": None if recorded is None else asdict(recorded),
    }


def _object(text: str | None) -> dict[str, Any] | None:
    """Return an object that a header may hold; what is not one is passed over."""
    from resnet_zoo.base.strict_json import parse

    try:
        found = None if text is None else parse(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def evaluation_as_json(result: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain JSON values; the confusion matrix by its largest cells, its file has them all."""
    from resnet_zoo.inference.scores import most_confused

    pairs = most_confused(result.confusion, MOST_PAIRS)
    return {
        **{key: value for key, value in asdict(replace(result, confusion=())).items() if key != "confusion"},
        "top1": result.top1,
        "top5": result.top5,
        "mean_class_top1": result.mean_class_top1,
        "most_confused": [{"label": label, "taken_for": other, "num_images": count} for label, other, count in pairs],
    }


def echo_classes(result: Evaluation) -> None:
    """Write how well each class is recognised, and which are taken for which; of many classes the worst."""
    from rich.text import Text  # a class may hold what markup would take for a tag

    from resnet_zoo.inference.scores import most_confused

    counted = [found for found in result.classes if found.num_images]
    worst = sorted(counted, key=_top1)[:MOST_CLASSES]
    chosen = result.classes if len(result.classes) <= MOST_CLASSES else worst
    table = new_table(">Label", "Class", ">Images", ">Top-1 (%)", ">Precision (%)")
    for found in chosen:
        percents = (_percent(value) for value in (found.top1, found.precision_pct))
        table.add_row(str(found.label), Text(shown(found.name)), str(found.num_images), *percents)
    click.echo()
    if len(chosen) < len(result.classes):
        click.echo(f"The {len(chosen)} classes of {len(result.classes):,} that are recognised worst:")
    echo_table(table)
    click.echo()
    if len(result.classes) <= MOST_COLUMNS:
        _echo_matrix(result)
        return
    pairs = most_confused(result.confusion, MOST_PAIRS)
    if pairs:
        table = new_table(">Images", "Actual class", "Taken for")
        for label, other, count in pairs:
            names = (Text(shown(result.classes[place].name)) for place in (label, other))
            table.add_row(str(count), *names)
        click.echo("Most often confused (--confusion FILE writes the whole matrix):")
        echo_table(table)


def _echo_matrix(result: Evaluation) -> None:
    from rich.text import Text

    labels = [str(found.label) for found in result.classes]
    table = new_table(">Label", "Actual class", *(f">{label}" for label in labels))
    for found, row in zip(result.classes, result.confusion, strict=True):
        table.add_row(str(found.label), Text(shown(found.name)), *map(str, row))
    click.echo("Images by actual class (rows) and best class (columns, by label):")
    echo_table(table)


def _top1(found: ClassAccuracy) -> float:
    return found.top1 or 0.0


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
