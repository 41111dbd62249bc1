"""8-bit integers with labelled images: accuracy that plain rounding loses comes back, and the numbers are true."""

from __future__ import annotations

import io
from importlib import metadata
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference import quantization
from resnet_zoo.inference.optimization import OptimizedModel, optimize_for_inference
from resnet_zoo.inference.quantization import MAX_DROP_PCT, Int8Accuracy
from tests.inference.conftest import needs_int8
from tests.inference.test_export import needs_onnx

NUM_IMAGES = 400


class Small(nn.Module):
    """Two convolutions and a classifier of four classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.conv2, self.fc = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.conv2(self.bn1(self.conv1(x)).relu()).relu()
        logits: Tensor = self.fc(maps.mean((2, 3)))
        return logits


def pictures(count: int) -> Tensor:
    """Images of one colour each, with noise."""
    generator = torch.Generator().manual_seed(1)
    colours = torch.randn(count, 3, 1, 1, generator=generator)
    return colours + 0.1 * torch.randn(count, 3, 8, 8, generator=generator)


def small(*, wild: bool) -> Small:
    """Return such a network; a wild one computes the same from maps whose channels are far apart in size."""
    network = Small().eval()
    scale = torch.logspace(-4, 4, 16) if wild else torch.ones(16)
    with torch.no_grad():
        network.fc.bias.sub_(network(pictures(NUM_IMAGES)).mean(0))  # or all images would be of one class
        network.bn1.weight.mul_(scale)
        network.bn1.bias.mul_(scale)
        network.conv2.weight.div_(scale[:, None, None])
    return network


@pytest.fixture(scope="module")
def labelled() -> tuple[Tensor, Tensor]:
    """Images with the classes that the network itself gives them, those that it is surest of."""
    x = pictures(32 * NUM_IMAGES)
    with torch.no_grad():
        best = small(wild=False)(x).topk(2)
    surest = (best.values[:, 0] - best.values[:, 1]).argsort(descending=True)[:NUM_IMAGES]
    labels = best.indices[surest, 0]
    assert len(labels.unique()) > 1
    return x[surest], labels


def int8(network: nn.Module, images: Tensor, labels: Tensor | None) -> OptimizedModel:
    return optimize_for_inference(network, dtype=torch.int8, calibration=images, labels=labels)


def num_correct(network: nn.Module, images: Tensor, labels: Tensor) -> int:
    with torch.no_grad():
        return int((network(images).argmax(1) == labels).sum())


LEAST = NUM_IMAGES * (1 - MAX_DROP_PCT / 100)


@needs_int8
def test_convolutions_that_cost_accuracy_stay_in_float32(labelled: tuple[Tensor, Tensor]) -> None:
    network = small(wild=True)
    kept, plain = int8(network, *labelled), int8(network, labelled[0], None)
    found = kept.report.accuracy
    assert isinstance(found, Int8Accuracy)
    assert num_correct(plain, *labelled) < LEAST <= num_correct(kept, *labelled)
    assert found.correct_plain < LEAST <= found.correct
    assert found.correct == num_correct(kept, *labelled)
    assert found.correct_float32 == num_correct(network, *labelled) == found.num_images == NUM_IMAGES
    assert 0 < found.num_float32 <= found.num_convolutions == 2
    assert f"{found.num_float32} of 2 convolutions stay in float32" in str(kept.report)
    assert f", {found.num_float32} convolutions in float32, batch-norm folded" in kept.precision
    assert plain.report.accuracy is None


@needs_int8
def test_a_network_that_keeps_its_accuracy_is_all_int8(labelled: tuple[Tensor, Tensor]) -> None:
    kept = int8(small(wild=False), *labelled)
    found = kept.report.accuracy
    assert isinstance(found, Int8Accuracy)
    assert found.correct == found.correct_plain == num_correct(kept, *labelled) >= LEAST
    assert (found.num_float32, found.num_convolutions) == (0, 2)
    sentence = f"On 400 labelled images top-1 is {found.correct / 4:.2f}%, and 100.00% in float32."
    assert str(kept.report).endswith(sentence)
    assert "float32" not in kept.precision


@needs_int8
@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("wild", [True, False])
def test_an_onnx_graph_keeps_its_accuracy_too(wild: bool, labelled: tuple[Tensor, Tensor]) -> None:
    import onnx

    from resnet_zoo.inference.folding import fold_batch_norms

    network, file = small(wild=wild), io.BytesIO()
    fold_batch_norms(network)
    images, labels = labelled
    batch: Any = ({0: torch.export.Dim("batch", min=1)},)
    names: Any = {"input_names": ["images"], "output_names": ["logits"]}
    program: Any = torch.onnx.export(network, (images[:2],), dynamo=True, dynamic_shapes=batch, verbose=False, **names)
    program.save(file)
    graph = onnx.load_from_string(file.getvalue())
    _, found = quantization.quantize(graph, images, full_range=False, input_name="images", labels=labels)
    assert isinstance(found, Int8Accuracy)
    assert (found.correct_plain < LEAST) == wild == (found.num_float32 > 0)
    assert found.correct >= LEAST
    assert found.num_convolutions == 2


@needs_int8
@pytest.mark.parametrize(
    ("labels", "fact"),
    [
        (torch.zeros(3, dtype=torch.int64), r"labels of 400 calibration images.*classes \(4\), got int64 \(3,\)"),
        (torch.zeros(NUM_IMAGES), r"got float32 \(400,\)"),
        (torch.full((NUM_IMAGES,), 4), "below the number"),
        (torch.full((NUM_IMAGES,), -1), "from 0"),
        ([0] * NUM_IMAGES, "got list"),
    ],
    ids=["few", "floats", "too large", "negative", "list"],
)
def test_labels_that_are_not_those_of_the_images_are_refused(
    labels: Any, fact: str, labelled: tuple[Tensor, Tensor]
) -> None:
    with pytest.raises(ArgumentError, match=fact):
        int8(small(wild=False), labelled[0], labels)


@needs_int8
def test_labels_for_maps_are_refused(labelled: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ArgumentError, match="it returns no logits"):
        int8(small(wild=False).conv1, *labelled)


def test_labels_without_int8_are_refused(labelled: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ArgumentError, match=r"Labels are for dtype torch\.int8"):
        optimize_for_inference(small(wild=False), labels=labelled[1])


@needs_int8
@pytest.mark.parametrize(
    ("package", "found", "fact"),
    [
        (
            "nncf",
            "2.19.0",
            r"NNCF 2\.19\.0 is too old: 3\.0 or later is needed\. Run: pip install 'resnet-zoo\[int8\]'",
        ),
        ("openvino", "2025.4.1", r"OpenVINO 2025\.4\.1 is too old: 2026\.0 or later is needed"),
    ],
)
def test_a_version_too_old_is_told_with_the_one_needed(
    package: str, found: str, fact: str, labelled: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: found if name == package else version(name))
    with pytest.raises(ArgumentError, match=fact):
        int8(small(wild=False), labelled[0], None)
