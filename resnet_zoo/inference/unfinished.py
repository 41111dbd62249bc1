"""Rows of numbers on disk while they are being made, so that a run that was killed goes on where it was.

Beside the output stands a folder ``<output>.partial``:

- ``run.json``: the facts on which the rows depend, and ``images.jsonl``: the path of every image, a JSON string a line
  (of one in a shard a list, with its place there);
- ``rank<N>.rows``: the rows of one process, little-endian float32, and ``rank<N>.jsonl``: a line for every batch it has
  completed, with the number of rows, their CRC-32, and what was wrong with images that have none.

Every process makes a stretch of the batches. At the end the first one appends those of the others to its own; its rows
stand after room for a header, so that the file then becomes the output without being copied. The rows are appended,
not put into an array of all images: a full disk is then an error and not a signal, images without a row leave no gap,
and no two machines write to one page of a file.

A batch counts if its line is whole and fits its images, and its rows have their CRC-32; what comes after the last such
batch is cut off and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from resnet_zoo.base.files import writing_to
from resnet_zoo.base.strict_json import WrongValueError, decode, parse
from resnet_zoo.base.unfinished import Facts, begin_or_go_on, changes_between, hold, read_facts
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images import addresses
from resnet_zoo.images.addresses import is_address
from resnet_zoo.images.batches import batched
from resnet_zoo.images.decode import Member
from resnet_zoo.images.listing import from_json, name_of, to_json

Rows = npt.NDArray[np.float32]

LAYOUT = 2
"""Of the folder. In the first one, which no fact named, the processes took turns, and no header had room."""

_OURS = re.compile(r"\..*|run\.json|images\.(jsonl|part)|(paths|bad)\.jsonl?|finished|rank\d+\.(rows|jsonl|lock|f32)")
"""What may be in a folder that is removed at the end; hidden files are parts of ours, or the system's."""


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
        layout: How the folder is laid out.
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
    layout: int = LAYOUT

    @property
    def num_batches(self) -> int:
        """How many batches there are."""
        return -(-self.num_images // self.batch_size)

    def share(self, rank: int) -> range:
        """Return the batches that a process makes."""
        return range(*(self.num_batches * end // self.num_processes for end in (rank, rank + 1)))

    def num_images_in(self, start: int, stop: int) -> int:
        """Return how many images there are in the batches from one to before another."""
        return max(0, min(stop * self.batch_size, self.num_images) - start * self.batch_size)


@dataclass(frozen=True)
class Line:
    """What stands in a log for a completed batch: how many rows, and why images have none, by their position in it."""

    rows: int
    crc32: int
    bad: dict[str, str]

    def fits(self, num_images: int) -> bool:
        """Tell whether this can have become of that many images."""
        positions = {str(at) for at in range(num_images)}
        return num_images > 0 and self.bad.keys() <= positions and self.rows == num_images - len(self.bad)

    def readable(self, images: list[str]) -> list[str]:
        """Return those of the batch's images that have a row."""
        return [image for at, image in enumerate(images) if str(at) not in self.bad]


class PartialRun:
    """The folder of an unfinished run, beside its output; see `hold_run`."""

    def __init__(self, output: Path) -> None:
        self.output, self.folder = output, output.with_name(output.name + ".partial")
        self.images_path, self.facts_path = self.folder / "images.jsonl", self.folder / "run.json"

    def begin(self, mine: RunFacts, images: Iterable[str | Member], *, restart: bool) -> None:
        """List the images, and start a run, or leave one under the same facts as it is, to go on with it.

        Args:
            mine: The facts, without the images.
            images: The images.
            restart: Throw away an unfinished run under other facts.

        Raises:
            ArgumentError: There is an unfinished run under other facts, or of another version.
            DatasetError: As ``images`` does.
        """
        num_images, images_sha256 = self._list_images(images)
        now = asdict(replace(mine, num_images=num_images, images_sha256=images_sha256))

        def refuse(before: Facts) -> ArgumentError:
            if before.get("layout") != LAYOUT:
                return ArgumentError(
                    f"{self.folder} holds an unfinished run that cannot be resumed (its run.json is damaged, or from "
                    "another version of resnet-zoo). Start over (--force), or finish it with that version."
                )
            changes = ", ".join(f"{key} was {old} and is {new}" for key, old, new in changes_between(before, now))
            return ArgumentError(
                f"{self.folder} holds an unfinished run that began differently ({changes}). Run that command again to "
                "finish it, or start over (--force)."
            )

        begin_or_go_on(self.facts_path, now, clear=self._clear, refuse=None if restart else refuse)

    def _clear(self) -> None:
        for path in self.folder.glob("rank*"):
            if path.suffix != ".lock":
                path.unlink()

    def join(self, mine: RunFacts) -> RunFacts:
        """Return the facts of the run that the first process has begun.

        Args:
            mine: This process's facts, without the images.

        Raises:
            ArgumentError: They are not those of the run, or its folder cannot be seen from here.
        """
        with contextlib.suppress(WrongValueError):
            stored: RunFacts = decode(RunFacts, read_facts(self.facts_path), ())
            if stored == replace(mine, num_images=stored.num_images, images_sha256=stored.images_sha256):
                return stored
        raise ArgumentError(
            f"{self.folder}: the processes of this run differ, or do not share this folder. Give all of them the "
            "same network, options and output."
        )

    def _list_images(self, images: Iterable[str | Member]) -> tuple[int, str]:
        """Write the list of images and return their number and fingerprint."""
        digest, number = hashlib.sha256(), 0
        part = self.images_path.with_suffix(".part")
        state_of = lru_cache(maxsize=1)(_state)  # a shard's images follow each other
        with part.open("w", encoding="ascii") as file:
            for image in images:
                line = to_json(image)
                if isinstance(image, Member):
                    digest.update(f"{line}\0{state_of(image.shard)}\n".encode())
                else:
                    digest.update(f"{image}\0{_state(image)}\n".encode(errors="surrogateescape"))
                file.write(line + "\n")
                number += 1
        part.replace(self.images_path)
        return number, digest.hexdigest()

    def images(self, start: int = 0, stop: int | None = None) -> Iterator[str | Member]:
        """Yield the images of the list from one to before another."""
        with self.images_path.open(encoding="ascii") as file:
            yield from map(from_json, islice(file, start, stop))

    def names(self, batch_size: int) -> Iterator[list[str]]:
        """Yield what the images of the list are called, batch by batch."""
        return batched(map(name_of, self.images()), batch_size)

    def discard(self) -> None:
        """Let `hold_run` remove the folder."""
        self.facts_path.unlink()


@contextlib.contextmanager
def hold_run(output: Path, rank: int = 0) -> Iterator[PartialRun]:
    """Make or find the folder of an unfinished run, and hold it for one process.

    Args:
        output: The file that the run will write.
        rank: Which of the run's processes this is.

    Raises:
        OSError: The folder cannot be written.
        ArgumentError: Another process writes to it, or it holds other files.
    """
    run = PartialRun(output)
    run.folder.mkdir(exist_ok=True)
    foreign = sorted(path.name for path in run.folder.iterdir() if not _OURS.fullmatch(path.name))
    if foreign:
        raise ArgumentError(
            f"{run.folder} is not an unfinished run: it holds {foreign[0]}. Move it away, or choose another output."
        )
    refusal = ArgumentError(f"Another process is writing {output}. Wait for it, or choose another.")
    held = contextlib.ExitStack()
    held.enter_context(hold(run.folder / f"rank{rank}.lock", refusal))
    try:
        with writing_to(run.folder):
            yield run
    finally:
        held.close()
        if rank == 0 and not run.facts_path.exists():  # nothing was begun, or all is done
            shutil.rmtree(run.folder, ignore_errors=True)


class RowLog:
    """The rows of one process, a batch after the other; a context while batches are appended.

    Args:
        folder: The run's folder.
        facts: Of the run.
        rank: The process.
        room: Bytes left free before the rows.
    """

    def __init__(self, folder: Path, facts: RunFacts, rank: int = 0, room: int = 0) -> None:
        self.rows_path, self.log_path = folder / f"rank{rank}.rows", folder / f"rank{rank}.jsonl"
        self.folder, self.facts, self.room, self.share = folder, facts, room, facts.share(rank)
        self.num_batches = 0
        self._files = contextlib.ExitStack()

    def resume(self) -> None:
        """Count the completed batches, and cut both files after the last one."""
        self.num_batches, rows_end, log_end = 0, self.room, 0
        for text, _, rows in self.batches():
            self.num_batches += 1
            rows_end, log_end = rows_end + rows.nbytes, log_end + len(text)
        for path, end in ((self.rows_path, rows_end), (self.log_path, log_end)):
            with path.open("ab") as file:
                file.truncate(end)

    def __enter__(self) -> RowLog:
        self._rows, self._log = (self._files.enter_context(path.open("ab")) for path in (self.rows_path, self.log_path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def append(self, rows: Rows, bad: dict[str, str]) -> None:
        """Write a completed batch: its rows first, then the line that makes them count."""
        data = np.ascontiguousarray(rows, dtype="<f4").tobytes()
        self._rows.write(data)
        self._rows.flush()
        self._log.write(json.dumps(asdict(Line(len(rows), zlib.crc32(data), bad))).encode() + b"\n")
        self._log.flush()
        self.num_batches += 1

    def gather(self) -> None:
        """Append the batches of all other processes to those of the first, which this is.

        Raises:
            DatasetError: Rows are missing.
        """
        for rank in range(1, self.facts.num_processes):
            other = RowLog(self.folder, self.facts, rank)
            for _, line, rows in islice(other.batches(), self.num_batches - other.share.start, len(other.share)):
                self.append(rows, line.bad)
            if self.num_batches < other.share.stop:
                raise DatasetError(
                    f"{self.folder} lacks vectors of process {rank}: all processes must share this folder. Run the "
                    "same command again."
                )

    def batches(self) -> Iterator[tuple[bytes, Line, Rows]]:
        """Yield every completed batch, its line and its rows, up to the first that is not whole."""
        if not self.rows_path.exists():
            return
        channels = self.facts.channels
        with self.rows_path.open("rb") as file:
            file.seek(self.room)
            for text, line in self.lines():
                data = file.read(line.rows * channels * 4)
                if zlib.crc32(data) != line.crc32:
                    return
                yield text, line, np.frombuffer(data, "<f4").reshape(line.rows, channels)

    def lines(self) -> Iterator[tuple[bytes, Line]]:
        """Yield every line, as text and read, up to the first that is not whole or does not fit its images."""
        if not self.log_path.exists():
            return
        with self.log_path.open("rb") as file:
            for index, text in enumerate(file, start=self.share.start):
                try:
                    line: Line = decode(Line, parse(text), ())
                except (ValueError, WrongValueError):
                    return
                if not (text.endswith(b"\n") and line.fits(self.facts.num_images_in(index, index + 1))):
                    return
                yield text, line


def _state(path: str) -> str:
    """Return a file's size and time of change; nothing for one that is not there, which will be a bad image."""
    if is_address(path):
        return addresses.state(path)
    try:
        found = os.stat(path)  # noqa: PTH116  # a Path per image would cost as much as the call
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
