"""Programs of others that take a network: each does with ours what it does with torchvision's of the same weights.

Extra ``peers``, without fastai, which brings eighty packages: its test runs where it is installed.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from resnet_zoo import count_flops, count_params, create_model, load_checkpoint
from resnet_zoo.network.features import FeatureExtractor
from resnet_zoo.network.resnet import ResNet
from tests.conftest import randomise

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

NAME = "resnet18_in1k"


def client(name: str) -> Any:
    """Import a client, or skip the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


def network(name: str = NAME, **options: Any) -> ResNet:
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    randomise(model)
    return model


def twin(model: ResNet) -> nn.Module:
    """Return torchvision's network with the same weights."""
    theirs: nn.Module = torchvision.models.resnet18(num_classes=model.fc.out_features).eval()
    theirs.load_state_dict(model.state_dict(), strict=True)
    return theirs


def images(num: int = 2, size: int = 64) -> Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(1))


def labelled(num: int = 8, size: int = 32) -> Any:
    return TensorDataset(images(num, size), torch.arange(num) % 10)


# --- explaining ----------------------------------------------------------------------------------------------------


def test_captum_attributes_the_same_to_the_same_pixels() -> None:
    attr = client("captum.attr")
    ours = network()
    x, found = images(), []
    for model in (ours, twin(ours)):
        by_layer = attr.LayerGradCam(model, model.layer4).attribute(x, target=3)
        by_pixel = attr.Saliency(model).attribute(x.clone().requires_grad_(), target=3)
        found.append((by_layer.detach(), by_pixel.detach()))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*found, strict=True))
    assert found[0][1].abs().max() > 0


def test_grad_cam_draws_the_same_map() -> None:
    cam = client("pytorch_grad_cam")
    ours = network()
    targets = [client("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget(3)] * 2
    maps = [cam.GradCAM(model, [model.get_submodule("layer4.1")])(images(), targets) for model in (ours, twin(ours))]
    assert np.array_equal(*maps)
    assert maps[0].max() > 0


# --- counting ------------------------------------------------------------------------------------------------------


def test_fvcore_counts_our_multiplications() -> None:
    flops = client("fvcore.nn").FlopCountAnalysis(network(), images(1, 224)).unsupported_ops_warnings(False)
    by_kind = flops.by_operator()
    assert by_kind["conv"] + by_kind["linear"] == count_flops(network(), (3, 224, 224), rule="macs")


def test_torchinfo_counts_our_parameters() -> None:
    found = client("torchinfo").summary(network(), (1, 3, 64, 64), verbose=0)
    assert found.total_params == count_params(network())


# --- changing the network ------------------------------------------------------------------------------------------


def test_torch_pruning_cuts_the_same_channels() -> None:
    pruning = client("torch_pruning")
    ours = network()
    pruned = []
    for model in (ours, twin(ours)):
        pruner = pruning.pruner.MagnitudePruner(
            model,
            images(1),
            importance=pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[model.fc],
        )
        pruner.step()
        pruned.append(model(images()))
    assert torch.equal(*pruned)
    assert count_params(ours) < 0.3 * count_params(network())
    assert FeatureExtractor(ours).channels["stage4"] == 256  # measured, not remembered


def test_opacus_trains_it_privately() -> None:
    opacus = client("opacus")
    validators = client("opacus.validators")
    model = validators.ModuleValidator.fix(create_model("resnet18_cifar10")).train()
    private, optimizer, loader = opacus.PrivacyEngine(accountant="rdp").make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(labelled(), batch_size=4),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        grad_sample_mode="ew",  # its hooks refuse an addition in place, torchvision's as ours
    )
    before = [parameter.clone() for parameter in private.parameters()]
    for x, labels in loader:  # Poisson sampling: a batch may be empty
        optimizer.zero_grad()
        nn.functional.cross_entropy(private(x), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, private.parameters(), strict=True))


# --- training loops ------------------------------------------------------------------------------------------------


