"""What the pages say: each row has one, links resolve, hostile text stays text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image

from resnet_zoo.catalog.manifest import get_entry, use_manifest
from resnet_zoo.catalog.measurements import read_measurements
from resnet_zoo.site import build_site
from resnet_zoo.site.errata import ERRATA, errata_of
from resnet_zoo.site.words import file_of, snippets_of
from resnet_zoo.weights.cache_contents import weight_facts
from resnet_zoo.weights.places import shipped_weights
from tests.conftest import ENTRIES, NAMES, smooth_image
from tests.run_folders import NAME, ROOT
from tests.site_tools import WEIGHTS_SHA, a_report, pages_of, retrained, write_manifest, write_report, write_run


def test_every_row_has_a_page_and_a_line_in_the_table(site: Path) -> None:
    pages = pages_of(site)
    assert {f"models/{name}.html" for name in NAMES} == {page for page in pages if page.startswith("models/")}
    assert [name for name in pages["index.html"].ids if name in NAMES] == NAMES


def test_models_of_a_data_set_have_titles_of_their_own(site: Path) -> None:
    texts = [page.text for address, page in pages_of(site).items() if address.startswith("models/")]
    headings = [text.split("All models")[1].split("copy")[0] for text in texts]
    titles = {" ".join(heading.split()[:-1]) for heading in headings}
    assert len(titles) == len(NAMES)
    assert "ResNet-50 fp16 ImageNet-1k" in titles


def test_every_link_inside_resolves_and_every_other_is_https(site: Path) -> None:
    pages = pages_of(site)
    for address, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme == "https", link
                continue
            target = (site / address).parent / unquote(parts.path) if parts.path else site / address
            assert target.is_file(), f"{address} links to {link}"
            if parts.fragment:
                assert parts.fragment in pages[target.resolve().relative_to(site.resolve()).as_posix()].ids, link


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for address, page in pages_of(site).items():
        for tag, attributes in page.elements:
            loaded = attributes.get("src") or (attributes.get("href") if tag == "link" else None)
            assert loaded is None or not urlsplit(loaded).scheme, f"{address}: {loaded}"


@pytest.mark.slow
def test_ids_are_unique_and_labels_refer_to_something(site: Path) -> None:
    for address, page in pages_of(site).items():
        assert len(page.ids) == len(set(page.ids)), address
        for _, attributes in page.elements:
            for key in ("aria-labelledby", "aria-describedby"):
                assert set((attributes.get(key) or "").split()) <= set(page.ids), address


def test_every_number_has_a_state(site: Path) -> None:
    states = [a["class"] for t, a in pages_of(site)["index.html"].elements if "state is-" in (a.get("class") or "")]
    in_legend = 3
    assert len(states) == 4 * len(ENTRIES) + in_legend


@pytest.mark.slow
def test_a_model_page_has_every_weight_set_with_its_numbers_size_pin_and_place(plain_site: Path) -> None:
    for entry in ENTRIES:
        text = " ".join(pages_of(plain_site)[f"models/{entry.name}.html"].text.split())
        for found in weight_facts([entry], with_caches=False):
            place = "ships with the checkout" if found.place == "ships" else f"from {found.place}"
            default = " default" if found.is_default else ""
            numbers = " ".join("".join(getattr(at, key) for at in found.tested) for key in ("top1", "top5"))
            sizes = "".join(f"{at.size} px" for at in found.tested)
            size = f"{found.size_bytes / 1e6:.1f} MB" if found.size_bytes else "–"
            file = file_of(entry.weights[found.weights])
            assert file is not None
            known = "copy" if file.is_whole else f"… {len(file.sha256)} of 64 digits are known"
            known = f"{file.name}{file.sha256}{known}"
            line = f"{found.weights}{default} {numbers} {sizes} {place} {known}{size}{found.license}"
            assert line.replace(" ", "") in text.replace(" ", "")
            assert 4 * len(file.sha256) == found.pin_bits


def test_only_whole_hashes_can_be_copied(plain_site: Path) -> None:
    for address, page in pages_of(plain_site).items():
        texts = [attributes["data-copy"] or "" for _, attributes in page.elements if "data-copy" in attributes]
        hashes = [text for text in texts if re.fullmatch("[0-9a-f]+", text)]
        assert all(len(digits) == 64 for digits in hashes), address
    links = list(pages_of(plain_site)["models/resnet50_in1k.html"].links)
    assert any(re.fullmatch(r"https://huggingface\.co/timm/.*\.safetensors", link) for link in links)


def test_the_runs_that_ship_are_shown_without_being_asked_for(plain_site: Path) -> None:
    shipped = sorted(path.parent.name for path in (ROOT / "weights").glob("*/log.jsonl"))
    texts = [page.text for page in pages_of(plain_site).values()]
    assert len(shipped) > 2
    assert all(any(f"run {name}" in " ".join(text.split()) for text in texts) for name in shipped)


def test_part_of_the_official_images_gives_bounds_and_a_run_without_weights_is_said_to_have_none(
    plain_site: Path,
) -> None:
    trained, tried = (
        " ".join(pages_of(plain_site)[f"models/{name}_cifar10.html"].text.split()) for name in ("resnet34", "resnet50")
    )
    bounds = r"9,977 of the 10,000 of CIFAR-10 \(\d\d\.\d\d to \d\d\.\d\d on all\)"
    assert re.search(rf"Weights retrained reach 95\.08 % top-1 and 99\.\d\d % top-5 on {bounds}", trained)
    assert re.search(rf"the source of weights retrained: .{{,40}} top-5 on {bounds} after 36 epochs", trained)
    assert re.search(rf"run resnet50_cifar10-modern-27eed335: .{{,40}} top-5 on {bounds} after 36 epochs", tried)
    assert ("No weight set came from it" in tried, "No weight set came from it" in trained) == (True, False)
    assert "not the official test set" not in trained + tried
    assert "9977images after" not in trained + tried


def test_shipped_speeds_are_shown_with_machine_and_command(plain_site: Path) -> None:
    pages = pages_of(plain_site)
    points = json.loads(pages["index.html"].scripts[0])
    assert all(point["speed"] > 0 for point in points)
    text = " ".join(pages["speed.html"].text.split())
    for measured in read_measurements():
        assert measured.device in text
        assert measured.command in text
        assert f"torch {measured.versions['torch']}" in text
    assert "timm, float32" in text
    assert "Not measured" not in pages[f"models/{NAME}.html"].text


def test_a_model_page_names_classes_limits_and_both_scales(plain_site: Path) -> None:
    pages = pages_of(plain_site)
    text, page = (" ".join(pages[f"models/{name}.html"].text.split()) for name in (NAME, "resnet50_in1k"))
    assert "airplane" in text
    assert "Larger images are shrunk to 32x32" in text
    assert "All 1,000 classes" in page
    assert "toilet tissue" in page
    assert "mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]" in page
    assert "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]" in page


def test_pages_hold_no_code_and_no_styles_of_their_own(site: Path) -> None:
    for address, page in pages_of(site).items():
        for tag, attributes in page.elements:
            assert tag != "style", address
            assert not {"style", "onclick", "onload"} & attributes.keys(), address


def test_the_index_names_the_best_set_of_each_row_and_the_place_of_its_default(plain_site: Path) -> None:
    text = " ".join(pages_of(plain_site)["index.html"].text.split())
    assert "81.240timm_a1, 288 px" in text
    assert "retrained 2 sets ships with the checkout" in text
    assert "no file yet" not in text


def test_nothing_is_called_checked_before_it_was_measured(plain_site: Path) -> None:
    text = " ".join(pages_of(plain_site)["index.html"].text.split())
    assert "All 30 parameter and FLOP counts were counted again and match." in text
    assert "The 30 accuracies stand as published" in text


def test_a_report_changes_the_states_of_its_rows(full_site: Path) -> None:
    text = " ".join(pages_of(full_site)["index.html"].text.split())
    assert "Of 30 accuracies, 2 were measured again: 1 match, 1 differ. The others stand as published." in text
    assert "differs by −6.55" in text


def test_accuracy_on_other_images_stands_beside_and_checks_nothing(full_site: Path) -> None:
    index, page = (" ".join(pages_of(full_site)[name].text.split()) for name in ("index.html", f"models/{NAME}.html"))
    assert "93.12 retrained" in index
    assert "Weights retrained reach 93.12 % top-1" in page
    assert "it checks none of the numbers above" in page


def test_a_model_page_shows_what_belongs_on_it(full_site: Path) -> None:
    page = pages_of(full_site)[f"models/{NAME}.html"]
    text = " ".join(page.text.split())
    for expected in (
        "512 × 4 × 4",  # the last stage's maps
        "8,393,728",  # its parameters
        "mean=[125.307, 122.961, 113.8575], std=[51.5865, 50.847, 51.255]",
        "mean=[0.4914, 0.4822, 0.4465], std=[0.2023, 0.1994, 0.201]",
        "multiplied by 0.1 at epochs 100, 150",
        "rises over the first 20% of the training",
        "93.12 % top-1 and 99.78 % top-5 on 10,000 of cifar10-jpeg after 4 epochs, 7 minutes",
        "not finished; 6 epochs so far",
        "Changed: epochs = 4",
        "8 of 64 digits: a 32-bit pin",
        "Code the package's sources, commit c0c0c0c0c0c0",
        "10000 images of cifar10, tolerance 0.1",
        "Older files expect swapped channels",
        "@inproceedings{he2016deep",
    ):
        assert expected in text
    assert WEIGHTS_SHA in text
    copied = [attributes["data-copy"] for _, attributes in page.elements if "data-copy" in attributes]
    assert any(text is not None and "torch.hub.load(" in text for text in copied)


@pytest.mark.parametrize(
    ("name", "title", "without"),
    [
        (NAME, "Python, in a checkout", ""),
        (NAME, "Python, installed with pip", ""),
        ("resnet18_in1k", "Python", ", pretrained=True"),
    ],
)
def test_the_python_snippet_takes_a_photo(
    name: str, title: str, without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, names = get_entry(name), dict[str, Any]()
    code = next(snippet.code for snippet in snippets_of(entry) if snippet.title == title)
    Image.fromarray(smooth_image(240, 320)).save(tmp_path / "photo.jpg")
    shipped = shipped_weights(get_entry(NAME), "retrained")
    assert shipped is not None
    (tmp_path / shipped.path.name).symlink_to(shipped.path)  # what the pip snippet says to copy
    monkeypatch.chdir(tmp_path)
    assert without in code
    exec(code.replace(without, ""), names)
    assert names["logits"].shape == (1, entry.num_classes)


def test_curves_and_points_are_numbers_of_their_sources(full_site: Path) -> None:
    curves = json.loads(pages_of(full_site)[f"models/{NAME}.html"].scripts[0])
    assert [curve["epoch"] for curve in curves] == [[1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]
    assert curves[0]["top1"] == [None, 70.0, 80.0, 90.0]
    points = json.loads(pages_of(full_site)["index.html"].scripts[0])
    speeds = {point["name"]: point["speed"] for point in points if point["speed"] is not None}
    assert speeds == {"resnet18_in1k": 41.2, "resnet50_in1k": 10.8}
    assert [point["params"] for point in points[:2]] == [11.174, 21.282]


@pytest.mark.slow
def test_a_curve_ends_at_the_result_where_the_log_has_no_accuracy(tmp_path: Path) -> None:
    log = write_run(tmp_path / "run") / "log.jsonl"
    log.write_text(log.read_text().replace('"top1": 90.0', '"top1": null'))
    build_site(tmp_path / "out", runs=tmp_path)
    curves = json.loads(pages_of(tmp_path / "out")[f"models/{NAME}.html"].scripts[0])
    assert [None, 70.0, 80.0, 93.12] in [curve["top1"] for curve in curves]


def test_the_tensors_of_a_report_end_the_chain_of_the_weights_they_are_of(full_site: Path) -> None:
    text = " ".join(pages_of(full_site)[f"models/{NAME}.html"].text.split())
    assert text.count("Tensors in memory") == 1
    assert "Tensors in memory" not in pages_of(full_site)["models/resnet18_in1k.html"].text


def test_the_rules_are_explained_with_the_manifest_s_integers(plain_site: Path) -> None:
    text = pages_of(plain_site)["checks.html"].text
    assert all(count in text for count in ("4,119,876,096", "4,121,924,096", "4,089,184,256"))


def test_every_erratum_is_about_a_row() -> None:
    assert all(any(erratum in errata_of(entry) for entry in ENTRIES) for erratum in ERRATA)
    assert not [entry.name for entry in ENTRIES if not errata_of(entry)]


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>'\""

    def change(content: Any) -> None:
        retrained(content)
        row = content["models"][0]
        row["published"] |= {"label": hostile, "source": hostile, "log_url": "https://example.org/'\"><script>"}
        row["weights"]["retrained"] |= {"license": hostile, "origin": {"recipe": hostile, "run": hostile}}
        row["weights"]["retrained"]["measured"] |= {"dataset": hostile, "device": hostile}

    run_folder = write_run(tmp_path / "runs" / "<script>alert(1)<")
    recipe = json.loads((run_folder / "recipe.json").read_text())
    (run_folder / "recipe.json").write_text(json.dumps(recipe | {"recipe": hostile, "overridden": {hostile: hostile}}))
    report = a_report(top1=hostile)
    path = write_report(tmp_path / "verify.json", report)
    with use_manifest(write_manifest(tmp_path / "zoo.json", change)):
        build_site(tmp_path / "out", runs=tmp_path / "runs", report=path)
    own = {"theme.js", "page.js", "table.js", "uPlot.min.js", "charts.js", "scatter.js", "curves.js"}
    for page in pages_of(tmp_path / "out").values():
        for tag, attributes in page.elements:
            assert tag != "img"
            assert not any(name.startswith("on") for name in attributes)
            if tag == "script":
                assert attributes.get("type") == "application/json" or Path(attributes["src"] or "").name in own
    assert hostile in pages_of(tmp_path / "out")[f"models/{NAME}.html"].text


def test_a_run_outside_of_the_manifest_s_folder_is_not_read(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        retrained(content)
        content["models"][0]["weights"]["retrained"]["origin"]["run"] = "../secret"

    write_run(tmp_path / "secret")
    (tmp_path / "zoo").mkdir()
    with use_manifest(write_manifest(tmp_path / "zoo" / "zoo.json", change)):
        build_site(tmp_path / "out")
    assert "No run of this model was at hand" in pages_of(tmp_path / "out")[f"models/{NAME}.html"].text


@pytest.mark.slow
def test_an_architecture_that_is_none_of_ours_has_no_sketch(tmp_path: Path) -> None:
    def change(content: Any) -> None:
        content["models"][0]["architecture"] = "convnet"

    with use_manifest(write_manifest(tmp_path / "zoo.json", change)):
        build_site(tmp_path / "out")
    assert "convnet is not an architecture of this package" in pages_of(tmp_path / "out")[f"models/{NAME}.html"].text
