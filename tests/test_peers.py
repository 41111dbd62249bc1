"""Our networks, counts, pixels and accuracies against mmpretrain's, torchvision's and timm's own: differences of 0.

Extra ``peers``. Real images come from the folder that ``RESNET_ZOO_TEST_DATA`` names.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from resnet_zoo import (
    convert_checkpoint,
    count_flops,
    count_params,
    create_model,
    create_transform,
    evaluate,
    get_entry,
)
from resnet_zoo.catalog.classes import class_folders, class_names
from resnet_zoo.catalog.records import Entry
from resnet_zoo.images.test_sets import LabelledImages, open_test_set
from resnet_zoo.images.transform import Transform
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.key_layouts import from_ours, renamed
from tests.conftest import ENTRIES, NAMES, randomise, smooth_image

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

ODD_SIZES = {32: (45, 38), 224: (261, 244)}
V1D = [entry.name for entry in ENTRIES if entry.stem == "deep"]
PLAIN = [entry.name for entry in ENTRIES if entry.stem != "deep"]
IN1K = [entry.name for entry in ENTRIES if entry.dataset == "in1k"]


def upstream_config(entry: Entry) -> str:
    return Path(entry.published.config_url).stem


def upstream_model(entry: Entry) -> nn.Module:
    mmpretrain = pytest.importorskip("mmpretrain")
    model: nn.Module = mmpretrain.get_model(upstream_config(entry), device="cpu")
    return model.eval()


def torchvision_model(entry: Entry) -> nn.Module:
    model: nn.Module = torchvision.models.get_model(entry.architecture, num_classes=entry.num_classes)
    if entry.stem == "cifar":
        model.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        model.maxpool = nn.Identity()
    return model


def timm_model(entry: Entry) -> nn.Module:
    timm = pytest.importorskip("timm")
    depth = entry.architecture.removeprefix("resnetv1d")
    model: nn.Module = timm.create_model(f"resnet{depth}d", num_classes=entry.num_classes)
    return model


def our_model(entry: Entry) -> ResNet:
    torch.manual_seed(0)
    model = create_model(entry.name).eval()
    randomise(model)
    return model


def inputs(entry: Entry) -> Iterator[Tensor]:
    """A batch at the row's size, and one image at an odd size."""
    size = entry.input_size[1]
    generator = torch.Generator().manual_seed(1)
    yield torch.randn(2, 3, size, size, generator=generator)
    yield torch.randn(1, 3, *ODD_SIZES[size], generator=generator)


def largest_difference(entry: Entry, ours: nn.Module, theirs: nn.Module) -> float:
    with torch.inference_mode():
        return max(float((ours(x) - theirs(x)).abs().max()) for x in inputs(entry))


