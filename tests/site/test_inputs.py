"""Trainings, reports and benchmarks: what is read, what is left out, and what is refused with a sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.catalog.manifest import current_manifest, use_manifest
from resnet_zoo.errors import ArgumentError, RunError
from resnet_zoo.site.inputs import find_trainings, read_reports, read_speeds, trainings_beside
from tests.run_folders import NAME
from tests.site_tools import a_report, retrained, write_benchmark, write_manifest, write_report, write_run

SHIPPED = "resnet18_cifar10-retrained-cdcdcdcd"


def test_trainings_are_found_at_any_depth_in_order(tmp_path: Path) -> None:
    write_run(tmp_path / NAME / "b")
    write_run(tmp_path / NAME / "deeper" / "a", finished=False)
    found, left_out = find_trainings(tmp_path)
    assert ([training.name for training in found], left_out) == (["b", "a"], [])
    assert [training.result is None for training in found] == [False, True]
    assert [point.top1 for point in found[0].curve.points] == [None, 70.0, 80.0, 90.0]


def test_a_training_without_a_finished_epoch_is_left_out_and_named(tmp_path: Path) -> None:
    write_run(tmp_path / "begun", epochs=0, finished=False)
    found, left_out = find_trainings(tmp_path)
    assert (found, left_out) == ([], [f"{tmp_path / 'begun'}: no epoch is finished yet"])


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "result.json", "log.jsonl"])
def test_a_damaged_run_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path / "run")
    (folder / name).write_text('{"kind": 1}\n{}\n')
    with pytest.raises(RunError, match=name):
        find_trainings(tmp_path)


def test_a_run_without_its_recipe_is_an_error(tmp_path: Path) -> None:
    (write_run(tmp_path / "run") / "recipe.json").unlink()
    with pytest.raises(RunError, match=r"recipe\.json: cannot be read"):
        find_trainings(tmp_path)


def test_a_folder_of_runs_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is not a folder; pass the folder that holds the run folders"):
        find_trainings(tmp_path / "nowhere")


def test_of_what_ships_a_copy_below_is_not_read_again(tmp_path: Path) -> None:
    write_run(tmp_path / "weights" / SHIPPED)
    copy = write_run(tmp_path / "weights" / "copies" / SHIPPED)
    (copy / "log.jsonl").write_text("damaged\n")
    with use_manifest(write_manifest(tmp_path / "zoo.json", retrained)):
        assert [training.name for training in trainings_beside(current_manifest(), tmp_path)] == [SHIPPED]
        copy.rename(copy.with_name("another"))
        with pytest.raises(RunError, match=r"another/log\.jsonl"):
            trainings_beside(current_manifest(), tmp_path)


def test_a_run_that_ships_without_a_finished_epoch_is_an_error(tmp_path: Path) -> None:
    write_run(tmp_path / "weights" / SHIPPED, epochs=0, finished=False)
    manifest = write_manifest(tmp_path / "zoo.json", retrained)
    with use_manifest(manifest), pytest.raises(RunError, match="has no finished epoch yet"):
        trainings_beside(current_manifest(), tmp_path)


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    report = a_report()
    assert read_reports(write_report(tmp_path / "verify.json", report)) == {NAME: report}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not valid JSON"),
        ("[]", "expected an object with a list 'reports'"),
        ('{"reports": {}}', "expected an object with a list 'reports'"),
        ('{"reports": [{"name": "a"}]}', r"reports\.0\.checks: missing field"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "verify.json"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=f"is not the output of `resnet-zoo verify --format json`: .*{why}"):
        read_reports(path)


def test_a_check_of_unknown_status_is_refused(tmp_path: Path) -> None:
    path = write_report(tmp_path / "verify.json", a_report(status="fine"))
    with pytest.raises(ArgumentError, match="expected one of passed, failed, not checked, got 'fine'"):
        read_reports(path)


def test_a_chain_without_its_links_is_refused(tmp_path: Path) -> None:
    path = write_report(tmp_path / "verify.json", dataclasses.replace(a_report(), chain={"file": "a.safetensors"}))
    with pytest.raises(ArgumentError, match=rf"{NAME}\.chain: expected file, file_sha256, .*got"):
        read_reports(path)


@pytest.mark.parametrize("read", [read_reports, read_speeds])
def test_a_missing_file_is_refused(tmp_path: Path, read: Any) -> None:
    with pytest.raises(ArgumentError, match="cannot be read: No such file"):
        read(tmp_path / "none.json")


def test_speeds_of_one_setting_are_taken_that_of_most_rows(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path / "a.json", {"resnet18_in1k": 50.0, "resnet50_in1k": 20.0})
    content = json.loads(path.read_text())
    fastest = content["speeds"][0] | {"batch_size": 64, "images_per_s": 900.0}
    path.write_text(json.dumps(content | {"speeds": [fastest, *content["speeds"]]}))
    speeds = read_speeds(path)
    assert speeds.images_per_s == {"resnet18_in1k": 50.0, "resnet50_in1k": 20.0}
    assert speeds.setting == "fast float32, batch of 16, a test's machine"


def test_of_settings_with_as_many_rows_the_fastest_is_taken(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path / "a.json", {"resnet18_in1k": 50.0})
    content = json.loads(path.read_text())
    faster = content["speeds"][0] | {"dtype": "bfloat16", "images_per_s": 90.0}
    path.write_text(json.dumps(content | {"speeds": [*content["speeds"], faster]}))
    assert read_speeds(path).images_per_s == {"resnet18_in1k": 90.0}


def test_a_benchmark_of_nothing_means_not_measured(tmp_path: Path) -> None:
    assert read_speeds(write_benchmark(tmp_path / "a.json", {})).images_per_s == {}


@pytest.mark.parametrize("pace", [0, -1.0, float("inf"), "fast", None])
def test_a_speed_that_cannot_be_is_refused(tmp_path: Path, pace: Any) -> None:
    path = write_benchmark(tmp_path / "a.json", {"resnet18_in1k": 50.0}, images_per_s=pace)
    with pytest.raises(ArgumentError, match=r"is not the output of `resnet-zoo benchmark --format json`: .*expected"):
        read_speeds(path)
