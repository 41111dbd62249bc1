"""The records of the manifest: one row, and everything it says. The types are the schema."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

from resnet_zoo.base.shown import shown_address
from resnet_zoo.errors import ArgumentError, UnknownModelError, UnknownWeightsError

ResizeBackend = Literal["cv2", "pillow", "pillow_bicubic"]
Stem = Literal["imagenet", "cifar", "deep"]
Dataset = Literal["cifar10", "cifar100", "in1k"]

MAX_EDGE = 2048
"""Pixels of the largest input: ResNet-50's first maps for a batch of four then fill a gigabyte."""

MAX_CLASSES = 1_000_000
"""Classes of the largest network; ImageNet-21k has 21,841."""


@dataclass(frozen=True)
class Preprocess:
    """How an image is prepared for a network: resize, centre crop, normalise; RGB, 0..255 scale.

    Attributes:
        resize_backend: Whose filter, bit for bit: ``cv2`` (bilinear, two taps, no antialiasing), ``pillow`` (bilinear,
            antialiased) or ``pillow_bicubic``. ``None``: images are used at their own size.
        short_edge: Pixels of the short edge after the resize.
        crop: Pixels of the square centre crop.
        mean: Per-channel mean.
        std: Per-channel standard deviation.
    """

    resize_backend: ResizeBackend | None
    short_edge: int | None
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Numbers:
    """Published numbers to compare and compute with; `Published` has their digits."""

    top1: float
    top5: float
    params_m: float
    flops_g: float


@dataclass(frozen=True)
class Published:
    """What the source printed, as strings exactly as printed, and the links beside them.

    Attributes:
        label: The name in the source's table (two models share one: never a key).
        top1: Top-1 accuracy in percent.
        top5: Top-5 accuracy in percent.
        params_m: Millions of parameters.
        flops_g: Billions of multiply-accumulates, by the rule of `count_flops`.
        source: The table that lists the model.
        config_url: Training configuration.
        log_url: Training log.
    """

    label: str
    top1: str
    top5: str
    params_m: str
    flops_g: str
    source: str
    config_url: str
    log_url: str

    @property
    def numbers(self) -> Numbers:
        """The same as numbers: ``published.numbers.top1 > 76``."""
        return Numbers(*map(float, (self.top1, self.top5, self.params_m, self.flops_g)))


@dataclass(frozen=True)
class Exact:
    """Integers counted by ``scripts/sync_manifest.py``, never typed.

    Attributes:
        params: Number of parameters.
        flops: By the table's rule (head off).
        flops_with_head: The same with the classifier.
        macs: Convolutions and linear layers only.
        state_dict_sha256: Fingerprint of the state dict's keys, dtypes and shapes.
    """

    params: int
    flops: int
    flops_with_head: int
    macs: int
    state_dict_sha256: str


HUB_SCHEME = "hf://"
"""Begins an address on the Hugging Face Hub: ``hf://owner/repository@commit/file``."""


@dataclass(frozen=True)
class WeightsFile:
    """A published safetensors file: where it is, sha256 of 64 hex digits, size.

    ``path`` is a relative POSIX path, looked for under the manifest's ``base_urls``; or the address of a file on the
    Hugging Face Hub, at a commit of somebody else's repository, which is used where the Hub's own client keeps it.
    """

    path: str
    sha256: str
    size_bytes: int

    @property
    def is_on_hub(self) -> bool:
        """Whether the file is in somebody else's repository on the Hub."""
        return self.path.startswith(HUB_SCHEME)

    @property
    def name(self) -> str:
        """Its name in a mirror; for a file on the Hub, where all have the same name, the repository's."""
        if self.is_on_hub:
            repository = self.path.removeprefix(HUB_SCHEME).partition("@")[0]
            return f"{PurePosixPath(repository).name}.safetensors"
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Witness:
    """Who vouches for a checkpoint's whole sha256, and what else they report.

    Attributes:
        size_bytes: Its size; ``None`` if they do not report it.
        date: When it was seen, ISO 8601.
        source: Who saw it: ``fetched from its address``, or public records.
    """

    size_bytes: int | None
    date: str
    source: str


@dataclass(frozen=True)
class UpstreamOrigin:
    """The checkpoint a weight set was converted from.

    Attributes:
        url: Its address.
        sha256_prefix: What is known of its sha256: 8 digits from its name, or all 64.
        witness: Who vouches for all 64; ``None`` where only those of the name are known.
    """

    url: str
    sha256_prefix: str
    witness: Witness | None

    @property
    def file_name(self) -> str:
        """The checkpoint's own file name."""
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def shown_url(self) -> str:
        """Its address as it may be shown, without what lets one in."""
        return shown_address(self.url)


@dataclass(frozen=True)
class PageOrigin:
    """The page on which others describe the weights that they trained."""

    page: str


@dataclass(frozen=True)
class RunOrigin:
    """The recipe and run folder a weight set was trained with."""

    recipe: str
    run: str


@dataclass(frozen=True)
class Measured:
    """What a command measured with a weight set: accuracy in percent, and everything it depended on."""

    top1: float
    top5: float
    num_images: int
    dataset: str
    date: str
    versions: dict[str, str]
    device: str


