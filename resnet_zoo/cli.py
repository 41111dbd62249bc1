"""The ``resnet-zoo`` command: data on stdout, everything else on stderr.

Exit codes: 0 all good, 1 checked and wrong, 2 wrong usage or unknown name, 3 could not be checked.
torch and rich are imported only by the commands that need them.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import io
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from resnet_zoo import __version__
from resnet_zoo.cache import cache_path
from resnet_zoo.errors import NOT_CHECKED, WRONG, DatasetError, ZooError
from resnet_zoo.inventory import damaged_files, export_mirror, list_cache, prune, remove_files, select_files
from resnet_zoo.listing import DATASET_TITLES, as_csv, as_markdown, describe, facts, select
from resnet_zoo.manifest import get_entry, list_models
from resnet_zoo.progress import download_bar, progress_bar
from resnet_zoo.recipes import RECIPES
from resnet_zoo.records import to_json
from resnet_zoo.report import exit_code, reports_as_json, reports_as_junit
from resnet_zoo.terminal import (
    echo_cache,
    echo_entries,
    echo_evaluation,
    echo_json,
    echo_predictions,
    echo_record,
    echo_reports,
)

SIGINT_EXIT, SIGPIPE_EXIT = 130, 141
"""What shells report for a program ended by Ctrl-C and by a closed pipe (128 + signal number)."""


class Failure(click.ClickException):
    """An error for the person at the terminal: one sentence and an exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code: int = code  # type: ignore[misc]  # click declares it for the class only


