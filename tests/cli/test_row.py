"""What ``show`` says about a row: prose, tables and records, every line within the terminal."""

from __future__ import annotations

import dataclasses
import re
import sys

import pytest

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.cli.row import echo_row, weights_record
from resnet_zoo.weights.cache_contents import weight_facts
from tests.conftest import ENTRIES, NAMES

every_row = pytest.mark.parametrize("name", NAMES)


def shown(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    echo_row(get_entry(name))
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@every_row
def test_a_row_is_shown_without_names_and_values_of_python(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = re.sub(r"^pixels from 0 to .*\n", "", shown(name, capsys), flags=re.MULTILINE)  # arguments, to be pasted
    assert not re.search(r"[{}\[\]]|\bNone\b|\bTrue\b|\bFalse\b|\w+_lr\b|total_batch|weight_decay", text)
    for title in ("Numbers", "Preprocessing", "Weights", "Recipe: published"):
        assert f"\n\n{title}\n" in text


@every_row
@pytest.mark.parametrize("width", [60, 80])
def test_every_line_about_a_row_fits_but_for_what_is_copied_whole(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = shown(name, capsys).splitlines()
    whole = r" *(https://\S+|hf://\S+|[0-9a-f]{64})"
    assert [line for line in lines if len(line) > width and not re.fullmatch(whole, line)] == []
    assert any(len(line) > width for line in lines)  # the addresses of configuration and log


@pytest.mark.parametrize(
    ("name", "known", "shrinks"), [("resnet18_cifar10", "frog", True), ("resnet50", "tench", False)]
)
def test_a_row_is_shown_with_its_classes_and_limits(
    name: str, known: str, shrinks: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    first = shown(name, capsys).splitlines()[0]
    assert known in first
    assert f"one of its {get_entry(name).num_classes:,} classes" in first
    assert ("shrunk to 32x32 pixels" in first) == shrinks


def test_points_of_published_numbers_are_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown("resnet34", capsys).splitlines()
    numbers = [next(line for line in lines if line.startswith(title)) for title in ("Parameters", "FLOPs ", "Top-1")]
    assert "21.8  M" in numbers[0]
    assert len({line.index(".") for line in numbers}) == 1


def test_a_weight_set_is_shown_with_its_place_and_whole_hash() -> None:
    entry = get_entry("resnet18_cifar10")
    upstream, ours = (dataclasses.replace(found, place="ships") for found in weight_facts([entry]))
    file = entry.weights["retrained"].file
    assert file is not None
    record = weights_record(entry, ours)
    assert (record["weights"], record["sha256"]) == ("retrained (default)", file.sha256)
    assert record["where"] == "ships with this checkout"
    assert "no address" in weights_record(entry, dataclasses.replace(ours, place="no address"))["where"]
    elsewhere = weights_record(entry, dataclasses.replace(upstream, place="host"))
    assert (elsewhere["where"], elsewhere["measured"]) == ("to be fetched from host", "not checked")
    assert elsewhere["source sha256"] == "begins bd6371c8: 32-bit pin"


def test_every_size_at_which_weights_were_tested_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    sets = [(found, tested) for found in weight_facts([get_entry("resnet50")]) for tested in found.tested]
    assert len(sets) > len(ENTRIES[0].weights)
    text = shown("resnet50", capsys)
    assert all(tested.top1 in text for _, tested in sets)
    assert text.count("at 288 px ") == sum(tested.size == 288 for _, tested in sets) > 0
