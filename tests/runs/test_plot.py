"""Pictures of curves: their size, what stands in them, and what happens without matplotlib."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from resnet_zoo.errors import ArgumentError
from resnet_zoo.runs.curves import Curve, Point
from resnet_zoo.runs.plot import HEIGHT_PX, WIDTH_PX, _figure, draw_curves


def curve(num_epochs: int = 4, *, title: str = "one", dataset: str = "cifar10-jpeg", rates: int = 2) -> Curve:
    points = tuple(
        Point(
            epoch=epoch,
            loss=2.0 / epoch,
            lr=0.1 * 0.01 ** ((epoch - 1) * rates // num_epochs),
            top1=90.0 - 40.0 / epoch,
            images_per_s=400.0,
        )
        for epoch in range(1, num_epochs + 1)
    )
    return Curve(
        title=title,
        source=title,
        format="resnet_zoo",
        row="resnet18_cifar10",
        recipe=None,
        dataset=dataset,
        points=points,
    )


def texts(curves: list[Curve]) -> str:
    figure = _figure(curves)
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [axes.get_title(loc="left") for axes in figure.axes] + [axes.get_xlabel() for axes in figure.axes]
    found += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join([*found, figure.get_suptitle()])


def test_a_picture_has_the_promised_size_and_the_same_bytes_twice(tmp_path: Path) -> None:
    draw_curves(curve(), tmp_path / "a.png")
    draw_curves(curve(), tmp_path / "b.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (WIDTH_PX, HEIGHT_PX) == (1200, 800)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_published_accuracy_carries_its_data_set_and_is_not_taken_for_equal() -> None:
    assert "published 94.82 on CIFAR-10 (not comparable)" in texts([curve()])
    official = texts([curve(dataset="cifar10")])
    assert "published 94.82 on CIFAR-10" in official
    assert "not comparable" not in official


def test_axes_carry_units_and_the_final_value_its_images() -> None:
    said = texts([curve()])
    for text in ("Test accuracy: top-1 (%)", "(nats)", "images/s", "Epoch", "epoch 4: 80.00 on cifar10-jpeg", "one"):
        assert text in said


def test_several_curves_have_a_legend_and_colours_of_their_own() -> None:
    assert {"one", "two"} <= set(texts([curve(), curve(title="two")]).splitlines())
    lines = _figure([curve(), curve(title="two")]).axes[1].lines
    assert len({str(line.get_color()) for line in lines}) == 2
    assert len({str(line.get_linestyle()) for line in lines}) == 2


@pytest.mark.parametrize(("num_epochs", "scale"), [(19, "linear"), (20, "log")])
def test_trainings_of_very_different_length_share_a_logarithmic_axis(num_epochs: int, scale: str) -> None:
    assert {axes.get_xscale() for axes in _figure([curve(4), curve(num_epochs)]).axes} == {scale}


@pytest.mark.parametrize(("rates", "scale"), [(1, "linear"), (2, "log")])
def test_a_rate_that_falls_in_steps_is_drawn_on_a_logarithmic_scale(rates: int, scale: str) -> None:
    assert _figure([curve(rates=rates)]).axes[2].get_yscale() == scale


def test_what_a_log_does_not_say_is_said_to_be_missing() -> None:
    bare = Curve(
        title="a",
        source="a",
        format="mmengine",
        row=None,
        recipe=None,
        dataset=None,
        points=(Point(epoch=1, loss=1.0),),
    )
    assert texts([bare]).count("not in the log") == 3


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="directory"):
        draw_curves(curve(), tmp_path / "folder.png")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
    draw_curves(curve(), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"ends in \.png, \.svg or \.pdf"):
        draw_curves(curve(), tmp_path / "a.gif")
    with pytest.raises(ArgumentError, match="at least one curve"):
        draw_curves([], tmp_path / "a.png")


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ArgumentError, match=r"pip install 'resnet-zoo\[plots\]'"):
        draw_curves(curve(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_drawing_does_not_touch_pyplot() -> None:
    program = (
        "import sys, matplotlib; from tests.runs.test_plot import curve; from resnet_zoo.runs.plot import _figure; "
        "keys = ('font.size', 'axes.spines.top'); before = [matplotlib.rcParams[key] for key in keys]; "
        "_figure([curve()]); assert 'matplotlib.pyplot' not in sys.modules; "
        "assert [matplotlib.rcParams[key] for key in keys] == before"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)
