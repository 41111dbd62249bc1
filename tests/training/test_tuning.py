"""How a network is fine-tuned: the phases' recipes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.training.tuning import FRESH, TUNING, Tuning
from tests.conftest import ENTRIES, NAMES


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_row_has_a_phase_for_the_classifier_and_one_for_the_whole(entry: Entry) -> None:
    phases = TUNING.phases(entry)
    assert list(phases) == ["head", "whole"]
    head, whole = phases["head"], phases["whole"]
    assert whole == replace(head, epochs=TUNING.epochs, lr=TUNING.lr)
    assert (head.lr, whole.schedule, whole.nesterov, whole.decay_all) == (2 * TUNING.lr, "triangle", True, False)
    assert whole.augmentation == ("resized_crop_flip" if entry.dataset == "in1k" else "pad_crop_flip")
    assert whole.loss_scale is None


def test_a_phase_without_epochs_is_left_out() -> None:
    assert list(FRESH.phases(ENTRIES[0])) == ["whole"]
    assert list(Tuning(epochs=0).phases(ENTRIES[0])) == ["head"]


def test_half_precision_has_a_loss_scale() -> None:
    recipe = Tuning(precision="float16").phases(ENTRIES[0])["head"]
    assert (recipe.precision, recipe.loss_scale) == ("float16", 512.0)


@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ({"epochs": -1}, "epochs of 0 or more"),
        ({"epochs": 0, "head_epochs": 0}, "at least one in total"),
        ({"lr": 0.0}, "lr to be a number above 0"),
        ({"lr": float("nan")}, "lr to be a number above 0"),
        ({"head_factor": float("inf")}, "head_factor to be"),
        ({"batch_size": 0}, "batch_size to be"),
        ({"precision": "int8"}, "float32 or bfloat16 or float16"),
        ({"label_smoothing": 2.0}, "label_smoothing: expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_trained_with_is_refused(values: dict[str, Any], fact: str) -> None:
    with pytest.raises(ArgumentError, match=fact):
        Tuning(**values).phases(ENTRIES[0])
