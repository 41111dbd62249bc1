"""What a lower precision changes in the answers of trained weights, on real images."""

from __future__ import annotations

from benchmarks.infer import CIFAR_ROW, cifar_batches, image_batches, tell_accuracy, tell_agreement
from benchmarks.timing import Options


def measure(options: Options) -> None:
    """Print the agreements and the accuracy in 8-bit integers."""
    images, cifar10 = options.images, options.cifar10
    tell_agreement("resnet50_in1k", options.weights, None if images is None else image_batches(images))
    tell_agreement(CIFAR_ROW, options.cifar_weights, None if cifar10 is None else cifar_batches(cifar10))
    tell_accuracy(options.cifar_weights, cifar10)