class UpstreamLogits(nn.Module):
    """An mmpretrain classifier as a function from images to logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_those_of_mmpretrain(name: str) -> None:
    entry = get_entry(name)
    ours, theirs = our_model(entry), upstream_model(entry)
    state = ours.state_dict()
    theirs.load_state_dict(renamed(state, from_ours(state, "openmmlab")), strict=True)
    assert largest_difference(entry, ours, UpstreamLogits(theirs)) == 0.0


@pytest.mark.parametrize("name", PLAIN)
def test_logits_equal_those_of_torchvision(name: str) -> None:
    entry = get_entry(name)
    ours, theirs = our_model(entry), torchvision_model(entry).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert largest_difference(entry, ours, theirs) == 0.0


@pytest.mark.parametrize("name", V1D)
def test_logits_equal_those_of_timm(name: str) -> None:
    entry = get_entry(name)
    ours, theirs = our_model(entry), timm_model(entry).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    assert largest_difference(entry, ours, theirs) == 0.0


@pytest.mark.parametrize("pool", ["", "max", "avgmax"])
def test_networks_that_pool_otherwise_are_those_of_timm(pool: str) -> None:
    timm = pytest.importorskip("timm")
    entry = get_entry("resnet18")
    ours, theirs = create_model("resnet18", num_classes=0, global_pool=pool), timm.create_model("resnet18")
    theirs.reset_classifier(0, pool)
    theirs.load_state_dict(randomise(ours).state_dict(), strict=True)
    assert largest_difference(entry, ours.eval(), theirs.eval()) == 0.0


@pytest.mark.parametrize("name", ["resnet18", "resnetv1d50"])
def test_networks_without_a_classifier_and_with_dropout_are_those_of_timm(name: str) -> None:
    timm = pytest.importorskip("timm")
    entry = get_entry(name)
    theirs = timm.create_model("resnet18" if name == "resnet18" else "resnet50d", num_classes=0, drop_rate=0.4)
    ours = create_model(name, num_classes=0, drop_rate=0.4)
    theirs.load_state_dict(randomise(ours).state_dict(), strict=True)
    assert largest_difference(entry, ours.eval(), theirs.eval()) == 0.0
    assert (ours.num_features, ours.num_classes) == (theirs.num_features, theirs.num_classes)
    assert type(ours.get_classifier()) is type(theirs.get_classifier()) is nn.Identity
    for model in (ours, theirs):
        model.reset_classifier(5)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images, outputs = next(iter(inputs(entry))), []
    for model in (ours.train(), theirs.train()):
        torch.manual_seed(3)
        outputs.append((model(images), model.forward_head(model.forward_features(images), pre_logits=True)))
    assert all(torch.equal(*pair) for pair in zip(*outputs, strict=True))
    for model in (ours, theirs):
        model.reset_classifier(0)
    assert largest_difference(entry, ours.eval(), theirs.eval()) == 0.0
    assert ours.num_classes == theirs.num_classes == 0


def test_the_comparison_sees_another_batch_norm_epsilon() -> None:
    entry = get_entry("resnetv1d50")
    ours, theirs = our_model(entry), timm_model(entry).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.bn1.eps = 1e-3
    assert largest_difference(entry, ours, theirs) > 0.0


@pytest.mark.parametrize("name", ["resnet18_cifar10", "resnet50_in1k", "resnetv1d50_in1k"])
def test_fresh_values_are_distributed_as_upstream_draws_them(name: str) -> None:
    entry = get_entry(name)
    theirs = upstream_model(entry)
    theirs.init_weights()  # type: ignore[operator]
    ours = create_model(name)
    upstream = {key: tensor for key, tensor in theirs.state_dict().items() if tensor.is_floating_point()}
    for key, tensor in renamed(ours.state_dict(), from_ours(ours.state_dict(), "openmmlab")).items():
        if key not in upstream:
            continue
        if tensor.std(correction=0) == 0 or upstream[key].std(correction=0) == 0:
            assert torch.equal(tensor, upstream[key]), key
        else:
            assert tensor.std().item() == pytest.approx(upstream[key].std().item(), rel=0.1), key


@pytest.mark.parametrize("name", NAMES)
def test_counts_equal_those_of_mmcv_with_the_head_off(name: str) -> None:
    mmcv = pytest.importorskip("mmcv.cnn")
    entry = get_entry(name)
    model: Any = upstream_model(entry)
    assert count_params(model) == entry.exact.params
    with_head, params = mmcv.get_model_complexity_info(model, entry.input_size, False, False)
    model.forward = model.extract_feat
    head_off, _ = mmcv.get_model_complexity_info(model, entry.input_size, False, False)
    assert (params, head_off, with_head) == (entry.exact.params, entry.exact.flops, entry.exact.flops_with_head)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_macs_equal_those_torchvision_publishes(depth: int) -> None:
    weights = torchvision.models.get_model_weights(f"resnet{depth}").DEFAULT
    ours = count_flops(create_model(f"resnet{depth}"), (3, 224, 224), rule="macs")
    assert round(ours / 1e9, 3) == weights.meta["_ops"]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_facts_equal_upstreams_configuration(name: str) -> None:
    apis = pytest.importorskip("mmpretrain.apis")
    from resnet_zoo.catalog.recipes import RECIPES

    entry = get_entry(name)
    recipe = RECIPES[entry.recipe]
    config = apis.get_model(upstream_config(entry), device="cpu")._config
    optimizer, schedule = config.optim_wrapper.optimizer, config.param_scheduler
    assert (optimizer.type, optimizer.lr, optimizer.momentum) == ("SGD", recipe.lr, recipe.momentum)
    assert optimizer.weight_decay == recipe.weight_decay
    assert (schedule.type, tuple(schedule.milestones), schedule.gamma) == (
        "MultiStepLR",
        recipe.milestones,
        recipe.gamma,
    )
    assert config.train_cfg.max_epochs == recipe.epochs
    assert config.auto_scale_lr.base_batch_size == recipe.total_batch
    assert config.optim_wrapper.get("loss_scale") == recipe.loss_scale


@pytest.mark.parametrize("classes", ["cifar10", "cifar100", "in1k"])
def test_class_names_equal_upstreams(classes: str) -> None:
    categories = pytest.importorskip("mmpretrain.datasets.categories")
    theirs = {
        "cifar10": categories.CIFAR10_CATEGORIES,
        "cifar100": categories.CIFAR100_CATEGORIES,
        "in1k": categories.IMAGENET_CATEGORIES,
    }[classes]
    assert class_names(classes) == list(theirs)


# --- preprocessing ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def imagenet(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of each of 100 ImageNet classes, ``val/<wnid>/*.JPEG``."""
    root = tmp_path_factory.mktemp("imagenet")
    with tarfile.open(data_folder / "imagenet-samples.tar") as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="session")
