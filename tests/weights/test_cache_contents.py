"""What the cache holds: listing, checking, removing, pruning, exporting."""

from __future__ import annotations

import os
import random
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from resnet_zoo.errors import ArgumentError, IntegrityError, UnknownModelError
from resnet_zoo.weights import cache
from resnet_zoo.weights.cache import Pin
from resnet_zoo.weights.cache_contents import (
    cached_sets,
    damaged_files,
    export_mirror,
    list_cache,
    prune,
    remove_files,
    select_files,
)
from tests.private_zoo import files_below, sha256, write_manifest

SECOND, THIRD, PINNED = "resnet50_cifar10", "resnet101_cifar10", "resnet152_cifar10"
CONTENT = {name: random.Random(name).randbytes(1000 + len(name)) for name in (SECOND, THIRD, PINNED, "stranger")}
ORIGIN = "https://example.org/weights/pinned-12345678.pth"
PIN = Pin(
    "https://mirror.example/x.pth", "12345678" + "a" * 56, 77, sha256(CONTENT[PINNED]), "2026-01-01T00:00:00+00:00"
)


def put(content: bytes) -> Path:
    path = cache.object_path(sha256(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture(autouse=True)
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zoo of two published rows and one that is pinned, all in the cache, with a file of no row."""
    files = {name: (f"v1/{name}.safetensors", CONTENT[name]) for name in (SECOND, THIRD)}
    manifest = write_manifest(tmp_path / "manifest.json", files=files, origins={PINNED: (ORIGIN, "12345678")})
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(manifest))
    for content in CONTENT.values():
        put(content)
    cache.write_pin("12345678-pinned-12345678.pth", PIN)


def test_an_empty_cache_has_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_ZOO_HOME", str(tmp_path / "nothing"))
    assert (list_cache(), list(cached_sets()), prune()) == ([], [], 0)
    assert not (tmp_path / "nothing").exists()


def test_files_are_listed_in_table_order_and_strangers_last() -> None:
    files = list_cache()
    assert [file.weights for file in files] == [
        (f"{SECOND}/openmmlab",),
        (f"{THIRD}/openmmlab",),
        (f"{PINNED}/openmmlab",),
        (),
    ]
    names = [SECOND, THIRD, PINNED, "stranger"]
    assert [(file.sha256, file.size_bytes) for file in files] == [
        (sha256(CONTENT[name]), len(CONTENT[name])) for name in names
    ]


def test_a_file_says_how_it_was_checked_and_where_it_comes_from() -> None:
    by_row = {file.weights: file for file in list_cache()}
    assert by_row[f"{SECOND}/openmmlab",].pin == "sha256"
    assert by_row[f"{PINNED}/openmmlab",].pin == "32-bit pin"
    assert by_row[f"{PINNED}/openmmlab",].source == PIN.url
    assert (by_row[()].pin, by_row[()].source) == ("", "")


def test_times_are_iso_and_utc() -> None:
    path = put(CONTENT[SECOND])
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (file,) = select_files([SECOND])
    assert file.modified == datetime.fromtimestamp(1_700_000_000, timezone.utc).isoformat()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", file.modified)


def test_a_file_of_two_rows_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = dict.fromkeys((SECOND, THIRD), ("same.safetensors", CONTENT[SECOND]))
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(write_manifest(tmp_path / "two.json", files=files)))
    assert list_cache()[0].weights == (f"{SECOND}/openmmlab", f"{THIRD}/openmmlab")


def test_only_damaged_files_are_called_so() -> None:
    assert damaged_files(list_cache()) == []
    put(CONTENT[THIRD]).write_bytes(CONTENT[THIRD][:-1])
    assert [file.weights for file in damaged_files(list_cache())] == [(f"{THIRD}/openmmlab",)]


@pytest.mark.parametrize("name", [SECOND, f"{SECOND}/openmmlab"])
def test_files_are_selected_by_row_or_tag(name: str) -> None:
    assert [file.weights for file in select_files([name])] == [(f"{SECOND}/openmmlab",)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet18_cifar10", ArgumentError),
        (f"{SECOND}/openmm", ArgumentError),
        ("resnet50", ArgumentError),
        ("resnet19", UnknownModelError),
        ("../x", UnknownModelError),
    ],
)
def test_what_is_not_there_cannot_be_selected(name: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        select_files([name])


def test_removing_leaves_everything_else(own_cache: Path) -> None:
    before = files_below(own_cache)
    assert remove_files(select_files([SECOND])) == len(CONTENT[SECOND])
    assert set(before) - set(files_below(own_cache)) == {f"objects/{sha256(CONTENT[SECOND])}.safetensors"}
    with pytest.raises(ArgumentError):
        select_files([SECOND])


def test_removing_what_has_gone_meanwhile_is_no_error() -> None:
    files = select_files([SECOND])
    remove_files(files)
    remove_files(files)


def test_pruning_removes_strangers_and_leftovers_only(own_cache: Path) -> None:
    for name in ("partial/key/x.pth", "quarantine/y"):
        (own_cache / name).parent.mkdir(parents=True)
        (own_cache / name).write_bytes(bytes(10))
    assert prune() == 20 + len(CONTENT["stranger"])
    kept = [f"objects/{sha256(CONTENT[name])}.safetensors" for name in (SECOND, THIRD, PINNED)]
    left = [name for name in files_below(own_cache) if not name.startswith("locks/")]
    assert left == [*sorted(kept), "pins/12345678-pinned-12345678.pth.json"]
    assert prune() == 0


def test_a_transfer_under_way_is_not_pruned(own_cache: Path) -> None:
    part = cache.part_path("key", "x.pth")
    part.write_bytes(b"half")
    with cache.lock("key"):
        prune()
        assert part.exists()
    prune()
    assert not part.exists()


def test_an_export_has_the_published_files_under_their_own_names(tmp_path: Path) -> None:
    written, left_out = export_mirror(tmp_path / "a" / "mirror")
    assert written == [tmp_path / "a" / "mirror" / f"{name}.safetensors" for name in (SECOND, THIRD)]
    assert [path.read_bytes() for path in written] == [CONTENT[SECOND], CONTENT[THIRD]]
    assert left_out == [f"{PINNED}/openmmlab"]


def test_an_export_can_be_repeated(tmp_path: Path) -> None:
    assert export_mirror(tmp_path / "mirror") == export_mirror(tmp_path / "mirror")
    assert len(files_below(tmp_path / "mirror")) == 2


def test_a_damaged_file_is_never_exported(tmp_path: Path) -> None:
    put(CONTENT[THIRD]).write_bytes(bytes(5))
    with pytest.raises(IntegrityError):
        export_mirror(tmp_path / "mirror")
    assert files_below(tmp_path / "mirror") == [f"{SECOND}.safetensors"]
