"""OpenVINO as the engine: the network's own outputs, kept apart from call to call, and sentences where it cannot be."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resnet_zoo import FeatureExtractor
from resnet_zoo.errors import ArgumentError, NonFiniteOutputError
from resnet_zoo.inference import openvino
from resnet_zoo.inference.embedding import Pipeline
from resnet_zoo.inference.finite import check_finite
from resnet_zoo.inference.optimization import optimize_for_inference
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.network_file import save_network
from resnet_zoo.zoo import open_network
from tests.conftest import random_network, slow, smooth_image
from tests.inference.conftest import needs_bfloat16, needs_int8, needs_openvino

ROW, CPU = "resnet18_cifar10", torch.device("cpu")


def images(count: int = 2, size: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@needs_openvino
@pytest.mark.parametrize("name", [ROW, slow("resnet50_in1k"), slow("resnetv1d50_in1k")])
def test_float32_logits_are_those_of_the_network_for_any_batch_and_size(name: str) -> None:
    model = random_network(name)
    optimized = optimize_for_inference(model)
    assert optimized.engine is not None
    for x in (images(1), images(5, 65), images(3, 33)[..., :32], images(1)):
        with torch.no_grad():
            expected = model(x)
        largest = float(expected.abs().max())
        assert (
            float((optimized(x) - expected).abs().max()) <= 1e-4 * max(1, largest) < float((expected + 1).abs().max())
        )


@pytest.mark.slow
@needs_openvino
@needs_bfloat16
def test_bfloat16_is_chosen_and_not_taken_where_float32_was_asked_for(model: ResNet) -> None:
    x = images(64)
    with torch.no_grad():
        expected = model(x)
    exact, half = (optimize_for_inference(model, dtype=dtype)(x) for dtype in (torch.float32, torch.bfloat16))
    assert float((exact - expected).norm() / expected.norm()) < 1e-5 < float((half - expected).norm() / expected.norm())
    assert float((half.argmax(1) == expected.argmax(1)).float().mean()) > 0.95


@needs_openvino
def test_maps_keep_their_names_and_order(model: ResNet) -> None:
    extractor, x = FeatureExtractor(model, layers=("pool", "stage4", "stem.relu", "stage2.1")), images(3, 40)
    actual = optimize_for_inference(extractor)(x)
    with torch.no_grad():
        expected = extractor(x)
    assert list(actual) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-4)


@needs_openvino
@pytest.mark.parametrize("count", [1, 2])
def test_outputs_are_not_overwritten_by_the_next_call_nor_inputs_by_any(count: int, model: ResNet) -> None:
    optimized = optimize_for_inference(FeatureExtractor(model, layers=("stage2", "pool")))
    x, other = images(count), images(count, seed=2)
    given, calls = x.clone(), [optimized(x) for _ in range(3)]  # a single image has a graph of its own from the second
    kept = {name: value.clone() for name, value in calls[0].items()}
    assert not torch.equal(optimized(other)["pool"], kept["pool"])
    for found in calls:
        assert all(torch.equal(found[name], value) for name, value in kept.items())
    assert torch.equal(x, given)


@needs_openvino
def test_the_report_and_the_records_name_the_engine(model: ResNet) -> None:
    optimized = optimize_for_inference(model)
    assert (optimized.report.engine, optimized.report.memory_format) == (openvino.title(), None)
    assert optimized.precision == f"float32 with {openvino.title()}, batch-norm folded"
    assert optimized.report.folded_batch_norms == 20
    assert optimized.report.largest_logit_difference < 1e-4
    assert optimize_for_inference(model, engine="torch").engine is None


@needs_openvino
def test_it_uses_as_many_threads_as_torch(model: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = optimize_for_inference(model).engine
    assert engine is not None
    before = torch.get_num_threads()
    try:
        for threads, callers in ((1, 1), (2, 1), (1, 2)):
            torch.set_num_threads(threads)
            compiled, _ = engine.for_callers(callers)._ready()
            assert compiled.get_property("INFERENCE_NUM_THREADS") == threads * callers
            assert compiled.get_property("NUM_STREAMS") == callers
    finally:
        torch.set_num_threads(before)


@needs_openvino
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        pytest.param(torch.bfloat16, marks=needs_bfloat16),
        pytest.param(torch.int8, marks=needs_int8),
    ],
)
def test_a_single_image_that_comes_again_has_a_graph_of_its_own_and_the_same_bits(
    dtype: torch.dtype, model: ResNet
) -> None:
    optimized = optimize_for_inference(model, dtype=dtype, calibration=images(8) if dtype is torch.int8 else None)
    engine, image, larger = optimized.engine, images(1), images(1, 40)
    assert engine is not None

    def fixed() -> list[str]:
        shapes = [str(graph.input().partial_shape) for graph, _ in engine._compiled.values()]
        return [shape for shape in shapes if "?" not in shape]

    first = optimized(images(1)), optimized(larger), optimized(torch.cat([image, image]))[:1]
    assert fixed() == []
    for _ in range(3):
        assert torch.equal(optimized(image), first[0])
        assert torch.equal(first[2], first[0])
    assert fixed() == ([] if dtype is torch.int8 else ["[1,3,32,32]"])
    for _ in range(3):
        assert torch.equal(optimized(larger), first[1])
    assert len(fixed()) <= 1


@needs_openvino
def test_threads_may_call_it_at_the_same_time(model: ResNet) -> None:
    optimized = optimize_for_inference(model)
    batches = [images(1 + seed % 3, seed=seed) for seed in range(12)]
    expected = [optimized(x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, pool.map(optimized, batches), expected))


@needs_openvino
def test_vectors_have_the_same_bits_however_many_threads_make_them(model: ResNet, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_network(path, model, row=ROW, class_names=[str(label) for label in range(10)])
    sources = [[smooth_image(32, 32), smooth_image(32, 32)], [smooth_image(32, 32)]] * 3
    found: list[list[Any]] = []
    for num_threads in (1, 3):
        embedder = Pipeline.of(open_network(path), CPU, fast=True, batch_size=2, num_threads=num_threads)
        assert openvino.title() in embedder.precision
        found.append([rows for _, rows in embedder.batches(sources)])
    assert all(map(np.array_equal, *found))


@needs_openvino
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_computes_the_same(model: ResNet) -> None:
    optimized, x = optimize_for_inference(model), images()
    expected = optimized(x)
    child = os.fork()
    if not child:
        os._exit(0 if torch.equal(optimized(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


@needs_openvino
def test_a_copy_outlives_the_network_it_was_made_from() -> None:
    optimized, x = optimize_for_inference(random_network(ROW)), images()
    expected, twin = optimized(x), copy.deepcopy(optimized)
    optimized = optimize_for_inference(random_network(ROW))
    assert torch.equal(twin(x), expected)


@needs_openvino
def test_a_pickle_without_openvino_is_told_in_a_sentence(model: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    pickled = pickle.dumps(optimize_for_inference(model))
    monkeypatch.setattr(openvino, "_core", openvino._core.__wrapped__)  # as in a process that has none yet
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ArgumentError, match=r"not installed\. Run: pip install 'resnet-zoo\[openvino\]'"):
        pickle.loads(pickled)


@needs_openvino
def test_the_layer_of_a_value_that_is_not_finite_is_found(model: ResNet) -> None:
    optimized, x = optimize_for_inference(model), images()
    bad = x.clone()
    bad[0, 0, 0, 0] = float("nan")  # which OpenVINO's relu alone would turn into 0
    assert optimized.engine is not None
    assert optimized.engine(bad).isfinite().all()
    with pytest.raises(NonFiniteOutputError, match="first behind the normalisation"):
        check_finite(optimized(bad), optimized, bad)
    with torch.no_grad():
        optimized.network.fc.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(NonFiniteOutputError, match="first behind fc: its bias"):
        check_finite(torch.full((1, 10), float("nan")), optimized, x)
    assert optimized.engine is not None


class Branching(nn.Module):
    """What it computes depends on the images' values, which no trace can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.conv(x)
        return maps.mean((2, 3)) if maps.sum() > 0 else -maps.mean((2, 3))


