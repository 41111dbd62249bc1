"""Checks and reports: what was published, what was found, and whether they agree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args
from xml.etree import ElementTree

from resnet_zoo.errors import NOT_CHECKED, WRONG

Status = Literal["passed", "failed", "not checked"]

RUN_CHECKS = ("files", "recipe", "log", "result")
"""The checks of a run folder that are not those of a row."""


ACCURACY_TOLERANCE_PCT = 0.1
"""How far a re-measured accuracy may be from the published one, or from one of another machine, in points.

The published CIFAR numbers come from training logs and the fp16 row was probably measured in half precision; others
who re-measured the same files found 0.01 (CIFAR-10) and 0.06 (ImageNet) points of difference.
"""

REPRODUCTION_TOLERANCE_PCT = 0.3
"""How far below the published accuracy a retrained network may stay, in points; more is not a fault.

A choice, not a measurement: room for another seed and other hardware. ``--seeds`` gives the spread itself.
"""


@dataclass(frozen=True)
class Check:
    """One fact held against what was published.

    Attributes:
        name: What was checked.
        status: ``not checked`` is never ``passed``.
        published: What it should be, as printed.
        measured: What it is.
        detail: How it was measured, or why it was not.
        recorded: What was measured with these very weights before, where that is what the check holds ``measured``
            against.
    """

    name: str
    status: Status
    published: str | None = None
    measured: str | None = None
    detail: str = ""
    recorded: str | None = None

    @property
    def numbers(self) -> str:
        """The numbers as a clause, empty if there are none."""
        named = {"published": self.published, "recorded": self.recorded, "measured": self.measured}
        if self.published is None and self.recorded is None:
            return ""
        return ", ".join(f"{name} {number}" for name, number in named.items() if name != "recorded" or number)


@dataclass(frozen=True)
class Report:
    """All checks of one model.

    Attributes:
        name: The model.
        checks: In the order they were made.
        chain: Where the weights that were checked come from, every link with its hash; ``None`` without weights.
    """

    name: str
    checks: tuple[Check, ...]
    chain: Mapping[str, str] | None = None

    def check(self, name: str) -> Check:
        """Return the check of that name."""
        return next(check for check in self.checks if check.name == name)

    def has(self, name: str) -> bool:
        """Tell whether there is a check of that name."""
        return any(check.name == name for check in self.checks)

    @property
    def failed(self) -> bool:
        """Whether any check failed."""
        return any(check.status == "failed" for check in self.checks)


def compare(name: str, published: str, measured: str, detail: str = "") -> Check:
    """Return a check that passes only if both texts are equal."""
    return Check(name, "passed" if published == measured else "failed", published, measured, detail)


def check_facts(name: str, facts: Mapping[str, bool]) -> Check:
    """Return a check that passes only if every fact holds, or else says which do not."""
    wrong = [fact for fact, holds in facts.items() if not holds]
    if wrong:
        return Check(name, "failed", detail=f"does not hold: {'; '.join(wrong)}")
    return Check(name, "passed", detail="; ".join(facts))


def rounded(count: int, unit: int, printed: str) -> str:
    """Return count / unit with as many decimals as the source printed (it prints 21.80 as ``21.8``)."""
    digits = round(count / unit, 2)
    return f"{digits:.{len(printed.partition('.')[2])}f}" if digits == round(digits, 1) else f"{digits:.2f}"


def count_statuses(reports: Iterable[Report]) -> Counter[str]:
    """Count the checks of all reports by status."""
    return Counter(check.status for report in reports for check in report.checks)


def exit_code(reports: Sequence[Report], *, asked: Iterable[str] = ()) -> int:
    """Return 1 if a check failed, 3 if a check that was asked for could not be made, else 0."""
    if any(report.failed for report in reports):
        return WRONG
    asked = set(asked)
    missed = any(check.status == "not checked" and check.name in asked for report in reports for check in report.checks)
    return NOT_CHECKED if missed else 0


def reports_as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Return reports as plain JSON values."""
    statuses = count_statuses(reports)
    summary = {status: statuses[status] for status in get_args(Status)}
    return {"summary": summary, "reports": [asdict(report) for report in reports]}


def reports_as_junit(reports: Sequence[Report]) -> str:
    """Return reports as JUnit XML in ASCII: a suite per row, ``not checked`` as skipped."""
    statuses = count_statuses(reports)
    root = ElementTree.Element("testsuites", {"name": "resnet-zoo verify"} | _junit_counts(statuses))
    for report in reports:
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": report.name} | _junit_counts(count_statuses([report]))
        )
        for check in report.checks:
            case = ElementTree.SubElement(suite, "testcase", classname=report.name, name=check.name)
            sentence = _printable("; ".join(filter(None, (check.numbers, check.detail))))
            if check.status == "failed":
                ElementTree.SubElement(case, "failure", message=sentence)
            elif check.status == "not checked":
                ElementTree.SubElement(case, "skipped", message=_printable(check.detail))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root).decode()


def _printable(text: str) -> str:
    """Replace what XML cannot hold, escaped or not: control characters and half surrogates, as paths may have."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


def _junit_counts(statuses: Counter[str]) -> dict[str, str]:
    return {
        "tests": str(statuses.total()),
        "failures": str(statuses["failed"]),
        "errors": "0",
        "skipped": str(statuses["not checked"]),
    }
