from __future__ import annotations

from pathlib import Path

import pytest

from resnet_zoo.catalog.names import Kind, kind_of
from resnet_zoo.errors import UnknownModelError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("resnet50", "row"),
        ("resnet18_cifar10", "row"),
        ("hf-hub:someone/net", "repository"),
        ("hf-hub:", "repository"),
        ("tuned.safetensors", "file"),
        ("TUNED.PTH", "file"),
        ("runs/tuned", "file"),
        (Path("resnet50"), "file"),
    ],
)
def test_a_name_stands_for_a_row_a_repository_or_a_file(name: str | Path, kind: Kind) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["reznet50", "resnet50.a1_in1k", "", "."])
def test_what_is_none_of_them_is_an_unknown_model(name: str) -> None:
    with pytest.raises(UnknownModelError):
        kind_of(name)


def test_a_row_is_preferred_to_a_file_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("resnet50", "mine"):
        Path(name).touch()
    assert (kind_of("resnet50"), kind_of("mine")) == ("row", "file")
