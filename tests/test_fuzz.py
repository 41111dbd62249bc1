"""Readers of files that strangers made: whatever stands in a file, a reader returns or raises a `ZooError`.

Valid files are damaged at random, their JSON as values too. Each reader gets ``RESNET_ZOO_FUZZ_EXAMPLES`` (300) files,
always the same ones; with another number, new ones each time.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

from resnet_zoo.catalog.classes import class_names
from resnet_zoo.catalog.manifest import manifest_path, read_manifest
from resnet_zoo.errors import ZooError
from resnet_zoo.images.decode import decode
from resnet_zoo.runs.curves import read_curve
from resnet_zoo.runs.folder import read_run
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.hub_config import HubConfig
from resnet_zoo.weights.network_file import read_network, save_network
from tests.conftest import random_network, smooth_image
from tests.run_folders import make_run

pytestmark = pytest.mark.slow

DEFAULT = 300
NUM_EXAMPLES = int(os.environ.get("RESNET_ZOO_FUZZ_EXAMPLES", DEFAULT))

Edit = tuple[float, str, bytes]

edits = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from(["set", "insert", "delete", "cut", "double"]), st.binary(min_size=1)),
    min_size=1,
    max_size=5,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
changes = st.lists(st.tuples(st.floats(0, 1), st.sampled_from(["replace", "delete", "add"]), values), max_size=3)

many = settings(
    max_examples=NUM_EXAMPLES,
    deadline=None,
    database=None,
    derandomize=NUM_EXAMPLES == DEFAULT,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def damaged(data: bytes, todo: list[Edit]) -> bytes:
    """Return bytes with some changed, put in, left out, cut off, or a stretch of them doubled."""
    for share, kind, text in todo:
        at = int(share * len(data))
        before, after = data[:at], data[at:]
        data = {
            "set": before + text + after[len(text) :],
            "insert": before + text + after,
            "delete": before + after[len(text) :],
            "cut": before,
            "double": before + before[-64:] + after,
        }[kind]
    return data


def changed(content: Any, todo: list[tuple[float, str, Any]]) -> Any:
    """Return a JSON value with some of its parts replaced, left out or joined by others."""
    root = [copy.deepcopy(content)]
    for share, kind, value in todo:
        places: list[tuple[Any, Any]] = []
        stack: list[Any] = [root]
        while stack:
            part = stack.pop()
            for key in list(part) if isinstance(part, dict) else range(len(part)):
                places.append((part, key))
                if isinstance(part[key], (dict, list)):
                    stack.append(part[key])
        if not places:
            break
        part, key = places[min(int(share * len(places)), len(places) - 1)]
        if kind == "replace" or part is root:
            part[key] = value
        elif kind == "delete":
            del part[key]
        elif isinstance(part, dict):
            part[f"{key}x"] = value
        else:
            part.insert(key, value)
    return root[0] if root else None


def reads_or_refuses(read: Callable[[], object]) -> None:
    """Call a reader; any other error than ours fails the test."""
    with contextlib.suppress(ZooError):
        read()


def jpeg(form: str) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(smooth_image(40, 30))
    if form == "JPEG":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, form, exif=exif)
    else:
        image.save(file, form)
    return file.getvalue()


def pth() -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": torch.ones(4, 3, 3, 3), "fc.bias": torch.ones(10)}, "meta": {}}, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def header(place: Path) -> dict[str, str]:
    """The header of a network file."""
    path = place / "network.safetensors"
    save_network(path, random_network(), row="resnet18_cifar10", class_names=class_names("cifar10"))
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def test_the_damage_is_damage_and_nothing_else_is(place: Path) -> None:
    """The negative control: what is not damaged is read, and another error than ours is seen."""
    assert damaged(b"abcdef", [(0.5, "set", b"x")]) == b"abcxef"
    assert changed({"a": [1]}, [(0.0, "replace", 2)]) == 2
    (place / "good.pth").write_bytes(pth())
    assert set(load_checkpoint(place / "good.pth").tensors) == {"conv1.weight", "fc.bias"}
    with pytest.raises(ZeroDivisionError):
        reads_or_refuses(lambda: 1 / 0)


@many
@given(todo=edits)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
def test_an_image(form: str, place: Path, todo: list[Edit]) -> None:
    path = place / f"image.{form.lower()}"
    path.write_bytes(damaged(jpeg(form), todo))
    reads_or_refuses(lambda: decode(path))


@many
@given(todo=edits)
@pytest.mark.filterwarnings("ignore")
def test_a_pickled_checkpoint(place: Path, todo: list[Edit]) -> None:
    path = place / "a.pth"
    path.write_bytes(damaged(pth(), todo))
    reads_or_refuses(lambda: load_checkpoint(path))


@many
@given(todo=edits)
def test_the_pickle_in_a_checkpoint(place: Path, todo: list[Edit]) -> None:
    path = place / "b.pth"
    with zipfile.ZipFile(io.BytesIO(pth())) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(name, damaged(data, todo) if name.endswith("data.pkl") else data)
    reads_or_refuses(lambda: load_checkpoint(path))


@many
@given(todo=edits)
def test_a_safetensors_file(place: Path, header: dict[str, str], todo: list[Edit]) -> None:
    path = place / "a.safetensors"
    path.write_bytes(damaged(save({"fc.bias": torch.ones(10)}, header), todo))
    reads_or_refuses(lambda: read_network(path))


@many
@given(todo=changes, field=st.floats(0, 1))
def test_the_header_of_a_network_file(place: Path, header: dict[str, str], todo: Any, field: float) -> None:
    path, fields = place / "b.safetensors", dict(header)
    name = sorted(fields)[min(int(field * len(fields)), len(fields) - 1)]
    try:
        content = json.loads(fields[name])
    except ValueError:
        content = fields[name]
    fields[name] = json.dumps(changed(content, todo))
    text = json.dumps({"__metadata__": fields, "fc.bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    path.write_bytes(struct.pack("<Q", len(text.encode())) + text.encode() + bytes(4))
    reads_or_refuses(lambda: read_network(path))


@many
@given(todo=changes, damage=edits | st.just([]))
def test_a_manifest(place: Path, todo: Any, damage: list[Edit]) -> None:
    path = place / "weights_manifest.json"
    content = changed(json.loads(manifest_path().read_text(encoding="utf-8")), todo)
    path.write_bytes(damaged(json.dumps(content).encode("utf-8", "surrogatepass"), damage))
    reads_or_refuses(lambda: read_manifest(path))


HUB_CONFIGS = {
    "timm": {"architecture": "resnet18", "num_classes": 3, "pretrained_cfg": {"input_size": [3, 224, 224]}},
    "ours": {
        "num_classes": 3,
        "resnet_zoo": {
            "name": "resnet18_cifar10",
            "in_channels": 3,
            "sha256": "ab" * 32,
            "class_names": ["a", "b", "c"],
        },
    },
}


@many
@given(todo=changes)
@pytest.mark.parametrize("kind", HUB_CONFIGS)
def test_a_configuration_of_the_hub(kind: str, todo: Any) -> None:
    content = json.dumps(changed(HUB_CONFIGS[kind], todo)).encode("utf-8", "surrogatepass")
    reads_or_refuses(lambda: HubConfig.read(content, Path("config.json")))


OPENMMLAB_LOG = (
    '{"env_info": "linux", "seed": 0}\n'
    '{"mode": "train", "epoch": 1, "iter": 100, "lr": 0.1, "loss": 2.0, "time": 0.03}\n'
    '{"mode": "val", "epoch": 1, "iter": 79, "lr": 0.1, "accuracy_top-1": 45.2, "accuracy_top-5": 91.0}\n'
)


@many
@given(todo=edits, at=st.floats(0, 1), value=values)
@example(todo=[], at=0.5, value=float("nan"))
def test_a_log_of_others(place: Path, todo: list[Edit], at: float, value: Any) -> None:
    lines = [json.loads(line) for line in OPENMMLAB_LOG.splitlines()]
    text = "".join(json.dumps(changed(line, [(at, "replace", value)])) + "\n" for line in lines)
    path = place / "log.json"
    path.write_bytes(damaged(text.encode("utf-8", "surrogatepass"), todo))
    reads_or_refuses(lambda: read_curve(path))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs")).folder


@many
@given(todo=changes, damage=edits | st.just([]), line=st.floats(0, 1))
@pytest.mark.parametrize("name", ["result.json", "environment.json", "recipe.json", "log.jsonl"])
def test_a_run_folder(name: str, run_folder: Path, todo: Any, damage: list[Edit], line: float) -> None:
    path = run_folder / name
    good = path.read_bytes()
    lines = good.decode().splitlines() if name.endswith("l") else [good.decode()]
    at = min(int(line * len(lines)), len(lines) - 1)
    lines[at] = json.dumps(changed(json.loads(lines[at]), todo))
    path.write_bytes(damaged(("\n".join(lines) + "\n").encode("utf-8", "surrogatepass"), damage))
    try:
        reads_or_refuses(lambda: read_run(run_folder))
        reads_or_refuses(lambda: read_curve(run_folder))
    finally:
        path.write_bytes(good)


def test_pixels_that_are_read_are_pixels(place: Path) -> None:
    """The negative control of the images: undamaged, each is read whole."""
    for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        path = place / f"good.{form.lower()}"
        path.write_bytes(jpeg(form))
        assert np.asarray(decode(path)).shape == ((30, 40, 3) if form == "JPEG" else (40, 30, 3))
