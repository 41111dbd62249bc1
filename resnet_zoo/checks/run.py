"""Re-check a run folder from its files alone: hashes, recipe, log, counts, weights and accuracy."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from resnet_zoo.base.files import sha256_of
from resnet_zoo.base.strict_json import WrongValueError, decode
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import Recipe, find_recipe, learning_rate
from resnet_zoo.catalog.records import Entry, Measured, to_json
from resnet_zoo.checks.accuracy import check_accuracy, check_reproduction
from resnet_zoo.checks.report import Check, Report
from resnet_zoo.checks.rows import check_counts, check_weights, named
from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference.evaluation import Evaluation, evaluate
from resnet_zoo.runs.folder import read_run
from resnet_zoo.runs.records import LogChange, LogEpoch, ResultFile, Run
from resnet_zoo.weights.loading import LoadedWeights, assign_weights
from resnet_zoo.weights.provenance import Chain


def verify_run(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    data: str | os.PathLike[str] | None = None,
    device: torch.device | str = "auto",
    batch_size: int = 64,
    num_workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Check a finished run folder.

    The checks of a row (`verify`), with ``top1`` and ``top5`` held against ``result.json``; and ``files`` (hashes),
    ``recipe``, ``log``, ``result`` (the files agree with each other), ``published_top1`` and ``published_top5`` (on
    images of the official test set only).

    Args:
        folder: The run folder.
        name: The row it must be a run of; ``None`` means the row it says.
        data: The folder of the test images, see `evaluate`; ``None`` leaves the accuracy unchecked.
        device: Where to evaluate.
        batch_size: Images per forward pass.
        num_workers: As in `evaluate`.
        progress: Called with (row, images done, images in all) while evaluating.

    Raises:
        RunError: A file is missing, unreadable, or not of its form.
        ArgumentError: It is a run of another row than ``name``.
        UnknownModelError: No row is called as the run says, or ``name``.
        DatasetError: Data was given and cannot be used.
    """
    run = read_run(Path(folder))
    entry = get_entry(run.result.row)
    if name is not None and get_entry(name) != entry:
        raise ArgumentError(f"{run.folder} is a run of {entry.name}, not of {get_entry(name).name}.")
    opened, chain, weights_check = _check_weights(entry, run)
    result = None
    if opened is not None and data is not None:
        result = evaluate(
            entry.name,
            data,
            model=assign_weights(entry, opened.checkpoint),
            device=device,
            precision=run.result.precision,
            batch_size=batch_size,
            num_workers=num_workers,
            partial=True,  # what the images are called is compared with what the run says
            progress=named(progress, entry.name),
        )
    checks = (
        *(_check_files(run), _check_recipe(entry, run), _check_log(run), _check_result(entry, run)),
        *check_counts(entry),
        weights_check,
        *_check_accuracy(
            entry, run, result, "no test images given (--data DIR)" if opened else "no weights to evaluate"
        ),
    )
    return Report(entry.name, checks, asdict(chain) if chain else None)


def recorded_by(run: Run) -> Measured:
    """Return what a run says it measured, as the manifest would."""
    result = run.result
    return Measured(
        top1=100 * result.correct1 / result.num_images,
        top5=100 * result.correct5 / result.num_images,
        num_images=result.num_images,
        dataset=result.dataset,
        date=result.date,
        versions=run.environment.versions,
        device=result.device,
    )


# --- the small files ----------------------------------------------------------------------------------------------


def _check_facts(name: str, facts: Mapping[str, bool]) -> Check:
    wrong = [fact for fact, holds in facts.items() if not holds]
    if wrong:
        return Check(name, "failed", detail=f"does not hold: {'; '.join(wrong)}")
    return Check(name, "passed", detail="; ".join(facts))


def _check_files(run: Run) -> Check:
    """Hold the files against the hashes in ``result.json``."""
    wrong = []
    for file, expected in run.result.files.items():
        actual = sha256_of(run.folder / file)
        if actual != expected:
            wrong.append(f"{file}: expected sha256 {expected}, got {actual}")
    if wrong:
        return Check("files", "failed", detail="; ".join(wrong))
    return Check("files", "passed", detail=f"sha256 of {', '.join(run.result.files)}")


