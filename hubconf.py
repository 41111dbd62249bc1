"""Entry points for ``torch.hub``: one function for every row and alias of the manifest.

``torch.hub.load("org/resnet_zoo", "resnet50", pretrained=True)``
"""

import os as _os
from typing import Any as _Any

from resnet_zoo import create_model as _create_model
from resnet_zoo.catalog.manifest import current_manifest as _current_manifest
from resnet_zoo.catalog.records import Entry as _Entry

dependencies = ["torch", "torchvision", "safetensors", "huggingface_hub", "requests", "filelock", "rich"]


def _entry_point(name: str, entry: _Entry) -> _Any:
    def load(
        pretrained: bool = False,
        *,
        weights: "str | _os.PathLike[str] | None" = None,
        num_classes: "int | None" = None,
        in_channels: int = 3,
        output_stride: "int | None" = None,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        device: _Any = None,
    ) -> _Any:
        return _create_model(
            name,
            pretrained=pretrained,
            weights=weights,
            num_classes=num_classes,
            in_channels=in_channels,
            output_stride=output_stride,
            drop_rate=drop_rate,
            global_pool=global_pool,
            device=device,
        )

    published, channels = entry.published, "x".join(map(str, entry.input_size))
    load.__name__ = load.__qualname__ = name
    load.__doc__ = f"""{published.label} for {entry.dataset}.

    Published: {published.params_m} M parameters, {published.flops_g} GFLOPs, top-1 {published.top1} %,
    top-5 {published.top5} % ({published.source}).
    Input: {channels}, normalised by resnet_zoo.create_transform({entry.name!r}).

    Args:
        pretrained: Load the row's default weights; raises if they are unavailable.
        weights: A tag ({", ".join(entry.weights)}), or the path of a .safetensors or .pth file.
        num_classes: Another number of classes than {entry.num_classes}: a freshly initialised classifier; 0: none.
        in_channels: Another number of image channels: the first convolution is adapted.
        output_stride: How many times smaller than the image the last maps are, 8 or 16 for dense prediction.
        drop_rate: Probability with which values before the classifier are dropped in training.
        global_pool: avg, max, avgmax, or empty (with num_classes=0) for maps instead of vectors.
        device: Where the network ends up.

    Returns:
        A torch.nn.Module that maps (N, {", ".join(map(str, entry.input_size))}) to (N, {entry.num_classes}) logits.
    """
    return load


globals().update(
    {name: _entry_point(name, entry) for entry in _current_manifest().models for name in (entry.name, *entry.aliases)}
)
