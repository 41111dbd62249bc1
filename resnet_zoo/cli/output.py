"""What the ``resnet-zoo`` command writes to stdout. rich is imported when it is needed."""

from __future__ import annotations

import codecs
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from resnet_zoo.base.progress import folded, tell, terminal_width
from resnet_zoo.base.shown import LONGEST_SENTENCE, printable, quantity, shown, shown_address
from resnet_zoo.catalog.datasets import official_accuracy
from resnet_zoo.catalog.listing import DATASET_TITLES, PRINTED
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry
from resnet_zoo.checks.report import RUN_CHECKS, Check, Report, count_statuses

if TYPE_CHECKING:
    from rich.table import Table

    from resnet_zoo.inference.evaluation import Evaluation
    from resnet_zoo.inference.speed import Benchmark
    from resnet_zoo.weights.cache_contents import CachedFile, WeightFacts
    from resnet_zoo.weights.provenance import Chain


def echo_json(value: Any) -> None:
    """Write JSON to stdout."""
    click.echo(as_json(value, indent=2))


def as_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON that every reader takes, whatever stdout is, and that says no secrets of addresses.

    JSON is UTF-8 (RFC 8259): for a stdout in another encoding all beyond ASCII is written as escapes, and so it is
    where text holds codes that a terminal would obey.
    """
    plain = _plain(value)
    text = json.dumps(plain, indent=indent, ensure_ascii=False, allow_nan=False)
    encoding = codecs.lookup(getattr(sys.stdout, "encoding", None) or "ascii").name
    return text if encoding == "utf-8" and printable(text, keep="\n") == text else json.dumps(plain, indent=indent)


def _plain(value: Any) -> Any:
    """Return plain JSON values; a number that is not finite, for which JSON has no word, is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return shown_address(value) if isinstance(value, str) else value


def new_table(*headers: str) -> Table:
    """Return a table; a header that begins with ``>`` makes its column right-aligned."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def echo_table(table: Table, *, narrow: Sequence[str] = ()) -> None:
    """Write a table to stdout: colours and the terminal's width on a terminal; neither, and no padding, in a pipe.

    Args:
        table: The table.
        narrow: Headers of what a terminal goes without that is too narrow for all, in this order. One that is too
            narrow even for the rest gets a record for each row, so that no word is broken.
    """
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=10_000, no_color=True)
    wide = console.options.update(width=10_000)
    for header in (*narrow, None):
        if console.measure(table, options=wide).maximum <= console.width:
            break
        if header is None:
            _echo_rows(table)
            return
        table = _without(table, header)
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    if not console.is_terminal:
        text = "\n".join(line.rstrip(" ") for line in text.split("\n"))
    click.echo(text, nl=False)  # not by rich itself, which ends with 1 when a pipe is closed


def _without(table: Table, header: str) -> Table:
    """Return a table without the columns of a header."""
    kept = [column for column in table.columns if column.header != header]
    smaller = new_table(*(f">{column.header}" if column.justify == "right" else str(column.header) for column in kept))
    for cells in zip(*(column.cells for column in kept), strict=True):
        smaller.add_row(*cells)
    return smaller


def _echo_rows(table: Table) -> None:
    """Write each row of a table as a record."""
    from rich.text import Text

    headers = [str(column.header) for column in table.columns]
    for number, cells in enumerate(zip(*(column.cells for column in table.columns), strict=True)):
        texts = (cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain for cell in cells)
        click.echo("\n" * (number > 0), nl=False)
        echo_record(dict(zip(headers, texts, strict=True)))


def aligned(numbers: Sequence[str]) -> list[str]:
    """Return numbers with spaces behind them, so that in a column that ends on the right their points are in line."""
    decimals = [len(number.partition(".")[2]) for number in numbers]
    return [f"{number}{' ' * (max(decimals) - own)}" for number, own in zip(numbers, decimals, strict=True)]


def vouchers(pin: str) -> str:
    """Return who vouches for the hash of a file, for a person; ``pin`` as in `Chain`."""
    if pin.endswith("-bit pin"):
        return f"{int(pin.partition('-')[0]) // 4} of 64 digits in the manifest ({pin})"
    words = {"sha256": "the manifest", "hub": "its repository", "path": "nobody: a file given by its path"}
    return words.get(pin, pin)


def weights_record(chain: Chain | None, otherwise: str) -> dict[str, str]:
    """Return lines on the weights that were used; ``otherwise`` says what there was without a file."""
    if chain is None:
        return {"weights": otherwise}
    return {"weights": chain.file, "weights sha256": chain.file_sha256, "vouched for by": vouchers(chain.pin)}


def readable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's fields for a person: words for names and for what is not there, and units."""
    found = {}
    for name, value in fields.items():
        if name == "pin":
            name, value = "vouched_for_by", vouchers(value)
        name = "learning_rate" if name == "lr" else name
        words = name.removeprefix("num_").removesuffix("_bytes").replace("_per_s", "/s").replace("_", " ")
        if name.endswith("_bytes"):
            value = f"{value:,} bytes"
        found[words] = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    return {name: "-" if value in (None, "") else value for name, value in found.items()}


