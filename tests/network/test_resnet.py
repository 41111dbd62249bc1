from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from resnet_zoo.catalog.architectures import ARCHITECTURES
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry
from resnet_zoo.errors import ArgumentError
from resnet_zoo.network.building import build, build_on_meta
from resnet_zoo.network.features import FeatureExtractor
from resnet_zoo.network.resnet import BLOCKS, BasicBlock, Bottleneck, ResNet, stem_convolutions
from tests.conftest import ENTRIES, NAMES, randomise, slow

GOLDEN = Path(__file__).parents[1] / "golden"
REGENERATE = "If that is meant, run `python -m tests.network.test_resnet` and read the diff of tests/golden."

PLAIN = [name for name, architecture in ARCHITECTURES.items() if architecture.shortcut == "plain"]
V1D = [name for name in ARCHITECTURES if name not in PLAIN]
NUM_TENSORS = {
    "resnet18": 122,
    "resnet34": 218,
    "resnet50": 320,
    "resnet101": 626,
    "resnet152": 932,
    "resnetv1d50": 332,
    "resnetv1d101": 638,
    "resnetv1d152": 944,
}


def on_meta(architecture: str, stem: str | None = None) -> ResNet:
    with torch.device("meta"):
        return ResNet(ARCHITECTURES[architecture], stem=stem or ("imagenet" if architecture in PLAIN else "deep"))


def golden_text(architecture: str) -> str:
    tensors = on_meta(architecture).state_dict()
    return "".join(
        f"{key} {str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'scalar'}\n"
        for key, tensor in tensors.items()
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_state_dict_keys_types_and_shapes_are_the_golden_ones(architecture: str) -> None:
    path = GOLDEN / f"{architecture}.txt"
    assert path.exists(), f"{path} is missing. Run `python -m tests.network.test_resnet`."
    assert golden_text(architecture) == path.read_text(encoding="utf-8"), REGENERATE


def test_every_golden_file_belongs_to_an_architecture() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(ARCHITECTURES), REGENERATE


@pytest.mark.parametrize("architecture", PLAIN)
def test_golden_keys_and_shapes_are_those_of_torchvision(architecture: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, architecture)().state_dict()
    ours = on_meta(architecture).state_dict()
    assert {key: t.shape for key, t in ours.items()} == {key: t.shape for key, t in theirs.items()}
    assert list(ours) == list(theirs)


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_row_has_as_many_tensors_as_the_published_network(entry: Entry) -> None:
    assert len(build_on_meta(entry).state_dict()) == NUM_TENSORS[entry.architecture]


@pytest.mark.parametrize("architecture", PLAIN)
def test_cifar_stem_differs_from_the_imagenet_stem_in_the_first_convolution_only(architecture: str) -> None:
    cifar, imagenet = (on_meta(architecture, stem).state_dict() for stem in ("cifar", "imagenet"))
    different = {key for key in imagenet if cifar[key].shape != imagenet[key].shape}
    assert list(cifar) == list(imagenet)
    assert different == {"conv1.weight"}
    assert tuple(cifar["conv1.weight"].shape) == (64, 3, 3, 3)


# --- shapes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_stages_shrink_by_two_at_the_size_of_the_row(entry: Entry) -> None:
    size = entry.input_size[1] // (1 if entry.stem == "cifar" else 4)
    widths = [64 * 2**stage * BLOCKS[ARCHITECTURES[entry.architecture].block].expansion for stage in range(4)]
    maps = build_on_meta(entry).eval().stages(torch.empty(2, *entry.input_size, device="meta"))
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "stem": (2, 64, size, size),
        **{f"stage{stage + 1}": (2, width, size >> stage, size >> stage) for stage, width in enumerate(widths)},
    }


@pytest.mark.parametrize("name", ["resnet18_in1k", "resnet50_in1k", "resnetv1d50_in1k"])
def test_stages_at_an_odd_size_round_up(name: str) -> None:
    maps = build_on_meta(get_entry(name)).eval().stages(torch.empty(1, 3, 261, 244, device="meta"))
    sizes = [tuple(value.shape[2:]) for value in maps.values()]
    assert sizes == [(66, 61), (66, 61), (33, 31), (17, 16), (9, 8)]


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnet50_cifar100"])
def test_cifar_stages_at_an_odd_size_round_up(name: str) -> None:
    maps = build_on_meta(get_entry(name)).eval().stages(torch.empty(1, 3, 45, 38, device="meta"))
    sizes = [tuple(value.shape[2:]) for value in maps.values()]
    assert sizes == [(45, 38), (45, 38), (23, 19), (12, 10), (6, 5)]


