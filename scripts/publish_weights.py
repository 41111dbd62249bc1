"""Publish weights on the Hugging Face Hub, and write their hashes into the manifest.

For every row, or those named: fetch the upstream checkpoint, convert it, check that it fits, evaluate it where --data
has its data set, upload all files with a model card in one commit, and write file, hashes and address into the
manifest in one step. Running it again changes nothing. The Hub's token is that of `hf auth login` or HF_TOKEN.

With --pin-only nothing is fetched or uploaded: of the upstream checkpoints that are in the cache, whole hash and size
are written into the manifest, with the date they were fetched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from resnet_zoo.base.progress import download_bar
from resnet_zoo.catalog.manifest import use_manifest
from resnet_zoo.cli.output import echo_table, new_table
from resnet_zoo.errors import NOT_CHECKED, ZooError

if TYPE_CHECKING:
    from resnet_zoo.checks.pinning import Pinning
    from resnet_zoo.checks.publishing import Publication


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--repo", metavar="OWNER/NAME", help="The repository; made if it is not there.")
@click.option("--pin-only", is_flag=True, help="Write hashes and sizes of what was fetched; no upload, no --repo.")
@click.option("--dry-run", is_flag=True, help="Fetch, convert, check and compare; write nothing.")
@click.option(
    "--data", metavar="DIR", help="Folder with cifar10/, cifar100/ or in1k/: rows not measured are evaluated."
)
@click.option("--manifest", metavar="PATH", help="The manifest to write.  [default: the one in use]")
def main(
    names: tuple[str, ...], repo: str | None, pin_only: bool, dry_run: bool, data: str | None, manifest: str | None
) -> None:
    if pin_only and (repo or data):
        raise click.UsageError("--pin-only uploads and measures nothing; leave out --repo and --data.")
    if pin_only:
        from resnet_zoo.checks.pinning import pin_fetched

        with _sentences(), use_manifest(manifest):
            pinned = pin_fetched(names, dry_run=dry_run)
        summarise_pins(pinned, dry_run=dry_run)
        return
    if repo is None:
        raise click.UsageError("Pass --repo OWNER/NAME, or --pin-only.")
    from resnet_zoo.checks.publishing import publish

    with _sentences(), use_manifest(manifest), download_bar() as progress:
        result = publish(names, repo, data=data, dry_run=dry_run, progress=progress)
    summarise(result, dry_run=dry_run)


@contextlib.contextmanager
def _sentences() -> Iterator[None]:
    """Turn errors into a sentence and an exit code."""
    try:
        yield
    except (ZooError, OSError) as error:
        click.echo(f"Error: {error} The manifest is unchanged.", err=True)
        raise click.exceptions.Exit(error.exit_code if isinstance(error, ZooError) else NOT_CHECKED) from error


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


def summarise_pins(result: Pinning, *, dry_run: bool) -> None:
    if not result.sets:
        click.echo(
            "Error: None of these checkpoints is in the cache. `resnet-zoo download NAME --all-sets` fetches them.",
            err=True,
        )
        raise click.exceptions.Exit(NOT_CHECKED)
    table = new_table("Model", "Weights", ">Bytes", "sha256", "Manifest")
    for found in result.sets:
        change = "new" if found.is_new else "unchanged"
        table.add_row(found.name, found.tag, f"{found.size_bytes}", found.sha256[:16], change)
    echo_table(table)
    for name in result.not_fetched:
        click.echo(f"Not fetched: {name}", err=True)
    would = "would be " if dry_run else ""
    click.echo(f"{result.manifest}: {would + 'updated' if result.manifest_changed else 'unchanged'}")


if __name__ == "__main__":
    main()
