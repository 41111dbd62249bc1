"""The table of rows: its facts, filtered, sorted, and written as JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import io
import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

from resnet_zoo.catalog.datasets import Accuracy, official_accuracy
from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.catalog.records import Entry, UpstreamOrigin
from resnet_zoo.errors import ArgumentError

Facts = dict[str, Any]

DATASET_TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "in1k": "ImageNet-1k"}

PRINTED = ("params_m", "flops_g", "top1", "top5")
"""The facts that the source printed; kept as its digits in tables, numbers in JSON and comparisons."""

_TEXT_KEYS = ("name", "architecture", "dataset")
_NUMBER_KEYS = ("num_classes", *PRINTED, "params", "flops", "macs")
"""The facts that can be filtered and sorted by."""

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*")


def facts(entry: Entry) -> Facts:
    """Return what a list shows of a row, as plain JSON values."""
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "architecture": entry.architecture,
        "dataset": entry.dataset,
        "num_classes": entry.num_classes,
        "input_size": list(entry.input_size),
        **{key: getattr(entry.published.numbers, key) for key in PRINTED},
        "params": entry.exact.params,
        "flops": entry.exact.flops,
        "macs": entry.exact.macs,
        "weights": list(entry.weights),
        "default_weights": entry.default_weights,
    }


def select(entries: Iterable[Entry], where: Iterable[str] = (), sort: str | None = None) -> list[Entry]:
    """Return the entries that meet all conditions, sorted if asked.

    Args:
        entries: The rows.
        where: Conditions such as ``params_m<25`` or ``dataset=cifar10``, on the names of `facts`.
        sort: A name of `facts`, with ``:desc`` for the largest first.

    Raises:
        ArgumentError: A condition or key is invalid.
    """
    conditions = [_parse(condition) for condition in where]
    kept = [entry for entry in entries if all(holds(facts(entry)) for holds in conditions)]
    if sort is not None:
        key, _, order = sort.partition(":")
        _check_key(key)
        if order not in ("", "asc", "desc"):
            raise ArgumentError(f"Expected --sort KEY, KEY:asc or KEY:desc, got {sort!r}.")
        kept.sort(key=lambda entry: facts(entry)[key], reverse=order == "desc")
    return kept


def _parse(condition: str) -> Callable[[Facts], bool]:
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise ArgumentError(f"Expected a condition such as params_m<25 or dataset=cifar10, got {condition!r}.")
    key, symbol, text = match.groups()
    _check_key(key)
    value = text if key in _TEXT_KEYS else _number(text, f"{key}{symbol}")
    return lambda row: _OPERATORS[symbol](row[key], value)


def _number(text: str, after: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ArgumentError(f"Expected a number after {after}, got {text!r}.")
    return number


def _check_key(key: str) -> None:
    known = (*_TEXT_KEYS, *_NUMBER_KEYS)
    if key not in known:
        raise ArgumentError(f"There is no key {key!r} to filter or sort by; the keys are {', '.join(known)}.")


def as_csv(entries: Iterable[Entry]) -> str:
    """Return the rows as CSV with a header; lists are joined by spaces, printed digits kept."""
    rows = [facts(entry) | {key: getattr(entry.published, key) for key in PRINTED} for entry in entries]
    joined = [{key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()} for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(facts(current_manifest().models[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(joined)
    return text.getvalue()


def as_markdown(entries: Iterable[Entry]) -> str:
    """Return the rows as a Markdown table, with the links of the source's table."""
    header = ("Model", "Data set", "Params (M)", "FLOPs (G)", "Top-1 (%)", "Top-5 (%)", "Upstream")
    lines = [_markdown_row(header), "| --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for entry in entries:
        published = entry.published
        links = [f"[config]({published.config_url})"]
        origins = [weights.origin for weights in entry.weights.values() if not weights.published]
        links += [f"[checkpoint]({origin.shown_url})" for origin in origins if isinstance(origin, UpstreamOrigin)]
        links.append(f"[log]({published.log_url})")
        printed = (getattr(published, key) for key in PRINTED)
        lines.append(_markdown_row((f"`{entry.name}`", DATASET_TITLES[entry.dataset], *printed, " · ".join(links))))
    return "\n".join(lines) + "\n"


def measured_on(entry: Entry, measured: Accuracy) -> str:
    """Return which images an accuracy was measured on, with the bounds for the official set if some are missing."""
    official = official_accuracy(entry.dataset, measured, "top1")
    if official is None:
        return f"{measured.num_images:,} of {measured.dataset}"
    if not official.num_missing:
        return f"{measured.num_images:,} of {DATASET_TITLES[entry.dataset]}"
    bounds = f"{official.low:.2f} to {official.high:.2f} on all"
    return f"{measured.num_images:,} of the {official.num_official:,} of {DATASET_TITLES[entry.dataset]} ({bounds})"


def _markdown_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