def _check_recipe(entry: Entry, run: Run) -> Check:
    """Hold the values that were used against the recipe they are said to be of."""
    said, values = run.recipe, run.recipe.values
    try:
        recipe: Recipe = decode(Recipe, values, ("values",))
    except WrongValueError as error:
        where = ".".join(map(str, error.where))
        return Check("recipe", "not checked", detail=f"in a different form from this version's: {where}: {error.why}")
    except ArgumentError as error:
        return Check("recipe", "failed", detail=str(error))
    facts = {
        f"row {run.result.row}": said.row == run.result.row,
        f"recipe {run.result.recipe}": said.recipe == run.result.recipe,
        "the same fields overridden in both files": said.overridden == run.result.overridden,
        "overridden fields have the values given": said.overridden.items() <= values.items(),
    }
    with contextlib.suppress(ArgumentError):  # a recipe that this version does not know
        registered = find_recipe(entry.recipe, said.recipe)
        others = [key for key, value in to_json(registered).items() if value != to_json(recipe)[key]]
        strays = sorted(set(others) - set(said.overridden))
        facts[
            f"the values of the recipe {said.recipe}" + (f" ({', '.join(strays)} differ)" if strays else "")
        ] = not strays
    return _check_facts("recipe", facts)


def _check_log(run: Run) -> Check:
    """Hold the log against the recipe: every epoch and step there, in its place, learning rates as scheduled."""
    epochs, steps, result = run.log.epochs, run.log.steps, run.result
    numbers = [line.epoch for line in epochs]
    missing = sorted(set(range(result.epochs)) - set(numbers))
    ends = [line.step for line in epochs]
    bounds = dict(zip(numbers, zip([0, *ends], ends, strict=False), strict=True))
    facts = {
        f"{result.epochs} epochs" + (f" (missing {_some(missing)})" if missing else ""): numbers
        == list(range(result.epochs)),
        f"as many as the recipe's {run.recipe.values.get('epochs')}": run.recipe.values.get("epochs") == result.epochs,
        f"{result.steps} steps, a line for each": bool(ends)
        and ends[-1] == result.steps
        and [line.step for line in steps] == list(range(result.steps)),
        "every step in its epoch": bool(missing)
        or all(line.epoch in bounds and bounds[line.epoch][0] <= line.step < bounds[line.epoch][1] for line in steps),
        "no torn line": not run.log.is_torn,
        "nothing changed during the training" + _told(run.log.changes): not run.log.changes,
        "the last epoch is the result": not _is_measured(run) or _is_result(epochs[-1], result),
    }
    strays = _stray_rates(run)
    facts["learning rates as scheduled" + (f" (different in epoch {_some(strays)})" if strays else "")] = not strays
    check = _check_facts("log", facts)
    if check.status == "passed" and not _is_measured(run):
        return Check("log", "not checked", detail="an older log, without the accuracy of the last epoch")
    return check


def _is_measured(run: Run) -> bool:
    """Tell whether the log says what the last epoch reached."""
    return bool(run.log.epochs) and run.log.epochs[-1].top1 is not None


def _told(changes: tuple[LogChange, ...]) -> str:
    """Return what changed while a run was trained, in brackets."""
    told = [f"at step {line.step}: {', '.join(line.changes)}" for line in changes]
    return f" ({'; '.join(told)})" if told else ""


def _is_result(last: LogEpoch, result: ResultFile) -> bool:
    """Tell whether the last epoch's line has the accuracy that the result has: both come from one measurement."""
    pairs = ((last.top1, result.correct1), (last.top5, result.correct5))
    return all(top is not None and _is_percent(top, correct, result.num_images) for top, correct in pairs)


def _stray_rates(run: Run) -> list[int]:
    """Return the epochs in which a learning rate is not the recipe's; none where the values are of another form."""
    try:
        recipe: Recipe = decode(Recipe, run.recipe.values, ())
    except (WrongValueError, ArgumentError):  # `_check_recipe` says so
        return []
    ends = [line.step for line in run.log.epochs]
    if not ends or not ends[0]:
        return []
    lines = [*((line.epoch, line.step, line.lr) for line in run.log.steps)]
    lines += [(line.epoch, line.step - 1, line.lr) for line in run.log.epochs]
    strays = {epoch for epoch, step, lr in lines if abs(lr - learning_rate(recipe, step, ends[0])) > 1e-6 * recipe.lr}
    return sorted(strays)


