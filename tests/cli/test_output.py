"""What goes to stdout: JSON that every reader takes, CSV that spreadsheets only show, tables without codes."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.cli.output import aligned, as_json, echo_cache, echo_json, echo_record, echo_table, new_table, readable
from resnet_zoo.cli.predictions import (
    echo_predictions,
    echo_predictions_as_csv,
    echo_predictions_as_lines,
    write_predictions,
)
from resnet_zoo.inference.prediction import ClassScore, Prediction
from resnet_zoo.weights.cache_contents import CachedFile

NAMES = ["plain.jpg", "Grüße.jpg", "漢字.jpg", "\x81\x9b31m.jpg", "\U0001f600.jpg", "\udcff.jpg", "a\nb\u2028.jpg"]


def prediction(image: str, name: str = "cat", probability: float = 0.5) -> Prediction:
    return Prediction(image, (ClassScore(3, name, probability),))


class Terminal(io.TextIOWrapper):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def written(
    action: Callable[[], None], monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8", kind: Any = io.TextIOWrapper
) -> bytes:
    """Return the bytes that an action writes to a stdout of this encoding."""
    stream = kind(io.BytesIO(), encoding=encoding, errors="backslashreplace", newline="\n")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        action()
        stream.flush()
    return bytes(stream.buffer.getvalue())


def no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1", "ascii", "cp437"])
@pytest.mark.parametrize("name", NAMES)
def test_json_is_json_whatever_the_encoding_of_stdout(
    name: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for action in (lambda: echo_json({"image": name}), lambda: echo_predictions_as_lines([prediction(name)])):
        data = written(action, monkeypatch, encoding)
        assert json.loads(data.decode())["image"] == name
        assert not any(byte in data for byte in (b"\x1b", "\x9b".encode(), b"\x81") if name.startswith("\x81"))


def test_json_on_utf_8_is_for_people_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Grüße".encode() in written(lambda: echo_json({"image": "Grüße.jpg"}), monkeypatch)
    assert b"Gr\\u00fc\\u00dfe" in written(lambda: echo_json({"image": "Grüße.jpg"}), monkeypatch, "latin-1")


def test_json_has_null_for_a_number_that_is_not_finite() -> None:
    value = {"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": -float("inf")}, "d": True}
    found = json.loads(as_json(value), parse_constant=no_constant)
    assert found == {"a": [None, [None, 1.5]], "b": {"c": None}, "d": True}
    with pytest.raises(ValueError, match="NaN is not JSON"):
        json.loads(json.dumps(value), parse_constant=no_constant)


def test_json_says_no_secrets_of_addresses() -> None:
    assert json.loads(as_json({"url": "https://a:secret@host/x?sig=secret"})) == {"url": "https://host/x"}


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\nb.jpg", 'a "b", c.jpg', "\r.jpg", "plain.jpg", " .jpg"])
def test_csv_is_read_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(lambda: echo_predictions_as_csv([prediction(f"x/{name}"), prediction("last")]), monkeypatch)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert [row[0] for row in rows] == ["image", f"x/{name}", "last"]
    assert {len(row) for row in rows} == {5}
    assert data.endswith(b"last,1,3,cat,0.5\n")


@pytest.mark.parametrize("name", ["a\rb.jpg", "a\nb.jpg", 'a "b", c.jpg', "\r.jpg", "=1+1.jpg"])
def test_a_csv_file_holds_the_bytes_of_a_pipe(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [prediction(name), prediction("last")]
    assert write_predictions(found, tmp_path / "a.csv", "csv") == 2
    assert (tmp_path / "a.csv").read_bytes() == written(lambda: echo_predictions_as_csv(found), monkeypatch)


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_holds_no_formula(begin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"{begin}1+1.jpg"
    data = written(lambda: echo_predictions_as_csv([prediction(text, text)]), monkeypatch)
    row = list(csv.reader(io.StringIO(data.decode(), newline="")))[1]
    assert (row[0], row[3]) == (f"./{text}", f"'{text}")


def test_csv_leaves_names_that_are_no_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(lambda: echo_predictions_as_csv([prediction("a=1.jpg", "'a-b'")]), monkeypatch)
    assert data.splitlines()[1] == b"a=1.jpg,1,3,'a-b',0.5"


def test_csv_is_exact_in_a_pipe_and_harmless_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def action() -> None:
        echo_predictions_as_csv([prediction("\x1b[31m.jpg")])

    assert b"\x1b[31m.jpg,1" in written(action, monkeypatch)
    assert b"\\x1b[31m.jpg,1" in written(action, monkeypatch, kind=Terminal)


def test_tables_hold_no_codes_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def action() -> None:
        echo_predictions([prediction("\x1b[31m[b].jpg", "\x9bcat")])
        echo_record({"licence\x1b": "\x1b]0;x\x07", "list": ["\x1b", 1], "large": 10**6 * "x"})

    data = written(action, monkeypatch)
    assert b"\\x1b[31m[b].jpg" in data
    assert b"\\x9bcat" in data
    assert not any(code in data for code in (b"\x1b", b"\x07", "\x9b".encode()))
    assert len(data) < 30_000


def plain(data: bytes) -> list[str]:
    """Return lines without the terminal's codes."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", data.decode()).split("\n")]


