from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnet_zoo import create_transform
from resnet_zoo.base.devices import borrowed
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import Precision
from resnet_zoo.errors import ArgumentError, DatasetError, DownloadError, NonFiniteOutputError, UnknownModelError
from resnet_zoo.images.test_sets import Batch, batches, open_test_set
from resnet_zoo.inference.counted import best_classes, correct_in_top_k, count_correct, wilson_interval
from resnet_zoo.inference.evaluation import Evaluation, evaluate
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.provenance import tensors_sha256
from tests.conftest import UNFETCHED, random_network, randomise

NAME = "resnet18_cifar10"
CLASSES = class_folders("cifar10")
Tree = Callable[..., Path]


@pytest.fixture(scope="module")
def model() -> ResNet:
    torch.manual_seed(0)
    network = build(get_entry(NAME))
    randomise(network)
    nn.init.normal_(network.fc.weight, std=0.5)
    return network.eval()


def reference(model: nn.Module, root: Path) -> tuple[int, int]:
    """Count in plain Python, one image at a time."""
    transform = create_transform(NAME)
    top1 = top5 = 0
    for label, name in enumerate(CLASSES):
        for path in sorted((root / "test" / name).iterdir()):
            with torch.no_grad():
                logits = model(transform(path)[None])[0].tolist()
            ranked = sorted(range(len(logits)), key=lambda index: -logits[index])
            top1 += ranked[0] == label
            top5 += label in ranked[:5]
    return top1, top5


def run(
    model: nn.Module, root: Path, *, batch_size: int = 4, precision: Precision = "float32", skip_bad: bool = False
) -> Evaluation:
    return evaluate(
        NAME, root, model=model, device="cpu", batch_size=batch_size, precision=precision, skip_bad=skip_bad
    )


# --- counting ------------------------------------------------------------------------------------------------------


def test_counts_are_those_of_a_plain_loop(model: ResNet, class_tree: Tree) -> None:
    root = class_tree(CLASSES, per_class=3)
    result = run(model, root)
    assert (result.correct1, result.correct5) == reference(model, root)
    assert result.num_images == 30
    assert 0 < result.correct5 < 30
    assert result.top1 == 100 * result.correct1 / 30
    assert result.top5 == 100 * result.correct5 / 30


@pytest.mark.parametrize("batch_size", [1, 7, 30, 64])
def test_the_batch_size_does_not_change_the_counts(batch_size: int, model: ResNet, class_tree: Tree) -> None:
    root = class_tree(CLASSES, per_class=3)
    result = run(model, root, batch_size=batch_size)
    assert (result.num_images, result.correct1, result.correct5) == (30, *reference(model, root))


def test_workers_do_not_change_the_counts(model: ResNet, class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    alone, helped = (
        evaluate(NAME, root, model=model, device="cpu", batch_size=4, num_workers=workers) for workers in (0, 1)
    )
    assert (alone.correct1, alone.correct5) == (helped.correct1, helped.correct5)


def ranks(labels: list[int], rows: list[list[float]]) -> list[int]:
    counted: list[int] = correct_in_top_k(*best_classes(torch.tensor(rows)), torch.tensor(labels)).tolist()
    return counted


def test_only_the_best_class_counts_for_top1_and_the_best_five_for_top5() -> None:
    row = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    assert [ranks([label], [row]) for label in range(6)] == [[1, 1], [0, 1], [0, 1], [0, 1], [0, 1], [0, 0]]


def test_fewer_than_five_classes_are_all_in_the_top_five() -> None:
    assert ranks([0, 1, 2], [[3.0, 2.0, 1.0]] * 3) == [1, 3]
    assert ranks([0], [[1.0]]) == [1, 1]


def test_a_class_with_probability_zero_does_not_count() -> None:
    row = [0.0, -200.0, -300.0, -400.0, -500.0, -600.0]
    assert torch.tensor([row]).softmax(1)[0, 1] == 0
    assert [ranks([label], [row]) for label in (0, 1)] == [[1, 1], [0, 0]]
    assert ranks([1], [[0.0, -20.0, -30.0, -40.0, -50.0, -60.0]]) == [0, 1]


def test_logits_that_are_not_numbers_are_never_right() -> None:
    assert ranks([0, 1], [[math.nan] * 6] * 2) == [0, 0]


# --- the interval --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (81, 263, 25.5, 36.6),  # Newcombe (1998), table I
        (15, 148, 6.2, 16.0),
        (0, 20, 0.0, 16.1),
        (1, 29, 0.6, 17.2),
    ],
)
def test_the_interval_is_that_of_published_examples(correct: int, total: int, low: float, high: float) -> None:
    assert [round(bound, 1) for bound in wilson_interval(correct, total)] == [low, high]


