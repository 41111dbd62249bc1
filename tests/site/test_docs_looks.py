"""How the documentation looks in a real browser: what axe-core finds on a phone and a desktop, in both themes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.site_tools import DESKTOP, PHONE, PLANT_FAULTS, grave_findings

pytestmark = pytest.mark.browser

PAGES = ("index.html", "quickstart/index.html", "reference/create/index.html", "limits/index.html")

Look = Callable[..., Any]


@pytest.fixture
def look(docs_site: Path, browser: Any) -> Iterator[Look]:
    """Open a page of the documentation."""
    contexts: list[Any] = []

    def open_page(address: str, **options: Any) -> Any:
        contexts.append(browser.new_context(reduced_motion="reduce", **options))
        page = contexts[-1].new_page()
        page.goto((docs_site / address).as_uri())
        page.wait_for_timeout(200)  # until tables are wrapped
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("address", PAGES)
def test_axe_finds_nothing_serious(look: Look, address: str, viewport: Any, scheme: str) -> None:
    assert grave_findings(look(address, color_scheme=scheme, viewport=viewport)) == []


def test_axe_finds_planted_faults(look: Look) -> None:
    page = look("index.html", viewport=PHONE)
    page.evaluate(PLANT_FAULTS)
    page.add_style_tag(content=".md-typeset a { text-decoration: none !important }")
    page.evaluate(
        "document.querySelectorAll('.md-typeset__scrollwrap').forEach(one => one.removeAttribute('tabindex'))"
    )
    planted = {"image-alt", "label", "color-contrast", "link-in-text-block", "scrollable-region-focusable"}
    assert {found.partition(":")[0] for found in grave_findings(page)} >= planted
