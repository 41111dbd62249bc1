"""From a weight set to tensors: real servers, real processes, real files."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from resnet_zoo import create_model
from resnet_zoo.catalog.listing import as_markdown
from resnet_zoo.catalog.manifest import get_entry, read_manifest
from resnet_zoo.catalog.records import UpstreamOrigin
from resnet_zoo.checks.rows import verify
from resnet_zoo.cli.main import main
from resnet_zoo.cli.row import weights_record
from resnet_zoo.errors import DownloadError, IntegrityError, ManifestError, WeightsUnavailableError
from resnet_zoo.weights import cache
from resnet_zoo.weights.cache_contents import list_cache, prune, weight_facts
from resnet_zoo.weights.convert import convert_checkpoint
from resnet_zoo.weights.download import obtain_weights
from resnet_zoo.weights.loading import open_weights
from resnet_zoo.weights.places import LocalWeights, cached_weights, shipped_weights, sources_of
from resnet_zoo.weights.provenance import chain_of
from tests import fault_server
from tests.conftest import UNFETCHED, slow
from tests.fault_server import FaultServer
from tests.private_zoo import (
    FAULTS,
    NAME,
    QUICK,
    ROOT,
    TAG,
    Fault,
    bad_files,
    copy,
    files_below,
    flip,
    hostile_files,
    race,
    sha256,
    spread_bits,
    start_obtaining,
    state_dict,
    upstream_checkpoint,
    upstream_name,
    wait_until,
    write_manifest,
)

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals or users")

SMALL = random.Random(0).randbytes(1_500_000)
"""Stands for a checkpoint where nothing is converted."""


@pytest.fixture(scope="module")
def upstream() -> bytes:
    """A checkpoint as upstream publishes it."""
    return upstream_checkpoint()


@pytest.fixture(scope="module")
def converted(upstream: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same, converted by hand."""
    folder = tmp_path_factory.mktemp("converted")
    source = folder / upstream_name(upstream)
    source.write_bytes(upstream)
    convert_checkpoint(source, folder / "weights.safetensors", name=NAME)
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESNET_ZOO_OFFLINE")


Use = Callable[..., str]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """A function that makes a manifest of these addresses the one in use."""

    def write(**options: Any) -> str:
        path = write_manifest(tmp_path / f"manifest{len(list(tmp_path.glob('manifest*')))}.json", **options)
        monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(path))
        return str(path)

    return write


@pytest.fixture
def origin(server: FaultServer, use: Use, upstream: bytes, online: None) -> str:
    """A zoo whose first row has its upstream checkpoint on this machine; the path on the server."""
    path = f"/up/{upstream_name(upstream)}"
    use(origins={NAME: (server.serve(path, upstream), sha256(upstream)[:8])})
    return path


@pytest.fixture
def small(server: FaultServer, use: Use, online: None) -> str:
    """The same with a small file, for what needs no tensors."""
    path = f"/up/{upstream_name(SMALL)}"
    use(origins={NAME: (server.serve(path, SMALL), sha256(SMALL)[:8])})
    return path


def obtain(**options: Any) -> LocalWeights:
    """Obtain the first row's weights, unconverted and without patience."""
    return obtain_weights(get_entry(NAME), TAG, copy, **{"patience": QUICK, **options})


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="resnet-zoo")


def assert_equal(model: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[key], tensors[key]) for key in tensors)


# --- the origin ---------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_fetched_checked_converted_and_pinned(
    origin: str, server: FaultServer, upstream: bytes, converted: bytes, own_cache: Path
) -> None:
    opened = open_weights(get_entry(NAME), TAG)
    local = opened.local
    assert local is not None
    assert local.path.read_bytes() == converted
    assert local == LocalWeights(
        own_cache / "objects" / f"{sha256(converted)}.safetensors",
        sha256(converted),
        server.url(origin),
        sha256(upstream),
        "32-bit pin",
    )
    assert bad_files(own_cache, [sha256(converted)]) == []
    assert not list(own_cache.glob("partial/*"))


def test_a_second_load_makes_no_request(origin: str, server: FaultServer) -> None:
    first = create_model(NAME, pretrained=True)
    second = create_model(NAME, pretrained=True)
    assert len(server.requests) == 1
    assert_equal(second, first.state_dict())


def test_a_loaded_network_holds_the_served_weights(origin: str) -> None:
    assert_equal(create_model(NAME, pretrained=True), state_dict())


def test_a_fresh_network_does_not(origin: str) -> None:
    with pytest.raises(AssertionError):
        assert_equal(create_model(NAME), state_dict())


def test_torch_hub_gives_the_served_weights(origin: str) -> None:
    model = torch.hub.load(str(ROOT), NAME, source="local", pretrained=True).eval()  # type: ignore[no-untyped-call]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = create_model(NAME).eval()
    expected.load_state_dict(state_dict())
    with torch.inference_mode():
        assert torch.equal(model(images), expected(images))


