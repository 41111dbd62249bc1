"""The release: what the archives hold, the workflows, the citation, the security page, help and completion."""

from __future__ import annotations

import functools
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner

from resnet_zoo import __version__
from resnet_zoo.catalog.manifest import current_manifest, read_manifest
from resnet_zoo.cli.completion import VARIABLE
from resnet_zoo.cli.main import main
from tests.conftest import ENTRIES, NAMES
from tests.test_layers import HEAVY, imported_by

ROOT = Path(__file__).parent.parent
build_release = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "build_release.py")))
WORKFLOWS = ROOT / ".github" / "workflows"
ALIASES = [alias for entry in ENTRIES for alias in entry.aliases]


# --- importing ----------------------------------------------------------------------------------------------------


def test_importing_the_package_takes_at_most_50_ms() -> None:
    code = "import time; begin = time.process_time(); import resnet_zoo; print(time.process_time() - begin)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(times) <= 0.05  # of the processor: what else runs on this machine does not count


# --- help ---------------------------------------------------------------------------------------------------------


def commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that lead to it."""
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


PATHS = [path for path, _ in commands()]


def help_of(path: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    return CliRunner().invoke(main, [*path, "-h"], prog_name="resnet-zoo").output


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_fits_the_terminal(path: tuple[str, ...], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = help_of(path, columns, monkeypatch).splitlines()
    assert [line for line in lines if len(line) > columns] == []


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_examples_of_itself(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(path, 80, monkeypatch)
    assert "Examples:" in text
    assert re.search(rf"^ +resnet-zoo {' '.join(path)}", text, re.MULTILINE)


SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py") if path.name != "sync_docs.py")


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_has_help(name: str, flag: str) -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / name, flag], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.casefold().startswith(f"usage: {name}")


@pytest.mark.parametrize(
    ("name", "command"), [("reproduce.py", "reproduce"), ("accept_run.py", "accept"), ("publish_weights.py", "publish")]
)
def test_a_script_that_became_a_command_is_that_command(name: str, command: str) -> None:
    assert runpy.run_path(str(ROOT / "scripts" / name))["main"] is main.commands[command]


def test_every_option_is_explained() -> None:
    parameters = [(path, parameter) for path, command in commands() for parameter in command.params]
    options = [(path, option) for path, option in parameters if isinstance(option, click.Option)]
    assert len(options) > 50
    assert [(path, option.name) for path, option in options if not option.help] == []


def test_the_help_names_every_variable_of_this_package(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "resnet_zoo").rglob("*.py"))
    used = set(re.findall(r"(?<![\w$])RESNET_ZOO_[A-Z]+(?![\w])", sources))
    assert {"RESNET_ZOO_HOME", "RESNET_ZOO_DEBUG"} <= used
    assert used <= set(re.findall(r"RESNET_ZOO_[A-Z]+", help_of((), 80, monkeypatch)))


def test_a_folded_example_is_one_command_to_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(("evaluate",), 80, monkeypatch)
    assert "cifar10/ \\\n" in text
    joined = re.sub(r" \\\n +", " ", text)
    assert "resnet-zoo evaluate resnet18_cifar10 --data cifar10/ --weights resnet18_cifar10.safetensors" in joined


# --- completion ---------------------------------------------------------------------------------------------------


def completed(*words: str) -> list[tuple[str, str]]:
    """Return what bash is offered for the last word: (kind, value)."""
    line = " ".join(("resnet-zoo", *words))
    environment = {VARIABLE: "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))}
    result = CliRunner().invoke(main, [], prog_name="resnet-zoo", env=environment)
    assert result.stderr == ""
    pairs = (line.partition(",") for line in result.stdout.splitlines())
    return [(kind, value) for kind, _, value in pairs]


def values(*words: str) -> list[str]:
    return [value for kind, value in completed(*words) if kind == "plain"]


def test_commands_and_options_are_completed() -> None:
    assert values("ver") == ["verify"]
    assert "--dataset" in values("list", "--da")
    assert values("list", "--dataset", "cifar1") == ["cifar10", "cifar100"]


@pytest.mark.parametrize(
    "words", [("show",), ("verify", "resnet50"), ("predict",), ("download",), ("convert", "--name")]
)
def test_rows_and_aliases_are_completed(words: tuple[str, ...]) -> None:
    assert values(*words, "resnetv1d1") == [name for name in dict.fromkeys(names()) if name.startswith("resnetv1d1")]
    assert set(values(*words, "resnet")) == {*NAMES, *ALIASES}


def names() -> Iterator[str]:
    for entry in current_manifest().models:
        yield from (entry.name, *entry.aliases)


def test_every_argument_that_is_a_name_completes_rows() -> None:
    arguments = [
        (path, parameter)
        for path, command in commands()
        for parameter in command.params
        if isinstance(parameter, click.Argument) and parameter.name in ("name", "names")
    ]
    assert len(arguments) >= 6
    for path, _ in arguments:
        assert NAMES[0] in values(*path, NAMES[0][:-1]), path


def test_what_is_no_row_is_completed_as_a_file() -> None:
    assert completed("predict", "tuned") == [("file", "tuned")]
    assert completed("predict", "resnet50", "photos/") == [("file", "photos/")]
    assert completed("predict", "resnet50", "--weights", "my_") == [("file", "my_")]
    assert completed("--manifest", "zoo") == [("file", "zoo")]


def test_tags_are_completed_of_the_row_that_was_named() -> None:
    tags = list(current_manifest().find("resnet50").weights)
    assert values("show", "resnet50", "--weights", "") == tags
    assert values("cache", "rm", "resnet50/") == [f"resnet50/{tag}" for tag in tags]


def test_an_unfinished_line_that_is_wrong_or_a_broken_manifest_offers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed("shwo", "resnet")[:1] != [("plain", NAMES[0])]
    assert values("cache", "rm", "resnet51/") == []
    (tmp_path / "zoo.json").write_text("{")
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(tmp_path / "zoo.json"))
    assert values("show", "resnet") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell], prog_name="resnet-zoo")
    assert result.exit_code == 0
    assert f"{VARIABLE}={shell}_complete" in result.stdout


def test_an_unknown_shell_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["completion", "tcsh"], prog_name="resnet-zoo")
    assert (result.exit_code, result.stdout) == (2, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script() -> None:
    script = CliRunner().invoke(main, ["completion", "bash"], prog_name="resnet-zoo").stdout
    done = subprocess.run(
        ["bash", "--norc", "-euc", f"{script}\ncomplete -p resnet-zoo"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("resnet-zoo")


def test_completing_imports_no_torch() -> None:
    asked = {VARIABLE: "bash_complete", "COMP_WORDS": "resnet-zoo show resnet18", "COMP_CWORD": "2"}
    code = f"import os; os.environ.update({asked}); from resnet_zoo.cli.main import main; main(prog_name='resnet-zoo')"
    assert not imported_by(code) & (HEAVY | {"numpy", "PIL", "rich"})


# --- citation and security page -----------------------------------------------------------------------------------


def test_the_citation_is_of_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert str(citation["version"]) == __version__
    assert f'license = "{citation["license"]}"' in project
    assert [reference["year"] for reference in citation["references"]] == [2016, 2019]
    assert citation["authors"][0]["name"].removeprefix("The ") in (ROOT / "NOTICE").read_text(encoding="utf-8")


def dead_references(text: str) -> list[str]:
    """Return the files and tests that a text names and that are not there."""
    dead = []
    for name in re.findall(r"`((?:resnet_zoo|tests|scripts|\.github)/[\w./-]+(?:::\w+)?|[\w.]+\.(?:py|md))`", text):
        path, _, test = name.partition("::")
        is_there = (ROOT / path).is_file() and (not test or f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"))
        dead += [] if is_there else [name]
    return dead


def test_the_security_page_names_only_files_and_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert text.count("`tests/") > 30
    assert dead_references(text) == []


@pytest.mark.parametrize(
    "name", ["tests/test_gone.py", "tests/test_release.py::test_gone", "resnet_zoo/gone.py", "gone.py"]
)
def test_a_name_that_does_not_exist_would_be_seen(name: str) -> None:
    assert dead_references(f"See `{name}`.") == [name]


# --- workflows ----------------------------------------------------------------------------------------------------


def workflow(name: str) -> dict[str, Any]:
    content: dict[Any, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    content["on"] = content.pop(True)  # YAML 1.1 reads `on` as a truth
    return content


def test_only_the_jobs_that_publish_may_do_more_than_read() -> None:
    allowed: dict[tuple[str, str], set[str]] = {}
    for name in ("ci.yml", "pages.yml", "release.yml"):
        content = workflow(name)
        jobs = [(job, body.get("permissions", content["permissions"])) for job, body in content["jobs"].items()]
        allowed |= {(name, job): {key for key, value in given.items() if value == "write"} for job, given in jobs}
    assert {job: given for job, given in allowed.items() if given} == {
        ("pages.yml", "publish"): {"id-token", "pages"},
        ("release.yml", "publish"): {"id-token", "attestations"},
        ("release.yml", "weights"): {"contents"},
    }


def test_every_action_is_pinned_by_commit() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(WORKFLOWS.glob("*.yml")))
    used = re.findall(r"uses: (.*)", text)
    assert len(used) >= 8
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)


# --- archives -----------------------------------------------------------------------------------------------------

INFORMATION = f"resnet_zoo-{__version__}.dist-info"
GOOD_WHEEL = [
    "resnet_zoo/__init__.py",
    *(f"resnet_zoo/{name}" for name in build_release.NEEDED),
    *(f"{INFORMATION}/{name}" for name in ("METADATA", "RECORD", "licenses/LICENSE", "licenses/NOTICE")),
]
GOOD_SDIST = [
    f"resnet_zoo-{__version__}/{name}" for name in ("PKG-INFO", "resnet_zoo/__init__.py", "tests/test_zoo.py")
]


@pytest.fixture
def make_wheel(tmp_path: Path) -> Callable[..., Path]:
    def make(names: list[str], content: bytes = b"") -> Path:
        path = tmp_path / f"resnet_zoo-{__version__}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, content)
        return path

    return make


@pytest.fixture
def make_sdist(tmp_path: Path) -> Callable[..., Path]:
    def make(names: list[str]) -> Path:
        path = tmp_path / f"resnet_zoo-{__version__}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
        return path

    return make


PLANTED = {
    "weights/resnet18_cifar10-retrained-0a1b2c3d.safetensors": "looks like weights",
    "resnet_zoo/resnet18.PTH": "looks like weights",
    "runs/resnet18_cifar10/20261124T203719Z/recipe.json": "stays out of packages",
    "resnet_zoo/result.json": "stays out of packages",
    "tests/photo.jpeg": "looks like test data",
    "resnet_zoo/cifar10-jpeg.tar.gz": "looks like test data",
    "resnet_zoo/__pycache__/zoo.cpython-311.py": "stays out of packages",
    "resnet_zoo/../../x.py": "leads out of its folder",
}


def test_a_good_wheel_and_a_good_sdist_are_good(
    make_wheel: Callable[..., Path], make_sdist: Callable[..., Path]
) -> None:
    assert build_release.wheel_problems(make_wheel(GOOD_WHEEL), __version__) == []
    assert build_release.sdist_problems(make_sdist(GOOD_SDIST), __version__) == []


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_member_is_found_in_both(
    name: str, make_wheel: Callable[..., Path], make_sdist: Callable[..., Path]
) -> None:
    in_wheel = build_release.wheel_problems(make_wheel([*GOOD_WHEEL, name]), __version__)
    in_sdist = build_release.sdist_problems(make_sdist([*GOOD_SDIST, f"resnet_zoo-{__version__}/{name}"]), __version__)
    for problems in (in_wheel, in_sdist):
        assert any(name in problem and PLANTED[name] in problem for problem in problems)


@pytest.mark.parametrize("name", [*build_release.NEEDED, "LICENSE", "NOTICE"])
def test_a_missing_member_of_the_wheel_is_found(name: str, make_wheel: Callable[..., Path]) -> None:
    rest = [other for other in GOOD_WHEEL if not other.endswith(f"/{name}")]
    assert len(rest) == len(GOOD_WHEEL) - 1
    problems = build_release.wheel_problems(make_wheel(rest), __version__)
    assert any(name in problem and "missing" in problem for problem in problems)


def test_what_is_outside_of_the_package_or_of_the_root_is_found(
    make_wheel: Callable[..., Path], make_sdist: Callable[..., Path]
) -> None:
    assert build_release.wheel_problems(make_wheel([*GOOD_WHEEL, "tests/test_zoo.py"]), __version__)
    assert build_release.sdist_problems(make_sdist([*GOOD_SDIST, "resnet_zoo/__init__.py"]), __version__)


def test_a_wheel_of_another_version_is_found(make_wheel: Callable[..., Path]) -> None:
    assert build_release.wheel_problems(make_wheel(GOOD_WHEEL), "9.9.9")


def test_a_wheel_that_is_too_large_is_found(make_wheel: Callable[..., Path]) -> None:
    wheel = make_wheel(GOOD_WHEEL, b"x" * (build_release.WHEEL_LIMIT // len(GOOD_WHEEL) + 1))
    assert [problem for problem in build_release.wheel_problems(wheel, __version__) if "expected at most" in problem]


def test_builds_that_differ_are_found(tmp_path: Path) -> None:
    for folder, content in (("one", b"a"), ("two", b"b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.whl").write_bytes(content)
    (tmp_path / "two" / "y.tar.gz").write_bytes(b"")
    problems = build_release.difference_problems(tmp_path / "one", tmp_path / "two")
    assert ["x.whl differs" in problems[0], "y.tar.gz differs" in problems[1], len(problems)] == [True, True, 2]
    assert build_release.difference_problems(tmp_path / "one", tmp_path / "one") == []


def test_a_tag_must_be_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert build_release.main(["--check-tag", f"v{__version__}"]) == 0
    for tag in (__version__, "v9.9.9", f"v{__version__}rc1"):
        assert build_release.main(["--check-tag", tag]) == 1
        assert f"expected the tag v{__version__}" in capsys.readouterr().err


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.whl").write_bytes(b"")
    assert build_release.main(["--out", str(tmp_path)]) == 3
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["old.whl"]


def commit_all(folder: Path) -> None:
    """Make a folder a repository with one commit; whatever repository this process belongs to is not touched."""
    assert not (folder / ".git").exists()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    program = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "All of it"]):
        subprocess.run([*program, *arguments], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("url", ["https://github.com/o/r/releases/download/v1", "http://127.0.0.1:8000"])
def test_the_address_of_the_weights_is_the_first_base_url_and_nothing_else_changes(url: str, tmp_path: Path) -> None:
    manifest = tmp_path / "weights_manifest.json"
    shutil.copy(ROOT / "weights_manifest.json", manifest)
    build_release.name_weights_url(manifest, url)
    before, after = (json.loads(path.read_text()) for path in (ROOT / "weights_manifest.json", manifest))
    assert after == before | {"base_urls": [url, *before["base_urls"]]}
    assert read_manifest(manifest).base_urls[0] == url
    lines = [path.read_text().splitlines() for path in (ROOT / "weights_manifest.json", manifest)]
    assert sum(one != other for one, other in zip(*lines, strict=True)) == 1


@pytest.mark.parametrize("url", ["http://example.org/weights", "ftp://example.org", "weights", ""])
def test_an_address_that_is_not_https_is_refused(url: str, tmp_path: Path) -> None:
    manifest = tmp_path / "weights_manifest.json"
    shutil.copy(ROOT / "weights_manifest.json", manifest)
    with pytest.raises(build_release.BuildError, match="Expected an https address"):
        build_release.name_weights_url(manifest, url)
    assert manifest.read_bytes() == (ROOT / "weights_manifest.json").read_bytes()


def copy_project(project: Path) -> Path:
    """Copy what a release is built from, without weights, and commit it."""
    project.mkdir()
    for pattern in ("*.md", "*.py", "*.toml", "*.json", "*.cff", "LICENSE", "NOTICE"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, project)
    for folder in ("resnet_zoo", "scripts", "tests"):
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return project


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.mark.long
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_wheel_with_the_address_of_its_release_loads_its_weights_from_there(tmp_path: Path) -> None:
    pytest.importorskip("build")
    project = copy_project(tmp_path / "project")
    commit_all(project)
    handler = functools.partial(QuietHandler, directory=str(ROOT / "weights"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            built = [
                build_release.build(project, tmp_path / name, build_release.FIRST, weights_url=url)
                for name, url in (("with", address), ("without", None))
            ]
            found = [load_from_wheel(next(folder.glob("*.whl")), tmp_path / folder.parent.name) for folder in built]
        finally:
            server.shutdown()
            thread.join()
    file = current_manifest().find("resnet18_cifar10").weights["retrained"].file
    assert file is not None
    assert found[0] == f"{address}/{file.path} {file.sha256}"
    assert "Every source failed" in found[1]  # nothing is invented where no address was given


def load_from_wheel(wheel: Path, folder: Path) -> str:
    """Install a wheel into an empty folder and load the row whose weights ship, in an empty home."""
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    program = (
        "import resnet_zoo\n"
        "from resnet_zoo.zoo import open_weights\n"
        "try:\n"
        "    resnet_zoo.create_model('resnet18_cifar10', pretrained=True)\n"
        "    found = open_weights(resnet_zoo.get_entry('resnet18_cifar10'), 'retrained').local\n"
        "    print(found.source, found.sha256)\n"
        "except resnet_zoo.ZooError as error:\n"
        "    print(error)\n"
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "PYTHONPATH": str(folder / "site")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_two_builds_are_the_same_and_clean(tmp_path: Path) -> None:
    """Also with weights, a run folder and images in the repository, which must stay out of both archives."""
    pytest.importorskip("build")
    project = copy_project(tmp_path / "project")
    for name in ("weights/x.safetensors", "runs/row/stamp/result.json", "data/photo.jpg"):
        (project / name).parent.mkdir(parents=True)
        (project / name).write_bytes(b"x")
    commit_all(project)
    first, problems = build_release.build_twice(project, tmp_path / "work")
    assert problems == []
    assert len(list(first.iterdir())) == 2
