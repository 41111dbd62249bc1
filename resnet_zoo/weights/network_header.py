"""What a network file says of itself: the text in the header of a safetensors file that `save_network` writes.

Texts: ``format`` (``pt``, as other readers want), ``model`` (the row whose network it is), ``num_classes``,
``class_names``, ``preprocess`` and ``input_size``, the last three as JSON. A file may carry more: one that `finetune`
wrote says in ``validation``, ``test`` and ``finetuning_data`` what the network reached (`RecordedAccuracy`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from resnet_zoo.base.strict_json import WrongValueError, decode, expect, expect_sha256, parse, short
from resnet_zoo.catalog.classes import check_class_names
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import MAX_EDGE, Entry, Preprocess, to_json
from resnet_zoo.errors import CheckpointError, UnknownModelError
from resnet_zoo.weights.checkpoint import Checkpoint

FIELDS = ("format", "model", "num_classes", "class_names", "preprocess", "input_size")

TENSORS = "tensors_sha256"
"""A seventh text, which files of earlier versions lack: the fingerprint of the tensors that were saved."""

MAX_TEXT = 1 << 22
"""Characters of the longest text that is read: ImageNet-21k's names with all synonyms take a fifth of it."""

MAX_LEVEL = 1e6
"""Largest mean and standard deviation, and the inverse of the smallest: far beyond any for samples of 0 to 255, and far
within float32, in which images are normalised."""


@dataclass(frozen=True)
class NetworkHeader:
    """The facts that a network file adds to its row.

    Attributes:
        row: Name of the row whose network it is.
        class_names: In label order.
        preprocess: How an image gets in.
        input_size: Channels, height, width.
    """

    row: str
    class_names: tuple[str, ...]
    preprocess: Preprocess
    input_size: tuple[int, ...]

    @property
    def entry(self) -> Entry:
        """The row with this network's own number of classes, preprocessing and input size.

        Raises:
            UnknownModelError: The zoo has no such row.
        """
        return dataclasses.replace(
            get_entry(self.row),
            num_classes=len(self.class_names),
            preprocess=self.preprocess,
            input_size=self.input_size,
        )

    def as_text(self) -> dict[str, str]:
        """Return the header's texts."""
        return {
            "format": "pt",
            "model": self.row,
            "num_classes": str(len(self.class_names)),
            "class_names": json.dumps(list(self.class_names), ensure_ascii=False),
            "preprocess": json.dumps(to_json(self.preprocess)),
            "input_size": json.dumps(list(self.input_size)),
        }

    def check(self) -> None:
        """Check the values against each other and against what they may be.

        Raises:
            WrongValueError: One is not what it may be.
        """
        check_class_names(self.class_names, len(self.class_names))
        check_preprocess(self.preprocess, self.input_size)

    @classmethod
    def read(cls, texts: Mapping[str, str], path: str | os.PathLike[str]) -> NetworkHeader:
        """Read the texts of a file's header, which may say anything.

        Args:
            texts: The header.
            path: The file, for errors.

        Raises:
            CheckpointError: It is not a header of a network file, or makes no sense.
        """
        if not {"num_classes", "class_names"} & texts.keys():
            row = texts.get("model", "NAME")
            row = row if re.fullmatch(r"\w{1,64}", row) else "NAME"
            raise CheckpointError(
                path,
                "it does not say which network it holds. Name the model, and pass the file as its weights "
                f"({row} --weights {os.fspath(path)}).",
            )
        try:
            header = cls(**_decoded(texts))
            header.check()
            get_entry(header.row)
        except WrongValueError as error:
            raise CheckpointError(
                path, f"its header is wrong at {'.'.join(map(str, error.where))}: {error.why}."
            ) from error
        except UnknownModelError as error:
            raise CheckpointError(path, f"it names a model that this zoo does not have. {error}") from error
        return header


def _decoded(texts: Mapping[str, str]) -> dict[str, Any]:
    for field in FIELDS:
        if field not in texts:
            raise WrongValueError((field,), "missing field")
        if len(texts[field]) > MAX_TEXT:
            raise WrongValueError((field,), f"expected at most {MAX_TEXT} characters, got {len(texts[field])}")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", texts["num_classes"]):
        raise WrongValueError(("num_classes",), f"expected a positive integer, got {short(texts['num_classes'])}")
    names = _json(texts, "class_names")
    check_class_names(names, int(texts["num_classes"]))
    rules = decode(Preprocess, _json(texts, "preprocess"), ("preprocess",))
    return {
        "row": texts["model"],
        "class_names": tuple(names),
        "preprocess": rules,
        "input_size": decode(tuple[int, ...], _json(texts, "input_size"), ("input_size",)),
    }