@needs_openvino
def test_what_cannot_be_converted_is_computed_by_torch_and_said_to_be() -> None:
    module = Branching()
    optimized = optimize_for_inference(module)
    assert optimized.report.engine == f"torch {torch.__version__}"
    for x in (images(), -images(), images() + 9, images() - 9):
        with torch.no_grad():
            torch.testing.assert_close(optimized(x), module(x))
    with pytest.raises(ArgumentError, match=r"OpenVINO cannot convert the network .*engine='torch'"):
        optimize_for_inference(module, engine="openvino")


@needs_openvino
@pytest.mark.filterwarnings("ignore")  # torch's own, that torch.jit is deprecated
def test_a_trace_is_refused_where_it_would_be_wrong(model: ResNet) -> None:
    jit: Any = torch.jit
    with pytest.raises(ArgumentError, match=r"torch cannot trace .* engine='torch'"):
        jit.trace(optimize_for_inference(model), images())
    x = images(3)
    torch_s = optimize_for_inference(model, engine="torch")
    assert torch.equal(jit.trace(torch_s, images())(x), torch_s(x))


@needs_openvino
def test_images_on_another_device_are_refused(model: ResNet) -> None:
    with pytest.raises(ArgumentError, match=r"on the CPU, got images on meta\. Optimise the network there"):
        optimize_for_inference(model)(images().to("meta"))


