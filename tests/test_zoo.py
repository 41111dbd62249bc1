from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from resnet_zoo import count_flops, create_transform, embed, evaluate, optimize_for_inference, predict, save_network
from resnet_zoo.base.devices import resolve_device
from resnet_zoo.catalog.architectures import ARCHITECTURES
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import (
    ArgumentError,
    CheckpointError,
    DownloadError,
    UnknownModelError,
    UnknownWeightsError,
    WeightsMismatchError,
    WeightsUnavailableError,
)
from resnet_zoo.network.building import build, build_on_meta
from resnet_zoo.network.features import FeatureExtractor
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.loading import adapt_input
from resnet_zoo.zoo import create_feature_extractor, create_model
from tests.conftest import ENTRIES, NAMES, UNFETCHED, randomise

NAME = "resnet18_cifar10"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return randomise(build(get_entry(NAME))).state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def pth(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, folder / "mine.pth")
    return folder / "mine.pth"


@pytest.fixture(scope="module")
def safetensors(folder: Path, state: dict[str, Tensor]) -> Path:
    save_file(state, folder / "mine.safetensors")
    return folder / "mine.safetensors"


def assert_holds(model: nn.Module, state: dict[str, Tensor], but: tuple[str, ...] = ()) -> None:
    found = model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items() if key not in but)


def image(channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(5))


# --- fresh ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "152" not in entry.name], ids=lambda e: e.name)
def test_every_row_is_created_with_values(entry: Entry) -> None:
    model = create_model(entry.name)
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    assert model.training
    assert model.fc.out_features == entry.num_classes


def test_an_alias_creates_its_row() -> None:
    assert create_model("resnet18").fc.out_features == 1000


def test_an_unknown_row_is_an_error() -> None:
    with pytest.raises(UnknownModelError, match="resnet18_cifar10"):
        create_model("resnet18_cifar1O")


