"""The cache folder: where it is, what enters it, who may write, and one process at a time."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from resnet_zoo.base import waiting
from resnet_zoo.catalog.manifest import get_entry, manifest_path
from resnet_zoo.errors import CheckpointError, DownloadError
from resnet_zoo.weights import cache
from resnet_zoo.weights.cache import Pin
from resnet_zoo.weights.cache_contents import list_cache
from resnet_zoo.weights.loading import open_weights
from resnet_zoo.weights.places import weights_here

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PIN = Pin("https://example.org/a-01234567.pth", "0" * 64, 3, "f" * 64, "2025-01-02T03:04:05+00:00")
NOBODY = 65534

posix_only = pytest.mark.skipif(os.name != "posix", reason="users and signals of POSIX")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("RESNET_ZOO_HOME", str(home))
    return home


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def put_part(content: bytes = CONTENT, key: str = "key") -> Path:
    part = cache.part_path(key, "file.pth")
    part.write_bytes(content)
    part.with_name("file.pth.json").write_text("{}")
    return part


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache that every user can reach, unlike pytest's own folders."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shared = Path(folder) / "home"
        shared.mkdir()
        monkeypatch.setenv("RESNET_ZOO_HOME", str(shared))
        yield shared
        set_modes(shared, 0o755)


def set_modes(home: Path, mode: int) -> None:
    for path in [home, *home.rglob("*")]:
        path.chmod(mode if path.is_dir() else mode & 0o666)


def by_a_reader(home: Path, act: Callable[[], object], *, mode: int = 0o555) -> str:
    """Return what ``act`` returned or raised in a process whose user has no more rights in the cache than ``mode``."""
    set_modes(home, mode)
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:  # the child: nothing of it may return to pytest
        try:
            os.close(reader)
            if os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            try:
                said = repr(act())
            except BaseException as error:  # noqa: BLE001  # the parent looks at it
                said = f"{type(error).__name__}: {error}"
            os.write(writer, said.encode()[:4000])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        said = pipe.read()
    assert os.waitpid(process, 0) == (process, 0)
    return said


# Where it is.


def test_the_variable_names_the_folder(home: Path) -> None:
    assert cache.cache_path() == home


def test_the_variable_may_begin_with_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_ZOO_HOME", "~/zoo")
    assert cache.cache_path() == Path.home() / "zoo"


PLACES = [
    ("linux", {}, ".cache/resnet_zoo"),
    ("linux", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/resnet_zoo"),
    ("linux", {"XDG_CACHE_HOME": ""}, ".cache/resnet_zoo"),
    ("linux", {"XDG_CACHE_HOME": "relative"}, ".cache/resnet_zoo"),
    ("linux", {"LOCALAPPDATA": "/local"}, ".cache/resnet_zoo"),
    ("freebsd14", {"XDG_CACHE_HOME": "/xdg"}, "/xdg/resnet_zoo"),
    ("darwin", {}, "Library/Caches/resnet_zoo"),
    ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "Library/Caches/resnet_zoo"),
    ("win32", {}, "AppData/Local/resnet_zoo/Cache"),
    ("win32", {"LOCALAPPDATA": "/local"}, "/local/resnet_zoo/Cache"),
    ("win32", {"LOCALAPPDATA": ""}, "AppData/Local/resnet_zoo/Cache"),
]


@pytest.mark.parametrize("home_variable", [None, ""])
@pytest.mark.parametrize(("platform", "variables", "place"), PLACES)
def test_each_platform_has_its_folder(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], place: str, home_variable: str | None
) -> None:
    for name in ("RESNET_ZOO_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if home_variable is not None:
        monkeypatch.setenv("RESNET_ZOO_HOME", home_variable)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.cache_path() == Path.home() / place


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that is a bare number, as containers have."""

    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("RESNET_ZOO_HOME", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)


