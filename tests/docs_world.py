"""What the documentation supposes to be there, and a reader who does what a page says.

The world is one folder: images, data sets, checkpoints, run folders and a manifest under the names that the pages use.
Weights are random; the manifest says where they are, and what they measure, as the real one does.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from PIL import Image

import resnet_zoo
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog import manifest as manifest_module
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import format_manifest, use_manifest
from resnet_zoo.checks.acceptance import accept_run
from resnet_zoo.weights.convert import convert_checkpoint
from tests.conftest import smooth_image
from tests.docs_pages import ROOT, Block, is_operator, program_of, simple_commands, split
from tests.private_zoo import upstream_checkpoint
from tests.run_folders import NAME, STAMP, make_run

OTHER_STAMP = "20261125T090000Z"
CHECKPOINT = "checkpoint.pth"
LOG = "resnet18_b16x8_cifar10_20210528-bd6371c8.log.json"

_LOG_LINES: list[dict[str, Any]] = [
    {"env_info": "sys.platform: linux", "seed": None, "exp_name": "resnet18_b16x8_cifar10.py"},
    {"mode": "train", "epoch": 1, "iter": 100, "lr": 0.1, "memory": 344, "data_time": 0.01, "loss": 2.0, "time": 0.03},
    {"mode": "val", "epoch": 1, "iter": 79, "lr": 0.1, "accuracy_top-1": 45.2, "accuracy_top-5": 91.0},
]
REAL_PHOTO = "val/n02110958/pug.JPEG"

_VARIES = re.compile(r"^(?:images/s|sha256|size|compared) .*\n(?: .*\n)*", re.MULTILINE)
"""Lines of an output that depend on the machine, the time or the versions of libraries."""

_SHIMS = {
    "resnet-zoo": '-m resnet_zoo "$@"',
    "python": '"$@"',
    "torchrun": '-m torch.distributed.run "$@"',
}
"""Programs a reader has on the path once the package is installed, as arguments of this Python."""


class SnippetError(Exception):
    """A snippet that does not do what its page says."""


# --- the world ----------------------------------------------------------------------------------------------------


def make_world(folder: Path) -> Path:
    """Make everything that the pages name, once; pages get copies (`copy_world`)."""
    folder.mkdir()
    _write_images(folder)
    _write_run(folder)
    _write_manifest(folder)
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in _LOG_LINES), encoding="utf-8")
    for name, arguments in _SHIMS.items():
        shim = folder / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n', encoding="utf-8")
        shim.chmod(0o755)
    return folder


def _write_images(folder: Path) -> None:
    sizes = {"photo.jpg": (240, 320), "photos/a.jpg": (64, 48), "photos/b.jpg": (48, 64), "photos/more/c.jpg": (40, 40)}
    pets = {f"pets/{name}/{index}.jpg": (40, 48) for name in ("cat", "dog") for index in range(6)}
    train = {f"cifar10/train/{name}/{index}.png": (32, 32) for name in class_folders("cifar10") for index in range(2)}
    for seed, (name, (height, width)) in enumerate({**sizes, **pets, **train}.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth_image(height, width, seed=seed)).save(path)


def _write_run(folder: Path) -> None:
    """Write two finished runs, and the test images they were evaluated on."""
    made = make_run(folder / "made")
    shutil.move(made.data / "test", folder / "cifar10" / "test")
    runs = folder / "runs" / NAME
    shutil.copytree(made.folder, runs / STAMP)
    shutil.move(made.folder, runs / OTHER_STAMP)
    shutil.rmtree(folder / "made")


def _write_manifest(folder: Path) -> None:
    """Write a manifest whose weights are here: those of the run accepted as ``retrained``, ResNet-50's in a mirror."""
    (folder / CHECKPOINT).write_bytes(upstream_checkpoint("resnet50_in1k"))
    published = folder / "published" / "resnet50_in1k.safetensors"
    published.parent.mkdir()
    convert_checkpoint(folder / CHECKPOINT, published, name="resnet50_in1k")
    prefix = sha256_of(folder / CHECKPOINT)[:8]
    content = json.loads((ROOT / "weights_manifest.json").read_text(encoding="utf-8"))
    for row in content["models"]:
        row["weights"].pop("retrained", None)
        row["default_weights"] = "openmmlab"
        if row["name"] == "resnet50_in1k":
            size = published.stat().st_size
            file = {"path": published.name, "sha256": sha256_of(published), "size_bytes": size}
            origin = {"url": f"https://example.org/resnet50-{prefix}.pth", "sha256_prefix": prefix, "witness": None}
            row["weights"]["openmmlab"] |= {"file": file, "origin": origin}
    manifest = folder / "zoo.json"
    manifest.write_text(format_manifest(content | {"base_urls": []}), encoding="utf-8")
    with use_manifest(manifest):
        accepted = accept_run(folder / "runs" / NAME / STAMP, data=folder / "cifar10", device="cpu", default=True)
    if accepted.missed:
        raise SnippetError(f"the run of the documentation's world is not accepted: {accepted.missed}")


