"""From a manifest to the files of a site: every page as text, nothing written yet."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from resnet_zoo import __version__
from resnet_zoo.catalog.classes import class_names, limits_of
from resnet_zoo.catalog.datasets import official_accuracy
from resnet_zoo.catalog.listing import DATASET_TITLES, measured_on
from resnet_zoo.catalog.measurements import Measurement
from resnet_zoo.catalog.records import Entry, Manifest
from resnet_zoo.checks.report import ACCURACY_TOLERANCE_PCT, Report
from resnet_zoo.errors import ArgumentError
from resnet_zoo.site.drawing import HEIGHT_PX, boxes_of, drawing_width, layers_of, measure_layers
from resnet_zoo.site.errata import errata_of
from resnet_zoo.site.inputs import Speeds, Training
from resnet_zoo.site.numbers import Number, OtherAccuracy, count_states, is_of_run, numbers_of, other_accuracies
from resnet_zoo.site.plots import curve_data, scatter_data
from resnet_zoo.site.samples import Samples
from resnet_zoo.site.words import (
    citations_of,
    file_of,
    normalise_lines,
    preprocess_lines,
    provenance_of,
    recipe_table,
    snippets_of,
)
from resnet_zoo.weights.cache_contents import TestedAt, WeightFacts, best_tested, weight_facts

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
TEMPLATES, STATIC = HERE / "templates", HERE / "static"


@dataclass(frozen=True)
class Model:
    """A row with everything its page and its line in the table show."""

    entry: Entry
    report: Report | None
    trainings: tuple[Training, ...]

    @property
    def family(self) -> str:
        """``ResNet`` or ``ResNetV1D``."""
        return "ResNetV1D" if self.entry.architecture.startswith("resnetv1d") else "ResNet"

    @property
    def depth(self) -> int | None:
        """Layers, as the architecture's name counts them."""
        found = re.search(r"\d+$", self.entry.architecture)
        return int(found[0]) if found else None

    @property
    def title(self) -> str:
        """What a person calls the row; unique within a data set."""
        name = f"{self.family}-{self.depth}" if self.depth else self.entry.architecture
        return f"{name} {self.variant}".rstrip()

    @property
    def variant(self) -> str:
        """What stands between architecture and data set in the row's name: ``fp16``, for example."""
        pattern = f"{re.escape(self.entry.architecture)}_(?:(.*)_)?{self.entry.dataset}"
        found = re.fullmatch(pattern, self.entry.name)
        return found[1] or "" if found else ""

    @property
    def dataset_title(self) -> str:
        """The data set's own spelling."""
        return DATASET_TITLES[self.entry.dataset]

    @property
    def page(self) -> str:
        """The page's address in the site."""
        return f"models/{self.entry.name}.html"

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """The four published numbers; see `numbers_of`."""
        return numbers_of(self.entry, self.report)

    @cached_property
    def sets(self) -> tuple[WeightFacts, ...]:
        """The weight sets; a page is read elsewhere, so the caches of this machine say nothing."""
        return tuple(weight_facts([self.entry], with_caches=False))

    @property
    def default_set(self) -> WeightFacts:
        """The one that ``pretrained=True`` stands for."""
        return next(found for found in self.sets if found.is_default)

    @property
    def best(self) -> tuple[WeightFacts, TestedAt] | None:
        """The weight set with the highest top-1, and the size it has it at."""
        return best_tested(self.sets)

    @property
    def others(self) -> tuple[OtherAccuracy, ...]:
        """Accuracies of other weights or images; see `other_accuracies`."""
        return other_accuracies(self.entry)


@dataclass(frozen=True)
class Content:
    """What a site is made of."""

    manifest: Manifest
    manifest_sha256: str
    reports: Mapping[str, Report]
    trainings: Sequence[Training]
    speeds: Speeds
    measured: Sequence[Measurement] = ()
    samples: Samples = field(default_factory=Samples)
    docs: str = ""

    @cached_property
    def models(self) -> tuple[Model, ...]:
        """Every row of the manifest, in its order."""
        return tuple(
            Model(entry, self.reports.get(entry.name), tuple(t for t in self.trainings if t.recipe.row == entry.name))
            for entry in self.manifest.models
        )


