"""The manifest: what it says, what its reader refuses, and the files it refers to."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.catalog import recipes
from resnet_zoo.catalog.architectures import ARCHITECTURES
from resnet_zoo.catalog.classes import class_folders, class_names
from resnet_zoo.catalog.manifest import (
    PACKAGE,
    current_manifest,
    format_manifest,
    get_entry,
    list_models,
    manifest_path,
    parse_manifest,
    read_manifest,
)
from resnet_zoo.catalog.records import Entry, to_json
from resnet_zoo.errors import ManifestError, UnknownModelError
from tests.conftest import ENTRIES, NAMES, make_odd

TEXT = manifest_path().read_text(encoding="utf-8")
RAW: dict[str, Any] = json.loads(TEXT)
FIRST = NAMES[0]


every_row = pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)


# --- what it says -------------------------------------------------------------------------------------------------


def test_the_real_manifest_has_fifteen_rows() -> None:
    assert len(ENTRIES) == 15
    assert current_manifest() == read_manifest(manifest_path())


def test_five_rows_are_cifar10_one_is_cifar100_and_nine_are_imagenet() -> None:
    assert [len(list_models(dataset=dataset)) for dataset in ("cifar10", "cifar100", "in1k")] == [5, 1, 9]


@every_row
def test_published_strings_are_kept_as_they_are_in_the_file(entry: Entry) -> None:
    row = next(row for row in RAW["models"] if row["name"] == entry.name)
    assert to_json(entry.published) == row["published"]
    assert all(isinstance(row["published"][key], str) for key in ("top1", "top5", "params_m", "flops_g"))


@every_row
def test_a_row_becomes_the_json_it_came_from(entry: Entry) -> None:
    row = next(row for row in RAW["models"] if row["name"] == entry.name)
    assert to_json(entry) == with_blocks(row)


def with_blocks(value: Any) -> Any:
    """Return parsed JSON with every named preprocessing block in the place of its name."""
    if isinstance(value, list):
        return [with_blocks(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: RAW["preprocess"][item] if key == "preprocess" else with_blocks(item) for key, item in value.items()}


def test_the_manifest_is_formatted_byte_for_byte_as_its_script_writes_it() -> None:
    assert format_manifest(RAW).encode() == manifest_path().read_bytes()


def test_formatting_changes_no_value() -> None:
    content = {"a": [1, 2.5, "x"], "b": [], "c": [{"d": [1, 2]}, {}], "e": ["has [ brackets ]", "ü", "two  blanks"]}
    assert json.loads(format_manifest(content)) == content


@every_row
def test_the_recipe_and_the_architecture_exist(entry: Entry) -> None:
    assert entry.recipe in recipes.RECIPES
    assert entry.architecture in ARCHITECTURES


@every_row
def test_the_name_tells_architecture_and_data_set(entry: Entry) -> None:
    assert entry.name.startswith(entry.architecture)
    assert entry.name.endswith(f"_{entry.dataset}")


@every_row
def test_the_number_of_classes_is_that_of_the_data_set(entry: Entry) -> None:
    assert entry.classes == entry.dataset
    assert entry.num_classes == len(class_names(entry.classes)) == len(class_folders(entry.classes))


@every_row
def test_the_input_is_what_the_preprocessing_leaves(entry: Entry) -> None:
    side = entry.preprocess.crop or 32
    assert entry.input_size == (3, side, side)


@every_row
def test_the_stem_is_that_of_the_architecture_and_the_data_set(entry: Entry) -> None:
    expected = "deep" if "v1d" in entry.architecture else "imagenet" if entry.dataset == "in1k" else "cifar"
    assert entry.stem == expected


# --- names --------------------------------------------------------------------------------------------------------


@every_row
def test_a_row_is_found_by_its_name_and_every_alias(entry: Entry) -> None:
    for name in (entry.name, *entry.aliases):
        assert get_entry(name.encode().decode()) == entry  # another string of the same letters


@pytest.mark.parametrize("name", ["", "RESNET50", "resnet50 ", "resnet", "resnet50_in1k\n"])
def test_a_name_that_is_only_similar_is_not_found(name: str) -> None:
    with pytest.raises(UnknownModelError):
        get_entry(name)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("reznet50", "resnet50"), ("resnet50_cifar", "resnet50_cifar10"), ("resnetv1d_152", "resnetv1d152")],
)
def test_an_unknown_name_gets_near_matches(misspelt: str, meant: str) -> None:
    with pytest.raises(UnknownModelError) as caught:
        get_entry(misspelt)
    assert meant in str(caught.value)
    assert set(NAMES) < set(caught.value.known)


def test_a_weight_set_is_found_by_its_tag() -> None:
    entry = ENTRIES[0]
    assert entry.weight_set("openmmlab") is entry.weights["openmmlab"]


@pytest.mark.parametrize(
    ("pattern", "dataset", "names"),
    [
        (None, None, NAMES),
        (None, "cifar100", ["resnet50_cifar100"]),
        ("*", "nosuch", []),
        ("resnet*_cifar10", None, [name for name in NAMES if name.endswith("_cifar10")]),
        ("v1d", None, [name for name in NAMES if "v1d" in name]),
        ("resnet50", "in1k", ["resnet50_in1k", "resnet50_fp16_in1k"]),
        ("resnet50_fp16", None, ["resnet50_fp16_in1k"]),
        ("resnet1?", None, ["resnet18_in1k"]),
        ("resnet[35]*_in1k", None, ["resnet34_in1k", "resnet50_in1k", "resnet50_fp16_in1k"]),
        ("*", None, NAMES),
        ("RESNET50", None, []),
        ("resnet50_in1k.", None, []),
    ],
)
def test_rows_are_listed_by_pattern_and_data_set(pattern: str | None, dataset: str | None, names: list[str]) -> None:
    assert list_models(pattern, dataset=dataset) == names


# --- class lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "count"), [("cifar10", 10), ("cifar100", 100), ("in1k", 1000)])
def test_a_class_list_has_a_line_for_every_class(classes: str, count: int) -> None:
    text = (PACKAGE / "catalog" / "class_lists" / f"{classes}.tsv").read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert len(text.splitlines()) == text.count("\n") == count
    assert all(name.strip() == name and name for name in class_names(classes))


def test_imagenets_classes_are_in_the_order_of_their_wordnet_ids() -> None:
    folders = class_folders("in1k")
    assert folders == sorted(folders)
    assert len(set(folders)) == 1000
    assert all(len(folder) == 9 and folder[0] == "n" and folder[1:].isdigit() for folder in folders)


def test_known_imagenet_labels_have_their_known_names() -> None:
    names = class_names("in1k")
    assert names[0] == "tench, Tinca tinca"
    assert names[65] == "sea snake"
    assert names[281] == "tabby, tabby cat"
    assert names[999].startswith("toilet tissue")


def test_two_imagenet_classes_are_cranes_and_two_are_maillots() -> None:
    first = [name.split(",")[0] for name in class_names("in1k")]
    assert (first.count("crane"), first.count("maillot")) == (2, 2)
    assert (first.index("crane"), first.index("maillot")) == (134, 638)


@pytest.mark.parametrize("classes", ["cifar10", "cifar100"])
def test_cifars_classes_are_in_the_order_of_the_alphabet(classes: str) -> None:
    names = class_names(classes)
    assert names == class_folders(classes) == sorted(set(names))


# --- what is refused ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutation:
    """One change to the real manifest that must be refused.

    Attributes:
        fact: What is wrong.
        path: Keys and indices to the value that is replaced, or added, or (``DELETE``) removed.
        value: The new value.
        row: Row in the error; ``None`` means none.
        field: Field in the error.
    """

    fact: str
    path: tuple[str | int, ...]
    value: Any
    row: str = ""
    field: str = ""

    def apply(self) -> dict[str, Any]:
        raw = copy.deepcopy(RAW)
        parent: Any = raw
        for key in self.path[:-1]:
            parent = parent[key]
        if self.value is DELETE:
            del parent[self.path[-1]]
        elif self.path[-1] == len(parent):
            parent.append(self.value)
        else:
            parent[self.path[-1]] = self.value
        return raw


DELETE: Any = object()
SHA256 = "0" * 64
SETS = "weights.openmmlab"
PAGE = {"page": "https://example.org/weights"}
OWN = {"top1": "71.5", "top5": "90.1", "preprocess": "in1k_pillow", "source": "https://example.org/table"}
TOO_GOOD = OWN | {"top1": "100.5"}
SEEN: dict[str, Any] = {
    "url": f"https://example.org/x-{SHA256[:8]}.pth",
    "sha256_prefix": SHA256,
    "witness": {"size_bytes": 1, "date": "2026-11-26", "source": "fetched from its address"},
}
FILE = {"path": "a/b.safetensors", "sha256": SHA256, "size_bytes": 1}
MEASURED = {
    "top1": 94.8,
    "top5": 99.9,
    "num_images": 10_000,
    "dataset": "cifar10",
    "date": "2025-01-01",
    "versions": {"torch": "2.6"},
    "device": "cpu",
}


def in_row(fact: str, *path: str | int, value: Any, field: str | None = None) -> Mutation:
    name = ".".join(map(str, path)) if field is None else field
    return Mutation(fact, ("models", 0, *path), value, FIRST, name)


def in_weights(fact: str, *path: str | int, value: Any, field: str | None = None) -> Mutation:
    return in_row(fact, "weights", "openmmlab", *path, value=value, field=field)


def in_witness(fact: str, key: str = "", *, value: Any, field: str | None = None) -> Mutation:
    origin = copy.deepcopy(SEEN)
    if not key:
        origin = value
    elif value is DELETE:
        del origin["witness"][key]
    else:
        origin["witness"][key] = value
    name = f"weights.openmmlab.origin.{field or f'witness.{key}'}"
    return in_weights(f"witness {fact}", "origin", value=origin, field=name)


def in_file(fact: str, **change: Any) -> Mutation:
    field = f"weights.openmmlab.file.{next(iter(change))}"
    return in_weights(fact, "file", value=FILE | change, field=field)


def in_measured(fact: str, where: str = "", **change: Any) -> Mutation:
    field = f"weights.openmmlab.measured.{where or next(iter(change))}"
    return in_weights(fact, "measured", value=MEASURED | change, field=field)


def at_top(fact: str, *path: str | int, value: Any, field: str | None = None) -> Mutation:
    return Mutation(fact, path, value, "", ".".join(map(str, path)) if field is None else field)


def base_url(fact: str, url: object) -> Mutation:
    return at_top(fact, "base_urls", 0, value=url)


MUTATIONS = [
    # the manifest itself
    at_top("unknown field", "comment", value="x"),
    *(at_top(f"missing {key}", key, value=DELETE) for key in RAW),
    at_top("schema version of the future", "schema_version", value=2),
    at_top("schema version of no manifest", "schema_version", value=0),
    at_top("schema version as text", "schema_version", value="1"),
    at_top("schema version as a bool", "schema_version", value=True),
    at_top("no rows", "models", value=[]),
    at_top("rows as an object", "models", value={}),
    at_top("rows are null", "models", value=None),
    at_top("preprocessing as a list", "preprocess", value=[]),
    at_top("base URLs as text", "base_urls", value="weights"),
    Mutation("row that is a list", ("models", 0), [], "0", ""),
    Mutation("row that is null", ("models", 15), None, "15", ""),
    # addresses
    base_url("http URL", "http://example.com/weights"),
    base_url("ftp URL of this machine", "ftp://127.0.0.1/weights"),
    base_url("ssh URL", "ssh://example.com/weights"),
    base_url("file URL", "file:///etc"),
    base_url("URL without a host", "https:///weights"),
    base_url("number for a URL", 5),
    base_url("empty URL", ""),
    base_url("folder outside", "../weights"),
    base_url("absolute folder", "/weights"),
    base_url("Windows folder", "weights\\a"),
    base_url("Windows drive", "C:weights"),
    base_url("Hugging Face address without a revision", "hf://owner/repo"),
    base_url("Hugging Face address without a repository", "hf://owner@main"),
    # preprocessing
    at_top("unknown resize backend", "preprocess", "in1k_cv2", "resize_backend", value="PIL"),
    at_top("unknown preprocessing field", "preprocess", "in1k_cv2", "interpolation", value="bilinear"),
    at_top("missing mean", "preprocess", "in1k_cv2", "mean", value=DELETE),
    at_top("crop larger than the image", "preprocess", "in1k_cv2", "crop", value=257),
    at_top("crop of zero", "preprocess", "in1k_cv2", "crop", value=0),
    at_top("negative short edge", "preprocess", "in1k_cv2", "short_edge", value=-256),
    at_top("crop as a bool", "preprocess", "in1k_cv2", "crop", value=True),
    at_top("crop as text", "preprocess", "in1k_cv2", "crop", value="224"),
    at_top("crop with a fraction of nothing", "preprocess", "in1k_cv2", "crop", value=224.0),
    at_top("resize without a crop", "preprocess", "in1k_cv2", "crop", value=None),
    at_top("crop without a resize", "preprocess", "cifar10", "crop", value=32),
    at_top("mean of two channels", "preprocess", "in1k_cv2", "mean", value=[1, 2]),
    at_top("mean of four channels", "preprocess", "in1k_cv2", "mean", value=[1, 2, 3, 4]),
    at_top("mean one beyond 255", "preprocess", "in1k_cv2", "mean", value=[1, 2, 256]),
    at_top("standard deviation of zero", "preprocess", "in1k_cv2", "std", value=[1, 0, 1]),
    at_top("mean as text", "preprocess", "in1k_cv2", "mean", value="123"),
    at_top("mean of texts", "preprocess", "in1k_cv2", "mean", value=["1", 2, 3], field="preprocess.in1k_cv2.mean.0"),
    at_top("mean beyond 255", "preprocess", "in1k_cv2", "mean", value=[1, 2, 300]),
    at_top("mean that is not a number", "preprocess", "in1k_cv2", "mean", value=[1, 2, math.nan], field=""),
    # names
    Mutation("duplicate name", ("models", 1, "name"), FIRST, FIRST, "name"),
    Mutation("alias of another row's name", ("models", 1, "aliases"), [FIRST], NAMES[1], "aliases.0"),
    Mutation("name of another row's alias", ("models", 0, "aliases"), [NAMES[1]], NAMES[1], "name"),
    in_row("alias of the row's own name", "aliases", value=[FIRST], field="aliases.0"),
    in_row("alias twice", "aliases", value=["a", "a"], field="aliases.1"),
    in_row("alias that is no identifier", "aliases", value=["resnet-18"], field="aliases.0"),
    in_row("aliases as text", "aliases", value="resnet18"),
    Mutation("name with a hyphen", ("models", 0, "name"), "resnet-18", "resnet-18", "name"),
    Mutation("name with a leading digit", ("models", 0, "name"), "18resnet", "18resnet", "name"),
    Mutation("name that is a keyword", ("models", 0, "name"), "lambda", "lambda", "name"),
    Mutation("empty name", ("models", 0, "name"), "", "0", "name"),
    Mutation("name that is a number", ("models", 0, "name"), 18, "18", "name"),
    Mutation("missing name", ("models", 0, "name"), DELETE, "0", "name"),
    # the row
    in_row("unknown field", "accuracy", value=1),
    *(in_row(f"missing {key}", key, value=DELETE) for key in RAW["models"][0] if key != "name"),
    in_row("unknown preprocessing", "preprocess", value="in1k"),
    in_row("preprocessing written out", "preprocess", value=RAW["preprocess"]["cifar10"]),
    in_row("preprocessing null", "preprocess", value=None),
    in_row("unknown stem", "stem", value="cifar100"),
    in_row("unknown data set", "dataset", value="in22k"),
    in_row("unknown class list", "classes", value="in22k"),
    in_row("class list outside of the package", "classes", value="../classes/in1k"),
    in_row("no classes", "num_classes", value=0),
    in_row("negative classes", "num_classes", value=-10),
    in_row("classes as a bool", "num_classes", value=True),
    in_row("classes as text", "num_classes", value="10"),
    in_row("input of two sizes", "input_size", value=[32, 32]),
    in_row("input of size zero", "input_size", value=[3, 0, 32]),
    in_row("input of negative size", "input_size", value=[3, -32, 32]),
    in_row("input with a fraction", "input_size", value=[3, 32.5, 32], field="input_size.1"),
    # published
    *(in_row(f"published {key} as a number", "published", key, value=94.8) for key in ("top1", "params_m")),
    *(
        in_row(f"published digits {text!r}", "published", "top1", value=text)
        for text in ("", "94", "94.", ".82", "94.823", "94,82", "94.8 %", "-94.82", "1e1.0", "nan")
    ),
    in_row("published digits and a new line", "published", "top1", value="94.82\n"),
    in_row("unknown published field", "published", "top10", value="99.99"),
    in_row("missing published field", "published", "flops_g", value=DELETE),
    in_row("http config", "published", "config_url", value="http://example.com/config.py"),
    in_row("log without a scheme", "published", "log_url", value="example.com/log.json"),
    # exact
    *(in_row(f"{key} of zero", "exact", key, value=0) for key in ("params", "flops", "flops_with_head", "macs")),
    in_row("negative parameters", "exact", "params", value=-1),
    in_row("parameters with a fraction", "exact", "params", value=1.5),
    in_row("parameters as a bool", "exact", "params", value=True),
    in_row("parameters as text", "exact", "params", value="11173962"),
    in_row("short fingerprint", "exact", "state_dict_sha256", value=SHA256[1:]),
    in_row("upper-case fingerprint", "exact", "state_dict_sha256", value="A" * 64),
    in_row("long fingerprint", "exact", "state_dict_sha256", value=SHA256 + "0"),
    in_row("missing count", "exact", "macs", value=DELETE),
    # weights
    in_row("default weights that are no tag", "default_weights", value="finetuned"),
    in_row("no weights", "weights", value={}, field="default_weights"),
    in_row("tag with a blank", "weights", "open mmlab", value=copy.deepcopy(RAW["models"][0]["weights"]["openmmlab"])),
    in_row("tag in upper case", "weights", "OpenMMLab", value=copy.deepcopy(RAW["models"][0]["weights"]["openmmlab"])),
    in_weights("unknown field", "sha256", value=SHA256),
    in_weights("missing licence", "license", value=DELETE),
    in_weights("empty licence", "license", value=" "),
    in_weights("http checkpoint", "origin", "url", value="http://example.com/x-bd6371c8.pth"),
    in_weights("short hash prefix", "origin", "sha256_prefix", value="bd6371c"),
    in_weights("upper-case hash prefix", "origin", "sha256_prefix", value="BD6371C8"),
    in_weights("origin of two kinds", "origin", "run", value="runs/1"),
    in_weights("origin null", "origin", value=None),
    in_weights("origin without a field", "origin", "sha256_prefix", value=DELETE),
    in_weights("a publisher without numbers", "origin", value=PAGE, field=f"{SETS}.published"),
    in_weights("100.5%", "published", value=[OWN | {"top1": "100.5"}], field=f"{SETS}.published.0.top1"),
    in_weights("a size twice", "published", value=[OWN, OWN], field=f"{SETS}.published.1.preprocess"),
    in_witness("without a source", "source", value=DELETE),
    in_witness("of nobody", "source", value=" "),
    in_witness("of no bytes", "size_bytes", value=0),
    in_witness("for 8 digits", value=SEEN | {"sha256_prefix": SHA256[:8]}, field="sha256_prefix"),
    in_weights("run without its recipe", "origin", value={"run": "runs/1"}, field="weights.openmmlab.origin.recipe"),
    in_weights("file as text", "file", value="a.safetensors"),
    in_file("short hash", sha256="0" * 63),
    in_file("upper-case hash", sha256="ABCDEF01" * 8),
    in_file("hash with a letter that is no digit", sha256="g" * 64),
    in_file("empty file", size_bytes=0),
    in_file("negative size", size_bytes=-1),
    in_file("size as text", size_bytes="1"),
    in_file("unknown file field", url="https://example.com"),
    *(
        in_file(f"path {path!r}", path=path)
        for path in ("", "../x", "a/../../x", "/etc/passwd", "a\\b", "C:/x", "a//b", "a/", "./a", "a/.", "..", "a\0b")
    ),
    in_measured("accuracy above 100", top1=100.1),
    in_measured("negative accuracy", top5=-0.1),
    in_measured("accuracy as text", top1="94.8"),
    in_measured("accuracy as a bool", top1=True),
    in_measured("no images", num_images=0),
    in_measured("versions as text", versions="torch 2.6"),
    in_measured("version as a number", versions={"torch": 2.6}, where="versions.torch"),
]

every_mutation = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.fact)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[object], Path]:
    """Return a function that writes a manifest, as text or as JSON."""

    def write(content: object) -> Path:
        path = tmp_path / "manifest.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_an_unchanged_copy_is_accepted(written: Callable[[object], Path]) -> None:
    assert read_manifest(written(RAW)) == current_manifest()


@every_mutation
def test_a_wrong_manifest_is_refused_with_row_and_field(mutation: Mutation, written: Callable[[object], Path]) -> None:
    path = written(mutation.apply())
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    error = caught.value
    assert (error.path, error.row, error.field) == (str(path), mutation.row, mutation.field)
    assert error.why
    assert all(fact in str(error) for fact in (str(path), mutation.row, mutation.field, error.why))


ADDITIONS = [
    Mutation("file", ("models", 0, "weights", "openmmlab", "file"), FILE),
    Mutation("measurement", ("models", 0, "weights", "openmmlab", "measured"), MEASURED),
    Mutation("all right", ("models", 0, "weights", "openmmlab", "measured"), MEASURED | {"top5": 100.0}),
    Mutation("run", ("models", 0, "weights", "openmmlab", "origin"), {"recipe": "cifar10", "run": "runs/1"}),
    Mutation("https base", ("base_urls", 0), "https://example.com/weights"),
    Mutation("Hugging Face base", ("base_urls", 0), "hf://owner/repo@v1.0"),
    Mutation("folder", ("base_urls", 0), "weights/v1"),
    Mutation("hidden folder", ("base_urls", 0), ".weights/..v1"),
    Mutation("alias", ("models", 0, "aliases"), ["_resnet18"]),
    Mutation("letters beyond ASCII", ("models", 0, "aliases"), ["réseau18"]),
    Mutation("crop of the whole image", ("preprocess", "in1k_cv2", "crop"), 256),
    Mutation("whole numbers for numbers", ("preprocess", "in1k_cv2", "mean"), [1, 2, 3]),
]


@pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.fact)
def test_what_a_manifest_may_say_is_accepted(addition: Mutation, written: Callable[[object], Path]) -> None:
    changed = addition.apply()
    assert changed != RAW
    read_manifest(written(changed))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not valid JSON"),
        (TEXT[: len(TEXT) // 2], "not valid JSON"),
        (TEXT + "x", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (TEXT.replace('"base_urls": [', '"base_urls": [], "base_urls": [', 1), "'base_urls' is given twice"),
        (TEXT.replace('"stem": "cifar",', '"stem": "cifar", "stem": "deep",', 1), "'stem' is given twice"),
        ("[]", "expected an object"),
        ("null", "expected an object"),
        ('"manifest"', "expected an object"),
    ],
    ids=["empty", "truncated", "trailing", "deep", "key twice", "key twice in a row", "list", "null", "text"],
)
def test_a_text_that_is_no_manifest_is_refused(text: str, why: str, written: Callable[[object], Path]) -> None:
    path = written(text)
    with pytest.raises(ManifestError, match=why) as caught:
        read_manifest(path)
    assert caught.value.path == str(path)


def test_bytes_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(ManifestError, match="not valid JSON"):
        read_manifest(path)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ['"num_classes": 10', '"mean": [125.307', '"params": 11173962'])
def test_a_number_that_json_does_not_have_is_refused(
    constant: str, field: str, written: Callable[[object], Path]
) -> None:
    assert field in TEXT
    changed = field.rstrip("0123456789.") + constant
    with pytest.raises(ManifestError):
        read_manifest(written(TEXT.replace(field, changed, 1)))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing.json", "No such file"),
        ("", "Is a directory"),
        ("pipe", "Not a regular file"),
        ("loop", "symbolic links"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_manifest_error(tmp_path: Path, name: str, why: str) -> None:
    if name in ("pipe", "loop"):
        make_odd(tmp_path / name)
    with pytest.raises(ManifestError, match=why) as caught:
        read_manifest(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_manifest_of_too_many_rows_or_classes_is_refused(tmp_path: Path) -> None:
    content = json.loads(manifest_path().read_text(encoding="utf-8"))
    row = content["models"][0]
    many = [{**row, "name": f"row{number}", "aliases": []} for number in range(1001)]
    for models, said in (
        (many, "1 to 1000 models, got 1001"),
        ([{**row, "num_classes": 10**12}], "up to 1000000, got 1000000000000"),
        ([{**row, "input_size": [3, 8192, 8192]}], "of up to 2048"),
    ):
        with pytest.raises(ManifestError, match=said):
            parse_manifest(tmp_path / "zoo.json", {**content, "models": models})
    assert len(parse_manifest(tmp_path / "zoo.json", {**content, "models": many[:1000]}).models) == 1000
