"""Sites that several files look at, and a browser that looks at one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.site import build_site
from tests import site_tools
from tests.conftest import NAMES
from tests.run_folders import NAME
from tests.site_tools import DESKTOP, Open, a_report

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="session")
def full_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with everything in it; nothing may change it."""
    reports = a_report(), a_report("resnet50_in1k", top1="70.00", status="failed")
    speeds = {"resnet18_in1k": 41.2, "resnet50_in1k": 10.8}
    return site_tools.full_site(tmp_path_factory.mktemp("zoo"), *reports, speeds=speeds, epochs=6)


@pytest.fixture(scope="session")
def plain_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of the package's manifest alone; nothing may change it."""
    out = tmp_path_factory.mktemp("plain") / "out"
    build_site(out)
    return out


@pytest.fixture(params=["full_site", "plain_site"])
def site(request: pytest.FixtureRequest) -> Path:
    """Both sites."""
    folder: Path = request.getfixturevalue(request.param)
    return folder


@pytest.fixture(scope="module")
def seen_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with everything in it."""
    report = a_report("resnet50_in1k", top1="76.55")
    speeds = dict.fromkeys(NAMES, 20.0) | {NAME: 400.0}
    return site_tools.full_site(tmp_path_factory.mktemp("zoo"), report, speeds=speeds, epochs=60)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's Chromium, or Playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (extra `browser`)")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, args=list(FLAGS))
        yield launched
        launched.close()


@pytest.fixture
def opened(seen_site: Path, browser: Any) -> Iterator[Open]:
    """Open pages; at the end nothing may have been said on the console, and nothing asked for from elsewhere."""
    contexts: list[Any] = []
    trouble: list[str] = []

    def open_page(address: str = "index.html", **options: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce", **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: trouble.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))

        def failed(request: Any) -> None:
            if request.failure != "net::ERR_ABORTED":  # a page was left while its icon was read
                trouble.append(f"failed: {request.url}: {request.failure}")

        page.on("requestfailed", failed)

        def local_only(route: Any) -> None:
            if route.request.url.startswith(("file://", "data:")):
                route.continue_()
            else:
                trouble.append(f"request: {route.request.url}")
                route.abort()

        page.route("**/*", local_only)
        page.goto((seen_site / address).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []
