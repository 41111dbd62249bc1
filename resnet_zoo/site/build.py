"""``build_site``: read everything, render everything, then write."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from resnet_zoo.base.files import sha256_of
from resnet_zoo.base.shown import shown
from resnet_zoo.catalog.manifest import current_manifest, manifest_path
from resnet_zoo.catalog.measurements import Measurement, read_measurements
from resnet_zoo.checks.report import Report
from resnet_zoo.errors import ArgumentError
from resnet_zoo.site.folder import check_target, write_site
from resnet_zoo.site.inputs import (
    Speeds,
    Training,
    find_trainings,
    read_reports,
    read_speeds,
    speeds_of,
    trainings_beside,
    unknown_rows,
)
from resnet_zoo.site.pages import Content, render_site, template_environment
from resnet_zoo.site.samples import Samples, classify_samples


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
    samples: str | os.PathLike[str] | None = None,
    docs: str = "",
    force: bool = False,
) -> Site:
    """Write the manifest in use as a static site that opens from disk.

    Run folders that lie in the manifest's own folders (``weights/`` of a checkout) are shown, and the speeds that ship
    with the package. All links between the pages are relative: the folder may stand anywhere inside another site.

    Args:
        out: A folder that is empty, not there yet, or holds a former site.
        runs: A folder with more run folders, at any depth.
        report: What ``resnet-zoo verify --format json`` wrote.
        benchmark: What ``resnet-zoo benchmark --format json`` wrote, instead of the shipped speeds.
        samples: A folder of images, by data set: ``cifar10/``, ``in1k/``, each with images or a folder per class. The
            default weights of each row classify those of its data set, if they are on this machine; small copies of
            the images become part of the site.
        docs: Where the documentation is: an https address, or a path relative to the site's folder.
        force: Write into a folder that holds other files too; they stay.

    Raises:
        ArgumentError: ``out`` holds other files, an input is not what it should be, or Jinja2 is not installed.
        DatasetError: A sample is not an image.
        RunError: A run folder cannot be read.
        ManifestError: The manifest is broken.
        OSError: The site cannot be written; every page that was there is still whole.
    """
    out = Path(out)
    check_target(out, force=force)
    docs, environment = checked_docs_address(docs), template_environment()
    manifest, path = current_manifest(), manifest_path()
    known = [entry.name for entry in manifest.models]
    found, left_out = ([], []) if runs is None else find_trainings(Path(runs))
    reports: dict[str, Report] = {} if report is None else read_reports(Path(report))
    measured = read_measurements()
    speeds = _shipped_speeds(measured) if benchmark is None else read_speeds(Path(benchmark))
    seen = Samples() if samples is None else classify_samples(manifest, Path(samples))
    trainings = _without_repeats([*trainings_beside(manifest, path.parent), *found])
    content = Content(manifest, sha256_of(path), reports, trainings, speeds, measured, seen, docs)
    files = render_site(content, environment)
    write_site(out, files, force=force)
    left_out += [
        *seen.left_out,
        *unknown_rows((training.recipe.row for training in found), known, str(runs)),
        *unknown_rows(reports, known, str(report)),
        *unknown_rows(speeds.images_per_s, known, str(benchmark)),
    ]
    pages = [address for address in files if address.endswith(".html")]
    return Site(out, len(pages), sum(map(len, files.values())), tuple(left_out))


def checked_docs_address(docs: str) -> str:
    """Return the address of the documentation.

    Raises:
        ArgumentError: It is neither an https address nor a relative path: a page must not run what is given here.
    """
    parts = urlsplit(docs)
    is_web = parts.scheme == "https" and bool(parts.netloc)
    if docs and not is_web and (parts.scheme or parts.netloc or docs.startswith(("/", "\\")) or not docs.isprintable()):
        raise ArgumentError(
            f"{shown(docs)} cannot be linked to. Pass an https address, or a path relative to the site, such as ../"
        )
    return docs


def _shipped_speeds(measured: Sequence[Measurement]) -> Speeds:
    """Return the newest speeds of rows that ship with the package."""
    newest = next((found for found in measured if found.speeds), None)
    return speeds_of(newest.speeds, newest.device) if newest else Speeds()


def _without_repeats(trainings: list[Training]) -> list[Training]:
    """Leave out run folders that are also there as the origin of a weight set: those have the same result."""
    kept: list[Training] = []
    for training in trainings:
        if training.result is None or all(training.result != other.result for other in kept):
            kept.append(training)
    return kept
