"""What the ``resnet-zoo`` command writes to stdout. rich is imported when it is needed."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resnet_zoo.base.files import write_atomically
from resnet_zoo.base.progress import is_terminal
from resnet_zoo.base.shown import LONGEST_SENTENCE, printable, shown, shown_address
from resnet_zoo.catalog.datasets import official_accuracy
from resnet_zoo.catalog.listing import DATASET_TITLES, PRINTED
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry
from resnet_zoo.checks.report import RUN_CHECKS, Check, Report, count_statuses

if TYPE_CHECKING:
    from rich.table import Table

    from resnet_zoo.inference.evaluation import Evaluation
    from resnet_zoo.inference.prediction import Prediction
    from resnet_zoo.inference.speed import Benchmark
    from resnet_zoo.weights.cache_contents import CachedFile, WeightFacts


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


def echo_table(table: Table) -> None:
    """Write a table to stdout: colours and the terminal's width on a terminal; neither, and no padding, in a pipe."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=10_000, no_color=True)
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    if not console.is_terminal:
        text = "\n".join(line.rstrip(" ") for line in text.split("\n"))
    click.echo(text, nl=False)  # not by rich itself, which ends with 1 when a pipe is closed


def echo_record(record: Mapping[str, Any]) -> None:
    """Write one record as a table of two columns; hashes, addresses and paths stay whole, to be copied."""
    texts = {
        shown(key): shown(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value, LONGEST_SENTENCE)
        for key, value in record.items()
    }
    indent = 2 + max(map(len, texts), default=0)
    width = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else None
    for key, text in texts.items():
        click.echo("\n".join(_folded_record(key, text, indent, width)).rstrip(" "))


def _folded_record(key: str, text: str, indent: int, width: int | None) -> list[str]:
    """Return a key and its value in lines of a terminal's width; a word that is longer than that is not broken."""
    if width is None:
        return [f"{key:{indent}}{text}"]
    lines = _fold(text, width - indent)
    if max(map(len, lines)) <= width - indent:
        first, *others = lines
        return [f"{key:{indent}}{first}", *(" " * indent + line for line in others)]
    return [key, *(f"  {line}" for line in _fold(text, width - 2))]  # what then is too long is the terminal's to wrap


