"""Calibration images: from all parts of a folder, or a sentence; and the commands that compute in 8-bit integers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.inference import calibration, openvino
from resnet_zoo.inference.calibration import folders_of, made_fast, read_calibration
from resnet_zoo.inference.optimization import optimize_for_inference
from resnet_zoo.inference.prediction import predict
from resnet_zoo.zoo import open_network
from tests.conftest import PETS, random_network, smooth_image
from tests.inference.conftest import needs_int8

ROW, CPU = "resnet18_cifar10", torch.device("cpu")


@pytest.fixture
def transform() -> Any:
    return open_network(ROW).transform


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images of one colour each, in two folders."""
    for number in range(12):
        folder = tmp_path / "photos" / "ab"[number // 6]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 0, 255 - 20 * number)).save(folder / f"{number:02}.png")
    return tmp_path / "photos"


def test_images_are_taken_from_all_parts_of_a_folder(
    photos: Path, transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, labels = read_calibration(photos, transform)
    assert labels is None
    assert torch.equal(found, torch.stack([transform(path) for path in sorted(photos.rglob("*.png"))]))
    monkeypatch.setattr(calibration, "NUM_IMAGES", 4)
    assert torch.equal(read_calibration(photos, transform).images, found[::3])


def test_images_that_all_lie_in_class_folders_have_labels_and_more_are_taken(
    photos: Path, transform: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "NUM_IMAGES", 4)
    images, labels = read_calibration(photos, transform, ["z", "b", "a"])
    assert labels is not None
    assert labels.tolist() == [2] * 6 + [1] * 6
    assert len(images) == 12
    monkeypatch.setattr(calibration, "NUM_LABELLED", 6)
    found, labels = read_calibration(photos, transform, ["z", "b", "a"])
    assert labels is not None
    assert labels.tolist() == [2] * 3 + [1] * 3
    assert torch.equal(found, images[::2])
    assert read_calibration(photos, transform, ["a", "c"]).labels is None


def test_folders_are_named_as_in_the_data_set_or_like_the_classes_of_a_file(pet_file: Path) -> None:
    assert folders_of(open_network("resnet50_in1k"))[0] == "n01440764"
    assert list(folders_of(open_network(pet_file))) == PETS


def test_a_folder_that_does_not_do_is_told(photos: Path, transform: Any, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        read_calibration(tmp_path / "nowhere", transform)
    with pytest.raises(ArgumentError, match=r"b holds 6 images; int8 needs 10 or more"):
        read_calibration(photos / "b", transform)
    (photos / "a" / "00.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"00\.png"):
        read_calibration(photos, transform)


@pytest.mark.slow
@needs_int8
def test_a_network_is_made_fast_only_if_asked_and_left_as_it_was(photos: Path, transform: Any) -> None:
    model = random_network(ROW).train()
    assert made_fast(model, CPU, transform, fast=False, calibration=None) is model
    optimized = optimize_for_inference(model)
    assert made_fast(optimized, CPU, transform, fast=True, calibration=None) is optimized
    quantised: Any = made_fast(model, CPU, transform, fast=True, calibration=photos)
    assert quantised.precision == f"int8 with {openvino.title()}, batch-norm folded"
    assert model.training
    with pytest.raises(ArgumentError, match="optimised already"):
        made_fast(optimized, CPU, transform, fast=False, calibration=photos)


@pytest.mark.slow
@needs_int8
def test_predictions_in_int8_are_nearly_those_of_the_network(photos: Path) -> None:
    model, pictures = random_network(ROW), [smooth_image(32, 32), smooth_image(40, 30)]
    exact = predict(ROW, pictures, model=model, device="cpu")
    rounded = predict(ROW, pictures, model=model, device="cpu", calibration=photos)
    for one, other in zip(exact, rounded, strict=True):
        probabilities = {score.label: score.probability for score in other.classes}
        assert probabilities[one.classes[0].label] == pytest.approx(one.classes[0].probability, abs=0.05)
    assert exact != rounded


@needs_int8
@pytest.mark.slow
def test_the_commands_report_int8_once_and_refuse_half_of_it(photos: Path, class_tree: Callable[..., Path]) -> None:
    root = class_tree(class_folders("cifar10"))
    commands = (
        ["predict", ROW, str(photos), "--format", "json"],
        ["evaluate", ROW, "--data", str(root), "--format", "json"],
    )
    for command in commands:
        done = CliRunner().invoke(main, [*command, "--device", "cpu", "--fast", "--int8", "--calibrate", str(photos)])
        assert done.exit_code == 0, done.stderr
        assert done.stderr.count(f"Computes in int8 with {openvino.title()}, ") == 1
        assert "CUDA" not in done.stderr
        json.loads(done.stdout)
        assert "top-1" not in done.stderr
        refused = CliRunner().invoke(main, [*command, "--int8"])
        assert (refused.exit_code, "--calibrate DIR" in refused.stderr) == (2, True)
    refused = CliRunner().invoke(main, [*commands[1], "--int8", "--calibrate", str(photos), "--precision", "bfloat16"])
    assert refused.exit_code == 2
    assert "int8 chooses its own precision" in refused.stderr


@needs_int8
@pytest.mark.slow
def test_commands_check_the_accuracy_on_calibration_images_in_class_folders(
    pet_file: Path, tmp_path: Path, class_tree: Callable[..., Path]
) -> None:
    root = class_tree(PETS, per_class=4)
    int8 = ("--int8", "--calibrate", str(root))
    for command in (
        ["predict", str(pet_file), str(root), "--device", "cpu"],
        ["evaluate", str(pet_file), "--data", str(root), "--device", "cpu"],
        ["export", str(pet_file), "-o", str(tmp_path / "pets.xml")],
    ):
        done = CliRunner().invoke(main, [*command, *int8])
        assert done.exit_code == 0, done.stderr
        assert " ".join(done.stderr.split()).count("On 12 labelled images top-1 is") == 1
    for command in (
        ["embed", str(pet_file), str(root), "-o", str(tmp_path / "v.npy"), "--device", "cpu"],
        ["export", str(pet_file), "-o", str(tmp_path / "maps.xml"), "--features", "stage4"],
    ):
        done = CliRunner().invoke(main, [*command, *int8])
        assert done.exit_code == 0, done.stderr
        assert "top-1" not in done.stderr
