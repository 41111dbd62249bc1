"""``predict`` into files, with a threshold, and with images that a network cannot see well."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from resnet_zoo import ArgumentError, embed, predict
from resnet_zoo.cli.main import main
from tests.conftest import smooth_image

ROW = "resnet18_cifar10"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of CIFAR's size, and two that are far larger."""
    root = tmp_path_factory.mktemp("photos")
    for name, size in (("a", 32), ("b", 40), ("large1", 100), ("large2", 100)):
        Image.fromarray(smooth_image(size, size, seed=size)).save(root / f"{name}.png")
    return root


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["predict", ROW, *map(str, arguments)], prog_name="resnet-zoo")


def read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines()))
    found: list[dict[str, Any]] = json.loads(text) if path.suffix == ".json" else [*map(json.loads, text.splitlines())]
    return found


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_a_file_holds_what_standard_output_would(suffix: str, photos: Path, tmp_path: Path) -> None:
    images = (photos / "a.png", photos / "b.png", "--top-k", "2")
    out, said = tmp_path / f"out.{suffix}", tmp_path / f"said.{suffix}"
    result = run(*images, "-o", out)
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert "Wrote 2 predictions to" in result.stderr
    said.write_text(run(*images, "--format", suffix).stdout, encoding="utf-8")
    assert read(out) == read(said)
    assert read(out)[0]["image"] == str(photos / "a.png")


def test_a_file_is_replaced_only_on_request_and_never_half_written(photos: Path, tmp_path: Path) -> None:
    out, broken = tmp_path / "out.csv", tmp_path / "broken.png"
    out.write_text("mine")
    broken.write_text("no image")
    refused = run(photos / "a.png", "-o", out)
    assert (refused.exit_code, out.read_text()) == (2, "mine")
    assert "--force" in refused.stderr
    failed = run(photos / "a.png", broken, "-o", out, "--force", "--batch-size", "1")
    assert (failed.exit_code, out.read_text()) == (3, "mine")
    assert run(photos / "a.png", "-o", out, "--force").exit_code == 0
    assert len(read(out)) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.png", "out.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "out.txt"), "ends in .csv, .jsonl or .json; out.txt does not"),
        (("-o", "out.json", "--format", "csv"), "out.json is a json file, and --format says csv"),
        (("--threshold", "1.5"), "1.5 is not in the range"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[str, ...], message: str, photos: Path) -> None:
    result = run(photos / "a.png", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_threshold_leaves_out_classes_and_an_image_without_any_is_stated(photos: Path, tmp_path: Path) -> None:
    image = photos / "a.png"
    (whole,) = predict(ROW, image, top_k=10)
    second = whole.classes[1].probability
    (found,) = predict(ROW, image, threshold=second)
    assert found.classes == whole.classes[:2]
    assert len(predict(ROW, image, threshold=1e-30)[0].classes) > 5
    with pytest.raises(ArgumentError, match="threshold of 0 to 1, got 2"):
        predict(ROW, image, threshold=2)
    assert predict(ROW, image, threshold=1)[0].classes == ()
    assert "none reaches the threshold" in run(image, "--threshold", "1").stdout
    for suffix, nothing in (("csv", {"rank": "", "name": ""}), ("jsonl", {"classes": []}), ("json", {"classes": []})):
        assert run(image, "--threshold", "1", "-o", tmp_path / f"out.{suffix}").exit_code == 0
        (record,) = read(tmp_path / f"out.{suffix}")
        assert record.items() >= {"image": str(image), **nothing}.items()


def test_images_far_larger_than_the_input_are_told_of_once(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    small, large = [photos / "a.png", photos / "b.png"], [photos / "large1.png", photos / "large2.png"]
    predict(ROW, small)
    embed(ROW, small)
    assert not caplog.messages
    for work in (predict, embed):
        work(ROW, [*small, *large], batch_size=1)
        (message,) = caplog.messages
        assert message.startswith(f"{ROW} only knows airplane, automobile, bird,")
        assert "shrunk to 32x32 pixels" in message
        caplog.clear()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_what_the_package_warns_of_is_folded_on_a_terminal(photos: Path) -> None:
    ours, theirs = os.openpty()
    program = [sys.executable, "-m", "resnet_zoo", "predict", ROW, str(photos / "large1.png")]
    try:
        subprocess.run(program, stdout=subprocess.PIPE, stderr=theirs, check=True, env=os.environ | {"COLUMNS": "60"})
        lines = os.read(ours, 65536).decode().splitlines()
    finally:
        os.close(ours)
        os.close(theirs)
    assert " ".join(lines).count("only knows airplane") == 1
    assert len(lines) > 2
    assert max(map(len, lines)) <= 60