def render_site(content: Content, environment: Environment) -> dict[str, bytes]:
    """Return every file of the site by its address in it; the same content gives the same bytes."""
    shared: dict[str, Any] = {
        "version": __version__,
        "manifest_sha256": content.manifest_sha256,
        "models": content.models,
        "measured_on": measured_on,
        "official_accuracy": official_accuracy,
    }
    shared |= {"docs": content.docs, "docs_is_relative": not urlsplit(content.docs).scheme}
    plots = {"data": scatter_data(content.models, content.speeds), "speed_setting": content.speeds.setting}
    pages = {
        "index.html": environment.get_template("index.html").render(
            **shared, root="", checked=_checked(content.models), plots=plots, facets=_facets(content.models)
        ),
        "speed.html": environment.get_template("speed.html").render(
            **shared, root="", measured=content.measured, pages={model.entry.name: model for model in content.models}
        ),
        "checks.html": environment.get_template("checks.html").render(
            **shared, root="", example=_example(content), tolerance=ACCURACY_TOLERANCE_PCT
        ),
    }
    template = environment.get_template("model.html")
    for model in content.models:
        pages[model.page] = template.render(**shared, root="../", model=model, **_sections(model, content))
    files = {address: text.encode() for address, text in pages.items()} | dict(content.samples.files)
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            files[f"static/{path.relative_to(STATIC).as_posix()}"] = path.read_bytes()
    return files


def template_environment() -> Environment:
    """Return what the pages are rendered with.

    Raises:
        ArgumentError: Jinja2 is not installed.
    """
    if find_spec("jinja2") is None:
        raise ArgumentError("Making a site needs Jinja2: pip install 'resnet-zoo[site]'.")
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _checked(models: Sequence[Model]) -> dict[str, dict[str, int]]:
    """Count what was checked: of the counts, which need nothing but the network, and of the accuracies."""
    numbers = [number for model in models for number in model.numbers]
    kinds = {"counts": ("params_m", "flops_g"), "accuracies": ("top1", "top5")}
    found = {kind: [number for number in numbers if number.key in keys] for kind, keys in kinds.items()}
    return {
        kind: {"all": len(chosen)} | {str(state): count for state, count in count_states(chosen).items()}
        for kind, chosen in found.items()
    }


def _facets(models: Sequence[Model]) -> dict[str, list[str]]:
    """Return what the table can be filtered by, each with its values in the order they occur."""
    return {
        "dataset": list(dict.fromkeys(model.dataset_title for model in models)),
        "family": list(dict.fromkeys(model.family for model in models)),
        "depth": [str(depth) for depth in sorted({model.depth for model in models if model.depth})],
    }


def _example(content: Content) -> Model:
    """Return the row whose counts explain the rules: ResNet-50 on ImageNet where there is one, else the first."""
    return next((model for model in content.models if model.entry.name == "resnet50_in1k"), content.models[0])


def _sections(model: Model, content: Content) -> dict[str, Any]:
    entry = model.entry
    shapes = measure_layers(entry)
    boxes = boxes_of(entry, shapes)
    return {
        "layers": layers_of(entry, shapes),
        "drawing": {"boxes": boxes, "width": drawing_width(boxes), "height": HEIGHT_PX},
        "preprocessing": preprocess_lines(entry),
        "normalising": normalise_lines(entry),
        "files": {tag: file_of(weights) for tag, weights in entry.weights.items()},
        "class_names": [name.partition(",")[0] for name in class_names(entry.classes)],
        "limits": limits_of(
            class_names(entry.classes), entry.input_size[-1], resizes=entry.preprocess.resize_backend is not None
        ),
        "samples": content.samples.of_row.get(entry.name, ()),
        "speeds": [(found, speed) for found in content.measured for speed in found.speeds if speed.name == entry.name],
        "precisions": [
            (found, loss) for found in content.measured for loss in found.precisions if loss.row == entry.name
        ],
        "snippets": snippets_of(entry),
        "recipe": recipe_table(entry),
        "curves": curve_data(entry, model.trainings),
        "provenance": provenance_of(entry, content.manifest_sha256, model.report, model.trainings),
        "report_is_of_run": model.report is not None and is_of_run(model.report),
        "errata": errata_of(entry),
        "citations": citations_of(entry),
    }
