"""Re-check a run folder from its files alone: hashes, recipe, log, counts, weights and accuracy."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, replace
from pathlib import Path

import torch

from resnet_zoo.base.progress import TitledProgress, under_title
from resnet_zoo.base.strict_json import WrongValueError, decode
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.recipes import Recipe, find_recipe, learning_rate
from resnet_zoo.catalog.records import Entry, Measured, to_json
from resnet_zoo.checks.accuracy import check_accuracy, check_reproduction
from resnet_zoo.checks.networks import check_weights
from resnet_zoo.checks.report import Check, Report, check_facts
from resnet_zoo.checks.rows import check_counts
from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference.evaluation import Evaluation, evaluate
from resnet_zoo.network.building import build_on_meta
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.runs.folder import read_run
from resnet_zoo.runs.records import LogChange, LogEpoch, ResultFile, Run
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.opened import LoadedWeights
from resnet_zoo.weights.provenance import Chain


def verify_run(
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    data: str | os.PathLike[str] | None = None,
    device: torch.device | str = "auto",
    batch_size: int = 64,
    num_workers: int | None = None,
    progress: TitledProgress | None = None,
) -> Report:
    """Check a finished run folder from its files alone.

    The checks are those of a model (`verify`), with ``top1`` and ``top5`` compared with ``result.json``, and ``files``
    (their hashes), ``recipe``, ``log``, ``result`` (the files agree with each other), ``published_top1`` and
    ``published_top5`` (on images of the official test set only).

    Args:
        folder: The run folder.
        name: The model it must be a run of; ``None`` means the model that the run names.
        data: The folder of the test images, see `evaluate`; ``None`` leaves the accuracy unchecked.
        device: Where to evaluate: ``auto`` (CUDA, MPS, then CPU) or a torch device.
        batch_size: Images per forward pass.
        num_workers: As in `evaluate`.
        progress: Called with (model, images done, images in all) while evaluating.

    Raises:
        RunError: A file is missing, unreadable or malformed.
        ArgumentError: The run is not of model ``name``, a number is out of range, or the device is not
            available.
        UnknownModelError: No model has the name that the run or ``name`` gives.
        DatasetError: ``data`` was given and cannot be used.

    Example:
        >>> report = resnet_zoo.verify_run("runs/resnet18_cifar10/20261124T203719Z", data="cifar10/")
        >>> report.failed
        False
        >>> report.check("files").detail
        'sha256 of recipe.json, environment.json, log.jsonl'
    """
    run = read_run(Path(folder))
    entry = get_entry(run.result.row)
    if name is not None and get_entry(name) != entry:
        raise ArgumentError(f"{run.folder} is a run of {entry.name}, not of {get_entry(name).name}.")
    model, recipe = build_on_meta(entry), _recipe_of(run)
    checks = [_check_files(run), _check_recipe(entry, run, recipe), _check_log(run, recipe), _check_result(entry, run)]
    checks += check_counts(entry, model)
    opened, chain, weights_check = _check_weights(entry, model, run)
    result = None
    if opened is not None and data is not None:
        result = evaluate(
            entry.name,
            data,
            model=model,
            device=device,
            precision=run.result.precision,
            batch_size=batch_size,
            num_workers=num_workers,
            partial=True,  # what the images are called is compared with what the run says
            progress=under_title(progress, entry.name),
        )
    why = "no test images given (--data DIR)" if opened else "no weights to evaluate"
    checks += [weights_check, *_check_accuracy(entry, run, result, why)]
    return Report(entry.name, tuple(checks), asdict(chain) if chain else None)


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


def _check_files(run: Run) -> Check:
    """Hold the files, as they were read, against the hashes in ``result.json``."""
    pairs = [(file, expected, run.sha256[file]) for file, expected in run.result.files.items()]
    wrong = [f"{file}: expected sha256 {said}, got {actual}" for file, said, actual in pairs if actual != said]
    if wrong:
        return Check("files", "failed", detail="; ".join(wrong))
    return Check("files", "passed", detail=f"sha256 of {', '.join(run.result.files)}")


def _recipe_of(run: Run) -> Recipe | Check:
    """Return the recipe that was used, or why its values are not one."""
    try:
        recipe: Recipe = decode(Recipe, run.recipe.values, ("values",))
    except WrongValueError as error:
        where = ".".join(map(str, error.where))
        return Check("recipe", "not checked", detail=f"in a different form from this version's: {where}: {error.why}")
    except ArgumentError as error:
        return Check("recipe", "failed", detail=str(error))
    return recipe


def _check_recipe(entry: Entry, run: Run, recipe: Recipe | Check) -> Check:
    """Hold the values that were used against the recipe they are said to be of."""
    if isinstance(recipe, Check):
        return recipe
    said = run.recipe
    facts = {
        f"model {run.result.row}": said.row == run.result.row,
        f"recipe {run.result.recipe}": said.recipe == run.result.recipe,
        "the same fields overridden in both files": said.overridden == run.result.overridden,
        "overridden fields have the values given": said.overridden.items() <= said.values.items(),
    }
    with contextlib.suppress(ArgumentError):  # a recipe that this version does not know
        registered = find_recipe(entry.recipe, said.recipe)
        others = [key for key, value in to_json(registered).items() if value != to_json(recipe)[key]]
        strays = sorted(set(others) - set(said.overridden))
        facts[
            f"the values of the recipe {said.recipe}" + (f" ({', '.join(strays)} differ)" if strays else "")
        ] = not strays
    return check_facts("recipe", facts)


def _check_log(run: Run, recipe: Recipe | Check) -> Check:
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
    strays = [] if isinstance(recipe, Check) else _stray_rates(run, recipe)
    facts["learning rates as scheduled" + (f" (different in epoch {_some(strays)})" if strays else "")] = not strays
    check = check_facts("log", facts)
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


def _stray_rates(run: Run, recipe: Recipe) -> list[int]:
    """Return the epochs in which a learning rate is not the recipe's."""
    ends = [line.step for line in run.log.epochs]
    if not ends or not ends[0]:
        return []
    lines = [(line.epoch, line.step, line.lr) for line in run.log.steps]
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
    return check_facts("result", facts)


