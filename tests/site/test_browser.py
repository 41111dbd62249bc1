"""The site in a real browser: what a reader clicks, types and sees (Playwright and Chromium, extra `browser`)."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENTRIES, NAMES
from tests.run_folders import NAME
from tests.site_tools import WEIGHTS_SHA, a_report, full_site

pytestmark = pytest.mark.browser

MAX_PAINT_MS = 200
"""From opening the page to the first paint, which has the table."""

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
PAGES = ("index.html", "checks.html", "speed.html", f"models/{NAME}.html", "models/resnetv1d152_in1k.html")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Open = Callable[..., Any]
"""Called with an address in the site and Playwright's options for a context; returns Playwright's page."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with everything in it."""
    report = a_report("resnet50_in1k", top1="76.55")
    speeds = dict.fromkeys(NAMES, 20.0) | {NAME: 400.0}
    return full_site(tmp_path_factory.mktemp("zoo"), report, speeds=speeds, epochs=60)


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
def opened(site: Path, browser: Any) -> Iterator[Open]:
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
        page.goto((site / address).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []


def names_shown(page: Any) -> list[str]:
    """Return the rows that can be seen, from top to bottom."""
    found: list[str] = page.eval_on_selector_all("#zoo tbody tr:not([hidden])", "rows => rows.map(row => row.id)")
    return found


def by(key: str, *, descending: bool = False) -> list[str]:
    """Return the rows' names sorted by a published number; equal ones in table order."""
    entries = sorted(ENTRIES, key=lambda entry: (-1 if descending else 1) * float(getattr(entry.published, key)))
    return [entry.name for entry in entries]


def is_as_wide_as_the_window(page: Any) -> bool:
    """Tell whether the page as a whole cannot be scrolled sideways."""
    width, window = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return bool(width <= window)


# --- the table ----------------------------------------------------------------------------------------------------


def test_a_click_sorts_the_other_way_round_next_and_then_not_at_all(opened: Open) -> None:
    page = opened()
    header = page.locator('#zoo thead th[data-key="top1"]')
    assert (names_shown(page), header.get_attribute("aria-sort")) == (NAMES, "none")
    for order, expected in (("descending", by("top1", descending=True)), ("ascending", by("top1")), ("none", NAMES)):
        header.locator("button").click()
        assert (names_shown(page), header.get_attribute("aria-sort")) == (expected, order)


def test_another_column_takes_over(opened: Open) -> None:
    page = opened()
    page.locator('#zoo th[data-key="params_m"] button').click()
    page.locator('#zoo th[data-key="name"] button').click()
    assert page.locator("#zoo th[aria-sort=ascending]").count() == 1
    assert page.locator("#zoo th[aria-sort=descending]").count() == 0
    assert names_shown(page)[:2] == ["resnet18_cifar10", "resnet18_in1k"]


def test_the_keyboard_sorts_too(opened: Open) -> None:
    page = opened()
    page.locator('#zoo th[data-key="flops_g"] button').focus()
    page.keyboard.press("Enter")
    assert names_shown(page) == by("flops_g", descending=True)
    page.keyboard.press("Space")
    assert names_shown(page) == by("flops_g")


def test_the_first_tab_leads_past_the_navigation(opened: Open) -> None:
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["CIFAR-100"], ["resnet50_cifar100"]),
        (["CIFAR-10", "CIFAR-100"], [name for name in NAMES if "cifar" in name]),
        (["ResNetV1D"], [name for name in NAMES if "v1d" in name]),
        (["34"], ["resnet34_cifar10", "resnet34_in1k"]),
        (["ImageNet-1k", "ResNetV1D", "50"], ["resnetv1d50_in1k"]),
        (["CIFAR-10", "ResNetV1D"], []),
    ],
    ids=str,
)
def test_filters_of_one_kind_add_and_those_of_several_kinds_narrow(
    opened: Open, chosen: list[str], expected: list[str]
) -> None:
    page = opened()
    for name in chosen:
        page.get_by_role("checkbox", name=name, exact=True).check()
    assert names_shown(page) == expected
    assert page.locator("#count").inner_text() == f"{len(expected)} of {len(NAMES)} models"
    assert page.locator("#nothing").is_visible() is not bool(expected)
    page.get_by_role("button", name="Clear", exact=True).click()
    page.wait_for_function(f"document.querySelectorAll('#zoo tbody tr:not([hidden])').length === {len(NAMES)}")


