"""The speed of every row as it comes and optimised, in float32."""

from __future__ import annotations

import click

from benchmarks.timing import MEASURED, Options
from resnet_zoo.catalog.measurements import RowSpeed

BATCH_SIZE = 8

SECONDS = 1.0
"""Of each measurement, which takes at least five runs."""


def measure(options: Options) -> None:  # noqa: ARG001  # every part is called alike
    """Print the table."""
    from resnet_zoo import measure_speed

    for speed in measure_speed(batch_sizes=[BATCH_SIZE], fast=True, seconds=SECONDS).speeds:
        title = f"{speed.name}, {speed.mode} {speed.dtype}"
        click.echo(f"  {title:44} {speed.latency_ms:9.1f} ms {speed.images_per_s:9.1f} images/s")
        facts = (speed.name, speed.mode, speed.dtype, speed.batch_size)
        MEASURED.append(RowSpeed(*facts, round(speed.images_per_s, 2), round(speed.latency_ms, 3)))
    click.echo()
