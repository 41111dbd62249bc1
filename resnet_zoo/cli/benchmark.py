"""``benchmark``: how fast rows are on this machine."""

from __future__ import annotations

from dataclasses import asdict

import click

from resnet_zoo.base.progress import progress_bar
from resnet_zoo.catalog.names import check_name
from resnet_zoo.cli.options import RenamedOption
from resnet_zoo.cli.output import echo_benchmark, echo_json
from resnet_zoo.cli.shell import device_option, examples, format_option, int8_options, with_options


@click.command(
    epilog=examples(
        "benchmark resnet50 --fast",
        "benchmark resnet50 --int8 --calibrate photos/",
        "benchmark resnet18 resnet50 --batch-size 1,32 --precision float32,bfloat16 --fast --compile --format csv",
    ),
    short_help="Measure how fast models are on this machine.",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--batch-size",
    "batch_sizes",
    metavar="N,...",
    default="1,16,64",
    show_default=True,
    help="Images per forward pass.",
)
@click.option(
    "--precision",
    "dtypes",
    cls=RenamedOption,
    earlier=["--dtype"],
    metavar="PRECISION,...",
    default="float32",
    show_default=True,
    help="float32, and bfloat16 or float16 where the device supports them natively.",
)
@click.option("--fast", is_flag=True, help="Also measure the network optimised for inference.")
@click.option("--compile", "compiled", is_flag=True, help="Also measure it compiled, which takes a minute per network.")
@click.option("--seconds", type=float, default=1.0, show_default=True, help="Length of each measurement.")
@with_options(int8_options, device_option, format_option("table", "json", "csv"))
def benchmark(
    names: tuple[str, ...],
    batch_sizes: str,
    dtypes: str,
    fast: bool,
    compiled: bool,
    seconds: float,
    calibration: str | None,
    device: str,
    form: str,
) -> None:
    """Measure images per second and latency of the named networks, or of all fifteen models.

    NAME is a model, hf-hub:owner/name, or the path of a network file.

    Matrix peak is the speed of a large matrix product of the same precision on this device; Share is the network's part
    of it; int8 has none. The networks have random values, which take as long as real weights.
    """
    for name in names:
        check_name(name)
    sizes = _numbers(batch_sizes)
    from resnet_zoo.inference.speed import as_csv, measure_speed

    with progress_bar() as progress:
        measured = measure_speed(
            names or None,
            batch_sizes=sizes,
            dtypes=[dtype.strip() for dtype in dtypes.split(",")],
            device=device,
            fast=fast,
            compile=compiled,
            calibration=calibration,
            seconds=seconds,
            progress=lambda _, done, total: progress("measurements", done, total),
        )
    if form == "json":
        echo_json(asdict(measured))
    elif form == "csv":
        click.echo(as_csv(measured), nl=False)
    else:
        echo_benchmark(measured)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"expected numbers such as 1,16,64, got {text!r}", param_hint="--batch-size") from None
