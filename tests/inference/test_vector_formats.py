from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference import vector_formats as vector_files
from resnet_zoo.inference.unfinished import RowLog, Rows, RunFacts
from resnet_zoo.inference.vector_formats import (
    Contents,
    complete,
    header_for,
    npy_header,
    safetensors_header,
    write_parquet,
)

C = 5
PATHS = [f"folder/{number}.jpg" for number in range(6)] + ["ü “quoted”\n.jpg"]
VECTORS = np.random.default_rng(0).normal(size=(7, C)).astype(np.float32)
METADATA = {"model": "resnet18", "weights_sha256": "0" * 64}


def named_rows() -> Iterator[tuple[list[str], Rows]]:
    for start in (0, 3, 6):
        yield PATHS[start : start + 3], VECTORS[start : start + 3]
    yield [], VECTORS[:0]


def write(path: Path, room: int = 0) -> Path:
    """Write a file as the command does: the rows after some room, then the header into it."""
    header, paths = header_for(path), path.with_name("paths.json")
    paths.write_text(json.dumps(PATHS))
    contents = Contents(len(PATHS), C, paths.stat().st_size, METADATA, room)
    if header is None:
        write_parquet(contents, named_rows(), path)
    else:
        path.write_bytes(bytes(room or len(header(contents))) + VECTORS.tobytes())
        complete(path, header(contents), paths if header is safetensors_header else None)
    return path


def test_npy_is_read_by_numpy(tmp_path: Path) -> None:
    found = np.load(write(tmp_path / "a.npy"), allow_pickle=False)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(found, VECTORS)
    np.save(tmp_path / "b.npy", VECTORS)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_the_header_of_npy_is_equally_long_for_every_number_of_rows() -> None:
    assert len({len(npy_header(Contents(10**digits, 2048, 0, {}))) for digits in range(18)}) == 1


@pytest.mark.parametrize("room", [0, 800])
def test_safetensors_is_read_by_its_own_library(room: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", room)
    found = safetensors.numpy.load_file(path)
    assert np.array_equal(found["embeddings"], VECTORS)
    assert json.loads(found["paths"].tobytes()) == PATHS
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == METADATA


@pytest.mark.parametrize("row_group", [1, 4, 1024])
def test_parquet_is_read_by_pyarrow(row_group: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(vector_files, "ROW_GROUP", row_group)
    table = parquet.read_table(write(tmp_path / "a.parquet"))
    assert table.column("path").to_pylist() == PATHS
    assert np.array_equal(np.stack(table.column("embedding").to_numpy()), VECTORS)
    assert str(table.schema.field("embedding").type) == f"fixed_size_list<element: float>[{C}]"
    assert table.schema.metadata[b"model"] == b"resnet18"


def test_a_path_that_is_no_unicode_is_escaped_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(Contents(1, C, 0, {}), [(["\udcff.jpg"], VECTORS[:1])], tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet")
    assert table.column("path").to_pylist() == ["\\udcff.jpg"]


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
def test_the_same_vectors_give_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    first, second = (write(tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("name", ["a", "a.csv", "a.npz", ".npy"])
def test_another_suffix_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=r"ends in \.npy, \.safetensors, \.parquet"):
        header_for(Path(name))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ArgumentError, match=r"pip install 'resnet-zoo\[parquet\]'"):
        header_for(Path("a.parquet"))
    header_for(Path("a.npy"))


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_memory_does_not_grow_with_the_number_of_rows(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow.parquet")  # what it takes to import is not counted
    monkeypatch.setattr(vector_files, "ROW_GROUP", 128)
    channels, num_images, batch_size = 512, 16000, 16
    facts = RunFacts("x", "", "", "pool", channels, "float32", "cpu", batch_size, 2, num_images, "")
    contents = Contents(num_images, channels, 0, {})
    logs = [RowLog(tmp_path, facts, rank) for rank in range(2)]
    tracemalloc.start()
    for log in logs:
        log.resume()
        with log:
            for number in log.share:
                log.append(np.full((batch_size, channels), number, np.float32), {})
    with logs[0]:
        logs[0].gather()
    if suffix == ".npy":
        complete(logs[0].rows_path, b"", None)
    else:
        write_parquet(contents, (([""] * batch_size, rows) for _, _, rows in logs[0].batches()), tmp_path / "a.parquet")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    num_bytes = logs[0].rows_path.stat().st_size
    assert num_bytes == num_images * channels * 4
    assert peak < num_bytes / 8
