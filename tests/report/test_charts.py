"""Charts over epochs of which some have no validation, and numbers as wide as a card."""

from __future__ import annotations

from msresnet.report.charts import losses, scores
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
