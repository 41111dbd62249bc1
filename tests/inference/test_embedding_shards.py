"""Vectors of images in shards: resumed inside of one, shared by processes, refused without traces."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from resnet_zoo import embed, embed_files
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError
from tests.conftest import png_bytes, write_tar
from tests.inference.test_embedding_files import StopError, stop_at, torchrun

NUM_IMAGES = 11
BROKEN = 5
BATCH = 2

DATA = [b"broken" if seed == BROKEN else png_bytes(seed) for seed in range(NUM_IMAGES)]


def make_shard(folder: Path, kind: str) -> Path:
    if kind == "tar":
        return write_tar(folder / "s.tar", {f"{seed:02}.png": data for seed, data in enumerate(DATA)})
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"photo": DATA, "row": range(NUM_IMAGES)}), folder / "s.parquet", row_group_size=4)
    return folder / "s.parquet"


@pytest.fixture(params=["tar", "parquet"])
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_shard(tmp_path, request.param)


def names_in(shard: Path) -> list[str]:
    names = [f"/{seed:02}.png" if shard.suffix == ".tar" else f"#{seed}" for seed in range(NUM_IMAGES)]
    return [f"{shard}{name}" for name in names]


def run(network: Path, shard: Path, output: Path, **options: Any) -> Any:
    settings = {"device": "cpu", "batch_size": BATCH, "image_column": "photo", "on_bad": lambda _: None, **options}
    return embed_files(network, [shard], output, **settings)


def test_a_run_that_stopped_inside_of_a_shard_goes_on_there(pet_file: Path, shard: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        run(pet_file, shard, tmp_path / "v.npy", progress=stop_at(6))
    assert run(pet_file, shard, tmp_path / "v.npy").num_resumed == 6
    run(pet_file, shard, tmp_path / "whole.npy")
    for suffix in ("", ".paths.json", ".bad.jsonl"):
        assert (tmp_path / f"v.npy{suffix}").read_bytes() == (tmp_path / f"whole.npy{suffix}").read_bytes()
    names = names_in(shard)
    assert json.loads((tmp_path / "v.npy.paths.json").read_text()) == names[:BROKEN] + names[BROKEN + 1 :]
    assert json.loads((tmp_path / "v.npy.bad.jsonl").read_text())["image"] == names[BROKEN]
    in_memory = embed(pet_file, DATA, device="cpu", batch_size=BATCH, on_bad=lambda _: None)
    assert np.array_equal(np.load(tmp_path / "v.npy"), in_memory)


def test_a_shard_that_was_replaced_meanwhile_is_noticed(pet_file: Path, shard: Path, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        run(pet_file, shard, tmp_path / "v.npy", progress=stop_at(6))
    os.utime(shard, ns=(1, 1))
    with pytest.raises(ArgumentError, match=r"began differently.*images_sha256"):
        run(pet_file, shard, tmp_path / "v.npy")


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.long
@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_two_processes_share_a_shard_and_write_the_bytes_of_one(kind: str, pet_file: Path, tmp_path: Path) -> None:
    shard = make_shard(tmp_path, kind)
    options = ("--device", "cpu", "--batch-size", str(BATCH), "--image-column", "photo")
    done = torchrun("embed", pet_file, shard, "-o", tmp_path / "shared.npy", *options)
    assert done.returncode == 0, done.stderr
    run(pet_file, shard, tmp_path / "alone.npy")
    for suffix in ("", ".paths.json", ".bad.jsonl"):
        assert (tmp_path / f"shared.npy{suffix}").read_bytes() == (tmp_path / f"alone.npy{suffix}").read_bytes()


def command(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [*map(str, arguments)], prog_name="resnet-zoo")


@pytest.mark.parametrize("name", ["embed", "predict"])
def test_commands_name_the_column_and_what_is_wrong(name: str, pet_file: Path, tmp_path: Path) -> None:
    shard = make_shard(tmp_path, "parquet")
    output = tmp_path / ("out.npy" if name == "embed" else "out.csv")
    arguments = (name, pet_file, shard, "--device", "cpu", "-o", output)
    refused = command(*arguments)
    assert (refused.exit_code, "columns are photo, row." in refused.stderr) == (3, True)
    missing = command(name, pet_file, "s3://bucket/s.tar", "-o", output)
    assert (missing.exit_code, "pip install s3fs" in missing.stderr) == (2, True)
    shard.write_bytes(shard.read_bytes()[:-9])
    assert command(*arguments, "--image-column", "photo").exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == [shard.name]
    make_shard(tmp_path, "parquet")
    skip = ("--skip-bad",) if name == "predict" else ()
    done = command(*arguments, "--image-column", "photo", *skip)
    assert done.exit_code == 0, done.stderr
    assert f"Skipped: {shard}#{BROKEN} is not an image" in done.stderr
