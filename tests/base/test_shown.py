"""Text of others: printable, short, and without the secrets of addresses."""

from __future__ import annotations

import time

import pytest

from resnet_zoo.base.shown import LONGEST_NAME, printable, shown, shown_address


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://alice:secret@host:8443/zoo/a.safetensors?token=secret#secret", "https://host:8443/zoo/a.safetensors"),
        ("HTTPS://token@Host/a", "https://Host/a"),
        ("s3://key:secret@bucket/a", "s3://bucket/a"),
        ("https://alice:se/cret@host/a", "https://…"),
        ("https://[secret", "https://…"),
        ("http://host/a%20b", "http://host/a%20b"),
        ("hf://owner/name@0123/model.safetensors", "hf://owner/name@0123/model.safetensors"),
        ("hf-hub:owner/name@main", "hf-hub:owner/name@main"),
        ("/home/me/a@b?c.safetensors", "/home/me/a@b?c.safetensors"),
        ("/mirror/a://b@c?d", "/mirror/a://b@c?d"),
        ("C:\\zoo\\a?b", "C:\\zoo\\a?b"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, expected: str) -> None:
    assert shown_address(address) == expected


def test_addresses_within_a_text_are_shown_without_their_secrets() -> None:
    text = "401 for url: https://cdn.test/x?sig=secret. Tried (http://a:secret@h/y), 'hf://owner/name@0123/z'."
    assert shown(text) == "401 for url: https://cdn.test/x. Tried (http://h/y), 'hf://owner/name@0123/z'."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\rc\t", "a\\nb\\rc\\t"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udcff\u2028", "\\udcff\\u2028"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str, expected: str) -> None:
    assert shown(text) == printable(text) == expected
    assert shown(text).isprintable()


@pytest.mark.parametrize(
    "text", ["Grüße, 漢字, שלום", "3.45\u202fPM", "\u3000", "می\u200cخواهم", "👩\u200d🔬", "a\\b", ""]
)
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert shown(text) == text


def test_line_ends_stay_where_they_are_kept() -> None:
    assert shown("a\n\x1bb", keep="\n") == "a\n\\x1bb"


def test_a_long_text_loses_its_middle() -> None:
    text = shown("begin" + 10**6 * "x" + "end")
    assert len(text) < 2 * LONGEST_NAME
    assert text.startswith("beginx")
    assert text.endswith("xend")
    assert "(999808 more characters)" in text
    assert shown(LONGEST_NAME * "x") == LONGEST_NAME * "x"
    assert shown(7 * "x", 6) == "xxx… (1 more characters) …xxx"


@pytest.mark.parametrize("text", ["a", "\x1b", "a://", "http://.", "a.b", "'", "."])
def test_a_megabyte_takes_no_time(text: str) -> None:
    start = time.monotonic()
    shown(text * (10**6 // len(text)))
    assert time.monotonic() - start < 2
