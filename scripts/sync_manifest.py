"""Write the counted integers of every row (the ``exact`` block) into the manifest, or check them (``--check``)."""

from __future__ import annotations

import json

import click

from resnet_zoo.catalog.manifest import format_manifest, manifest_path, read_manifest
from resnet_zoo.catalog.records import to_json
from resnet_zoo.checks.rows import count_exact
from resnet_zoo.cli.options import HELP
from resnet_zoo.network.building import build_on_meta


@click.command(help=__doc__, context_settings=HELP)
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if the manifest would change.")
def main(check: bool) -> None:
    path = manifest_path()
    before = path.read_text(encoding="utf-8")
    content = json.loads(before)
    for row, entry in zip(content["models"], read_manifest(path).models, strict=True):
        row["exact"] = to_json(count_exact(entry, build_on_meta(entry)))
    after = format_manifest(content)
    if after == before:
        click.echo(f"{path.name} is up to date.")
    elif check:
        raise click.ClickException(f"{path.name} is out of date; run python scripts/sync_manifest.py")
    else:
        path.write_text(after, encoding="utf-8")
        click.echo(f"{path.name} updated.")


if __name__ == "__main__":
    main()
