"""Run folders re-checked: a true one passes, and whatever is changed in it is found by the check that must find it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import resnet_zoo.checks.run
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.checks.report import REPRODUCTION_TOLERANCE_PCT, RUN_CHECKS, Report
from resnet_zoo.checks.run import verify_run
from resnet_zoo.cli.main import main
from resnet_zoo.errors import ArgumentError, DatasetError, RunError, UnknownModelError
from resnet_zoo.inference.evaluation import evaluate
from resnet_zoo.runs.folder import format_line, read_run
from resnet_zoo.runs.records import LogChange
from resnet_zoo.weights.convert import safetensors_bytes
from tests.checks.test_accuracy import evaluated
from tests.private_zoo import state_dict
from tests.run_folders import NAME, MadeRun, header

COUNTS = ["manifest", "architecture", "params", "flops", "flops_with_head", "macs"]
ACCURACY = ["top1", "top5", "published_top1", "published_top5"]


def statuses(report: Report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


def failed(report: Report) -> list[str]:
    return [name for name, status in statuses(report).items() if status == "failed"]


# --- a true run ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def true_report(good_run: MadeRun) -> Report:
    return verify_run(good_run.folder, data=good_run.data, device="cpu")


def test_a_true_run_passes_every_check_that_can_be_made(good_run: MadeRun, true_report: Report) -> None:
    report = true_report
    passed = [*RUN_CHECKS, *COUNTS, "weights", "top1", "top5"]
    assert statuses(report) == {**dict.fromkeys(passed, "passed"), **dict.fromkeys(ACCURACY[2:], "not checked")}
    assert report.chain is not None
    assert report.chain["file_sha256"] == read_run(good_run.folder).result.weights.sha256


def test_published_and_recorded_stand_beside_what_is_measured_now(good_run: MadeRun, true_report: Report) -> None:
    check = true_report.check("top1")
    assert check.published == "94.82"
    assert check.recorded == check.measured == f"{read_run(good_run.folder).result.top1:.2f}"
    assert "tolerance 0 images (same device and torch)" in check.detail
    assert "of which 9,990 are missing here" in check.detail


def test_without_images_the_accuracy_is_not_checked(good_run: MadeRun) -> None:
    report = verify_run(good_run.folder)
    assert [report.check(name).status for name in ACCURACY] == ["not checked"] * 4
    assert report.check("top1").detail == "no test images given (--data DIR)"
    assert not report.failed


def test_every_file_of_a_run_is_read_once(good_run: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    plain = os.open

    def noted(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(Path(path).name)
        return plain(path, *arguments, **options)

    monkeypatch.setattr(os, "open", noted)  # by which `open_regular` opens
    verify_run(good_run.folder)
    names = [name for name in opened if (good_run.folder / name).exists()]
    assert good_run.weights.name in names
    assert sorted(names) == sorted(set(names))


def test_weights_that_ship_beside_the_small_files_are_checked_if_they_have_the_runs_size(made_run: MadeRun) -> None:
    shipped = made_run.weights.rename(made_run.folder.with_name(f"{made_run.folder.name}.safetensors"))
    assert verify_run(made_run.folder).check("weights").status == "passed"
    flip(shipped)
    assert verify_run(made_run.folder).check("weights").status == "failed"
    shipped.write_bytes(shipped.read_bytes() + b"x")  # other weights, as `accept_run` stores in another type
    assert verify_run(made_run.folder).check("weights").status == "not checked"


def test_a_run_without_its_weights_is_not_checked_beyond_its_small_files(made_run: MadeRun) -> None:
    made_run.weights.unlink()
    report = verify_run(made_run.folder, data=made_run.data)
    assert report.check("weights").status == report.check("top1").status == "not checked"
    assert "only the small files" in report.check("weights").detail
    assert [report.check(name).status for name in RUN_CHECKS] == ["passed"] * 4


def test_a_run_is_checked_from_inside_of_its_folder(good_run: MadeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(good_run.folder)
    assert verify_run(".").check("weights").status == "passed"


def test_a_run_on_a_part_of_the_classes_is_checked_on_the_same_part(made_run: MadeRun, tmp_path: Path) -> None:
    data = shutil.copytree(made_run.data, tmp_path / "part")
    shutil.rmtree(data / "test" / "truck")
    found = evaluate(NAME, data, weights=made_run.weights, device="cpu", partial=True)
    assert found.dataset == "cifar10-png-9of10classes"
    counts = {"num_images": 9, "correct1": found.correct1, "correct5": found.correct5}
    made_run.change("result.json", dataset=found.dataset, top1=found.top1, top5=found.top5, **counts)
    assert verify_run(made_run.folder, data=data, device="cpu").check("top1").status == "passed"
    other = verify_run(made_run.folder, data=made_run.data, device="cpu").check("top1")
    assert (other.status, "which these are not" in other.detail) == ("not checked", True)


# --- what is wrong in a run ---------------------------------------------------------------------------------------


def flip(path: Path, at: int = -2) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.unlink()
    path.write_bytes(content)


def test_a_changed_space_fails_the_hash_of_its_file(made_run: MadeRun) -> None:
    made_run.weights.unlink()
    for name in ("recipe.json", "environment.json", "log.jsonl"):
        with (made_run.folder / name).open("a") as file:
            file.write("\n" if name != "log.jsonl" else '{"kind": "resume", "epoch": 2, "step": 11}\n')
        check = verify_run(made_run.folder).check("files")
        assert check.status == "failed"
        assert f"{name}: expected sha256 " in check.detail


def test_a_flipped_bit_of_the_weights_is_found_and_nothing_is_evaluated(made_run: MadeRun) -> None:
    flip(made_run.weights, at=-1000)
    report = verify_run(made_run.folder, data=made_run.data)
    assert failed(report) == ["weights"]
    assert "expected sha256 " in report.check("weights").detail
    assert report.check("top1").detail == "no weights to evaluate"


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "log.jsonl", "result.json"])
def test_a_broken_or_missing_file_is_an_error_that_names_it(name: str, made_run: MadeRun) -> None:
    flip(made_run.folder / name, at=0)
    with pytest.raises(RunError, match=rf"{name}: (line 1: )?is not valid JSON"):
        verify_run(made_run.folder)
    (made_run.folder / name).unlink()
    with pytest.raises(RunError, match=rf"{name}: cannot be read"):
        verify_run(made_run.folder)


Change = Callable[[MadeRun], None]


def without(kind: str, number: int) -> Change:
    """Drop the lines of an epoch or a step."""

    def is_other(line: str) -> bool:
        record = json.loads(line)
        return bool(record["kind"] != kind or record[kind] != number)

    return lambda made: made.change_log(lambda lines: list(filter(is_other, lines)))


def with_line(kind: str, number: int, **values: Any) -> Change:
    """Change the last line of an epoch or a step."""

    def change(lines: list[str]) -> list[str]:
        records = [json.loads(line) for line in lines]
        index = max(i for i, record in enumerate(records) if record["kind"] == kind and record[kind] == number)
        records[index] |= values
        return [json.dumps(record) + "\n" for record in records]

    return lambda made: made.change_log(change)


def changed(file: str, **values: Any) -> Change:
    return lambda made: made.change(file, **values)


def with_recipe_value(**values: Any) -> Change:
    def change(made: MadeRun) -> None:
        said = json.loads((made.folder / "recipe.json").read_text())
        made.change("recipe.json", values=said["values"] | values)

    return change


def off_by_one(field: str) -> Change:
    def change(made: MadeRun) -> None:
        said = json.loads((made.folder / "result.json").read_text())
        value = said[field] + 1
        percent = {"correct1": "top1", "correct5": "top5"}.get(field)
        more = {percent: 100 * value / said["num_images"]} if percent else {}
        made.change("result.json", **{field: value}, **more)

    return change


WRONG: dict[str, tuple[Change, str, str]] = {
    "a first epoch dropped": (without("epoch", 0), "log", "3 epochs (missing 0)"),
    "an epoch dropped": (without("epoch", 1), "log", "3 epochs (missing 1)"),
    "the last epoch dropped": (without("epoch", 2), "log", "3 epochs (missing 2)"),
    "a step dropped": (without("step", 5), "log", "12 steps, a line for each"),
    "a torn last line": (lambda made: made.change_log(lambda lines: [*lines, '{"kind": "st']), "log", "no torn line"),
    "code changed on the way": (
        lambda made: made.change_log(
            lambda lines: [*lines, format_line(LogChange(epoch=2, step=9, changes=("code_sha256 was 0 and is 1",)))]
        ),
        "log",
        "nothing changed during the training (at step 9: code_sha256 was 0 and is 1)",
    ),
    "another learning rate": (with_line("epoch", 2, lr=0.01), "log", "different in epoch 2"),
    "another learning rate in a step": (with_line("step", 1, lr=0.01), "log", "different in epoch 0"),
    "a step in another epoch": (with_line("step", 5, epoch=0), "log", "every step in its epoch"),
    "a last epoch that is not the result": (with_line("epoch", 2, top1=99.0), "log", "the last epoch is the result"),
    "a last epoch with another top-5": (with_line("epoch", 2, top5=99.0), "log", "the last epoch is the result"),
    "fewer steps": (changed("result.json", steps=11), "log", "11 steps"),
    "another number of epochs": (with_recipe_value(epochs=4), "log", "as many as the recipe's 4"),
    "another recipe's value": (with_recipe_value(weight_decay=5e-4), "recipe", "weight_decay differ"),
    "a value that cannot be": (with_recipe_value(lr=0.0), "recipe", "lr: expected a number above 0, got 0.0"),
    "an override that was not used": (with_recipe_value(milestones=[1, 3]), "recipe", "have the values given"),
    "an override kept quiet": (changed("result.json", overridden={}), "recipe", "the same fields overridden"),
    "another recipe": (changed("result.json", recipe="fast"), "recipe", "recipe fast"),
    "a recipe of another row": (changed("recipe.json", row="resnet34_cifar10"), "recipe", f"model {NAME}"),
    "another percentage": (changed("result.json", top1=99.99), "result", "top-1 is"),
    "another seed": (changed("result.json", seed=1), "result", "seed 1"),
    "other images": (changed("result.json", dataset="cifar10"), "result", "evaluated on cifar10"),
    "parameters of another row": (off_by_one("params"), "result", "parameters"),
    "FLOPs of another row": (off_by_one("flops"), "result", "FLOPs"),
    "weights of another type": (
        lambda made: made.change(
            "result.json",
            weights=json.loads((made.folder / "result.json").read_text())["weights"] | {"dtype": "float32"},
        ),
        "weights",
        "stored as float32",
    ),
    "weights of another size": (
        lambda made: made.change(
            "result.json",
            weights=json.loads((made.folder / "result.json").read_text())["weights"] | {"size_bytes": 77},
        ),
        "weights",
        "77 bytes",
    ),
    "a header of another row": (
        lambda made: made.rewrite_weights(safetensors_bytes(half(state_dict()), header(model="resnet34_cifar10"))),
        "weights",
        f"header says {NAME}",
    ),
    "a header of another recipe": (
        lambda made: made.rewrite_weights(safetensors_bytes(half(state_dict()), header(recipe="fast"))),
        "weights",
        "header says recipe published",
    ),
    "weights of another row": (
        lambda made: made.rewrite_weights(safetensors_bytes(half(state_dict("resnet34_cifar10")), header())),
        "weights",
        "The file fits resnet34_cifar10",
    ),
    "weights that are not finite": (
        lambda made: made.rewrite_weights(
            safetensors_bytes(half(state_dict()) | {"fc.bias": torch.full((10,), torch.nan).bfloat16()}, header())
        ),
        "weights",
        "NaN or infinity in fc.bias",
    ),
    "junk under the right hash": (lambda made: made.rewrite_weights(b"junk" * 10), "weights", "not valid safetensors"),
}


def half(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.bfloat16() if value.is_floating_point() else value for key, value in tensors.items()}


@pytest.mark.parametrize(("change", "check", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_fails_the_check_that_must_find_it(
    change: Change, check: str, said: str, made_run: MadeRun
) -> None:
    change(made_run)
    if check != "weights":
        made_run.weights.unlink()  # reading them takes most of the time
    report = verify_run(made_run.folder)
    found = report.check(check)
    assert found.status == "failed"
    assert said in f"{found.detail} {found.measured}"


def test_a_log_that_does_not_say_what_its_last_epoch_reached_is_not_checked(made_run: MadeRun) -> None:
    with_line("epoch", 2, top1=None, top5=None)(made_run)
    made_run.weights.unlink()
    check = verify_run(made_run.folder).check("log")
    assert (check.status, "without the accuracy of the last epoch" in check.detail) == ("not checked", True)


@pytest.mark.parametrize("field", ["correct1", "correct5"])
def test_a_count_that_is_off_by_one_image_fails_on_the_same_device(field: str, made_run: MadeRun) -> None:
    off_by_one(field)(made_run)
    report = verify_run(made_run.folder, data=made_run.data, device="cpu")
    assert {"correct1": "top1", "correct5": "top5"}[field] in failed(report)


def test_other_weights_with_the_right_hash_fail_by_their_accuracy(made_run: MadeRun) -> None:
    tensors = state_dict()
    tensors["fc.bias"] = torch.zeros(10).index_fill_(0, torch.tensor(0), 1e3)
    made_run.rewrite_weights(safetensors_bytes(half(tensors), header()))
    said = json.loads((made_run.folder / "result.json").read_text())
    made_run.change("result.json", correct1=said["num_images"] - 1, correct5=said["num_images"], top1=95.0, top5=100.0)
    report = verify_run(made_run.folder, data=made_run.data, device="cpu")
    assert report.check("weights").status == "passed"
    assert report.check("top1").status == "failed"


def test_a_recipe_of_another_form_is_not_checked(made_run: MadeRun) -> None:
    made_run.weights.unlink()
    with_recipe_value(polish=8)(made_run)
    check = verify_run(made_run.folder).check("recipe")
    assert check.status == "not checked"
    assert "values.polish: unknown field" in check.detail


def test_other_images_than_the_runs_check_nothing(made_run: MadeRun, class_tree: Callable[..., Path]) -> None:
    report = verify_run(made_run.folder, data=class_tree(class_folders("cifar10"), per_class=2), device="cpu")
    check = report.check("top1")
    assert check.status == "not checked"
    assert check.detail.startswith("the run was evaluated on 10 images of cifar10-png-10images, which these are not")


def test_a_run_of_another_row_than_named_is_refused(good_run: MadeRun) -> None:
    assert verify_run(good_run.folder, name=NAME).name == NAME
    with pytest.raises(ArgumentError, match=f"is a run of {NAME}, not of resnet34_cifar10"):
        verify_run(good_run.folder, name="resnet34_cifar10")


def test_bad_input_is_an_error(good_run: MadeRun, made_run: MadeRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a folder"):
        verify_run(tmp_path / "missing")
    with pytest.raises(DatasetError):
        verify_run(good_run.folder, data=tmp_path / "missing")
    made_run.change("result.json", row="resnet19")
    with pytest.raises(UnknownModelError):
        verify_run(made_run.folder)


# --- published numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("correct", "status"), [(9452, "passed"), (9451, "failed"), (9700, "passed")])
def test_on_the_official_set_a_run_must_come_near_the_published_accuracy(
    correct: int, status: str, made_run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert REPRODUCTION_TOLERANCE_PCT == 0.3
    monkeypatch.setattr(resnet_zoo.checks.run, "evaluate", lambda *_, **__: evaluated(correct))
    made_run.change("result.json", overridden={})
    check = verify_run(made_run.folder, data=made_run.data).check("published_top1")
    assert (check.status, check.published, check.measured) == (status, "94.82", f"{correct / 100:.2f}")


def test_a_changed_recipe_is_not_held_against_the_published_accuracy(
    made_run: MadeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resnet_zoo.checks.run, "evaluate", lambda *_, **__: evaluated(9000))
    check = verify_run(made_run.folder, data=made_run.data).check("published_top1")
    assert (check.status, check.detail) == ("not checked", "the recipe was changed: epochs, milestones")


# --- the command --------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_the_command_prints_the_run_and_its_accuracy(good_run: MadeRun) -> None:
    done = run("--run", good_run.folder, "--data", good_run.data, "--device", "cpu")
    assert done.exit_code == 0, done.output
    top1 = f"{read_run(good_run.folder).result.top1:.2f}"
    assert f"{top1} = {top1} ✓ (published 94.82)" in done.stdout
    assert "Run" in done.stdout.splitlines()[0]


def test_the_command_says_what_failed_with_code_1(made_run: MadeRun) -> None:
    off_by_one("correct1")(made_run)
    done = run("--run", made_run.folder, "--data", made_run.data, "--device", "cpu")
    assert done.exit_code == 1
    assert f"FAILED {NAME} top1: published 94.82, recorded " in done.stdout


def test_the_command_ends_with_3_for_what_cannot_be_checked(made_run: MadeRun, tmp_path: Path) -> None:
    made_run.weights.unlink()
    assert run("--run", made_run.folder).exit_code == 3
    assert run("--run", tmp_path / "missing").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resnet34_cifar10"], f"is a run of {NAME}"),
        ([NAME, "resnet50"], "at most one name"),
        (["--weights", "openmmlab"], "leave out --weights"),
        (["--download", "--partial"], "leave out --download-weights and --partial"),
        (["reznet"], "There is no model"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(arguments: list[str], said: str, good_run: MadeRun) -> None:
    done = run("--run", good_run.folder, *arguments)
    assert done.exit_code == 2
    assert said in done.stderr


def test_the_command_takes_the_runs_own_row(good_run: MadeRun) -> None:
    done = run(NAME, "--run", good_run.folder, "--format", "json")
    assert done.exit_code == 0, done.output
    (report,) = json.loads(done.stdout)["reports"]
    assert report["name"] == get_entry(NAME).name
