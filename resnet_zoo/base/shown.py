"""Text of others as it may be shown: printable, short, and without the secrets that addresses carry.

Keys of a checkpoint, names of files, the words of a server: whoever wrote them may have put codes for the terminal
into them, or a megabyte. Every `ZooError`, table and bar goes through `shown`, and every address through
`shown_address`, also where it is stored.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import urlsplit

LONGEST_NAME, LONGEST_SENTENCE = 200, 4000
"""Characters shown of a name, and of a sentence made of several; what is longer loses its middle."""

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}://"
_ADDRESS = re.compile(rf"{_SCHEME}[^\s'\"<>]*[^\s'\"<>.,;:)\]}}]")
_JOINERS = "\u200c\u200d"
"""Invisible, but part of Persian words and of emoji."""


def shown(text: object, longest: int = LONGEST_NAME, *, keep: str = "") -> str:
    r"""Return text as it may be shown: what is not printable as escapes, and addresses as `shown_address` has them.

    Args:
        text: Anything; its ``str`` is taken.
        longest: Characters of it that are shown; the middle of a longer text is left out.
        keep: Characters that stay although they are not printable, such as ``\n``.
    """
    text = _ADDRESS.sub(lambda found: shown_address(found[0]), str(text))
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}… ({len(text) - 2 * half} more characters) …{text[len(text) - half :]}"
    return printable(text, keep=keep)


def printable(text: str, *, keep: str = "") -> str:
    """Return text with escapes in place of what is not printable: codes for a terminal, halves of characters."""
    if text.isprintable():
        return text
    return "".join(c if c in keep or _is_printable(c) else c.encode("unicode_escape").decode() for c in text)


def _is_printable(character: str) -> bool:
    """Tell whether a character only puts ink or room on the screen; Python counts rare spaces as not printable."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def shown_address(address: str) -> str:
    """Return an address as it may be shown and stored: without user, password, query and fragment.

    Of one that cannot be read, whose password may be anywhere in it, only the scheme is left. A path is not changed.
    """
    if not re.match(_SCHEME, address):
        return address
    try:
        parts = urlsplit(address)
        _ = parts.port  # what stands there instead may belong to a password with a slash in it
    except ValueError:
        return f"{address.partition('://')[0]}://…"
    host = parts.netloc if parts.scheme == "hf" else parts.netloc.rpartition("@")[2]  # hf://owner@… names a revision
    return parts._replace(netloc=host, query="", fragment="").geturl()


def quantity(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 image``, ``2 images``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names close matches, after a space; empty if there are none."""
    import difflib  # here, because it would slow down every import of the package

    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""
