"""``diff-log``: two trainings compared."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resnet_zoo.base.files import check_target
from resnet_zoo.cli.output import echo_json, echo_record, echo_table, new_table
from resnet_zoo.cli.shell import examples, format_option, with_options
from resnet_zoo.runs.comparison import CurveComparison, Reached, compare_curves, some_epochs
from resnet_zoo.runs.curves import Curve, read_curve

if TYPE_CHECKING:
    from rich.table import Table


@click.command(
    "diff-log",
    epilog=examples(
        "diff-log runs/resnet18_cifar10/20261124T203719Z other_run/ --plot curves.png",
        "diff-log my_run/ resnet18_b16x8_cifar10_20210528-bd6371c8.log.json",
    ),
)
@click.argument("run", type=click.Path())
@click.argument("other", type=click.Path())
@click.option("--plot", type=click.Path(), metavar="FILE", help="Draw both as a .png, .svg or .pdf (extra `plots`).")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@with_options(format_option("table", "json"))
def diff_log(run: str, other: str, plot: str | None, force: bool, form: str) -> None:
    """Compare the curves of two trainings, RUN and OTHER.

    Each is a run folder, its log.jsonl, an OpenMMLab .log.json, or a vis_data/*.json of mmengine. Differences are
    OTHER minus RUN.
    """
    if plot is not None:
        check_target(Path(plot), overwrite=force)
    comparison = compare_curves(read_curve(run), read_curve(other))
    if plot is not None:
        from resnet_zoo.runs.plot import draw_curves

        draw_curves([comparison.first, comparison.second], plot)
    if form == "json":
        echo_json(asdict(comparison))
        return
    echo_table(_epochs_table(comparison), narrow=("LR RUN", "LR OTHER", "±", "Loss RUN", "Loss OTHER"))
    click.echo()
    echo_record(_summary(comparison))


def _epochs_table(comparison: CurveComparison) -> Table:
    titles = ("Loss", "LR", "Top-1 (%)")
    headers = [f">{title} {which}" for title in titles for which in ("RUN", "OTHER")]
    table = new_table(">Epoch", *headers[:2], ">±", *headers[2:6], ">±")
    for pair in some_epochs(comparison):
        losses, rates, accuracies = (
            [getattr(point, name, None) for point in (pair.first, pair.second)] for name in ("loss", "lr", "top1")
        )
        table.add_row(
            str(pair.epoch),
            *(_number(value, ".4f") for value in losses),
            _number(pair.loss_difference, "+.4f"),
            *(_number(value, ".4g") for value in rates),
            *(_number(value, ".2f") for value in accuracies),
            _number(pair.top1_difference, "+.2f"),
        )
    return table


def _summary(comparison: CurveComparison) -> dict[str, str]:
    first, second, gap = comparison.first, comparison.second, comparison.largest_gap
    summary = {
        "RUN": _title(first),
        "OTHER": _title(second),
        "final top-1 (%)": f"{_final(first)} and {_final(second)}: {_number(comparison.final_top1_difference, '+.2f')}",
        "largest gap": f"{_number(gap.top1_difference, '+.2f')} points after epoch {gap.epoch}" if gap else "-",
        "RUN reaches OTHER's": _reached(comparison.first_reached),
        "OTHER reaches RUN's": _reached(comparison.second_reached),
        "training time": f"{_time(comparison.first_seconds)} and {_time(comparison.second_seconds)}",
    }
    return summary | ({"note": comparison.note} if comparison.note else {})


def _title(curve: Curve) -> str:
    count = len(curve.points)
    epochs = f"{count} epoch{'s' if count != 1 else ''}"
    return f"{curve.title}: {epochs}, {curve.dataset or 'unknown data set'} ({curve.format} log)"


def _final(curve: Curve) -> str:
    return f"{curve.final.top1:.2f} after epoch {curve.final.epoch}" if curve.final else "-"


def _reached(reached: Reached | None) -> str:
    if reached is None:
        return "-"
    if reached.epoch is None:
        return f"never ({reached.target:.2f})"
    time = f", {_time(reached.seconds)}" if reached.seconds is not None else ""
    return f"{reached.target:.2f} after epoch {reached.epoch}{time}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
