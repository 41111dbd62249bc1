"""From a class tree to a network file: trainings of real rows on a few images of 8 or 32 pixels."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from resnet_zoo import (
    FinetuneResult,
    create_model,
    embed,
    evaluate,
    finetune,
    open_network,
    predict,
    save_network,
    verify,
)
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.classes import class_names
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import (
    ArgumentError,
    DatasetError,
    NonFiniteLossError,
    TrainingError,
    TrainingStopped,
    UnknownModelError,
    WeightsUnavailableError,
    ZooError,
)
from resnet_zoo.images.class_tree import read_class_tree
from resnet_zoo.runs.records import LogEpoch, LogLine, LogStep
from resnet_zoo.training.display import Silent
from resnet_zoo.training.tuning import Tuning
from resnet_zoo.weights.checkpoint import load_checkpoint
from tests.conftest import UNFETCHED, needs_permissions, random_network

ROW, ROW_IN1K = "resnet18_cifar10", "resnet18_in1k"
COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
SHORT = Tuning(head_epochs=2, epochs=2, batch_size=6, lr=0.02)
HEAD, WHOLE = replace(SHORT, head_epochs=1, epochs=0), replace(SHORT, head_epochs=0, epochs=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network file of a CIFAR row that takes images of 8x8 pixels."""
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    save_network(path, random_network(), row=ROW, class_names=class_names("cifar10"), input_size=(3, 8, 8))
    return path


