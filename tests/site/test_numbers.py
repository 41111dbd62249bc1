"""The state of every number: what matches, what differs, and what may not be called checked."""

from __future__ import annotations

import dataclasses

import pytest

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, Measured, RunOrigin
from resnet_zoo.checks.report import Check, Report
from resnet_zoo.site.numbers import Number, count_states, numbers_of, other_accuracies
from tests.conftest import ENTRIES
from tests.run_folders import NAME
from tests.site_tools import a_report

ENTRY = get_entry(NAME)


def number_of(entry: Entry, key: str, report: Report | None = None) -> Number:
    """Return one of a row's numbers."""
    return next(number for number in numbers_of(entry, report) if number.key == key)


def measured(top1: float, dataset: str = "cifar10", *, entry: Entry = ENTRY, trained: bool = False) -> Entry:
    """Return a row whose weights were measured."""
    weights = entry.weights["openmmlab"]
    found = Measured(top1, 99.87, 10_000, dataset, "2026-11-24", {"torch": "2.14.1"}, "cpu")
    origin = RunOrigin("published", "runs/x") if trained else weights.origin
    return dataclasses.replace(
        entry, weights={"openmmlab": dataclasses.replace(weights, measured=found, origin=origin)}
    )


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_counts_match_and_accuracies_are_not_checked_before_anything_is_measured(entry: Entry) -> None:
    states = [number.state for number in numbers_of(entry, None)]
    assert states == ["matches", "matches", "not checked", "not checked"]
    assert [number.measured is None for number in numbers_of(entry, None)] == [False, False, True, True]


def test_a_count_that_rounds_to_other_digits_differs_by_so_much() -> None:
    exact = dataclasses.replace(ENTRY.exact, params=11_250_000)
    number = number_of(dataclasses.replace(ENTRY, exact=exact), "params_m")
    assert (number.state, number.measured, number.difference) == ("differs", "11.25", "+0.08")


@pytest.mark.parametrize(
    ("top1", "state", "difference"),
    [
        (94.82, "matches", ""),
        (94.92, "matches", "+0.10"),
        (94.72, "matches", "−0.10"),
        (94.93, "differs", "+0.11"),
        (90.00, "differs", "−4.82"),
    ],
)
def test_published_weights_on_the_official_images_are_compared_within_the_tolerance(
    top1: float, state: str, difference: str
) -> None:
    number = number_of(measured(top1), "top1")
    assert (number.state, number.measured, number.difference) == (state, f"{top1:.2f}", difference)


@pytest.mark.parametrize("entry", [measured(94.82, "cifar10-jpeg"), measured(94.82, trained=True)])
def test_other_images_or_other_weights_check_nothing_and_are_shown_as_what_they_are(entry: Entry) -> None:
    assert number_of(entry, "top1").state == "not checked"
    assert number_of(entry, "top1").measured is None
    assert [other.top1 for other in other_accuracies(entry)] == ["94.82"]


def test_what_checks_the_published_number_is_not_shown_twice() -> None:
    assert other_accuracies(measured(94.82)) == ()


@pytest.mark.parametrize(("status", "state"), [("passed", "matches"), ("failed", "differs")])
def test_a_report_decides(status: str, state: str) -> None:
    number = number_of(ENTRY, "top1", a_report(top1="94.80", status=status))
    assert (number.state, number.measured) == (state, "94.80")


def test_a_report_of_a_count_decides_too() -> None:
    report = Report(NAME, (Check("flops", "failed", "0.56", "0.57", "570,000,000 counted"),))
    number = number_of(ENTRY, "flops_g", report)
    assert (number.state, number.measured, number.difference) == ("differs", "0.57", "+0.01")


def test_what_a_report_did_not_check_stays_so_and_says_why() -> None:
    number = number_of(ENTRY, "top1", a_report(top1="93.12", status="not checked"))
    assert (number.state, number.measured) == ("not checked", None)
    assert number.detail.startswith("measured 93.12; 10000 images")


def test_weights_held_against_their_own_record_do_not_check_the_published_number() -> None:
    check = Check("top1", "passed", "94.82", "93.12", "9312 correct", recorded="93.12")
    assert number_of(ENTRY, "top1", Report(NAME, (check,))).state == "not checked"


def test_the_report_of_a_run_folder_does_not_either() -> None:
    report = dataclasses.replace(a_report(), checks=(*a_report().checks, Check("files", "passed")))
    assert number_of(ENTRY, "top1", report).state == "not checked"


def test_states_are_counted() -> None:
    assert count_states(numbers_of(ENTRY, None)) == {"matches": 2, "differs": 0, "not checked": 2}
