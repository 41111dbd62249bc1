from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import decode
from resnet_zoo.images.folders import IMAGE_SUFFIXES, find_images
from tests.conftest import make_odd

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


@pytest.mark.parametrize("suffix", sorted({*IMAGE_SUFFIXES, ".JFIF", ".Gif"}))
def test_every_suffix_of_a_format_that_is_read_counts(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").touch()
    assert relative(list(find_images([tmp_path])), tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", ["jpe", "jfif", "gif", "pgm", "pbm"])
def test_what_pillow_writes_under_a_suffix_is_found_and_read(suffix: str, tmp_path: Path) -> None:
    Image.new("1" if suffix == "pbm" else "L", (8, 8), 255).save(tmp_path / f"a.{suffix}")
    (path,) = find_images([tmp_path])
    assert decode(path).min() > 250


def test_what_is_left_out_is_counted_in_one_line(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a/b.heic", "c/d.heic", "no suffix", "x.\x1b[2J", "e.csv"):
        (tree / name).touch()
    assert len(list(find_images([tree]))) == 5
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tree}: left out 2 .heic, 2 of other names, 1 .")
    assert all(kind in record.getMessage() for kind in ("1 .csv", "1 .txt"))
    assert record.getMessage().isprintable()


def test_nothing_is_said_where_nothing_is_left_out(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(find_images([tree / "a", tree / "b.jpg", tree / "notes.txt"]))) == 4
    assert caplog.records == []


@pytest.mark.parametrize("name", ["pipe.png", "loop.png"])
def test_a_pipe_or_a_link_to_itself_is_one_bad_image_among_others(name: str, tree: Path) -> None:
    path = make_odd(tree / "a" / name)
    found = list(find_images([tree]))
    assert len(found) == 6
    assert str(path) in found
    with pytest.raises(DatasetError, match=name):
        decode(path)


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
