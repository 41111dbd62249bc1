"""Build wheel and sdist of the last commit twice, and keep them only if they are clean and the same to the last byte.

With --weights-url the manifest in both archives names that address first among its base URLs, so that whoever installs
them fetches the files of weights/ from there. Without it nothing is invented: a package then knows no address of them.

The two builds differ in all that must not matter: folder, umask, time stamps, time zone and hash seed; and the second
makes its wheel from its sdist. Needs git and the package `build`, and the index once, for the build backend.

Exit codes: 0 built, 1 a check failed, 2 wrong usage, 3 could not be built. Nothing is written but after all checks.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent

WHEEL_LIMIT, SDIST_LIMIT = 400_000, 1_500_000
"""Bytes; weights are fetched, never shipped in a package."""

WEIGHTS = frozenset({".safetensors", ".pth", ".pt", ".pt2", ".bin", ".ckpt", ".onnx", ".npy", ".npz", ".pkl"})
DATA = frozenset({".jpg", ".jpeg", ".png", ".parquet", ".tar", ".gz", ".tgz", ".zip"})
FOLDERS = frozenset({"weights", "runs", "data", "dist", "build"})
"""At the top of the project: what lies there stays there. The package has folders of these names for its code."""

HIDDEN = frozenset({".git", ".venv", "__pycache__"})
RUN_FILES = frozenset({"result.json", "environment.json", "log.jsonl"})

NEEDED = ("py.typed", "__init__.pyi", "weights_manifest.json", "catalog/class_lists/in1k.tsv")
"""Files of the package that are no Python and easily forgotten."""


class BuildError(Exception):
    """What kept the release from being built, one sentence."""


@dataclass(frozen=True)
class Surroundings:
    """What differs between the two builds and must not matter."""

    umask: int
    time_zone: str
    hash_seed: str
    mtime_shift_s: int
    options: tuple[str, ...]


FIRST = Surroundings(0o022, "UTC", "0", 0, ("--wheel", "--sdist"))
SECOND = Surroundings(0o077, "Asia/Kathmandu", "1", 86_400 * 400, ())
"""Without options `build` makes the wheel from the sdist."""


def package_version(root: Path) -> str:
    """Return the version as the build backend reads it."""
    text = (root / "resnet_zoo" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise BuildError('resnet_zoo/__init__.py has no line __version__ = "…".')
    return found[1]


def tag_problems(tag: str, version: str) -> list[str]:
    """Return what is wrong with the tag of a release."""
    if tag == f"v{version}":
        return []
    return [f"The tag is {tag}, the package's version {version}; expected the tag v{version}."]


def member_problems(archive: str, names: Sequence[str]) -> list[str]:
    """Return the members of an archive that no release may have; names are relative to the project's root."""
    problems = []
    for name in names:
        path = PurePosixPath(name)
        folders = [part.lower() for part in path.parts[:-1]]
        if path.is_absolute() or ".." in path.parts:
            problems.append(f"{archive}: {name} leads out of its folder.")
        elif path.suffix.lower() in WEIGHTS:
            problems.append(f"{archive}: {name} looks like weights.")
        elif path.suffix.lower() in DATA:
            problems.append(f"{archive}: {name} looks like test data.")
        elif {*folders} & HIDDEN or {*folders[:1]} & FOLDERS or path.name in RUN_FILES:
            problems.append(f"{archive}: {name} is of a folder that stays out of packages.")
    return problems


def wheel_problems(wheel: Path, version: str) -> list[str]:
    """Return what is wrong with a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    problems = member_problems(wheel.name, names) + _size_problems(wheel, WHEEL_LIMIT)
    information = f"resnet_zoo-{version}.dist-info"
    strays = [name for name in names if name.partition("/")[0] not in ("resnet_zoo", information)]
    problems += [f"{wheel.name}: {name} is outside the package." for name in strays]
    wanted = [
        *(f"resnet_zoo/{name}" for name in NEEDED),
        *(f"{information}/licenses/{n}" for n in ("LICENSE", "NOTICE")),
    ]
    return problems + [f"{wheel.name}: {name} is missing." for name in wanted if name not in names]


def sdist_problems(sdist: Path, version: str) -> list[str]:
    """Return what is wrong with an sdist."""
    root = f"resnet_zoo-{version}/"
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    problems = [f"{sdist.name}: {name} is not in {root}" for name in names if not name.startswith(root)]
    inner = [name.removeprefix(root) for name in names]
    return problems + member_problems(sdist.name, inner) + _size_problems(sdist, SDIST_LIMIT)


def _size_problems(archive: Path, limit: int) -> list[str]:
    size = archive.stat().st_size
    return [f"{archive.name} has {size} bytes; expected at most {limit}."] if size > limit else []


def difference_problems(first: Path, second: Path) -> list[str]:
    """Return how the archives of two builds differ."""
    hashes = [{path.name: sha256_of(path) for path in folder.iterdir()} for folder in (first, second)]
    names = sorted(set(hashes[0]) | set(hashes[1]))
    return [
        f"{name} differs between the builds: {hashes[0].get(name, 'missing')} and {hashes[1].get(name, 'missing')}."
        for name in names
        if hashes[0].get(name) != hashes[1].get(name)
    ]


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _git(root: Path, *arguments: str) -> bytes:
    program = shutil.which("git")
    if program is None:
        raise BuildError("git is not installed; the release is that of a commit.")
    done = subprocess.run([program, "-C", str(root), *arguments], capture_output=True, check=False)
    if done.returncode:
        raise BuildError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def unpack_commit(root: Path, target: Path, surroundings: Surroundings) -> None:
    """Write the files of the last commit, as somebody would have them under these surroundings."""
    with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "HEAD"))) as archive:
        archive.extractall(target, filter="data")
    for path in target.rglob("*"):
        path.chmod(path.stat().st_mode & ~surroundings.umask)
        time = path.stat().st_mtime + surroundings.mtime_shift_s
        os.utime(path, (time, time))


def name_weights_url(manifest: Path, url: str) -> None:
    """Put an address in front of a manifest's base URLs, and nothing else into it.

    Raises:
        BuildError: The address is not https (http only for this machine), or the manifest has no list of base URLs.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
        raise BuildError(f"Expected an https address of the weights, got {url}.")
    before = manifest.read_text(encoding="utf-8")
    old = json.loads(before)["base_urls"]
    new = json.dumps([url, *(other for other in old if other != url)])
    after, count = re.subn(r'^  "base_urls": \[[^\]]*\]', lambda _: f'  "base_urls": {new}', before, flags=re.MULTILINE)
    if count != 1 or json.loads(after)["base_urls"][0] != url:
        raise BuildError(f"{manifest.name} has no list of base_urls that an address could be put into.")
    manifest.write_text(after, encoding="utf-8")


