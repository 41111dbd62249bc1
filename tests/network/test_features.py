from __future__ import annotations

import copy
import datetime
import io
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor as torchvision_extractor
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

import resnet_zoo
from resnet_zoo import (
    ArgumentError,
    DownloadError,
    FeatureExtractor,
    UnknownLayerError,
    UnknownModelError,
    create_feature_extractor,
)
from resnet_zoo.catalog.architectures import ARCHITECTURES
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry
from resnet_zoo.network import features
from resnet_zoo.network.building import build, build_on_meta
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.network.trunk import LAYERS
from tests.conftest import ENTRIES, NAMES, UNFETCHED, randomise

STAGES = ("stage1", "stage2", "stage3", "stage4")
SMALL = "resnet18_cifar10"


def network(name: str = SMALL) -> ResNet:
    torch.manual_seed(0)
    model = build(get_entry(name)).eval()
    randomise(model)
    return model


def images(*shape: int) -> Tensor:
    return torch.randn(shape or (2, 3, 20, 18), generator=torch.Generator().manual_seed(1))


def largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    assert all(ours[layer].shape == theirs[layer].shape for layer in ours)
    return max(float((ours[layer].detach() - theirs[layer].detach()).abs().max()) for layer in ours)


def all_layers(entry: Entry) -> list[str]:
    depths = dict(zip(STAGES, ARCHITECTURES[entry.architecture].depths, strict=True))
    return [*LAYERS, *(f"{stage}.{index}" for stage, depth in depths.items() for index in range(depth))]