@posix_only
def test_without_a_home_nothing_is_in_the_cache(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache.cache_path() == Path("/nonexistent/.cache/resnet_zoo")
    assert cache.read_pin("a") is None
    assert list_cache() == []
    assert open_weights(get_entry("resnet18_cifar10"), "retrained").checkpoint.tensors  # ships
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache.cache_path() == Path("/xdg/resnet_zoo")


@posix_only
def test_a_path_in_a_home_that_is_not_there_is_left_as_it_is(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", "~/zoo.json")
    assert manifest_path() == Path.cwd() / "~" / "zoo.json"
    monkeypatch.setenv("HOME", "/home/somebody")
    assert manifest_path() == Path("/home/somebody/zoo.json")


@posix_only
def test_a_home_that_may_not_be_entered_has_nothing_and_takes_nothing(shared: Path) -> None:
    def look() -> None:
        assert cache.read_pin("a") is None
        assert list_cache() == []
        assert weights_here(get_entry("resnet50_in1k"), "openmmlab") is None
        with pytest.raises(PermissionError, match="RESNET_ZOO_HOME"), cache.lock("key"):
            pass

    assert by_a_reader(shared, look, mode=0o000) == "None"


def test_asking_where_things_are_makes_nothing(home: Path) -> None:
    assert cache.object_path(DIGEST) == home / "objects" / f"{DIGEST}.safetensors"
    assert not cache.is_intact(DIGEST)
    assert cache.read_pin("a-01234567.pth") is None
    assert not home.exists()


# Objects.


def test_a_checked_part_becomes_an_object_and_leaves_nothing_behind(home: Path) -> None:
    path = cache.add_object(put_part(), DIGEST)
    assert path == cache.object_path(DIGEST)
    assert files_in(home) == {f"objects/{DIGEST}.safetensors": CONTENT}
    assert list((home / "partial").iterdir()) == []


@posix_only
def test_an_object_may_be_read_by_everybody_who_may_read_new_files(home: Path) -> None:
    path = cache.add_object(put_part(), DIGEST)
    plain = home / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_an_object_replaces_a_damaged_one(home: Path) -> None:
    cache.object_path(DIGEST).parent.mkdir(parents=True)
    cache.object_path(DIGEST).write_bytes(b"damaged")
    cache.add_object(put_part(), DIGEST)
    assert cache.is_intact(DIGEST)


def test_a_missing_part_is_an_os_error_and_makes_no_object(home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        cache.add_object(cache.part_path("key", "file.pth"), DIGEST)
    assert files_in(home) == {}


def test_a_file_from_elsewhere_becomes_an_object_and_its_folder_stays(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    (folder / "thesis").write_bytes(b"thesis")
    cache.add_object(folder / "file", DIGEST)
    assert cache.is_intact(DIGEST)
    assert files_in(folder) == {"thesis": b"thesis"}


@pytest.mark.parametrize("content", [b"weightt", b"weight", b"weights ", b""])
def test_an_object_with_other_bytes_is_not_intact(content: bytes) -> None:
    cache.add_object(put_part(), DIGEST)
    assert cache.is_intact(DIGEST)
    cache.object_path(DIGEST).write_bytes(content)
    assert not cache.is_intact(DIGEST)


def test_a_folder_is_not_an_intact_object() -> None:
    cache.object_path(DIGEST).mkdir(parents=True)
    assert not cache.is_intact(DIGEST)


# Parts.


def test_a_part_has_its_own_folder_and_its_own_name(home: Path) -> None:
    assert cache.part_path("key", "file.pth") == home / "partial" / "key" / "file.pth"
    assert cache.part_path("key", "file.pth").parent.is_dir()
    assert not cache.part_path("key", "file.pth").exists()


def test_a_dropped_part_goes_with_its_note_and_no_other(home: Path) -> None:
    put_part(key="other")
    cache.drop_part(put_part())
    assert sorted(files_in(home)) == ["partial/other/file.pth", "partial/other/file.pth.json"]


def test_a_part_may_be_dropped_twice() -> None:
    part = put_part()
    cache.drop_part(part)
    cache.drop_part(part)
    assert not part.parent.exists()


@pytest.mark.parametrize("place", ["elsewhere/file", "home/file", "home/objects/file", "home/partial/file"])
def test_a_file_that_is_no_transfer_is_not_dropped(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    cache.drop_part(path)
    assert path.read_bytes() == CONTENT


# Pins.


def test_a_pin_comes_back_as_it_was_written(home: Path) -> None:
    cache.write_pin("a-01234567.pth", PIN)
    assert cache.read_pin("a-01234567.pth") == PIN
    assert cache.read_pin("b-01234567.pth") is None
    assert list(files_in(home)) == ["pins/a-01234567.pth.json"]


def test_a_pin_is_replaced_by_the_next() -> None:
    cache.write_pin("a", PIN)
    later = Pin(PIN.url, "1" * 64, 4, "e" * 64, PIN.date)
    cache.write_pin("a", later)
    assert cache.read_pin("a") == later


GOOD = {
    "url": PIN.url,
    "sha256": PIN.sha256,
    "size_bytes": PIN.size_bytes,
    "object_sha256": PIN.object_sha256,
    "date": PIN.date,
}
DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "cut": json.dumps(GOOD).encode()[:40],
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "null": b"null",
    "a field too few": json.dumps({"url": PIN.url}).encode(),
    "a field too many": json.dumps(GOOD | {"more": 1}).encode(),
    "a number for a digest": json.dumps(GOOD | {"sha256": 5}).encode(),
    "text for a size": json.dumps(GOOD | {"size_bytes": "3"}).encode(),
    "an empty digest": json.dumps(GOOD | {"sha256": ""}).encode(),
    "a short digest": json.dumps(GOOD | {"sha256": "0" * 63}).encode(),
    "a digest in capitals": json.dumps(GOOD | {"sha256": "A" * 64}).encode(),
    "an empty object": json.dumps(GOOD | {"object_sha256": ""}).encode(),
    "a path for an object": json.dumps(GOOD | {"object_sha256": "../../mine"}).encode(),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_pin_is_an_error_that_names_the_file(home: Path, name: str) -> None:
    path = home / "pins" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(DAMAGED[name])
    with pytest.raises(CheckpointError, match=re.escape(str(path)) + ".*not a record of a download.*Remove it"):
        cache.read_pin("a")


def test_an_undamaged_pin_is_read(home: Path) -> None:
    (home / "pins").mkdir(parents=True)
    (home / "pins" / "a.json").write_bytes(json.dumps(GOOD).encode())
    assert cache.read_pin("a") == PIN


# Quarantine.


def test_a_damaged_object_is_put_aside(home: Path) -> None:
    path = cache.add_object(put_part(b"damaged"), DIGEST)
    aside = cache.quarantine(DIGEST)
    assert aside is not None
    assert aside.parent == home / "quarantine"
    assert aside.read_bytes() == b"damaged"
    assert not path.exists()


def test_two_damaged_objects_of_one_name_are_both_kept(home: Path) -> None:
    for content in (b"first", b"second"):
        cache.add_object(put_part(content), DIGEST)
        cache.quarantine(DIGEST)
    assert sorted(files_in(home / "quarantine").values()) == [b"first", b"second"]


def test_an_object_that_has_gone_is_not_put_aside(home: Path) -> None:
    assert cache.quarantine(DIGEST) is None


def test_an_object_that_another_process_repaired_is_not_put_aside(home: Path) -> None:
    path = cache.add_object(put_part(CONTENT), DIGEST)
    assert cache.quarantine(DIGEST) is None
    assert path.read_bytes() == CONTENT


@posix_only
def test_in_a_cache_that_cannot_be_written_nothing_is_put_aside(shared: Path) -> None:
    path = cache.add_object(put_part(b"damaged"), DIGEST)
    before = files_in(shared)
    assert by_a_reader(shared, lambda: cache.quarantine(DIGEST)).startswith("PermissionError")
    assert files_in(shared) == before
    assert "quarantine" in by_a_reader(shared, lambda: cache.quarantine(DIGEST), mode=0o777)
    assert not path.exists()


# A cache that may only be read.


@posix_only
def test_a_cache_that_cannot_be_written_can_be_read(shared: Path) -> None:
    cache.add_object(put_part(), DIGEST)
    cache.write_pin("a", PIN)
    before = files_in(shared)
    assert by_a_reader(shared, lambda: (cache.is_intact(DIGEST), cache.read_pin("a") == PIN)) == "(True, True)"
    assert files_in(shared) == before


def hold_lock() -> str:
    with cache.lock("key"):
        return "held"


@posix_only
@pytest.mark.parametrize(
    "act",
    [lambda: cache.write_pin("a", PIN), lambda: cache.part_path("key", "file"), hold_lock],
    ids=["pin", "part", "lock"],
)
def test_writing_to_a_cache_that_cannot_be_written_is_a_permission_error(
    home: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("RESNET_ZOO_HOME", str(home))
        act()  # may be done where writing is allowed
    assert by_a_reader(shared, act).startswith("PermissionError")
    assert list(shared.iterdir()) == []


# The lock.


class Start(Protocol):
    """A barrier between threads or between processes."""

    def wait(self, timeout: float | None = None) -> int: ...


def count_up(home: str, key: str, counter: str, start: Start) -> None:
    os.environ["RESNET_ZOO_HOME"] = home
    path = Path(counter)
    start.wait(30)
    for _ in range(3):
        with cache.lock(key):
            value = int(path.read_text() or "0")
            time.sleep(0.002)
            path.write_text(str(value + 1))


def race(home: Path, counter: Path, keys: list[str]) -> int:
    """Let a process per key count up three times, all at once, and return what was counted."""
    counter.write_text("0")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["filelock", "resnet_zoo.weights.cache", "tests.weights.test_cache"])
    start = context.Barrier(len(keys))
    processes = [context.Process(target=count_up, args=(str(home), key, str(counter), start)) for key in keys]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
        process.close()
    return int(counter.read_text())


@posix_only
def test_sixteen_processes_hold_the_lock_one_at_a_time(home: Path, tmp_path: Path) -> None:
    assert race(home, tmp_path / "counter", ["key"] * 16) == 48


@posix_only
def test_processes_with_locks_of_their_own_do_not_wait_for_one_another(home: Path, tmp_path: Path) -> None:
    assert race(home, tmp_path / "counter", [f"key{index}" for index in range(16)]) < 48


def test_sixteen_threads_hold_the_lock_one_at_a_time(home: Path, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    start = threading.Barrier(16)
    threads = [threading.Thread(target=count_up, args=(str(home), "key", str(counter), start)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert counter.read_text() == "48"


@posix_only
def test_a_wait_for_a_stopped_process_is_reported_and_ends(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(waiting, "REPORTED_AFTER_S", 0.1)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.send_signal(signal.SIGSTOP)
        with pytest.raises(DownloadError, match="another process"), cache.lock("key", timeout_s=0.5):
            pass
    finally:
        holder.kill()
        holder.communicate()
    (record,) = caplog.records
    assert str(home / "locks" / "key.lock") in record.getMessage()
    with cache.lock("key"):
        pass
    assert len(caplog.records) == 1


HOLDER = """
import time
from resnet_zoo.weights import cache
with cache.lock("key"):
    print("held", flush=True)
    time.sleep(60)
"""


@posix_only
def test_a_killed_holder_frees_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            monkeypatch.setattr(cache, "_LOCK_TIMEOUT_S", 0.2)
            with pytest.raises(DownloadError, match="another process"):
                hold_lock()
        finally:
            holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    start = time.monotonic()
    monkeypatch.setattr(cache, "_LOCK_TIMEOUT_S", 10)
    assert hold_lock() == "held"
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_frees_the_lock(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    with pytest.raises(error), cache.lock("key"):
        raise error
    monkeypatch.setattr(cache, "_LOCK_TIMEOUT_S", 1)
    assert hold_lock() == "held"
