from __future__ import annotations

import io
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from resnet_zoo.base.shown import printable
from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import MAX_FILE_BYTES, MAX_PIXELS, decode, title_of
from tests.conftest import make_odd, smooth_image


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


XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='3'/>"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("others", [[XMP], [b"other", XMP], [b"", b"Exif"]], ids=["XMP", "two", "short ones"])
def test_the_orientation_is_found_behind_other_segments(others: list[bytes], orientation: int) -> None:
    data = oriented("JPEG", orientation)
    expected = decode(data)
    for body in others:
        data = with_exif(data, body)
    assert np.array_equal(decode(data), expected)


@pytest.mark.parametrize("operator", [True, False], ids=["torchvision", "Pillow"])
def test_an_orientation_in_xmp_alone_turns_nothing(operator: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not operator:
        monkeypatch.setattr("resnet_zoo.images.decode._jpeg_operator", lambda: None)
    plain = encoded(Image.fromarray(smooth_image(24, 40)), "JPEG")
    assert np.array_equal(decode(with_exif(plain, XMP)), decode(plain))
    with_both = with_exif(with_exif(plain, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), XMP)
    assert np.array_equal(decode(with_both), decode(plain))


def test_of_two_exif_blocks_the_first_counts() -> None:
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    data = with_exif(oriented("JPEG", 6), upside_down.tobytes())
    assert np.array_equal(decode(data), decode(oriented("JPEG", 3)))
    assert np.array_equal(decode(Image.open(io.BytesIO(data))), decode(data))


@pytest.mark.parametrize("operator", [True, False], ids=["torchvision", "Pillow"])
@pytest.mark.parametrize("order", ["little", "big"])
def test_the_orientation_is_read_in_either_byte_order(
    order: Literal["little", "big"], operator: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not operator:
        monkeypatch.setattr("resnet_zoo.images.decode._jpeg_operator", lambda: None)
    numbers = [
        (42, 2),
        (8, 4),
        (2, 2),
        (0x10F, 2),
        (3, 2),
        (1, 4),
        (0, 4),
        (0x112, 2),
        (3, 2),
        (1, 4),
        (6, 2),
        (0, 2),
        (0, 4),
    ]
    tiff = b"".join(number.to_bytes(size, order) for number, size in numbers)
    plain = encoded(Image.fromarray(smooth_image(24, 40)), "JPEG")
    data = with_exif(plain, b"Exif\0\0" + {"little": b"II", "big": b"MM"}[order] + tiff)
    assert np.array_equal(decode(data), np.rot90(decode(plain), -1))


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


def test_torchvisions_decoder_comes_without_torchvision(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(smooth_image(24, 40)).save(path)
    code = (
        "import sys, resnet_zoo; from resnet_zoo.images import decode as at; {more}; resnet_zoo.create_model\n"
        "print(at.decode(sys.argv[1]).sum(), bool(at._jpeg_operator()), 'torchvision' in sys.modules)"
    )
    total = int(decode(path).sum())
    assert ran(code.format(more="pass"), path) == f"{total} True False\n"
    assert ran(code.format(more="at.importlib.util.find_spec = lambda name: None"), path) == f"{total} False False\n"
    assert ran(code.format(more="import torchvision"), path) == f"{total} True True\n"


def ran(code: str, path: Path) -> str:
    return subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM"])
def test_the_content_decides_the_format_and_not_the_suffix(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / "image.txt"
    path.write_bytes(encoded(Image.new("RGB", (8, 6), (200, 100, 50)), kind))
    assert np.abs(decode(path).astype(int) - [200, 100, 50]).max() < 6


@pytest.mark.parametrize("kind", ["ICO", "PCX", "SGI", "TGA", "JPEG2000", "PDF", "EPS"])
def test_other_formats_of_pillow_are_refused(kind: str) -> None:
    with pytest.raises(DatasetError, match=r"not an image of any known format \(JPEG, PNG, WEBP"):
        decode(encoded(Image.fromarray(RGB), kind))


def test_postscript_that_is_named_like_a_photo_starts_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho >{tmp_path}/started\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    with pytest.raises(DatasetError, match=r"photo\.jpg is not an image of any known format"):
        decode(path)
    assert not (tmp_path / "started").exists()
    with pytest.raises(OSError, match="cannot identify"), Image.open(path) as image:
        image.load()  # what Pillow does by itself: the trap works
    assert (tmp_path / "started").exists()


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


@pytest.mark.parametrize("name", ["missing.png", "folder", "nul\0byte.png", "pipe.png", "loop.png"])
def test_a_path_that_is_no_file_is_a_data_set_error_that_names_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    if name in ("pipe.png", "loop.png"):
        make_odd(tmp_path / name)
    with pytest.raises(DatasetError) as caught:
        decode(tmp_path / name)
    assert printable(str(tmp_path / name)) in str(caught.value)


def test_an_image_between_the_warning_limit_of_pillow_and_ours_is_opened() -> None:
    width, height = 10_000, 9_500
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < width * height < MAX_PIXELS
    image = Image.new("1", (width, height), 1)
    with pytest.warns(Image.DecompressionBombWarning):  # Pillow's own, left to the caller
        pixels = decode(encoded(image, "PNG"))
    assert pixels.shape == (height, width, 3)
    assert pixels[0, 0, 0] == 255


def test_a_file_that_is_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(DatasetError, match=rf"large\.png has {MAX_FILE_BYTES + 1} bytes; the limit"):
        decode(path)


def test_any_exception_of_a_decoder_is_a_data_set_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Image.Image, *_: object) -> None:
        raise KeyError("strip offsets")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(DatasetError, match="cannot be decoded as an image: 'strip offsets'"):
        decode(PNG)


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
