from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from resnet_zoo.catalog.records import ResizeBackend
from resnet_zoo.errors import DatasetError
from resnet_zoo.images import jpeg
from resnet_zoo.images.decode import decode
from resnet_zoo.training.crops import (
    AREA,
    ASPECT,
    Crop,
    choose_crop,
    crop_and_resize,
    read_crop,
    uniform_numbers,
)
from tests.conftest import smooth_image

BACKENDS: tuple[ResizeBackend, ...] = get_args(ResizeBackend)
NUM_CROPS = 2500
IMAGE_SIZES = [(375, 500), (500, 333), (60, 1000), (1000, 60), (224, 224), (9, 7)]


# --- the distribution ----------------------------------------------------------------------------------------------


def our_crops(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.array(
        [choose_crop(height, width, uniform_numbers(seed=seed, epoch=0, index=index)) for index in range(NUM_CROPS)]
    )


def peer_crops(height: int, width: int, scale: tuple[float, float] = AREA) -> np.ndarray:
    image = torch.empty(3, 1, 1).expand(3, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return np.array([RandomResizedCrop.get_params(image, list(scale), list(ASPECT)) for _ in range(NUM_CROPS)])


def measures(crops: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    top, left, h, w = (crops[:, column].astype(float) for column in range(4))
    rest = np.maximum([height - h, width - w], 1)
    return {"area": h * w, "aspect": w / h, "height": h, "width": w, "down": top / rest[0], "across": left / rest[1]}


def greatest_gap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sample Kolmogorov-Smirnov statistic."""
    at = np.union1d(first, second)
    shares = (np.searchsorted(np.sort(values), at, side="right") / len(values) for values in (first, second))
    return float(np.abs(np.subtract(*shares)).max())


def critical_gap(alpha: float = 1e-4) -> float:
    return math.sqrt(-math.log(alpha / 2) / NUM_CROPS)


@pytest.mark.parametrize(("height", "width"), IMAGE_SIZES)
def test_crops_are_distributed_as_those_of_torchvision(height: int, width: int) -> None:
    ours, peer = (measures(crops(height, width), height, width) for crops in (our_crops, peer_crops))
    gaps = {name: greatest_gap(ours[name], peer[name]) for name in ours}
    assert max(gaps.values()) < critical_gap(), gaps


def test_another_range_of_areas_would_be_seen() -> None:
    ours, peer = measures(our_crops(375, 500), 375, 500), measures(peer_crops(375, 500, scale=(0.15, 1.0)), 375, 500)
    assert greatest_gap(ours["area"], peer["area"]) > critical_gap()


def test_a_linear_aspect_would_be_seen() -> None:
    aspects = measures(our_crops(1000, 1000), 1000, 1000)["aspect"]
    linear = np.random.default_rng(0).uniform(*ASPECT, NUM_CROPS)
    logarithmic = np.exp(np.random.default_rng(0).uniform(math.log(ASPECT[0]), math.log(ASPECT[1]), NUM_CROPS))
    accepted = aspects[measures(our_crops(1000, 1000), 1000, 1000)["area"] < 0.7e6]  # where no try is refused
    assert greatest_gap(accepted, linear) > critical_gap()
    assert greatest_gap(accepted, logarithmic) < critical_gap() * 1.3  # fewer of ours


@pytest.mark.parametrize(("height", "width"), [*IMAGE_SIZES, (1, 1), (1, 2), (2, 1), (3000, 2)])
def test_a_crop_lies_inside_of_its_image(height: int, width: int) -> None:
    top, left, h, w, _ = our_crops(height, width)[:300].T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 1000, (0, 493, 10, 13)), (1000, 10, (493, 0, 13, 10)), (1, 1000, (0, 499, 1, 1)), (1000, 1, (499, 0, 1, 1))],
)
def test_when_ten_tries_fail_the_crop_is_central_and_of_permitted_aspect(
    height: int, width: int, box: tuple[int, int, int, int]
) -> None:
    image = torch.empty(3, 1, 1).expand(3, height, width)
    with torch.random.fork_rng(devices=[]):
        assert RandomResizedCrop.get_params(image, [1.0, 1.0], list(ASPECT)) == box
    assert choose_crop(height, width, [0.0, 0.5, 0.5, *[0.99] * 20])[:4] == box


def test_an_upright_square_that_fails_ten_times_is_taken_whole() -> None:
    assert choose_crop(100, 100, [0.9, 0.5, 0.5, *[1.0] * 20]) == Crop(0, 0, 100, 100, is_flipped=False)


@pytest.mark.parametrize("at", [0.0, np.nextafter(1.0, 0.0)])
def test_the_first_and_the_last_place_can_be_reached(at: float) -> None:
    crop = choose_crop(100, 100, [0.0, at, at, *[0.5] * 20])
    assert (crop.top, crop.left) == ((0, 0) if at == 0 else (100 - crop.height, 100 - crop.width))


def test_half_of_the_crops_are_flipped_whatever_else_they_are() -> None:
    crops = our_crops(375, 500)
    flips = crops[:, 4]
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / math.sqrt(NUM_CROPS)
    area = crops[:, 2] * crops[:, 3]
    assert abs(np.corrcoef(flips, area)[0, 1]) < 4 / math.sqrt(NUM_CROPS)


# --- random numbers ------------------------------------------------------------------------------------------------


def test_the_numbers_of_an_image_are_these() -> None:
    """Runs that stop under one version resume under the next: these numbers may never change."""
    numbers = uniform_numbers(seed=1, epoch=2, index=3)
    assert len(numbers) == 23
    assert numbers[:3] == [0.13732203113233543, 0.22522750207501308, 0.2552256935564018]


def test_seed_epoch_and_index_each_change_every_number() -> None:
    base = uniform_numbers(seed=0, epoch=0, index=0)
    for other in ({"seed": 1}, {"epoch": 1}, {"index": 1}, {"seed": 2**64 - 1}):
        numbers = uniform_numbers(**{"seed": 0, "epoch": 0, "index": 0, **other})
        assert not set(base) & set(numbers)


def test_numbers_of_neighbouring_images_and_epochs_are_independent() -> None:
    table = np.array(
        [[uniform_numbers(seed=7, epoch=epoch, index=index)[:4] for index in range(400)] for epoch in range(2)]
    )
    columns = table.transpose(0, 2, 1).reshape(8, 400)
    shifted = np.concatenate([columns[:, :-1], columns[:, 1:]])
    correlations = np.corrcoef(shifted) - np.eye(16)
    assert np.abs(correlations).max() < 4.5 / math.sqrt(399)
    assert abs(columns.mean() - 0.5) < 4 * math.sqrt(1 / 12 / columns.size)


# --- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [(0, 0, 90, 110), (13, 7, 60, 41), (89, 109, 1, 1)])
def test_pillow_rows_crop_first_then_resize_then_mirror(crop: tuple[int, int, int, int], flip: bool) -> None:
    pixels = smooth_image(90, 110)
    top, left, height, width = crop
    box = Image.fromarray(pixels).crop((left, top, left + width, top + height))
    expected = np.asarray(box.resize((48, 32), Image.Resampling.BILINEAR))
    taken = crop_and_resize(pixels, Crop(*crop, flip), (32, 48), "pillow")
    assert np.array_equal(taken, expected[:, ::-1] if flip else expected)


def test_resizing_a_box_of_the_whole_image_is_not_the_same() -> None:
    pixels = smooth_image(300, 300)
    inside = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR, box=(40, 40, 240, 240))
    taken = crop_and_resize(pixels, Crop(40, 40, 200, 200, is_flipped=False), (32, 32), "pillow")
    assert not np.array_equal(taken, np.asarray(inside))


@pytest.mark.peers
@pytest.mark.parametrize("flip", [False, True])
def test_cv2_rows_equal_opencv_on_the_cropped_image(flip: bool) -> None:
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    for _ in range(100):
        pixels = random.integers(0, 256, (*random.integers(1, 600, 2).tolist(), 3), dtype=np.uint8)
        crop = choose_crop(pixels.shape[0], pixels.shape[1], random.random(23).tolist())._replace(is_flipped=flip)
        box = pixels[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        expected = cv2.resize(box, (224, 224), interpolation=cv2.INTER_LINEAR)
        expected = cv2.flip(expected, 1) if flip else expected
        assert np.array_equal(crop_and_resize(pixels, crop, (224, 224), "cv2"), expected)


@pytest.mark.peers
@pytest.mark.parametrize("backend", BACKENDS)
def test_pixels_equal_those_of_upstreams_own_steps(backend: ResizeBackend) -> None:
    mmcv = pytest.importorskip("mmcv")
    random = np.random.default_rng(1)
    pixels = smooth_image(375, 500)
    for _ in range(20):
        crop = choose_crop(375, 500, random.random(23).tolist())
        corners = np.array([crop.left, crop.top, crop.left + crop.width - 1, crop.top + crop.height - 1])
        name, _, kind = backend.partition("_")
        how = {"interpolation": kind or "bilinear", "backend": name}
        expected = mmcv.imresize(mmcv.imcrop(pixels, corners), (224, 224), **how)
        expected = mmcv.imflip(expected) if crop.is_flipped else expected
        assert np.array_equal(crop_and_resize(pixels, crop, (224, 224), backend), expected)


# --- from the file -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["simplejpeg", "torchvision"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to decode: with and without the extra ``fast``."""
    if request.param == "torchvision":
        monkeypatch.setitem(sys.modules, "simplejpeg", None)
    else:
        pytest.importorskip("simplejpeg")
    jpeg._simplejpeg.cache_clear()
    yield request.param
    jpeg._simplejpeg.cache_clear()


def file_bytes(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_bytes(PICTURE, "JPEG", exif=exif)


PICTURE = Image.fromarray(smooth_image(150, 211))
FILES = {
    "JPEG": file_bytes(PICTURE, "JPEG"),
    "JPEG 4:4:4": file_bytes(PICTURE, "JPEG", subsampling=0),
    "progressive JPEG": file_bytes(PICTURE, "JPEG", progressive=True),
    "turned JPEG": turned(6),
    "upside-down JPEG": turned(3),
    "grey JPEG": file_bytes(PICTURE.convert("L"), "JPEG"),
    "CMYK JPEG": file_bytes(PICTURE.convert("CMYK"), "JPEG"),
    "PNG named JPEG": file_bytes(PICTURE, "PNG"),
    "PNG with alpha": file_bytes(PICTURE.convert("RGBA"), "PNG"),
    "palette PNG": file_bytes(PICTURE.convert("P"), "PNG"),
}


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(data), np.uint8)


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", FILES)
def test_a_crop_from_the_file_is_that_of_the_decoded_image(kind: str, backend: ResizeBackend) -> None:
    whole = decode(FILES[kind])
    for index in range(8):
        uniform = uniform_numbers(seed=0, epoch=0, index=index)
        crop = choose_crop(whole.shape[0], whole.shape[1], uniform)
        taken = read_crop(as_array(FILES[kind]), uniform, (64, 64), backend, title="it")
        assert np.array_equal(taken, crop_and_resize(whole, crop, (64, 64), backend))


@pytest.mark.usefixtures("decoder")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not an image at all", "not an image of any known format"),
        (FILES["JPEG"][:2000], "cannot be decoded"),
        (FILES["JPEG"][:100] + b"\xff\xd9", "cannot be decoded"),
        (FILES["PNG with alpha"][:500], "cannot be decoded"),
    ],
    ids=["text", "truncated", "header alone", "truncated PNG"],
)
def test_a_bad_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(DatasetError, match=f"^cat/1.JPEG .*{reason}"):
        read_crop(as_array(data), [0.5] * 23, (64, 64), "cv2", title="cat/1.JPEG")


@pytest.mark.usefixtures("decoder")
def test_an_image_too_large_is_refused_by_its_header() -> None:
    data = as_array(FILES["JPEG"])
    frame = data.tobytes().index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = 255
    with pytest.raises(DatasetError, match="65535x65535 pixels"):
        read_crop(data, [0.5] * 23, (64, 64), "cv2", title="it")


@pytest.mark.usefixtures("decoder")
def test_sampling_factors_that_turbojpeg_does_not_know_are_decoded() -> None:
    """A mid-grey image of 24x8 pixels, its luma sampled three times as finely as chroma, put together by hand."""
    data = file_bytes(Image.new("RGB", (24, 8)), "JPEG", subsampling=0)
    frame, scan = data.index(b"\xff\xc0"), data.index(b"\xff\xda")
    head = bytearray(data[: scan + 14])
    head[frame + 11] = 0x31
    head[scan + 6 : scan + 11 : 2] = bytes(3)  # all three components use the luma tables
    five_empty_blocks = int("001010" * 5 + "11", 2).to_bytes(4, "big")
    taken = read_crop(as_array(bytes(head) + five_empty_blocks + b"\xff\xd9"), [0.5] * 23, (8, 8), "cv2", title="it")
    assert (taken == 128).all()


def test_real_images_give_the_pixels_of_the_whole_decoded_image(data_folder: Path, tmp_path: Path) -> None:
    import tarfile

    pytest.importorskip("simplejpeg")
    with tarfile.open(data_folder / "imagenet-samples.tar") as archive:
        files = [archive.extractfile(member) for member in archive if member.isfile()]
        images = [file.read() for file in files if file is not None]
    for index, data in enumerate(images):
        whole, uniform = decode(data), uniform_numbers(seed=0, epoch=0, index=index)
        expected = crop_and_resize(whole, choose_crop(whole.shape[0], whole.shape[1], uniform), (224, 224), "cv2")
        assert np.array_equal(read_crop(as_array(data), uniform, (224, 224), "cv2", title="it"), expected)
