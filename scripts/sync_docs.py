"""Write the API reference in docs/ from the docstrings, or check it (``--check``).

The sources are read, not imported, so that it takes a second and needs nothing but click.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGE = "resnet_zoo"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef

_NOTE = "<!-- Written by scripts/sync_docs.py from the docstrings. Change those. -->\n"
_ABOUT = """The public names of resnet_zoo. Every error is a [ZooError](#zooerror). What each module holds is in
[architecture.md](architecture.md), the options of a command in `resnet-zoo COMMAND -h`.

The examples are run by the tests. They assume `import resnet_zoo`, `import torch` and `from pathlib import Path`; their
images, checkpoints and folders stand for your own, and `...` in a result for what differs from machine to machine.
"""
_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example):")
_TITLES = {"Args": "Arguments"}
_LINE_LENGTH = 100


@dataclass(frozen=True)
class Module:
    """A module of the package, as its source says it."""

    name: str
    tree: ast.Module

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Public functions and classes of the module, by name."""
        found = (node for node in self.tree.body if isinstance(node, Definition))
        return {node.name: node for node in found if not node.name.startswith("_")}

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Names that come from other modules of the package: (module, its name there)."""
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom))
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in nodes
            if node.module and node.module.partition(".")[0] == PACKAGE
            for alias in node.names
        }


@dataclass(frozen=True)
class Named:
    """A function or class, and the module it stands in."""

    module: Module
    node: Definition


def read_modules(root: Path = ROOT) -> dict[str, Module]:
    """Parse every module of the package, by its dotted name."""
    modules = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = Module(name, ast.parse(path.read_text(encoding="utf-8")))
    return modules


def public_names(modules: Mapping[str, Module]) -> dict[str, Named]:
    """Find where every name of the package's stub, ``__init__.pyi``, is defined."""
    stub = Module(PACKAGE, ast.parse((ROOT / PACKAGE / "__init__.pyi").read_text(encoding="utf-8")))
    found = {name: resolve(name, stub, modules) for name in sorted(stub.imports)}
    missing = sorted(name for name, named in found.items() if named is None)
    if missing:
        raise click.ClickException(
            f"{PACKAGE}/__init__.pyi has names that are no function or class: {', '.join(missing)}"
        )
    return {name: named for name, named in found.items() if named is not None}


def resolve(name: str, module: Module, modules: Mapping[str, Module]) -> Named | None:
    """Find the function or class of the package that a name stands for in a module."""
    if name in module.definitions:
        return Named(module, module.definitions[name])
    source, original = module.imports.get(name, ("", ""))
    return resolve(original, modules[source], modules) if source in modules else None


def classes_behind(public: Mapping[str, Named], modules: Mapping[str, Module]) -> dict[str, Named]:
    """Return the other classes that public names return, hold or are made from, and those behind these."""
    found: dict[str, Named] = {}
    waiting = list(public.values())
    while waiting:
        named = waiting.pop()
        for name in _names_used(named.node):
            other = resolve(name, named.module, modules)
            if other and isinstance(other.node, ast.ClassDef) and other.node.name not in {*public, *found}:
                found[other.node.name] = other
                waiting.append(other)
    return dict(sorted(found.items()))


def _names_used(node: Definition) -> Iterator[str]:
    """Yield the names in what a function returns, and in a class's bases, fields and public methods' results."""
    if isinstance(node, Function):
        annotations = [node.returns]
    else:
        fields = [item.annotation for item in node.body if isinstance(item, ast.AnnAssign)]
        annotations = [*node.bases, *fields, *(method.returns for method in _methods(node))]
    for annotation in filter(None, annotations):
        yield from (item.id for item in ast.walk(annotation) if isinstance(item, ast.Name))


def _methods(node: ast.ClassDef) -> list[Function]:
    return [item for item in node.body if isinstance(item, Function) and not item.name.startswith("_")]


# --- Markdown -----------------------------------------------------------------------------------------------------


def api_page(modules: Mapping[str, Module]) -> str:
    """Return the reference of everything that ``import resnet_zoo`` gives, and of the classes behind it."""
    public = public_names(modules)
    others = classes_behind(public, modules)
    known = {*public, *others}
    groups = {
        "Functions": {name: item for name, item in public.items() if isinstance(item.node, Function)},
        "Classes": {
            name: item for name, item in public.items() if isinstance(item.node, ast.ClassDef) and not _is_error(name)
        },
        "Errors": {name: item for name, item in public.items() if _is_error(name)},
        "Classes behind them": others,
    }
    lines = [
        _NOTE,
        "# API reference\n",
        _ABOUT,
    ]
    for title, group in groups.items():
        links = [_link(name, known) for name in group]
        lines += [f"## {title}\n", ", ".join(links) + "\n"]
        for name, named in group.items():
            lines += _entry(name, named, known)
    return "\n".join(lines).rstrip() + "\n"


def _is_error(name: str) -> bool:
    return name.endswith(("Error", "Stopped"))


def _entry(name: str, named: Named, known: set[str]) -> list[str]:
    node = named.node
    lines = [f"### `{name}`\n", "```text", signature(node), "```\n", *markdown(ast.get_docstring(node), known)]
    if isinstance(node, Function):
        return lines
    bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in known]
    if bases:
        lines.append(f"A subclass of {', '.join(_link(base, known) for base in bases)}.\n")
    for method in _methods(node):
        lines += [f"#### `{name}.{method.name}`\n", "```text", signature(method), "```\n"]
        lines += markdown(ast.get_docstring(method), known)
    return lines


