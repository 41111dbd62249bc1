"""Sample predictions: which images are taken, which network looks at them, and what gets into the site."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from resnet_zoo.catalog.manifest import current_manifest
from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.site.build import build_site
from resnet_zoo.site.samples import MAX_SAMPLES, classify_samples
from tests.conftest import SHIPPING, UNFETCHED, smooth_image
from tests.run_folders import NAME


def write_image(path: Path, *, height: int = 48, width: int = 64) -> Path:
    """Write an image file with a secret in its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x010E] = "the photographer's secret"
    Image.fromarray(smooth_image(height, width)).save(path, exif=exif)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More images than are shown, in class folders, and one of no class."""
    root = tmp_path_factory.mktemp("samples")
    for index in range(2 * MAX_SAMPLES):
        write_image(root / "cifar10" / "cat" / f"{index:02}.png")
    write_image(root / "cifar10" / "ship" / "large.jpg", height=600, width=900)
    write_image(root / "cifar10" / "a folder <b>" / "x.png")
    return root


def test_the_shipped_weights_classify_images_from_all_over_the_folder(samples: Path) -> None:
    found = classify_samples(current_manifest(), samples)
    assert list(found.of_row) == [name for name in SHIPPING if name.endswith("_cifar10")]
    shown = found.of_row[NAME]
    assert len(shown) == MAX_SAMPLES
    assert [sample.truth for sample in shown] == ["", *["cat"] * (MAX_SAMPLES - 2), "ship"]
    assert found.left_out == ()
    for sample in shown:
        shares = [share for _, share in sample.guesses]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)
        assert sample.is_right is (None if not sample.truth else sample.guesses[0][0] == sample.truth)


def test_copies_are_small_and_keep_nothing_but_pixels(samples: Path, tmp_path: Path) -> None:
    found = classify_samples(current_manifest(), samples)
    large = next(sample for sample in found.of_row[NAME] if sample.truth == "ship")
    assert (large.width, large.height) == (224, 149)
    assert set(found.files) == {sample.address for sample in found.of_row[NAME]}
    assert all(content.startswith(b"\x89PNG") and b"secret" not in content for content in found.files.values())
    assert b"secret" in (samples / "cifar10" / "cat" / "00.png").read_bytes()


@pytest.mark.slow
def test_the_page_shows_them_and_a_folder_s_name_stays_out(samples: Path, tmp_path: Path) -> None:
    made = build_site(tmp_path / "out", samples=samples)
    page = (made.folder / "models" / f"{NAME}.html").read_text()
    assert page.count("<img ") == MAX_SAMPLES
    assert all(f'alt="{text}"' in page for text in ("cat", "ship", "An image of no known class"))
    assert "a folder <b>" not in page
    assert "a folder &lt;b&gt;" not in page
    assert "<img " not in (made.folder / "models" / f"{UNFETCHED}.html").read_text()
    assert len(list((made.folder / "samples").iterdir())) == MAX_SAMPLES


def test_a_data_set_whose_weights_are_not_here_is_left_out_and_named(tmp_path: Path) -> None:
    write_image(tmp_path / "in1k" / "x.png")
    found = classify_samples(current_manifest(), tmp_path)
    assert (dict(found.of_row), dict(found.files)) == ({}, {})
    (reason,) = found.left_out
    assert reason.endswith("no default weights of a row for in1k are on this machine")


@pytest.mark.parametrize("folder", ["", "mnist"])
def test_a_folder_without_a_data_set_is_refused(tmp_path: Path, folder: str) -> None:
    write_image(tmp_path / folder / "x.png")
    with pytest.raises(
        ArgumentError, match=r"has no images\. Expected a folder for each data set, cifar10, cifar100, in1k"
    ):
        build_site(tmp_path / "out", samples=tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is not a folder; pass the folder that holds the samples"):
        build_site(tmp_path / "out", samples=tmp_path / "nowhere")


def test_what_is_no_image_stops_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "s" / "cifar10").mkdir(parents=True)
    (tmp_path / "s" / "cifar10" / "x.png").write_bytes(b"<script>")
    with pytest.raises(DatasetError, match=r"x\.png"):
        build_site(tmp_path / "out", samples=tmp_path / "s")
    assert not (tmp_path / "out").exists()
