"""The test images during a training: measured on, never used to choose."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from resnet_zoo.base.processes import Processes
from resnet_zoo.catalog.recipes import Precision
from resnet_zoo.catalog.records import Entry
from resnet_zoo.images.identity import images_sha256, pixels_sha256, read_all
from resnet_zoo.images.test_sets import Batch, LabelledImages, batches
from resnet_zoo.images.transform import Transform
from resnet_zoo.inference.counted import count_correct
from resnet_zoo.network.resnet import ResNet

_BATCH_SIZE = 500


class TestImages:
    """A row's test images, each process counting its own share: every image once, however many processes there are.

    Args:
        entry: The row.
        images: Its test images, as `open_test_set` finds them.
        processes: The processes that train together.
        num_workers: Processes that decode images; those of rows that never resize stay in the device's memory.

    Raises:
        DatasetError: An image cannot be read.
    """

    __test__ = False  # its name would make pytest collect it

    def __init__(self, entry: Entry, images: LabelledImages, processes: Processes, *, num_workers: int = 0) -> None:
        self.variant, self.num_images = images.variant, len(images)
        self.processes, self.num_workers = processes, num_workers
        self.normalise = Transform(entry.preprocess, entry.input_size).normalise
        share = slice(
            self.num_images * processes.rank // processes.num_devices,
            self.num_images * (processes.rank + 1) // processes.num_devices,
        )
        self.held: Batch | None = None
        if entry.preprocess.resize_backend is not None:
            self.fingerprint = images_sha256(images, by_pixels=False)
            self.own = LabelledImages(images.variant, images.images[share], images.labels[share], images.pixels)
        else:
            pixels, labels = read_all(images)
            self.fingerprint = pixels_sha256(pixels, labels)
            self.held = Batch(pixels[share].to(processes.device), labels[share].to(processes.device))

    def count(self, model: ResNet, precision: Precision = "float32") -> tuple[int, int]:
        """Return how many of all images are right with the best class, and among the best five.

        The batch-norm statistics of the first process count, whose weights are the ones that are saved.
        """
        tested = copy.deepcopy(model)
        self.processes.spread(tested.buffers())
        device = self.processes.device
        found = count_correct(tested, self._batches(), self.normalise, device=device, precision=precision)
        correct1, correct5 = self.processes.total(torch.tensor(found.correct, device=device)).tolist()
        return correct1, correct5

    def _batches(self) -> Iterator[Batch]:
        if self.held is None:
            yield from batches(self.own, 50, num_workers=self.num_workers)
            return
        for start in range(0, len(self.held.labels), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            yield Batch(self.held.pixels[part], self.held.labels[part])
