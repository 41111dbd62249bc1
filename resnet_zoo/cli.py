"""The ``resnet-zoo`` command: data on stdout, everything else on stderr.

Exit codes: 0 all good, 1 checked and wrong, 2 wrong usage or unknown name, 3 could not be checked.
torch and rich are imported only by the commands that need them.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from resnet_zoo import __version__
from resnet_zoo.errors import NOT_CHECKED, ZooError
from resnet_zoo.listing import DATASET_TITLES, as_csv, as_markdown, facts, select
from resnet_zoo.manifest import get_entry, list_models
from resnet_zoo.records import UpstreamOrigin, to_json
from resnet_zoo.report import Check, Report, count_statuses, exit_code, reports_as_json, reports_as_junit

if TYPE_CHECKING:
    from rich.table import Table

    from resnet_zoo.errors import DatasetError
    from resnet_zoo.evaluation import Evaluation

SIGINT_EXIT, SIGPIPE_EXIT = 130, 141
"""What shells report for a program ended by Ctrl-C and by a closed pipe (128 + signal number)."""


class Failure(click.ClickException):
    """An error for the person at the terminal: one sentence and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


class ZooGroup(click.Group):
    """A group that turns our errors into sentences and exit codes, and suggests commands for misspelt ones."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ZooError as error:
            if ctx.params["debug"]:
                raise
            raise Failure(str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise Failure("Interrupted.", SIGINT_EXIT) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                # Whoever read our output has enough; nothing may be written to it at exit either.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                ctx.exit(SIGPIPE_EXIT)
            if ctx.params["debug"]:
                raise
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise Failure(f"{what}. Check the path and its permissions.", NOT_CHECKED) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def format_option(*formats: str) -> Callable[[Any], Any]:
    """Return the ``--format`` option with these choices, the first being the default."""
    return click.option(
        "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True, help="Output format."
    )


def examples(*lines: str) -> str:
    """Return an epilog of example commands, unwrapped."""
    return "\b\nExamples:\n" + "\n".join(f"  resnet-zoo {line}" for line in lines)


weights_option = click.option(
    "--weights", metavar="TAG|PATH", help="A weight set of the row, or a .safetensors or .pth file."
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
data_options = (
    click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True),
    click.option("--num-workers", "-j", type=click.IntRange(min=0), help="Processes that decode images."),
    click.option("--skip-bad", is_flag=True, help="Count and report unreadable images instead of stopping."),
    click.option("--partial", is_flag=True, help="Accept a folder in which classes are missing."),
)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Add several options to a command, in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group(
    cls=ZooGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "list --dataset cifar10",
        "verify",
        "predict resnet50 cat.jpg --weights resnet50.safetensors",
        "convert resnet50_8xb32_in1k_20210831-ea4938fc.pth resnet50.safetensors",
    )
    + "\n\n\b\nExit codes:\n  0 all good   1 checked and wrong   2 wrong usage   3 could not be checked",
)
@click.version_option(__version__, "-V", "--version", prog_name="resnet-zoo")
@click.option("--debug", is_flag=True, envvar="RESNET_ZOO_DEBUG", show_envvar=True, help="Show tracebacks.")
def main(debug: bool) -> None:
    """Fifteen residual networks whose every number can be checked."""


@main.command(
    "list",
    epilog=examples(
        "list resnet50",
        "list 'resnet*_cifar10' --sort top1:desc",
        "list --where 'params_m<25' --where 'top1>75' --format json",
    ),
)
@click.argument("pattern", required=False)
@click.option("--dataset", type=click.Choice(list(DATASET_TITLES)), help="Only rows of this data set.")
@click.option("--where", multiple=True, metavar="KEY<VALUE", help="Only rows that meet this; may be repeated.")
@click.option("--sort", metavar="KEY[:desc]", help="Sort by a key of the JSON output.")
@click.option("-q", "--quiet", is_flag=True, help="Names only, one a line.")
@format_option("table", "json", "csv", "markdown")
def list_command(
    pattern: str | None, dataset: str | None, where: tuple[str, ...], sort: str | None, quiet: bool, form: str
) -> None:
    """List the rows, all or those that match PATTERN (wildcards, or a part of the name)."""
    entries = select(map(get_entry, list_models(pattern, dataset=dataset)), where, sort)
    if not entries:
        click.echo("No row matches; `resnet-zoo list` shows all.", err=True)
    if quiet:
        click.echo("".join(f"{entry.name}\n" for entry in entries), nl=False)
    elif form == "json":
        echo_json([facts(entry) for entry in entries])
    elif form == "csv":
        click.echo(as_csv(entries), nl=False)
    elif form == "markdown":
        click.echo(as_markdown(entries), nl=False)
    else:
        table = new_table("Model", "Data set", *(">" + t for t in ("Params (M)", "FLOPs (G)", "Top-1 (%)", "Top-5 (%)")))
        for entry in entries:
            printed = entry.published
            table.add_row(
                entry.name,
                DATASET_TITLES[entry.dataset],
                printed.params_m,
                printed.flops_g,
                printed.top1,
                printed.top5,
            )
        echo_table(table)


@main.command(epilog=examples("show resnet50", "show resnetv1d50 --format json"))
@click.argument("name")
@format_option("table", "json")
def show(name: str, form: str) -> None:
    """Show everything the manifest says about a row, and its training recipe."""
    from resnet_zoo.recipes import RECIPES

    entry = get_entry(name)
    recipe = asdict(RECIPES[entry.recipe])
    if form == "json":
        echo_json({**to_json(entry), "training": recipe})
        return
    table = new_table("", "")
    table.show_header = False
    rules = entry.preprocess
    resize = f"short edge {rules.short_edge} ({rules.resize_backend} bilinear), centre crop {rules.crop}"
    published, exact = entry.published, entry.exact
    lines: dict[str, object] = {
        "name": entry.name,
        "aliases": ", ".join(entry.aliases) or "-",
        "architecture": f"{entry.architecture}, {entry.stem} stem",
        "data set": f"{DATASET_TITLES[entry.dataset]}, {entry.num_classes} classes",
        "input": "x".join(map(str, entry.input_size)),
        "resize and crop": resize if rules.resize_backend else "none: images are used at their own size",
        "mean, std (RGB, 0..255)": f"{list(rules.mean)}, {list(rules.std)}",
        "parameters": f"{exact.params:,} (published {published.params_m} M)",
        "FLOPs": f"{exact.flops:,} (published {published.flops_g} G); with head {exact.flops_with_head:,}",
        "MACs (conv and linear)": f"{exact.macs:,}",
        "top-1, top-5 (%)": f"{published.top1}, {published.top5} (published; `resnet-zoo verify` measures)",
        "source": f"{published.label} in {published.source}",
        "config": published.config_url,
        "log": published.log_url,
        "recipe": ", ".join(f"{key} {value}" for key, value in recipe.items()),
    }
    for tag, weights in entry.weights.items():
        default = " (default)" if tag == entry.default_weights else ""
        lines[f"weights {tag}{default}"] = f"{weights.file.path}, sha256 {weights.file.sha256}" if weights.file else "-"
        if isinstance(weights.origin, UpstreamOrigin):
            lines["  from"] = f"{weights.origin.url} (sha256 begins {weights.origin.sha256_prefix})"
        else:
            lines["  from"] = f"recipe {weights.origin.recipe}, run {weights.origin.run}"
        lines["  licence"] = weights.license
        lines["  measured"] = json.dumps(to_json(weights.measured)) if weights.measured else "not checked"
    for key, value in lines.items():
        table.add_row(key, str(value))
    echo_table(table)


@main.command(
    epilog=examples(
        "verify",
        "verify resnet50 --weights resnet50.safetensors --data imagenet/",
        "verify --format junit > verify.xml",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--data", type=click.Path(), metavar="DIR", help="Test images: measure top-1 and top-5 too.")
@with_options(weights_option, device_option, *data_options, format_option("table", "json", "junit"))
@click.pass_context
def verify(
    ctx: click.Context,
    names: tuple[str, ...],
    data: str | None,
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
    asked = [*(["top1", "top5"] if data is not None else []), *(["weights"] if weights is not None else [])]
    ctx.exit(exit_code(reports, asked=asked))


@main.command(epilog=examples("evaluate resnet18_cifar10 --data cifar10/ --weights resnet18_cifar10.safetensors"))
@click.argument("name")
@click.option("--data", type=click.Path(), metavar="DIR", required=True, help="The folder of the test images.")
@click.option("--download", is_flag=True, help="CIFAR: fetch the official archive into DIR if it is not there.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@with_options(weights_option, device_option, *data_options, format_option("table", "json"))
def evaluate(
    name: str,
    data: str,
    download: bool,
    precision: Any,
    weights: str | None,
    device: str,
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


@main.command(
    epilog=examples(
        "predict resnet50 cat.jpg dog.png --weights resnet50.safetensors",
        "predict resnet18_cifar10 photo.jpg --weights my.pth --top-k 3 --format json",
    )
)
@click.argument("name")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--top-k", type=click.IntRange(min=1), default=5, show_default=True, help="Classes per image.")
@click.option("--skip-bad", is_flag=True, help="Report unreadable images and go on.")
@with_options(weights_option, device_option, format_option("table", "json"))
def predict(
    name: str, images: tuple[str, ...], top_k: int, skip_bad: bool, weights: str | None, device: str, form: str
) -> None:
    """Classify images, best classes first."""
    get_entry(name)
    from resnet_zoo.prediction import predict as predict_images

    def report_bad(error: DatasetError) -> None:
        click.echo(f"Skipped: {error}", err=True)

    on_bad = report_bad if skip_bad else None
    predictions = predict_images(name, images, weights=weights, top_k=top_k, device=device, on_bad=on_bad)
    if form == "json":
        echo_json([asdict(prediction) for prediction in predictions])
        return
    table = new_table("Image", ">Probability", ">Label", "Class")
    for prediction in predictions:
        for rank, found in enumerate(prediction.classes):
            title = prediction.image if rank == 0 else ""
            table.add_row(title, f"{found.probability:.4f}", str(found.label), found.name)
    echo_table(table)


@main.command(
    epilog=examples(
        "convert resnet50_8xb32_in1k_20210831-ea4938fc.pth resnet50.safetensors",
        "convert resnet50.safetensors for_mmpretrain.pth --layout openmmlab",
    )
)
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--name", help="The row the checkpoint must fit; default: found from the file.")
@click.option(
    "--layout",
    type=click.Choice(["resnet_zoo", "torchvision", "timm", "openmmlab"]),
    default="resnet_zoo",
    show_default=True,
    help="Key layout to write.",
)
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
@format_option("table", "json")
def convert(source: str, target: str, name: str | None, layout: Any, force: bool, form: str) -> None:
    """Convert a checkpoint of any known layout to safetensors, without running code from it.

    The same source gives the same bytes every time. A TARGET that ends in .pth is written for programs that read
    nothing else.
    """
    if name is not None:
        get_entry(name)
    from resnet_zoo.convert import convert_checkpoint

    conversion = asdict(convert_checkpoint(source, target, name=name, layout=layout, overwrite=force))
    if form == "json":
        echo_json(conversion)
    else:
        echo_record(conversion)


@main.command(epilog=examples("env", "env --format json"))
@format_option("table", "json")
def env(form: str) -> None:
    """Show versions, devices, cache and manifest, for a bug report."""
    from resnet_zoo.environment import environment

    found = environment()
    if form == "json":
        echo_json(found)
    else:
        echo_record({key: value for group in found.values() if isinstance(group, dict) for key, value in group.items()})


# --- output -------------------------------------------------------------------------------------------------------


def echo_json(value: Any) -> None:
    """Write JSON to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def new_table(*headers: str) -> Table:
    """Return a table; a header that begins with ``>`` makes its column right-aligned."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return table


def echo_table(table: Table) -> None:
    """Write a table to stdout: colours and the terminal's width on a terminal, neither in a pipe."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, width=10_000, no_color=True)
    console.print(table)