@pytest.fixture(scope="module")
def small_in1k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network file of an ImageNet row that takes crops of 32x32 pixels."""
    path = tmp_path_factory.mktemp("network") / "small_in1k.safetensors"
    rules = replace(get_entry(ROW_IN1K).preprocess, short_edge=36, crop=32)
    save_network(
        path,
        random_network(ROW_IN1K, num_classes=2),
        row=ROW_IN1K,
        class_names=["a", "b"],
        preprocess=rules,
        input_size=(3, 32, 32),
    )
    return path


def paint(root: Path, per_class: int) -> Path:
    """Make class folders of noisy images in one colour each, of several sizes."""
    random = np.random.default_rng(per_class)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            pixels = np.array(colour) + random.integers(-40, 41, (40 + index, 50, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("data") / "photos", 5)


def run(name: Path | str, data: Path, target: Path, **options: Any) -> FinetuneResult:
    how: dict[str, Any] = {"tuning": SHORT, "device": "cpu", "num_workers": 0}
    return finetune(name, data, target, **(how | options))


class Log(Silent):
    """Keeps the lines of the logs, the sentences, and can act on a line."""

    def __init__(self, act: Callable[[int, LogLine], None] = lambda _number, _line: None) -> None:
        super().__init__()
        self.lines: list[LogLine] = []
        self.sentences: list[str] = []
        self.act = act

    def on_line(self, line: LogLine) -> None:
        self.lines.append(line)
        self.act(len(self.lines), line)

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.fixture(scope="module")
def tuned(small: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FinetuneResult, Log]:
    """The small network after a whole fine-tuning, and what was said."""
    log = Log()
    return run(small, photos, tmp_path_factory.mktemp("out") / "tuned.safetensors", screen=log), log


def tensors(path: Path | str) -> dict[str, Tensor]:
    return safetensors.torch.load_file(path)


def header(path: Path | str) -> dict[str, str]:
    return dict(load_checkpoint(path).header)


def is_head(key: str) -> bool:
    return key.startswith("fc.")


# --- what comes out -----------------------------------------------------------------------------------------------


def test_the_record_is_of_the_file(tuned: tuple[FinetuneResult, Log], small: Path) -> None:
    result, _ = tuned
    path = Path(result.path)
    assert (result.sha256, result.size_bytes) == (sha256_of(path), path.stat().st_size)
    assert (result.model, result.made_from, result.class_names) == (ROW, small.name, ("blue", "green", "red"))
    assert (result.num_train, result.num_val) == (12, 3)
    assert result.train_seconds > 0
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_the_file_loads_by_path_with_its_names(tuned: tuple[FinetuneResult, Log], photos: Path) -> None:
    path = Path(tuned[0].path)
    assert create_model(path).fc.out_features == 3
    network = open_network(path)
    assert (network.class_names, network.entry.input_size) == (("blue", "green", "red"), (3, 8, 8))
    assert embed(path, photos / "red" / "0.png", device="cpu").shape == (1, 512)


def test_the_accuracy_told_is_that_of_predict_on_the_held_out_images(
    tuned: tuple[FinetuneResult, Log], photos: Path
) -> None:
    result, log = tuned
    held = read_class_tree(photos).val
    best = [found.classes[0].name for found in predict(result.path, held.paths, device="cpu")]
    correct = sum(name == path.parent.name for name, path in zip(best, held.paths, strict=True))
    assert result.top1 == pytest.approx(100 * correct / len(held.paths))
    assert result.top1 is not None
    assert result.top1_interval is not None
    assert result.top1_interval[0] <= result.top1 <= result.top1_interval[1]
    assert log.sentences[-1] == f"{correct} of 3 held-out images correct"


def test_every_epoch_is_told_and_measured(tuned: tuple[FinetuneResult, Log]) -> None:
    epochs = [line for line in tuned[1].lines if isinstance(line, LogEpoch)]
    assert [(line.epoch, line.top1 is None) for line in epochs] == [(0, False), (1, False)] * 2
    steps = [line.lr for line in tuned[1].lines if isinstance(line, LogStep)]
    head, whole = max(steps[:4]), max(steps[4:])
    assert head == pytest.approx(2 * whole)


def test_the_header_says_what_it_was_made_from_and_how(tuned: tuple[FinetuneResult, Log], small: Path) -> None:
    result, _ = tuned
    texts = header(result.path)
    assert json.loads(texts["finetuned_from"]) == {"weights": small.name, "sha256": sha256_of(small)}
    how = json.loads(texts["finetuning"])
    assert (how["lr"], how["epochs"], how["head_epochs"], how["seed"], how["num_images"]) == (0.02, 2, 2, 0, 12)
    assert json.loads(texts["validation"])["top1"] == result.top1


@pytest.mark.slow
def test_a_row_that_resizes_is_trained_on_crops_and_measured_with_its_transform(
    small_in1k: Path, tmp_path: Path
) -> None:
    paint(tmp_path / "data" / "train", 4)
    paint(tmp_path / "data" / "val", 1)
    log, out = Log(), tmp_path / "out.safetensors"
    result = run(small_in1k, tmp_path / "data", out, tuning=replace(SHORT, head_epochs=1), screen=log)
    assert (result.model, result.num_train, result.num_val) == (ROW_IN1K, 12, 3)
    network = open_network(out)
    assert (network.entry.preprocess.crop, network.class_names) == (32, ("blue", "green", "red"))
    held = sorted((tmp_path / "data" / "val").rglob("*.png"))
    best = [found.classes[0].name for found in predict(out, held, device="cpu")]
    assert result.top1 == pytest.approx(100 * sum(n == p.parent.name for n, p in zip(best, held, strict=True)) / 3)


def test_a_phase_of_the_classifier_alone_leaves_everything_else_as_it_was(
    small: Path, photos: Path, tmp_path: Path
) -> None:
    before_sha256 = sha256_of(small)
    run(small, photos, tmp_path / "head.safetensors", tuning=HEAD)
    before, after = tensors(small), tensors(tmp_path / "head.safetensors")
    assert [key for key in before if not is_head(key) and not torch.equal(before[key], after[key])] == []
    assert after["fc.weight"].shape == (3, 512)
    assert after["fc.bias"].any()
    assert sha256_of(small) == before_sha256


def test_a_phase_of_the_whole_changes_every_layer_and_its_statistics(small: Path, photos: Path, tmp_path: Path) -> None:
    run(small, photos, tmp_path / "whole.safetensors", tuning=WHOLE, val_share=0, classes=["red", "blue"])
    before, after = tensors(small), tensors(tmp_path / "whole.safetensors")
    assert [key for key in before if not is_head(key) and torch.equal(before[key], after[key])] == []


def test_without_held_out_images_nothing_is_claimed_and_classes_keep_their_order(
    small: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    result = run(small, photos, out, tuning=HEAD, val_share=0, classes=["red", "blue"])
    assert (result.num_train, result.num_val, result.top1, result.top1_interval) == (10, 0, None, None)
    assert open_network(out).class_names == ("red", "blue")
    assert "validation" not in header(out)


def test_a_row_begins_with_a_file_of_weights_or_with_fresh_values(photos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(random_network(seed=1).state_dict(), weights)
    result = run(ROW, photos, tmp_path / "a.safetensors", weights=weights, tuning=HEAD, val_share=0)
    assert result.made_from == f"{ROW} weights.safetensors"
    assert torch.equal(tensors(result.path)["conv1.weight"], tensors(weights)["conv1.weight"])
    fresh = run(ROW, photos, tmp_path / "b.safetensors", from_scratch=True, tuning=HEAD, val_share=0)
    assert fresh.made_from == "fresh values"
    assert json.loads(header(fresh.path)["finetuned_from"])["sha256"] is None
    assert not tensors(fresh.path)["layer1.0.bn2.weight"].any()  # as upstream begins


# --- the same bits, whatever happens ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_call_gives_the_same_bytes_and_another_seed_others(
    tuned: tuple[FinetuneResult, Log], small: Path, photos: Path, tmp_path: Path
) -> None:
    torch.manual_seed(123)
    assert run(small, photos, tmp_path / "again.safetensors").sha256 == tuned[0].sha256
    assert run(small, photos, tmp_path / "other.safetensors", seed=1).sha256 != tuned[0].sha256


class Killed(Exception):  # noqa: N818
    """Stands for a kill: nothing after it is run."""


def kill(number: int) -> Callable[[int, LogLine], None]:
    def act(line_number: int, _line: LogLine) -> None:
        if line_number == number:
            raise Killed

    return act


def interrupt(number: int) -> Callable[[int, LogLine], None]:
    def act(line_number: int, line: LogLine) -> None:
        if line_number == number and isinstance(line, LogStep):
            os.kill(os.getpid(), signal.SIGINT)

    return act


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_stopped_and_killed_it_goes_on_to_the_same_bytes(
    tuned: tuple[FinetuneResult, Log], small: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(TrainingStopped, match="Run the same command again to resume") as stopped:
        run(small, photos, out, screen=Log(interrupt(2)))
    assert stopped.value.exit_code == 130
    with pytest.raises(Killed):  # in the second phase, after an epoch
        run(small, photos, out, screen=Log(kill(10)))
    assert not out.exists()
    with pytest.raises(TrainingError, match=r"began differently: tuning\.lr was 0\.02 and is 0\.5"):
        run(small, photos, out, tuning=replace(SHORT, lr=0.5))
    with monkeypatch.context() as other:
        other.setattr("resnet_zoo.training.tuner.code_sha256", lambda: "0" * 64)
        with pytest.raises(TrainingError, match="Finish it with the version of resnet-zoo that began it"):
            run(small, photos, out)
    log = Log()
    assert run(small, photos, out, screen=log).sha256 == tuned[0].sha256
    assert any("Resuming" in sentence for sentence in log.sentences)
    assert [item.name for item in tmp_path.iterdir()] == [out.name]


def test_killed_before_the_first_checkpoint_nothing_is_left(small: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(small, photos, tmp_path / "out.safetensors", screen=Log(kill(1)))
    assert not list(tmp_path.iterdir())


def test_a_training_that_diverges_says_so_and_writes_nothing(small: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="--lr"):
        run(small, photos, tmp_path / "out.safetensors", tuning=replace(WHOLE, lr=1e30))
    assert not list(tmp_path.glob("out*"))


def test_an_existing_file_is_replaced_only_when_it_is_done(small: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(ArgumentError, match="exists already"):
        run(small, photos, out)
    with pytest.raises(Killed):
        run(small, photos, out, overwrite=True, tuning=HEAD, screen=Log(kill(1)))
    assert out.read_bytes() == b"precious"
    run(small, photos, out, overwrite=True, tuning=HEAD)
    assert open_network(out).class_names == ("blue", "green", "red")


# --- what can be asked for ----------------------------------------------------------------------------------------


def folders(root: Path, **per_class: int) -> Path:
    """Make folders of splits with as many images per class."""
    for split, number in per_class.items():
        paint(root / split, number)
    return root


def test_test_images_are_reported_and_validation_images_measured_on_the_way(small: Path, tmp_path: Path) -> None:
    log, out = Log(), tmp_path / "out.safetensors"
    data = folders(tmp_path / "data", train=4, valid=1, test=2)
    result = run(small, data, out, tuning=HEAD, screen=log)
    assert (result.num_train, result.num_val, result.num_test) == (12, 3, 6)
    report = result.report
    assert report is not None
    assert (report.dataset, report.num_images, len(report.classes)) == ("class folders (test)", 6, 3)
    again = evaluate(out, data, device="cpu")
    assert (again.confusion, again.dataset) == (report.confusion, report.dataset)
    (checked,) = verify(out, data=data, device="cpu")
    assert [checked.check(name).status for name in ("weights", "top1")] == ["passed"] * 2
    assert json.loads(header(out)["test"])["correct1"] == report.correct1
    assert json.loads(header(out)["validation"])["num_images"] == 3


def test_what_is_held_out_of_a_plain_tree_is_found_again(
    tuned: tuple[FinetuneResult, Log], photos: Path, tmp_path: Path
) -> None:
    result, _ = tuned
    report = result.report
    assert report is not None
    assert report.dataset == "class folders (held out)"
    assert report.top1 == result.top1
    again = evaluate(result.path, photos, device="cpu")
    assert (again.confusion, again.dataset) == (report.confusion, report.dataset)
    (checked,) = verify(result.path, data=photos, device="cpu")
    assert checked.check("top1").status == "passed"
    other = paint(tmp_path / "other", 4)
    assert verify(result.path, data=other, device="cpu")[0].check("top1").status == "not checked"


def test_images_of_another_size_are_trained_on_and_kept_in_the_file(
    small: Path, small_in1k: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "large.safetensors"
    run(small, photos, out, tuning=replace(HEAD, image_size=16))
    assert open_network(out).entry.input_size == (3, 16, 16)
    crop = replace(HEAD, image_size=64).resized(open_network(small_in1k).entry)
    assert (crop.input_size, crop.preprocess.short_edge, crop.preprocess.crop) == ((3, 64, 64), 72, 64)


@pytest.mark.slow
@pytest.mark.parametrize("augmentation", ["none", "light", "strong"])
@pytest.mark.parametrize("network", ["small", "small_in1k"])
def test_augmentation_of_every_strength_goes_on_to_the_same_bytes(
    augmentation: Any, network: str, photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    name, tuning = request.getfixturevalue(network), replace(HEAD, augmentation=augmentation)
    whole = run(name, photos, tmp_path / "whole.safetensors", tuning=tuning)
    stopped = tmp_path / "stopped.safetensors"
    with pytest.raises(TrainingStopped):
        run(name, photos, stopped, tuning=tuning, screen=Log(interrupt(1)))
    assert run(name, photos, stopped, tuning=tuning).sha256 == whole.sha256
    usual = run(name, photos, tmp_path / "usual.safetensors", tuning=HEAD)
    assert not torch.equal(tensors(usual.path)["fc.weight"], tensors(whole.path)["fc.weight"])


@pytest.mark.slow
def test_rare_classes_count_as_much_as_frequent_ones(small: Path, tmp_path: Path) -> None:
    data = paint(tmp_path / "uneven", 8)
    for path in sorted((data / "red").iterdir())[2:]:
        path.unlink()
    bias = {}
    for kind in ("none", "balanced"):
        tuning = replace(HEAD, class_weights=kind, label_smoothing=0.0, head_epochs=3, lr=0.001)
        run(small, data, tmp_path / f"{kind}.safetensors", tuning=tuning, val_share=0)
        bias[kind] = tensors(tmp_path / f"{kind}.safetensors")["fc.bias"]
    assert bias["balanced"][2] > bias["none"][2]
    assert bias["balanced"][0] < bias["none"][0]


def early(log: Log) -> list[float]:
    return [line.top1 for line in log.lines if isinstance(line, LogEpoch) and line.top1 is not None]


@pytest.mark.slow
def test_early_stopping_keeps_the_first_best_epoch_and_goes_on_to_the_same_bytes(
    small: Path, photos: Path, tmp_path: Path
) -> None:
    tuning = replace(WHOLE, epochs=40, patience=2, lr=1e-8)  # nothing is learnt: the first epoch stays the best
    log = Log()
    result = run(small, photos, tmp_path / "whole.safetensors", tuning=tuning, screen=log)
    found = early(log)
    best = found.index(max(found))
    assert len(found) == best + 1 + 2 < 40
    assert result.best_epoch == best + 1
    assert result.top1 == pytest.approx(found[best])
    said = json.loads(header(result.path)["validation"])
    assert said["chose_epoch"] is True
    assert json.loads(header(result.path)["finetuning"])["best_epoch"] == best + 1
    out = tmp_path / "out.safetensors"
    with pytest.raises(TrainingStopped):
        run(small, photos, out, tuning=tuning, screen=Log(interrupt(5)))
    assert run(small, photos, out, tuning=tuning).sha256 == result.sha256


def test_without_early_stopping_nothing_is_chosen(tuned: tuple[FinetuneResult, Log]) -> None:
    assert tuned[0].best_epoch is None
    assert json.loads(header(tuned[0].path)["validation"])["chose_epoch"] is False


# --- what cannot be -----------------------------------------------------------------------------------------------


@pytest.fixture
def refused(small: Path, photos: Path, tmp_path: Path) -> Callable[..., str]:
    """A function that checks that a call is refused before any training, and returns why; nothing may be left."""

    def check(error: type[ZooError], name: Path | str = small, data: Path = photos, **options: Any) -> str:
        log = Log()
        target = options.pop("target", tmp_path / "out.safetensors")
        with pytest.raises(error) as raised:
            run(name, data, target, screen=log, **options)
        assert not log.lines
        assert not [path for path in tmp_path.rglob("*") if "out" in path.name]
        return str(raised.value)

    return check


def test_names_and_weights_that_cannot_be_are_refused(refused: Callable[..., str], small: Path, tmp_path: Path) -> None:
    assert "Did you mean resnet18" in refused(UnknownModelError, "resnet18_cifar1")
    assert "No weights" in refused(WeightsUnavailableError, ROW, weights=tmp_path / "missing.pth")
    assert "No such file" in refused(WeightsUnavailableError, tmp_path / "missing.safetensors")
    assert "mutually exclusive" in refused(ArgumentError, ROW, weights="openmmlab", from_scratch=True)
    assert "has its own weights" in refused(ArgumentError, from_scratch=True)
    assert "has its own weights" in refused(ArgumentError, weights="openmmlab")


def test_weights_that_cannot_be_had_are_never_replaced_by_fresh_values(refused: Callable[..., str]) -> None:
    assert refused(ZooError, UNFETCHED)


def test_a_network_for_grey_images_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    grey = tmp_path / "grey.safetensors"
    model = create_model(ROW, in_channels=1)
    save_network(grey, model, row=ROW, class_names=class_names("cifar10"))
    assert "takes images with 1 channels" in refused(ArgumentError, grey)


@pytest.mark.parametrize("network", ["small", "small_in1k"])
def test_a_broken_image_is_named_before_any_training(
    network: str, refused: Callable[..., str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    data = paint(tmp_path / "data", 3)
    broken = data / "red" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    assert str(broken) in refused(DatasetError, request.getfixturevalue(network), data)


def test_targets_that_cannot_be_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "ends in .safetensors" in refused(ArgumentError, target=tmp_path / "a.pth")
    assert "No such file" in refused(OSError, target=tmp_path / "missing" / "a.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "is a folder" in refused(ArgumentError, target=tmp_path / "folder.safetensors")


@needs_permissions
def test_a_folder_that_cannot_be_written_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "Permission denied" in refused(OSError, target=tmp_path / "closed" / "a.safetensors")


def refused_tuning(**values: Any) -> str:
    with pytest.raises(ArgumentError) as raised:
        replace(SHORT, **values)
    return str(raised.value)


def test_data_and_values_that_cannot_be_are_refused(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not a folder" in refused(DatasetError, data=tmp_path / "missing")
    assert "'rde'. Did you mean red" in refused(ArgumentError, classes=["rde", "blue"])
    assert "device 'cuda:99'" in refused(ArgumentError, device="cuda:99")
    assert "image_size of 8 to 1024" in refused_tuning(image_size=4)
    assert "augmentation none or light" in refused_tuning(augmentation="much")
    assert "class_weights none or balanced" in refused_tuning(class_weights="even")
    assert "patience of 0 or more" in refused_tuning(patience=-1)
    assert "needs validation images" in refused(ArgumentError, tuning=replace(SHORT, patience=1), val_share=0)
    assert "label_smoothing" in refused(ArgumentError, tuning=replace(SHORT, label_smoothing=2.0))
    for size in ("2", "two"):
        monkeypatch.setenv("WORLD_SIZE", size)
        assert "without torchrun" in refused(ArgumentError)
