"""Trees of class folders: names, labels, and what is held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.class_tree import read_class_tree
from tests.conftest import make_odd


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes folders of files which only look like images: listing opens none."""

    def build(prefix: str = "", **classes: int) -> Path:
        for name, count in classes.items():
            folder = tmp_path / "data" / prefix / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index:03}.jpg").touch()
        return tmp_path / "data"

    return build


def names_of(paths: list[Path]) -> list[str]:
    return [f"{path.parent.name}/{path.name}" for path in paths]


def test_a_plain_tree_gives_sorted_classes_and_holds_out_a_tenth_of_each(make: Callable[..., Path]) -> None:
    root = make(dog=20, cat=30, newt=2)
    (root / "cat" / "notes.txt").touch()
    (root / "cat" / ".hidden.jpg").touch()
    (root / ".cache").mkdir()
    tree = read_class_tree(root)
    assert tree.class_names == ("cat", "dog", "newt")
    assert [tree.val.labels.count(label) for label in range(3)] == [3, 2, 1]
    assert [tree.train.labels.count(label) for label in range(3)] == [27, 18, 1]
    assert not set(tree.train.paths) & set(tree.val.paths)
    for images in (tree.train, tree.val):
        assert [tree.class_names[label] for label in images.labels] == [path.parent.name for path in images.paths]
        assert images.paths == sorted(images.paths)


def test_what_is_held_out_follows_from_the_names_and_new_images_move_little(make: Callable[..., Path]) -> None:
    root = make(cat=40, dog=40)
    before = read_class_tree(root, val_share=0.25)
    assert read_class_tree(root, val_share=0.25) == before
    (root / "dog" / "new.jpg").touch()
    after = read_class_tree(root, val_share=0.25)
    cats = [path for path in before.val.paths if path.parent.name == "cat"]
    assert [path for path in after.val.paths if path.parent.name == "cat"] == cats
    assert len(set(after.val.paths) ^ set(before.val.paths)) <= 2
    assert [path.name for path in cats] != [f"{index:03}.jpg" for index in range(10)]


def test_nothing_is_held_out_if_that_is_asked_for(make: Callable[..., Path]) -> None:
    tree = read_class_tree(make(cat=1, dog=1), val_share=0)
    assert (len(tree.train.paths), tree.val.paths, tree.val.labels) == (2, [], [])


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_a_tree_with_splits_is_used_as_it_is(make: Callable[..., Path], held_out: str) -> None:
    make("train", cat=3, dog=4)
    root = make(held_out, dog=2, cat=1)
    tree = read_class_tree(root)
    assert names_of(tree.val.paths) == ["cat/000.jpg", "dog/000.jpg", "dog/001.jpg"]
    assert tree.train.labels == [0] * 3 + [1] * 4
    assert (tree.val_folder, tree.val_share, tree.test.paths) == (held_out, None, [])
    if held_out != "test":
        with pytest.raises(ArgumentError, match=f"own validation images in {held_out}"):
            read_class_tree(root, val_share=0.1)


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_test_images_beside_validation_images_are_apart_from_them(
    make: Callable[..., Path], validation: str, caplog: pytest.LogCaptureFixture
) -> None:
    make("train", cat=3, dog=4)
    make(validation, cat=1, dog=1)
    root = make("test", cat=2, dog=1)
    tree = read_class_tree(root)
    assert (len(tree.train.paths), len(tree.val.paths), tree.val_folder) == (7, 2, validation)
    assert tree.test.labels == [0, 0, 1]
    assert {path.parent.parent.name for path in tree.test.paths} == {"test"}
    assert not caplog.records
    (root / "test" / "owl").mkdir()
    with pytest.raises(DatasetError, match="not classes of train: owl"):
        read_class_tree(root)


def test_with_test_images_alone_a_share_of_the_training_images_can_be_held_out(make: Callable[..., Path]) -> None:
    make("train", cat=4, dog=4)
    root = make("test", cat=1, dog=1)
    tree = read_class_tree(root, val_share=0.25)
    assert (len(tree.train.paths), len(tree.val.paths), len(tree.test.paths)) == (6, 2, 2)
    assert (tree.val_folder, tree.val_share) == (None, 0.25)


def test_val_comes_before_test_and_a_training_folder_alone_is_split(make: Callable[..., Path]) -> None:
    root = make("train", cat=10, dog=10)
    assert len(read_class_tree(root).val.paths) == 2
    make("test", cat=1, dog=1)
    make("val", cat=3, dog=3)
    assert {path.parts[-3] for path in read_class_tree(root).val.paths} == {"val"}


