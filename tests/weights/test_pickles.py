"""Pickles as data: what honest files hold is read as torch reads it, and nothing that a pickle asks for is done."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime
import enum
import functools
import io
import os
import pathlib
import pickle
import random
import struct
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resnet_zoo.errors import CheckpointError, UnsafeCheckpointError, ZooError
from resnet_zoo.weights import pickles
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.torch_files import open_torch_file
from tests.conftest import slow

WEIGHTS = {"conv1.weight": torch.arange(12.0).reshape(3, 4), "fc.bias": torch.tensor([1.0, 2.0])}


def assert_weights(path: Path) -> None:
    found = load_checkpoint(path).tensors
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in WEIGHTS.items())


def save(content: object, path: Path, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


class Reduced:
    """An object with a pickle of its own choice: a call, a state, items of a list, items of a dict."""

    def __init__(self, *how: Any) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how


def with_pickle(data: bytes, path: Path) -> Path:
    """Write a file of torch.save with another pickle in it."""
    buffer = io.BytesIO()
    torch.save(WEIGHTS, buffer)
    with zipfile.ZipFile(buffer) as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            after.writestr(name, data if name.endswith("data.pkl") else before.read(name))
    return path


# --- as torch reads them --------------------------------------------------------------------------------------------


def assorted() -> dict[str, Tensor]:
    base = torch.arange(24.0)
    parameter = nn.Parameter(torch.ones(3))
    parameter.optim = "adam"  # type: ignore[attr-defined]
    return {
        "view": base[4:16].reshape(3, 4),
        "transposed": base.reshape(4, 6).T,
        "expanded": base[:2].unsqueeze(1).expand(2, 5),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.ones(2, 2)),
        "parameter with an attribute": parameter,
        "buffer": nn.Buffer(torch.ones(2)),
        **{str(dtype): torch.ones(5).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.bool)},
        **{str(dtype): torch.arange(5, dtype=dtype) for dtype in (torch.uint8, torch.int32, torch.int64, torch.int16)},
        "new type": torch.ones(4).to(torch.float8_e4m3fn),
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_tensors_are_those_that_were_saved(protocol: int, zipped: bool, tmp_path: Path) -> None:
    content = assorted()
    path = save(content, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with open_torch_file(path) as file:
        found = {key: file.tensor(plan) for key, plan in file.content.items()}
    assert found.keys() == content.keys()
    for key, tensor in content.items():
        assert (found[key].dtype, found[key].shape, found[key].stride()) == (
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
        )
        assert torch.equal(found[key].double(), tensor.detach().double()), key
        assert not found[key].requires_grad
    assert found["view"].untyped_storage().data_ptr() == found["transposed"].untyped_storage().data_ptr()
    if protocol == 2 and zipped:
        assert all(torch.equal(peer, found[key]) for key, peer in torch.load(path, weights_only=True).items())


def test_a_file_of_a_big_endian_machine_is_read(tmp_path: Path) -> None:
    source = save({"a": torch.tensor([1.0, 2.0])}, tmp_path / "a.pth")
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(tmp_path / "b.pth", "w") as after:
        for name in before.namelist():
            data = before.read(name)
            swapped = np.frombuffer(data, "<f4").astype(">f4").tobytes() if "/data/" in name else data
            after.writestr(name, b"big" if name.endswith("byteorder") else swapped)
    assert load_checkpoint(tmp_path / "b.pth").tensors["a"].tolist() == [1.0, 2.0]


# --- beside the weights ---------------------------------------------------------------------------------------------


class Mode(enum.Enum):
    FAST = 1


class Config(dict[str, Any]):
    """As easydict's, yacs' and addict's: a dict with attributes."""


class Unknown:
    def __init__(self) -> None:
        self.rate = 0.1


def config() -> Config:
    found = Config(lr=0.1)
    found.seed = 3  # type: ignore[attr-defined]
    return found


