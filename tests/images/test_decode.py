from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import MAX_PIXELS, decode, title_of
from tests.conftest import smooth_image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


# --- orientation ---------------------------------------------------------------------------------------------------


def oriented(kind: str, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(smooth_image(24, 40)), kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {}), ("TIFF", {})])
def test_every_exif_orientation_is_undone(kind: str, options: dict[str, object], orientation: int) -> None:
    data = oriented(kind, orientation, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), np.asarray(upright.convert("RGB")))
    assert decode(data).shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_pil_image_is_undone(orientation: int) -> None:
    data = oriented("PNG", orientation)
    assert np.array_equal(decode(Image.open(io.BytesIO(data))), decode(data))


def test_the_eight_orientations_give_eight_different_images() -> None:
    images = {decode(oriented("PNG", orientation)).tobytes() for orientation in range(1, 9)}
    assert len(images) == 8


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_outside_the_standard_means_upright(orientation: int) -> None:
    assert np.array_equal(decode(oriented("PNG", orientation)), smooth_image(24, 40))


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0junkjunkjunk", b"Exif\0\0II*\0", b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12", b"Exif\0\0II*\0\xff\xff\xff\x7f"],
    ids=["junk", "short", "cut", "pointing outside"],
)
def test_a_broken_exif_block_does_not_spoil_a_good_image(exif: bytes) -> None:
    plain = encoded(Image.fromarray(smooth_image(24, 40)), "JPEG")
    assert np.array_equal(decode(with_exif(plain, exif)), decode(plain))


# --- modes ---------------------------------------------------------------------------------------------------------

RGB = smooth_image(20, 30)
GREY = smooth_image(20, 30, seed=1)[:, :, 0]
ALPHA = smooth_image(20, 30, seed=2)[:, :, 1]
GREY_RGB = np.repeat(GREY[:, :, None], 3, axis=2)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_rgb_comes_out_as_it_went_in(kind: str) -> None:
    pixels = decode(encoded(Image.fromarray(RGB), kind))
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, RGB)


def test_grey_is_replicated() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(GREY), "PNG")), GREY_RGB)


def test_a_grey_jpeg_is_replicated() -> None:
    data = encoded(Image.fromarray(GREY), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), np.repeat(expected[:, :, None], 3, axis=2))


def test_alpha_is_dropped_not_blended() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(np.dstack([RGB, ALPHA])), "PNG")), RGB)


def test_alpha_of_a_grey_image_is_dropped() -> None:
    assert np.array_equal(decode(encoded(Image.fromarray(np.dstack([GREY, ALPHA])), "PNG")), GREY_RGB)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 2))])
def test_a_palette_gives_its_colours_whatever_is_transparent(transparency: int | bytes | None) -> None:
    image = Image.fromarray(RGB).quantize(64)
    expected = np.asarray(image.convert("RGB"))
    options = {} if transparency is None else {"transparency": transparency}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(decode(encoded(image, "PNG", **options)), expected)


def test_one_bit_becomes_black_and_white() -> None:
    bits = GREY > 127
    assert np.array_equal(decode(encoded(Image.fromarray(bits), "PNG"))[:, :, 0], np.where(bits, 255, 0))


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    samples = np.random.default_rng(0).integers(0, 1 << 16, (20, 30), dtype=np.uint16)
    pixels = decode(encoded(Image.fromarray(samples), "PNG"))
    assert np.array_equal(pixels, np.repeat((samples >> 8).astype(np.uint8)[:, :, None], 3, axis=2))


def test_a_cmyk_jpeg_is_converted_as_pillow_does() -> None:
    data = encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG")
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_floating_point_samples_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    Image.fromarray(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)).save(path)
    with pytest.raises(DatasetError, match=r"depth\.tiff.*floating-point"):
        decode(path)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_bit_for_bit_as_pillow_does(subsampling: int, progressive: bool) -> None:
    image = Image.fromarray(smooth_image(37, 51))
    data = encoded(image, "JPEG", quality=83, subsampling=subsampling, progressive=progressive)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_decoding_a_jpeg_warns_of_nothing() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(data)


def test_a_single_pixel_is_an_image() -> None:
    assert decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).tolist() == [[[1, 2, 3]]]


# --- sources -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_path_text_bytes_and_pil_image_give_equal_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded(Image.fromarray(RGB), kind))
    expected = decode(path)
    assert np.array_equal(decode(str(path)), expected)
    assert np.array_equal(decode(path.read_bytes()), expected)
    with Image.open(path) as image:
        assert np.array_equal(decode(image), expected)


def test_decoded_pixels_may_be_written_to() -> None:
    assert decode(encoded(Image.fromarray(RGB), "PNG")).flags.writeable


def test_a_path_is_titled_by_itself_and_bytes_by_a_phrase(tmp_path: Path) -> None:
    assert title_of(tmp_path / "a.png") == str(tmp_path / "a.png")
    assert title_of(b"") == "The image"


# --- what is refused -----------------------------------------------------------------------------------------------

JPEG = encoded(Image.fromarray(smooth_image(64, 64)), "JPEG")
PNG = encoded(Image.fromarray(smooth_image(64, 64)), "PNG")
BAD = {
    "empty": b"",
    "truncated jpeg": JPEG[: len(JPEG) // 2],
    "jpeg header only": JPEG[:20],
    "jpeg magic only": b"\xff\xd8\xff",
    "truncated png": PNG[: len(PNG) // 2],
    "text": b"this is no image\n" * 20,
    "bomb": png_header(60_000, 60_000),
    "bomb beyond 31 bits": png_header(2**31 - 1, 2**31 - 1),
    "too large": png_header(20_000, 10_000),
    "zero width": png_header(0, 10),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_a_bad_file_is_a_data_set_error_that_names_it(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        decode(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_bytes_are_a_data_set_error(data: bytes) -> None:
    with pytest.raises(DatasetError, match=r"^The image "):
        decode(data)


@pytest.mark.parametrize("data", [JPEG, PNG], ids=["jpeg", "png"])
def test_a_truncated_pil_image_is_a_data_set_error_that_names_its_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.img"
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as image, pytest.raises(DatasetError, match=r"cut\.img"):
        decode(image)


@pytest.mark.parametrize("name", ["missing.png", "folder", "nul\0byte.png"])
def test_a_path_that_is_no_file_is_a_data_set_error_that_names_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DatasetError) as caught:
        decode(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_image_between_the_warning_limit_of_pillow_and_ours_is_opened() -> None:
    width, height = 10_000, 9_500
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < width * height < MAX_PIXELS
    image = Image.new("1", (width, height), 1)
    with pytest.warns(Image.DecompressionBombWarning):  # Pillow's own, left to the caller
        pixels = decode(encoded(image, "PNG"))
    assert pixels.shape == (height, width, 3)
    assert pixels[0, 0, 0] == 255


def test_threads_that_decode_leave_the_filters_of_warnings_alone() -> None:
    data, before = encoded(Image.fromarray(RGB), "PNG"), list(warnings.filters)
    switched = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            decoded = list(pool.map(decode, [data] * 400))
    finally:
        sys.setswitchinterval(switched)
    assert list(warnings.filters) == before
    assert all(np.array_equal(pixels, RGB) for pixels in decoded)
