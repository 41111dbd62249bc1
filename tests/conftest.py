"""Fixtures shared by all tests: small real files, made on the spot."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from resnet_zoo.catalog.manifest import current_manifest, get_entry, manifest_path
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.network_file import save_network
from resnet_zoo.weights.places import shipped_weights

if TYPE_CHECKING:
    from tests.run_folders import MadeRun

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: commands started by tests inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

ENTRIES = current_manifest().models
NAMES = [entry.name for entry in ENTRIES]
SHIPPING = [entry.name for entry in ENTRIES if shipped_weights(entry, entry.default_weights)]
"""Models whose default weights are in the checkout."""
UNFETCHED = next(name for name in NAMES if name not in SHIPPING and name.endswith("_cifar10"))
"""A model whose weights are not on this machine."""

needs_permissions = pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")

_DATA_VARIABLE = "RESNET_ZOO_TEST_DATA"
"""Folder with cifar10-jpeg.tar.gz and imagenet-samples.tar, for the tests on real images."""


def slow(*values: object) -> Any:
    """Return the values of a parametrised test that is slow with them."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache and no network, so that no test depends on what this machine has or can reach.

    It goes with its test: thousands of caches, some with weights in them, would fill a disk.
    """
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("RESNET_ZOO_HOME", str(home))
    monkeypatch.setenv("RESNET_ZOO_OFFLINE", "1")
    for name in ("RESNET_ZOO_MIRROR", "RESNET_ZOO_MANIFEST", "HF_HUB_OFFLINE", "HF_ENDPOINT", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def nothing_ships(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest beside which no weights lie."""
    content = json.loads(manifest_path().read_text(encoding="utf-8"))
    path = tmp_path_factory.mktemp("manifest") / "weights_manifest.json"
    path.write_text(json.dumps(content | {"base_urls": []}), encoding="utf-8")
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(path))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real test images; tests that need it are skipped, and say so, where it is not given."""
    folder = os.environ.get(_DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{_DATA_VARIABLE} does not name a folder of real images")
    return Path(folder)


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch-norm tensor and the classifier's bias random values.

    With initial values alone each block is an identity (zero-initialised last batch-norm) and the bias is zero, so
    most mistakes would not show.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                is_last = name.rpartition(".")[2] in ("bn2", "bn3")
                uniform(module.weight, *((0.1, 0.4) if is_last else (0.5, 1.5)))
                uniform(module.bias, -0.2, 0.2)
                uniform(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
                uniform(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            elif isinstance(module, nn.Linear):
                uniform(module.bias, -0.5, 0.5)
    return model


def random_network(
    name: str = "resnet18_cifar10",
    *,
    num_classes: int | None = None,
    in_channels: int = 3,
    head_std: float = 0.1,
    seed: int = 0,
) -> ResNet:
    """Return a row's network in eval mode, always the same, with values as of `randomise` and classes far apart."""
    torch.manual_seed(seed)
    model = build(get_entry(name), num_classes=num_classes, in_channels=in_channels)
    randomise(model, seed)
    nn.init.normal_(model.fc.weight, std=head_std)
    return model.eval()


PETS = ["cat", "dog", "newt"]


@pytest.fixture(scope="module")
def pet_model() -> ResNet:
    """A small network of three classes."""
    return random_network(num_classes=len(PETS))


@pytest.fixture(scope="module")
def pet_file(pet_model: ResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of that network."""
    path = tmp_path_factory.mktemp("network") / "pets.safetensors"
    save_network(path, pet_model, row="resnet18_cifar10", class_names=PETS)
    return path


def smooth_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return an (H, W, 3) uint8 image with structure at several scales."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return (smooth + random.integers(-20, 21, (height, width, 3))).clip(0, 255).astype(np.uint8)


def png_bytes(seed: int, size: int = 32) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    Image.fromarray(smooth_image(size, size, seed=seed)).save(buffer, "png")
    return buffer.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar archive of files with these contents, in this order."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def make_odd(path: Path) -> Path:
    """Make a pipe, or where the name says so a link that leads to itself, and return its path."""
    if os.name != "posix":
        pytest.skip("needs pipes and links")
    if path.stem == "loop":
        path.symlink_to(path.name)
    else:
        os.mkfifo(path)
    return path


def make_class_tree(
    root: Path, classes: list[str], *, split: str = "test", per_class: int = 1, size: int = 32, suffix: str = ".png"
) -> Path:
    """Write small images as ``<root>/<split>/<class>/<image>``, and return the root."""
    for label, name in enumerate(classes):
        folder = root / split / name
        folder.mkdir(parents=True)
        for index in range(per_class):
            image = Image.fromarray(smooth_image(size, size, seed=1000 * label + index))
            image.save(folder / f"{index:04}{suffix}")
    return root


@pytest.fixture
def class_tree(tmp_path: Path) -> Callable[..., Path]:
    """Return `make_class_tree` for a folder of the test's own."""
    return partial(make_class_tree, tmp_path / "tree")


@pytest.fixture(scope="session")
def docs_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as a site, built once for all tests."""
    from tests.docs_pages import build_docs

    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra `docs`)")
    folder = tmp_path_factory.mktemp("docs") / "site"
    run = build_docs(folder)
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="session")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """A finished run folder; nothing may change it."""
    from tests.run_folders import make_run

    return make_run(tmp_path_factory.mktemp("good"))


@pytest.fixture
def made_run(good_run: MadeRun, tmp_path: Path) -> MadeRun:
    """A copy of the finished run folder, to be changed."""
    from tests.run_folders import copy_run

    return copy_run(good_run, tmp_path / "runs")
