"""Weight sets of others: used with their own preprocessing and numbers, fetched by the Hub's client, hashed always."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image

from resnet_zoo import create_model, create_transform, embed, embed_files, get_entry, predict, verify
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import use_manifest
from resnet_zoo.catalog.records import Entry, UpstreamOrigin, used_with
from resnet_zoo.cli import output
from resnet_zoo.cli.main import main
from resnet_zoo.errors import NOT_CHECKED, WRONG, ArgumentError, DownloadError, IntegrityError, UnknownWeightsError
from resnet_zoo.weights.cache_contents import best_tested, export_mirror, facts_of_weights, weight_facts
from resnet_zoo.weights.cards import zoo_card
from resnet_zoo.weights.hub_files import forget_hub_file
from resnet_zoo.weights.loading import open_weights
from resnet_zoo.weights.places import cached_weights
from resnet_zoo.weights.provenance import chain_of
from resnet_zoo.zoo import open_network
from tests.conftest import ENTRIES, UNFETCHED, random_network, smooth_image
from tests.hub_server import HubServer, in_new_process
from tests.private_zoo import sha256

ROW, TAG, REPOSITORY = "resnet18_in1k", "timm_a1", "timm/resnet18.a1_in1k"
SETS = [(entry, tag) for entry in ENTRIES for tag, found in entry.weights.items() if found.published]
ROOT = Path(__file__).parents[2]


# --- a row as a weight set of it is used --------------------------------------------------------------------------


@pytest.mark.parametrize(("entry", "tag"), SETS, ids=[f"{entry.name}-{tag}" for entry, tag in SETS])
def test_a_set_brings_its_own_preprocessing_size_and_numbers(entry: Entry, tag: str) -> None:
    published = entry.weights[tag].published
    for own in published:
        used = used_with(entry, tag, size=own.preprocess.crop)
        assert used.preprocess == own.preprocess
        assert used.input_size == (3, own.preprocess.crop, own.preprocess.crop)
        assert (used.published.top1, used.published.top5) == (own.top1, own.top5)
        assert (used.name, used.exact, used.published.params_m) == (entry.name, entry.exact, entry.published.params_m)
    assert used_with(entry, tag) == used_with(entry, tag, size=published[0].preprocess.crop)


def test_the_rows_own_weights_and_paths_leave_it_as_it_is() -> None:
    entry = get_entry(ROW)
    for weights in (None, "openmmlab", "some/file.pth", Path("some/file.pth")):
        assert used_with(entry, weights) is entry
    assert used_with(entry, None, size=224) is entry


def test_a_size_that_nobody_tested_is_refused() -> None:
    with pytest.raises(ArgumentError, match="resnet18_in1k timm_a1 is tested at 224 or 288 pixels, got 256"):
        used_with(get_entry(ROW), TAG, size=256)
    with pytest.raises(ArgumentError, match="resnet18_in1k openmmlab is tested at 224 pixels, got 288"):
        create_transform(ROW, size=288)
    with pytest.raises(UnknownWeightsError, match="Did you mean timm_a1"):
        create_transform(ROW, weights="timm_a7")


def test_every_imagenet_row_has_two_sets_on_maintained_hosts_and_most_a_whole_hash() -> None:
    rows = {entry.name: [entry.weights[tag] for other, tag in SETS if other is entry] for entry, _ in SETS}
    assert sorted(rows) == sorted(entry.name for entry in ENTRIES if entry.dataset == "in1k")
    assert min(map(len, rows.values())) >= 2
    whole = [
        name
        for name, found in rows.items()
        if any(s.file or (isinstance(s.origin, UpstreamOrigin) and len(s.origin.sha256_prefix) == 64) for s in found)
    ]
    assert len(whole) >= 5


@pytest.mark.parametrize("size", [None, 224, 288])
def test_the_transform_is_that_of_the_set(size: int | None) -> None:
    image = Image.fromarray(smooth_image(300, 400))
    edge = 288 if size == 288 else 235
    expected = np.asarray(image.resize((int(edge * 400 / 300), edge), Image.Resampling.BICUBIC))
    crop = 288 if size == 288 else 224
    top, left = (round((length - crop) / 2) for length in expected.shape[:2])
    found = create_transform(ROW, weights=TAG, size=size).pixels(image)
    assert np.array_equal(found, expected[top : top + crop, left : left + crop])
    assert not np.array_equal(create_transform(ROW).pixels(image), create_transform(ROW, weights=TAG).pixels(image))
    assert open_network(ROW, weights=TAG).transform.preprocess == create_transform(ROW, weights=TAG).preprocess


# --- from the Hub -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights() -> bytes:
    """A file as timm writes it: our keys, no header of ours."""
    return safetensors.torch.save(random_network(ROW).state_dict(), {"format": "pt"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, weights: bytes) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("hub") / "files") as running:
        running.add(REPOSITORY, {"model.safetensors": weights})
        yield running


@pytest.fixture
def zoo(server: HubServer, weights: bytes, tmp_path: Path) -> Path:
    """A manifest whose set is in that repository."""
    first = list(server.repositories[REPOSITORY].commits)[1]  # after the empty one
    return write_zoo(tmp_path / "zoo.json", first, weights)


def write_zoo(path: Path, commit: str, weights: bytes) -> Path:
    content = json.loads((ROOT / "weights_manifest.json").read_text(encoding="utf-8"))
    file = {"path": f"hf://{REPOSITORY}@{commit}/model.safetensors", "sha256": sha256(weights)}
    row = next(row for row in content["models"] if row["name"] == ROW)
    row["weights"][TAG]["file"] = file | {"size_bytes": len(weights)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


Ask = Callable[..., Any]


@pytest.fixture
def ask(server: HubServer, own_cache: Path, tmp_path: Path) -> Ask:
    """Return a function that calls another in a new process with the hub and an own Hugging Face cache."""
    environment = server.environment(tmp_path / "hf") | {"RESNET_ZOO_HOME": str(own_cache)}

    def call(function: Callable[..., Any], *arguments: Any, **variables: str) -> Any:
        return in_new_process(environment | variables, function, *arguments)

    return call


def load(manifest: Path) -> dict[str, str]:
    with use_manifest(manifest):
        opened = open_weights(get_entry(ROW), TAG)
        chain = chain_of(opened)
        local = cached_weights(get_entry(ROW), TAG)
        create_model(ROW, weights=TAG)
    assert local is not None
    return {"path": str(local.path), "source": chain.source, "pin": chain.pin, "sha256": chain.file_sha256}


def test_a_set_on_the_hub_is_used_where_the_client_keeps_it(
    ask: Ask, zoo: Path, server: HubServer, weights: bytes, own_cache: Path
) -> None:
    found = ask(load, zoo)
    assert (found["pin"], found["sha256"]) == ("sha256", sha256(weights))
    assert found["source"].startswith(f"hf://{REPOSITORY}@")
    assert "models--timm--resnet18.a1_in1k" in found["path"]
    assert not list(own_cache.glob("objects/*"))
    before = len(server.requests)
    assert ask(load, zoo, HF_HUB_OFFLINE="1") == found
    assert ask(load, zoo) == found
    assert len(server.requests) == before  # what is in the client's cache is not asked for again


def test_a_damaged_file_in_the_clients_cache_is_fetched_again(ask: Ask, zoo: Path, weights: bytes) -> None:
    path = Path(ask(load, zoo)["path"]).resolve()
    damage(path)
    assert sha256_of(path) != sha256(weights)
    assert ask(load, zoo)["sha256"] == sha256(weights)


@pytest.mark.slow
def test_a_file_replaced_under_the_same_commit_is_refused_with_both_hashes(
    ask: Ask, zoo: Path, server: HubServer, weights: bytes, tmp_path: Path
) -> None:
    replaced = bytearray(weights)
    replaced[-3] ^= 1
    commit = server.add(REPOSITORY, {"model.safetensors": bytes(replaced)})
    other = write_zoo(tmp_path / "other.json", commit, weights)
    with pytest.raises(DownloadError, match=f"{sha256(weights)}.*{sha256(bytes(replaced))}") as caught:
        ask(load, other)
    assert commit in str(caught.value)
    assert caught.value.exit_code == WRONG
    assert ask(is_cached, other) is False  # nothing of it stays


def damage(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\0\1\2\3")


@pytest.mark.slow
def test_a_damaged_file_in_the_clients_cache_is_replaced_by_a_mirrors(
    ask: Ask, zoo: Path, weights: bytes, tmp_path: Path, own_cache: Path
) -> None:
    damage(Path(ask(load, zoo)["path"]).resolve())
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "resnet18.a1_in1k.safetensors").write_bytes(weights)
    found = ask(load, zoo, RESNET_ZOO_MIRROR=str(tmp_path / "mirror"), HF_HUB_OFFLINE="1")
    assert found["sha256"] == sha256(weights)
    assert list((own_cache / "objects").iterdir()) == [own_cache / "objects" / f"{sha256(weights)}.safetensors"]


@pytest.mark.slow
def test_a_damaged_file_in_the_clients_cache_is_named_where_nothing_can_be_fetched(
    ask: Ask, zoo: Path, weights: bytes
) -> None:
    path = Path(ask(load, zoo)["path"])
    damage(path.resolve())
    with pytest.raises(IntegrityError, match=f"expected sha256 {sha256(weights)}, got {sha256_of(path)}") as caught:
        ask(load, zoo, HF_HUB_OFFLINE="1")
    assert "offline mode is on" in str(caught.value)
    assert caught.value.exit_code == WRONG


def test_what_a_link_of_the_clients_cache_leads_to_elsewhere_stays(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name, target in (("own", blobs / "blob"), ("elsewhere", tmp_path / "letter.txt")):
        target.write_text("x")
        (snapshot / name).symlink_to(target)
        forget_hub_file(snapshot / name)
        assert not (snapshot / name).is_symlink()
    assert (tmp_path / "letter.txt").exists()
    assert not (blobs / "blob").exists()


def is_cached(manifest: Path) -> bool:
    with use_manifest(manifest):
        return cached_weights(get_entry(ROW), TAG) is not None


@pytest.mark.parametrize(
    ("change", "variables", "words"),
    [
        ({}, {"HF_HUB_OFFLINE": "1"}, "not contacted, because offline mode is on"),
        ({}, {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub at http://127.0.0.1:9 cannot be reached: .*refused"),
        (
            {},
            {"HF_ENDPOINT": "http://no.such.host.invalid"},
            "the Hub at http://no.such.host.invalid cannot be reached: ",
        ),
        ({"commit": "0" * 40}, {}, "the repository has no such revision"),
        ({"repository": "timm/gone"}, {}, r"repository not found \(HTTP 404\); if it is private, set HF_TOKEN"),
    ],
    ids=["offline", "no server", "no host", "a revision that is gone", "a repository that is gone"],
)
def test_what_cannot_be_had_is_a_sentence_with_a_next_step(
    change: dict[str, str], variables: dict[str, str], words: str, ask: Ask, zoo: Path, tmp_path: Path
) -> None:
    content = zoo.read_text(encoding="utf-8")
    if "commit" in change:
        content = content.replace(json.loads(content) and _commit_in(content), change["commit"])
    if "repository" in change:
        content = content.replace(f"hf://{REPOSITORY}@", f"hf://{change['repository']}@")
    path = tmp_path / "changed.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DownloadError, match=words) as caught:
        ask(load, path, **variables)
    assert "or pass the weights' file, or --mirror" in str(caught.value)


def _commit_in(content: str) -> str:
    return content.split(f"hf://{REPOSITORY}@")[1][:40]


@pytest.fixture
def troubled(server: HubServer) -> Iterator[HubServer]:
    """The server, for a test that gives it faults."""
    yield server
    server.faults, server.moved, server.announced, server.is_endless = {}, {}, {}, False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "headers", "words"),
    [
        (401, "GatedRepo", {}, "the repository is gated; request access on its page and set HF_TOKEN"),
        (401, "RepoNotFound", {}, r"repository not found \(HTTP 401\); if it is private, set HF_TOKEN"),
        (401, "", {}, r"not authorised \(HTTP 401\); check the token"),
        (403, "", {}, r"not authorised \(HTTP 403\); check the token"),
        (404, "EntryNotFound", {}, "the repository has no such file"),
        (429, "", {"Retry-After": "86400"}, r"the Hub limits the rate of requests \(HTTP 429\); try again in 86400 s"),
        (429, "", {"Retry-After": "\x1b[2J"}, r"the Hub limits the rate of requests \(HTTP 429\); try again later"),
        (503, "", {}, r"the Hub had a server error \(HTTP 503\); try again later"),
    ],
)
def test_a_hub_that_refuses_is_a_sentence_at_once_and_leaves_nothing(
    status: int, code: str, headers: dict[str, str], words: str, ask: Ask, zoo: Path, troubled: HubServer
) -> None:
    troubled.faults["resolve"] = (status, code, headers)
    troubled.requests.clear()
    with pytest.raises(DownloadError, match=words) as caught:
        ask(load, zoo)
    assert caught.value.exit_code == NOT_CHECKED
    assert len(troubled.requests) == 1  # no second try, no wait of a day
    assert ask(is_cached, zoo) is False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("header", "value", "words"),
    [
        ("X-Linked-ETag", f'"{"0" * 64}"', "wrong bytes: expected sha256 [0-9a-f]{64}, got 0{64}"),
        ("X-Linked-ETag", '"../../../../pwned"', r"announces an ETag that is not a hash"),
        ("X-Linked-Size", "99999999999", "expected [0-9]+ bytes, the server announces 99999999999"),
    ],
    ids=["hash", "path", "size"],
)
def test_what_is_announced_otherwise_is_not_fetched(
    header: str, value: str, words: str, ask: Ask, zoo: Path, troubled: HubServer, tmp_path: Path
) -> None:
    troubled.announced[header] = value
    troubled.requests.clear()
    with pytest.raises(DownloadError, match=words):
        ask(load, zoo)
    assert not any(path.startswith("/storage") for _, path in troubled.requests)
    assert not list(tmp_path.rglob("*pwned*"))
    assert ask(is_cached, zoo) is False


@pytest.mark.slow
def test_a_file_without_an_end_is_broken_off_at_its_size(
    ask: Ask, zoo: Path, troubled: HubServer, weights: bytes, tmp_path: Path
) -> None:
    troubled.is_endless = True
    with pytest.raises(DownloadError, match=f"expected {len(weights)} bytes, the server sends more"):
        ask(load, zoo)
    assert ask(is_cached, zoo) is False
    assert sum(path.stat().st_size for path in (tmp_path / "hf").rglob("*") if path.is_file()) < 1000


def test_a_renamed_repository_is_followed_and_its_bytes_checked_as_ever(
    ask: Ask, zoo: Path, troubled: HubServer, weights: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "renamed.json"
    path.write_text(zoo.read_text(encoding="utf-8").replace(f"hf://{REPOSITORY}@", "hf://timm/before@"), "utf-8")
    troubled.moved["timm/before"] = REPOSITORY
    assert ask(load, path)["sha256"] == sha256(weights)


@pytest.mark.slow
def test_a_mirror_comes_first_and_its_file_is_named_by_the_repository(
    ask: Ask, zoo: Path, weights: bytes, tmp_path: Path, own_cache: Path
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "resnet18.a1_in1k.safetensors").write_bytes(weights)
    found = ask(load, zoo, RESNET_ZOO_MIRROR=str(mirror), HF_HUB_OFFLINE="1")
    assert found["path"] == str(own_cache / "objects" / f"{sha256(weights)}.safetensors")
    assert ask(export, zoo, tmp_path / "copy") == ["resnet18.a1_in1k.safetensors"]


def export(manifest: Path, target: Path) -> list[str]:
    with use_manifest(manifest):
        return [path.name for path in export_mirror(target)[0]]


@pytest.mark.slow
def test_the_error_names_what_is_on_this_machine(ask: Ask, zoo: Path) -> None:
    ask(load, zoo)
    with pytest.raises(DownloadError, match=r"on this machine: timm_a1 \(--weights timm_a1\)\. .*Leave offline mode"):
        ask(load_default, zoo, HF_HUB_OFFLINE="1")


def test_the_error_says_that_nothing_is_here_and_where_other_sets_are_listed() -> None:
    with pytest.raises(DownloadError) as caught:
        create_model(ROW, pretrained=True)
    assert f"No other weights of {ROW} are on this machine. `resnet-zoo list {ROW} --weights`" in str(caught.value)
    with pytest.raises(DownloadError) as caught:
        create_model(UNFETCHED, pretrained=True)  # has one set only
    assert f"list {UNFETCHED}" not in str(caught.value)


def load_default(manifest: Path) -> None:
    create_model(ROW, pretrained=True, manifest=manifest)


def test_random_values_never_take_the_place_of_a_set(zoo: Path) -> None:
    with pytest.raises(DownloadError):  # the tests are offline
        create_model(ROW, weights=TAG, manifest=zoo)
    torch.manual_seed(0)
    assert create_model(ROW).training


@pytest.fixture
def mirrored(
    zoo: Path, weights: bytes, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The manifest in use, its set in a folder that serves as a mirror."""
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "resnet18.a1_in1k.safetensors").write_bytes(weights)
    monkeypatch.setenv("RESNET_ZOO_MIRROR", str(tmp_path / "mirror"))
    with use_manifest(zoo):
        yield


