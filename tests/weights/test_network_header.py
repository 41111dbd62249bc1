from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import CheckpointError
from resnet_zoo.weights.network_header import MAX_TEXT, NetworkHeader
from tests.conftest import NAMES

ENTRY = get_entry("resnet50")
HEADER = NetworkHeader("resnet50_in1k", ("cat", "dog", "Überraschung"), ENTRY.preprocess, (3, 224, 224))


def changed(**fields: Any) -> dict[str, str]:
    """Return the header's texts with some of them replaced, by JSON where they are no strings."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}
    return HEADER.as_text() | texts


def rules(**fields: Any) -> dict[str, str]:
    return changed(preprocess=dataclasses.asdict(ENTRY.preprocess) | fields)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_written_is_read_back(name: str) -> None:
    entry = get_entry(name)
    header = NetworkHeader(name, ("a", "b"), entry.preprocess, entry.input_size)
    found = NetworkHeader.read(header.as_text(), "x")
    assert found == header
    assert found.entry == dataclasses.replace(entry, num_classes=2)


def test_the_texts_are_these() -> None:
    texts = HEADER.as_text()
    assert set(texts) == {"format", "model", "num_classes", "class_names", "preprocess", "input_size"}
    assert (texts["format"], texts["model"], texts["num_classes"]) == ("pt", "resnet50_in1k", "3")
    assert json.loads(texts["class_names"]) == ["cat", "dog", "Überraschung"]
    assert json.loads(texts["input_size"]) == [3, 224, 224]


def test_more_texts_than_these_do_no_harm() -> None:
    assert NetworkHeader.read(changed(recipe="anything"), "x") == HEADER


@pytest.mark.parametrize(
    ("texts", "fact"),
    [
        ({}, "does not say which network"),
        ({"format": "pt", "model": "resnet50_in1k"}, r"resnet50_in1k --weights tuned.safetensors"),
        ({"model": "x\x1b[31m" * 9}, r"\(NAME --weights"),
    ],
)
def test_a_file_that_does_not_say_what_it_is_gets_told_what_to_do(texts: Mapping[str, str], fact: str) -> None:
    with pytest.raises(CheckpointError, match=fact):
        NetworkHeader.read(texts, "tuned.safetensors")


HOSTILE = {
    "no JSON": (changed(class_names="['a'"), "class_names: expected JSON"),
    "nested without end": (changed(class_names="[" * 100_000), "class_names: expected JSON"),
    "huge": (changed(class_names='["' + "a" * MAX_TEXT + '"]'), "class_names: expected at most"),
    "another type": (changed(class_names={"0": "a"}), "class_names: expected a list"),
    "a text as the list": (changed(class_names='"abc"'), "class_names: expected a list"),
    "numbers for names": (changed(class_names=["a", 1, "c"]), "class_names.1: expected a printable name"),
    "an empty name": (changed(class_names=["a", "", "c"]), "class_names.1: expected a printable name"),
    "terminal codes": (changed(class_names=["a", "\x1b[2J", "c"]), "class_names.1: expected a printable name"),
    "a line break": (changed(class_names=["a", "b", "c\nd"]), "class_names.2: expected a printable name"),
    "too few names": (changed(class_names=["a"]), "expected 3 names, one per class, got 1"),
    "negative classes": (changed(num_classes="-3"), "num_classes: expected a positive integer"),
    "no classes": (changed(num_classes="0", class_names=[]), "num_classes: expected a positive integer"),
    "digits without end": (changed(num_classes="9" * 10_000), "num_classes: expected a positive integer"),
    "foreign digits": (changed(num_classes="٣"), "num_classes: expected a positive integer"),
    "an unknown row": (changed(model="resnet51"), "a model that this zoo does not have"),
    "a path as the row": (changed(model="../../etc/passwd"), "a model that this zoo does not have"),
    "an unknown rule": (rules(shell="rm"), "preprocess.shell: unknown field"),
    "another backend": (rules(resize_backend="gd"), "preprocess.resize_backend: expected one of"),
    "a crop of another size": (rules(crop=100), "preprocess: expected a resize_backend"),
    "a crop larger than the image": (rules(short_edge=100), "preprocess: expected a resize_backend"),
    "a resize without end": (rules(short_edge=10**9), "preprocess: expected a resize_backend"),
    "half of the rules": (rules(crop=None), "preprocess: expected a resize_backend"),
    "a zero deviation": (rules(std=[1, 0, 1]), "preprocess.std: expected three numbers of 1e-06 to 1e+06"),
    "two channels": (rules(mean=[1, 2]), "preprocess.mean: expected three numbers of -1e+06 to 1e+06"),
    "not a number": (rules(mean=[1, 2, float("nan")]), "expected a finite number, got NaN"),
    "no finite number": (rules(std=[1, 2, float("inf")]), "expected a finite number, got Infinity"),
    "infinite in float32": (rules(mean=[1, 2, 1e308]), "preprocess.mean: expected three numbers of -1e+06 to 1e+06"),
    "nothing in float32": (rules(std=[1, 2, 1e-320]), "preprocess.std: expected three numbers of 1e-06 to 1e+06"),
    "too large a number": (rules(mean=[1, 2, 10**400]), "expected a whole number of at most 40 digits, got 401"),
    "a large number": (rules(mean=[1, 2, 10**30]), "preprocess.mean.2: expected a number"),
    "a flat input": (changed(input_size=[3, 224]), "input_size: expected channels, height and width"),
    "an input without end": (changed(input_size=[3, 10**9, 10**9]), "input_size: expected channels"),
    "a large input": (changed(input_size=[3, 2049, 2049]), "of 1 to 2048"),
    "negative channels": (changed(input_size=[-3, 224, 224]), "input_size: expected channels"),
    "a fraction": (changed(input_size=[3, 224.0, 224]), "input_size.1: expected an integer"),
    "a key twice": (changed(preprocess='{"crop": 1, "crop": 2}'), "preprocess: expected JSON"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_header_is_one_sentence(kind: str) -> None:
    texts, fact = HOSTILE[kind]
    with pytest.raises(CheckpointError) as caught:
        NetworkHeader.read(texts, "x.safetensors")
    message = str(caught.value)
    assert message.startswith("x.safetensors cannot be read as a checkpoint: ")
    assert fact in message
    assert len(message) < 600
    assert message.isprintable()


def test_unusual_means_and_deviations_are_taken() -> None:
    read = NetworkHeader.read(rules(mean=[-127.5, 0, 65535], std=[1e-3, 1, 65535]), "x.safetensors")
    assert read.preprocess.mean == (-127.5, 0, 65535)


@pytest.mark.parametrize("field", ["format", "model", "num_classes", "class_names", "preprocess", "input_size"])
def test_every_field_is_needed(field: str) -> None:
    texts = HEADER.as_text()
    del texts[field]
    with pytest.raises(CheckpointError, match=f"{field}: missing field"):
        NetworkHeader.read(texts, "x")
