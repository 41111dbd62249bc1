"""What is known to be wrong or surprising about the published rows and their files, in one place, with sources."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from resnet_zoo.catalog.records import Entry

_PULLS = "https://github.com/open-mmlab/mmpretrain/pull/"
_FILES = "https://github.com/open-mmlab/mmpretrain/blob/"


@dataclass(frozen=True)
class Erratum:
    """One known fact.

    Attributes:
        rows: Patterns (shell wildcards) of the rows it is about.
        title: What, in a few words.
        text: The fact, and what follows from it.
        sources: Title and address of each source.
    """

    rows: tuple[str, ...]
    title: str
    text: str
    sources: tuple[tuple[str, str], ...] = ()


_PLAIN_IN1K = ("resnet18_in1k", "resnet34_in1k", "resnet50_in1k", "resnet101_in1k", "resnet152_in1k")

ERRATA = (
    Erratum(
        ("resnet34_in1k",),
        "The metafile lost a digit",
        "Upstream's metafile.yml gives ResNet-34 2,180,000 parameters, and READMEs generated from it print 2.18 M. The "
        "table's 21.8 M is right: there are 21,797,672.",
        (("metafile.yml", _FILES + "main/configs/resnet/metafile.yml"),),
    ),
    Erratum(
        ("resnetv1d50_in1k",),
        "4.36 G only without the classifier",
        "Upstream's script counts the network without its classifier. For fourteen rows both counts round to the same "
        "digits; here it is 4.363 G without and 4.365 G with it, which would print 4.37.",
        (("discussion of the count", _PULLS + "953"),),
    ),
    Erratum(
        ("resnet*_cifar10", "resnet*_cifar100"),
        "Older files expect swapped channels",
        "Checkpoints dated before 20210528 carry nearly the same names, but were trained on images with red and "
        "blue swapped. The row names the later file, by its hash.",
        (("the correction", _PULLS + "280"),),
    ),
    Erratum(
        ("resnet*_cifar10",),
        "The standard deviation is not the data set's",
        "Images are divided by 51.6, 50.8 and 51.3 (0.2023, 0.1994, 0.2010 of 255), widely copied values that are a "
        "fifth smaller than CIFAR-10's own (0.2470, 0.2435, 0.2616). The networks were trained with them, so "
        "they stay.",
    ),
    Erratum(
        _PLAIN_IN1K,
        "Upstream's own list kept older numbers",
        "The checkpoints were retrained in August 2021, and the numbers changed with them. model_zoo.md still "
        "prints those of the earlier files.",
        (("the new files", _PULLS + "435"),),
    ),
    Erratum(
        ("resnetv1d*_in1k",),
        "A different resize from the plain rows",
        "Trained and tested with Pillow's antialiased resize, where the plain rows use OpenCV's. The wrong one moves "
        "pixels by up to 135 of 255; each row here has its own.",
        (("the change", _PULLS + "288"),),
    ),
    Erratum(
        ("resnet50_fp16_in1k",),
        "Probably measured in half precision",
        "Upstream's test script wrapped networks of such configurations for half precision, and the file most likely "
        "holds half-precision tensors. Measured in float32, the last digit may differ by a few images. Without the "
        "file, neither could be confirmed.",
        (("the measurement", _PULLS + "435"),),
    ),
    Erratum(
        ("resnet50_cifar100",),
        "Its recipe needs the whole batch",
        "The learning rate of 0.1 is for 128 images a step, eight devices with 16 each. On a single device with 16, "
        "users reported 63.9% instead of 79.90%.",
        (("the report", "https://github.com/open-mmlab/mmpretrain/issues/1892"),),
    ),
    Erratum(
        ("resnet*_in1k",),
        "Two classes have one name",
        "Labels 134 and 517 are both called crane, the bird and the machine. A name does not always lead back to one "
        "label.",
    ),
)


def errata_of(entry: Entry) -> tuple[Erratum, ...]:
    """Return what is known about a row."""
    return tuple(erratum for erratum in ERRATA if any(fnmatchcase(entry.name, rows) for rows in erratum.rows))
