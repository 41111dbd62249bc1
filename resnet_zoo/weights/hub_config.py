"""The configuration of a network on the Hugging Face Hub: ``config.json`` as timm reads and writes it.

The key ``resnet_zoo`` in it adds what timm has no word for, above all the sha256 of the weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_zoo.base.strict_json import WrongValueError, decode, expect, is_sha256, parse, short
from resnet_zoo.catalog.classes import check_class_names
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, Preprocess, ResizeBackend, to_json
from resnet_zoo.errors import CheckpointError, UnknownModelError
from resnet_zoo.weights.network_header import MAX_TEXT, check_preprocess

if TYPE_CHECKING:
    from torch import nn

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

_TIMM_NAMES = {f"resnetv1d{depth}": f"resnet{depth}d" for depth in (50, 101, 152)}
_ROWS_OF_TIMM = {
    **{f"resnet{depth}": f"resnet{depth}_in1k" for depth in (18, 34, 50, 101, 152)},
    **{f"resnet{depth}d": f"resnetv1d{depth}_in1k" for depth in (50, 101, 152)},
}
"""The row whose network and keys a timm architecture has."""


@dataclass(frozen=True)
class HubConfig:
    """What a repository's ``config.json`` says.

    Attributes:
        entry: The row whose network it is, with this one's number of classes, preprocessing and input size.
        in_channels: Its image channels.
        class_names: Names of the classes in label order, if it says them.
        sha256: Of the weights; ``None`` in a configuration of timm's.
    """

    entry: Entry
    in_channels: int
    class_names: tuple[str, ...] | None
    sha256: str | None

    @classmethod
    def read(cls, content: bytes, path: Path) -> HubConfig:
        """Read a configuration of ours or of timm.

        Args:
            content: The file's.
            path: The file, for errors.

        Raises:
            CheckpointError: It is not a configuration of a network in the table.
        """
        try:
            if len(content) > MAX_TEXT:
                raise ValueError(f"expected at most {MAX_TEXT} bytes, got {len(content)}")
            raw = parse(content)
            ours = raw.get("resnet_zoo", {})
            row = ours["name"] if ours else _row_of_timm(raw)
            if not isinstance(row, str):
                raise TypeError(f"expected the name of a model, got {row!r}")
            entry = _with_preprocess(get_entry(row), raw, ours)
            num_classes = _positive(_first(raw, "num_classes", entry.num_classes))
            names = ours.get("class_names")
            if names is not None:
                check_class_names(names, num_classes)
            config = cls(
                entry=dataclasses.replace(entry, num_classes=num_classes),
                in_channels=_positive(ours["in_channels"] if ours else _timm_channels(raw)),
                class_names=tuple(names) if names else None,
                sha256=ours["sha256"] if ours else None,
            )
        except WrongValueError as error:
            raise CheckpointError(path, f"it is wrong at {'.'.join(map(str, error.where))}: {error.why}.") from error
        except UnknownModelError as error:
            raise CheckpointError(path, f"it names a model that this zoo does not have. {error}") from error
        except KeyError as error:
            known = ", ".join(_ROWS_OF_TIMM)
            why = f"{error.args[0]!r} is missing, or is not an architecture of this zoo (known from timm: {known})."
            raise CheckpointError(path, why) from error
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(path, f"it is not a configuration of a network ({error}).") from error
        if config.sha256 is not None and not is_sha256(str(config.sha256)):
            raise CheckpointError(path, f"expected a sha256 of 64 hex digits, got {config.sha256!r}.")
        return config


def _first(raw: Mapping[str, Any], key: str, otherwise: Any) -> Any:
    """Return a value from the configuration, or from timm's block within it, where older files have it."""
    return raw[key] if key in raw else raw.get("pretrained_cfg", {}).get(key, otherwise)


_BACKENDS: dict[str, ResizeBackend] = {"bilinear": "pillow", "bicubic": "pillow_bicubic"}
"""timm's interpolations: Pillow's, antialiased."""


