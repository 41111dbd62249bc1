from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import decode_image
from torchvision.transforms import v2

from resnet_zoo import create_transform
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import DatasetError, UnknownModelError
from resnet_zoo.images.resize import resize_crop_like_cv2, resize_crop_like_pillow
from resnet_zoo.images.transform import Transform
from tests.conftest import ENTRIES, NAMES, smooth_image

CIFAR = [entry for entry in ENTRIES if entry.preprocess.resize_backend is None]
ONE_OF_EACH = ["resnet18_cifar10", "resnet50_cifar100", "resnet18_in1k", "resnetv1d50_in1k"]


@pytest.fixture
def picture() -> np.ndarray:
    return smooth_image(300, 401)


def size_for(name: str) -> tuple[int, int]:
    return (32, 32) if "cifar" in name else (300, 401)


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_row_turns_an_image_into_its_input(entry: Entry) -> None:
    image = smooth_image(*size_for(entry.name))
    x = create_transform(entry.name)(image)
    assert tuple(x.shape) == entry.input_size
    assert x.dtype == torch.float32
    assert x.is_contiguous()


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_row_uses_its_own_backend(entry: Entry, picture: np.ndarray) -> None:
    if "cifar" in entry.name:
        image = smooth_image(32, 32)
        assert np.array_equal(create_transform(entry.name).pixels(image), image)
        return
    resize = resize_crop_like_pillow if entry.architecture.startswith("resnetv1d") else resize_crop_like_cv2
    assert np.array_equal(create_transform(entry.name).pixels(picture), resize(picture, 256, 224))


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_all_sources_give_equal_inputs(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    Image.fromarray(smooth_image(*size_for(name))).save(path, kind)
    transform = create_transform(name)
    with Image.open(path) as image:
        array = np.asarray(image)
        others = [transform(image), transform(str(path)), transform(path.read_bytes()), transform(array)]
    expected = transform(path)
    assert all(torch.equal(other, expected) for other in others)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_reversed_view_such_as_bgr_to_rgb_is_taken(name: str) -> None:
    bgr = smooth_image(*size_for(name))
    rgb = bgr[:, :, ::-1]
    transform = create_transform(name)
    assert torch.equal(transform(rgb), transform(rgb.copy()))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_read_only_array_is_taken(name: str) -> None:
    array = smooth_image(*size_for(name))
    array.setflags(write=False)
    assert create_transform(name)(array).ndim == 3


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_array_passed_in_is_not_changed(name: str) -> None:
    array = smooth_image(*size_for(name))
    before = array.copy()
    create_transform(name)(array)
    assert np.array_equal(array, before)


# --- tensors -------------------------------------------------------------------------------------------------------


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_tensor_gives_the_input_of_its_pil_image(name: str) -> None:
    image = Image.fromarray(smooth_image(*size_for(name)))
    transform = create_transform(name)
    expected = transform(image)
    tensor = as_tensor(np.array(image))
    for form in (tensor, tensor.contiguous(), v2.ToImage()(image), v2.functional.pil_to_tensor(image)):
        before = form.clone()
        assert torch.equal(transform(form), expected)
        assert torch.equal(form, before)
    assert torch.equal(v2.Compose([v2.ToImage(), transform])(image), expected)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_batch_of_tensors_gives_a_batch_of_inputs(name: str) -> None:
    images = [smooth_image(*size_for(name), seed=seed) for seed in range(3)]
    transform = create_transform(name)
    inputs = transform(torch.stack([as_tensor(image) for image in images]))
    assert inputs.is_contiguous()
    assert torch.equal(inputs, torch.stack([transform(image) for image in images]))
    assert transform(torch.empty(0, 3, 32, 32, dtype=torch.uint8)).shape == (0, *inputs.shape[1:])


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
def test_what_decode_image_gives_is_taken_grey_ones_too(tmp_path: Path) -> None:
    transform = create_transform("resnet18_cifar10")
    for mode in ("RGB", "L"):
        path = tmp_path / f"{mode}.png"
        Image.fromarray(smooth_image(32, 32)).convert(mode).save(path)
        assert torch.equal(transform(decode_image(path)), transform(path))


@pytest.mark.parametrize(
    ("tensor", "fact"),
    [
        (
            torch.zeros(32, 32, 3, dtype=torch.uint8),
            r"uint8 tensor \(32, 32, 3\); expected \(3, H, W\).*permute\(2, 0, 1\)",
        ),
        (torch.zeros(3, 32, 32), r"float32 tensor .* 0 to 255"),
        (torch.zeros(4, 32, 32, dtype=torch.uint8), "mode='RGB'"),
        (torch.zeros(3, 32, 32, dtype=torch.int64), r"int64 tensor \(3, 32, 32\); expected .* uint8\.$"),
        (torch.zeros(32, 32, dtype=torch.uint8), r"\(32, 32\); expected"),
        (torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8), r"\(1, 1, 3, 32, 32\); expected"),
        (torch.zeros(2, 3, 32, 32), "float32 tensor"),
        (torch.zeros(3, 0, 32, dtype=torch.uint8), "expected"),
    ],
    ids=lambda value: f"{value.dtype}{tuple(value.shape)}" if isinstance(value, torch.Tensor) else "",
)
def test_a_tensor_that_is_no_image_is_refused_with_the_way_to_make_it_one(tensor: torch.Tensor, fact: str) -> None:
    with pytest.raises(DatasetError, match=fact):
        create_transform("resnet18_cifar10", any_size=True)(tensor)


