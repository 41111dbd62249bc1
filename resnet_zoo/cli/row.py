"""``show``: everything about a row, as prose and tables, in the words of its page on the site."""

from __future__ import annotations

import click

from resnet_zoo.catalog.classes import class_names, limits_of, listed
from resnet_zoo.catalog.listing import DATASET_TITLES, measured_on
from resnet_zoo.catalog.records import Entry, Measured, PageOrigin, Preprocess, RunOrigin, UpstreamOrigin
from resnet_zoo.cli.output import aligned, echo_prose, echo_record, echo_table, new_table
from resnet_zoo.weights.cache_contents import WeightFacts, weight_facts
from resnet_zoo.weights.places import FULL_SHA256_DIGITS

_PLACES = {
    "ships": "ships with this checkout",
    "here": "on this machine",
    "no address": "not on this machine, and the manifest has no address for it",
}


def echo_row(entry: Entry) -> None:
    """Write everything about a row to stdout."""
    from resnet_zoo.site.words import normalise_lines, preprocess_lines, recipe_table

    echo_prose(_sentences(entry))
    _echo_title("Numbers")
    _echo_numbers(entry)
    published = entry.published
    click.echo()
    echo_prose(
        f"Published as {published.label} in {published.source}, with these digits. FLOPs count a multiply-accumulate "
        f"as one, MACs only those of convolutions and linear layers. `resnet-zoo verify {entry.name}` checks all."
    )
    echo_record({"config": published.config_url, "log": published.log_url})
    _echo_title("Preprocessing")
    echo_record(dict([*preprocess_lines(entry), *normalise_lines(entry)]))
    _echo_title("Weights")
    sets = weight_facts([entry])
    _echo_sets(sets)
    echo_prose("* is the default. Bits: how many of the file's sha256 are known before it is fetched.")
    for found in sets:
        click.echo()
        echo_record(weights_record(entry, found))
    recipes, lines = recipe_table(entry)
    _echo_title(f"Recipe: {recipes[0]}")
    echo_record({title: texts[0] for title, texts in lines})
    for other in recipes[1:]:
        echo_prose(f"Another recipe: `resnet-zoo reproduce {entry.name} --recipe {other}`")


def _echo_title(title: str) -> None:
    click.echo()
    click.secho(title, bold=True)


def _sentences(entry: Entry) -> str:
    """Return what the row is, and what it cannot do."""
    names, size = class_names(entry.classes), " x ".join(map(str, entry.input_size[1:]))
    also = f" (also {', '.join(entry.aliases)})" if entry.aliases else ""
    what = f"{entry.architecture} with the {entry.stem} stem, for images of {size} pixels"
    classes = f"the {len(names):,} classes of {DATASET_TITLES[entry.dataset]}: {listed(names)}"
    limits = limits_of(names, entry.input_size[-1], resizes=entry.preprocess.resize_backend is not None)
    return f"{entry.name}{also}: {what} and {classes}. {limits}"


def _echo_numbers(entry: Entry) -> None:
    published, exact = entry.published, entry.exact
    printed = aligned([published.params_m, published.flops_g, published.top1, published.top5])
    params, flops, top1, top5 = printed
    table = new_table("", ">Published", ">Exact")
    table.add_row("Parameters", f"{params} M", f"{exact.params:,}")
    table.add_row("FLOPs", f"{flops} G", f"{exact.flops:,}")
    table.add_row("FLOPs with the classifier", "", f"{exact.flops_with_head:,}")
    table.add_row("MACs", "", f"{exact.macs:,}")
    table.add_row("Top-1", f"{top1} %", "")
    table.add_row("Top-5", f"{top5} %", "")
    echo_table(table)


def _echo_sets(sets: list[WeightFacts]) -> None:
    """Write a line for each size at which each weight set was tested; the default one has a star."""
    table = new_table("Tag", ">Top-1 (%)", ">Top-5 (%)", ">px", ">Bits", "Where")
    lines = [(found, tested) for found in sets for tested in found.tested or (None,)]
    top1 = aligned([tested.top1 if tested else "-" for _, tested in lines])
    top5 = aligned([tested.top5 if tested else "-" for _, tested in lines])
    for (found, tested), *accuracies in zip(lines, top1, top5, strict=True):
        tag = f"{found.weights}{'*' if found.is_default else ''}"
        table.add_row(tag, *accuracies, str(tested.size) if tested else "-", str(found.pin_bits), found.place)
    echo_table(table, narrow=("Bits", "px", "Top-5 (%)"))


def weights_record(entry: Entry, found: WeightFacts) -> dict[str, str]:
    """Return what is known about a weight set, by title."""
    weights = entry.weights[found.weights]
    record = {
        "weights": f"{found.weights}{' (default)' if found.is_default else ''}",
        "where": _PLACES.get(found.place, f"to be fetched from {found.place}"),
    }
    if weights.file is not None:
        record |= {"file": weights.file.path, "size": f"{weights.file.size_bytes:,} bytes"}
        record["sha256"] = weights.file.sha256
    record |= _origin_record(weights.origin)
    record |= {f"at {own.preprocess.crop} px": _resize(own.preprocess) for own in weights.published}
    if weights.published:
        record["printed in"] = ", ".join(dict.fromkeys(own.source for own in weights.published))
    return record | {"licence": weights.license, "measured": _measured_words(entry, weights.measured)}


def _resize(rules: Preprocess) -> str:
    names = {"cv2": "cv2 bilinear", "pillow": "Pillow bilinear", "pillow_bicubic": "Pillow bicubic"}
    if rules.resize_backend is None:
        return "images are used at their own size"
    return f"short edge {rules.short_edge} ({names[rules.resize_backend]}), centre crop {rules.crop}"


def _origin_record(origin: UpstreamOrigin | PageOrigin | RunOrigin) -> dict[str, str]:
    if isinstance(origin, PageOrigin):
        return {"from": origin.page}
    if isinstance(origin, RunOrigin):
        return {"from": f"recipe {origin.recipe}, run {origin.run}"}
    known, witness = origin.sha256_prefix, origin.witness
    digits = known if len(known) == FULL_SHA256_DIGITS else f"begins {known}: {4 * len(known)}-bit pin"
    record = {"from": origin.shown_url, "source sha256": digits}
    if witness is not None:
        size = f"{witness.size_bytes:,} bytes; " if witness.size_bytes else ""
        record["seen"] = f"{size}{witness.source}, {witness.date}"
    return record


def _measured_words(entry: Entry, measured: Measured | None) -> str:
    if measured is None:
        return "not checked"
    accuracy = f"top-1 {measured.top1:.2f}%, top-5 {measured.top5:.2f}% on {measured_on(entry, measured)}"
    torch = f", torch {measured.versions['torch']}" if "torch" in measured.versions else ""
    return f"{accuracy}; {measured.date}, {measured.device}{torch}"
