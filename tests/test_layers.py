"""The house: an import goes only to a lower floor, never in a circle, and torch is imported only where it is needed."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import resnet_zoo

ROOT = Path(__file__).parent.parent

FLOORS = [
    ["errors"],
    ["base"],
    ["catalog"],
    ["network", "images", "runs"],
    ["weights"],
    ["zoo"],
    ["inference"],
    ["training", "checks"],
    ["site"],
    ["cli"],
    ["__init__", "__main__", "hubconf", "scripts"],
]
"""The doors, from the ground up. Who lives behind one imports what is behind the same door, or below its floor."""

FLOOR_OF = {door: floor for floor, doors in enumerate(FLOORS) for door in doors}

GROUND = {"base.shown"}
"""What even the errors stand on; it imports nothing of ours."""

HEAVY = {"torch", "torchvision", "safetensors", "requests", "huggingface_hub"}

WITH_TORCH = {"network", "images", "weights", "zoo", "inference", "training", "checks"}
"""The doors behind which torch may be imported with a module."""

ALSO_WITH_TORCH = {"base.devices", "base.processes"}
LIGHT = {
    *(
        "weights.cache",
        "weights.cache_contents",
        "weights.transfer",
        "weights.download",
        "weights.hub_files",
        "weights.places",
    ),
    *("training.tuning", "checks.report"),
}
"""Exceptions: what brings weights to this machine and lists them, and plain records, have no need of torch."""

PROGRAMS = {"hubconf", "scripts"}
"""Begun by their users, who want what they do: only what they import themselves is looked at."""


def sources() -> dict[str, str]:
    """Return the source text of every module by its dotted name, the package's own without its first word."""
    package = ROOT / "resnet_zoo"
    files = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    files["hubconf"] = ROOT / "hubconf.py"
    files |= {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "scripts").glob("*.py")}
    return {name.removesuffix(".__init__"): path.read_text(encoding="utf-8") for name, path in sorted(files.items())}


SOURCES = sources()


def door_of(module: str) -> str:
    return module.partition(".")[0]


def floor_of(module: str) -> int:
    return -1 if module in GROUND else FLOOR_OF[door_of(module)]


def is_light(module: str) -> bool:
    """Tell whether a module may import nothing heavy, nor a module of ours that does."""
    return (door_of(module) not in WITH_TORCH and module not in ALSO_WITH_TORCH) or module in LIGHT


def is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, *, in_functions: bool) -> Iterator[tuple[str, str]]:
    """Yield (module, name or "") of every import that is executed."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            package = module if not node.level else f"resnet_zoo.{module}".rstrip(".")
            yield from ((package, alias.name) for alias in node.names)
        elif is_for_types_only(node):
            assert isinstance(node, ast.If)
            yield from imports(ast.Module(node.orelse, []), in_functions=in_functions)
        elif in_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from imports(node, in_functions=in_functions)


def zoo_imports(source: str, *, in_functions: bool = True) -> set[str]:
    """Return the modules of the package that a source imports, by full dotted name; those behind public names too."""
    found = set()
    for module, name in imports(ast.parse(source), in_functions=in_functions):
        package, _, inner = module.partition(".")
        if package != "resnet_zoo":
            continue
        full = ".".join(filter(None, (inner, name)))
        if full in SOURCES:
            found.add(full)
        elif inner:
            found.add(inner)
        else:  # a public name, or one of __init__ itself
            value = getattr(resnet_zoo, name, None)
            found.add(getattr(value, "__module__", "resnet_zoo.__init__").partition(".")[2] or "__init__")
    return found


def violations(module: str, source: str) -> list[str]:
    """Return what is wrong with a module's imports: to its own floor or upward, or heavy where they may not be."""
    door, wrong = door_of(module), []
    for other in sorted(zoo_imports(source)):
        is_version = other == "__init__"
        is_below = floor_of(other) < floor_of(module)
        is_beside = door_of(other) == door and floor_of(other) == floor_of(module)
        if not (is_below or is_beside or is_version):
            wrong.append(f"{module} imports {other}")
    if is_light(module):
        heavy = {name.partition(".")[0] for name, _ in imports(ast.parse(source), in_functions=False)} & HEAVY
        ours = {other for other in zoo_imports(source, in_functions=False) if not is_light(other)}
        ours = set() if door in PROGRAMS else ours
        wrong += [f"{module} imports {name} with the module" for name in sorted(heavy | ours)]
    return wrong


