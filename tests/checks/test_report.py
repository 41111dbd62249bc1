"""Checks and reports: when one passes, what the exit code is, and the same facts as JSON and JUnit XML."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from resnet_zoo.checks.report import (
    Check,
    Report,
    Status,
    compare,
    count_statuses,
    exit_code,
    reports_as_json,
    reports_as_junit,
    rounded,
)

PASSED = Check("params", "passed", "11.17", "11.17", "11,173,962 counted")
FAILED = Check("flops", "failed", "0.56", "0.57", "570,000,000 counted")
MISSED = Check("top1", "not checked", "94.82", None, "no test images")
REPORTS = [Report("first", (PASSED, FAILED, MISSED)), Report("second", (PASSED,))]


@pytest.mark.parametrize("measured", ["69.90", "69.9", "69.91", " 69.90", ""])
def test_only_equal_texts_pass_and_both_are_kept(measured: str) -> None:
    status: Status = "passed" if measured == "69.90" else "failed"
    assert compare("top1", "69.90", measured, "why") == Check("top1", status, "69.90", measured, "why")


def test_a_report_finds_a_check_by_name() -> None:
    assert REPORTS[0].check("flops") is FAILED
    assert (REPORTS[0].has("flops"), REPORTS[0].has("files")) == (True, False)


def test_a_report_failed_if_any_check_did() -> None:
    assert [report.failed for report in REPORTS] == [True, False]
    assert not Report("third", (MISSED,)).failed


def test_statuses_are_counted_over_all_reports() -> None:
    assert dict(count_statuses(REPORTS)) == {"passed": 2, "failed": 1, "not checked": 1}


@pytest.mark.parametrize(
    ("checks", "asked", "code"),
    [
        ((PASSED,), (), 0),
        ((PASSED, MISSED), (), 0),
        ((PASSED, MISSED), ("top5",), 0),
        ((PASSED, MISSED), ("top1",), 3),
        ((PASSED, FAILED), (), 1),
        ((FAILED, MISSED), ("top1",), 1),
    ],
)
def test_the_exit_code_tells_wrong_from_not_checked(
    checks: tuple[Check, ...], asked: tuple[str, ...], code: int
) -> None:
    assert exit_code([Report("row", checks)], asked=asked) == code


def test_an_iterator_of_asked_checks_is_looked_at_for_every_report() -> None:
    reports = [Report("first", (PASSED,)), Report("second", (MISSED,))]
    assert exit_code(reports, asked=iter(["top1"])) == 3


def test_json_has_every_fact() -> None:
    content = json.loads(json.dumps(reports_as_json(REPORTS)))
    assert content["summary"] == {"passed": 2, "failed": 1, "not checked": 1}
    assert [report["name"] for report in content["reports"]] == ["first", "second"]
    assert content["reports"][0]["checks"][1] == {
        "name": "flops",
        "status": "failed",
        "published": "0.56",
        "measured": "0.57",
        "detail": "570,000,000 counted",
        "recorded": None,
    }
    assert content["reports"][0]["checks"][2]["measured"] is None


def test_the_json_summary_always_has_the_three_statuses() -> None:
    assert reports_as_json([Report("row", (PASSED,))])["summary"] == {"passed": 1, "failed": 0, "not checked": 0}


def test_junit_counts_what_it_holds() -> None:
    root = ElementTree.fromstring(reports_as_junit(REPORTS))
    assert root.tag == "testsuites"
    assert [root.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["4", "1", "0", "1"]
    suites = root.findall("testsuite")
    assert [suite.get("name") for suite in suites] == ["first", "second"]
    for suite in suites:
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))


def test_junit_marks_what_failed_and_what_was_not_checked() -> None:
    root = ElementTree.fromstring(reports_as_junit(REPORTS))
    cases = {case.get("name"): case for case in root.findall("testsuite/testcase") if case.get("classname") == "first"}
    assert len(cases["params"]) == 0
    failure = cases["flops"].find("failure")
    assert failure is not None
    assert "published 0.56, measured 0.57" in failure.get("message", "")
    skipped = cases["top1"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "no test images"


def test_junit_of_a_failure_without_numbers_says_why_and_not_none() -> None:
    broken = Check("weights", "failed", detail="x.pth cannot be read")
    failure = ElementTree.fromstring(reports_as_junit([Report("row", (broken,))])).find("testsuite/testcase/failure")
    assert failure is not None
    assert "x.pth cannot be read" in failure.get("message", "")
    assert "None" not in failure.get("message", "")


@pytest.mark.parametrize("detail", ["<a> & \"b\" 'c'", "two\nlines", "ü ✓"])
def test_junit_escapes_what_xml_reserves(detail: str) -> None:
    text = reports_as_junit([Report("row", (Check("weights", "not checked", detail=detail),))])
    assert text.isascii()  # so it is UTF-8, as it says, whatever the encoding of stdout
    skipped = ElementTree.fromstring(text).find("testsuite/testcase/skipped")
    assert skipped is not None
    assert skipped.get("message") == detail


def test_junit_of_a_path_with_a_control_character_is_still_xml() -> None:
    check = Check("weights", "failed", detail="a\x1b[31m.pth cannot be read")
    ElementTree.fromstring(reports_as_junit([Report("row", (check,))]))


def test_no_reports_are_valid_xml_and_json() -> None:
    assert ElementTree.fromstring(reports_as_junit([])).get("tests") == "0"
    assert reports_as_json([])["reports"] == []


@pytest.mark.parametrize(
    ("check", "numbers"),
    [
        (PASSED, "published 11.17, measured 11.17"),
        (
            Check("top1", "passed", "94.82", "93.12", recorded="93.10"),
            "published 94.82, recorded 93.10, measured 93.12",
        ),
        (Check("weights", "failed", measured="NaN"), ""),
    ],
)
def test_the_numbers_of_a_check_are_a_clause(check: Check, numbers: str) -> None:
    assert check.numbers == numbers


@pytest.mark.parametrize(
    ("count", "unit", "printed", "expected"),
    [
        (21_797_672, 10**6, "21.8", "21.8"),
        (21_797_672, 10**6, "21.80", "21.80"),
        (11_173_962, 10**6, "11.17", "11.17"),
        (11_173_962, 10**6, "11.2", "11.17"),
        (79_900_000, 10**6, "79.90", "79.90"),
        (79_900_000, 10**6, "79.9", "79.9"),
        (21_812_000, 10**6, "21.8", "21.81"),
        (4_363_330_048, 10**9, "4.36", "4.36"),
        (4_000_000_000, 10**9, "4.00", "4.00"),
        (999_999, 10**9, "0.00", "0.00"),
    ],
)
def test_digits_are_printed_as_the_source_prints_them(count: int, unit: int, printed: str, expected: str) -> None:
    assert rounded(count, unit, printed) == expected
