"""Training logs of three kinds, read as one kind of curve."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.errors import RunError
from resnet_zoo.runs.curves import Curve, Point, read_curve
from resnet_zoo.runs.folder import format_line, write_json
from tests.run_folders import ENVIRONMENT, EPOCH, RECIPE, STEPS

OPENMMLAB_0: list[dict[str, Any]] = [
    {"env_info": "sys.platform: linux\nPython: 3.7.10", "seed": None, "exp_name": "resnet18_b16x8_cifar10.py"},
    {"mode": "train", "epoch": 1, "iter": 100, "lr": 0.1, "memory": 344, "data_time": 0.01, "loss": 2.0, "time": 0.03},
    {"mode": "train", "epoch": 1, "iter": 200, "lr": 0.1, "memory": 344, "data_time": 0.01, "loss": 1.5, "time": 0.02},
    {"mode": "val", "epoch": 1, "iter": 79, "lr": 0.1, "accuracy_top-1": 45.2, "accuracy_top-5": 91.0},
    {"mode": "train", "epoch": 2, "iter": 100, "lr": 0.01, "memory": 344, "data_time": 0.01, "loss": 1.2, "time": 0.02},
    {"mode": "val", "epoch": 2, "iter": 79, "lr": 0.01, "accuracy_top-1": 60.0, "accuracy_top-5": 95.0},
]
MMENGINE: list[dict[str, Any]] = [
    {"lr": 0.1, "data_time": 0.01, "loss": 2.0, "time": 0.03, "epoch": 1, "iter": 100, "memory": 344, "step": 100},
    {"lr": 0.1, "data_time": 0.01, "loss": 1.5, "time": 0.02, "epoch": 1, "iter": 200, "memory": 344, "step": 200},
    {"accuracy/top1": 45.2, "accuracy/top5": 91.0, "data_time": 0.01, "time": 0.02, "step": 1},
    {"lr": 0.01, "data_time": 0.01, "loss": 1.2, "time": 0.02, "epoch": 2, "iter": 100, "memory": 344, "step": 300},
    {"accuracy/top1": 60.0, "accuracy/top5": 95.0, "data_time": 0.01, "time": 0.02, "step": 2},
]
POINTS = (
    Point(epoch=1, loss=1.75, lr=0.1, top1=45.2, top5=91.0, seconds=5.0),
    Point(epoch=2, loss=1.2, lr=0.01, top1=60.0, top5=95.0, seconds=2.0),
)


def written(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def epoch(number: int, **values: Any) -> str:
    return format_line(replace(EPOCH, epoch=number, **values))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "20261124T203719Z"
    folder.mkdir()
    write_json(folder / "recipe.json", RECIPE)
    write_json(folder / "environment.json", ENVIRONMENT)
    lines = [*map(format_line, STEPS), epoch(0, top1=50.0, top5=90.0), epoch(1, loss=1.0)]
    (folder / "log.jsonl").write_text("".join(lines))
    return folder


def test_our_log_is_read_from_the_run_folder_or_the_file(run: Path) -> None:
    curve = read_curve(run)
    assert curve.points == (
        Point(epoch=1, loss=1.5, lr=0.1, top1=50.0, top5=90.0, seconds=1.0, images_per_s=256.0),
        Point(epoch=2, loss=1.0, lr=0.1, seconds=1.0, images_per_s=256.0),
    )
    assert (curve.row, curve.recipe, curve.dataset) == ("resnet18_cifar10", "fast", "cifar10")
    assert curve.title == "resnet18_cifar10 fast 20261124T203719Z"
    assert read_curve(run / "log.jsonl") == curve


def test_a_log_alone_says_less(run: Path) -> None:
    (run / "recipe.json").unlink()
    (run / "environment.json").unlink()
    curve = read_curve(run)
    assert (curve.title, curve.row, curve.dataset) == ("20261124T203719Z", None, None)


@pytest.mark.parametrize(
    ("name", "records", "form"),
    [("a.log.json", OPENMMLAB_0, "openmmlab 0.x"), ("20240101_000000.json", MMENGINE, "mmengine")],
)
def test_both_of_openmmlabs_forms_give_the_same_curve(name: str, records: list[Any], form: str, tmp_path: Path) -> None:
    curve = read_curve(written(tmp_path / name, records))
    assert curve.points == POINTS
    assert (curve.format, curve.title) == (form, name)


def test_epochs_from_0_are_counted_from_1(tmp_path: Path) -> None:
    records = [{**record, "epoch": record["epoch"] - 1} if "epoch" in record else record for record in OPENMMLAB_0]
    assert read_curve(written(tmp_path / "a.log.json", records)).points == POINTS


def test_of_what_a_resumed_log_repeats_the_last_line_counts(tmp_path: Path) -> None:
    records = [OPENMMLAB_0[0], {**OPENMMLAB_0[2], "loss": 9.0}, *OPENMMLAB_0[1:]]
    assert read_curve(written(tmp_path / "a.log.json", records)).points == POINTS


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.log.json", OPENMMLAB_0)
    with path.open("a") as file:
        file.write('{"mode": "train", "epo')
    assert read_curve(path).points == POINTS


def test_a_diverged_loss_is_left_out(tmp_path: Path) -> None:
    records = [*OPENMMLAB_0[:-1], {**OPENMMLAB_0[4], "loss": float("nan")}]
    assert read_curve(written(tmp_path / "a.log.json", records)).points[1].loss is None


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("resnet18_b16x8_cifar10_20210528-bd6371c8.log.json", "cifar10"),
        ("resnet50_b16x8_cifar100_20210528-67b58a1b.log.json", "cifar100"),
        ("resnet50_8xb32_in1k_20210831-ea4938fc.log.json", "in1k"),
        ("a.log.json", None),
    ],
)
def test_the_data_set_is_read_from_the_files_name(name: str, dataset: str | None, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert read_curve(written(tmp_path / "x" / name, OPENMMLAB_0)).dataset == dataset


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a training log"),
        ('{"a": 1}\n', "is not a training log: expected our log.jsonl, OpenMMLab's .log.json or mmengine's vis_data"),
        ("{}\nx\n", "line 2: is not valid JSON"),
        ("[]\n", "line 1: expected an object, got '[]'"),
        ('{"env_info": "x"}\n', "has no finished epoch yet"),
        ('{"mode": "train", "epoch": "1", "iter": 1}\n', "field epoch: expected an integer of 0 or more, got '1'"),
        ('{"mode": "train", "epoch": 1}\n', "field iter: expected an integer of 0 or more, got None"),
    ],
)
def test_what_is_no_log_is_an_error(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RunError, match=re.escape(said)):
        read_curve(tmp_path / "a.json")


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "a.json"):
        with pytest.raises(RunError, match="cannot be read"):
            read_curve(path)


def curve_of(*points: Point) -> Curve:
    return Curve(title="a", source="a", format="mmengine", row=None, recipe=None, dataset=None, points=points)


def test_the_final_epoch_is_the_last_that_was_evaluated() -> None:
    evaluated = Point(epoch=1, top1=50.0)
    assert curve_of(evaluated, Point(epoch=2)).final == evaluated
    assert curve_of(Point(epoch=1)).final is None


def test_a_time_is_told_only_if_every_epochs_is_known() -> None:
    first, second = Point(epoch=1, seconds=2.0), Point(epoch=2, seconds=3.0)
    assert curve_of(first, second).seconds_until(1) == 2.0
    assert curve_of(first, second).seconds_until(2) == 5.0
    assert curve_of(first, Point(epoch=2)).seconds_until(2) is None
    assert curve_of(second).seconds_until(2) is None
