"""From an image to a network's input, bit for bit as upstream did it.

Preprocessing belongs to the row: the plain ImageNet rows were trained with OpenCV's two-tap bilinear resize, the V1D
rows with Pillow's antialiased one. Mixing them up changes pixels by up to 135 of 255 and top-1 by 0.1 to 0.6 points.
Both are exact here: every pixel equals that of mmpretrain's own pipeline.

Shapes: decoded images are (H, W, 3) uint8 RGB arrays, network inputs (3, H, W) float32 tensors.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, Preprocess, used_with
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.decode import FileSource, Member, Pixels, decode, title_of
from resnet_zoo.images.resize import resize_crop_like_cv2, resize_crop_like_pillow

_LOG = logging.getLogger("resnet_zoo")

ImageSource = FileSource | Image.Image | npt.NDArray[Any] | Tensor

_SINGLE = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, Member)


def each_image(images: ImageSource | Iterable[ImageSource]) -> Iterable[ImageSource]:
    """Return one image or several as an iterable: arrays of paths, and batches (N, H, W, 3) or (N, 3, H, W), too."""
    if isinstance(images, np.ndarray) and images.dtype.kind in "OTU":  # objects and texts: paths
        return images.ravel().tolist()
    if isinstance(images, (np.ndarray, Tensor)):
        return images if images.ndim == 4 else [images]
    return [images] if isinstance(images, _SINGLE) else images


class Transform:
    """Turns an image from any source into the input of one model.

    Args:
        preprocess: The model's rules.
        input_size: (C, H, W) of the model.
        any_size: For models that never resize (CIFAR): shrink or enlarge an image of another size (Pillow's bilinear
            filter on the short edge, centre crop) instead of refusing it. The published numbers involve no such step.
    """

    def __init__(self, preprocess: Preprocess, input_size: tuple[int, ...], *, any_size: bool = False) -> None:
        self.preprocess = preprocess
        self.height, self.width = input_size[1:]
        self.any_size = any_size
        self.notice: str | None = None
        """A warning for the log when, for the first time, ``any_size`` shrinks an image to less than half."""
        # Whatever the caller's default type and device are.
        self.mean = torch.tensor(preprocess.mean, dtype=torch.float32, device="cpu").view(3, 1, 1)
        self.std = torch.tensor(preprocess.std, dtype=torch.float32, device="cpu").view(3, 1, 1)

    def __call__(self, image: ImageSource) -> Tensor:
        """Return the normalised input (3, H, W), float32, on the CPU; for a batch of images the inputs (N, 3, H, W).

        Args:
            image: A path, the bytes of an image file, a PIL image, an (H, W, 3) uint8 RGB array, or a uint8 tensor
                (3, H, W), (1, H, W) if grey, as ``torchvision.io.decode_image`` and ``v2.ToImage`` return; or a batch
                of such tensors (N, 3, H, W).

        Raises:
            DatasetError: The image is missing, unreadable, or of a size the model does not take.
        """
        if isinstance(image, Tensor) and image.ndim == 4:
            inputs = torch.empty(len(image), 3, self.height, self.width, dtype=torch.float32, device="cpu")
            for one, source in zip(inputs, image, strict=True):
                one.copy_(self(source))
            return inputs
        return self.normalise(torch.from_numpy(self.pixels(image)).permute(2, 0, 1))

    def pixels(self, image: ImageSource) -> Pixels:
        """Return the decoded, resized and cropped image before normalisation, (H, W, 3) uint8.

        Raises:
            DatasetError: As for a call.
        """
        decoded = image if isinstance(image, (np.ndarray, Tensor)) else decode(image)
        try:
            return self._resized_and_cropped(_as_array(decoded) if isinstance(decoded, Tensor) else decoded)
        except DatasetError as error:
            raise DatasetError(f"{title_of(image)} {error}") from error

    def _resized_and_cropped(self, decoded: Pixels) -> Pixels:
        if decoded.ndim != 3 or decoded.shape[2] != 3 or decoded.dtype != np.uint8 or decoded.size == 0:
            raise DatasetError(f"is a {decoded.dtype} array {decoded.shape}; expected (H, W, 3) uint8 RGB.")
        rules = self.preprocess
        if rules.resize_backend == "cv2" and rules.short_edge and rules.crop:
            return resize_crop_like_cv2(decoded, rules.short_edge, rules.crop)
        if rules.resize_backend in ("pillow", "pillow_bicubic") and rules.short_edge and rules.crop:
            is_bicubic = rules.resize_backend == "pillow_bicubic"
            return resize_crop_like_pillow(decoded, rules.short_edge, rules.crop, bicubic=is_bicubic)
        if decoded.shape[:2] == (self.height, self.width):
            return np.require(decoded, requirements=["C", "W"])  # torch requires both
        if self.any_size:
            if max(decoded.shape[:2]) > 2 * self.height and self.notice:
                notice, self.notice = self.notice, None
                _LOG.warning(notice)
            return resize_crop_like_pillow(decoded, self.height, self.height)
        height, width = decoded.shape[:2]
        raise DatasetError(
            f"is {width}x{height} pixels, and this model takes {self.width}x{self.height} only. Resize it, "
            "or pass any_size=True to resize it automatically."
        )

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return (pixels - mean) / std in float32 for uint8 pixels (..., 3, H, W), on their device.

        In the 0..255 scale, as upstream: dividing by 255 first is off by up to 4.8e-7.
        """
        values = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return values.sub_(self.mean.to(values.device)).div_(self.std.to(values.device))

    def __repr__(self) -> str:
        return f"Transform({self.preprocess}, {self.height}x{self.width}, any_size={self.any_size})"


