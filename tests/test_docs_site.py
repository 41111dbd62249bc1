"""The documentation as a site: built without a warning, complete, and asking nothing of other hosts."""

from __future__ import annotations

import re
import runpy
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

import resnet_zoo
from resnet_zoo.catalog.manifest import current_manifest
from tests.docs_pages import PAGES, ROOT, build_docs

SITE = "https://org.github.io/resnet_zoo/"
SOURCE = "https://github.com/org/resnet_zoo/blob/main/"
TOP_PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


def documented() -> Counter[str]:
    """Count the entries of every name in the pages of the reference."""
    pages = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "reference").glob("*.md"))]
    return Counter(name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE))


def test_each_public_name_stands_in_exactly_one_group_of_the_reference() -> None:
    entries = documented()
    assert {name: count for name, count in entries.items() if count != 1} == {}
    assert {name for name in entries if name.count(".") == 1} == {f"resnet_zoo.{name}" for name in resnet_zoo.__all__}


def test_the_index_of_the_reference_has_every_public_name() -> None:
    index = (ROOT / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    errors = {name for name in resnet_zoo.__all__ if issubclass_of_error(name)}
    assert {*re.findall(r"`(\w+)`", index)} >= {*resnet_zoo.__all__} - errors


def issubclass_of_error(name: str) -> bool:
    value = getattr(resnet_zoo, name)
    return isinstance(value, type) and issubclass(value, resnet_zoo.ZooError)


@pytest.mark.parametrize("path", [ROOT / name for name in TOP_PAGES], ids=lambda path: path.name)
def test_absolute_links_to_ourselves_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((\S+?)\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if is_broken(link)] == []


@pytest.mark.parametrize("link", [f"{SITE}nowhere/", f"{SITE}zoo/models/resnet51.html", f"{SOURCE}nowhere.md"])
def test_a_broken_link_to_ourselves_is_seen(link: str) -> None:
    assert is_broken(link)


def test_the_readme_has_no_link_that_a_package_index_could_not_follow() -> None:
    links = re.findall(r"\]\((\S+?)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 20
    assert [link for link in links if not link.startswith("https://")] == []


def is_broken(link: str) -> bool:
    """Tell whether an address of our site or sources has nothing behind it; others are not asked."""
    address, _, _ = link.partition("#")
    if address.startswith(SOURCE):
        return not (ROOT / address.removeprefix(SOURCE)).exists()
    if not address.startswith(SITE):
        return False
    page = address.removeprefix(SITE)
    if page.startswith("zoo/"):
        models = {f"zoo/models/{entry.name}.html" for entry in current_manifest().models}
        return page not in {"zoo/index.html", "zoo/checks.html", *models}
    names = {"", *(source.removesuffix(".md").lower() + "/" for source in TOP_PAGES)}
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in PAGES if "docs" in path.parts}
    return page not in {*names, *(f"{name.removesuffix('index').rstrip('/')}/" for name in pages)}


# --- what Griffe is given -----------------------------------------------------------------------------------------


@pytest.fixture
def docstrings() -> SimpleNamespace:
    pytest.importorskip("griffe", reason="mkdocstrings is not installed (extra `docs`)")
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "docs" / "docstrings.py")))


def test_a_docstring_is_shown_with_links_and_one_parameter_a_line(docstrings: SimpleNamespace) -> None:
    shown = docstrings.as_shown(
        "See `create_model`, not ``create_model`` or `nobody`.\n\nArgs:\n    name, size: As\n        `predict`.\n\n"
        "Raises:\n    ZooError,\n    OSError: It fails.\n\nExample:\n    >>> 1\n    1\n"
    )
    model, predict = "[`create_model`][resnet_zoo.create_model]", "[`predict`][resnet_zoo.predict]"
    assert shown == (
        f"See {model}, not ``create_model`` or `nobody`.\n\nArgs:\n    name: As\n        {predict}.\n"
        f"    size: As\n        {predict}.\n\nRaises:\n    ZooError, OSError: It fails.\n\n"
        "Examples:\n    >>> 1\n    1\n"
    )


def test_links_of_a_page_at_the_top_lead_to_pages_of_the_site() -> None:
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra `docs`)")
    as_page = runpy.run_path(str(ROOT / "scripts" / "docs" / "hooks.py"))["as_page"]
    text = f"[a]({SITE}weights/#b) [c](SECURITY.md) [d](docs/limits.md#e) [f](hubconf.py) [g](#h) [i](https://j.org/)"
    assert as_page(text, SITE, "https://github.com/org/resnet_zoo") == (
        f"[a](weights.md#b) [c](security.md) [d](limits.md#e) [f]({SOURCE}hubconf.py) [g](#h) [i](https://j.org/)"
    )


# --- the site -----------------------------------------------------------------------------------------------------


class Sources(HTMLParser):
    """Collects what a page loads by itself: scripts, styles, images, fonts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") != "canonical":
            self.found.append(given.get("href") or "")


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_other_hosts(docs_site: Path) -> None:
    assert (docs_site / "zoo" / "models" / "resnet50_in1k.html").is_file()
    pages = sorted(docs_site.rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        sources = Sources()
        sources.feed(page.read_text(encoding="utf-8"))
        assert [source for source in sources.found if "//" in source and not source.startswith(SITE)] == [], page
    reference = (docs_site / "reference" / "create" / "index.html").read_text(encoding="utf-8")
    assert 'id="resnet_zoo.create_model"' in reference


@pytest.mark.slow
def test_a_page_with_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="MkDocs is not installed (extra `docs`)")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("[there](nowhere.md)", encoding="utf-8")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    validation = text[text.index("validation:") : text.index("nav:\n  - Home")]
    (tmp_path / "mkdocs.yml").write_text(f"site_name: planted\n{validation}", encoding="utf-8")
    run = build_docs(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert run.returncode != 0
    assert "nowhere.md" in run.stderr + run.stdout