def _check_result(entry: Entry, run: Run) -> Check:
    """Hold ``result.json`` against itself, the environment and the manifest's integers."""
    result, environment = run.result, run.environment
    facts = {
        f"top-1 is {result.correct1} of {result.num_images}": _is_percent(
            result.top1, result.correct1, result.num_images
        ),
        f"top-5 is {result.correct5} of {result.num_images}": _is_percent(
            result.top5, result.correct5, result.num_images
        ),
        f"seed {result.seed}": result.seed == environment.seed,
        f"evaluated on {result.dataset}": result.dataset == environment.data.test,
        f"all {environment.data.num_test} test images": result.num_images == environment.data.num_test,
        f"{entry.exact.params:,} parameters": result.params == entry.exact.params,
        f"{entry.exact.flops:,} FLOPs": result.flops == entry.exact.flops,
    }
    return _check_facts("result", facts)


def _is_percent(percent: float, correct: int, total: int) -> bool:
    return abs(percent - 100 * correct / total) <= 0.005 + 1e-9  # two decimals


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


# --- weights and accuracy -----------------------------------------------------------------------------------------


def _check_weights(entry: Entry, run: Run) -> tuple[LoadedWeights | None, Chain | None, Check]:
    """Check the weights file against ``result.json`` and the row; return the weights if all is well."""
    said = run.result.weights
    path = run.folder / said.path
    home = run.folder.resolve()
    shipped = home.with_name(f"{home.name}.safetensors")  # as `accept_run` puts it
    if not path.is_file() and shipped.is_file() and sha256_of(shipped) == said.sha256:
        path = shipped
    if not path.is_file():
        why = f"{path} is missing; only the small files of the run are here"
        return None, None, Check("weights", "not checked", detail=why)
    found = f"sha256 {sha256_of(path)}, {path.stat().st_size} bytes"
    expected = f"sha256 {said.sha256}, {said.size_bytes} bytes"
    if found != expected:
        return None, None, Check("weights", "failed", detail=f"{path}: expected {expected}; got {found}")
    opened, chain, check = check_weights(entry, path, download=False, was_asked=False)
    if opened is None:
        return None, None, check
    header, dtypes = opened.checkpoint.header, stored_dtypes(path)
    facts = {
        f"header says {entry.name}": header.get("model") == entry.name,
        f"header says recipe {run.result.recipe}": header.get("recipe") == run.result.recipe,
        f"stored as {said.dtype}": dtypes <= {said.dtype, "int64"},
    }
    if not all(facts.values()):
        return None, None, _check_facts("weights", facts)
    return opened, chain, replace(check, detail=f"{check.detail}; {'; '.join(facts)}")


_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}


def stored_dtypes(path: Path) -> set[str]:
    """Return the types a safetensors file stores its tensors in, from its header.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: dict[str, Any] = json.loads(file.read(length))
    kinds = {tensor["dtype"] for key, tensor in header.items() if key != "__metadata__"}
    return {_DTYPES.get(kind, kind) for kind in kinds}


def _check_accuracy(entry: Entry, run: Run, result: Evaluation | None, why: str) -> list[Check]:
    """Hold what was measured now against the run's own numbers, and these beside the published ones."""
    recorded = recorded_by(run)
    if result is None:
        names = [(top, f"{kind}{top}") for kind in ("", "published_") for top in ("top1", "top5")]
        return [Check(name, "not checked", getattr(entry.published, top), None, why) for top, name in names]
    published = [check_reproduction(entry, top, result, run.result.overridden) for top in ("top1", "top5")]
    checks = check_accuracy(entry, result, recorded=recorded, published_weights=False)
    if (result.dataset, result.num_images) != (recorded.dataset, recorded.num_images):
        other = f"the run was evaluated on {recorded.num_images} images of {recorded.dataset}, which these are not"
        checks = [replace(check, status="not checked", detail=f"{other}: {check.detail}") for check in checks]
    return [*checks, *published]
