"""The published numbers of a row, each beside what was measured, and whether they agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from resnet_zoo.catalog.listing import measured_on
from resnet_zoo.catalog.records import Entry, UpstreamOrigin, WeightSet
from resnet_zoo.checks.report import ACCURACY_TOLERANCE_PCT, RUN_CHECKS, Check, Report, rounded

State = Literal["matches", "differs", "not checked"]

_STATES: Mapping[str, State] = {"passed": "matches", "failed": "differs", "not checked": "not checked"}

_UNITS = {"params_m": ("params", 10**6), "flops_g": ("flops", 10**9)}
"""For each printed count: the field of `Exact` (and the check) behind it, and what it is divided by."""


@dataclass(frozen=True)
class Number:
    """A published number.

    Attributes:
        key: Field of `Published`.
        title: What it is, with its unit.
        published: As printed.
        measured: What it is held against; ``None`` if not measured.
        state: Whether they agree. What was not measured, or not on what the source measured, is ``not checked``.
        difference: Measured less published, with its sign; empty where it is zero or has no meaning.
        detail: How it was measured, or why not.
    """

    key: str
    title: str
    published: str
    measured: str | None
    state: State
    difference: str
    detail: str


@dataclass(frozen=True)
class OtherAccuracy:
    """An accuracy that says nothing about the published one: other weights, or other images."""

    top1: str
    top5: str
    weights: str
    images: str


def numbers_of(entry: Entry, report: Report | None) -> tuple[Number, ...]:
    """Return the four numbers of a row, in the order of the source's table.

    Args:
        entry: The row.
        report: Of `verify`, if there is one; that of a run folder speaks of the run and is not used.
    """
    if report is not None and is_of_run(report):
        report = None
    return (
        _count(entry, report, "params_m", "Parameters (M)"),
        _count(entry, report, "flops_g", "FLOPs (G)"),
        _accuracy(entry, report, "top1", "Top-1 (%)"),
        _accuracy(entry, report, "top5", "Top-5 (%)"),
    )


def other_accuracies(entry: Entry) -> tuple[OtherAccuracy, ...]:
    """Return what the manifest records of weight sets or images that the published numbers are not of."""
    return tuple(
        OtherAccuracy(f"{found.top1:.2f}", f"{found.top5:.2f}", tag, measured_on(entry, found))
        for tag, weights in entry.weights.items()
        if (found := weights.measured) is not None and not (found.dataset == entry.dataset and _are_the_rows(weights))
    )


def is_of_run(report: Report) -> bool:
    """Tell whether a report is of a run folder."""
    return any(map(report.has, RUN_CHECKS))


def count_states(numbers: Iterable[Number]) -> dict[State, int]:
    """Count numbers by state."""
    found = [number.state for number in numbers]
    return {state: found.count(state) for state in _STATES.values()}


def _count(entry: Entry, report: Report | None, key: str, title: str) -> Number:
    """Compare printed digits with the manifest's exact integer, or take the report's check of it."""
    published = getattr(entry.published, key)
    field, unit = _UNITS[key]
    check = _check_of(report, field)
    if check is not None and check.measured is not None:
        return _number(key, title, published, check.measured, _STATES[check.status], check.detail)
    exact = getattr(entry.exact, field)
    measured = rounded(exact, unit, published)
    state: State = "matches" if measured == published else "differs"
    return _number(key, title, published, measured, state, f"{exact:,} counted")


def _accuracy(entry: Entry, report: Report | None, key: str, title: str) -> Number:
    """Take the report's check if it is of the published number, else what the manifest records of these weights."""
    published = getattr(entry.published, key)
    check = _check_of(report, key)
    is_of_the_row = check is not None and check.published == published  # not of a weight set with numbers of its own
    if is_of_the_row and check and check.recorded is None and check.status != "not checked" and check.measured:
        return _number(key, title, published, check.measured, _STATES[check.status], check.detail)
    for tag, weights in entry.weights.items():
        found = weights.measured
        if found is not None and found.dataset == entry.dataset and _are_the_rows(weights):
            measured = f"{getattr(found, key):.2f}"
            near = abs(float(measured) - float(published)) <= ACCURACY_TOLERANCE_PCT + 1e-9
            detail = (
                f"weights {tag}, {found.num_images:,} images of {found.dataset} on {found.device}, {found.date}; "
                f"tolerance {ACCURACY_TOLERANCE_PCT}"
            )
            return _number(key, title, published, measured, "matches" if near else "differs", detail)
    detail = (
        ""
        if check is None
        else "; ".join(filter(None, (check.measured and f"measured {check.measured}", check.detail)))
    )
    return Number(key, title, published, None, "not checked", "", detail or "these weights have not been evaluated yet")


def _are_the_rows(weights: WeightSet) -> bool:
    """Tell whether the row's published numbers are of these weights."""
    return isinstance(weights.origin, UpstreamOrigin) and not weights.published


def _check_of(report: Report | None, name: str) -> Check | None:
    return report.check(name) if report is not None and report.has(name) else None


def _number(key: str, title: str, published: str, measured: str, state: State, detail: str) -> Number:
    return Number(key, title, published, measured, state, _difference(published, measured), detail)


def _difference(published: str, measured: str) -> str:
    """Return a signed difference with the source's two decimals; empty for none."""
    try:
        gap = float(measured) - float(published)
    except ValueError:
        return ""
    return f"{gap:+.2f}".replace("-", "\N{MINUS SIGN}") if abs(gap) >= 0.005 else ""
