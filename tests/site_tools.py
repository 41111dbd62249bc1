"""What a site is made from, written on the spot, and its pages, read strictly."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.catalog.manifest import get_entry, use_manifest
from resnet_zoo.catalog.recipes import RECIPES
from resnet_zoo.catalog.records import to_json
from resnet_zoo.checks.report import Check, Report, reports_as_json
from resnet_zoo.runs.folder import format_line, write_json
from resnet_zoo.runs.records import LogStep, RecipeFile, ResultFile, RunWeights
from resnet_zoo.site import build_site
from tests.run_folders import ENVIRONMENT, EPOCH, NAME, RESULT, ROOT, SHA

WEIGHTS_SHA = "cd" * 32
DATASET, DEVICE = "cifar10-jpeg", "a test's machine"


def write_run(folder: Path, *, row: str = NAME, epochs: int = 4, finished: bool = True) -> Path:
    """Write a run folder's small files; its numbers are made up but agree with each other."""
    folder.mkdir(parents=True)
    overridden = {"epochs": epochs}
    values = to_json(RECIPES["cifar10"]) | overridden
    write_json(folder / "recipe.json", RecipeFile(row=row, recipe="published", overridden=overridden, values=values))
    environment = replace(
        ENVIRONMENT,
        commit="c0" * 20,
        dirty=False,
        code_sha256="ef" * 32,
        command=("scripts/reproduce.py", row),
        versions={"torch": "2.14.1"},
        device=DEVICE,
        precision="float32",
        data=replace(ENVIRONMENT.data, train=DATASET, test=DATASET),
    )
    write_json(folder / "environment.json", environment)
    lines = [format_line(LogStep(epoch=0, step=0, loss=2.3, lr=0.1)), *map(_epoch_line, range(epochs))]
    (folder / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    if finished:
        write_json(folder / "result.json", _result(row, epochs))
    return folder


def _epoch_line(epoch: int) -> str:
    accuracy = None if epoch == 0 else 60.0 + 10 * epoch
    line = replace(
        EPOCH,
        epoch=epoch,
        step=epoch,
        loss=2.0 / (epoch + 1),
        images=50_000,
        seconds=100.0,
        images_per_s=500.0,
        top1=accuracy,
        top5=accuracy and 99.0,
    )
    return format_line(line)


def _result(row: str, epochs: int) -> ResultFile:
    entry = get_entry(row)
    return replace(
        RESULT,
        row=row,
        recipe="published",
        overridden={"epochs": epochs},
        epochs=epochs,
        steps=epochs,
        dataset=DATASET,
        correct5=9_978,
        top5=99.78,
        params=entry.exact.params,
        flops=entry.exact.flops,
        train_seconds=400.0,
        images_per_s=500.0,
        device=DEVICE,
        weights=RunWeights(path=f"{row}-cdcdcdcd.safetensors", sha256=WEIGHTS_SHA, size_bytes=1000, dtype="bfloat16"),
    )


def write_report(path: Path, *reports: Report) -> Path:
    """Write reports as ``resnet-zoo verify --format json`` does."""
    path.write_text(json.dumps(reports_as_json(reports)), encoding="utf-8")
    return path


def a_report(name: str = NAME, *, top1: str = "94.80", status: Any = "passed") -> Report:
    """Return a report with one check of an accuracy, and with the hashes of what was loaded."""
    chain = {
        "manifest_sha256": SHA,
        "source": get_entry(name).published.log_url,
        "source_sha256": "bd6371c8" + 56 * "0",
        "pin": "32-bit pin",
        "layout": "openmmlab",
        "file": "a.safetensors",
        "file_sha256": SHA,
        "tensors_sha256": "12" * 32,
    }
    check = Check("top1", status, get_entry(name).published.top1, top1, "10000 images of cifar10, tolerance 0.1")
    return Report(name, (Check("manifest", "passed", detail="schema"), check), chain)


def write_benchmark(path: Path, speeds: dict[str, float], **changes: Any) -> Path:
    """Write speeds as ``resnet-zoo benchmark --format json`` does."""
    setting = {"mode": "fast", "dtype": "float32", "batch_size": 16, "num_runs": 5, "latency_ms": 1.0}
    lines = [{"name": name, "images_per_s": pace, **setting, **changes} for name, pace in speeds.items()]
    path.write_text(json.dumps({"device": DEVICE, "num_threads": 2, "speeds": lines}), encoding="utf-8")
    return path


def write_manifest(path: Path, change: Callable[[Any], None]) -> Path:
    """Write a copy of the package's manifest, changed."""
    content = json.loads((ROOT / "weights_manifest.json").read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def full_site(home: Path, *reports: Report, speeds: dict[str, float], epochs: int) -> Path:
    """Make a site with everything: shipped weights and their run, another run, reports, speeds."""
    manifest = write_manifest(home / "zoo.json", retrained)
    write_run(home / "weights" / "resnet18_cifar10-retrained-cdcdcdcd")
    write_run(home / "runs" / "20261124T203719Z", epochs=epochs, finished=False)
    report = write_report(home / "verify.json", *reports)
    benchmark = write_benchmark(home / "speed.json", speeds)
    with use_manifest(manifest):
        build_site(home / "out", runs=home / "runs", report=report, benchmark=benchmark)
    return home / "out"


def retrained(content: Any) -> None:
    """Give the first row a weight set that this project trained, with its file and what it reaches."""
    content["base_urls"] = ["weights"]
    content["models"][0]["weights"]["retrained"] = {
        "file": {
            "path": "resnet18_cifar10-retrained-cdcdcdcd.safetensors",
            "sha256": WEIGHTS_SHA,
            "size_bytes": 22_378_188,
        },
        "origin": {"recipe": "published", "run": "weights/resnet18_cifar10-retrained-cdcdcdcd"},
        "measured": {
            "top1": 93.12,
            "top5": 99.78,
            "num_images": 10_000,
            "dataset": DATASET,
            "date": "2026-11-24",
            "versions": {"torch": "2.14.1"},
            "device": DEVICE,
        },
        "published": [],
        "license": "Apache-2.0",
    }


# --- reading a site -----------------------------------------------------------------------------------------------

VOID = {"meta", "link", "input", "br", "path", "rect", "img", "circle"}


class Page(HTMLParser):
    """A page, parsed strictly: what it says, what it has, and where it leads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        else:
            self.text += data

    @property
    def ids(self) -> list[str]:
        """Every id, in order."""
        return [attributes["id"] for _, attributes in self.elements if attributes.get("id")]  # type: ignore[misc]

    @property
    def links(self) -> Iterator[str]:
        """Everything it links to or loads."""
        for _, attributes in self.elements:
            yield from (attributes[key] for key in ("href", "src") if attributes.get(key))  # type: ignore[misc]


@functools.cache
def pages_of(folder: Path) -> dict[str, Page]:
    """Return every page of a site by its address; the site does not change any more."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.html")}
    return {address: Page(path.read_text(encoding="utf-8")) for address, path in sorted(paths.items())}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- a browser ----------------------------------------------------------------------------------------------------

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}

Open = Callable[..., Any]
"""Called with an address in the site and Playwright's options for a context; returns Playwright's page."""

INKED = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.some(value => value !== 0);
}"""

PLANT_FAULTS = """() => document.querySelector("main").insertAdjacentHTML("beforeend",
  '<img src="data:,"><input type="text"><p style="color: #bbb; background: #ccc">faint</p>')"""
"""Puts what nobody can read into a page."""


def grave_findings(page: Any) -> list[str]:
    """Return what axe-core calls serious or critical on a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra `browser`)")
    options = {
        "resultTypes": ["violations"],
        "preload": False,
    }  # else it fetches style sheets, which these pages forbid
    found = axe.Axe().run(page, options=options).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes'][:3]]}" for one in grave]
