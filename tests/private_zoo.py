"""A zoo of one's own: manifests whose addresses lead to this machine, and checkpoints, honest and hostile, to serve."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.network.building import build
from resnet_zoo.weights.key_layouts import from_ours, renamed
from resnet_zoo.weights.transfer import Patience
from tests import fault_server
from tests.conftest import randomise
from tests.fault_server import Answer

ROOT = Path(__file__).parent.parent
NAME = "resnet18_cifar10"
TAG = "openmmlab"

QUICK = Patience(
    connect_s=2.0, read_s=0.5, window_s=0.5, window_bytes=1 << 16, attempts=3, backoff_s=0.01, max_wait_s=0.05
)
"""Little patience, for servers that will not do better."""


def copy(source: Path, target: Path, _: str) -> None:
    """Stand in for a conversion."""
    shutil.copyfile(source, target)


def sha256(content: bytes) -> str:
    """Return the sha256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def state_dict(name: str = NAME, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors for a row."""
    torch.manual_seed(seed)
    return randomise(build(get_entry(name)), seed).state_dict()


def upstream_checkpoint(name: str = NAME, seed: int = 0) -> bytes:
    """Return the bytes of a checkpoint in OpenMMLab's layout."""
    tensors = state_dict(name, seed)
    buffer = io.BytesIO()
    torch.save({"meta": {"epoch": 200}, "state_dict": renamed(tensors, from_ours(tensors, "openmmlab"))}, buffer)
    return buffer.getvalue()


def upstream_name(content: bytes, name: str = NAME) -> str:
    """Return the file name that carries a checkpoint's hash as upstream's do."""
    return f"{name}_20210528-{sha256(content)[:8]}.pth"


def write_manifest(
    path: Path,
    *,
    origins: Mapping[str, tuple[str, str]] | None = None,
    files: Mapping[str, tuple[str, bytes]] | None = None,
    base_urls: Iterable[str] = (),
) -> Path:
    """Write a copy of the package's manifest with other addresses.

    Args:
        path: Where it goes; a path is read once in a process, so a changed one needs another path.
        origins: For rows: the upstream address and the leading digits of its sha256.
        files: For rows: the path and the content of the safetensors file.
        base_urls: Where ``files`` are looked for.
    """
    content = json.loads((ROOT / "weights_manifest.json").read_text(encoding="utf-8"))
    content["base_urls"] = list(base_urls)
    for row in content["models"]:
        weight_set = row["weights"]["openmmlab"]  # others have files that lie beside the package's manifest
        row |= {"weights": {"openmmlab": weight_set}, "default_weights": "openmmlab"}
        if origins and row["name"] in origins:
            url, prefix = origins[row["name"]]
            weight_set["origin"] = {"url": url, "sha256_prefix": prefix, "witness": None}
        if files and row["name"] in files:
            name, data = files[row["name"]]
            weight_set["file"] = {"path": name, "sha256": sha256(data), "size_bytes": len(data)}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def files_below(folder: Path) -> list[str]:
    """Return every file below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def bad_files(home: Path, good_sha256: Iterable[str]) -> list[str]:
    """Return what is in a cache and should not be: objects with other bytes, pins of them, and unfinished work."""
    objects = {path.name: sha256(path.read_bytes()) for path in home.glob("objects/*")}
    wrong = [name for name, actual in objects.items() if name != f"{actual}.safetensors" or actual not in good_sha256]
    rest = [name for name in files_below(home) if name.split("/")[0] not in ("objects", "pins", "locks", "partial")]
    return wrong + rest + [name for name in files_below(home) if name.endswith(".part")]


def flip(path: Path, bit: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))


def spread_bits(content: bytes, count: int) -> list[int]:
    """Return bits of which a fifth lie in the header and the rest in the tensors."""
    header = 8 * (8 + int.from_bytes(content[:8], "little"))
    chosen = random.Random(1)
    in_header = [chosen.randrange(header) for _ in range(count // 5)]
    return in_header + [chosen.randrange(header, 8 * len(content)) for _ in range(count - len(in_header))]


# --- processes ----------------------------------------------------------------------------------------------------

OBTAIN = """
import os, pathlib, shutil, sys, time
from resnet_zoo.weights.download import obtain_weights
from resnet_zoo.catalog.manifest import get_entry

go, mark = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) / str(os.getpid())
import requests, filelock
mark.with_suffix(".ready").touch()
while not go.exists():
    time.sleep(0.001)

def copy(source, target, _):
    shutil.copyfile(source, target)

