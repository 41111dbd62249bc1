"""Rows of numbers on disk while they are being made, so that a run that was killed goes on where it was.

Beside the output stands a folder ``<output>.partial``:

- ``run.json``: the facts on which the rows depend, and ``images.jsonl``: the path of every image, a JSON string a line;
- ``rank<N>.f32``: the rows of one process, little-endian float32, and ``rank<N>.jsonl``: a line for every batch it has
  completed, with the number of rows, their CRC-32, and what was wrong with images that have none.

Batch ``i`` belongs to process ``i % processes``. A batch counts if its line is whole and its rows have their CRC-32;
what comes after the last such batch is cut off and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from resnet_zoo.base.files import write_atomically
from resnet_zoo.errors import ArgumentError, DatasetError

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RunFacts:
    """What rows depend on: rows made under other facts are not continued.

    Attributes:
        model: The network, by name.
        weights_sha256: Of the file it was loaded from.
        transform: How an image gets in.
        layer: What a row is.
        channels: Numbers in a row.
        precision: What the network computes with.
        device: Kind of the device.
        batch_size: Images per batch.
        num_processes: How many processes share the batches.
        num_images: How many images there are.
        images_sha256: Over path, size and time of change of every image, in order.
    """

    model: str
    weights_sha256: str
    transform: str
    layer: str
    channels: int
    precision: str
    device: str
    batch_size: int
    num_processes: int
    num_images: int
    images_sha256: str

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return -(-self.num_images // self.batch_size)


@dataclass(frozen=True)
class Batch:
    """A completed batch: its rows (N, C), and the reason for each image that has none, by its position."""

    rows: Rows
    bad: Mapping[int, str]


class PartialRun:
    """The folder of an unfinished run, held by one process; a context.

    Args:
        output: The file that the run will write.
        rank: Which of the run's processes this is.

    Raises:
        OSError: The folder cannot be written.
        ArgumentError: Another process writes to it.
    """

    def __init__(self, output: Path, rank: int = 0) -> None:
        self.output, self.rank = output, rank
        self.folder = output.with_name(output.name + ".partial")
        self.images_path, self._facts_path = self.folder / "images.jsonl", self.folder / "run.json"
        self._lock = FileLock(self.folder / f"rank{rank}.lock")

    def __enter__(self) -> PartialRun:
        self.folder.mkdir(exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ArgumentError(
                f"Another process is writing {self.output}. Wait for it, or choose another output."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
        if self.rank == 0 and not self._facts_path.exists():  # nothing was begun
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, mine: RunFacts, images: Iterable[str], *, restart: bool) -> None:
        """List the images, and start a run, or leave one under the same facts as it is, to go on with it.

        Args:
            mine: The facts, without the images.
            images: The images.
            restart: Throw away an unfinished run under other facts.

        Raises:
            ArgumentError: There is an unfinished run under other facts.
            DatasetError: As ``images`` does.
        """
        num_images, images_sha256 = self._list_images(images)
        facts = replace(mine, num_images=num_images, images_sha256=images_sha256)
        before, now = self._stored(), asdict(facts)
        if before == now:
            return
        if before is not None and not restart:
            changes = ", ".join(
                f"{key} was {before.get(key)} and is {now[key]}" for key in now if before.get(key) != now[key]
            )
            raise ArgumentError(
                f"{self.folder} holds an unfinished run that began differently ({changes}). Run that command again to "
                "finish it, or start over (--force)."
            )
        self._facts_path.unlink(missing_ok=True)  # first: without it nothing else counts
        for path in (*self.folder.glob("rank*.f32"), *self.folder.glob("rank*.jsonl")):
            path.unlink()
        text = json.dumps(now, indent=2) + "\n"
        write_atomically(self._facts_path, lambda path: path.write_text(text, encoding="utf-8"))

    def join(self, mine: RunFacts) -> RunFacts:
        """Return the facts of the run that the first process has begun.

        Args:
            mine: This process's facts, without the images.

        Raises:
            ArgumentError: They are not those of the run, or its folder cannot be seen from here.
        """
        stored = self._stored() or {}
        images = {key: stored.get(key) for key in ("num_images", "images_sha256")}
        if stored != {**asdict(mine), **images}:
            raise ArgumentError(
                f"{self.folder}: the processes of this run differ, or do not share this folder. Give all of them the "
                "same network, options and output."
            )
        return RunFacts(**stored)

    def _stored(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._facts_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    def _list_images(self, images: Iterable[str]) -> tuple[int, str]:
        """Write the list of images and return their number and fingerprint."""
        digest, number = hashlib.sha256(), 0
        part = self.images_path.with_suffix(".part")
        with part.open("w", encoding="ascii") as file:
            for path in images:
                digest.update(f"{path}\0{_state(path)}\n".encode(errors="surrogateescape"))
                file.write(json.dumps(path) + "\n")
                number += 1
        part.replace(self.images_path)
        return number, digest.hexdigest()

    def images(self) -> Iterator[str]:
        """Yield the images of the list."""
        with self.images_path.open(encoding="ascii") as file:
            yield from map(json.loads, file)

    def discard(self) -> None:
        """Remove the folder."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)


