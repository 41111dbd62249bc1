"""`Embedder` as the actor of Ray Data, in processes of their own. Extra ``peers``."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resnet_zoo import embed_files
from tests.conftest import png_bytes
from tests.docs_pages import ROOT, read_blocks

pytestmark = [
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray"),
]

NUM_IMAGES = 100

_START = "import ray; ray.init(num_cpus=4, include_dashboard=False)\n"

_WITH_A_KILLED_WORKER = """
import os, signal
import ray, resnet_zoo

class Fragile(resnet_zoo.Embedder):
    # Kills its process in the middle of the work, once.
    def __call__(self, batch):
        found = super().__call__(batch)
        try:
            if 50 in batch["row"]:
                os.close(os.open(MARK, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        except FileExistsError:
            pass
        return found

MARK = os.path.abspath("killed")
images = ray.data.read_parquet(os.path.abspath("photos.parquet"), override_num_blocks=4)
vectors = images.map_batches(
    Fragile, fn_constructor_kwargs={"name": "resnet18_cifar10", "batch_size": 16}, batch_size=20, concurrency=2
)
vectors.drop_columns(["image"]).write_parquet("vectors")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a parquet file of images, as Hugging Face data sets have them."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    images = [{"bytes": png_bytes(seed), "path": f"{seed}.png"} for seed in range(NUM_IMAGES)]
    table = pa.table({"image": images, "row": list(range(NUM_IMAGES))})
    pq.write_table(table, tmp_path / "photos.parquet", row_group_size=30)
    return tmp_path


def run(program: str, place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", _START + program],
        cwd=place,
        env=environment,
        check=False,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def vectors_of(place: Path) -> np.ndarray:
    """Return the vectors that the engine has written, in the order of the images."""
    from pyarrow import parquet

    table = parquet.read_table(place / "vectors")
    assert sorted(table["row"].to_pylist()) == list(range(NUM_IMAGES))
    by_row = dict(zip(table["row"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    return np.array([by_row[row] for row in range(NUM_IMAGES)], np.float32)


def expected(place: Path) -> np.ndarray:
    embed_files("resnet18_cifar10", [place / "photos.parquet"], place / "expected.npy", device="cpu")
    found: np.ndarray = np.load(place / "expected.npy")
    return found


def test_the_example_of_the_page_gives_the_vectors_of_embed(place: Path) -> None:
    (block,) = [block for block in read_blocks(ROOT / "docs" / "inference.md") if "import ray" in block.text]
    run(block.text, place)
    assert np.array_equal(vectors_of(place), expected(place))


def test_the_batches_of_a_killed_worker_are_done_again(place: Path) -> None:
    run(_WITH_A_KILLED_WORKER, place)
    assert (place / "killed").exists()
    assert np.array_equal(vectors_of(place), expected(place))