def test_a_manifest_can_be_passed_as_an_argument(
    origin: str, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.environ["RESNET_ZOO_MANIFEST"]
    monkeypatch.delenv("RESNET_ZOO_MANIFEST")
    assert_equal(create_model(NAME, pretrained=True, manifest=path), state_dict())
    assert len(server.requests) == 1
    assert cached_weights(get_entry(NAME), TAG) is None  # the package's own row is another


def test_a_later_different_file_under_the_same_digits_is_refused(
    small: str, server: FaultServer, own_cache: Path
) -> None:
    local = obtain()
    name = next((own_cache / "pins").iterdir())
    pin = json.loads(name.read_text())
    other = pin["sha256"][:8] + sha256(b"the file of the first download")[8:]
    name.write_text(json.dumps({**pin, "sha256": other, "object_sha256": "0" * 64}))
    local.path.unlink()
    with pytest.raises(DownloadError, match=f"wrong bytes: expected sha256 {other}, got {sha256(SMALL)}"):
        obtain()
    assert files_below(own_cache / "objects") == []
    name.write_text(json.dumps(pin))
    assert obtain() == local


def test_a_pin_of_another_zoos_file_of_the_same_name_is_not_used(server: FaultServer, use: Use, online: None) -> None:
    for content in (SMALL, SMALL[::-1], SMALL):
        use(origins={NAME: (server.serve("/model.pth", content), sha256(content)[:8])})
        assert obtain().path.read_bytes() == content
    assert len(server.requests) == 2  # the first zoo's pin was kept


def test_a_pin_that_contradicts_the_full_hash_of_the_manifest_is_not_used(
    small: str, server: FaultServer, use: Use
) -> None:
    obtain()
    full = sha256(SMALL)[:8] + "0" * 56
    use(origins={NAME: (server.url(small), full)})
    assert cached_weights(get_entry(NAME), TAG) is None
    with pytest.raises(DownloadError, match=f"expected sha256 {full}"):
        obtain()


def test_the_full_hash_of_the_manifest_takes_the_pins_place(small: str, server: FaultServer, use: Use) -> None:
    assert obtain().pin == "32-bit pin"
    use(origins={NAME: (server.url(small), sha256(SMALL))})
    assert obtain().pin == "sha256"
    assert len(server.requests) == 1


def test_what_a_killed_conversion_left_is_no_obstacle(
    origin: str, server: FaultServer, upstream: bytes, converted: bytes, own_cache: Path
) -> None:
    prefix = sha256(upstream)[:8]
    folder = own_cache / "partial" / prefix
    folder.mkdir(parents=True)
    (folder / f"{sha256(upstream)}.safetensors").write_bytes(b"half")
    assert open_weights(get_entry(NAME), TAG).checkpoint.sha256 == sha256(converted)
    assert not list(own_cache.glob("partial/*"))


@pytest.mark.usefixtures("small")
def test_what_a_process_left_that_was_killed_at_the_very_end_is_removed_by_the_next_transfer_or_by_pruning(
    own_cache: Path,
) -> None:
    prefix, name = sha256(SMALL)[:8], upstream_name(SMALL)
    stray = own_cache / "pins" / f".{prefix}-{name}.json.4711.part"
    stray.parent.mkdir()
    stray.write_text("{")
    path = obtain().path
    assert not stray.exists()
    left = own_cache / "partial" / prefix / name
    left.parent.mkdir(parents=True)
    left.write_bytes(SMALL)
    assert obtain().path == path
    assert left.exists()  # a warm load cleans nothing up
    assert prune() == len(SMALL)
    assert not list(own_cache.glob("partial/*"))


def test_a_process_killed_between_pin_and_object_costs_no_second_download(
    small: str, server: FaultServer, own_cache: Path
) -> None:
    url = server.url(small)
    path = obtain().path
    part = own_cache / "partial" / sha256(SMALL)[:8] / upstream_name(SMALL)
    part.parent.mkdir(parents=True)
    path.rename(part)
    note = {"url": url, "validator": fault_server.etag_of(SMALL)}
    part.with_name(f"{part.name}.json").write_text(json.dumps(note))
    assert obtain().path.read_bytes() == SMALL
    assert server.sent(small) == len(SMALL)
    assert not list(own_cache.glob("partial/*"))


# --- sources ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["url", "folder", "odd folder"])
def mirror(
    request: pytest.FixtureRequest, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, bytes], None]:
    """A function that puts a file into a mirror; the mirror is set."""
    folder = tmp_path / ("mirror" if request.param == "folder" else "a #mirror?x=%20")
    folder.mkdir()
    monkeypatch.setenv("RESNET_ZOO_MIRROR", server.url("/mirror/") if request.param == "url" else str(folder))

    def put(name: str, content: bytes) -> None:
        if request.param == "url":
            server.serve(f"/mirror/{name}", content)
        else:
            (folder / name).write_bytes(content)

    return put


def test_a_mirror_gives_safetensors(
    mirror: Callable[[str, bytes], None], use: Use, converted: bytes, online: None
) -> None:
    use(files={NAME: ("weights/v1/file.safetensors", converted)})
    mirror("file.safetensors", converted)
    assert_equal(create_model(NAME, pretrained=True), state_dict())
    local = cached_weights(get_entry(NAME), TAG)
    assert local is not None
    assert local.pin == "sha256"