def test_odd_maps_break_a_pooled_shortcut_without_ceil_mode() -> None:
    model = build_on_meta(get_entry("resnetv1d50_in1k")).eval()
    for module in model.modules():
        if isinstance(module, nn.AvgPool2d):
            module.ceil_mode = False
    with pytest.raises(RuntimeError, match=r"broadcast|size"):
        model(torch.empty(1, 3, 261, 244, device="meta"))


def test_logits_are_the_classifier_of_the_pooled_last_stage() -> None:
    model = build(get_entry("resnet18_cifar10"))
    randomise(model).eval()
    x = torch.randn(2, 3, 45, 38, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.stages(x)["stage4"]
        pooled = torch.flatten(nn.functional.adaptive_avg_pool2d(features, 1), 1)
        assert torch.equal(model(x), nn.functional.linear(pooled, model.fc.weight, model.fc.bias))


def test_later_stages_do_not_write_into_earlier_maps() -> None:
    model = build(get_entry("resnet18_cifar10"))
    randomise(model).eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model.stages(x)
        again = {"stem": model.maxpool(model.relu(model.bn1(model.conv1(x))))}
        for stage in range(1, 5):
            again[f"stage{stage}"] = model.get_submodule(f"layer{stage}")(again[list(again)[-1]].clone())
    assert all(torch.equal(maps[name], again[name]) for name in maps)


def test_features_of_the_input_leave_the_input_untouched() -> None:
    model = build(get_entry("resnet18_cifar10")).eval()
    x = torch.randn(1, 3, 32, 32)
    before = x.clone()
    model(x)
    assert torch.equal(x, before)


# --- parts of the forward pass -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnetv1d50_in1k"])
def test_features_and_head_together_are_the_network(name: str) -> None:
    model = build(get_entry(name))
    randomise(model).eval()
    x = torch.randn(1, 3, 45, 38, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = model.forward_features(x)
        vectors = model.forward_head(maps, pre_logits=True)
        assert torch.equal(maps, model.stages(x)["stage4"])
        assert vectors.shape == (1, model.fc.in_features)
        torch.testing.assert_close(vectors, maps.mean(dim=(2, 3)))
        assert torch.equal(model.forward_head(maps), model(x))
        assert torch.equal(model.fc(vectors), model(x))


def test_a_reset_classifier_is_fresh_and_the_rest_stays() -> None:
    model = build(get_entry("resnet18_cifar10")).to(torch.float64).eval()
    randomise(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(0)
    model.reset_classifier(7)
    assert (model.fc.in_features, model.fc.out_features, model.fc.weight.dtype) == (512, 7, torch.float64)
    assert model.fc.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert torch.all(model.fc.bias == 0)
    assert model(torch.zeros(1, 3, 32, 32, dtype=torch.float64)).shape == (1, 7)
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items() if not key.startswith("fc."))


def test_a_reset_classifier_stays_on_its_device_and_learns_in_a_frozen_network() -> None:
    model = build_on_meta(get_entry("resnet50_in1k"))
    model.freeze("stage4")
    model.reset_classifier(3)
    assert model.fc.weight.is_meta
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "head",
    [
        nn.Identity(),
        nn.Sequential(nn.Dropout(), nn.Linear(512, 10)),
        nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10)),
    ],
    ids=["identity", "dropout", "perceptron"],
)
def test_a_classifier_of_another_kind_is_reset_too(head: nn.Module) -> None:
    model = build(get_entry("resnet18_cifar10")).double().eval()
    model.fc = head.double()  # type: ignore[assignment]
    model.reset_classifier(4)
    assert model.fc.weight.dtype == torch.float64
    assert model(torch.zeros(2, 3, 32, 32, dtype=torch.float64)).shape == (2, 4)


def test_a_reset_classifier_takes_what_the_one_before_took() -> None:
    """A pool of another kind may hand on more channels than the last stage has."""
    model = build_on_meta(get_entry("resnet18_cifar10"))
    with torch.device("meta"):
        model.fc = nn.Linear(1024, 10)
    model.reset_classifier(3)
    assert (model.fc.in_features, model.fc.out_features) == (1024, 3)