def copy_world(world: Path, target: Path) -> Path:
    """Copy the world for a page; large files, which nothing may change, are hard links."""

    def copy(source: str, to: str) -> None:
        if source.endswith((".safetensors", ".pth")):
            os.link(source, to)
        else:
            shutil.copy(source, to)

    shutil.copytree(world, target, copy_function=copy)
    (target / "scripts").symlink_to(ROOT / "scripts")
    (target / "path" / "to").mkdir(parents=True)
    (target / "path" / "to" / "resnet_zoo").symlink_to(ROOT)
    return target


# --- the reader ---------------------------------------------------------------------------------------------------


def read_page(blocks: list[Block], folder: Path, *, with_shipped_weights: bool = False) -> int:
    """Do what the blocks of a page say, in order, in a folder; Python blocks share their names.

    Args:
        blocks: Those to run.
        folder: A world.
        with_shipped_weights: Use the checkout's manifest and weights, not the world's. What is said of ``photo.jpg`` is
            compared only if there is a real one.

    Returns:
        How many blocks were run.

    Raises:
        SnippetError: One fails, or prints something else than the page says.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    variables = {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RESNET_ZOO_MANIFEST": str(folder / "zoo.json"),
        "RESNET_ZOO_MIRROR": str(folder / "published"),
    }
    compares = True
    if with_shipped_weights:
        variables |= {"RESNET_ZOO_MANIFEST": str(ROOT / "weights_manifest.json")}
        compares = _take_a_real_photo(folder / "photo.jpg")
    for block in blocks:
        with _surroundings(folder, variables):
            if block.language == "python":
                run_python(block, names, compares=compares or "photo.jpg" not in block.text)
            elif block.language == "console":
                run_console(block, compares=compares or "photo.jpg" not in block.text)
            else:
                run_bash(block)
    return len(blocks)


def _take_a_real_photo(target: Path) -> bool:
    """Put a photo of a dog there from the real images, if there are any (`RESNET_ZOO_TEST_DATA`); tell whether."""
    archive = Path(os.environ.get("RESNET_ZOO_TEST_DATA", "nowhere")) / "imagenet-samples.tar"
    if not archive.is_file():
        return False
    with tarfile.open(archive) as opened:
        photo = opened.extractfile(REAL_PHOTO)
        target.write_bytes(photo.read() if photo else b"")
    return True


@contextlib.contextmanager
def _surroundings(folder: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Work in a folder with these variables; both are put back, whatever was done to them."""
    before, place = dict(os.environ), Path.cwd()
    os.environ.update(variables)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)