def test_no_secret_of_an_address_is_stored_or_shown(
    server: FaultServer, use: Use, online: None, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = UNFETCHED
    secret = server.serve(f"/up/{upstream_name(SMALL)}?token=hunter2", SMALL)
    url = secret.partition("?")[0]
    use(origins={NAME: (secret, sha256(SMALL)[:8])})
    mirror = server.url("/nothing/").replace("http://", "http://alice:hunter2@")
    monkeypatch.setenv("RESNET_ZOO_MIRROR", mirror)
    found = obtain()
    assert found.source == url
    (pin,) = own_cache.glob("pins/*.json")
    assert json.loads(pin.read_text())["url"] == url
    assert [file.source for file in list_cache()] == [url]
    rows = [get_entry(NAME)]
    described = [text for found in weight_facts(rows) for text in weights_record(rows[0], found).values()]
    shown = [as_markdown(rows), *described, str(weight_facts(rows))]
    assert any(url in text for text in shown)
    assert not [text for text in shown if "hunter2" in text]
    stored = [path for path in own_cache.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
    assert stored == []
    use(origins={other: (f"{server.url('/gone/x-00000000.pth')}?token=hunter2", "00000000")})
    with pytest.raises(DownloadError) as caught:
        obtain_weights(get_entry(other), TAG, copy, patience=QUICK)
    assert "hunter2" not in str(caught.value)
    assert len(caught.value.attempts) == 2


def test_a_mirror_gives_upstream_checkpoints(
    mirror: Callable[[str, bytes], None],
    use: Use,
    upstream: bytes,
    converted: bytes,
    online: None,
    server: FaultServer,
) -> None:
    name = upstream_name(upstream)
    use(origins={NAME: (server.url(f"/up/{name}"), sha256(upstream)[:8])})
    mirror(name, upstream)
    assert_equal(create_model(NAME, pretrained=True), state_dict())
    assert server.asked(f"/up/{name}") == []
    local = cached_weights(get_entry(NAME), TAG)  # found again, and the same bytes, whatever the mirror is called
    assert local is not None
    assert local.path.read_bytes() == converted


@pytest.mark.parametrize("learnt", ["0" * 64, "f" * 64, sha256(b"published")])
def test_a_published_file_is_said_to_come_from_upstream_only_if_it_was_converted_here(learnt: str, use: Use) -> None:
    url = "https://example.com/row-12345678.pth"
    use(origins={NAME: (url, "12345678")}, files={NAME: ("v1/row.safetensors", b"published")})
    cached = cache.object_path(sha256(b"published"))
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"published")
    pin = cache.Pin(url, "12345678" + "0" * 56, 1, learnt, "2026-11-25T00:00:00+00:00")
    cache.write_pin("12345678-row-12345678.pth", pin)
    local = cached_weights(get_entry(NAME), TAG)
    assert local is not None
    assert (local.path, local.sha256, local.pin) == (cached, sha256(b"published"), "sha256")
    assert (local.source == url) == (learnt == local.sha256)


def test_a_mirror_with_wrong_bytes_is_passed_over(
    mirror: Callable[[str, bytes], None], small: str, own_cache: Path
) -> None:
    mirror(upstream_name(SMALL), SMALL[::-1])
    assert obtain().path.read_bytes() == SMALL
    assert bad_files(own_cache, [sha256(SMALL)]) == []


def test_a_flipped_bit_of_a_fresh_transfer_is_worth_another_try(small: str, server: FaultServer) -> None:
    server.serve(small, SMALL, fault_server.flip)
    assert obtain().path.read_bytes() == SMALL
    assert [request.range for request in server.asked(small)] == [None, None]


def test_bytes_that_stay_wrong_are_fetched_twice_and_end_with_1(small: str, server: FaultServer) -> None:
    server.serve(small, SMALL, then=fault_server.flip)
    with pytest.raises(DownloadError, match="wrong bytes") as caught:
        obtain()
    assert caught.value.exit_code == 1
    assert len(server.asked(small)) == 2
    server.serve(small, SMALL, then=fault_server.status(404))
    with pytest.raises(DownloadError) as caught:
        obtain()
    assert caught.value.exit_code == 3


def test_a_body_without_a_length_that_was_cut_is_continued(small: str, server: FaultServer) -> None:
    server.serve(small, SMALL, fault_server.cut_no_length)
    assert obtain().path.read_bytes() == SMALL
    assert [request.range for request in server.asked(small)] == [None, f"bytes={len(SMALL) // 2}-"]


def test_a_body_without_a_length_that_is_always_cut_ends(small: str, server: FaultServer) -> None:
    def half_from_the_start(exchange: fault_server.Exchange) -> None:
        exchange.request.headers.pop("Range", None)
        fault_server.cut_no_length(exchange)

    server.serve(small, SMALL, then=half_from_the_start)
    with pytest.raises(DownloadError, match="wrong bytes"):
        obtain()
    assert 2 <= len(server.asked(small)) <= 4


def test_a_folder_works_as_a_mirror_without_network(use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(files={NAME: ("file.safetensors", SMALL)})
    monkeypatch.setenv("RESNET_ZOO_MIRROR", str(tmp_path))
    (tmp_path / "file.safetensors").write_bytes(SMALL)
    assert obtain().path.read_bytes() == SMALL


def test_a_relative_mirror_folder_stands_in_the_working_directory(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "mirror").mkdir(parents=True)
    (tmp_path / "here" / "mirror" / "weights.safetensors").write_bytes(SMALL)
    use(files={NAME: ("files/weights.safetensors", SMALL)})
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("RESNET_ZOO_MIRROR", "mirror")
    assert obtain().path.read_bytes() == SMALL


def test_a_part_of_other_bytes_is_fetched_anew(small: str, server: FaultServer) -> None:
    entry = get_entry(NAME)
    origin = entry.weights[TAG].origin
    assert isinstance(origin, UpstreamOrigin)
    part = cache.part_path(origin.sha256_prefix[:8], origin.file_name)
    part.write_bytes(b"not the beginning of that file")
    assert obtain().path.read_bytes() == SMALL
    assert [request.range for request in server.requests] == [f"bytes={len(b'not the beginning of that file')}-", None]


def test_a_base_url_may_be_a_folder_beside_the_manifest(use: Use, tmp_path: Path) -> None:
    use(files={NAME: ("v1/file.safetensors", SMALL)}, base_urls=["published"])
    (tmp_path / "published" / "v1").mkdir(parents=True)
    (tmp_path / "published" / "v1" / "file.safetensors").write_bytes(SMALL)
    assert obtain().path.read_bytes() == SMALL


def test_a_file_beside_the_manifest_is_at_hand_without_a_download(use: Use, tmp_path: Path) -> None:
    use(files={NAME: ("file.safetensors", SMALL)}, base_urls=["https://example.org/x", "missing", "weights"])
    assert shipped_weights(get_entry(NAME), TAG) is None
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "file.safetensors"
    path.write_bytes(SMALL)
    found = shipped_weights(get_entry(NAME), TAG)
    assert found == LocalWeights(path, sha256(SMALL), str(path), sha256(SMALL), "sha256")
    assert cached_weights(get_entry(NAME), TAG) is None


def test_a_weight_set_without_a_file_does_not_ship() -> None:
    assert shipped_weights(get_entry(UNFETCHED), TAG) is None


def test_base_urls_are_tried_in_order(server: FaultServer, use: Use, online: None) -> None:
    bases = [server.url("/gone"), server.url("/good/"), server.url("/never")]
    use(files={NAME: ("v1/file.safetensors", SMALL)}, base_urls=bases)
    server.serve("/good/v1/file.safetensors", SMALL)
    assert obtain().path.read_bytes() == SMALL
    assert [request.path for request in server.requests] == ["/gone/v1/file.safetensors", "/good/v1/file.safetensors"]


def test_every_source_is_tried_in_order_and_reported(
    server: FaultServer, use: Use, online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = upstream_name(SMALL)
    wrong = server.serve("/base/v1/file.safetensors", SMALL[::-1])
    url = server.url(f"/up/{name}")
    monkeypatch.setenv("RESNET_ZOO_MIRROR", str(tmp_path / "no mirror"))
    use(
        files={NAME: ("v1/file.safetensors", SMALL)},
        base_urls=["missing", server.url("/base")],
        origins={NAME: (url, sha256(SMALL)[:8])},
    )
    with pytest.raises(DownloadError) as caught:
        obtain()
    assert list(caught.value.attempts) == [
        str(tmp_path / "no mirror" / "file.safetensors"),
        str(tmp_path / "no mirror" / name),
        str(tmp_path / "missing" / "v1" / "file.safetensors"),
        wrong,
        url,
    ]
    said = list(caught.value.attempts.values())
    assert said[:3] == ["No such file or directory"] * 3
    assert said[3] == f"wrong bytes: expected sha256 {sha256(SMALL)}, got {sha256(SMALL[::-1])}"
    assert said[4] == "the server answered HTTP 404 Not Found"
    assert all(text in str(caught.value) for text in said)


def test_an_origin_whose_conversion_is_not_the_published_file_is_refused(
    small: str, server: FaultServer, use: Use, own_cache: Path
) -> None:
    use(files={NAME: ("file.safetensors", SMALL[::-1])}, origins={NAME: (server.url(small), sha256(SMALL)[:8])})
    with pytest.raises(DownloadError, match=f"expected sha256 {sha256(SMALL[::-1])}"):
        obtain()
    assert files_below(own_cache / "objects") == []
    assert files_below(own_cache / "pins") == [] if (own_cache / "pins").exists() else True


def test_weights_without_any_source_say_so(use: Use) -> None:
    use(files={NAME: ("file.safetensors", SMALL)})
    path = Path(os.environ["RESNET_ZOO_MANIFEST"])
    content = json.loads(path.read_text())
    content["models"][0]["weights"][TAG]["origin"] = {"recipe": "cifar10", "run": "run1"}
    path.write_text(json.dumps(content))
    with pytest.raises(WeightsUnavailableError, match="RESNET_ZOO_MIRROR"):
        obtain()


# --- faults of a server -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_bad_answer_is_recovered_from_or_told_and_never_cached(
    fault: Fault, small: str, server: FaultServer, own_cache: Path
) -> None:
    url = server.serve(small, SMALL, *fault.answers(SMALL))
    start = time.monotonic()
    if fault.says is None:
        assert obtain().path.read_bytes() == SMALL
    else:
        with pytest.raises(DownloadError, match=fault.says) as caught:
            obtain()
        assert list(caught.value.attempts) == [url]
        assert files_below(own_cache / "objects") == [] if (own_cache / "objects").exists() else True
    assert time.monotonic() - start < 10
    assert bad_files(own_cache, [sha256(SMALL)]) == []
    server.serve(small, SMALL)
    assert obtain().path.read_bytes() == SMALL


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_the_manifests_size_is_stopped_at_once(
    announced: bool, server: FaultServer, use: Use, online: None
) -> None:
    use(files={NAME: ("file.safetensors", SMALL)}, base_urls=[server.url("")])
    extra = bytes(100_000_000)
    server.serve("/file.safetensors", SMALL, then=fault_server.oversized(extra, announced=announced))
    with pytest.raises(DownloadError, match=r"bytes; expected|more than"):
        obtain()
    assert server.sent("/file.safetensors") < 30_000_000
    server.serve("/file.safetensors", SMALL)
    assert obtain().path.read_bytes() == SMALL


@posix_only
def test_a_full_disk_is_an_error_and_later_continued(small: str, server: FaultServer, own_cache: Path) -> None:
    program = (
        "import resource, shutil\n"
        "from resnet_zoo.weights.download import obtain_weights\n"
        "from resnet_zoo.catalog.manifest import get_entry\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))\n"
        f"entry = get_entry({NAME!r})\n"
        "try:\n"
        f"    obtain_weights(entry, {TAG!r}, shutil.copyfile)\n"
        "except OSError as error:\n"
        "    print(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("27\n", "")
    assert not list(own_cache.glob("objects/*"))
    assert obtain().path.read_bytes() == SMALL
    assert server.sent(small) < 2 * len(SMALL)


# --- hostile files ------------------------------------------------------------------------------------------------

HOSTILE = list(hostile_files(Path("/marker")))


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_nothing_of_it_happens(
    what: str, server: FaultServer, use: Use, online: None, tmp_path: Path, own_cache: Path
) -> None:
    marker = tmp_path / "executed"
    content, name = hostile_files(marker)[what]
    url = server.serve(f"/{upstream_name(content)}", content)
    use(origins={NAME: (url, sha256(content)[:8])})
    before = files_below(tmp_path)
    with pytest.raises(DownloadError) as caught:
        create_model(NAME, pretrained=True)
    assert re.search(name, caught.value.attempts[url]), caught.value
    assert files_below(tmp_path) == before
    assert not (own_cache.parent / "evil").exists()
    assert [file for file in files_below(own_cache) if not file.startswith("locks/")] == []


def test_the_hostile_files_would_have_done_something(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "evil.pth").write_bytes(hostile_files(marker)["os.system"][0])
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert marker.exists()


def test_a_checkpoint_of_another_row_is_refused(origin: str, server: FaultServer, use: Use, own_cache: Path) -> None:
    content = server.resources[origin].content
    use(origins={UNFETCHED: (server.url(origin), sha256(content)[:8])})
    with pytest.raises(DownloadError, match=rf"does not fit {UNFETCHED}.*The file fits resnet18_cifar10"):
        create_model(UNFETCHED, pretrained=True)
    assert not list(own_cache.glob("objects/*"))


# --- offline ------------------------------------------------------------------------------------------------------

OFFLINE = """
import socket, time
def refuse(*arguments, **options):
    raise SystemExit("a socket was used")
import requests, torch
from resnet_zoo import ZooError, create_model
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
start = time.perf_counter()
try:
    create_model("resnet18_cifar10", pretrained=True)
    print("loaded")
except ZooError as error:
    print(type(error).__name__, error)
print(time.perf_counter() - start)
"""


def run_offline(**environment: str) -> tuple[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said, seconds = done.stdout.splitlines()
    return said, float(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["RESNET_ZOO_OFFLINE", slow("HF_HUB_OFFLINE")])
def test_offline_a_cold_cache_fails_at_once_without_a_socket(variable: str, origin: str) -> None:
    said, seconds = run_offline(**{variable: "1"})
    assert said.startswith("DownloadError Every source failed")
    assert "offline mode" in said
    assert seconds < 1


@pytest.mark.slow
def test_offline_a_warm_cache_loads_without_a_socket(origin: str) -> None:
    open_weights(get_entry(NAME), TAG)
    assert run_offline(RESNET_ZOO_OFFLINE="1")[0] == "loaded"


@pytest.mark.slow
def test_a_socket_would_be_seen(origin: str) -> None:
    with pytest.raises(AssertionError, match="a socket was used"):
        run_offline()


@pytest.mark.parametrize("value", ["", "0", "false", "no"])
def test_offline_mode_can_be_off(value: str, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_ZOO_OFFLINE", value)
    assert obtain().path.read_bytes() == SMALL


# --- damage in the cache ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [10, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_always_found(
    count: int, origin: str, converted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = open_weights(get_entry(NAME), TAG).local
    assert local is not None
    monkeypatch.setenv("RESNET_ZOO_OFFLINE", "1")
    for bit in spread_bits(converted, count):
        flip(local.path, bit)
        with pytest.raises(IntegrityError, match="put aside") as caught:
            open_weights(get_entry(NAME), TAG)
        (aside,) = (local.path.parent.parent / "quarantine").iterdir()
        assert str(aside) in str(caught.value)
        assert not local.path.exists()
        flip(aside, bit)
        aside.rename(local.path)
    assert open_weights(get_entry(NAME), TAG).checkpoint.sha256 == sha256(converted)


@pytest.mark.parametrize("link", ["the file", "its folder"])
def test_a_link_among_the_transfers_is_not_written_through(
    link: str, origin: str, own_cache: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for source in sources_of(get_entry(NAME).weight_set(TAG)):
        (outside / source.name).write_bytes(b"not a transfer")
        place = own_cache / "partial" / source.key / (source.name if link == "the file" else "")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside / source.name if link == "the file" else outside)
    assert_equal(create_model(NAME, pretrained=True), state_dict())
    assert {path.read_bytes() for path in outside.iterdir()} == {b"not a transfer"}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux tells how much memory is in use")
def test_damaged_files_do_not_stay_in_memory(
    origin: str, converted: bytes, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bytes_in_use() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    local = open_weights(get_entry(NAME), TAG).local
    assert local is not None
    monkeypatch.setenv("RESNET_ZOO_OFFLINE", "1")
    found: list[int] = []
    gc.collect()
    gc.disable()  # it comes seldom: what only it frees is in memory for long
    try:
        for _ in range(8):
            flip(local.path, 8 * len(converted) // 2)
            with pytest.raises(IntegrityError):
                open_weights(get_entry(NAME), TAG)
            (aside,) = (own_cache / "quarantine").iterdir()
            flip(aside, 8 * len(converted) // 2)
            aside.rename(local.path)
            found.append(bytes_in_use())
        assert found[-1] - found[0] < 3 * len(converted)
    finally:
        gc.enable()


@pytest.mark.parametrize("damage", ["one bit", "cut", "empty", "longer"])
def test_a_damaged_object_is_put_aside_and_fetched_again(
    damage: str, origin: str, server: FaultServer, converted: bytes, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = open_weights(get_entry(NAME), TAG).local
    assert local is not None
    if damage == "one bit":
        flip(local.path, 8 * len(converted) // 2)
    else:
        content = {"cut": converted[:-1], "empty": b"", "longer": converted + b"x"}[damage]
        local.path.write_bytes(content)
    assert_equal(create_model(NAME, pretrained=True), state_dict())
    (aside,) = (own_cache / "quarantine").iterdir()
    assert str(aside) in caplog.text
    assert local.path.read_bytes() == converted
    assert len(server.requests) == 2


def test_a_damaged_object_fails_verification_even_where_it_is_not_fetched_again(origin: str, own_cache: Path) -> None:
    local = open_weights(get_entry(NAME), TAG).local
    assert local is not None
    flip(local.path, 1000)
    check = verify(NAME)[0].check("weights")
    assert check.status == "failed"
    assert "put aside" in check.detail


TRUNCATE = """
import os, shutil, sys
import resnet_zoo.weights.checkpoint as checkpoint
from resnet_zoo import ZooError, create_model
step, path, good, *sizes = sys.argv[1:]
original = getattr(checkpoint, step)
for size in sizes:
    def truncate(*arguments):
        if step == "_stat":
            found = original(*arguments)
            os.truncate(path, int(size))
            return found
        os.truncate(path, int(size))
        return original(*arguments)
    shutil.copyfile(good, path)
    setattr(checkpoint, step, truncate)
    try:
        print(create_model("resnet18_cifar10", pretrained=True).fc.out_features)
    except ZooError as error:
        print(type(error).__name__)
"""


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize(("step", "said"), [("_stat", "IntegrityError"), ("parse_safetensors", "10")])
def test_a_file_truncated_while_it_is_loaded_gives_its_hashed_bytes_or_an_error(
    step: str, said: str, origin: str, converted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = open_weights(get_entry(NAME), TAG).local
    assert local is not None
    (tmp_path / "good").write_bytes(converted)
    monkeypatch.setenv("RESNET_ZOO_OFFLINE", "1")
    sizes = ["0", "7", "4096", "10000000"]
    command = [sys.executable, "-c", TRUNCATE, step, str(local.path), str(tmp_path / "good"), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done
    assert done.stdout.splitlines() == [said] * len(sizes)


@posix_only
def test_a_file_truncated_under_another_process_that_uses_it_is_found(origin: str) -> None:
    model = create_model(NAME, pretrained=True)  # its values are its own
    local = cached_weights(get_entry(NAME), TAG)
    assert local is not None
    os.truncate(local.path, 5_000_000)
    assert_equal(create_model(NAME, pretrained=True), state_dict())
    assert_equal(model, state_dict())


READ_AS_NOBODY = """
import os, sys
os.environ["HOME"] = "/nonexistent"
from resnet_zoo import create_model
os.setgid(65534)
os.setuid(65534)
try:
    open(os.path.join(os.environ["RESNET_ZOO_HOME"], "x"), "w")
except PermissionError:
    print(create_model("resnet18_cifar10", pretrained=True).fc.out_features)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only the superuser can become another user")
def test_a_warm_cache_that_may_only_be_read_serves_another_user(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home, manifest = Path(folder) / "cache", Path(folder) / "manifest.json"
        shutil.copy(os.environ["RESNET_ZOO_MANIFEST"], manifest)
        monkeypatch.setenv("RESNET_ZOO_HOME", str(home))
        monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(manifest))
        open_weights(get_entry(NAME), TAG)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = files_below(home)
        done = subprocess.run([sys.executable, "-c", READ_AS_NOBODY], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("10\n", "")
        assert files_below(home) == before


# --- processes ----------------------------------------------------------------------------------------------------


SLOWLY = fault_server.trickle(1 << 14, 0.002)
RACERS = [4, slow(16)]


@pytest.mark.parametrize("count", RACERS)
def test_racing_processes_download_one_body(
    count: int, small: str, server: FaultServer, tmp_path: Path, own_cache: Path
) -> None:
    server.serve(small, SMALL, then=SLOWLY)
    paths = race(count, tmp_path, kill_one=False)
    assert len(paths) == count
    assert {path.read_bytes() == SMALL for path in paths} == {True}
    assert server.sent(small) == len(SMALL)
    assert bad_files(own_cache, [sha256(SMALL)]) == []


@posix_only
@pytest.mark.parametrize("count", RACERS)
def test_racing_processes_are_right_when_the_one_that_downloads_is_killed(
    count: int, small: str, server: FaultServer, tmp_path: Path, own_cache: Path
) -> None:
    server.serve(small, SMALL, then=SLOWLY)
    paths = race(count, tmp_path, kill_one=True)
    assert len(paths) == count - 1
    assert {path.read_bytes() == SMALL for path in paths} == {True}
    rest = server.sent(small) - server.asked(small)[0].sent
    first, second = server.asked(small)
    assert first.range is None
    assert second.range == f"bytes={len(SMALL) - rest}-"
    assert rest < len(SMALL), "what the killed process had was fetched again"
    assert bad_files(own_cache, [sha256(SMALL)]) == []


@pytest.mark.slow
def test_racing_processes_load_equal_networks(origin: str, server: FaultServer) -> None:
    program = (
        "from resnet_zoo import create_model; from resnet_zoo.weights.provenance import tensors_sha256\n"
        f"print(tensors_sha256(create_model({NAME!r}, pretrained=True).state_dict()))"
    )
    command = [sys.executable, "-c", program]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    found = {racer.communicate(timeout=120)[0] for racer in racers}
    assert len(found) == 1
    assert len(found.pop()) == 65
    assert len(server.requests) == 1


@posix_only
@pytest.mark.parametrize("count", [4, slow(200)])
def test_a_download_killed_at_any_moment_is_continued_by_the_next(
    count: int, small: str, server: FaultServer, tmp_path: Path, own_cache: Path
) -> None:
    chosen = random.Random(2)
    server.serve(small, SMALL, then=SLOWLY)
    go = tmp_path / "go"
    go.touch()
    continued = 0
    for _ in range(count):
        asked = len(server.requests)
        victim = start_obtaining(go, tmp_path)
        wait_until(lambda asked=asked: len(server.requests) > asked)  # type: ignore[misc]
        time.sleep(chosen.uniform(0, 0.3))
        victim.process.kill()
        victim.process.communicate()
        kept = sum(part.stat().st_size for part in own_cache.glob(f"partial/*/{Path(small).name}"))
        assert {path.read_bytes() == SMALL for path in own_cache.glob("objects/*")} <= {True}
        assert start_obtaining(go, tmp_path).path() == obtain().path
        if 0 < kept < len(SMALL):
            server.sent(small)  # waits until the last bytes are counted
            (request,) = server.requests[asked + 1 :]
            assert (request.range, request.sent) == (f"bytes={kept}-", len(SMALL) - kept)
            continued += 1
        assert bad_files(own_cache, [sha256(SMALL)]) == []
        assert obtain().path.read_bytes() == SMALL
        assert not list(own_cache.glob("partial/*"))
        shutil.rmtree(own_cache)
    assert continued


# --- private manifests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://example.org/a-00000000.pth", True),
        ("http://127.0.0.1:8000/a-00000000.pth", True),
        ("http://localhost/a-00000000.pth", True),
        ("http://example.org/a-00000000.pth", False),
        ("http://127.0.0.1.example.org/a-00000000.pth", False),
        ("http://localhost@example.org/a-00000000.pth", False),
        ("file:///etc/passwd", False),
        ("ftp://example.org/a-00000000.pth", False),
        ("/etc/passwd", False),
    ],
)
def test_a_private_manifest_may_name_https_and_this_machine(url: str, is_good: bool, tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "manifest.json", origins={NAME: (url, "00000000")})
    if is_good:
        read_manifest(path)
    else:
        with pytest.raises(ManifestError, match="https"):
            read_manifest(path)


# --- the command --------------------------------------------------------------------------------------------------


def data_of(result: Result) -> Any:
    """Return the JSON a command printed, which is all it printed."""
    assert result.exit_code == 0, result.stderr or result.exception
    assert result.stderr == ""
    return json.loads(result.stdout)


def test_the_download_command_fetches_and_shows_the_chain(
    origin: str, server: FaultServer, upstream: bytes, converted: bytes
) -> None:
    (record,) = data_of(run("download", NAME, "--format", "json"))
    assert (record["model"], record["weights"], record["pin"]) == (NAME, "openmmlab", "32-bit pin")
    assert record["source"] == server.url(origin)
    assert (record["source_sha256"], record["file_sha256"]) == (sha256(upstream), sha256(converted))
    chain = {key: value for key, value in record.items() if key not in ("model", "weights")}
    assert data_of(run("show", NAME, "--chain", "--format", "json")) == chain
    assert len(server.requests) == 1


def test_the_download_command_shows_a_table(origin: str) -> None:
    result = run("download", NAME)
    assert "32-bit pin" in result.stdout
    assert result.stderr == ""


def test_the_download_command_ends_with_3_where_nothing_can_be_had(origin: str, server: FaultServer) -> None:
    del server.resources[origin]
    result = run("download", NAME)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "HTTP 404" in result.stderr


def test_the_offline_option_opens_no_connection(origin: str, server: FaultServer) -> None:
    result = run("--offline", "download", NAME)
    assert (result.exit_code, result.stdout, server.requests) == (3, "", [])
    assert "offline mode" in result.stderr


def test_the_manifest_option_names_another_zoo(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.environ["RESNET_ZOO_MANIFEST"]
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", "")
    assert len(data_of(run("--manifest", path, "download", NAME, "--format", "json"))) == 1


def test_the_mirror_option_is_asked_first(origin: str, server: FaultServer, upstream: bytes, tmp_path: Path) -> None:
    (tmp_path / upstream_name(upstream)).write_bytes(upstream)
    (record,) = data_of(run("--mirror", tmp_path, "download", NAME, "--format", "json"))
    assert record["source"] == str(tmp_path / upstream_name(upstream))
    assert server.requests == []


@pytest.mark.parametrize("arguments", [(), (NAME, "--all")])
def test_the_download_command_wants_names_or_all(arguments: tuple[str, ...]) -> None:
    assert run("download", *arguments).exit_code == 2


def test_the_cache_folder_is_printed(own_cache: Path) -> None:
    assert run("cache", "dir").stdout == f"{own_cache}\n"


def test_the_cache_is_listed_with_bytes_and_iso_times(origin: str, converted: bytes) -> None:
    assert data_of(run("cache", "ls", "--format", "json")) == []
    open_weights(get_entry(NAME), TAG)
    (file,) = data_of(run("cache", "ls", "--format", "json"))
    assert (file["size_bytes"], file["sha256"]) == (len(converted), sha256(converted))
    assert (file["weights"], file["pin"]) == ([f"{NAME}/{TAG}"], "32-bit pin")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", file["modified"])
    assert "32-bit pin" in run("cache", "ls").stdout


def test_the_cache_is_verified(origin: str) -> None:
    local = open_weights(get_entry(NAME), TAG).local
    assert local is not None
    assert data_of(run("cache", "verify", "--format", "json")) == {"checked": 1, "damaged": []}
    flip(local.path, 77)
    result = run("cache", "verify")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (1, "1 checked, 1 damaged")
    assert local.sha256 in result.stdout


def test_weights_are_removed_by_name(origin: str, converted: bytes, own_cache: Path) -> None:
    open_weights(get_entry(NAME), TAG)
    assert run("cache", "rm", "resnet34_cifar10").exit_code == 2
    assert run("cache", "rm", f"{NAME}/{TAG}").stdout == f"{len(converted):,} bytes freed\n"
    assert not list(own_cache.glob("objects/*"))


def test_what_is_of_no_use_is_pruned(small: str, own_cache: Path) -> None:
    kept = obtain().path
    for name in ("partial/x/y", "quarantine/z", f"objects/{'0' * 64}.safetensors"):
        (own_cache / name).parent.mkdir(parents=True, exist_ok=True)
        (own_cache / name).write_bytes(bytes(100))
    assert run("cache", "prune").stdout == "300 bytes freed\n"
    left = [name for name in files_below(own_cache) if not name.startswith(("pins/", "locks/"))]
    assert left == [f"objects/{kept.name}"]


def test_an_exported_folder_is_a_mirror_without_network(
    use: Use, server: FaultServer, converted: bytes, tmp_path: Path, online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(files={NAME: ("v1/file.safetensors", converted)}, base_urls=[server.url("")])
    server.serve("/v1/file.safetensors", converted)
    run("download", NAME)
    result = run("cache", "export", tmp_path / "mirror")
    assert result.stdout == f"{tmp_path / 'mirror' / 'file.safetensors'}\n"
    monkeypatch.setenv("RESNET_ZOO_HOME", str(tmp_path / "other machine"))
    (record,) = data_of(run("--offline", "--mirror", tmp_path / "mirror", "download", NAME, "--format", "json"))
    assert (record["file_sha256"], record["pin"]) == (sha256(converted), "sha256")
    assert len(server.requests) == 1


def test_verify_fetches_only_if_told_to(origin: str, server: FaultServer) -> None:
    report = data_of_verify(run("verify", NAME, "--format", "json"))
    assert (report["weights"]["status"], server.requests) == ("not checked", [])
    report = data_of_verify(run("verify", NAME, "--download", "--format", "json"))
    assert report["weights"]["status"] == "passed"
    assert "32-bit pin" in report["weights"]["detail"]
    assert chain_of(open_weights(get_entry(NAME), TAG)).tensors_sha256 in report["weights"]["detail"]
    assert len(server.requests) == 1


def data_of_verify(result: Result) -> dict[str, Any]:
    (report,) = json.loads(result.stdout)["reports"]
    return {check["name"]: check for check in report["checks"]}


def test_verify_could_not_check_what_could_not_be_fetched(origin: str, server: FaultServer) -> None:
    del server.resources[origin]
    assert run("verify", NAME, "--download").exit_code == 3


def test_a_bar_is_drawn_of_every_file(small: str) -> None:
    seen: list[tuple[str, int, int | None]] = []
    obtain(progress=lambda *arguments: seen.append(arguments))
    assert {name for name, _, _ in seen} == {upstream_name(SMALL)}
    assert seen[-1][1:] == (len(SMALL), len(SMALL))
