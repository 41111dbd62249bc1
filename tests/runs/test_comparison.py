"""Two curves held against each other, and the command that does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from resnet_zoo.cli.main import main
from resnet_zoo.runs.comparison import compare_curves, some_epochs
from resnet_zoo.runs.curves import Curve, Point
from tests.runs.test_curves import MMENGINE, OPENMMLAB_0, written


def curve(*accuracies: float | None, title: str = "a", dataset: str | None = "cifar10", loss: float = 1.0) -> Curve:
    points = tuple(
        Point(epoch=epoch, loss=loss / epoch, lr=0.1, top1=top1, seconds=10.0)
        for epoch, top1 in enumerate(accuracies, start=1)
    )
    return Curve(title=title, source=title, format="resnet_zoo", row=None, recipe=None, dataset=dataset, points=points)


def test_differences_are_the_second_less_the_first() -> None:
    found = compare_curves(curve(50.0, 60.0), curve(55.0, 59.0, loss=2.0))
    assert [pair.top1_difference for pair in found.epochs] == [5.0, -1.0]
    assert [pair.loss_difference for pair in found.epochs] == [1.0, 0.5]
    assert found.final_top1_difference == -1.0
    assert found.largest_gap == found.epochs[0]


def test_the_epoch_at_which_each_reaches_the_others_final_accuracy() -> None:
    found = compare_curves(curve(50.0, 60.0, 70.0), curve(55.0, 61.0))
    assert found.first_reached is not None
    assert (found.first_reached.target, found.first_reached.epoch, found.first_reached.seconds) == (61.0, 3, 30.0)
    assert found.second_reached is not None
    assert (found.second_reached.target, found.second_reached.epoch, found.second_reached.seconds) == (70.0, None, None)
    assert (found.first_seconds, found.second_seconds) == (30.0, 20.0)


def test_an_epoch_that_only_one_has_is_there_without_differences() -> None:
    found = compare_curves(curve(50.0, None, 70.0), curve(50.0, 60.0))
    assert [pair.epoch for pair in found.epochs] == [1, 2, 3]
    assert [pair.top1_difference for pair in found.epochs] == [0.0, None, None]
    assert found.epochs[2].second is None
    assert found.final_top1_difference == -10.0  # each at its own end


def test_curves_without_accuracies_have_none_to_compare() -> None:
    found = compare_curves(curve(None), curve(None))
    assert (found.final_top1_difference, found.largest_gap, found.first_reached) == (None, None, None)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("cifar10", "cifar10", ""),
        ("cifar10-jpeg", "cifar10", "cifar10-jpeg against cifar10: accuracies are not comparable"),
        ("cifar10", None, "b does not say what it was evaluated on: accuracies may not be comparable"),
        (None, None, "a and b does not say what it was evaluated on"),
    ],
)
def test_other_images_are_said_to_be_not_comparable(first: str | None, second: str | None, said: str) -> None:
    found = compare_curves(curve(50.0, dataset=first), curve(50.0, title="b", dataset=second))
    assert found.note.startswith(said)
    assert bool(found.note) is bool(said)


def test_a_table_has_both_ends_the_largest_gap_and_evaluated_epochs_between() -> None:
    accuracies = [50.0 if epoch % 5 == 0 else None for epoch in range(1, 201)]
    accuracies[59] = 10.0
    found = compare_curves(curve(*accuracies), curve(*[50.0] * 100))
    chosen = [pair.epoch for pair in some_epochs(found, 20)]
    assert 12 <= len(chosen) <= 20
    assert {1, 60, 100, 200} <= set(chosen)
    assert chosen == sorted(chosen)


def test_a_short_table_has_every_epoch() -> None:
    assert len(some_epochs(compare_curves(curve(*[1.0] * 20), curve(1.0)), 20)) == 20


# --- the command --------------------------------------------------------------------------------------------------


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    other = [{**record, "accuracy/top1": 61.5} if record.get("step") == 2 else record for record in MMENGINE]
    return written(tmp_path / "a_cifar10.log.json", OPENMMLAB_0), written(tmp_path / "b.json", other)


def diff(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["diff-log", *map(str, arguments)])


def test_the_command_prints_epochs_and_a_summary(logs: tuple[Path, Path]) -> None:
    done = diff(*logs)
    assert done.exit_code == 0, done.output
    assert "60.00 after epoch 2 and 61.50 after epoch 2: +1.50" in done.stdout
    assert "+1.50 points after epoch 2" in done.stdout
    assert "never (61.50)" in done.stdout
    assert "60.00 after epoch 2, 0:00:07" in done.stdout
    assert "b.json does not say what it was evaluated on" in done.stdout
    assert ["1", "1.7500", "1.7500", "+0.0000", "0.1", "0.1", "45.20", "45.20", "+0.00"] in [
        line.split() for line in done.stdout.splitlines()
    ]


def test_the_command_gives_every_epoch_as_json(logs: tuple[Path, Path]) -> None:
    done = diff(*logs, "--format", "json")
    assert done.exit_code == 0
    content = json.loads(done.stdout)
    assert [pair["epoch"] for pair in content["epochs"]] == [1, 2]
    assert content["epochs"][1]["top1_difference"] == 1.5
    assert content["first"]["dataset"] == "cifar10"


def test_the_command_draws_both(logs: tuple[Path, Path], tmp_path: Path) -> None:
    assert diff(*logs, "--plot", tmp_path / "a.png").exit_code == 0
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_command_replaces_no_picture_unless_that_is_said(logs: tuple[Path, Path], tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    picture.write_bytes(b"kept")
    refused = diff(*logs, "--plot", picture)
    assert (refused.exit_code, picture.read_bytes()) == (2, b"kept")
    assert f"{picture} exists already" in refused.stderr
    assert diff(*logs, "--plot", picture, "--force").exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_ends_with_the_documented_codes(logs: tuple[Path, Path], tmp_path: Path) -> None:
    missing = diff(logs[0], tmp_path / "missing.json")
    assert missing.exit_code == 3
    assert "missing.json: cannot be read: No such file or directory" in missing.stderr
    assert diff(logs[0]).exit_code == 2
    assert diff(*logs, "--plot", tmp_path / "a.gif").exit_code == 2
