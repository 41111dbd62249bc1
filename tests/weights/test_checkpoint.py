from __future__ import annotations

import builtins
import hashlib
import io
import os
import pickle
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from resnet_zoo.catalog.records import UpstreamOrigin
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    IntegrityError,
    UnsafeCheckpointError,
    WeightsUnavailableError,
)
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.safetensors_files import MAX_BYTES
from tests.conftest import ENTRIES, make_odd

FORMATS = ["zip", "legacy"]


def save(content: object, path: Path, kind: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def tensors() -> dict[str, Tensor]:
    """A few tensors under torchvision's keys; reading a file asks no more of it."""
    generator = torch.Generator().manual_seed(0)
    return {
        "conv1.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "bn1.weight": torch.randn(4, generator=generator),
        "bn1.running_var": torch.rand(4, generator=generator),
        "bn1.num_batches_tracked": torch.tensor(7),
        "fc.weight": torch.randn(2, 4, generator=generator),
        "fc.bias": torch.randn(2, generator=generator),
    }


def openmmlab(content: dict[str, Tensor]) -> OrderedDict[str, Tensor]:
    return OrderedDict(
        (f"head.{key}" if key.startswith("fc.") else f"backbone.{key}", value) for key, value in content.items()
    )


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


# --- containers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_a_state_dict_is_read(kind: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(tensors(), tmp_path / "a.pth", kind))
    assert_same(checkpoint.tensors, tensors())
    assert checkpoint.layout == "torchvision"
    assert checkpoint.header == {}


def test_safetensors_are_read_with_their_header(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "a.safetensors", {"format": "pt", "author": "someone"})
    checkpoint = load_checkpoint(tmp_path / "a.safetensors")
    assert_same(checkpoint.tensors, tensors())
    assert checkpoint.header == {"format": "pt", "author": "someone"}


def test_the_checkpoint_carries_path_and_sha256_of_the_file(tmp_path: Path) -> None:
    path = save(tensors(), tmp_path / "a.pth")
    checkpoint = load_checkpoint(str(path))
    assert checkpoint.path == path
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def published_meta() -> dict[str, Any]:
    return {
        "mmcls_version": "0.18.0",
        "config": "model = dict(type='ImageClassifier')\n",
        "CLASSES": ["cat", "dog"],
        "env_info": "sys.platform: linux",
        "seed": None,
        "epoch": 100,
        "iter": 500_400,
        "mmcv_version": "1.3.0",
        "time": "Thu Apr  1 00:00:00 2021",
        "hook_msgs": {"last_ckpt": "/runs/epoch_99.pth"},
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_an_openmmlab_0x_container_is_read(kind: str, tmp_path: Path) -> None:
    content = {"meta": published_meta(), "state_dict": openmmlab(tensors())}
    checkpoint = load_checkpoint(save(content, tmp_path / "a.pth", kind))
    assert checkpoint.layout == "openmmlab"
    assert_same(checkpoint.tensors, tensors())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_numpy_score_in_the_meta_block_is_no_obstacle(kind: str, tmp_path: Path) -> None:
    meta = {**published_meta(), "hook_msgs": {"best_score": np.float64(76.5), "scores": np.arange(3.0)}}
    checkpoint = load_checkpoint(save({"meta": meta, "state_dict": openmmlab(tensors())}, tmp_path / "a.pth", kind))
    assert_same(checkpoint.tensors, tensors())


def test_the_state_dict_of_a_module_with_its_metadata_attribute_is_read(tmp_path: Path) -> None:
    state = nn.Sequential(nn.Linear(2, 2)).state_dict()
    assert hasattr(state, "_metadata")
    assert list(load_checkpoint(save(state, tmp_path / "a.pth")).tensors) == list(state)


class HistoryBuffer:
    """Stands in for mmengine's: numpy arrays, and its own methods by name, which pickle through getattr."""

    def __init__(self) -> None:
        self._log_history = np.array([0.5, 0.25])
        self._count_history = np.array([1, 1])

    def mean(self) -> float:
        return float(self._log_history.mean())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "statistics_methods": {"mean": HistoryBuffer.mean}}


@pytest.fixture
def mmengine(monkeypatch: pytest.MonkeyPatch) -> type[HistoryBuffer]:
    """Put the stand-in where mmengine would be, so that pickles name mmengine."""
    name = "mmengine.logging.history_buffer"
    for part in ("mmengine", "mmengine.logging", name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    vars(sys.modules[name])["HistoryBuffer"] = HistoryBuffer
    monkeypatch.setattr(HistoryBuffer, "__module__", name)
    monkeypatch.setattr(HistoryBuffer.mean, "__module__", name)
    return HistoryBuffer


@pytest.mark.parametrize("kind", FORMATS)
def test_a_raw_openmmlab_1x_container_is_read_without_mmengine(
    kind: str, mmengine: type[HistoryBuffer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9)
    parameter.grad = torch.ones(2)
    optimizer.step()
    content = {
        "meta": {"epoch": 1, "iter": 2, "cfg": "", "seed": 3, "dataset_meta": {"classes": ("cat", "dog")}},
        "state_dict": openmmlab(tensors()),
        "message_hub": {
            "log_scalars": {"train/lr": mmengine(), "train/loss": mmengine()},
            "runtime_info": {"iter": 2, "score": np.float32(0.5)},
            "resumed_keys": {"train/lr": True},
        },
        "optimizer": optimizer.state_dict(),
        "param_schedulers": [{"last_step": 2, "_last_value": [0.1]}],
    }
    path = save(content, tmp_path / "epoch_1.pth", kind)
    data = path.read_bytes()
    assert b"mmengine.logging.history_buffer" in data
    assert b"getattr" in data
    for part in ("mmengine", "mmengine.logging", "mmengine.logging.history_buffer"):
        monkeypatch.delitem(sys.modules, part)
    checkpoint = load_checkpoint(path)
    assert checkpoint.layout == "openmmlab"
    assert_same(checkpoint.tensors, tensors())


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "params"])
def test_a_state_dict_is_found_under_the_keys_that_trainers_use(key: str, tmp_path: Path) -> None:
    content = {key: tensors(), "epoch": 3, "arch": "resnet50"}
    checkpoint = load_checkpoint(save(content, tmp_path / "a.pth"))
    assert_same(checkpoint.tensors, tensors())
    assert checkpoint.weights_key == key


# --- averaged weights ----------------------------------------------------------------------------------------------


def averaged() -> dict[str, Tensor]:
    return {key: tensor + 1 for key, tensor in tensors().items()}


def wrapped(content: Mapping[str, Tensor], prefix: str = "module.", **more: Tensor) -> dict[str, Tensor]:
    return {**more, **{prefix + key: tensor for key, tensor in content.items()}}


AVERAGED: dict[str, tuple[dict[str, Any], str, str]] = {  # content, the averaged weights' key, the others'
    "timm": ({"state_dict": tensors(), "state_dict_ema": averaged()}, "state_dict_ema", "state_dict"),
    "torchvision": (
        {"model": tensors(), "model_ema": wrapped(averaged(), n_averaged=torch.tensor(3))},
        "model_ema",
        "model",
    ),
    "others": ({"state_dict": tensors(), "ema_state_dict": averaged()}, "ema_state_dict", "state_dict"),
    "BasicSR": ({"params": tensors(), "params_ema": averaged()}, "params_ema", "params"),
    "mmengine": (
        {"state_dict": averaged(), "ema_state_dict": wrapped(tensors(), steps=torch.tensor(3))},
        "state_dict",
        "ema_state_dict",
    ),
}


@pytest.mark.parametrize("kind", AVERAGED)
def test_averaged_weights_are_taken_and_reported_and_the_others_can_be_chosen(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content, averaged_key, other_key = AVERAGED[kind]
    path = save(content, tmp_path / "a.pth")
    with caplog.at_level("WARNING", "resnet_zoo"):
        checkpoint = load_checkpoint(path)
    assert_same(checkpoint.tensors, averaged())
    assert checkpoint.weights_key == averaged_key
    assert f"averaged weights, under {averaged_key!r}; weights_key={other_key!r}" in caplog.text
    caplog.clear()
    assert_same(load_checkpoint(path, weights_key=averaged_key).tensors, averaged())
    assert_same(load_checkpoint(path, weights_key=other_key).tensors, tensors())
    assert not caplog.text


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_file_without_averaged_weights_says_nothing_of_them(
    nothing: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save({"state_dict": tensors(), "state_dict_ema": nothing}, tmp_path / "a.pth")
    assert load_checkpoint(path).weights_key == "state_dict"
    assert load_checkpoint(save(tensors(), tmp_path / "b.pth")).weights_key is None
    assert not caplog.text


@pytest.mark.parametrize("key", ["state_dict_ema", "epoch", "conv1.weight"])
def test_a_key_without_weights_is_refused_with_those_that_have(key: str, tmp_path: Path) -> None:
    path = save({"model": tensors(), "optimizer": {"state": {}}, "epoch": 3}, tmp_path / "a.pth")
    with pytest.raises(ArgumentError, match=f"no weights under '{key}'. It has model, optimizer"):
        load_checkpoint(path, weights_key=key)
    with pytest.raises(ArgumentError, match="itself is the state dict"):
        load_checkpoint(save(tensors(), tmp_path / "b.pth"), weights_key=key)
    save_file(tensors(), tmp_path / "a.safetensors")
    with pytest.raises(ArgumentError, match="no keys to choose from"):
        load_checkpoint(tmp_path / "a.safetensors", weights_key=key)


# --- wrappers ------------------------------------------------------------------------------------------------------

PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.", "encoder.", "model.encoder.", "a.b.c.d."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("rename", [dict, openmmlab], ids=["torchvision", "openmmlab"])
@pytest.mark.parametrize("write", [save, save_file])
def test_what_a_wrapper_puts_before_every_key_is_taken_off_and_reported(
    prefix: str,
    rename: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    write: Callable[..., object],
    tmp_path: Path,
) -> None:
    path = tmp_path / ("a.pth" if write is save else "a.safetensors")
    write(wrapped(rename(tensors()), prefix), path)
    checkpoint = load_checkpoint(path)
    assert_same(checkpoint.tensors, tensors())
    assert checkpoint.prefix == prefix
    assert checkpoint.layout == ("openmmlab" if rename is openmmlab else "torchvision")


def test_a_network_called_backbone_is_not_taken_for_one_of_openmmlab(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(wrapped(tensors(), "backbone."), tmp_path / "a.pth"))
    assert (checkpoint.prefix, checkpoint.layout) == ("backbone.", "torchvision")
    assert_same(checkpoint.tensors, tensors())
    checkpoint = load_checkpoint(save(openmmlab(tensors()), tmp_path / "b.pth"))
    assert (checkpoint.prefix, checkpoint.layout) == ("", "openmmlab")


@pytest.mark.parametrize("counter", ["n_averaged", "steps"])
def test_the_counter_of_an_average_goes_with_its_wrapper(counter: str, tmp_path: Path) -> None:
    path = save(wrapped(tensors()) | {counter: torch.tensor(3)}, tmp_path / "a.pth")
    assert_same(load_checkpoint(path).tensors, tensors())
    path = save({**tensors(), counter: torch.tensor(3)}, tmp_path / "b.pth")
    assert counter in load_checkpoint(path).tensors


@pytest.mark.parametrize(
    "content",
    [
        {"module.a": torch.zeros(1), "b": torch.zeros(1)},
        {"module.a": torch.zeros(1), "module.b": torch.zeros(1)},
        {**wrapped(tensors(), "model."), "loss.weight": torch.zeros(1)},
        {key.replace("conv1", "first"): tensor for key, tensor in wrapped(tensors(), "model.").items()},
    ],
    ids=["not all", "another network", "with a loss", "another first layer"],
)
def test_keys_stay_where_no_beginning_of_all_leads_to_a_network(content: dict[str, Tensor], tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(content, tmp_path / "a.pth"))
    assert list(checkpoint.tensors) == list(content)
    assert checkpoint.prefix == ""


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".tar", ".ckpt", ""])
def test_any_suffix_but_safetensors_is_a_pytorch_file(suffix: str, tmp_path: Path) -> None:
    assert_same(load_checkpoint(save(tensors(), tmp_path / f"a{suffix}")).tensors, tensors())


# --- types of tensors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_precision_is_widened_without_loss(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    content = {"a": torch.randn(5, 5).to(dtype), "b": torch.randn(3)}
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        save(content, path)
    else:
        save_file(content, path)
    checkpoint = load_checkpoint(path)
    found = checkpoint.tensors
    assert checkpoint.dtypes == {str(dtype).removeprefix("torch."), "float32"}
    assert_same(found, {"a": content["a"].float(), "b": content["b"]})
    assert torch.equal(found["a"].to(dtype), content["a"])


REFUSED = [torch.float64, torch.bool, torch.int32, torch.uint8, torch.complex64]


@pytest.mark.parametrize("dtype", REFUSED, ids=str)
@pytest.mark.parametrize("write", [save, save_file])
def test_any_other_type_is_refused_with_key_and_type(
    dtype: torch.dtype, write: Callable[..., object], tmp_path: Path
) -> None:
    path = tmp_path / ("a.pth" if write is save else "a.safetensors")
    write({"fine": torch.zeros(1), "fc.bias": torch.zeros(3, dtype=dtype)}, path)
    with pytest.raises(CheckpointError, match=rf"fc\.bias is {dtype}"):
        load_checkpoint(path)


UNREADABLE = {
    "sparse": (torch.eye(3).to_sparse(), r"a\.pth"),  # torch or we refuse it
    "without values": (torch.zeros(3, device="meta"), "is not a dense tensor"),
    "huge, in a small file": (torch.zeros(1, dtype=torch.float16).expand(10**14), "claims more values"),
}


@pytest.mark.parametrize(("tensor", "why"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_tensor_without_its_own_values_is_refused(tensor: Tensor, why: str, tmp_path: Path) -> None:
    path = save({"a": tensor, "b": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=why):
        load_checkpoint(path)


def test_parameters_are_read_as_plain_tensors(tmp_path: Path) -> None:
    path = save({"a": nn.Parameter(torch.ones(2))}, tmp_path / "a.pth")
    found = load_checkpoint(path).tensors["a"]
    assert not found.requires_grad
    assert type(found) is Tensor


# --- code that must not run ----------------------------------------------------------------------------------------


class Reduced:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.how


def attacks(sentinel: Path) -> dict[str, tuple[object, str]]:
    touch = f"open({str(sentinel)!r}, 'w').close()"
    return {
        "os.system": (Reduced(os.system, f"touch {sentinel}"), f"{os.name}.system"),
        "eval": (Reduced(builtins.eval, touch), "eval"),
        "exec": (Reduced(builtins.exec, touch), "exec"),
        "open": (Reduced(open, str(sentinel), "w"), "open"),
        "nested": ([{"deep": (Reduced(builtins.exec, touch),)}], "exec"),
        "argument": (Reduced(getattr, Reduced(builtins.eval, touch), "real"), "eval"),
        "import": (Reduced(getattr, Reduced(__import__, "os"), "system"), "__import__"),
    }


@pytest.mark.parametrize("attack", attacks(Path("x")))
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("place", ["beside", "inside", "whole"])
def test_a_pickle_that_wants_to_run_code_runs_none_and_is_named(
    attack: str, kind: str, place: str, tmp_path: Path
) -> None:
    sentinel = tmp_path / "sentinel"
    payload, wanted = attacks(sentinel)[attack]
    content = {
        "beside": {"state_dict": tensors(), "meta": payload},
        "inside": {**tensors(), "fc.bias": payload},
        "whole": payload,
    }[place]
    path = save(content, tmp_path / "evil.pth", kind)
    with pytest.raises(UnsafeCheckpointError) as caught:
        load_checkpoint(path)
    assert wanted in caught.value.found
    assert str(path) in str(caught.value)
    assert not sentinel.exists()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_attack_would_run_in_an_unrestricted_reader(kind: str, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    path = save(attacks(sentinel)["exec"][0], tmp_path / "evil.pth", kind)
    torch.load(path, weights_only=False)
    assert sentinel.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_bare_pickle_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(attacks(sentinel)["exec"][0], protocol))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    assert not sentinel.exists()


@pytest.mark.parametrize("content", [nn.Sequential(nn.Linear(2, 2)), {"fc.bias": nn.ReLU()}, {"model": nn.ReLU()}])
def test_a_pickled_network_where_weights_should_be_is_named_by_its_class(content: object, tmp_path: Path) -> None:
    path = save(content, tmp_path / "network.pth")
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules.*Save model\.state_dict") as caught:
        load_checkpoint(path)
    assert not isinstance(caught.value, UnsafeCheckpointError)


def test_a_name_that_honest_files_carry_does_nothing(tmp_path: Path) -> None:
    content = {"state_dict": tensors(), "harmless": Reduced(getattr, "abc", "upper")}
    assert_same(load_checkpoint(save(content, tmp_path / "a.pth")).tensors, tensors())


def test_an_ignored_object_is_never_a_tensor(tmp_path: Path) -> None:
    path = save({**tensors(), "fc.bias": np.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="state dict of tensors"):
        load_checkpoint(path)


def test_reading_leaves_the_allowed_names_of_torch_as_they_were(tmp_path: Path) -> None:
    before = list(torch.serialization.get_safe_globals())
    load_checkpoint(save(tensors(), tmp_path / "a.pth"))
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint(save(Reduced(os.system, "true"), tmp_path / "evil.pth"))
    assert list(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("change", ["overwritten", "cut"])
def test_what_was_hashed_is_used_whatever_becomes_of_the_file(change: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tensors(), path)
    size, loaded = path.stat().st_size, load_checkpoint(path)
    if change == "cut":
        os.truncate(path, 0)
    else:
        with path.open("r+b") as file:
            file.seek(8 + int.from_bytes(file.read(8), "little"))
            file.write(bytes(size - file.tell()))
    assert_same(loaded.tensors, tensors())
    with pytest.raises(IntegrityError):
        load_checkpoint(path, sha256=loaded.sha256)


def test_a_safetensors_file_larger_than_the_limit_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    path.touch()
    os.truncate(path, MAX_BYTES + 1)
    with pytest.raises(CheckpointError, match="limit"):
        load_checkpoint(path)


def test_threads_that_load_at_once_refuse_no_honest_checkpoint(tmp_path: Path) -> None:
    honest = save({"state_dict": tensors(), "harmless": Reduced(getattr, "abc", "upper")}, tmp_path / "a.pth")
    evil = save(Reduced(os.system, "true"), tmp_path / "evil.pth")

    def load(number: int) -> str:
        try:
            return load_checkpoint(evil if number % 4 == 0 else honest).layout
        except UnsafeCheckpointError as error:
            return error.found

    switched = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(load, range(200)))
    finally:
        sys.setswitchinterval(switched)
    assert {*found[::4]} == {"posix.system" if os.name == "posix" else "nt.system"}
    assert {*found} - {*found[::4]} == {load_checkpoint(honest).layout}


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))  # type: ignore[no-untyped-call]
    with pytest.raises(UnsafeCheckpointError, match="TorchScript"):
        load_checkpoint(path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    source = save({"a": torch.zeros(4_000_000)}, tmp_path / "a.pth")
    bomb = tmp_path / "bomb.pth"
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as after:
        for member in before.infolist():
            after.writestr(member.filename, before.read(member))
    assert bomb.stat().st_size < source.stat().st_size / 100
    with pytest.raises(CheckpointError, match="unpacks to more than its own size"):
        load_checkpoint(bomb)
    load_checkpoint(source)


# --- damaged files -------------------------------------------------------------------------------------------------


def torch_bytes(content: object, *, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def damaged_files() -> dict[str, tuple[str, bytes]]:
    safe = safetensors.torch.save(tensors(), {"format": "pt"})
    zipped, legacy = (torch_bytes(tensors(), zipped=zipped) for zipped in (True, False))
    return {
        "empty pth": ("a.pth", b""),
        "empty safetensors": ("a.safetensors", b""),
        "truncated zip": ("a.pth", zipped[: len(zipped) // 2]),
        "start of a zip": ("a.pth", zipped[:4]),
        "end of a zip": ("a.pth", zipped[-60:]),
        "truncated legacy": ("a.pth", legacy[: len(legacy) // 2]),
        "start of legacy": ("a.pth", legacy[:12]),
        "truncated safetensors": ("a.safetensors", safe[: len(safe) // 2]),
        "safetensors without header": ("a.safetensors", safe[:8]),
        "longer safetensors": ("a.safetensors", safe + b"more"),
        "flipped length": ("a.safetensors", bytes([safe[0] ^ 0xFF]) + safe[1:]),
        "huge length": ("a.safetensors", b"\xff" * 8 + safe[8:]),
        "flipped header byte": ("a.safetensors", safe[:9] + bytes([safe[9] ^ 0xFF]) + safe[10:]),
        "text pth": ("a.pth", b"<html>404 Not Found</html>\n"),
        "text safetensors": ("a.safetensors", b"<html>404 Not Found</html>\n"),
        "lfs pointer": ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        "zeros": ("a.pth", b"\0" * 1000),
        "pth named safetensors": ("a.safetensors", zipped),
    }


@pytest.mark.parametrize(("name", "data"), damaged_files().values(), ids=damaged_files())
def test_a_damaged_file_is_a_checkpoint_error_that_names_it(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert not isinstance(caught.value, UnsafeCheckpointError)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.pth", "a.SAFETENSORS"])
def test_safetensors_under_another_name_are_read(name: str, tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / name)
    assert_same(load_checkpoint(tmp_path / name).tensors, tensors())


def test_a_zip_with_any_byte_flipped_is_read_or_is_a_checkpoint_error(tmp_path: Path) -> None:
    good = bytearray(save({"a": torch.arange(4.0)}, tmp_path / "good.pth").read_bytes())
    path = tmp_path / "a.pth"
    refused = 0
    for place in range(0, len(good), 7):
        flipped = bytearray(good)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        try:
            load_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({}, "nothing"),
        ([1, 2], "list"),
        (torch.zeros(2), "Tensor"),
        ({"epoch": 3, "lr": 0.1}, "epoch, lr"),
        ({1: torch.zeros(1)}, "1"),
        ({"state_dict": {}}, "state_dict"),
        ({**tensors(), "epoch": 3}, "epoch"),
        ({"state_dict": {**tensors(), "thop_total_ops": 3}, "meta": {}}, "thop_total_ops"),
    ],
    ids=lambda value: str(value)[:20] if isinstance(value, str) else "",
)
def test_a_file_without_a_state_dict_is_refused_with_what_it_holds(content: object, named: str, tmp_path: Path) -> None:
    path = save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="expected a state dict of tensors") as caught:
        load_checkpoint(path)
    assert named in str(caught.value)


# --- hashes --------------------------------------------------------------------------------------------------------

UPSTREAM = list(
    dict.fromkeys(
        weights.origin
        for entry in ENTRIES
        for weights in entry.weights.values()
        if isinstance(weights.origin, UpstreamOrigin)
    )
)


@pytest.mark.parametrize("origin", UPSTREAM, ids=lambda origin: origin.file_name)
def test_wrong_bytes_under_a_published_name_are_an_integrity_error(origin: UpstreamOrigin, tmp_path: Path) -> None:
    path = save(tensors(), tmp_path / origin.file_name)
    with pytest.raises(IntegrityError) as caught:
        load_checkpoint(path)
    assert caught.value.expected == origin.sha256_prefix
    assert caught.value.actual == hashlib.sha256(path.read_bytes()).hexdigest()


def test_wrong_bytes_under_a_published_name_are_not_parsed(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    path = save(attacks(sentinel)["exec"][0], tmp_path / UPSTREAM[0].file_name)
    with pytest.raises(IntegrityError):
        load_checkpoint(path)
    assert not sentinel.exists()


@pytest.mark.parametrize("digits", [64, 8, 20])
def test_the_right_sha256_or_its_beginning_is_accepted(digits: int, tmp_path: Path) -> None:
    path = save(tensors(), tmp_path / "a.pth")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_checkpoint(path, sha256=sha256[:digits]).sha256 == sha256


@pytest.mark.parametrize("digits", [64, 8])
def test_another_sha256_is_an_integrity_error(digits: int, tmp_path: Path) -> None:
    path = save(tensors(), tmp_path / "a.pth")
    sha256 = hashlib.sha256(b"something else").hexdigest()[:digits]
    with pytest.raises(IntegrityError, match=f"expected sha256 {sha256}, got"):
        load_checkpoint(path, sha256=sha256)


def test_a_sha256_in_capitals_is_the_same_sha256(tmp_path: Path) -> None:
    path = save(tensors(), tmp_path / "a.pth")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_checkpoint(path, sha256=sha256.upper()).sha256 == sha256


# --- no file -------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"missing\.pth.*No such file"):
        load_checkpoint(tmp_path / "missing.pth")


@pytest.mark.parametrize("name", ["folder", "folder.pth", "folder.safetensors"])
def test_a_folder_is_unavailable(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(WeightsUnavailableError, match="folder"):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize(("name", "why"), [("pipe.pth", "Not a regular file"), ("loop.safetensors", "symbolic links")])
def test_what_is_not_a_regular_file_is_unavailable_at_once(name: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=why):
        load_checkpoint(make_odd(tmp_path / name))


def test_reading_does_not_change_the_file(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    for tensor in load_checkpoint(tmp_path / "a.safetensors").tensors.values():
        tensor.zero_()
    assert (tmp_path / "a.safetensors").read_bytes() == before
