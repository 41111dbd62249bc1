from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.inference.unfinished import RowLog, Rows, RunFacts, hold_run

C = 3
FACTS = RunFacts("resnet18", "0" * 64, "rules", "pool", C, "float32", "cpu", 2, 1, 0, "")
IMAGES = ["a.jpg", "b\n.jpg", "c.jpg", "\udcff.jpg", "e.jpg"]
SIX = replace(FACTS, num_images=6)

Batch = tuple[Rows, dict[str, str]]


def batch(number: int, rows: int = 2, **bad: str) -> Batch:
    values = np.random.default_rng(number).normal(size=(rows, C)).astype(np.float32)
    return values, {at.lstrip("_"): why for at, why in bad.items()}


def write(log: RowLog, *batches: Batch) -> None:
    log.resume()
    with log:
        for item in batches:
            log.append(*item)


def read(log: RowLog) -> list[Batch]:
    return [(rows, line.bad) for _, line, rows in log.batches()]


def same(found: list[Batch], expected: list[Batch]) -> bool:
    return len(found) == len(expected) and all(
        np.array_equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(found, expected, strict=True)
    )


BATCHES = [batch(0), batch(1, rows=1, _1="broken: “ü”"), batch(2, rows=0, _0="x", _1="y")]


def test_batches_are_read_back_as_they_were(tmp_path: Path) -> None:
    log = RowLog(tmp_path, SIX)
    write(log, *BATCHES)
    assert same(read(log), BATCHES)
    assert [line.bad for _, line in log.lines()] == [bad for _, bad in BATCHES]


def test_a_log_is_continued_where_it_ended(tmp_path: Path) -> None:
    write(RowLog(tmp_path, SIX), *BATCHES[:2])
    log = RowLog(tmp_path, SIX)
    log.resume()
    assert log.num_batches == 2
    write(log, BATCHES[2])
    assert same(read(log), BATCHES)


