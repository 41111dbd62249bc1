"""Processes that read images: whatever happens to them, nobody waits for ever, and the sentence says what to do."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_zoo.errors import DatasetError
from resnet_zoo.images import workers
from resnet_zoo.images.test_sets import LabelledImages, batches
from tests.conftest import smooth_image

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs limits and signals of POSIX")
PARENT = os.getpid()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(found):
        Image.fromarray(smooth_image(32, 32, number)).save(path)
    return found


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def killed(path: Path) -> np.ndarray:
    if os.getpid() != PARENT and path.stem == "5":
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path)


def asleep(path: Path) -> np.ndarray:
    if os.getpid() != PARENT and path.stem == "5":
        time.sleep(60)
    return read(path)


LITTLE_SHARED_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from resnet_zoo.errors import DatasetError
from resnet_zoo.images.test_sets import LabelledImages, batches
from tests.images.test_workers import read
num_workers, limit, *paths = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))  # files in /dev/shm are files
images = LabelledImages("", [Path(path) for path in paths], np.zeros(len(paths), np.int64), read)
try:
    print(sum(len(batch.labels) for batch in batches(images, 4, num_workers=int(num_workers))))
except DatasetError as error:
    print(error)
"""


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize(("num_workers", "limit", "is_enough"), [(2, 4096, False), (0, 4096, True), (2, 1 << 20, True)])
def test_too_little_shared_memory_is_an_error_that_names_it(
    num_workers: int, limit: int, is_enough: bool, paths: list[Path]
) -> None:
    command = [sys.executable, "-c", LITTLE_SHARED_MEMORY, str(num_workers), str(limit), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    if is_enough:
        assert done.stdout == "8\n"
    else:
        assert all(word in done.stdout for word in ("shared memory", "-j 0", "--shm-size"))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(workers, "LONGEST_WAIT_S", 2.0)
    yield
    assert not multiprocessing.active_children()


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("how", [killed, asleep])
def test_a_worker_that_sends_nothing_more_is_an_error(how: object, paths: list[Path], brief: None) -> None:
    images = LabelledImages("", paths, np.arange(8), how)  # type: ignore[arg-type]
    start = time.monotonic()
    with pytest.raises(DatasetError, match=r"1 processes that read images failed .*num_workers=0"):
        list(batches(images, 4, num_workers=1))
    assert time.monotonic() - start < 30
    assert sum(len(batch.labels) for batch in batches(images, 4)) == 8


def test_an_error_of_whoever_uses_the_batches_is_left_alone(paths: list[Path]) -> None:
    images = LabelledImages("", paths, np.arange(8), read)

    def use() -> None:
        for _ in batches(images, 4, num_workers=1):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        use()