# --- what comes out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_channels_and_reductions_are_those_of_the_maps(entry: Entry) -> None:
    extractor = FeatureExtractor(build_on_meta(entry).eval(), layers=all_layers(entry))
    maps = extractor(torch.empty(2, 3, 192, 320, device="meta"))
    assert list(maps) == list(extractor.channels) == all_layers(entry)
    assert {layer: value.shape[1] for layer, value in maps.items()} == extractor.channels
    assert extractor.reductions.keys() == maps.keys() - {"pool", "logits"}
    for layer, reduction in extractor.reductions.items():
        assert maps[layer].shape[2:] == (192 // reduction, 320 // reduction), layer
    assert maps["logits"].shape == (2, entry.num_classes)
    assert maps["pool"].shape == maps["stage4"].shape[:2]


@pytest.mark.parametrize(
    ("name", "channels", "reductions"),
    [
        ("resnet18_in1k", [64, 128, 256, 512], [4, 8, 16, 32]),
        ("resnet50_cifar10", [256, 512, 1024, 2048], [1, 2, 4, 8]),
        ("resnetv1d101_in1k", [256, 512, 1024, 2048], [4, 8, 16, 32]),
    ],
)
def test_the_stages_are_the_default(name: str, channels: list[int], reductions: list[int]) -> None:
    extractor = create_feature_extractor(name)
    assert extractor.layers == STAGES
    assert extractor.channels == dict(zip(STAGES, channels, strict=True))
    assert extractor.reductions == dict(zip(STAGES, reductions, strict=True))


@pytest.mark.parametrize(
    ("name", "output_stride", "reductions"),
    [
        ("resnet50_in1k", 8, [4, 8, 8, 8]),
        ("resnetv1d50_in1k", 16, [4, 8, 16, 16]),
        ("resnet18_in1k", 32, [4, 8, 16, 32]),
        (SMALL, 2, [1, 2, 2, 2]),
    ],
)
def test_the_output_stride_is_in_the_reductions(name: str, output_stride: int, reductions: list[int]) -> None:
    extractor = create_feature_extractor(name, output_stride=output_stride)
    assert list(extractor.reductions.values()) == reductions
    model = build_on_meta(get_entry(name))
    shared = FeatureExtractor(model)
    assert FeatureExtractor(model, output_stride=output_stride).reductions == shared.reductions == extractor.reductions


SURGERY: dict[str, Callable[[FeatureExtractor], None]] = {
    "no pool": lambda body: setattr(body, "maxpool", nn.Identity()),
    "a stem without stride": lambda body: setattr(body, "conv1", nn.Conv2d(3, 64, 3, padding=1)),
    "a norm before the stem": lambda body: setattr(body, "conv1", nn.Sequential(nn.BatchNorm2d(3), body.conv1)),
    "a grouped stem": lambda body: setattr(body, "conv1", nn.Conv2d(6, 64, 7, stride=2, padding=3, groups=2)),
    "more channels": lambda body: setattr(
        body,
        "layer3",
        nn.Sequential(*body.layer3.children(), nn.Conv2d(256, 99, 1)),  # type: ignore[union-attr]
    ),
}


@pytest.mark.parametrize("kind", SURGERY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_channels_and_reductions_are_right_after_surgery(kind: str, dtype: torch.dtype) -> None:
    extractor = FeatureExtractor(network("resnet18_in1k"), layers=("stem", "stage1", "stage3"))
    before = (extractor.channels, extractor.reductions)
    SURGERY[kind](extractor)
    maps = extractor.eval()(images(1, 6 if kind == "a grouped stem" else 3, 64, 64))
    assert extractor.to(dtype).channels == {layer: value.shape[1] for layer, value in maps.items()}
    assert extractor.reductions == {layer: 64 // value.shape[2] for layer, value in maps.items()}
    assert ((extractor.channels, extractor.reductions) == before) is (
        kind in ("a norm before the stem", "a grouped stem")
    )


@pytest.mark.parametrize("name", [SMALL, "resnet50_in1k", "resnetv1d50_in1k"])
@pytest.mark.parametrize("size", [(2, 3, 64, 96), (1, 3, 45, 38)])
def test_maps_are_those_of_the_network_bit_by_bit(name: str, size: tuple[int, ...]) -> None:
    model, x = network(name), images(*size)
    maps = FeatureExtractor(model, layers=all_layers(get_entry(name)))(x)
    expected = {**model.stages(x), "stem.relu": model.relu(model.bn1(model.conv1(x)))}
    expected["pool"] = model.forward_head(expected["stage4"], pre_logits=True)
    expected["logits"] = model(x)
    for stage in range(1, 5):
        y = expected[f"stage{stage - 1}" if stage > 1 else "stem"]
        for index, block in model.get_submodule(f"layer{stage}").named_children():
            expected[f"stage{stage}.{index}"] = y = block(y)
    assert largest_difference(maps, {layer: expected[layer] for layer in maps}) == 0.0


@pytest.mark.parametrize(
    "layers",
    [
        ("stage4", "stage1", "logits"),
        ("stage3.1", "stage3", "stage3.0"),
        ("stage3", "stage2.0"),
        ("pool", "stem"),
        ["stem.relu"],
        ("logits",),
    ],
)
def test_layers_come_in_the_order_asked_for(layers: Sequence[str]) -> None:
    model, x = network(), images()
    everything = FeatureExtractor(model, layers=all_layers(get_entry(SMALL)))(x)
    extractor = FeatureExtractor(model, layers=layers)
    maps = extractor(x)
    assert list(maps) == list(extractor.channels) == list(extractor.layers) == list(layers)
    assert largest_difference(maps, {layer: everything[layer] for layer in layers}) == 0.0


def test_later_layers_do_not_write_into_earlier_maps() -> None:
    model, x = network(), images()
    everything = FeatureExtractor(model, layers=all_layers(get_entry(SMALL)))(x)
    for layer, value in everything.items():
        assert torch.equal(FeatureExtractor(model, layers=(layer,))(x)[layer], value), layer


# --- what is computed ----------------------------------------------------------------------------------------------


def modules_called(extractor: nn.Module, x: Tensor) -> list[str]:
    called: list[str] = []
    for name, module in extractor.named_modules():
        if not any(module.children()):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    extractor(x)
    return called


@pytest.mark.parametrize(
    ("layer", "last", "convolutions"),
    [
        ("stem.relu", "relu", 1),
        ("stem", "maxpool", 1),
        ("stage1", "layer1.1.relu", 5),
        ("stage2.0", "layer2.0.relu", 7),
        ("stage4", "layer4.1.relu", 17),
        ("pool", "avgpool", 17),
        ("logits", "fc", 17),
    ],
)
def test_nothing_after_the_last_layer_is_computed_or_kept(layer: str, last: str, convolutions: int) -> None:
    extractor = FeatureExtractor(network("resnet18_in1k"), layers=("stem.relu", layer)[layer == "stem.relu" :])
    called = modules_called(extractor, images(1, 3, 64, 64))
    assert called[-1] == last
    main_branch = [name for name in called if re.search(r"conv\d$", name)]
    assert len(main_branch) == convolutions
    leaves = {name for name, module in extractor.named_modules() if not any(module.children())}
    assert leaves == set(called), "a module that is never called would make DDP wait for its gradient"


def test_modules_and_keys_are_those_of_the_network() -> None:
    model = network()
    extractor = FeatureExtractor(model, layers=("stage2.0", "stem"))
    state = extractor.state_dict()
    assert state.keys() < model.state_dict().keys()
    assert all(state[key].data_ptr() == value.data_ptr() for key, value in model.state_dict().items() if key in state)
    assert {key.partition(".")[0] for key in state} == {"conv1", "bn1", "layer1", "layer2"}
    assert not any(key.startswith("layer2.1") for key in state)


def test_the_network_itself_is_left_whole() -> None:
    model, x = network(), images()
    expected = model(x)
    FeatureExtractor(model, layers=("stage2.0",))
    assert torch.equal(model(x), expected)


def test_copies_and_pickles_give_the_same_maps() -> None:
    extractor, x = FeatureExtractor(network(), layers=("stage3", "stage2.0")), images()
    expected = extractor(x)
    for twin in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert (twin.layers, twin.channels, twin.reductions) == (
            extractor.layers,
            extractor.channels,
            extractor.reductions,
        )
        assert largest_difference(twin(x), expected) == 0.0


# --- from a name ---------------------------------------------------------------------------------------------------


def test_a_network_file_is_taken_with_its_weights(pet_model: ResNet, pet_file: Path) -> None:
    x = images()
    for name in (pet_file, str(pet_file)):
        logits = create_feature_extractor(name, layers=("logits",)).eval()(x)["logits"]
        assert torch.equal(logits, pet_model(x))
    with pytest.raises(UnknownLayerError):
        create_feature_extractor(pet_file, layers=("stage5",))


def test_weights_of_a_file_are_loaded(tmp_path: Path) -> None:
    model, x = network(), images()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    extractor = create_feature_extractor(SMALL, layers=("stage4", "logits"), weights=tmp_path / "weights.pth").eval()
    assert torch.equal(extractor(x)["stage4"], model.forward_features(x))
    assert torch.equal(extractor(x)["logits"], model(x))


def test_pretrained_weights_that_cannot_be_had_are_an_error() -> None:
    with pytest.raises(DownloadError, match="offline"):
        create_feature_extractor(UNFETCHED, pretrained=True)


def test_channels_and_device_reach_the_network() -> None:
    extractor = create_feature_extractor(SMALL, in_channels=5, device="cpu", layers=("stem",))
    assert extractor(images(1, 5, 8, 8))["stem"].shape == (1, 64, 8, 8)
    assert extractor.training


def test_an_unknown_row_is_an_error() -> None:
    with pytest.raises(UnknownModelError, match="resnet18"):
        create_feature_extractor("resnet18_cifar11")


def test_an_unknown_layer_is_an_error_before_anything_is_fetched() -> None:
    with pytest.raises(UnknownLayerError):  # and not the DownloadError of a test without network
        create_feature_extractor(SMALL, pretrained=True, layers=("stage5",))


# --- layers that cannot be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "near"),
    [
        ("stage5", "stage4"),
        ("stagee2", "stage2"),
        ("stage1.2", "stage1.1"),
        ("layer4", None),
        ("stem.relu6", "stem.relu"),
        ("", None),
    ],
)
def test_an_unknown_layer_names_near_ones_and_lists_all(layer: Any, near: str | None) -> None:
    known = ", ".join(
        ("stem.relu", "stem", *(f"stage{stage}{block}" for stage in range(1, 5) for block in (".0", ".1", "")), "pool")
    )
    for make in (FeatureExtractor, lambda model, layers: create_feature_extractor(SMALL, layers=layers)):
        with pytest.raises(UnknownLayerError) as raised:
            make(network(), layers=("stage1", layer))
        assert f"no layer {layer!r}." in str(raised.value)
        assert f"Known: {known}, logits." in str(raised.value)
        assert near is None or re.search(rf"Did you mean .*\b{near}\b", str(raised.value))


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ((), "Expected at least one layer, got none"),
        ([], "Expected at least one layer, got none"),
        (("stage1", "stage2", "stage1"), "each layer once, got 'stage1' twice in stage1, stage2, stage1"),
        ("stage4", r"Expected a sequence of layer names such as \('stage4',\), got 'stage4'"),
        ({"stage4"}, r"Expected a sequence of layer names.*got \{'stage4'\}"),
        (("stage1", None), r"Expected names of layers, got None"),
        ((1, 2), r"got 1\. timm's out_indices 0 to 4 are stem\.relu and stage1, stage2, stage3, stage4"),
        (None, "Expected a sequence of layer names.*got None"),
        (3, "Expected a sequence of layer names.*got 3"),
    ],
)
def test_layers_that_cannot_be_are_refused_with_a_sentence(layers: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        FeatureExtractor(network(), layers=layers)
    with pytest.raises(ArgumentError, match=says):
        create_feature_extractor(SMALL, layers=layers)


# --- training, compiling, exporting, tracing -----------------------------------------------------------------------


def test_maps_in_training_mode_normalise_by_the_batch_and_move_the_statistics() -> None:
    model, x = network().train(), images()
    extractor = FeatureExtractor(copy.deepcopy(model), layers=("stage2", "logits"))
    assert extractor.training
    assert torch.equal(extractor(x)["logits"], model(x))
    for key, value in extractor.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    assert not torch.equal(extractor(x)["stage2"], extractor.eval()(x)["stage2"])


def test_every_parameter_gets_a_gradient() -> None:
    extractor = FeatureExtractor(network().train(), layers=("stage1", "stage3.0"))
    torch.stack([value.square().mean() for value in extractor(images()).values()]).sum().backward()  # type: ignore[no-untyped-call]
    assert [name for name, parameter in extractor.named_parameters() if parameter.grad is None] == []


def test_a_frozen_network_and_recomputed_blocks_stay_so_in_its_extractor() -> None:
    model = network().train()
    model.freeze("stage1")
    model.set_grad_checkpointing()
    extractor = FeatureExtractor(model, layers=("stage3",)).eval().train()
    assert not extractor.get_submodule("layer1.0.bn1").training
    assert extractor.get_submodule("layer2.0.bn1").training
    assert not any(parameter.requires_grad for parameter in extractor.get_submodule("layer1").parameters())
    assert extractor.get_submodule("layer2.0").recomputed
    extractor.freeze(None)
    assert extractor.get_submodule("layer1.0.bn1").training


def test_freezing_past_the_last_layer_freezes_what_there_is() -> None:
    extractor = create_feature_extractor(SMALL, layers=("stage2.0",))
    extractor.freeze("stage4")
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


@pytest.mark.parametrize("name", [SMALL, "resnetv1d50_in1k"])
def test_it_compiles_to_one_graph(name: str) -> None:
    extractor = FeatureExtractor(network(name), layers=("stage3", "stem.relu", "stage2.1"))
    compiled = torch.compile(extractor, backend="eager", fullgraph=True)
    x = images(2, 3, 40, 44)
    assert largest_difference(compiled(x), extractor(x)) == 0.0
    assert list(compiled(x)) == ["stage3", "stem.relu", "stage2.1"]


@pytest.mark.long
def test_it_compiles_with_inductor_and_trains() -> None:
    extractor = FeatureExtractor(network(), layers=("stage2", "logits"))
    compiled = torch.compile(extractor, fullgraph=True)
    for x in (images(), images(1, 3, 45, 38)):
        for layer, value in extractor(x).items():
            torch.testing.assert_close(compiled(x)[layer], value, rtol=1e-3, atol=1e-3)
    extractor.train()
    compiled(images())["logits"].square().mean().backward()
    assert all(parameter.grad is not None for parameter in extractor.parameters())


@pytest.mark.parametrize(
    ("name", "strict"),
    [
        (SMALL, False),
        pytest.param("resnetv1d50_in1k", False, marks=pytest.mark.long),
        pytest.param(SMALL, True, marks=pytest.mark.long),
    ],
)
def test_it_exports_with_any_batch_and_size(name: str, strict: bool) -> None:
    extractor = FeatureExtractor(network(name), layers=("stage2", "stage1.0", "pool"))
    dynamic = {0: torch.export.Dim("n", max=64), 2: torch.export.Dim("h", min=32), 3: torch.export.Dim("w", min=32)}
    sizes = {"images": dynamic} if name == SMALL else {"images": {0: dynamic[0]}}
    program = torch.export.export(extractor, (images(2, 3, 64, 96),), dynamic_shapes=sizes, strict=strict)
    exported = program.module()
    for size in ((1, 3, 64, 96), (3, 3, 45, 38)) if name == SMALL else ((1, 3, 64, 96), (3, 3, 64, 96)):
        assert largest_difference(exported(images(*size)), extractor(images(*size))) == 0.0


def test_a_network_exports_with_any_batch() -> None:
    model = network()
    program = torch.export.export(model, (images(),), dynamic_shapes={"x": {0: torch.export.Dim("n", max=64)}})
    assert torch.equal(program.module()(images(1, 3, 20, 18)), model(images(1, 3, 20, 18)))


def test_it_is_traced_by_torch_fx() -> None:
    extractor = FeatureExtractor(network(), layers=("logits", "stage1.0", "stage3"))
    traced = torch.fx.symbolic_trace(extractor)
    x = images(3, 3, 33, 20)
    assert largest_difference(traced(x), extractor(x)) == 0.0
    assert "layer3.1.conv2" in {str(node.target) for node in traced.graph.nodes}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's own, that torch.jit is deprecated
@pytest.mark.parametrize("name", [SMALL, "resnetv1d50_in1k"])
def test_networks_and_extractors_are_scripted_and_traced(name: str) -> None:
    model, x = network(name), images(2, 3, 33, 20)
    extractor = FeatureExtractor(model, layers=("logits", "stage1.0", "stage3"))
    jit: Any = torch.jit  # untyped
    for make in (jit.script, lambda module: jit.trace(module, images(3, 3, 40, 44), strict=False)):
        twin, maps = make(model), make(extractor)
        assert torch.equal(twin(x), model(x))
        assert twin(x[:0]).shape == (0, model.fc.out_features)
        assert largest_difference(maps(x), extractor(x)) == 0.0
    buffer = io.BytesIO()
    jit.save(jit.script(model), buffer)
    buffer.seek(0)
    assert torch.equal(jit.load(buffer)(x), model(x))


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_network_shares_its_modules_and_obeys_its_modes() -> None:
    model = network()
    scripted, before = torch.jit.script(model), model.state_dict()["bn1.running_mean"].clone()
    scripted.eval()(images())
    assert torch.equal(model.bn1.running_mean, before)  # type: ignore[arg-type]
    scripted.train()(images())
    assert not torch.equal(scripted.bn1.running_mean, before)
    assert type(model) is ResNet


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    store = torch.distributed.FileStore(  # type: ignore[attr-defined]
        str(tmp_path / "store"), 1
    )
    limit = datetime.timedelta(seconds=30)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=limit)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("recomputed", [False, True])