def echo_record(record: Mapping[str, Any]) -> None:
    """Write one record as a table of two columns; hashes, addresses and paths stay whole, to be copied."""
    texts = {
        shown(key): shown(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value, LONGEST_SENTENCE)
        for key, value in record.items()
    }
    indent = 2 + max(map(len, texts), default=0)
    width = terminal_width(sys.stdout)
    for key, text in texts.items():
        click.echo("\n".join(_folded_record(key, text, indent, width)).rstrip(" "))


def _folded_record(key: str, text: str, indent: int, width: int | None) -> list[str]:
    """Return a key and its value in lines of a terminal's width; a word that is longer than that is not broken."""
    if width is None:
        return [f"{key:{indent}}{text}"]
    lines = folded(text, width - indent).split("\n")
    if max(map(len, lines)) <= width - indent:
        first, *others = lines
        return [f"{key:{indent}}{first}", *(" " * indent + line for line in others)]
    lines = folded(text, width - 2).split("\n")
    return [key, *(f"  {line}" for line in lines)]  # what then is too long is the terminal's to wrap


def echo_prose(text: str, *, begin: str = "") -> None:
    """Write sentences to stdout, on a terminal in lines that end between words."""
    click.echo(f"{begin}{folded(text, terminal_width(sys.stdout), begin=begin)}")


def echo_entries(entries: Sequence[Entry], sets: Mapping[str, Sequence[WeightFacts]]) -> None:
    """Write rows as the published table, each with the place of its default weights, or how many others are here."""
    table = new_table("Model", "Data set", ">Params (M)", ">FLOPs (G)", ">Top-1", ">Top-5", "Weights")
    printed = [aligned([getattr(entry.published, key) for entry in entries]) for key in PRINTED]
    for entry, *numbers in zip(entries, *printed, strict=True):
        table.add_row(entry.name, DATASET_TITLES[entry.dataset], *numbers, _place(sets[entry.name]))
    echo_table(table, narrow=("Data set", "Top-5", "FLOPs (G)"))
    if not terminal_width(sys.stdout):
        return
    if entries:
        tell("Numbers as their source printed them (so 21.8, not 21.80); top-1 and top-5 in percent.")
    if any(_place(found)[:1].isdecimal() for found in sets.values()):
        tell("1 ships, 1 here: a set that is not the default (see list --local).")


def _place(sets: Sequence[WeightFacts]) -> str:
    """Return where the default of a row's weight sets is; of one elsewhere, how many others are on this machine."""
    default = next(found for found in sets if found.is_default)
    others = [found.place for found in sets if found.is_here]
    if default.is_here or not others:
        return default.place if default.place in ("ships", "here", "no address") else "to fetch"
    return f"{len(others)} {others[0]}"


