"""Publishing: from checkpoints on a loopback server to hashed files on a loopback hub, and back."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from resnet_zoo import create_model
from resnet_zoo.catalog.classes import class_names
from resnet_zoo.catalog.manifest import MANIFEST_NAME, format_manifest, manifest_path, read_manifest, use_manifest
from resnet_zoo.cli.main import main
from resnet_zoo.weights.key_layouts import from_ours, renamed
from resnet_zoo.weights.loading import open_weights
from resnet_zoo.weights.provenance import tensors_sha256
from tests.conftest import NAMES, randomise, smooth_image
from tests.hub_server import HubServer, in_new_process

ROW, OTHER = "resnet18_cifar10", "resnet18_in1k"
REPOSITORY = "someone/resnets"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback and yield its address."""

    def handler(*arguments: Any) -> http.server.BaseHTTPRequestHandler:
        return _Quiet(*arguments, directory=str(folder))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def upstream_checkpoint(name: str) -> bytes:
    """Return a checkpoint of random values as OpenMMLab lays it out."""
    torch.manual_seed(NAMES.index(name))
    tensors = randomise(create_model(name), seed=NAMES.index(name)).state_dict()
    data = io.BytesIO()
    torch.save({"meta": {}, "state_dict": renamed(tensors, from_ours(tensors, "openmmlab"))}, data)
    return data.getvalue()


@dataclass(frozen=True)
class Zoo:
    """A private manifest, and the sha256 of every checkpoint its rows come from."""

    manifest: Path
    sources: dict[str, str]

    def content(self) -> Any:
        return json.loads(self.manifest.read_text())

    def row(self, name: str) -> Any:
        return next(row for row in self.content()["models"] if row["name"] == name)["weights"]["openmmlab"]


def make_zoo(folder: Path, address: str, upstream: Path, names: Iterable[str]) -> Zoo:
    content = json.loads(manifest_path().read_text())
    content["base_urls"] = []
    for row in content["models"]:  # other weights have files that lie beside the package's manifest
        row |= {"weights": {"openmmlab": row["weights"]["openmmlab"]}, "default_weights": "openmmlab"}
    rows = {row["name"]: row for row in content["models"]}
    content["models"] = [rows[name] for name in names]
    sources = {}
    for row in content["models"]:
        data = upstream_checkpoint(row["name"])
        digest = sources[row["name"]] = hashlib.sha256(data).hexdigest()
        path = upstream / f"{row['name']}-{digest[:8]}.pth"
        path.write_bytes(data)
        origin = {"url": f"{address}/{path.name}", "sha256_prefix": digest[:8], "witness": None}
        row["weights"]["openmmlab"] |= {"file": None, "origin": origin, "measured": None}
    manifest = folder / MANIFEST_NAME
    manifest.write_text(format_manifest(content))
    return Zoo(manifest, sources)


@dataclass(frozen=True)
class Run:
    """How a program ended, and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


def run_publish(arguments: list[str | Path]) -> Run:
    result = CliRunner().invoke(main, ["publish", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Run(result.exit_code, result.stdout, result.stderr)


@dataclass(frozen=True)
class Machine:
    """Caches and variables of one computer."""

    variables: Mapping[str, str]

    def publish(self, zoo: Zoo, *arguments: str) -> Run:
        return in_new_process(
            self.variables, run_publish, [*arguments, "--repo", REPOSITORY, "--manifest", zoo.manifest]
        )


def machine(server: HubServer, folder: Path) -> Machine:
    home = {"RESNET_ZOO_HOME": str(folder / "zoo")}
    return Machine(server.environment(folder / "hf") | home)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Zoo]]:
    """Yield the address, the folder and the manifest of two rows; a test works on a copy of the manifest."""
    folder = tmp_path_factory.mktemp("upstream")
    with serving(folder) as address:
        yield address, folder, make_zoo(tmp_path_factory.mktemp("made"), address, folder, [ROW, OTHER])


@pytest.fixture
def zoo(upstream: tuple[str, Path, Zoo], tmp_path: Path) -> Zoo:
    made = upstream[2]
    return Zoo(Path(shutil.copy(made.manifest, tmp_path)), made.sources)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubServer]:
    with HubServer(tmp_path / "hub") as running:
        yield running


def loaded(manifest: Path, names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """Return fingerprint, source and pin of every row's weights, in the caches of this process."""
    found = {}
    with use_manifest(manifest):
        for entry in (read_manifest(manifest).find(name) for name in names):
            opened = open_weights(entry, "openmmlab")
            assert opened.local is not None
            found[entry.name] = (tensors_sha256(opened.checkpoint.tensors), opened.local.source, opened.local.pin)
    return found


