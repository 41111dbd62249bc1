"""What was opened: weights, and networks with what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from resnet_zoo.catalog.records import Entry
from resnet_zoo.weights.checkpoint import Checkpoint
from resnet_zoo.weights.fit import check_description
from resnet_zoo.weights.network_header import NetworkHeader
from resnet_zoo.weights.places import LocalWeights


@dataclass(frozen=True)
class LoadedWeights:
    """A checkpoint whose bytes were checked, and where its file comes from (``None``: a path was given)."""

    checkpoint: Checkpoint
    local: LocalWeights | None


@dataclass(frozen=True)
class OpenedNetwork:
    """A network that was read from a file or a repository, every byte hashed.

    Attributes:
        entry: The row whose network it is, with its own number of classes, preprocessing and input size.
        in_channels: Image channels.
        class_names: In label order, ``None`` if they are not said.
        weights: Its weights.
    """

    entry: Entry
    in_channels: int
    class_names: tuple[str, ...] | None
    weights: LoadedWeights


def opened_network(checkpoint: Checkpoint) -> OpenedNetwork:
    """Return the network that the header of a file describes, once its tensors fit that.

    Raises:
        WeightsMismatchError: The tensors are not those of the network that the header describes.
        CheckpointError: There is no such header, or it makes no sense.
    """
    header = NetworkHeader.read(checkpoint.header, checkpoint.path)
    entry, in_channels = header.entry, header.input_size[0]
    check_description(entry, in_channels, checkpoint)
    return OpenedNetwork(entry, in_channels, header.class_names, LoadedWeights(checkpoint, None))
