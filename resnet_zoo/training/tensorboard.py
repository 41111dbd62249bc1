"""The log as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnet_zoo.errors import ArgumentError
from resnet_zoo.runs.records import LogEpoch, LogLine, LogStep


def summary_writer() -> Any:
    """Return TensorBoard's class that writes event files.

    Raises:
        ArgumentError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ArgumentError("TensorBoard is not installed: pip install 'resnet-zoo[train]'.") from error
    return SummaryWriter


def tensorboard_writer(folder: Path) -> Callable[[LogLine], None]:
    """Return a function that writes log lines as scalars into ``<folder>/tensorboard``.

    Raises:
        ArgumentError: TensorBoard is not installed.
    """
    writer = summary_writer()(str(folder / "tensorboard"))

    def write(line: LogLine) -> None:
        if isinstance(line, LogStep):
            scalars: dict[str, float | None] = {"loss/step": line.loss, "lr": line.lr}
        elif isinstance(line, LogEpoch):
            scalars = {
                "loss/epoch": line.loss,
                "images_per_s": line.images_per_s,
                "top1/train": line.top1_train,
                "top1/test": line.top1,
                "top5/test": line.top5,
            }
        else:
            return
        for name, value in scalars.items():
            if value is not None:
                writer.add_scalar(name, value, line.step)
        writer.flush()

    return write
