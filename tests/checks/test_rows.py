from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import resnet_zoo.checks.rows
from resnet_zoo.catalog.classes import class_folders
from resnet_zoo.catalog.manifest import get_entry
from resnet_zoo.catalog.records import Entry, Exact, Published, UpstreamOrigin
from resnet_zoo.checks.report import Report, exit_code
from resnet_zoo.checks.rows import check_counts, fingerprint, verify
from resnet_zoo.errors import DatasetError, UnknownModelError, UnknownWeightsError, WeightsUnavailableError
from resnet_zoo.network.building import build, build_on_meta
from resnet_zoo.network.resnet import ResNet
from resnet_zoo.weights.places import shipped_weights
from tests.conftest import NAMES, UNFETCHED, randomise

NAME = "resnet18_cifar10"
CLASSES = class_folders("cifar10")
COUNTS = ["manifest", "architecture", "params", "flops", "flops_with_head", "macs"]
ALL = [*COUNTS, "weights", "top1", "top5"]


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = build(get_entry(NAME))
    randomise(network)
    nn.init.normal_(network.fc.weight, std=0.5)
    return network.state_dict()


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.pth"
    torch.save(state, path)
    return path


def statuses(report: Report) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


# --- counts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_reports() -> list[Report]:
    return verify()


def test_all_rows_are_verified_in_table_order_when_none_is_named(all_reports: list[Report]) -> None:
    assert [report.name for report in all_reports] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_row_passes_what_needs_no_file_and_the_rest_is_not_checked(name: str, all_reports: list[Report]) -> None:
    report = all_reports[NAMES.index(name)]
    ships = shipped_weights(get_entry(name), get_entry(name).default_weights) is not None
    weights = "passed" if ships else "not checked"
    expected = {**dict.fromkeys(COUNTS, "passed"), "weights": weights, **dict.fromkeys(ALL[7:], "not checked")}
    assert statuses(report) == expected
    assert not report.failed
    assert exit_code([report]) == 0
    assert exit_code([report], asked=["weights"]) == (0 if ships else 3)


def test_several_rows_are_verified_in_the_order_asked_for() -> None:
    assert [report.name for report in verify(["resnet50", NAME])] == ["resnet50_in1k", NAME]


def test_the_fingerprint_sees_a_key_a_type_and_a_shape_but_not_the_order() -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.tensor(0)}
    same = fingerprint(tensors)
    assert fingerprint(dict(reversed(tensors.items()))) == same
    assert fingerprint({**tensors, "a": torch.ones(2, 3)}) == same
    assert fingerprint({"c": tensors["a"], "b": tensors["b"]}) != same
    assert fingerprint({**tensors, "a": torch.zeros(3, 2)}) != same
    assert fingerprint({**tensors, "b": torch.tensor(0.0)}) != same