class RowLog:
    """The rows of one process, a batch after the other; a context.

    Args:
        folder: The run's folder.
        rank: The process.
        channels: Numbers in a row.
    """

    def __init__(self, folder: Path, rank: int, channels: int) -> None:
        self.rows_path, self.log_path = folder / f"rank{rank}.f32", folder / f"rank{rank}.jsonl"
        self.channels = channels
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RowLog:
        """Cut both files after the last completed batch, and open them to go on."""
        self.num_batches, rows_end, log_end = 0, 0, 0
        for line, batch in self._completed():
            self.num_batches += 1
            rows_end, log_end = rows_end + batch.rows.nbytes, log_end + len(line)
        self._rows = self._stack.enter_context(self.rows_path.open("ab"))
        self._log = self._stack.enter_context(self.log_path.open("ab"))
        self._rows.truncate(rows_end)
        self._log.truncate(log_end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def append(self, batch: Batch) -> None:
        """Write a completed batch: its rows first, then the line that makes them count."""
        data = np.ascontiguousarray(batch.rows, dtype="<f4").tobytes()
        line = {
            "rows": len(batch.rows),
            "crc32": zlib.crc32(data),
            "bad": {str(at): why for at, why in batch.bad.items()},
        }
        self._rows.write(data)
        self._rows.flush()
        self._log.write(json.dumps(line).encode() + b"\n")
        self._log.flush()
        self.num_batches += 1

    def batches(self) -> Iterator[Batch]:
        """Yield the completed batches."""
        return (batch for _, batch in self._completed())

    def _completed(self) -> Iterator[tuple[bytes, Batch]]:
        """Yield the line and the contents of every completed batch, up to the first that is not whole."""
        if not (self.rows_path.exists() and self.log_path.exists()):
            return
        with self.rows_path.open("rb") as rows, self.log_path.open("rb") as log:
            for line in log:
                try:
                    batch = self._read(line, rows)
                except (ValueError, KeyError, TypeError, AttributeError):
                    return
                yield line, batch

    def _read(self, line: bytes, rows: Any) -> Batch:
        facts = json.loads(line)
        num_rows = int(facts["rows"])
        data = rows.read(num_rows * self.channels * 4)
        if not line.endswith(b"\n") or zlib.crc32(data) != facts["crc32"]:
            raise ValueError("incomplete")
        bad = {int(at): str(why) for at, why in facts["bad"].items()}
        return Batch(np.frombuffer(data, "<f4").reshape(num_rows, self.channels), bad)


class MergedRows:
    """The rows of all processes in the order of the images, once every batch is there.

    Args:
        run: The run's folder.
        facts: Of the run.
    """

    def __init__(self, run: PartialRun, facts: RunFacts) -> None:
        self.run, self.facts = run, facts

    def batches(self) -> Iterator[tuple[list[str], Batch]]:
        """Yield the images of each batch, and what became of them.

        Raises:
            DatasetError: Rows are missing.
        """
        facts, images = self.facts, self.run.images()
        logs = [RowLog(self.run.folder, rank, facts.channels).batches() for rank in range(facts.num_processes)]
        for index in range(facts.num_batches):
            rank = index % facts.num_processes
            batch = next(logs[rank], None)
            if batch is None:
                raise DatasetError(
                    f"{self.run.folder} lacks vectors of process {rank}: all processes must share this folder. Run the "
                    "same command again."
                )
            yield list(islice(images, facts.batch_size)), batch

    def rows(self) -> Iterator[tuple[list[str], Rows]]:
        """Yield the readable images of each batch and their rows (N, C)."""
        for images, batch in self.batches():
            yield [image for at, image in enumerate(images) if at not in batch.bad], batch.rows

    def bad(self) -> Iterator[tuple[str, str]]:
        """Yield each image without a row, and the reason."""
        for images, batch in self.batches():
            yield from ((images[at], why) for at, why in batch.bad.items())


def _state(path: str) -> str:
    """Return a file's size and time of change; nothing for one that is not there, which will be a bad image."""
    try:
        found = os.stat(path)  # noqa: PTH116  # a Path per image would cost as much as the call
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
