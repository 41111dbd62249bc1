"""Pictures of training curves: loss, accuracy, learning rate and throughput by epoch.

matplotlib (extra ``plots``) is imported when something is drawn, without pyplot, so that no global state is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_zoo.base.files import write_atomically
from resnet_zoo.catalog.listing import DATASET_TITLES
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.runs.curves import Curve, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_PX, HEIGHT_PX = 1200, 800
_DPI = 100

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's colours, told apart with every kind of colour vision (https://jfly.uni-koeln.de/color/)."""

_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
"""A second mark of each curve, for prints in grey."""

_GREY = "#555555"
_MAX_STEPS = 8
"""A schedule of more learning rates than this is drawn on a linear scale."""

_MANY_TIMES = 5
_EPOCH_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_MAX_MARKED = 40
"""Curves of more points are drawn without a mark at each."""


def draw_curves(curves: Curve | Sequence[Curve], target: str | os.PathLike[str]) -> None:
    """Draw one training, or several over each other, as a PNG of 1200x800 pixels (or an SVG or PDF, by suffix).

    The published top-1 of the row is a line labelled with its data set.

    Args:
        curves: What to draw.
        target: The file to write.

    Raises:
        ArgumentError: matplotlib is not installed, there is no curve, or the suffix is of an unknown format.
        OSError: The file cannot be written.
    """
    curves = [curves] if isinstance(curves, Curve) else list(curves)
    target = Path(target)
    if not curves:
        raise ArgumentError("Expected at least one curve to draw, got none.")
    if target.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise ArgumentError(f"{target}: expected a file that ends in .png, .svg or .pdf.")
    figure = _figure(curves)
    kind = target.suffix[1:].lower()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    write_atomically(target, lambda part: figure.savefig(part, format=kind, metadata=metadata))


def _figure(curves: Sequence[Curve]) -> Figure:
    matplotlib = _matplotlib()
    with matplotlib.rc_context({"font.size": 12, "axes.spines.top": False, "axes.spines.right": False}):
        size = (WIDTH_PX / _DPI, HEIGHT_PX / _DPI)
        layout = matplotlib.layout_engine.ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1)
        figure: Figure = matplotlib.figure.Figure(figsize=size, dpi=_DPI, layout=layout)
        accuracy, loss, rate, speed = figure.subplots(2, 2).flat
        _draw(accuracy, curves, lambda point: point.top1, "Test accuracy: top-1 (%)")
        _draw(loss, curves, lambda point: point.loss, "Training loss: mean of the epoch (nats)")
        _draw(rate, curves, lambda point: point.lr, "Learning rate: last step of the epoch")
        _draw(speed, curves, lambda point: point.images_per_s, "Throughput: training images/s")
        _draw_published(accuracy, curves)
        _write_final_values(accuracy, curves)
        _scale_rate(rate, curves)
        for axes in (loss, speed):
            axes.set_ylim(bottom=0, top=1.08 * axes.get_ylim()[1])
        _write_heading(figure, curves)
    return figure


def _matplotlib() -> Any:
    try:
        import matplotlib
        import matplotlib.figure
        import matplotlib.layout_engine
    except ImportError as error:
        raise ArgumentError("Drawing curves needs matplotlib: pip install 'resnet-zoo[plots]'.") from error
    return matplotlib


def _draw(axes: Axes, curves: Sequence[Curve], value: Callable[[Point], float | None], title: str) -> None:
    """Draw one quantity of every curve; a curve that does not have it is left out."""
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
    axes.set_xlabel("Epoch")
    axes.grid(visible=True, color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    for curve, style in zip(curves, _styles(len(curves)), strict=True):
        known = [(point.epoch, found) for point in curve.points if (found := value(point)) is not None]
        if known:
            marker = "o" if len(known) <= _MAX_MARKED else None
            axes.plot(*zip(*known, strict=True), marker=marker, markersize=4, linewidth=1.8, **style)
    if not axes.lines:
        axes.text(0.5, 0.5, "not in the log", transform=axes.transAxes, ha="center", color=_GREY)
    _scale_epochs(axes, curves)


def _scale_epochs(axes: Axes, curves: Sequence[Curve]) -> None:
    """Leave room at both ends; use a logarithmic scale where one training is many times longer than another."""
    from matplotlib.ticker import MaxNLocator, NullLocator, ScalarFormatter

    ends = [curve.points[-1].epoch for curve in curves]
    first, last = min(curve.points[0].epoch for curve in curves), max(ends)
    if last >= _MANY_TIMES * min(ends):
        axes.set_xscale("log")
        axes.set_xlabel("Epoch (logarithmic)")
        axes.set_xticks([tick for tick in _EPOCH_TICKS if first <= tick <= last])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(0.9 * first, 1.1 * last)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        margin = max(0.5, 0.03 * (last - first))
        axes.set_xlim(first - margin, last + margin)


def _styles(count: int) -> list[dict[str, Any]]:
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(count)]
    return [
        {"color": colour, "linestyle": _DASHES[index % len(_DASHES)], "zorder": 3 + index}
        for index, colour in enumerate(colours)
    ]


def _draw_published(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw each row's published top-1 as a line that says on which data set it was reached."""
    for row in dict.fromkeys(curve.row for curve in curves if curve.row):
        entry = get_entry(row)
        others = {curve.dataset for curve in curves if curve.row == row} - {entry.dataset}
        note = " (not comparable)" if others else ""
        label = f"published {entry.published.top1} on {DATASET_TITLES[entry.dataset]}{note}"
        level = float(entry.published.top1)
        axes.axhline(level, color=_GREY, linewidth=1.2, linestyle=(0, (6, 3)), zorder=2)
        place: dict[str, Any] = {
            "xy": (0.0, level),
            "xycoords": axes.get_yaxis_transform(),
            "textcoords": "offset points",
        }
        axes.annotate(label, xytext=(6, 4), color=_GREY, fontsize=11, va="bottom", **place)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high + 0.1 * (high - low), 104.0))


def _write_final_values(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write what each curve ends at into the lower right corner."""
    for index, (curve, style) in enumerate(zip(curves, _styles(len(curves)), strict=True)):
        if curve.final is None:
            continue
        text = f"epoch {curve.final.epoch}: {curve.final.top1:.2f} on {curve.dataset or 'unknown images'}"
        height = 0.05 + 0.075 * (len(curves) - 1 - index)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5}
        at: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "zorder": 20, "bbox": box}
        axes.text(0.985, height, text, color=style["color"], fontweight="bold", **at)


def _scale_rate(axes: Axes, curves: Sequence[Curve]) -> None:
    """Use a logarithmic scale where the rate falls in steps: two small steps are one line otherwise."""
    rates = {point.lr for curve in curves for point in curve.points if point.lr is not None}
    if rates and min(rates) > 0 and len(rates) <= _MAX_STEPS and max(rates) >= 50 * min(rates):
        axes.set_yscale("log")
    elif rates:
        axes.set_ylim(bottom=0)


def _write_heading(figure: Figure, curves: Sequence[Curve]) -> None:
    """Write the one curve's name, or a legend of several."""
    if len(curves) == 1:
        figure.suptitle(curves[0].title, fontsize=15, x=0.01, ha="left")
        return
    from matplotlib.lines import Line2D

    styles = _styles(len(curves))
    lines = [Line2D([], [], linewidth=2, **{k: v for k, v in style.items() if k != "zorder"}) for style in styles]
    titles = [curve.title for curve in curves]
    figure.legend(lines, titles, loc="outside upper left", ncols=min(2, len(curves)), frameon=False, handlelength=3.5)