def cifar10(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 10,000 test images of CIFAR-10 as JPEG files, ``test/<class>/*.jpg``."""
    root = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(data_folder / "cifar10-jpeg.tar.gz") as archive:
        members = [member for member in archive if "test/" in member.name]
        archive.extractall(root, members, filter="data")
    return root


def upstream_input(model: Any, image: Path) -> tuple[Tensor, Tensor]:
    """Return the pixels after mmpretrain's test pipeline, and after its normalisation, both (3, H, W) RGB."""
    pytest.importorskip("mmpretrain.utils").register_all_modules()
    pipeline = pytest.importorskip("mmengine.dataset").Compose(model._config.test_dataloader.dataset.pipeline)
    packed = pipeline({"img_path": str(image)})
    normalised = model.data_preprocessor({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})
    return packed["inputs"].flip(0), normalised["inputs"][0]


@pytest.mark.parametrize("name", ["resnet50_in1k", "resnetv1d50_in1k", "resnet50_fp16_in1k"])
def test_inputs_equal_those_of_mmpretrains_pipeline_on_real_images(name: str, imagenet: Path) -> None:
    entry = get_entry(name)
    model = upstream_model(entry)
    transform = create_transform(name)
    images = sorted(imagenet.rglob("*.JPEG"))
    assert len(images) == 100
    for image in images:
        pixels, normalised = upstream_input(model, image)
        assert np.array_equal(transform.pixels(image), pixels.permute(1, 2, 0).numpy()), image.name
        assert torch.equal(transform(image), normalised), image.name


def test_every_imagenet_row_has_the_resize_of_its_upstream_configuration() -> None:
    for entry in (get_entry(name) for name in IN1K):
        steps: Any = upstream_model(entry)._config.test_dataloader.dataset.pipeline  # type: ignore[union-attr]
        resize = next(step for step in steps if step.type == "ResizeEdge")
        assert resize.get("backend", "cv2") == entry.preprocess.resize_backend
        assert (resize.scale, resize.edge) == (entry.preprocess.short_edge, "short")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["resnet50_in1k", "resnetv1d50_in1k"])
def test_rotated_images_equal_those_of_mmpretrain(name: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "rotated.jpg"
    Image.fromarray(smooth_image(300, 400)).save(path, exif=exif, quality=90)
    pixels, normalised = upstream_input(upstream_model(get_entry(name)), path)
    transform = create_transform(name)
    assert np.array_equal(transform.pixels(path), pixels.permute(1, 2, 0).numpy())
    assert torch.equal(transform(path), normalised)


def test_two_tap_resize_equals_opencv_at_random_sizes() -> None:
    cv2 = pytest.importorskip("cv2")
    from resnet_zoo.images.resize import crop_start, resize_crop_like_cv2, resized_size

    random = np.random.default_rng(0)
    sizes = [tuple(map(int, random.integers(1, 900, 2))) for _ in range(300)]
    for height, width in [*sizes, (1, 1), (256, 256), (512, 512), (512, 700), (256, 300), (255, 256), (1, 700)]:
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        new_height, new_width = resized_size(height, width, 256)
        top, left = crop_start(new_height, 224), crop_start(new_width, 224)
        theirs = cv2.resize(pixels, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        ours = resize_crop_like_cv2(pixels, 256, 224)
        assert np.array_equal(ours, theirs[top : top + 224, left : left + 224]), (height, width)


# --- accuracy -----------------------------------------------------------------------------------------------------


def upstream_runner(entry: Entry, folder: Path, test_list: Path) -> Any:
    """Return mmengine's Runner with mmpretrain's network, test pipeline and Accuracy metric for a list of images."""
    runner, config = pytest.importorskip("mmengine.runner"), pytest.importorskip("mmengine.config")
    upstream: Any = upstream_model(entry)._config
    pipeline = upstream.test_dataloader.dataset.pipeline
    if entry.dataset.startswith("cifar"):  # upstream reads arrays there; from files OpenCV decodes BGR
        pipeline = [{"type": "LoadImageFromFile"}, *pipeline]
    loader = {
        "batch_size": 64,
        "num_workers": 0,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": {
            "type": "CustomDataset",
            "ann_file": str(test_list),
            "pipeline": pipeline,
            "metainfo": {"classes": class_folders(entry.classes)},
        },
    }
    settings = {
        "model": {**upstream.model, "data_preprocessor": {**upstream.data_preprocessor, "to_rgb": True}},
        "default_scope": "mmpretrain",
        "work_dir": str(folder / "work"),
        "log_level": "ERROR",
        "test_cfg": {},
        "test_evaluator": {"type": "Accuracy", "topk": (1, 5)},
        "test_dataloader": loader,
        "train_dataloader": loader,
        "train_cfg": {"by_epoch": True, "max_epochs": 1},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
    }
    return runner.Runner.from_cfg(config.Config(settings))


def save_with_mmpretrain(runner: Any, folder: Path) -> Path:
    """Let the Runner save its network, with the training state that makes such files need care."""
    runner.message_hub.update_scalar("train/loss", np.float64(1.5))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.save_checkpoint(str(folder), "upstream.pth", save_param_scheduler=False)
    return folder / "upstream.pth"


def memorise_mirrored(model: Any, images: LabelledImages, normalise: Callable[[Tensor], Tensor]) -> None:
    """Make each image's label the class of its mirror image's features, so that a random network is often right."""
    with torch.no_grad():
        mirrored = torch.cat([normalise(images[index].pixels).flip(3) for index in range(len(images))])
        features = model.eval().extract_feat(mirrored)[-1]
        features -= features.mean(dim=0)
        model.head.fc.weight.zero_()
        model.head.fc.weight[torch.from_numpy(images.labels)] = features / features.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("name", ["resnet18_in1k", "resnetv1d50_in1k", "resnet18_cifar10"])
def test_accuracy_counts_equal_those_of_mmpretrain_for_its_own_checkpoint(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    entry = get_entry(name)
    root = request.getfixturevalue("cifar10" if entry.dataset == "cifar10" else "imagenet")
    images = open_test_set(entry, root, partial=True)
    test_list = tmp_path / "val.txt"
    pairs = zip(images.images, images.labels, strict=True)
    test_list.write_text("".join(f"{path} {label}\n" for path, label in pairs))
    runner = upstream_runner(entry, tmp_path, test_list)
    randomise(runner.model)
    if entry.dataset == "in1k":
        memorise_mirrored(runner.model, images, Transform(entry.preprocess, entry.input_size).normalise)
    saved, converted = save_with_mmpretrain(runner, tmp_path), tmp_path / f"{name}.safetensors"
    assert convert_checkpoint(saved, converted, name=name).source_layout == "openmmlab"
    result = evaluate(name, root, weights=converted, device="cpu", partial=True)
    theirs = runner.test()
    assert result.num_images == len(images) == (10_000 if entry.dataset == "cifar10" else 100)
    assert 0 < result.correct1 < result.correct5 < result.num_images
    assert (result.top1, result.top5) == pytest.approx((theirs["accuracy/top1"], theirs["accuracy/top5"]), abs=1e-4)


def test_transforms_are_what_the_test_set_uses(imagenet: Path) -> None:
    entry = get_entry("resnet50")
    images = open_test_set(entry, imagenet, partial=True)
    transform = Transform(entry.preprocess, entry.input_size)
    assert torch.equal(transform.normalise(images[0].pixels)[0], transform(images.images[0]))
