"""``accept`` and ``publish``: weights of one's own training, and of upstream, written into the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from resnet_zoo.base.progress import download_bar, progress_bar, tell
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.checks.report import exit_code
from resnet_zoo.cli.options import HELP, manifest_option, with_common_options
from resnet_zoo.cli.output import echo_record, echo_reports, echo_table, new_table
from resnet_zoo.cli.shell import (
    Failure,
    ZooCommand,
    batch_size_option,
    device_option,
    examples,
    with_options,
)
from resnet_zoo.errors import NOT_CHECKED, ZooError

if TYPE_CHECKING:
    from resnet_zoo.checks.pinning import Pinning
    from resnet_zoo.checks.publishing import Publication


@contextlib.contextmanager
def _manifest_unchanged() -> Iterator[None]:
    """Say on stderr, before an error, that the manifest is as it was."""
    try:
        yield
    except (ZooError, OSError):
        tell("The manifest is unchanged.")
        raise


# --- accept -------------------------------------------------------------------------------------------------------


@click.command(
    cls=ZooCommand,
    context_settings=HELP,
    epilog=examples(
        "accept runs/resnet18_cifar10/20261124T203719Z --data cifar10/",
        "accept runs/resnet18_cifar10/20261124T203719Z --data cifar10/ --tag mine --dtype bfloat16 --manifest zoo.json",
    ),
    short_help="Verify a run, and enter its weights into the manifest.",
)
@click.argument("folder", type=click.Path())
@click.option("--data", type=click.Path(), required=True, metavar="DIR", help="The test images of the run.")
@click.option(
    "--weights-dir",
    type=click.Path(),
    metavar="DIR",
    help="Where the files go.  [default: weights, beside the manifest]",
)
@click.option("--dtype", type=click.Choice(["bfloat16"]), help="Type of the stored values.  [default: the run's]")
@click.option("--tag", default="retrained", show_default=True, help="Name of the weight set.")
@click.option("--replace", is_flag=True, help="Replace a weight set with this name.")
@click.option("--allow-worse", is_flag=True, help="Accept weights worse than those there or published.")
@click.option("--default", is_flag=True, help="Make it the model's default weight set.")
@with_options(manifest_option, batch_size_option(64), device_option)
@click.pass_context
def accept(ctx: click.Context, /, folder: str, data: str, device: str, batch_size: int, **options: Any) -> None:
    """Verify the run in FOLDER, and make its weights a weight set of the manifest, with the run's small files.

    The numbers in the manifest are measured with the very file that is written. A run that does not verify changes
    nothing, and existing weights stay unless you pass --replace.

    The manifest is that of a checkout, or a copy of your own that --manifest names.
    """
    from resnet_zoo.checks.acceptance import PUBLISHED_CHECKS, REQUIRED_CHECKS, accept_run

    with _manifest_unchanged(), progress_bar() as progress:
        done = accept_run(folder, data=data, device=device, batch_size=batch_size, progress=progress, **options)
    echo_reports([done.report])
    if done.weights is None or done.weights.file is None or done.weights.measured is None:
        way = " --allow-worse accepts it nevertheless." if {*done.missed} <= {*PUBLISHED_CHECKS} else ""
        tell(f"Not accepted ({', '.join(done.missed)}). The manifest is unchanged.{way}")
        ctx.exit(exit_code([done.report], asked=REQUIRED_CHECKS))
    measured, file = done.weights.measured, done.weights.file
    record = {
        "weights": f"{done.path} ({file.size_bytes:,} bytes)",
        "sha256": file.sha256,
        "run files": str(done.folder),
        "measured": f"top-1 {measured.top1:.2f}%, top-5 {measured.top5:.2f}% on {measured.dataset}",
        "manifest": f"{done.report.name}, weights {done.tag!r}",
    }
    echo_record(record | ({"no longer named": f"{done.replaced} (remove it)"} if done.replaced else {}))


# --- publish ------------------------------------------------------------------------------------------------------


@click.command(
    cls=ZooCommand,
    context_settings=HELP,
    epilog=examples(
        "publish resnet50 --repo owner/name --dry-run --manifest zoo.json",
        "publish resnet50 --repo owner/name --manifest zoo.json",
        "publish --pin-only",
    ),
    short_help="Publish weights on the Hub, and enter their hashes.",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--repo", metavar="OWNER/NAME", help="The repository; created if it does not exist.")
@click.option("--pin-only", is_flag=True, help="Write hashes and sizes of what was fetched; no upload, no --repo.")
@click.option("--dry-run", is_flag=True, help="Fetch, convert, check and compare; write nothing.")
@click.option("--data", metavar="DIR", help="Folder with cifar10/, cifar100/ or in1k/, to evaluate unmeasured models.")
@manifest_option
def publish(names: tuple[str, ...], repo: str | None, pin_only: bool, dry_run: bool, data: str | None) -> None:
    """Publish weights on the Hugging Face Hub, and write their hashes into the manifest.

    For the named models, or all: fetch the upstream checkpoint, convert it, check that it fits, evaluate it if --data
    has its data set, upload all files with a model card in one commit, and write file, hashes and address into the
    manifest in one step. Running it again changes nothing. The Hub's token is that of `hf auth login` or HF_TOKEN.

    With --pin-only nothing is fetched or uploaded: the whole hash and size of each upstream checkpoint in the cache
    are written into the manifest, with the date it was fetched.

    The manifest is that of a checkout, or a copy of your own that --manifest names.
    """
    if pin_only and (repo or data):
        raise click.UsageError("--pin-only uploads and measures nothing; leave out --repo and --data.")
    if repo is None and not pin_only:
        raise click.UsageError("Pass --repo OWNER/NAME, or --pin-only.")
    with _manifest_unchanged():
        for name in names:
            get_entry(name)  # a misspelt name is reported before torch is imported
        if repo is None:
            from resnet_zoo.checks.pinning import pin_fetched

            _echo_pins(pin_fetched(names, dry_run=dry_run), dry_run=dry_run)
            return
        from resnet_zoo.checks import publishing

        with download_bar() as progress:
            result = publishing.publish(names, repo, data=data, dry_run=dry_run, progress=progress)
    _echo_publication(result, dry_run=dry_run)


def _echo_publication(result: Publication, *, dry_run: bool) -> None:
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


def _echo_pins(result: Pinning, *, dry_run: bool) -> None:
    if not result.sets:
        raise Failure(
            "None of these checkpoints is in the cache. `resnet-zoo download NAME --all-sets` fetches them.",
            NOT_CHECKED,
        )
    table = new_table("Model", "Weights", ">Bytes", "sha256", "Manifest")
    for found in result.sets:
        change = "new" if found.is_new else "unchanged"
        table.add_row(found.name, found.tag, f"{found.size_bytes}", found.sha256[:16], change)
    echo_table(table)
    for name in result.not_fetched:
        tell(f"Not fetched: {name}")
    would = "would be " if dry_run else ""
    click.echo(f"{result.manifest}: {would + 'updated' if result.manifest_changed else 'unchanged'}")


for command in (accept, publish):
    with_common_options(command, hidden=True)
