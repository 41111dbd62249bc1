"""Measured speeds as a file: what ships is read, what is wrong in one is refused with a sentence."""

from __future__ import annotations

import importlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.catalog.measurements import (
    SHIPPED_PATH,
    RowSpeed,
    measurements_as_json,
    read_measurements,
    setting_of_most,
)
from resnet_zoo.errors import ArgumentError
from tests.conftest import NAMES
from tests.run_folders import ROOT


def changed(path: Path, **changes: Any) -> Path:
    """Write the shipped file with other values in its first measurement."""
    content = json.loads(SHIPPED_PATH.read_text())
    content["measurements"][0] |= changes
    path.write_text(json.dumps(content))
    return path


def test_what_ships_has_every_row_and_says_where_when_and_how() -> None:
    found = read_measurements()
    speeds = next(one.speeds for one in found if one.speeds)
    assert {speed.name for speed in speeds} == set(NAMES)
    assert any(one.comparisons for one in found)
    for one in found:
        assert one.command.startswith("python scripts/benchmark.py ")
        assert one.device
        assert one.date >= "2026-11-26"
        assert {"python", "torch", "resnet_zoo"} <= one.versions.keys()


def test_the_newest_comes_first_and_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    (newest, *_) = found = read_measurements(changed(tmp_path / "a.json", date="2020-01-01"))
    assert found[-1].date == "2020-01-01"
    path = tmp_path / "b.json"
    path.write_text(json.dumps(measurements_as_json(reversed(found))))
    assert read_measurements(path) == found
    assert newest == found[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": None}, "expected a string"),
        ({"surprise": 1}, "surprise"),
        ({"speeds": [{"name": "a"}]}, "missing field"),
        (
            {
                "speeds": [
                    dict.fromkeys(("images_per_s", "latency_ms"), 0)
                    | {"name": "a", "mode": "", "dtype": "", "batch_size": 1}
                ]
            },
            "expected a positive number",
        ),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ArgumentError, match=f"is not what `scripts/benchmark.py --json` writes: .*{why}"):
        read_measurements(changed(tmp_path / "a.json", **changes))


@pytest.mark.parametrize(("text", "why"), [("{", "is not valid JSON"), ("[]", "an object"), ("{}", "expected 1")])
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArgumentError, match=why):
        read_measurements(tmp_path / "a.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="cannot be read: No such file"):
        read_measurements(tmp_path / "none.json")


def test_nothing_measured_has_no_setting() -> None:
    assert setting_of_most(()) is None


def test_the_script_appends_what_it_measured_with_machine_versions_and_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    monkeypatch.setattr("sys.argv", ["scripts/benchmark.py", "infer", "--weights", "a b"])
    script = importlib.import_module("benchmark")
    monkeypatch.setattr(script, "MEASURED", [RowSpeed("resnet18_in1k", "fast", "float32", 8, 50.0, 160.0)])
    path = tmp_path / "a.json"
    script.append_measurement(path)
    first = read_measurements(path)
    monkeypatch.setattr(script, "MEASURED", [])
    script.append_measurement(path)
    (second, *rest) = read_measurements(path)
    assert tuple(rest) == first
    assert (second.speeds, first[0].speeds[0].images_per_s) == ((), 50.0)
    assert first[0].command == "python scripts/benchmark.py infer --weights 'a b'"
    assert first[0].versions["torch"]
    assert date.fromisoformat(first[0].date)