BESIDE: dict[str, Callable[[], object]] = {
    "Namespace": lambda: argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("/runs"), amp=None),
    "path": lambda: pathlib.Path("/runs/1"),
    "numpy scalars": lambda: {"best": np.float64(1.5), "n": np.int64(3), "all": np.arange(3), "ok": np.bool_(True)},
    "numpy generator": lambda: np.random.get_state(),
    "enum": lambda: Mode.FAST,
    "dict with attributes": config,
    "object": Unknown,
    "collections": lambda: [collections.defaultdict(list, a=[1]), collections.deque([1]), collections.Counter("aab")],
    "sets": lambda: [{1, 2}, frozenset({3}), {(1, (2,)): 3}],
    "bytes": lambda: [b"abc", bytearray(b"abc")],
    "dates": lambda: [datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc), datetime.timedelta(1)],
    "functions": lambda: [functools.partial(nn.BatchNorm2d, eps=1e-3), torch.nn.functional.relu, os.system],
    "classes": lambda: [int, nn.ReLU, subprocess.Popen],
    "torch": lambda: [torch.device("cpu"), torch.Size([1]), torch.float16, torch.get_rng_state()],
    "large numbers": lambda: [10**5000, 1 << 80, -(10**30)],
    "a list in itself": lambda: (itself := [], itself.append(itself), itself)[2],  # type: ignore[func-returns-value,var-annotated]
    "a scheduler": lambda: torch.optim.lr_scheduler.StepLR(
        torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), 3
    ).state_dict(),
    "a network": lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()),
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_lies_beside_the_weights_is_passed_over(kind: str, protocol: int, tmp_path: Path) -> None:
    content = {"args": BESIDE[kind](), "model": WEIGHTS}
    assert_weights(save(content, tmp_path / "a.pth", pickle_protocol=protocol))
    assert_weights(save(content, tmp_path / "b.pth", _use_new_zipfile_serialization=False))


def test_a_class_is_neither_imported_nor_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("module_that_is_gone")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Config, "__module__", module.__name__)
    module.Config = Config  # type: ignore[attr-defined]
    path = save({"model": WEIGHTS, "cfg": config()}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, module.__name__)
    before = set(sys.modules)
    assert_weights(path)
    assert module.__name__ not in set(sys.modules) - before


# --- what wants to act ----------------------------------------------------------------------------------------------

ACTS: dict[str, Callable[[], object]] = {
    "a process": lambda: Reduced(subprocess.Popen, (["touch", "x"],)),
    "a shell": lambda: Reduced(os.popen, ("touch x",)),
    "code": lambda: Reduced(exec, ("1",)),
    "an import": lambda: Reduced(__import__("importlib").import_module, ("antigravity",)),
    "a file": lambda: Reduced(pathlib.Path.home, ()),
    "another pickle": lambda: Reduced(pickle.loads, (b"N.",)),
    "torch.load": lambda: Reduced(torch.load, ("x.pth",)),
    "a function of numpy": lambda: Reduced(np.load, ("x.npy",)),
    "an unknown function": lambda: Reduced(save, ({}, "x.pth")),
}