class ZooGroup(click.Group):
    """A group that turns our errors into sentences and exit codes, and suggests commands for misspelt ones."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the command line, and print the help if asked to; see the class."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # a path or a tick that the pipe's encoding lacks
        with contextlib.suppress(BrokenPipeError):
            return super().make_context(*args, **kwargs)
        _discard_stdout()
        raise click.exceptions.Exit(SIGPIPE_EXIT)

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; see the class."""
        try:
            super().invoke(ctx)
            if sys.stdout is not None:  # none at all, if the shell closed it
                sys.stdout.flush()
        except ZooError as error:
            if ctx.params["debug"]:
                raise
            raise Failure(str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise Failure("Interrupted.", SIGINT_EXIT) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                _discard_stdout()
                ctx.exit(SIGPIPE_EXIT)
            if ctx.params["debug"]:
                raise
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise Failure(f"{what}. Check the path and its permissions.", NOT_CHECKED) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; see the class."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _discard_stdout() -> None:
    """Whoever read our output has enough; nothing may be written to it at exit either."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
@click.option("--offline", is_flag=True, help="Never use the network.  [env: RESNET_ZOO_OFFLINE, HF_HUB_OFFLINE]")
@click.option("--mirror", metavar="URL|DIR", help="Look for weights here first.  [env: RESNET_ZOO_MIRROR]")
@click.option("--manifest", metavar="FILE", help="Manifest of a private zoo.  [env: RESNET_ZOO_MANIFEST]")
def main(debug: bool, offline: bool, mirror: str | None, manifest: str | None) -> None:  # noqa: ARG001  # ZooGroup reads debug
    """Fifteen residual networks whose every number can be checked."""
    given = {
        "RESNET_ZOO_OFFLINE": "1" if offline else None,
        "RESNET_ZOO_MIRROR": mirror,
        "RESNET_ZOO_MANIFEST": manifest,
    }
    os.environ.update({name: value for name, value in given.items() if value is not None})


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
        echo_entries(entries)


@main.command(epilog=examples("show resnet50", "show resnetv1d50 --format json", "show resnet50 --chain"))
@click.argument("name")
@click.option("--chain", is_flag=True, help="Load the weights and show every hash on the way to the tensors.")
@with_options(weights_option, format_option("table", "json"))
def show(name: str, chain: bool, weights: str | None, form: str) -> None:
    """Show everything the manifest says about a row, and its training recipe."""
    entry = get_entry(name)
    if chain:
        from resnet_zoo.chain import chain_of
        from resnet_zoo.zoo import open_weights

        with download_bar() as progress:
            opened = open_weights(entry, weights or entry.default_weights, progress=progress)
        links = asdict(chain_of(opened))
        echo_json(links) if form == "json" else echo_record(links)
    elif form == "json":
        echo_json({**to_json(entry), "training": asdict(RECIPES[entry.recipe])})
    else:
        echo_record(describe(entry))


@main.command(
    epilog=examples(
        "verify",
        "verify resnet50 --weights resnet50.safetensors --data imagenet/",
        "verify --format junit > verify.xml",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--data", type=click.Path(), metavar="DIR", help="Test images: measure top-1 and top-5 too.")
@click.option("--download", is_flag=True, help="Fetch weights that are not in the cache.")
@with_options(weights_option, device_option, *data_options, format_option("table", "json", "junit"))
@click.pass_context
def verify(
    ctx: click.Context,
    names: tuple[str, ...],
    data: str | None,
    download: bool,
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
            download=download,
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
    asked = [*(["top1", "top5"] if data is not None else []), *(["weights"] if weights is not None or download else [])]
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
    else:
        echo_predictions(predictions)


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


@main.command(
    epilog=examples(
        "download resnet50", "download --all --dataset cifar10", "--mirror https://mirror/zoo download resnet50"
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="All rows.")
@click.option("--dataset", type=click.Choice(list(DATASET_TITLES)), help="With --all: only rows of this data set.")
@click.option("--weights", "tag", metavar="TAG", help="A weight set of the rows; default: each row's own default.")
@format_option("table", "json")
@click.pass_context
def download(
    ctx: click.Context, names: tuple[str, ...], every: bool, dataset: str | None, tag: str | None, form: str
) -> None:
    """Fetch weights into the cache, checked, so that they load offline.

    A row that fails is reported, the others are fetched all the same.
    """
    if every == bool(names):
        raise click.UsageError("Name the rows to download, or pass --all.")
    if dataset is not None and not every:
        raise click.UsageError("--dataset goes with --all.")
    entries = [get_entry(name) for name in (names or list_models(dataset=dataset))]
    from resnet_zoo.chain import chain_of
    from resnet_zoo.zoo import open_weights

    records, exit_codes = [], [0]
    with download_bar() as progress:
        for entry in entries:
            try:
                entry.weight_set(tag or entry.default_weights)  # a path is nothing to download
                opened = open_weights(entry, tag or entry.default_weights, progress=progress)
                records.append({"model": entry.name, **asdict(chain_of(opened))})
            except (ZooError, OSError) as error:
                if ctx.find_root().params["debug"]:
                    raise
                exit_codes.append(getattr(error, "exit_code", NOT_CHECKED))
                click.echo(f"Error: {entry.name}: {error}", err=True)
    if form == "json":
        echo_json(records)
    else:
        for record in records:
            echo_record(record)
    ctx.exit(WRONG if WRONG in exit_codes else max(exit_codes))


@main.group(epilog=examples("cache ls", "cache verify", "cache rm resnet50", "cache export mirror/"))
def cache() -> None:
    """Look after the weights on this machine."""


@cache.command("dir")
def cache_dir() -> None:
    """Print the cache folder."""
    click.echo(str(cache_path()))


@cache.command("ls")
@format_option("table", "json")
def cache_ls(form: str) -> None:
    """List the weights in the cache."""
    files = list_cache()
    if form == "json":
        echo_json([asdict(file) for file in files])
    else:
        echo_cache(files)


@cache.command("verify")
@format_option("table", "json")
@click.pass_context
def cache_verify(ctx: click.Context, form: str) -> None:
    """Check the sha256 of every file in the cache; exit code 1 if one is damaged."""
    files = list_cache()
    damaged = damaged_files(files)
    if form == "json":
        echo_json({"checked": len(files), "damaged": [asdict(file) for file in damaged]})
    else:
        click.echo(f"{len(files)} checked, {len(damaged)} damaged")
        for file in damaged:
            click.echo(
                f"DAMAGED {file.sha256} ({', '.join(file.weights) or 'unknown'}); the next load fetches it again"
            )
    ctx.exit(WRONG if damaged else 0)


@cache.command("rm")
@click.argument("names", nargs=-1, metavar="[NAME[/TAG]]...")
@click.option("--all", "every", is_flag=True, help="All weights.")
def cache_rm(names: tuple[str, ...], every: bool) -> None:
    """Remove weights of rows from the cache."""
    if every == bool(names):
        raise click.UsageError("Name the rows to remove, or pass --all.")
    click.echo(f"{remove_files(list_cache() if every else select_files(names))} bytes freed")


@cache.command("prune")
def cache_prune() -> None:
    """Remove unfinished transfers, damaged files put aside, and weights that no row has any more."""
    click.echo(f"{prune()} bytes freed")


@cache.command("export")
@click.argument("target", type=click.Path(), metavar="DIR")
@click.pass_context
def cache_export(ctx: click.Context, target: str) -> None:
    """Copy the weights into a folder that works as a mirror on a machine without network.

    Only weights with a published safetensors file: a mirror serves them under its name. Exit code 3 if others were
    left out.
    """
    written, left_out = export_mirror(Path(target))
    for path in written:
        click.echo(str(path))
    for name in left_out:
        click.echo(f"Left out: {name} has no published safetensors file to name it by.", err=True)
    ctx.exit(NOT_CHECKED if left_out else 0)


@main.command(epilog=examples("env", "env --format json"))
@format_option("table", "json")
def env(form: str) -> None:
    """Show versions, devices, cache and manifest, for a bug report."""
    from resnet_zoo.environment import environment

    found = environment()
    if form == "json":
        echo_json(found)
    else:
        flat = {f"{group} {key}": value for group, values in found.items() for key, value in values.items()}
        echo_record(flat)


if __name__ == "__main__":
    main()