def make_table() -> Any:
    table = new_table("Model", "Data set", ">Params (M)", ">Top-1")
    table.add_row("resnet50_fp16_in1k", "ImageNet-1k", "25.56", "[green]76.30 ✓[/green]")
    table.add_row("resnet18_in1k", "ImageNet-1k", "21.8 ", "69.90 -")
    return table


@pytest.mark.parametrize(
    ("width", "headers"),
    [(80, "Model Data set Params (M) Top-1"), (50, "Model Params (M) Top-1"), (30, "Model Top-1")],
)
def test_a_narrow_terminal_goes_without_columns_and_no_word_is_broken(
    width: int, headers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    narrow = ("Data set", "Params (M)")
    lines = plain(written(lambda: echo_table(make_table(), narrow=narrow), monkeypatch, kind=Terminal))
    assert " ".join(lines[0].split()) == headers
    assert [line.split()[0] for line in lines[2:4]] == ["resnet50_fp16_in1k", "resnet18_in1k"]
    assert max(map(len, lines)) <= width


def test_a_terminal_that_is_too_narrow_for_a_table_gets_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    lines = plain(written(lambda: echo_table(make_table()), monkeypatch, kind=Terminal))
    assert lines[:5] == [
        "Model       resnet50_fp16_in1k",
        "Data set    ImageNet-1k",
        "Params (M)  25.56",
        "Top-1       76.30 ✓",
        "",
    ]


def test_a_pipe_gets_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    lines = plain(written(lambda: echo_table(make_table(), narrow=("Data set",)), monkeypatch))
    assert lines[0].split() == ["Model", "Data", "set", "Params", "(M)", "Top-1"]


def test_points_of_numbers_are_in_line() -> None:
    assert aligned(["11.17", "21.8", "80.858", "-", "7"]) == ["11.17 ", "21.8  ", "80.858", "-   ", "7   "]
    assert aligned([]) == []


def test_fields_become_words_and_units() -> None:
    fields = {"num_images": 3, "size_bytes": 44_730_000, "images_per_s": 8.5, "weights_key": None, "prefix": ""}
    assert readable(fields | {"is_fast": True}) == {
        "images": 3,
        "size": "44,730,000 bytes",
        "images/s": 8.5,
        "weights key": "-",
        "prefix": "-",
        "is fast": "yes",
    }


SHA256, ADDRESS = "0123456789abcdef" * 4, f"https://host/{'folder/' * 20}file.safetensors"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_hashes_and_addresses_of_a_record_stay_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    record = {"a key of some length": "words " * 40, "sha256": SHA256, "from": f"{ADDRESS} (sha256 {SHA256})", "no": ""}
    lines = written(lambda: echo_record(record), monkeypatch, kind=Terminal).decode().splitlines()
    words = [word for line in lines for word in line.split()]
    assert words.count(SHA256) == 1
    assert words.count(f"{SHA256})") == 1
    assert words.count(ADDRESS) == 1
    assert all(len(line) <= width or len(line.split()[0]) > width - 4 for line in lines)
    assert lines[0].startswith("a key of some length  words words")


def test_a_record_in_a_pipe_has_a_line_for_each_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = written(lambda: echo_record({"sha256": SHA256, "words": "word " * 40}), monkeypatch).decode().splitlines()
    assert lines == [f"sha256  {SHA256}", f"words   {('word ' * 40).strip()}"]


@pytest.mark.parametrize(("width", "first"), [(80, "Weights row/tag"), (200, "Weights Bytes")])
def test_a_hash_of_the_cache_is_whole(width: int, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    files = [CachedFile(SHA256, 44_730_000, "2026-11-26T12:00:00Z", ("row/tag",), "", "32-bit pin")] * 2
    text = written(lambda: echo_cache(files), monkeypatch, kind=Terminal).decode()
    assert " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split()).startswith(first)
    assert text.split().count(SHA256) == 2