def test_a_negative_number_of_classes_is_refused() -> None:
    model = build_on_meta(get_entry("resnet18_cifar10"))
    with pytest.raises(ArgumentError, match="num_classes of 0 or more, got -1"):
        model.reset_classifier(-1)
    assert model.fc.out_features == 10


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnet50", "resnetv1d50"])
def test_a_network_knows_its_numbers_with_and_without_a_classifier(name: str) -> None:
    model = build_on_meta(get_entry(name), num_classes=7)
    assert (model.num_classes, model.num_features, model.get_classifier()) == (7, model.fc.in_features, model.fc)
    model.reset_classifier(0)
    assert (model.num_classes, model.num_features) == (0, 512 if "18" in name else 2048)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert "fc.weight" not in model.state_dict()
    model.reset_classifier(3)
    assert (model.num_classes, model.fc.in_features) == (3, model.num_features)


def test_the_numbers_of_a_classifier_of_another_kind_are_its_own() -> None:
    model = build(get_entry("resnet18_cifar10"))
    model.fc = nn.Sequential(nn.Unflatten(1, (512, 1, 1)), nn.Conv2d(512, 4, 1), nn.Flatten())  # type: ignore[assignment]
    assert (model.num_classes, model.num_features) == (4, 512)


def test_a_network_without_a_classifier_returns_its_vectors() -> None:
    model = build(get_entry("resnet18_cifar10")).eval()
    images = torch.randn(2, 3, 32, 32)
    vectors = model.forward_head(model.forward_features(images), pre_logits=True)
    model.reset_classifier(0)
    assert torch.equal(model(images), vectors)
    with pytest.raises(ArgumentError, match=r"no classifier.*Take pool"):
        FeatureExtractor(model, layers=("pool", "logits"))
    (pooled,) = FeatureExtractor(model, layers=("pool",))(images).values()
    assert torch.equal(pooled, vectors)


def test_dropout_falls_in_training_only_and_leaves_no_key() -> None:
    model, plain = build(get_entry("resnet18_cifar10")), build(get_entry("resnet18_cifar10"))
    plain.load_state_dict(model.state_dict())
    model.drop = nn.Dropout(0.5)
    images = torch.randn(2, 3, 32, 32)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not torch.equal(model(images), plain(images))
    assert torch.equal(model.eval()(images), plain.eval()(images))
    logits = FeatureExtractor(model.train(), layers=("logits",))
    maps = [logits(images)["logits"] for _ in range(2)]
    assert not torch.equal(*maps)


# --- structure -----------------------------------------------------------------------------------------------------


def blocks_of(model: nn.Module) -> list[BasicBlock | Bottleneck]:
    return [module for module in model.modules() if isinstance(module, (BasicBlock, Bottleneck))]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stride_sits_on_the_first_3x3_convolution(architecture: str) -> None:
    for block in blocks_of(on_meta(architecture)):
        strides = {name: conv.stride[0] for name, conv in block.named_children() if isinstance(conv, nn.Conv2d)}
        strided = [name for name, stride in strides.items() if stride != 1]
        assert strided in ([], ["conv1" if isinstance(block, BasicBlock) else "conv2"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_three_blocks_stride(architecture: str) -> None:
    strides = [conv.stride[0] for block in blocks_of(on_meta(architecture)) for conv in (block.conv1, block.conv2)]
    assert sorted(strides)[-4:] == [1, 2, 2, 2]


@pytest.mark.parametrize("architecture", V1D)
def test_v1d_shortcut_pools_and_its_convolution_does_not_stride(architecture: str) -> None:
    shortcuts = [block.downsample for block in blocks_of(on_meta(architecture)) if block.downsample is not None]
    assert [type(shortcut.get_submodule("0")) for shortcut in shortcuts] == [nn.Identity] + [nn.AvgPool2d] * 3
    convolutions = [shortcut.get_submodule("1") for shortcut in shortcuts]
    assert all(isinstance(conv, nn.Conv2d) and conv.stride == (1, 1) for conv in convolutions)


def test_basic_networks_have_no_shortcut_in_the_first_stage_and_bottlenecks_have_one() -> None:
    assert "layer1.0.downsample.0.weight" not in on_meta("resnet18").state_dict()
    assert "layer1.0.downsample.0.weight" in on_meta("resnet50").state_dict()


@pytest.mark.parametrize(("stem", "kind"), [("cifar", nn.Identity), ("imagenet", nn.MaxPool2d), ("deep", nn.MaxPool2d)])
def test_only_the_cifar_stem_has_no_max_pooling(stem: str, kind: type[nn.Module]) -> None:
    assert isinstance(on_meta("resnet18", stem).maxpool, kind)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_convolution_has_a_bias_and_every_batch_norm_has_the_usual_constants(architecture: str) -> None:
    for module in on_meta(architecture).modules():
        if isinstance(module, nn.Conv2d):
            assert module.bias is None
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum, module.affine, module.track_running_stats) == (1e-5, 0.1, True, True)


def test_an_unknown_stem_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="imagenet, cifar or deep, got 'patchify'"):
        stem_convolutions("patchify", 3)
    with pytest.raises(ValueError, match="patchify"):
        ResNet(ARCHITECTURES["resnet18"], stem="patchify")


