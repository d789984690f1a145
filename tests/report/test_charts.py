"""Charts over epochs of which some have no validation, and numbers as wide as a card."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from msresnet.report.charts import losses, robustness_chart, scores
from msresnet.report.overview import _short

HISTORY = [
    {"epoch": 1, "train_loss": 2.0},
    {"epoch": 2, "train_loss": 1.0, "val_loss": 1.5, "val_top1": 0.5},
    {"epoch": 3, "train_loss": 0.5, "val_loss": 0.75, "val_top1": 0.75},
]


def test_epochs_without_validation_leave_the_others_in_the_chart() -> None:
    drawn = losses(HISTORY)
    assert "validation loss 1.5 to 0.75" in drawn.words
    assert "validation" in drawn.drawing
    assert "50.00 % after epoch 2 and 75.00 % after the last epoch" in scores(HISTORY, "val_top1", "top-1").words


def test_large_numbers_are_short() -> None:
    assert [_short(count) for count in (107_258, 20_489_612, 1_692_900_000)] == ["107,258", "20.49 M", "1.69 G"]


@pytest.mark.parametrize("name", ["font-family: x", 'id="a" #808080', "font: 9px serif; y", "url(#z) href=", "h<i>h"])
def test_names_are_shown_as_they_are(name: str) -> None:
    curves = [(name, [(1.0, 0.5, None)]), ("other", [(1.0, 0.25, None)])]
    drawn = ElementTree.fromstring(robustness_chart(curves, "title", "x", "y").drawing)
    assert name in [element.text for element in drawn.iter() if element.tag.endswith("text")]


def test_a_chart_has_the_letters_of_its_page_and_no_id_twice() -> None:
    drawn = losses(HISTORY).drawing
    assert set(re.findall(r"font(?:-family)?: [^;\"]*", drawn)) <= {"font-family: inherit"} | set(
        re.findall(r"font: [\d.]+px inherit", drawn)
    )
    assert all(name.startswith("c") for name in re.findall(r'\bid="([^"]*)"', drawn))
