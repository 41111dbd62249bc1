"""How the maps of the last stage become a vector, by timm's names.

The published weights were trained with the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from resnet_zoo.errors import ArgumentError


class AvgMaxPool(nn.Module):
    """The mean of each map's mean and maximum, as timm's ``AdaptiveAvgMaxPool2d``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, 1, 1) for maps (N, C, H, W)."""
        return 0.5 * (nn.functional.adaptive_avg_pool2d(x, 1) + nn.functional.adaptive_max_pool2d(x, 1))


POOLS: dict[str, Callable[[], nn.Module]] = {
    "avg": partial(nn.AdaptiveAvgPool2d, 1),
    "max": partial(nn.AdaptiveMaxPool2d, 1),
    "avgmax": AvgMaxPool,
    "": nn.Identity,
}
"""What makes a vector of maps, by timm's names."""


def check_global_pool(global_pool: str, num_classes: int) -> None:
    """Check that a network with so many classes can pool so.

    Raises:
        ArgumentError: It cannot.
    """
    if global_pool not in POOLS:
        raise ArgumentError(f"Expected a global_pool of avg, max, avgmax or '', got {global_pool!r}.")
    if not global_pool and num_classes:
        raise ArgumentError("Without pooling there is no classifier: global_pool='' goes with num_classes=0.")