def build(
    root: Path, work: Path, surroundings: Surroundings, *, isolated: bool = True, weights_url: str | None = None
) -> Path:
    """Build the last commit in an empty folder and return the folder of its archives."""
    source, out = work / "source", work / "dist"
    source.mkdir(parents=True)
    unpack_commit(root, source, surroundings)
    if weights_url is not None:
        name_weights_url(source / "weights_manifest.json", weights_url)
    environment = os.environ | {
        "SOURCE_DATE_EPOCH": _git(root, "log", "-1", "--format=%ct").decode().strip(),
        "TZ": surroundings.time_zone,
        "PYTHONHASHSEED": surroundings.hash_seed,
    }
    options = () if isolated else ("--no-isolation",)
    command = [sys.executable, "-m", "build", *surroundings.options, *options, "--outdir", str(out), str(source)]
    done = subprocess.run(
        command, env=environment, umask=surroundings.umask, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise BuildError(f"The build failed: {' '.join(last)}. `pip install build`, and look at {' '.join(command)}.")
    return out


def build_twice(
    root: Path, work: Path, *, isolated: bool = True, weights_url: str | None = None
) -> tuple[Path, list[str]]:
    """Build twice and return the folder of the first build's archives, and what is wrong with them."""
    version = package_version(root)
    first = build(root, work / "one", FIRST, isolated=isolated, weights_url=weights_url)
    elsewhere = work / "two" / "in a folder of another name"
    second = build(root, elsewhere, SECOND, isolated=isolated, weights_url=weights_url)
    problems = difference_problems(first, second)
    kinds = {"wheel": list(first.glob("*.whl")), "sdist": list(first.glob("*.tar.gz"))}
    problems += [f"Expected one {kind}, got {len(found)}." for kind, found in kinds.items() if len(found) != 1]
    problems += [problem for wheel in kinds["wheel"] for problem in wheel_problems(wheel, version)]
    problems += [problem for sdist in kinds["sdist"] for problem in sdist_problems(sdist, version)]
    return first, problems


def release(root: Path, out: Path, *, isolated: bool = True, weights_url: str | None = None) -> list[str]:
    """Build, check, and copy what is good to ``out``; return what is wrong."""
    if out.exists() and any(out.iterdir()):
        raise BuildError(f"{out} is not empty, and all that is in it would be published. Empty it, or name another.")
    if _git(root, "status", "--porcelain", "--untracked-files=no"):
        print("There are uncommitted changes; the release is that of the last commit, without them.", file=sys.stderr)
    with tempfile.TemporaryDirectory() as work:
        archives, problems = build_twice(root, Path(work), isolated=isolated, weights_url=weights_url)
        for path in sorted(archives.iterdir()):
            print(f"{sha256_of(path)}  {path.name}  {path.stat().st_size} bytes")
        if not problems:
            out.mkdir(parents=True, exist_ok=True)
            for path in archives.iterdir():
                shutil.copyfile(path, out / path.name)
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="empty or new folder (default: dist/)")
    parser.add_argument("--check-tag", metavar="TAG", help="only check that TAG is v and the package's version")
    parser.add_argument("--weights-url", metavar="URL", help="where the files of weights/ will be")
    parser.add_argument("--no-isolation", action="store_true", help="use the hatchling that is installed, no index")
    given = parser.parse_args(arguments)
    try:
        problems = (
            tag_problems(given.check_tag, package_version(ROOT))
            if given.check_tag
            else release(ROOT, given.out, isolated=not given.no_isolation, weights_url=given.weights_url)
        )
    except (BuildError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 3
    for problem in problems:
        print(f"Error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
