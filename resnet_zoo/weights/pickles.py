"""Pickles read as data: plain values, descriptions of tensors, and an inert name in place of everything else.

A pickle is a program for a small machine that can import and call anything. This one does neither: it keeps the values
that a checkpoint needs, and what a pickle asks to be made becomes an `Inert` with its name. A call of something that
could act on this computer is refused all the same, because an honest checkpoint has no use for it.

The instructions are those of https://github.com/python/cpython/blob/main/Lib/pickletools.py.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from resnet_zoo.errors import CheckpointError, UnsafeCheckpointError

MAX_INTEGER_BITS = 128
"""Longer integers are inert: no file of torch.save needs one, and Python cannot print them all."""

MAX_INSTRUCTIONS = 5_000_000
"""A byte of a pickle can become an object of 64, so their number is bounded. A checkpoint of ResNet-152 with its
optimiser has about 100,000."""

MAX_DIMENSIONS = 64
"""torch's own limit."""


@dataclass(frozen=True, eq=False)
class Inert:
    """Stands in for an object that a pickle asks for. Nothing of its name was imported, made or called."""

    name: str


class Name(Inert):
    """Stands in for a function or class that a pickle names."""


@dataclass(frozen=True, eq=False)
class Storage:
    """Values of one type in the file, from ``offset`` on."""

    key: str
    dtype: torch.dtype
    size: int
    offset: int = 0


