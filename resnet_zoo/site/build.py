"""``build_site``: read everything, render everything, then write."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import current_manifest, manifest_path
from resnet_zoo.checks.report import Report
from resnet_zoo.site.folder import check_target, write_site
from resnet_zoo.site.inputs import (
    Speeds,
    Training,
    find_trainings,
    read_reports,
    read_speeds,
    shipped_trainings,
    unknown_rows,
)
from resnet_zoo.site.pages import Content, render_site


@dataclass(frozen=True)
class Site:
    """What `build_site` wrote.

    Attributes:
        folder: Where.
        num_pages: HTML pages in it.
        size_bytes: Of all its files.
        left_out: Why something that was given is not in it, a sentence each.
    """

    folder: Path
    num_pages: int
    size_bytes: int
    left_out: tuple[str, ...]


def build_site(
    out: str | os.PathLike[str],
    *,
    runs: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    benchmark: str | os.PathLike[str] | None = None,
    force: bool = False,
) -> Site:
    """Write the manifest in use as a static site that opens from disk.

    Run folders that weight sets of the manifest came from are shown where they lie beside it.

    Args:
        out: A folder that is empty, not there yet, or holds a former site.
        runs: A folder with more run folders, at any depth.
        report: What ``resnet-zoo verify --format json`` wrote.
        benchmark: What ``resnet-zoo benchmark --format json`` wrote.
        force: Write into a folder that holds other files too; they stay.

    Raises:
        ArgumentError: ``out`` holds other files, an input is not what it should be, or Jinja2 is not installed.
        RunError: A run folder cannot be read.
        ManifestError: The manifest is broken.
        OSError: The site cannot be written; existing files are unchanged.
    """
    out = Path(out)
    check_target(out, force=force)
    manifest, path = current_manifest(), manifest_path()
    known = [entry.name for entry in manifest.models]
    found, left_out = ([], []) if runs is None else find_trainings(Path(runs))
    reports: dict[str, Report] = {} if report is None else read_reports(Path(report))
    speeds = Speeds() if benchmark is None else read_speeds(Path(benchmark))
    shipped = [training for entry in manifest.models for training in shipped_trainings(entry, path.parent)]
    content = Content(manifest, sha256_of(path), reports, _without_repeats([*shipped, *found]), speeds)
    files = render_site(content)
    write_site(out, files, force=force)
    left_out += [
        *unknown_rows((training.recipe.row for training in found), known, str(runs)),
        *unknown_rows(reports, known, str(report)),
        *unknown_rows(speeds.images_per_s, known, str(benchmark)),
    ]
    pages = [address for address in files if address.endswith(".html")]
    return Site(out, len(pages), sum(map(len, files.values())), tuple(left_out))


def _without_repeats(trainings: list[Training]) -> list[Training]:
    """Leave out run folders that are also there as the origin of a weight set: those have the same result."""
    kept: list[Training] = []
    for training in trainings:
        if training.result is None or all(training.result != other.result for other in kept):
            kept.append(training)
    return kept
