"""From a name to a network: a row, a repository on the Hugging Face Hub, or a file."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import torch
from torch import nn

from resnet_zoo.base.devices import resolve_device
from resnet_zoo.base.progress import download_bar
from resnet_zoo.base.shown import suggestion
from resnet_zoo.catalog.classes import class_names as names_of_classes
from resnet_zoo.catalog.classes import listed
from resnet_zoo.catalog.manifest import get_entry, use_manifest
from resnet_zoo.catalog.names import Kind, kind_of, refuse_weights
from resnet_zoo.catalog.records import Entry, used_with
from resnet_zoo.errors import ArgumentError
from resnet_zoo.images.transform import Transform, transform_of
from resnet_zoo.network.building import architecture_of, build
from resnet_zoo.network.features import STAGES, FeatureExtractor, check_layers
from resnet_zoo.network.pooling import check_global_pool
from resnet_zoo.network.resnet import STEM_REDUCTIONS, ResNet, check_output_stride
from resnet_zoo.weights.hub import open_repository
from resnet_zoo.weights.loading import assign_weights, open_weights
from resnet_zoo.weights.network_file import read_network
from resnet_zoo.weights.opened import LoadedWeights
from resnet_zoo.weights.provenance import Chain, chain_of


def create_model(
    name: str | os.PathLike[str],
    *,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    weights_key: str | None = None,
    num_classes: int | None = None,
    in_channels: int = 3,
    output_stride: int | None = None,
    drop_rate: float = 0.0,
    global_pool: str = "avg",
    device: torch.device | str | None = None,
    manifest: str | os.PathLike[str] | None = None,
    **others: NoReturn,
) -> ResNet:
    """Create a network by name, with fresh or pretrained values.

    Like every new ``nn.Module`` it is in training mode: call ``.eval()`` before using it.

    Args:
        name: A model or alias (`list_models`), ``hf-hub:owner/name[@revision]`` for a network on the Hugging Face Hub,
            or the path of a file that `save_network` wrote. Repositories and files are always loaded with their
            weights, and keep their own numbers of classes and channels unless others are given; ``in_channels=3``
            keeps them too.
        pretrained: Load the model's default weights. Without ``weights`` and ``pretrained`` the values are fresh.
        weights: A tag of the model (``openmmlab``), or the path of a .safetensors or .pth file; ``DEFAULT`` means the
            model's default weights.
        weights_key: The key under which that file has its weights, such as ``state_dict_ema``, as in `load_checkpoint`.
        num_classes: Another number of classes: the classifier is freshly initialised, every other tensor kept. A
            file whose classifier already has that many classes is loaded whole. 0: no classifier; the network returns
            pooled vectors.
        in_channels: Another number of image channels: the first convolution is adapted (see `adapt_input`). A file
            whose first convolution already has that many channels is loaded whole.
        output_stride: How many times smaller than the image the last stage's maps are, where that is to be 16 or 8
            instead of 32, for segmentation (see `ResNet.set_output_stride`).
        drop_rate: Probability with which each value of the pooled vectors is dropped in training. No file keeps it.
        global_pool: ``avg``, ``max`` or ``avgmax``; empty with ``num_classes=0`` for maps instead of vectors (see
            `ResNet.set_global_pool`). No file keeps it.
        device: Where to put the network: a torch device, or ``auto`` (CUDA, MPS, then CPU).
        manifest: The manifest file of a private zoo; ``None`` means the one in use (``RESNET_ZOO_MANIFEST``).
        others: None are taken; for those of timm and torchvision, the error names the equivalent here.

    Returns:
        A network that maps normalised float32 images (N, C, H, W) to logits (N, K). Its ``entry`` describes the
        model, with the network's own classes and preprocessing.

    Raises:
        UnknownModelError: No model has this name.
        UnknownWeightsError: ``weights`` is neither a tag of the model nor a file.
        WeightsUnavailableError: The weights are unavailable. Random values never take their place.
        DownloadError: Every source of the weights failed; the error lists their answers.
        WeightsMismatchError: The file is for another network; the error lists the keys and the models it fits.
        IntegrityError, UnsafeCheckpointError, CheckpointError: As `load_checkpoint`.
        ManifestError: The manifest cannot be read, or breaks a rule.
        ArgumentError: ``num_classes`` is negative, ``in_channels`` is not positive, ``drop_rate`` is not from 0 to
            below 1, the network cannot have ``output_stride`` or ``global_pool``, ``weights`` were given for a
            repository or file, the file has no weights under ``weights_key``, or the device is not available.
        TypeError: There is no such argument.

    Example:
        >>> model = resnet_zoo.create_model("resnet18_cifar10", pretrained=True).eval()
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    _refuse_others("create_model", create_model, others)
    target = None if device is None else resolve_device(device)
    if num_classes is not None and num_classes < 0:
        raise ArgumentError(f"Expected a num_classes of 0 or more, got {num_classes}.")
    if in_channels < 1:
        raise ArgumentError(f"Expected a positive in_channels, got {in_channels}.")
    if not 0 <= drop_rate < 1:
        raise ArgumentError(f"Expected a drop_rate of 0 to below 1, got {drop_rate}.")
    check_global_pool(global_pool, 1 if num_classes is None else num_classes)
    with use_manifest(manifest):
        if kind_of(name) == "row" and weights is None and not pretrained and weights_key is None:
            entry = get_entry(str(name))
            entry = used_with(entry, entry.default_weights)
            model = build(entry, num_classes=num_classes, in_channels=in_channels)
        else:
            network = open_network(name, weights=weights, weights_key=weights_key)
            channels = None if in_channels == 3 else in_channels
            if output_stride is not None:  # before anything is fetched
                check_output_stride(output_stride, STEM_REDUCTIONS[network.entry.stem])
            model = network.load(num_classes=num_classes, in_channels=channels)
    if output_stride is not None:
        model.set_output_stride(output_stride)
    if drop_rate:
        model.drop = nn.Dropout(drop_rate)
    if global_pool != "avg":
        model.set_global_pool(global_pool)
    return model if target is None else model.to(target)


