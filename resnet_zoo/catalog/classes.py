"""Class names: one list per data set, and the rules for names from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resnet_zoo.base.strict_json import WrongValueError, expect, short

_LISTS = Path(__file__).parent / "class_lists"


def class_lists() -> list[str]:
    """Return the names of all lists."""
    return sorted(path.stem for path in _LISTS.glob("*.tsv"))


def class_names(classes: str) -> list[str]:
    """Return the names of a list of classes, in label order (ImageNet: all synonyms, comma-separated)."""
    return [line.split("\t")[-1] for line in _class_lines(classes)]


def class_folders(classes: str) -> list[str]:
    """Return the folder name of each class, in label order: the WordNet id for ImageNet, else the class name."""
    return [line.split("\t")[0] for line in _class_lines(classes)]


def _class_lines(classes: str) -> list[str]:
    return (_LISTS / f"{classes}.tsv").read_text(encoding="utf-8").splitlines()


def listed(names: Sequence[str], longest: int = 10) -> str:
    """Return names in a line; of more than ``longest`` only the first, and how many more there are."""
    shortest = [name.partition(",")[0] for name in names]  # ImageNet's have synonyms
    more = len(names) - longest
    return ", ".join(shortest) if more <= 0 else f"{', '.join(shortest[:longest])} and {more:,} more"


def limits_of(names: Sequence[str], edge: int, *, resizes: bool) -> str:
    """Return what a network of these classes and inputs of this edge cannot do, in sentences."""
    shrinks = "" if resizes else f" Larger images are shrunk to {edge}x{edge} pixels, and lose what is small in them."
    return (
        f"Every image is taken for one of its {len(names):,} classes; of anything else, a high probability says "
        f"nothing.{shrinks}"
    )


def check_class_names(names: Any, num_classes: int) -> None:
    """Check names of classes that came with a network.

    Raises:
        WrongValueError: They are not a list of one printable name per class.
    """
    where = ("class_names",)
    expect(isinstance(names, (list, tuple)), "a list of names", type(names).__name__, where)
    if len(names) != num_classes:
        raise WrongValueError(where, f"expected {num_classes} names, one per class, got {len(names)}")
    for label, name in enumerate(names):
        good = isinstance(name, str) and name and name.isprintable()  # it is printed: no terminal codes, no newlines
        if not good:
            raise WrongValueError((*where, label), f"expected a printable name, got {short(name)}")
