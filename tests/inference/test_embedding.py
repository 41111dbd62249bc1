from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from resnet_zoo import create_model, create_transform, embed, embed_files
from resnet_zoo.errors import ArgumentError, DatasetError, NonFiniteOutputError, UnknownModelError
from resnet_zoo.network.resnet import ResNet
from tests.conftest import smooth_image

ROW = "resnet18_cifar10"
IMAGES = [smooth_image(32, 32, seed=seed) for seed in range(7)]


def test_vectors_are_what_the_classifier_gets(pet_model: ResNet, pet_file: Path) -> None:
    seen: list[torch.Tensor] = []
    hook = pet_model.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        pet_model(torch.stack([create_transform(ROW)(image) for image in IMAGES]))
    hook.remove()
    found = embed(pet_file, IMAGES, device="cpu")
    assert found.shape == (7, 512)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, seen[0].numpy(), rtol=1e-5, atol=1e-5)
    assert len(np.unique(found[:, 0])) == 7


def test_vectors_do_not_depend_on_the_number_of_cores(pet_file: Path) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(embed(pet_file, IMAGES, device="cpu", batch_size=2))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(found[0], found[1])


def test_fast_vectors_are_nearly_the_same(pet_file: Path) -> None:
    exact, fast = (embed(pet_file, IMAGES, device="cpu", fast=fast) for fast in (False, True))
    assert fast.dtype == np.float32
    assert not np.array_equal(exact, fast)
    assert np.abs(exact - fast).max() < 0.03 * np.abs(exact).max()


def test_every_kind_of_source_and_one_alone_is_taken(pet_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(IMAGES[0]).save(path)
    sources: list[Any] = [IMAGES[0], path, str(path), path.read_bytes()]
    several = embed(pet_file, iter(sources), device="cpu", batch_size=1)
    assert len(np.unique(several, axis=0)) == 1
    assert np.array_equal(embed(pet_file, path, device="cpu"), several[:1])
    assert embed(pet_file, [], device="cpu").shape == (0, 512)


def test_arrays_and_tensors_of_several_images_are_taken(pet_file: Path, tmp_path: Path) -> None:
    pixels, expected = np.stack(IMAGES), embed(pet_file, IMAGES, device="cpu")
    for index, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    names = np.array([str(tmp_path / f"{index}.png") for index in range(len(IMAGES))])
    for images in (pixels, torch.from_numpy(pixels).permute(0, 3, 1, 2), names):
        assert np.array_equal(embed(pet_file, images, device="cpu"), expected)


@pytest.mark.parametrize("write", [False, True], ids=["embed", "embed_files"])
def test_vectors_that_are_not_finite_are_refused_and_their_layer_named(write: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(IMAGES[0]).save(path)
    tensors = create_model(ROW).state_dict()
    tensors["layer4.1.conv2.weight"][0, 0, 0, 0] = float("nan")
    weights = tmp_path / "nan.pth"
    torch.save(tensors, weights)
    made = partial(embed_files, ROW, [path], tmp_path / "out.npy") if write else partial(embed, ROW, path)
    with pytest.raises(NonFiniteOutputError, match=r"first behind layer4\.1\.conv2: its weight"):
        made(weights=weights, device="cpu")
    assert not (tmp_path / "out.npy").exists()


def test_bad_images_are_raised_or_reported(pet_file: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.png"
    with pytest.raises(DatasetError, match="missing"):
        embed(pet_file, [IMAGES[0], missing], device="cpu")
    bad: list[DatasetError] = []
    assert len(embed(pet_file, [IMAGES[0], missing, IMAGES[1]], device="cpu", batch_size=2, on_bad=bad.append)) == 2
    assert [str(missing) in str(error) for error in bad] == [True]
    assert embed(pet_file, [missing], device="cpu", on_bad=bad.append).shape == (0, 512)


def test_a_row_takes_weights(tmp_path: Path, pet_model: ResNet) -> None:
    path = tmp_path / "weights.safetensors"
    network = create_model(ROW)
    network.load_state_dict({**pet_model.state_dict(), **{f"fc.{k}": v for k, v in network.fc.state_dict().items()}})
    safetensors.torch.save_file(network.state_dict(), path)
    assert embed(ROW, IMAGES[0], weights=path, device="cpu").shape == (1, 512)


def test_wrong_arguments_are_refused(pet_file: Path) -> None:
    with pytest.raises(ArgumentError, match="positive batch size"):
        embed(pet_file, IMAGES, batch_size=0)
    with pytest.raises(ArgumentError, match="'toaster' is not available"):
        embed(pet_file, IMAGES, device="toaster")
    with pytest.raises(UnknownModelError):
        embed("reznet50", IMAGES)
