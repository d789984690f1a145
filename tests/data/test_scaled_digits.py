"""The generated digits: what their ids say is what the pixels show, and no digit stands on both sides of a split."""

from __future__ import annotations

import hashlib
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from msresnet.data.options import DataOptions
from msresnet.data.sample import Subset
from msresnet.data.sources.digits import digits
from msresnet.data.sources.scaled_digits import COUNTS, FRAME, NOISE, ScaledDigits, scale_of, scaled_digits
from msresnet.data.splits import open_data

SHA256 = "5cd96256593da002cd772720062bf42d1f317a6f22d58d1a5d3dcc5e5a0fe6f4"


@pytest.fixture(scope="module")
def sets() -> dict[str, ScaledDigits]:
    return {name: cast(ScaledDigits, source) for name, source in scaled_digits().items()}


def test_they_are_the_same_bytes_everywhere(sets: dict[str, ScaledDigits]) -> None:
    digest = hashlib.sha256()
    for source in sets.values():
        digest.update(source.images.tobytes() + source.targets.astype("<i8").tobytes())
        digest.update("\n".join(source.ids).encode())
    assert digest.hexdigest() == SHA256


@pytest.mark.parametrize("name", COUNTS)
def test_the_id_says_how_large_the_digit_is(sets: dict[str, ScaledDigits], name: str) -> None:
    source = sets[name]
    scales = np.array([scale_of(i) for i in source.ids], dtype=float)
    assert source.ids[12].startswith(f"scaled-digits[{name} 12] x")
    assert len(set(source.ids)) == len(source) == COUNTS[name]
    for image, scale in zip(source.images[:500, 0], scales, strict=False):
        side = round(scale * FRAME)
        bright = np.argwhere(image >= NOISE)
        size = np.ptp(bright, axis=0) + 1 if len(bright) else np.zeros(2)
        assert size.max() <= side
        assert size.max() >= 0.5 * side  # a digit fills at least half of its square


def test_scales_are_even_on_a_logarithmic_axis_and_places_reach_every_border(sets: dict[str, ScaledDigits]) -> None:
    source = sets["train"]
    scales = np.array([scale_of(i) for i in source.ids], dtype=float)
    assert (scales.min(), scales.max()) == (0.25, 1.0)
    assert np.mean(scales < 0.5) == pytest.approx(0.5, abs=0.03)
    assert np.mean(scales < 0.25 * 2**0.5) == pytest.approx(0.25, abs=0.03)
    lit = (source.images[:, 0] >= NOISE).any(0)
    rows, columns = (np.asarray(np.any(lit, axis=axis))[1:-1] for axis in (1, 0))
    assert rows.all()
    assert columns.all()


def test_digits_areenlarged_as_torch_does_it(sets: dict[str, ScaledDigits]) -> None:
    source, embedded = sets["test"], digits()
    whole = [i for i, name in enumerate(source.ids) if scale_of(name) == 1.0][:5]
    for i in whole:
        digit = torch.from_numpy(embedded.images[source.shown[i]][None].astype(float))
        expected = F.interpolate(digit, size=(FRAME, FRAME), mode="bilinear", align_corners=False)[0, 0].numpy()
        bright = expected >= NOISE + 1
        assert np.abs(source.images[i, 0] - expected)[bright].max() <= 0.5
    assert len(whole) == 5


def test_no_digit_is_in_two_sets() -> None:
    splits = open_data("scaled-digits", DataOptions())
    shown: dict[str, set[bytes]] = {}
    pixels = [image.tobytes() for image in digits().images]
    for name, source in splits.named().items():
        base, indices = (source.source, source.indices) if isinstance(source, Subset) else (source, range(len(source)))
        assert isinstance(base, ScaledDigits)
        shown[name] = {pixels[base.shown[i]] for i in indices}
    assert {name: len(source) for name, source in splits.named().items()}["test"] == COUNTS["test"]
    assert 400 < len(splits.named()["val"]) < 800
    assert not shown["train"] & shown["val"]
    assert not shown["test"] & (shown["train"] | shown["val"])


def test_each_class_is_about_as_frequent(sets: dict[str, ScaledDigits]) -> None:
    for source in sets.values():
        assert (np.bincount(source.targets, minlength=10) > 0.08 * len(source)).all()


@pytest.mark.parametrize("name", ["digits[3]", "a x1.png", "scaled-digits[test 1] x", ""])
def test_other_ids_say_nothing(name: str) -> None:
    assert scale_of(name) is None
