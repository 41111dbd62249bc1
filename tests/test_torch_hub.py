"""torch.hub: the checkout as torch.hub sees it, in a process of its own, on a copy in its cache."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from resnet_zoo.catalog.records import Entry, UpstreamOrigin
from resnet_zoo.errors import DownloadError, UnknownWeightsError
from resnet_zoo.weights.places import shipped_weights
from tests.conftest import ENTRIES, NAMES, UNFETCHED

ROOT = Path(__file__).parent.parent

ENTRY_POINTS = [(name, entry) for entry in ENTRIES for name in (entry.name, *entry.aliases)]
every_entry_point = pytest.mark.parametrize(("name", "entry"), ENTRY_POINTS, ids=[name for name, _ in ENTRY_POINTS])

PROGRAM = """
import json, sys
import torch
import resnet_zoo.catalog.manifest

repo, folder = "org/resnet_zoo:main", sys.argv[1]
torch.hub.set_dir(folder)
trusted = {"trust_repo": True, "skip_validation": True}
names = torch.hub.list(repo, verbose=False, **trusted)
models = {}
for name in names:
    with torch.device("meta"):
        model = torch.hub.load(repo, name, verbose=False, **trusted)
    models[name] = [sum(p.numel() for p in model.parameters()), model.fc.out_features, type(model).__module__]
real = torch.hub.load(folder + "/org_resnet_zoo_main", "resnet18_cifar10", source="local").eval()
print(json.dumps({
    "names": names,
    "docs": {name: torch.hub.help(repo, name, **trusted) for name in names},
    "models": models,
    "logits": list(real(torch.zeros(2, 3, 32, 32)).shape),
    "file": sys.modules["resnet_zoo.catalog.manifest"].__file__,
}))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout where torch.hub puts the archive it downloads."""
    folder = tmp_path_factory.mktemp("hub") / "org_resnet_zoo_main"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "resnet_zoo", folder / "resnet_zoo", ignore=ignored)
    for name in ("hubconf.py", "weights_manifest.json"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def hub(checkout: Path) -> dict[str, Any]:
    """What torch.hub lists, explains and loads in a fresh process."""
    program = checkout.parent / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program, checkout.parent],
        cwd=checkout.parent,
        env={"PATH": "", "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def load(name: str, *arguments: Any, **options: Any) -> nn.Module:
    model = torch.hub.load(str(ROOT), name, *arguments, source="local", **options)  # type: ignore[no-untyped-call]
    assert isinstance(model, nn.Module)
    return model


def test_every_row_and_alias_is_listed_and_nothing_else(hub: dict[str, Any]) -> None:
    assert sorted(hub["names"]) == sorted(name for name, _ in ENTRY_POINTS)


def test_the_copy_itself_was_used(hub: dict[str, Any], checkout: Path) -> None:
    assert Path(hub["file"]).parents[1] == checkout / "resnet_zoo"


@every_entry_point
def test_help_is_the_rows_own(name: str, entry: Entry, hub: dict[str, Any]) -> None:
    text = hub["docs"][name]
    for fact in (entry.published.label, entry.dataset, entry.published.params_m, entry.published.top1, "pretrained"):
        assert fact in text
    assert str(entry.num_classes) in text
    assert all(tag in text for tag in entry.weights)


def test_two_rows_never_have_the_same_help(hub: dict[str, Any]) -> None:
    assert len({hub["docs"][name] for name in NAMES}) == len(NAMES)


@every_entry_point
def test_every_entry_point_loads_its_network(name: str, entry: Entry, hub: dict[str, Any]) -> None:
    assert hub["models"][name] == [entry.exact.params, entry.num_classes, "resnet_zoo.network.resnet"]


def test_a_loaded_network_computes_logits(hub: dict[str, Any]) -> None:
    assert hub["logits"] == [2, 10]


@every_entry_point
def test_pretrained_weights_ship_or_are_an_error(name: str, entry: Entry) -> None:
    origin = entry.weights[entry.default_weights].origin
    if shipped_weights(entry, entry.default_weights):
        assert load(name, pretrained=True).state_dict()["fc.bias"].numel() == entry.num_classes
        return
    assert isinstance(origin, UpstreamOrigin)
    with pytest.raises(DownloadError) as caught:
        load(name, pretrained=True)
    assert list(caught.value.attempts) == [origin.url]


def test_pretrained_may_be_given_by_position() -> None:
    with pytest.raises(DownloadError):
        load(UNFETCHED, True)


def test_unknown_weights_are_an_error() -> None:
    with pytest.raises(UnknownWeightsError):
        load("resnet18_cifar10", weights="imagenet")


def test_classes_and_channels_can_be_chosen() -> None:
    with torch.device("meta"):
        model = load("resnet50", num_classes=7, in_channels=5)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes["conv1.weight"] == [64, 5, 7, 7]
    assert shapes["fc.weight"] == [7, 2048]


def test_a_network_is_loaded_onto_a_device() -> None:
    assert next(load("resnet18_cifar10", device="cpu").parameters()).device.type == "cpu"


def test_a_misspelt_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="num_class"):
        load("resnet18_cifar10", num_class=7)


def test_a_misspelt_entry_point_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="Cannot find callable reznet50"):
        load("reznet50")


@every_entry_point
def test_an_entry_point_is_named_after_its_row(name: str, entry: Entry) -> None:
    import hubconf

    entry_point = getattr(hubconf, name)
    assert (entry_point.__name__, entry_point.__qualname__) == (name, name)
    assert list(inspect.signature(entry_point).parameters)[:2] == ["pretrained", "weights"]


def test_no_other_callable_is_public() -> None:
    import hubconf

    public = {name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")}
    assert public == {name for name, _ in ENTRY_POINTS}


def test_the_dependencies_are_installed_packages() -> None:
    import hubconf

    assert "torch" in hubconf.dependencies
    assert all(__import__(name) for name in hubconf.dependencies)