# --- initialisation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnet50_in1k", "resnetv1d50_in1k"])
def test_fresh_batch_norms_are_one_but_the_last_of_each_block_is_zero(name: str) -> None:
    torch.manual_seed(0)
    model = build(get_entry(name))
    last = {id(block.last_bn) for block in blocks_of(model)}
    assert len(last) == len(blocks_of(model))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == (0 if id(module) in last else 1))
            assert torch.all(module.bias == 0)


def test_fresh_shortcut_batch_norms_are_one() -> None:
    model = build(get_entry("resnetv1d50_in1k"))
    weights = [value for key, value in model.state_dict().items() if key.endswith("downsample.2.weight")]
    assert len(weights) == 4
    assert all(torch.all(weight == 1) for weight in weights)


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnetv1d50_in1k"])
def test_fresh_convolutions_have_the_deviation_of_kaiming_fan_out(name: str) -> None:
    torch.manual_seed(0)
    for module in build(get_entry(name)).modules():
        if isinstance(module, nn.Conv2d):
            expected = math.sqrt(2 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1]))
            tolerance = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors of a standard deviation
            assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)
            assert abs(module.weight.mean().item()) < 5 * expected / math.sqrt(module.weight.numel())


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnetv1d50_in1k"])
def test_initialised_by_layer_it_holds_what_torchs_layers_draw(name: str) -> None:
    torch.manual_seed(0)
    model = build(get_entry(name))
    model.initialise_by_layer()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1)
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert 0.9 * bound < module.weight.abs().max() <= bound * (1 + 1e-6)
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_a_fresh_classifier_has_deviation_001_and_no_bias() -> None:
    torch.manual_seed(0)
    classifier = build(get_entry("resnet18_in1k")).fc
    assert classifier.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert torch.all(classifier.bias == 0)


def test_fresh_blocks_without_a_shortcut_are_the_identity_after_relu() -> None:
    model = build(get_entry("resnet18_cifar10")).eval()
    x = torch.rand(1, 64, 8, 8)
    assert torch.equal(model.get_submodule("layer1.0")(x.clone()), x)


def test_a_seed_makes_the_same_network_again() -> None:
    def weight(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return build(get_entry("resnet18_cifar10")).fc.weight

    assert torch.equal(weight(3), weight(3))
    assert not torch.equal(weight(3), weight(4))


# --- against torchvision -------------------------------------------------------------------------------------------


def torchvision_network(entry: Entry) -> nn.Module:
    theirs: nn.Module = getattr(torchvision.models, entry.architecture)(num_classes=entry.num_classes)
    if entry.stem == "cifar":
        theirs.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        theirs.maxpool = nn.Identity()
    return theirs


def pair(name: str) -> tuple[ResNet, nn.Module]:
    entry = get_entry(name)
    ours = build(entry)
    randomise(ours)
    theirs = torchvision_network(entry)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours.eval(), theirs.eval()


def greatest_difference(ours: nn.Module, theirs: nn.Module, height: int, width: int) -> float:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float((ours(x) - theirs(x)).abs().max())


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnet18_in1k", "resnet50_in1k"])
def test_logits_are_exactly_those_of_torchvision(name: str) -> None:
    ours, theirs = pair(name)
    sizes = [(32, 32), (45, 38)] if "cifar" in name else [(224, 224), (133, 122)]
    for height, width in sizes:
        assert greatest_difference(ours, theirs, height, width) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [entry.name for entry in ENTRIES if entry.architecture in PLAIN], ids=lambda name: str(name)
)
def test_logits_of_every_plain_row_are_exactly_those_of_torchvision(name: str) -> None:
    ours, theirs = pair(name)
    sizes = [(32, 32), (45, 38)] if "cifar" in name else [(224, 224), (261, 244)]
    for height, width in sizes:
        assert greatest_difference(ours, theirs, height, width) == 0.0


