"""Optimised networks: nothing of batch-norm left, the same outputs, and a report that tells the truth."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from resnet_zoo import FeatureExtractor, create_feature_extractor
from resnet_zoo.base.devices import fast_dtype, supported_dtypes
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError, NonFiniteOutputError
from resnet_zoo.inference import openvino
from resnet_zoo.inference import optimization as inference
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.inference.folding import fold_batch_norms
from resnet_zoo.inference.optimization import Engine, OptimizedModel, optimize_for_inference
from resnet_zoo.inference.prediction import predict
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from tests.conftest import NAMES, random_network, slow, smooth_image
from tests.inference.conftest import needs_bfloat16, needs_int8, needs_openvino

ROW, DEEP_ROW = "resnet18_cifar10", "resnetv1d50_in1k"
CPU = torch.device("cpu")
ENGINE = openvino.title() if openvino.is_available(CPU) else f"torch {torch.__version__}"
"""What is chosen here."""
Tree = Callable[..., Path]


@pytest.fixture(params=["torch", pytest.param("openvino", marks=needs_openvino)])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.param


def images(count: int = 2, size: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch_norms(module: nn.Module) -> list[nn.Module]:
    return [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


# --- folding -------------------------------------------------------------------------------------------------------


SAME_OR_DEEPER = re.compile("101|152|fp16|resnet50_cifar100")
"""Rows whose networks are those of others, or of others with more blocks."""


@pytest.mark.parametrize("name", [slow(name) if SAME_OR_DEEPER.search(name) else name for name in NAMES])
def test_folded_logits_are_those_of_the_network(name: str) -> None:
    model = random_network(name)
    num_norms = len(batch_norms(model))
    optimized = optimize_for_inference(model)
    x = images(size=32 if "cifar" in name else 65)  # an odd map, so that V1D's pools meet an edge
    with torch.no_grad():
        expected = model(x)
    actual = optimized(x)
    assert batch_norms(optimized) == []
    assert optimized.report.folded_batch_norms == num_norms
    assert actual.dtype == torch.float32
    assert relative_difference(actual, expected) < 1e-5
    assert relative_difference(actual, expected) < 1e-4 < relative_difference(actual.flip(0), expected)


@pytest.mark.parametrize("name", [ROW, "resnet50_in1k", DEEP_ROW])
def test_the_fold_is_exact_but_for_rounding(name: str) -> None:
    model, x = random_network(name).double(), images(size=33).double()
    with torch.no_grad():
        expected = model(x)
        fold_batch_norms(model)
        assert relative_difference(model(x), expected) < 1e-12


def test_a_fold_that_forgets_eps_would_be_seen() -> None:
    model, x = random_network(ROW).double(), images().double()
    with torch.no_grad():
        expected = model(x)
        for norm in batch_norms(model):
            norm.eps = 0.0  # type: ignore[assignment]
        fold_batch_norms(model)
        assert relative_difference(model(x), expected) > 1e-6


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_with_a_bias_and_norms_without_weights_fold_too(affine: bool, bias: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, affine=affine)
    assert norm.running_var is not None
    norm.running_var.uniform_(0.5, 2)
    pair = nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias), norm).double().eval()
    x = images().double()
    with torch.no_grad():
        expected = pair(x)
        assert fold_batch_norms(pair) == 1
        assert relative_difference(pair(x), expected) < 1e-12


@pytest.mark.parametrize(
    ("module", "fact"),
    [
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), "0 has no convolution before it"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), "2 has no convolution before it"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), "statistics"),
        (nn.Sequential(nn.Linear(3, 4)), "without a convolution"),
    ],
)
def test_what_cannot_be_folded_is_refused(module: nn.Module, fact: str) -> None:
    with pytest.raises(ArgumentError, match=fact):
        optimize_for_inference(module)


# --- the new network and the old one -------------------------------------------------------------------------------


def test_the_network_given_is_left_as_it_was() -> None:
    model = random_network(ROW).train()
    model.layer1.eval()
    before = copy.deepcopy(model)
    optimize_for_inference(model)
    assert all(torch.equal(value, before.state_dict()[key]) for key, value in model.state_dict().items())
    assert list(model.state_dict()) == list(before.state_dict())
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert len(batch_norms(model)) == len(batch_norms(before))


def test_it_stays_in_eval_mode_within_a_module_that_trains(model: ResNet) -> None:
    optimized = optimize_for_inference(model)
    nn.Sequential(optimized).train()
    assert not any(module.training for module in optimized.modules())
    assert not any(parameter.requires_grad for parameter in optimized.parameters())


def test_weights_are_channels_last(model: ResNet) -> None:
    convolutions = [m for m in optimize_for_inference(model, engine="torch").modules() if isinstance(m, nn.Conv2d)]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)


def test_any_layout_and_floating_type_of_input_gives_the_same_logits(model: ResNet, engine: Engine) -> None:
    optimized, x = optimize_for_inference(model, engine=engine), images()
    expected = optimized(x)
    assert torch.equal(optimized(x.to(memory_format=torch.channels_last)), expected)
    assert torch.equal(optimized(x.double()), expected)
    assert torch.equal(optimized(x.repeat(1, 2, 1, 1)[:, :3]), expected)


@pytest.mark.parametrize(
    "x",
    [
        *(images(2, 0), images()[0], images()[:, :1], images().to(torch.uint8), torch.zeros(2, 32, 32, 3)),
        *(images().numpy(), [images()]),
    ],
    ids=lambda x: str(getattr(x, "shape", "list")) + type(x).__name__,
)
def test_what_is_no_batch_of_normalised_images_is_refused(model: ResNet, engine: Engine, x: Any) -> None:
    with pytest.raises(ArgumentError, match=r"Expected normalised images \(N, 3, H, W\) of a floating type, got"):
        optimize_for_inference(model, engine=engine)(x)


def test_an_empty_batch_has_no_logits_and_no_maps(model: ResNet, engine: Engine) -> None:
    for dtype in {torch.float32, fast_dtype(CPU)}:
        assert optimize_for_inference(model, dtype=dtype, engine=engine)(images(0)).shape == (0, 10)
    maps = optimize_for_inference(FeatureExtractor(model, layers=("stage2", "pool")), engine=engine)(images(0))
    assert {layer: tuple(value.shape) for layer, value in maps.items()} == {
        "stage2": (0, 128, 16, 16),
        "pool": (0, 512),
    }


@pytest.mark.parametrize("head", [nn.Identity(), nn.Sequential(nn.Dropout(), nn.Linear(512, 10))])
def test_a_network_with_another_classifier_is_optimised(head: nn.Module, engine: Engine) -> None:
    changed = random_network(ROW)
    changed.fc = head.eval()  # type: ignore[assignment]
    x = images()
    with torch.no_grad():
        assert relative_difference(optimize_for_inference(changed, engine=engine)(x), changed(x)) < 1e-5


def test_a_dilated_network_is_optimised(engine: Engine) -> None:
    dilated, x = build(get_entry(DEEP_ROW)).eval(), images(size=65)
    dilated.set_output_stride(8)
    with torch.no_grad():
        assert relative_difference(optimize_for_inference(dilated, engine=engine)(x), dilated(x)) < 1e-5


def test_a_network_is_optimised_once(model: ResNet) -> None:
    optimized = optimize_for_inference(model, dtype=fast_dtype(CPU))
    with pytest.raises(ArgumentError, match=rf"optimised already \({re.escape(optimized.precision)}\)"):
        optimize_for_inference(optimized)
    picture = smooth_image(32, 32)
    assert predict(ROW, picture, model=optimized, device="cpu", fast=True) == predict(
        ROW, picture, model=optimized, device="cpu"
    )


def test_an_optimised_network_is_saved_and_copied(model: ResNet, engine: Engine) -> None:
    optimized, x = optimize_for_inference(model, engine=engine), images()
    for twin in (pickle.loads(pickle.dumps(optimized)), copy.deepcopy(optimized)):
        assert torch.equal(twin(x), optimized(x))
        assert twin.report == optimized.report


def test_a_module_made_of_a_network_is_optimised_and_gives_its_maps(model: ResNet, engine: Engine) -> None:
    class Maps(nn.Module):
        def __init__(self, body: ResNet) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return self.body.stages(x)

    optimized, x = optimize_for_inference(Maps(model), engine=engine), images()
    actual, expected = optimized(x), model.stages(x)
    assert list(actual) == list(expected)
    assert all(relative_difference(actual[key], expected[key]) < 1e-5 for key in expected)
    assert optimized.report.argmax_agreement is None
    assert optimized.report.folded_batch_norms == len(batch_norms(model))


def test_grey_networks_are_probed_with_grey_images() -> None:
    grey = optimize_for_inference(build(get_entry(ROW), in_channels=1))
    assert grey.report.probe_size == (4, 1, 32, 32)


class OneSize(nn.Module):
    """A stride-2 stem whose flattened maps fit images of one size."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 7, stride=2, padding=3)
        self.fc = nn.Linear(2 * (size // 2) ** 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(x).flatten(1))
        return logits


def test_a_network_is_probed_with_small_images_if_it_takes_them() -> None:
    for size in (64, 224):
        assert optimize_for_inference(OneSize(size)).report.probe_size == (4, 3, size, size)
    with pytest.raises(RuntimeError, match="shapes"):
        optimize_for_inference(OneSize(48))
    assert optimize_for_inference(build(get_entry("resnet18_in1k"))).report.probe_size == (4, 3, 64, 64)


# --- the report ----------------------------------------------------------------------------------------------------


def test_the_report_says_what_was_done(model: ResNet) -> None:
    report = optimize_for_inference(model, engine="torch").report
    assert (report.folded_batch_norms, report.memory_format, report.dtype) == (20, "channels_last", "float32")
    assert report.engine == f"torch {torch.__version__}"
    assert report.compiled is False
    assert report.probe_size == (4, 3, 32, 32)
    assert 0 <= report.largest_logit_difference < 1e-4
    assert report.argmax_agreement == 1.0


def test_the_report_tells_the_probe_s_difference(model: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    optimized = optimize_for_inference(model)
    probe = images(inference.PROBE_IMAGES, 32, seed=inference.PROBE_SEED)
    assert optimized.report.probe_size == tuple(probe.shape)
    with torch.no_grad():
        expected = model(probe)
    assert optimized.report.largest_logit == expected.abs().max().item()
    assert optimized.report.largest_logit_difference == (optimized(probe) - expected).abs().max().item()

    def fold_wrongly(network: nn.Module) -> int:
        count = fold_batch_norms(network)
        assert isinstance(network, ResNet)
        network.fc.bias.add_(5 * torch.eye(10)[3])
        return count

    monkeypatch.setattr(inference, "fold_batch_norms", fold_wrongly)
    report = optimize_for_inference(model).report
    assert report.largest_logit_difference == pytest.approx(5, abs=1e-3)
    assert report.argmax_agreement == (expected.argmax(1) == 3).float().mean().item()
    assert report.argmax_agreement is not None
    assert report.argmax_agreement < 1


def test_the_report_is_a_sentence(model: ResNet) -> None:
    report = replace(
        optimize_for_inference(model, engine="torch").report,
        engine="torch 2.6.0",
        largest_logit_difference=0.01234,
        largest_logit=5.678,
        argmax_agreement=0.75,
    )
    assert str(report) == (
        "Computes in float32 with torch 2.6.0, channels_last, 20 batch-norms folded; on 4 probe images the largest "
        "logit difference is 0.012 of 5.7; the best class agrees on 75%."
    )
    assert "compiled" in str(replace(report, compiled=True))
    assert "with OpenVINO 2026.4.1, 20" in str(replace(report, engine="OpenVINO 2026.4.1", memory_format=None))
    assert "best class" not in str(replace(report, argmax_agreement=None))


# --- half precision ------------------------------------------------------------------------------------------------


@needs_bfloat16
def test_bfloat16_agrees_but_for_its_rounding(model: ResNet, engine: Engine) -> None:
    optimized, x = optimize_for_inference(model, dtype=torch.bfloat16, engine=engine), images(64)
    with torch.no_grad():
        expected = model(x)
    actual = optimized(x)
    assert actual.dtype == torch.float32
    if engine == "torch":
        assert {parameter.dtype for parameter in optimized.parameters()} == {torch.bfloat16}
    assert 1e-4 < relative_difference(actual, expected) < 5e-2
    assert (actual.argmax(1) == expected.argmax(1)).float().mean() > 0.9
    assert optimized.report.dtype == "bfloat16"
    assert 1e-5 < optimized.report.largest_logit_difference < 0.05 * optimized.report.largest_logit


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int16])
def test_a_dtype_that_the_cpu_does_not_multiply_is_refused(model: ResNet, dtype: torch.dtype) -> None:
    with pytest.raises(ArgumentError, match=f"is fast on cpu .*float32.*got {str(dtype)[6:]}"):
        optimize_for_inference(model, dtype=dtype)


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 amx_tile\n", torch.bfloat16),
        ("Features\t: fp asimd bf16\n", torch.bfloat16),
        ("flags\t\t: fpu avx2 avx512f\nmodel name: bf16\n", torch.float32),
        ("", torch.float32),
    ],
)
def test_the_fast_dtype_is_bfloat16_where_the_processor_says_so(
    text: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert fast_dtype(CPU) == dtype


def test_a_system_that_does_not_tell_its_processor_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    assert supported_dtypes(CPU) == (torch.float32,)


def test_values_that_overflow_are_refused() -> None:
    huge = random_network(ROW)
    nn.init.constant_(huge.fc.weight, 3e38)
    with pytest.raises(NonFiniteOutputError, match="first behind fc: its own values are finite"):
        optimize_for_inference(huge)


def test_values_that_overflow_in_fewer_bits_alone_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "supported_dtypes", lambda _: (torch.float32, torch.float16))
    large = random_network(ROW)
    nn.init.constant_(large.fc.weight, 1e5)
    with pytest.raises(ArgumentError, match="do not fit into float16"):
        optimize_for_inference(large, dtype=torch.float16)
    assert optimize_for_inference(large).report.largest_logit > 65504


