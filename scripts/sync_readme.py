"""Write the tables of rows and of measured weights into README.md from the manifest, or check them (``--check``)."""

from __future__ import annotations

from pathlib import Path

import click

from resnet_zoo.catalog.listing import as_markdown, measured_as_markdown
from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.cli.options import HELP

README = Path(__file__).parent.parent / "README.md"

TABLES = {"table": as_markdown, "measured": measured_as_markdown}
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
