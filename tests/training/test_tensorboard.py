"""The log as TensorBoard event files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from resnet_zoo.errors import ArgumentError
from resnet_zoo.runs.records import LogResume, LogStep
from resnet_zoo.training.display import tensorboard_writer
from tests.training.test_console import EPOCH


def test_steps_and_epochs_become_scalars(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write = tensorboard_writer(tmp_path)
    for line in (LogStep(epoch=0, step=3, loss=2.5, lr=0.1), EPOCH, LogResume(epoch=0, step=3)):
        write(line)
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in found.Scalars("loss/step")] == [(3, 2.5)]
    assert [event.value for event in found.Scalars("top1/test")] == [61.5]


def test_without_tensorboard_a_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ArgumentError, match=r"pip install 'resnet-zoo\[train\]'"):
        tensorboard_writer(tmp_path)
