"""Pages of the documentation that are written elsewhere: those at the top of the checkout, and the zoo's own site."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from resnet_zoo.site import build_site

ROOT = Path(__file__).parent.parent.parent

PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
"""What a page of the site is at the top of the checkout."""

_zoo: list[tempfile.TemporaryDirectory[str]] = []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages at the top of the checkout, and every file of the zoo's site under ``zoo/``."""
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=as_page(text, str(config.site_url), str(config.repo_url))))
    folder = tempfile.TemporaryDirectory(prefix="zoo-")
    _zoo.append(folder)
    build_site(Path(folder.name) / "zoo", docs="../")
    for path in sorted(Path(folder.name).rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            address = path.relative_to(folder.name).as_posix()
            files.append(File.generated(config, address, abs_src_path=str(path)))
    return files


def on_post_build(**_: Any) -> None:
    """Remove what the pages of the zoo were copied from."""
    while _zoo:
        _zoo.pop().cleanup()


def as_page(text: str, site_url: str, repo_url: str) -> str:
    """Return a file at the top of the checkout as a page of the site: its links lead to pages there."""
    at_top = {source: page for page, source in PAGES.items()}

    def lead(match: re.Match[str]) -> str:
        target, sign, anchor = match[1].partition("#")
        if target.startswith(site_url):
            target = target.removeprefix(site_url) or "index.md"
            is_folder = (ROOT / "docs" / target).is_dir()
            target = f"{target}index.md" if is_folder else f"{target[:-1]}.md" if target.endswith("/") else target
        elif target in at_top:
            target = at_top[target]
        elif target.startswith("docs/"):
            target = target.removeprefix("docs/")
        elif target and "://" not in target:
            target = f"{repo_url}/blob/main/{target}"
        return f"]({target}{sign}{anchor})"

    return re.sub(r"\]\(([^)\s]+)\)", lead, text)