def test_it_trains_under_ddp_without_unused_parameters(process_group: None, recomputed: bool) -> None:
    extractor = FeatureExtractor(network().train(), layers=("stage1", "stage2.0"))
    extractor.freeze("stem")
    extractor.set_grad_checkpointing(recomputed)
    twin = copy.deepcopy(extractor)
    parallel = DistributedDataParallel(extractor)
    for _ in range(2):  # DDP finds unused parameters at the second step
        for module in (parallel, twin):
            torch.stack([value.square().mean() for value in module(images()).values()]).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in twin.named_parameters():
        gradient = extractor.get_parameter(name).grad
        assert (gradient is None) is (parameter.grad is None) is name.startswith(("conv1", "bn1")), name
        assert gradient is None or parameter.grad is None or torch.equal(gradient, parameter.grad), name


# --- as a backbone -------------------------------------------------------------------------------------------------

PYRAMID = ("stage2", "stage3", "stage4")


def own_pyramid(extractor: FeatureExtractor) -> nn.Module:
    """Return the backbone that the module's docstring shows."""
    fpn = FeaturePyramidNetwork(list(extractor.channels.values()), 256, LastLevelP6P7(256, 256))
    backbone = nn.Sequential(extractor, fpn)
    backbone.out_channels = 256  # type: ignore[assignment]
    return backbone


