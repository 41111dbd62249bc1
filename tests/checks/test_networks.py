"""Networks of one's own, evaluated and verified: by their files, on their own class folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from resnet_zoo import Evaluation, create_transform, evaluate, open_network, push_to_hub, save_network, verify
from resnet_zoo.catalog.classes import class_folders, class_names
from resnet_zoo.checks.report import Report
from resnet_zoo.cli.networks import facts_of_network
from resnet_zoo.errors import ArgumentError, CheckpointError, DatasetError, WeightsUnavailableError
from resnet_zoo.images.class_tree import read_class_tree
from resnet_zoo.images.identity import images_sha256
from resnet_zoo.inference.evaluation import images_for
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.cards import model_card
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.safetensors_files import read_safetensors
from tests.conftest import PETS, random_network
from tests.hub_server import HubServer, in_new_process

ROW = "resnet18_cifar10"


@pytest.fixture(scope="module")
def model() -> ResNet:
    return random_network(num_classes=3, head_std=0.5)


def save(path: Path, model: ResNet, **texts: Any) -> Path:
    """Save a network of three classes for images of 8x8 pixels, with texts in the header as JSON."""
    metadata = {key: json.dumps(value) for key, value in texts.items()}
    save_network(path, model, row=ROW, class_names=PETS, input_size=(3, 8, 8), metadata=metadata)
    return path


def measured(path: Path, data: Path, **options: Any) -> Evaluation:
    return evaluate(path, data, device="cpu", batch_size=4, **options)


def checked(path: Path, data: Path | None = None, **options: Any) -> Report:
    (report,) = verify(path, data=data, device="cpu", **options)
    return report


def recorded(tmp_path: Path, model: ResNet, data: Path, **changes: Any) -> Path:
    """Save a network with a record of what it reaches on the images that there are, as `finetune` writes it."""
    plain = tmp_path / "plain.safetensors"
    if not plain.exists():
        save(plain, model)
    images = images_for(open_network(plain), data)
    result = measured(plain, data)
    accuracy: dict[str, Any] = {"num_images": result.num_images, "correct1": result.correct1, "top1": result.top1}
    accuracy |= {"correct5": result.correct5, "device": result.device, "torch": result.versions["torch"]}
    digests = {"train_sha256": "0" * 64, "val_sha256": images_sha256(images, by_pixels=True)}
    path = tmp_path / "recorded.safetensors"
    path.unlink(missing_ok=True)
    return save(path, model, validation={**accuracy, **changes}, finetuning_data=digests)


@pytest.fixture
def pets(class_tree: Callable[..., Path]) -> Path:
    """``test/<class>`` with four images of 12x12 pixels for each of three classes."""
    return class_tree(PETS, per_class=4, size=12)


# --- evaluate -----------------------------------------------------------------------------------------------------


def test_a_file_is_measured_on_folders_of_its_own_classes(model: ResNet, pets: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "pets.safetensors", model)
    result = measured(path, pets)
    network = open_network(path)
    right = []
    with torch.no_grad():
        for label, name in enumerate(PETS):
            for image in sorted((pets / "test" / name).iterdir()):
                right.append((label, int(model(network.transform(image)[None])[0].argmax())))
    assert result.correct1 == sum(label == best for label, best in right)
    assert (result.name, result.row, result.dataset) == (str(path), ROW, "class folders (test)")
    assert (result.num_images, result.published_top1) == (12, None)
    assert [found.name for found in result.classes] == PETS
    expected = [[right.count((label, best)) for best in range(3)] for label in range(3)]
    assert [list(row) for row in result.confusion] == expected
    assert result.mean_class_top1 == pytest.approx(result.top1)
    assert 0 <= result.calibration_error_pct <= 100


@pytest.mark.parametrize(
    ("folders", "chosen"),
    [
        (("train", "valid", "test"), "test"),
        (("train", "val"), "val"),
        (("train", "validation"), "validation"),
        (("train",), "all"),
    ],
)
def test_the_images_measured_on_are_the_test_images_or_the_next_best(
    folders: tuple[str, ...], chosen: str, model: ResNet, class_tree: Callable[..., Path], tmp_path: Path
) -> None:
    for number, split in enumerate(folders, start=1):
        root = class_tree(PETS, split=split, per_class=number, size=8)
    result = measured(save(tmp_path / "pets.safetensors", model), root)
    assert result.dataset == f"class folders ({chosen})"
    assert result.num_images == 3 * (1 + folders.index(chosen if chosen in folders else folders[0]))


def test_of_a_plain_tree_only_what_was_held_out_counts_and_all_of_another(
    model: ResNet, pets: Path, tmp_path: Path
) -> None:
    plain = pets / "test"
    held = read_class_tree(plain, val_share=0.5).val.paths
    aside = tmp_path / "held"
    for path in held:
        (aside / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, aside / path.parent.name)
    file = recorded(tmp_path, model, aside)
    content, texts = read_safetensors(file)
    data = {**json.loads(texts["finetuning_data"]), "val_share": 0.5}
    file.write_bytes(safetensors_bytes(content, {**texts, "finetuning_data": json.dumps(data)}))
    result = measured(file, plain)
    assert (result.dataset, result.num_images) == ("class folders (held out)", 6)
    assert checked(file, plain).check("top1").status == "passed"
    assert measured(tmp_path / "plain.safetensors", plain).num_images == 12


def test_a_file_with_the_classes_of_its_row_takes_the_test_set_of_its_row(
    class_tree: Callable[..., Path], tmp_path: Path
) -> None:
    path, network = tmp_path / "ten.safetensors", random_network()
    save_network(path, network, row=ROW, class_names=class_names("cifar10"))
    root = class_tree(class_folders("cifar10"))
    ours, theirs = measured(path, root), evaluate(ROW, root, model=network, device="cpu")
    assert (ours.confusion, ours.dataset) == (theirs.confusion, theirs.dataset)


def test_folders_of_other_classes_are_left_out_with_a_warning(
    model: ResNet, pets: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (pets / "test" / "owl").mkdir()
    assert measured(save(tmp_path / "pets.safetensors", model), pets).num_images == 12
    assert "leaves out folders that are not classes of the network: owl" in caplog.text


def test_images_that_do_not_fit_the_network_are_refused(model: ResNet, pets: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "pets.safetensors", model)
    shutil.rmtree(pets / "test" / "newt")
    with pytest.raises(DatasetError, match="no images for 1 of 3 classes"):
        measured(path, pets)
    assert measured(path, pets, partial=True).num_images == 8
    (tmp_path / "owls" / "owl").mkdir(parents=True)
    with pytest.raises(DatasetError, match="has no class folders; expected folders such as cat"):
        measured(path, tmp_path / "owls")
    with pytest.raises(DatasetError, match="is not a folder"):
        measured(path, tmp_path / "missing")
    with pytest.raises(ArgumentError, match="classes of its own"):
        measured(path, pets, download=True)
    with pytest.raises(ArgumentError, match="has its own weights"):
        measured(path, pets, weights="openmmlab")


def test_a_file_has_its_transform_by_its_path(model: ResNet, pets: Path, tmp_path: Path) -> None:
    path, image = save(tmp_path / "pets.safetensors", model), next((pets / "test" / "cat").iterdir())
    assert torch.equal(create_transform(path, any_size=True)(image), open_network(path).transform(image))
    with pytest.raises(DatasetError, match="12x12 pixels, and this model takes 8x8"):
        create_transform(str(path))(image)


# --- verify -------------------------------------------------------------------------------------------------------


def test_a_file_passes_with_its_counts_and_its_recorded_accuracy(model: ResNet, pets: Path, tmp_path: Path) -> None:
    file = recorded(tmp_path, model, pets)
    report = checked(file, pets)
    assert {check.name: check.status for check in report.checks} == dict.fromkeys(
        ("manifest", "architecture", "params", "flops", "flops_with_head", "macs", "weights", "top1"), "passed"
    )  # of three classes, every answer is among the best five
    top1 = report.check("top1")
    assert (top1.recorded, top1.published) == (top1.measured, None)
    assert "tolerance 0 images" in top1.detail
    assert "as its header says" in report.check("weights").detail
    assert report.chain is not None


def test_without_images_or_a_record_the_accuracy_is_not_checked(model: ResNet, pets: Path, tmp_path: Path) -> None:
    file = recorded(tmp_path, model, pets)
    assert checked(file).check("top1").status == "not checked"
    other = shutil.copytree(pets, tmp_path / "other")
    for path in (other / "test" / "cat").iterdir():
        shutil.copy(pets / "test" / "dog" / path.name, path)
    found = checked(file, other).check("top1")
    assert (found.status, "no top1 is recorded for these images" in found.detail) == ("not checked", True)
    assert checked(tmp_path / "plain.safetensors", pets).check("top1").status == "not checked"


@pytest.mark.slow
def test_another_accuracy_than_the_recorded_one_fails(model: ResNet, pets: Path, tmp_path: Path) -> None:
    correct = measured(save(tmp_path / "p.safetensors", model), pets).correct1
    for off, device, status in ((1, None, "passed"), (2, None, "failed"), (1, "same", "failed")):
        wrong = correct - off if correct >= off else correct + off
        options = {} if device else {"device": "another"}
        file = recorded(tmp_path, model, pets, correct1=wrong, top1=100 * wrong / 12, **options)
        assert checked(file, pets).check("top1").status == status


def test_tensors_that_are_not_those_that_were_saved_fail(model: ResNet, tmp_path: Path) -> None:
    path = save(tmp_path / "pets.safetensors", model)
    tensors, texts = read_safetensors(path)
    tensors["fc.bias"] = tensors["fc.bias"] + 1e-3
    path.write_bytes(safetensors_bytes(tensors, texts))
    check = checked(path).check("weights")
    assert (check.status, "not those that were saved" in check.detail) == ("failed", True)
    del texts["tensors_sha256"]  # as of an earlier version
    path.write_bytes(safetensors_bytes(tensors, texts))
    assert checked(path).check("weights").status == "passed"


@pytest.mark.parametrize(("name", "classes", "channels"), [(ROW, 7, 1), ("resnetv1d50_in1k", 2, 4)])
def test_counts_are_held_against_the_row_with_classes_and_channels_of_its_own(
    name: str, classes: int, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / "own.safetensors"
    network = random_network(name, num_classes=classes, in_channels=channels)
    save_network(path, network, row=name, class_names=[f"class {label}" for label in range(classes)])
    report = checked(path)
    assert {check.status for check in report.checks if check.name not in ("top1", "top5")} == {"passed"}
    assert report.has("top5") == (classes > 5)


def test_rows_and_files_are_verified_side_by_side(model: ResNet, tmp_path: Path) -> None:
    path = save(tmp_path / "pets.safetensors", model)
    assert [report.name for report in verify([ROW, path, ROW, str(path)])] == [ROW, str(path)]


@pytest.mark.parametrize(
    ("validation", "data", "fact"),
    [
        ({"num_images": 12, "correct1": 13, "top1": 100.0}, {}, "counts of up to 12"),
        ({"num_images": 12, "correct1": 6, "top1": 99.0}, {}, "a top1 of 50.00"),
        ({"num_images": 0, "correct1": 0, "top1": 0.0}, {}, "positive num_images"),
        ({"num_images": "12", "correct1": 6, "top1": 50.0}, {}, "an integer"),
        ({"num_images": 12, "correct1": 6, "correct5": 5, "top1": 50.0}, {}, "counts of up to 12"),
        ({"num_images": 12, "correct1": 6, "top1": 50.0}, {"val_sha256": "abc"}, "64 hex digits"),
        ({"num_images": 12, "correct1": 6, "top1": 50.0}, {"val_share": 1.5}, "a share below 1"),
        ([], {}, "an object"),
    ],
)
def test_a_record_that_makes_no_sense_is_an_error(
    validation: Any, data: dict[str, Any], fact: str, model: ResNet, tmp_path: Path
) -> None:
    digests = {"train_sha256": "0" * 64, "val_sha256": "1" * 64, **data}
    path = save(tmp_path / "odd.safetensors", model, validation=validation, finetuning_data=digests)
    with pytest.raises(CheckpointError, match=f"header is wrong at .*{fact}"):
        checked(path)


def test_a_misspelt_path_is_named_with_what_is_like_it(model: ResNet, tmp_path: Path) -> None:
    save(tmp_path / "pets.safetensors", model)
    for call in (lambda path: verify(path), lambda path: evaluate(path, tmp_path), open_network):
        with pytest.raises(WeightsUnavailableError, match=r"No such file.*Did you mean pets.safetensors\?"):
            call(tmp_path / "pest.safetensors")


# --- by way of the Hub --------------------------------------------------------------------------------------------


def pushed_and_verified(file: Path, data: Path) -> tuple[Report, dict[str, Any], dict[str, Any]]:
    """Push a network file, and return what is checked and known of its repository, and what was known of the file."""
    push_to_hub(file, "someone/pets")
    (report,) = verify("hf-hub:someone/pets", data=data, device="cpu")
    return report, facts_of_network(open_network("hf-hub:someone/pets")), facts_of_network(open_network(file))


def test_what_a_file_recorded_is_on_its_card_and_checked_of_its_repository(
    model: ResNet, pets: Path, tmp_path: Path
) -> None:
    file = recorded(tmp_path, model, pets)
    with HubServer(tmp_path / "files") as server:
        report, there, here = in_new_process(server.environment(tmp_path / "hf"), pushed_and_verified, file, pets)
        files = server.repositories["someone/pets"].files("main")
    assert {check.status for check in report.checks} == {"passed"}
    assert report.check("top1").recorded == report.check("top1").measured
    own = ("name", "file", "size_bytes", "sha256", "source", "pin")
    same = [{key: value for key, value in facts.items() if key not in own} for facts in (there, here)]
    assert same[0] == same[1]
    assert there["recorded"]["num_images"] == 12
    assert files is not None
    card, found = files["README.md"].path.read_text(), there["recorded"]
    assert f"{found['correct1']} of 12 validation images" in card


def test_a_file_that_records_nothing_claims_nothing(model: ResNet, tmp_path: Path) -> None:
    card = model_card(
        open_network(save(tmp_path / "plain.safetensors", model)).entry,
        "someone/pets",
        num_classes=3,
        class_names=PETS,
        sha256="0" * 64,
        licence="Apache-2.0",
    )
    assert "## Accuracy" not in card


@pytest.mark.parametrize("given", [{"name": ROW}, {"weights": "retrained"}, {"class_names": PETS}])
def test_a_file_is_pushed_under_no_other_row_or_classes(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="leave out name, weights, class_names"):
        push_to_hub(tmp_path / "pets.safetensors", "someone/pets", **given)
    with pytest.raises(ArgumentError, match="Expected name="):
        push_to_hub(random_network(), "someone/pets")
