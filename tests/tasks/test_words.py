"""What figures are called, and how shares and intervals are written."""

from __future__ import annotations

from msresnet.tasks.known import TASKS
from msresnet.tasks.words import interval, percent, points, title


def test_names() -> None:
    assert [title(name) for name in ("top1", "miou", "ap50", "ap_small")] == ["top-1", "mean IoU", "AP50", "AP small"]
    assert title("balanced_accuracy") == "balanced accuracy"
    assert all("_" not in title(name) for task in TASKS.values() for name in (task.metric, *task.gates))


def test_shares() -> None:
    assert (percent(0.98765), percent(None)) == ("98.77 %", "-")
    assert (interval((0.5, 0.98765)), interval([0.5, 1.0], unit=""), interval(None)) == (
        "50.00 to 98.77 %",
        "50.00 to 100.00",
        "",
    )
    assert (points(0.01), points(-0.0005)) == ("+1.00", "-0.05")
