"""The command: what it prints where, and how it ends. Torch-bound commands run in this process, to be quick."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image

from resnet_zoo import __version__, create_model, save_network
from resnet_zoo.base.progress import is_terminal, progress_bar
from resnet_zoo.catalog.classes import class_folders, class_names
from resnet_zoo.catalog.recipes import RECIPES
from resnet_zoo.catalog.records import to_json
from resnet_zoo.cli.main import main
from resnet_zoo.cli.options import with_common_options
from resnet_zoo.cli.shell import ZooCommand
from resnet_zoo.errors import DatasetError
from tests.conftest import ENTRIES, NAMES, random_network, smooth_image

ROOT = Path(__file__).parents[2]
COMMANDS = [
    *("list", "show", "verify", "evaluate", "predict", "embed", "finetune", "export", "benchmark"),
    *("reproduce", "diff-log", "accept", "publish", "site", "convert", "download", "cache", "env", "completion"),
]
ROW = "resnet18_cifar10"
ANSI = "\x1b["
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell, terminal or signal")
COLOUR_VARIABLES = ("FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "COLUMNS", "RESNET_ZOO_DEBUG")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away what this machine's user may have set, and give an empty cache."""
    for variable in COLOUR_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("RESNET_ZOO_HOME", str(tmp_path / "cache"))


def run(*arguments: str | Path, charset: str = "utf-8") -> Result:
    """Run the command in this process."""
    return CliRunner(charset=charset).invoke(main, [str(argument) for argument in arguments], prog_name="resnet-zoo")


def start(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    program = [sys.executable, "-m", "resnet_zoo", *map(str, arguments)]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(program, text=True, encoding="utf-8", check=False, timeout=120, **streams)


def assert_good(result: Result) -> str:
    """Check that a command ended well and return what it printed."""
    assert result.exit_code == 0, result.stderr or result.exception
    assert ANSI not in result.stdout
    return result.stdout


def assert_refused(result: Result, code: int, *facts: str | Path) -> None:
    """Check that a command said one sentence on stderr, nothing on stdout, and ended with a code."""
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == code, result.stderr
    assert result.stdout == ""
    message = result.stderr.rpartition("Error: ")[2]
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert message.count("\n") == 1
    for fact in facts:
        assert str(fact) in message


def assert_one_sentence(result: Result, code: int, *facts: str | Path) -> None:
    """Check also that there is nothing before the sentence."""
    assert_refused(result, code, *facts)
    assert result.stderr.startswith("Error: ")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the smallest row: random, but all of them."""
    path = tmp_path_factory.mktemp("weights") / "resnet18_cifar10.safetensors"
    safetensors.torch.save_file(random_network().state_dict(), path)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image larger than the network's input."""
    path = tmp_path / "cat.png"
    Image.fromarray(smooth_image(40, 48)).save(path)
    return path


# --- list ---------------------------------------------------------------------------------------------------------


def test_list_shows_every_row_once() -> None:
    lines = assert_good(run("list")).splitlines()
    assert [line.split()[0] for line in lines if line.strip().startswith("resnet")] == NAMES


def test_list_keeps_published_digits_in_the_table() -> None:
    out = assert_good(run("list"))
    for entry in ENTRIES:
        line = next(line for line in out.splitlines() if line.split()[:1] == [entry.name])
        printed = [getattr(entry.published, key) for key in ("params_m", "flops_g", "top1", "top5")]
        assert line.rsplit("  ", 1)[0].split()[-4:] == printed


def test_list_as_json_has_numbers() -> None:
    rows = json.loads(assert_good(run("list", "--format", "json")))
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        assert all(type(row[key]) is float for key in ("params_m", "flops_g", "top1", "top5"))
        assert all(type(row[key]) is int for key in ("num_classes", "params", "flops", "macs"))


def test_list_as_csv_is_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(assert_good(run("list", "--format", "csv")))))
    assert [row["name"] for row in rows] == NAMES


def test_list_as_markdown_is_a_table() -> None:
    lines = assert_good(run("list", "--format", "markdown")).splitlines()
    assert len(lines) == len(NAMES) + 2


def test_quiet_list_is_names_only() -> None:
    assert assert_good(run("list", "-q")).splitlines() == NAMES


def test_list_takes_a_pattern_a_data_set_conditions_and_an_order() -> None:
    out = assert_good(run("list", "resnet*", "--dataset", "in1k", "--where", "top1>77", "--sort", "top1:desc", "-q"))
    names = out.splitlines()
    scores = [float(entry.published.top1) for name in names for entry in ENTRIES if entry.name == name]
    assert scores == sorted(scores, reverse=True)
    assert all(score > 77 for score in scores)
    assert names


def test_a_list_without_rows_says_so_on_stderr() -> None:
    result = run("list", "nosuch", "--format", "json")
    assert json.loads(assert_good(result)) == []
    assert "No model matches" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("--where", "top1"), "Expected a condition"),
        (("--where", "top1>good"), "Expected a number after top1>"),
        (("--where", "topl>75"), "There is no key 'topl'"),
        (("--where", "aliases=resnet50"), "There is no key 'aliases'"),
        (("--sort", "speed"), "There is no key 'speed'"),
        (("--sort", "top1:down"), "KEY:asc or KEY:desc"),
        (("nosuch", "--sort", "speed"), "There is no key 'speed'"),
    ],
)
def test_a_wrong_condition_or_order_is_a_usage_error(arguments: tuple[str, ...], fact: str) -> None:
    assert_one_sentence(run("list", *arguments), 2, fact)


