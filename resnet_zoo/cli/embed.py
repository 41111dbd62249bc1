"""``embed``: a vector per image."""

from __future__ import annotations

from dataclasses import asdict

import click

from resnet_zoo.base.progress import progress_bar
from resnet_zoo.catalog.names import check_name
from resnet_zoo.cli.options import RenamedOption
from resnet_zoo.cli.output import echo_json, echo_record, readable
from resnet_zoo.cli.shell import (
    batch_size_option,
    device_option,
    echo_skipped,
    example,
    examples,
    fast_option,
    format_option,
    going_on_later,
    image_column_option,
    int8_options,
    size_option,
    weights_option,
    with_options,
)


@click.command(
    epilog=examples(
        "embed resnet50 photos/ -o photos.npy --fast",
        "embed tuned.safetensors photos/ more/ cat.jpg -o photos.parquet",
        "embed resnet50 shards/*.tar 's3://bucket/data/*.parquet' -o all.npy",
    )
    + "\n"
    + example("torchrun --nproc-per-node 2 -m resnet_zoo embed resnet50 photos/ -o photos.safetensors"),
    short_help="Write a vector per image: the pooled features.",
)
@click.argument("name")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-o", "--output", required=True, metavar="OUT", help="The .npy, .safetensors or .parquet file to write.")
@batch_size_option(16)
@click.option(
    "--num-workers",
    "-j",
    "num_threads",
    cls=RenamedOption,
    earlier=["--num-threads"],
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads that read images, and on a CPU compute.  [default: one per core]",
)
@click.option("--force", is_flag=True, help="Replace OUT, or an unfinished run that began differently.")
@with_options(
    image_column_option,
    weights_option,
    size_option,
    device_option,
    fast_option,
    int8_options,
    format_option("table", "json"),
)
def embed(
    name: str,
    paths: tuple[str, ...],
    output: str,
    batch_size: int,
    num_threads: int | None,
    force: bool,
    image_column: str,
    weights: str | None,
    size: int | None,
    device: str,
    fast: bool,
    calibration: str | None,
    form: str,
) -> None:
    """Write one vector per image: the pooled features before the classifier.

    NAME is a model, hf-hub:owner/name, or the path of a network file. PATH is an image, a folder, a tar shard (.tar), a
    .parquet file, or a pattern ('shard-{000..003}.tar'); s3://, https:// and other addresses need fsspec's driver.
    Images in shards are named shard.tar/MEMBER and file.parquet#ROW. Unreadable images are left out and listed in
    OUT.bad.jsonl. The paths are in OUT.paths.json (.npy), or in OUT itself. Run the same command again to resume an
    interrupted run. Under torchrun the processes share the work.
    """
    check_name(name, weights=weights, size=size)  # what is misspelt is reported before torch is imported
    from resnet_zoo.inference.embedding_files import embed_files

    with going_on_later(), progress_bar() as progress:
        written = embed_files(
            name,
            paths,
            output,
            weights=weights,
            size=size,
            device=device,
            batch_size=batch_size,
            num_threads=num_threads,
            fast=fast,
            image_column=image_column,
            calibration=calibration,
            overwrite=force,
            on_bad=echo_skipped,
            progress=lambda done, total: progress(name, done, total),
        )
    if written is None:  # the first process of a torchrun prints for all
        return
    if form == "json":
        echo_json(asdict(written))
    else:
        echo_record(readable(asdict(written)))
