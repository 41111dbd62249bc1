"""Run folders: example records, and a whole run made on the spot of a real network, evaluated on a few real files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from resnet_zoo.base.files import sha256_of
from resnet_zoo.base.machine import versions
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import RECIPES
from resnet_zoo.catalog.records import to_json
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.network.building import build
from resnet_zoo.runs.folder import format_line, write_json
from resnet_zoo.runs.records import (
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
from resnet_zoo.weights.convert import safetensors_bytes
from tests.conftest import make_class_tree, randomise

NAME = "resnet18_cifar10"
STAMP = "20261124T203719Z"
EPOCHS, STEPS_PER_EPOCH = 3, 4
OVERRIDDEN: dict[str, Any] = {"epochs": EPOCHS, "milestones": [1, 2]}
RATES = (0.1, 0.01, 0.001)
ROOT = Path(__file__).parent.parent
SHA = "ab" * 32

RECIPE = RecipeFile(row=NAME, recipe="fast", overridden={"epochs": 1}, values={"epochs": 1, "milestones": [1]})
ENVIRONMENT = EnvironmentFile(
    commit=None,
    dirty=None,
    code_sha256=SHA,
    command=("scripts/reproduce.py",),
    versions={"torch": "2.6"},
    device="a CPU",
    num_devices=1,
    precision="bfloat16",
    compiled=False,
    seed=0,
    data=DataFingerprint(
        train="cifar10", test="cifar10", num_train=50_000, num_test=10_000, train_sha256=SHA, test_sha256=SHA
    ),
)
RESULT = ResultFile(
    row=NAME,
    recipe="fast",
    overridden={"epochs": 1},
    seed=0,
    epochs=1,
    steps=2,
    dataset="cifar10",
    num_images=10_000,
    correct1=9312,
    correct5=9960,
    top1=93.12,
    top5=99.6,
    precision="float32",
    params=get_entry(NAME).exact.params,
    flops=get_entry(NAME).exact.flops,
    train_seconds=10.5,
    images_per_s=405.0,
    device="a CPU",
    date="2026-11-24",
    weights=RunWeights(path=f"{NAME}-1a2b3c4d.safetensors", sha256=SHA, size_bytes=1, dtype="bfloat16"),
    files=dict.fromkeys(HASHED_NAMES, SHA),
)
EPOCH = LogEpoch(
    epoch=0,
    step=1,
    loss=1.5,
    lr=0.1,
    top1_train=None,
    images=256,
    seconds=1.0,
    images_per_s=256.0,
    size=32,
    top1=None,
    top5=None,
)
STEPS = [LogStep(epoch=0, step=step, loss=2.0 - step, lr=0.1) for step in range(2)]


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


def log_lines(top1: float, top5: float) -> list[LogLine]:
    """Return the log of a short training that was killed once and went on."""
    lines: list[LogLine] = []
    for epoch, lr in enumerate(RATES):
        steps = range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH)
        lines += [LogStep(epoch=epoch, step=step, loss=2.3 - 0.1 * step, lr=lr) for step in steps]
        if epoch == 1:
            lines += [LogResume(epoch=1, step=steps[0]), *lines[-STEPS_PER_EPOCH:]]
        lines.append(replace(EPOCH, epoch=epoch, step=steps[-1] + 1, loss=2.0 - 0.3 * epoch, lr=lr))
    assert isinstance(lines[-1], LogEpoch)
    return [*lines[:-1], replace(lines[-1], top1=top1, top5=top5)]


def make_run(root: Path) -> MadeRun:
    """Make a run of random weights: everything in it is true of them."""
    data = make_class_tree(root / "images", class_folders("cifar10"))
    folder = root / "runs" / NAME / STAMP
    folder.mkdir(parents=True)
    weights = _write_weights(folder)
    found = evaluate(NAME, data, weights=weights, device="cpu")
    values = to_json(replace(RECIPES["cifar10"], epochs=EPOCHS, milestones=(1, 2)))
    said: dict[str, Any] = {"recipe": "published", "overridden": OVERRIDDEN}
    write_json(folder / "recipe.json", RecipeFile(row=NAME, values=values, **said))
    images = replace(
        ENVIRONMENT.data,
        train="cifar10-png-512images",
        num_train=512,
        test=found.dataset,
        num_test=found.num_images,
    )
    write_json(
        folder / "environment.json",
        replace(ENVIRONMENT, commit="c0" * 20, dirty=False, versions=versions(), device=found.device, data=images),
    )
    (folder / "log.jsonl").write_text("".join(map(format_line, log_lines(found.top1, found.top5))))
    (folder / "README.md").write_text("# A model card\n")
    size_bytes = weights.stat().st_size
    result = replace(
        RESULT,
        **said,
        epochs=EPOCHS,
        steps=EPOCHS * STEPS_PER_EPOCH,
        dataset=found.dataset,
        num_images=found.num_images,
        correct1=found.correct1,
        correct5=found.correct5,
        top1=round(found.top1, 2),
        top5=round(found.top5, 2),
        device=found.device,
        weights=RunWeights(path=weights.name, sha256=sha256_of(weights), size_bytes=size_bytes, dtype="bfloat16"),
        files=hashes(folder),
    )
    write_json(folder / "result.json", result)
    return MadeRun(folder, data)


def _write_weights(folder: Path) -> Path:
    """Write a network's weights as a training names them."""
    torch.manual_seed(0)
    state = randomise(build(get_entry(NAME))).state_dict()
    tensors = {key: value.bfloat16() if value.is_floating_point() else value for key, value in state.items()}
    part = folder / "part.safetensors"
    part.write_bytes(safetensors_bytes(tensors, header()))
    return part.rename(folder / f"{NAME}-{sha256_of(part)[:8]}.safetensors")


def copy_run(made: MadeRun, root: Path) -> MadeRun:
    """Copy a run so that it can be spoilt; the weights are a hard link."""
    folder = root / made.folder.name
    shutil.copytree(
        made.folder,
        folder,
        copy_function=lambda a, b: os.link(a, b) if str(a).endswith("ors") else shutil.copyfile(a, b),
    )
    return MadeRun(folder, made.data)
