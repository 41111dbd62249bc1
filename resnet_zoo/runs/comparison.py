"""Two training curves held against each other, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from resnet_zoo.runs.curves import Curve, Point


@dataclass(frozen=True, kw_only=True)
class EpochPair:
    """An epoch of both curves, ``None`` where one has ended; differences are the second less the first."""

    epoch: int
    first: Point | None
    second: Point | None
    loss_difference: float | None
    top1_difference: float | None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """When a curve first reaches the other's final accuracy.

    Attributes:
        target: The other's final top-1 in percent.
        epoch: The epoch, ``None`` if it never does.
        seconds: Training time until then, where the log says.
    """

    target: float
    epoch: int | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class CurveComparison:
    """What `compare_curves` found; differences are the second less the first.

    Attributes:
        first: The one curve.
        second: The other.
        note: Why the accuracies are not comparable, empty if they are.
        epochs: Every epoch that either has.
        final_top1_difference: Of the last evaluated epochs, in points.
        largest_gap: The pair whose top-1 differ most, ``None`` if no epoch was evaluated in both.
        first_reached: When the first curve reaches the second's final top-1.
        second_reached: When the second curve reaches the first's.
        first_seconds: Training time of the first, where the log says.
        second_seconds: Training time of the second.
    """

    first: Curve
    second: Curve
    note: str
    epochs: tuple[EpochPair, ...]
    final_top1_difference: float | None
    largest_gap: EpochPair | None
    first_reached: Reached | None
    second_reached: Reached | None
    first_seconds: float | None
    second_seconds: float | None


def compare_curves(first: Curve, second: Curve) -> CurveComparison:
    """Hold two curves against each other."""
    points = [{point.epoch: point for point in curve.points} for curve in (first, second)]
    pairs = tuple(_pair(epoch, points[0].get(epoch), points[1].get(epoch)) for epoch in sorted(points[0] | points[1]))
    gaps = [pair for pair in pairs if pair.top1_difference is not None]
    return CurveComparison(
        first=first,
        second=second,
        note=_note(first, second),
        epochs=pairs,
        final_top1_difference=_difference(first.final, second.final, "top1"),
        largest_gap=max(gaps, key=lambda pair: abs(pair.top1_difference or 0.0), default=None),
        first_reached=_reached(first, second),
        second_reached=_reached(second, first),
        first_seconds=first.seconds_until(first.points[-1].epoch),
        second_seconds=second.seconds_until(second.points[-1].epoch),
    )


def some_epochs(comparison: CurveComparison, most: int = 20) -> list[EpochPair]:
    """Choose epochs for a table: both ends, the largest gap, and others spread evenly, evaluated ones if there are."""
    pairs, gap = comparison.epochs, comparison.largest_gap
    if len(pairs) <= most:
        return list(pairs)
    chosen = {pairs[0].epoch, comparison.first.points[-1].epoch, comparison.second.points[-1].epoch}
    chosen |= {gap.epoch} if gap else set()
    pool = [pair for pair in pairs if _is_evaluated(pair)] or pairs
    count = most - len(chosen)
    chosen |= {pool[(2 * index + 1) * len(pool) // (2 * count)].epoch for index in range(count)}
    return [pair for pair in pairs if pair.epoch in chosen]


def _is_evaluated(pair: EpochPair) -> bool:
    return any(point is not None and point.top1 is not None for point in (pair.first, pair.second))


def _pair(epoch: int, first: Point | None, second: Point | None) -> EpochPair:
    return EpochPair(
        epoch=epoch,
        first=first,
        second=second,
        loss_difference=_difference(first, second, "loss"),
        top1_difference=_difference(first, second, "top1"),
    )


def _difference(first: Point | None, second: Point | None, name: str) -> float | None:
    a, b = (getattr(point, name, None) for point in (first, second))
    return None if a is None or b is None else b - a


def _reached(curve: Curve, other: Curve) -> Reached | None:
    if other.final is None or other.final.top1 is None:
        return None
    target = other.final.top1
    epoch = next((point.epoch for point in curve.points if point.top1 is not None and point.top1 >= target), None)
    return Reached(target=target, epoch=epoch, seconds=None if epoch is None else curve.seconds_until(epoch))


def _note(first: Curve, second: Curve) -> str:
    if first.dataset is None or second.dataset is None:
        unknown = " and ".join(curve.title for curve in (first, second) if curve.dataset is None)
        return f"{unknown} does not say what it was evaluated on: accuracies may not be comparable"
    if first.dataset != second.dataset:
        return f"{first.dataset} against {second.dataset}: accuracies are not comparable"
    return ""