def test_rows_stand_after_the_room_that_was_left(tmp_path: Path) -> None:
    log = RowLog(tmp_path, SIX, room=100)
    write(log, *BATCHES[:1])
    log.rows_path.write_bytes(b"h" * 100 + log.rows_path.read_bytes()[100:] + b"paths")  # killed while it was finished
    write(log, *BATCHES[1:])
    assert log.rows_path.read_bytes() == b"h" * 100 + b"".join(rows.tobytes() for rows, _ in BATCHES)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def spoil(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def change(path: Path, line: int, old: str, new: str) -> None:
    lines = path.read_text().splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    path.write_text("".join(lines))


ROWS, LOG = "rank0.rows", "rank0.jsonl"


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


DAMAGE = {
    "half a line": (lambda folder: cut(folder / LOG, -5), 2),
    "a line without its end": (lambda folder: cut(folder / LOG, -1), 2),
    "rows that never reached the disk": (lambda folder: cut(folder / ROWS, C * 4 + 1), 0),
    "rows of zeros after a power cut": (lambda folder: (folder / ROWS).write_bytes(bytes(3 * C * 4)), 0),
    "a flipped bit in the second batch": (lambda folder: spoil(folder / ROWS, -1), 1),
    "rows without a line": (lambda folder: append(folder / ROWS, b"12345678"), 3),
    "no rows": (lambda folder: (folder / ROWS).unlink(), 0),
    "no log": (lambda folder: (folder / LOG).unlink(), 0),
    "a line that is none": (lambda folder: (folder / LOG).write_bytes(b"[1]\n"), 0),
    "a line that is no text": (lambda folder: (folder / LOG).write_bytes(b"\xff\n"), 0),
    "a number that is a text": (lambda folder: change(folder / LOG, 0, '"rows": 2', '"rows": "2"'), 0),
    "more rows than images": (lambda folder: change(folder / LOG, 1, '"1": ', '"0": "x", "1": '), 1),
    "fewer rows than images": (lambda folder: change(folder / LOG, 2, '"0": "x", ', ""), 2),
    "an image that the batch does not have": (lambda folder: change(folder / LOG, 2, '"1"', '"7"'), 2),
    "a field that is unknown": (lambda folder: change(folder / LOG, 1, '"rows"', '"row": 1, "rows"'), 1),
    "more batches than there are": (lambda folder: append(folder / LOG, (folder / LOG).read_bytes()), 3),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_is_not_whole_is_cut_off_and_made_again(kind: str, tmp_path: Path) -> None:
    damage, num_left = DAMAGE[kind]
    write(RowLog(tmp_path, SIX), *BATCHES)
    intact = {name: (tmp_path / name).read_bytes() for name in (ROWS, LOG)}
    damage(tmp_path)  # type: ignore[no-untyped-call]
    log = RowLog(tmp_path, SIX)
    log.resume()
    assert log.num_batches == num_left
    write(log, *BATCHES[num_left:])
    assert {name: (tmp_path / name).read_bytes() for name in (ROWS, LOG)} == intact


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Refuse to make files longer, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_and_what_was_done_counts(tmp_path: Path) -> None:
    log = RowLog(tmp_path, SIX)
    write(log, BATCHES[0])
    with pytest.raises(OSError, match="too large"), log, files_end_at(2 * C * 4 + 5):
        log.append(*BATCHES[1])
    write(log, *BATCHES[1:])
    assert same(read(log), BATCHES)


def test_a_full_disk_is_reported_with_the_folder_of_the_run(tmp_path: Path) -> None:
    def fill() -> None:
        with hold_run(tmp_path / "out.npy") as run, RowLog(run.folder, SIX) as log, files_end_at(5):
            log.append(*BATCHES[0])

    with pytest.raises(OSError, match=r"too large: '.*out\.npy\.partial'"):
        fill()


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.npy"


def begun(output: Path, facts: RunFacts = FACTS, images: list[str] = IMAGES, *, restart: bool = False) -> RunFacts:
    with hold_run(output) as run:
        run.begin(facts, images, restart=restart)
        return run.join(facts)


def test_a_run_knows_its_images_and_facts(output: Path) -> None:
    facts = begun(output)
    assert (facts.num_images, facts.num_batches) == (5, 3)
    assert len(facts.images_sha256) == 64
    with hold_run(output) as run:
        assert list(run.names(2)) == [IMAGES[:2], IMAGES[2:4], IMAGES[4:]]


def test_the_same_run_goes_on(output: Path) -> None:
    facts = begun(output)
    log = RowLog(output.with_name("out.npy.partial"), facts)
    write(log, *BATCHES[:2])
    assert begun(output) == facts
    assert same(read(log), BATCHES[:2])


OTHERS = {
    "weights_sha256": replace(FACTS, weights_sha256="1" * 64),
    "precision": replace(FACTS, precision="bfloat16"),
    "batch_size": replace(FACTS, batch_size=3),
    "num_processes": replace(FACTS, num_processes=2),
}


@pytest.mark.parametrize("field", OTHERS)
def test_a_run_of_another_kind_is_refused_or_starts_anew(field: str, output: Path) -> None:
    log = RowLog(output.with_name("out.npy.partial"), begun(output))
    write(log, *BATCHES[:2])
    with pytest.raises(ArgumentError, match=rf"unfinished run that began differently \({field} was .*--force"):
        begun(output, OTHERS[field])
    assert same(read(log), BATCHES[:2])
    begun(output, OTHERS[field], restart=True)
    assert read(log) == []


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


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", "[" * 100_000])
def test_facts_that_are_damaged_are_another_run(text: str, output: Path) -> None:
    begun(output)
    (output.with_name("out.npy.partial") / "run.json").write_text(text)
    with pytest.raises(ArgumentError, match=r"cannot be resumed \(its run.json is damaged.*--force"):
        begun(output)
    begun(output, restart=True)


def test_a_process_joins_only_a_run_with_facts_of_the_right_types(output: Path) -> None:
    facts = begun(output)
    path = output.with_name("out.npy.partial") / "run.json"
    with hold_run(output, 1) as run:
        assert run.join(FACTS) == facts
        for wrong in ({"num_images": "5"}, {"num_images": None}, {"batch_size": 2.0}, {"images_sha256": 7}, {"x": 1}):
            path.write_text(json.dumps({**asdict(facts), **wrong}))
            with pytest.raises(ArgumentError, match="the processes of this run differ"):
                run.join(FACTS)


def test_a_run_of_the_layout_before_is_refused_or_starts_anew(output: Path) -> None:
    """Its files as they were: no layout in the facts, rows without room for a header, in turn with other processes."""
    facts = asdict(begun(output))
    folder = output.with_name("out.npy.partial")
    del facts["layout"]
    (folder / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
    rows, _ = batch(0)
    (folder / "rank0.f32").write_bytes(rows.tobytes())
    line = {"rows": 2, "crc32": zlib.crc32(rows.tobytes()), "bad": {}}
    (folder / "rank0.jsonl").write_text(json.dumps(line) + "\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ArgumentError, match=r"from another version of resnet-zoo.*--force.*with that version"):
        begun(output)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    begun(output, restart=True)
    assert not list(folder.glob("rank*.[fj]*"))


def test_a_folder_that_holds_something_else_is_refused_and_kept(output: Path) -> None:
    begun(output)
    photo = output.with_name("out.npy.partial") / "photo.jpg"
    photo.touch()
    with pytest.raises(ArgumentError, match=r"is not an unfinished run: it holds photo\.jpg. Move it away"):
        begun(output, restart=True)
    (photo.parent / "run.json").unlink()
    with pytest.raises(ArgumentError, match="is not an unfinished run"), hold_run(output):
        pass
    assert photo.exists()


def test_an_error_while_listing_leaves_nothing(output: Path) -> None:
    def images() -> Iterator[str]:
        yield "a.jpg"
        raise DatasetError("unreadable")

    with pytest.raises(DatasetError), hold_run(output) as run:
        run.begin(FACTS, images(), restart=False)
    assert not list(output.parent.iterdir())


def test_a_run_is_held_by_one_process(output: Path) -> None:
    with hold_run(output) as run:
        with pytest.raises(ArgumentError, match="Another process is writing"), hold_run(output):
            pass
        assert run.folder.exists()


def test_another_process_with_other_facts_is_refused(output: Path) -> None:
    begun(output)
    with hold_run(output, rank=1) as run:
        assert run.join(FACTS).num_images == 5
        with pytest.raises(ArgumentError, match="the processes of this run differ"):
            run.join(OTHERS["weights_sha256"])


def test_rows_of_several_processes_are_gathered_in_order(output: Path) -> None:
    facts = begun(output, replace(FACTS, num_processes=3), [*IMAGES, "f.jpg", "g.jpg"])
    assert [list(facts.share(rank)) for rank in range(3)] == [[0], [1], [2, 3]]
    expected = [batch(0), batch(1, rows=1, _0="broken"), batch(2), batch(3, rows=1)]
    with hold_run(output) as run:
        log, *others = (RowLog(run.folder, facts, rank, 8 * (rank == 0)) for rank in range(3))
        write(log, expected[0])
        write(others[0], expected[1])
        write(others[1], expected[2])
        with log, pytest.raises(DatasetError, match="lacks vectors of process 2"):
            log.gather()
        others[0].rows_path.unlink()  # what was gathered is here already, also for one that begins again
        write(others[1], expected[3])
        log = RowLog(run.folder, facts, 0, 8)
        write(log)
        assert log.num_batches == 3
        with log:
            log.gather()
        assert same(read(log), expected)
        assert log.rows_path.read_bytes() == bytes(8) + b"".join(rows.tobytes() for rows, _ in expected)
        run.discard()
    assert not run.folder.exists()


def test_a_process_without_a_batch_has_no_share(tmp_path: Path) -> None:
    facts = replace(FACTS, num_images=1, num_processes=2)
    logs = [RowLog(tmp_path, facts, rank) for rank in range(2)]
    assert sorted(len(log.share) for log in logs) == [0, 1]
    for log in logs:
        write(log, *([batch(0, rows=1)] * len(log.share)))
    with logs[0]:
        logs[0].gather()
    assert same(read(logs[0]), [batch(0, rows=1)])