# --- 8-bit integers ------------------------------------------------------------------------------------------------


def unlike_images(count: int, size: int = 32) -> Tensor:
    """Images of rising contrast, on which even a network of random values gives unlike outputs."""
    return images(count, size) * torch.linspace(0.2, 2, count)[:, None, None, None]


def rounding(actual: Tensor, expected: Tensor) -> float:
    """The size of all differences, relative to what distinguishes one image's outputs from another's."""
    return float((actual - expected).norm() / (expected - expected.mean(0)).norm())


@pytest.mark.slow
@needs_int8
@pytest.mark.parametrize("name", [ROW, "resnet50_in1k", DEEP_ROW])
def test_int8_agrees_but_for_its_rounding(name: str) -> None:
    model, x = random_network(name), unlike_images(16, size=32 if "cifar" in name else 65)
    optimized = optimize_for_inference(model, dtype=torch.int8, calibration=x)
    with torch.no_grad():
        expected = model(x)
    actual = optimized(x)
    assert actual.dtype == torch.float32
    assert 1e-3 < rounding(actual, expected) < 0.5 < rounding(actual.flip(0), expected)
    report = optimized.report
    assert (report.dtype, report.folded_batch_norms) == ("int8", len(batch_norms(model)))
    assert report.probe_size == (4, *x.shape[1:])
    assert report.largest_logit_difference == pytest.approx((actual[:4] - expected[:4]).abs().max().item(), rel=1e-3)
    assert optimized.precision == f"int8 with {openvino.title()}, batch-norm folded"


