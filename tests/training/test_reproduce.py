"""From a command to a run folder: trainings of real rows on small folders of images."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from PIL import Image

from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.checks.run import verify_run
from resnet_zoo.errors import ArgumentError, DatasetError, RunError, TrainingError, UnknownModelError
from resnet_zoo.runs.folder import format_line, read_log, read_record, read_run
from resnet_zoo.runs.records import LogChange, SummaryFile
from resnet_zoo.training import reproduce as module
from resnet_zoo.training.folders import check_space, find_finished
from resnet_zoo.training.reproduce import Settings, reproduce, reproduce_seeds
from resnet_zoo.zoo import create_model
from tests.conftest import NAMES, slow, smooth_image
from tests.run_folders import MadeRun, copy_run

ROOT = Path(__file__).parents[2]
COMMAND = ["-m", "resnet_zoo", "reproduce"]
QUICK = {"sizes": "8", "size_milestones": "", "epochs": "1", "total_batch": "20"}
CPU = Settings(device="cpu", evaluate_every=0)


@pytest.fixture
def cifar(class_tree: Callable[..., Path]) -> Path:
    """A CIFAR-10 folder of 4 training and 2 test images per class."""
    class_tree(class_folders("cifar10"), split="train", per_class=4)
    return class_tree(class_folders("cifar10"), split="test", per_class=2)


def train(data: Path, runs: Path, settings: Settings = CPU, **options: Any) -> Path:
    fields = {"recipe": "fast", "overrides": QUICK} | options
    return reproduce("resnet18_cifar10", data, runs=runs, settings=settings, **fields)


def test_a_training_leaves_a_run_folder_that_is_complete(cifar: Path, tmp_path: Path) -> None:
    folder = train(cifar, tmp_path / "runs")
    run = read_run(folder)
    result = run.result
    assert (result.row, result.recipe, result.dataset) == ("resnet18_cifar10", "fast", "cifar10-png-20images")
    assert result.overridden == {"epochs": 1, "total_batch": 20, "sizes": [8], "size_milestones": []}
    assert (result.steps, result.num_images, result.params) == (2, 20, get_entry("resnet18_cifar10").exact.params)
    assert result.flops == get_entry("resnet18_cifar10").exact.flops
    assert sha256_of(folder / result.weights.path) == result.weights.sha256
    assert {name: sha256_of(folder / name) for name in result.files} == result.files
    names = {"recipe.json", "environment.json", "log.jsonl", "result.json", "README.md", "curves.png"}
    assert {path.name for path in folder.iterdir()} == names | {result.weights.path}
    data = run.environment.data
    assert (data.train, data.num_train, data.num_test) == ("cifar10-png-40images", 40, 20)
    assert result.weights.sha256 in (folder / "README.md").read_text(encoding="utf-8")
    model = create_model("resnet18_cifar10", weights=folder / result.weights.path)
    assert int(model.bn1.num_batches_tracked) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(("values", "weight"), [("torch", 1.0), ("upstream", 0.0)])
def test_a_training_begins_with_the_recipes_initial_values(
    cifar: Path, tmp_path: Path, values: str, weight: float
) -> None:
    still = {"lr": "1e-12", "initial_values": values}
    folder = train(cifar, tmp_path / "runs", overrides=QUICK | still)
    model = create_model("resnet18_cifar10", weights=folder / read_run(folder).result.weights.path)
    last_of_block = model.state_dict()["layer1.0.bn2.weight"]
    assert torch.allclose(last_of_block, torch.full_like(last_of_block, weight), atol=1e-6)


@pytest.mark.slow
def test_equal_seeds_give_equal_weights_and_others_do_not(cifar: Path, tmp_path: Path) -> None:
    shas = [
        read_run(train(cifar, tmp_path / str(place), seed=seed)).result.weights.sha256
        for place, seed in enumerate((0, 0, 1))
    ]
    assert shas[0] == shas[1] != shas[2]


def unfinished(cifar: Path, runs: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Path:
    """Train to the end, and stop before there is a result."""

    def stop(*_: object) -> None:
        raise TrainingError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(module, "finish", stop)
        with pytest.raises(TrainingError, match="stopped"):
            train(cifar, runs, **options)
    (folder,) = (runs / "resnet18_cifar10").iterdir()
    return folder


@pytest.mark.slow
def test_the_same_command_goes_on_and_a_new_one_begins(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unfinished(cifar, tmp_path / "runs", monkeypatch)
    assert train(cifar, tmp_path / "runs", replace(CPU, new=True)) != folder
    assert train(cifar, tmp_path / "runs", seed=5) != folder
    assert train(cifar, tmp_path / "runs") == folder
    assert not (folder / "checkpoints").exists()
    assert train(cifar, tmp_path / "runs") != folder


def test_a_new_run_that_torchrun_starts_again_goes_on(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unfinished(cifar, tmp_path / "runs", monkeypatch)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(cifar, tmp_path / "runs", replace(CPU, new=True)) == folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("recipe", "overridden.lr was None and is 0.0123; values.lr was"),
        slow("code", "code_sha256 was"),
        slow("data", "data.test_sha256 was"),
        ("threads", "device was"),
    ],
)
def test_a_run_that_began_otherwise_goes_on_only_if_allowed(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, words: str
) -> None:
    folder = unfinished(cifar, tmp_path / "runs", monkeypatch)
    options: dict[str, Any] = {}
    if change == "recipe":
        options = {"overrides": {**QUICK, "lr": "0.0123"}}
    elif change == "code":
        monkeypatch.setattr(module, "code_sha256", lambda: "0" * 64)
    elif change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    else:
        Image.fromarray(smooth_image(32, 32, seed=99)).save(cifar / "test" / "cat" / "0000.png")
    with pytest.raises(TrainingError, match="--allow-changed") as error:
        train(cifar, tmp_path / "runs", **options)
    assert words in str(error.value)
    assert train(cifar, tmp_path / "runs", replace(CPU, allow_changed=True), **options) == folder
    (line,) = read_log(folder / "log.jsonl").changes
    assert words in "; ".join(line.changes)
    assert "nothing changed during the training" in str(verify_run(folder).check("log").detail)


def test_a_run_folder_of_another_row_is_refused(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unfinished(cifar, tmp_path / "runs", monkeypatch)
    text = (folder / "recipe.json").read_text(encoding="utf-8").replace("resnet18_cifar10", "resnet34_cifar10")
    (folder / "recipe.json").write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match="expected resnet18_cifar10, got resnet34_cifar10"):
        train(cifar, tmp_path / "runs")


def test_two_trainings_never_share_a_folder(cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unfinished(cifar, tmp_path / "runs", monkeypatch)
    monkeypatch.setattr("resnet_zoo.training.folders._PATIENCE_S", 0)
    with filelock.FileLock(folder / ".lock"), pytest.raises(TrainingError, match="Another process is training in"):
        train(cifar, tmp_path / "runs")


@pytest.mark.slow
def test_several_seeds_are_summed_up_and_go_on_where_they_were(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(cifar, tmp_path / "runs", seed=3)
    options: dict[str, Any] = {"recipe": "fast", "overrides": QUICK, "runs": tmp_path / "runs", "settings": CPU}
    target = reproduce_seeds("resnet18_cifar10", cifar, seeds=(3, 4), **options)
    summary = read_record(target / "summary.json", SummaryFile)
    assert summary.runs[0] == first.name
    results = [read_run(target.parent / name).result for name in summary.runs]
    assert [result.seed for result in results] == [3, 4]
    assert summary.top1.n == 2
    assert summary.top1.mean == pytest.approx(sum(result.top1 for result in results) / 2)
    assert summary.top1.std == pytest.approx(abs(results[0].top1 - results[1].top1) / 2**0.5)
    again = reproduce_seeds("resnet18_cifar10", cifar, seeds=(3, 4), **options)
    assert set(read_record(again / "summary.json", SummaryFile).runs).isdisjoint(summary.runs)


def test_a_finished_run_that_changed_on_its_way_is_not_taken_up(good_run: MadeRun, tmp_path: Path) -> None:
    run = copy_run(good_run, tmp_path / "resnet18_cifar10")
    began = read_run(run.folder)
    kind = (tmp_path, began.recipe, began.environment)
    assert find_finished(*kind) == run.folder
    change = LogChange(epoch=1, step=4, changes=("code_sha256 was 1 and is 2",))
    run.change_log(lambda lines: [*lines, format_line(change)])
    assert find_finished(*kind) is None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"recipe": "slow"}, ArgumentError, "no recipe 'slow'"),
        ({"overrides": {"epoch": "3"}}, ArgumentError, "no recipe field 'epoch'"),
        (
            {"overrides": {"augmentation": "resized_crop_flip", "flip": "random"}},
            ArgumentError,
            "expected pad_crop_flip for resnet18_cifar10, got resized_crop_flip",
        ),
        ({"settings": replace(CPU, device="cuda:7")}, ArgumentError, "The device 'cuda:7' is not available"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_made(
    cifar: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        train(cifar, tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()


def test_a_missing_tensorboard_is_told_before_anything_is_made(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ArgumentError, match="TensorBoard is not installed"):
        train(cifar, tmp_path / "runs", replace(CPU, tensorboard=True))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("seeds", [(3,), (3, 3), (3, 4, 3)])
def test_a_spread_is_of_several_seeds(seeds: tuple[int, ...], cifar: Path) -> None:
    with pytest.raises(ArgumentError, match="at least two seeds, all different"):
        reproduce_seeds("resnet18_cifar10", cifar, seeds=seeds)


def break_data(root: Path, how: str) -> str:
    if how == "missing":
        root.rename(root.with_name("elsewhere"))
        return "is not a folder"
    if how == "half unpacked":
        for path in (root / "train" / "truck").iterdir():
            path.unlink()
        return "no images for 1 of 10 classes"
    if how == "corrupt":
        (root / "train" / "cat" / "0000.png").write_bytes(b"no image")
        return "0000.png"
    if how == "archive":
        (root / "cifar-10-python.tar.gz").write_bytes(b"half")
        return "is damaged: its md5 is not"
    for path in sorted((root / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return "has no class folders|no images"


@pytest.mark.parametrize("how", ["missing", "half unpacked", "corrupt", "archive", "empty"])
def test_bad_data_is_told_before_a_run_folder_is_made(cifar: Path, tmp_path: Path, how: str) -> None:
    with pytest.raises(DatasetError, match=break_data(cifar, how)):
        train(cifar, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_of_one_split_are_not_used_for_both(split: str, cifar: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="the same images for training and for testing"):
        train(cifar / split, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_name_that_is_no_row_is_told_first(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError):
        reproduce("resnet19_cifar10", tmp_path)


def test_a_disk_that_is_too_full_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = get_entry("resnet18_cifar10")
    check_space(tmp_path / "runs", entry)
    usage = type("Usage", (), {"free": 100 << 20})
    monkeypatch.setattr("resnet_zoo.training.folders.shutil.disk_usage", lambda _: usage)
    with pytest.raises(TrainingError, match="has 100 MiB free; a training of resnet18_cifar10 needs 341"):
        check_space(tmp_path / "runs", entry)


def test_a_run_that_goes_on_needs_no_room_for_another(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = unfinished(cifar, tmp_path / "runs", monkeypatch)
    usage = type("Usage", (), {"free": 100 << 20})
    monkeypatch.setattr("resnet_zoo.training.folders.shutil.disk_usage", lambda _: usage)
    with pytest.raises(TrainingError, match="has 100 MiB free"):
        train(cifar, tmp_path / "runs", replace(CPU, new=True))
    assert train(cifar, tmp_path / "runs") == folder


def test_a_disk_that_is_full_at_the_very_end_leaves_a_run_that_goes_on(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("resnet_zoo.training.finish.draw_curves", full)
        with pytest.raises(TrainingError, match=r"No space left on device.*run the same command again"):
            train(cifar, tmp_path / "runs")
    (folder,) = (tmp_path / "runs" / "resnet18_cifar10").iterdir()
    assert not (folder / "result.json").exists()
    assert train(cifar, tmp_path / "runs") == folder
    assert not (folder / "checkpoints").exists()


def test_a_place_that_cannot_be_written_is_told_first(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TrainingError, match=r"cannot be written: Not a directory\. Pass another --runs"):
        train(cifar, tmp_path / "file" / "runs")


def run(arguments: Sequence[str], *, launcher: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, *COMMAND, *arguments]
    environment = command_environment()
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)


def command_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def quick_fields(**fields: str) -> list[str]:
    return [part for key, value in {**QUICK, **fields}.items() for part in ("--set", f"{key}={value}")]


@pytest.mark.slow
def test_the_command_prints_the_run_folder_and_talks_on_stderr(cifar: Path, tmp_path: Path) -> None:
    done = run(
        [
            "resnet18_cifar10",
            "--data",
            str(cifar),
            "--recipe",
            "fast",
            "--runs",
            str(tmp_path / "runs"),
            *quick_fields(),
        ]
    )
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert read_run(folder).result.row == "resnet18_cifar10"
    command = read_run(folder).environment.command
    assert command[:5] == ("resnet-zoo", "reproduce", "resnet18_cifar10", "--data", "tree")
    assert "epoch   1/1  8 px  loss" in done.stderr
    assert "on the official 10,000, of which 9,980 are missing here)" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["resnet19_cifar10", "--data", "."], 2, "Did you mean resnet18_cifar10"),
        slow(["resnet18_cifar10"], 2, "Missing option '--data'"),
        (["resnet18_cifar10", "--data", "nowhere"], 3, "nowhere is not a folder"),
        slow(["resnet18_cifar10", "--data", ".", "--set", "epochs"], 2, "--set expects FIELD=VALUE, got 'epochs'"),
    ],
)
def test_the_command_ends_with_a_sentence_and_the_documented_code(arguments: list[str], code: int, words: str) -> None:
    done = run(arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def torchrun(arguments: Sequence[str], count: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    return run([*arguments, "--device", "cpu"], launcher=launcher)


@pytest.mark.slow
def test_two_processes_train_as_one_with_as_many_splits(cifar: Path, tmp_path: Path) -> None:
    fields = {"epochs": "2", "lr": "0.02", "precision": "float32", "cutout": "0", "total_batch": "16"}
    common = ["resnet18_cifar10", "--data", str(cifar), "--recipe", "fast", "--evaluate-every", "1"]
    together = torchrun([*common, "--runs", str(tmp_path / "two"), *quick_fields(**fields)])
    assert together.returncode == 0, together.stderr
    alone = run([*common, "--runs", str(tmp_path / "one"), *quick_fields(**fields, splits="2"), "--device", "cpu"])
    assert alone.returncode == 0, alone.stderr
    two, one = (read_run(Path(done.stdout.split()[-1])) for done in (together, alone))
    assert two.environment.num_devices == 2
    assert [step.loss for step in two.log.steps] == pytest.approx([step.loss for step in one.log.steps], rel=2e-4)
    assert two.log.epochs[0].images == one.log.epochs[0].images == 40
    tensors = [
        create_model("resnet18_cifar10", weights=run.folder / run.result.weights.path).state_dict()
        for run in (two, one)
    ]
    for key, tensor in tensors[0].items():
        assert torch.allclose(tensor, tensors[1][key], rtol=1e-2, atol=2e-4), key
    # Every test image is counted once.
    from resnet_zoo.inference.evaluation import evaluate

    model = create_model("resnet18_cifar10", weights=two.folder / two.result.weights.path)
    counted = evaluate("resnet18_cifar10", cifar, model=model)
    assert (counted.correct1, counted.correct5) == (two.result.correct1, two.result.correct5)
    assert counted.num_images == two.result.num_images == 20


def children(process: int) -> list[int]:
    """Return the processes that a process started (Linux)."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(number) for number in text.split()]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_killed_at_any_moment_the_same_command_ends_with_the_same_weights(
    share: float, cifar: Path, tmp_path: Path
) -> None:
    common = ["resnet18_cifar10", "--data", str(cifar), "--recipe", "fast", "--device", "cpu", "--checkpoint-s", "0.2"]
    common += quick_fields(epochs="8", total_batch="4", lr="0.0005")
    start = time.monotonic()
    expected = run([*common, "--runs", str(tmp_path / "whole")])
    whole_s = time.monotonic() - start
    command = [sys.executable, *COMMAND, *common, "--runs", str(tmp_path / "killed")]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet, env=command_environment()) as victim:
        time.sleep(share * whole_s)
        victim.kill()
    found = run([*common, "--runs", str(tmp_path / "killed")])
    assert found.returncode == 0, found.stderr
    results = [read_run(Path(done.stdout.strip())).result for done in (expected, found)]
    assert results[0].weights.sha256 == results[1].weights.sha256


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux does")
def test_a_killed_process_is_restarted_by_torchrun_and_the_weights_are_the_same(cifar: Path, tmp_path: Path) -> None:
    common = ["resnet18_cifar10", "--data", str(cifar), "--recipe", "fast", "--evaluate-every", "0", "--device", "cpu"]
    common += [*quick_fields(epochs="8", total_batch="4", lr="0.0005"), "--checkpoint-s", "0.2"]
    expected = torchrun([*common, "--runs", str(tmp_path / "whole")])
    assert expected.returncode == 0, expected.stderr
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [sys.executable, *launcher, *COMMAND, *common, "--runs", str(tmp_path / "killed")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=command_environment()
    ) as running:
        checkpoints = (tmp_path / "killed").glob("*/*/checkpoints/step-*")
        deadline = time.monotonic() + 300
        while not any(checkpoints) and time.monotonic() < deadline:
            time.sleep(0.05)
            checkpoints = (tmp_path / "killed").glob("*/*/checkpoints/step-*")
        os.kill(children(running.pid)[-1], signal.SIGKILL)
        out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "Resuming at epoch" in err
    results = [read_run(Path(text.split()[-1])).result for text in (expected.stdout, out)]
    assert results[0].weights.sha256 == results[1].weights.sha256


