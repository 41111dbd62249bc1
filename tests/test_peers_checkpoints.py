"""Checkpoints that other libraries really write: the weights that they themselves would use are those that load.

Extra ``peers``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnet_zoo import convert_checkpoint, create_model, load_checkpoint
from tests.conftest import randomise

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


def test_a_checkpoint_of_timm_gives_the_weights_that_timm_loads(tmp_path: Path) -> None:
    import timm
    from timm.models import load_state_dict
    from timm.utils.checkpoint_saver import CheckpointSaver
    from timm.utils.model_ema import ModelEmaV3

    model = randomise(timm.create_model("resnet18"))
    average = ModelEmaV3(model, decay=0.5)
    randomise(model, 1)
    average.update(model)
    saver = CheckpointSaver(  # type: ignore[no-untyped-call]
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        args=argparse.Namespace(model="resnet18", output=tmp_path),
        model_ema=average,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, metric=1.0)  # type: ignore[no-untyped-call]
    path = tmp_path / "last.pth.tar"
    assert_equal(load_checkpoint(path).tensors, load_state_dict(str(path), weights_only=False))
    raw = load_checkpoint(path, weights_key="state_dict").tensors
    assert_equal(raw, load_state_dict(str(path), use_ema=False, weights_only=False))
    assert not torch.equal(raw["bn1.weight"], load_checkpoint(path).tensors["bn1.weight"])


def test_a_checkpoint_of_torchvision_s_scripts_gives_the_average(tmp_path: Path) -> None:
    import torchvision
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = randomise(torchvision.models.resnet18())
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))  # type: ignore[no-untyped-call]
    average.update_parameters(randomise(model, 1))
    average.update_parameters(randomise(model, 2))
    args = argparse.Namespace(model="resnet18", output_dir=tmp_path)
    content: dict[str, Any] = {"model": model.state_dict(), "model_ema": average.state_dict(), "args": args}
    torch.save(content, tmp_path / "checkpoint.pth")
    found = load_checkpoint(tmp_path / "checkpoint.pth")
    assert (found.weights_key, found.prefix) == ("model_ema", "module.")
    assert_equal(found.tensors, average.module.state_dict())


def test_a_checkpoint_of_mmengine_s_ema_hook_gives_the_average(tmp_path: Path) -> None:
    from mmengine.hooks import EMAHook
    from mmengine.model import ExponentialMovingAverage

    model: Any = randomise(create_model("resnet18_cifar10"))
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, ExponentialMovingAverage(model, momentum=0.5)
    hook.ema_model.update_parameters(model)
    randomise(model, 1)
    hook.ema_model.update_parameters(model)
    average = {key: tensor.clone() for key, tensor in hook.ema_model.module.state_dict().items()}
    content: dict[str, Any] = {"state_dict": dict(model.state_dict()), "meta": {}, "message_hub": {}}
    hook.before_save_checkpoint(None, content)
    torch.save(content, tmp_path / "epoch_1.pth")
    found = load_checkpoint(tmp_path / "epoch_1.pth")
    assert found.weights_key == "state_dict"
    for key, parameter in average.items():
        assert torch.equal(found.tensors[key], parameter), key
    others = load_checkpoint(tmp_path / "epoch_1.pth", weights_key="ema_state_dict")
    assert torch.equal(others.tensors["bn1.weight"], model.bn1.weight)
    assert not torch.equal(others.tensors["bn1.weight"], average["bn1.weight"])


class MMSegStem(nn.Sequential):
    """The deep stem as mmseg and mmdet build it (mmseg/models/backbones/resnet.py, `_make_stem_layer`)."""

    def __init__(self) -> None:
        widths = ((3, 32, 2), (32, 32, 1), (32, 64, 1))
        parts = (
            (nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after, stride in widths
        )
        super().__init__(*(layer for part in parts for layer in part))


def test_the_stem_of_mmseg_computes_what_ours_does(tmp_path: Path) -> None:
    model: Any = randomise(create_model("resnetv1d50")).eval()
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    convert_checkpoint(tmp_path / "ours.pth", tmp_path / "theirs.pth", layout="mmseg")
    state = torch.load(tmp_path / "theirs.pth", weights_only=True)
    stem = MMSegStem().eval()
    stem.load_state_dict({key.removeprefix("stem."): value for key, value in state.items() if key.startswith("stem.")})
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(stem(images), model.relu(model.bn1(model.conv1(images))))