@pytest.mark.slow
def test_hashes_and_files_are_published_and_load_elsewhere(zoo: Zoo, server: HubServer, tmp_path: Path) -> None:
    here = machine(server, tmp_path / "here")
    done = here.publish(zoo)
    assert done.returncode == 0, done.stderr
    repository = server.repositories[REPOSITORY]
    commit = repository.main
    assert server.num_commits(REPOSITORY) == 1
    assert zoo.content()["base_urls"] == [
        f"hf://{REPOSITORY}@{commit}",
        f"{server.endpoint}/{REPOSITORY}/resolve/{commit}",
    ]
    files = repository.commits[commit]
    for name in (ROW, OTHER):
        weights = zoo.row(name)
        file = weights["file"]
        assert file["path"] == f"{name}-openmmlab-{file['sha256'][:8]}.safetensors"
        assert (files[file["path"]].sha256, files[file["path"]].size) == (file["sha256"], file["size_bytes"])
        assert weights["origin"]["sha256_prefix"] == zoo.sources[name]
        assert weights["origin"]["witness"]["source"] == "fetched from its address"
        assert weights["measured"] is None
        assert name in done.stdout
        assert file["sha256"][:16] in done.stdout
    card = files["README.md"].path.read_text()
    for fact in (*zoo.sources.values(), zoo.row(ROW)["file"]["sha256"], zoo.row(ROW)["origin"]["url"], "94.82"):
        assert fact in card

    before, stamp = zoo.manifest.read_bytes(), zoo.manifest.stat().st_mtime_ns
    command = [sys.executable, "-m", "resnet_zoo", "publish", "--repo", REPOSITORY, "--manifest", str(zoo.manifest)]
    environment = {**os.environ, **here.variables}
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert (again.returncode, again.stderr) == (0, "")
    assert "nothing to upload" in again.stdout
    assert "unchanged" in again.stdout
    assert (zoo.manifest.read_bytes(), zoo.manifest.stat().st_mtime_ns) == (before, stamp)
    assert server.num_commits(REPOSITORY) == 1

    elsewhere = machine(server, tmp_path / "elsewhere")
    found = in_new_process(elsewhere.variables, loaded, zoo.manifest, [ROW, OTHER])
    for name, (_, source, pin) in found.items():
        assert source == f"hf://{REPOSITORY}@{commit}/{zoo.row(name)['file']['path']}"
        assert pin == "sha256"
    there = in_new_process(here.variables, loaded, zoo.manifest, [ROW, OTHER])
    assert {name: facts[0] for name, facts in found.items()} == {name: facts[0] for name, facts in there.items()}


@pytest.mark.slow
def test_rows_can_be_published_one_after_the_other(zoo: Zoo, server: HubServer, tmp_path: Path) -> None:
    here = machine(server, tmp_path / "here")
    assert here.publish(zoo, ROW).returncode == 0
    first = server.repositories[REPOSITORY].main
    assert zoo.row(OTHER)["file"] is None
    content = zoo.content()
    content["base_urls"].append("https://mirror.test/weights")
    zoo.manifest.write_text(format_manifest(content))
    done = here.publish(zoo, "resnet18")
    assert done.returncode == 0, done.stderr
    commit = server.repositories[REPOSITORY].main
    assert commit != first
    assert [url.rpartition("@")[2] for url in zoo.content()["base_urls"]][::2] == [
        commit,
        "https://mirror.test/weights",
    ]
    files = server.repositories[REPOSITORY].commits[commit]
    assert {zoo.row(name)["file"]["path"] for name in (ROW, OTHER)} | {"README.md"} == set(files)
    assert zoo.sources[ROW] in files["README.md"].path.read_text()


