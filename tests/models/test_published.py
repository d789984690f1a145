"""The table of published figures: sound as a table, and true of the networks."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pytest
import torch

from msresnet.models.base import ImageModel
from msresnet.models.cost import count_macs
from msresnet.models.factory import create_classifier, list_models
from msresnet.models.published import Published, published, table

LARGE = 26e6
"""Parameters above which counting operations is left to the slow tests."""
UNITS = {"K": 3, "M": 6, "G": 9}
"""Powers of ten."""

_SPLITS = "the paper counts 10 classes, and a 3x3 for the split that the first block of each stage pools"
PARAMETERS_DIFFER = {
    "res2next29_6c_24w_4s": ("23.71M", _SPLITS),
    "res2next29_8c_25w_4s": ("32.96M", _SPLITS),
    "res2next29_6c_24w_6s": ("36.15M", _SPLITS),
    "seres2next29_6c_24w_6s": ("36.67M", _SPLITS),
    "skresnext101_32x4d": ("48.74M", "the paper counts high: 44.3M for ResNeXt-101, which has 44.18M"),
}
"""What these networks have here, and why the source prints another figure."""

_NORMALISATION = "the source counts normalisation, which folding takes away"
OPERATIONS_DIFFER = {
    "dla46x_c": ("0.533G", _NORMALISATION),
    "dla60x_c": ("0.581G", _NORMALISATION),
    "ror3_56": ("112.18M", _NORMALISATION),
    "ror3_110": ("239.58M", _NORMALISATION),
    "ror3_164": ("366.99M", _NORMALISATION),
    "scalenet50": ("3.320G", "the paper learns how many channels each resolution gets; here they share equally"),
    "blresnext101_64x4d_a2b4": ("7.142G", "the source prints what beta = 2 costs, 7.963G"),
}
"""Likewise for multiply-accumulates that are more than 1 % from the printed figure."""


def amount(text: str) -> float:
    """The number that '4.11G', '25.56M' or '25557032' prints. Raises ValueError for any other text."""
    digits, power = _split(text)
    return float(digits) * 10.0**power


def agrees(text: str, value: float) -> bool:
    """Whether a value, rounded to as many digits as are printed, is what is printed."""
    digits, power = _split(text)
    return f"{value / 10.0**power:.{len(digits.partition('.')[2])}f}" == digits


def _split(text: str) -> tuple[str, int]:
    """Digits, and the power of ten that their unit stands for."""
    return (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 0)


@cache
def network(name: str) -> ImageModel:
    """On the meta device: shapes alone, no memory."""
    with torch.device("meta"):
        return create_classifier(name).eval()


def registered() -> list[Published]:
    """Rows of models that there are; that all are is a test of its own."""
    return [row for row in table().values() if row.name in list_models()]


def with_operations() -> list[object]:
    """Rows that print operations; the large ones are for the slow tests."""
    return [
        pytest.param(row, id=row.name, marks=[pytest.mark.slow] if row.params and amount(row.params) > LARGE else [])
        for row in registered()
        if row.macs
    ]


def test_every_row_is_a_model() -> None:
    assert sorted(set(table()) - set(list_models())) == []


def test_no_name_comes_twice() -> None:
    lines = (files("msresnet.models") / "published.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(table())


@pytest.mark.parametrize("row", table().values(), ids=lambda row: row.name)
def test_rows_are_complete(row: Published) -> None:
    assert bool(row.source) == any((row.params, row.macs, row.top1))
    assert bool(row.macs) == bool(row.pixels)
    assert bool(row.top1) == bool(row.top1_pixels)
    assert bool(row.weights) == bool(row.licence)
    assert all(amount(text) > 0 for text in (row.params, row.macs) if text)
    assert all(int(text) >= 32 for text in (row.pixels, row.top1_pixels) if text)
    assert not row.top1 or 50 < float(row.top1) < 100
    assert not row.weights or row.weights.startswith(f"timm/{row.name}.")


@pytest.mark.parametrize("row", [row for row in registered() if row.params], ids=lambda row: row.name)
def test_parameters_agree_to_the_printed_digits(row: Published) -> None:
    params = sum(p.numel() for p in network(row.name).parameters())
    expected, _ = PARAMETERS_DIFFER.get(row.name, (row.params, ""))
    assert agrees(expected, params), (row, params)
    assert agrees(row.params, params) == (row.name not in PARAMETERS_DIFFER)


@pytest.mark.parametrize("row", with_operations())
def test_operations_agree_within_one_percent(row: Published) -> None:
    macs = count_macs(network(row.name), (int(row.pixels), int(row.pixels)))
    expected, _ = OPERATIONS_DIFFER.get(row.name, ("", ""))
    assert not expected or agrees(expected, macs), (row, macs)
    near = abs(macs / amount(row.macs) - 1) <= 0.01
    assert near == (row.name not in OPERATIONS_DIFFER), (row, macs)


def test_the_article_network_has_its_parameters() -> None:
    assert sum(p.numel() for p in network("article_cnn").parameters()) == 110_474


def test_micro_is_no_larger_than_the_article_network() -> None:
    assert sum(p.numel() for p in network("msresnet_micro").parameters()) <= 110_474


def test_amounts_read_units_and_their_digits() -> None:
    assert amount("4.11G") == pytest.approx(4.11e9)
    assert amount("25557032") == 25_557_032
    assert agrees("25.56M", 25_557_032)
    assert agrees("25557032", 25_557_032)
    assert not agrees("25.55M", 25_557_032)
    assert not agrees("25557032", 25_557_033)
    for text in ("", "M", "4.11 GMACs"):
        with pytest.raises(ValueError, match="float"):
            amount(text)


def test_an_unknown_model_has_a_row_of_empty_cells() -> None:
    assert published("nothing") == Published("nothing")