def test_typing_searches_and_sorting_goes_on(opened: Open) -> None:
    page = opened()
    page.get_by_role("searchbox").fill("V1D 152")
    assert names_shown(page) == ["resnetv1d152_in1k"]
    page.get_by_role("searchbox").fill("resnet50")
    page.locator('#zoo th[data-key="top1"] button').click()
    assert names_shown(page) == [name for name in by("top1", descending=True) if "resnet50" in name]
    page.get_by_role("searchbox").fill("nothing has this name")
    assert (names_shown(page), page.locator("#zoo").is_visible()) == ([], False)


def test_a_phone_sorts_by_a_list(opened: Open) -> None:
    page = opened(viewport=PHONE)
    page.locator("#sort").select_option("top5:descending")
    assert names_shown(page) == by("top5", descending=True)
    page.locator("#sort").select_option("")
    assert names_shown(page) == NAMES


def test_search_filters_and_order_stand_in_the_address(opened: Open) -> None:
    page = opened()
    page.get_by_role("searchbox").fill("resnet")
    page.get_by_role("checkbox", name="ImageNet-1k", exact=True).check()
    page.get_by_role("checkbox", name="CIFAR-100", exact=True).check()
    page.get_by_role("checkbox", name="50", exact=True).check()
    page.locator('#zoo th[data-key="top1"] button').click()
    chosen = names_shown(page)
    query = page.url.partition("?")[2]
    assert set(query.split("&")) == {
        *("q=resnet", "dataset=ImageNet-1k", "dataset=CIFAR-100", "depth=50", "sort=top1%3Adescending"),
    }
    again = opened()
    again.goto(page.url)
    assert names_shown(again) == chosen
    assert again.get_by_role("searchbox").input_value() == "resnet"
    assert again.locator('#zoo th[data-key="top1"]').get_attribute("aria-sort") == "descending"
    again.locator("#zoo tbody tr:not([hidden]) a.model").first.click()
    again.wait_for_url("**/models/*.html")
    again.go_back()
    assert names_shown(again) == chosen
    again.get_by_role("button", name="Clear", exact=True).click()
    again.wait_for_function("!location.search")
    assert names_shown(again) == NAMES


@pytest.mark.parametrize("query", ["sort=<script>:ascending", "sort=top1:sideways", "depth=7&dataset=<b>", "sort=%5D"])
def test_an_address_that_says_nonsense_shows_the_table(opened: Open, site: Path, query: str) -> None:
    page = opened()
    page.goto(f"{(site / 'index.html').as_uri()}?{query}")
    assert names_shown(page) == NAMES


# --- copying ------------------------------------------------------------------------------------------------------


def test_a_hash_is_copied_whole(opened: Open) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    button = page.get_by_role("button", name=f"Copy sha256 of {NAME} retrained")
    button.click()
    page.wait_for_function("document.querySelector('.copy.done')?.textContent === 'copied'")
    assert page.evaluate("navigator.clipboard.readText()") == WEIGHTS_SHA


