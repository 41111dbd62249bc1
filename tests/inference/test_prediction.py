from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from resnet_zoo import create_transform
from resnet_zoo.catalog.classes import class_names
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import ArgumentError, DatasetError, DownloadError, NonFiniteOutputError, UnknownModelError
from resnet_zoo.images.transform import ImageSource
from resnet_zoo.inference.prediction import Prediction, predict, stream_predictions
from resnet_zoo.network.building import build
from resnet_zoo.network.resnet import ResNet
from tests.conftest import UNFETCHED, random_network, smooth_image

NAME = "resnet18_cifar10"
CLASSES = class_names("cifar10")


@pytest.fixture(scope="module")
def model() -> ResNet:
    return random_network(head_std=0.5)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = []
    for index in range(7):
        found.append(tmp_path / f"{index}.png")
        Image.fromarray(smooth_image(32, 32, seed=index)).save(found[-1])
    return found


def labels(prediction: Prediction) -> list[int]:
    return [score.label for score in prediction.classes]


def test_the_best_classes_come_first_with_names_and_probabilities(model: ResNet, paths: list[Path]) -> None:
    (prediction,) = predict(NAME, paths[0], model=model, device="cpu", top_k=10)
    with torch.no_grad():
        expected = model(create_transform(NAME)(paths[0])[None]).softmax(1)[0]
    assert labels(prediction) == expected.argsort(descending=True).tolist()
    assert [score.name for score in prediction.classes] == [CLASSES[label] for label in labels(prediction)]
    assert [score.probability for score in prediction.classes] == pytest.approx(
        expected.sort(descending=True)[0].tolist()
    )
    assert sum(score.probability for score in prediction.classes) == pytest.approx(1)
    assert prediction.image == str(paths[0])


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_predictions_come_in_the_order_of_the_images_whatever_the_batch(
    batch_size: int, model: ResNet, paths: list[Path]
) -> None:
    found = predict(NAME, paths, model=model, device="cpu", batch_size=batch_size)
    assert [prediction.image for prediction in found] == [str(path) for path in paths]
    alone = [predict(NAME, path, model=model, device="cpu")[0] for path in paths]
    assert [labels(prediction) for prediction in found] == [labels(prediction) for prediction in alone]
    assert len({prediction.classes for prediction in found}) == len(paths)


@pytest.mark.parametrize("container", [list, tuple])
def test_one_image_and_a_list_of_it_give_the_same(
    container: Callable[[list[Path]], list[Path]], model: ResNet, paths: list[Path]
) -> None:
    single = predict(NAME, paths[0], model=model, device="cpu")
    assert predict(NAME, container([paths[0]]), model=model, device="cpu") == single


@pytest.mark.parametrize("fast", [False, True])
def test_a_network_that_is_lent_comes_back_as_it_was(fast: bool, model: ResNet, paths: list[Path]) -> None:
    expected = predict(NAME, paths, model=model, device="cpu", fast=fast)
    lent = copy.deepcopy(model).train()
    lent.bn1.eval()
    stream = stream_predictions(NAME, paths, model=lent, device="cpu", fast=fast, batch_size=7)
    found = []
    for prediction in stream:
        assert lent.training
        assert not lent.bn1.training
        found.append(prediction)
    assert found == expected


def test_no_images_give_no_predictions(model: ResNet) -> None:
    assert predict(NAME, [], model=model, device="cpu") == []


def test_every_kind_of_source_gives_the_same_classes(model: ResNet, paths: list[Path]) -> None:
    array = smooth_image(32, 32, seed=0)
    sources: list[ImageSource] = [paths[0], str(paths[0]), paths[0].read_bytes(), Image.fromarray(array), array]
    found = predict(NAME, sources, model=model, device="cpu")
    assert len({prediction.classes for prediction in found}) == 1
    assert [prediction.image for prediction in found] == [str(paths[0])] * 2 + ["The image"] * 3


