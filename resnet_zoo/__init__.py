"""resnet_zoo: fifteen residual networks whose every number can be checked.

Importing the package imports neither torch nor anything else heavy; a name brings what it needs when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    DatasetError,
    DownloadError,
    ExportError,
    IntegrityError,
    ManifestError,
    NonFiniteLossError,
    PublishError,
    RunError,
    TrainingError,
    TrainingStopped,
    UnknownLayerError,
    UnknownModelError,
    UnknownWeightsError,
    UnsafeCheckpointError,
    WeightsMismatchError,
    WeightsUnavailableError,
    ZooError,
)

if TYPE_CHECKING:
    from resnet_zoo.catalog.manifest import get_entry, list_models
    from resnet_zoo.checks.rows import verify
    from resnet_zoo.checks.run import verify_run
    from resnet_zoo.images.transform import create_transform
    from resnet_zoo.inference.embedding import embed
    from resnet_zoo.inference.embedding_files import embed_files
    from resnet_zoo.inference.evaluation import evaluate
    from resnet_zoo.inference.export import export_model
    from resnet_zoo.inference.optimization import optimize_for_inference
    from resnet_zoo.inference.prediction import predict, stream_predictions
    from resnet_zoo.inference.speed import measure_speed
    from resnet_zoo.network.counting import count_flops, count_params
    from resnet_zoo.network.features import FeatureExtractor
    from resnet_zoo.training.finetuning import FinetuneResult, finetune
    from resnet_zoo.training.tuning import Tuning
    from resnet_zoo.weights.checkpoint import load_checkpoint
    from resnet_zoo.weights.convert import convert_checkpoint
    from resnet_zoo.weights.hub_push import push_to_hub
    from resnet_zoo.weights.network_file import save_network
    from resnet_zoo.zoo import create_feature_extractor, create_model, open_network

__version__ = "0.1.0"

_TORCH_BOUND = {
    "FeatureExtractor": "network.features",
    "FinetuneResult": "training.finetuning",
    "convert_checkpoint": "weights.convert",
    "count_flops": "network.counting",
    "count_params": "network.counting",
    "create_feature_extractor": "zoo",
    "create_model": "zoo",
    "create_transform": "images.transform",
    "embed": "inference.embedding",
    "embed_files": "inference.embedding_files",
    "evaluate": "inference.evaluation",
    "export_model": "inference.export",
    "finetune": "training.finetuning",
    "load_checkpoint": "weights.checkpoint",
    "open_network": "zoo",
    "measure_speed": "inference.speed",
    "optimize_for_inference": "inference.optimization",
    "predict": "inference.prediction",
    "push_to_hub": "weights.hub_push",
    "save_network": "weights.network_file",
    "stream_predictions": "inference.prediction",
    "verify": "checks.rows",
    "verify_run": "checks.run",
}
"""The module of each public name that needs torch."""

_ON_FIRST_USE = {
    **_TORCH_BOUND,
    "Tuning": "training.tuning",
    "get_entry": "catalog.manifest",
    "list_models": "catalog.manifest",
}
"""The module of each public name that is imported when it is first used: the errors alone are there at once."""

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "DatasetError",
    "DownloadError",
    "ExportError",
    "FeatureExtractor",
    "FinetuneResult",
    "IntegrityError",
    "ManifestError",
    "NonFiniteLossError",
    "PublishError",
    "RunError",
    "TrainingError",
    "TrainingStopped",
    "Tuning",
    "UnknownLayerError",
    "UnknownModelError",
    "UnknownWeightsError",
    "UnsafeCheckpointError",
    "WeightsMismatchError",
    "WeightsUnavailableError",
    "ZooError",
    "convert_checkpoint",
    "count_flops",
    "count_params",
    "create_feature_extractor",
    "create_model",
    "create_transform",
    "embed",
    "embed_files",
    "evaluate",
    "export_model",
    "finetune",
    "get_entry",
    "list_models",
    "load_checkpoint",
    "measure_speed",
    "open_network",
    "optimize_for_inference",
    "predict",
    "push_to_hub",
    "save_network",
    "stream_predictions",
    "verify",
    "verify_run",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_ON_FIRST_USE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
