"""Networks of one's own at the command line: every command takes a file where it takes a row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from resnet_zoo.cli.main import main
from resnet_zoo.weights.checkpoint import load_checkpoint
from tests.conftest import PETS, random_network

SMALL = ("--device", "cpu")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def good(*arguments: str | Path) -> str:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def pets(class_tree: Callable[..., Path]) -> Path:
    return class_tree(PETS, per_class=2)


def test_evaluate_shows_each_class_and_the_confusions_and_writes_them(
    pet_file: Path, pets: Path, tmp_path: Path
) -> None:
    picture, matrix = tmp_path / "c.png", tmp_path / "c.json"
    out = good("evaluate", pet_file, "--data", pets, *SMALL, "--confusion", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert all(name in out for name in PETS)
    assert "Images by actual class" in out
    assert "published" not in out
    assert "(path)" not in out
    assert re.search("vouched for by +nobody: a file given by its path", out)
    arguments = ("evaluate", pet_file, "--data", pets, *SMALL, "--confusion", matrix, "--format", "json")
    found, written = json.loads(good(*arguments)), json.loads(matrix.read_text())
    assert (found["num_images"], found["row"], len(found["classes"])) == (6, "resnet18_cifar10", 3)
    assert [sum(row) for row in written["confusion"]] == [2, 2, 2]
    assert found["correct1"] == sum(written["confusion"][label][label] for label in range(3))
    assert sum(pair["num_images"] for pair in found["most_confused"]) == 6 - found["correct1"]
    done = run(*arguments)
    assert (done.exit_code, "exists already" in done.stderr) == (2, True)
    assert good(*arguments, "--force")


def test_of_many_classes_the_worst_are_shown(class_tree: Callable[..., Path], tmp_path: Path) -> None:
    from resnet_zoo import save_network

    path, names = tmp_path / "many.safetensors", [f"class {label:02}" for label in range(30)]
    save_network(path, random_network(num_classes=30), row="resnet18_cifar10", class_names=names)
    out = good("evaluate", path, "--data", class_tree(names), *SMALL)
    assert "The 20 classes of 30 that are recognised worst" in out
    assert "Most often confused" in out


def test_show_says_what_a_file_holds(pet_file: Path) -> None:
    out = good("show", pet_file)
    assert load_checkpoint(pet_file).sha256 in out
    assert "3: cat, dog, newt" in out
    found = json.loads(good("show", pet_file, "--format", "json"))
    assert (found["class_names"], found["row"], found["recorded"]) == (PETS, "resnet18_cifar10", None)
    assert found["params"] == 11_173_962 - 7 * 513
    assert "tensors sha256" in good("show", pet_file, "--chain")


def test_verify_benchmark_and_convert_take_a_file(pet_file: Path, pets: Path, tmp_path: Path) -> None:
    assert "1 model: 7 passed, 0 failed, 1 not checked" in good("verify", pet_file)
    assert "Top-5" not in good("verify", pet_file)  # of three classes
    assert "Top-5" in good("verify", pet_file, "resnet18_cifar10")
    done = run("verify", pet_file, "--data", pets, *SMALL)
    assert (done.exit_code, "no top1 is recorded" in done.stderr) == (3, True)
    speeds = json.loads(
        good("benchmark", pet_file, "--batch-size", "1", "--seconds", "0.01", *SMALL, "--format", "json")
    )
    assert [speed["name"] for speed in speeds["speeds"]] == [str(pet_file)]
    good("convert", pet_file, tmp_path / "pets.pth")
    assert torch.load(tmp_path / "pets.pth", weights_only=True)["fc.bias"].shape == (3,)


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "?", "--data", "."),
        ("show", "?"),
        ("show", "?", "--chain"),
        ("verify", "?"),
        ("benchmark", "?"),
        ("predict", "?", "photo.jpg"),
        ("embed", "?", "photo.jpg", "-o", "v.npy"),
        ("finetune", "?", "--data", ".", "-o", "out.safetensors"),
        ("export", "?", "--format", "onnx", "-o", "out.onnx"),
        ("convert", "?", "out.pth"),
        ("convert", "?", "out.pth", "--name", "?"),
        ("download", "?"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("missing", ["pest.safetensors", "pest.pth", "folder/pets", "./pets"])
def test_a_misspelt_path_is_a_file_that_does_not_exist(
    arguments: tuple[str, ...], missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets.safetensors").touch()
    done = run(*(missing if argument == "?" else argument for argument in arguments))
    assert done.exit_code == 3, done.output
    assert "No such file" in done.stderr
    assert "There is no model" not in done.stderr
    if missing == "pest.safetensors":
        assert "Did you mean pets.safetensors?" in done.stderr


def test_where_only_a_row_will_do_a_file_is_refused(pet_file: Path) -> None:
    done = run("download", pet_file)
    assert (done.exit_code, "is a file, and only a model of the zoo will do here" in done.stderr) == (2, True)


def test_weights_of_a_file_and_its_size_are_its_own(pet_file: Path, pets: Path) -> None:
    for arguments in (("evaluate", pet_file, "--data", pets), ("show", pet_file), ("verify", pet_file)):
        done = run(*arguments, "--weights", "openmmlab")
        assert (done.exit_code, "has its own weights" in done.stderr) == (2, True)
