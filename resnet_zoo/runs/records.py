"""The records of a run folder: its recipe, environment, log and result, and the summary of several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnet_zoo.catalog.recipes import Precision

RECIPE_NAME, ENVIRONMENT_NAME, LOG_NAME, RESULT_NAME = "recipe.json", "environment.json", "log.jsonl", "result.json"
CURVES_NAME, CARD_NAME, SUMMARY_NAME = "curves.png", "README.md", "summary.json"
HASHED_NAMES = (RECIPE_NAME, ENVIRONMENT_NAME, LOG_NAME)
"""The files whose sha256 ``result.json`` holds."""


@dataclass(frozen=True, kw_only=True)
class RecipeFile:
    """``recipe.json``: what was trained, and how.

    Attributes:
        row: Name of the row.
        recipe: Name of the recipe.
        overridden: The fields that were given on the command line, with the values used.
        values: Every field of the recipe as it was used.
    """

    row: str
    recipe: str
    overridden: dict[str, Any]
    values: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DataFingerprint:
    """The data a run was trained and evaluated on: names, numbers of images and hashes."""

    train: str
    test: str
    num_train: int
    num_test: int
    train_sha256: str
    test_sha256: str


@dataclass(frozen=True, kw_only=True)
class EnvironmentFile:
    """``environment.json``: what a run depended on besides its recipe.

    Attributes:
        commit: The commit of the checkout, ``None`` outside of one.
        dirty: Whether the checkout had changes.
        code_sha256: Of the package's sources.
        command: The program and its arguments.
        versions: As `environment.versions`.
        device: As `environment.device_title`.
        num_devices: Processes that trained together.
        precision: Of the training.
        compiled: Whether torch.compile was used.
        seed: Of every random number.
        data: The images.
    """

    commit: str | None
    dirty: bool | None
    code_sha256: str
    command: tuple[str, ...]
    versions: dict[str, str]
    device: str
    num_devices: int
    precision: Precision
    compiled: bool
    seed: int
    data: DataFingerprint


@dataclass(frozen=True, kw_only=True)
class RunWeights:
    """The weights file of a run: its name in the run folder, its bytes, and how it stores its values."""

    path: str
    sha256: str
    size_bytes: int
    dtype: Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """``result.json``: what the last epoch's weights are and reach.

    Attributes:
        row: Name of the row.
        recipe: Name of the recipe.
        overridden: As in `RecipeFile`.
        seed: Of every random number.
        epochs: Epochs trained.
        steps: Optimizer steps made.
        dataset: What the test images are.
        num_images: Test images.
        correct1: Of these, right with the best class.
        correct5: Right among the best five.
        top1: In percent.
        top5: In percent.
        precision: Of the evaluation.
        params: Parameters of the network.
        flops: By the published table's rule.
        train_seconds: Time spent training, over all resumed parts.
        images_per_s: Training images per second.
        device: The device's name.
        date: UTC, ``2026-11-24``.
        weights: The weights file.
        files: Sha256 of each of `HASHED_NAMES`.
    """

    row: str
    recipe: str
    overridden: dict[str, Any]
    seed: int
    epochs: int
    steps: int
    dataset: str
    num_images: int
    correct1: int
    correct5: int
    top1: float
    top5: float
    precision: Literal["float32", "bfloat16"]
    params: int
    flops: int
    train_seconds: float
    images_per_s: float
    device: str
    date: str
    weights: RunWeights
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class LogStep:
    """A step's line: loss of its batch and the learning rate it was made with; steps count from 0 over the run."""

    kind: Literal["step"] = "step"
    epoch: int
    step: int
    loss: float
    lr: float


@dataclass(frozen=True, kw_only=True)
class LogEpoch:
    """An epoch's line.

    Attributes:
        kind: ``epoch``.
        epoch: From 0.
        step: Steps made by its end, over the whole run.
        loss: Mean over its images.
        lr: At its last step.
        top1_train: Training accuracy in percent, if it was counted.
        images: Training images seen.
        seconds: Time it took, evaluation left out.
        images_per_s: Training images per second.
        size: Pixels of the images' edge.
        top1: Test accuracy in percent if it was evaluated after this epoch; it chooses nothing.
        top5: The same among the best five.
    """

    kind: Literal["epoch"] = "epoch"
    epoch: int
    step: int
    loss: float
    lr: float
    top1_train: float | None
    images: int
    seconds: float
    images_per_s: float
    size: int
    top1: float | None
    top5: float | None


@dataclass(frozen=True, kw_only=True)
class LogResume:
    """A resume's line: the epoch and the step that training went on from."""

    kind: Literal["resume"] = "resume"
    epoch: int
    step: int


@dataclass(frozen=True, kw_only=True)
class LogChange:
    """Training continued although something had changed since its start: from which step on, and what."""

    kind: Literal["change"] = "change"
    epoch: int
    step: int
    changes: tuple[str, ...]


LogLine = LogStep | LogEpoch | LogResume | LogChange


@dataclass(frozen=True, kw_only=True)
class Log:
    """What ``log.jsonl`` says; of what a resume repeated, the last line counts.

    Attributes:
        steps: In order of ``step``.
        epochs: In order of ``epoch``.
        resumes: As they happened.
        changes: Of code, recipe, data or versions, as they happened.
        is_torn: Whether the last line was cut off, by a kill while it was written.
    """

    steps: tuple[LogStep, ...]
    epochs: tuple[LogEpoch, ...]
    resumes: tuple[LogResume, ...]
    changes: tuple[LogChange, ...]
    is_torn: bool


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Values of several seeds; the standard deviation is the sample's (n - 1), ``None`` of a single value."""

    values: tuple[float, ...]
    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class SummaryFile:
    """``summary.json``: one recipe with several seeds; ``runs`` are the names of the folders beside it."""

    row: str
    recipe: str
    overridden: dict[str, Any]
    runs: tuple[str, ...]
    top1: Spread
    top5: Spread
    train_seconds: Spread


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run folder, as read; ``sha256`` is that of each of `HASHED_NAMES`."""

    folder: Path
    recipe: RecipeFile
    environment: EnvironmentFile
    log: Log
    result: ResultFile
    sha256: dict[str, str]
