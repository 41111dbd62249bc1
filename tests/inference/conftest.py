"""What several tests of networks at work need: one network, its weights as a file, and marks for what is an extra."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch

from resnet_zoo.base.devices import supported_dtypes
from resnet_zoo.inference import openvino, quantization
from resnet_zoo.network.resnet import ResNet
from tests.conftest import random_network

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not openvino.is_available(CPU), reason="needs the extra `openvino`")
needs_int8 = pytest.mark.skipif(not quantization.is_available(CPU), reason="needs the extra `int8`")
needs_bfloat16 = pytest.mark.skipif(
    torch.bfloat16 not in supported_dtypes(CPU), reason="this CPU does not multiply bfloat16"
)


@pytest.fixture(scope="module")
def model() -> ResNet:
    """A network of random values; a test that changes it copies it first."""
    return random_network("resnet18_cifar10")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, model: ResNet) -> Path:
    """Its weights."""
    path = tmp_path_factory.mktemp("weights") / "row.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    return path
