"""Weight sets of others against the packages of their publishers: network, preprocessing, numbers, addresses."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

import resnet_zoo
from resnet_zoo import create_transform, get_entry
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import manifest_path, use_manifest
from resnet_zoo.catalog.records import Entry, PageOrigin, UpstreamOrigin, WeightSet
from resnet_zoo.cli.main import main
from resnet_zoo.errors import DownloadError
from resnet_zoo.network.building import build_on_meta
from resnet_zoo.weights.loading import open_weights
from tests.checks.test_publishing import serving
from tests.conftest import randomise, smooth_image
from tests.hub_server import HubServer, in_new_process
from tests.private_zoo import sha256
from tests.test_peers import imagenet  # noqa: F401  # a fixture
from tests.weights.test_sets import SETS

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TIMM = [(entry, tag) for entry, tag in SETS if tag.startswith("timm_")]
TORCHVISION = [(entry, tag) for entry, tag in SETS if tag.startswith("torchvision_")]
LICENCES = {"apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause"}


def timm_name(entry: Entry, tag: str) -> str:
    """Return timm's name of a set: ``resnet50d.ra2_in1k``."""
    architecture = entry.architecture
    if architecture.startswith("resnetv1d"):
        architecture = f"resnet{architecture.removeprefix('resnetv1d')}d"
    return f"{architecture}.{tag.removeprefix('timm_')}_in1k"


def address(found: WeightSet) -> str:
    if found.file is not None:
        return found.file.path
    assert isinstance(found.origin, UpstreamOrigin)
    return found.origin.url


def assert_same_network(entry: Entry, theirs: torch.nn.Module) -> None:
    """Compare every key and shape, and the number of parameters."""
    ours = build_on_meta(entry)
    shapes = [{key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} for model in (ours, theirs)]
    assert shapes[0] == shapes[1]
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    assert counts == [entry.exact.params] * 2


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> list[Image.Image]:
    """Made images of several shapes, and real ones where there are any."""
    made = [Image.fromarray(smooth_image(*size, seed=size[0])) for size in ((375, 500), (500, 333), (240, 320))]
    folder = request.getfixturevalue("imagenet") if os.environ.get("RESNET_ZOO_TEST_DATA") else None
    real = sorted(folder.rglob("*.JPEG"))[:20] if folder else []
    return [*made, *(Image.open(path).convert("RGB") for path in real)]


@pytest.mark.parametrize(("entry", "tag"), TIMM, ids=[f"{entry.name}-{tag}" for entry, tag in TIMM])
def test_a_set_of_timm_is_its_network_at_its_address(entry: Entry, tag: str) -> None:
    timm = pytest.importorskip("timm")
    name, found = timm_name(entry, tag), entry.weights[tag]
    config = timm.get_pretrained_cfg(name)
    with torch.device("meta"):
        assert_same_network(entry, timm.create_model(name, pretrained=False))
    assert found.license == LICENCES[config.license]
    if found.file is not None:
        assert found.file.path.startswith(f"hf://{config.hf_hub_id}@")
        assert found.origin == PageOrigin(f"https://huggingface.co/{config.hf_hub_id}")
    else:
        assert address(found) == config.url
    sizes = {config.input_size[-1]: config.crop_pct}
    if config.test_input_size:
        sizes[config.test_input_size[-1]] = config.test_crop_pct or config.crop_pct
    assert [own.preprocess.crop for own in found.published] == list(sizes)
    for own, (size, share) in zip(found.published, sizes.items(), strict=True):
        assert own.preprocess.short_edge == math.floor(size / share)


@pytest.mark.parametrize(("entry", "tag"), TIMM, ids=[f"{entry.name}-{tag}" for entry, tag in TIMM])
def test_pixels_are_those_of_timms_own_transform(entry: Entry, tag: str, images: list[Image.Image]) -> None:
    data = pytest.importorskip("timm.data")
    config = pytest.importorskip("timm").get_pretrained_cfg(timm_name(entry, tag))
    for own in entry.weights[tag].published:
        crop = own.preprocess.crop
        assert crop is not None
        is_usual = crop == config.input_size[-1]
        share = config.crop_pct if is_usual else config.test_crop_pct or config.crop_pct
        how: dict[str, Any] = {"crop_pct": share, "interpolation": config.interpolation, "crop_mode": config.crop_mode}
        theirs = data.create_transform((3, crop, crop), normalize=False, **how)
        ours = create_transform(entry.name, weights=tag, size=crop)
        for image in images:
            assert np.array_equal(ours.pixels(image), theirs(image).permute(1, 2, 0).numpy())
        full = data.create_transform((3, crop, crop), mean=config.mean, std=config.std, **how)
        assert torch.allclose(ours(images[0]), full(images[0]), atol=2e-6)


