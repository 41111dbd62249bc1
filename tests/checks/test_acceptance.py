"""From a run folder to weights that ship: offline, in place, with numbers measured on the very file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from resnet_zoo import create_model
from resnet_zoo.base.files import sha256_of
from resnet_zoo.catalog.manifest import manifest_path, read_manifest, use_manifest
from resnet_zoo.catalog.records import RunOrigin
from resnet_zoo.checks.acceptance import Acceptance, accept_run
from resnet_zoo.checks.report import RUN_CHECKS, Check, Status
from resnet_zoo.checks.rows import verify
from resnet_zoo.checks.run import verify_run
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError, DownloadError
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.weights.checkpoint import load_checkpoint
from resnet_zoo.weights.convert import safetensors_bytes
from tests.conftest import UNFETCHED
from tests.private_zoo import state_dict
from tests.run_folders import NAME, ROOT, MadeRun, header


def new_checkout(folder: Path) -> Path:
    """Make the manifest of a checkout without any weights, and return its path."""
    path = folder / "checkout" / "weights_manifest.json"
    path.parent.mkdir()
    content = json.loads((ROOT / "weights_manifest.json").read_text())
    for row in content["models"]:
        row |= {"weights": {"openmmlab": row["weights"]["openmmlab"]}, "default_weights": "openmmlab"}
    content["base_urls"] = []
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The manifest in use: one that a run can be entered into."""
    path = new_checkout(tmp_path)
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(path))
    return path


@pytest.fixture(scope="module")
def accepted_once(good_run: MadeRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Acceptance]:
    path = new_checkout(tmp_path_factory.mktemp("accepted"))
    with use_manifest(path):
        return path, accept(good_run)


@pytest.fixture
def accepted(accepted_once: tuple[Path, Acceptance], monkeypatch: pytest.MonkeyPatch) -> Acceptance:
    """A run that was accepted into the manifest in use."""
    monkeypatch.setenv("RESNET_ZOO_MANIFEST", str(accepted_once[0]))
    return accepted_once[1]


def accept(made_run: MadeRun, **options: Any) -> Acceptance:
    return accept_run(made_run.folder, data=made_run.data, device="cpu", **options)