@pytest.mark.parametrize("kind", ACTS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_call_that_could_act_is_refused_wherever_it_is(
    kind: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save({"model": WEIGHTS, "args": [ACTS[kind]()]}, tmp_path / "a.pth", pickle_protocol=protocol)
    with pytest.raises(UnsafeCheckpointError, match="Nothing in it was run"):
        load_checkpoint(path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.pth"]


BY_HAND = {
    "a process made as an object": (b"\x80\x02csubprocess\nPopen\n)\x81.", "subprocess.Popen"),
    "the result of a call": (b"\x80\x02cbuiltins\ngetattr\n]X\x06\0\0\0append\x86RK\x01\x85R.", "that it computes"),
    "a persistent function": (b"\x80\x02X\x06\0\0\0modulecos\nsystem\nX\0\0\0\0\x87QX\x01\0\0\0x\x85R.", "os.system"),
}


@pytest.mark.parametrize("kind", BY_HAND)
def test_a_call_that_pickle_would_not_write_is_refused_too(kind: str, tmp_path: Path) -> None:
    data, wanted = BY_HAND[kind]
    with pytest.raises(UnsafeCheckpointError, match=wanted):
        load_checkpoint(with_pickle(data, tmp_path / "a.pth"))


# --- hostile bytes --------------------------------------------------------------------------------------------------

DEEP = 200_000  # enough to end a process that hashes it
LONG = (1 << 40_000).to_bytes(5001, "little")

HOSTILE: dict[str, bytes] = {
    "a tuple 200,000 deep as a key": b"\x80\x02}(" + b")" + b"\x85" * DEEP + b"K\x01u.",
    "a list 200,000 deep": b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "a tuple 200,000 deep in a set": b"\x80\x04\x8f(" + b")" + b"\x85" * DEEP + b"\x90.",
    "a tuple 200,000 deep in a frozenset": b"\x80\x04(" + b")" + b"\x85" * DEEP + b"\x91.",
    "a tuple 200,000 deep as a storage": b"\x80\x02)" + b"\x85" * DEEP + b"Q.",
    "a number of 12,000 digits as a key": b"\x80\x02}(\x8b" + struct.pack("<i", len(LONG)) + LONG + b"K\x01u.",
    "a text without an end": b"\x80\x02X\xff\xff\xff\x7fabc",
    "a text of 2^63 bytes": b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc",
    "nothing on the stack": b"\x80\x02\x85.",
    "no mark": b"\x80\x02t.",
    "an unknown place in the memo": b"\x80\x02h\x05.",
    "the extension registry": b"\x80\x02\x82\x01.",
    "an empty file": b"",
    "items for a number": b"\x80\x02K\x01(K\x01K\x02u.",
    "state for a number": b"\x80\x02K\x01}b.",
    "an odd number of items": b"\x80\x02}(K\x01u.",
    "out-of-band data": b"\x80\x05\x97.",
    "a name of 1 MB": b"\x80\x02c" + b"a" * 1_000_000 + b"\nX\n)\x81.",
}
SIBLINGS = [kind for kind in HOSTILE if kind.startswith("a tuple 200,000 deep")][1:]


@pytest.mark.parametrize("kind", [slow(kind) if kind in SIBLINGS else kind for kind in HOSTILE])
def test_hostile_bytes_are_a_sentence_in_a_process_that_lives_on(kind: str, tmp_path: Path) -> None:
    path = with_pickle(HOSTILE[kind], tmp_path / "a.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(HOSTILE[kind])
    with pytest.raises(CheckpointError):
        load_checkpoint(plain)


def test_storage_keys_that_are_deep_are_refused_too(tmp_path: Path) -> None:
    values: tuple[Any, ...] = (0x1950A86A20F9469CFC6C, 1001, {}, {})
    start = b"".join(pickle.dumps(value, 2) for value in values)
    path = tmp_path / "a.pth"
    path.write_bytes(start + b"\x80\x02](" + b")" + b"\x85" * DEEP + b"e.")
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_a_pickle_of_too_many_instructions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(WEIGHTS, tmp_path / "a.pth")
    assert_weights(path)
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 10)
    with pytest.raises(CheckpointError, match="more than 10 instructions"):
        load_checkpoint(path)


def ordered(state: dict[str, Any]) -> Reduced:
    return Reduced(collections.OrderedDict, (), state, None, iter(WEIGHTS.items()))


def test_attributes_set_by_the_pickle_change_nothing(tmp_path: Path) -> None:
    assert_weights(save(ordered({"items": 1, "get": None, "keys": 3}), tmp_path / "a.pth"))
    parameter = nn.Parameter(WEIGHTS["fc.bias"])
    parameter.detach = parameter.numel = 3  # type: ignore[assignment]
    assert_weights(save({**WEIGHTS, "fc.bias": parameter}, tmp_path / "b.pth"))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_and_lazily_conjugated_tensors_are_refused(tmp_path: Path) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(CheckpointError, match=r"fc\.bias is not a dense tensor"):
        load_checkpoint(save({**WEIGHTS, "fc.bias": nested}, tmp_path / "a.pth"))
    conjugated = torch.ones(2, dtype=torch.complex64).conj()
    with pytest.raises(CheckpointError, match=r"fc\.bias"):
        load_checkpoint(save({**WEIGHTS, "fc.bias": conjugated}, tmp_path / "b.pth"))


def test_many_tensors_of_few_values_are_refused(tmp_path: Path) -> None:
    base = torch.ones(10_000, dtype=torch.float16)
    path = save({f"{n}.weight": base.view(100, 100) for n in range(50)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="claims more values than it holds"):
        load_checkpoint(path)
    load_checkpoint(save({f"{n}.weight": base.view(100, 100) for n in range(1)}, tmp_path / "b.pth"))


def flipped(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    found = bytearray(data)
    for place, value in changes:
        found[place] = value
    return bytes(found)


def samples() -> Iterator[bytes]:
    for protocol in (2, 4):
        yield pickle.dumps({"model": {"a": [1.5, "b", (None, True)]}, "args": argparse.Namespace(a={1})}, protocol)
    buffer = io.BytesIO()
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=0.1)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        yield archive.read("archive/data.pkl")


SAMPLES = tuple(samples())


@pytest.mark.parametrize("seed", range(3))
def test_a_changed_pickle_is_read_or_refused(seed: int, tmp_path: Path) -> None:
    numbers = random.Random(seed)
    for _ in range(100):
        sample = numbers.choice(SAMPLES)
        changes = [(numbers.randrange(len(sample)), numbers.randrange(256)) for _ in range(numbers.randrange(8))]
        end = numbers.choice([len(sample), numbers.randrange(len(sample))])
        path = with_pickle(flipped(sample, changes)[:end], tmp_path / "a.pth")
        with contextlib.suppress(ZooError):  # anything else is a failure
            load_checkpoint(path)
