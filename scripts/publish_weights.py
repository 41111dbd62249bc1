"""Publish weights on the Hugging Face Hub, and write their hashes into the manifest.

For every row, or those named: fetch the upstream checkpoint, convert it, check that it fits, evaluate it where --data
has its data set, upload all files with a model card in one commit, and write file, hashes and address into the
manifest in one step. Running it again changes nothing. The Hub's token is that of `hf auth login` or HF_TOKEN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from resnet_zoo.errors import NOT_CHECKED, ZooError
from resnet_zoo.manifest import use_manifest
from resnet_zoo.progress import download_bar
from resnet_zoo.terminal import echo_table, new_table

if TYPE_CHECKING:
    from resnet_zoo.publish import Publication


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--repo", required=True, metavar="OWNER/NAME", help="The repository; made if it is not there.")
@click.option("--dry-run", is_flag=True, help="Fetch, convert, check and compare; write nothing.")
@click.option(
    "--data", metavar="DIR", help="Folder with cifar10/, cifar100/ or in1k/: rows not measured are evaluated."
)
@click.option("--manifest", metavar="PATH", help="The manifest to write.  [default: the one in use]")
def main(names: tuple[str, ...], repo: str, dry_run: bool, data: str | None, manifest: str | None) -> None:
    from resnet_zoo.publish import publish

    try:
        with use_manifest(manifest), download_bar() as progress:
            result = publish(names, repo, data=data, dry_run=dry_run, progress=progress)
    except (ZooError, OSError) as error:
        click.echo(f"Error: {error} The manifest is unchanged.", err=True)
        raise click.exceptions.Exit(error.exit_code if isinstance(error, ZooError) else NOT_CHECKED) from error
    summarise(result, dry_run=dry_run)


def summarise(result: Publication, *, dry_run: bool) -> None:
    table = new_table("Model", "Weights", ">Bytes", "sha256", "Measured", "Manifest")
    for found in result.sets:
        accuracy = f"top-1 {found.measured.top1:.2f}" if found.measured else "-"
        change = "new" if found.is_new else "unchanged"
        table.add_row(found.name, found.tag, f"{found.file.size_bytes}", found.file.sha256[:16], accuracy, change)
    echo_table(table)
    would = "would be " if dry_run else ""
    uploads = f"{result.num_uploaded} files {would}uploaded" if result.num_uploaded else "nothing to upload"
    click.echo(f"{result.repository}: {uploads}, commit {result.revision or '(none yet)'}")
    click.echo(f"{result.manifest}: {would + 'updated' if result.manifest_changed else 'unchanged'}")


if __name__ == "__main__":
    main()