def inputs_of(engine: openvino.OpenVinoNetwork, kind: str) -> list[set[str]]:
    """The kinds of nodes that each node of a kind gets its inputs from, constants' conversions looked through."""
    nodes = [node for node in engine.model.get_ordered_ops() if node.get_type_name() == kind]
    return [{value.get_node().get_type_name() for value in node.input_values()} for node in nodes]


@pytest.mark.slow
@needs_int8
def test_int8_rounds_what_every_convolution_takes_and_leaves_pool_and_classifier_alone(model: ResNet) -> None:
    optimized = optimize_for_inference(model, dtype=torch.int8, calibration=unlike_images(8))
    exact = optimize_for_inference(model).engine
    assert optimized.engine is not None
    assert exact is not None
    convolutions = inputs_of(optimized.engine, "Convolution")
    assert len(convolutions) == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert all(kinds == {"FakeQuantize", "Multiply"} for kinds in convolutions)  # a map, and integers times a scale
    assert not any("FakeQuantize" in kinds for kinds in inputs_of(exact, "Convolution"))
    for kind in ("ReduceMean", "MatMul"):
        assert inputs_of(optimized.engine, kind) == inputs_of(exact, kind) != []


@needs_int8
def test_int8_leaves_the_network_and_standard_output_as_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    model = random_network(ROW)
    before, level = copy.deepcopy(model.state_dict()), logging.getLogger("nncf").level
    optimize_for_inference(model, dtype=torch.int8, calibration=images(4))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert capfd.readouterr().out == ""
    assert logging.getLogger("nncf").level == level


