"""Does a checkpoint fit a row, and which row does it fit?"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import CheckpointError, WeightsMismatchError
from resnet_zoo.network.building import Shapes, expected_shapes, shapes_of, with_counters
from resnet_zoo.weights.checkpoint import Checkpoint


def fitting_rows(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the rows whose state dict has exactly these keys and shapes, in table order."""
    shapes = shapes_of(with_counters(tensors))
    return [entry.name for entry in current_manifest().models if expected_shapes(entry) == shapes]


def check_fit(name: str, shapes: Shapes, checkpoint: Checkpoint) -> None:
    """Check that a checkpoint has exactly the tensors a network needs.

    Args:
        name: What the network is called in the error.
        shapes: Key and shape of every tensor the network needs.
        checkpoint: The checkpoint, under our keys.

    Raises:
        WeightsMismatchError: Lists missing, unexpected and misshapen keys, and the rows the file does fit.
    """
    tensors = with_counters(checkpoint.tensors)
    missing = [key for key in shapes if key not in tensors]
    unexpected = [key for key in tensors if key not in shapes]
    wrong = {
        key: (shape, tuple(tensors[key].shape))
        for key, shape in shapes.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    }
    if missing or unexpected or wrong:
        raise WeightsMismatchError(name, str(checkpoint.path), missing, unexpected, wrong, fitting_rows(tensors))
    for key in shapes:
        if tensors[key].is_floating_point() == key.endswith("num_batches_tracked"):
            raise CheckpointError(checkpoint.path, f"{key} is {tensors[key].dtype}, which is not a type for it.")


def nearest_row(tensors: Mapping[str, Tensor]) -> str:
    """Return the row that shares most keys and shapes, for an error that is short."""
    shapes = shapes_of(tensors).items()

    def likeness(entry: Entry) -> int:
        expected = expected_shapes(entry)
        return 2 * len(expected.items() & shapes) - len(expected)

    return max(current_manifest().models, key=likeness).name