def torchvision_pyramid(extractor: FeatureExtractor) -> nn.Module:
    names = {layer.replace("stage", "layer"): layer for layer in extractor.layers}
    channels = list(extractor.channels.values())
    return BackboneWithFPN(extractor, names, channels, 256, extra_blocks=LastLevelP6P7(256, 256))  # type: ignore[no-any-return]


@pytest.mark.parametrize("make", [own_pyramid, torchvision_pyramid])
def test_a_retinanet_on_it_trains_a_step(make: Any) -> None:
    torch.manual_seed(0)
    extractor = FeatureExtractor(network("resnet18_in1k").train(), layers=PYRAMID)
    extractor.freeze("stage1")
    detector = RetinaNet(make(extractor), num_classes=2, min_size=64, max_size=96).train()
    extractor.train()  # BackboneWithFPN has taken the modules out
    before = copy.deepcopy(detector.state_dict())
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 40.0, 48.0]]), "labels": torch.tensor([1])}] * 2
    losses = detector([torch.rand(3, 64, 80), torch.rand(3, 60, 64)], targets)
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.01)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    after = detector.state_dict()
    same = {key for key, value in after.items() if torch.equal(value, before[key])}
    body = [key for key in after if re.search(r"(conv1|bn1|layer\d)\.", key) and "backbone" in key]
    frozen = {key for key in body if re.match(r"backbone\.(0|body)\.(conv1|bn1|layer1)\.", key)}
    assert len(frozen) == len([key for key in extractor.state_dict() if re.match(r"(conv1|bn1|layer1)\.", key)])
    assert same & set(body) == frozen