def echo_record(record: dict[str, Any]) -> None:
    """Write one record as a table of two columns."""
    table = new_table("", "")
    table.show_header = False
    for key, value in record.items():
        table.add_row(key, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    echo_table(table)


def echo_reports(reports: Sequence[Report]) -> None:
    """Write reports as a table: published beside measured, and what was not checked marked so."""
    table = new_table(
        "Model", "Architecture", "Manifest", "Params (M)", "FLOPs (G)", "MACs", "Weights", "Top-1 (%)", "Top-5 (%)"
    )
    for report in reports:
        flops = [report.check("flops"), report.check("flops_with_head")]
        cells = [
            _mark([report.check("architecture")]),
            _mark([report.check("manifest")]),
            _numbers([report.check("params")]),
            _numbers(flops),
            _mark([report.check("macs")]),
            _mark([report.check("weights")]),
            _numbers([report.check("top1")]),
            _numbers([report.check("top5")]),
        ]
        table.add_row(report.name, *cells)
    echo_table(table)
    statuses = count_statuses(reports)
    rows = "row" if len(reports) == 1 else "rows"
    click.echo(f"{len(reports)} {rows}: " + ", ".join(f"{statuses[s]} {s}" for s in ("passed", "failed", "not checked")))
    for report in reports:
        for check in report.checks:
            if check.status == "failed":
                numbers = f"published {check.published}, measured {check.measured}; " if check.published else ""
                click.echo(f"FAILED {report.name} {check.name}: {numbers}{check.detail}")
    reasons = {check.detail for report in reports for check in report.checks if check.status == "not checked"}
    if len(reports) == 1:
        for reason in sorted(reasons):
            click.echo(f"Not checked: {reason}", err=True)
    elif reasons:
        click.echo("Not checked: `resnet-zoo verify NAME` says why for a row; --format json for all.", err=True)


def _numbers(checks: list[Check]) -> str:
    """Return ``published = measured`` of the first check with the mark of the worst."""
    first = checks[0]
    if first.measured is None:
        return f"{first.published} {_mark(checks)}"
    sign = "=" if first.published == first.measured else "/"
    return f"{first.published} {sign} {first.measured} {_mark(checks)}"


def _mark(checks: list[Check]) -> str:
    statuses = [check.status for check in checks]
    if "failed" in statuses:
        return "[red]✗ FAILED[/red]"
    if "not checked" in statuses:
        return "[dim]not checked[/dim]"
    return "[green]✓[/green]"


def echo_evaluation(result: Evaluation) -> None:
    """Write an evaluation as a table, published numbers beside the measured ones."""
    published = get_entry(result.name).published
    record = {
        "model": result.name,
        "weights": f"{result.weights}, sha256 {result.weights_sha256}",
        "data set": f"{result.dataset}, {result.num_images} images, {result.num_skipped} skipped",
        "top-1 (%)": _accuracy(result.top1, result.correct1, result.top1_interval, published.top1),
        "top-5 (%)": _accuracy(result.top5, result.correct5, result.top5_interval, published.top5),
        "speed": f"{result.images_per_s:.1f} images/s, {result.precision} on {result.device}",
    }
    if result.dataset != get_entry(result.name).dataset:
        record["note"] = f"{result.dataset} is not the complete official test set: not comparable with the published"
    echo_record(record)


def _accuracy(measured: float, correct: int, interval: tuple[float, float], published: str) -> str:
    low, high = interval
    return f"{measured:.2f} ({correct} correct; 95% interval {low:.2f} to {high:.2f}); published {published}"


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function of (title, done, total) that draws a bar on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda title, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns: Iterable[Any] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def draw(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title)
            bars.update(tasks[title], completed=done, total=total)

        yield draw


if __name__ == "__main__":
    main()
