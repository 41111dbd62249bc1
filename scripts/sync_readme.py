"""Write the table of rows into README.md from the manifest, or check it (``--check``)."""

from __future__ import annotations

import re
from pathlib import Path

import click

from resnet_zoo.listing import as_markdown
from resnet_zoo.manifest import current_manifest

README = Path(__file__).parent.parent / "README.md"

_TABLE = re.compile(r"(?<=<!-- table: begin -->\n).*?(?=<!-- table: end -->)", re.DOTALL)


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if the README would change.")
def main(check: bool) -> None:
    before = README.read_text(encoding="utf-8")
    after, count = _TABLE.subn(lambda _: as_markdown(current_manifest().models), before)
    if count != 1:
        raise click.ClickException(f"{README.name} must have one table between its two marks, found {count}.")
    if after == before:
        click.echo(f"{README.name} is up to date.")
    elif check:
        raise click.ClickException(f"{README.name} is out of date; run python scripts/sync_readme.py")
    else:
        README.write_text(after, encoding="utf-8")
        click.echo(f"{README.name} updated.")


if __name__ == "__main__":
    main()
