"""What happens to the weights hub when things go wrong: every line is an experiment with real servers and processes.

Run from a checkout: ``python scripts/faults.py`` (minutes), or with ``--short``. Ends with 1 if a line fails.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from resnet_zoo.catalog.manifest import get_entry, read_manifest
from resnet_zoo.errors import DownloadError, IntegrityError, ManifestError, ZooError
from resnet_zoo.weights.download import obtain_weights
from tests import fault_server, private_zoo
from tests.fault_server import Answer, FaultServer
from tests.private_zoo import NAME, QUICK, TAG, copy, sha256

CONTENT = random.Random(0).randbytes(1_500_000)  # noqa: S311  # no secret
"""Stands for a checkpoint where nothing is converted."""

SLOWLY = fault_server.trickle(1 << 14, 0.002)


@dataclass(frozen=True)
class Outcome:
    """How many tries there were and how many ended as they must, with a remark."""

    tries: int
    good: int
    remark: str = ""


@dataclass(frozen=True)
class Place:
    """A folder, a cache in it, and a server that has the weights of one row."""

    folder: Path
    server: FaultServer
    path: str
    url: str
    content: bytes

    @property
    def home(self) -> Path:
        """The cache."""
        return self.folder / "home"

    @property
    def objects(self) -> list[bytes]:
        """What the cache holds."""
        return [path.read_bytes() for path in self.home.glob("objects/*")]

    def is_clean(self, *good: bytes) -> bool:
        """Whether the cache holds nothing but good files and transfers that can be continued."""
        return private_zoo.bad_files(self.home, [sha256(content) for content in good or (self.content,)]) == []

    def serve(self, *answers: Answer, then: Answer | None = None) -> None:
        """Choose how the server answers."""
        self.server.serve(self.path, self.content, *answers, then=then)

    def obtain(self) -> bytes:
        """Obtain the weights, unconverted."""
        return obtain_weights(get_entry(NAME), TAG, copy, patience=QUICK).path.read_bytes()


@contextlib.contextmanager
def place(content: bytes = CONTENT, *, exact: bool = False) -> Iterator[Place]:
    """Set up a place; ``exact``: the manifest knows the whole hash and the size."""
    with tempfile.TemporaryDirectory() as name, FaultServer() as server:
        folder, path = Path(name), f"/{private_zoo.upstream_name(content)}"
        url = server.serve(path, content)
        addresses: dict[str, Any] = {"origins": {NAME: (url, sha256(content)[:8])}}
        if exact:
            addresses = {"files": {NAME: (path[1:], content)}, "base_urls": [server.url("")]}
        manifest = private_zoo.write_manifest(folder / "manifest.json", **addresses)
        os.environ.update(RESNET_ZOO_HOME=str(folder / "home"), RESNET_ZOO_MANIFEST=str(manifest))
        yield Place(folder, server, path, url, content)


# --- experiments --------------------------------------------------------------------------------------------------


def flipped_bits(count: int) -> Outcome:
    """Flip single bits of a cached file, a fifth of them in its header."""
    from resnet_zoo.weights.loading import open_weights

    found = 0
    with place(private_zoo.upstream_checkpoint()) as here, offline(False):
        local = open_weights(get_entry(NAME), TAG).local
        if local is None:
            raise RuntimeError
        good = local.path.read_bytes()
        with offline(True):
            for bit in private_zoo.spread_bits(good, count):
                private_zoo.flip(local.path, bit)
                try:
                    open_weights(get_entry(NAME), TAG)
                except IntegrityError:
                    (aside,) = here.home.glob("quarantine/*")
                    found += not local.path.exists()
                    private_zoo.flip(aside, bit)
                    aside.rename(local.path)
                else:
                    private_zoo.flip(local.path, bit)
            is_whole = open_weights(get_entry(NAME), TAG).checkpoint.sha256 == sha256(good)
    return Outcome(count, found if is_whole else 0, f"{count - found} wrong tensors")


def killed_downloads(count: int) -> Outcome:
    """Kill a downloading process at a random moment, and let another obtain the same."""
    chosen = random.Random(1)  # noqa: S311  # no secret
    good, resumed, orphans = 0, 0, list[str]()
    with place() as here:
        here.serve(then=SLOWLY)
        go = here.folder / "go"
        go.touch()
        for _ in range(count):
            asked = len(here.server.requests)
            victim = private_zoo.start_obtaining(go, here.folder)
            private_zoo.wait_until(lambda asked=asked: len(here.server.requests) > asked)  # type: ignore[misc]
            time.sleep(chosen.uniform(0, 0.3))
            victim.process.kill()
            victim.process.communicate()
            path = private_zoo.start_obtaining(go, here.folder).path()
            good += path is not None and path.read_bytes() == CONTENT and here.is_clean()
            orphans += [name for name in private_zoo.files_below(here.home) if "part" in name]
            resumed += here.server.requests[-1].range is not None
            shutil.rmtree(here.home)
        twice = here.server.sent(here.path) / (count * len(CONTENT)) - 1
    is_frugal = twice <= 0.1 and not orphans and resumed > 0
    remark = f"{resumed} resumed, {100 * twice:.1f}% fetched twice, {len(orphans)} orphan files{orphans[:1] or ''}"
    return Outcome(count, good if is_frugal else 0, remark)


def race(count: int, *, kill_one: bool) -> Outcome:
    """Let processes obtain the same at the same moment, one of them killed as soon as bytes arrive."""
    with place() as here:
        here.serve(then=SLOWLY)
        paths = private_zoo.race(count, here.folder, kill_one=kill_one)
        good = sum(path.read_bytes() == CONTENT for path in paths)
        bodies = here.server.sent(here.path) / len(CONTENT)
        is_frugal = (bodies < 1.1 if kill_one else bodies == 1) and here.is_clean()
    return Outcome(count - kill_one, good if is_frugal else 0, f"{bodies:.2f} bodies sent")


def bad_answer(fault: private_zoo.Fault) -> Outcome:
    """Let a server answer badly; then well."""
    with place() as here:
        here.serve(*fault.answers(CONTENT))
        said, start = "recovered", time.monotonic()
        try:
            is_right = here.obtain() == CONTENT and fault.says is None
        except DownloadError as error:
            said = error.attempts[here.url]
            is_right = bool(fault.says and re.search(fault.says, said)) and not here.objects
        seconds = time.monotonic() - start
        is_clean = here.is_clean()
        here.serve()
        is_right_again = here.obtain() == CONTENT
    return Outcome(1, int(is_right and is_clean and is_right_again and seconds < 10), said)


def oversized(*, announced: bool) -> Outcome:
    """Let a server send 100 MB more than the manifest says."""
    with place(exact=True) as here:
        here.serve(then=fault_server.oversized(bytes(100_000_000), announced=announced))
        said = ""
        try:
            here.obtain()
        except DownloadError as error:
            said = "; ".join(error.attempts.values())
        sent = here.server.sent(here.path)
        here.serve()
        is_good = bool(said) and sent < 30_000_000 and here.is_clean() and here.obtain() == CONTENT
    return Outcome(1, int(is_good), f"stopped after {sent / 1e6:.1f} of 101.5 MB")


FILL_THE_DISK = f"""
import resource, shutil
from resnet_zoo.weights.download import obtain_weights
from resnet_zoo.catalog.manifest import get_entry
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
try:
    obtain_weights(get_entry({NAME!r}), {TAG!r}, lambda source, target, _: shutil.copyfile(source, target))
