"""An accuracy held against what is published, or against what was measured with the same weights before."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Literal

from resnet_zoo.catalog.datasets import official_accuracy
from resnet_zoo.catalog.records import Entry, Measured
from resnet_zoo.checks.report import ACCURACY_TOLERANCE_PCT, REPRODUCTION_TOLERANCE_PCT, Check
from resnet_zoo.inference.evaluation import Evaluation


def check_accuracy(
    entry: Entry, result: Evaluation, *, recorded: Measured | None = None, published_weights: bool = True
) -> list[Check]:
    """Return the checks ``top1`` and ``top5``.

    What was recorded for the same weights on the same images is what counts: on the same device with the same torch
    every count must be equal, elsewhere `ACCURACY_TOLERANCE_PCT` is allowed. Without a record, the published numbers
    count if the images are those of the official set: where some of its images are missing, the accuracy on all of them
    lies between two bounds, and the check passes or fails only if both bounds say so. Anything else is measured, and
    not checked.

    Args:
        entry: The row.
        result: What was measured now.
        recorded: What was measured with these weights before.
        published_weights: The weights may be those that the published numbers are of.
    """
    is_same_set = recorded is not None and (recorded.dataset, recorded.num_images) == (
        result.dataset,
        result.num_images,
    )
    if recorded is not None and is_same_set and not result.num_skipped:
        return [_check_recorded(entry, top, result, recorded) for top in ("top1", "top5")]
    return [_check_published(entry, top, result, published_weights=published_weights) for top in ("top1", "top5")]


def measured_of(result: Evaluation) -> Measured:
    """Return an evaluation that was made now as the manifest records it."""
    return Measured(
        top1=result.top1,
        top5=result.top5,
        num_images=result.num_images,
        dataset=result.dataset,
        date=datetime.now(timezone.utc).date().isoformat(),
        versions=result.versions,
        device=result.device,
    )


def check_reproduction(
    entry: Entry, top: Literal["top1", "top5"], result: Evaluation, overridden: Iterable[str] = ()
) -> Check:
    """Hold the accuracy of a retrained network against the published one: the check ``published_top1`` or ``_top5``.

    At most `REPRODUCTION_TOLERANCE_PCT` below is allowed, and anything above.

    Args:
        entry: The row.
        top: ``top1`` or ``top5``.
        result: What was measured now.
        overridden: Fields of the recipe that were changed: then it is not the recipe's accuracy, and not checked.
    """
    name, published, measured = f"published_{top}", getattr(entry.published, top), f"{getattr(result, top):.2f}"
    official = official_accuracy(entry.dataset, result, top)
    if official is None:
        why = f"{result.dataset} is not the official {entry.dataset} test set, so not comparable"
        return Check(name, "not checked", published, measured, why)
    if overridden:
        why = f"the recipe was changed: {', '.join(overridden)}"
        return Check(name, "not checked", published, measured, why)
    status = official.status(float(published) - REPRODUCTION_TOLERANCE_PCT, 100.0)
    facts = [f"undecided: published {published}, measured {measured}"] if status == "not checked" else []
    facts.append(f"at most {REPRODUCTION_TOLERANCE_PCT} points below are allowed")
    detail = "; ".join([*facts, *filter(None, [official.words])])
    return Check(name, status, published, measured, detail)


def allowed_images(recorded: Measured, result: Evaluation) -> tuple[int, str]:
    """Return by how many images two counts may differ, and why."""
    then, now = ((measured.device, measured.versions.get("torch")) for measured in (recorded, result))
    if then == now:
        return 0, "tolerance 0 images (same device and torch)"
    allowed = int(ACCURACY_TOLERANCE_PCT * recorded.num_images / 100 + 1e-9)
    why = f"recorded on {recorded.device}, torch {recorded.versions.get('torch', 'unknown')}"
    return allowed, f"tolerance {ACCURACY_TOLERANCE_PCT} points, {allowed} images ({why})"


def _check_recorded(entry: Entry, top: Literal["top1", "top5"], result: Evaluation, recorded: Measured) -> Check:
    before, now = getattr(recorded, top), getattr(result, top)
    allowed, tolerance = allowed_images(recorded, result)
    counts = [round(percent * result.num_images / 100) for percent in (before, now)]
    detail = f"{counts[0]} correct on {recorded.date}, {counts[1]} now; {tolerance}; {_images(top, result)}"
    official = official_accuracy(entry.dataset, result, top)
    if official is None:
        detail += f"; the published number is for {entry.dataset}, so not comparable"
    elif official.words:
        detail += f"; {official.words}"
    return Check(
        top,
        "passed" if abs(counts[0] - counts[1]) <= allowed else "failed",
        getattr(entry.published, top),
        f"{now:.2f}",
        detail,
        recorded=f"{before:.2f}",
    )


def _check_published(
    entry: Entry, top: Literal["top1", "top5"], result: Evaluation, *, published_weights: bool
) -> Check:
    published, measured = getattr(entry.published, top), getattr(result, top)
    text, detail = f"{measured:.2f}", _images(top, result)
    official = official_accuracy(entry.dataset, result, top)
    if official is None:
        detail = f"not the official {entry.dataset} test set, so not comparable: {detail}"
        return Check(top, "not checked", published, text, detail)
    detail += f"; {official.words}" if official.words else ""
    if not published_weights:
        detail = f"the published number belongs to other weights, and none is recorded for these: {detail}"
        return Check(top, "not checked", published, text, detail)
    status = official.status(float(published) - ACCURACY_TOLERANCE_PCT, float(published) + ACCURACY_TOLERANCE_PCT)
    return Check(top, status, published, text, f"{detail}, tolerance {ACCURACY_TOLERANCE_PCT}")


def _images(top: Literal["top1", "top5"], result: Evaluation) -> str:
    low, high = getattr(result, f"{top}_interval")
    text = f"{result.num_images} images of {result.dataset}, 95% interval {low:.2f} to {high:.2f}"
    return text + (f", {result.num_skipped} unreadable" if result.num_skipped else "")
