"""The site as files: the same each time, small, and nothing of others is lost; and the command that writes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import resnet_zoo.site.pages
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError, RunError
from resnet_zoo.site import build_site
from resnet_zoo.site.folder import MARKER_NAME, write_site
from tests.run_folders import NAME
from tests.site_tools import a_report, contents, pages_of, write_report, write_run

MAX_INDEX_BYTES = 300_000
"""The index page and all that it loads, the plot library left out."""


def run(*arguments: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["site", *map(str, arguments)], prog_name="resnet-zoo")


# --- size, speed, sameness ----------------------------------------------------------------------------------------


def test_the_index_and_what_it_loads_are_small(full_site: Path) -> None:
    links = [link for link in pages_of(full_site)["index.html"].links if link.startswith("static/")]
    library = [link for link in links if "/vendor/" in link]
    assert len(library) == 2
    size = sum((full_site / link).stat().st_size for link in {"index.html", *links} - set(library))
    assert size < MAX_INDEX_BYTES


@pytest.mark.slow
def test_the_same_inputs_give_the_same_bytes(plain_site: Path, tmp_path: Path) -> None:
    build_site(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(plain_site)


def test_the_library_keeps_its_licence(plain_site: Path) -> None:
    vendor = plain_site / "static" / "vendor"
    assert "MIT License" in (vendor / "uPlot.LICENSE.txt").read_text()


# --- the folder ---------------------------------------------------------------------------------------------------


def test_a_former_site_is_replaced_as_a_whole(tmp_path: Path) -> None:
    write_site(tmp_path / "out", {"index.html": b"old", "models/gone.html": b"old"})
    write_site(tmp_path / "out", {"index.html": b"new"})
    assert contents(tmp_path / "out") == {"index.html": b"new", MARKER_NAME: b"index.html\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_site(tmp_path / "out", {"index.html": b"new"})
    assert (tmp_path / "out" / "index.html").read_bytes() == b"new"


def test_the_folder_one_stands_in_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out" / "models").mkdir(parents=True)
    for place in ("out", "out/models"):
        monkeypatch.chdir(tmp_path / place)
        inode = (tmp_path / "out").stat().st_ino
        write_site(tmp_path / "out", {"index.html": place.encode(), "models/a.html": b"a"})
        assert (tmp_path / "out").stat().st_ino == inode
        assert contents(tmp_path / "out")["index.html"] == place.encode()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("with_site", [False, True])
def test_a_folder_with_files_of_others_is_refused_and_left_as_it_was(tmp_path: Path, with_site: bool) -> None:
    if with_site:
        write_site(tmp_path / "out", {"index.html": b"old"})
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    before = contents(tmp_path / "out")
    with pytest.raises(
        ArgumentError, match=r"holds 1 files that do not belong to a site, thesis\.tex among them.*--force"
    ):
        build_site(tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_force_writes_beside_them_and_removes_only_what_the_former_site_had(tmp_path: Path) -> None:
    write_site(tmp_path / "out", {"index.html": b"old", "gone.html": b"old"})
    (tmp_path / "out" / "CNAME").write_text("zoo.example.org")
    write_site(tmp_path / "out", {"index.html": b"new", "models/a.html": b"new"}, force=True)
    assert contents(tmp_path / "out") == {
        "index.html": b"new",
        "models/a.html": b"new",
        "CNAME": b"zoo.example.org",
        MARKER_NAME: b"index.html\nmodels/a.html\n",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_write_leaves_the_former_site_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(tmp_path / "out", {"index.html": b"old"})

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_site(tmp_path / "out", {"index.html": b"new"})
    assert contents(tmp_path / "out") == {"index.html": b"old", MARKER_NAME: b"index.html\n"}


# --- the command --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_says_where_to_look_and_what_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "begun", epochs=0, finished=False)
    report = write_report(tmp_path / "verify.json", a_report())
    report.write_text(report.read_text().replace(f'"name": "{NAME}"', '"name": "another"'))
    done = run(tmp_path / "out", "--runs", tmp_path / "runs", "--report", report)
    assert (done.exit_code, done.stdout.split(",")[0]) == (0, "18 pages")
    assert done.stdout.rstrip().endswith("index.html")
    assert f"Left out: {tmp_path / 'runs' / 'begun'}: no epoch is finished yet" in done.stderr
    assert f"Left out: {report}: another is not a row of the manifest" in done.stderr


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    done = run(tmp_path / "out", "--force")
    assert (done.exit_code, "is a file. Pass a folder" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "out")
    assert done.exit_code == 3
    assert "Check the path and its permissions" in done.stderr


def test_a_damaged_run_stops_before_anything_is_written(tmp_path: Path) -> None:
    (write_run(tmp_path / "runs" / "a") / "result.json").write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        build_site(tmp_path / "out", runs=tmp_path / "runs")
    assert not (tmp_path / "out").exists()


def test_without_jinja_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet_zoo.site.pages, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"pip install 'resnet-zoo\[site\]'"):
        build_site(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("docs", "index", "model"),
    [
        ("../", "../", "../../"),
        ("https://example.org/a?b=1&c", "https://example.org/a?b=1&c", "https://example.org/a?b=1&c"),
    ],
)
def test_documentation_is_linked_to_from_every_page(docs: str, index: str, model: str, tmp_path: Path) -> None:
    assert run(tmp_path / "out", "--docs", docs).exit_code == 0
    pages = pages_of(tmp_path / "out")
    assert all("Documentation" in page.text for page in pages.values())
    assert index in pages["index.html"].links
    assert model in pages[f"models/{NAME}.html"].links


@pytest.mark.parametrize(
    "docs", ["javascript:alert(1)", "http://a.org", "//a.org", "/docs", "https:", "data:,x", "a\nb"]
)
def test_what_is_no_address_of_documentation_is_refused(docs: str, tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--docs", docs, "--runs", tmp_path / "nowhere")  # refused before anything is read
    assert (done.exit_code, "cannot be linked to. Pass an https address" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