def test_arrays_and_tensors_of_several_images_are_taken(model: ResNet, paths: list[Path]) -> None:
    expected = [prediction.classes for prediction in predict(NAME, paths, model=model, device="cpu")]
    pixels = np.stack([smooth_image(32, 32, seed=index) for index in range(7)])
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    names = np.array([str(path) for path in paths])
    objects = np.array(paths, dtype=object)
    for images in (pixels, tensor, names, objects, list(pixels), list(tensor), names[:, None]):
        found = predict(NAME, images, model=model, device="cpu")
        assert [prediction.classes for prediction in found] == expected
    alone = predict(NAME, paths[0], model=model, device="cpu")[0].classes
    for image in (pixels[0], tensor[0], names[0], np.array(names[0])):
        assert [found.classes for found in predict(NAME, image, model=model, device="cpu")] == [alone]
    assert predict(NAME, pixels[:0], model=model, device="cpu") == []


@pytest.mark.parametrize(
    "images", [np.arange(5), np.zeros((2, 32, 32, 3)), np.zeros((32, 32), np.uint8), torch.zeros(7)]
)
def test_arrays_of_something_else_are_refused(images: np.ndarray | Tensor, model: ResNet) -> None:
    with pytest.raises(DatasetError, match="expected"):
        predict(NAME, images, model=model, device="cpu")


def test_an_array_alone_is_one_image(model: ResNet) -> None:
    assert len(predict(NAME, smooth_image(32, 32), model=model, device="cpu")) == 1


def test_an_iterator_of_images_is_taken_or_refused_with_a_reason(model: ResNet, paths: list[Path]) -> None:
    try:
        found = predict(NAME, iter(paths), model=model, device="cpu")
    except (ArgumentError, DatasetError):
        return
    assert len(found) == len(paths)


def test_images_of_other_sizes_are_shrunk_for_a_cifar_row(model: ResNet) -> None:
    image = smooth_image(200, 120)
    (prediction,) = predict(NAME, image, model=model, device="cpu")
    small = create_transform(NAME, any_size=True).pixels(image)
    assert predict(NAME, np.array(small), model=model, device="cpu")[0].classes == prediction.classes


@pytest.mark.parametrize("top_k", [1, 5, 10])
def test_as_many_classes_as_asked_for_are_returned(top_k: int, model: ResNet, paths: list[Path]) -> None:
    assert len(predict(NAME, paths[0], model=model, device="cpu", top_k=top_k)[0].classes) == top_k


@pytest.mark.parametrize("top_k", [0, -1, 11])
def test_a_top_k_outside_of_the_classes_is_refused(top_k: int, model: ResNet, paths: list[Path]) -> None:
    with pytest.raises(ArgumentError, match=rf"top_k of 1 to 10.*got {top_k}"):
        predict(NAME, paths[0], model=model, top_k=top_k)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_a_batch_size_that_is_not_positive_is_refused(batch_size: int, model: ResNet, paths: list[Path]) -> None:
    with pytest.raises(ArgumentError, match="positive batch size"):
        predict(NAME, paths[0], model=model, batch_size=batch_size)


@pytest.mark.parametrize("num_classes", [3, 300])
def test_a_model_of_another_number_of_classes_is_an_argument_error(num_classes: int, paths: list[Path]) -> None:
    torch.manual_seed(0)
    other = build(get_entry(NAME), num_classes=num_classes)
    with pytest.raises(ArgumentError):
        predict(NAME, paths, model=other, device="cpu")


