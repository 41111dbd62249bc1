"""The site in a real browser: what a reader clicks, types and sees (Playwright and Chromium, extra `browser`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ENTRIES, NAMES
from tests.run_folders import NAME
from tests.site_tools import INKED, PHONE, WEIGHTS_SHA, Open

pytestmark = pytest.mark.browser


def names_shown(page: Any) -> list[str]:
    """Return the rows that can be seen, from top to bottom."""
    found: list[str] = page.eval_on_selector_all("#zoo tbody tr:not([hidden])", "rows => rows.map(row => row.id)")
    return found


def by(key: str, *, descending: bool = False) -> list[str]:
    """Return the rows' names sorted by a published number; equal ones in table order."""
    entries = sorted(ENTRIES, key=lambda entry: (-1 if descending else 1) * float(getattr(entry.published, key)))
    return [entry.name for entry in entries]


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
def test_an_address_that_says_nonsense_shows_the_table(opened: Open, seen_site: Path, query: str) -> None:
    page = opened()
    page.goto(f"{(seen_site / 'index.html').as_uri()}?{query}")
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