@pytest.mark.long
def test_two_processes_train_several_seeds_and_one_of_them_writes(cifar: Path, tmp_path: Path) -> None:
    common = ["resnet18_cifar10", "--data", str(cifar), "--recipe", "fast", "--runs", str(tmp_path / "runs")]
    done = torchrun([*common, *quick_fields(), "--seeds", "2"])
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "resnet18_cifar10").glob("*-seeds")
    assert done.stdout.split() == [str(folder)]
    assert read_record(folder / "summary.json", SummaryFile).top1.n == 2
    assert "of 2 seeds." in done.stderr


@pytest.mark.long
def test_what_stops_the_first_process_is_told_by_all(cifar: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    common = ["resnet18_cifar10", "--data", str(cifar), "--recipe", "fast", "--runs", str(tmp_path / "file" / "runs")]
    done = torchrun([*common, *quick_fields()])
    assert done.returncode != 0
    assert done.stderr.count("cannot be written: Not a directory. Pass another --runs.") == 2
    assert "Connection closed" not in done.stderr


@pytest.mark.long
def test_a_number_of_processes_that_does_not_divide_the_batch_is_refused(cifar: Path, tmp_path: Path) -> None:
    done = torchrun(
        ["resnet18_cifar10", "--data", str(cifar), "--runs", str(tmp_path), *quick_fields(total_batch="15")]
    )
    assert done.returncode != 0
    assert "2 devices do not divide the recipe's batch of 15" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_of_every_rows_published_recipe_runs_to_the_end(
    name: str, class_tree: Callable[..., Path], tmp_path: Path
) -> None:
    entry = get_entry(name)
    is_in1k = entry.dataset == "in1k"
    chosen = class_folders(entry.classes)[: 4 if is_in1k else None]
    form: dict[str, Any] = {"size": 70, "suffix": ".JPEG"} if is_in1k else {}
    class_tree(chosen, split="train", per_class=2, **form)
    data = class_tree(chosen, split="val" if is_in1k else "test", **form)
    settings = replace(CPU, partial=is_in1k, num_workers=0)
    batch = {"cifar10": "10", "cifar100": "50", "in1k": "4"}[entry.dataset]
    folder = reproduce(
        name,
        data,
        overrides={"epochs": "1", "total_batch": batch},
        runs=tmp_path / "runs",
        settings=settings,
    )
    run = read_run(folder)
    assert run.result.overridden == {"epochs": 1, "total_batch": int(batch)}
    assert np.isfinite(run.log.epochs[0].loss)
    assert run.environment.precision == ("float16" if "fp16" in name else "float32")