@needs_openvino
@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"engine": "onnx"}, "Expected an engine of openvino or torch, got 'onnx'"),
        ({"engine": "openvino", "compile": True}, "is not compiled by torch"),
    ],
)
def test_an_engine_that_does_not_fit_is_refused(model: ResNet, options: dict[str, Any], fact: str) -> None:
    with pytest.raises(ArgumentError, match=fact):
        optimize_for_inference(model, **options)


def test_without_openvino_torch_computes(model: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "openvino" else find(name, *rest))
    assert optimize_for_inference(model).report.engine == f"torch {torch.__version__}"
    with pytest.raises(ArgumentError, match=r"pip install 'resnet-zoo\[openvino\]'"):
        optimize_for_inference(model, engine="openvino")


@needs_openvino
def test_a_version_too_old_is_not_used_and_told(model: ResNet, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2025.4.1" if name == "openvino" else version(name))
    assert optimize_for_inference(model).report.engine == f"torch {torch.__version__}"
    with pytest.raises(ArgumentError, match=r"OpenVINO 2025\.4\.1 is too old: 2026\.0 or later is needed\. Run: pip"):
        optimize_for_inference(model, engine="openvino")


# --- telemetry -----------------------------------------------------------------------------------------------------

WATCH = textwrap.dedent("""
    import os, socket, sys, time, warnings
    import torch
    from tests.conftest import random_network

    WATCHED = ("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen", "socket.connect")
    caught = []

    def watch(event, _):
        if event in WATCHED:
            caught.append(event)
            os.write(1, f"caught {event}\\n".encode())
            raise OSError(event)

    model, x = random_network("resnet18_cifar10"), torch.randn(4, 3, 32, 32)
    warnings.simplefilter("ignore")
    sys.addaudithook(watch)
""")
"""A child's beginning: whatever would start a process or reach out is told, and fails."""

OURS = textwrap.dedent("""
    import pickle
    from resnet_zoo.inference.optimization import optimize_for_inference

    int8 = {"dtype": torch.int8, "calibration": x}
    for options in ({}, int8, {**int8, "labels": torch.arange(4)}):
        optimized = optimize_for_inference(model, **options)
        print(optimized.precision, pickle.loads(pickle.dumps(optimized))(x).shape)
""")

THEIRS = textwrap.dedent("""
    import {}

    deadline = time.monotonic() + 5
    while not caught and time.monotonic() < deadline:
        time.sleep(0.05)
    os.write(1, b"then\\n")
""")


def run_watched(program: str, home: Path) -> str:
    """Return what a program prints that runs as a new user's, at home and not in anybody's continuous integration."""
    signs = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "NNCF_DEV")
    variables = {name: value for name, value in os.environ.items() if name not in signs} | {"HOME": str(home)}
    command = [sys.executable, "-c", WATCH + program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_int8
def test_nothing_is_reported_and_no_process_forked(tmp_path: Path) -> None:
    printed = run_watched(OURS, tmp_path)
    assert "caught" not in printed
    assert all(f"{dtype} with OpenVINO" in printed for dtype in ("float32", "int8"))
    assert list(tmp_path.iterdir()) == []  # there its client's number would be, and how often it was used


@needs_int8
@pytest.mark.slow
@pytest.mark.parametrize("first", ["openvino", "nncf"])
def test_nothing_is_reported_by_us_where_another_import_reported_itself(first: str, tmp_path: Path) -> None:
    before, _, after = run_watched(THEIRS.format(first) + OURS, tmp_path).partition("then\n")
    assert "caught os.fork" in before
    assert "caught" not in after
    assert "int8 with OpenVINO" in after


@needs_openvino
@pytest.mark.parametrize(
    ("program", "event"),
    [
        ("import openvino; openvino.convert_model(model, example_input=x)", "os.fork"),
        ("try: socket.socket().connect(('127.0.0.1', 9))\nexcept OSError: pass", "socket.connect"),
    ],
)
def test_the_watch_sees_what_reports(program: str, event: str, tmp_path: Path) -> None:
    assert f"caught {event}\n" in run_watched(program, tmp_path)
