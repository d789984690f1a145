"""Bounds on figures: which side is good, what cannot be measured, and that the bound itself passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msresnet.errors import QualityGateError, UsageError
from msresnet.infer.gates import check_gates, judge, read_gates
from msresnet.tasks.classification import ClassificationTask

BETTER = ClassificationTask.gates


def test_several_bounds_are_read() -> None:
    assert read_gates("top1=0.9, balanced_accuracy=0.8,ece=0.05") == {
        "top1": 0.9,
        "balanced_accuracy": 0.8,
        "ece": 0.05,
    }
    assert read_gates(None) == {}


@pytest.mark.parametrize("text", ["top1", "top1=", "=0.9", "top1=x", "top1=nan", "top1=-1", "top1=inf", "", "a=1,a=1"])
def test_what_is_no_bound(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-under"):
        read_gates(text)


@pytest.mark.parametrize(
    ("name", "bound", "answer"),
    [
        ("top1", 90.0, "from 0 to 1"),
        ("balanced_acuracy", 0.5, "balanced_accuracy"),
        ("n", 1.0, "known:"),
        ("object_scale", 0.5, "--object-scale"),
        ("answered", 0.5, "--abstain-below"),
    ],
)
def test_what_will_not_be_measured_is_told_at_once(name: str, bound: float, answer: str) -> None:
    with pytest.raises(UsageError, match=answer):
        check_gates({name: bound}, BETTER, flags=[])


def test_what_will_be_measured() -> None:
    check_gates({"loss": 3.0, "object_scale": 0.5, "answered": 0.1}, BETTER, ["object-scale", "abstain-below"])


@given(st.sampled_from(sorted(BETTER)), st.floats(0, 1), st.floats(0, 1))
def test_the_good_side_passes_and_so_does_the_bound(name: str, value: float, bound: float) -> None:
    good = value >= bound if name in ("top1", "top5", "balanced_accuracy", "macro_f1") else value <= bound
    if good:
        judge({name: bound}, BETTER, {name: value})
    else:
        with pytest.raises(QualityGateError, match=f"{name} is .*, (under|over) "):
            judge({name: bound}, BETTER, {name: value})


def test_every_figure_that_fails_is_named() -> None:
    metrics = {"top1": 0.5, "ece": 0.2, "abstain": {"answered": 0.0, "accuracy": None}}
    with pytest.raises(QualityGateError) as caught:
        judge({"top1": 0.9, "ece": 0.1, "answered_accuracy": 0.5}, BETTER, metrics)
    assert str(caught.value).splitlines()[0] == (
        "top1 is 0.5000, under 0.9; ece is 0.2000, over 0.1; answered_accuracy is none, under 0.5"
    )
    assert caught.value.exit_code == 8


@pytest.mark.parametrize("name", ["top1", "loss"])
def test_what_is_no_number_passes_no_bound(name: str) -> None:
    with pytest.raises(QualityGateError, match="nan"):
        judge({name: 0.5}, BETTER, {name: float("nan")})
