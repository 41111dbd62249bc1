"""What every command shares: errors as sentences."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from resnet_zoo import embed_files
from resnet_zoo.catalog.manifest import PACKAGE, manifest_path
from resnet_zoo.cli.main import main
from resnet_zoo.cli.options import HELP
from resnet_zoo.cli.shell import Failure, going_on_later, sentence_of
from tests.conftest import smooth_image


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "v.npy"), "No space left on device (v.npy). Make room there"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device (standard output). Make"),
        (OSError(errno.ENOSPC, "No space left on device", "a", None, "b"), "No space left on device (b). Make room"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "Permission denied (x). Check the path and its perm"),
        (OSError("odd"), "odd. Check the path and its permissions."),
    ],
)
def test_an_error_of_the_system_names_the_place_and_the_next_step(error: OSError, sentence: str) -> None:
    assert sentence_of(error).startswith(sentence)


def test_a_failure_shows_no_codes_of_others() -> None:
    assert Failure("\x1b[31m.jpg: Permission denied", 3).message == "\\x1b[31m.jpg: Permission denied"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="resnet-zoo")


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, str]]]:
    """Return what tells our variables; none is set, and none stays."""
    names = ("RESNET_ZOO_OFFLINE", "RESNET_ZOO_MIRROR", "RESNET_ZOO_MANIFEST", "RESNET_ZOO_DEBUG")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    yield lambda: {name: os.environ[name] for name in names if name in os.environ}
    for name in names:
        os.environ.pop(name, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--offline", "cache", "dir"), {"RESNET_ZOO_OFFLINE": "1"}),
        (("cache", "--offline", "dir"), {"RESNET_ZOO_OFFLINE": "1"}),
        (("cache", "dir", "--offline"), {"RESNET_ZOO_OFFLINE": "1"}),
        (("cache", "dir", "--mirror", "https://host/zoo"), {"RESNET_ZOO_MIRROR": "https://host/zoo"}),
        (("cache", "dir", "--manifest", "zoo.json"), {"RESNET_ZOO_MANIFEST": "zoo.json"}),
        (("--manifest", "a.json", "cache", "dir", "--manifest", "b.json"), {"RESNET_ZOO_MANIFEST": "b.json"}),
        (("cache", "dir"), {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_options_of_all_commands_stand_before_and_after_the_command(
    words: tuple[str, ...], expected: dict[str, str], variables: Callable[[], dict[str, str]]
) -> None:
    assert run(*words).exit_code == 0
    assert variables() == expected


@pytest.mark.parametrize("words", [("--debug", "show", "reznet50"), ("show", "reznet50", "--debug")], ids=" ".join)
def test_debugging_stands_before_and_after_the_command(words: tuple[str, ...]) -> None:
    assert "Traceback (most recent call last)" in run(*words).stderr
    assert "Traceback" not in run(*(word for word in words if word != "--debug")).stderr


def test_a_private_manifest_may_be_named_last(tmp_path: Path, variables: object) -> None:
    content = json.loads(manifest_path().read_text())
    (tmp_path / "zoo.json").write_text(json.dumps(content | {"models": content["models"][:1], "base_urls": []}))
    assert run("list", "-q", "--manifest", tmp_path / "zoo.json").stdout == "resnet18_cifar10\n"


@pytest.mark.parametrize(("given", "meant"), [(("ls",), ("list",)), (("cache", "ls"), ("cache", "list"))])
def test_ls_is_list(given: tuple[str, ...], meant: tuple[str, ...]) -> None:
    done = run(*given)
    assert (done.exit_code, done.stdout) == (0, run(*meant).stdout)
    assert not re.search(r"\bls\b", run(*given[:-1], "-h").stdout)


@pytest.mark.parametrize(
    ("command", "needed", "name", "earlier", "value"),
    [
        ("verify", [], "--download-weights", "--download", []),
        ("evaluate", ["x", "--data", "d"], "--download-data", "--download", []),
        ("benchmark", [], "--precision", "--dtype", ["bfloat16"]),
        ("embed", ["x", "p", "-o", "o.npy"], "--num-workers", "--num-threads", ["3"]),
    ],
)
def test_an_option_goes_by_its_earlier_name_too_and_shows_only_the_new_one(
    command: str, needed: list[str], name: str, earlier: str, value: list[str]
) -> None:
    lines: list[list[str]] = [[name, *value], [earlier, *value], []]
    new, old, neither = (
        main.commands[command].make_context(command, [*needed, *line], **HELP).params for line in lines
    )
    assert new == old != neither
    assert re.search(rf"{name}(?![\w-])", run(command, "-h").stdout)
    assert not re.search(rf"{earlier}(?![\w-])", run(command, "-h").stdout)


@pytest.mark.parametrize(
    "arguments", [("show", "reznet50"), ("list", "--format", "yaml"), ("convert", "a", "b", "--layuot", "x")]
)
def test_an_error_on_a_terminal_ends_its_lines_between_words(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(*arguments).stderr.rpartition("Error: ")[2]
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("resnet_zoo.base.progress.is_terminal", lambda stream: True)
    lines = run(*arguments).stderr.rpartition("Error: ")[2].splitlines()
    assert " ".join(lines) == whole.rstrip("\n")
    assert len("Error: ") + len(lines[0]) <= 60
    assert all(len(line) <= 60 for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("accept", "nowhere", "--data", "x"), ("publish", "--pin-only"), ("publish", "--repo", "a/b")]
)
def test_the_manifest_of_an_installed_package_is_not_written(arguments: tuple[str, ...], tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "resnet_zoo"  # as a wheel is unpacked
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = Path(shutil.copy(manifest_path(), package))

    def start(*more: str | Path) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "resnet_zoo", *arguments, *map(str, more)]
        environment = os.environ | {"PYTHONPATH": str(package.parent)}
        return subprocess.run(
            program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=100
        )

    before, done = manifest.read_bytes(), start()
    assert (done.returncode, manifest.read_bytes()) == (2, before)
    assert f"{manifest} belongs to the installed package" in done.stderr
    assert "--manifest zoo.json" in done.stderr
    own = start("--manifest", shutil.copy(manifest, tmp_path / "zoo.json"))
    assert (own.returncode, "installed package" in own.stderr) == (3, False), own.stderr  # no run, no weights


posix_only = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
GOES_ON = "Interrupted. Run the same command again: it resumes where this one stopped."


@posix_only
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_that_it_goes_on(number: signal.Signals, code: int) -> None:
    @going_on_later()
    def work() -> None:
        signal.raise_signal(number)
        time.sleep(1)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Failure) as failure:
        work()
    assert (failure.value.message, failure.value.exit_code) == (GOES_ON, code)
    assert signal.getsignal(signal.SIGTERM) == before


def test_processes_of_a_torchrun_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    with going_on_later():
        assert signal.getsignal(signal.SIGTERM) == before


@posix_only
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_embed_says_so_and_goes_on(number: signal.Signals, code: int, tmp_path: Path) -> None:
    image, out = tmp_path / "image.png", tmp_path / "out.npy"
    Image.fromarray(smooth_image(32, 32)).save(image)
    paths, options = [str(image)] * 3000, {"batch_size": 1, "device": "cpu", "num_threads": 1}
    program = [sys.executable, "-m", "resnet_zoo", "embed", "resnet18_cifar10", *paths, "-o", str(out)]
    program += ["--batch-size", "1", "--device", "cpu", "-j", "1"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        log, end = Path(f"{out}.partial") / "rank0.jsonl", time.monotonic() + 100
        while time.monotonic() < end and not (log.exists() and log.stat().st_size):
            time.sleep(0.05)
        process.send_signal(number)
        _, talk = process.communicate(timeout=60)
    assert (process.returncode, talk) == (code, f"Error: {GOES_ON}\n")
    assert not out.exists()
    written = embed_files("resnet18_cifar10", paths, out, **options)  # type: ignore[arg-type]
    assert written is not None
    assert written.num_images == 3000
    assert written.num_resumed > 0
