"""The reader of safetensors files, held against the library's."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import Tensor

from resnet_zoo.errors import CheckpointError
from resnet_zoo.weights.safetensors_files import parse_safetensors, read_hashed, read_safetensors

PATH = Path("a.safetensors")
TENSORS = {
    "flag": torch.tensor([True, False, True]),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "small": torch.tensor([-1], dtype=torch.int8),
    "i16": torch.tensor([[-2], [3]], dtype=torch.int16),
    "i32": torch.tensor(7, dtype=torch.int32),
    "i64": torch.tensor(1 << 40),
    "half": torch.linspace(-1, 1, 6).half().reshape(2, 3),
    "bfloat": torch.linspace(-1, 1, 3).bfloat16(),
    "float": torch.linspace(-1, 1, 24).reshape(2, 3, 4),
    "complex": torch.ones(2, dtype=torch.complex64),
    "eight": torch.linspace(-1, 1, 3).to(torch.float8_e4m3fn),
    "double": torch.linspace(-1, 1, 3, dtype=torch.float64),
    "empty": torch.empty(0, 3),
}


def parsed(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    return parse_safetensors(torch.frombuffer(bytearray(data) or bytearray(1), dtype=torch.uint8)[: len(data)], PATH)


def with_header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_every_type_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(TENSORS, path, {"format": "pt", "ü": "ö"})
    tensors, texts = read_safetensors(path)
    expected = safetensors.torch.load_file(path)
    assert texts == {"format": "pt", "ü": "ö"}
    assert tensors.keys() == expected.keys() == TENSORS.keys()
    for key, tensor in tensors.items():
        assert (tensor.dtype, tensor.shape) == (expected[key].dtype, expected[key].shape)
        assert _same(tensor, expected[key])
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()  # a storage of its own


@pytest.mark.parametrize("size", [0, 1, (1 << 22) - 1, 1 << 22, (9 << 20) + 1])
def test_the_hash_is_of_the_bytes_returned(size: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    path.write_bytes(content)
    data, sha256 = read_hashed(path)
    assert data.numpy().tobytes() == content
    assert sha256 == hashlib.sha256(content).hexdigest()


def item(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: object) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


WRONG = {
    "no bytes": b"",
    "seven bytes": b"\2" + bytes(6),
    "a header longer than the file": b"\x09" + bytes(7) + b"{}",
    "a header of 2^64 bytes": b"\xff" * 8 + b"{}",
    "no JSON": with_header(b"{"),
    "no UTF-8": with_header(b'{"\xff": 1}'),
    "a list": with_header([]),
    "no object": with_header({"a": 1}),
    "a missing field": with_header({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "a type that does not exist": with_header({"a": item("F31")}, bytes(4)),
    "a type that is a list": with_header({"a": item(dtype=[])}, bytes(4)),  # type: ignore[arg-type]
    "a shape of text": with_header({"a": item(shape="1")}, bytes(4)),
    "a shape of fractions": with_header({"a": item(shape=[1.0])}, bytes(4)),
    "a negative shape": with_header({"a": item(shape=[-1])}, bytes(4)),
    "two negative numbers": with_header({"a": item(shape=[-1, -1])}, bytes(4)),
    "another shape": with_header({"a": item(shape=[2])}, bytes(4)),
    "a shape whose product overflows": with_header({"a": item(shape=[1 << 32, 1 << 32, 0], offsets=(0, 0))}),
    "a shape of 2^62": with_header({"a": item(shape=[1 << 62])}, bytes(4)),
    "one offset": with_header({"a": item(offsets=[4])}, bytes(4)),
    "three offsets": with_header({"a": item(offsets=[0, 4, 4])}, bytes(4)),
    "offsets backwards": with_header({"a": item(offsets=[4, 0])}, bytes(4)),
    "negative offsets": with_header({"a": item(offsets=[-4, 0])}, bytes(4)),
    "offsets beyond the end": with_header({"a": item(offsets=[4, 8])}, bytes(4)),
    "a gap": with_header({"a": item(), "b": item(offsets=[8, 12])}, bytes(12)),
    "an overlap": with_header({"a": item(), "b": item(offsets=[2, 6])}, bytes(6)),
    "the same bytes twice": with_header({"a": item(), "b": item()}, bytes(4)),
    "too few bytes": with_header({"a": item()}, bytes(3)),
    "too many bytes": with_header({"a": item()}, bytes(5)),
    "numbers as metadata": with_header({"__metadata__": {"a": 1}}),
    "metadata that are a text": with_header({"__metadata__": "a"}),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_the_library_refuses_is_refused(kind: str) -> None:
    with pytest.raises(CheckpointError, match="not valid safetensors") as caught:
        parsed(WRONG[kind])
    assert len(str(caught.value)) < 400
    with pytest.raises((SafetensorError, TypeError, ValueError, KeyError, RuntimeError)):
        safetensors.torch.load(WRONG[kind])


def test_headers_that_the_library_reads_are_refused_where_they_are_not_ours() -> None:
    twice = b'{"a":%(a)s,"a":%(a)s}' % {b"a": json.dumps(item()).encode()}
    for wrong in (with_header({"a": item(more=1)}, bytes(4)), with_header(twice, bytes(4))):
        safetensors.torch.load(wrong)
        with pytest.raises(CheckpointError, match="not valid safetensors"):
            parsed(wrong)


def test_a_million_dimensions_take_no_time() -> None:
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="a shape of up to 64 numbers"):
        parsed(with_header({"a": item(shape=[(1 << 62) + 1] * 1_000_000)}, bytes(4)))
    assert time.monotonic() - start < 10


GOOD = safetensors.torch.save(TENSORS, {"format": "pt"})


@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes_are_read_as_the_library_reads_them_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for place, value in changes:
        data[place] = value
    try:
        tensors, _ = parsed(bytes(data))
    except CheckpointError:
        return  # stricter than the library is fine, laxer is not
    expected = safetensors.torch.load(bytes(data))
    assert tensors.keys() == expected.keys()
    assert all(_same(tensor, expected[key]) for key, tensor in tensors.items())


def _same(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have equal bytes; values that are not numbers differ from themselves."""
    alike = (one.dtype, one.shape) == (other.dtype, other.shape)
    return alike and torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