def _is_percent(percent: float, correct: int, total: int) -> bool:
    return abs(percent - 100 * correct / total) <= 0.005 + 1e-9  # two decimals


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


# --- weights and accuracy -----------------------------------------------------------------------------------------


def _check_weights(entry: Entry, model: ResNet, run: Run) -> tuple[LoadedWeights | None, Chain | None, Check]:
    """Check the weights file against ``result.json`` and the row, as `check_weights`."""
    said, home = run.result.weights, run.folder.resolve()
    path, shipped = run.folder / said.path, home.with_name(f"{home.name}.safetensors")  # as `accept_run` puts it
    if not path.is_file() and shipped.is_file() and shipped.stat().st_size == said.size_bytes:
        path = shipped  # one of another size was stored anew, in another type
    if not path.is_file():
        why = f"{path} is missing; only the small files of the run are here"
        return None, None, Check("weights", "not checked", detail=why)
    opened, chain, check = check_weights(
        entry, model, lambda: LoadedWeights(load_checkpoint(path, sha256=said.sha256), None), was_asked=False
    )
    if opened is None:
        return None, None, check
    header = opened.checkpoint.header
    facts = {
        f"{said.size_bytes} bytes": path.stat().st_size == said.size_bytes,
        f"header says {entry.name}": header.get("model") == entry.name,
        f"header says recipe {run.result.recipe}": header.get("recipe") == run.result.recipe,
        f"stored as {said.dtype}": opened.checkpoint.dtypes <= {said.dtype, "int64"},
    }
    if not all(facts.values()):
        return None, None, check_facts("weights", facts)
    return opened, chain, replace(check, detail=f"{check.detail}; {'; '.join(facts)}")


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
