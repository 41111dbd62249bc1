from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from resnet_zoo import embed, embed_files, save_network
from resnet_zoo.errors import ArgumentError, DatasetError, UnknownModelError, WeightsUnavailableError
from resnet_zoo.inference.embedding_files import EmbeddingFile
from tests.conftest import random_network, smooth_image
from tests.inference.conftest import needs_int8

ROW = "resnet18_cifar10"
NUM_IMAGES = 9
BROKEN = "1/broken.jpg"

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs signals")


def save(path: Path, seed: int) -> Path:
    save_network(path, random_network(num_classes=2, seed=seed), row=ROW, class_names=["cat", "dog"])
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("network") / "tuned.safetensors", 0)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Nine good images and a broken one, in two folders."""
    root = tmp_path / "images"
    for index in range(NUM_IMAGES):
        path = root / str(index % 2) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth_image(32, 32, seed=index)).save(path)
    (root / BROKEN).write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def good_paths(images: Path) -> list[str]:
    return [str(path) for path in sorted(images.rglob("*.png"), key=lambda path: path.parts)]


def run(name: Path | str, images: Path, output: Path, **options: Any) -> EmbeddingFile:
    settings: dict[str, Any] = {"device": "cpu", "batch_size": 2} | options
    written = embed_files(name, [images], output, **settings)
    assert written is not None
    return written


def test_a_vector_per_readable_image_and_the_others_listed(tuned: Path, images: Path, out: Path) -> None:
    bad: list[DatasetError] = []
    steps: list[tuple[int, int]] = []
    written = run(
        tuned, images, out / "v.npy", on_bad=bad.append, progress=lambda done, total: steps.append((done, total))
    )
    assert np.array_equal(np.load(out / "v.npy"), in_memory(tuned, images))
    assert json.loads((out / "v.npy.paths.json").read_text()) == good_paths(images)
    (listed,) = map(json.loads, (out / "v.npy.bad.jsonl").read_text().splitlines())
    assert listed == {"image": str(images / BROKEN), "reason": str(bad[0])}
    assert sorted(path.name for path in out.iterdir()) == ["v.npy", "v.npy.bad.jsonl", "v.npy.paths.json"]
    assert (written.num_images, written.num_bad, written.channels, written.num_resumed) == (9, 1, 512, 0)
    assert steps == [(2, 10), (4, 10), (6, 10), (8, 10), (10, 10)]


def in_memory(tuned: Path, images: Path) -> Any:
    """The same vectors by the function in memory, with the broken image in its place: a batch is a batch."""
    everything = [str(path) for path in sorted(images.rglob("*.*"), key=lambda path: path.parts)]
    return embed(tuned, everything, device="cpu", batch_size=2, on_bad=lambda _: None)


def test_the_formats_hold_the_same(tuned: Path, images: Path, out: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("v.npy", "v.safetensors", "v.parquet"):
        run(tuned, images, out / name)
    expected = np.load(out / "v.npy")
    tensors = safetensors.numpy.load_file(out / "v.safetensors")
    table = parquet.read_table(out / "v.parquet")
    assert np.array_equal(tensors["embeddings"], expected)
    assert np.array_equal(np.stack(table.column("embedding").to_numpy()), expected)
    assert json.loads(tensors["paths"].tobytes()) == table.column("path").to_pylist() == good_paths(images)
    assert (out / "v.safetensors.bad.jsonl").exists()
    assert not (out / "v.safetensors.paths.json").exists()


def program(tuned: Path, images: Path, output: Path, *, kill_after: int) -> list[str]:
    """A program that embeds, and kills itself, as nothing can be kept from doing, once some images are done."""
    text = (
        "import os, signal, sys; from resnet_zoo import embed_files\n"
        "kill = lambda done, _: done >= int(sys.argv[4]) and os.kill(os.getpid(), signal.SIGKILL)\n"
        "embed_files(sys.argv[1], [sys.argv[2]], sys.argv[3], device='cpu', batch_size=2, progress=kill)"
    )
    return [sys.executable, "-c", text, str(tuned), str(images), str(output), str(kill_after)]


@posix_only
@pytest.mark.parametrize(
    "kill_after", [2, pytest.param(6, marks=pytest.mark.long), pytest.param(10, marks=pytest.mark.slow)]
)
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    kill_after: int, tuned: Path, images: Path, out: Path
) -> None:
    done = subprocess.run(program(tuned, images, out / "v.npy", kill_after=kill_after), check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == ["v.npy.partial"]
    resumed = run(tuned, images, out / "v.npy")
    assert resumed.num_resumed == kill_after
    run(tuned, images, out / "whole.npy")
    for suffix in ("", ".paths.json", ".bad.jsonl"):
        assert (out / f"v.npy{suffix}").read_bytes() == (out / f"whole.npy{suffix}").read_bytes()
    assert not (out / "v.npy.partial").exists()


class StopError(Exception):
    pass


def stop_at(number: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= number:
            raise StopError

    return progress


def test_an_unfinished_run_of_another_kind_is_kept_unless_force_is_given(
    tuned: Path, images: Path, out: Path, tmp_path: Path
) -> None:
    with pytest.raises(StopError):
        run(tuned, images, out / "v.npy", progress=stop_at(4))
    other = save(tmp_path / "other.safetensors", 1)
    for name, options, fact in (
        (other, {}, "weights_sha256 was"),
        (tuned, {"batch_size": 3}, "batch_size was 2 and is 3"),
    ):
        with pytest.raises(ArgumentError, match=f"began differently.*{fact}"):
            run(name, images, out / "v.npy", **options)
    assert run(tuned, images, out / "v.npy").num_resumed == 4
    with pytest.raises(StopError):
        run(tuned, images, out / "v.npy", overwrite=True, progress=stop_at(4))
    assert run(other, images, out / "v.npy", overwrite=True).num_resumed == 0


def photos(path: Path, seed: int) -> Path:
    path.mkdir()
    for number in range(10):
        Image.fromarray(smooth_image(32, 32, seed=seed + number)).save(path / f"{number}.png")
    return path


@needs_int8
def test_vectors_in_int8_are_nearly_those_in_float32_and_each_calibration_is_a_run_of_its_own(
    tuned: Path, images: Path, out: Path, tmp_path: Path
) -> None:
    some, others = photos(tmp_path / "some", 100), photos(tmp_path / "others", 200)
    exact = embed(tuned, good_paths(images), device="cpu", batch_size=2)
    with pytest.raises(StopError):
        run(tuned, images, out / "v.npy", calibration=some, progress=stop_at(4))
    with pytest.raises(
        ArgumentError, match=r"began differently.*precision was int8 with .* constants \w{8} and is int8"
    ):
        run(tuned, images, out / "v.npy", calibration=others)
    written = run(tuned, images, out / "v.npy", calibration=some)
    assert (written.num_resumed, written.precision[:9]) == (4, "int8 with")
    rounded = np.load(out / "v.npy")
    assert np.array_equal(rounded, embed(tuned, good_paths(images), device="cpu", batch_size=2, calibration=some))
    difference = np.abs(rounded - exact).max() / np.abs(exact).max()
    assert 0 < difference < 0.1 < np.abs(rounded[::-1] - exact).max() / np.abs(exact).max()


def test_an_output_is_replaced_only_with_force_and_stale_lists_go(tuned: Path, images: Path, out: Path) -> None:
    run(tuned, images, out / "v.npy")
    before = (out / "v.npy").read_bytes()
    with pytest.raises(ArgumentError, match="exists already"):
        run(tuned, images, out / "v.npy")
    (images / BROKEN).unlink()
    assert (out / "v.npy").read_bytes() == before
    run(tuned, images, out / "v.npy", overwrite=True)
    assert not (out / "v.npy.bad.jsonl").exists()
    assert len(np.load(out / "v.npy")) == 9


def test_what_cannot_be_done_leaves_nothing(tuned: Path, images: Path, out: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (DatasetError, "holds no images", lambda: run(tuned, empty, out / "v.npy")),
        (DatasetError, "does not exist", lambda: run(tuned, tmp_path / "missing", out / "v.npy")),
        (DatasetError, "No images", lambda: embed_files(tuned, [], out / "v.npy")),
        (DatasetError, "None of the 1 images can be read", lambda: run(tuned, images / BROKEN, out / "v.npy")),
        (ArgumentError, "ends in .npy", lambda: run(tuned, images, out / "v.csv")),
        (ArgumentError, "is a folder", lambda: run(tuned, images, folder(out.parent / "folder.npy"))),
        (ArgumentError, "positive batch size", lambda: run(tuned, images, out / "v.npy", batch_size=0)),
        (ArgumentError, "positive number of threads", lambda: run(tuned, images, out / "v.npy", num_threads=0)),
        (ArgumentError, "is not available", lambda: run(tuned, images, out / "v.npy", device="toaster")),
        (UnknownModelError, "Did you mean", lambda: run("reznet50", images, out / "v.npy")),
        (WeightsUnavailableError, "No such file", lambda: run(tmp_path / "no.pth", images, out / "v.npy")),
        (OSError, "No such file", lambda: run(tuned, images, out / "missing" / "v.npy")),
    ]
    for kind, fact, action in cases:
        with pytest.raises(kind, match=fact):
            action()
        assert not list(out.iterdir()), fact


def folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def torchrun(*arguments: str | Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "resnet_zoo")
    command = [sys.executable, *launcher, *map(str, arguments)]
    return subprocess.run(command, check=False, timeout=300, capture_output=True, text=True)


@posix_only
@pytest.mark.long
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_two_processes_write_the_bytes_of_one(suffix: str, tuned: Path, images: Path, out: Path) -> None:
    shared, alone = out / f"shared{suffix}", out / f"alone{suffix}"
    options = ("--device", "cpu", "--batch-size", "2", "--format", "json")
    done = torchrun("embed", tuned, images, "-o", shared, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_images"] == 9
    run(tuned, images, alone)
    assert shared.read_bytes() == alone.read_bytes()
    assert (out / f"shared{suffix}.bad.jsonl").read_bytes() == (out / f"alone{suffix}.bad.jsonl").read_bytes()
    assert not list(out.glob("*.partial"))
    refused = torchrun("embed", tuned, images, "-o", shared, *options)
    assert refused.returncode != 0
    assert "exists already" in refused.stderr


@needs_int8
@posix_only
@pytest.mark.long
def test_two_processes_calibrated_on_the_same_images_write_the_bytes_of_one(
    tuned: Path, images: Path, out: Path, tmp_path: Path
) -> None:
    calibration = photos(tmp_path / "some", 100)
    options = ("--device", "cpu", "--batch-size", "2", "--int8", "--calibrate", calibration)
    done = torchrun("embed", tuned, images, "-o", out / "shared.npy", *options)
    assert done.returncode == 0, done.stderr
    run(tuned, images, out / "alone.npy", calibration=calibration)
    assert (out / "shared.npy").read_bytes() == (out / "alone.npy").read_bytes()
