"""Strict decoding: every type, and everything that is almost of that type."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from resnet_zoo.base.strict_json import (
    Place,
    WrongValueError,
    decode,
    expect,
    expect_sha256,
    object_without_duplicates,
    parse,
)


@dataclass(frozen=True)
class Point:
    x: int
    y: float


@dataclass(frozen=True)
class Name:
    first: str
    last: str | None


@dataclass(frozen=True)
class Box:
    corners: tuple[Point, ...]
    colour: Literal["red", "green"] | None
    tags: dict[str, str]
    owner: Point | Name


BOX: dict[str, Any] = {
    "corners": [{"x": 1, "y": 2.5}, {"x": 3, "y": 4}],
    "colour": "red",
    "tags": {"a": "b"},
    "owner": {"first": "Ada", "last": None},
}


def test_a_record_is_built_with_everything_in_it() -> None:
    box = decode(Box, BOX, ())
    assert box == Box((Point(1, 2.5), Point(3, 4.0)), "red", {"a": "b"}, Name("Ada", None))


def test_a_whole_number_is_a_number() -> None:
    value = decode(float, 4, ())
    assert value == 4.0
    assert type(value) is float


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, True, "an integer"),
        (int, 1.0, "an integer"),
        (int, "1", "an integer"),
        (int, None, "an integer"),
        (float, False, "a number"),
        (float, "1.5", "a number"),
        (bool, 1, "true or false"),
        (bool, None, "true or false"),
        (str, 5, "a string"),
        (str, None, "a string"),
        (tuple[int, ...], "123", "a list"),
        (tuple[int, ...], {"0": 1}, "a list"),
        (dict[str, str], [], "an object"),
        (Point, [1, 2], "an object"),
        (Point, None, "an object"),
        (Point | Name, "Ada", "an object"),
        (Literal["a", "b"], "c", "one of a, b"),
        (Literal["a", "b"], None, "one of a, b"),
    ],
)
def test_a_value_of_another_type_is_refused(kind: Any, value: object, expected: str) -> None:
    with pytest.raises(WrongValueError, match=f"expected {expected}, got") as caught:
        decode(kind, value, ("here", 0))
    assert caught.value.where == ("here", 0)
    assert repr(value) in caught.value.why


def test_null_is_taken_only_where_it_is_allowed() -> None:
    assert decode(Name, {"first": "Ada", "last": None}, ()).last is None
    with pytest.raises(WrongValueError):
        decode(Name, {"first": None, "last": None}, ())


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"corners": [{"x": 1, "y": 2}, {"x": 1, "y": "2"}]}, ("box", "corners", 1, "y")),
        ({"colour": "blue"}, ("box", "colour")),
        ({"tags": {"a": 1}}, ("box", "tags", "a")),
        ({"owner": {"first": 1, "last": None}}, ("box", "owner", "first")),
    ],
)
def test_the_place_leads_to_the_value(change: dict[str, Any], where: Place) -> None:
    with pytest.raises(WrongValueError) as caught:
        decode(Box, BOX | change, ("box",))
    assert caught.value.where == where


def test_an_unknown_field_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(WrongValueError, match="unknown field; expected x, y") as caught:
        decode(Point, {"x": 1, "y": 2, "z": 3}, ())
    assert caught.value.where == ("z",)


def test_a_missing_field_is_refused() -> None:
    with pytest.raises(WrongValueError, match="missing field") as caught:
        decode(Point, {"x": 1}, ())
    assert caught.value.where == ("y",)


def test_a_union_of_records_is_decided_by_the_fields() -> None:
    assert decode(Point | Name, {"x": 1, "y": 2}, ()) == Point(1, 2.0)
    assert decode(Point | Name, {"first": "Ada", "last": "L"}, ()) == Name("Ada", "L")


def test_a_mixture_of_two_records_is_refused() -> None:
    with pytest.raises(WrongValueError, match="unknown field"):
        decode(Point | Name, {"x": 1, "y": 2, "first": "Ada"}, ())


def test_a_key_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' is given twice"):
        json.loads('{"b": {"a": 1, "a": 1}}', object_pairs_hook=object_without_duplicates)


def test_the_same_key_in_two_objects_is_fine() -> None:
    text = '{"a": {"a": 1}, "b": {"a": 2}}'
    assert json.loads(text, object_pairs_hook=object_without_duplicates) == json.loads(text)


def test_many_keys_are_checked_in_one_pass() -> None:
    pairs = [(f"key {number}", number) for number in range(400_000)]
    start = time.process_time()
    assert len(object_without_duplicates(pairs)) == len(pairs)
    with pytest.raises(ValueError, match="'key 7' is given twice"):
        object_without_duplicates([*pairs, ("key 7", 0)])
    assert time.process_time() - start < 10


@pytest.mark.parametrize("text", ["[" * 64 + "]" * 64, '{"a":' * 63 + "[1]" + "}" * 63, "9" * 40, "1e308", "[]", "3"])
def test_json_within_the_bounds_is_parsed(text: str) -> None:
    assert parse(text) == json.loads(text) == parse(text.encode())


BEYOND: dict[str, tuple[str | bytes, str]] = {
    "a level too many": ("[" * 65 + "]" * 65, "at most 64 levels"),
    "objects": ('{"a":' * 900 + "1" + "}" * 900, "at most 64 levels"),
    "levels without end": ("[" * 100_000, "at most 64 levels"),
    "a digit too many": ("9" * 41, "at most 40 digits, got 41"),
    "digits without end": ("-" + "9" * 5000, "at most 40 digits"),
    "NaN": ("[NaN]", "a finite number, got NaN"),
    "infinity": ("-Infinity", "a finite number, got -Infinity"),
    "too large": ("1e999", "a finite number, got 1e999"),
    "a key twice": ('{"a": 1, "a": 1}', "'a' is given twice"),
    "a long key twice": (f'{{"{"a" * 9999}": 1, "{"a" * 9999}": 1}}', "is given twice"),
    "half of an object": ("{", "Expecting property name"),
    "no text": (b"\xff\xfe\xfa", "codec can't decode"),
}


@pytest.mark.parametrize("kind", BEYOND)
def test_json_beyond_them_is_a_sentence(kind: str) -> None:
    text, why = BEYOND[kind]
    with pytest.raises(ValueError, match=why) as caught:
        parse(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [1 << 64, -(1 << 64), 10**5000], ids=["65 bits", "negative", "long"])
def test_an_integer_of_more_than_64_bits_is_none_and_no_number_either(value: int) -> None:
    for kind in (int, float):
        with pytest.raises(WrongValueError, match="expected a"):
            decode(kind, value, ())
        assert decode(kind, (1 << 64) - 1, ()) == kind((1 << 64) - 1)


def test_what_is_shown_of_a_wrong_value_is_short() -> None:
    with pytest.raises(WrongValueError) as caught:
        decode(int, "a" * 1_000_000, ())
    assert len(caught.value.why) < 100


def test_expect_is_silent_when_the_fact_holds() -> None:
    expect(True, "anything", None, ())
    with pytest.raises(WrongValueError, match="expected anything, got None"):
        expect(False, "anything", None, ())


@pytest.mark.parametrize("value", [None, 1, True, [1, {"a": 2}], {"b": None}])
def test_where_anything_is_allowed_it_is_left_as_it_is(value: object) -> None:
    assert decode(dict[str, Any], {"key": value}, ()) == {"key": value}


def test_a_truth_is_taken() -> None:
    assert decode(bool, True, ()) is True


@pytest.mark.parametrize("digest", ["", "ab", "AB" * 32, "ab" * 33, "ab" * 32 + "\n", "xy" * 32])
def test_a_digest_that_is_no_whole_sha256_is_refused(digest: str) -> None:
    expect_sha256("ab" * 32, ())
    with pytest.raises(WrongValueError, match="expected 64 hex digits"):
        expect_sha256(digest, ("sha256",))