def create_feature_extractor(
    name: str | os.PathLike[str],
    *,
    layers: Sequence[str] = STAGES,
    pretrained: bool = False,
    weights: str | os.PathLike[str] | None = None,
    in_channels: int = 3,
    output_stride: int | None = None,
    device: torch.device | str | None = None,
    manifest: str | os.PathLike[str] | None = None,
    **others: NoReturn,
) -> FeatureExtractor:
    """Create the part of a network that computes some layers, by name.

    Like every new ``nn.Module`` it is in training mode: call ``.eval()`` before using it.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file, as in `create_model`.
        layers: The layers to return, in any order: ``stem.relu``, ``stem``, ``stage1`` to ``stage4``, a block such as
            ``stage3.5``, ``pool`` or ``logits``; `resnet_zoo.network.features` has a table of them.
        pretrained: Load the model's default weights.
        weights: A tag of the model, or the path of a weights file, as in `create_model`.
        in_channels: Another number of image channels, as in `create_model`.
        output_stride: As in `create_model`; ``reductions`` say what it makes of each layer.
        device: Where to put it: a torch device, or ``auto`` (CUDA, MPS, then CPU).
        manifest: The manifest file of a private zoo, as in `create_model`.
        others: As in `create_model`.

    Returns:
        A module that maps normalised float32 images (N, C, H, W) to a dict of maps (N, C', H', W') by layer.

    Raises:
        UnknownLayerError: The network has no layer of that name.
        ArgumentError: ``layers`` is empty, names a layer twice, or is not a sequence of names; or as `create_model`.
        TypeError: There is no such argument.
        ZooError: Everything else that `create_model` raises.

    Example:
        >>> body = resnet_zoo.create_feature_extractor("resnet18_cifar10", layers=("stage2", "stage4")).eval()
        >>> {layer: tuple(maps.shape) for layer, maps in body(torch.zeros(1, 3, 32, 32)).items()}
        {'stage2': (1, 128, 16, 16), 'stage4': (1, 512, 4, 4)}
    """
    _refuse_others("create_feature_extractor", create_feature_extractor, others)
    with use_manifest(manifest):
        if kind_of(name) == "row":  # before anything is fetched
            check_layers(layers, architecture_of(get_entry(str(name))).depths)
        model = create_model(
            name,
            pretrained=pretrained,
            weights=weights,
            in_channels=in_channels,
            output_stride=output_stride,
            device=device,
        )
    return FeatureExtractor(model, layers=layers)


