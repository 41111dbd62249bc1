from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from resnet_zoo.images import jpeg
from resnet_zoo.images.decode import decode
from resnet_zoo.images.jpeg import can_decode_top, decode_top, size_of_jpeg, size_of_plain_jpeg
from tests.conftest import smooth_image

needs_simplejpeg = pytest.mark.skipif(not can_decode_top(), reason="simplejpeg is not installed (extra fast)")


def jpeg_bytes(image: Image.Image, **options: object) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return np.frombuffer(bytearray(buffer.getvalue()), np.uint8)


def picture(height: int = 61, width: int = 83) -> Image.Image:
    return Image.fromarray(smooth_image(height, width))


def with_exif(orientation: int) -> np.ndarray:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg_bytes(picture(), exif=exif)


@pytest.mark.parametrize(("height", "width"), [(61, 83), (1, 1), (8, 16), (300, 7)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_size_stands_in_the_header(height: int, width: int, mode: str) -> None:
    data = jpeg_bytes(picture(height, width).convert(mode))
    assert size_of_jpeg(data) == size_of_plain_jpeg(data) == (height, width)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xc0\0\x04ab"]
)
def test_what_is_no_jpeg_has_no_size(data: bytes) -> None:
    array = np.frombuffer(bytearray(data), np.uint8)
    assert size_of_jpeg(array) is None
    assert size_of_plain_jpeg(array) is None


@pytest.mark.parametrize(
    "data",
    [
        jpeg_bytes(picture(), progressive=True),
        jpeg_bytes(picture().convert("CMYK")),
        jpeg_bytes(picture())[:-2],
        np.append(jpeg_bytes(picture()), np.uint8(0)),
        with_exif(6),
        with_exif(1),
    ],
    ids=["progressive", "CMYK", "truncated", "trailing byte", "turned", "EXIF"],
)
def test_other_jpegs_are_not_plain(data: np.ndarray) -> None:
    assert size_of_plain_jpeg(data) is None


def test_a_jpeg_of_several_scans_is_not_plain() -> None:
    data = jpeg_bytes(picture())
    scan = data.tobytes().index(b"\xff\xda")
    assert size_of_plain_jpeg(data) == (61, 83)
    data[scan + 4] = 1  # the first scan now holds one of the three components
    assert size_of_plain_jpeg(data) is None


@needs_simplejpeg
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{"quality": 95}, {"quality": 30}, {"restart_marker_blocks": 3}], ids=str)
@pytest.mark.parametrize("num_rows", [1, 7, 8, 9, 15, 16, 17, 32, 45, 61])
def test_upper_rows_are_those_of_the_whole_image(subsampling: int, options: dict[str, int], num_rows: int) -> None:
    data = jpeg_bytes(picture(), subsampling=subsampling, **options)
    before = data.copy()
    upper = decode_top(data, num_rows)
    assert num_rows <= len(upper) <= min(61, num_rows + 31)
    assert np.array_equal(upper[:num_rows], decode(data.tobytes())[:num_rows])
    assert np.array_equal(data, before)


@needs_simplejpeg
@pytest.mark.parametrize("factors", [(0x11, 0x11, 0x11), (0x22, 0x11, 0x11), (0x12, 0x11, 0x11), (0x41, 0x11, 0x11)])
def test_upper_rows_are_exact_for_rarer_sampling_factors(factors: tuple[int, ...]) -> None:
    pytest.importorskip("simplejpeg")
    import simplejpeg

    name = {0x11: "444", 0x22: "420", 0x12: "440", 0x41: "411"}[factors[0]]
    encoded = simplejpeg.encode_jpeg(smooth_image(100, 90), colorsubsampling=name)
    data = np.frombuffer(bytearray(encoded), np.uint8)
    assert size_of_plain_jpeg(data) == (100, 90)
    for num_rows in (1, 8, 16, 17, 48, 99):
        assert np.array_equal(decode_top(data, num_rows)[:num_rows], decode(encoded)[:num_rows])


@needs_simplejpeg
def test_a_grey_image_becomes_three_channels() -> None:
    data = jpeg_bytes(picture().convert("L"))
    assert np.array_equal(decode_top(data, 20)[:20], decode(data.tobytes())[:20])


@needs_simplejpeg
def test_without_one_more_row_of_blocks_the_last_rows_differ() -> None:
    """What the margin in `decode_top` is for: chroma at 4:2:0 is smoothed across the edge of a block."""
    data = jpeg_bytes(picture(), subsampling=2)
    cut = data.copy()
    frame = cut.tobytes().index(b"\xff\xc0")
    cut[frame + 5 : frame + 7] = (0, 32)
    whole, short = decode(data.tobytes())[:32], decode(cut.tobytes())
    assert np.array_equal(short[:31], whole[:31])
    assert not np.array_equal(short[31], whole[31])


@needs_simplejpeg
def test_no_decoder_writes_to_stderr_about_what_is_left_unread(capfd: pytest.CaptureFixture[str]) -> None:
    decode_top(jpeg_bytes(picture(300, 300)), 20)
    assert capfd.readouterr() == ("", "")


@needs_simplejpeg
def test_a_damaged_header_is_a_value_error() -> None:
    data = jpeg_bytes(picture())
    tables = data.tobytes().index(b"\xff\xc4")
    data[tables + 4 : tables + 24] = 255
    with pytest.raises(ValueError, match="JPEG"):
        decode_top(data, 20)


def test_without_simplejpeg_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    jpeg._simplejpeg.cache_clear()
    try:
        assert not can_decode_top()
        with pytest.raises(ModuleNotFoundError, match=r"resnet-zoo\[fast\]"):
            decode_top(jpeg_bytes(picture()), 20)
    finally:
        jpeg._simplejpeg.cache_clear()