def test_lightning_trains_it_and_its_checkpoint_loads(tmp_path: Path) -> None:
    lightning = client("lightning")

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = create_model("resnet18_cifar10")

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(labelled(), batch_size=4))
    path = tmp_path / "lightning.ckpt"
    trainer.save_checkpoint(path)
    loaded = create_model("resnet18_cifar10", weights=path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in module.model.state_dict().items())


def test_the_trainer_of_transformers_trains_it(tmp_path: Path) -> None:
    transformers = client("transformers")
    client("accelerate")

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = create_model("resnet18_cifar10")

        def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.model(pixels)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    model = WithLoss()
    before = model.model.fc.weight.clone()
    arguments = transformers.TrainingArguments(
        tmp_path,
        max_steps=2,
        per_device_train_batch_size=4,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    rows = [{"pixels": x, "labels": label} for x, label in labelled()]
    transformers.Trainer(model, arguments, train_dataset=rows).train()
    assert not torch.equal(before, model.model.fc.weight)


def test_skorch_fits_and_predicts() -> None:
    skorch = client("skorch")
    classifier = skorch.NeuralNetClassifier(
        create_model("resnet18_cifar10"),
        criterion=nn.CrossEntropyLoss,
        max_epochs=1,
        batch_size=4,
        verbose=0,
        train_split=None,
    )
    x, y = images(8, 32).numpy(), np.arange(8) % 10
    assert classifier.fit(x, y).predict(x).shape == (8,)


def test_fastai_fits_it() -> None:
    learner_of = client("fastai.learner")
    client("fastai.callback.progress")  # gives learners no_bar
    data = client("fastai.data.core")
    loader = client("fastai.data.load").DataLoader
    loaders = data.DataLoaders(loader(labelled(), bs=4), loader(labelled(), bs=4))
    model = create_model("resnet18_cifar10")
    learner = learner_of.Learner(loaders, model, loss_func=nn.CrossEntropyLoss())
    with learner.no_bar(), learner.no_logging():
        learner.fit(1, lr=0.01)
    assert int(model.bn1.num_batches_tracked or 0) == 2


# --- dense prediction ----------------------------------------------------------------------------------------------


def test_a_deeplab_head_of_torchvision_takes_its_maps() -> None:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    body = FeatureExtractor(network(), layers=("stage4",))
    head = DeepLabHead(body.channels["stage4"], 21).eval()
    assert head(body(images())["stage4"]).shape == (2, 21, 2, 2)


def test_a_decoder_of_segmentation_models_takes_its_maps() -> None:
    decoders = client("segmentation_models_pytorch.decoders.unet.decoder")
    layers = ("stem.relu", "stage1", "stage2", "stage3", "stage4")
    body = FeatureExtractor(network(), layers=layers)
    channels = [3, *body.channels.values()]
    decoder = decoders.UnetDecoder(channels, [64, 32, 16, 16, 8], n_blocks=5)
    x = images(2, 64)
    assert decoder([x, *body(x).values()]).shape == (2, 8, 64, 64)


# --- other runtimes and files --------------------------------------------------------------------------------------


def test_openvino_computes_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_telemetry", None)  # it forks this process, to report its use to Intel
    openvino = client("openvino")
    model, x = network(), images()
    compiled = openvino.compile_model(
        openvino.convert_model(model, example_input=x), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    expected = model(x).detach().numpy()
    assert np.abs(compiled(x.numpy())[0] - expected).max() < 1e-4 * np.abs(expected).max()


def test_checkpoints_of_timms_saver_are_read(tmp_path: Path) -> None:
    utils = client("timm.utils")
    model = network("resnet18_cifar10")
    averaged = utils.ModelEmaV2(network("resnet18_cifar10", num_classes=10), decay=0.5)
    averaged.module.fc.bias.data.fill_(7.0)
    saver = utils.CheckpointSaver(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        model_ema=averaged,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(epoch=0, metric=1.0)
    assert load_checkpoint(tmp_path / "last.pth.tar").tensors["fc.bias"].eq(7.0).all()
