"""Run folders as a training leaves them, made on the spot: a real network, evaluated on a few real files."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from resnet_zoo.convert import safetensors_bytes
from resnet_zoo.environment import versions
from resnet_zoo.evaluation import evaluate
from resnet_zoo.files import sha256_of
from resnet_zoo.fit import build
from resnet_zoo.manifest import class_folders, get_entry
from resnet_zoo.recipes import RECIPES
from resnet_zoo.records import to_json
from resnet_zoo.run_records import (
    HASHED_NAMES,
    DataFingerprint,
    EnvironmentFile,
    LogEpoch,
    LogLine,
    LogResume,
    LogStep,
    RecipeFile,
    ResultFile,
    RunWeights,
)
from resnet_zoo.runs import format_line, write_json
from tests.conftest import randomise, smooth_image

NAME = "resnet18_cifar10"
STAMP = "20261124T203719Z"
EPOCHS, STEPS_PER_EPOCH = 3, 4
OVERRIDDEN: dict[str, Any] = {"epochs": EPOCHS, "milestones": [1, 2]}
RATES = (0.1, 0.01, 0.001)
ROOT = Path(__file__).parent.parent
SHA = "ab" * 32


@dataclass(frozen=True)
class MadeRun:
    """A run folder, and the test images it was evaluated on."""

    folder: Path
    data: Path

    def change(self, name: str, **values: Any) -> None:
        """Change fields of a JSON file; of ``result.json`` also the hashes, so that only the change is wrong."""
        path = self.folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        if name in HASHED_NAMES:
            self.rehash()

    def change_log(self, change: Callable[[list[str]], list[str]]) -> None:
        """Change the lines of the log, and its hash."""
        path = self.folder / "log.jsonl"
        path.write_text("".join(change(path.read_text().splitlines(keepends=True))))
        self.rehash()

    def rehash(self) -> None:
        """Write the hashes of the files as they are into ``result.json``."""
        self.change("result.json", files=hashes(self.folder))

    @property
    def weights(self) -> Path:
        """The weights file."""
        return next(self.folder.glob("*.safetensors"))

    def rewrite_weights(self, content: bytes) -> None:
        """Put other bytes in the place of the weights, with their right hash in ``result.json``."""
        path = self.weights
        path.unlink()  # it may be a hard link
        path.write_bytes(content)
        said = json.loads((self.folder / "result.json").read_text())["weights"]
        self.change("result.json", weights=said | {"sha256": sha256_of(path), "size_bytes": len(content)})


def hashes(folder: Path) -> dict[str, str]:
    """Return what ``files`` of ``result.json`` must say."""
    return {name: sha256_of(folder / name) for name in HASHED_NAMES}


def header(**changes: str) -> dict[str, str]:
    """Return the header of a run's weights."""
    return {"format": "pt", "model": NAME, "recipe": "published", "run": STAMP} | changes


def make_images(root: Path, per_class: int = 1) -> Path:
    """Write a tree of test images."""
    for label, name in enumerate(class_folders("cifar10")):
        folder = root / "test" / name
        folder.mkdir(parents=True)
        for index in range(per_class):
            Image.fromarray(smooth_image(32, 32, seed=100 * label + index)).save(folder / f"{index:04}.png")
    return root


def log_lines(top1: float, top5: float) -> list[LogLine]:
    """Return the log of a short training that was killed once and went on."""
    lines: list[LogLine] = []
    for epoch, lr in enumerate(RATES):
        steps = range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH)
        lines += [LogStep(epoch=epoch, step=step, loss=2.3 - 0.1 * step, lr=lr) for step in steps]
        if epoch == 1:
            lines += [LogResume(epoch=1, step=steps[0]), *lines[-STEPS_PER_EPOCH:]]
        last = epoch == EPOCHS - 1
        lines.append(
            LogEpoch(
                epoch=epoch,
                step=steps[-1] + 1,
                loss=2.0 - 0.3 * epoch,
                lr=lr,
                top1_train=None,
                images=512,
                seconds=2.0,
                images_per_s=256.0,
                size=32,
                top1=top1 if last else None,
                top5=top5 if last else None,
            )
        )
    return lines


def make_run(root: Path) -> MadeRun:
    """Make a run of random weights: everything in it is true of them."""
    data = make_images(root / "images")
    folder = root / "runs" / NAME / STAMP
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = randomise(build(get_entry(NAME)))
    tensors = {
        key: value.bfloat16() if value.is_floating_point() else value for key, value in network.state_dict().items()
    }
    weights = folder / f"{NAME}-part.safetensors"
    weights.write_bytes(safetensors_bytes(tensors, header()))
    weights = weights.rename(folder / f"{NAME}-{sha256_of(weights)[:8]}.safetensors")
    found = evaluate(NAME, data, weights=weights, device="cpu")
    recipe = dataclasses.replace(RECIPES["cifar10"], epochs=EPOCHS, milestones=(1, 2))
    write_json(
        folder / "recipe.json",
        RecipeFile(row=NAME, recipe="published", overridden=OVERRIDDEN, values=to_json(recipe)),
    )
    images = DataFingerprint(
        train="cifar10-png-512images",
        test=found.dataset,
        num_train=512,
        num_test=found.num_images,
        train_sha256=SHA,
        test_sha256=SHA,
    )
    write_json(
        folder / "environment.json",
        EnvironmentFile(
            commit="c0" * 20,
            dirty=False,
            code_sha256=SHA,
            command=("scripts/reproduce.py", NAME),
            versions=versions(),
            device=found.device,
            num_devices=1,
            precision="bfloat16",
            compiled=False,
            seed=0,
            data=images,
        ),
    )
    (folder / "log.jsonl").write_text("".join(map(format_line, log_lines(found.top1, found.top5))))
    (folder / "README.md").write_text("# A model card\n")
    write_json(
        folder / "result.json",
        ResultFile(
            row=NAME,
            recipe="published",
            overridden=OVERRIDDEN,
            seed=0,
            epochs=EPOCHS,
            steps=EPOCHS * STEPS_PER_EPOCH,
            dataset=found.dataset,
            num_images=found.num_images,
            correct1=found.correct1,
            correct5=found.correct5,
            top1=round(found.top1, 2),
            top5=round(found.top5, 2),
            precision="float32",
            params=get_entry(NAME).exact.params,
            flops=get_entry(NAME).exact.flops,
            train_seconds=6.0,
            images_per_s=256.0,
            device=found.device,
            date="2026-11-24",
            weights=RunWeights(
                path=weights.name, sha256=sha256_of(weights), size_bytes=weights.stat().st_size, dtype="bfloat16"
            ),
            files=hashes(folder),
        ),
    )
    return MadeRun(folder, data)


def copy_run(made: MadeRun, root: Path) -> MadeRun:
    """Copy a run so that it can be spoilt; the weights are a hard link."""
    folder = root / made.folder.name
    shutil.copytree(
        made.folder,
        folder,
        copy_function=lambda a, b: os.link(a, b) if str(a).endswith("ors") else shutil.copyfile(a, b),
    )
    return MadeRun(folder, made.data)