@pytest.mark.parametrize(("size", "edge"), [(None, 224), (288, 288)])
@pytest.mark.usefixtures("mirrored")
def test_everything_that_takes_an_image_takes_the_size(size: int | None, edge: int, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    Image.fromarray(smooth_image(300, 400)).save(image)
    model = create_model(ROW, weights=TAG).eval()
    x = create_transform(ROW, weights=TAG, size=size)(image)[None]
    assert x.shape == (1, 3, edge, edge)
    with torch.inference_mode():
        best = model(x).softmax(1).max().item()
        pooled = model.forward_features(x).mean((2, 3))
    (found,) = predict(ROW, image, weights=TAG, size=size)
    assert found.classes[0].probability == pytest.approx(best, abs=1e-6)
    assert np.allclose(embed(ROW, image, weights=TAG, size=size), pooled, atol=1e-5)
    done = zoo_command("predict", ROW, image, "--weights", TAG, *(("--size", size) if size else ()), "--format", "json")
    assert json.loads(done.stdout)[0]["classes"][0]["probability"] == pytest.approx(best, abs=1e-6)
    (report,) = verify(ROW, weights=TAG, size=size)
    own = get_entry(ROW).weights[TAG].published[0 if size is None else 1]
    assert (report.check("top1").published, report.check("weights").status) == (own.top1, "passed")


@pytest.mark.usefixtures("mirrored")
def test_vectors_of_another_size_are_not_continued(tmp_path: Path) -> None:
    image, out = tmp_path / "image.png", tmp_path / "out.npy"
    Image.fromarray(smooth_image(300, 400)).save(image)
    with pytest.raises(RuntimeError, match="stop"):
        embed_files(ROW, [image], out, weights=TAG, progress=stop)
    with pytest.raises(ArgumentError, match="transform"):
        embed_files(ROW, [image], out, weights=TAG, size=288)
    assert embed_files(ROW, [image], out, weights=TAG) is not None


def stop(done: int, total: int) -> None:
    raise RuntimeError("stop")


# --- the command --------------------------------------------------------------------------------------------------


def zoo_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_command_lists_every_set_of_the_rows_with_its_own_numbers() -> None:
    done = zoo_command("list", "resnet50", "--weights", "--format", "json")
    assert done.exit_code == 0, done.output
    found = {(record["model"], record["weights"]): record for record in json.loads(done.stdout)}
    entry = get_entry("resnet50")
    assert [tag for name, tag in found if name == entry.name] == list(entry.weights)
    record = found[entry.name, "timm_a1"]
    assert (record["pin_bits"], record["place"]) == (256, "huggingface.co")
    assert [(at["size"], at["top1"]) for at in record["tested"]] == [(224, "80.382"), (288, "81.240")]
    assert found[entry.name, "timm_gluon"]["pin_bits"] == 32
    assert [tag for name, tag in found if name == entry.name and found[name, tag]["is_default"]] == ["openmmlab"]


def test_the_table_of_sets_fits_a_terminal_and_says_where_they_are() -> None:
    done = zoo_command("list", "--weights")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    lines = {tuple(line.split()[:2]): line.split() for line in done.stdout.splitlines()}
    assert lines["resnet18_cifar10", "retrained*"][-1] == "ships"
    assert lines["resnet18_in1k", "timm_a1"][-1] == "huggingface.co"
    assert lines["resnetv1d50_in1k", "timm_ra2"][-1] == "github.com"


def test_the_plain_list_says_where_the_default_weights_are_and_fits_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "terminal_width", lambda _: 80)  # else nothing is said of the numbers
    done = zoo_command("list")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    places = {line.split()[0]: line.split("  ")[-1].strip() for line in done.stdout.splitlines()[2:]}
    sets = {e.name: {s.weights: s.place == "ships" for s in weight_facts([e])} for e in ENTRIES}
    default = {e.name: sets[e.name].pop(e.default_weights) for e in ENTRIES}
    others = {name: f"{sum(own.values())} ships" if any(own.values()) else "to fetch" for name, own in sets.items()}
    assert places == {name: "ships" if default[name] else others[name] for name in default}
    assert {"ships", "1 ships", "to fetch"} == set(places.values())
    assert "1 ships, 1 here: a set that is not the default" in done.stderr
    assert "1 here" not in zoo_command("list", "in1k").stderr


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnet18_in1k"])
def test_a_row_is_shown_with_the_place_of_every_set(name: str) -> None:
    done = zoo_command("show", name)
    assert "no file yet" not in done.output
    for found in weight_facts([get_entry(name)]):
        where = "ships with this checkout" if found.place == "ships" else f"to be fetched from {found.place}"
        assert re.search(rf"weights +{found.weights}( \(default\))?\nwhere +{re.escape(where)}\n", done.stdout)


