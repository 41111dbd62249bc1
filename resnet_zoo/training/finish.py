"""The end of a training: hashed weights, the result, curves and a model card."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from resnet_zoo.base.files import sha256_of, write_atomically
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.network.counting import count_flops, count_params
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.runs.curves import read_curve
from resnet_zoo.runs.folder import new_run_folder, read_record, spread, write_json
from resnet_zoo.runs.plot import draw_curves
from resnet_zoo.runs.records import (
    CARD_NAME,
    CURVES_NAME,
    HASHED_NAMES,
    RESULT_NAME,
    SUMMARY_NAME,
    EnvironmentFile,
    RecipeFile,
    ResultFile,
    RunWeights,
    SummaryFile,
)
from resnet_zoo.training.loop import CHECKPOINTS
from resnet_zoo.training.snapshots import Position
from resnet_zoo.weights.cards import run_card
from resnet_zoo.weights.convert import safetensors_bytes


def finish(
    folder: Path,
    model: ResNet,
    plan: RecipeFile,
    environment: EnvironmentFile,
    position: Position,
) -> ResultFile:
    """Write weights, card, curves and result into the run folder, and remove its checkpoints.

    Args:
        folder: The run folder.
        model: With the last epoch's weights.
        plan: The recipe as it was used.
        environment: As it was at the beginning.
        position: Where the training ended, with the test images that were right then.

    Raises:
        OSError: A file cannot be written; the checkpoints are unchanged.
    """
    weights = _export(folder, model, plan)
    entry = get_entry(plan.row)
    num_images = environment.data.num_test
    images = environment.data.num_train * plan.values["epochs"]
    result = ResultFile(
        row=plan.row,
        recipe=plan.recipe,
        overridden=plan.overridden,
        seed=environment.seed,
        epochs=plan.values["epochs"],
        steps=position.step,
        dataset=environment.data.test,
        num_images=num_images,
        correct1=position.test_correct1,
        correct5=position.test_correct5,
        top1=100 * position.test_correct1 / num_images,
        top5=100 * position.test_correct5 / num_images,
        precision="float32",
        params=count_params(model),
        flops=count_flops(model, entry.input_size),
        train_seconds=position.seconds,
        images_per_s=images / position.seconds,
        device=environment.device,
        date=f"{datetime.now(timezone.utc):%Y-%m-%d}",
        weights=weights,
        files={name: sha256_of(folder / name) for name in HASHED_NAMES},
    )
    card = run_card(entry, result, environment)
    write_atomically(folder / CARD_NAME, lambda part: part.write_text(card, encoding="utf-8"))
    _draw(folder)
    write_json(folder / RESULT_NAME, result)  # last: a run that has it is finished
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    (folder / ".lock").unlink(missing_ok=True)
    return result


def _export(folder: Path, model: ResNet, plan: RecipeFile) -> RunWeights:
    """Write the network's tensors as safetensors, named by the first digits of their sha256."""
    header = {"format": "pt", "model": plan.row, "recipe": plan.recipe}  # no time: equal runs give equal bytes
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    data = safetensors_bytes(tensors, header)
    sha256 = hashlib.sha256(data).hexdigest()
    name = f"{plan.row}-{sha256[:8]}.safetensors"
    write_atomically(folder / name, lambda part: part.write_bytes(data))
    return RunWeights(path=name, sha256=sha256, size_bytes=len(data), dtype="float32")


def _draw(folder: Path) -> None:
    """Draw the run's curves; left out where matplotlib is not installed."""
    with contextlib.suppress(ArgumentError):
        draw_curves(read_curve(folder), folder / CURVES_NAME)


def summarise(folders: Sequence[Path]) -> tuple[Path, SummaryFile]:
    """Write the summary of runs that differ in their seeds into a folder beside them, and return both."""
    results = [read_record(folder / RESULT_NAME, ResultFile) for folder in folders]
    first = results[0]
    summary = SummaryFile(
        row=first.row,
        recipe=first.recipe,
        overridden=first.overridden,
        runs=tuple(folder.name for folder in folders),
        top1=spread([result.top1 for result in results]),
        top5=spread([result.top5 for result in results]),
        train_seconds=spread([result.train_seconds for result in results]),
    )
    target = new_run_folder(folders[0].parent.parent, first.row, suffix="-seeds")
    write_json(target / SUMMARY_NAME, summary)
    return target, summary
