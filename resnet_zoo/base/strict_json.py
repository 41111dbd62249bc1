"""Strict decoding of parsed JSON into dataclasses: no unknown field, no missing field, no wrong type, no default."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Place = tuple[str | int, ...]
"""The keys and indices that lead to a value."""


class WrongValueError(Exception):
    """A value that breaks a rule. The reader turns it into an error that names its file."""

    def __init__(self, where: Place, why: str) -> None:
        super().__init__(where, why)
        self.where, self.why = where, why

    def __str__(self) -> str:
        return ": ".join(filter(None, (".".join(map(str, self.where)), self.why)))


MAX_DEPTH = 64
"""How deep JSON may be nested: whatever walks through it later calls itself, and Python ends that at about 1,000."""

MAX_DIGITS = 40
"""Digits of the longest whole number; the largest of 64 bits has 20."""


def parse(text: str | bytes) -> Any:
    """Parse JSON that may come from anywhere: no key twice, no NaN or infinity, bounded in depth and digits.

    Raises:
        ValueError: It is not such JSON. The sentence says what is wrong.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=object_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except RecursionError:
        raise ValueError(f"expected at most {MAX_DEPTH} levels, got many more") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent) if isinstance(child, (dict, list))]
        if not level:
            return value
    raise ValueError(f"expected at most {MAX_DEPTH} levels, got more")


def _children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"expected a finite number, got {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {text[:MAX_DIGITS]}")
    return value


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"expected a whole number of at most {MAX_DIGITS} digits, got {len(text)}")
    return int(text)


def object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key given twice, of which JSON readers silently keep the last; for ``object_pairs_hook``."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {short(key)} is given twice")
    return found


def decode(kind: Any, value: Any, where: Place) -> Any:
    """Build a value of type ``kind`` (dataclass, union, literal, tuple, dict, a plain type, Any) from parsed JSON.

    Raises:
        WrongValueError: A value is not of its type.
    """
    if kind in _PLAIN:  # first, for logs are long and mostly numbers
        return _decode_plain(kind, value, where)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_record(kind, value, where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(arguments, value, where)
    if origin is Literal:
        if value not in arguments:
            raise WrongValueError(where, f"expected one of {', '.join(map(str, arguments))}, got {short(value)}")
        return value
    if origin is tuple:
        expect(isinstance(value, list), "a list", value, where)
        return tuple(decode(arguments[0], item, (*where, index)) for index, item in enumerate(value))
    expect(isinstance(value, dict), "an object", value, where)
    return {key: decode(arguments[1], item, (*where, key)) for key, item in value.items()}


_PLAIN = {float: "a number", int: "an integer", str: "a string", bool: "true or false"}


def _decode_plain(kind: type, value: Any, where: Place) -> Any:
    is_right = type(value) is kind if kind in (str, bool) else _is_integer(value)
    expect(is_right or (kind is float and isinstance(value, float)), _PLAIN[kind], value, where)
    return kind(value)


def _is_integer(value: Any) -> bool:
    """Tell whether a value is an integer, of at most 64 bits: no count is larger, and floats overflow at 1,024."""
    return type(value) is int and value.bit_length() <= 64


def _decode_record(kind: type, value: Any, where: Place) -> Any:
    expect(isinstance(value, dict), "an object", value, where)
    hints = _hints(kind)
    for key in value:
        if key not in hints:
            raise WrongValueError((*where, key), f"unknown field; expected {', '.join(hints)}")
    for key in hints:
        if key not in value:
            raise WrongValueError((*where, key), "missing field")
    return kind(**{key: decode(hint, value[key], (*where, key)) for key, hint in hints.items()})


def _decode_union(kinds: tuple[Any, ...], value: Any, where: Place) -> Any:
    """Decode ``X | None``, or a union of records, which are told apart by their fields."""
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) > 1:
        expect(isinstance(value, dict), "an object", value, where)
        kinds = tuple(sorted(kinds, key=lambda kind: -len(_hints(kind).keys() & value.keys())))
    return decode(kinds[0], value, where)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def expect(fact: bool, expected: str, value: Any, where: Place) -> None:
    """Raise unless the fact holds.

    Raises:
        WrongValueError: Names what was expected and what was found.
    """
    if not fact:
        raise WrongValueError(where, f"expected {expected}, got {short(value)}")


_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Tell whether a text is a whole sha256: 64 lower-case hex digits."""
    return bool(_SHA256.fullmatch(text))


def expect_sha256(digest: str, where: Place) -> None:
    """Raise unless a text is a whole sha256.

    Raises:
        WrongValueError: It is not 64 lower-case hex digits.
    """
    expect(is_sha256(digest), "64 hex digits", digest, where)


def short(value: Any) -> str:
    """Return a value as errors show it, at most 60 characters of it."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number too long to print, or lists too deep
        text = type(value).__name__
    return text if len(text) <= 60 else text[:60] + "…"
