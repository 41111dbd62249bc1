"""Model cards for the Hugging Face Hub, written from the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resnet_zoo.catalog.classes import class_names as list_of_classes
from resnet_zoo.catalog.classes import limits_of, listed
from resnet_zoo.catalog.datasets import official_accuracy
from resnet_zoo.catalog.listing import DATASET_TITLES
from resnet_zoo.catalog.records import Entry, PageOrigin, UpstreamOrigin, WeightSet
from resnet_zoo.runs.records import EnvironmentFile, ResultFile
from resnet_zoo.weights.network_header import RecordedAccuracy

DATASET_IDS = {"cifar10": "cifar10", "cifar100": "cifar100", "in1k": "imagenet-1k"}
"""What the Hub calls the data sets."""

OWN_LICENSE = "Apache-2.0"
"""Of weights that this project trains: its own licence."""

_PUBLISHED = ("params_m", "flops_g", "top1", "top5")
_HEADERS = ("Params (M)", "FLOPs (G)", "Top-1 (%)", "Top-5 (%)")


def model_card(
    entry: Entry,
    repository: str,
    *,
    num_classes: int,
    class_names: Sequence[str] | None,
    sha256: str,
    licence: str,
    recorded: RecordedAccuracy | None = None,
) -> str:
    """Return the card of one network.

    Args:
        entry: The row whose network it is.
        repository: ``owner/name``.
        num_classes: Width of its classifier.
        class_names: In label order; ``None`` if they are not known.
        sha256: Of its weights.
        licence: Of its weights.
        recorded: What was measured with it, if that is known.
    """
    published = entry.published
    names = class_names or [f"class {label}" for label in range(num_classes)]
    return _page(
        _front_matter([entry], [licence]),
        f"# {repository.partition('/')[2]}\n",
        f"The network of `{entry.name}` ({entry.architecture}, {num_classes} classes), for image classification.\n",
        "```python\n"
        "import resnet_zoo\n\n"
        f'model = resnet_zoo.create_model("hf-hub:{repository}").eval()\n'
        f'transform = resnet_zoo.open_network("hf-hub:{repository}").transform\n'
        "```\n",
        f"sha256 of `model.safetensors`, checked at every load: `{sha256}`\n",
        *_limits(entry, names),
        *(_recorded(recorded, repository) if recorded else ()),
        "## Published numbers of the model\n",
        f"As printed by the source ({published.source}, {DATASET_TITLES[entry.dataset]}); nothing here was measured "
        "with the weights of this repository.\n",
        _table(("", *_HEADERS), [(published.label, *(getattr(published, key) for key in _PUBLISHED))]),
    )


def _limits(entry: Entry, names: Sequence[str]) -> tuple[str, ...]:
    """Return what a network knows and what it does not, as blocks of a page."""
    resizes = entry.preprocess.resize_backend is not None
    return (
        "## Classes and limits\n",
        f"It knows {listed(names, 20)}.\n",
        f"{limits_of(names, entry.input_size[-1], resizes=resizes)}\n",
    )


def _recorded(found: RecordedAccuracy, repository: str) -> tuple[str, ...]:
    """Return what was measured with a network when it was trained, as blocks of a page."""
    also = " They also chose the epoch, which flatters the network." if found.chose_epoch else ""
    where = "".join(f", {text}" for text in (found.device, found.torch and f"torch {found.torch}") if text)
    right = f"{found.correct1:,} of {found.num_images:,} {found.images} images, which it was not trained on"
    return (
        "## Accuracy\n",
        f"Top-1 {found.top1:.2f}%: {right}{where}.{also} With these images in `DIR`, this measures it again:\n",
        f"```bash\nresnet-zoo verify hf-hub:{repository} --data DIR\n```\n",
    )


def run_card(entry: Entry, result: ResultFile, environment: EnvironmentFile) -> str:
    """Return the card of weights that a run trained.

    Args:
        entry: The row.
        result: What the run reached.
        environment: What it depended on.
    """
    published = entry.published
    changed = ", ".join(f"{field} = {value}" for field, value in result.overridden.items())
    rows = [
        ("published", DATASET_TITLES[entry.dataset], published.top1, published.top5),
        ("this run", result.dataset, f"{result.top1:.2f}", f"{result.top5:.2f}"),
    ]
    official = official_accuracy(entry.dataset, result, "top1")
    if official is None:
        note = f"Measured on {result.dataset}, not the official test set: the two lines are not comparable.\n"
    else:
        note = f"Top-1: {official.words}.\n" if official.words else ""
    return _page(
        _front_matter([entry], [OWN_LICENSE]),
        f"# {entry.name}, retrained\n",
        f"Recipe `{result.recipe}`{f', changed: {changed}' if changed else ''}; seed {result.seed}; {result.epochs} "
        f"epochs in {result.train_seconds:.0f} s on {result.device} ({environment.num_devices} x "
        f"{environment.precision}, torch {environment.versions['torch']}). The last epoch is the result; the "
        "test images chose nothing.\n",
        _table(("", "Data set", "Top-1 (%)", "Top-5 (%)"), rows),
        note,
        *_limits(entry, list_of_classes(entry.classes)),
        f"sha256 of `{result.weights.path}`: `{result.weights.sha256}`\n",
        "Check every number from this folder's files: `resnet-zoo verify --run . --data DIR`.\n",
    )


def zoo_card(entries: Sequence[Entry], repository: str) -> str:
    """Return the card of a repository that holds the weight files of many rows.

    Args:
        entries: The rows; weight sets without a file, and those of others, are left out.
        repository: ``owner/name``.
    """
    every = [(entry, tag, weights) for entry in entries for tag, weights in entry.weights.items()]
    sets = [found for found in every if found[2].file and not found[2].published]
    return _page(
        _front_matter([entry for entry, _, _ in sets], [weights.license for _, _, weights in sets]),
        f"# {repository.partition('/')[2]}\n",
        "Weights of resnet_zoo as safetensors. `resnet_zoo.create_model(NAME, pretrained=True)` fetches them, and "
        "checks the full sha256 at every load.\n",
        "## Accuracy\n",
        "Published: as printed by the source. Measured: with the file of this repository, `-` if not yet.\n",
        _table(
            ("Model", "Data set", *_HEADERS, "Measured top-1 (%)", "Measured top-5 (%)"),
            [_accuracy(entry, weights) for entry, _, weights in sets],
        ),
        "## Files\n",
        _table(("Model", "Weights", "File", "Bytes", "sha256"), [_file(*found) for found in sets]),
        "## Sources\n",
        "The files were converted from these: same values, different keys, half precision widened to float32.\n",
        _table(("Model", "Weights", "Source", "sha256 of the source"), [_source(*found) for found in sets]),
    )


def _accuracy(entry: Entry, weights: WeightSet) -> tuple[str, ...]:
    measured = weights.measured
    numbers = (f"{measured.top1:.2f}", f"{measured.top5:.2f}") if measured else ("-", "-")
    published = (getattr(entry.published, key) for key in _PUBLISHED)
    return (f"`{entry.name}`", DATASET_TITLES[entry.dataset], *published, *numbers)


def _file(entry: Entry, tag: str, weights: WeightSet) -> tuple[str, ...]:
    file = weights.file
    return (f"`{entry.name}`", tag, file.path, str(file.size_bytes), f"`{file.sha256}`") if file else ()


def _source(entry: Entry, tag: str, weights: WeightSet) -> tuple[str, ...]:
    origin = weights.origin
    if isinstance(origin, UpstreamOrigin):
        return (f"`{entry.name}`", tag, origin.shown_url, f"`{origin.sha256_prefix}`")
    if isinstance(origin, PageOrigin):
        return (f"`{entry.name}`", tag, origin.page, "-")
    return (f"`{entry.name}`", tag, f"trained: recipe {origin.recipe}, run {origin.run}", "-")


def _front_matter(entries: Iterable[Entry], licenses: Iterable[str]) -> str:
    """Return the block of YAML that the Hub reads; several licences are ``other`` there."""
    names = sorted({name.lower() for name in licenses})
    datasets = dict.fromkeys(DATASET_IDS[entry.dataset] for entry in entries)
    lines = [
        "---",
        f"license: {names[0] if len(names) == 1 else 'other'}",
        "library_name: resnet_zoo",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("image-classification", "pytorch", "resnet", "safetensors")),
        "datasets:",
        *(f"- {name}" for name in datasets),
        "---",
    ]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _page(*blocks: str) -> str:
    return "\n".join(blocks)
