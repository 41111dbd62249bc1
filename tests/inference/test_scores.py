from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference.scores import (
    Answers,
    check_confusion_target,
    class_accuracies,
    most_confused,
    write_confusion,
)
from tests.conftest import slow

NAMES = ["cat", "=dog", "newt"]
CONFUSION = ((3, 1, 0), (2, 2, 0), (0, 0, 0))


def answers(labels: list[int], predicted: list[int], probability: list[float]) -> Answers:
    return Answers(np.array(labels), np.array(predicted), np.array(probability, dtype=np.float32))


def test_images_are_counted_by_actual_and_best_class() -> None:
    found = answers([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 0, 0, 1, 1], [0.5] * 8)
    assert found.confusion(3) == CONFUSION


def test_a_class_has_its_recall_and_precision_and_none_without_images() -> None:
    cat, dog, newt = class_accuracies(CONFUSION, NAMES)
    assert (cat.num_images, cat.correct1, cat.num_predicted, cat.top1, cat.precision_pct) == (4, 3, 5, 75.0, 60.0)
    assert dog.top1 == 50.0
    assert dog.precision_pct == pytest.approx(200 / 3)
    assert (newt.num_images, newt.top1, newt.precision_pct) == (0, None, None)


def test_the_most_confused_pairs_come_first_and_right_answers_never() -> None:
    assert most_confused(CONFUSION, 5) == [(1, 0, 2), (0, 1, 1)]
    assert most_confused(CONFUSION, 1) == [(1, 0, 2)]


def test_probabilities_that_are_right_as_often_as_they_say_have_no_calibration_error() -> None:
    assert answers([0] * 4, [0, 0, 0, 1], [0.75] * 4).calibration_error_pct == pytest.approx(0)
    assert answers([0, 0], [0, 0], [1.0, 1.0]).calibration_error_pct == 0


def test_the_calibration_error_is_the_mean_over_bins_by_their_images() -> None:
    """Two bins: three images of 0.9, one right, differ by 0.5667; one of 0.5 that is right differs by 0.5."""
    found = answers([0, 0, 0, 0], [0, 1, 1, 0], [0.9, 0.9, 0.9, 0.5])
    assert found.calibration_error_pct == pytest.approx(100 * (3 * (0.9 - 1 / 3) + 0.5) / 4, abs=1e-4)
    opposite = answers([0, 0], [0, 1], [0.94, 0.95])  # in one bin a surplus and a lack make up for each other
    assert opposite.calibration_error_pct == pytest.approx(100 * abs(0.94 + 0.95 - 1) / 2, abs=1e-4)


def test_the_matrix_is_written_as_json_and_as_csv_that_no_spreadsheet_computes(tmp_path: Path) -> None:
    write_confusion(CONFUSION, NAMES, tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "class_names": NAMES,
        "confusion": [list(row) for row in CONFUSION],
    }
    write_confusion(CONFUSION, NAMES, tmp_path / "c.csv")
    header, *rows = csv.reader((tmp_path / "c.csv").read_text().splitlines())
    assert header == ["actual", "cat", "'=dog", "newt"]
    assert rows == [["cat", "3", "1", "0"], ["'=dog", "2", "2", "0"], ["newt", "0", "0", "0"]]


@pytest.mark.parametrize(("num_classes", "times"), [(3, 2), slow(40, 1), slow(100, 1)])
def test_the_matrix_is_drawn_and_the_same_twice(num_classes: int, times: int, tmp_path: Path) -> None:
    cells = np.diag(np.arange(num_classes)) + np.eye(num_classes, k=1, dtype=np.int64)
    confusion = tuple(map(tuple, cells.tolist()))
    files = [tmp_path / f"{number}.png" for number in range(times)]
    for file in files:
        write_confusion(confusion, [f"a $class$ {label}" for label in range(num_classes)], file)
    assert files[0].read_bytes() == files[-1].read_bytes()
    pixels = np.asarray(Image.open(files[0]).convert("RGB"))
    assert min(pixels.shape[:2]) >= 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_targets_that_cannot_be_are_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there.json").touch()
    with pytest.raises(ArgumentError, match="exists already"):
        check_confusion_target(tmp_path / "there.json", overwrite=False)
    check_confusion_target(tmp_path / "there.json", overwrite=True)
    with pytest.raises(ArgumentError, match="ends in"):
        check_confusion_target(tmp_path / "c.txt", overwrite=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ArgumentError, match="needs matplotlib"):
        check_confusion_target(tmp_path / "c.png", overwrite=False)
    check_confusion_target(tmp_path / "c.csv", overwrite=False)