def echo_weight_sets(sets: Sequence[WeightFacts]) -> None:
    """Write weight sets as a table, a line each; the default one of each row has a star."""
    table = new_table("Model", "Weights", ">Top-1", ">px", ">Bits", "Where")
    usual = [found.tested[0] if found.tested else None for found in sets]
    accuracies = aligned([tested.top1 if tested else "-" for tested in usual])
    for found, tested, top1 in zip(sets, usual, accuracies, strict=True):
        tag, size = f"{found.weights}{'*' if found.is_default else ''}", str(tested.size) if tested else "-"
        table.add_row(found.model, tag, top1, size, str(found.pin_bits), shown(found.place))
    echo_table(table, narrow=("Bits", "px", "Model") if len({found.model for found in sets}) == 1 else ("Bits", "px"))


def echo_cache(files: Sequence[CachedFile]) -> None:
    """Write the files of the cache as a table."""
    table = new_table("Weights", ">Bytes", "Modified", "Checked by", "sha256")
    for file in files:
        owners = ", ".join(file.weights) or "(no model)"
        table.add_row(owners, f"{file.size_bytes:,}", file.modified, file.pin or "-", file.sha256)
    echo_table(table)


_WIDE_COLUMNS = 118
"""What the table of reports needs for its long form."""


def echo_reports(reports: Sequence[Report]) -> None:
    """Write reports as a table: published beside measured, and what was not checked marked so.

    On a narrow terminal the short form: equal numbers once, a dash for what was not checked.
    """
    asked = os.environ.get("COLUMNS", "")  # of a pipe too, where somebody sets it
    width = terminal_width(sys.stdout) or (int(asked) if asked.isdecimal() and len(asked) < 6 else _WIDE_COLUMNS)
    short = width < _WIDE_COLUMNS
    has_run = any(report.has(RUN_CHECKS[0]) for report in reports)
    run_column = ["Run"] if has_run else []
    top5_column = [">Top-5 (%)"] if any(report.has("top5") for report in reports) else []
    table = new_table("Model", *run_column, "Net", ">Params (M)", ">FLOPs (G)", "Weights", ">Top-1 (%)", *top5_column)
    for report in reports:
        network = [report.check(name) for name in ("manifest", "architecture", "macs")]
        table.add_row(
            report.name,
            *([_mark([report.check(name) for name in RUN_CHECKS], short=short)] if has_run else []),
            _mark(network, short=short),
            _numbers(report.check("params"), short=short),
            _numbers(report.check("flops"), [report.check("flops_with_head")], short=short),
            _mark([report.check("weights")], short=short),
            _numbers(report.check("top1"), short=short),
            *([_numbers(report.check("top5"), short=short) if report.has("top5") else ""] if top5_column else []),
        )
    echo_table(table, narrow=("Top-5 (%)", "FLOPs (G)"))
    statuses = count_statuses(reports)
    if short:
        recorded = has_run or any(check.recorded is not None for report in reports for check in report.checks)
        click.echo(f"✓ equal to the {'recorded or ' if recorded else ''}published value, - not checked")
    click.echo(
        f"{quantity(len(reports), 'model')}: "
        + ", ".join(f"{statuses[s]} {s}" for s in ("passed", "failed", "not checked"))
    )
    for report in reports:
        for check in report.checks:
            if check.status == "failed":
                sentence = "; ".join(filter(None, (check.numbers, check.detail)))
                echo_prose(f"FAILED {report.name} {check.name}: {shown(sentence, LONGEST_SENTENCE)}")
    if len(reports) == 1:
        _echo_details(reports[0])
    elif statuses["not checked"]:
        tell("Not checked: `resnet-zoo verify NAME` says why for a model; --format json for all.")


def _echo_details(report: Report) -> None:
    """Write what the accuracies were measured on, and why checks were not made."""
    for check in report.checks:
        if check.name in ("top1", "top5") and check.status == "passed":
            echo_prose(f"{check.name}: {shown(check.detail, LONGEST_SENTENCE)}")
    for reason in sorted({check.detail for check in report.checks if check.status == "not checked"}):
        tell(f"Not checked: {shown(reason, LONGEST_SENTENCE)}")