@pytest.mark.parametrize("output_stride", [16, slow(8)])
def test_a_dilated_network_is_torchvision_s_bit_by_bit_and_can_be_undone(output_stride: int) -> None:
    ours, strided = pair("resnet50_in1k")
    dilated = torchvision.models.resnet50(replace_stride_with_dilation=[False, output_stride == 8, True]).eval()
    dilated.load_state_dict(ours.state_dict())
    ours.set_output_stride(output_stride)
    for size in ((64, 96), (97, 45)):
        assert greatest_difference(ours, dilated, *size) == 0.0
        assert greatest_difference(ours, strided, *size) > 1e-4
    ours.set_output_stride(32)
    assert greatest_difference(ours, strided, 97, 45) == 0.0


@pytest.mark.parametrize("name", ["resnet18_in1k", "resnetv1d50_in1k"])
def test_a_dilated_network_computes_the_strided_one_s_maps_and_those_between(name: str) -> None:
    model = build(get_entry(name)).eval()
    randomise(model)
    x = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        strided = model.stages(x)
        model.set_output_stride(16)
        dilated = model.stages(x)
    assert torch.equal(dilated["stage3"], strided["stage3"])
    torch.testing.assert_close(dilated["stage4"][..., ::2, ::2], strided["stage4"], rtol=1e-4, atol=1e-4)
    assert dilated["stage4"].shape[2:] == dilated["stage3"].shape[2:]


@pytest.mark.parametrize(
    ("name", "output_stride", "possible"),
    [
        ("resnet50_in1k", 4, "32, 16 or 8"),
        ("resnetv1d50_in1k", 7, "32, 16 or 8"),
        ("resnet18_cifar10", 16, "8, 4 or 2"),
        ("resnet18_cifar10", None, "8, 4 or 2"),
    ],
)
def test_an_output_stride_that_cannot_be_is_refused(name: str, output_stride: Any, possible: str) -> None:
    with pytest.raises(ArgumentError, match=f"output_stride of {possible} for this network, got {output_stride}"):
        build_on_meta(get_entry(name)).set_output_stride(output_stride)


def test_the_output_stride_follows_a_stem_that_was_replaced() -> None:
    model = build_on_meta(get_entry("resnet18_in1k"))
    model.maxpool = nn.Identity()
    model.set_output_stride(8)
    assert tuple(model.forward_features(torch.empty(1, 3, 64, 64, device="meta")).shape) == (1, 512, 8, 8)


def change_eps(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def change_one_batch_norm(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("layer1.0.bn1.weight").mul_(1.05)


def change_the_place_of_the_stride(model: nn.Module) -> None:
    for stage in (2, 3, 4):
        first, second = (model.get_submodule(f"layer{stage}.0.conv{index}") for index in (1, 2))
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        first.stride, second.stride = second.stride, first.stride


def change_the_pooling(model: nn.Module) -> None:
    pool = model.get_submodule("maxpool")
    assert isinstance(pool, nn.MaxPool2d)
    pool.ceil_mode = True


@pytest.mark.parametrize(
    "change", [change_eps, change_one_batch_norm, change_the_place_of_the_stride, change_the_pooling]
)
def test_the_comparison_with_torchvision_sees_a_planted_mistake(change: object) -> None:
    ours, theirs = pair("resnet18_in1k")
    assert callable(change)
    change(ours)
    assert greatest_difference(ours, theirs, 96, 96) > 1e-4


def main() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for architecture in ARCHITECTURES:
        (GOLDEN / f"{architecture}.txt").write_text(golden_text(architecture), encoding="utf-8")


if __name__ == "__main__":
    main()
