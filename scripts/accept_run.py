"""Verify a run folder, and ship its weights: into weights/, with the run's small files, and into the manifest.

The numbers in the manifest are measured with the very file that ships. A run that does not verify changes nothing, and
weights that are there stay unless --replace is given.
"""

from __future__ import annotations

from typing import Any

import click

from resnet_zoo.base.progress import progress_bar
from resnet_zoo.catalog.manifest import use_manifest
from resnet_zoo.checks.report import exit_code
from resnet_zoo.cli.output import echo_record, echo_reports
from resnet_zoo.cli.shell import ZooCommand, debug_option, device_option
from resnet_zoo.errors import ZooError


@click.command(cls=ZooCommand, help=__doc__)
@click.argument("folder", type=click.Path())
@click.option("--data", type=click.Path(), required=True, metavar="DIR", help="The test images of the run.")
@click.option("--weights-dir", type=click.Path(), metavar="DIR", help="[default: weights, beside the manifest]")
@click.option("--dtype", type=click.Choice(["bfloat16"]), help="Store values so.  [default: as the run did]")
@click.option("--tag", default="retrained", show_default=True, help="What the weight set is called.")
@click.option("--replace", is_flag=True, help="Replace a weight set that is there.")
@click.option("--allow-worse", is_flag=True, help="Accept weights worse than those there or published.")
@click.option("--default", is_flag=True, help="Make it the row's default weight set.")
@click.option("--manifest", metavar="PATH", help="The manifest to write.  [default: the one in use]")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True)
@device_option
@debug_option
@click.pass_context
def main(
    ctx: click.Context,
    folder: str,
    data: str,
    weights_dir: str | None,
    dtype: Any,
    tag: str,
    replace: bool,
    allow_worse: bool,
    default: bool,
    manifest: str | None,
    batch_size: int,
    device: str,
    debug: bool,  # noqa: ARG001  # ZooCommand reads it
) -> None:
    from resnet_zoo.checks.acceptance import PUBLISHED_CHECKS, REQUIRED_CHECKS, accept_run

    options: dict[str, Any] = {"weights_dir": weights_dir, "dtype": dtype, "tag": tag}
    options |= {"replace": replace, "allow_worse": allow_worse, "default": default}
    try:
        with use_manifest(manifest), progress_bar() as progress:
            done = accept_run(folder, data=data, device=device, batch_size=batch_size, progress=progress, **options)
    except (ZooError, OSError):
        click.echo("The manifest is unchanged.", err=True)
        raise
    echo_reports([done.report])
    if done.weights is None or done.weights.file is None or done.weights.measured is None:
        way = " --allow-worse accepts it nevertheless." if {*done.missed} <= {*PUBLISHED_CHECKS} else ""
        click.echo(f"Not accepted ({', '.join(done.missed)}). The manifest is unchanged.{way}", err=True)
        ctx.exit(exit_code([done.report], asked=REQUIRED_CHECKS))
    measured, file = done.weights.measured, done.weights.file
    record = {
        "weights": f"{done.path}, {file.size_bytes:,} bytes",
        "sha256": file.sha256,
        "run files": str(done.folder),
        "measured": f"top-1 {measured.top1:.2f}, top-5 {measured.top5:.2f} on {measured.dataset}",
        "manifest": f"{done.report.name}, weights {done.tag!r}",
    }
    echo_record(record | ({"no longer named": f"{done.replaced} (remove it)"} if done.replaced else {}))


if __name__ == "__main__":
    main()
