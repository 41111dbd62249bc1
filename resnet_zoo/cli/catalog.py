"""``list``, ``show`` and ``env``: rows, weight sets and this machine."""

from __future__ import annotations

import os
from dataclasses import asdict, replace

import click

from resnet_zoo.base.progress import download_bar, tell
from resnet_zoo.catalog.listing import DATASET_TITLES, as_csv, as_markdown, facts, select
from resnet_zoo.catalog.manifest import get_entry, list_models
from resnet_zoo.catalog.names import check_name
from resnet_zoo.catalog.recipes import RECIPES
from resnet_zoo.catalog.records import Entry, is_tag, to_json, used_with
from resnet_zoo.cli.networks import describe_network, facts_of_network
from resnet_zoo.cli.output import echo_entries, echo_json, echo_record, echo_weight_sets, readable
from resnet_zoo.cli.row import echo_row
from resnet_zoo.cli.shell import examples, format_option, weights_option, with_options
from resnet_zoo.weights.cache_contents import WeightFacts, facts_of_weights, weight_facts


@click.command(
    "list",
    epilog=examples(
        "list resnet50",
        "list 'resnet*_cifar10' --sort top1:desc",
        "list --where 'params_m<25' --where 'top1>75' --format json",
        "list resnet50 --weights",
    ),
)
@click.argument("pattern", required=False)
@click.option("--dataset", type=click.Choice(list(DATASET_TITLES)), help="Only models of this data set.")
@click.option(
    "--where", multiple=True, metavar="KEY<VALUE", help="Only models that meet this (< <= = >= >); repeatable."
)
@click.option("--sort", metavar="KEY[:desc]", help="Sort by a key of the JSON output.")
@click.option("-q", "--quiet", is_flag=True, help="Names only, one per line.")
@click.option("--weights", "every_set", is_flag=True, help="List the models' weight sets.")
@click.option("--local", is_flag=True, help="List the weight sets on this machine.")
@format_option("table", "json", "csv", "markdown")
def list_command(
    pattern: str | None,
    dataset: str | None,
    where: tuple[str, ...],
    sort: str | None,
    quiet: bool,
    every_set: bool,
    local: bool,
    form: str,
) -> None:
    """List the models of the zoo, or those whose name matches PATTERN.

    PATTERN has wildcards (quote them), or is part of the name. Parameters are in millions, FLOPs in billions (one
    multiply-accumulate counts as one), top-1 and top-5 in percent, all as published. KEY is a key of the JSON output:
    name, architecture, dataset, num_classes, params_m, flops_g, top1, top5, params, flops, macs.

    The Weights column says where a model's default weights are: they ship with the checkout, are here in a cache, or
    must be fetched. If they must, and other sets of the model are on this machine, it counts those: 1 ships.

    With --weights or --local each line is a weight set, with a star for its model's default: top-1 as its publisher
    printed it, height and width of the test images, how many bits of its sha256 are known before the download, and
    where it is or where it would come from.
    """
    if (every_set or local) and (quiet or form not in ("table", "json")):
        raise click.UsageError("--weights and --local go with --format table or json.")
    entries = select(map(get_entry, list_models(pattern, dataset=dataset)), where, sort)
    if not entries:
        tell("No model matches; `resnet-zoo list` shows all.")
    if every_set or local:
        sets = [found for found in weight_facts(entries) if found.is_here or not local]
        if local and not sets:
            tell("No weights of these models are on this machine; `resnet-zoo download NAME` fetches them.")
        echo_json([asdict(found) for found in sets]) if form == "json" else echo_weight_sets(sets)
    elif quiet:
        click.echo("".join(f"{entry.name}\n" for entry in entries), nl=False)
    elif form == "json":
        echo_json([facts(entry) | {"place": _place(entry)} for entry in entries])
    elif form == "csv":
        click.echo(as_csv(entries), nl=False)
    elif form == "markdown":
        click.echo(as_markdown(entries), nl=False)
    else:
        echo_entries(entries, {entry.name: _sets(entry) for entry in entries})


def _sets(entry: Entry) -> list[WeightFacts]:
    """Return a row's weight sets; the Hub's client, slow to import, is asked about its cache for a default set only."""
    on_hub = {tag for tag, found in entry.weights.items() if found.file is not None and found.file.is_on_hub}
    asked = {*entry.weights} - (on_hub - {entry.default_weights})
    return [facts_of_weights(entry, tag, with_caches=tag in asked) for tag in entry.weights]


def _place(entry: Entry) -> str:
    """Return where a row's default weights are."""
    return facts_of_weights(entry, entry.default_weights).place


@click.command(
    epilog=examples(
        "show resnet50", "show resnetv1d50 --format json", "show resnet50 --chain", "show pets.safetensors"
    ),
    short_help="Show everything that is known about a model or network.",
)
@click.argument("name")
@click.option(
    "--chain", is_flag=True, help="Load the weights (fetching them if needed) and show every hash on the way."
)
@with_options(weights_option, format_option("table", "json"))
def show(name: str, chain: bool, weights: str | None, form: str) -> None:
    """Show everything the manifest says about a model, and its training recipe; or what a network says of itself.

    NAME is a model or an alias, hf-hub:owner/name, or the path of a network file. --weights TAG shows the model with
    the preprocessing of that weight set. --chain follows a file from the manifest to the tensors in memory: source,
    sha256 at each step, and what vouches for it. It follows the file of --weights, or the model's default.
    """
    if check_name(name, weights=weights) != "row":
        _show_network(name, chain=chain, form=form)
        return
    entry = get_entry(name)
    weights = None if weights is None else os.fspath(entry.chosen(weights))
    if weights is not None and not chain:
        if not is_tag(weights):
            raise click.UsageError("A file is shown with --chain; without it, --weights takes a tag of the model.")
        entry = replace(used_with(entry, weights), weights={weights: entry.weight_set(weights)})
    if chain:
        from resnet_zoo.weights.loading import open_weights
        from resnet_zoo.weights.provenance import chain_of

        with download_bar() as progress:
            opened = open_weights(entry, weights or entry.default_weights, progress=progress)
        links = asdict(chain_of(opened))
        echo_json(links) if form == "json" else echo_record(readable(links))
    elif form == "json":
        echo_json({**to_json(entry), "training": asdict(RECIPES[entry.recipe])})
    else:
        echo_row(entry)


def _show_network(name: str, *, chain: bool, form: str) -> None:
    """Show what a file or repository says of itself, and what is counted."""
    from resnet_zoo.zoo import open_network

    network = open_network(name)
    if chain:
        links = asdict(network.chain)
        echo_json(links) if form == "json" else echo_record(readable(links))
    elif form == "json":
        echo_json(facts_of_network(network))
    else:
        echo_record(describe_network(network))


@click.command(epilog=examples("env", "env --format json"))
@format_option("table", "json")
def env(form: str) -> None:
    """Show versions, devices, cache and manifest, for a bug report."""
    from resnet_zoo.cli.environment import environment, in_words

    found = environment()
    if form == "json":
        echo_json(found)
    else:
        echo_record(in_words(found))