def test_weights_that_a_package_has_no_address_of_are_marked_so(tmp_path: Path) -> None:
    path = tmp_path / "weights_manifest.json"  # as in a wheel: no folder of weights beside it
    path.write_text((ROOT / "weights_manifest.json").read_text(encoding="utf-8"), encoding="utf-8")
    with use_manifest(path):
        assert facts_of_weights(get_entry("resnet18_cifar10"), "retrained").place == "no address"
        assert facts_of_weights(get_entry("resnet18_in1k"), "timm_a1").place == "huggingface.co"


def test_a_row_is_shown_as_a_set_of_it_is_used() -> None:
    done = zoo_command("show", ROW, "--weights", TAG)
    assert "short edge 235 (Pillow bicubic), centre crop 224" in done.stdout
    assert re.search(rf"^{TAG} +71.504 +90.086 +224 ", done.stdout, re.MULTILINE)
    assert "openmmlab:" not in done.stdout
    assert zoo_command("show", ROW, "--weights", "timm_a7").exit_code == 2
    assert "with --chain" in zoo_command("show", ROW, "--weights", str(ROOT / "README.md")).stderr


def test_a_misspelt_tag_is_told_as_such_with_a_size_too() -> None:
    done = zoo_command("evaluate", ROW, "--data", "x", "--weights", "timm_a7", "--size", "288")
    assert (done.exit_code, "Did you mean timm_a1" in done.stderr) == (2, True)


