"""Model cards say what a network knows, and what it does not."""

from __future__ import annotations

import pytest

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.weights.cards import model_card


@pytest.mark.parametrize(
    ("name", "names", "facts"),
    [
        ("resnet18_cifar10", ["cat", "dog"], ["It knows cat, dog.", "one of its 2 classes", "shrunk to 32x32 pixels"]),
        ("resnet50", None, ["class 0, class 1", "and 980 more", "one of its 1,000 classes"]),
    ],
)
def test_a_card_names_classes_and_limits(name: str, names: list[str] | None, facts: list[str]) -> None:
    entry = get_entry(name)
    num_classes = len(names) if names else entry.num_classes
    card = model_card(entry, "me/mine", num_classes=num_classes, class_names=names, sha256="0" * 64, licence="MIT")
    assert all(fact in card for fact in facts)
    assert ("shrunk" in card) == (entry.preprocess.resize_backend is None)
