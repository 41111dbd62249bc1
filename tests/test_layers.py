"""The layers: an import may only point down, and torch is imported only where it is needed."""

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

LAYERS = {
    5: ["cli", "commands", "terminal", "__main__", "hubconf", "scripts"],
    4: ["verification", "run_verification", "acceptance", "publish", "speed", "training", "finetuning"],
    3: [
        *("zoo", "chain", "evaluation", "accuracy", "features", "prediction", "export"),
        *("networks", "embedding", "embedding_files"),
    ],
    2: [
        *("preprocess", "complexity", "checkpoint", "layouts", "fit"),
        *("convert", "data", "decode", "jpeg", "resize", "resnet", "trunk", "hub", "inference", "quantization"),
        *("network_file", "image_list", "batching", "partial_rows", "vector_files", "ranks"),
        "class_tree",
    ],
    1: [
        *("manifest", "records", "strict", "download", "recipes", "schedule", "tuning"),
        *("cache", "transfer", "hub_files", "inventory", "progress", "names", "network_header"),
        *("runs", "run_records", "logs", "curve_comparison", "curves", "datasets"),
        *("report", "listing", "cards", "hub_config", "files", "environment", "__init__"),
        *("plans", "site"),
    ],
    0: ["errors"],
}
LAYER_OF = {module: layer for layer, modules in LAYERS.items() for module in modules}

HEAVY = {"torch", "torchvision", "safetensors", "requests", "huggingface_hub"}
HEAVY_LAYERS = (2, 3, 4)


def sources() -> dict[str, str]:
    """Return the source text of every module by the name it has in the table; ``<folder>/<name>`` for those in one."""
    package = ROOT / "resnet_zoo"
    files = {path.relative_to(package).with_suffix("").as_posix(): path for path in package.rglob("*.py")}
    files["hubconf"] = ROOT / "hubconf.py"
    files |= {f"scripts/{path.stem}": path for path in (ROOT / "scripts").glob("*.py")}
    return {name: path.read_text(encoding="utf-8") for name, path in sorted(files.items())}


def layer_of(module: str) -> int:
    return LAYER_OF[module.partition("/")[0]]


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


def zoo_imports(source: str) -> set[str]:
    """Return the modules of the package that a source imports anywhere, those behind a public name included."""
    found = set()
    for module, name in imports(ast.parse(source), in_functions=True):
        package, _, inner = module.partition(".")
        if package != "resnet_zoo":
            continue
        if inner:
            found.add(inner.partition(".")[0])
        elif name in LAYER_OF:
            found.add(name)
        else:
            value = getattr(resnet_zoo, name, None)
            found.add(getattr(value, "__module__", "resnet_zoo.__init__").rpartition(".")[2])
    return found


def layer_violations(module: str, source: str) -> list[str]:
    """Return what is wrong with a module's imports: upward ones, and heavy ones where they may not be."""
    layer = layer_of(module)
    wrong = [f"{module} imports {other}" for other in sorted(zoo_imports(source)) if layer_of(other) > layer]
    heavy = {name.partition(".")[0] for name, _ in imports(ast.parse(source), in_functions=False)} & HEAVY
    if layer not in HEAVY_LAYERS:
        wrong += [f"{module} imports {name}" for name in sorted(heavy)]
    return wrong


def import_order(texts: Mapping[str, str]) -> list[str]:
    """Return the modules so that each comes after those it imports.

    Raises:
        CycleError: There is no such order.
    """
    return list(TopologicalSorter({name: zoo_imports(text) - {name} for name, text in texts.items()}).static_order())


def test_the_table_has_every_module_and_no_other() -> None:
    names = {name.partition("/")[0] for name in sources()}
    assert names == set(LAYER_OF)
    assert sum(map(len, LAYERS.values())) == len(LAYER_OF)


@pytest.mark.parametrize("module", sources())
def test_imports_only_point_down_and_torch_stays_in_its_layers(module: str) -> None:
    assert layer_violations(module, sources()[module]) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert import_order(sources())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("errors", "import resnet_zoo.catalog.manifest"),
        ("errors", "from resnet_zoo import records"),
        ("manifest", "from resnet_zoo.zoo import create_model"),
        ("manifest", "from resnet_zoo import create_model"),
        ("manifest", "from resnet_zoo import zoo"),
        ("manifest", "from .zoo import create_model"),
        ("manifest", "from . import zoo"),
        ("manifest", "def f():\n    from resnet_zoo.zoo import create_model"),
        ("manifest", "class A:\n    import resnet_zoo.network.resnet"),
        ("manifest", "try:\n    import torch\nexcept ImportError:\n    torch = None"),
        ("manifest", "import torch.nn as nn"),
        ("manifest", "from torch import nn"),
        ("manifest", "if TYPE_CHECKING:\n    pass\nelse:\n    import torch"),
        ("manifest", "if True:\n    import requests"),
        ("download", "import requests"),
        ("transfer", "import requests"),
        ("cache", "from resnet_zoo.weights.download import obtain_weights\nfrom resnet_zoo.zoo import open_weights"),
        ("inventory", "from resnet_zoo.weights.provenance import chain_of"),
        ("download", "from huggingface_hub import hf_hub_download"),
        ("__init__", "from resnet_zoo.zoo import create_model"),
        ("cli", "import torch"),
        ("cli", "class A:\n    from safetensors import safe_open"),
        ("hubconf", "import torchvision"),
        ("scripts/planted", "import torch"),
        ("zoo", "from resnet_zoo.checks.rows import verify"),
        ("zoo", "from resnet_zoo import verify"),
        ("resnet", "from resnet_zoo.cli.main import main"),
    ],
)
def test_a_planted_violation_is_found(module: str, source: str) -> None:
    assert layer_violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("zoo", "import torch\nfrom resnet_zoo.catalog.manifest import get_entry"),
        ("evaluation", "from resnet_zoo.zoo import open_weights"),
        ("cli", "def f():\n    import torch\n    from resnet_zoo.checks.rows import verify"),
        ("manifest", "if TYPE_CHECKING:\n    import torch\n    from resnet_zoo.zoo import create_model"),
        ("manifest", "from resnet_zoo.errors import ZooError\nimport json, torchmetrics"),
        ("manifest", "from resnet_zoo import ZooError, __version__"),
        ("hubconf", "from resnet_zoo import create_model"),
    ],
)
def test_a_permitted_import_is_left_alone(module: str, source: str) -> None:
    assert layer_violations(module, source) == []


def test_a_planted_cycle_is_found() -> None:
    texts = {"zoo": "import resnet_zoo.inference.evaluation", "evaluation": "def f():\n    from resnet_zoo import zoo"}
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