def _with_preprocess(entry: Entry, raw: Mapping[str, Any], ours: Mapping[str, Any]) -> Entry:
    """Return a row with the preprocessing that a configuration says; of timm's, a row that does not resize has its own.

    Raises:
        WrongValueError: It is none that this package knows.
    """
    block = {**raw, **(raw.get("pretrained_cfg") or {})}
    size = block.get("input_size")
    says_how = bool(ours) or {"mean", "std"} <= block.keys()  # older files of timm do not
    if size is None or not says_how or (not ours and entry.preprocess.resize_backend is None):
        return entry
    channels, height, width = map(_positive, size)
    if ours:
        rules = decode(Preprocess, ours.get("preprocess", to_json(entry.preprocess)), ("preprocess",))
    else:
        rules = _timm_rules(block, height)
    check_preprocess(rules, (channels, height, width))
    return dataclasses.replace(entry, preprocess=rules, input_size=(entry.input_size[0], height, width))


def _timm_rules(block: Mapping[str, Any], size: int) -> Preprocess:
    interpolation = block.get("interpolation", "bicubic")
    expect(interpolation in _BACKENDS, f"one of {', '.join(_BACKENDS)}", interpolation, ("interpolation",))
    mode = block.get("crop_mode", "center")
    expect(mode == "center", "center", mode, ("crop_mode",))
    share = block.get("crop_pct", _TIMM_CROP_SHARE)
    is_share = isinstance(share, (int, float)) and 0.01 <= share <= 1
    expect(is_share, "a share of the short edge, 0.01 to 1", share, ("crop_pct",))
    mean, std = (tuple(round(255 * value, 6) for value in block[key]) for key in ("mean", "std"))
    return Preprocess(_BACKENDS[interpolation], math.floor(size / share), size, mean, std)


_TIMM_CROP_SHARE = 0.875
"""What timm crops where a configuration does not say (timm.data.constants.DEFAULT_CROP_PCT)."""


def _row_of_timm(raw: Mapping[str, Any]) -> str:
    """Return the row with a timm architecture's network, as long as nothing in the configuration changes it."""
    changes = sorted(set(raw.get("model_args") or {}) - {"in_chans", "num_classes"})
    if raw.get("global_pool", "avg") != "avg":
        changes.append("global_pool")
    if changes:
        raise ValueError(f"it changes the network by {', '.join(changes)}, which no model of this zoo has")
    return _ROWS_OF_TIMM[raw["architecture"]]


def _timm_channels(raw: Mapping[str, Any]) -> Any:
    size = _first(raw, "input_size", (3,))
    return (raw.get("model_args") or {}).get("in_chans", size[0])


def _positive(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"expected a positive integer, got {short(value)}")
    return value


def config_content(
    entry: Entry, classifier: nn.Linear, in_channels: int, class_names: Sequence[str] | None, sha256: str
) -> dict[str, Any]:
    """Return the configuration of a network: what timm reads, and under ``resnet_zoo`` what it has no word for.

    Args:
        entry: The row whose network it is.
        classifier: Its classifier.
        in_channels: Its image channels.
        class_names: Names of the classes, in label order, if they are known.
        sha256: Of the weights.
    """
    config: dict[str, Any] = {
        "architecture": _timm_name(entry),
        "num_classes": classifier.out_features,
        "num_features": classifier.in_features,
        "pretrained_cfg": _timm_preprocess(entry, classifier.out_features, in_channels),
        "resnet_zoo": {
            "name": entry.name,
            "in_channels": in_channels,
            "class_names": None if class_names is None else list(class_names),
            "preprocess": to_json(entry.preprocess),
            "sha256": sha256,
        },
    }
    if in_channels != 3:
        config["model_args"] = {"in_chans": in_channels}
    return config


def _timm_name(entry: Entry) -> str:
    """Return timm's name of a row's network. Its 3x3 stem for CIFAR has none there: timm shall say that at once."""
    name = _TIMM_NAMES.get(entry.architecture, entry.architecture)
    return f"{name}_cifar" if entry.stem == "cifar" else name


def _timm_preprocess(entry: Entry, num_classes: int, in_channels: int) -> dict[str, Any]:
    rules, (_, height, width) = entry.preprocess, entry.input_size
    share = rules.crop / rules.short_edge if rules.crop and rules.short_edge else 1.0
    return {
        "num_classes": num_classes,
        "input_size": [in_channels, height, width],
        "fixed_input_size": False,
        "interpolation": "bicubic" if rules.resize_backend == "pillow_bicubic" else "bilinear",
        "crop_pct": share,
        "crop_mode": "center",
        "mean": [round(value / 255, 6) for value in rules.mean],
        "std": [round(value / 255, 6) for value in rules.std],
        "first_conv": "conv1.0" if entry.stem == "deep" else "conv1",
        "classifier": "fc",
    }
