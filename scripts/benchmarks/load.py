"""ResNet-50 from a file to a network, ours with its sha256 checked."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import Contestants, Options, compare


def measure(options: Options) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        compare("ResNet-50: create and load", load_contestants(Path(folder)), options.rounds)
    del os.environ["RESNET_ZOO_HOME"], os.environ["RESNET_ZOO_MANIFEST"]


def load_contestants(folder: Path) -> Contestants:
    import timm
    import torch
    import torchvision

    from resnet_zoo import convert_checkpoint, create_model

    pickled, ours = folder / "resnet50.pth", folder / "resnet50.safetensors"
    torch.save(create_model("resnet50").state_dict(), pickled)
    convert_checkpoint(pickled, ours, name="resnet50")
    os.environ["RESNET_ZOO_HOME"] = str(folder / "home")
    os.environ["RESNET_ZOO_MANIFEST"] = str(zoo_with(ours, folder))

    def torchvision_load() -> Any:
        model = torchvision.models.resnet50()
        model.load_state_dict(torch.load(pickled, weights_only=True))
        return model

    return {
        "resnet_zoo, from its cache, full sha256": lambda: create_model("resnet50", pretrained=True),
        "timm, safetensors, unchecked": lambda: timm.create_model(
            "resnet50", pretrained=True, pretrained_cfg_overlay={"file": str(ours)}
        ),
        "torchvision, .pth, unchecked": torchvision_load,
    }


def zoo_with(weights: Path, folder: Path) -> Path:
    """Put a file into the cache and return a manifest that publishes it as ResNet-50's weights."""
    from resnet_zoo import cache
    from resnet_zoo.files import sha256_of
    from resnet_zoo.manifest import manifest_path

    content = json.loads(manifest_path().read_text(encoding="utf-8"))
    row = next(row for row in content["models"] if row["name"] == "resnet50_in1k")
    sha256 = sha256_of(weights)
    file = {"path": weights.name, "sha256": sha256, "size_bytes": weights.stat().st_size}
    row["weights"][row["default_weights"]]["file"] = file
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(content), encoding="utf-8")
    cached = cache.object_path(sha256)
    cached.parent.mkdir(parents=True)
    shutil.copyfile(weights, cached)
    return manifest
