"""The docstrings as the reference shows them: a documented name in single backticks is a link to its entry."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from griffe import Extension, Object

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"

_NAME = re.compile(r"(?<![`\w\]])`(\w+)`(?![`\w])")
_EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
_LIST_GOES_ON = re.compile(r"^( +)((?:\w+, )*\w+),\n +(?=\w+[,:])", re.MULTILINE)
_SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+): ((?:.+\n?)(?:\1 +.+\n?)*)", re.MULTILINE)


@cache
def documented() -> dict[str, str]:
    """Return the full name of everything that a page of the reference documents, by its last part."""
    pages = "".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    return {name.rpartition(".")[2]: name for name in re.findall(r"^::: (\S+)$", pages, re.MULTILINE)}


def as_shown(docstring: str) -> str:
    """Return a docstring with links, and written as Griffe reads it.

    Its section of examples has the plural, names that share a description stand on one line, and parameters that do
    each have their own.
    """

    def link(match: re.Match[str]) -> str:
        name = documented().get(match[1])
        return match[0] if name is None else f"[`{match[1]}`][{name}]"

    def one_by_one(match: re.Match[str]) -> str:
        indent, names, text = match.groups()
        if names[0].isupper():  # errors
            return match[0]
        return "".join(f"{indent}{name}: {text.rstrip()}\n" for name in names.split(", "))

    while _LIST_GOES_ON.search(docstring):
        docstring = _LIST_GOES_ON.sub(r"\1\2, ", docstring)
    return _EXAMPLE.sub(r"\1Examples:", _NAME.sub(link, _SEVERAL.sub(one_by_one, docstring)))


class NamesAsLinks(Extension):
    """Changes every docstring as `as_shown` does."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of one object that Griffe has read."""
        if obj.docstring is not None:
            obj.docstring.value = as_shown(obj.docstring.value)
