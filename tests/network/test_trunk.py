"""Frozen layers, recomputed blocks, and images that a network cannot take."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from resnet_zoo import ArgumentError, FeatureExtractor, UnknownLayerError, create_model
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.network.trunk import LAYERS, Block
from tests.conftest import randomise


def network(name: str = "resnet18_cifar10") -> ResNet:
    torch.manual_seed(0)
    model = build(get_entry(name))
    randomise(model)
    return model


def images(*shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 16, 16), generator=torch.Generator().manual_seed(1))


def train_step(model: nn.Module, x: Tensor) -> dict[str, Tensor | None]:
    """Run one forward and backward pass and return the gradients."""
    model.zero_grad()
    outputs = model(x)
    values = outputs.values() if isinstance(outputs, dict) else [outputs]
    torch.stack([value.square().mean() for value in values]).sum().backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in model.named_parameters()}


# --- freezing ------------------------------------------------------------------------------------------------------


def layer_of(tensor_name: str) -> str:
    child = tensor_name.partition(".")[0]
    return next(layer for layer, modules in LAYERS.items() if child in modules)


def frozen_by(up_to: str | None) -> list[str]:
    names = list(LAYERS)
    return [] if up_to is None else names[: names.index(up_to) + 1]


@pytest.mark.parametrize(
    ("name", "up_to"),
    [
        *(("resnet18_cifar10", up_to) for up_to in ("stem", "stage1", "stage2", "stage3", "stage4")),
        ("resnetv1d50_in1k", "stem"),
        ("resnetv1d50_in1k", "stage2"),
    ],
)
def test_frozen_layers_keep_everything_in_training_and_all_others_learn(name: str, up_to: str) -> None:
    model = network(name)
    model.freeze(up_to)
    model.eval()
    model.train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = train_step(model, images(2, 3, 40, 40))
    optimizer.step()
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) is (layer_of(key) in frozen_by(up_to)), key
    for key, gradient in gradients.items():
        assert (gradient is None) is (layer_of(key) in frozen_by(up_to)), key


def test_without_freezing_every_tensor_changes() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_step(model, images())
    optimizer.step()
    assert not [key for key, value in model.state_dict().items() if torch.equal(value, before[key])]


def test_frozen_layers_normalise_by_their_statistics_in_training_too() -> None:
    model = network()
    expected = model.eval().stages(images())["stage2"]
    model.freeze("stage2")
    assert torch.equal(model.train().stages(images())["stage2"], expected)
    model.freeze(None)
    assert not torch.equal(model.stages(images())["stage2"], expected)


def test_freezing_fewer_layers_thaws_the_others_and_none_thaws_all() -> None:
    model = network()
    model.freeze("stage3")
    model.freeze("stem")
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
    ]
    assert [name for name, module in model.named_modules() if not module.training] == [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
    ]
    model.freeze(None)
    assert all(value.requires_grad for value in model.parameters())
    assert all(module.training for module in model.modules())


def test_thawing_leaves_what_the_user_froze_after_it() -> None:
    model = network()
    model.fc.requires_grad_(False)
    model.freeze("stage1")
    model.freeze(None)
    assert not model.fc.weight.requires_grad
    assert model.conv1.weight.requires_grad


def test_thawing_in_eval_mode_stays_in_eval_mode() -> None:
    model = network().eval()
    model.freeze()
    model.freeze(None)
    assert not any(module.training for module in model.modules())


def test_freezing_holds_inside_another_module_and_in_copies() -> None:
    model = network()
    model.freeze("stage1")
    for kept in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        wrapper = nn.Sequential(kept, nn.ReLU()).eval().train()
        assert wrapper.training
        assert not kept.bn1.training
        assert kept.get_submodule("layer2.0.bn1").training


def test_synchronised_batch_norm_stays_frozen() -> None:
    model = network()
    model.freeze("stage1")
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.train()
    assert isinstance(model.bn1, nn.SyncBatchNorm)
    assert not model.bn1.training
    assert not model.get_submodule("layer1.1.bn2").training
    assert model.get_submodule("layer2.0.bn1").training


@pytest.mark.parametrize("name", ["stage5", "pool", "logits", "stage3.1", "layer2"])
def test_freezing_up_to_what_is_no_stage_is_refused_and_changes_nothing(name: str) -> None:
    model = network()
    model.freeze("stem")
    with pytest.raises(UnknownLayerError, match="Known: stem, stage1, stage2, stage3, stage4"):
        model.freeze(name)
    assert not model.conv1.weight.requires_grad
    assert model.get_parameter("layer1.0.conv1.weight").requires_grad


# --- gradient checkpointing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnet50_in1k", "resnetv1d50_in1k"])
@pytest.mark.parametrize("up_to", [None, "stage1"])
def test_recomputed_blocks_give_the_same_gradients_and_statistics_bit_by_bit(name: str, up_to: str | None) -> None:
    plain, recomputed = network(name), network(name)
    recomputed.set_grad_checkpointing()
    for model in (plain, recomputed):
        model.freeze(up_to)
    gradients, same = train_step(plain, images(2, 3, 45, 38)), train_step(recomputed, images(2, 3, 45, 38))
    for key, gradient in gradients.items():
        other = same[key]
        assert (gradient is None) is (other is None), key
        assert gradient is None or other is None or torch.equal(gradient, other), key
    for key, value in plain.state_dict().items():
        assert torch.equal(value, recomputed.state_dict()[key]), key
    assert int(recomputed.get_buffer("layer4.1.bn1.num_batches_tracked")) == 1


def test_without_care_a_recomputed_batch_is_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnet_zoo.network.trunk._contexts", lambda block: (nullcontext(), nullcontext()))
    model = network()
    model.set_grad_checkpointing()
    train_step(model, images())
    assert int(model.get_buffer("layer4.1.bn1.num_batches_tracked")) == 2


def peak_bytes(model: nn.Module, x: Tensor) -> int:
    """Return how much the allocator held at most, above parameters and gradients, in one training step."""
    train_step(model, x)  # so that the gradients are there
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as measured:
        model(x).square().mean().backward()
    results: Any = measured.profiler.kineto_results
    events = sorted((event for event in results.events() if event.name() == "[memory]"), key=lambda e: e.start_ns())
    return max(accumulate(int(event.nbytes()) for event in events))


@pytest.mark.slow
def test_recomputing_saves_two_fifths_of_the_memory_of_a_step() -> None:
    model, x = network(), images(16, 3, 32, 32)
    plain = peak_bytes(model, x)
    model.set_grad_checkpointing()
    assert 0 < peak_bytes(model, x) < 0.6 * plain


def counted_calls(model: nn.Module, run: Callable[[], object]) -> int:
    """Return how often blocks transform while something runs."""
    calls = []
    for module in model.modules():
        if isinstance(module, Block):
            module.get_submodule("conv1").register_forward_hook(lambda *_: calls.append(1))
    run()
    return len(calls)


def test_blocks_are_computed_once_without_gradients_and_twice_with_them() -> None:
    model = network()
    model.set_grad_checkpointing()
    with torch.no_grad():
        assert counted_calls(model, lambda: model(images())) == 8
    model = network()
    model.set_grad_checkpointing()
    assert counted_calls(model, lambda: train_step(model, images())) == 16
    model = network()
    model.set_grad_checkpointing()
    model.set_grad_checkpointing(enable=False)
    assert counted_calls(model, lambda: train_step(model, images())) == 8


@pytest.mark.slow
def test_recomputed_blocks_compile_to_one_graph() -> None:
    plain, recomputed = network(), network()
    recomputed.set_grad_checkpointing()
    gradients = train_step(plain, images())
    compiled = torch.compile(recomputed, backend="aot_eager", fullgraph=True)
    compiled(images()).square().mean().backward()
    for name, parameter in recomputed.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])
    assert int(recomputed.get_buffer("layer4.1.bn1.num_batches_tracked")) == 1


# --- images that cannot be -----------------------------------------------------------------------------------------

BAD_IMAGES = {
    "uint8": (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), r"normalised float32 images.*got torch.uint8.*create_tran"),
    "float64": (torch.zeros(1, 3, 32, 32, dtype=torch.float64), r"got torch.float64.*images\.to\(torch\.float32\)"),
    "bfloat16": (torch.zeros(1, 3, 32, 32, dtype=torch.bfloat16), r"got torch.bfloat16"),
    "one channel": (torch.zeros(2, 1, 32, 32), r"\(N, 3, H, W\), got \(2, 1, 32, 32\).*in_channels=1"),
    "four channels": (torch.zeros(2, 4, 32, 32), r"\(N, 3, H, W\), got \(2, 4, 32, 32\).*in_channels=4"),
    "channels last": (torch.zeros(2, 32, 32, 3), r"got \(2, 32, 32, 3\): the channels are last.*permute\(0, 3, 1, 2\)"),
    "channels last, one image": (torch.zeros(32, 32, 3), r"got \(32, 32, 3\): the channels are last.*permute\(2, 0, 1"),
    "one image": (torch.zeros(3, 32, 32), r"got \(3, 32, 32\)\. A single image needs images\.unsqueeze\(0\)"),
    "two dimensions": (torch.zeros(32, 32), r"got \(32, 32\)\. Reshape them to four dimensions\.$"),
    "video": (torch.zeros(1, 3, 8, 32, 32), r"got \(1, 3, 8, 32, 32\)\. Reshape them to four dimensions\.$"),
    "no pixels": (torch.zeros(1, 3, 0, 32), r"got \(1, 3, 0, 32\): there are no pixels"),
    "array": (np.zeros((1, 3, 32, 32), np.float32), r"as a tensor, got ndarray"),
    "nothing": (None, r"as a tensor, got NoneType"),
}


built_once = functools.cache(network)


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnetv1d50_in1k"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images_are_refused_with_a_sentence(name: str, training: bool, kind: str) -> None:
    bad: Any
    bad, says = BAD_IMAGES[kind]
    model = built_once(name).train(training)  # whatever is refused changes nothing
    for module in (model, model.stages, model.forward_features, FeatureExtractor(model, layers=("stem", "stage2"))):
        with pytest.raises(ArgumentError, match=says):
            module(bad)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_an_empty_batch_has_no_logits_and_leaves_the_statistics(training: bool) -> None:
    """As in torchvision and timm: a crop classifier meets frames without boxes, Poisson sampling empty batches."""
    model, none = network().train(training), torch.zeros(0, 3, 32, 32)
    before = copy.deepcopy(model.bn1.state_dict())
    assert model(none).shape == (0, 10)
    assert FeatureExtractor(model, layers=("stage2",))(none)["stage2"].shape == (0, 128, 16, 16)
    assert torch.equal(model.bn1.running_var, before["running_var"])  # type: ignore[arg-type]


def test_good_images_of_other_types_are_taken() -> None:
    model = network().eval()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert model(images()).dtype == torch.bfloat16
        assert model.double()(images().double()).dtype == torch.float64
        assert model.bfloat16()(images().bfloat16()).dtype == torch.bfloat16


def test_a_network_with_other_channels_says_so() -> None:
    model = create_model("resnet18_cifar10", in_channels=1).eval()
    assert model(images(1, 1, 32, 32)).shape == (1, 10)
    with pytest.raises(ArgumentError, match=r"\(N, 1, H, W\), got \(2, 3, 16, 16\).*in_channels=3"):
        model(images())


def test_an_error_that_is_not_the_images_is_raised_as_it_is() -> None:
    model = network()

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    model.get_submodule("layer3").register_forward_hook(fail)
    with pytest.raises(RuntimeError, match=r"^out of memory$") as raised:
        model(images())
    assert not isinstance(raised.value, ArgumentError)


def test_one_image_and_odd_sizes_are_taken_in_both_modes() -> None:
    for name in ("resnet18_cifar10", "resnet50_in1k", "resnetv1d50_in1k"):
        model = network(name)
        for size in ((1, 3, 45, 38), (1, 3, 33, 97)):
            assert model.eval()(images(*size)).isfinite().all()
            assert model.train()(images(*size)).isfinite().all()
