from __future__ import annotations

import dataclasses
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.datasets import FINGERPRINTS, NUM_IMAGES
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import decode
from resnet_zoo.images.test_sets import LabelledImages, batches, open_test_set, pixels_fingerprint
from tests.conftest import ENTRIES, smooth_image

CIFAR = get_entry("resnet18_cifar10")
CIFAR100 = get_entry("resnet50_cifar100")
IN1K = get_entry("resnet18_in1k")
CLASSES = class_folders("cifar10")
WNIDS = class_folders("in1k")
Tree = Callable[..., Path]


def save_image(path: Path, size: int = 32, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(smooth_image(size, size, seed=seed)).save(path)
    return path


# --- class trees ---------------------------------------------------------------------------------------------------


def test_a_tree_is_listed_in_the_order_of_classes_then_names(class_tree: Tree) -> None:
    root = class_tree(CLASSES, per_class=2)
    images = open_test_set(CIFAR, root)
    assert len(images) == 20
    assert images.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert [path.parent.name for path in images.images if isinstance(path, Path)] == [
        name for name in CLASSES for _ in range(2)
    ]


def test_an_item_holds_the_pixels_of_its_file(class_tree: Tree) -> None:
    images = open_test_set(CIFAR, class_tree(CLASSES))
    path = images.images[3]
    assert isinstance(path, Path)
    item = images[3]
    assert item.pixels.dtype == torch.uint8
    assert np.array_equal(item.pixels[0].permute(1, 2, 0).numpy(), decode(path))
    assert (item.labels.tolist(), item.bad) == ([3], [])


def test_the_folder_may_be_the_split_itself(class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    assert len(open_test_set(CIFAR, root / "test")) == len(open_test_set(CIFAR, root)) == 10


def test_a_text_path_is_taken(class_tree: Tree) -> None:
    assert len(open_test_set(CIFAR, str(class_tree(CLASSES)))) == 10


def test_files_that_are_no_images_and_hidden_folders_are_passed_over(class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    (root / "test" / "cat" / "notes.txt").write_text("x")
    (root / "test" / "README.md").write_text("x")
    (root / "test" / ".cache").mkdir()
    assert len(open_test_set(CIFAR, root)) == 10


def test_hidden_files_such_as_those_of_macos_are_passed_over(class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    (root / "test" / "cat" / "._0000.png").write_bytes(b"\0\x05\x16\x07")
    assert len(open_test_set(CIFAR, root)) == 10


@pytest.mark.parametrize("missing", [["dog"], ["airplane", "truck"], CLASSES[1:]], ids=len)
def test_missing_classes_are_an_error_that_counts_and_names_them(missing: list[str], class_tree: Tree) -> None:
    root = class_tree([name for name in CLASSES if name not in missing])
    with pytest.raises(DatasetError, match=f"no images for {len(missing)} of 10 classes") as caught:
        open_test_set(CIFAR, root)
    assert missing[0] in str(caught.value)


def test_an_empty_class_folder_is_a_missing_class(class_tree: Tree) -> None:
    root = class_tree(CLASSES[:-1])
    (root / "test" / CLASSES[-1]).mkdir()
    with pytest.raises(DatasetError, match=r"no images for 1 of 10 classes \(truck\)"):
        open_test_set(CIFAR, root)


def test_partial_accepts_missing_classes_and_keeps_the_labels(class_tree: Tree) -> None:
    images = open_test_set(CIFAR, class_tree(["cat", "truck"]), partial=True)
    assert images.labels.tolist() == [3, 9]
    assert images.variant == "cifar10-png-2of10classes"


@pytest.mark.parametrize("partial", [False, True])
def test_a_stray_folder_is_an_error_that_names_it(partial: bool, class_tree: Tree) -> None:
    root = class_tree([*CLASSES, "unicorn"])
    with pytest.raises(DatasetError, match=r"not classes: unicorn"):
        open_test_set(CIFAR, root, partial=partial)


def test_a_tree_of_another_data_set_is_an_error(class_tree: Tree) -> None:
    root = class_tree(WNIDS[:5])
    with pytest.raises(DatasetError, match="airplane and truck"):
        open_test_set(CIFAR, root)


@pytest.mark.parametrize("partial", [False, True])
def test_a_tree_without_images_is_an_error(partial: bool, tmp_path: Path) -> None:
    for name in CLASSES:
        (tmp_path / "test" / name).mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no images"):
        open_test_set(CIFAR, tmp_path, partial=partial)


@pytest.mark.parametrize("entry", [CIFAR, IN1K], ids=["cifar10", "in1k"])
def test_an_empty_folder_is_an_error(entry: object, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no images"):
        open_test_set(entry, tmp_path)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["missing", "file"])
def test_what_is_no_folder_is_an_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match=f"{name} is not a folder"):
        open_test_set(CIFAR, tmp_path / name)


def test_imagenet_cannot_be_downloaded(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"image-net\.org"):
        open_test_set(IN1K, tmp_path, download=True)


# --- what a variant is called --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffixes", "kind"),
    [
        ([".png"], "png"),
        ([".jpg"], "jpeg"),
        ([".jpg", ".jpeg", ".JPEG"], "jpeg"),
        ([".png", ".jpg"], "images"),
        ([".bmp"], "images"),
    ],
)
def test_the_variant_says_what_the_files_are(suffixes: list[str], kind: str, tmp_path: Path) -> None:
    for index, name in enumerate(CLASSES):
        save_image(tmp_path / "test" / name / f"0{suffixes[index % len(suffixes)]}")
    assert open_test_set(CIFAR, tmp_path).variant == f"cifar10-{kind}-10images"


def touched_tree(root: Path, classes: list[str], per_class: int, suffix: str) -> Path:
    """Make a tree of empty files: enough to be listed."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for index in range(per_class):
            (root / name / f"{index:05}{suffix}").touch()
    return root


def test_ten_thousand_jpegs_are_still_not_the_official_test_set(tmp_path: Path) -> None:
    images = open_test_set(CIFAR, touched_tree(tmp_path, CLASSES, 1000, ".jpg"))
    assert (len(images), images.variant) == (10_000, "cifar10-jpeg")


# --- pixels decide what is official --------------------------------------------------------------------------------


@pytest.fixture
def official(class_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that holds the whole of a small official set, under a name and in a format of its own."""
    root = class_tree(class_folders("cifar100"), suffix=".bmp")
    images = open_test_set(CIFAR100, root)
    assert images.variant == "cifar100-images-100images"
    monkeypatch.setitem(NUM_IMAGES["test"], "cifar100", 100)
    monkeypatch.setitem(FINGERPRINTS, ("cifar100", "test"), pixels_fingerprint(images))
    return root


def test_a_set_with_the_official_pixels_and_labels_is_the_official_one(official: Path) -> None:
    assert open_test_set(CIFAR100, official).variant == "cifar100"
    for path in list(official.glob("test/*/*.bmp")):  # other names, another format
        Image.open(path).save(path.with_name(f"x{path.stem}.png"))
        path.unlink()
    assert open_test_set(CIFAR100, official).variant == "cifar100"


@pytest.mark.parametrize("what", ["a pixel", "a label", "lossy files", "an image twice", "an unreadable image"])
def test_a_set_with_anything_else_is_not(what: str, official: Path) -> None:
    first, second = sorted(official.glob("test/*/*.bmp"))[:2]
    pixels = np.array(Image.open(first))
    if what == "a pixel":
        pixels[3, 4, 1] ^= 1
        Image.fromarray(pixels).save(first)
    elif what == "a label":
        Image.open(second).save(first)
        Image.fromarray(pixels).save(second)
    elif what == "lossy files":
        for path in list(official.glob("test/*/*.bmp")):
            Image.open(path).save(path.with_suffix(".jpg"))
            path.unlink()
    elif what == "an image twice":
        Image.fromarray(pixels).save(second)
    else:
        first.write_bytes(b"no image")
    assert open_test_set(CIFAR100, official).variant in ("cifar100-images", "cifar100-jpeg")


def test_a_fingerprint_does_not_depend_on_the_order_or_on_how_images_are_held(class_tree: Tree) -> None:
    images = open_test_set(CIFAR, class_tree(CLASSES, per_class=2))
    arrays = np.stack([decode(path) for path in images.images[::-1] if isinstance(path, Path)])
    held = LabelledImages("", arrays, images.labels[::-1].copy(), images.pixels)
    assert pixels_fingerprint(held) == pixels_fingerprint(images)
    shuffled = LabelledImages("", arrays, images.labels, images.pixels)
    assert pixels_fingerprint(shuffled) != pixels_fingerprint(images)


def test_an_imagenet_tree_that_is_not_complete_says_so(tmp_path: Path) -> None:
    root = touched_tree(tmp_path / "val", WNIDS, 2, ".JPEG")
    assert open_test_set(IN1K, tmp_path).variant == "in1k-2000images"
    some = touched_tree(tmp_path / "some", WNIDS[:100], 1, ".JPEG")
    assert open_test_set(IN1K, some, partial=True).variant == "in1k-100of1000classes"
    with pytest.raises(DatasetError, match="900 of 1000"):
        open_test_set(IN1K, some)
    assert len(open_test_set(IN1K, root)) == 2000


def test_the_labels_of_an_imagenet_tree_are_wordnet_ids_in_order(tmp_path: Path) -> None:
    touched_tree(tmp_path / "val", [WNIDS[999], WNIDS[0]], 1, ".JPEG")
    assert open_test_set(IN1K, tmp_path, partial=True).labels.tolist() == [0, 999]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_row_finds_a_tree_of_its_classes(entry: object, tmp_path: Path) -> None:
    names = class_folders(entry.classes)  # type: ignore[attr-defined]
    split = "val" if names is WNIDS or len(names) == 1000 else "test"
    touched_tree(tmp_path / split, names[:3], 1, ".png")
    assert open_test_set(entry, tmp_path, partial=True).labels.tolist() == [0, 1, 2]  # type: ignore[arg-type]


# --- images that cannot be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("kind", ["corrupt", "wrong size"])
def test_a_bad_image_is_an_error_that_names_its_file(kind: str, num_workers: int, class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    bad = root / "test" / "frog" / "0000.png"
    if kind == "corrupt":
        bad.write_bytes(b"junk")
    else:
        save_image(bad, size=33)
    images = open_test_set(CIFAR, root)
    with pytest.raises(DatasetError) as caught:
        list(batches(images, 4, num_workers=num_workers))
    assert str(bad) in str(caught.value)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_skip_bad_leaves_bad_images_out_and_says_why(num_workers: int, class_tree: Tree) -> None:
    root = class_tree(CLASSES)
    for name in ("airplane", "frog", "truck"):
        (root / "test" / name / "0000.png").write_bytes(b"junk")
    images = open_test_set(CIFAR, root, skip_bad=True)
    found = list(batches(images, 3, num_workers=num_workers))
    assert [label for batch in found for label in batch.labels.tolist()] == [1, 2, 3, 4, 5, 7, 8]
    assert [len(batch.bad) for batch in found] == [1, 0, 1, 1]
    assert [batch.pixels.shape[0] for batch in found] == [2, 3, 2, 0]
    reasons = [reason for batch in found for reason in batch.bad]
    assert all(name in reason for name, reason in zip(("airplane", "frog", "truck"), reasons, strict=True))


def test_batches_hold_the_images_in_order_and_the_last_is_smaller(class_tree: Tree) -> None:
    images = open_test_set(CIFAR, class_tree(CLASSES))
    found = list(batches(images, 4))
    assert [tuple(batch.pixels.shape) for batch in found] == [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
    whole = torch.cat([batch.pixels for batch in found])
    assert torch.equal(whole, torch.cat([images[index].pixels for index in range(10)]))
    assert torch.cat([batch.labels for batch in found]).tolist() == list(range(10))


def test_images_in_memory_are_batched_too() -> None:
    pixels = np.stack([smooth_image(32, 32, seed=seed) for seed in range(5)])
    images = LabelledImages("cifar10", pixels, np.arange(5, dtype=np.int64), lambda image: image)
    (batch,) = batches(images, 8)
    assert np.array_equal(batch.pixels.permute(0, 2, 3, 1).numpy(), pixels)


# --- the official CIFAR archives -----------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Refuse every connection and record who asked for one."""
    asked: list[object] = []

    def refuse(self: socket.socket, address: object) -> NoReturn:
        asked.append(address)
        raise OSError("no network in this test")

    def refuse_name(host: object, *_: object, **__: object) -> NoReturn:
        asked.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_name)
    return asked


@pytest.mark.parametrize(
    ("name", "archive"),
    [("resnet18_cifar10", "cifar-10-python.tar.gz"), ("resnet50_cifar100", "cifar-100-python.tar.gz")],
)
def test_a_damaged_archive_is_an_error_and_is_not_replaced_from_the_network(
    name: str, archive: str, tmp_path: Path, no_network: list[object]
) -> None:
    (tmp_path / archive).write_bytes(b"not the archive")
    with pytest.raises(DatasetError, match="is damaged: its md5 is not"):
        open_test_set(get_entry(name), tmp_path)
    assert (tmp_path / archive).read_bytes() == b"not the archive"
    assert no_network == []


@pytest.mark.parametrize(
    ("name", "folder"), [("resnet18_cifar10", "cifar-10-batches-py"), ("resnet50_cifar100", "cifar-100-python")]
)
def test_a_damaged_unpacked_archive_is_an_error(
    name: str, folder: str, tmp_path: Path, no_network: list[object]
) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "test_batch").write_bytes(b"junk")
    with pytest.raises(DatasetError, match=r"archive cannot be used: a file is missing, or has the wrong md5\. Fetch"):
        open_test_set(get_entry(name), tmp_path)
    assert no_network == []


def test_offline_nothing_is_downloaded(tmp_path: Path, no_network: list[object]) -> None:
    with pytest.raises(DatasetError, match=r"has no class folders|holds no images|is not a folder"):
        open_test_set(CIFAR, tmp_path, download=True)
    assert no_network == []


def test_a_download_that_fails_is_a_data_set_error(
    tmp_path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESNET_ZOO_OFFLINE")
    with pytest.raises(DatasetError, match="archive cannot be used"):
        open_test_set(CIFAR, tmp_path, download=True)
    assert no_network != []


# --- ImageNet's val.txt --------------------------------------------------------------------------------------------


def imagenet(root: Path, lines: list[str] | bytes, names: list[str], place: str = "meta/val.txt") -> Path:
    for name in names:
        save_image(root / "val" / name, size=8)
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(lines, bytes):
        (root / place).write_bytes(lines)
    else:
        (root / place).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_a_flat_folder_without_its_list_says_where_to_put_it(tmp_path: Path) -> None:
    for number in (1, 2):
        save_image(tmp_path / "val" / f"ILSVRC2012_val_{number:08}.JPEG", 224)
    with pytest.raises(
        DatasetError, match=r"val holds 2 images and no class folders; .*n01440764 and n15075141"
    ) as caught:
        open_test_set(IN1K, tmp_path)
    assert f"list at {tmp_path / 'meta' / 'val.txt'}" in str(caught.value)
    line = re.search(r"'(ILSVRC\S+ \d+)'", str(caught.value))
    assert line
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "val.txt").write_text(f"{line[1]}\nILSVRC2012_val_00000002.JPEG 970\n")
    assert open_test_set(IN1K, tmp_path).labels.tolist() == [65, 970]


def test_other_flat_folders_are_told_of_class_folders_alone(tmp_path: Path) -> None:
    save_image(tmp_path / "test" / "0.png")
    with pytest.raises(
        DatasetError, match=r"test holds 1 images and no class folders; .*airplane and truck. Sort"
    ) as caught:
        open_test_set(CIFAR, tmp_path)
    assert "val.txt" not in str(caught.value)


def test_what_is_left_out_of_class_folders_is_counted(class_tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    root = class_tree(CLASSES)
    assert len(open_test_set(CIFAR, root)) == 10
    assert caplog.messages == []
    (root / "test" / "cat" / "a.heic").touch()
    (root / "test" / "loose.png").touch()
    (root / "test" / "dog" / "more").mkdir()
    assert len(open_test_set(CIFAR, root)) == 10
    (message,) = caplog.messages
    assert all(kind in message for kind in ("1 .heic", "1 image beside the class folders", "1 folder"))


@pytest.mark.parametrize("place", ["meta/val.txt", "val/val.txt"])
def test_a_list_gives_files_and_labels_in_its_order(place: str, tmp_path: Path) -> None:
    names = ["ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000001.JPEG", "b c.JPEG"]
    images = open_test_set(IN1K, imagenet(tmp_path, [f"{names[0]} 970", f"{names[1]} 65", "b c.JPEG 7"], names, place))
    assert images.labels.tolist() == [970, 65, 7]
    assert images.images == [tmp_path / "val" / name for name in names]
    assert images.variant == "in1k-3of1000classes"


@pytest.mark.parametrize("label", [490, 0])
def test_a_list_in_another_label_order_is_recognised(label: int, tmp_path: Path) -> None:
    name = "ILSVRC2012_val_00000001.JPEG"
    with pytest.raises(DatasetError, match=f"another order: {name} is 65, got {label}"):
        open_test_set(IN1K, imagenet(tmp_path, [f"{name} {label}"], [name]))


@pytest.mark.parametrize(
    "line", ["a.JPEG 1000", "a.JPEG -1", "a.JPEG x", "a.JPEG", "", "65", "a.JPEG 1.0", "a.JPEG ²", "a.JPEG,3"]
)
def test_a_bad_line_is_an_error_with_its_number(line: str, tmp_path: Path) -> None:
    root = imagenet(tmp_path, ["a.JPEG 1", line, "a.JPEG 1"], ["a.JPEG"])
    with pytest.raises(DatasetError, match=r"val\.txt, line 2: expected a file name and a label below 1000"):
        open_test_set(IN1K, root)


@pytest.mark.parametrize("name", ["../secret.JPEG", "/etc/passwd", "a/../../secret.JPEG"])
def test_a_path_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    save_image(tmp_path / "secret.JPEG")
    with pytest.raises(DatasetError, match="points outside"):
        open_test_set(IN1K, imagenet(tmp_path, [f"{name} 3"], ["a.JPEG"]))


def test_listed_images_that_are_missing_are_counted_and_named(tmp_path: Path) -> None:
    root = imagenet(tmp_path, ["a.JPEG 1", "b.JPEG 2", "c.JPEG 3"], ["a.JPEG"])
    with pytest.raises(DatasetError, match=r"lacks 2 of 3 listed images \(b\.JPEG, c\.JPEG\)"):
        open_test_set(IN1K, root)


def test_an_empty_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is empty"):
        open_test_set(IN1K, imagenet(tmp_path, b"", ["a.JPEG"]))


def test_a_list_that_is_no_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"val\.txt"):
        open_test_set(IN1K, imagenet(tmp_path, b"\xff\xfe\0\0 1\n", ["a.JPEG"]))


def test_a_listed_imagenet_set_is_resized_and_cropped(tmp_path: Path) -> None:
    root = imagenet(tmp_path, ["a.JPEG 1"], ["a.JPEG"])
    (batch,) = batches(open_test_set(IN1K, root), 1)
    assert tuple(batch.pixels.shape) == (1, 3, 224, 224)


def test_the_number_of_classes_is_that_of_the_row(tmp_path: Path) -> None:
    small = dataclasses.replace(IN1K, num_classes=10)
    with pytest.raises(DatasetError, match="below 10"):
        open_test_set(small, imagenet(tmp_path, ["a.JPEG 10"], ["a.JPEG"]))