except OSError as error:
    print(error)
"""


def full_disk() -> Outcome:
    """Let the file system take 1 MB of 1.5, then all."""
    with place() as here:
        done = subprocess.run([sys.executable, "-c", FILL_THE_DISK], capture_output=True, text=True, check=False)
        said = done.stdout.strip()
        is_good = "File too large" in said and not here.objects and here.is_clean() and here.obtain() == CONTENT
    return Outcome(1, int(is_good), said)


def hostile_file(what: str) -> Outcome:
    """Serve a file that wants to run code, write elsewhere, or fill the memory; its hash is the expected one."""
    from resnet_zoo.zoo import create_model

    with tempfile.TemporaryDirectory() as outside:
        marker = Path(outside) / "executed"
        content, name = private_zoo.hostile_files(marker)[what]
        with place(content) as here:
            said = ""
            try:
                create_model(NAME, pretrained=True)
            except DownloadError as error:
                said = error.attempts[here.url]
            left = [file for file in private_zoo.files_below(here.folder) if not file.startswith("home/locks/")]
        found = re.search(name, said)
        is_good = found is not None and not list(Path(outside).iterdir()) and left == ["manifest.json"]
    return Outcome(1, int(is_good), f"refused: {found[0] if found else said}")


BAD_ADDRESSES: tuple[dict[str, Any], ...] = (
    *(
        {"origins": {NAME: (url, "00000000")}}
        for url in ("http://example.org/a.pth", "http://127.0.0.1.example.org/a.pth", "file:///a.pth", "/a.pth")
    ),
    *({"files": {NAME: (path, b"x")}} for path in ("../a", "/a", "a/../../b", "C:\\a", "file:///a")),
    *({"base_urls": [url]} for url in ("../a", "/a", "http://example.org/a", "file:///a", "hf://owner")),
)


def bad_manifests() -> Outcome:
    """Read manifests whose addresses lead elsewhere than they may."""
    refused = 0
    with tempfile.TemporaryDirectory() as folder:
        for index, addresses in enumerate(BAD_ADDRESSES):
            path = private_zoo.write_manifest(Path(folder) / f"{index}.json", **addresses)
            try:
                read_manifest(path)
            except ManifestError:
                refused += 1
    return Outcome(len(BAD_ADDRESSES), refused)


def offline_and_cold() -> Outcome:
    """Ask for weights that are not there, without a network."""
    start, said = time.monotonic(), ""
    with place() as here, offline(True):
        try:
            here.obtain()
        except ZooError as error:
            said = str(error)
        seconds = time.monotonic() - start
        is_good = "offline" in said and seconds < 1 and not here.server.requests
    return Outcome(1, int(is_good), f"no request; an error after {1000 * seconds:.0f} ms")


@contextlib.contextmanager
def offline(value: bool) -> Iterator[None]:
    """Switch offline mode."""
    before = os.environ.get("RESNET_ZOO_OFFLINE", "0")
    os.environ["RESNET_ZOO_OFFLINE"] = "1" if value else "0"
    try:
        yield
    finally:
        os.environ["RESNET_ZOO_OFFLINE"] = before


# --- the table ----------------------------------------------------------------------------------------------------


def experiments(*, short: bool) -> Iterator[tuple[str, Callable[[], Outcome]]]:
    """Yield what is tried, and the function that tries it."""
    flips, kills, racers = (50, 10, 8) if short else (1000, 200, 16)
    yield "one bit flipped in a cached file", lambda: flipped_bits(flips)
    yield "kill -9 in a download", lambda: killed_downloads(kills)
    yield f"{racers} processes race", lambda: race(racers, kill_one=False)
    yield f"{racers} processes race, one is killed", lambda: race(racers, kill_one=True)
    for name, fault in private_zoo.FAULTS.items():
        yield f"server: {name}", lambda fault=fault: bad_answer(fault)  # type: ignore[misc]
    yield "server: oversized, announced", lambda: oversized(announced=True)
    yield "server: oversized, length untold", lambda: oversized(announced=False)
    yield "disk full", full_disk
    for name in private_zoo.hostile_files(Path()):
        yield f"file: {name}", lambda name=name: hostile_file(name)  # type: ignore[misc]
    yield "manifests: ../, absolute, http, file", bad_manifests
    yield "offline with a cold cache", offline_and_cold


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer flips, kills and racers")
    short = parser.parse_args().short
    logging.disable()  # what is put aside is told in the table
    for name in ("RESNET_ZOO_MIRROR", "HF_HUB_OFFLINE"):
        os.environ.pop(name, None)
    os.environ["RESNET_ZOO_OFFLINE"] = "0"
    print(f"{'fault':44} {'tries':>5} {'good':>5}  result {'seconds':>8}  remark")
    failures = 0
    for title, experiment in experiments(short=short):
        start = time.perf_counter()
        outcome = experiment()
        seconds, is_good = time.perf_counter() - start, outcome.good == outcome.tries
        failures += not is_good
        result = "OK" if is_good else "FAIL"
        remark = " ".join(outcome.remark.split())[:80]
        numbers = f"{outcome.tries:5} {outcome.good:5}  {result:6} {seconds:8.2f}"
        print(f"{title:44} {numbers}  {remark}", flush=True)
    print(f"{failures} of the lines failed" if failures else "every line is OK")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
