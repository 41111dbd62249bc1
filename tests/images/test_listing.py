"""Images in tar shards, parquet files and behind patterns: found, named and read."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnet_zoo.errors import DatasetError
from resnet_zoo.images.decode import Member, decode
from resnet_zoo.images.listing import check_there, expand, find_all, from_json, name_of, to_json, with_bytes
from tests.conftest import png_bytes, write_tar

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs characters that other systems do not allow")


def images_at(*paths: str | Path, column: str = "image") -> list[Any]:
    return list(find_all(paths, column=column))


def data_of(images: list[Any]) -> list[bytes]:
    return [image.read().tobytes() for image in with_bytes(images)]


@pytest.fixture
def parquet(tmp_path: Path) -> Any:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def write(name: str, columns: dict[str, Any], **options: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name, **options)
        return tmp_path / name

    return write


def test_members_that_are_images_come_in_the_order_of_the_tar_file(tmp_path: Path) -> None:
    files = {"b/2.jpg": b"two", "b/2.cls": b"7", "a.b.PNG": b"one", "._a.b.PNG": b"mac", "2.json": b"{}", "2.jpg": b"3"}
    shard = write_tar(tmp_path / "s.tar", files)
    found = images_at(shard)
    assert [name_of(image) for image in found] == [f"{shard}/{name}" for name in ("b/2.jpg", "a.b.PNG", "2.jpg")]
    assert data_of(found) == [b"two", b"one", b"3"]


def test_a_listed_image_comes_back_from_its_line(tmp_path: Path, parquet: Any) -> None:
    shard, rows = write_tar(tmp_path / "s.tar", {"a.jpg": b"x"}), parquet("p.parquet", {"image": [b"x"]})
    for image in ("photo.jpg", os.fsdecode(b"\xff.jpg"), *images_at(shard, rows)):
        line = to_json(image)
        assert line.isascii()
        assert from_json(line) == image


def test_what_tar_files_leave_out_is_counted_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shards = [write_tar(tmp_path / f"{number}.tar", {"a.jpg": b"x", "a.cls": b"1"}) for number in range(3)]
    assert len(images_at(*shards)) == 3
    (message,) = caplog.messages
    assert message.startswith("The tar files: left out 3 .cls.")


def test_links_and_sparse_files_in_a_tar_file_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret, shard = tmp_path / "secret.jpg", tmp_path / "s.tar"
    secret.write_bytes(b"secret")
    with tarfile.open(shard, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE):
            member = tarfile.TarInfo(f"{kind.decode()}.jpg")
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
        member = tarfile.TarInfo("good.jpg")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"good"))
    assert data_of(images_at(shard)) == [b"good"]
    assert "4 links and other special members, 1 folder" in caplog.text


def damaged(shard: Path) -> Iterator[tuple[str, bytes]]:
    data = shard.read_bytes()
    second = data[512 + 512 :]
    yield "truncated or damaged after", data[: 1024 + 1024]
    yield "cannot be read as a tar archive", data[:700]
    yield "cannot be read as a tar archive", b"no tar" * 200
    yield "truncated or damaged after 1024 bytes", data[:1024] + b"x" * 512 + second
    longest = tarfile.TarInfo("././@LongLink")
    longest.type, longest.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    yield "a header of 1099511627776 bytes", longest.tobuf(tarfile.GNU_FORMAT) + data
    negative = tarfile.TarInfo("a.jpg")
    negative.size = -1024
    yield "a member of -1024 bytes", negative.tobuf(tarfile.GNU_FORMAT) + data


def test_a_damaged_tar_file_is_refused_with_its_name(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "good.tar", {"a.jpg": b"one", "b.jpg": b"two"})
    assert len(images_at(shard)) == 2
    for number, (words, data) in enumerate(damaged(shard)):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(data)
        with pytest.raises(DatasetError, match=words) as error:
            images_at(path)
        assert str(path) in str(error.value)
        assert str(error.value).endswith(("Fetch or pack it again.", "Fetch or pack it again, uncompressed."))


def test_a_member_that_is_cut_off_after_listing_or_too_large_is_one_bad_image(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"a.jpg": b"x" * 5000})
    (image,) = images_at(shard)
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(DatasetError, match=r"a\.jpg is cut off: .* was truncated"):
        image.read()
    huge = tarfile.TarInfo("huge.jpg")
    huge.size = 1 << 33
    with shard.open("wb") as file:
        file.write(huge.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + huge.size + 1024)
    (image,) = images_at(shard)
    with pytest.raises(DatasetError, match="the limit of an image is"):
        image.read()


@pytest.mark.parametrize("name", ["s.tar.gz", "s.TGZ", "s.tar.zst"])
def test_a_compressed_tar_file_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(DatasetError, match=r"is compressed.*Decompress it \(gunzip"):
        images_at(tmp_path / name)


def test_shards_without_images_say_so(tmp_path: Path, parquet: Any) -> None:
    for path in (write_tar(tmp_path / "s.tar", {"a.cls": b"1"}), parquet("p.parquet", {"image": []})):
        with pytest.raises(DatasetError, match=f"{path.name} holds no images|holds null"):
            images_at(path)


def test_a_folder_of_shards_names_the_way_to_read_them(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.jpg": b"x"})
    with pytest.raises(DatasetError, match=r"holds no images.*Name its shards to read them: .*\*\.tar"):
        images_at(tmp_path)
    assert len(images_at(tmp_path / "*.tar")) == 1


@pytest.mark.parametrize("form", ["struct", "bytes", "large", "dictionary"])
def test_rows_of_a_parquet_file_are_named_by_number_and_read_as_a_stream(form: str, parquet: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    data = [b"%d" % number for number in range(50)]
    column: Any = data
    if form == "struct":
        column = [{"bytes": item, "path": f"/etc/passwd{item.decode()}"} for item in data]
    elif form != "bytes":
        column = pa.array(data, pa.large_binary() if form == "large" else pa.binary())
    path = parquet("p.parquet", {"image": column}, row_group_size=20, use_dictionary=form == "dictionary")
    found = images_at(path)
    assert [name_of(image) for image in found] == [f"{path}#{row}" for row in range(50)]
    assert data_of(found) == data
    assert data_of(found[27:]) == data[27:]  # resumed within a row group
    assert data_of([found[45], found[3], found[4], found[45]]) == [data[45], data[3], data[4], data[45]]


def test_a_row_without_bytes_is_one_bad_image_and_its_path_is_not_followed(tmp_path: Path, parquet: Any) -> None:
    (tmp_path / "secret.png").write_bytes(png_bytes(0))
    rows = [{"bytes": png_bytes(1), "path": "a"}, {"bytes": None, "path": str(tmp_path / "secret.png")}, None]
    path = parquet("p.parquet", {"image": rows})
    first, *others = with_bytes(images_at(path))
    assert decode(first).shape == (32, 32, 3)
    for row, image in enumerate(others, start=1):
        with pytest.raises(DatasetError, match=rf"p\.parquet#{row} is empty"):
            decode(image)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("image", r"has no column 'image'; its columns are photo, label\..*--image-column"),
        ("label", "'label' holds int64; expected image files"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_with_those_there_are(column: str, words: str, parquet: Any) -> None:
    path = parquet("p.parquet", {"photo": [b"x"], "label": [1]})
    with pytest.raises(DatasetError, match=words):
        images_at(path, column=column)
    assert len(images_at(path, column="photo")) == 1


@pytest.mark.parametrize("keep", [0, 6, 200])
def test_a_truncated_parquet_file_is_refused(keep: int, parquet: Any) -> None:
    path = parquet("p.parquet", {"image": [b"x" * 1000]})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"p\.parquet cannot be read as parquet"):
        images_at(path)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("s-{000..002}.tar", ["s-000.tar", "s-001.tar", "s-002.tar"]),
        ("s-{8..10}.tar", ["s-8.tar", "s-9.tar", "s-10.tar"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("s3://bucket/s-{00..01}.tar", ["s3://bucket/s-00.tar", "s3://bucket/s-01.tar"]),
        ("a{b}.jpg", ["a{b}.jpg"]),
        ("no such [1].jpg", ["no such [1].jpg"]),
        ("https://host/a.jpg?key=1*", ["https://host/a.jpg?key=1*"]),
    ],
)
def test_patterns_are_what_shells_make_of_them(pattern: str, expected: list[str]) -> None:
    assert list(expand(pattern)) == expected


@posix_only
def test_a_path_that_exists_is_not_a_pattern(tmp_path: Path) -> None:
    for name in ("a[1].jpg", "a1.jpg", "b{1,2}.jpg", "b*.jpg", "b1.jpg"):
        (tmp_path / name).touch()
    for name, expected in (
        ("a[1].jpg", ["a[1].jpg"]),
        ("b{1,2}.jpg", ["b{1,2}.jpg"]),
        ("b*.jpg", ["b*.jpg"]),
        ("a*.jpg", ["a1.jpg", "a[1].jpg"]),
    ):
        assert [Path(found).name for found in images_at(tmp_path / name)] == expected


def test_what_is_not_a_path_is_left_as_it_is(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"a.jpg": b"x"})
    first, second, third = find_all([b"bytes", shard, 5])
    assert (first, third) == (b"bytes", 5)
    assert isinstance(second, Member)


def test_a_missing_shard_of_a_pattern_is_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "s-0.tar", {"a.jpg": b"x"})
    check_there([tmp_path / "s-{0..0}.tar", tmp_path / "*.tar"])
    for pattern, name in (("s-{0..1}.tar", "s-1.tar"), ("t*.tar", r"t\*.tar")):
        with pytest.raises(DatasetError, match=f"{name} does not exist"):
            check_there([tmp_path / pattern])


def test_a_listed_member_is_json_that_others_can_read(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "s.tar", {"a.jpg": b"xyz"})
    assert json.loads(to_json(images_at(shard)[0])) == [f"{shard}/a.jpg", str(shard), 512, 3]