def run_python(block: Block, names: dict[str, Any], *, compares: bool = True) -> None:
    """Run a block; a comment after a ``print(…)`` is what it must print."""
    printed = io.StringIO()
    try:
        code = compile("\n" * block.line + block.text, block.page, "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, names)
    except Exception as error:
        raise SnippetError(f"{block.title}: {type(error).__name__}: {error}") from error
    lines = printed.getvalue().splitlines()
    for said in _said(block.text):
        if compares and said not in lines:
            raise SnippetError(f"{block.title}: prints {lines}, and the page says {said!r}")


def _said(text: str) -> list[str]:
    """Return what a block says that it prints."""
    lines = text.splitlines()
    prints = (
        node.end_lineno
        for node in ast.parse(text).body
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("print(")
    )
    return [lines[end - 1].partition("  # ")[2] for end in prints if end and "  # " in lines[end - 1]]


def run_example(docstring: str, title: str, folder: Path) -> None:
    """Run the example of a docstring in a folder, a world; ``...`` stands for any text.

    Raises:
        SnippetError: There is not exactly one example, or it gives another result than it says.
    """
    _, *sections = re.split(r"^ *Example:\n", docstring, flags=re.MULTILINE)
    if len(sections) != 1 or ">>> " not in sections[0]:
        raise SnippetError(f"{title} has {len(sections)} sections `Example:`; expected one, with code")
    names = {"resnet_zoo": resnet_zoo, "torch": torch, "Path": Path}
    example = doctest.DocTestParser().get_doctest(sections[0], names, title, None, 0)
    said: list[str] = []
    with _surroundings(folder, {}):
        failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    if failed:
        raise SnippetError("".join(said))


def run_bash(block: Block) -> None:
    """Run a block command by command; ``export`` lasts to its end."""
    for line, command in block.commands():
        words = split(command)
        if words[0] == "export":
            os.environ.update(dict(word.split("=", 1) for word in words[1:]))
            continue
        code, output = _run_here(command) if _can_run_here(words) else _run_in_shell(command)
        if code:
            raise SnippetError(f"{block.page}:{line}: {command.strip()}: exit code {code}\n{output[-2000:]}")


def run_console(block: Block, *, compares: bool = True) -> None:
    """Run the commands of a block, each of which must print what stands below it, but for times and this machine."""
    os.environ["COLUMNS"] = "80"
    for line, command, said in block.session():
        code, output = _run_here(command) if _can_run_here(split(command)) else _run_in_shell(command)
        if code:
            raise SnippetError(f"{block.page}:{line}: {command}: exit code {code}\n{output[-2000:]}")
        if compares and _lasting(said) != _lasting(output):
            raise SnippetError(f"{block.page}:{line}: {command} prints\n{output}\nand the page says\n{said}")


def _lasting(output: str) -> list[str]:
    """Return the words of an output, without the lines that differ from machine to machine; lines may be wrapped."""
    return _VARIES.sub("", output).split()


def _can_run_here(words: list[str]) -> bool:
    """Tell whether a command line is one call of a program of ours, which then needs no process of its own."""
    return not any(map(is_operator, words)) and "torchrun" not in words and not {"$", "*"} & set("".join(words))


def _run_here(command: str) -> tuple[int, str]:
    (words,) = simple_commands(command)
    called = program_of(words)
    if called is None:
        return _run_in_shell(command)
    program, arguments = called
    manifest_module._read_once.cache_clear()  # a process of its own would read it again
    variables = dict(re.findall(r"([A-Z_]+)=(\S*) ", command.partition(words[0])[0]))
    before = dict(os.environ)
    try:
        result = CliRunner(env=variables).invoke(program, arguments, prog_name=words[0])
    finally:
        os.environ.clear()
        os.environ.update(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 1, f"{result.output}{type(result.exception).__name__}: {result.exception}"
    return result.exit_code, result.output


def _run_in_shell(command: str) -> tuple[int, str]:
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], capture_output=True, text=True, check=False, timeout=300
    )
    return run.returncode, run.stdout + run.stderr