def _as_array(image: Tensor) -> Pixels:
    """Return the pixels of a tensor (C, H, W) as (H, W, 3); grey is replicated, as `decode` does."""
    if image.ndim != 3 or image.shape[0] not in (1, 3) or image.dtype != torch.uint8:
        hint = ""
        if image.is_floating_point():
            hint = " Pass the pixels as they are, 0 to 255: this transform scales them itself."
        elif image.ndim == 3 and image.shape[2] in (1, 3):
            hint = " Call .permute(2, 0, 1) on it."
        elif image.ndim == 3 and image.shape[0] == 4:  # RGBA, or the CMYK of a JPEG
            hint = " Decode the file with mode='RGB'."
        kind = str(image.dtype).removeprefix("torch.")
        raise DatasetError(f"is a {kind} tensor {tuple(image.shape)}; expected (3, H, W) or (1, H, W) uint8.{hint}")
    return np.ascontiguousarray(image.detach().cpu().expand(3, -1, -1).permute(1, 2, 0).numpy())


def transform_of(
    name: str | nn.Module,
    *,
    weights: str | os.PathLike[str] | None = None,
    size: int | None = None,
    any_size: bool = False,
) -> Transform:
    """Return the transform of a row, or of a network that knows its row; see `create_transform`.

    Raises:
        UnknownModelError, UnknownWeightsError, ArgumentError: As `create_transform`.
    """
    if isinstance(name, nn.Module):
        entry = _entry_of(name, weights, size)
    else:
        entry = get_entry(name)
        entry = used_with(entry, entry.chosen(weights), size=size)
    return Transform(entry.preprocess, entry.input_size, any_size=any_size)


def _entry_of(model: nn.Module, weights: object, size: int | None) -> Entry:
    """Return the entry that a network carries."""
    entry = getattr(model, "entry", None)
    if not isinstance(entry, Entry):
        raise ArgumentError(
            f"Expected a name, or a network that was created by its name; this {type(model).__name__} does not know "
            "which model it is. Pass the model's name."
        )
    if weights is not None or size is not None:
        raise ArgumentError(f"A network has the preprocessing of its own weights. Leave {weights or size} out.")
    if entry.input_size[0] != 3:
        raise ArgumentError(f"The network takes images with {entry.input_size[0]} channels; these are RGB, with 3.")
    return entry