def test_an_unreadable_image_is_an_error_that_names_it(model: ResNet, paths: list[Path]) -> None:
    paths[4].write_bytes(b"junk")
    with pytest.raises(DatasetError, match=r"4\.png"):
        predict(NAME, paths, model=model, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_on_bad_gets_the_error_and_the_others_are_predicted(batch_size: int, model: ResNet, paths: list[Path]) -> None:
    paths[0].write_bytes(b"junk")
    paths[4].unlink()
    errors: list[DatasetError] = []
    found = predict(NAME, paths, model=model, device="cpu", batch_size=batch_size, on_bad=errors.append)
    assert [prediction.image for prediction in found] == [str(paths[index]) for index in (1, 2, 3, 5, 6)]
    assert [str(paths[index]) in str(error) for index, error in zip((0, 4), errors, strict=True)] == [True, True]


def test_nothing_but_unreadable_images_give_no_predictions(model: ResNet, tmp_path: Path) -> None:
    errors: list[DatasetError] = []
    assert predict(NAME, [tmp_path / "a", tmp_path / "b"], model=model, device="cpu", on_bad=errors.append) == []
    assert len(errors) == 2


def test_weights_of_a_file_are_used(model: ResNet, paths: list[Path], tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    expected = predict(NAME, paths, model=model, device="cpu")
    assert predict(NAME, paths, weights=tmp_path / "mine.pth", device="cpu") == expected


def test_missing_weights_are_an_error_not_a_random_network(paths: list[Path]) -> None:
    with pytest.raises(DownloadError, match="offline"):
        predict(UNFETCHED, paths, device="cpu")


def test_an_unknown_row_is_an_error(paths: list[Path]) -> None:
    with pytest.raises(UnknownModelError):
        predict("resnet19", paths)


def test_a_model_in_training_mode_is_predicted_with_in_eval_mode(paths: list[Path]) -> None:
    class Recorder(nn.Module):
        modes: list[bool] = []  # noqa: RUF012

        def forward(self, x: Tensor) -> Tensor:
            self.modes.append(self.training)
            return x.new_zeros(len(x), 10)

    recorder = Recorder().train()
    predict(NAME, paths, model=recorder, device="cpu", batch_size=4)
    assert recorder.modes == [False, False]


@pytest.mark.parametrize("tensor", ["layer2.0.conv1.weight", "bn1.running_var", "fc.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("fast", [False, True])
def test_values_that_are_not_finite_are_no_answer_and_their_layer_is_named(
    tensor: str, value: float, fast: bool, paths: list[Path]
) -> None:
    network = random_network()
    network.state_dict()[tensor].view(-1)[0] = value
    layer, _, own = tensor.rpartition(".")
    if tensor == "bn1.running_var" and value == float("inf"):
        assert len(predict(NAME, paths, model=network, device="cpu", fast=fast)) == 7  # x / inf is 0
        return
    with pytest.raises(NonFiniteOutputError, match=rf"first behind {layer}: its {own} holds") as caught:
        predict(NAME, paths, model=network, device="cpu", fast=fast)
    assert caught.value.exit_code == 1


def test_values_that_overflow_on_the_way_are_no_answer_either(paths: list[Path]) -> None:
    network = random_network()
    norm = network.get_submodule("layer3.1.bn2")
    for tensor in norm.parameters():
        nn.init.constant_(tensor, 3e38)
    with pytest.raises(NonFiniteOutputError, match=r"first behind layer3\.1\.bn2: its own values are finite"):
        predict(NAME, paths, model=network, device="cpu")
    assert not norm._forward_hooks


def test_very_large_finite_logits_are_an_answer(paths: list[Path]) -> None:
    network = random_network()
    with torch.no_grad():
        network.fc.weight.mul_(1e30)
    (prediction,) = predict(NAME, paths[0], model=network, device="cpu", top_k=1)
    assert prediction.classes[0].probability == 1


def test_imagenet_classes_are_named_with_all_their_synonyms() -> None:
    class OnlyTench(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits = x.new_zeros(len(x), 1000)
            logits[:, 0] = 10
            return logits

    (prediction,) = predict("resnet18", smooth_image(300, 300), model=OnlyTench(), device="cpu", top_k=1)
    assert prediction.classes[0].name == "tench, Tinca tinca"
