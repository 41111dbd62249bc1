from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from resnet_zoo.errors import DatasetError
from resnet_zoo.images import resize as resize_module
from resnet_zoo.images.decode import MAX_PIXELS
from resnet_zoo.images.resize import (
    crop_start,
    resize_crop_like_cv2,
    resize_crop_like_pillow,
    resize_like_cv2,
    resize_like_pillow,
    resized_size,
)
from tests.conftest import smooth_image

# sha256 of the 224x224 crop of the image resized to a short edge of 256. Computed with cv2.resize(INTER_LINEAR) of
# OpenCV 5.0.0, followed by the same crop; resize_crop_like_cv2 gave the same bytes for every size.
GOLDEN_CV2 = {
    (375, 500): "9b0f54dac9b2b1fed7156a38fb5773aa2107e6e739c0cc6dedd2754e48bbfed6",
    (500, 375): "505fb0246d8488e244fdd85c68fdb43e58084d10ac56d7578ce9e8af12989d2f",
    (261, 244): "fffc4ab4496ce5c2d530374d6ad0611f15153a4c95a7e1658799c4dd3f6fb56d",
    (180, 240): "d8b06e4d1b36c2e1d45a5b3acd026bb9dd22603ebf226c427f94638531149441",
    (100, 333): "8aad19d58900f779b5e5099b7f340d807ed5b9a7dbce583e42b5b1f0016a238a",
    (512, 512): "3a5f03df4e37b3f8b67bfc0bba457424b7a0cda7aebc4402b2e90778b1360555",
    (512, 683): "a38b7a770fbf7497243312e1d109fcb38e82b645182d516bdcf34b4e1295101e",
    (682, 512): "2a0f6ff4bdaa307947d45c2245b4ded3d4df6fbf88c454d034671ed121d7acc2",
    (256, 256): "c17718efc62dcb5fd45142017878abf312514e08004f387bf1707f6dd7702eef",
    (256, 341): "d984b76a009b606fa2beea308541491dfe37a384ab368e6dbf6e7e316a239195",
    (341, 256): "9f9b2dc1827034e1fdb03f70ebb9956f476533dfcacf896adcb425534b4eff3e",
    (1024, 768): "b0d65b95c735187903c08d50acfb4e0be64e30d99bb031b26ddcbafec059fe29",
    (257, 256): "eb558e1c7fae14292298f848096cf44eb21af03cca21fa6ab21837da3dbb6115",
    (1, 1): "be39ba31ba99abe5d90992d1ab0baeca148f48c309ef2559974eb3240830d1f1",
    (1, 7): "d0a90c90178560101d6aac510bc1f21e93c1a7d6d3f635a6ccb61f292bd28f8e",
    (7, 1): "3133052ba036dd8525bb44658eb3ad4e70e08cc2fef81117a96d2e090e8dab39",
    (2, 3): "0d4676f22732c59ad90f473ce077d3e6294e4a1abccab5b957a3925c9d28b129",
    (333, 100): "a92a6098babdfbf5127ec0db800d9a622235e4c107beba200b0146361e44e255",
    (640, 481): "a7302884ab2444f0f00259fa9b7c61179b02b76628a778314853d73d985109ce",
    (255, 256): "33fe2f2f4f0c3d462cbf2661ee4dc2737c238dce85644afbc558bad3a2cb71f3",
    (2000, 300): "c4fa20e164dce358ea40de22a6dc34713650d10bc39d1a1971e4855d6c70e0f8",
}
SIZES = list(GOLDEN_CV2)
Resize = Callable[..., np.ndarray]


def image_of(height: int, width: int) -> np.ndarray:
    return smooth_image(height, width, seed=height * 10_000 + width)


def cropped(pixels: np.ndarray, crop: int) -> np.ndarray:
    top, left = (crop_start(length, crop) for length in pixels.shape[:2])
    return pixels[top : top + crop, left : left + crop]