def test_verify_names_the_download_of_the_very_set_and_what_is_here() -> None:
    done = zoo_command("verify", "resnet18_cifar10", "--weights", "openmmlab")
    assert done.exit_code == 3
    assert "`resnet-zoo download resnet18_cifar10 --weights openmmlab` fetches them" in done.stderr
    assert "on this machine: retrained (--weights retrained)" in done.stderr


def test_the_card_of_our_own_repository_lists_nothing_of_others() -> None:
    card = zoo_card(ENTRIES, "someone/weights")
    assert "resnet18_cifar10" in card
    assert "timm" not in card


def test_what_ships_is_used_in_place_and_needs_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_ZOO_HOME", "/proc/nowhere")
    opened = open_weights(get_entry("resnet18_cifar10"), "retrained")
    assert opened.checkpoint.path.parent == ROOT / "weights"


def test_a_package_without_an_address_says_where_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "weights_manifest.json"
    path.write_text((ROOT / "weights_manifest.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(DownloadError) as caught:
        create_model("resnet18_cifar10", pretrained=True, manifest=path)
    said = str(caught.value)
    assert "which is in the project's checkout and its releases" in said
    assert "Check the network" not in said
    assert "Leave offline mode" not in said


def test_the_best_set_is_the_one_with_the_highest_top1_at_any_size() -> None:
    sets = weight_facts([get_entry("resnet50")])
    best = best_tested(sets)
    assert best is not None
    assert (best[0].weights, best[1].size, best[1].top1) == ("timm_a1", 288, "81.240")
    assert float(best[1].top1) == max(float(at.top1) for found in sets for at in found.tested)
    assert best_tested([dataclasses.replace(found, tested=()) for found in sets]) is None


def test_the_command_lists_what_is_on_this_machine() -> None:
    records = json.loads(zoo_command("list", "--local", "--format", "json").stdout)
    shipped = {path.name.removesuffix(".safetensors")[:-9] for path in (ROOT / "weights").glob("*.safetensors")}
    assert {f"{record['model']}-{record['weights']}" for record in records} == shipped
    assert {record["place"] for record in records} == {"ships"}
    none = zoo_command("list", "v1d", "--local")
    assert none.exit_code == 0
    assert "No weights of these models are on this machine" in none.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("list", "--weights", "--format", "csv"), "go with --format table or json"),
        (("list", "--local", "--quiet"), "go with --format table or json"),
        (("download", "resnet50", "--all-sets", "--weights", "timm_a1"), "leave out --weights"),
        *(
            ((*command, "--weights", TAG, "--size", "200"), "is tested at 224 or 288 pixels, got 200")
            for command in (
                ("evaluate", ROW, "--data", "x"),
                ("verify", ROW),
                ("predict", ROW, str(ROOT / "README.md")),
                ("embed", ROW, str(ROOT / "README.md"), "-o", "x.npy"),
                ("export", ROW, "--format", "torch-export", "-o", "x.pt2"),
            )
        ),
        (("verify", "--run", "x", "--size", "32"), "leave out --size"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(arguments: tuple[str, ...], words: str) -> None:
    done = zoo_command(*arguments)
    assert (done.exit_code, words in done.stderr) == (2, True), done.stderr


def test_every_set_that_cannot_be_fetched_is_named() -> None:
    done = zoo_command("download", ROW, "--all-sets")  # the tests are offline
    assert done.exit_code == 3
    for tag in get_entry(ROW).weights:
        assert f"Error: {ROW}/{tag}: Every source failed" in done.stderr