@pytest.mark.slow
@needs_int8
def test_the_range_of_maps_is_that_of_the_calibration_images(model: ResNet) -> None:
    x = unlike_images(16)
    close, far = (optimize_for_inference(model, dtype=torch.int8, calibration=scale * x)(x) for scale in (1.0, 1e-3))
    with torch.no_grad():
        expected = model(x)
    assert rounding(close, expected) < 0.5 < rounding(far, expected)


@needs_int8
def test_feature_maps_are_quantised_too() -> None:
    extractor = create_feature_extractor(ROW, layers=("stage2", "stage4")).eval()
    x = unlike_images(16)
    actual = optimize_for_inference(extractor, dtype=torch.int8, calibration=x)(x)
    with torch.no_grad():
        expected = extractor(x)
    assert list(actual) == ["stage2", "stage4"]
    assert all(1e-3 < rounding(actual[key], expected[key]) < 0.5 for key in expected)


@needs_int8
def test_an_int8_network_is_copied_and_pickled(model: ResNet) -> None:
    optimized, x = optimize_for_inference(model, dtype=torch.int8, calibration=images(8)), images(3)
    for twin in (copy.deepcopy(optimized), pickle.loads(pickle.dumps(nn.Sequential(optimized)))):
        assert torch.equal(twin(x), optimized(x))
    assert optimized(images(0)).shape == (0, 10)


