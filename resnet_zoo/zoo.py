"""From a name to a network: a row, a repository on the Hugging Face Hub, or a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.progress import download_bar
from resnet_zoo.catalog.classes import class_names as names_of_classes
from resnet_zoo.catalog.manifest import get_entry, use_manifest
from resnet_zoo.catalog.names import HUB_PREFIX, kind_of
from resnet_zoo.catalog.records import Entry, used_with
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.transform import Transform
from resnet_zoo.network.building import architecture_of, build
from resnet_zoo.network.features import STAGES, FeatureExtractor, check_layers
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.hub import open_repository
from resnet_zoo.weights.loading import LoadedWeights, assign_weights, open_weights
from resnet_zoo.weights.network_file import read_network
from resnet_zoo.weights.places import LocalWeights
from resnet_zoo.weights.provenance import Chain, chain_of


def create_model(
    name: str | os.PathLike[str],
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    device: torch.device | str | None = None,
    manifest: str | os.PathLike[str] | None = None,
) -> ResNet:
    """Return a row's network, in training mode as every ``nn.Module`` starts; call ``.eval()`` to use it.

    Args:
        name: A row or alias (`list_models`); or ``hf-hub:owner/name[@revision]`` for a network on the Hugging Face Hub,
            or the path of one that `save_network` wrote: these are always loaded with their weights, and keep their
            numbers of classes and (3 asked for) of channels.
        pretrained: Load the row's default weights. Without ``weights`` and ``pretrained`` the values are fresh.
        weights: A tag of the row (``openmmlab``), or the path of a .safetensors or .pth file.
        num_classes: Another number of classes: the classifier is freshly initialised, every other tensor kept. A
            file whose classifier already has that many classes is loaded whole.
        in_channels: Another number of image channels: the first convolution is adapted (see `adapt_input`). A file
            whose first convolution already has that many channels is loaded whole.
        device: Where the network ends up: a torch device, or ``auto``.
        manifest: The manifest file of a private zoo; ``None`` means the one in use (``RESNET_ZOO_MANIFEST``).

    Raises:
        UnknownModelError: No row has this name.
        UnknownWeightsError: ``weights`` is neither a tag of the row nor a file.
        WeightsUnavailableError: The weights are unavailable. Random values never take their place.
        DownloadError: Every source of the weights failed; lists what each said.
        WeightsMismatchError: The file is for another network; lists the keys and names the rows it fits.
        IntegrityError, UnsafeCheckpointError, CheckpointError: As `load_checkpoint`.
        ArgumentError: ``num_classes`` or ``in_channels`` is not positive, or the device is not there.
    """
    target = None if device is None else resolve_device(device)
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value is not None and value < 1:
            raise ArgumentError(f"Expected a positive {argument}, got {value}.")
    with use_manifest(manifest):
        if kind_of(name) == "row" and weights is None and not pretrained:
            model = build(get_entry(str(name)), num_classes=num_classes, in_channels=in_channels)
        else:
            network = open_network(name, weights=weights)
            channels = None if in_channels == 3 else in_channels
            model = network.load(num_classes=num_classes, in_channels=channels)
    return model if target is None else model.to(target)


def create_feature_extractor(
    name: str | os.PathLike[str],
    *,
    layers: Sequence[str] = STAGES,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    in_channels: int = 3,
    device: torch.device | str | None = None,
    manifest: str | os.PathLike[str] | None = None,
) -> FeatureExtractor:
    """Return the part of a network that computes some layers, in training mode like any new module.

    Args:
        name: A row or alias, ``hf-hub:owner/name``, or the path of a network file, as `create_model`.
        layers: The layers to return, in any order (a table is in the module's docstring): ``stem.relu``, ``stem``,
            ``stage1`` to ``stage4``, a block as ``stage3.5``, ``pool``, ``logits``.
        pretrained: Load the row's default weights.
        weights: A tag of the row, or the path of a weights file, as `create_model`.
        in_channels: Another number of image channels, as `create_model`.
        device: Where it ends up: a torch device, or ``auto``.
        manifest: The manifest file of a private zoo, as `create_model`.

    Raises:
        UnknownLayerError: The network has no layer of that name.
        ArgumentError: ``layers`` is empty, names one twice, or is not a sequence of names; or as `create_model`.
        ZooError: Everything else that `create_model` raises.
    """
    with use_manifest(manifest):
        if kind_of(name) == "row":  # before anything is fetched
            check_layers(layers, architecture_of(get_entry(str(name))).depths)
        model = create_model(name, pretrained=pretrained, weights=weights, in_channels=in_channels, device=device)
    return FeatureExtractor(model, layers=layers)


@dataclass(frozen=True)
class Network:
    """A network that was named, and everything needed to use it.

    Attributes:
        name: What it was named by.
        entry: Its row; number of classes, preprocessing and input size are the network's own.
        class_names: In label order.
        in_channels: Image channels.
        obtain: Reads the weights.
    """

    name: str
    entry: Entry
    class_names: tuple[str, ...]
    in_channels: int
    obtain: Callable[[], LoadedWeights]

    @cached_property
    def weights(self) -> LoadedWeights:
        """The weights, every byte hashed; those of a row are read (and fetched) when they are first asked for.

        Raises:
            UnknownWeightsError, WeightsUnavailableError, DownloadError, IntegrityError, UnsafeCheckpointError,
                CheckpointError: As `create_model`.
        """
        return self.obtain()

    @cached_property
    def chain(self) -> Chain:
        """Where the weights come from, every link with its hash."""
        return chain_of(self.weights)

    @property
    def transform(self) -> Transform:
        """What turns an RGB image of any size into the network's input.

        Raises:
            ArgumentError: The network takes images of another number of channels.
        """
        if self.in_channels != 3:
            raise ArgumentError(f"{self.name} takes images with {self.in_channels} channels; these are RGB, with 3.")
        return Transform(self.entry.preprocess, self.entry.input_size, any_size=True)

    def load(self, *, num_classes: int | None = None, in_channels: int | None = None) -> ResNet:
        """Return the network with its weights, in training mode as every ``nn.Module`` starts.

        Args:
            num_classes: Another number of classes, as in `create_model`.
            in_channels: Another number of image channels, as in `create_model`; ``None`` means its own.

        Raises:
            WeightsMismatchError: The weights do not fit; others as for ``weights``.
        """
        channels = self.in_channels if in_channels is None else in_channels
        return assign_weights(self.entry, self.weights.checkpoint, num_classes=num_classes, in_channels=channels)


def open_network(
    name: str | os.PathLike[str], *, weights: str | os.PathLike[str] | None = None, size: int | None = None
) -> Network:
    """Find a network by name. A file or repository is read and checked at once, a row's weights when they are needed.

    Args:
        name: A row or alias; ``hf-hub:owner/name[@revision]``; or the path of a file that `save_network` wrote.
        weights: For a row: a tag or path, as in `create_model`; ``None`` means its default weights.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.

    Raises:
        UnknownModelError: It is neither a row nor the form of an address or a path.
        ArgumentError: ``weights`` was given for a file or repository, which has its own; or a size that these weights
            were not tested at.
        DownloadError: A repository is unavailable.
        WeightsUnavailableError: There is no such file.
        WeightsMismatchError, IntegrityError, UnsafeCheckpointError, CheckpointError: As `create_model`.
    """
    kind = kind_of(name)
    if kind == "row":
        return _of_row(get_entry(str(name)), weights, size)
    if weights is not None:
        raise ArgumentError(f"{name} has its own weights. Leave out {str(weights)!r}, or name a row instead.")
    found = _of_repository(str(name)) if kind == "repository" else _of_file(name)
    used_with(found.entry, None, size=size)
    return found


def _of_row(entry: Entry, weights: str | os.PathLike[str] | None, size: int | None) -> Network:
    chosen = entry.default_weights if weights is None else weights
    entry = used_with(entry, chosen, size=size)

    def obtain() -> LoadedWeights:
        with download_bar() as progress:
            return open_weights(entry, chosen, progress=progress)

    return Network(entry.name, entry, tuple(names_of_classes(entry.classes)), entry.input_size[0], obtain)


def _of_file(path: str | os.PathLike[str]) -> Network:
    found = read_network(path)
    loaded = LoadedWeights(found.checkpoint, None)
    return Network(os.fspath(path), found.entry, found.class_names, found.in_channels, lambda: loaded)


def _of_repository(address: str) -> Network:
    found = open_repository(address)
    source = f"{HUB_PREFIX}{found.repository}@{found.revision}"
    loaded = LoadedWeights(found.checkpoint, LocalWeights(found.path, found.sha256, source, found.sha256, "hub"))
    names = found.class_names or _names_for(found.entry)
    return Network(address, found.entry, names, found.in_channels, lambda: loaded)


def _names_for(entry: Entry) -> tuple[str, ...]:
    """Name the classes of a repository that does not: as the row's, if there are as many, else by their label."""
    names = names_of_classes(entry.classes)
    return tuple(names if len(names) == entry.num_classes else (f"class {n}" for n in range(entry.num_classes)))
