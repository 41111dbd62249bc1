"""An output that is infinite or NaN is not an answer: it is refused, and the layer named that it comes from."""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from resnet_zoo.errors import NonFiniteOutputError

_WRAPPERS = re.compile(r"(?:network\.|module\.|_orig_mod\.)+")
"""Begins the names of layers in what this package, DataParallel and torch.compile put around a network."""


def check_finite(output: Tensor, model: nn.Module, x: Tensor) -> None:
    """Refuse an output with values that are infinite or NaN.

    Args:
        output: What the model gave for ``x``.
        model: The network; it is run once more to find the layer, as a copy, because others may be using it.
        x: Normalised images (N, C, H, W).

    Raises:
        NonFiniteOutputError: Names the first layer whose output is not finite.
    """
    if not output.isfinite().all():
        layer, tensor = _origin(copy.deepcopy(model), x)
        if tensor:
            why = f"its {tensor} holds such values itself. Fetch or make the weights again."
        else:
            why = "its own values are finite. Compute in float32 (without --fast), or use other weights."
        raise NonFiniteOutputError(f"The output is NaN or infinite, first behind {layer}: {why}")


class LateCheck:
    """Checks outputs one batch late, so that an accelerator is never waited for while it computes."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._last: tuple[Tensor, Tensor] | None = None

    def add(self, output: Tensor, x: Tensor) -> None:
        """Check the output before this one, as `check_finite` does, and remember this one."""
        self.finish()
        self._last = output, x

    def finish(self) -> None:
        """Check the last output."""
        if self._last is not None:
            output, x = self._last
            check_finite(output, self._model, x)


def _origin(model: nn.Module, x: Tensor) -> tuple[str, str]:
    """Return the first layer whose output is not finite, and which of its own tensors is not; empty if none is."""
    if not x.isfinite().all():
        return "the normalisation of the image", ""
    found: list[tuple[str, str]] = []

    def look(name: str, layer: nn.Module, output: Any) -> None:
        if not found and isinstance(output, Tensor) and not output.isfinite().all():
            own = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
            found.append((name, next((key for key, tensor in own if not tensor.isfinite().all()), "")))

    for module in model.modules():
        if "engine" in vars(module):  # an optimised network's, which computes without the layers
            vars(module)["engine"] = None
    for name, layer in model.named_modules():
        if not any(layer.children()):
            shown = _WRAPPERS.sub("", name, count=1) if _WRAPPERS.match(name) else name
            layer.register_forward_hook(lambda layer, _input, output, name=shown: look(name, layer, output))
    with torch.inference_mode():
        model(x)
    return found[0] if found else ("the last layer", "")