@pytest.mark.parametrize(
    ("title", "part"),
    [("Python", "create_model("), ("torch.hub", "hub.load("), ("Command line", "resnet-zoo predict")],
)
def test_a_snippet_is_copied_as_it_is_shown(opened: Open, title: str, part: str) -> None:
    page = opened(f"models/{NAME}.html", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name=f"Copy the {title} snippet").click()
    page.wait_for_function("document.querySelector('.copy.done')?.textContent === 'copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert part in copied
    assert copied in page.locator("#use pre").all_inner_texts()


def test_without_a_clipboard_it_copies_the_old_way(opened: Open) -> None:
    page = opened(permissions=["clipboard-read"])
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.get_by_role("button", name=f"Copy sha256 of {NAME} retrained").click()
    page.wait_for_function("document.querySelector('.copy.done')?.textContent === 'copied'")
    assert page.evaluate("navigator.clipboard.readText()") == WEIGHTS_SHA


# --- plots --------------------------------------------------------------------------------------------------------

INKED = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.some(value => value !== 0);
}"""


PANELS = [(dataset, plot) for dataset in ("CIFAR-10", "ImageNet-1k") for plot in ("flops", "params", "speed")]


def panel(page: Any, dataset: str, plot: str) -> Any:
    """Return the figure of a data set and a cost, once its marks are there."""
    figure = page.locator(f"figure[data-dataset='{dataset}'][data-plot={plot}]")
    figure.locator(".mark-link").first.wait_for()
    return figure


@pytest.mark.parametrize(("dataset", "plot"), PANELS)
def test_each_panel_has_a_mark_for_each_row_of_its_data_set(opened: Open, dataset: str, plot: str) -> None:
    page = opened()
    figure = panel(page, dataset, plot)
    assert figure.locator("canvas").evaluate(INKED)
    entries = [entry for entry in ENTRIES if entry.dataset == ("in1k" if dataset == "ImageNet-1k" else "cifar10")]
    marks = figure.locator(".mark-link")
    assert sorted(marks.evaluate_all("links => links.map(link => link.getAttribute('href'))")) == sorted(
        f"models/{entry.name}.html" for entry in entries
    )
    depths = marks.locator(".depth").all_inner_texts()
    assert sorted(depths) == sorted(
        " ".join(re.findall(r"\d+|fp16", entry.name.rpartition("_")[0].replace("v1d", ""))) for entry in entries
    )
    area = figure.locator(".u-over").bounding_box()
    for box in (link.bounding_box() for link in marks.all()):
        assert area["x"] - 1 <= box["x"] + box["width"] / 2 <= area["x"] + area["width"] + 1
        assert area["y"] - 1 <= box["y"] + box["height"] / 2 <= area["y"] + area["height"] + 1


def test_a_data_set_with_one_row_is_a_sentence(opened: Open) -> None:
    page = opened()
    assert page.locator("figure[data-dataset='CIFAR-100']").count() == 0
    assert page.get_by_text("One model: ResNet-50, 79.90 %").is_visible()


def test_better_marks_stand_higher_and_larger_networks_further_right(opened: Open) -> None:
    figure = panel(opened(), "ImageNet-1k", "params")
    small, large = (
        figure.locator(f"[href='models/{name}.html']").bounding_box() for name in ("resnet18_in1k", "resnetv1d152_in1k")
    )
    assert small["x"] < large["x"]
    assert small["y"] > large["y"]


def test_a_mark_says_what_it_is_under_the_pointer_and_in_focus(opened: Open) -> None:
    page = opened()
    mark = page.locator("figure[data-plot=flops] [href='models/resnet50_in1k.html']")
    mark.focus()
    assert page.locator(".tip").inner_text().split("\n") == [
        "ResNet-50 · ImageNet-1k",
        "top-1 76.55 %, matches",
        "FLOPs 4.12 G",
    ]
    page.keyboard.press("Escape")
    assert not page.locator(".tip").is_visible()
    assert mark.get_attribute("aria-label") == "resnet50_in1k: top-1 76.55 % (matches), FLOPs 4.12 G"
    mark.press("Enter")
    page.wait_for_url("**/models/resnet50_in1k.html")


def test_training_curves_are_drawn(opened: Open) -> None:
    page = opened(f"models/{NAME}.html")
    page.locator("figure[data-curve=lr] canvas").wait_for()
    for canvas in page.locator("#training-plots canvas").all():
        assert canvas.evaluate(INKED)
    assert page.locator("#training-plots canvas").count() == 4
    labels = page.locator("figure[data-curve=top1] .u-series th").all_inner_texts()
    assert [label.strip() for label in labels] == [
        "epoch",
        "published resnet18_cifar10-retrained-cdcdcdcd",
        "published 20261124T203719Z",
        "published (other images)",
    ]


# --- looks --------------------------------------------------------------------------------------------------------


def luminance(page: Any, selector: str, field: str) -> float:
    """Return the relative luminance (WCAG 2) of a colour of an element."""
    value: float = page.locator(selector).first.evaluate(
        """(element, field) => {
          const context = document.createElement("canvas").getContext("2d");
          context.fillStyle = getComputedStyle(element)[field];
          context.fillRect(0, 0, 1, 1);
          const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(v => v / 255)
            .map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        }""",
        field,
    )
    return value


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_both_themes(opened: Open, scheme: str) -> None:
    page = opened(color_scheme=scheme)
    ground = luminance(page, "body", "backgroundColor")
    assert (ground > 0.5) is (scheme == "light")
    texts = (".published", ".measured", ".is-matches", ".is-differs", ".is-not-checked", ".name", ".lead", ".lead a")
    for selector in texts:
        ink = luminance(page, selector, "color")
        assert (max(ink, ground) + 0.05) / (min(ink, ground) + 0.05) >= 4.5, selector


def test_the_theme_that_is_chosen_is_kept_and_plots_follow(opened: Open) -> None:
    page = opened(color_scheme="light")
    page.locator("figure[data-plot=flops] canvas").first.wait_for()
    button = page.get_by_role("button", name="Colour theme")
    button.click()
    button.click()
    assert button.get_attribute("aria-label") == "Colour theme: dark"
    assert luminance(page, "body", "backgroundColor") < 0.5
    assert page.locator("figure[data-plot=flops] canvas").first.evaluate(INKED)
    page.reload()
    assert luminance(page, "body", "backgroundColor") < 0.5
    page.get_by_role("button", name="Colour theme").click()
    assert luminance(page, "body", "backgroundColor") > 0.5


@pytest.mark.parametrize("address", PAGES)
def test_a_phone_scrolls_down_and_never_sideways(opened: Open, address: str) -> None:
    page = opened(address, viewport=PHONE, device_scale_factor=2, has_touch=True)
    assert is_as_wide_as_the_window(page)
    page.set_viewport_size({"width": 320, "height": 600})
    page.wait_for_timeout(200)
    assert is_as_wide_as_the_window(page)


def test_the_table_stays_a_table_on_a_phone(opened: Open) -> None:
    page = opened(viewport=PHONE)
    assert page.get_by_role("table").count() == 1
    assert page.get_by_role("row").count() >= len(NAMES)
    assert page.get_by_role("rowheader").count() == len(NAMES)


def test_every_button_and_link_has_a_name(opened: Open) -> None:
    for address in PAGES:
        page = opened(address)
        nameless = page.evaluate(
            """[...document.querySelectorAll("button, a[href], input, select")].filter(element =>
              !(element.ariaLabel || element.textContent.trim() || element.labels?.[0]?.textContent.trim())
            ).map(element => element.outerHTML)"""
        )
        assert nameless == []


def test_it_reads_without_scripts(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("#zoo tbody tr").count() == len(NAMES)
    assert page.get_by_text("This plot needs JavaScript").first.is_visible()
    assert not page.locator("#filters").is_visible()


CUT = """elements => elements.filter(element => element.scrollWidth > element.clientWidth + 1).length"""


def test_code_is_cut_off_nowhere(opened: Open) -> None:
    for viewport in (PHONE, DESKTOP):
        for name in (NAME, "resnetv1d152_in1k", "resnet50_cifar100"):
            page = opened(f"models/{name}.html", viewport=viewport)
            assert page.locator("#use pre").count() >= 3
            assert page.eval_on_selector_all("#use pre", CUT) == 0


def test_a_table_that_is_cut_says_that_it_scrolls(opened: Open) -> None:
    page = opened(f"models/{NAME}.html", viewport=PHONE)
    page.wait_for_timeout(200)
    for scroller in page.locator(".scroller:visible").all():
        is_cut = bool(scroller.evaluate("element => element.scrollWidth > element.clientWidth + 1"))
        note = scroller.locator("xpath=preceding-sibling::p[@class='scroll-note'][1]")
        assert note.is_visible() is is_cut
    assert page.locator(".scroll-note:visible").count() >= 2
    wide = opened(f"models/{NAME}.html")
    wide.wait_for_timeout(200)
    assert wide.locator(".scroll-note:visible").count() == 0


def grave_findings(page: Any) -> list[str]:
    """Return what axe-core calls serious or critical on a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed (extra `browser`)")
    options = {
        "resultTypes": ["violations"],
        "preload": False,
    }  # else it fetches style sheets, which these pages forbid
    found = axe.Axe().run(page, options=options).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes'][:3]]}" for one in grave]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("address", ["index.html", "speed.html", f"models/{NAME}.html"])