@pytest.mark.parametrize(("num_classes", "in_channels"), [(1, 1), (37, 6)])
def test_a_fresh_network_takes_other_classes_and_channels(num_classes: int, in_channels: int) -> None:
    model = create_model(NAME, num_classes=num_classes, in_channels=in_channels).eval()
    assert tuple(model(image(in_channels)).shape) == (2, num_classes)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("num_classes", -1, "num_classes of 0 or more, got -1"),
        ("in_channels", 0, "positive in_channels, got 0"),
        ("in_channels", -1, "positive in_channels, got -1"),
        ("drop_rate", 1.0, "drop_rate of 0 to below 1, got 1.0"),
        ("drop_rate", -0.1, "drop_rate of 0 to below 1, got -0.1"),
        ("drop_rate", float("nan"), "drop_rate of 0 to below 1, got nan"),
    ],
)
def test_a_number_out_of_range_is_refused(argument: str, value: float, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        create_model(NAME, **{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_chans": 1}, r"create_model\(\) got an unexpected keyword argument 'in_chans'. Here it is in_channels"),
        ({"features_only": True}, "create_feature_extractor"),
        ({"pool": ""}, "'pool'"),
        ({"num_clases": 3}, "Did you mean num_classes"),
        ({"frobnicate": 1}, "'frobnicate'.$"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_argument_of_elsewhere_is_refused_with_the_way_here(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        create_model(NAME, **arguments)


def test_an_extractor_names_the_layers_for_timms_indices() -> None:
    with pytest.raises(TypeError, match=r"layers=.*stem\.relu and stage1"):
        create_feature_extractor(NAME, out_indices=(2, 4))  # type: ignore[arg-type]


def test_a_drop_rate_is_a_dropout_before_the_classifier_and_none_is_nothing() -> None:
    assert isinstance(create_model(NAME, drop_rate=0.3).drop, nn.Dropout)
    plain = create_model(NAME)
    assert plain.drop is None
    assert not any(isinstance(module, nn.Dropout) for module in plain.modules())


# --- entries -------------------------------------------------------------------------------------------------------


def test_a_network_knows_its_row_and_its_own_classes(pth: Path) -> None:
    for model in (create_model(NAME, num_classes=3), create_model(NAME, weights=pth, num_classes=3)):
        assert model.entry is not None
        assert (model.entry.name, model.entry.num_classes) == (NAME, 3)
        model.reset_classifier(5)
        assert model.entry.num_classes == model.num_classes == 5
    assert create_model(NAME, in_channels=1).entry.input_size == (1, 32, 32)  # type: ignore[union-attr]
    assert ResNet(ARCHITECTURES["resnet18"]).entry is None


def test_a_transform_is_made_for_a_network(pet_file: Path, pth: Path) -> None:
    ours, named = create_transform(create_model(NAME, weights=pth)), create_transform(NAME)
    assert repr(ours) == repr(named)
    body = create_feature_extractor(pet_file)
    fast = optimize_for_inference(create_model(pet_file))
    assert repr(create_transform(body)) == repr(create_transform(fast)) == repr(named)
    tagged = create_model("resnet50", weights=None)
    assert repr(create_transform(tagged)) == repr(create_transform("resnet50"))


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (lambda: ResNet(ARCHITECTURES["resnet18"]), {}, "does not know which model it is. Pass the model's name"),
        (lambda: create_model(NAME, in_channels=1), {}, "images with 1 channels"),
        (lambda: create_model(NAME), {"size": 32}, "Leave 32 out"),
        (lambda: create_model(NAME), {"weights": "retrained"}, "Leave retrained out"),
    ],
    ids=["by hand", "grey", "size", "weights"],
)
def test_a_network_without_a_transform_is_refused(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        create_transform(model(), **arguments)


# --- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_of_a_path_are_loaded(suffix: str, state: dict[str, Tensor], request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(suffix)
    for weights in (path, str(path)):
        model = create_model(NAME, weights=weights)
        assert_holds(model, state)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert not any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
        assert model.training


def test_logits_after_loading_are_those_before_saving(pth: Path, state: dict[str, Tensor]) -> None:
    original = build(get_entry(NAME))
    original.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(create_model(NAME, weights=pth).eval()(image()), original.eval()(image()))


@pytest.mark.parametrize("arguments", [{"pretrained": True}, {"weights": "openmmlab"}], ids=str)
def test_weights_out_of_reach_raise_instead_of_returning_random_values(arguments: dict[str, Any]) -> None:
    with pytest.raises(DownloadError, match=r"\.pth \(.*offline mode"):
        create_model(UNFETCHED, **arguments)


def test_pretrained_are_the_rows_default_weights() -> None:
    default = get_entry(NAME).default_weights
    ours, theirs = (create_model(NAME, **how).state_dict() for how in ({"pretrained": True}, {"weights": default}))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("word", ["DEFAULT", "default", "Default"])
def test_torchvisions_word_means_the_rows_default_weights(word: str) -> None:
    assert torch.equal(create_model(NAME, weights=word).fc.weight, create_model(NAME, pretrained=True).fc.weight)
    assert repr(create_transform("resnet50", weights=word)) == repr(create_transform("resnet50"))


def test_an_unknown_tag_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(UnknownWeightsError, match="Did you mean openmmlab") as caught:
        create_model(NAME, weights="openmlab")
    assert caught.value.known == tuple(get_entry(NAME).weights)


def test_a_missing_file_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match=r"missing\.pth"):
        create_model(NAME, weights=tmp_path / "missing.pth")


def test_a_path_given_beside_pretrained_is_used(pth: Path, state: dict[str, Tensor]) -> None:
    assert_holds(create_model(NAME, pretrained=True, weights=pth), state)


def test_a_file_for_another_row_lists_keys_and_names_that_row(pth: Path) -> None:
    with pytest.raises(WeightsMismatchError) as caught:
        create_model("resnet34_cifar10", weights=pth)
    error = caught.value
    assert "layer1.2.conv1.weight" in error.missing
    assert error.unexpected == ()
    assert error.fits == (NAME,)
    assert f"The file fits {NAME}" in str(error)


def test_a_file_for_another_data_set_lists_both_shapes(pth: Path) -> None:
    with pytest.raises(WeightsMismatchError) as caught:
        create_model("resnet18_in1k", weights=pth)
    assert caught.value.shapes["conv1.weight"] == ((64, 3, 7, 7), (64, 3, 3, 3))
    assert caught.value.shapes["fc.bias"] == ((1000,), (10,))


def test_a_file_without_values_never_becomes_a_network(tmp_path: Path) -> None:
    torch.save(build_on_meta(get_entry(NAME)).state_dict(), tmp_path / "meta.pth")
    with pytest.raises(CheckpointError):
        create_model(NAME, weights=tmp_path / "meta.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_make_a_float32_network(
    dtype: torch.dtype, state: dict[str, Tensor], tmp_path: Path
) -> None:
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}
    save_file(half, tmp_path / "half.safetensors")
    model = create_model(NAME, weights=tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert_holds(model, {key: value.float() if value.dtype == dtype else value for key, value in half.items()})


def test_ddp_keys_and_missing_counters_are_no_obstacle(state: dict[str, Tensor], tmp_path: Path) -> None:
    old = {f"module.{key}": value for key, value in state.items() if "num_batches_tracked" not in key}
    torch.save(old, tmp_path / "old.pth")
    assert_holds(create_model(NAME, weights=tmp_path / "old.pth"), state)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_one_step_of_training_leaves_the_file_as_it_was(suffix: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(suffix)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    model = create_model(NAME, weights=path)
    weight = model.conv1.get_parameter("weight").detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss = nn.functional.cross_entropy(model(image()), torch.tensor([1, 2]))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert not torch.equal(model.conv1.get_parameter("weight"), weight)
    assert int(model.state_dict()["bn1.num_batches_tracked"]) == 1
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


def test_two_networks_from_one_file_share_no_memory(safetensors: Path) -> None:
    first, second = (create_model(NAME, weights=safetensors) for _ in range(2))
    before = second.fc.weight.detach().clone()
    with torch.no_grad():
        first.fc.weight.zero_()
    assert torch.equal(second.fc.weight, before)


# --- another head --------------------------------------------------------------------------------------------------

HEAD = ("fc.weight", "fc.bias")


def test_another_number_of_classes_gets_a_fresh_head_and_keeps_every_other_tensor(
    pth: Path, state: dict[str, Tensor]
) -> None:
    torch.manual_seed(0)
    model = create_model(NAME, weights=pth, num_classes=400)
    assert_holds(model, state, but=HEAD)
    assert tuple(model.fc.weight.shape) == (400, 512)
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert torch.all(model.fc.bias == 0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())


def test_the_same_number_of_classes_keeps_the_head(pth: Path, state: dict[str, Tensor]) -> None:
    assert_holds(create_model(NAME, weights=pth, num_classes=10), state)


def test_a_file_whose_head_has_that_many_classes_is_loaded_whole(state: dict[str, Tensor], tmp_path: Path) -> None:
    tuned = {**state, "fc.weight": torch.randn(3, 512), "fc.bias": torch.randn(3)}
    torch.save(tuned, tmp_path / "tuned.pth")
    assert_holds(create_model(NAME, weights=tmp_path / "tuned.pth", num_classes=3), tuned)
    with pytest.raises(WeightsMismatchError, match="num_classes"):
        create_model(NAME, weights=tmp_path / "tuned.pth")


def test_without_a_classifier_every_other_tensor_is_kept(state: dict[str, Tensor], pth: Path, tmp_path: Path) -> None:
    body = {key: tensor for key, tensor in state.items() if key not in HEAD}
    torch.save(body, tmp_path / "body.pth")
    torch.save({**body, "fc.weight": torch.randn(3, 512), "fc.bias": torch.randn(3)}, tmp_path / "three.pth")
    for path in (pth, tmp_path / "body.pth", tmp_path / "three.pth"):
        assert_holds(create_model(NAME, weights=path, num_classes=0), body)
    assert create_model(NAME, weights=pth, num_classes=0)(image()).shape == (2, 512)
    with pytest.raises(WeightsMismatchError, match=r"missing: fc.weight, fc.bias"):
        create_model(NAME, weights=tmp_path / "body.pth")
    with pytest.raises(WeightsMismatchError):
        create_model("resnet34_cifar10", weights=pth, num_classes=0)


def test_a_network_without_a_classifier_goes_where_it_can(tmp_path: Path, class_tree: Any) -> None:
    model = create_model(NAME, num_classes=0)
    assert optimize_for_inference(model)(image()).shape == (2, 512)
    with pytest.raises(ArgumentError, match="classifier `fc` is a Linear, got a classifier of type Identity"):
        save_network(tmp_path / "headless.safetensors", model, row=NAME, class_names=["a"])
    with pytest.raises(ArgumentError, match="a model of 10 classes; this one gives 512 values per image"):
        evaluate(NAME, class_tree(["airplane", "bird"]), model=model, partial=True)
    with pytest.raises(ArgumentError, match="512"):
        predict(NAME, np.zeros((32, 32, 3), np.uint8), model=model)


def test_a_network_that_pools_maxima_is_not_saved(tmp_path: Path) -> None:
    for pool in ("max", "avgmax"):
        model = create_model(NAME, global_pool=pool)
        with pytest.raises(ArgumentError, match="avgpool"):
            save_network(tmp_path / "maxima.safetensors", model, row=NAME, class_names=list("abcdefghij"))
    model.set_global_pool("avg")
    assert save_network(tmp_path / "means.safetensors", model, row=NAME, class_names=list("abcdefghij"))


def test_maps_become_vectors_as_is_asked_for_or_stay_maps() -> None:
    model = randomise(create_model(NAME, num_classes=0, global_pool="")).eval()
    assert isinstance(model, ResNet)
    with torch.inference_mode():
        maps = model(image())
        assert maps.shape == (2, 512, 4, 4)
        assert torch.equal(maps, model.forward_features(image()))
        vectors = {"avg": maps.mean((2, 3)), "max": maps.amax((2, 3))}
        vectors["avgmax"] = (vectors["avg"] + vectors["max"]) / 2
        for pool, expected in vectors.items():
            model.set_global_pool(pool)
            assert torch.allclose(model(image()), expected, atol=1e-6)
        model.reset_classifier(0, "")
        assert torch.equal(model(image()), maps)
        model.reset_classifier(3, "max")
        assert model(image()).shape == (2, 3)


def test_what_cannot_be_pooled_is_refused() -> None:
    with pytest.raises(ArgumentError, match="global_pool of avg, max, avgmax or '', got 'mean'"):
        create_model(NAME, global_pool="mean")
    with pytest.raises(ArgumentError, match="goes with num_classes=0"):
        create_model(NAME, global_pool="")
    model = create_model(NAME)
    with pytest.raises(ArgumentError, match="goes with num_classes=0"):
        model.set_global_pool("")
    model.reset_classifier(0, "")
    with pytest.raises(ArgumentError, match="goes with num_classes=0"):
        model.reset_classifier(5)
    with pytest.raises(ArgumentError, match="Take stage4, its maps"):
        FeatureExtractor(model, layers=("pool",))
    assert FeatureExtractor(model, layers=("stage4",)).channels == {"stage4": 512}
    with pytest.raises(TypeError, match="stage4"):
        create_feature_extractor(NAME, global_pool="max")  # type: ignore[arg-type]


def test_a_file_for_another_row_is_refused_with_a_fresh_head_too(pth: Path) -> None:
    with pytest.raises(WeightsMismatchError):
        create_model("resnet34_cifar10", weights=pth, num_classes=3)


# --- other channels ------------------------------------------------------------------------------------------------


def test_one_channel_sees_a_grey_image_as_three_equal_channels(pth: Path) -> None:
    grey = image(1)
    one, three = (create_model(NAME, weights=pth, in_channels=channels).eval() for channels in (1, 3))
    with torch.no_grad():
        assert torch.allclose(one(grey), three(grey.expand(-1, 3, -1, -1)), atol=1e-4)
        assert not torch.allclose(one(grey), three(image(3)), atol=1e-2)


@pytest.mark.parametrize("in_channels", [1, 2, 4, 6, 9])
def test_other_channels_change_the_first_convolution_only(
    in_channels: int, pth: Path, state: dict[str, Tensor]
) -> None:
    model = create_model(NAME, weights=pth, in_channels=in_channels).eval()
    assert_holds(model, state, but=("conv1.weight",))
    assert tuple(model(image(in_channels)).shape) == (2, 10)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_six_channels_see_an_rgb_image_given_twice_as_once(pth: Path) -> None:
    rgb = image(3)
    six, three = (create_model(NAME, weights=pth, in_channels=channels).eval() for channels in (6, 3))
    with torch.no_grad():
        assert torch.allclose(six(torch.cat([rgb, rgb], dim=1)), three(rgb), atol=1e-4)


def test_channels_are_repeated_in_turn_and_scaled() -> None:
    weight = torch.randn(2, 3, 1, 1)
    adapted = adapt_input(weight, 4)
    assert torch.equal(adapted, weight[:, [0, 1, 2, 0]] * 0.75)
    assert torch.equal(adapt_input(weight, 3), weight)
    assert torch.equal(adapt_input(weight, 1), weight.sum(1, keepdim=True))


def test_the_deep_stem_is_adapted_in_its_first_convolution(tmp_path: Path) -> None:
    v1d = build(get_entry("resnetv1d50_in1k")).state_dict()
    save_file(v1d, tmp_path / "v1d.safetensors")
    model = create_model("resnetv1d50_in1k", weights=tmp_path / "v1d.safetensors", in_channels=1)
    assert_holds(model, v1d, but=("conv1.0.weight",))
    assert torch.equal(model.state_dict()["conv1.0.weight"], v1d["conv1.0.weight"].sum(1, keepdim=True))


def test_a_network_of_other_channels_and_classes_can_be_saved_and_loaded_again(tmp_path: Path) -> None:
    saved = create_model(NAME, in_channels=1, num_classes=3).state_dict()
    torch.save(saved, tmp_path / "grey.pth")
    assert_holds(create_model(NAME, weights=tmp_path / "grey.pth", in_channels=1, num_classes=3), saved)


# --- devices -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "cpu:x", "tpu"])
def test_a_device_that_is_not_there_is_an_argument_error(device: str) -> None:
    with pytest.raises(ArgumentError, match=r"is not available\. Pass auto, cpu"):
        create_model(NAME, device=device)


def test_a_bad_device_is_noticed_before_the_weights_are_read(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        create_model(NAME, weights=tmp_path / "missing.pth", device="gpu")


def test_the_network_ends_up_on_the_device() -> None:
    assert create_model(NAME, device="cpu").fc.weight.device == torch.device("cpu")
    assert create_model(NAME, device=torch.device("cpu")).fc.weight.device == torch.device("cpu")


def test_auto_is_a_device_of_this_machine() -> None:
    torch.zeros(1, device=resolve_device("auto"))


@pytest.mark.parametrize("name", NAMES[:1])
def test_loading_gives_what_the_checkpoint_holds(name: str, pth: Path) -> None:
    assert_holds(create_model(name, weights=pth), load_checkpoint(pth).tensors)


@pytest.fixture(params=["bfloat16", "meta"])
def odd_default(request: pytest.FixtureRequest) -> Iterator[str]:
    """A default type or device that a caller chose for code of their own."""
    before = torch.get_default_dtype()
    if request.param == "meta":
        torch.set_default_device("meta")
    else:
        torch.set_default_dtype(torch.bfloat16)
    yield request.param
    torch.set_default_dtype(before)
    torch.set_default_device(None)


def test_the_callers_defaults_change_no_pixel_and_no_value(odd_default: str) -> None:
    image = np.full((32, 32, 3), 77, np.uint8)
    pixels = create_transform(NAME)(image)
    model = create_model(NAME, pretrained=True, num_classes=3).eval()
    (found,), vectors = predict(NAME, [image], top_k=1), embed(NAME, [image])
    optimized = optimize_for_inference(create_model(NAME, pretrained=True).eval())
    assert count_flops(model, (3, 32, 32)) > 0
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    assert torch.equal(pixels, create_transform(NAME)(image))
    assert {(tensor.dtype, tensor.device.type) for tensor in model.parameters()} == {(torch.float32, "cpu")}
    assert found == predict(NAME, [image], top_k=1)[0]
    assert np.array_equal(vectors, embed(NAME, [image]))
    assert optimized(pixels[None]).isfinite().all()


def test_fresh_values_follow_the_callers_defaults_as_those_of_torch_do(odd_default: str) -> None:
    weight = create_model(NAME).fc.weight
    expected = {"bfloat16": (torch.bfloat16, "cpu"), "meta": (torch.float32, "meta")}
    assert (weight.dtype, weight.device.type) == expected[odd_default]
