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
from resnet_zoo.inference.unfinished import Batch, MergedRows, PartialRun, RowLog, Rows, RunFacts
from resnet_zoo.inference.vector_formats import VectorSource, writer_for

C = 5
PATHS = [f"folder/{number}.jpg" for number in range(6)] + ["ü “quoted”\n.jpg"]
VECTORS = np.random.default_rng(0).normal(size=(7, C)).astype(np.float32)


@pytest.fixture
def source(tmp_path: Path) -> VectorSource:
    def rows() -> Iterator[tuple[list[str], Rows]]:
        for start in (0, 3, 6):
            yield PATHS[start : start + 3], VECTORS[start : start + 3]
        yield [], VECTORS[:0]

    paths = tmp_path / "paths.json"
    paths.write_text(json.dumps(PATHS))
    return VectorSource(len(PATHS), C, rows, paths, {"model": "resnet18", "weights_sha256": "0" * 64})


def write(source: VectorSource, path: Path) -> Path:
    writer_for(path)(source, path)
    return path


def test_npy_is_read_by_numpy(source: VectorSource, tmp_path: Path) -> None:
    found = np.load(write(source, tmp_path / "a.npy"), allow_pickle=False)
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(found, VECTORS)


def test_safetensors_is_read_by_its_own_library(source: VectorSource, tmp_path: Path) -> None:
    path = write(source, tmp_path / "a.safetensors")
    found = safetensors.numpy.load_file(path)
    assert np.array_equal(found["embeddings"], VECTORS)
    assert json.loads(found["paths"].tobytes()) == PATHS
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == source.metadata


@pytest.mark.parametrize("row_group", [1, 4, 1024])
def test_parquet_is_read_by_pyarrow(
    row_group: int, source: VectorSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(vector_files, "ROW_GROUP", row_group)
    table = parquet.read_table(write(source, tmp_path / "a.parquet"))
    assert table.column("path").to_pylist() == PATHS
    assert np.array_equal(np.stack(table.column("embedding").to_numpy()), VECTORS)
    assert str(table.schema.field("embedding").type) == f"fixed_size_list<element: float>[{C}]"
    assert table.schema.metadata[b"model"] == b"resnet18"


def test_a_path_that_is_no_unicode_is_escaped_in_parquet(source: VectorSource, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    odd = VectorSource(1, C, lambda: iter([(["\udcff.jpg"], VECTORS[:1])]), source.paths_json, {})
    table = parquet.read_table(write(odd, tmp_path / "a.parquet"))
    assert table.column("path").to_pylist() == ["\\udcff.jpg"]


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".parquet"])
def test_the_same_vectors_give_the_same_bytes(suffix: str, source: VectorSource, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    first, second = (write(source, tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second


@pytest.mark.parametrize("name", ["a", "a.csv", "a.npz", ".npy"])
def test_another_suffix_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=r"ends in \.npy, \.safetensors, \.parquet"):
        writer_for(Path(name))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ArgumentError, match=r"pip install 'resnet-zoo\[parquet\]'"):
        writer_for(Path("a.parquet"))
    writer_for(Path("a.npy"))


@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_memory_does_not_grow_with_the_number_of_rows(suffix: str, tmp_path: Path) -> None:
    channels, num_images, batch_size = 512, 8000, 16
    images = (f"folder/{number:06}.jpg" for number in range(num_images))
    facts = RunFacts("x", "", "", "pool", channels, "float32", "cpu", batch_size, 1, 0, "")
    output = tmp_path / f"v{suffix}"
    (tmp_path / "paths.json").write_text("[]")
    tracemalloc.start()
    with PartialRun(output) as run:
        run.begin(facts, images, restart=False)
        facts = run.join(facts)
        with RowLog(run.folder, 0, channels) as log:
            for number in range(facts.num_batches):
                log.append(Batch(np.full((batch_size, channels), number, np.float32), {}))
        merged = MergedRows(run, facts)
        write(VectorSource(num_images, channels, merged.rows, tmp_path / "paths.json", {}), output)
        run.discard()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert output.stat().st_size > num_images * channels * 4
    assert peak < output.stat().st_size / 8
