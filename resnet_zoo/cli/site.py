"""``site``: the zoo as web pages."""

from __future__ import annotations

import click

from resnet_zoo.base.progress import tell
from resnet_zoo.base.shown import LONGEST_SENTENCE, shown
from resnet_zoo.cli.shell import examples


@click.command(
    epilog=examples(
        "site zoo/",
        "site zoo/ --runs runs/",
        "site zoo/ --report verify.json --samples samples/",
        "site docs/zoo/ --docs ../",
    )
)
@click.argument("out", type=click.Path())
@click.option("--runs", type=click.Path(), metavar="DIR", help="Show the trainings in these run folders too.")
@click.option("--report", type=click.Path(), metavar="FILE", help="Output of `resnet-zoo verify --format json`.")
@click.option("--benchmark", type=click.Path(), metavar="FILE", help="Output of `resnet-zoo benchmark --format json`.")
@click.option("--samples", type=click.Path(), metavar="DIR", help="Images to classify: DIR/cifar10/, DIR/in1k/.")
@click.option("--docs", default="", metavar="URL", help="Link to documentation: https://…, or relative to OUT.")
@click.option("--force", is_flag=True, help="Write into OUT even if it holds other files, which stay.")
def site(
    out: str,
    runs: str | None,
    report: str | None,
    benchmark: str | None,
    samples: str | None,
    docs: str,
    force: bool,
) -> None:
    """Write the zoo as a static web site into the folder OUT.

    The site has the table of all models, plots, a page for each, measured speeds, and a page on what is counted and
    checked. It opens from disk and needs no network; its links are relative, so it can stand inside another site. OUT
    must be empty, not exist yet, or hold an earlier site, which is replaced.

    Copies of the --samples become part of the site: pass only images that you may publish.
    """
    from resnet_zoo.site import build_site

    made = build_site(out, runs=runs, report=report, benchmark=benchmark, samples=samples, docs=docs, force=force)
    for reason in made.left_out:
        tell(f"Left out: {shown(reason, LONGEST_SENTENCE)}")
    click.echo(
        f"{made.num_pages} pages, {made.size_bytes:,} bytes: {click.format_filename(made.folder / 'index.html')}"
    )
