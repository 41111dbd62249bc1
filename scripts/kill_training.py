"""Kill a training with -9 at random moments, run the same command again, and compare the weights bit for bit.

A short real training of a small folder of images, made on the spot. Ends with 1 if any weights differ.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image

from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.runs.records import RESULT_NAME

SCRIPT = Path(__file__).parent / "reproduce.py"
SHORT = ("sizes=8", "size_milestones=", "total_batch=16", "epochs=6")
"""Ten steps an epoch of images of 8 pixels."""


@click.command(help=__doc__)
@click.option("--tries", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--seed", type=int, default=0, help="Of the moments.")
def main(tries: int, seed: int) -> None:
    moments = random.Random(seed)  # noqa: S311  # no secret
    with tempfile.TemporaryDirectory() as place:
        data = make_images(Path(place) / "data")
        start = time.monotonic()
        expected = finish(data, Path(place) / "whole")
        whole_s = time.monotonic() - start
        click.echo(f"uninterrupted: {whole_s:.1f} s, weights {expected}")
        equal = 0
        for number in range(tries):
            runs = Path(place) / f"killed{number}"
            kill_s = moments.uniform(0, whole_s)
            state = kill(data, runs, kill_s)
            found = finish(data, runs)
            equal += found == expected
            click.echo(f"killed after {kill_s:5.1f} s ({state}): {'identical' if found == expected else found}")
    click.echo(f"{equal} of {tries} identical")
    sys.exit(int(equal != tries))


def make_images(root: Path) -> Path:
    """Make a CIFAR-10 tree of 16 training and 2 test images per class, random but smooth."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 16), ("test", 2)):
        for name in class_folders("cifar10"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                coarse = draws.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return root


def command(data: Path, runs: Path) -> list[str]:
    """Return the command that trains; the same to begin and to go on."""
    fields = [part for field in SHORT for part in ("--set", field)]
    program = [sys.executable, str(SCRIPT), "resnet18_cifar10", "--recipe", "fast", "--device", "cpu"]
    return [*program, "--data", str(data), "--runs", str(runs), *fields, "--checkpoint-s", "0.5"]


def finish(data: Path, runs: Path) -> str:
    """Run the command to its end, unless it has ended before, and return the sha256 of the weights."""
    if not list(runs.glob(f"*/*/{RESULT_NAME}")):
        done = subprocess.run(command(data, runs), capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(done.stderr)
    (result,) = runs.glob(f"*/*/{RESULT_NAME}")
    digest: str = json.loads(result.read_text(encoding="utf-8"))["weights"]["sha256"]
    return digest


def kill(data: Path, runs: Path, after_s: float) -> str:
    """Start the command, kill it, and say how far it was."""
    with subprocess.Popen(command(data, runs), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    if list(runs.glob(f"*/*/{RESULT_NAME}")):
        return "finished"
    saved = sorted(path.name.split("-")[1] for path in runs.glob("*/*/checkpoints/step-*.safetensors"))
    return f"{len(saved)} checkpoints, the last of step {int(saved[-1])}" if saved else "no checkpoint yet"


if __name__ == "__main__":
    main()