def zoo(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_an_accepted_run_is_in_the_manifest_with_what_was_measured_on_its_file(
    accepted: Acceptance, good_run: MadeRun
) -> None:
    content = read_manifest(manifest_path())
    weights = content.find(NAME).weights["retrained"]
    assert weights == accepted.weights
    assert weights.file is not None
    assert weights.measured is not None
    path = manifest_path().parent / "weights" / weights.file.path
    assert path == accepted.path
    assert path.name == f"{NAME}-retrained-{sha256_of(path)[:8]}.safetensors"
    assert (weights.file.sha256, weights.file.size_bytes) == (sha256_of(path), path.stat().st_size)
    assert weights.origin == RunOrigin("published", f"weights/{path.stem}")
    found = evaluate(NAME, good_run.data, weights=path, device="cpu")
    assert (weights.measured.top1, weights.measured.top5) == (found.top1, found.top5)
    assert (weights.measured.num_images, weights.measured.dataset) == (10, "cifar10-png-10images")
    assert content.base_urls == ("weights",)
    assert content.find(NAME).default_weights == "openmmlab"


def test_the_small_files_stand_beside_the_weights_and_are_those_of_the_run(
    accepted: Acceptance, good_run: MadeRun
) -> None:
    assert accepted.folder is not None
    assert files_in(accepted.folder) == ["README.md", "environment.json", "log.jsonl", "recipe.json", "result.json"]
    for name in files_in(accepted.folder):
        assert (accepted.folder / name).read_bytes() == (good_run.folder / name).read_bytes()


def test_the_small_files_verify_with_the_weights_beside_them(accepted: Acceptance, good_run: MadeRun) -> None:
    assert accepted.folder is not None
    report = verify_run(accepted.folder)
    assert [report.check(name).status for name in (*RUN_CHECKS, "weights")] == ["passed"] * 5


def test_a_clone_verifies_the_weights_that_ship_offline_and_in_place(
    accepted: Acceptance, good_run: MadeRun, own_cache: Path
) -> None:
    done = zoo("verify", NAME, "--weights", "retrained", "--data", good_run.data, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert list(own_cache.rglob("*")) == []


def test_a_clone_classifies_images_with_the_weights_that_ship_offline(accepted: Acceptance, good_run: MadeRun) -> None:
    predicted = zoo("predict", NAME, next(good_run.data.rglob("*.png")), "--weights", "retrained")
    assert predicted.exit_code == 0, predicted.output
    expected = load_checkpoint(good_run.weights).tensors
    state = create_model(NAME, weights="retrained").state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_verify_holds_the_weights_that_ship_against_what_was_recorded(accepted: Acceptance, good_run: MadeRun) -> None:
    (default,) = verify(NAME)
    assert default.check("weights").status == "not checked"  # the row's default ones, and no others in their place
    (report,) = verify(NAME, weights="retrained", data=good_run.data, device="cpu")
    open_checks = [check.name for check in report.checks if check.status != "passed"]
    assert open_checks == ["published_top1", "published_top5"]  # ten images say little about ten thousand
    top1 = report.check("top1")
    assert top1.recorded == top1.measured
    assert top1.published == "94.82"
    assert "of which 9,990 are missing here" in top1.detail
    (other,) = verify(UNFETCHED)
    assert other.check("weights").status == "not checked"


def test_verify_fails_where_the_recorded_accuracy_is_another(accepted: Acceptance, good_run: MadeRun) -> None:
    content = json.loads(manifest_path().read_text())
    content["models"][0]["weights"]["retrained"]["measured"]["top1"] += 10
    other = manifest_path().with_name("other.json")
    other.write_text(json.dumps(content))
    options = ("--weights", "retrained", "--data", good_run.data, "--device", "cpu")
    done = zoo("--manifest", other, "verify", NAME, *options)
    assert done.exit_code == 1
    assert f"FAILED {NAME} top1: published 94.82, recorded " in done.stdout


def test_accepting_twice_changes_nothing_more(accepted: Acceptance, good_run: MadeRun) -> None:
    before = files_in(manifest_path().parent), manifest_path().read_text()
    assert accept(good_run, replace=True).replaced is None
    assert (files_in(manifest_path().parent), manifest_path().read_text()) == before


def test_weights_that_are_there_stay_unless_they_may_be_replaced(accepted: Acceptance, good_run: MadeRun) -> None:
    before = files_in(manifest_path().parent), manifest_path().read_text()
    measured = r"\(\d+\.\d\d% top-1 on 10 of cifar10-png-10images\)"
    with pytest.raises(ArgumentError, match=f"already has weights 'retrained' {measured}. Pass another --tag, or --re"):
        accept(good_run)
    assert (files_in(manifest_path().parent), manifest_path().read_text()) == before


@pytest.mark.parametrize(
    ("was", "words"),
    [
        ({"top1": 99.0}, "a lower top-1"),
        ({"num_images": 10_000}, "fewer images"),
        ({"dataset": "cifar10"}, "other images"),
        ({"dataset": "cifar10", "num_images": 10_000, "top1": 99.0}, "fewer images and other images and a lower top-1"),
    ],
    ids=["worse", "fewer", "others", "all"],
)
def test_good_weights_are_replaced_by_worse_ones_only_if_that_is_said(
    accepted: Acceptance, good_run: MadeRun, was: dict[str, Any], words: str, tmp_path: Path
) -> None:
    content = json.loads(manifest_path().read_text())
    content["models"][0]["weights"]["retrained"]["measured"] |= was
    checkout = tmp_path / "other"
    shutil.copytree(manifest_path().parent, checkout)
    path = checkout / "weights_manifest.json"
    path.write_text(json.dumps(content))
    with use_manifest(path):
        before = files_in(checkout)
        with pytest.raises(ArgumentError, match=f"have {words}. Pass another --tag, or --allow-worse"):
            accept(good_run, replace=True)
        assert (files_in(checkout), json.loads(path.read_text())) == (before, content)
        done = accept(good_run, replace=True, allow_worse=True)
        assert done.weights is not None
        assert read_manifest(path).find(NAME).weights["retrained"].measured == done.weights.measured


def test_an_accepted_run_becomes_the_default_if_that_is_asked_for(good_run: MadeRun, manifest: Path) -> None:
    accept(good_run, default=True)
    assert read_manifest(manifest).find(NAME).default_weights == "retrained"


def test_a_damaged_file_that_ships_is_refused(good_run: MadeRun, manifest: Path) -> None:
    path = accept(good_run).path
    assert path is not None
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert verify(NAME, weights="retrained")[0].check("weights").status == "failed"
    with pytest.raises(DownloadError, match="wrong bytes"):
        create_model(NAME, weights="retrained")


def test_bfloat16_halves_the_file_and_what_is_measured_is_that_file(made_run: MadeRun, manifest: Path) -> None:
    made_run.rewrite_weights(safetensors_bytes(state_dict(), header()))
    said = json.loads((made_run.folder / "result.json").read_text())
    found = evaluate(NAME, made_run.data, weights=made_run.weights, device="cpu")
    made_run.change(
        "result.json",
        weights=said["weights"] | {"dtype": "float32"},
        correct1=found.correct1,
        correct5=found.correct5,
        top1=round(found.top1, 2),
        top5=round(found.top5, 2),
    )
    before, after = (f'"top1": {top1}' for top1 in (said["top1"], found.top1))
    made_run.change_log(lambda lines: [line.replace(before, after) for line in lines])
    done = accept(made_run, dtype="bfloat16")
    assert done.missed == ()
    assert done.path is not None
    assert done.weights is not None
    assert done.weights.measured is not None
    assert done.path.stat().st_size < 0.51 * made_run.weights.stat().st_size
    checkpoint = load_checkpoint(done.path)
    assert checkpoint.dtypes == {"bfloat16", "int64"}
    assert checkpoint.header["source_sha256"] == sha256_of(made_run.weights)
    assert checkpoint.header["run"] == made_run.folder.name
    measured = done.weights.measured
    again = evaluate(NAME, made_run.data, weights=done.path, device="cpu")
    assert (measured.top1, measured.top5) == (again.top1, again.top5)


def test_another_run_under_the_same_tag_names_the_file_that_is_left(
    made_run: MadeRun, good_run: MadeRun, manifest: Path
) -> None:
    first = accept(good_run)
    assert first.path is not None
    made_run.rewrite_weights(safetensors_bytes(load_checkpoint(good_run.weights).tensors, header()))
    said = json.loads((made_run.folder / "result.json").read_text())
    made_run.change("result.json", weights=said["weights"] | {"dtype": "float32"})
    assert accept(made_run, replace=True, allow_worse=True).replaced == first.path.name
    assert json.loads(manifest.read_text())["base_urls"] == ["weights"]


def test_a_run_that_does_not_verify_changes_nothing(made_run: MadeRun, manifest: Path) -> None:
    made_run.change("result.json", seed=1)
    before = manifest.read_bytes()
    done = accept(made_run)
    assert (done.missed, done.weights) == (("result",), None)
    assert manifest.read_bytes() == before
    assert files_in(manifest.parent) == [manifest.name]


@pytest.mark.parametrize("allow_worse", [False, True])
@pytest.mark.parametrize(
    ("name", "status", "stays"),
    [
        ("published_top1", "failed", False),
        ("published_top5", "failed", False),
        ("top1", "failed", True),
        ("log", "failed", True),
        ("top5", "not checked", True),
    ],
)
def test_a_missed_published_number_is_accepted_if_that_is_said_and_nothing_else_is(
    good_run: MadeRun,
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    status: Status,
    stays: bool,
    allow_worse: bool,
) -> None:
    report = verify_run(good_run.folder, data=good_run.data, device="cpu")
    checks = (*(check for check in report.checks if check.name != name), Check(name, status, "95.19", "94.32"))
    monkeypatch.setattr("resnet_zoo.checks.acceptance.verify_run", lambda *_, **__: replace(report, checks=checks))
    options = ["--allow-worse"] if allow_worse else []
    result = zoo("accept", good_run.folder, "--data", good_run.data, *options)
    is_accepted = allow_worse and not stays
    assert result.exit_code == (0 if is_accepted else 1 if status == "failed" else 3), result.output
    assert ("retrained" in manifest.read_text()) == is_accepted
    assert ("--allow-worse accepts it nevertheless" in result.output) == (not stays and not allow_worse)


def test_a_run_whose_weights_are_missing_is_not_accepted(made_run: MadeRun, manifest: Path) -> None:
    made_run.weights.unlink()
    assert accept(made_run).missed == ("weights", "top1", "top5")


def test_what_cannot_be_entered_is_refused_before_anything_is_written(
    good_run: MadeRun, manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="a tag of lower-case letters"):
        accept(good_run, tag="Re Trained")
    with pytest.raises(ArgumentError, match="published weights 'openmmlab'"):
        accept(good_run, tag="openmmlab")
    with pytest.raises(ArgumentError, match="is not inside"):
        accept(good_run, weights_dir=tmp_path / "elsewhere")
    assert files_in(manifest.parent) == [manifest.name]


def test_a_manifest_changed_meanwhile_is_kept_and_no_file_is_left(good_run: MadeRun, manifest: Path) -> None:
    changed = manifest.read_text() + "\n"
    with pytest.raises(ArgumentError, match="changed while this ran"):
        accept(good_run, progress=lambda *_: manifest.write_text(changed))
    assert manifest.read_text() == changed
    assert files_in(manifest.parent) == [manifest.name]


def test_the_command_says_what_it_did(good_run: MadeRun, manifest: Path) -> None:
    shipped = manifest.parent / "shipped"
    done = zoo("accept", good_run.folder, "--data", good_run.data, "--device", "cpu", "--weights-dir", shipped)
    assert done.exit_code == 0, done.output
    assert f"{NAME}, weights 'retrained'" in done.stdout
    assert json.loads(manifest.read_text())["base_urls"] == ["shipped"]


def test_the_command_ends_with_the_documented_codes(made_run: MadeRun, manifest: Path, tmp_path: Path) -> None:
    missing = zoo("accept", tmp_path / "missing", "--data", made_run.data)
    assert (missing.exit_code, "The manifest is unchanged." in missing.stderr) == (3, True)
    assert zoo("accept", made_run.folder).exit_code == 2
    made_run.weights.unlink()
    assert zoo("accept", made_run.folder, "--data", made_run.data).exit_code == 3
    made_run.change("result.json", seed=1)
    refused = zoo("accept", made_run.folder, "--data", made_run.data)
    assert refused.exit_code == 1
    assert "Not accepted (result, weights, top1, top5)" in refused.stderr
