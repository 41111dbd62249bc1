"""All rows, from checkpoints that mmengine saved, over HTTP, to logits equal to mmpretrain's. Extra ``peers``."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resnet_zoo import create_model
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import manifest_path
from resnet_zoo.weights.provenance import tensors_sha256
from tests.conftest import NAMES, randomise
from tests.test_peers import ODD_SIZES, upstream_config

pytestmark = [pytest.mark.peers, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parent.parent


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address it is served at."""
    folder = tmp_path_factory.mktemp("upstream")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def publish(name: str, folder: Path) -> tuple[str, Any]:
    """Let mmengine save a randomised mmpretrain network, name it as upstream does, and return name and network."""
    from mmengine.runner.checkpoint import save_checkpoint
    from mmpretrain import get_model

    from resnet_zoo import get_entry

    entry = get_entry(name)
    model: Any = get_model(upstream_config(entry), device="cpu").eval()
    randomise(model, seed=NAMES.index(name))
    if entry.name == "resnet50_fp16_in1k":  # as that file was stored: everything but batch-norm in half precision
        model = model.half()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.float()
    saved = folder / "saved.pth"
    save_checkpoint({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, str(saved))
    published = f"{name}_20210528-{sha256_of(saved)[:8]}.pth"
    saved.rename(folder / published)
    return published, model.float()


@pytest.fixture(scope="module")
def zoo(upstream: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A manifest whose origins are the served files, and mmpretrain's own logits for each row."""
    folder, address = upstream
    manifest = json.loads(manifest_path().read_text(encoding="utf-8"))
    logits = {}
    for row in manifest["models"]:
        published, model = publish(row["name"], folder)
        prefix = published.rpartition("-")[2].removesuffix(".pth")
        origin = {"url": f"{address}/{published}", "sha256_prefix": prefix, "witness": None}
        row |= {
            "weights": {"openmmlab": row["weights"]["openmmlab"] | {"origin": origin}},
            "default_weights": "openmmlab",
        }
        with torch.inference_mode():
            logits[row["name"]] = model(image_for(row))
    path = tmp_path_factory.mktemp("zoo") / "zoo.json"
    path.write_text(json.dumps(manifest))
    return path, logits


def image_for(row: dict[str, Any]) -> Tensor:
    return torch.randn(1, 3, *ODD_SIZES[row["input_size"][1]], generator=torch.Generator().manual_seed(2))


def test_every_row_loads_through_python_the_command_and_torch_hub_with_upstreams_logits(
    zoo: tuple[Path, dict[str, Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, logits = zoo
    monkeypatch.setenv("RESNET_ZOO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(manifest))
    monkeypatch.delenv("RESNET_ZOO_OFFLINE", raising=False)
    rows = {row["name"]: row for row in json.loads(manifest.read_text())["models"]}
    command = [sys.executable, "-m", "resnet_zoo", "download", "--all", "--format", "json"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    chains = {chain["model"]: chain for chain in json.loads(done.stdout)}
    assert list(chains) == NAMES
    monkeypatch.setenv("RESNET_ZOO_OFFLINE", "1")
    hub_load: Any = torch.hub.load
    for name in NAMES:
        ours = create_model(name, pretrained=True).eval()
        through_hub = hub_load(str(ROOT), name, source="local", pretrained=True).eval()
        with torch.inference_mode():
            assert torch.equal(ours(image_for(rows[name])), logits[name]), name
            assert torch.equal(through_hub(image_for(rows[name])), logits[name]), name
        assert chains[name]["pin"] == "32-bit pin"
        assert chains[name]["tensors_sha256"] == tensors_sha256(ours.state_dict())