# --- show ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_show_says_everything_about_a_row(entry: Any) -> None:
    out = assert_good(run("show", entry.name))
    for fact in (f"{entry.exact.params:,}", entry.published.top1, entry.published.config_url, "not checked"):
        assert fact in out
    assert json.loads(assert_good(run("show", entry.name, "--format", "json"))) == {
        **to_json(entry),
        "training": json.loads(json.dumps(asdict(RECIPES[entry.recipe]))),
    }


def test_show_takes_an_alias() -> None:
    assert json.loads(assert_good(run("show", "resnet50", "--format", "json")))["name"] == "resnet50_in1k"


# --- misspelt -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "reznet50"),
        ("verify", "reznet50"),
        ("evaluate", "reznet50", "--data", "x"),
        ("predict", "reznet50", "x.jpg"),
        ("embed", "reznet50", "x", "-o", "x.npy"),
        ("finetune", "reznet50", "--data", "x", "-o", "x.safetensors"),
        ("convert", "a.pth", "b.safetensors", "--name", "reznet50"),
        ("reproduce", "reznet50", "--data", "x"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_misspelt_model_gets_a_suggestion_from_every_command(arguments: tuple[str, ...]) -> None:
    assert_one_sentence(run(*arguments), 2, "no model 'reznet50'", "Did you mean resnet50")


@pytest.mark.parametrize(("misspelt", "meant"), [("lst", "list"), ("verfiy", "verify"), ("evalute", "evaluate")])
def test_a_misspelt_command_gets_a_suggestion(misspelt: str, meant: str) -> None:
    assert_refused(run(misspelt), 2, f"no command {misspelt!r}", f"Did you mean {meant}")


def test_a_command_near_no_other_gets_no_suggestion() -> None:
    result = run("zzz")
    assert_refused(result, 2, "no command 'zzz'")
    assert "Did you mean" not in result.stderr


@pytest.mark.parametrize(
    ("command", "misspelt", "meant"),
    [("list", "--formt", "--format"), ("verify", "--weigths", "--weights"), ("convert", "--layuot", "--layout")],
)
def test_a_misspelt_option_gets_a_suggestion(command: str, misspelt: str, meant: str) -> None:
    assert_refused(run(command, misspelt, "x"), 2, misspelt, meant)


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--format", "yaml"),
        ("list", "--dataset", "mnist"),
        ("verify", "--format", "csv"),
        ("evaluate", ROW),
        ("evaluate", ROW, "--data", "x", "--batch-size", "0"),
        ("evaluate", ROW, "--data", "x", "--precision", "float16"),
        ("predict", ROW, "x.jpg", "--top-k", "0"),
        ("convert", "a.pth"),
        ("convert", "a.pth", "b.pth", "--layout", "keras"),
        ("show",),
        ("show", "resnet50", "resnet18"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert_refused(run(*arguments), 2)


def test_no_command_shows_the_help_on_stderr() -> None:
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: resnet-zoo" in result.stderr


# --- help ---------------------------------------------------------------------------------------------------------


def test_the_commands_are_these() -> None:
    assert sorted(main.commands) == sorted(COMMANDS)


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_works_everywhere_and_has_examples(command: str, flag: str) -> None:
    out = assert_good(run(*command.split(), flag))
    assert out.startswith("Usage: resnet-zoo")
    examples = out.partition("Examples:\n")[2].strip().splitlines()
    assert examples[0].strip().startswith(f"resnet-zoo {command}".strip())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_examples_use_options_and_commands_that_exist(command: str) -> None:
    out = assert_good(run(*command.split(), "-h"))
    lines = re.findall(r"^ +resnet-zoo (?:--\w+ \S+ )*([a-z][\w-]*)(.*)$", re.sub(r"\\\n +", "", out), re.MULTILINE)
    assert lines
    for name, arguments in lines:
        words = arguments.split()
        found = main.commands[name]
        if isinstance(found, click.Group):
            found = found.commands[words[0]]
        options = {option for parameter in found.params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", arguments)) <= options


def test_the_help_names_the_exit_codes() -> None:
    out = assert_good(run("-h"))
    codes = ("0 all good", "1 checked and wrong", "2 wrong usage", "3 could not be checked", "70 an unexpected error")
    for code in codes:
        assert code in out


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_printed(flag: str) -> None:
    assert assert_good(run(flag)).split()[-1] == __version__


# --- verify -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nothing_ships")
def test_verify_checks_all_fifteen_rows_and_counts_what_it_could_not_check() -> None:
    report = json.loads(assert_good(run("verify", "--format", "json")))
    assert [row["name"] for row in report["reports"]] == NAMES
    statuses = [check["status"] for row in report["reports"] for check in row["checks"]]
    assert statuses.count("passed") == report["summary"]["passed"] == 15 * 6
    assert statuses.count("not checked") == report["summary"]["not checked"] == 15 * 3
    assert len(statuses) == 15 * 9
    for row in report["reports"]:
        missed = {check["name"] for check in row["checks"] if check["status"] == "not checked"}
        assert missed == {"weights", "top1", "top5"}


@pytest.mark.usefixtures("nothing_ships")
def test_verify_shows_a_row_per_model_and_a_summary() -> None:
    result = run("verify")
    out = assert_good(result)
    assert [line.split()[0] for line in out.splitlines() if line.strip().startswith("resnet")] == NAMES
    assert "15 models: 90 passed, 0 failed, 45 not checked" in out
    assert result.stderr.startswith("Not checked: ")


@pytest.mark.usefixtures("nothing_ships")
@pytest.mark.parametrize(("columns", "is_short"), [("80", True), ("118", False), ("none", False)])
def test_verify_is_as_narrow_in_a_pipe_as_columns_says(
    columns: str, is_short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = assert_good(run("verify", ROW))
    assert ("- not checked" in out, "not checked  " in out) == (is_short, not is_short)
    assert (max(map(len, out.splitlines())) <= 80) == is_short


@pytest.mark.usefixtures("nothing_ships")
def test_verify_shows_published_beside_measured() -> None:
    out = assert_good(run("verify", "resnet50"))
    assert "25.56 = 25.56 ✓" in out
    assert "4.12 = 4.12 ✓" in out
    assert "76.55 not checked" in out
    assert "1 model: 6 passed, 0 failed, 3 not checked" in out


@pytest.mark.usefixtures("nothing_ships")
def test_verify_as_junit_counts_what_it_holds() -> None:
    root = ElementTree.fromstring(assert_good(run("verify", ROW, "resnet50", "--format", "junit")).encode())
    assert [root.get(key) for key in ("tests", "failures", "errors", "skipped")] == ["18", "0", "0", "6"]
    assert len(root.findall("testsuite/testcase")) == 18
    assert len(root.findall("testsuite/testcase/skipped")) == 6
    assert [suite.get("name") for suite in root.findall("testsuite")] == [ROW, "resnet50_in1k"]


@pytest.mark.usefixtures("nothing_ships")
def test_verify_of_accuracy_without_weights_could_not_check(tmp_path: Path) -> None:
    result = run("verify", ROW, "--data", tmp_path)
    assert (result.exit_code, "not checked" in result.stdout) == (3, True)
    assert "No weights 'retrained'" in result.stderr


def test_verify_passes_weights_that_fit(weights: Path) -> None:
    report = json.loads(assert_good(run("verify", ROW, "--weights", weights, "--format", "json")))
    checks = {check["name"]: check for check in report["reports"][0]["checks"]}
    assert checks["weights"]["status"] == "passed"
    assert checks["top1"]["status"] == "not checked"


def test_verify_fails_weights_of_another_row(weights: Path) -> None:
    result = run("verify", "resnet18", "--weights", weights)
    assert (result.exit_code, "FAILED resnet18_in1k weights: " in result.stdout) == (1, True)
    assert "fits resnet18_cifar10" in result.stdout


def test_verify_fails_weights_that_are_not_finite(weights: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(weights)
    tensors["fc.bias"][3] = torch.nan
    broken = tmp_path / "nan.safetensors"
    safetensors.torch.save_file(tensors, broken)
    result = run("verify", ROW, "--weights", broken)
    assert (result.exit_code, "NaN or infinity in fc.bias" in result.stdout) == (1, True)


@pytest.mark.parametrize(("given", "code"), [("missing.safetensors", 3), ("finetuned", 2)])
def test_verify_of_weights_that_are_not_there_shows_no_report(given: str, code: int) -> None:
    assert_one_sentence(run("verify", ROW, "--weights", given), code, given)


def test_verify_measures_on_images_and_never_passes_another_set(weights: Path, class_tree: Callable[..., Path]) -> None:
    data = class_tree(class_folders("cifar10"))
    result = run("verify", ROW, "--weights", weights, "--data", data, "--format", "json", "--device", "cpu")
    assert result.exit_code == 3
    checks = {check["name"]: check for check in json.loads(result.stdout)["reports"][0]["checks"]}
    assert checks["top1"]["status"] == checks["top5"]["status"] == "not checked"
    assert "of which 9,990 are missing here" in checks["top1"]["detail"]
    assert re.fullmatch(r"\d+\.\d\d", checks["top1"]["measured"])


def test_verify_finds_planted_wrong_numbers(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "resnet_zoo", checkout / "resnet_zoo", ignore=shutil.ignore_patterns("__pycache__"))
    raw = json.loads((ROOT / "weights_manifest.json").read_text(encoding="utf-8"))
    by_name = {row["name"]: row for row in raw["models"]}
    by_name["resnet18_cifar10"]["published"]["params_m"] = "11.18"
    by_name["resnet34_cifar10"]["exact"]["flops"] += 1
    by_name["resnet50_cifar10"]["exact"]["state_dict_sha256"] = "0" * 64
    by_name["resnet101_cifar10"]["published"]["top1"] = "99.99"
    by_name["resnet18_in1k"]["stem"] = "deep"
    (checkout / "weights_manifest.json").write_text(json.dumps(raw), encoding="utf-8")
    done = start("verify", "--format", "json", cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)})
    assert (done.returncode, done.stderr) == (1, "")
    failed = {
        (row["name"], check["name"])
        for row in json.loads(done.stdout)["reports"]
        for check in row["checks"]
        if check["status"] == "failed"
    }
    assert failed == {
        ("resnet18_cifar10", "params"),
        ("resnet34_cifar10", "flops"),
        ("resnet50_cifar10", "architecture"),
        ("resnet101_cifar10", "manifest"),
        *(("resnet18_in1k", name) for name in ("architecture", "params", "flops", "flops_with_head", "macs")),
    }


@pytest.mark.slow
def test_a_broken_manifest_is_one_sentence_from_every_command(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "resnet_zoo", checkout / "resnet_zoo", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "weights_manifest.json").read_text(encoding="utf-8")
    manifest = checkout / "weights_manifest.json"
    manifest.write_text(text.replace('"stem": "cifar"', '"stem": "cifra"', 1), encoding="utf-8")
    for arguments in (("list",), ("show", "resnet50"), ("verify",)):
        done = start(*arguments, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: {manifest}: model {NAMES[0]}, field stem: expected one of imagenet")
        assert done.stderr.count("\n") == 1


# --- evaluate -----------------------------------------------------------------------------------------------------


def test_evaluate_reports_counts_and_says_what_is_not_comparable(
    weights: Path, class_tree: Callable[..., Path]
) -> None:
    data = class_tree(class_folders("cifar10"))
    arguments = ("evaluate", ROW, "--data", data, "--weights", weights, "--device", "cpu", "--batch-size", "4")
    found = json.loads(assert_good(run(*arguments, "--format", "json")))
    assert (found["num_images"], found["num_skipped"], found["name"]) == (10, 0, ROW)
    assert found["top1"] == 100 * found["correct1"] / 10
    assert all(type(found[key]) is int for key in ("num_images", "correct1", "correct5"))
    out = assert_good(run(*arguments))
    assert "on the official 10,000, of which 9,990 are missing here" in out
    assert f"published {ENTRIES[0].published.top1}" in out


def test_evaluate_stops_at_a_bad_image_or_reports_it(weights: Path, class_tree: Callable[..., Path]) -> None:
    data = class_tree(class_folders("cifar10"))
    bad = data / "test" / "cat" / "0000.png"
    bad.write_bytes(b"no image")
    arguments = ("evaluate", ROW, "--data", data, "--weights", weights, "--device", "cpu", "--format", "json")
    assert_one_sentence(run(*arguments), 3, bad)
    result = run(*arguments, "--skip-bad")
    assert json.loads(assert_good(result))["num_skipped"] == 1
    assert result.stderr.startswith(f"Skipped: {bad}")


@pytest.mark.parametrize("where", ["missing", "."])
def test_evaluate_without_images_could_not_check(tmp_path: Path, where: str, weights: Path) -> None:
    assert_one_sentence(run("evaluate", ROW, "--data", tmp_path / where, "--weights", weights), 3, tmp_path)


def test_evaluate_without_weights_could_not_check(class_tree: Callable[..., Path]) -> None:
    data = class_tree(class_folders("cifar10"))
    done = run("evaluate", ROW, "--data", data, "--weights", "openmmlab")
    assert_one_sentence(done, 3, "bd6371c8.pth (not contacted, because offline mode is on)")


# --- predict ------------------------------------------------------------------------------------------------------


def test_predict_gives_the_best_classes_in_order(weights: Path, image: Path) -> None:
    out = assert_good(run("predict", ROW, image, image, "--weights", weights, "--top-k", "3", "--format", "json"))
    first, second = json.loads(out)
    assert first == second
    assert first["image"] == str(image)
    probabilities = [found["probability"] for found in first["classes"]]
    assert len(probabilities) == 3
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(class_names("cifar10")[found["label"]] == found["name"] for found in first["classes"])


def test_predict_shows_a_table(weights: Path, image: Path) -> None:
    lines = [line.split() for line in assert_good(run("predict", ROW, image, "--weights", weights)).splitlines()]
    assert [str(image)] == [line[0] for line in lines if line and line[0].endswith(".png")]
    assert len([line for line in lines if line and line[-1] in class_names("cifar10")]) == 5


@pytest.mark.parametrize("name", ["a[red]b.png", "[bold]", "a[/]b.png", ":smile:.png", "a b.png", "ü✓.png"])
def test_predict_prints_a_path_as_it_is(weights: Path, image: Path, name: str) -> None:
    path = image.parent / name
    path.parent.mkdir(exist_ok=True)
    shutil.copy(image, path)
    assert str(path) in assert_good(run("predict", ROW, path, "--weights", weights))


@pytest.mark.slow
def test_predict_on_a_png_of_the_networks_size_says_nothing_on_stderr(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    Image.fromarray(smooth_image(32, 32)).save(path)
    done = start("predict", ROW, path, "--weights", weights)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("missing.jpg", None, "does not exist"),
        (".", None, "holds no images"),
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"no image", "not an image"),
        ("corrupt.jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF", "cannot be decoded"),
        ("corrupt.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00", "image"),
    ],
)
def test_predict_on_what_is_no_image_could_not_check(
    weights: Path, tmp_path: Path, name: str, content: bytes | None, fact: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert_one_sentence(run("predict", ROW, path, "--weights", weights), 3, path, fact)


def test_predict_on_a_jpeg_works_without_a_warning(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    Image.fromarray(smooth_image(40, 48)).save(path)
    assert str(path) in assert_good(run("predict", ROW, path, "--weights", weights))


def test_predict_on_a_truncated_jpeg_could_not_check(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    Image.fromarray(smooth_image(40, 48)).save(path)
    path.write_bytes(path.read_bytes()[:400])
    assert_one_sentence(run("predict", ROW, path, "--weights", weights), 3, path)


@posix_only
@pytest.mark.parametrize("form", ["table", "json"])
def test_predict_on_a_path_that_is_no_unicode_still_prints(weights: Path, image: Path, form: str) -> None:
    path = image.parent / os.fsdecode(b"\xff.png")
    shutil.copy(image, path)
    result = run("predict", ROW, path, "--weights", weights, "--format", form)
    assert result.exception is None
    assert ".png" in result.stdout


def test_predict_goes_on_after_a_bad_image_if_told_to(weights: Path, image: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    result = run("predict", ROW, bad, image, "--weights", weights, "--skip-bad", "--format", "json")
    assert [found["image"] for found in json.loads(assert_good(result))] == [str(image)]
    assert result.stderr.startswith(f"Skipped: {bad}")
    none = run("predict", ROW, bad, bad, "--weights", weights, "--skip-bad", "--format", "json")
    assert_refused(none, 3, "None of the images can be read")
    assert none.stderr.count("Skipped: ") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (("--top-k", "11"), 2, "top_k of 1 to 10"),
        (("--weights", "finetuned"), 2, "Pass one of the tags (openmmlab"),
        (("--weights", "openmlab"), 2, "Did you mean openmmlab"),
        (("--weights", "missing.safetensors"), 3, "No such file"),
        (("--weights", "."), 3, "folder"),
        (("--weights", "openmmlab"), 3, "Every source failed"),
        (("--weights", "openmmlab"), 3, "Leave offline mode, or pass the weights' file, or --mirror with a folder"),
        (("--weights", "openmmlab"), 3, "Weights of resnet18_cifar10 on this machine: retrained (--weights retrained)"),
        (("--device", "cuda:99"), 2, "The device 'cuda:99' is not available"),
        (("--device", "toaster"), 2, "The device 'toaster' is not available"),
    ],
)
def test_predict_with_a_wrong_argument_says_so(arguments: tuple[str, ...], code: int, fact: str, image: Path) -> None:
    assert_one_sentence(run("predict", ROW, image, *arguments), code, fact)


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (("predict", ROW, "nowhere.jpg"), 3, "nowhere.jpg does not exist"),
        (("predict", ROW, "."), 3, "holds no images"),
        (("predict", ROW, "-"), 3, "standard input is empty"),
        (("embed", ROW, "nowhere", "-o", "out.npy"), 3, "nowhere does not exist"),
        (("finetune", ROW, "--data", "nowhere", "-o", "out.safetensors"), 3, "nowhere is not a folder"),
        (("evaluate", ROW, "--data", "nowhere"), 3, "nowhere is not a folder"),
        (("export", ROW, "--format", "torch-export", "--features", "stage9", "-o", "out.pt2"), 2, "no layer 'stage9'"),
    ],
)
def test_what_is_wrong_here_is_told_before_weights_are_fetched(
    arguments: tuple[str, ...], code: int, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # offline, with an empty cache: fetching would be the error
    assert_one_sentence(run(*arguments), code, fact)


def test_a_table_in_a_pipe_has_no_padding() -> None:
    lines = assert_good(run("show", ROW)).splitlines()
    assert lines == [line.rstrip() for line in lines]


@pytest.mark.parametrize(
    ("size", "fact"), [(0, "empty"), (7, "safetensors"), (1000, "safetensors"), (-1, "safetensors")]
)
def test_predict_with_damaged_weights_is_wrong(
    weights: Path, image: Path, tmp_path: Path, size: int, fact: str
) -> None:
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(weights.read_bytes()[:size])
    assert_one_sentence(run("predict", ROW, image, "--weights", damaged), 1, damaged, fact)


def test_predict_with_a_file_that_is_no_checkpoint_is_wrong(image: Path) -> None:
    assert_one_sentence(run("predict", ROW, image, "--weights", image), 1, image, "neither")


def test_predict_with_weights_of_another_row_is_wrong(weights: Path, image: Path) -> None:
    assert_one_sentence(run("predict", "resnet50", image, "--weights", weights), 1, "fits resnet18_cifar10")


def tree_of(image: Path) -> Path:
    """Return a folder with the image twice, in folders, and something that is none."""
    root = image.parent / "photos"
    for name in ("a/1.png", "b.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, root / name)
    (root / "notes.txt").write_text("no image")
    return root


def pipe(text: str | bytes, *arguments: str | Path) -> Result:
    """Run the command with something on its standard input."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=text, prog_name="resnet-zoo")


def test_predict_takes_folders(weights: Path, image: Path) -> None:
    root = tree_of(image)
    out = assert_good(run("predict", ROW, root, image, "--weights", weights, "--format", "json"))
    assert [found["image"] for found in json.loads(out)] == [str(root / "a/1.png"), str(root / "b.png"), str(image)]


def test_predict_writes_a_json_object_a_line(weights: Path, image: Path) -> None:
    arguments = ("predict", ROW, tree_of(image), "--weights", weights, "--format")
    lines = assert_good(run(*arguments, "jsonl")).splitlines()
    assert [json.loads(line) for line in lines] == json.loads(assert_good(run(*arguments, "json")))


def test_predict_writes_csv(weights: Path, image: Path) -> None:
    path = image.parent / 'a "b", c.png'
    shutil.copy(image, path)
    arguments = ("predict", ROW, path, "--weights", weights, "--top-k", "2", "--format")
    rows = list(csv.DictReader(io.StringIO(assert_good(run(*arguments, "csv")))))
    (expected,) = json.loads(assert_good(run(*arguments, "json")))
    assert [(row["image"], row["rank"]) for row in rows] == [(str(path), "1"), (str(path), "2")]
    for row, found in zip(rows, expected["classes"], strict=True):
        assert (int(row["label"]), row["name"], float(row["probability"])) == tuple(found.values())


@pytest.mark.parametrize("given", [(), ("-",)])
def test_predict_reads_paths_from_standard_input(given: tuple[str, ...], weights: Path, image: Path) -> None:
    root = tree_of(image)
    text = f"{image}\n\n{root}\r\n{root / 'b.png'}"
    out = assert_good(pipe(text, "predict", ROW, *given, "--weights", weights, "--format", "jsonl"))
    found = [json.loads(line)["image"] for line in out.splitlines()]
    assert found == [str(image), str(root / "a/1.png"), str(root / "b.png"), str(root / "b.png")]


@pytest.mark.parametrize("given", [(), ("-",)])
@pytest.mark.parametrize("form", ["table", "json", "jsonl"])
def test_predict_without_any_image_could_not_check(given: tuple[str, ...], form: str, weights: Path) -> None:
    result = pipe("\n", "predict", ROW, *given, "--weights", weights, "--format", form)
    assert_one_sentence(result, 3, "standard input is empty")


@posix_only
def test_predict_at_a_terminal_wants_images(weights: Path) -> None:
    terminal, inner = os.openpty()
    done = start("predict", ROW, "--weights", weights, stdin=inner)
    os.close(terminal)
    os.close(inner)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Name images or folders" in done.stderr


def test_predict_streams_what_is_done_before_a_bad_image(weights: Path, image: Path) -> None:
    bad = image.parent / "bad.png"
    bad.write_bytes(b"")
    arguments = ("--weights", weights, "--batch-size", "1", "--format", "jsonl")
    result = run("predict", ROW, image, image, bad, *arguments)
    assert result.exit_code == 3
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == [str(image)] * 2
    assert str(bad) in result.stderr


# --- networks by path, and embed ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network file with two classes of its own."""
    path = tmp_path_factory.mktemp("tuned") / "tuned.safetensors"
    save_network(path, random_network(num_classes=2), row=ROW, class_names=["cat", "dog"])
    return path


def test_predict_takes_a_network_file_for_a_name(tuned: Path, image: Path) -> None:
    (found,) = json.loads(assert_good(run("predict", tuned, image, "--format", "json")))
    assert {score["name"] for score in found["classes"]} == {"cat", "dog"}


def test_predict_prints_the_names_of_classes_as_they_are(image: Path, tmp_path: Path) -> None:
    path, names = tmp_path / "odd.safetensors", ["[/red]", "a [bold]b"]
    save_network(path, random_network(num_classes=2), row=ROW, class_names=names)
    out = assert_good(run("predict", path, image))
    assert all(name in out for name in names)


def test_the_title_of_a_bar_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar() as draw:
        draw("[/a].safetensors", 1, 2)
    assert "[/a].safetensors" in terminal.getvalue()


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_a_file_that_is_no_network_says_what_to_do(command: str, weights: Path, image: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "v.npy") if command == "embed" else ()
    assert_one_sentence(run(command, weights, image, *options), 1, weights, "pass the file as its weights")
    missing = tmp_path / "missing.safetensors"
    assert_one_sentence(run(command, missing, image, *options), 3, missing, "No such file")


def test_embed_writes_vectors_and_says_what_it_did(tuned: Path, image: Path, tmp_path: Path) -> None:
    root, out = tree_of(image), tmp_path / "v.npy"
    (root / "broken.jpg").write_bytes(b"no image")
    result = run("embed", tuned, root, "-o", out, "--device", "cpu", "--format", "json")
    record = json.loads(assert_good(result))
    assert (record["num_images"], record["num_bad"], record["precision"]) == (2, 1, "float32")
    assert f"Skipped: {root / 'broken.jpg'}" in result.stderr
    assert np.load(out).shape == (2, 512)
    assert json.loads(out.with_name("v.npy.paths.json").read_text()) == [str(root / "a/1.png"), str(root / "b.png")]
    assert_one_sentence(run("embed", tuned, root, "-o", out), 2, out, "exists already", "--force")
    fast = json.loads(assert_good(run("embed", tuned, root, "-o", out, "--force", "--fast", "--format", "json")))
    assert "batch-norm folded" in fast["precision"]


def test_embed_that_cannot_be_done_is_one_sentence(tuned: Path, image: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for paths, out, code, fact in (
        ([empty], "v.npy", 3, "holds no images"),
        ([tmp_path / "missing"], "v.npy", 3, "does not exist"),
        ([image], "v.csv", 2, "ends in .npy"),
        ([image], "missing/v.npy", 3, "No such file"),
    ):
        assert_one_sentence(run("embed", tuned, *paths, "-o", tmp_path / out), code, fact)
    assert not list(tmp_path.glob("v.*"))


# --- finetune -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three images."""
    root = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(("sea", "sky")):
        (root / name).mkdir()
        for index in range(3):
            Image.fromarray(smooth_image(20, 24, seed=10 * label + index)).save(root / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network file that takes images of 8x8 pixels, so that training it is quick."""
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_network(path, random_network(num_classes=2), row=ROW, class_names=["cat", "dog"], input_size=(3, 8, 8))
    return path


@pytest.mark.slow
def test_finetune_writes_a_network_that_predict_takes_and_says_what_it_did(
    small: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    options = ("--data", photos, "-o", out, "--device", "cpu", "--head-epochs", "2", "--epochs", "0")
    result = run("finetune", small, *options, "--format", "json")
    assert "The classifier: 2 epochs\n" in result.stderr
    record = json.loads(assert_good(result))
    assert (record["class_names"], record["num_train"], record["num_val"]) == (["sea", "sky"], 4, 2)
    assert "held out" in result.stderr
    (found,) = json.loads(assert_good(run("predict", out, photos / "sea" / "0.png", "--format", "json")))
    assert {score["name"] for score in found["classes"]} == {"sea", "sky"}
    assert_one_sentence(run("finetune", small, *options), 2, out, "exists already", "--force")
    again = run("finetune", small, *options, "--force", "--classes", "sky, sea", "--head-epochs", "1")
    assert "The classifier: 1 epoch\n" in again.stderr
    table = assert_good(again)
    assert "2: sky, sea" in table
    assert "4 for training, 2 for validation" in table
    assert "2 images, class folders (held out)" in table
    assert not re.search(r"^\w+_\w+ ", table, re.MULTILINE)  # a field's name
    assert "image_size" not in assert_good(run("show", out))
    assert "head epochs 1," in assert_good(run("show", out))
    assert record["report"]["correct1"] + sum(pair["num_images"] for pair in record["report"]["most_confused"]) == 2


@pytest.mark.parametrize(
    ("options", "code", "fact"),
    [
        (("-o", "a.pth"), 2, "ends in .safetensors"),
        (("-o", "missing/a.safetensors"), 3, "No such file or directory"),
        (("--data", "missing"), 3, "is not a folder"),
        (("--classes", "sea,land"), 2, "no folder for the class 'land'"),
        (("--classes", "sea"), 3, "two or more classes"),
        (("--val-share", "1.5"), 2, "val_share of 0 to below 1"),
        (("--epochs", "0", "--head-epochs", "0"), 2, "at least one in total"),
        (("--patience", "2", "--val-share", "0"), 2, "needs validation images"),
        (("--label-smoothing", "1.5"), 2, "label_smoothing"),
        (("--from-scratch",), 2, "has its own weights"),
        (("--weights", "openmmlab"), 2, "has its own weights"),
    ],
)
def test_finetune_that_cannot_be_done_is_one_sentence(
    options: tuple[str, ...],
    code: int,
    fact: str,
    small: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"--data": str(photos), "-o": "a.safetensors"} | dict(zip(options[::2], options[1::2], strict=False))
    flags = options if len(options) == 1 else ()
    arguments = [part for pair in given.items() for part in pair]
    assert_one_sentence(run("finetune", small, *arguments, *flags), code, fact)
    assert not [path for path in tmp_path.iterdir() if "safetensors" in path.name]


@posix_only
@pytest.mark.long
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_finetune_leaves_no_file_when_it_is_ended_and_goes_on(
    number: signal.Signals, code: int, small: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    arguments = (
        "finetune",
        small,
        "--data",
        photos,
        "-o",
        out,
        "--device",
        "cpu",
        "--epochs",
        "2",
        "--batch-size",
        "2",
    )
    program = [sys.executable, "-m", "resnet_zoo", *map(str, arguments)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch"):
                process.send_signal(number)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=120) == code
    assert not out.exists()
    assert "Traceback" not in rest
    if number == signal.SIGINT:
        assert "Run the same command again to resume" in rest
    whole = tmp_path / "whole.safetensors"
    for target in (out, whole):
        assert_good(run(*(target if argument == out else argument for argument in arguments)))
    assert out.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {out.name, whole.name}


# --- convert ------------------------------------------------------------------------------------------------------


def test_convert_writes_the_same_bytes_twice_and_says_what_it_did(weights: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    found = json.loads(assert_good(run("convert", weights, first, "--format", "json")))
    assert_good(run("convert", weights, second))
    assert first.read_bytes() == second.read_bytes()
    assert (found["name"], found["source_layout"], found["layout"]) == (ROW, "torchvision", "resnet_zoo")
    assert found["size_bytes"] == first.stat().st_size


def test_convert_to_another_layout_and_back_keeps_every_tensor(weights: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    assert_good(run("convert", weights, theirs, "--layout", "openmmlab"))
    assert_good(run("convert", theirs, ours))
    before, after = safetensors.torch.load_file(weights), safetensors.torch.load_file(ours)
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_convert_prints_a_path_as_it_is(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "a[red]b.safetensors"
    assert str(target) in assert_good(run("convert", weights, target))


def test_convert_never_replaces_a_file_unless_told_to(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.safetensors"
    target.write_bytes(b"precious")
    assert_one_sentence(run("convert", weights, target), 2, target, "--force")
    assert target.read_bytes() == b"precious"
    assert_good(run("convert", weights, target, "--force"))
    assert target.read_bytes() != b"precious"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("folder", ["missing", "file", "/proc"])
def test_convert_into_a_folder_that_cannot_be_written_leaves_nothing(
    weights: Path, tmp_path: Path, folder: str, suffix: str
) -> None:
    (tmp_path / "file").write_bytes(b"file")
    target = tmp_path / folder / f"target{suffix}"
    assert_one_sentence(run("convert", weights, target), 3, target.parent)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_an_error_names_the_target_and_not_the_file_written_first(weights: Path, tmp_path: Path, suffix: str) -> None:
    result = run("convert", weights, tmp_path / "missing" / f"target{suffix}")
    assert ".part" not in result.stderr
    assert f"target{suffix}" in result.stderr


@pytest.mark.parametrize(
    ("target", "fact"), [("target.bin", ".safetensors or .pth"), ("target", ".safetensors or .pth"), (".", "folder")]
)
def test_convert_to_a_target_that_is_none_is_a_usage_error(
    weights: Path, tmp_path: Path, target: str, fact: str
) -> None:
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert_one_sentence(run("convert", weights, folder if target == "." else tmp_path / target), 2, fact)


def test_convert_of_a_missing_source_could_not_check(tmp_path: Path) -> None:
    source = tmp_path / "missing.pth"
    assert_one_sentence(run("convert", source, tmp_path / "target.safetensors"), 3, source)


def test_convert_of_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    source, trace = tmp_path / "evil.pth", tmp_path / "trace"
    source.write_bytes(b"cposix\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR.")
    assert_refused(run("convert", source, tmp_path / "target.safetensors"), 1, source)
    assert not trace.exists()


# --- env ----------------------------------------------------------------------------------------------------------


def test_env_says_what_a_bug_report_needs(tmp_path: Path) -> None:
    found = json.loads(assert_good(run("env", "--format", "json")))
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert found["cache"] == {"path": str(tmp_path / "cache"), "exists": False}
    assert re.fullmatch("[0-9a-f]{64}", found["manifest"]["sha256"])
    assert type(found["devices"]["cpu_threads"]) is int


def test_env_as_a_table_has_everything_that_its_json_has() -> None:
    found = json.loads(assert_good(run("env", "--format", "json")))
    out = assert_good(run("env"))
    values = [value for facts in found.values() for value in facts.values()]
    lines = out.splitlines()
    assert len(lines) == len(values)
    for line, value in zip(lines, values, strict=True):
        words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value or "none"
        shown = ", ".join(words) if isinstance(words, list) else str(words)
        assert re.split(r"  +", line, maxsplit=1)[1] == shown
    assert "cpu_threads" not in out


def test_an_empty_cache_is_said_to_be_empty_and_where_it_is(tmp_path: Path) -> None:
    done = run("cache", "list")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.split("\n")[0].startswith("The cache is empty. ")
    assert done.stderr.endswith(f" {tmp_path / 'cache'}\n")


# --- pipes, terminals, signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_a_pipe_gets_plain_text_and_whole_lines(form: str) -> None:
    done = start("list", "--format", form)
    assert (done.returncode, done.stderr) == (0, "")
    assert ANSI not in done.stdout
    assert done.stdout.endswith("\n")
    assert "…" not in done.stdout


@posix_only
def test_a_terminal_gets_colours() -> None:
    import pty

    ours, theirs = pty.openpty()
    try:
        done = start("list", stdout=theirs, env=os.environ | {"TERM": "xterm-256color"})
        assert done.returncode == 0
        assert ANSI.encode() in os.read(ours, 65536)
    finally:
        os.close(ours)
        os.close(theirs)


def test_usage_errors_go_to_stderr() -> None:
    done = start("lst")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean list?" in done.stderr


@posix_only
@pytest.mark.parametrize(
    "arguments",
    [("list",), ("list", "--format", "json"), ("list", "-q"), ("show", "resnet50"), ("--help",), ("list", "-h")],
    ids=" ".join,
)
def test_a_reader_that_has_gone_is_no_failure_of_ours(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = start(*arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@posix_only
def test_a_reader_that_takes_one_byte_gets_it() -> None:
    shell = f"'{sys.executable}' -m resnet_zoo list --format json | head -c1"
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("[", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux")
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_full_disk_is_one_sentence(form: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = start("list", "--format", form, stdout=full)
    assert done.returncode == 3
    assert done.stderr.startswith("Error: ")
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


@posix_only
@pytest.mark.parametrize("form", ["table", "json"])
def test_a_closed_stdout_is_no_traceback(form: str) -> None:
    shell = f"'{sys.executable}' -m resnet_zoo list --format {form} >&-"
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 3)


@pytest.mark.parametrize("arguments", [("list",), ("show", "resnet50"), ("verify", ROW)], ids=" ".join)
@pytest.mark.parametrize("charset", ["cp1252", "ascii"])
def test_a_pipe_that_takes_no_unicode_gets_a_table_all_the_same(arguments: tuple[str, ...], charset: str) -> None:
    result = run(*arguments, charset=charset)
    assert result.exception is None
    assert "resnet" in result.stdout


def test_a_failure_hides_its_traceback_unless_debugging() -> None:
    plain, debug = start("show", "reznet50"), start("--debug", "show", "reznet50")
    assert plain.stderr.count("\n") == 1
    assert (debug.returncode, debug.stdout) == (plain.returncode, "") == (2, "")
    assert "Traceback (most recent call last)" in debug.stderr
    assert "UnknownModelError: There is no model 'reznet50'" in debug.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), 70),
        (AssertionError("daemonic processes are not allowed to have children"), 70),
        (MemoryError(), 70),
        (DatasetError("photo.jpg is empty."), 3),
        (FileNotFoundError(2, "No such file", "a.png"), 3),
        (click.UsageError("Name a file."), 2),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_an_unforeseen_error_is_not_a_verdict(error: Exception, code: int, debug: bool) -> None:
    @click.command(cls=ZooCommand)
    def command() -> None:
        raise error

    done = CliRunner().invoke(with_common_options(command), ["--debug"] if debug else [])
    assert done.exit_code == code
    assert ("Traceback" in done.stderr) == (debug and code != 2)
    assert ("it with --debug" in done.stderr) == (code == 70 and not debug)
    assert done.stderr.splitlines()[-1].startswith("Error: ")


def test_a_long_unforeseen_error_is_cut() -> None:
    @click.command(cls=ZooCommand)
    def command() -> None:
        raise ValueError("x\n" * 10_000)

    assert len(CliRunner().invoke(command).stderr) < 600


class Mute:
    """A stream of a notebook that can write and nothing else."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...


@pytest.mark.parametrize("stream", [None, Mute()])
def test_weights_load_without_a_standard_error_that_can_say_what_it_is(
    stream: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_terminal(sys.stderr)
    assert create_model(ROW, pretrained=True).fc.out_features == 10


@pytest.mark.slow
@posix_only
@pytest.mark.parametrize("closed", ["2>&-", "0<&- 2>&-", "2>/dev/null"])
def test_a_closed_standard_error_changes_no_exit_code(closed: str) -> None:
    def code(*arguments: str) -> int:
        line = f"exec {sys.executable} -m resnet_zoo {' '.join(arguments)} >/dev/null {closed}"
        return subprocess.run(["sh", "-c", line], check=False).returncode

    assert code("verify", ROW) == 0
    assert code("show", "reznet50") == 2


def test_debugging_can_be_switched_on_by_the_environment() -> None:
    done = start("show", "reznet50", env=os.environ | {"RESNET_ZOO_DEBUG": "1"})
    assert "Traceback (most recent call last)" in done.stderr


@posix_only
def test_ctrl_c_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "resnet_zoo", "predict", ROW, "-", "--skip-bad", "--batch-size", "1"]
    streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(program, text=True, **streams) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        watcher = threading.Timer(60, process.kill)
        watcher.start()
        process.stdin.write(f"{tmp_path / 'missing.png'}\n" * 1000)  # more than are read ahead, and then it waits
        process.stdin.flush()
        first = process.stderr.readline()
        for _ in range(3):  # Python loses a signal that arrives while it frees an object
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
                break
        out, talk = process.communicate(timeout=60)
        watcher.cancel()
    assert (process.returncode, out) == (130, "")
    assert first.startswith("Skipped: ")
    assert talk.endswith("Error: Interrupted.\n")
    assert "Traceback" not in talk
    assert not list(tmp_path.iterdir())