def test_a_folder_beside_train_that_is_not_used_is_named(
    make: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    make("train", cat=2, dog=2)
    make("valid", cat=1, dog=1)
    assert read_class_tree(make("train2", cat=1)).val.labels == [0, 1]
    assert caplog.messages == [f"{make()}: uses train and valid, and not train2."]


def test_what_is_left_out_of_a_tree_is_counted(make: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    root = make(cat=3, dog=3)
    read_class_tree(root)
    assert caplog.messages == []
    for name in ("cat/a.heic", "dog/b.heic", "loose.jpg", "README.md"):
        (root / name).touch()
    (root / "cat" / "more").mkdir()
    tree = read_class_tree(root, val_share=0)
    assert len(tree.train.paths) == 6
    (message,) = caplog.messages
    assert message.startswith(f"{root}: left out 2 .heic, 1 image beside the class folders, 1 folder. Names of images")


@pytest.mark.parametrize("place", ["", "cat"])
def test_a_link_to_itself_is_not_a_folder(make: Callable[..., Path], place: str) -> None:
    root = make(cat=2, dog=2)
    make_odd(root / place / "loop")
    assert read_class_tree(root).class_names == ("cat", "dog")


def test_chosen_classes_are_used_in_their_order_and_others_left_out(make: Callable[..., Path]) -> None:
    make("train", cat=2, dog=2, newt=0)
    tree = read_class_tree(make("val", cat=1, dog=1, newt=1), classes=["dog", "cat"])
    assert tree.class_names == ("dog", "cat")
    assert tree.val.labels == [0, 1]
    assert names_of(tree.train.paths)[0] == "dog/000.jpg"


@pytest.mark.parametrize(
    ("classes", "fact"),
    [
        (["cat", "dgo"], r"no folder for the class 'dgo'\. Did you mean dog"),
        (["cat", "dog", "cat"], "'cat' is named twice"),
    ],
)
def test_classes_that_cannot_be_chosen_are_refused(make: Callable[..., Path], classes: list[str], fact: str) -> None:
    with pytest.raises(ArgumentError, match=fact):
        read_class_tree(make(cat=2, dog=2), classes=classes)


def test_fewer_than_two_classes_are_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    root = make(cat=2)
    with pytest.raises(DatasetError, match=r"two or more classes to tell apart, got cat\."):
        read_class_tree(root)
    with pytest.raises(DatasetError, match=r"got none\."):
        read_class_tree(root, classes=[])
    with pytest.raises(DatasetError, match="has no class folders"):
        read_class_tree(root / "cat")
    with pytest.raises(DatasetError, match="is not a folder"):
        read_class_tree(tmp_path / "missing")
    with pytest.raises(DatasetError, match="is not a folder"):
        read_class_tree(root / "cat" / "000.jpg")


def test_a_class_without_images_is_named_in_any_split(make: Callable[..., Path]) -> None:
    root = make("train", cat=2, dog=2)
    make("val", cat=1)
    with pytest.raises(DatasetError, match=r"val holds no images of 1 of 2 classes \(dog\).*\.jpg"):
        read_class_tree(root)
    (root / "train" / "newt").mkdir()
    with pytest.raises(DatasetError, match=r"train holds no images of 1 of 3 classes \(newt\)"):
        read_class_tree(root)


def test_validation_folders_that_are_no_class_are_named(make: Callable[..., Path]) -> None:
    make("train", cat=2, dog=2)
    with pytest.raises(DatasetError, match=r"not classes of train: newt\."):
        read_class_tree(make("val", cat=1, dog=1, newt=1))


def test_a_class_of_one_image_has_none_to_hold_out(make: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match=r"cat holds one image.*--val-share 0"):
        read_class_tree(make(cat=1, dog=5))


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_cannot_be_is_refused(make: Callable[..., Path], share: float) -> None:
    with pytest.raises(ArgumentError, match="val_share of 0 to below 1"):
        read_class_tree(make(cat=2, dog=2), val_share=share)


def test_a_folder_whose_name_cannot_be_shown_is_refused(make: Callable[..., Path]) -> None:
    with pytest.raises(ArgumentError, match=r"class folder is unusable.*Rename the folder"):
        read_class_tree(make(cat=2, **{"\x1b[2J": 2}))