def test_both_pyramids_give_the_same_maps() -> None:
    extractor, x = FeatureExtractor(network("resnet18_in1k"), layers=PYRAMID), images(1, 3, 64, 96)
    ours, theirs = own_pyramid(extractor).eval(), torchvision_pyramid(extractor).eval()
    theirs.fpn.load_state_dict(ours.get_submodule("1").state_dict())  # type: ignore[union-attr]
    assert list(ours(x)) == [*PYRAMID, "p6", "p7"]
    assert largest_difference(ours(x), theirs(x)) == 0.0


# --- against torchvision and timm ----------------------------------------------------------------------------------

IN1K = [entry.name for entry in ENTRIES if entry.dataset == "in1k"]
TIMM_LAYERS = ("stem.relu", *STAGES)
"""timm's out_indices 0 to 4."""


def sizes(entry: Entry) -> list[tuple[int, ...]]:
    return [(2, 3, 16, 16), (1, 3, 21, 14)] if entry.stem == "cifar" else [(2, 3, 96, 128), (1, 3, 101, 84)]


def timm_body(entry: Entry, state: dict[str, Tensor], **options: Any) -> Any:
    timm = pytest.importorskip("timm")
    name = re.sub(r"resnetv1d(\d+)", r"resnet\1d", entry.architecture)
    body = timm.create_model(name, features_only=True, out_indices=(0, 1, 2, 3, 4), **options).eval()
    body.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")}, strict=True)
    return body


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IN1K)
def test_maps_equal_those_of_timm(name: str) -> None:
    entry, model = get_entry(name), network(name)
    ours, theirs = FeatureExtractor(model, layers=TIMM_LAYERS), timm_body(entry, model.state_dict())
    assert list(ours.channels.values()) == theirs.feature_info.channels()
    assert list(ours.reductions.values()) == theirs.feature_info.reduction()
    for size in sizes(entry):
        with torch.inference_mode():
            expected = dict(zip(TIMM_LAYERS, theirs(images(*size)), strict=True))
            assert largest_difference(ours(images(*size)), expected) == 0.0


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["resnet18_in1k", "resnet50_in1k", "resnetv1d50_in1k"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_maps_equal_those_of_timm(name: str, output_stride: int) -> None:
    entry, model = get_entry(name), network(name)
    theirs = timm_body(entry, model.state_dict(), output_stride=output_stride)
    ours = FeatureExtractor(model, layers=TIMM_LAYERS, output_stride=output_stride)
    assert list(ours.reductions.values()) == theirs.feature_info.reduction()
    for size in sizes(entry):
        with torch.inference_mode():
            expected = dict(zip(TIMM_LAYERS, theirs(images(*size)), strict=True))
            assert largest_difference(ours(images(*size)), expected) == 0.0


def torchvision_nodes(entry: Entry) -> dict[str, str]:
    """Return torchvision's return nodes with our names, by the table of the module's docstring."""
    nodes = {"relu": "stem.relu", "maxpool": "stem", "flatten": "pool", "fc": "logits"}
    return {layer.replace("stage", "layer"): layer for layer in all_layers(entry) if "stage" in layer} | nodes


def torchvision_network(entry: Entry) -> nn.Module:
    theirs: nn.Module = torchvision.models.get_model(entry.architecture, num_classes=entry.num_classes)
    if entry.stem == "cifar":
        theirs.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        theirs.maxpool = nn.Identity()
    return theirs


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES if entry.stem != "deep"])
def test_maps_of_every_layer_equal_those_of_torchvision(name: str) -> None:
    entry, model = get_entry(name), network(name)
    theirs = torchvision_network(entry)
    theirs.load_state_dict(model.state_dict(), strict=True)
    nodes = torchvision_nodes(entry)
    extractor = torchvision_extractor(theirs.eval(), nodes)
    ours = FeatureExtractor(model, layers=list(nodes.values()))
    for size in sizes(entry):
        with torch.inference_mode():
            assert largest_difference(ours(images(*size)), extractor(images(*size))) == 0.0


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [SMALL, "resnet50_in1k", "resnetv1d50_in1k"])
def test_torchvision_extracts_the_same_maps_from_a_network_of_the_zoo(name: str) -> None:
    entry, model = get_entry(name), network(name)
    nodes = torchvision_nodes(entry) if entry.stem != "deep" else {"layer2": "stage2", "layer4": "stage4"}
    ours, theirs = FeatureExtractor(model, layers=list(nodes.values())), torchvision_extractor(model, nodes)
    for size in sizes(entry):
        assert largest_difference(ours(images(*size)), theirs(images(*size))) == 0.0


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_comparison_with_timm_sees_another_batch_norm_epsilon() -> None:
    entry, model = get_entry("resnetv1d50_in1k"), network("resnetv1d50_in1k")
    theirs = timm_body(entry, model.state_dict())
    model.get_submodule("layer4.2.bn3").eps = 1e-3  # type: ignore[assignment]
    ours, x = FeatureExtractor(model), images(1, 3, 64, 64)
    expected = dict(zip(STAGES, theirs(x)[1:], strict=True))
    assert largest_difference(ours(x), expected) > 0.0
    ours = FeatureExtractor(model, layers=STAGES[:3])
    assert largest_difference(ours(x), {layer: expected[layer] for layer in STAGES[:3]}) == 0.0


