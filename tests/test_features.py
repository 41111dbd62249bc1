from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

from resnet_zoo import (
    ArgumentError,
    FeatureExtractor,
    UnknownLayerError,
    UnknownModelError,
    create_feature_extractor,
    create_model,
    features,
)
from resnet_zoo.fit import build, build_on_meta
from resnet_zoo.manifest import get_entry
from resnet_zoo.records import Entry
from resnet_zoo.resnet import ResNet
from resnet_zoo.trunk import LAYERS
from tests.conftest import ENTRIES, NAMES, randomise
from tests.private_zoo import private_zoo  # noqa: F401
