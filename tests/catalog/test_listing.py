"""The list of rows: facts, filters, order, CSV and Markdown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest

from resnet_zoo.catalog.listing import (
    DATASET_TITLES,
    PRINTED,
    as_csv,
    as_markdown,
    facts,
    select,
)
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, Numbers, RunOrigin
from resnet_zoo.errors import ArgumentError
from tests.conftest import ENTRIES, NAMES

every_row = pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)


def _names(entries: list[Entry]) -> list[str]:
    return [entry.name for entry in entries]


@every_row
def test_facts_are_plain_json_and_printed_digits_are_numbers(entry: Entry) -> None:
    row = json.loads(json.dumps(facts(entry)))
    assert row == facts(entry)
    for key in PRINTED:
        assert isinstance(row[key], float)
        assert row[key] == float(getattr(entry.published, key))
    assert (row["name"], row["params"], row["flops"]) == (entry.name, entry.exact.params, entry.exact.flops)


@every_row
def test_every_weight_set_is_listed_and_the_default_one_named(entry: Entry) -> None:
    assert facts(entry)["weights"] == list(entry.weights)
    assert facts(entry)["default_weights"] == entry.default_weights


def test_every_data_set_has_a_title() -> None:
    assert {entry.dataset for entry in ENTRIES} == set(DATASET_TITLES)


def test_no_condition_keeps_everything_in_table_order() -> None:
    assert _names(select(ENTRIES)) == NAMES


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("params_m<12", lambda row: row["params_m"] < 12),
        ("params_m <= 11.17", lambda row: row["params_m"] <= 11.17),
        ("top1>75", lambda row: row["top1"] > 75),
        ("top1>=95.55", lambda row: row["top1"] >= 95.55),
        ("num_classes=1000", lambda row: row["num_classes"] == 1000),
        ("num_classes==1000", lambda row: row["num_classes"] == 1000),
        ("num_classes!=1000", lambda row: row["num_classes"] != 1000),
        ("dataset=cifar100", lambda row: row["dataset"] == "cifar100"),
        ("dataset!=in1k", lambda row: row["dataset"] != "in1k"),
        ("architecture>=resnetv1d", lambda row: row["architecture"] >= "resnetv1d"),
        ("  macs  >  5e9  ", lambda row: row["macs"] > 5e9),
    ],
)
def test_a_condition_keeps_the_rows_that_meet_it(condition: str, holds: object) -> None:
    assert callable(holds)
    kept = select(ENTRIES, [condition])
    assert kept == [entry for entry in ENTRIES if holds(facts(entry))]
    assert 0 < len(kept) < len(ENTRIES)


def test_all_conditions_must_be_met() -> None:
    both, good, small = (_names(select(ENTRIES, c)) for c in (["top1>75", "params_m<26"], ["top1>75"], ["params_m<26"]))
    assert both == [name for name in good if name in small]
    assert 0 < len(both) < min(len(good), len(small))


@pytest.mark.parametrize(
    "condition", ["", "top1", "top1>", "<75", "top1~75", "top1 75", "top1><75", "top1>many", "a b=1"]
)
def test_a_condition_that_makes_no_sense_is_refused(condition: str) -> None:
    with pytest.raises(ArgumentError, match="Expected"):
        select(ENTRIES, [condition])


def test_a_condition_on_nan_which_nothing_meets_is_refused() -> None:
    with pytest.raises(ArgumentError, match="Expected a number"):
        select(ENTRIES, ["top1<nan"])


@pytest.mark.parametrize("key", ["flop", "aliases", "weights", "input_size"])
def test_a_key_that_cannot_be_compared_is_refused_and_the_others_are_named(key: str) -> None:
    with pytest.raises(ArgumentError, match=rf"no key '{key}'.*params_m.*macs"):
        select(ENTRIES, [f"{key}>1"])
    with pytest.raises(ArgumentError, match=rf"no key '{key}'.*params_m.*macs"):
        select(ENTRIES, sort=key)


def test_a_wrong_key_is_refused_even_if_no_row_is_left() -> None:
    with pytest.raises(ArgumentError, match="no key 'flop'"):
        select(ENTRIES, ["top1>101", "flop>1"])
    with pytest.raises(ArgumentError, match="no key 'flop'"):
        select([], sort="flop")


@pytest.mark.parametrize("key", ["name", "top1", "params", "flops_g"])
def test_rows_are_sorted_by_a_key_both_ways(key: str) -> None:
    values = [facts(entry)[key] for entry in ENTRIES]
    assert [facts(entry)[key] for entry in select(ENTRIES, sort=key)] == sorted(values)
    assert [facts(entry)[key] for entry in select(ENTRIES, sort=f"{key}:asc")] == sorted(values)
    assert [facts(entry)[key] for entry in select(ENTRIES, sort=f"{key}:desc")] == sorted(values, reverse=True)


def test_equal_rows_keep_the_tables_order() -> None:
    assert _names(select(ENTRIES, sort="num_classes"))[-9:] == [
        entry.name for entry in ENTRIES if entry.dataset == "in1k"
    ]


def test_numbers_are_sorted_as_numbers() -> None:
    assert select(ENTRIES, sort="flops_g")[-1].name == "resnetv1d152_in1k"
    as_text = sorted(ENTRIES, key=lambda entry: str(entry.exact.flops))
    assert _names(select(ENTRIES, sort="flops")) != _names(as_text)


@pytest.mark.parametrize("sort", ["top1:up", "top1:DESC", "top1:desc:asc"])
def test_an_order_that_is_none_is_refused(sort: str) -> None:
    with pytest.raises(ArgumentError, match=r"KEY:asc or KEY:desc"):
        select(ENTRIES, sort=sort)


def test_csv_keeps_the_digits_as_printed() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(ENTRIES))))
    assert [row["name"] for row in rows] == NAMES
    for row, entry in zip(rows, ENTRIES, strict=True):
        assert list(row) == list(facts(entry))
        assert all(row[key] == getattr(entry.published, key) for key in PRINTED)
        assert row["aliases"].split() == list(entry.aliases)
        assert row["input_size"] == " ".join(map(str, entry.input_size))


def test_csv_lines_end_like_every_other_line() -> None:
    assert "\r" not in as_csv(ENTRIES)


def test_csv_without_rows_still_has_its_header() -> None:
    assert as_csv([]) == as_csv(ENTRIES[:1]).splitlines()[0] + "\n"


def test_markdown_is_a_table_with_the_sources_links() -> None:
    lines = as_markdown(ENTRIES).splitlines()
    assert {line.count("|") for line in lines} == {8}
    assert len(lines) == len(ENTRIES) + 2
    for line, entry in zip(lines[2:], ENTRIES, strict=True):
        assert line.startswith(f"| `{entry.name}` | {DATASET_TITLES[entry.dataset]} | {entry.published.params_m} |")
        for fact in (entry.published.top1, entry.published.config_url, entry.published.log_url):
            assert fact in line
        assert "[checkpoint](https://download.openmmlab.com/" in line


def test_markdown_links_no_checkpoint_for_a_run_of_our_own() -> None:
    entry = ENTRIES[0]
    ours = dataclasses.replace(entry.weights["openmmlab"], origin=RunOrigin("cifar10", "runs/1"))
    assert "[checkpoint]" not in as_markdown([dataclasses.replace(entry, weights={"retrained": ours})])


def test_published_numbers_are_text_and_numbers() -> None:
    published = get_entry("resnet34").published
    assert (published.top1, published.params_m) == ("73.62", "21.8")
    assert published.numbers == Numbers(top1=73.62, top5=91.59, params_m=21.8, flops_g=3.68)
    best = max(ENTRIES, key=lambda entry: entry.published.numbers.top1)
    assert best.name == "resnet152_cifar10"
