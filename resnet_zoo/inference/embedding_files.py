"""Vectors of any number of images to a file: by threads, processes and machines, and resumable."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.files import check_target, write_atomically
from resnet_zoo.base.processes import Processes
from resnet_zoo.base.progress import Progress
from resnet_zoo.errors import DatasetError
from resnet_zoo.images.batches import OnBad, batched, num_cores
from resnet_zoo.images.listing import IMAGE_COLUMN, check_there, find_all, with_bytes
from resnet_zoo.inference.embedding import LAYER, Pipeline, check_numbers
from resnet_zoo.inference.unfinished import PartialRun, RowLog, Rows, RunFacts, hold_run
from resnet_zoo.inference.vector_formats import (
    Contents,
    Header,
    complete,
    header_for,
    npy_header,
    safetensors_header,
    write_parquet,
)
from resnet_zoo.zoo import Network, open_network


@dataclass(frozen=True)
class EmbeddingFile:
    """What `embed_files` wrote.

    Attributes:
        output: The file.
        model: The network, by name.
        weights_sha256: Of the file it was loaded from.
        layer: What a vector is: ``pool``, the pooled maps before the classifier.
        num_images: Vectors in the file.
        num_bad: Images without a vector, because they could not be read.
        channels: Numbers in a vector.
        precision: What the network computed with.
        num_resumed: Images whose vectors an earlier, unfinished run had made already.
        images_per_s: Images per second in this run and process, reading and preprocessing included.
    """

    output: str
    model: str
    weights_sha256: str
    layer: str
    num_images: int
    num_bad: int
    channels: int
    precision: str
    num_resumed: int
    images_per_s: float


def embed_files(
    name: str | os.PathLike[str],
    paths: Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    device: torch.device | str = "auto",
    batch_size: int = 16,
    num_threads: int | None = None,
    fast: bool = False,
    image_column: str = IMAGE_COLUMN,
    calibration: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    on_bad: OnBad | None = None,
    progress: Progress | None = None,
) -> EmbeddingFile | None:
    """Write one vector per image to a file; memory does not grow with the number of images.

    Folders are searched as in `find_images`, and the vectors are in that order. Tar shards and parquet files are read
    in place: an image in them is called ``shard.tar/<member>`` or ``file.parquet#<row>``, with rows from 0 on. Images
    that cannot be read are left out and listed in ``<output>.bad.jsonl``. Finished batches are kept in
    ``<output>.partial`` until the file is complete: the same call continues after the last complete batch. Under
    torchrun the processes share the batches (all machines must see the same files), and the file is byte for byte the
    one that a single process would write. A vector does not depend on the images in its batch.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; see `open_network`.
        paths: Image files, folders, tar shards (``.tar``) and ``.parquet`` files, or patterns of them
            (``shard-{000..003}.tar``, ``data/*.parquet``); local, or any address that fsspec has a driver for.
        output: The file to write: ``.npy``, ``.safetensors`` or ``.parquet``, see
            `resnet_zoo.inference.vector_formats`.
        weights: A tag or path, as in `create_model`; ``None`` means the model's default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.
        device: ``auto`` (CUDA, one device per process; MPS; then CPU) or a torch device.
        batch_size: Images per forward pass. The last bits of a vector depend on it.
        num_threads: Threads that read images, and on a CPU compute; ``None`` means one per core, shared by the
            processes.
        fast: Use `optimize_for_inference`, with bfloat16 where the device multiplies it.
        image_column: The column of parquet files with the images: bytes, or structs with ``bytes``.
        calibration: A folder of images like those to come: compute in 8-bit integers, on a CPU with the extra ``int8``.
        overwrite: Replace a file that exists, and an unfinished run of another kind.
        on_bad: Called with the error of each unreadable image.
        progress: Called with (images done, images in all) of this process after every batch.

    Returns:
        What was written; ``None`` in all processes of a torchrun but the first.

    Raises:
        UnknownModelError, UnknownWeightsError, WeightsUnavailableError, WeightsMismatchError, DownloadError,
            IntegrityError, UnsafeCheckpointError, CheckpointError: As `open_network`.
        DatasetError: A path does not exist, a folder or shard holds no images, a shard is damaged or lacks the column,
            no image can be read, or another process of the run stopped.
        NonFiniteOutputError: A vector is infinite or NaN, as from damaged weights.
        ArgumentError: The weights were not tested at ``size``, the network does not take RGB images, the output has
            another suffix or exists, an unfinished run is of another kind, a number is not positive, the device is
            not available, or pyarrow or the driver of an address is missing.
        OSError: The output cannot be written.

    Example:
        >>> written = resnet_zoo.embed_files("resnet18_cifar10", ["photos/"], "vectors.npy")
        >>> written.num_images, written.channels
        (3, 512)
    """
    output = Path(output)
    check_numbers(batch_size, num_threads)
    header = header_for(output)
    check_target(output, overwrite=overwrite)
    given = _check_paths(paths)
    processes = Processes.from_environment()
    target = _device_of(device, processes)
    with processes.connected(), hold_run(output, processes.rank) as run:
        network = open_network(name, weights=weights, size=size)
        threads = num_threads or max(1, num_cores() // processes.local_size)
        pipeline = Pipeline.of(
            network, target, fast=fast, batch_size=batch_size, num_threads=threads, calibration=calibration
        )
        if not processes.is_first:
            pipeline.transform.notice = None
        mine = _facts_of(network, pipeline, processes)
        processes.first(lambda: run.begin(mine, find_all(given, column=image_column), restart=overwrite))
        facts = run.join(mine)
        log = _open_log(run, facts, processes.rank, header)
        work = _make_rows(run, log, pipeline, on_bad, progress)
        processes.wait()
        written = processes.first(lambda: _finish(run, log, header, *work))
        return written if processes.is_first else None


def _check_paths(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    given = [os.fspath(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    if not given:
        raise DatasetError("No images: pass image files, folders or shards.")
    check_there(given)
    return given


def _device_of(device: torch.device | str, processes: Processes) -> torch.device:
    """Return the device of a process; with ``auto``, CUDA devices are dealt out."""
    found = resolve_device(device)
    if device == "auto" and found.type == "cuda" and processes.num_devices > 1:
        return torch.device("cuda", processes.local_rank % torch.cuda.device_count())
    return found


def _facts_of(network: Network, pipeline: Pipeline, processes: Processes) -> RunFacts:
    """Return what the vectors depend on; the images are still to be listed."""
    return RunFacts(
        model=network.entry.name,
        weights_sha256=network.weights.checkpoint.sha256,
        transform=str(pipeline.transform),
        layer=LAYER,
        channels=pipeline.channels,
        precision=pipeline.precision,
        device=pipeline.device.type,
        batch_size=pipeline.batch_size,
        num_processes=processes.num_devices,
        num_images=0,
        images_sha256="",
    )


@dataclass(frozen=True)
class _Work:
    """What one process did: images it found done, images it did, and the seconds that took."""

    num_resumed: int
    num_done: int
    seconds: float


def _contents(facts: RunFacts, num_rows: int, num_path_bytes: int, room: int = 0) -> Contents:
    metadata = {key: getattr(facts, key) for key in ("model", "weights_sha256", "layer", "precision", "transform")}
    return Contents(num_rows, facts.channels, num_path_bytes, {"format": "pt", **metadata}, room)


def _open_log(run: PartialRun, facts: RunFacts, rank: int, header: Header | None) -> RowLog:
    """Return the rows of a process; those of the first stand after room for the header of all."""
    if rank or header is None:
        return RowLog(run.folder, facts, rank)
    longest = run.images_path.stat().st_size + facts.num_images + 3  # if all have vectors, by `_write_lists`
    return RowLog(run.folder, facts, rank, len(header(_contents(facts, facts.num_images, longest))))


def _make_rows(
    run: PartialRun, log: RowLog, pipeline: Pipeline, on_bad: OnBad | None, progress: Progress | None
) -> tuple[int, float]:
    """Compute the batches of this process that are not done yet; return images done before, and images per second."""
    start, facts, share = time.perf_counter(), log.facts, log.share
    total = facts.num_images_in(share.start, share.stop)
    log.resume()
    first = min(share.start + log.num_batches, share.stop)
    done = resumed = facts.num_images_in(share.start, first)
    todo = with_bytes(run.images(first * facts.batch_size, share.stop * facts.batch_size))
    with log:
        for batch, rows in pipeline.batches(batched(todo, facts.batch_size)):
            log.append(rows, {str(at): str(error) for at, error in batch.bad.items()})
            for error in batch.bad.values():
                if on_bad:
                    on_bad(error)
            done += len(rows) + len(batch.bad)
            if progress:
                progress(done, total)
    return resumed, round((done - resumed) / (time.perf_counter() - start), 1)


def _finish(
    run: PartialRun, log: RowLog, header: Header | None, num_resumed: int, images_per_s: float
) -> EmbeddingFile:
    """Make the output of the rows of all processes, and let go of the folder of the run."""
    facts, output = log.facts, run.output
    paths_json, bad_jsonl, finished = (run.folder / name for name in ("paths.json", "bad.jsonl", "finished"))
    with log:
        log.gather()
    num_bad = _write_lists(run, log, paths_json, bad_jsonl)
    if num_bad == facts.num_images:
        run.discard()
        _, line = next(log.lines())
        raise DatasetError(f"None of the {num_bad} images can be read. The first: {line.bad['0']}")
    contents = _contents(facts, facts.num_images - num_bad, paths_json.stat().st_size, log.room)
    if header is None:
        write_atomically(finished, lambda path: write_parquet(contents, _named_rows(run, log), path))
    else:
        finished = log.rows_path
        complete(finished, header(contents), paths_json if header is safetensors_header else None)
    _move_beside(output, ".bad.jsonl", bad_jsonl if num_bad else None)
    if header is npy_header:
        _move_beside(output, ".paths.json", paths_json)
    finished.replace(output)  # last: while it is not there, the run can be resumed
    run.discard()
    return EmbeddingFile(
        output=str(output),
        model=facts.model,
        weights_sha256=facts.weights_sha256,
        layer=facts.layer,
        num_images=contents.num_rows,
        num_bad=num_bad,
        channels=facts.channels,
        precision=facts.precision,
        num_resumed=num_resumed,
        images_per_s=images_per_s,
    )


def _write_lists(run: PartialRun, log: RowLog, paths_json: Path, bad_jsonl: Path) -> int:
    """Write the paths of the vectors as a JSON list, and a JSON object per image without one; return their number."""
    num_bad, separator = 0, "[\n"
    with paths_json.open("w", encoding="ascii") as paths, bad_jsonl.open("w", encoding="ascii") as others:
        for images, (_, line) in zip(run.names(log.facts.batch_size), log.lines(), strict=True):
            for image in line.readable(images):
                paths.write(separator + json.dumps(image))
                separator = ",\n"
            for at, reason in line.bad.items():
                others.write(json.dumps({"image": images[int(at)], "reason": reason}) + "\n")
            num_bad += len(line.bad)
        paths.write("\n]\n")
    return num_bad


def _named_rows(run: PartialRun, log: RowLog) -> Iterator[tuple[list[str], Rows]]:
    """Yield the readable images of each batch and their rows (N, C)."""
    for images, (_, line, rows) in zip(run.names(log.facts.batch_size), log.batches(), strict=True):
        yield line.readable(images), rows


def _move_beside(output: Path, suffix: str, path: Path | None) -> None:
    """Put a file beside the output, or take away that of an earlier run."""
    target = output.with_name(output.name + suffix)
    if path is None:
        target.unlink(missing_ok=True)
    else:
        path.replace(target)
