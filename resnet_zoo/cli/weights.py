"""``download``, ``convert`` and ``cache``: the weights on this machine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from resnet_zoo.base.progress import download_bar, tell
from resnet_zoo.base.shown import LONGEST_SENTENCE, shown
from resnet_zoo.catalog.listing import DATASET_TITLES
from resnet_zoo.catalog.manifest import list_models
from resnet_zoo.catalog.names import row_named
from resnet_zoo.cli.output import echo_cache, echo_json, echo_prose, echo_record, readable
from resnet_zoo.cli.shell import CommandGroup, examples, format_option, is_debugging, sentence_of
from resnet_zoo.errors import NOT_CHECKED, WRONG, ZooError
from resnet_zoo.weights.cache import cache_path
from resnet_zoo.weights.cache_contents import (
    damaged_files,
    export_mirror,
    list_cache,
    prune,
    remove_files,
    select_files,
)


@click.command(
    epilog=examples(
        "convert resnet50_8xb32_in1k_20210831-ea4938fc.pth resnet50.safetensors",
        "convert resnet50.safetensors for_mmpretrain.pth --layout openmmlab",
        "convert pets.safetensors pets.pth",
    ),
    short_help="Convert a checkpoint to safetensors.",
)
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@click.option("--name", metavar="NAME", help="The model the checkpoint must fit.  [default: found from the file]")
@click.option(
    "--layout",
    type=click.Choice(["resnet_zoo", "torchvision", "timm", "openmmlab", "mmseg"]),
    default="resnet_zoo",
    show_default=True,
    help="Key layout to write; mmseg is also mmdet's.",
)
@click.option("--weights-key", metavar="KEY", help="The key of SOURCE that holds the weights.  [default: found]")
@click.option("--force", is_flag=True, help="Replace TARGET if it exists.")
@format_option("table", "json")
def convert(
    source: str, target: str, name: str | None, layout: Any, weights_key: str | None, force: bool, form: str
) -> None:
    """Convert a checkpoint of any known layout, or a network, to safetensors, without running code from it.

    SOURCE is a checkpoint, a file that finetune or save_network wrote, or hf-hub:owner/name. The same source gives the
    same bytes every time. A TARGET that ends in .pth is written as a PyTorch file, for programs that cannot read
    safetensors.
    """
    if name is not None:
        row_named(name)
    from resnet_zoo.weights.convert import convert_checkpoint

    options = {"name": name, "layout": layout, "weights_key": weights_key, "overwrite": force}
    conversion = asdict(convert_checkpoint(source, target, **options))
    if form == "json":
        echo_json(conversion)
    else:
        echo_record(readable(conversion))


@click.command(
    epilog=examples(
        "download resnet50", "download --all --dataset cifar10", "download resnet50 --mirror https://mirror/zoo"
    ),
    short_help="Fetch weights into the cache, to load them offline later.",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="All models of the zoo.")
@click.option("--dataset", type=click.Choice(list(DATASET_TITLES)), help="With --all: only models of this data set.")
@click.option("--weights", "tag", metavar="TAG", help="A weight set of the models.  [default: each model's default]")
@click.option("--all-sets", is_flag=True, help="Every weight set of the models.")
@format_option("table", "json")
@click.pass_context
def download(
    ctx: click.Context,
    names: tuple[str, ...],
    every: bool,
    dataset: str | None,
    tag: str | None,
    all_sets: bool,
    form: str,
) -> None:
    """Fetch weights into the cache and check them, to load them offline later.

    An interrupted transfer resumes. If a model fails, the error is reported and the others are still fetched; the
    exit code is then 1 if bytes were wrong, otherwise 3.
    """
    if every == bool(names):
        raise click.UsageError("Name the models to download, or pass --all.")
    if dataset is not None and not every:
        raise click.UsageError("--dataset goes with --all.")
    if all_sets and tag is not None:
        raise click.UsageError("--all-sets takes every weight set; leave out --weights.")
    entries = [row_named(name) for name in (names or list_models(dataset=dataset))]
    wanted = [
        (entry, chosen) for entry in entries for chosen in (entry.weights if all_sets else [str(entry.chosen(tag))])
    ]
    from resnet_zoo.weights.loading import open_weights
    from resnet_zoo.weights.provenance import chain_of

    records, exit_codes = [], [0]
    with download_bar() as progress:
        for entry, chosen in wanted:
            try:
                entry.weight_set(chosen)  # a path is nothing to download
                opened = open_weights(entry, chosen, progress=progress)
                records.append({"model": entry.name, "weights": chosen, **asdict(chain_of(opened))})
            except (ZooError, OSError) as error:
                if is_debugging(ctx):
                    raise
                exit_codes.append(getattr(error, "exit_code", NOT_CHECKED))
                title = f"{entry.name}/{chosen}" if all_sets else entry.name
                tell(f"Error: {title}: {shown(sentence_of(error), LONGEST_SENTENCE)}")
    if form == "json":
        echo_json(records)
    else:
        for record in records:
            echo_record(readable(record))
    ctx.exit(WRONG if WRONG in exit_codes else max(exit_codes))


@click.group(
    cls=CommandGroup, epilog=examples("cache list", "cache verify", "cache rm resnet50", "cache export mirror/")
)
def cache() -> None:
    """Manage the weights on this machine."""


@cache.command("dir", epilog=examples("cache dir"))
def cache_dir() -> None:
    """Print the cache folder."""
    click.echo(str(cache_path()))


@cache.command("list", epilog=examples("cache list", "cache list --format json"))
@format_option("table", "json")
def cache_list(form: str) -> None:
    """List the weights in the cache: model and tag, size in bytes, sha256."""
    files = list_cache()
    if form == "json":
        echo_json([asdict(file) for file in files])
    elif files:
        echo_cache(files)
    else:
        tell(f"The cache is empty. `resnet-zoo download NAME` fetches weights into {cache_path()}")


@cache.command("verify", epilog=examples("cache verify", "cache verify --format json"))
@format_option("table", "json")
@click.pass_context
def cache_verify(ctx: click.Context, form: str) -> None:
    """Check the sha256 of every file in the cache.

    Exit code 1 if a file is damaged. The next load puts it aside and fetches it again.
    """
    files = list_cache()
    damaged = damaged_files(files)
    if form == "json":
        echo_json({"checked": len(files), "damaged": [asdict(file) for file in damaged]})
    else:
        click.echo(f"{len(files)} checked, {len(damaged)} damaged")
        for file in damaged:
            echo_prose(
                f"DAMAGED {file.sha256} ({', '.join(file.weights) or 'unknown'}); the next load fetches it again"
            )
    ctx.exit(WRONG if damaged else 0)


@cache.command(
    "rm",
    epilog=examples("cache rm resnet50", "cache rm resnet18_cifar10/openmmlab", "cache rm --all"),
    short_help="Remove weights from the cache.",
)
@click.argument("names_and_tags", nargs=-1, metavar="[NAME[/TAG]]...")
@click.option("--all", "every", is_flag=True, help="All weights in the cache.")
def cache_rm(names_and_tags: tuple[str, ...], every: bool) -> None:
    """Remove weights from the cache: all of a model (NAME), or one weight set of it (NAME/TAG)."""
    if every == bool(names_and_tags):
        raise click.UsageError("Name the models to remove, or pass --all.")
    click.echo(f"{remove_files(list_cache() if every else select_files(names_and_tags)):,} bytes freed")


@cache.command(
    "prune", epilog=examples("cache prune"), short_help="Remove what is unfinished, damaged or no longer used."
)
def cache_prune() -> None:
    """Remove unfinished transfers, damaged files put aside, and weights that no model uses any more."""
    click.echo(f"{prune():,} bytes freed")


@cache.command(
    "export",
    epilog=examples("cache export /media/stick/zoo", "download resnet50 --mirror /media/stick/zoo"),
    short_help="Copy the weights into a folder that works as a mirror.",
)
@click.argument("target", type=click.Path(), metavar="DIR")
@click.pass_context
def cache_export(ctx: click.Context, target: str) -> None:
    """Copy the weights into a folder that works as a mirror on a machine without network.

    A mirror serves weights under the name of their published safetensors file. Weights without one are left out, with
    exit code 3.
    """
    written, left_out = export_mirror(Path(target))
    for path in written:
        click.echo(str(path))
    for name in left_out:
        tell(f"Left out: {name} has no published safetensors file to name it by.")
    ctx.exit(NOT_CHECKED if left_out else 0)
