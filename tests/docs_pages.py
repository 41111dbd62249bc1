"""The pages of the documentation: their code blocks, and what can be told of them without running anything.

A block that is not run in the default tests says why in a comment on the line before it:
``<!-- not run: needs Slurm -->``, ``<!-- slow -->``, ``<!-- slow, needs: onnx onnxruntime -->``.
"""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click

import resnet_zoo
from resnet_zoo.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

LANGUAGES = {"python", "bash", "console", "text", "bibtex"}
_BLOCK = re.compile(r"^(?:<!-- ([^\n]*) -->\n)?```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"not run: (?P<why>.{8,})|slow(?:, needs: (?P<needs>[\w ]+))?")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_OPTION = re.compile(r"--?[a-z][\w-]*")
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_FOREIGN_OPTIONS = {"-m", "-e"}
"""Options in the prose that are of no program of ours."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text, and the comment before it."""

    page: str
    line: int
    language: str
    text: str
    comment: str

    @property
    def title(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def mark(self) -> re.Match[str] | None:
        return _MARK.fullmatch(self.comment)

    @property
    def why_not_run(self) -> str | None:
        return self.mark["why"] if self.mark else None

    @property
    def is_slow(self) -> bool:
        return self.mark is not None and self.why_not_run is None

    @property
    def needs(self) -> tuple[str, ...]:
        """Modules without which it cannot be run."""
        return tuple((self.mark["needs"] or "").split()) if self.mark else ()

    @property
    def is_code(self) -> bool:
        return self.language in ("python", "bash", "console")

    def commands(self) -> Iterator[tuple[int, str]]:
        """Yield the line number and the text of each command of a shell block; comments and empty lines are none."""
        if self.language == "console":
            yield from ((line, command) for line, command, _ in self.session())
            return
        command, begin = "", 0
        for number, line in enumerate(self.text.splitlines(), start=self.line + 1):
            begin = begin if command else number
            command += line
            if command.endswith("\\"):
                command = command[:-1]
            else:
                if command.strip() and not command.lstrip().startswith("#"):
                    yield begin, command
                command = ""

    def session(self) -> Iterator[tuple[int, str, str]]:
        """Yield the line number and the text of each command of a ``console`` block, and what it prints."""
        for match in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", self.text, re.MULTILINE):
            yield self.line + 1 + self.text.count("\n", 0, match.start()), match[1], match[2]


def build_docs(folder: Path, configuration: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    """Build the documentation as a site, where each warning is an error."""
    command = ["mkdocs", "build", "--strict", "--site-dir", str(folder), "--config-file", str(configuration)]
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT)


def blocks_of(text: str, page: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [
        Block(page, text.count("\n", 0, match.start(3)), match[2], match[3], match[1] or "")
        for match in _BLOCK.finditer(text)
    ]


def read_blocks(path: Path) -> list[Block]:
    return blocks_of(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())


def complaints(text: str, path: Path) -> list[str]:
    """Return what is wrong with a page that stands at a path, without running anything."""
    blocks = blocks_of(text, path.name)
    found = [f"{block.title}: {fault}" for block in blocks for fault in _faults_of(block)]
    prose = _BLOCK.sub("", text)
    if "```" in prose:
        found.append(f"{path.name}: a fence that opens or ends no block")
    found += [f"{path.name}: {fault}" for code in re.findall(r"`([^`\n]+)`", prose) for fault in _inline_faults(code)]
    return found + [f"{path.name}: {fault}" for fault in _wrong_links(prose, path)]


def _faults_of(block: Block) -> Iterator[str]:
    if block.language not in LANGUAGES:
        yield f"unknown language {block.language!r}"
    if block.comment and block.mark is None:
        yield f"a mark without a reason: {block.comment!r}"
    if block.language == "python":
        yield from _python_faults(block.text)
    if block.language == "console" and not block.text.startswith("$ "):
        yield "a console that begins without a prompt"
    if block.language == "console":
        for _, command in block.commands():
            yield from _command_faults(command)
    if block.language == "bash":
        syntax = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
        if syntax.returncode:
            yield syntax.stderr.strip()
            return
        for _, command in block.commands():
            yield from _command_faults(command)


# --- Python -------------------------------------------------------------------------------------------------------


def _python_faults(text: str) -> Iterator[str]:
    """Yield syntax errors, and names of the package that are not there."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"no Python: {error}"
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "resnet_zoo":
            module = importlib.import_module(node.module or "")
            yield from (f"{node.module} has no {a.name}" for a in node.names if not hasattr(module, a.name))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "resnet_zoo":
            yield from () if hasattr(resnet_zoo, node.attr) else (f"resnet_zoo has no {node.attr}",)


# --- commands -----------------------------------------------------------------------------------------------------


def split(command: str) -> list[str]:
    """Return the words of a command line, operators of the shell as words of their own."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    return list(lexer)


def is_operator(word: str) -> bool:
    return bool(word) and not set(word) - set("();<>|&")


def simple_commands(command: str) -> Iterator[list[str]]:
    """Yield the words of each program called in a command line, variables set before it left out."""
    words: list[str] = []
    for word in [*split(command), ";"]:
        if is_operator(word):
            if words:
                yield words
            words = []
        elif words or not _ASSIGNMENT.fullmatch(word):
            words.append(word)


@cache
def script(name: str) -> click.Command:
    """Return the command of one of our scripts."""
    folder = str(ROOT / "scripts")
    if folder not in sys.path:
        sys.path.append(folder)  # benchmark.py has modules beside it
    found = runpy.run_path(str(ROOT / "scripts" / name))["main"]
    return found if isinstance(found, click.Command) else click.Command(name)


def program_of(words: list[str]) -> tuple[click.Command, list[str]] | None:
    """Return our program that a command calls, and its arguments; ``None`` for others."""
    if words[0] == "resnet-zoo":
        return main, words[1:]
    if "resnet_zoo" in words and words[words.index("resnet_zoo") - 1] == "-m":
        return main, words[words.index("resnet_zoo") + 1 :]
    for at, word in enumerate(words):
        if match := re.fullmatch(r"scripts/(\w+\.py)", word):
            return script(match[1]), words[at + 1 :]
    return None


def _command_faults(command: str) -> Iterator[str]:
    for words in simple_commands(command):
        called = program_of(words)
        if called is not None:
            yield from _usage_faults(*called)


def _usage_faults(program: click.Command, arguments: list[str]) -> Iterator[str]:
    """Yield what click says against arguments; nothing is called."""
    try:
        program, arguments = _descend(program, arguments)
        program.make_context(program.name, arguments, help_option_names=["-h", "--help"])
    except click.UsageError as error:
        yield f"{program.name} {' '.join(arguments)}: {error.format_message()}"


def _descend(program: click.Command, arguments: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that a group's arguments lead to, and its own arguments."""
    while isinstance(program, click.Group):
        context = click.Context(program, info_name=program.name, help_option_names=["-h", "--help"])
        _, rest, _ = program.make_parser(context).parse_args(list(arguments))
        if not rest:
            raise click.UsageError(f"{program.name} without a command")
        command = program.get_command(context, rest[0])
        if command is None:
            raise click.UsageError(f"{program.name} has no command {rest[0]!r}")
        program, arguments = command, rest[1:]
    return program, arguments


def _inline_faults(code: str) -> Iterator[str]:
    """Yield commands of ours, named in the prose, that do not exist, and options that no program of ours has."""
    words = code.split()
    called = program_of(words) if words[0] in ("resnet-zoo", "python") else None
    if called is None:
        if _OPTION.fullmatch(words[0]) and words[0] not in _all_options() | _FOREIGN_OPTIONS:
            yield f"no program of ours has {words[0]}"
        return
    program, arguments = called
    while isinstance(program, click.Group) and arguments:
        if arguments[0] in ("COMMAND", "-h"):
            return
        command = program.commands.get(arguments[0])
        if command is None:
            yield f"resnet-zoo has no command {arguments[0]!r}"
            return
        program, arguments = command, arguments[1:]
    known = {option for parameter in program.params for option in parameter.opts} | {"-h", "--help"}
    yield from (f"{program.name} has no {word}" for word in arguments if _OPTION.fullmatch(word) and word not in known)


@cache
def _all_options() -> frozenset[str]:
    programs: list[click.Command] = [main, *(script(path.name) for path in (ROOT / "scripts").glob("*.py"))]
    options: set[str] = {"-h", "--help"}
    while programs:
        program = programs.pop()
        options.update(*([*parameter.opts, *parameter.secondary_opts] for parameter in program.params))
        if isinstance(program, click.Group):
            programs += program.commands.values()
    return frozenset(options)


# --- links --------------------------------------------------------------------------------------------------------


def _wrong_links(prose: str, path: Path) -> Iterator[str]:
    for link in _LINK.findall(prose):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if file and not target.exists():
            yield f"a link to {link}, which is not there"
        elif anchor and anchor not in _anchors(prose if not file else target.read_text(encoding="utf-8")):
            yield f"a link to {link}: there is no such heading"


def _anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}
