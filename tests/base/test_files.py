"""Files: sha256, and writing that leaves all or nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from resnet_zoo.base.files import check_target, open_regular, read_regular, sha256_of, write_atomically, writing_to
from resnet_zoo.errors import ArgumentError
from tests.conftest import make_odd, needs_permissions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (1 << 21) + 7])
def test_the_sha256_is_that_of_all_bytes(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "data"
    path.write_bytes(data)
    assert sha256_of(path) == hashlib.sha256(data).hexdigest()


def test_the_sha256_of_abc_is_the_published_test_vector(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("name", ["missing", "."])
def test_what_cannot_be_read_is_an_os_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        sha256_of(tmp_path / name)


@pytest.mark.parametrize("name", ["pipe", "loop", "/dev/zero"])
@pytest.mark.parametrize("read", [open_regular, read_regular, sha256_of])
def test_what_is_not_a_regular_file_is_refused_at_once(
    tmp_path: Path, name: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / name  # "/dev/zero" stays as it is
    if name != "/dev/zero":
        make_odd(path)
    with pytest.raises(OSError, match="symbolic links" if name == "loop" else "Not a regular file") as caught:
        read(path)
    assert caught.value.filename == str(path)


def test_a_link_to_a_regular_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "link").symlink_to("data")
    assert read_regular(tmp_path / "link") == b"data"


def test_a_path_that_no_file_may_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.a").mkdir()
    (tmp_path / "old.a").write_bytes(b"old")
    for name, fact in (("new.c", r"ends in \.a or \.b"), ("folder.a", "is a folder"), ("old.a", "exists already")):
        with pytest.raises(ArgumentError, match=fact):
            check_target(tmp_path / name, (".a", ".b"), overwrite=False)
    for name in ("old.a", "new.b"):
        check_target(tmp_path / name, (".a", ".b"), overwrite=True)
    check_target(tmp_path / "new.c", overwrite=False)
    with pytest.raises(FileNotFoundError, match="missing"):
        check_target(tmp_path / "missing" / "new.a", overwrite=True)


def test_a_path_without_a_folder_is_one_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_target(Path("new.a"), overwrite=False)


@needs_permissions
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="closed"):
        check_target(tmp_path / "closed" / "new.a", overwrite=False)


def test_a_file_is_written(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new", lambda path: path.write_bytes(b"new"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"new": b"new"}


def test_a_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    write_atomically(target, lambda path: path.write_bytes(b"new"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"target": b"new"}


def test_the_target_is_whole_and_old_while_the_new_one_is_written(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    seen: list[bytes] = []

    def write(path: Path) -> None:
        path.write_bytes(b"half of the new o")
        seen.append(target.read_bytes())
        assert path.parent == target.parent

    write_atomically(target, write)
    assert seen == [b"old"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("writer"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_nothing_and_keeps_the_old_target(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")

    def write(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(target, write)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"target": b"old"}


def test_a_writer_that_writes_nothing_is_an_os_error_and_keeps_the_old_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        write_atomically(target, lambda path: None)
    assert target.read_bytes() == b"old"


def test_a_folder_in_the_targets_place_is_an_os_error_and_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(OSError, match="target"):
        write_atomically(target, lambda path: path.write_bytes(b"new"))
    assert list(tmp_path.iterdir()) == [target]


def test_a_missing_folder_is_an_os_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "target", lambda path: path.write_bytes(b"new"))
    assert list(tmp_path.iterdir()) == []


def test_a_target_below_a_file_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"file")
    with pytest.raises(NotADirectoryError):
        write_atomically(tmp_path / "file" / "target", lambda path: path.write_bytes(b"new"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"file"}


WRITE_AS_NOBODY = """
import os, sys
from pathlib import Path
from resnet_zoo.base.files import write_atomically
if os.geteuid() == 0:
    os.setuid(65534)  # the superuser may write everywhere
try:
    write_atomically(Path(sys.argv[1]), lambda path: path.write_bytes(b"new"))
except PermissionError as error:
    print(error.filename)
"""


def test_a_read_only_folder_is_an_os_error_and_stays_empty(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # below tmp_path another user could not even look
        folder = Path(name)
        folder.chmod(0o555)
        command = [sys.executable, "-c", WRITE_AS_NOBODY, str(folder / "target")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(folder / "target")
        assert list(folder.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="/proc is Linux")
def test_a_folder_in_which_nobody_may_write_is_an_os_error() -> None:
    with pytest.raises(OSError, match="/proc/"):
        write_atomically(Path("/proc/target"), lambda path: path.write_bytes(b"new"))


def test_a_long_file_name_is_an_os_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        write_atomically(tmp_path / ("x" * 255), lambda path: path.write_bytes(b"new"))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_writing_names_the_path_and_others_stay(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match=r"No space left on device: '.*v\.npy'") as caught, writing_to(tmp_path / "v.npy"):
        raise full
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "v.npy"))
    for other in (OSError(errno.ENOSPC, "No space left on device", "w.npy"), OSError("odd"), ValueError("odd")):
        with pytest.raises(type(other)) as same, writing_to(tmp_path / "v.npy"):
            raise other
        assert same.value is other
