"""The policy of random changes: each against Pillow's or an independent formula, and what all have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from msresnet.data.draws import Draws
from msresnet.data.policy import CHANGES, COLOURFUL, apply_policy


def picture(seed: int = 0, side: int = 24) -> Tensor:
    """One smooth RGB picture (1, 3, H, W) of whole grey levels in 0 to 1."""
    rng = np.random.default_rng(seed)
    levels = rng.integers(40, 220, (3, 6, 6)).repeat(side // 6, 1).repeat(side // 6, 2)
    noisy = np.clip(levels + rng.integers(-20, 20, levels.shape), 0, 255)
    return torch.from_numpy(noisy).float()[None] / 255


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray((image[0] * 255).round().byte().permute(1, 2, 0).numpy())


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.int64)


def changed(name: str, amount: float, image: Tensor) -> np.ndarray:
    result = CHANGES[name](image, torch.full((1, 1, 1, 1), amount)).clamp(0, 1)
    return (result[0] * 255).round().permute(1, 2, 0).numpy().astype(np.int64)


@pytest.mark.parametrize("amount", [-1.0, -0.3, 0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("saturation", ImageEnhance.Color), ("contrast", ImageEnhance.Contrast)],
)
def test_enhancements_are_pillows(name: str, enhance: Callable[[Image.Image], Any], amount: float) -> None:
    image = picture()
    expected = levels(enhance(pillow(image)).enhance(1 + 0.9 * amount))
    assert np.abs(changed(name, amount, image) - expected).max() <= 2  # Pillow rounds in between


@pytest.mark.parametrize(("amount", "bits"), [(1.0, 2), (2 / 3, 4), (1 / 3, 6)])
def test_posterise_keeps_the_upper_bits(amount: float, bits: int) -> None:
    image = picture()
    kept = levels(ImageOps.posterize(pillow(image), bits)) >> (8 - bits)
    assert np.array_equal(changed("posterise", amount, image), np.rint(kept * 255 / (2**bits - 1)))


@pytest.mark.parametrize("amount", [0.0, 0.25, -0.5, 1.0])
def test_solarise_is_pillows(amount: float) -> None:
    image = picture()
    threshold = int(np.floor((1 - abs(amount)) * 255)) + 1
    assert np.array_equal(changed("solarise", amount, image), levels(ImageOps.solarize(pillow(image), threshold)))


def test_stretch_is_pillows_autocontrast() -> None:
    image = picture()
    assert np.abs(changed("stretch", 1.0, image) - levels(ImageOps.autocontrast(pillow(image)))).max() <= 1


def test_equalise_makes_ranks_even() -> None:
    image = picture()
    result = changed("equalise", 1.0, image)
    for channel in range(3):
        before, after = (x[..., channel].ravel() for x in (levels(pillow(image)), result))
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order]) >= 0).all()  # darker stays darker
        assert abs(np.median(after) - 127) < 8
        assert after.min() == 0
        assert after.max() == 255


@pytest.mark.parametrize("name", CHANGES)
def test_flat_images_stay_finite_and_no_change_is_none(name: str) -> None:
    flat = torch.full((1, 3, 9, 7), 0.5)
    assert torch.isfinite(CHANGES[name](flat, torch.ones(1, 1, 1, 1))).all()
    if name not in ("stretch", "equalise"):  # these have no strength
        image = picture()
        still = CHANGES[name](image, torch.zeros(1, 1, 1, 1))
        assert torch.allclose(still, image, atol=1 / 250)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_gets_its_own_changes_and_stays_within_range(channels: int) -> None:
    images = picture().repeat(64, 1, 1, 1)[:, :channels]
    result = apply_policy(images, 1.0, Draws(0, 64))
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 1
    assert len({x.numpy().tobytes() for x in result}) > 40
    assert torch.equal(result, apply_policy(images, 1.0, Draws(0, 64)))
    assert len(CHANGES) - len(COLOURFUL) > 8