@pytest.mark.slow
def test_what_fails_or_only_tries_leaves_the_manifest_as_it_was(zoo: Zoo, server: HubServer, tmp_path: Path) -> None:
    here, before = machine(server, tmp_path / "here"), zoo.manifest.read_bytes()
    done = here.publish(zoo, ROW, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert ROW in done.stdout
    assert "2 files would be uploaded" in done.stdout
    assert "would be updated" in done.stdout
    assert server.repositories == {}
    for step in ("create", "lfs", "commit"):
        server.refused = {step}
        done = here.publish(zoo, ROW)
        assert done.returncode == 3
        assert f"Publishing to {REPOSITORY} failed: not authorised (HTTP 403)" in done.stderr
        assert "The manifest is unchanged." in done.stderr
        assert server.num_commits(REPOSITORY) == 0
    server.refused, server.forgets = set(), True
    done = here.publish(zoo, ROW)
    assert done.returncode == 3
    assert "does not hold the files as they were sent" in done.stderr
    assert zoo.manifest.read_bytes() == before


@pytest.mark.slow
def test_wrong_usage_ends_at_once(zoo: Zoo, server: HubServer, tmp_path: Path) -> None:
    here = machine(server, tmp_path / "here")
    done = here.publish(zoo, "resnet19")
    assert (done.returncode, "resnet19" in done.stderr) == (2, True)
    done = here.publish(zoo, "--data", str(tmp_path))
    assert (done.returncode, "Expected a folder cifar10" in done.stderr) == (2, True)
    assert server.requests == []


def test_rows_with_data_are_measured(zoo: Zoo, server: HubServer, tmp_path: Path) -> None:
    for label, name in enumerate(class_names("cifar10")):
        folder = tmp_path / "data" / "cifar10" / "test" / name
        folder.mkdir(parents=True)
        Image.fromarray(smooth_image(32, 32, seed=label)).save(folder / "0.png")
    here = machine(server, tmp_path / "here")
    done = here.publish(zoo, "--data", str(tmp_path / "data"))
    assert done.returncode == 0, done.stderr
    measured = zoo.row(ROW)["measured"]
    assert measured["num_images"] == 10
    assert measured["dataset"] != "cifar10"
    assert set(measured) == {"top1", "top5", "num_images", "dataset", "date", "versions", "device"}
    assert zoo.row(OTHER)["measured"] is None
    before = zoo.manifest.read_bytes()
    assert here.publish(zoo, "--data", str(tmp_path / "data")).returncode == 0
    assert zoo.manifest.read_bytes() == before


@pytest.mark.slow
def test_fifteen_rows_without_hashes_become_fifteen_with(tmp_path: Path) -> None:
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    with HubServer(tmp_path / "hub") as server:
        here = machine(server, tmp_path / "here")
        with serving(upstream) as address:
            zoo = make_zoo(tmp_path, address, upstream, NAMES)
            assert [zoo.row(name)["file"] for name in NAMES] == [None] * len(NAMES)
            done = here.publish(zoo)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(upstream)
        files = [zoo.row(name)["file"] for name in NAMES]
        assert len({file["sha256"] for file in files}) == len(NAMES)
        assert {name: zoo.row(name)["origin"]["sha256_prefix"] for name in NAMES} == zoo.sources
        before = zoo.manifest.read_bytes()
        again = here.publish(zoo)
        assert (again.returncode, zoo.manifest.read_bytes()) == (0, before), again.stderr
        assert server.num_commits(REPOSITORY) == 1

        expected = in_new_process(here.variables, loaded, zoo.manifest, NAMES)
        shutil.rmtree(tmp_path / "here")
        by_hub = machine(server, tmp_path / "by_hub")
        found = in_new_process(by_hub.variables, loaded, zoo.manifest, NAMES)
        assert fingerprints(found) == fingerprints(expected)
        assert all(source.startswith("hf://") for _, source, _ in found.values())
        shutil.rmtree(tmp_path / "by_hub")

        content = zoo.content()
        content["base_urls"] = content["base_urls"][1:]
        zoo.manifest.write_text(format_manifest(content))
        by_url = machine(server, tmp_path / "by_url")
        found = in_new_process(by_url.variables, loaded, zoo.manifest, NAMES)
        assert fingerprints(found) == fingerprints(expected)
        assert all(source.startswith(f"{server.endpoint}/{REPOSITORY}/resolve/") for _, source, _ in found.values())
    offline = {**by_url.variables, "RESNET_ZOO_OFFLINE": "1"}
    assert fingerprints(in_new_process(offline, loaded, zoo.manifest, NAMES)) == fingerprints(expected)
    for name in NAMES:
        torch.manual_seed(NAMES.index(name))
        made = randomise(create_model(name), seed=NAMES.index(name))
        assert tensors_sha256(made.state_dict()) == expected[name][0]


def fingerprints(found: Mapping[str, tuple[str, str, str]]) -> dict[str, str]:
    return {name: facts[0] for name, facts in found.items()}


# --- pinning without publishing -----------------------------------------------------------------------------------


def fetch_weights(manifest: Path, name: str) -> None:
    with use_manifest(manifest):
        open_weights(read_manifest(manifest).find(name), "openmmlab")


def test_what_was_fetched_is_pinned_whole_with_size_date_and_witness_and_nothing_is_uploaded(
    zoo: Zoo, server: HubServer, tmp_path: Path, upstream: tuple[str, Path, Zoo]
) -> None:
    here = machine(server, tmp_path / "here")
    in_new_process(here.variables, fetch_weights, zoo.manifest, ROW)
    before = zoo.manifest.read_bytes()
    arguments: list[str | Path] = ["--pin-only", "--manifest", zoo.manifest]
    dry = in_new_process(here.variables, run_publish, [*arguments, "--dry-run"])
    assert (dry.returncode, "would be updated" in dry.stdout, zoo.manifest.read_bytes()) == (0, True, before)
    done = in_new_process(here.variables, run_publish, arguments)
    assert done.returncode == 0, done.stderr
    assert f"Not fetched: {OTHER}/openmmlab" in done.stderr
    (path,) = upstream[1].glob(f"{ROW}-*.pth")
    origin = zoo.row(ROW)["origin"]
    assert origin["sha256_prefix"] == zoo.sources[ROW]
    assert origin["witness"]["size_bytes"] == path.stat().st_size
    assert origin["witness"]["source"] == "fetched from its address"
    assert origin["witness"]["date"].endswith("+00:00")
    assert (zoo.row(ROW)["file"], zoo.row(OTHER)["origin"]["witness"]) == (None, None)
    assert server.requests == []
    stamp = zoo.manifest.stat().st_mtime_ns
    again = in_new_process(here.variables, run_publish, arguments)
    assert (again.returncode, "unchanged" in again.stdout, zoo.manifest.stat().st_mtime_ns) == (0, True, stamp)
    _, _, pin = in_new_process(here.variables, loaded, zoo.manifest, [ROW])[ROW]
    assert pin == "sha256"  # no longer 32 bits


def test_a_cache_that_contradicts_itself_pins_nothing(zoo: Zoo, server: HubServer, tmp_path: Path) -> None:
    here = machine(server, tmp_path / "here")
    in_new_process(here.variables, fetch_weights, zoo.manifest, ROW)
    (record,) = (tmp_path / "here" / "zoo" / "pins").glob("*.json")
    said = json.loads(record.read_text())
    record.write_text(json.dumps(said | {"sha256": said["sha256"][:8] + "0" * 56}))
    before = zoo.manifest.read_bytes()
    done = in_new_process(here.variables, run_publish, ["--pin-only", "--manifest", zoo.manifest])
    assert (done.returncode, zoo.sources[ROW] in done.stderr) == (1, True), done.stderr
    assert zoo.manifest.read_bytes() == before


def test_what_came_from_a_mirror_is_not_pinned_by_eight_digits(
    zoo: Zoo, server: HubServer, tmp_path: Path, upstream: tuple[str, Path, Zoo]
) -> None:
    here = machine(server, tmp_path / "here")
    in_new_process({**here.variables, "RESNET_ZOO_MIRROR": str(upstream[1])}, fetch_weights, zoo.manifest, ROW)
    before = zoo.manifest.read_bytes()
    done = in_new_process(here.variables, run_publish, ["--pin-only", "--manifest", zoo.manifest])
    assert (done.returncode, "only the 8 digits in its name vouch for" in done.stderr) == (2, True), done.stderr
    assert zoo.manifest.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--pin-only"], 3, "None of these checkpoints is in the cache"),
        (["--pin-only", "resnet19"], 2, "resnet19"),
        (["--pin-only", "--repo", REPOSITORY], 2, "leave out --repo"),
        ([], 2, "Pass --repo OWNER/NAME, or --pin-only"),
    ],
)
def test_what_cannot_be_pinned_is_a_sentence(
    arguments: list[str], code: int, words: str, zoo: Zoo, server: HubServer, tmp_path: Path
) -> None:
    before = zoo.manifest.read_bytes()
    here = machine(server, tmp_path / "here")
    done = in_new_process(here.variables, run_publish, [*arguments, "--manifest", zoo.manifest])
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert zoo.manifest.read_bytes() == before