@dataclass(frozen=True, eq=False)
class TensorPlan:
    """How a tensor lies in its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
    "UntypedStorage": torch.uint8,
}
"""Types by the class names that files carry (newer types are stored as untyped bytes)."""

_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def read_pickle(file: IO[bytes], path: Path, dtypes: dict[str, torch.dtype] | None = None) -> Any:
    """Read one pickle from an open file.

    Args:
        file: It is left behind the pickle's end.
        path: Names the file in errors.
        dtypes: Receives the type of every storage, by its key.

    Returns:
        None, truths, numbers, texts, bytes, tuples, lists, dicts, `TensorPlan`, `Storage` and `Inert`. A key that is
        not a plain value is inert.

    Raises:
        UnsafeCheckpointError: It asks to call something that could act.
        CheckpointError: It is longer than any honest one.
        Exception: Whatever malformed bytes lead to.
    """
    machine = _Machine(path, {} if dtypes is None else dtypes)
    for number, (instruction, argument, _) in enumerate(pickletools.genops(file)):
        if instruction.name == "STOP":
            break
        if number == MAX_INSTRUCTIONS:
            raise CheckpointError(path, f"its pickle has more than {MAX_INSTRUCTIONS} instructions. Do not use it.")
        machine.run(instruction.name, argument)
    return machine.stack.pop()


class _Machine:
    def __init__(self, path: Path, dtypes: dict[str, torch.dtype]) -> None:
        self.path, self.dtypes = path, dtypes
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            is_long = isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS
            self.push(Inert("int") if is_long else argument)
        elif name in _FRESH:
            self.push(_FRESH[name]())
        elif name in _INSTRUCTIONS:
            _INSTRUCTIONS[name](self)
        else:
            _INSTRUCTIONS_WITH_ARGUMENT[name](self, argument)  # a KeyError for one that torch.save never writes

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def up_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def popped(self, number: int) -> list[Any]:
        items = self.stack[-number:]
        if len(items) < number:
            raise IndexError("nothing on the stack")
        del self.stack[-number:]
        return items

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], Inert):
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, Inert):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_key(key)] = value

    def name(self, name: str) -> None:
        self.push(Name(_canonical(name)))

    def persistent(self) -> None:
        """BINPERSID: values beside the pickle; or, in older files, a class with its source text."""
        kind, *facts = self.stack.pop()
        storage = _storage(*facts) if kind == "storage" else facts[0]
        if isinstance(storage, Storage) and self.dtypes.setdefault(storage.key, storage.dtype) is not storage.dtype:
            raise ValueError("a storage of two types")
        self.push(storage)

    def make(self, number: int) -> None:
        """NEWOBJ and NEWOBJ_EX: a class and its arguments."""
        made = self.popped(number)[0]
        if not isinstance(made, Name) or _acts(made.name):
            raise UnsafeCheckpointError(self.path, _title(made))
        self.push({} if made.name == "collections.OrderedDict" else Inert(made.name))

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not _is_harmless(function.name):
            raise UnsafeCheckpointError(self.path, _title(function))
        if function.name == "torch._tensor._rebuild_from_type_v2":
            inner, kind, inner_arguments, _ = arguments
            return self.call(inner, inner_arguments) if kind.name in _TENSOR_CLASSES else Inert(kind.name)
        understood = _CALLS.get(function.name)
        return Inert(function.name) if understood is None else understood(*arguments)

    def build(self) -> None:
        """Drop the state of an object; attributes of a dict, such as ``_metadata``, are not needed either."""
        self.stack.pop()
        if not isinstance(self.stack[-1], (Inert, dict, TensorPlan)):
            raise TypeError("this object has no state")


_VALUES = frozenset({
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip
"""Instructions that hold a value."""

_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Inert("set"),
}

_INSTRUCTIONS: dict[str, Callable[[_Machine], object]] = {
    "MARK": lambda machine: machine.mark(),
    "POP": lambda machine: machine.stack.pop(),
    "POP_MARK": lambda machine: machine.up_to_mark(),
    "TUPLE": lambda machine: machine.push(tuple(machine.up_to_mark())),
    "TUPLE1": lambda machine: machine.push(tuple(machine.popped(1))),
    "TUPLE2": lambda machine: machine.push(tuple(machine.popped(2))),
    "TUPLE3": lambda machine: machine.push(tuple(machine.popped(3))),
    "APPEND": lambda machine: machine.extend(machine.popped(1)),
    "APPENDS": lambda machine: machine.extend(machine.up_to_mark()),
    "ADDITEMS": lambda machine: machine.extend(machine.up_to_mark()),
    "FROZENSET": lambda machine: machine.push(_frozen(machine.up_to_mark())),
    "SETITEM": lambda machine: machine.set_items(machine.popped(2)),
    "SETITEMS": lambda machine: machine.set_items(machine.up_to_mark()),
    "STACK_GLOBAL": lambda machine: machine.name(".".join(machine.popped(2))),
    "BINPERSID": _Machine.persistent,
    "NEWOBJ": lambda machine: machine.make(2),
    "NEWOBJ_EX": lambda machine: machine.make(3),
    "REDUCE": lambda machine: machine.push(machine.call(*machine.popped(2))),
    "BUILD": _Machine.build,
}
_INSTRUCTIONS_WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], object]] = {
    "PROTO": lambda machine, number: None,  # noqa: ARG005
    "FRAME": lambda machine, number: None,  # noqa: ARG005
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "GLOBAL": lambda machine, name: machine.name(name.replace(" ", ".")),
}
"""What pickle writes at protocols 1 to 5. Without DUP and the extension registry no value is larger than its file."""


def _frozen(_: list[Any]) -> Inert:
    """Stand in for a set, whose items are not hashed either."""
    return Inert("frozenset")


def _key(key: Any) -> Any:
    """Return a dictionary's key; of a nested one not even the hash is computed, which could end the process."""
    return key if key is None or isinstance(key, (str, int, float, bytes, Inert)) else Inert(type(key).__name__)


def _canonical(name: str) -> str:
    """Return a name as Python 3 has it."""
    for old, new in (("__builtin__.", "builtins."), ("copy_reg.", "copyreg."), ("torch.tensor.", "torch._tensor.")):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


# --- what is made ---------------------------------------------------------------------------------------------------


