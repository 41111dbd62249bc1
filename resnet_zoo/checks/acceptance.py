"""From a checked run folder to a weight set of the manifest.

In this order, so that whatever fails leaves the manifest as it was and no file behind: verify the run, write the
weights, evaluate exactly the bytes that were written, copy the run's small files, write the manifest in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from resnet_zoo.base.files import write_atomically
from resnet_zoo.base.progress import TitledProgress, under_title
from resnet_zoo.catalog.manifest import get_entry, manifest_path, replace_manifest, writable_manifest_path
from resnet_zoo.catalog.records import Entry, Measured, RunOrigin, UpstreamOrigin, WeightSet, WeightsFile, to_json
from resnet_zoo.catalog.rules import TAG_FORM
from resnet_zoo.checks.accuracy import measured_of
from resnet_zoo.checks.report import RUN_CHECKS, Report
from resnet_zoo.checks.run import verify_run
from resnet_zoo.errors import ArgumentError
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.runs.folder import read_run
from resnet_zoo.runs.records import CARD_NAME, CURVES_NAME, HASHED_NAMES, RESULT_NAME, Run
from resnet_zoo.weights.cards import OWN_LICENSE
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.convert import safetensors_bytes

REQUIRED_CHECKS = (*RUN_CHECKS, "weights", "top1", "top5")
"""What must have passed, not merely not failed."""

PUBLISHED_CHECKS = ("published_top1", "published_top5")
"""Whose failure says nothing against the run itself: it is what it says, but does not reach what was published."""

_SMALL_FILES = (*HASHED_NAMES, RESULT_NAME, CURVES_NAME, CARD_NAME)


@dataclass(frozen=True)
class Acceptance:
    """What `accept_run` did.

    Attributes:
        report: The verification of the run.
        missed: Why it was not accepted: the names of checks that failed or could not be made. Empty: it was.
        tag: The weight set.
        weights: The weight set as the manifest has it now; ``None`` if the run was not accepted.
        path: Its file.
        folder: Where the run's small files are.
        replaced: The file that the manifest named before, and no longer does.
    """

    report: Report
    missed: tuple[str, ...]
    tag: str
    weights: WeightSet | None = None
    path: Path | None = None
    folder: Path | None = None
    replaced: str | None = None


def accept_run(
    folder: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    weights_dir: str | os.PathLike[str] | None = None,
    dtype: Literal["bfloat16"] | None = None,
    tag: str = "retrained",
    replace: bool = False,
    allow_worse: bool = False,
    default: bool = False,
    device: torch.device | str = "auto",
    batch_size: int = 64,
    num_workers: int | None = None,
    progress: TitledProgress | None = None,
) -> Acceptance:
    """Verify a run, and enter its weights into the manifest in use as a weight set of its row.

    The weights become ``<weights_dir>/<row>-<tag>-<sha8>.safetensors``, and the run's small files a folder of the same
    name beside it. The ``measured`` block comes from an evaluation of that file.

    Args:
        folder: The run folder.
        data: The folder of the test images the run was evaluated on.
        weights_dir: Beside the manifest or below; ``None`` means ``weights`` beside it.
        dtype: Store floating-point values so; ``None`` keeps the run's file as it is.
        tag: What the weight set is called.
        replace: Replace a weight set that has a file already.
        allow_worse: Accept weights that miss a published number, too, and replace others by ones that are less
            accurate, or measured on fewer or on other images.
        default: Make the weight set the row's default.
        device: Where to evaluate.
        batch_size: Images per forward pass.
        num_workers: As in `evaluate`.
        progress: Called with (row, images done, images in all) while evaluating.

    Raises:
        ArgumentError: The tag is not a tag, or the tag of published weights or (without ``replace``) of weights that
            are there; the new weights are worse than those they would replace; ``weights_dir`` is outside of the
            manifest's folder; or the manifest is an installed package's, or was changed meanwhile.
        RunError, UnknownModelError, DatasetError: As `verify_run`.
        ManifestError: The manifest is broken.
        OSError: A file cannot be written.
    """
    manifest = writable_manifest_path()
    before = manifest.read_bytes()
    target_dir = manifest.parent / "weights" if weights_dir is None else Path(weights_dir).absolute()
    base = _relative_to_manifest(target_dir)
    run = read_run(Path(folder))
    entry = get_entry(run.result.row)
    _check_tag(entry, tag, replace=replace)
    options: dict[str, Any] = {"device": device, "batch_size": batch_size, "num_workers": num_workers}
    report = verify_run(folder, data=data, progress=progress, **options)
    missed = _missed(report, allow_worse=allow_worse)
    if missed:
        return Acceptance(report, missed, tag)
    with _removed_on_error() as written:
        path, file = _write_weights(run, target_dir, tag, dtype, written)
        shown = under_title(progress, path.name)
        measured = measured_of(evaluate(entry.name, data, weights=path, partial=True, progress=shown, **options))
        if not allow_worse:
            _refuse_worse(entry, tag, measured)
        small = path.with_suffix("")
        _copy_small_files(run, small, written)
        weights = WeightSet(
            file=file,
            origin=RunOrigin(run.result.recipe, f"{base}/{small.name}"),
            published=(),
            measured=measured,
            license=OWN_LICENSE,
        )
        replaced = _enter(manifest, before, entry, tag, weights, base, default=default)
    return Acceptance(report, (), tag, weights, path, small, replaced)


def _relative_to_manifest(folder: Path) -> str:
    """Return a folder as the manifest's ``base_urls`` name it."""
    home = manifest_path().parent
    if home.resolve() not in folder.resolve().parents:
        raise ArgumentError(f"{folder} is not inside {home}, the folder of the manifest. Pass a folder inside it.")
    return folder.resolve().relative_to(home.resolve()).as_posix()