@dataclass(frozen=True)
class OwnAccuracy:
    """What the publisher of a weight set printed for it, exactly as printed, and how images were prepared.

    Attributes:
        top1: Top-1 accuracy in percent.
        top5: Top-5 accuracy in percent.
        preprocess: How images were prepared; its crop is the test size.
        source: Where it was printed.
    """

    top1: str
    top5: str
    preprocess: Preprocess
    source: str


@dataclass(frozen=True)
class WeightSet:
    """One set of weights for a model; what does not exist yet is ``None``.

    Attributes:
        file: The safetensors file.
        origin: Where the values come from.
        published: What its publisher printed, the usual test size first; empty for the weights that the model's own
            numbers describe, and for those trained here with the model's preprocessing.
        measured: What was measured with these weights.
        license: Of the weights.
    """

    file: WeightsFile | None
    origin: UpstreamOrigin | PageOrigin | RunOrigin
    published: tuple[OwnAccuracy, ...]
    measured: Measured | None
    license: str


@dataclass(frozen=True)
class Entry:
    """One model of the zoo.

    Attributes:
        name: Unique; a Python identifier.
        aliases: Other names of the model.
        architecture: Key of ``resnet.ARCHITECTURES``.
        stem: ``imagenet`` (7x7, pooled), ``cifar`` (3x3, not pooled) or ``deep`` (three 3x3, pooled).
        dataset: ``cifar10``, ``cifar100`` or ``in1k``.
        num_classes: Width of the classifier.
        input_size: Channels, height, width.
        preprocess: How an image is prepared.
        recipe: Key of ``recipes.RECIPES``.
        classes: Name of the list of class names, in label order.
        published: What the source printed.
        exact: What is counted.
        weights: Weight sets by tag.
        default_weights: The tag that ``pretrained=True`` stands for.
    """

    name: str
    aliases: tuple[str, ...]
    architecture: str
    stem: Stem
    dataset: Dataset
    num_classes: int
    input_size: tuple[int, ...]
    preprocess: Preprocess
    recipe: str
    classes: str
    published: Published
    exact: Exact
    weights: dict[str, WeightSet]
    default_weights: str

    def weight_set(self, tag: str) -> WeightSet:
        """Return the weight set of a tag.

        Raises:
            UnknownWeightsError: The model has no such tag.
        """
        try:
            return self.weights[tag]
        except KeyError:
            raise UnknownWeightsError(self.name, tag, self.weights) from None

    def chosen(self, weights: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
        """Return the weights that are meant: the default tag for ``None`` and for ``DEFAULT``, torchvision's word."""
        if weights is None or (isinstance(weights, str) and weights.upper() == "DEFAULT"):
            return self.default_weights
        return weights


@dataclass(frozen=True)
class Manifest:
    """All rows, in table order."""

    schema_version: int
    base_urls: tuple[str, ...]
    preprocess: dict[str, Preprocess]
    models: tuple[Entry, ...]

    def find(self, name: str) -> Entry:
        """Return the row with this name or alias.

        Raises:
            UnknownModelError: No row has this name.
        """
        for entry in self.models:
            if name == entry.name or name in entry.aliases:
                return entry
        raise UnknownModelError(name, [known for entry in self.models for known in (entry.name, *entry.aliases)])


def is_tag(weights: str | os.PathLike[str]) -> bool:
    """Tell whether weights are named by a tag: a word without a suffix that is not the name of a file."""
    return isinstance(weights, str) and not Path(weights).suffix and not Path(weights).exists()


def used_with(entry: Entry, weights: str | os.PathLike[str] | None, *, size: int | None = None) -> Entry:
    """Return a row with the preprocessing, input size and published accuracy of one of its weight sets.

    Args:
        entry: The row.
        weights: A tag; a path, ``None`` or a set without numbers of its own leaves the row unchanged.
        size: Height and width to test at, one that the set was tested at by its publisher; ``None`` means the first.

    Raises:
        UnknownWeightsError: The row has no such tag.
        ArgumentError: The set was not tested at this size.
    """
    known = entry.weights.get(weights) if isinstance(weights, str) else None
    if known is None and weights is not None and is_tag(weights):
        raise UnknownWeightsError(entry.name, str(weights), entry.weights)
    found = known.published if known is not None else ()
    sizes = [own.preprocess.crop for own in found] or [entry.input_size[-1]]
    if size is not None and size not in sizes:
        title = entry.name if weights is None else f"{entry.name} {weights}"
        raise ArgumentError(f"{title} is tested at {' or '.join(map(str, sizes))} pixels, got {size}.")
    own = next((own for own in found if size in (None, own.preprocess.crop)), None)
    if own is None or own.preprocess.crop is None:
        return entry
    return dataclasses.replace(
        entry,
        preprocess=own.preprocess,
        input_size=(entry.input_size[0], own.preprocess.crop, own.preprocess.crop),
        published=dataclasses.replace(entry.published, top1=own.top1, top5=own.top5, source=own.source),
    )


def to_json(record: Any) -> Any:
    """Turn a manifest record into plain JSON values."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {field.name: to_json(getattr(record, field.name)) for field in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(value) for value in record]
    return record
