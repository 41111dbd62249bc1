"""Write the tables of README.md, of the models and of their weights, from the manifest, or check them (``--check``)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from resnet_zoo.catalog.listing import DATASET_TITLES
from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.catalog.records import Entry
from resnet_zoo.cli.options import HELP
from resnet_zoo.weights.cache_contents import WeightFacts, weight_facts

README = Path(__file__).parent.parent / "README.md"

SITE = "https://org.github.io/resnet_zoo/zoo/"


def models_table(entries: Iterable[Entry]) -> str:
    """Return the models, each with a link to its page; what was measured here beside what is published."""
    rows = [
        ("Model", "Data set", "Params (M)", "FLOPs (G)", "Top-1 (%)", "Measured here", "Weights"),
        ("---", "---", "---:", "---:", "---:", "---:", "---"),
    ]
    for entry in entries:
        published, sets = entry.published, weight_facts([entry], with_caches=False)
        shipped = [one for one in sets if one.place == "ships"]
        rows.append(
            (
                f"[`{entry.name}`]({SITE}models/{entry.name}.html)",
                DATASET_TITLES[entry.dataset],
                published.params_m,
                published.flops_g,
                published.top1,
                ", ".join(tested.top1 for one in shipped for tested in one.tested) or "-",
                f"{len(shipped)} ships, {len(sets) - len(shipped)} to fetch" if shipped else f"{len(sets)} to fetch",
            )
        )
    return _table(rows)


def weights_table(entries: Sequence[Entry]) -> str:
    """Return which weights there are: each set that ships, and those of each host together."""
    sizes_mb = {entry.name: 4 * entry.exact.params / 1e6 for entry in entries}  # float32
    rows = [("Weights", "Where", "Size", "Top-1 (%)", "Works offline"), ("---", "---", "---:", "---", "---")]
    hosts: dict[str, list[WeightFacts]] = defaultdict(list)
    for one in weight_facts(entries, with_caches=False):
        if one.place == "ships":
            (tested,), size_mb = one.tested, (one.size_bytes or 0) / 1e6
            top1 = f"{tested.top1}, measured here on {tested.source}"
            rows.append((f"`{one.model}`, `{one.weights}`", "in the checkout", f"{size_mb:.0f} MB", top1, "yes"))
        else:
            hosts[one.place].append(one)
    for host, sets in sorted(hosts.items(), key=lambda item: -len(item[1])):
        sizes, models = [sizes_mb[one.model] for one in sets], {one.model for one in sets}
        top1s = sorted((tested.top1 for one in sets for tested in one.tested), key=float)
        rows.append(
            (
                f"{len(sets)} sets of {len(models)} models",
                host,
                f"{min(sizes):.0f} to {max(sizes):.0f} MB",
                f"{top1s[0]} to {top1s[-1]}, as their publishers print it",
                "after `resnet-zoo download NAME`",
            )
        )
    return _table(rows)


def _table(rows: Iterable[Iterable[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


TABLES = {"weights": weights_table, "models": models_table}
"""What stands between ``<!-- KEY: begin -->`` and ``<!-- KEY: end -->``."""


@click.command(help=__doc__, context_settings=HELP)
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if the README would change.")
def main(check: bool) -> None:
    before = README.read_text(encoding="utf-8")
    after = before
    for key, write in TABLES.items():
        begin, end = f"<!-- {key}: begin -->\n", f"<!-- {key}: end -->"
        if (after.count(begin), after.count(end)) != (1, 1) or after.index(begin) > after.index(end):
            raise click.ClickException(f"{README.name} must have {begin.strip()} and then {end}, once each.")
        head, _, rest = after.partition(begin)
        after = head + begin + write(current_manifest().models) + rest[rest.index(end) :]
    if after == before:
        click.echo(f"{README.name} is up to date.")
    elif check:
        raise click.ClickException(f"{README.name} is out of date; run python scripts/sync_readme.py")
    else:
        README.write_text(after, encoding="utf-8")
        click.echo(f"{README.name} updated.")


if __name__ == "__main__":
    main()