def _storage(kind: Name, key: str, _: str, size: int, view: Any = None) -> Storage | Inert:
    dtype = STORAGE_TYPES.get(kind.name.rpartition(".")[2])
    if dtype is None or type(key) is not str or not _is_count(size):
        return Inert(kind.name)
    if view is None:
        return Storage(key, dtype, size)
    _, offset, view_size = view  # a key of its own, which says nothing
    if not (_is_count(offset) and _is_count(view_size) and offset + view_size <= size):
        raise ValueError("a view is larger than its storage")
    return Storage(key, dtype, view_size, offset)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorPlan | Inert:
    """Plan a tensor; one with lazily conjugated or negated values (the last argument says so) is inert."""
    if not isinstance(storage, Storage) or (len(rest) > 2 and rest[2]):
        return Inert("torch.Tensor")
    if not (_is_count(offset) and isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise ValueError("a tensor without a place in its storage")
    if not len(shape) == len(strides) <= MAX_DIMENSIONS or not all(map(_is_count, (*shape, *strides))):
        raise ValueError("a tensor of another shape than its strides")
    return TensorPlan(storage, offset, shape, strides)


def _tensor_of_new_type(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> TensorPlan | Inert:
    """Plan a tensor of a type without a storage class of its own: its storage counts bytes."""
    found = _DTYPES.get(dtype.name)
    if found is None or not isinstance(storage, Storage) or storage.dtype is not torch.uint8:
        return Inert(dtype.name)
    typed = Storage(storage.key, found, storage.size // found.itemsize, storage.offset // found.itemsize)
    return _tensor(typed, offset, shape, strides, grad, hooks, *rest)


def _ordered(pairs: Any = None) -> dict[Any, Any]:
    """Make a dict, from the pairs that Python 2 wrote; they are used up, so that no pickle repeats them for ever."""
    made = {_key(key): value for key, value in pairs or []}
    if pairs:
        pairs.clear()
    return made


_TENSOR_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer")

_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_new_type,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "collections.OrderedDict": _ordered,
}
"""The calls that are understood."""


# --- what is refused ------------------------------------------------------------------------------------------------

_ACTING = frozenset({
    "_io", "_pickle", "_posixsubprocess", "_socket", "asyncio", "atexit", "bdb", "cProfile", "cloudpickle", "code",
    "codecs", "codeop", "commands", "concurrent", "ctypes", "dill", "doctest", "ensurepip", "fcntl", "fileinput",
    "ftplib", "gc", "glob", "http", "httpx", "idlelib", "imp", "importlib", "inspect", "io", "joblib", "linecache",
    "marshal", "mmap", "multiprocessing", "nt", "os", "pdb", "pickle", "pip", "pkgutil", "platform", "popen2",
    "posix", "posixpath", "profile", "pty", "pydoc", "requests", "resource", "runpy", "select", "setuptools",
    "shelve", "shutil", "signal", "smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys",
    "tarfile", "tempfile", "test", "threading", "timeit", "trace", "urllib", "venv", "webbrowser", "winreg",
    "xmlrpc", "zipfile", "zipimport"
})  # fmt: skip
"""Modules that act on the computer: files, processes, the network, other code."""

_BUILTINS = frozenset({
    "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "getattr", "int", "list", "object",
    "range", "set", "slice", "str", "tuple"
})  # fmt: skip
"""Built-in names that honest files use. ``getattr``: mmengine's HistoryBuffer pickles its methods through it."""

_PLAIN_NAMES = frozenset({
    "_codecs.encode", "copyreg._reconstructor", "copyreg.__newobj__", "collections.defaultdict",
    "collections.deque", "datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta",
    "datetime.timezone", "functools.partial", "itertools.count", "numpy.dtype", "numpy.ndarray", "torch.device",
    "torch._utils._rebuild_from_type_v2", "torch._tensor._rebuild_from_type_v2", "torch.serialization._get_layout"
})  # fmt: skip
"""Names in lower case that honest files use."""


_REBUILDING = (
    "builtins.",
    "numpy._core.multiarray.",
    "numpy._core.numeric._frombuffer",
    "numpy.core.multiarray.",
    "numpy.core.numeric._frombuffer",
    "numpy.random._pickle.",
    "torch._utils._rebuild_",
)
"""How names begin that put arrays and tensors together."""


def _acts(name: str) -> bool:
    root, _, rest = name.partition(".")
    return root in _ACTING or (root == "builtins" and rest not in _BUILTINS)


def _is_harmless(name: str) -> bool:
    """Tell whether a call may be ignored: of a class, or of a function that only puts an object together again."""
    last = name.rpartition(".")[2].lstrip("_")
    known = name in _PLAIN_NAMES or name.startswith(_REBUILDING)
    return not _acts(name) and (known or last[:1].isupper())


def _title(function: Any) -> str:
    return function.name[:200] if isinstance(function, Name) else "a call of something that it computes"