def side_by_side() -> list[str]:
    """Return the pairs of lines that the module's docstring shows to users of torchvision and timm."""
    lines = [line.split("  #")[0].strip() for line in (features.__doc__ or "").splitlines() if line.startswith("    ")]
    return lines[: lines.index("body.channels, body.reductions") + 1]


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_lines_shown_side_by_side_are_equivalent() -> None:
    timm = pytest.importorskip("timm")
    theirs_tv, ours_tv, theirs_timm, ours_timm, facts_timm, facts_ours = side_by_side()
    model, x = network("resnet50_in1k"), images(1, 3, 64, 64)
    names = {"torchvision": torchvision, "timm": timm, "resnet_zoo": resnet_zoo, "model": model, "x": x}
    assert torch.equal(eval(ours_tv, dict(names)), eval(theirs_tv, dict(names)))

    body, state = eval(theirs_timm.removesuffix("(x)[0]"), dict(names)), model.state_dict()
    body.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")}, strict=True)
    ours = eval(ours_timm.removesuffix('(x)["stage2"]'), dict(names))
    ours.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")}, strict=True)
    assert torch.equal(ours.eval()(x)["stage2"], body.eval()(x)[0])
    channels, reductions = eval(facts_ours, {"body": ours})
    assert (list(channels.values()), list(reductions.values())) == eval(facts_timm, {"body": body})


def test_the_backbone_shown_is_the_one_tested() -> None:
    text = " ".join((features.__doc__ or "").split())
    assert "FeaturePyramidNetwork(list(body.channels.values()), 256, LastLevelP6P7(256, 256))" in text
    assert "backbone = nn.Sequential(body, fpn) backbone.out_channels = 256" in text


def test_a_wanted_block_that_was_taken_out_is_named() -> None:
    body = create_feature_extractor("resnet18_cifar10", layers=("stage3.0", "stage3.1")).eval()
    images = torch.zeros(1, 3, 32, 32)
    assert set(body(images)) == {"stage3.0", "stage3.1"}
    del body.get_submodule("layer3")[1]  # type: ignore[operator]
    with pytest.raises(UnknownLayerError, match=r"'stage3\.1'.*stage3\.0"):
        body(images)