def create_transform(
    name: str | os.PathLike[str] | nn.Module,
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    any_size: bool = False,
) -> Transform:
    """Return a network's image transform, which turns an image of any kind into a (3, H, W) float32 tensor.

    Args:
        name: A model or alias, ``hf-hub:owner/name``, or the path of a network file; or a network of `create_model` or
            `open_network`, whose ``entry`` has the preprocessing of the weights it was created with.
        weights: The weights that the network has. A tag selects the preprocessing of its publisher, a path the model's
            own; ``None`` means the model's default weights.
        size: Height and width in pixels, one that the weight set was tested at; ``None`` means its usual one.
        any_size: Resize images that are not 32x32 for a CIFAR model, which refuses them otherwise; see `Transform`.

    Raises:
        UnknownModelError: No model has this name.
        UnknownWeightsError: ``weights`` is neither a tag of the model nor a path.
        ArgumentError: The weight set was not tested at this size; or the network was not created by name, takes images
            that are not RGB, or comes with ``weights`` or ``size``.
        ZooError: As `open_network`, for a file or repository.

    Example:
        >>> transform = resnet_zoo.create_transform("resnet50_in1k")
        >>> transform("photo.jpg").shape
        torch.Size([3, 224, 224])
        >>> model = resnet_zoo.create_model("resnet18_cifar10", pretrained=True)
        >>> resnet_zoo.create_transform(model, any_size=True)("photo.jpg").shape
        torch.Size([3, 32, 32])
    """
    if isinstance(name, nn.Module) or kind_of(name) == "row":
        found = name if isinstance(name, nn.Module) else str(name)
        return transform_of(found, weights=weights, size=size, any_size=any_size)
    rules = open_network(name, weights=weights, size=size).transform
    rules.any_size = any_size
    return rules


_ELSEWHERE = {
    "in_chans": "Here it is in_channels.",
    "checkpoint_path": "Here it is weights=PATH.",
    "features_only": "create_feature_extractor(name, layers=('stage2', 'stage4')) returns feature maps.",
    "out_indices": "create_feature_extractor(name, layers=(…)) names the maps: timm's 0 to 4 are "
    "stem.relu and stage1 to stage4.",
    "global_pool": "layers=('stage4',) are the maps without pooling.",
    "replace_stride_with_dilation": "Here it is output_stride=16 or 8.",
    "pretrained_cfg": "Here it is weights=PATH; open_network(name).transform prepares the images.",
    "cache_dir": "Weights are kept in $RESNET_ZOO_HOME.",
    "progress": "A bar of the download is drawn on terminals only; leave it out.",
    "zero_init_residual": "Fresh networks always begin so; leave it out.",
    "drop_path_rate": "The zoo's networks have no stochastic depth; drop_rate drops values before the classifier.",
    "norm_layer": "The zoo's networks have batch-norm; replace modules of the model.",
    "act_layer": "The zoo's networks have ReLU; replace modules of the model.",
    "img_size": "The networks take images of any size; leave it out.",
    "scriptable": "torch.jit.script takes every network; leave it out.",
    "exportable": "export_model and torch.export take every network; leave it out.",
}
"""Arguments of timm and torchvision that are not taken, and what to write instead."""


def _refuse_others(title: str, function: Callable[..., Any], others: Mapping[str, object]) -> None:
    """Refuse arguments that a function does not have, as Python does, and name the way here.

    Raises:
        TypeError: There is one.
    """
    for name in others:
        known = [*inspect.signature(function).parameters][:-1]
        hint = f" {_ELSEWHERE[name]}" if name in _ELSEWHERE else suggestion(name, known)
        raise TypeError(f"{title}() got an unexpected keyword argument {name!r}.{hint}")