local = obtain_weights(get_entry("resnet18_cifar10"), "openmmlab", copy, progress=lambda *_: mark.touch())
print(local.path)
"""
"""A process without torch that waits for a file, obtains the weights unconverted, and marks that bytes arrive."""


@dataclass(frozen=True)
class Obtaining:
    """A process that runs `OBTAIN`."""

    process: subprocess.Popen[str]
    mark: Path

    @property
    def is_ready(self) -> bool:
        """Whether it waits for the file."""
        return self.mark.with_suffix(".ready").exists()

    @property
    def has_bytes(self) -> bool:
        """Whether it is the one that downloads."""
        return self.mark.exists()

    def path(self) -> Path | None:
        """Wait for the end; return the path it printed, ``None`` if it did not end well."""
        out, _ = self.process.communicate(timeout=60)
        return Path(out.strip()) if self.process.returncode == 0 else None


def start_obtaining(go: Path, marks: Path) -> Obtaining:
    """Start a process that runs `OBTAIN` with this environment."""
    process = subprocess.Popen(
        [sys.executable, "-c", OBTAIN, str(go), str(marks)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    return Obtaining(process, marks / str(process.pid))


def race(count: int, folder: Path, *, kill_one: bool) -> list[Path]:
    """Let processes obtain the same weights at the same moment; return what each that lived has."""
    go, marks = folder / "go", folder / "marks"
    marks.mkdir()
    racers = [start_obtaining(go, marks) for _ in range(count)]
    wait_until(lambda: all(racer.is_ready for racer in racers))
    go.touch()
    if kill_one:
        wait_until(lambda: any(racer.has_bytes for racer in racers))
        (victim,) = (racer for racer in racers if racer.has_bytes)
        victim.process.kill()
        victim.process.communicate()
        racers.remove(victim)
    paths = [racer.path() for racer in racers]
    return [path for path in paths if path is not None]


def wait_until(holds: Callable[[], bool], longest_s: float = 60) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: It does not within this time.
    """
    end = time.monotonic() + longest_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.001)


# --- faults of a server -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Answers that are no good, and what then is said: a pattern, or ``None`` where the transfer recovers."""

    answers: Callable[[bytes], list[Answer]]
    says: str | None


def _always(answer: Answer, says: str) -> Fault:
    return Fault(lambda _: [answer] * 50, says)


FAULTS: dict[str, Fault] = {
    "cut, then whole": Fault(lambda _: [fault_server.cut, fault_server.cut], None),
    "cut, length untold": Fault(lambda _: [fault_server.cut_no_length], None),
    "wrong bytes, once": Fault(lambda _: [fault_server.wrong], None),
    "cut, every time": _always(fault_server.no_range_cut, "connection|ended|bytes"),
    "silent": _always(fault_server.silence, "in time|stalled"),
    "endless": _always(fault_server.endless, "more than|at most"),
    "wrong bytes": _always(fault_server.wrong, "wrong bytes"),
    "500 for good": _always(fault_server.status(500), "HTTP 500"),
    "404": _always(fault_server.status(404), "HTTP 404"),
    "changed in between": Fault(
        lambda content: [fault_server.changed(content[::-1], fault_server.cut), fault_server.changed(content)], None
    ),
    "portal page with 200": _always(fault_server.portal(), "web page"),
}
"""What a server may do to one transfer of a file whose size is not known beforehand; all of it is in test_transfer."""


# --- hostile files ------------------------------------------------------------------------------------------------


class _Call:
    """Something that calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def _saved(content: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def _renamed_members(archive: bytes, rename: Callable[[str], str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for member in source.infolist():
            target.writestr(rename(member.filename), source.read(member))
    return buffer.getvalue()


def _with_member(archive: bytes, name: str, content: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a", compression) as target:
        target.writestr(name, content)
    return buffer.getvalue()


def hostile_files(marker: Path) -> dict[str, tuple[bytes, str]]:
    """Return files that would make ``marker`` or fill the machine, and how each is refused: what it is, its name.

    Args:
        marker: The file that exists if any code was run.
    """
    touch = f"touch {marker}"
    write = f"open({str(marker)!r}, 'w').close()"
    honest = _saved({"state_dict": {"w": torch.ones(4)}})
    nested = {"state_dict": {"w": torch.ones(4), "x": [{"y": (_Call(eval, write),)}]}}
    inner = _Call(getattr, _Call(__import__, "os"), "system")
    return {
        "os.system": (_saved({"state_dict": _Call(os.system, touch)}), r"posix\.system"),
        "os.system, legacy file": (_saved({"state_dict": _Call(os.system, touch)}, legacy=True), r"posix\.system"),
        "os.system, bare pickle": (pickle.dumps(_Call(os.system, touch), protocol=2), r"posix\.system"),
        "builtins.eval": (_saved(_Call(eval, write)), r"eval"),
        "nested reduce": (_saved(nested), r"eval"),
        "reduce within reduce": (_saved([inner]), r"getattr|__import__"),
        "zip with ../ names": (_renamed_members(honest, lambda name: f"../../{name}"), r"\.\./\.\./"),
        "zip with one ../ name": (_with_member(honest, "../../../evil", b"evil"), r"\.\./\.\./\.\./evil"),
        "zip with an absolute name": (_with_member(honest, str(marker), b"evil"), str(marker)),
        "zip bomb": (_zip_bomb(), "unpacks to more than its own size"),
        "TorchScript": (_script(), "TorchScript code"),
        "safetensors header bomb": (struct.pack("<Q", 1 << 60) + b"{" + bytes(100), "cannot be read|neither"),
    }


@functools.cache
def _zip_bomb() -> bytes:
    honest = _saved({"state_dict": {"w": torch.ones(4)}})
    return _with_member(honest, "archive/data/9", bytes(1 << 26), zipfile.ZIP_DEFLATED)


def _script() -> bytes:
    return _with_member(_saved({"w": torch.ones(1)}), "archive/constants.pkl", pickle.dumps(()))
