from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.inference.unfinished import Batch, MergedRows, PartialRun, RowLog, RunFacts

C = 3
FACTS = RunFacts("resnet18", "0" * 64, "rules", "pool", C, "float32", "cpu", 2, 1, 0, "")
IMAGES = ["a.jpg", "b\n.jpg", "c.jpg", "\udcff.jpg", "e.jpg"]


def batch(number: int, rows: int = 2, **bad: str) -> Batch:
    values = np.random.default_rng(number).normal(size=(rows, C)).astype(np.float32)
    return Batch(values, {int(at.lstrip("_")): why for at, why in bad.items()})


def write(folder: Path, *batches: Batch, rank: int = 0) -> RowLog:
    with RowLog(folder, rank, C) as log:
        for item in batches:
            log.append(item)
    return log


def read(folder: Path, rank: int = 0) -> list[Batch]:
    return list(RowLog(folder, rank, C).batches())


def same(found: list[Batch], expected: list[Batch]) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(a.rows, b.rows) and a.bad == b.bad for a, b in zip(found, expected, strict=True)
    )


BATCHES = [batch(0), batch(1, rows=1, _1="broken: “ü”"), batch(2, rows=0, _0="x", _1="y")]


def test_batches_are_read_back_as_they_were(tmp_path: Path) -> None:
    write(tmp_path, *BATCHES)
    assert same(read(tmp_path), BATCHES)


def test_a_log_is_continued_where_it_ended(tmp_path: Path) -> None:
    write(tmp_path, *BATCHES[:2])
    with RowLog(tmp_path, 0, C) as log:
        assert log.num_batches == 2
        log.append(BATCHES[2])
    assert same(read(tmp_path), BATCHES)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def spoil(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


ROWS, LOG = "rank0.f32", "rank0.jsonl"
DAMAGE = {
    "half a line": (lambda folder: cut(folder / LOG, -5), 2),
    "a line without its end": (lambda folder: cut(folder / LOG, -1), 2),
    "rows that never reached the disk": (lambda folder: cut(folder / ROWS, C * 4 + 1), 0),
    "rows of zeros after a power cut": (lambda folder: (folder / ROWS).write_bytes(bytes(3 * C * 4)), 0),
    "a flipped bit in the second batch": (lambda folder: spoil(folder / ROWS, -1), 1),
    "rows without a line": (lambda folder: (folder / ROWS).open("ab").write(b"12345678") and None, 3),
    "no rows": (lambda folder: (folder / ROWS).unlink(), 0),
    "no log": (lambda folder: (folder / LOG).unlink(), 0),
    "a line that is none": (lambda folder: (folder / LOG).write_bytes(b"[1]\n"), 0),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_not_whole_is_cut_off_and_made_again(kind: str, tmp_path: Path) -> None:
    damage, num_left = DAMAGE[kind]
    write(tmp_path, *BATCHES)
    intact = {name: (tmp_path / name).read_bytes() for name in (ROWS, LOG)}
    damage(tmp_path)  # type: ignore[no-untyped-call]
    with RowLog(tmp_path, 0, C) as log:
        assert log.num_batches == num_left
        for item in BATCHES[num_left:]:
            log.append(item)
    assert {name: (tmp_path / name).read_bytes() for name in (ROWS, LOG)} == intact


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.npy"


def begun(output: Path, facts: RunFacts = FACTS, images: list[str] = IMAGES, *, restart: bool = False) -> RunFacts:
    with PartialRun(output) as run:
        run.begin(facts, images, restart=restart)
        return run.join(facts)


def test_a_run_knows_its_images_and_facts(output: Path) -> None:
    facts = begun(output)
    assert (facts.num_images, facts.num_batches) == (5, 3)
    assert len(facts.images_sha256) == 64
    with PartialRun(output) as run:
        assert list(run.images()) == IMAGES


def test_the_same_run_goes_on(output: Path) -> None:
    facts = begun(output)
    write(output.with_name("out.npy.partial"), *BATCHES[:2])
    assert begun(output) == facts
    assert same(read(output.with_name("out.npy.partial")), BATCHES[:2])


OTHERS = {
    "weights_sha256": replace(FACTS, weights_sha256="1" * 64),
    "precision": replace(FACTS, precision="bfloat16"),
    "batch_size": replace(FACTS, batch_size=3),
    "num_processes": replace(FACTS, num_processes=2),
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_run_of_another_kind_is_refused_or_starts_anew(field: str, output: Path) -> None:
    begun(output)
    folder = output.with_name("out.npy.partial")
    write(folder, *BATCHES)
    with pytest.raises(ArgumentError, match=rf"unfinished run that began differently \({field} was .*--force"):
        begun(output, OTHERS[field])
    assert same(read(folder), BATCHES)
    begun(output, OTHERS[field], restart=True)
    assert read(folder) == []


def test_other_images_are_another_run_and_so_is_a_changed_one(output: Path, tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"1")
    begun(output, images=[str(image)])
    begun(output, images=[str(image)])
    image.write_bytes(b"22")
    with pytest.raises(ArgumentError, match="images_sha256 was"):
        begun(output, images=[str(image)])
    with pytest.raises(ArgumentError, match="num_images was 1 and is 5"):
        begun(output)


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}"])
def test_facts_that_are_damaged_are_another_run(text: str, output: Path) -> None:
    begun(output)
    (output.with_name("out.npy.partial") / "run.json").write_text(text)
    with pytest.raises(ArgumentError, match="began differently"):
        begun(output)


def test_an_error_while_listing_leaves_nothing(output: Path) -> None:
    def images() -> Iterator[str]:
        yield "a.jpg"
        raise DatasetError("unreadable")

    with pytest.raises(DatasetError), PartialRun(output) as run:
        run.begin(FACTS, images(), restart=False)
    assert not list(output.parent.iterdir())


def test_a_run_is_held_by_one_process(output: Path) -> None:
    with PartialRun(output), pytest.raises(ArgumentError, match="Another process is writing"), PartialRun(output):
        pass


def test_another_process_with_other_facts_is_refused(output: Path) -> None:
    begun(output)
    with PartialRun(output, rank=1) as run:
        assert run.join(FACTS).num_images == 5
        with pytest.raises(ArgumentError, match="the processes of this run differ"):
            run.join(OTHERS["weights_sha256"])


def test_rows_of_several_processes_are_merged_in_order(output: Path) -> None:
    facts = begun(output, OTHERS["num_processes"])
    with PartialRun(output) as run:
        write(run.folder, batch(0), batch(2, rows=1), rank=0)
        merged = MergedRows(run, facts)
        with pytest.raises(DatasetError, match="lacks vectors of process 1"):
            list(merged.batches())
        write(run.folder, batch(1, rows=1, _0="broken"), rank=1)
        rows = list(merged.rows())
        assert [name for names, _ in rows for name in names] == ["a.jpg", "b\n.jpg", "\udcff.jpg", "e.jpg"]
        expected = np.concatenate([batch(0).rows, batch(1, rows=1).rows, batch(2, rows=1).rows])
        assert np.array_equal(np.concatenate([block for _, block in rows]), expected)
        assert list(merged.bad()) == [("c.jpg", "broken")]
        assert json.loads((run.folder / "run.json").read_text())["num_processes"] == 2
        run.discard()
    assert not run.folder.exists()