def test_the_interval_stays_within_0_and_100_and_mirrors() -> None:
    assert wilson_interval(0, 10)[0] == 0.0
    assert wilson_interval(10, 10)[1] == pytest.approx(100.0)
    assert wilson_interval(10, 10)[1] <= 100.0
    low, high = wilson_interval(3, 10)
    assert wilson_interval(7, 10) == pytest.approx((100 - high, 100 - low))


def test_the_interval_of_a_published_accuracy_is_half_a_point_wide() -> None:
    low, high = wilson_interval(9482, 10_000)
    assert low < 94.82 < high
    assert high - low == pytest.approx(0.87, abs=0.01)


# --- what is recorded ----------------------------------------------------------------------------------------------


def test_the_result_says_what_was_measured(model: ResNet, class_tree: Tree) -> None:
    result = run(model, class_tree(CLASSES))
    assert (result.name, result.dataset, result.precision) == (NAME, "cifar10-png-10images", "float32")
    assert result.chain is None
    assert result.num_skipped == 0
    assert result.images_per_s > 0
    assert result.versions["torch"]
    assert result.top1_interval == wilson_interval(result.correct1, 10)
    assert result.top5_interval == wilson_interval(result.correct5, 10)


def test_weights_of_a_file_are_named_with_their_hash(model: ResNet, class_tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    torch.save(model.state_dict(), path)
    root = class_tree(CLASSES)
    result = evaluate(NAME, root, weights=path, device="cpu")
    assert result.chain is not None
    assert (result.chain.file, result.chain.pin) == ("mine.pth", "path")
    assert result.chain.file_sha256 == sha256_of(path)
    assert result.chain.tensors_sha256 == tensors_sha256(model.state_dict())
    assert (result.correct1, result.correct5) == reference(model, root)


def test_an_alias_is_recorded_as_its_row(tmp_path: Path, class_tree: Tree) -> None:
    folders = class_folders("in1k")[:1]
    root = class_tree(folders, split="val", size=40)
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    result = evaluate("resnet18", root, model=flat, device="cpu", partial=True)
    assert (result.name, result.dataset) == ("resnet18_in1k", "in1k-1of1000classes")


def test_progress_is_called_after_every_batch_with_images_done(model: ResNet, class_tree: Tree) -> None:
    calls: list[tuple[int, int]] = []
    root = class_tree(CLASSES)
    (root / "test" / "cat" / "0000.png").write_bytes(b"junk")
    evaluate(
        NAME,
        root,
        model=model,
        device="cpu",
        batch_size=4,
        skip_bad=True,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(4, 10), (8, 10), (10, 10)]


def test_skipped_images_are_counted_apart(model: ResNet, class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    (root / "test" / "cat" / "0000.png").write_bytes(b"junk")
    with pytest.raises(DatasetError, match="cat"):
        run(model, root)
    result = run(model, root, skip_bad=True)
    assert (result.num_images, result.num_skipped, len(result.skipped)) == (9, 1, 1)
    assert "cat" in result.skipped[0]


def test_a_batch_without_any_readable_image_is_passed_over(model: ResNet, class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    for name in CLASSES[:4]:
        (root / "test" / name / "0000.png").write_bytes(b"junk")
    assert run(model, root, skip_bad=True, batch_size=2).num_images == 6


def test_nothing_but_unreadable_images_is_an_error(model: ResNet, class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    for name in CLASSES:
        (root / "test" / name / "0000.png").write_bytes(b"junk")
    with pytest.raises(DatasetError, match="None of the 10 images can be read"):
        run(model, root, skip_bad=True)


# --- the model -----------------------------------------------------------------------------------------------------


def test_bfloat16_leaves_the_model_in_float32_and_unchanged(model: ResNet, class_tree: Tree) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = run(model, class_tree(CLASSES), precision="bfloat16")
    assert result.precision == "bfloat16"
    after = model.state_dict()
    assert all(after[key].dtype == value.dtype and torch.equal(after[key], value) for key, value in before.items())


class Recorder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen: list[torch.dtype] = []
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.dtype)
        self.modes.append(self.training)
        return x.mean(dim=(2, 3)).repeat(1, 4)[:, :10] * self.scale


def test_the_model_passed_in_is_the_one_evaluated_in_eval_mode(class_tree: Tree) -> None:
    recorder = Recorder().train()
    run(recorder, class_tree(CLASSES))
    assert recorder.seen == [torch.float32] * 3
    assert recorder.modes == [False] * 3


def test_evaluation_leaves_the_statistics_of_the_model_alone(class_tree: Tree) -> None:
    network = randomise(build(get_entry(NAME))).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    run(network, class_tree(CLASSES))
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("options", [{}, {"precision": "bfloat16"}, {"fast": True}], ids=str)
def test_a_network_that_is_lent_comes_back_as_it_was(options: dict[str, Any], class_tree: Tree) -> None:
    network = random_network(NAME).to(memory_format=torch.channels_last).train()
    network.bn1.eval()
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    with borrowed(network):
        network.double().eval()
        assert network.bn1.running_var is not None
        assert network.bn1.running_var.dtype == torch.float64
    before = state_of(network)
    evaluate(NAME, class_tree(CLASSES), model=network, device="cpu", **options)
    assert state_of(network) == before
    assert network.get_parameter("conv1.weight").is_contiguous(memory_format=torch.channels_last)
    assert [name for name, module in network.named_modules() if not module.training] == ["bn1"]
    network.to(memory_format=torch.contiguous_format)
    assert state_of(network) != before, "a network in another layout is told apart"


def state_of(network: nn.Module) -> list[object]:
    tensors = [*network.parameters(), *network.buffers(), *(p.grad for p in network.parameters() if p.grad is not None)]
    return [[module.training for module in network.modules()], *((t.dtype, t.stride(), t.data_ptr()) for t in tensors)]


def test_a_network_comes_back_as_it_was_after_an_error(class_tree: Tree) -> None:
    network = random_network(NAME).train()

    def fail(*_: object) -> None:
        raise KeyError("planted")

    network.fc.register_forward_hook(fail)
    with pytest.raises(KeyError):
        run(network, class_tree(CLASSES))
    assert all(module.training for module in network.modules())


def test_count_correct_takes_any_loader(model: ResNet) -> None:
    def loader() -> Iterator[Batch]:
        pixels = torch.randint(0, 256, (6, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        with torch.no_grad():
            best = model(create_transform(NAME).normalise(pixels)).argmax(1)
        yield Batch(pixels[:4], best[:4])
        yield Batch(torch.empty(0), torch.empty(0, dtype=torch.int64), ["bad.png is bad"])
        yield Batch(pixels[4:], best[4:])

    done: list[int] = []
    count = count_correct(
        model, loader(), create_transform(NAME).normalise, device=torch.device("cpu"), progress=done.append
    )
    assert (count.num_images, count.correct, count.skipped) == (6, (6, 6), ["bad.png is bad"])
    assert done == [4, 5, 7]


def test_a_model_can_be_trained_after_an_evaluation(class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    network = build(get_entry(NAME))
    run(network, root)
    (batch,) = batches(open_test_set(get_entry(NAME), root), 10)
    logits = network.train()(create_transform(NAME).normalise(batch.pixels))
    nn.functional.cross_entropy(logits, batch.labels).backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("batch_size", [3, 30])
def test_logits_that_are_not_finite_are_not_counted_as_wrong(batch_size: int, class_tree: Tree) -> None:
    class OverflowsOnce(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(1, 10)
            nn.init.constant_(self.last.weight, 1e3)
            self.num_images = 0

        def forward(self, x: Tensor) -> Tensor:
            self.num_images += len(x)
            logits: Tensor = self.last(x.mean(dim=(1, 2, 3))[:, None] * (1e38 if self.num_images > 28 else 1))
            return logits

    root = class_tree(CLASSES, per_class=3)
    network = OverflowsOnce()
    with pytest.raises(NonFiniteOutputError, match="first behind last: its own values are finite"):
        run(network, root, batch_size=batch_size)
    assert (
        count_correct(  # a training goes on, and its losses decide
            network,
            batches(open_test_set(get_entry(NAME), root), 10),
            create_transform(NAME).normalise,
            device=torch.device("cpu"),
        ).num_images
        == 30
    )


# --- what is refused -----------------------------------------------------------------------------------------------


def test_an_unknown_row_is_an_error(class_tree: Tree) -> None:
    with pytest.raises(UnknownModelError):
        evaluate("resnet19", class_tree(CLASSES))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_that_is_not_positive_is_refused(batch_size: int, model: ResNet, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="positive batch size"):
        run(model, tmp_path, batch_size=batch_size)


def test_a_negative_number_of_workers_is_refused(model: ResNet, class_tree: Tree) -> None:
    with pytest.raises(ArgumentError):
        evaluate(NAME, class_tree(CLASSES), model=model, device="cpu", num_workers=-1)


def test_an_unknown_precision_is_refused(model: ResNet, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="float32 or bfloat16, got 'float16'"):
        run(model, tmp_path, precision="float16")


def test_a_device_that_is_not_there_is_refused(model: ResNet, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is not available"):
        evaluate(NAME, tmp_path, model=model, device="cuda:99")


def test_missing_weights_are_an_error_not_a_random_network(class_tree: Tree) -> None:
    with pytest.raises(DownloadError, match="offline"):
        evaluate(UNFETCHED, class_tree(CLASSES), device="cpu")