def signature(node: Definition) -> str:
    """Return how a function is called, or a class is made; on several lines where one is too short."""
    if isinstance(node, ast.ClassDef):
        name, parameters, result = node.name, _made_from(node), ""
    else:
        is_property = any(ast.unparse(item) in ("property", "cached_property") for item in node.decorator_list)
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        if is_property:
            return f"{node.name}{result.replace(' -> ', ': ')}"
        name, parameters = node.name, _parameters(node.args)
    line = f"{name}({', '.join(parameters)}){result}"
    if len(line) <= _LINE_LENGTH or not parameters:
        return line
    return "\n".join([f"{name}(", *(f"    {parameter}," for parameter in parameters), f"){result}"])


def _made_from(node: ast.ClassDef) -> list[str]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _parameters(item.args)
    is_dataclass = any("dataclass" in ast.unparse(item) for item in node.decorator_list)
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign)] if is_dataclass else []
    return [ast.unparse(item) for item in fields]


def _parameters(arguments: ast.arguments) -> list[str]:
    """Return the parameters one by one; neither ``self`` nor ``cls``."""
    kept = [argument for argument in arguments.args if argument.arg not in ("self", "cls")]
    defaults: list[ast.expr | None] = [*[None] * (len(kept) - len(arguments.defaults)), *arguments.defaults]
    found = [_parameter(*pair) for pair in zip(kept, defaults, strict=True)]
    if arguments.vararg:
        found.append(f"*{_parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        found.append("*")
    found += [_parameter(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return found + ([f"**{_parameter(arguments.kwarg, None)}"] if arguments.kwarg else [])


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg if argument.annotation is None else f"{argument.arg}: {ast.unparse(argument.annotation)}"
    if default is None:
        return text
    return f"{text}{' = ' if argument.annotation else '='}{ast.unparse(default)}"


def markdown(docstring: str | None, known: Iterable[str] = ()) -> list[str]:
    """Return a Google docstring as Markdown paragraphs and lists, each with an empty line after it."""
    lines: list[str] = []
    known = set(known)
    for title, body in _sections(inspect.cleandoc(docstring or "")):
        if not title:
            lines += [f"{paragraph}\n" for paragraph in linked(body, known).split("\n\n") if paragraph]
        elif title in ("Returns", "Yields"):
            lines.append(f"{title}: {linked(' '.join(body.split()), known)}\n")
        elif title == "Example":
            lines += ["Example:\n", "```python", textwrap.dedent(body).rstrip(), "```\n"]
        else:
            lines += [f"{_TITLES.get(title, title)}:\n", *(_item(item, known) for item in _items(body)), ""]
    return lines


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield (title, body) of a docstring's parts; the first has no title."""
    title, body = "", list[str]()
    for line in text.splitlines():
        match = _SECTION.fullmatch(line)
        if match or (title and line and not line.startswith(" ")):  # a paragraph may come after a section
            yield title, "\n".join(body).strip("\n")
            title, body = (match[1], []) if match else ("", [line])
        else:
            body.append(line)
    yield title, "\n".join(body).strip("\n")


def _items(body: str) -> list[str]:
    """Return the items of a section, each on one line."""
    items: list[str] = []
    for line in filter(str.strip, textwrap.dedent(body).splitlines()):
        if line.startswith(" "):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return items


def _item(item: str, known: set[str]) -> str:
    names, sign, text = item.partition(": ")
    if not sign:
        return f"- {linked(item, known)}"
    return f"- {', '.join(_link(name, known) for name in names.split(', '))}: {linked(text, known)}"


def linked(text: str, known: set[str]) -> str:
    """Return prose with code in single backticks, documented names as links, and nothing taken for HTML."""
    parts = re.split(r"``(.+?)``|`(.+?)`", text, flags=re.DOTALL)
    found = [parts[0].replace("<", "&lt;")]
    for double, single, prose in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found += [_link(double or single, known), prose.replace("<", "&lt;")]
    return "".join(found)


def _link(name: str, known: set[str]) -> str:
    return f"[`{name}`](#{name.lower()})" if name in known else f"`{name}`"


PAGES = {"api.md": api_page}


@click.command(help=__doc__)
@click.option("--check", is_flag=True, help="Change nothing; exit 1 if a page would change.")
def main(check: bool) -> None:
    modules = read_modules()
    for name, page in PAGES.items():
        path, after = DOCS / name, page(modules)
        if path.exists() and path.read_text(encoding="utf-8") == after:
            click.echo(f"{path.name} is up to date.")
        elif check:
            raise click.ClickException(f"docs/{path.name} is out of date; run python scripts/sync_docs.py")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(after, encoding="utf-8")
            click.echo(f"{path.name} updated.")


if __name__ == "__main__":
    main()
