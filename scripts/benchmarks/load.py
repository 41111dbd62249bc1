"""ResNet-50 from a file to a network, ours with its sha256 checked: from our cache, and from the Hub client's."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.timing import Contestants, Options, compare

COMMIT = "0" * 40


def measure(options: Options) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pickled, weights = write_files(folder)
        with zoo_of(weights, folder):
            compare("ResNet-50: create and load", load_contestants(pickled, weights), options.rounds)
            compare("ResNet-50: the same file in the Hub's cache", hub_contestants(folder / "hub"), options.rounds)


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write ResNet-50's weights as a pickle and as safetensors."""
    import torch

    from resnet_zoo import convert_checkpoint, create_model

    pickled, weights = folder / "resnet50.pth", folder / "resnet50.safetensors"
    torch.save(create_model("resnet50").state_dict(), pickled)
    convert_checkpoint(pickled, weights, name="resnet50")
    return pickled, weights


def load_contestants(pickled: Path, weights: Path) -> Contestants:
    import timm
    import torch
    import torchvision

    from resnet_zoo import create_model

    def torchvision_load() -> Any:
        model = torchvision.models.resnet50()
        model.load_state_dict(torch.load(pickled, weights_only=True))
        return model

    return {
        "resnet_zoo, from its cache, full sha256": lambda: create_model("resnet50", pretrained=True),
        "timm, safetensors, unchecked": lambda: timm.create_model(
            "resnet50", pretrained=True, pretrained_cfg_overlay={"file": str(weights)}
        ),
        "torchvision, .pth, unchecked": torchvision_load,
    }


def hub_contestants(cache: Path) -> Contestants:
    import timm

    from resnet_zoo import create_model

    return {
        "resnet_zoo, weights='timm_a1', full sha256": lambda: create_model("resnet50", weights="timm_a1"),
        "timm, 'resnet50.a1_in1k', unchecked": lambda: timm.create_model(
            "resnet50.a1_in1k", pretrained=True, cache_dir=str(cache)
        ),
    }


@contextmanager
def zoo_of(weights: Path, folder: Path) -> Iterator[None]:
    """Put a file into both caches, and use a manifest that has it as two of ResNet-50's weight sets."""
    from huggingface_hub import constants

    from resnet_zoo.base.files import sha256_of
    from resnet_zoo.catalog.manifest import manifest_path, use_manifest
    from resnet_zoo.weights import cache

    content = json.loads(manifest_path().read_text(encoding="utf-8"))
    row = next(row for row in content["models"] if row["name"] == "resnet50_in1k")
    sha256 = sha256_of(weights)
    file = {"sha256": sha256, "size_bytes": weights.stat().st_size}
    row["weights"][row["default_weights"]]["file"] = file | {"path": weights.name}
    row["weights"]["timm_a1"]["file"] = file | {"path": f"hf://timm/resnet50.a1_in1k@{COMMIT}/model.safetensors"}
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(content), encoding="utf-8")

    repository = folder / "hub" / "models--timm--resnet50.a1_in1k"
    snapshot = repository / "snapshots" / COMMIT
    for parent in (snapshot, repository / "blobs", repository / "refs"):
        parent.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copyfile(weights, repository / "blobs" / sha256)
    (snapshot / "model.safetensors").symlink_to(repository / "blobs" / sha256)

    before = constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE
    constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = str(folder / "hub"), True  # to ask would cost timm time
    os.environ["RESNET_ZOO_HOME"] = str(folder / "home")
    cached = cache.object_path(sha256)
    cached.parent.mkdir(parents=True)
    shutil.copyfile(weights, cached)
    try:
        with use_manifest(manifest):
            yield
    finally:
        constants.HF_HUB_CACHE, constants.HF_HUB_OFFLINE = before
        del os.environ["RESNET_ZOO_HOME"]
