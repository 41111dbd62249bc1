from __future__ import annotations

import os
from pathlib import Path

import pytest

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.folders import find_images

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs links and bytes in paths")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a/2.PNG", "a/10.jpeg", "a.jpg", "c/d/e.webp", "notes.txt", ".hidden.jpg", ".git/x.jpg"):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "tree" / "empty").mkdir()
    return tmp_path / "tree"


def relative(found: list[str], root: Path) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for path in found]


def test_images_come_sorted_folder_by_folder(tree: Path) -> None:
    expected = ["a/10.jpeg", "a/2.PNG", "a.jpg", "b.jpg", "c/d/e.webp"]
    assert relative(list(find_images([tree])), tree) == expected
    assert relative(list(find_images([str(tree)])), tree) == expected


def test_files_and_folders_keep_the_order_given(tree: Path) -> None:
    given = [tree / "b.jpg", tree / "a", tree / "notes.txt", tree / "missing.jpg", tree / "b.jpg"]
    found = relative(list(find_images(given)), tree)
    assert found == ["b.jpg", "a/10.jpeg", "a/2.PNG", "notes.txt", "missing.jpg", "b.jpg"]


def test_a_folder_without_images_is_an_error_after_those_before_it(tree: Path) -> None:
    found = find_images([tree / "b.jpg", tree / "empty"])
    assert next(found) == str(tree / "b.jpg")
    with pytest.raises(
        DatasetError, match=r"empty is a directory that holds no images; expected files ending in .*\.jpg"
    ):
        next(found)


@posix_only
def test_links_are_followed_but_never_in_a_circle(tree: Path) -> None:
    (tree / "c" / "up").symlink_to(tree)
    (tree / "z").symlink_to(tree / "a")
    found = relative(list(find_images([tree])), tree)
    assert found == ["a/10.jpeg", "a/2.PNG", "a.jpg", "b.jpg", "c/d/e.webp", "z/10.jpeg", "z/2.PNG"]


@posix_only
def test_a_path_that_is_no_unicode_is_found(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"\xff.png")  # noqa: PTH118
    Path(os.fsdecode(path)).touch()
    assert [os.fsencode(found) for found in find_images([tmp_path])] == [path]