@pytest.mark.parametrize(("entry", "tag"), TORCHVISION, ids=[f"{entry.name}-{tag}" for entry, tag in TORCHVISION])
def test_a_set_of_torchvision_is_its_network_at_its_address_with_its_numbers_and_pixels(
    entry: Entry, tag: str, images: list[Image.Image]
) -> None:
    from torchvision import models

    weights = models.get_model_weights(entry.architecture)[f"IMAGENET1K_{tag.removeprefix('torchvision_').upper()}"]
    with torch.device("meta"):
        assert_same_network(entry, models.get_model(entry.architecture))
    found = entry.weights[tag]
    assert address(found) == weights.url
    (own,) = found.published
    accuracies = weights.meta["_metrics"]["ImageNet-1K"]
    assert (own.top1, own.top5) == (str(accuracies["acc@1"]), str(accuracies["acc@5"]))
    theirs = weights.transforms(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    ours = create_transform(entry.name, weights=tag)
    for image in images:
        assert np.array_equal(ours.pixels(image), (theirs(image) * 255).round().byte().permute(1, 2, 0).numpy())
    assert torch.allclose(ours(images[0]), weights.transforms()(images[0]), atol=2e-6)


# --- from a loopback Hub and a loopback server, files that the publishers' own code wrote -------------------------

ROWS = list({entry.name: entry for entry, _ in SETS}.values())
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Theirs:
    """What a publisher's own code makes of a set with random values.

    Attributes:
        inputs: The images, prepared by the publisher's own transform (N, 3, H, W).
        logits: Of the publisher's own network for them (N, 1000).
    """

    inputs: Tensor
    logits: Tensor


def their_network(entry: Entry, tag: str, seed: int) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    """Return a publisher's network with random values, and its own transform."""
    torch.manual_seed(seed)
    if tag.startswith("torchvision_"):
        from torchvision import models

        weights = models.get_model_weights(entry.architecture)[f"IMAGENET1K_{tag[-2:].upper()}"]
        return randomise(models.get_model(entry.architecture), seed).eval(), weights.transforms()
    timm = pytest.importorskip("timm")
    model = randomise(timm.create_model(timm_name(entry, tag), pretrained=False), seed).eval()
    return model, timm.data.create_transform(**timm.data.resolve_data_config(model=model))


@dataclass(frozen=True)
class World:
    """A manifest of one row whose sets are on this machine's servers, and what their publishers' code says."""

    hub: HubServer
    upstream: Path
    manifest: Path
    theirs: dict[str, Theirs]


def make_world(entry: Entry, hub: HubServer, address: str, upstream: Path, images: list[Image.Image]) -> World:
    """Write every set of a row by its publisher's code, and a manifest that leads to the files."""
    content = json.loads(manifest_path().read_text(encoding="utf-8"))
    row = next(row for row in content["models"] if row["name"] == entry.name)
    theirs = {}
    for seed, tag in enumerate(tag for other, tag in SETS if other is entry):
        model, transform = their_network(entry, tag, seed)
        inputs = torch.stack([transform(image) for image in images])
        with torch.inference_mode():
            theirs[tag] = Theirs(inputs, model(inputs))
        weights = row["weights"][tag]
        if weights["file"] is not None:
            from timm.models import save_for_hf

            save_for_hf(model, str(upstream / tag), safe_serialization=True)
            data = (upstream / tag / "model.safetensors").read_bytes()
            shutil.rmtree(upstream / tag)
            repository = weights["file"]["path"].removeprefix("hf://").partition("@")[0]
            commit = hub.add(repository, {"model.safetensors": data})
            path = f"hf://{repository}@{commit}/model.safetensors"
            weights["file"] = {"path": path, "sha256": sha256(data), "size_bytes": len(data)}
        else:
            torch.save(model.state_dict(), upstream / "part")
            digest, size = sha256_of(upstream / "part"), (upstream / "part").stat().st_size
            name = f"{entry.name}_{tag}-{digest[:8]}.pth"
            (upstream / "part").rename(upstream / name)
            witness = {"size_bytes": size, "date": "2026-11-26", "source": "this test"}
            is_whole = len(weights["origin"]["sha256_prefix"]) == 64
            weights["origin"] = {
                "url": f"{address}/{name}",
                "sha256_prefix": digest if is_whole else digest[:8],
                "witness": witness if is_whole else None,
            }
    manifest = upstream.parent / "zoo.json"
    manifest.write_text(json.dumps(content), encoding="utf-8")
    return World(hub, upstream, manifest, theirs)


def ours(name: str, tag: str, manifest: Path, images: list[Path], theirs: Theirs) -> dict[str, Any]:
    """Return what every road of ours makes of a set: Python, torch.hub and the command."""
    os.environ["RESNET_ZOO_MANIFEST"] = str(manifest)
    model = resnet_zoo.create_model(name, weights=tag).eval()
    transform = resnet_zoo.create_transform(name, weights=tag)
    load: Any = torch.hub.load
    from_hub = load(str(ROOT), name, source="local", weights=tag).eval()
    arguments = ["predict", name, *map(str, images), "--weights", tag, "--top-k", "1000", "--format", "json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    said = [{one["label"]: one["probability"] for one in image["classes"]} for image in json.loads(done.stdout)]
    with torch.inference_mode():
        return {
            "of their inputs": model(theirs.inputs),
            "of torch.hub": from_hub(theirs.inputs),
            "of our inputs": model(torch.stack([transform(image) for image in images])),
            "said": torch.tensor([[one[label] for label in range(len(one))] for one in said]),
        }


def open_only(name: str, tag: str, manifest: Path) -> str:
    with use_manifest(manifest):
        return open_weights(get_entry(name), tag).checkpoint.sha256


@pytest.fixture
def real_images(imagenet: Path, tmp_path: Path) -> list[Path]:  # noqa: F811  # the fixture
    """Three photos as PNG, so that no JPEG decoder can differ."""
    paths = []
    for index, path in enumerate(sorted(imagenet.rglob("*.JPEG"))[:3]):
        paths.append(tmp_path / f"{index}.png")
        Image.open(path).convert("RGB").save(paths[-1])
    return paths


@pytest.mark.parametrize("entry", ROWS, ids=[entry.name for entry in ROWS])
def test_every_set_loads_by_every_road_with_its_publishers_logits_and_a_replaced_file_is_refused(
    entry: Entry, real_images: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    photos = [Image.open(path).convert("RGB") for path in real_images]
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    with HubServer(tmp_path / "hub") as hub, serving(upstream) as address:
        world = make_world(entry, hub, address, upstream, photos)
        variables = hub.environment(tmp_path / "hf") | {"RESNET_ZOO_HOME": str(tmp_path / "zoo")}
        for tag, theirs in world.theirs.items():
            found = in_new_process(variables, ours, entry.name, tag, world.manifest, real_images, theirs)
            assert torch.equal(found["of their inputs"], theirs.logits)
            assert torch.equal(found["of torch.hub"], theirs.logits)
            # our transform subtracts on the scale 0..255 and theirs on 0..1: the last bits of the inputs differ
            torch.testing.assert_close(found["of our inputs"], theirs.logits, rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(found["said"], theirs.logits.softmax(1), rtol=1e-3, atol=1e-5)
        content = json.loads(world.manifest.read_text(encoding="utf-8"))
        row = next(row for row in content["models"] if row["name"] == entry.name)
        for tag in world.theirs:
            replace_file(row["weights"][tag], hub, upstream)
        world.manifest.write_text(json.dumps(content), encoding="utf-8")
        empty = hub.environment(tmp_path / "hf2") | {"RESNET_ZOO_HOME": str(tmp_path / "zoo2")}
        for tag in world.theirs:
            with pytest.raises(DownloadError, match=r"wrong bytes: expected sha256 [0-9a-f]+, got [0-9a-f]{64}"):
                in_new_process(empty, open_only, entry.name, tag, world.manifest)


def replace_file(weights: dict[str, Any], hub: HubServer, upstream: Path) -> None:
    """Change one bit of a set's file where it is served, its name, size and hash in the manifest kept."""
    if weights["file"] is None:
        path = upstream / weights["origin"]["url"].rpartition("/")[2]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return
    repository, _, rest = weights["file"]["path"].removeprefix("hf://").partition("@")
    files = hub.repositories[repository].files("main")
    assert files is not None
    data = bytearray(files["model.safetensors"].path.read_bytes())
    data[len(data) // 2] ^= 1
    commit = hub.add(repository, {"model.safetensors": bytes(data)})
    weights["file"]["path"] = f"hf://{repository}@{commit}/{rest.partition('/')[2]}"
