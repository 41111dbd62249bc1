"""The benchmark: sane numbers, that belong together, and clear refusals."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError, DatasetError, UnknownModelError
from resnet_zoo.inference import speed
from resnet_zoo.inference.speed import Benchmark, as_csv, matrix_peak_tflops, measure_speed, percentile, time_runs
from tests.conftest import make_class_tree
from tests.inference.conftest import needs_bfloat16, needs_int8

ROW = "resnet18_cifar10"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_PEAK_SIZES", {"cpu": 256})


@pytest.fixture(scope="module")
def measured() -> Benchmark:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "_PEAK_SIZES", {"cpu": 256})
        return measure_speed(ROW, batch_sizes=(1, 2), device="cpu", fast=True, seconds=0.01)


# --- measuring -----------------------------------------------------------------------------------------------------


def test_every_mode_and_batch_size_is_measured_once(measured: Benchmark) -> None:
    keys = [(s.name, s.mode, s.dtype, s.batch_size) for s in measured.speeds]
    assert keys == [(ROW, mode, "float32", size) for mode in ("eager", "fast") for size in (1, 2)]
    assert measured.num_threads == torch.get_num_threads()
    assert measured.versions["torch"]


def test_the_numbers_of_a_line_belong_together(measured: Benchmark) -> None:
    macs = get_entry(ROW).exact.macs
    for line in measured.speeds:
        assert line.num_runs >= 5
        assert 0 < line.latency_ms <= line.latency_p95_ms
        assert line.images_per_s == pytest.approx(1000 * line.batch_size / line.latency_ms)
        assert line.tflops == pytest.approx(2 * macs * line.images_per_s / 1e12)
        assert line.peak_tflops is not None
        assert line.peak_share == pytest.approx(line.tflops / line.peak_tflops)
    assert len({line.peak_tflops for line in measured.speeds}) == 1


def test_the_measured_time_is_that_of_the_work() -> None:
    times = time_runs(lambda: time.sleep(0.02), CPU, seconds=0.2)
    assert 5 <= len(times) <= 10
    assert all(took >= 0.02 for took in times)


def test_slow_work_is_still_run_five_times_after_two_for_warming_up() -> None:
    calls: list[int] = []
    assert len(time_runs(lambda: calls.append(1), CPU, seconds=1e-9)) == 5
    assert len(calls) == 7


def test_the_warm_up_is_not_counted() -> None:
    waits = iter([0.3, 0.3] + [0.0] * 100)
    assert max(time_runs(lambda: time.sleep(next(waits)), CPU, seconds=1e-9)) < 0.3


def test_a_larger_product_has_the_same_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "time_runs", lambda *_, **__: [0.5, 0.25, 1.0])
    assert matrix_peak_tflops(torch.float32, CPU, size=100) == pytest.approx(2 * 100**3 / 0.25 / 1e12)


@pytest.mark.parametrize(("percent", "value"), [(50, 10.0), (95, 19.0), (95.1, 20.0), (100, 20.0), (1, 1.0)])
def test_the_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile([float(n) for n in range(20, 0, -1)], percent) == value


@needs_int8
@pytest.mark.slow
def test_int8_is_measured_once_beside_each_dtype_and_has_no_peak(tmp_path: Path) -> None:
    photos = make_class_tree(tmp_path / "photos", ["a", "b"], per_class=5)
    seen: list[int] = []
    options: Any = {"batch_sizes": (1, 2), "device": "cpu", "seconds": 1e-3}
    progress = lambda _, done, total: seen.append(total - done)  # noqa: E731
    found = measure_speed(ROW, calibration=photos, progress=progress, **options)
    keys = [(line.mode, line.dtype, line.batch_size) for line in found.speeds]
    assert keys == [(mode, dtype, size) for mode, dtype in (("eager", "float32"), ("fast", "int8")) for size in (1, 2)]
    assert [line.peak_share is None for line in found.speeds] == [False, False, True, True]
    assert [row["peak_tflops"] == "" for row in csv.DictReader(io.StringIO(as_csv(found)))] == [False] * 2 + [True] * 2
    assert seen == [3, 2, 1, 0]
    quick = (ROW, "--batch-size", "1", "--seconds", "0.001", "--device", "cpu", "--int8", "--calibrate", str(photos))
    table = run(*quick)
    assert table.exit_code == 0, table.stderr
    assert table.stdout.splitlines()[-1].split()[-2:] == ["-", "-"]
    assert "Computes in int8" in table.stderr


def test_calibration_images_that_are_missing_are_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "check_dtype", lambda *_: None)  # the extra may be missing here
    monkeypatch.setattr(speed, "time_runs", lambda *_, **__: pytest.fail("measured"))
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        measure_speed(ROW, device="cpu", calibration=tmp_path / "nowhere")


def test_progress_counts_to_the_end() -> None:
    seen: list[tuple[str, int, int]] = []
    measure_speed(ROW, batch_sizes=(1,), device="cpu", seconds=1e-3, progress=lambda *args: seen.append(args))
    assert seen == [(ROW, 1, 1)]


@needs_bfloat16
def test_each_dtype_has_its_own_peak() -> None:
    found = measure_speed(ROW, batch_sizes=(1,), dtypes=("float32", "bfloat16"), device="cpu", seconds=1e-3)
    assert [line.dtype for line in found.speeds] == ["float32", "bfloat16"]
    assert len({line.peak_tflops for line in found.speeds}) == 2


def test_what_cannot_be_measured_is_refused() -> None:
    for sizes in ((), (0,), (4, -1)):
        with pytest.raises(ArgumentError, match="positive batch sizes"):
            measure_speed(ROW, batch_sizes=sizes)
    for seconds in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="positive number of seconds"):
            measure_speed(ROW, seconds=seconds)
    for dtypes in ((), ("float16",), ("float32", "int8")):
        with pytest.raises(ArgumentError, match=r"dtypes that cpu supports natively \(float32"):
            measure_speed(ROW, dtypes=dtypes, device="cpu")
    with pytest.raises(ArgumentError, match="is not available"):
        measure_speed(ROW, device="cuda:99")
    with pytest.raises(UnknownModelError):
        measure_speed("resnet19")


def test_a_batch_that_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> list[float]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(speed, "matrix_peak_tflops", lambda *_, **__: 1.0)
    monkeypatch.setattr(speed, "time_runs", exhausted)
    with pytest.raises(ArgumentError, match="A batch of 3 does not fit into the memory of cpu"):
        measure_speed(ROW, batch_sizes=(3,), device="cpu")


def test_a_batch_that_no_memory_holds_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "matrix_peak_tflops", lambda *_, **__: 1.0)
    with pytest.raises(ArgumentError, match="A batch of 100000000000 does not fit"):
        measure_speed(ROW, batch_sizes=(10**11,), device="cpu")


def test_another_error_of_a_batch_is_raised_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> list[float]:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(speed, "matrix_peak_tflops", lambda *_, **__: 1.0)
    monkeypatch.setattr(speed, "time_runs", fail)
    with pytest.raises(RuntimeError, match="illegal"):
        measure_speed(ROW, batch_sizes=(3,), device="cpu")


# --- what is written -----------------------------------------------------------------------------------------------


def test_json_and_csv_hold_the_same_lines(measured: Benchmark) -> None:
    plain = json.loads(json.dumps(asdict(measured)))
    rows = list(csv.DictReader(io.StringIO(as_csv(measured))))
    assert [float(row["images_per_s"]) for row in rows] == [line["images_per_s"] for line in plain["speeds"]]
    assert {row["device"] for row in rows} == {plain["device"]}
    assert set(rows[0]) == {*plain["speeds"][0], "device"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["benchmark", *arguments], prog_name="resnet-zoo")


def test_the_command_writes_a_table_json_and_csv() -> None:
    quick = (ROW, "--batch-size", "1, 2", "--seconds", "0.001", "--device", "cpu")
    table = run(*quick)
    assert table.exit_code == 0, table.stderr
    assert table.stdout.count(ROW) == 2
    assert "Images/s" in table.stdout
    assert "torch" in table.stderr
    record = json.loads(run(*quick, "--format", "json").stdout)
    assert [line["batch_size"] for line in record["speeds"]] == [1, 2]
    assert run(*quick, "--format", "csv").stdout.splitlines()[0].startswith("name,mode,dtype,batch_size")


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("resnet19",), "resnet18"),
        ((ROW, "--batch-size", "1,x"), "1,16,64"),
        ((ROW, "--batch-size", ""), "1,16,64"),
        ((ROW, "--batch-size", "0"), "positive batch sizes"),
        ((ROW, "--dtype", "float8", "--device", "cpu"), "float32"),
        ((ROW, "--seconds", "0"), "positive number of seconds"),
        ((ROW, "--device", "tpu"), "is not available"),
        ((ROW, "--int8"), "--calibrate DIR"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(arguments: tuple[str, ...], fact: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert fact in done.stderr
    assert "Traceback" not in done.stderr
