"""Speed and precision as they were measured: ``measurements.json``, which ``scripts/benchmark.py --json`` writes.

Every measurement says on which machine, with which versions, when and with which command it was made. A new one is
appended; `read_measurements` gives the last of each table first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resnet_zoo.base.files import read_regular
from resnet_zoo.base.strict_json import WrongValueError, decode, expect, parse
from resnet_zoo.errors import ArgumentError

SCHEMA_VERSION = 1

SHIPPED_PATH = Path(__file__).parent / "measurements.json"
"""What was measured for this version of the package."""


@dataclass(frozen=True)
class Contestant:
    """A line of a table: one way of doing the same work.

    Attributes:
        name: What it is: whose, and in which precision.
        median_ms: Of the rounds.
        lowest_ms: Of the fastest round.
        highest_ms: Of the slowest round.
        ratio: How many times faster it is than the table's anchor, the median over the rounds.
    """

    name: str
    median_ms: float
    lowest_ms: float
    highest_ms: float
    ratio: float


@dataclass(frozen=True)
class Comparison:
    """Contestants that took turns.

    Attributes:
        title: The work.
        anchor: The contestant whose ratio is 1.
        num_images: Images that one turn works on; 0 if it has none.
        rounds: Turns of each.
        contestants: In the order they were run.
    """

    title: str
    anchor: str
    num_images: int
    rounds: int
    contestants: tuple[Contestant, ...]


@dataclass(frozen=True)
class RowSpeed:
    """Forward passes of a row; see `resnet_zoo.inference.speed.Speed`."""

    name: str
    mode: str
    dtype: str
    batch_size: int
    images_per_s: float
    latency_ms: float


@dataclass(frozen=True)
class PrecisionLoss:
    """What a precision changes in the answers of trained weights.

    Attributes:
        row: The row.
        weights: The weight set.
        dtype: The precision, compared with float32.
        num_images: Test images.
        num_same: Images with the same best class as in float32; ``None`` if not counted.
        top1_float32: Percent; ``None`` if not measured.
        top1: Percent in this precision; ``None`` if not measured.
    """

    row: str
    weights: str
    dtype: str
    num_images: int
    num_same: int | None
    top1_float32: float | None
    top1: float | None


@dataclass(frozen=True)
class Measurement:
    """One run of ``scripts/benchmark.py``.

    Attributes:
        command: As typed, from the root of a checkout.
        date: ISO 8601.
        device: The machine.
        num_threads: Of torch.
        versions: Of Python and the packages.
        comparisons: With other packages.
        speeds: Of rows.
        precisions: What each changes.
    """

    command: str
    date: str
    device: str
    num_threads: int
    versions: dict[str, str]
    comparisons: tuple[Comparison, ...]
    speeds: tuple[RowSpeed, ...]
    precisions: tuple[PrecisionLoss, ...]


def read_measurements(path: Path = SHIPPED_PATH) -> tuple[Measurement, ...]:
    """Read measurements, the newest first.

    Raises:
        ArgumentError: The file is missing, or is not what ``scripts/benchmark.py --json`` writes.
    """
    try:
        content: Any = parse(read_regular(path).decode())
        expect(isinstance(content, dict), "an object", content, ())
        expect(content.get("schema_version") == SCHEMA_VERSION, str(SCHEMA_VERSION), content.get("schema_version"), ())
        found = decode(tuple[Measurement, ...], content.get("measurements"), ("measurements",))
        for measurement in found:
            _check_paces(measurement)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read: {error.strerror}. Pass a file of measurements.") from error
    except WrongValueError as wrong:
        where = ".".join(map(str, wrong.where))
        raise ArgumentError(f"{path} is not what `scripts/benchmark.py --json` writes: {where}: {wrong.why}.") from None
    except ValueError as error:
        raise ArgumentError(f"{path} is not valid JSON: {error}.") from error
    return tuple(reversed(found))


def _check_paces(measurement: Measurement) -> None:
    """Refuse times and speeds of zero, which nothing has: a page divides by them."""
    for comparison in measurement.comparisons:
        for one in comparison.contestants:
            expect(one.median_ms > 0, "a positive number", one.median_ms, (comparison.title, one.name, "median_ms"))
    for speed in measurement.speeds:
        expect(speed.images_per_s > 0, "a positive number", speed.images_per_s, (speed.name, "images_per_s"))


def measurements_as_json(measurements: Iterable[Measurement]) -> dict[str, Any]:
    """Return the content of a file of measurements, the oldest first."""
    return {"schema_version": SCHEMA_VERSION, "measurements": [asdict(found) for found in measurements]}


def setting_of_most(speeds: Sequence[RowSpeed]) -> tuple[str, str, int] | None:
    """Return the mode, dtype and batch size that most rows were measured in, and of these the fastest."""
    settings: dict[tuple[str, str, int], list[float]] = {}
    for speed in speeds:
        settings.setdefault((speed.mode, speed.dtype, speed.batch_size), []).append(speed.images_per_s)
    return max(settings, key=lambda key: (len(settings[key]), sum(settings[key])), default=None)