@needs_int8
def test_an_int8_network_is_evaluated_and_its_records_say_so(model: ResNet, class_tree: Tree) -> None:
    optimized = optimize_for_inference(model, dtype=torch.int8, calibration=images(16))
    root = class_tree(class_folders("cifar10"), per_class=2)
    result = evaluate(ROW, root, model=optimized, device="cpu")
    assert result.precision == f"int8 with {openvino.title()}, batch-norm folded"
    assert abs(result.correct1 - evaluate(ROW, root, model=model, device="cpu").correct1) <= 2


@needs_int8
@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({}, "int8 needs calibration images.*got NoneType"),
        ({"calibration": images(0)}, r"got float32 \(0, 3, 32, 32\)"),
        ({"calibration": images()[:, :1]}, r"\(N, 3, H, W\), got float32 \(2, 1, 32, 32\)"),
        ({"calibration": images().to(torch.uint8)}, "got uint8"),
        ({"calibration": images() / 0}, "finite"),
        ({"calibration": images(1).repeat(9, 1, 1, 1)}, "are all the same"),
        ({"calibration": images(), "compile": True}, "Leave out compile"),
        ({"calibration": images(), "engine": "torch"}, "Leave out engine"),
        ({"calibration": images(), "dtype": torch.float32}, "are for dtype torch.int8, got float32"),
    ],
    ids=["none", "empty", "grey", "integers", "infinite", "same", "compile", "torch", "float32"],
)
def test_int8_without_fit_calibration_images_is_refused(model: ResNet, options: dict[str, Any], fact: str) -> None:
    with pytest.raises(ArgumentError, match=fact):
        optimize_for_inference(model, **{"dtype": torch.int8, **options})