def _check_tag(entry: Entry, tag: str, *, replace: bool) -> None:
    if not TAG_FORM.fullmatch(tag):
        raise ArgumentError(f"Expected a tag of lower-case letters, digits, - and _, got {tag!r}.")
    known = entry.weights.get(tag)
    if known is not None and isinstance(known.origin, UpstreamOrigin):
        raise ArgumentError(
            f"{entry.name} has published weights {tag!r}, which a run cannot replace. Pass another tag."
        )
    if known is not None and known.file is not None and not replace:
        raise ArgumentError(
            f"{entry.name} already has weights {tag!r}{_described(known.measured)}. Pass another --tag, or --replace "
            "to replace them with those of this run."
        )


def _refuse_worse(entry: Entry, tag: str, new: Measured) -> None:
    """Refuse to replace weights by ones that are less accurate, or measured on fewer or on other images.

    Raises:
        ArgumentError: Names both accuracies and what they were measured on.
    """
    old = entry.weights[tag].measured if tag in entry.weights else None
    if old is None:
        return
    reasons = {
        "fewer images": new.num_images < old.num_images,
        "other images": new.dataset != old.dataset,
        "a lower top-1": round(new.top1, 2) < round(old.top1, 2),
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise ArgumentError(
            f"{entry.name} has weights {tag!r}{_described(old)}; this run's{_described(new)} have "
            f"{' and '.join(found)}. Pass another --tag, or --allow-worse to replace them anyway."
        )


def _described(measured: Measured | None) -> str:
    """Return an accuracy and what it was measured on, in brackets; empty if there is none."""
    if measured is None:
        return ""
    return f" ({measured.top1:.2f}% top-1 on {measured.num_images:,} of {measured.dataset})"


def _missed(report: Report, *, allow_worse: bool) -> tuple[str, ...]:
    return tuple(
        check.name
        for check in report.checks
        if (check.status == "failed" and not (allow_worse and check.name in PUBLISHED_CHECKS))
        or (check.status == "not checked" and check.name in REQUIRED_CHECKS)
    )


@contextlib.contextmanager
def _removed_on_error() -> Iterator[list[Path]]:
    """Give a list of what was written, which is removed again if the block does not end well."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in reversed(written):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise


def _write_weights(
    run: Run, target_dir: Path, tag: str, dtype: Literal["bfloat16"] | None, written: list[Path]
) -> tuple[Path, WeightsFile]:
    """Write the file that ships, under a name that carries its hash."""
    stored, source = run.result.weights, run.folder / run.result.weights.path
    if dtype in (None, stored.dtype):
        content = source.read_bytes()
    else:
        tensors = {
            key: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
            for key, tensor in load_checkpoint(source, sha256=stored.sha256).tensors.items()
        }
        content = safetensors_bytes(tensors, _header(run))
    target_dir.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256(content).hexdigest()
    path = target_dir / f"{run.result.row}-{tag}-{sha256[:8]}.safetensors"
    if not path.exists():
        written.append(path)
    write_atomically(path, lambda part: part.write_bytes(content))
    return path, WeightsFile(path.name, sha256, len(content))


def _header(run: Run) -> dict[str, str]:
    return {
        "format": "pt",
        "model": run.result.row,
        "recipe": run.result.recipe,
        "run": run.folder.resolve().name,
        "source": run.result.weights.path,
        "source_sha256": run.result.weights.sha256,
    }


def _copy_small_files(run: Run, target: Path, written: list[Path]) -> None:
    if not target.exists():
        written.append(target)
    target.mkdir(exist_ok=True)
    for name in _SMALL_FILES:
        if (run.folder / name).is_file():
            write_atomically(target / name, partial(shutil.copyfile, run.folder / name))


def _enter(
    manifest: Path, before: bytes, entry: Entry, tag: str, weights: WeightSet, base: str, *, default: bool
) -> str | None:
    """Write the weight set into the manifest; return the file it named before, if that was another."""
    content = json.loads(before)
    row = next(row for row in content["models"] if row["name"] == entry.name)
    row["weights"][tag] = to_json(weights)
    if default:
        row["default_weights"] = tag
    content["base_urls"] = list(dict.fromkeys([base, *content["base_urls"]]))
    replace_manifest(manifest, content, before)
    old = entry.weights[tag].file if tag in entry.weights else None
    return old.path if old is not None and old != weights.file else None
