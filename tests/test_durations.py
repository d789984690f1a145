"""Lengths of time: one grammar, whichever flag takes them."""

from __future__ import annotations

import pytest

from msresnet.durations import duration
from msresnet.errors import UsageError
from msresnet.infer.config import Budget, budget, interval
from msresnet.train.config import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500ms", 0.5), ("0.2s", 0.2), ("2m", 120.0), ("1h30m", 5400.0), ("1d", 86400.0), ("1s500ms", 1.5)],
)
def test_every_flag_reads_every_unit(text: str, expected: float) -> None:
    assert duration(text) == expected
    assert seconds(text) == expected
    assert interval(text) == expected
    assert budget(text) == Budget(seconds=expected)


def test_without_a_unit_a_number_is_seconds_but_in_a_budget_how_sure() -> None:
    assert duration("0.9") == seconds("0.9") == interval("0.9") == 0.9
    assert duration("0.9", bare=False) is None
    assert budget("0.9") == Budget(confidence=0.9)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1s", "1.s", "ms", "5 minutes", "1e9s", "nan", "1h 30m", "9" * 400 + "d"]
)
def test_what_is_no_length_of_time(text: str) -> None:
    assert duration(text) is None
    for read, message in ((seconds, "--time-limit 90s"), (interval, "--every 0.5s"), (budget, "--budget 5ms")):
        with pytest.raises(UsageError, match=message):
            read(text)


def test_no_time_at_all_is_refused() -> None:
    for read, message in ((seconds, "--time-limit 2m"), (interval, "--every 0.5s"), (budget, "--budget 5ms")):
        with pytest.raises(UsageError, match=message):
            read("0ms")
