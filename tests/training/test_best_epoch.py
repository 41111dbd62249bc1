from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resnet_zoo.errors import TrainingError
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.training.best_epoch import FILE_NAME, Best, BestEpoch
from tests.conftest import random_network


@pytest.fixture(scope="module")
def model() -> ResNet:
    return random_network(num_classes=2)


def mark(model: ResNet, value: float) -> None:
    with torch.no_grad():
        model.fc.bias.fill_(value)


def test_the_first_of_the_best_epochs_is_restored(model: ResNet, tmp_path: Path) -> None:
    best = BestEpoch(tmp_path, model, patience=9)
    for epoch, correct in enumerate((3, 5, 5, 4)):
        mark(model, epoch)
        best.add(epoch, correct, correct)
    assert best.restore() == Best(1, 5, 5)
    assert model.fc.bias.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("patience", "end"), [(1, 3), (2, 4), (3, None)])
def test_training_is_over_after_as_many_epochs_without_a_better_one(
    patience: int, end: int | None, model: ResNet, tmp_path: Path
) -> None:
    best, ends = BestEpoch(tmp_path, model, patience), []
    for epoch, correct in enumerate((1, 2, 2, 1, 3, 3, 3)):
        best.add(epoch, correct, correct)
        if best.is_over(epoch + 1):
            ends.append(epoch + 1)
    assert (ends[0] if ends else None) == end


def test_epochs_that_are_made_again_change_nothing(model: ResNet, tmp_path: Path) -> None:
    scores = (1, 3, 2, 2)
    for epoch, correct in enumerate(scores):
        BestEpoch(tmp_path, model, 2).add(epoch, correct, correct)
    before = (tmp_path / FILE_NAME).read_bytes()
    again = BestEpoch(tmp_path, model, 2)  # after a kill, from a checkpoint before the best epoch
    assert not again.is_over(1)
    for epoch, correct in enumerate(scores[:3]):
        again.add(epoch, correct, correct)
        assert not again.is_over(epoch + 1)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    again.add(3, scores[3], scores[3])
    assert again.is_over(4)


def test_what_is_damaged_is_never_the_result(model: ResNet, tmp_path: Path) -> None:
    BestEpoch(tmp_path, model, 2).add(0, 1, 1)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    other = random_network("resnet34_cifar10", num_classes=2)
    with pytest.raises(TrainingError, match="another network"):
        BestEpoch(tmp_path, other, 2)
    for damaged in (whole[:-7], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"is damaged .* Start over"):
            BestEpoch(tmp_path, model, 2)
