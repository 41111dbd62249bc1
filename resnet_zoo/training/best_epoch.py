"""Early stopping: the values of the best epoch so far, on disk, and the end when nothing better has come for long."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from resnet_zoo.base.files import write_atomically
from resnet_zoo.base.strict_json import WrongValueError, decode, parse
from resnet_zoo.errors import TrainingError
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.convert import safetensors_bytes
from resnet_zoo.weights.network_header import TENSORS
from resnet_zoo.weights.provenance import tensors_sha256
from resnet_zoo.weights.safetensors_files import read_safetensors

FILE_NAME = "best.safetensors"


@dataclass(frozen=True)
class Best:
    """The best epoch so far.

    Attributes:
        epoch: From 0.
        correct1: Held-out images that are right with the best class.
        correct5: Right among the best five.
    """

    epoch: int
    correct1: int
    correct5: int


class BestEpoch:
    """Keeps a network as it was after its best epoch; of equally good epochs the first counts.

    It depends on nothing but the epochs it was told of, so that a training that goes on from a checkpoint, and makes
    some epochs again, ends as one that was never stopped.

    Args:
        folder: Where the values are kept.
        model: The network.
        patience: Epochs without a better one after which training is over.

    Raises:
        TrainingError: What is kept there is damaged.
    """

    def __init__(self, folder: Path, model: ResNet, patience: int) -> None:
        self.path, self.model, self.patience = folder / FILE_NAME, model, patience
        self.best = self._read()[0] if self.path.exists() else None

    def add(self, epoch: int, correct1: int, correct5: int) -> None:
        """Tell how good an epoch was, and keep the network's values if it is the best so far.

        Raises:
            OSError: They cannot be written.
        """
        if self.best is not None and correct1 <= self.best.correct1:
            return
        best = Best(epoch, correct1, correct5)
        tensors = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        data = safetensors_bytes(tensors, {"best": json.dumps(asdict(best)), TENSORS: tensors_sha256(tensors)})
        write_atomically(self.path, lambda part: part.write_bytes(data))
        self.best = best

    def is_over(self, num_epochs: int) -> bool:
        """Tell whether training is over after so many epochs."""
        return self.best is not None and num_epochs - 1 - self.best.epoch >= self.patience

    def restore(self) -> Best:
        """Put the best epoch's values into the network.

        Raises:
            TrainingError: What is kept is damaged.
        """
        best, tensors = self._read()
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(tensors[name])
        return best

    def _read(self) -> tuple[Best, dict[str, Tensor]]:
        try:
            tensors, header = read_safetensors(self.path)
            best: Best = decode(Best, parse(header["best"]), ())
            shapes = {name: tensor.shape for name, tensor in self.model.state_dict().items()}
            if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
                raise ValueError("it holds another network")
            if tensors_sha256(tensors) != header[TENSORS]:
                raise ValueError("its tensors are not those that were saved")
        except (ValueError, KeyError, WrongValueError, OSError) as error:
            raise TrainingError(f"{self.path} is damaged ({error}). Start over (--force).") from error
        return best, tensors