def import_order(texts: Mapping[str, str]) -> list[str]:
    """Return the modules so that each comes after those it imports.

    Raises:
        CycleError: There is no such order.
    """
    return list(TopologicalSorter({name: zoo_imports(text) - {name} for name, text in texts.items()}).static_order())


def test_the_floors_have_every_door_and_no_other() -> None:
    assert {door_of(module) for module in SOURCES} == set(FLOOR_OF)
    assert sum(map(len, FLOORS)) == len(FLOOR_OF)


def test_a_visitor_sees_at_most_thirteen_doors() -> None:
    shown = [path for path in (ROOT / "resnet_zoo").iterdir() if path.name[:2] != "__" and path.name != "py.typed"]
    assert len(shown) <= 13, shown


def test_imports_only_go_down_and_torch_stays_behind_its_doors() -> None:
    assert [found for module in SOURCES for found in violations(module, SOURCES[module])] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert import_order(SOURCES)


def test_no_module_is_too_long_to_read() -> None:
    assert [module for module, source in SOURCES.items() if source.count("\n") > 400] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "import resnet_zoo.catalog.manifest"),
        ("errors", "from resnet_zoo.catalog import records"),
        ("errors", "from resnet_zoo.base.files import sha256_of"),
        ("base.shown", "from resnet_zoo.errors import ZooError"),
        ("base.shown", "from resnet_zoo.base import files"),
        ("base.files", "from resnet_zoo.catalog import records"),
        ("base.files", "import torch"),
        ("base.files", "from resnet_zoo.base.devices import resolve_device"),
        ("catalog.manifest", "from resnet_zoo.zoo import create_model"),
        ("catalog.manifest", "from resnet_zoo import create_model"),
        ("catalog.manifest", "from resnet_zoo import zoo"),
        ("catalog.manifest", "from .zoo import create_model"),
        ("catalog.manifest", "from . import zoo"),
        ("catalog.manifest", "def f():\n    from resnet_zoo.zoo import create_model"),
        ("catalog.manifest", "class A:\n    import resnet_zoo.network.resnet"),
        ("catalog.manifest", "try:\n    import torch\nexcept ImportError:\n    torch = None"),
        ("catalog.manifest", "import torch.nn as nn"),
        ("catalog.manifest", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch"),
        ("catalog.manifest", "if True:\n    import requests"),
        ("network.resnet", "from resnet_zoo.images import transform"),
        ("images.transform", "from resnet_zoo.runs.folder import read_record"),
        ("runs.folder", "from resnet_zoo.network.resnet import ResNet"),
        ("runs.folder", "from torch import nn"),
        ("weights.transfer", "import requests"),
        ("weights.hub_files", "from huggingface_hub import hf_hub_download"),
        ("weights.download", "from resnet_zoo.weights.checkpoint import load_checkpoint"),
        ("weights.checkpoint", "def f():\n    from resnet_zoo.zoo import create_model"),
        ("zoo", "from resnet_zoo.checks.rows import verify"),
        ("zoo", "from resnet_zoo import verify"),
        ("training.loop", "from resnet_zoo.checks.report import Check"),
        ("checks.rows", "from resnet_zoo.training import loop"),
        ("site.pages", "from resnet_zoo.weights.checkpoint import load_checkpoint"),
        ("cli.main", "import torch"),
        ("cli.main", "class A:\n    from safetensors import safe_open"),
        ("__init__", "from resnet_zoo.zoo import create_model"),
        ("hubconf", "import torchvision"),
        ("scripts.planted", "import torch"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("zoo", "import torch\nfrom resnet_zoo.catalog.manifest import get_entry"),
        ("inference.evaluation", "from resnet_zoo.weights.loading import open_weights"),
        (
            "weights.download",
            "def f():\n    import torch\n    from resnet_zoo.weights.checkpoint import load_checkpoint",
        ),
        ("cli.main", "def f():\n    import torch\n    from resnet_zoo.checks.rows import verify"),
        ("catalog.manifest", "if TYPE_CHECKING:\n    import torch\n    from resnet_zoo.zoo import create_model"),
        ("catalog.manifest", "from resnet_zoo.errors import ZooError\nimport json, torchmetrics"),
        ("catalog.manifest", "from resnet_zoo import ZooError, __version__"),
        ("hubconf", "from resnet_zoo import create_model"),
        ("errors", "from resnet_zoo.base.shown import shown"),
    ],
)
def test_a_permitted_import_is_left_alone(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(
    "texts",
    [
        {
            "training.loop": "import resnet_zoo.training.learner",
            "training.learner": "def f():\n    from resnet_zoo.training import loop",
        },
        {
            "training.finetuning": "from resnet_zoo.training.reproduce import reproduce",
            "training.reproduce": "from resnet_zoo.training.loop import Loop",
            "training.loop": "def f():\n    from resnet_zoo import finetune",
        },
    ],
    ids=["two modules", "behind a public name"],
)
def test_a_planted_circle_behind_one_door_is_found(texts: dict[str, str]) -> None:
    with pytest.raises(CycleError):
        import_order(texts)


def imported_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has imported after running some code."""
    report = "import json, sys; sys.stderr.write(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    program = f"try:\n    {code}\nfinally:\n    {report}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stderr.splitlines()[-1]))


def command(*arguments: str) -> str:
    return f"import sys; sys.argv = ['resnet-zoo', *{arguments!r}]; from resnet_zoo.cli.main import main; main()"


_CLIENTS_NETWORK = {"httpx", "httpx2", "tqdm"}
"""What makes the Hub's client slow to import. That its cache lacks a repository is found without these."""


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import resnet_zoo", {"rich", "click"}),
        ("import resnet_zoo; resnet_zoo.list_models('resnet*', dataset='in1k')", {"rich", "click"}),
        (command("list"), set()),
        (command("list", "--format", "json"), {"rich"}),
        (command("list", "--format", "csv"), {"rich"}),
        (command("list", "--quiet"), {"rich"}),
        (command("show", "resnet50"), _CLIENTS_NETWORK),
        (command("show", "resnet50", "--format", "json"), {"rich"}),
        (command("--version"), {"rich"}),
        (command("verify", "--help"), {"rich"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_no_torch_imports_none(code: str, unwanted: set[str]) -> None:
    imported = imported_by(code)
    assert "resnet_zoo" in imported
    client = {"huggingface_hub"} if unwanted is _CLIENTS_NETWORK else set[str]()
    assert not imported & ((HEAVY - client) | {"numpy", "PIL"} | unwanted)


@pytest.mark.slow
def test_an_import_of_torch_would_be_seen() -> None:
    assert {"torch", "numpy"} <= imported_by("import resnet_zoo; resnet_zoo.create_model")


RUFF = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")


@pytest.mark.skipif(RUFF is None, reason="ruff is not installed")
@pytest.mark.parametrize(
    ("file", "source", "is_found"),
    [
        *(("resnet_zoo/planted.py", f"import {name}\n", True) for name in sorted(HEAVY)),
        ("resnet_zoo/cli/main.py", "from torch import nn\n", True),
        ("resnet_zoo/errors.py", "import torch\n", True),
        ("resnet_zoo/planted.py", "def f():\n    import torch\n", False),
        ("resnet_zoo/zoo.py", "import torch\n", False),
    ],
)
def test_ruff_finds_a_heavy_import_at_module_level(file: str, source: str, is_found: bool) -> None:
    assert RUFF is not None
    arguments = [RUFF, "check", "--no-cache", "--select", "TID253", "--stdin-filename", file, "-"]
    done = subprocess.run(arguments, input=source, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == int(is_found), done.stderr
    assert ("TID253" in done.stdout) is is_found
