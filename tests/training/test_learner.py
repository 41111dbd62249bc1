"""One step: against the same step written by hand, bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from resnet_zoo.catalog.recipes import Recipe
from resnet_zoo.training.learner import Learner, make_optimizer
from tests.training_tools import ALONE, SmallImages, normalise, same_state, small_learner, small_network, small_recipe

IMAGES = SmallImages()
PIXELS, LABELS = IMAGES.pixels[:8], IMAGES.labels[:8]


def step_by_hand(model: nn.Module, recipe: Recipe, momentum: dict[str, torch.Tensor], lr: float) -> float:
    """Make one step of SGD as its definition says."""
    inputs = normalise(PIXELS).contiguous(memory_format=torch.channels_last)
    loss = functional.cross_entropy(model(inputs), LABELS)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradient = parameter.grad + recipe.weight_decay * parameter
            momentum[name] = recipe.momentum * momentum.get(name, torch.zeros(())) + gradient
            parameter.sub_(lr * momentum[name])
            parameter.grad = None
    return loss.item()


@pytest.mark.slow
def test_published_steps_are_plain_sgd_with_decay_on_everything() -> None:
    recipe = small_recipe(weight_decay=5e-4)
    learner = small_learner(recipe)
    model = copy.deepcopy(learner.model)
    momentum: dict[str, torch.Tensor] = {}
    for lr in (0.1, 0.1, 0.01):
        loss, _ = learner.step(PIXELS, LABELS, lr=lr, size=None)
        assert float(loss) == pytest.approx(step_by_hand(model, recipe, momentum, lr), rel=1e-5)
    for key, tensor in model.state_dict().items():
        assert torch.allclose(learner.state()[f"model.{key}"], tensor, rtol=1e-4, atol=1e-6), key


@pytest.mark.parametrize(
    "change",
    [
        {"nesterov": True},
        {"weight_decay": 0.1},
        {"momentum": 0.5},
        {"label_smoothing": 0.1},
        {"decay_all": False},
        {"bias_lr_factor": 4.0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_the_recipe_moves_the_weights(change: dict[str, Any]) -> None:
    base = {"weight_decay": 0.01}
    learners = [small_learner(small_recipe(**fields)) for fields in (base, base | change)]
    for learner in learners:
        for _ in range(2):
            learner.step(PIXELS, LABELS, lr=0.1, size=None)
    assert not same_state(*learners)


def test_without_decay_all_vectors_are_not_decayed() -> None:
    network = small_network()
    decayed, others = make_optimizer(network, small_recipe(decay_all=False)).param_groups
    assert {group["lr_factor"] for group in (decayed, others)} == {1.0}
    assert {parameter.ndim for parameter in decayed["params"]} == {2, 4}
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert (decayed["weight_decay"], others["weight_decay"]) == (1e-4, 0.0)
    (everything,) = make_optimizer(network, small_recipe()).param_groups
    assert len(everything["params"]) == len(list(network.parameters()))


def test_batch_norms_biases_have_a_rate_of_their_own() -> None:
    recipe = small_recipe(bias_lr_factor=16.0, weight_decay=0.0, momentum=0.0)
    learner, plain = small_learner(recipe), small_learner(replace(recipe, bias_lr_factor=1.0))
    before = {name: parameter.detach().clone() for name, parameter in learner.model.named_parameters()}
    for one in (learner, plain):
        one.step(PIXELS, LABELS, lr=0.01, size=None)
    slow = dict(plain.model.named_parameters())
    for name, parameter in learner.model.named_parameters():
        factor = 16.0 if ("bn" in name and name.endswith("bias")) or name.endswith("downsample.1.bias") else 1.0
        assert torch.allclose(parameter - before[name], factor * (slow[name] - before[name]), atol=1e-6), name
    assert sum(len(group["params"]) for group in learner.optimizer.param_groups) == len(before)


def test_correct_images_are_counted() -> None:
    learner = small_learner(small_recipe())
    with torch.no_grad():
        logits = copy.deepcopy(learner.model)(normalise(PIXELS))
    _, correct = learner.step(PIXELS, LABELS, lr=0.0, size=None)
    assert int(correct) == int((logits.argmax(1) == LABELS).sum())


def test_a_size_shrinks_the_images() -> None:
    sizes = []
    learner = small_learner(small_recipe())
    learner.model.conv1.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].shape[-2:]))
    learner.step(PIXELS, LABELS, lr=0.1, size=4)
    learner.step(PIXELS, LABELS, lr=0.1, size=None)
    assert sizes == [(4, 4), (8, 8)]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_arithmetic_is_in_the_recipes_precision_and_parameters_stay_float32(precision: str) -> None:
    learner = small_learner(small_recipe(precision=precision, loss_scale=512.0 if precision == "float16" else None))
    dtypes = []
    learner.model.layer1.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    before = copy.deepcopy(learner.model)
    loss, _ = learner.step(PIXELS, LABELS, lr=0.1, size=None)
    assert dtypes == [getattr(torch, precision)]
    assert {tensor.dtype for tensor in learner.model.parameters()} == {torch.float32}
    assert torch.isfinite(loss)
    assert not torch.equal(before.fc.weight, learner.model.fc.weight)


def test_a_loss_scale_leaves_float32_steps_as_they_are() -> None:
    plain, scaled = (small_learner(small_recipe(loss_scale=scale)) for scale in (None, 512.0))
    for learner in (plain, scaled):
        learner.step(PIXELS, LABELS, lr=0.1, size=None)
    assert same_state(plain, scaled)  # 512 is a power of two
    assert scaled.scaler.get_scale() == 512.0


def test_a_half_precision_overflow_skips_the_step_and_keeps_the_scale() -> None:
    learner = small_learner(small_recipe(precision="float16", loss_scale=1e9))
    before = copy.deepcopy(learner.model)
    learner.step(PIXELS, LABELS, lr=0.1, size=None)
    assert torch.equal(before.fc.weight, learner.model.fc.weight)
    assert learner.scaler.get_scale() == 1e9


def test_splits_average_gradients_and_normalise_each_part_by_itself() -> None:
    recipe = small_recipe(splits=2)
    learner = small_learner(recipe)
    model = copy.deepcopy(learner.model)
    learner.step(PIXELS, LABELS, lr=0.1, size=None)
    parts = [copy.deepcopy(model).train() for _ in range(2)]
    for number, part in enumerate(parts):
        inputs = normalise(PIXELS).contiguous(memory_format=torch.channels_last)[number::2]
        functional.cross_entropy(part(inputs), LABELS[number::2]).backward()  # type: ignore[no-untyped-call]
    for (name, parameter), one, other in zip(
        model.named_parameters(), parts[0].parameters(), parts[1].parameters(), strict=True
    ):
        assert one.grad is not None
        assert other.grad is not None
        mean = (one.grad + other.grad) / 2 + recipe.weight_decay * parameter
        assert torch.allclose(learner.state()[f"momentum.{name}"], mean, rtol=1e-3, atol=1e-6), name
    running = parts[0].bn1.running_mean
    assert torch.equal(learner.model.bn1.running_mean, running)
    assert int(learner.model.bn1.num_batches_tracked) == 1


def test_more_splits_than_images_are_as_many_as_images() -> None:
    learner = Learner(small_network(), small_recipe(splits=8), normalise, ALONE)
    loss, _ = learner.step(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), LABELS[:2], lr=0.1, size=None)
    assert torch.isfinite(loss)


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step_for_whole_and_smaller_batches() -> None:
    plain = small_learner(small_recipe())
    learner = Learner(small_network(), small_recipe(), normalise, ALONE, compile_network=True)
    for pixels, labels, size in ((PIXELS, LABELS, None), (PIXELS, LABELS, 8), (PIXELS[:3], LABELS[:3], None)):
        losses = [float(one.step(pixels, labels, lr=0.01, size=size)[0]) for one in (plain, learner)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for key, tensor in plain.state().items():
        assert torch.allclose(learner.state()[key], tensor, rtol=1e-3, atol=1e-5), key