# --- normalisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_normalisation_is_exact_in_the_0_to_255_scale(entry: Entry) -> None:
    transform = create_transform(entry.name)
    pixels = torch.from_numpy(smooth_image(16, 16)).permute(2, 0, 1)
    mean, std = (
        np.array(values, np.float32)[:, None, None] for values in (entry.preprocess.mean, entry.preprocess.std)
    )
    expected = (pixels.numpy().astype(np.float32) - mean) / std
    assert np.array_equal(transform.normalise(pixels).numpy(), expected)


def test_dividing_by_255_first_is_not_the_same() -> None:
    transform = create_transform("resnet18_in1k")
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3, 1).view(3, 16, 16)
    scaled = (pixels / 255 - transform.mean / 255) / (transform.std / 255)
    difference = (transform.normalise(pixels) - scaled).abs().max()
    assert 0 < difference < 1e-6


def test_a_batch_is_normalised_as_its_images_are() -> None:
    transform = create_transform("resnet18_cifar10")
    pixels = torch.from_numpy(np.stack([smooth_image(32, 32, seed=seed) for seed in range(3)])).permute(0, 3, 1, 2)
    batch = transform.normalise(pixels)
    assert batch.is_contiguous()
    assert all(torch.equal(x, transform.normalise(image)) for x, image in zip(batch, pixels, strict=True))


def test_normalising_leaves_the_pixels_and_the_constants_as_they_were() -> None:
    transform = create_transform("resnet18_cifar10")
    pixels = torch.zeros(3, 2, 2, dtype=torch.uint8)
    first = transform.normalise(pixels)
    assert torch.equal(transform.normalise(pixels), first)
    assert torch.all(pixels == 0)


# --- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", CIFAR, ids=lambda entry: entry.name)
@pytest.mark.parametrize("size", [(31, 32), (32, 33), (224, 224), (1, 1)])
def test_a_cifar_row_refuses_another_size_and_says_how_to_pass_it(entry: Entry, size: tuple[int, int]) -> None:
    with pytest.raises(DatasetError, match=rf"{size[1]}x{size[0]} pixels.*32x32.*any_size=True"):
        create_transform(entry.name)(smooth_image(*size))


@pytest.mark.parametrize("size", [(31, 32), (100, 60), (1, 1), (32, 90)])
def test_any_size_lets_a_cifar_row_take_another_size(size: tuple[int, int]) -> None:
    image = smooth_image(*size)
    transform = create_transform("resnet18_cifar10", any_size=True)
    assert np.array_equal(transform.pixels(image), resize_crop_like_pillow(image, 32, 32))


def test_any_size_does_not_change_an_image_of_the_right_size() -> None:
    image = smooth_image(32, 32)
    strict, lenient = (create_transform("resnet18_cifar10", any_size=any_size) for any_size in (False, True))
    assert torch.equal(strict(image), lenient(image))


def test_a_file_of_the_wrong_size_is_named(tmp_path: Path) -> None:
    path = tmp_path / "big.png"
    Image.fromarray(smooth_image(40, 40)).save(path)
    with pytest.raises(DatasetError, match=r"big\.png is 40x40"):
        create_transform("resnet18_cifar10")(path)


@pytest.mark.parametrize("name", ["resnet18_in1k", "resnetv1d50_in1k"])
def test_a_file_of_extreme_shape_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    Image.new("RGB", (20_000, 1)).save(path)
    with pytest.raises(DatasetError, match=r"line\.png"):
        create_transform(name)(path)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.float32),
        np.zeros((1, 32, 32, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_an_array_that_is_no_rgb_image_is_refused(array: np.ndarray) -> None:
    with pytest.raises(DatasetError, match=r"expected \(H, W, 3\) uint8 RGB"):
        create_transform("resnet18_cifar10", any_size=True)(array)


@pytest.mark.parametrize("name", ONE_OF_EACH)
@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 5, 3), (5, 0, 3)])
def test_an_array_without_pixels_is_refused(name: str, shape: tuple[int, int, int]) -> None:
    with pytest.raises(DatasetError):
        create_transform(name, any_size=True)(np.zeros(shape, np.uint8))


def test_any_image_source_of_python_is_taken_or_refused_as_a_data_set_error() -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth_image(32, 32)).save(buffer, "PNG")
    transform = create_transform("resnet18_cifar10")
    expected = transform(buffer.getvalue())
    for source in (bytearray(buffer.getvalue()), memoryview(buffer.getvalue())):
        assert torch.equal(transform(source), expected)


def test_an_unknown_row_has_no_transform() -> None:
    with pytest.raises(UnknownModelError, match="resnet50"):
        create_transform("resnet5O")


def test_an_alias_has_the_transform_of_its_row() -> None:
    assert repr(create_transform("resnet50")) == repr(create_transform("resnet50_in1k"))


def test_the_transform_prints_its_rules() -> None:
    text = repr(create_transform("resnetv1d50_in1k"))
    assert text.startswith("Transform(")
    assert "resize_backend='pillow'" in text
    assert "224x224, any_size=False" in text


def test_a_transform_can_be_sent_to_another_process() -> None:
    import pickle

    transform = create_transform("resnet18_cifar10", any_size=True)
    again = pickle.loads(pickle.dumps(transform))
    assert isinstance(again, Transform)
    image = smooth_image(40, 50)
    assert torch.equal(again(image), transform(image))