def _json(texts: Mapping[str, str], field: str) -> Any:
    try:
        return parse(texts[field])
    except ValueError as error:
        raise WrongValueError((field,), f"expected JSON, got {short(texts[field])} ({error})") from error


def check_preprocess(rules: Preprocess, input_size: Sequence[int]) -> None:
    """Check how images get in, as a file of others says.

    Raises:
        WrongValueError: A size or number is not what it may be, or the steps do not fit together.
    """
    good_size = len(input_size) == 3 and all(1 <= number <= MAX_EDGE for number in input_size)
    if not good_size:
        raise WrongValueError(
            ("input_size",), f"expected channels, height and width of 1 to {MAX_EDGE}, got {short(list(input_size))}"
        )
    for field, lowest in (("mean", -MAX_LEVEL), ("std", 1 / MAX_LEVEL)):
        values = getattr(rules, field)
        if len(values) != 3 or not all(lowest <= value <= MAX_LEVEL for value in values):  # nor is NaN
            kind = f"three numbers of {lowest:g} to {MAX_LEVEL:g}"
            raise WrongValueError(("preprocess", field), f"expected {kind}, got {short(list(values))}")
    steps = (rules.resize_backend, rules.short_edge, rules.crop)
    if all(step is None for step in steps):
        return
    crop, short_edge = rules.crop or 0, rules.short_edge or 0
    if rules.resize_backend is None or not 1 <= crop <= short_edge <= MAX_EDGE or {crop} != set(input_size[1:]):
        raise WrongValueError(
            ("preprocess",),
            f"expected a resize_backend, and a crop of the input's {input_size[1]}x{input_size[2]} pixels from a "
            f"short_edge of up to {MAX_EDGE}, or none of the three; got {', '.join(map(str, steps))}",
        )


@dataclass(frozen=True)
class RecordedAccuracy:
    """What a file says its network reached on images that it was not trained on.

    Attributes:
        images: Which images: the test images, or the validation images where there were no others.
        num_images: How many.
        correct1: Of them, right with the best class.
        correct5: Right among the best five; ``None`` in files of an earlier version.
        images_sha256: Tells whether images are the same, see `images_sha256`.
        val_share: Share of each class that was held out, where no folder held such images.
        chose_epoch: Whether the same images chose the epoch, which flatters the network.
        device: Where it was measured.
        torch: The version it was measured with.
    """

    images: Literal["test", "validation"]
    num_images: int
    correct1: int
    correct5: int | None
    images_sha256: str
    val_share: float | None
    chose_epoch: bool
    device: str | None
    torch: str | None

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return 100 * self.correct1 / self.num_images

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> RecordedAccuracy | None:
        """Read what a file's header says, which may be anything; ``None`` if it says nothing of an accuracy.

        Raises:
            CheckpointError: It makes no sense.
        """
        texts, path = checkpoint.header, checkpoint.path
        kind: Literal["test", "validation"] = "test" if "test" in texts else "validation"
        if kind not in texts or "finetuning_data" not in texts:
            return None
        try:
            said, data = (_object(texts, key) for key in (kind, "finetuning_data"))
            top1 = decode(float, said.get("top1"), (kind, "top1"))
            facts = {
                "images": kind,
                **{key: said.get(key) for key in ("num_images", "correct1", "correct5", "device", "torch")},
                "images_sha256": data.get("test_sha256" if kind == "test" else "val_sha256"),
                "val_share": data.get("val_share"),
                "chose_epoch": said.get("chose_epoch", False),
            }
            recorded: RecordedAccuracy = decode(cls, facts, (kind,))
            recorded._check(top1)
        except WrongValueError as error:
            raise CheckpointError(
                path, f"its header is wrong at {'.'.join(map(str, error.where))}: {error.why}."
            ) from error
        return recorded

    def _check(self, top1: float) -> None:
        where = (self.images,)
        expect(self.num_images > 0, "a positive num_images", self.num_images, where)
        best5 = self.num_images if self.correct5 is None else self.correct5
        is_right = 0 <= self.correct1 <= best5 <= self.num_images
        expect(is_right, f"counts of up to {self.num_images} images", [self.correct1, self.correct5], where)
        expect(abs(top1 - self.top1) < 0.01, f"a top1 of {self.top1:.2f}, by its counts", top1, where)
        expect_sha256(self.images_sha256, ("finetuning_data",))
        expect(self.val_share is None or 0 <= self.val_share < 1, "a share below 1", self.val_share, where)


def _object(texts: Mapping[str, str], field: str) -> dict[str, Any]:
    if len(texts[field]) > MAX_TEXT:
        raise WrongValueError((field,), f"expected at most {MAX_TEXT} characters, got {len(texts[field])}")
    found = _json(texts, field)
    expect(isinstance(found, dict), "an object", found, (field,))
    return dict(found)
