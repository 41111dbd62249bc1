"""The documentation: every command and snippet in it is run, every option, name and link in it exists."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest

import resnet_zoo
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.weights.places import shipped_weights
from tests.docs_pages import PAGES, ROOT, Block, blocks_of, complaints, read_blocks
from tests.docs_world import SnippetError, copy_world, make_world, read_page, run_example
from tests.hub_server import HubServer, in_new_process
from tests.test_layers import FLOORS, SOURCES

BLOCKS = [block for page in PAGES for block in read_blocks(page)]
TO_RUN = {
    page.relative_to(ROOT).as_posix(): [block for block in read_blocks(page) if block.is_code and not block.why_not_run]
    for page in PAGES
}
TO_RUN = {page: blocks for page, blocks in TO_RUN.items() if blocks}
WITH_SLOW = [page for page, blocks in TO_RUN.items() if any(block.is_slow for block in blocks)]

NOT_RUN = {
    "CONTRIBUTING.md": 2,
    "README.md": 4,
    "docs/adding-a-model.md": 1,
    "docs/comparison.md": 1,
    "docs/inference.md": 2,
    "docs/migrating.md": 1,
    "docs/quickstart.md": 2,
    "docs/reproducing.md": 4,
    "docs/site.md": 1,
}
"""How many blocks of each page are never run; each says why."""

_WEIGHTS = re.compile(r"--weights (\w+)(?![\w.])|weights=\"(\w+)\"")
_INSTALL = re.compile(r"pip install ((?:-\w+ )*)'?\.")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("docs") / "world")


def follow(blocks: list[Block], world: Path, folder: Path, home: Path) -> int:
    """Run blocks in a copy of the world; those that name the Hub with one on loopback, in a process of their own."""
    place = copy_world(world, folder / "page")
    if not any("hf-hub:" in block.text or "--repo" in block.text for block in blocks):
        return read_page(blocks, place, with_shipped_weights=blocks[0].page == "README.md")
    with HubServer(folder / "hub") as hub:
        variables = {**hub.environment(folder / "hub home"), "RESNET_ZOO_HOME": str(home)}
        return in_new_process(variables, read_page, blocks, place)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page == "docs/quickstart.md" else pytest.mark.slow) for page in TO_RUN]
)
def test_a_page_does_what_it_says(page: str, world: Path, tmp_path: Path, own_cache: Path) -> None:
    blocks = [block for block in TO_RUN[page] if not block.is_slow]
    assert follow(blocks, world, tmp_path, own_cache) == len(blocks) > 0


@pytest.mark.long
@pytest.mark.parametrize("page", WITH_SLOW)
def test_a_page_with_slow_blocks_does_what_it_says(page: str, world: Path, tmp_path: Path, own_cache: Path) -> None:
    needed = {module for block in TO_RUN[page] for module in block.needs}
    missing = sorted(module for module in needed if importlib.util.find_spec(module) is None)
    if missing:
        pytest.skip(f"{page} needs {', '.join(missing)}")
    assert follow(TO_RUN[page], world, tmp_path, own_cache) == len(TO_RUN[page])


def test_every_block_that_is_not_run_has_its_reason() -> None:
    reasons = [block.why_not_run for block in BLOCKS if block.why_not_run]
    assert all(len(reason.split()) >= 2 for reason in reasons)
    assert Counter(block.page for block in BLOCKS if block.why_not_run) == NOT_RUN


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_options_names_syntax_and_links_are_right(path: Path) -> None:
    assert complaints(path.read_text(encoding="utf-8"), path) == []


def test_weights_that_the_pages_name_come_with_a_checkout() -> None:
    named = {tag for block in BLOCKS for pair in _WEIGHTS.findall(block.text) for tag in pair if tag}
    others = {tag for tag, found in get_entry("resnet50").weights.items() if found.published}
    # What others published is fetched, and named only where nothing is loaded.
    assert named - others - {"DEFAULT"} == {"retrained"}
    assert shipped_weights(get_entry("resnet18_cifar10"), "retrained") is not None


def test_pages_that_name_such_weights_install_the_checkout_in_place() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    installs = [options for text in texts if "resnet18_cifar10" in text for options in _INSTALL.findall(text)]
    assert len(installs) >= 6
    assert all("-e" in options.split() for options in installs)  # a copy elsewhere has no weights beside it


PLANTED = {
    "```python\nfor\n```\n": "no Python",
    "```python\nimport resnet_zoo\nresnet_zoo.creat_model('resnet50')\n```\n": "resnet_zoo has no creat_model",
    "```python\nfrom resnet_zoo.zoo import make_model\n```\n": "resnet_zoo.zoo has no make_model",
    "```bash\nif true; then\n```\n": "syntax error",
    "```console\nresnet-zoo list\n```\n": "begins without a prompt",
    "```console\n$ resnet-zoo lst\n```\n": "no command 'lst'",
    "```bash\nresnet-zoo lst\n```\n": "no command 'lst'",
    "```bash\nresnet-zoo list --datset cifar10\n```\n": "No such option",
    "```bash\nresnet-zoo list --dataset mnist\n```\n": "mnist",
    "```bash\nfind . | resnet-zoo predict --format jsonl\n```\n": "Missing argument",
    "```bash\nRESNET_ZOO_OFFLINE=1 resnet-zoo verify --rnu x\n```\n": "No such option",
    "```bash\npython scripts/reproduce.py resnet50 --dta x\n```\n": "No such option",
    "```bash\ntorchrun --nproc-per-node 2 -m resnet_zoo embed resnet50 photos/\n```\n": "Missing option",
    "<!-- not run -->\n```bash\nls\n```\n": "without a reason",
    "<!-- not run: secret -->\n```bash\nls\n```\n": "without a reason",
    "```sh\nls\n```\n": "unknown language",
    "```bash\nls\n": "a fence",
    "Run `resnet-zoo verfy`.": "no command 'verfy'",
    "Run `resnet-zoo verify --rnu DIR`.": "has no --rnu",
    "Pass `--quickly`.": "no program of ours has --quickly",
    "See [there](nowhere.md).": "nowhere.md, which is not there",
    "# Title\n\nSee [below](#nothing).": "no such heading",
}


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_mistake_is_found(text: str) -> None:
    (complaint,) = complaints(text, ROOT / "docs" / "planted.md")
    assert PLANTED[text] in complaint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```python\nx = 1\n```\n\n```python\nprint(x + 1)  # 3\n```\n", "prints ['2'], and the page says '3'"),
        ("```python\nraise ValueError('so')\n```\n", "planted.md:1: ValueError: so"),
        (
            "```console\n$ resnet-zoo list -q resnet50_cifar*\nresnet50_cifar10\n```\n",
            "prints\nresnet50_cifar10\nresnet50_",
        ),
        ("```console\n$ resnet-zoo show resnet51\n```\n", "planted.md:2: resnet-zoo show resnet51: exit code 2"),
        ("```bash\nresnet-zoo show resnet51\n```\n", "planted.md:2: resnet-zoo show resnet51: exit code 2"),
        ("```bash\nresnet-zoo list -q | grep -c mobilenet\n```\n", "exit code 1"),
        ("```bash\npython scripts/reproduce.py resnet50 --data nowhere/\n```\n", "nowhere is not a folder"),
    ],
)
def test_a_planted_broken_snippet_is_found(text: str, words: str, world: Path, tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(SnippetError) as error:
        follow(blocks_of(text, "planted.md"), world, tmp_path, own_cache)
    assert words in str(error.value)


# --- the examples of the docstrings -------------------------------------------------------------------------------


def shows_an_example(name: str) -> bool:
    """Tell whether a public name must have an example; the errors share that of their base."""
    value = getattr(resnet_zoo, name)
    return value is resnet_zoo.ZooError or not (isinstance(value, type) and issubclass(value, resnet_zoo.ZooError))


@pytest.mark.parametrize("name", [*filter(shows_an_example, resnet_zoo.__all__)])
def test_the_example_of_a_docstring_is_true(name: str, world: Path, tmp_path: Path, own_cache: Path) -> None:
    docstring, place = getattr(resnet_zoo, name).__doc__, copy_world(world, tmp_path / "world")
    if "hf-hub:" not in docstring.partition("Example:")[2]:
        run_example(docstring, name, place)
        return
    with HubServer(tmp_path / "hub") as hub:
        variables = {**hub.environment(tmp_path / "hub home"), "RESNET_ZOO_HOME": str(own_cache)}
        in_new_process(variables, run_example, docstring, name, place)


@pytest.mark.parametrize(
    ("docstring", "words"),
    [
        ("Add.", "has 0 sections `Example:`"),
        ("Add.\n\n    Example:\n        1 + 1 is 2\n    ", "has 1 sections `Example:`; expected one, with code"),
        ("Add.\n\n    Example:\n        >>> 1 + 1\n        3\n    ", "Expected:\n    3\nGot:\n    2"),
        (
            "Add.\n\n    Example:\n        >>> resnet_zoo.creat_model('resnet50')\n    ",
            "has no attribute 'creat_model'",
        ),
        ("Add.\n\n    Example:\n        >>> Path('nowhere.jpg').stat()\n    ", "FileNotFoundError"),
    ],
)
def test_a_planted_wrong_example_is_found(docstring: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SnippetError) as error:
        run_example(docstring, "add", tmp_path)
    assert words in str(error.value)


# --- the page of the architecture ---------------------------------------------------------------------------------


def test_the_architecture_page_names_every_door_and_only_functions_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    doors = re.findall(r"^\| \d+ \| `(\w+)` \|", text, re.MULTILINE)
    below = {floor: place for place, floors in enumerate(FLOORS) for floor in floors}
    assert doors == sorted(doors, key=below.__getitem__)
    assert set(doors) == {door for floors in FLOORS[:-1] for door in floors}
    for module, name in re.findall(r"`((?:[a-z_]+\.)*[a-z_]+)\.(\w+)`", text):
        if module.partition(".")[0] in below and f"{module}.{name}" not in SOURCES:
            assert hasattr(importlib.import_module(f"resnet_zoo.{module}"), name), f"{module}.{name}"