def naive_cv2(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize the whole image, one axis after the other, in plain loops over positions."""

    def taps(source: int, target: int, clamp: bool) -> list[tuple[int, int, int, int]]:
        found = []
        for position in range(target):
            at = np.float32((position + 0.5) * (1.0 / (target / source)) - 0.5)
            index = int(np.floor(at))
            fraction = np.float32(at - np.float32(index))
            if clamp and (index < 0 or index >= source - 1):
                fraction = np.float32(0)
            weights = [int(np.rint(part * np.float32(2048))) for part in (np.float32(1) - fraction, fraction)]
            found.append((max(index, 0), min(index + 1, source - 1), weights[0], weights[1]))
        return [(min(first, source - 1), max(second, 0), *weights) for first, second, *weights in found]  # type: ignore[misc]

    values = pixels.astype(np.int64)
    columns = taps(pixels.shape[1], width, clamp=True)
    sums = np.stack([values[:, first] * a + values[:, second] * b for first, second, a, b in columns], axis=1) >> 4
    rows = taps(pixels.shape[0], height, clamp=False)
    out = np.stack([((sums[first] * a) >> 16) + ((sums[second] * b) >> 16) for first, second, a, b in rows])
    return ((out + 2) >> 2).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_cv2_resize_gives_the_golden_bytes(height: int, width: int) -> None:
    pixels = resize_crop_like_cv2(image_of(height, width), 256, 224)
    assert pixels.shape == (224, 224, 3)
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == GOLDEN_CV2[height, width]


@pytest.mark.parametrize(("height", "width"), [(375, 500), (180, 240), (1, 7), (1024, 768)])
def test_cv2_resize_inside_the_crop_equals_that_of_the_whole_image(height: int, width: int) -> None:
    pixels = image_of(height, width)
    whole = naive_cv2(pixels, *resized_size(height, width, 256))
    assert np.array_equal(resize_crop_like_cv2(pixels, 256, 224), cropped(whole, 224))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pillow_resize_equals_image_resize(height: int, width: int) -> None:
    pixels = image_of(height, width)
    new_height, new_width = resized_size(height, width, 256)
    whole = np.asarray(Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_crop_like_pillow(pixels, 256, 224), cropped(whole, 224))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (1024, 768)])
def test_the_two_backends_differ_when_they_shrink(height: int, width: int) -> None:
    pixels = image_of(height, width)
    cv2, pillow = (resize(pixels, 256, 224).astype(int) for resize in (resize_crop_like_cv2, resize_crop_like_pillow))
    assert np.abs(cv2 - pillow).max() > 10


def test_exactly_half_the_size_is_the_rounded_mean_of_four_values() -> None:
    pixels = image_of(64, 96)
    blocks = pixels.reshape(32, 2, 48, 2, 3).astype(int).sum(axis=(1, 3))
    assert np.array_equal(resize_crop_like_cv2(pixels, 32, 32), cropped((blocks + 2) // 4, 32))


@pytest.mark.parametrize("resize", [resize_crop_like_cv2, resize_crop_like_pillow])
def test_the_same_size_is_only_cropped(resize: object) -> None:
    assert callable(resize)
    pixels = image_of(256, 341)
    assert np.array_equal(resize(pixels, 256, 224), cropped(pixels, 224))


@pytest.mark.parametrize("resize", [resize_crop_like_cv2, resize_crop_like_pillow])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 512), (300, 400)])
def test_the_result_is_a_copy_that_may_be_written_to(resize: object, height: int, width: int) -> None:
    assert callable(resize)
    pixels = image_of(height, width)
    before = pixels.copy()
    resize(pixels, 256, 224)[:] = 7
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("resize", [resize_crop_like_cv2, resize_crop_like_pillow])
@pytest.mark.parametrize("size", [(256, 256), (512, 512), (300, 400)])
def test_strided_views_are_resized_like_their_copies(resize: object, size: tuple[int, int]) -> None:
    assert callable(resize)
    view = image_of(*size)[:, ::-1, ::-1]
    assert np.array_equal(resize(view, 256, 224), resize(view.copy(), 256, 224))


def test_a_flat_image_stays_flat() -> None:
    for value in (0, 1, 127, 254, 255):
        pixels = np.full((93, 131, 3), value, np.uint8)
        assert np.all(resize_crop_like_cv2(pixels, 256, 224) == value)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (375, 500, (256, 341)),  # 341.33
        (500, 375, (341, 256)),
        (333, 500, (256, 384)),  # 384.38
        (300, 599, (256, 511)),  # 511.15
        (256, 256, (256, 256)),
        (1, 1, (256, 256)),
        (1, 7, (256, 1792)),
    ],
)
def test_the_long_edge_is_truncated(height: int, width: int, expected: tuple[int, int]) -> None:
    assert resized_size(height, width, 256) == expected


@pytest.mark.parametrize(
    ("length", "start"), [(224, 0), (225, 0), (226, 1), (227, 2), (341, 58), (343, 60), (256, 16), (345, 60)]
)
def test_the_crop_starts_at_the_even_number_when_halfway(length: int, start: int) -> None:
    # (341 - 224) / 2 = 58.5 becomes 58, (343 - 224) / 2 = 59.5 becomes 60
    assert crop_start(length, 224) == start


@pytest.mark.parametrize("resize", [resize_crop_like_cv2, resize_crop_like_pillow])
@pytest.mark.parametrize("shape", [(1, 20_000, 3), (20_000, 1, 3)])
def test_an_extreme_aspect_ratio_is_refused_before_memory_is_taken(resize: object, shape: tuple[int, int, int]) -> None:
    assert callable(resize)
    assert MAX_PIXELS < 256 * 256 * 20_000
    with pytest.raises(DatasetError, match="5120000"):
        resize(np.zeros(shape, np.uint8), 256, 224)


@pytest.mark.parametrize("resize", [resize_crop_like_cv2, resize_crop_like_pillow])
def test_a_long_but_bearable_aspect_ratio_is_resized(resize: object) -> None:
    assert callable(resize)
    assert resize(np.zeros((1, 300, 3), np.uint8), 256, 224).shape == (224, 224, 3)


# --- whole images, as training crops are resized ------------------------------------------------------------------

BOX_SIZES = [
    (1, 1),
    (1, 300),
    (300, 1),
    (57, 83),
    (224, 300),
    (224, 224),
    (448, 448),
    (448, 300),
    (600, 448),
    (700, 500),
]


@pytest.fixture(params=["restated", "OpenCV"])
def cv2_or_not(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "restated":
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        pytest.importorskip("cv2")
    resize_module._cv2_that_agrees.cache_clear()
    yield
    resize_module._cv2_that_agrees.cache_clear()


def half_size(pixels: np.ndarray) -> np.ndarray:
    blocks = pixels.reshape(pixels.shape[0] // 2, 2, pixels.shape[1] // 2, 2, 3).astype(int)
    halved: np.ndarray = ((blocks.sum(axis=(1, 3)) + 2) // 4).astype(np.uint8)
    return halved


@pytest.mark.usefixtures("cv2_or_not")
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("height", "width"), BOX_SIZES)
def test_cv2_resize_of_a_whole_image_equals_plain_loops(height: int, width: int, flip: bool) -> None:
    pixels = image_of(height, width)
    expected = half_size(pixels) if (height, width) == (448, 448) else naive_cv2(pixels, 224, 224)
    resized = resize_like_cv2(pixels, 224, 224, flip=flip)
    assert np.array_equal(resized, expected[:, ::-1] if flip else expected)


@pytest.mark.usefixtures("cv2_or_not")
@pytest.mark.parametrize("resize", [resize_like_cv2, resize_like_pillow])
@pytest.mark.parametrize("size", [(100, 90), (224, 224), (448, 448)])
def test_a_box_of_a_larger_image_is_resized_like_its_copy(resize: Resize, size: tuple[int, int]) -> None:
    box = image_of(500, 520)[13 : 13 + size[0], 17 : 17 + size[1]]
    before = box.copy()
    resized = resize(box, 224, 224, flip=False)
    assert np.array_equal(resized, resize(before, 224, 224, flip=False))
    resized[:] = 7
    assert np.array_equal(box, before)


@pytest.mark.parametrize(("height", "width"), BOX_SIZES)
def test_pillow_resize_of_a_whole_image_equals_image_resize(height: int, width: int) -> None:
    pixels = image_of(height, width)
    expected = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_like_pillow(pixels, 224, 224), expected)
    assert np.array_equal(resize_like_pillow(pixels, 224, 224, flip=True), expected[:, ::-1])


def test_an_opencv_that_rounds_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def resize(pixels: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
        return naive_cv2(pixels, size[1], size[0]) ^ np.uint8(1)

    def flip(pixels: np.ndarray, axis: int) -> np.ndarray:
        raise AssertionError

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(resize=resize, flip=flip, INTER_LINEAR=1))
    resize_module._cv2_that_agrees.cache_clear()
    try:
        pixels = image_of(57, 83)
        assert np.array_equal(resize_like_cv2(pixels, 40, 30, flip=True), naive_cv2(pixels, 40, 30)[:, ::-1])
    finally:
        resize_module._cv2_that_agrees.cache_clear()


@pytest.mark.peers
def test_the_restated_resize_equals_that_of_opencv_at_random_sizes() -> None:
    cv2 = pytest.importorskip("cv2")
    random = np.random.default_rng(0)
    for height, width, new_height, new_width in random.integers(1, 500, (200, 4)).tolist():
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        window = resize_module._Window
        restated = resize_module._window_like_cv2(
            pixels, window(new_height, 0, new_height), window(new_width, 0, new_width)
        )
        assert np.array_equal(restated, cv2.resize(pixels, (new_width, new_height)))