def _numbers(check: Check, others: Sequence[Check] = (), *, short: bool) -> str:
    """Return ``published = measured`` of a check (``recorded = measured``), with the mark of the worst of all."""
    mark = _mark([check, *others], short=short)
    if short and check.recorded is not None and check.recorded == check.measured:
        return f"{check.recorded} {mark}"
    if check.recorded is not None:  # of the same weights on the same images; the published number is of others
        sign = "=" if check.recorded == check.measured else "/"
        published = "" if check.published is None else f" (published {check.published})"
        measured = "" if check.measured is None else f" {sign} {check.measured}"
        return f"{check.recorded}{measured} {mark}{published}"
    if check.published is None:
        return f"{check.measured or ''} {mark}".lstrip()
    if check.measured is None or (short and check.published == check.measured):
        return f"{check.published} {mark}"
    return f"{check.published} {'=' if check.published == check.measured else '/'} {check.measured} {mark}"


def _mark(checks: Sequence[Check], *, short: bool) -> str:
    statuses = [check.status for check in checks]
    if "failed" in statuses:
        return "[red]✗ FAILED[/red]"
    if "not checked" in statuses:
        return f"[dim]{'-' if short else 'not checked'}[/dim]"
    return "[green]✓[/green]"


def echo_evaluation(result: Evaluation) -> None:
    """Write an evaluation as a table, published numbers beside the measured ones."""
    record = {
        "model": result.name,
        **weights_record(result.chain, "a model passed in"),
        "data set": f"{result.dataset}, {result.num_images} images, {result.num_skipped} skipped",
        "top-1 (%)": _accuracy(result.top1, result.correct1, result.top1_interval, result.published_top1),
        "top-5 (%)": _accuracy(result.top5, result.correct5, result.top5_interval, result.published_top5),
        "mean of classes (%)": f"{result.mean_class_top1:.2f} (each class counts alike, however many images it has)",
        "calibration error": f"{result.calibration_error_pct:.2f} points (probabilities against accuracy)",
        "speed": f"{result.images_per_s:.1f} images/s, {result.precision} on {result.device}",
    }
    if len(result.classes) <= 5:  # every answer is among the best five
        del record["top-5 (%)"]
    if abs(result.mean_class_top1 - result.top1) < 0.005:
        del record["mean of classes (%)"]
    official = official_accuracy(get_entry(result.row).dataset, result, "top1")
    if result.published_top1 is not None and official is None:
        record["note"] = f"{result.dataset} is not the official test set: not comparable with the published numbers"
    elif official is not None and official.words:
        record["note"] = f"top-1: {official.words}"
    echo_record(record)


def echo_benchmark(benchmark: Benchmark) -> None:
    """Write measured speeds as a table, a line each."""
    table = new_table(
        *("Model", "Mode", "Precision", ">Batch", ">Images/s", ">Median (ms)", ">p95 (ms)"),
        *(">TFLOP/s", ">Matrix peak", ">Share (%)"),
    )
    for speed in benchmark.speeds:
        times = (f"{value:.1f}" for value in (speed.images_per_s, speed.latency_ms, speed.latency_p95_ms))
        peak = "-" if speed.peak_tflops is None else f"{speed.peak_tflops:.3f}"
        share = "-" if speed.peak_share is None else f"{100 * speed.peak_share:.1f}"
        operations = (f"{speed.tflops:.3f}", peak, share)
        table.add_row(speed.name, speed.mode, speed.dtype, str(speed.batch_size), *times, *operations)
    echo_table(table, narrow=("Matrix peak", "TFLOP/s", "p95 (ms)", "Share (%)"))
    torch = benchmark.versions["torch"]
    tell(f"{benchmark.device}, torch {torch}. Share: of the speed of a large matrix product here.")


def _accuracy(measured: float, correct: int, interval: tuple[float, float], published: str | None) -> str:
    low, high = interval
    text = f"{measured:.2f} ({correct} correct; 95% interval {low:.2f} to {high:.2f})"
    return text if published is None else f"{text}; published {published}"