def _fold(text: str, width: int) -> list[str]:
    wrapper = textwrap.TextWrapper(max(1, width), break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(text) or [""]


def echo_entries(entries: Sequence[Entry], places: Mapping[str, str]) -> None:
    """Write rows as the published table, each with the place of its default weights."""
    table = new_table("Model", "Data set", ">Params (M)", ">FLOPs (G)", ">Top-1", ">Top-5", "Weights")
    for entry in entries:
        printed = (getattr(entry.published, key) for key in PRINTED)
        place = places[entry.name]
        mark = place if place in ("ships", "here", "no address") else "to fetch"
        table.add_row(entry.name, DATASET_TITLES[entry.dataset], *printed, mark)
    echo_table(table)


def echo_weight_sets(sets: Sequence[WeightFacts]) -> None:
    """Write weight sets as a table, a line each; the default one of each row has a star."""
    table = new_table("Model", "Weights", ">Top-1", ">px", ">Bits", "Where")
    for found in sets:
        mark = "*" if found.is_default else ""
        usual = found.tested[0] if found.tested else None
        accuracy = (usual.top1, str(usual.size)) if usual else ("-", "-")
        table.add_row(found.model, f"{found.weights}{mark}", *accuracy, str(found.pin_bits), shown(found.place))
    echo_table(table)


def echo_predictions(predictions: Sequence[Prediction]) -> None:
    """Write predictions as a table, a line per class."""
    from rich.text import Text  # a path or a class may hold what markup would take for a tag

    table = new_table("Image", ">Probability", ">Label", "Class")
    for prediction in predictions:
        for rank, found in enumerate(prediction.classes):
            title = "" if rank else shown(prediction.image, LONGEST_SENTENCE)
            table.add_row(Text(title), f"{found.probability:.4f}", str(found.label), Text(shown(found.name)))
        if not prediction.classes:
            table.add_row(Text(shown(prediction.image, LONGEST_SENTENCE)), "-", "-", "none reaches the threshold")
    echo_table(table)


def echo_predictions_as_lines(predictions: Iterable[Prediction]) -> None:
    """Write each prediction as JSON on a line of its own, as soon as it is there."""
    for prediction in predictions:
        click.echo(as_json(asdict(prediction)))


def echo_predictions_as_csv(predictions: Iterable[Prediction]) -> None:
    """Write predictions as CSV, a line per class, each as soon as it is there.

    A spreadsheet would compute text that begins like a formula: such a path is written with ``./`` before it, which
    leads to the same file, and such a name of a class with an apostrophe.
    """
    _echo_csv(_CSV_HEADER)
    for prediction in predictions:
        for values in _csv_rows(prediction):
            _echo_csv(values)


def _csv_rows(prediction: Prediction) -> Iterator[tuple[object, ...]]:
    """Yield a prediction's lines of CSV: one per class, or one with empty fields."""
    image = f"./{prediction.image}" if prediction.image.startswith(_FORMULA) else prediction.image
    for rank, found in enumerate(prediction.classes, start=1):
        name = f"'{found.name}" if found.name.startswith(_FORMULA) else found.name
        yield image, rank, found.label, name, found.probability
    if not prediction.classes:
        yield image, "", "", "", ""


def write_predictions(predictions: Iterable[Prediction], target: Path, form: str) -> int:
    """Write predictions to a file, which is moved into place when it is complete, and return their number.

    Args:
        predictions: Any number of them; only JSON holds all in memory.
        target: The file; an existing one is replaced.
        form: ``csv``, ``jsonl`` or ``json``.

    Raises:
        OSError: It cannot be written.
    """
    counted = itertools.count()

    def each() -> Iterator[Prediction]:
        for prediction in predictions:
            next(counted)
            yield prediction

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:  # every byte of a name
            if form == "csv":
                file.write(f"{_csv_line(_CSV_HEADER)}\n")
                file.writelines(f"{_csv_line(values)}\n" for prediction in each() for values in _csv_rows(prediction))
            elif form == "jsonl":
                file.writelines(f"{json.dumps(asdict(prediction), allow_nan=False)}\n" for prediction in each())
            else:
                file.write(json.dumps([asdict(prediction) for prediction in each()], indent=2, allow_nan=False) + "\n")

    write_atomically(target, write)
    return next(counted)


_CSV_HEADER = ("image", "rank", "label", "name", "probability")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How text begins that spreadsheets take for a formula (OWASP, CSV injection)."""


def _echo_csv(values: Sequence[object]) -> None:
    """Write a line of CSV; on a terminal without codes that it would obey, in a pipe with every byte of a name."""
    if is_terminal(sys.stdout):
        values = [printable(value) if isinstance(value, str) else value for value in values]
    click.echo(_csv_line(values), color=True)  # color: or click takes codes out of names


def _csv_line(values: Sequence[object]) -> str:
    """Return a line of CSV without its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(values)  # the writer quotes what is in a line's end: \r, too
    return text.getvalue().removesuffix("\r\n")


def echo_cache(files: Sequence[CachedFile]) -> None:
    """Write the files of the cache as a table; on a terminal that is too narrow for it, as a record each."""
    headers = ("Weights", "Bytes", "Modified", "Checked by", "sha256")
    table = new_table(*(f">{header}" if header == "Bytes" else header for header in headers))
    rows = [
        (", ".join(file.weights) or "(no row)", f"{file.size_bytes}", file.modified, file.pin or "-", file.sha256)
        for file in files
    ]
    widest = sum(2 + max(map(len, column)) for column in zip(headers, *rows, strict=True))
    if rows and is_terminal(sys.stdout) and shutil.get_terminal_size().columns < widest:
        for number, row in enumerate(rows):
            click.echo("\n" * (number > 0), nl=False)
            echo_record(dict(zip(headers, row, strict=True)))
        return
    for row in rows:
        table.add_row(*row)
    echo_table(table)


_WIDE_COLUMNS = 118
"""What the table of reports needs for its long form."""


def echo_reports(reports: Sequence[Report]) -> None:
    """Write reports as a table: published beside measured, and what was not checked marked so.

    On a narrow terminal the short form: equal numbers once, a dash for what was not checked.
    """
    short = is_terminal(sys.stdout) and shutil.get_terminal_size().columns < _WIDE_COLUMNS
    has_run = any(report.has(RUN_CHECKS[0]) for report in reports)
    run_column = ["Run"] if has_run else []
    table = new_table("Model", *run_column, "Net", "Params (M)", "FLOPs (G)", "Weights", "Top-1 (%)", "Top-5 (%)")
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
            _numbers(report.check("top5"), short=short),
        )
    echo_table(table)
    statuses = count_statuses(reports)
    if short:
        click.echo("✓ equal to the published value, - not checked")
    rows = "row" if len(reports) == 1 else "rows"
    click.echo(
        f"{len(reports)} {rows}: " + ", ".join(f"{statuses[s]} {s}" for s in ("passed", "failed", "not checked"))
    )
    for report in reports:
        for check in report.checks:
            if check.status == "failed":
                sentence = "; ".join(filter(None, (check.numbers, check.detail)))
                click.echo(f"FAILED {report.name} {check.name}: {shown(sentence, LONGEST_SENTENCE)}")
    if len(reports) == 1:
        _echo_details(reports[0])
    elif statuses["not checked"]:
        click.echo("Not checked: `resnet-zoo verify NAME` says why for a row; --format json for all.", err=True)


def _echo_details(report: Report) -> None:
    """Write what the accuracies were measured on, and why checks were not made."""
    for check in report.checks:
        if check.name in ("top1", "top5") and check.status == "passed":
            click.echo(f"{check.name}: {shown(check.detail, LONGEST_SENTENCE)}")
    for reason in sorted({check.detail for check in report.checks if check.status == "not checked"}):
        click.echo(f"Not checked: {shown(reason, LONGEST_SENTENCE)}", err=True)


def _numbers(check: Check, others: Sequence[Check] = (), *, short: bool) -> str:
    """Return ``published = measured`` of a check (``recorded = measured``), with the mark of the worst of all."""
    mark = _mark([check, *others], short=short)
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
    chain = result.chain
    record = {
        "model": result.name,
        "weights": chain.title if chain else "a model passed in",
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
        *("Model", "Mode", "dtype", ">Batch", ">Images/s", ">Median (ms)", ">p95 (ms)"),
        *(">TFLOP/s", ">Matrix peak", ">Share (%)"),
    )
    for speed in benchmark.speeds:
        times = (f"{value:.1f}" for value in (speed.images_per_s, speed.latency_ms, speed.latency_p95_ms))
        share = (f"{speed.tflops:.3f}", f"{speed.peak_tflops:.3f}", f"{100 * speed.peak_share:.1f}")
        table.add_row(speed.name, speed.mode, speed.dtype, str(speed.batch_size), *times, *share)
    echo_table(table)
    torch = benchmark.versions["torch"]
    click.echo(f"{benchmark.device}, torch {torch}", err=True)


def _accuracy(measured: float, correct: int, interval: tuple[float, float], published: str | None) -> str:
    low, high = interval
    text = f"{measured:.2f} ({correct} correct; 95% interval {low:.2f} to {high:.2f})"
    return text if published is None else f"{text}; published {published}"