@dataclass(frozen=True)
class Network:
    """A network found by name, and everything needed to use it.

    Attributes:
        name: The name it was found by.
        entry: What the manifest says of its model; classes, preprocessing and input size are the network's own.
        class_names: In label order.
        in_channels: Image channels.
        obtain: Reads the weights.
    """

    name: str
    entry: Entry
    class_names: tuple[str, ...]
    in_channels: int
    obtain: Callable[[], LoadedWeights]

    @property
    def kind(self) -> Kind:
        """What the name stands for."""
        return kind_of(self.name)

    @property
    def has_classes_of_row(self) -> bool:
        """Whether the classes are the model's own, by name and order."""
        return self.class_names == tuple(names_of_classes(self.entry.classes))

    @cached_property
    def weights(self) -> LoadedWeights:
        """The weights, every byte hashed; a model's are read (and fetched) on first use.

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
        """The transform from an RGB image of any size to the network's input.

        Raises:
            ArgumentError: The network takes images with another number of channels.
        """
        if self.in_channels != 3:
            raise ArgumentError(f"{self.name} takes images with {self.in_channels} channels; these are RGB, with 3.")
        return Transform(self.entry.preprocess, self.entry.input_size, any_size=True)

    @property
    def notice(self) -> str:
        """What to tell a person whose images are far larger than the network's inputs."""
        height, width = self.entry.input_size[1:]
        return (
            f"{self.name} only knows {listed(self.class_names)}, and images were shrunk to {width}x{height} pixels. Of "
            "anything else, a high probability says nothing."
        )

    def load(self, *, num_classes: int | None = None, in_channels: int | None = None) -> ResNet:
        """Return the network with its weights, in training mode as every ``nn.Module`` starts.

        Args:
            num_classes: Another number of classes, as in `create_model`.
            in_channels: Another number of image channels, as in `create_model`; ``None`` means its own.

        Raises:
            WeightsMismatchError: The weights do not fit; other errors as for ``weights``.
        """
        channels = self.in_channels if in_channels is None else in_channels
        return assign_weights(self.entry, self.weights.checkpoint, num_classes=num_classes, in_channels=channels)


def open_network(
    name: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    weights_key: str | None = None,
    size: int | None = None,
) -> Network:
    """Find a network by name, with its class names, preprocessing and weights.

    A file or repository is read and checked at once, a model's weights on first use.

    Args:
        name: A model or alias; ``hf-hub:owner/name[@revision]``; or the path of a file that `save_network` wrote.
        weights: For a model: a tag or path, as in `create_model`; ``None`` means its default weights.
        weights_key: The key under which that file has its weights, as in `load_checkpoint`.
        size: Height and width of the inputs, one that the weight set was tested at; ``None`` means its usual one.

    Raises:
        UnknownModelError: The name is not a model, and does not look like an address or a path.
        UnknownWeightsError: ``weights`` is neither a tag of the model nor a file.
        ArgumentError: ``weights`` were given for a file or repository, which has its own, or the weights were not
            tested at ``size``.
        DownloadError: The repository is unavailable.
        WeightsUnavailableError: The file does not exist.
        WeightsMismatchError, IntegrityError, UnsafeCheckpointError, CheckpointError: As `create_model`.

    Example:
        >>> network = resnet_zoo.open_network("resnet18_cifar10")
        >>> network.class_names[:3]
        ('airplane', 'automobile', 'bird')
        >>> model, transform = network.load().eval(), network.transform
        >>> model(transform("photo.jpg")[None]).shape
        torch.Size([1, 10])
    """
    kind = kind_of(name)
    if kind == "row":
        return _of_row(get_entry(str(name)), weights, weights_key, size)
    if weights is not None or weights_key is not None:
        refuse_weights(name, str(weights_key) if weights is None else weights)
    found = open_repository(str(name)) if kind == "repository" else read_network(name)
    used_with(found.entry, None, size=size)
    names = found.class_names or _names_for(found.entry)
    return Network(os.fspath(name), found.entry, names, found.in_channels, lambda: found.weights)


def _of_row(entry: Entry, weights: str | os.PathLike[str] | None, weights_key: str | None, size: int | None) -> Network:
    chosen = entry.chosen(weights)
    entry = used_with(entry, chosen, size=size)

    def obtain() -> LoadedWeights:
        with download_bar() as progress:
            return open_weights(entry, chosen, weights_key=weights_key, progress=progress)

    return Network(entry.name, entry, tuple(names_of_classes(entry.classes)), entry.input_size[0], obtain)


def _names_for(entry: Entry) -> tuple[str, ...]:
    """Name the classes of a repository that does not: as the row's, if there are as many, else by their label."""
    names = names_of_classes(entry.classes)
    return tuple(names if len(names) == entry.num_classes else (f"class {n}" for n in range(entry.num_classes)))