@needs_int8
def test_a_module_that_cannot_be_traced_is_refused_for_int8() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            maps: Tensor = self.conv(x)
            return maps if maps.sum() > 0 else -maps

    with pytest.raises(ArgumentError, match=r"OpenVINO cannot convert .* float32 or bfloat16"):
        optimize_for_inference(Branching(), dtype=torch.int8, calibration=images())


@needs_int8
def test_a_batch_norm_that_stays_is_refused_for_int8() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3))
    with pytest.raises(ArgumentError, match="0 has no convolution before it"):
        optimize_for_inference(module, dtype=torch.int8, calibration=images())


@pytest.mark.parametrize("title", ["NNCF", "OpenVINO"])
def test_a_machine_without_the_extra_refuses_int8(title: str, model: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == title.lower() else find(name, *rest))
    with pytest.raises(ArgumentError, match=r"not installed\. Run: pip install 'resnet-zoo\[int8\]'") as refused:
        optimize_for_inference(model, dtype=torch.int8, calibration=images())
    if openvino.is_available(CPU):  # otherwise it is what is reported first
        assert f"{title} is not installed" in str(refused.value)


@needs_int8
def test_all_8_bits_are_used_where_the_processor_adds_without_saturation(
    model: ResNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, largest = images(8), list[int]()
    for flags in (set[str](), {"avx512_vnni"}):
        monkeypatch.setattr(inference, "cpu_flags", lambda flags=flags: flags)
        engine = optimize_for_inference(model, dtype=torch.int8, calibration=x).engine
        assert engine is not None
        constants = (node for node in engine.model.get_ordered_ops() if node.get_type_name() == "Constant")
        largest.append(max(int(abs(node.data).max()) for node in constants if node.data.dtype == np.int8))
    assert largest[0] <= 64 < 127 <= largest[1]


# --- compiling -----------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_compiled_logits_are_those_of_the_network(model: ResNet) -> None:
    optimized = optimize_for_inference(model, compile=True)
    for count in (0, 1, 3, 5):
        with torch.no_grad():
            torch.testing.assert_close(optimized(images(count)), model(images(count)), rtol=1e-4, atol=1e-4)
    assert optimized.report.compiled is True
    assert optimized.precision.endswith("compiled")


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_compiled_outputs_outlive_the_next_call_on_a_gpu(model: ResNet, dtype: torch.dtype) -> None:
    network = copy.deepcopy(model).cuda()
    compiled = optimize_for_inference(network, dtype=dtype, compile=True)
    plain = optimize_for_inference(network, dtype=dtype)
    batches = [images(count).cuda() for count in (1, 3, 0, 3, 5, 1)]
    outputs = [compiled(batch) for batch in batches]
    with ThreadPoolExecutor(1) as elsewhere:
        outputs.append(elsewhere.submit(compiled, batches[1]).result())
    for batch, output in zip([*batches, batches[1]], outputs, strict=True):
        torch.testing.assert_close(output, plain(batch), rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_compiled_maps_outlive_the_next_call_on_a_gpu() -> None:
    extractor = create_feature_extractor(ROW, layers=("stage2", "stage4")).eval().cuda()
    compiled = optimize_for_inference(extractor, compile=True)
    first, second = images(2).cuda(), -images(2).cuda()
    maps, others = compiled(first), compiled(second)
    for x, actual in ((first, maps), (second, others)):
        with torch.no_grad():
            expected = extractor(x)
        for name, values in expected.items():
            torch.testing.assert_close(actual[name], values, rtol=2e-2, atol=2e-2)


def test_a_compiler_that_fails_is_told_in_a_sentence(model: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            raise RuntimeError("InvalidCxxCompiler: no g++\nlong log")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: Failing())
    with pytest.raises(ArgumentError, match=r"fails on this machine \(InvalidCxxCompiler: no g\+\+\)\. Leave out"):
        optimize_for_inference(model, compile=True)


# --- predict and evaluate ------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="resnet-zoo")


def test_fast_evaluation_counts_as_the_network_does_and_says_how_it_computed(model: ResNet, class_tree: Tree) -> None:
    root = class_tree(class_folders("cifar10"), per_class=2)
    exact = evaluate(ROW, root, model=model, device="cpu")
    fast = evaluate(ROW, root, model=model, device="cpu", fast=True)
    assert exact.precision == "float32"
    assert fast.precision == f"{str(fast_dtype(CPU))[6:]} with {ENGINE}, batch-norm folded"
    assert abs(fast.correct1 - exact.correct1) <= 1
    assert batch_norms(model)


def test_an_optimised_network_is_evaluated_as_it_was_made(model: ResNet, class_tree: Tree) -> None:
    root = class_tree(class_folders("cifar10"))
    seen: list[torch.dtype] = []

    class Spy(OptimizedModel):
        def forward(self, x: Tensor) -> Tensor:
            seen.extend(parameter.dtype for parameter in self.parameters())
            logits: Tensor = super().forward(x)
            return logits

    dtype = fast_dtype(CPU)
    optimized = optimize_for_inference(model, dtype=dtype, engine="torch")
    optimized.__class__ = Spy
    result = evaluate(ROW, root, model=optimized, device="cpu")
    assert set(seen) == {dtype}
    assert result.precision == optimized.precision


def test_fast_and_a_precision_exclude_each_other(model: ResNet, class_tree: Tree) -> None:
    with pytest.raises(ArgumentError, match="fast chooses its own precision"):
        evaluate(ROW, class_tree(["a"]), model=model, device="cpu", fast=True, precision="bfloat16")


def test_fast_predictions_are_those_of_the_network(model: ResNet) -> None:
    picture = smooth_image(32, 32)
    exact, fast = (predict(ROW, picture, model=model, device="cpu", fast=fast)[0] for fast in (False, True))
    probabilities = [{score.label: score.probability for score in found.classes} for found in (exact, fast)]
    assert probabilities[0][exact.classes[0].label] == pytest.approx(probabilities[1][exact.classes[0].label], abs=0.05)


def test_predict_takes_fast(tmp_path: Path, weights: Path) -> None:
    Image.fromarray(smooth_image(32, 32)).save(tmp_path / "cat.png")
    done = run(
        "predict", ROW, tmp_path / "cat.png", "--weights", weights, "--device", "cpu", "--fast", "--format", "json"
    )
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)[0]["classes"]) == 5
    report = f"Computes in {str(fast_dtype(CPU))[6:]} with {ENGINE}, "
    assert done.stderr.count(report) == 1


def test_among_many_processes_the_first_tells_what_fast_did(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(smooth_image(32, 32)).save(tmp_path / "cat.png")
    arguments = ("predict", ROW, tmp_path / "cat.png", "--weights", weights, "--device", "cpu")
    assert "Computes in" not in run(*arguments).stderr
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert "Computes in" not in run(*arguments, "--fast").stderr
    assert "Computes in" not in run(*arguments).stderr
    assert logging.getLogger("resnet_zoo").handlers == []


def test_evaluate_takes_fast_and_tells_the_precision(class_tree: Tree, weights: Path) -> None:
    root = class_tree(class_folders("cifar10"))
    arguments = ("evaluate", ROW, "--data", root, "--weights", weights, "--device", "cpu", "--fast")
    done = run(*arguments, "--format", "json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["precision"].endswith("batch-norm folded")
    refused = run(*arguments, "--precision", "bfloat16")
    assert refused.exit_code == 2
    assert "fast chooses its own precision" in refused.stderr