def test_a_row_is_built_once_for_its_counts_its_fit_and_its_accuracy(
    weights: Path, class_tree: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[ResNet] = []
    build, data = ResNet.__init__, class_tree(CLASSES)

    def counted(model: ResNet, *arguments: Any, **options: Any) -> None:
        built.append(model)
        build(model, *arguments, **options)

    monkeypatch.setattr(ResNet, "__init__", counted)
    (report,) = verify(NAME, weights=weights, data=data, device="cpu")
    assert (report.failed, len(built)) == (False, 1)


@pytest.mark.parametrize("shape", [[1, 9], [1, 11], [2, 10], [1, 10, 1]])
def test_an_output_of_another_shape_fails(shape: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet_zoo.checks.rows, "dry_run", lambda *_: torch.empty(shape))
    (check,) = (check for check in check_counts(GOOD, build_on_meta(GOOD)) if check.name == "architecture")
    assert (check.status, check.published, check.measured) == ("failed", "output [1, 10]", f"output {shape}")


def with_exact(entry: Entry, **changes: int | str) -> Entry:
    values = {**dataclasses.asdict(entry.exact), **changes}
    return dataclasses.replace(entry, exact=Exact(**values))


def with_published(entry: Entry, **changes: str) -> Entry:
    return dataclasses.replace(entry, published=Published(**{**dataclasses.asdict(entry.published), **changes}))


def with_origin_of_another_row(entry: Entry) -> Entry:
    weights = entry.weights["openmmlab"]
    assert isinstance(weights.origin, UpstreamOrigin)
    origin = dataclasses.replace(weights.origin, sha256_prefix="00000000")
    sets = {"openmmlab": dataclasses.replace(weights, origin=origin)}
    return dataclasses.replace(entry, weights=sets, default_weights="openmmlab")


GOOD = get_entry(NAME)
WRONG = {
    "params off by one": (with_exact(GOOD, params=GOOD.exact.params + 1), "params"),
    "flops off by one": (with_exact(GOOD, flops=GOOD.exact.flops - 1), "flops"),
    "flops with head off by one": (with_exact(GOOD, flops_with_head=GOOD.exact.flops_with_head + 1), "flops_with_head"),
    "macs off by one": (with_exact(GOOD, macs=GOOD.exact.macs + 1), "macs"),
    "another fingerprint": (with_exact(GOOD, state_dict_sha256="0" * 64), "architecture"),
    "other printed params": (with_published(GOOD, params_m="11.18"), "params"),
    "other printed flops": (with_published(GOOD, flops_g="0.55"), "flops"),
    "other class list": (dataclasses.replace(GOOD, classes="cifar100"), "manifest"),
    "top-1 above top-5": (with_published(GOOD, top1="99.90", top5="99.87"), "manifest"),
    "hash of another file": (with_origin_of_another_row(GOOD), "manifest"),
    "other stem": (dataclasses.replace(GOOD, stem="imagenet"), "params"),
    "other input size": (dataclasses.replace(GOOD, input_size=(3, 64, 64)), "flops"),
}


@pytest.mark.parametrize(("entry", "check"), WRONG.values(), ids=WRONG)
def test_a_wrong_fact_fails_its_check(entry: Entry, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resnet_zoo.checks.rows, "get_entry", lambda _: entry)
    (report,) = verify(NAME)
    assert report.check(check).status == "failed"
    assert report.failed
    assert exit_code([report]) == 1


def test_a_wrong_integer_fails_that_check_alone_and_shows_both(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = with_exact(GOOD, params=11_173_963)
    monkeypatch.setattr(resnet_zoo.checks.rows, "get_entry", lambda _: entry)
    (report,) = verify(NAME)
    assert [name for name, status in statuses(report).items() if status == "failed"] == ["params"]
    assert "11,173,962 counted, manifest says 11,173,963" in report.check("params").detail


# --- weights -------------------------------------------------------------------------------------------------------


def test_weights_that_fit_pass_with_their_hash(weights: Path) -> None:
    check = verify(NAME, weights=weights)[0].check("weights")
    assert check.status == "passed"
    assert check.detail.startswith(f"mine.pth (pin: path; from {weights}): 122 tensors")
    assert check.measured is not None
    assert check.measured.startswith("sha256 ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_fail_with_the_tensor(
    value: float, state: dict[str, Tensor], tmp_path: Path
) -> None:
    broken = state["layer2.0.bn1.running_var"].clone()
    broken[3] = value
    torch.save({**state, "layer2.0.bn1.running_var": broken}, tmp_path / "nan.pth")
    check = verify(NAME, weights=tmp_path / "nan.pth")[0].check("weights")
    assert check.status == "failed"
    assert check.measured == "NaN or infinity in layer2.0.bn1.running_var"


def test_weights_of_another_row_fail_with_the_row_they_fit_and_are_not_evaluated(
    weights: Path, class_tree: Callable[..., Path]
) -> None:
    (report,) = verify("resnet34_cifar10", weights=weights, data=class_tree(CLASSES))
    check = report.check("weights")
    assert check.status == "failed"
    assert f"The file fits {NAME}: load it under that name." in check.detail
    assert report.check("top1").status == report.check("top5").status == "not checked"
    assert report.check("top1").detail == "no weights to evaluate"
    assert exit_code([report]) == 1


@pytest.mark.parametrize("data", [b"", b"junk", b"cos\nsystem\n(S'true'\ntR."])
def test_a_damaged_or_hostile_file_fails(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(data)
    assert verify(NAME, weights=tmp_path / "a.pth")[0].check("weights").status == "failed"


def test_wrong_bytes_under_the_published_name_fail(weights: Path, tmp_path: Path) -> None:
    origin = GOOD.weights["openmmlab"].origin
    assert isinstance(origin, UpstreamOrigin)
    path = tmp_path / origin.file_name
    path.write_bytes(weights.read_bytes())
    check = verify(NAME, weights=path)[0].check("weights")
    assert check.status == "failed"
    assert "expected sha256 bd6371c8" in check.detail


def test_weights_that_were_asked_for_and_are_missing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailableError):
        verify(NAME, weights=tmp_path / "missing.pth")
    with pytest.raises(UnknownWeightsError):
        verify(NAME, weights="openmlab")


def test_an_unknown_row_is_an_error_before_anything_is_checked() -> None:
    with pytest.raises(UnknownModelError):
        verify([NAME, "resnet19"])


# --- accuracy ------------------------------------------------------------------------------------------------------


def test_a_set_that_is_not_the_official_one_is_measured_but_not_checked(
    weights: Path, class_tree: Callable[..., Path]
) -> None:
    calls: list[tuple[str, int, int]] = []
    (report,) = verify(
        NAME,
        weights=weights,
        data=class_tree(CLASSES),
        device="cpu",
        batch_size=5,
        progress=lambda name, done, total: calls.append((name, done, total)),
    )
    for top in ("top1", "top5"):
        check = report.check(top)
        assert check.status == "not checked"
        assert check.published == getattr(GOOD.published, top)
        assert check.measured is not None
        assert 0 <= float(check.measured) <= 100
        assert "of which 9,990 are missing here" in check.detail
        assert "10 images of cifar10-png-10images" in check.detail
    assert calls == [(NAME, 5, 10), (NAME, 10, 10)]
    assert exit_code([report], asked=["top1"]) == 3


def test_data_that_cannot_be_used_is_an_error(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError):
        verify(NAME, weights=weights, data=tmp_path / "missing")


def test_an_unreadable_image_is_an_error_unless_it_may_be_left_out(
    weights: Path, class_tree: Callable[..., Path]
) -> None:
    data = class_tree(CLASSES)
    (data / "test" / "cat" / "bad.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="bad"):
        verify(NAME, data=data, weights=weights)
    (report,) = verify(NAME, data=data, weights=weights, skip_bad=True)
    assert report.check("top1").measured is not None


def test_data_without_weights_is_not_checked(class_tree: Callable[..., Path]) -> None:
    (report,) = verify(UNFETCHED, data=class_tree(CLASSES))
    assert report.check("top1").detail == "no weights to evaluate"
