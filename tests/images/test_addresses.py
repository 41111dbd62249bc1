"""Images at addresses: in fsspec's memory, and behind a real web server that answers to ranges."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from resnet_zoo.errors import ArgumentError, DatasetError
from resnet_zoo.images.addresses import exists, is_address, read_bytes
from resnet_zoo.images.decode import decode, title_of
from resnet_zoo.images.listing import check_there, find_all, name_of, with_bytes
from tests.conftest import png_bytes, write_tar


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A folder of images, a tar file and another file in memory."""
    root = f"memory://{uuid.uuid4().hex}"
    shard = write_tar(tmp_path / "s.tar", {f"{seed}.png": png_bytes(seed) for seed in range(3)})
    files = {"b.png": png_bytes(0), "a/2.png": png_bytes(1), "a.png": png_bytes(2), "notes.txt": b"x"}
    for name, data in {**files, "shards/s-0.tar": shard.read_bytes(), "shards/s-1.tar": shard.read_bytes()}.items():
        with fsspec.open(f"{root}/{name}", "wb") as file:
            file.write(data)
    return root


def read_all(*paths: str) -> dict[str, Any]:
    return {name_of(image): decode(image) for image in with_bytes(find_all(paths))}


@pytest.mark.parametrize("path", ["s3://b/a.jpg", "https://h/a.jpg", "simplecache::s3://b/a", "memory://x", "hf://d/x"])
def test_addresses_are_told_from_paths(path: str) -> None:
    assert is_address(path)
    assert title_of(path) == path


@pytest.mark.parametrize("path", ["a.jpg", "/a/b", "C:/a", "./s3://b", "s3:/b", "a b://c", "", "://x"])
def test_paths_are_told_from_addresses(path: str) -> None:
    assert not is_address(path)


def test_a_folder_comes_in_the_order_of_a_local_one(place: str, caplog: pytest.LogCaptureFixture) -> None:
    found = read_all(place)
    assert list(found) == [f"{place}/{name}" for name in ("a/2.png", "a.png", "b.png")]
    assert (found[f"{place}/a.png"] == decode(png_bytes(2))).all()
    assert "left out 2 .tar, 1 .txt" in caplog.text


@pytest.mark.parametrize("pattern", ["shards/*.tar", "shards/s-{0..1}.tar"])
def test_shards_are_read_by_ranges(pattern: str, place: str) -> None:
    check_there([f"{place}/{pattern}"])
    found = read_all(f"{place}/{pattern}")
    assert list(found) == [f"{place}/shards/s-{shard}.tar/{seed}.png" for shard in range(2) for seed in range(3)]
    for name, pixels in found.items():
        assert (pixels == decode(png_bytes(int(name[-5])))).all()


def test_parquet_files_are_read_too(place: str) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with fsspec.open(f"{place}/p.parquet", "wb") as file:
        pq.write_table(pa.table({"image": [png_bytes(0), png_bytes(1)]}), file)
    assert list(read_all(f"{place}/p.parquet")) == [f"{place}/p.parquet#0", f"{place}/p.parquet#1"]
    with fsspec.open(f"{place}/q.parquet", "wb") as file:
        file.write(b"PAR1")
    with pytest.raises(DatasetError, match=r"q\.parquet cannot be read as parquet"):
        read_all(f"{place}/q.parquet")


def test_what_is_missing_or_damaged_is_one_sentence(place: str) -> None:
    for path in (f"{place}/no.png", f"{place}/no.tar"):
        assert not exists(path)
        with pytest.raises(DatasetError, match=re.escape(f"{path} does not exist")):
            check_there([path])
        with pytest.raises(DatasetError, match=re.escape(f"{path} does not exist. Check the address.")):
            read_all(path)
    with fsspec.open(f"{place}/cut.tar", "wb") as file:
        file.write(b"x" * 700)
    with pytest.raises(DatasetError, match=r"cut\.tar cannot be read as a tar archive"):
        read_all(f"{place}/cut.tar")
    with pytest.raises(DatasetError, match=r"\*\.gz holds no images"):
        read_all(f"{place}/*.gz")


def test_more_than_the_limit_is_not_read(place: str) -> None:
    for options in ({"limit": 5}, {"limit": 5, "offset": 0, "size": 6}):
        with pytest.raises(DatasetError, match="more than 5 bytes"):
            read_bytes(f"{place}/a.png", **options)
    assert len(read_bytes(f"{place}/a.png", limit=len(png_bytes(2)))) == len(png_bytes(2))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3://bucket/a.tar", "s3://bucket/a.tar has no driver here: pip install s3fs."),
        ("simplecache::gs://bucket/a.tar", "pip install gcsfs"),
        ("sftp://host/a.jpg", r"pip install 'fsspec\[sftp\]'"),
        ("nosuch://host/a.jpg", "fsspec does not know nosuch://"),
    ],
)
def test_an_address_without_its_driver_names_what_to_install(address: str, words: str) -> None:
    for action in (lambda: check_there([address]), lambda: read_all(address)):
        with pytest.raises(ArgumentError, match=words):
            action()


class _Files(BaseHTTPRequestHandler):
    files: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        data = self.files.get(self.path)
        if data is None:
            self.send_error(404)
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        self.asked.append(self.headers.get("Range", self.command))
        part = data[int(wanted[1]) : int(wanted[2]) + 1] if wanted else data
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        if wanted:
            self.send_header("Content-Range", f"bytes {wanted[1]}-{int(wanted[1]) + len(part) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    shard = write_tar(tmp_path / "s.tar", {f"{seed}.png": png_bytes(seed, 64) for seed in range(3)})
    _Files.files, _Files.asked = {"/s.tar": shard.read_bytes(), "/a.png": png_bytes(0)}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_shards_and_images_come_from_a_web_server(web: str) -> None:
    check_there([f"{web}/s.tar", f"{web}/a.png"])
    found = read_all(f"{web}/s.tar", f"{web}/a.png")
    assert list(found) == [f"{web}/s.tar/{seed}.png" for seed in range(3)] + [f"{web}/a.png"]
    assert (found[f"{web}/s.tar/2.png"] == decode(png_bytes(2, 64))).all()
    assert any(asked.startswith("bytes=") for asked in _Files.asked)
    with pytest.raises(DatasetError, match=r"no\.png does not exist"):
        read_all(f"{web}/no.png")