def test_axe_finds_nothing_serious(opened: Open, address: str, viewport: Any, scheme: str) -> None:
    page = opened(address, color_scheme=scheme, viewport=viewport)
    page.locator("figure canvas").first.wait_for() if address != "speed.html" else page.wait_for_timeout(200)
    assert grave_findings(page) == []


def test_axe_finds_planted_faults(opened: Open) -> None:
    page = opened()
    page.evaluate(
        """() => {
          document.querySelector("main").insertAdjacentHTML("beforeend",
            '<img src="static/icon.svg"><input type="text"><p style="color: #bbb; background: #ccc">faint</p>');
        }"""
    )
    assert {found.partition(":")[0] for found in grave_findings(page)} >= {"image-alt", "label", "color-contrast"}


FIRST_PAINT = """() => new Promise(done => new PerformanceObserver(list => done(list.getEntries().at(-1).startTime))
  .observe({ type: "paint", buffered: true }))"""


def test_the_table_is_painted_at_once(opened: Open) -> None:
    page = opened()
    times: list[float] = []
    while not times or (min(times) > MAX_PAINT_MS and len(times) < 10):  # the machine may have other things to do
        page.reload()
        times.append(page.evaluate(FIRST_PAINT))
        assert page.locator("#zoo tbody tr").first.is_visible()
    assert min(times) <= MAX_PAINT_MS, times
