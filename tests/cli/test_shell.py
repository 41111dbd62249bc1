"""What every command shares: errors as sentences."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from resnet_zoo import embed_files
from resnet_zoo.cli.shell import Failure, going_on_later, sentence_of
from tests.conftest import smooth_image


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "v.npy"), "v.npy: No space left on device. Make room there"),
        (OSError(errno.ENOSPC, "No space left on device"), "standard output: No space left on device. Make room there"),
        (OSError(errno.ENOSPC, "No space left on device", "a", None, "b"), "b: No space left on device. Make room"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "x: Permission denied. Check the path and its perm"),
        (OSError("odd"), "odd. Check the path and its permissions."),
    ],
)
def test_an_error_of_the_system_names_the_place_and_the_next_step(error: OSError, sentence: str) -> None:
    assert sentence_of(error).startswith(sentence)


def test_a_failure_shows_no_codes_of_others() -> None:
    assert Failure("\x1b[31m.jpg: Permission denied", 3).message == "\\x1b[31m.jpg: Permission denied"


posix_only = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
GOES_ON = "Interrupted. Run the same command again: it goes on where this one stopped."


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_that_it_goes_on(number: signal.Signals, code: int) -> None:
    @going_on_later()
    def work() -> None:
        signal.raise_signal(number)
        time.sleep(1)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Failure) as failure:
        work()
    assert (failure.value.message, failure.value.exit_code) == (GOES_ON, code)
    assert signal.getsignal(signal.SIGTERM) == before


def test_processes_of_a_torchrun_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    with going_on_later():
        assert signal.getsignal(signal.SIGTERM) == before


@posix_only
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_embed_says_so_and_goes_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    image, out = tmp_path / "image.png", tmp_path / "out.npy"
    Image.fromarray(smooth_image(32, 32)).save(image)
    paths, options = [str(image)] * 3000, {"batch_size": 1, "device": "cpu", "num_threads": 1}
    program = [sys.executable, "-m", "resnet_zoo", "embed", "resnet18_cifar10", *paths, "-o", str(out)]
    program += ["--batch-size", "1", "--device", "cpu", "-j", "1"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        log, end = Path(f"{out}.partial") / "rank0.jsonl", time.monotonic() + 100
        while time.monotonic() < end and not (log.exists() and log.stat().st_size):
            time.sleep(0.05)
        process.send_signal(number)
        _, talk = process.communicate(timeout=60)
    assert (process.returncode, talk) == (code, f"Error: {GOES_ON}\n")
    assert not out.exists()
    written = embed_files("resnet18_cifar10", paths, out, **options)  # type: ignore[arg-type]
    assert written is not None
    assert written.num_images == 3000
    assert written.num_resumed > 0
