"""An object of another size in the same frame, against other ways to resample and what must hold for any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from msresnet.data.sets import Decoded
from msresnet.data.zoom import Zoomed, zoom
from msresnet.errors import UsageError

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def test_half_the_size_is_the_mean_of_four_pixels_in_the_middle() -> None:
    images = noise(3, 3, 16, 24)
    images[:, :, (0, -1), :] = images[:, :, :, (0, -1)] = 7
    small = zoom(images, 0.5)
    expected = torch.full_like(images, 7)
    expected[:, :, 4:12, 6:18] = (F.avg_pool2d(images.float(), 2) + 0.5).floor().to(torch.uint8)
    assert torch.equal(small, expected)


def test_twice_the_size_is_torchs_bilinear_enlargement_cut_to_the_frame() -> None:
    images = noise(2, 1, 12, 20)
    large = F.interpolate(images.float(), scale_factor=2, mode="bilinear", align_corners=False)
    difference = zoom(images, 2).float() - large[:, :, 6:18, 10:30]
    assert difference.abs().max() <= 0.5 + 1 / 32


@given(st.integers(2, 17), st.integers(2, 17), st.floats(0.1, 0.99), st.integers(0, 1000))
def test_what_leaves_no_frame_keeps_its_sum(height: int, width: int, scale: float, seed: int) -> None:
    images = noise(1, 1, height, width, seed=seed)
    images[:, :, (0, -1), :] = images[:, :, :, (0, -1)] = 0  # the border is black
    total = zoom(images, scale).double().sum() / scale**2
    rounding = 0.6 * height * width / scale**2
    assert total == pytest.approx(float(images.double().sum()), abs=rounding)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 8), st.integers(0, 255))
def test_one_colour_stays_it(height: int, width: int, scale: float, level: int) -> None:
    images = torch.full((2, 3, height, width), level, dtype=torch.uint8)
    assert torch.equal(zoom(images, scale), images)


@given(st.floats(0.2, 4), st.integers(0, 100))
def test_mirroring_commutes_and_company_changes_nothing(scale: float, seed: int) -> None:
    images = noise(4, 1, 9, 14, seed=seed)
    changed = zoom(images, scale)
    assert torch.equal(torch.cat([zoom(image[None], scale) for image in images]), changed)
    mirrored = zoom(images.flip(3), scale).int() - changed.flip(3).int()
    assert int(mirrored.abs().max()) <= 1
    assert float((mirrored != 0).float().mean()) < 0.05


@pytest.mark.parametrize("side", [28, 65])
@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.5, 0.75, 1.5, 2.0, 3.0])
def test_the_sums_are_those_of_float64(side: int, scale: float) -> None:
    images = noise(2, 1, side, side)
    where = (np.arange(side) + 0.5 - side / 2) / scale + side / 2
    weights = np.zeros((side, side))
    for i, centre in enumerate(where):  # the area that a pixel shows, else the two nearest pixels
        for j in range(side):
            share = min(centre + 0.5 / scale, j + 1) - max(centre - 0.5 / scale, j)
            near = 1 - abs(min(max(centre - 0.5, 0), side - 1) - j)
            weights[i, j] = max(0, share * scale if scale < 1 else near)
    edge = np.array([np.sort(np.concatenate([i[0], i[-1], i[1:-1, 0], i[1:-1, -1]])) for i in images[:, 0].numpy()])
    fill = edge[:, (edge.shape[1] - 1) // 2].astype(float)
    covered = np.outer(weights.sum(1), weights.sum(1))
    exact = weights @ images[:, 0].numpy() @ weights.T + (1 - covered) * fill[:, None, None]
    assert np.abs(zoom(images, scale)[:, 0].numpy() - exact).max() < 0.6


def test_scale_one_is_the_image() -> None:
    images = noise(2, 3, 5, 8)
    assert torch.equal(zoom(images, 1.0), images)
    assert zoom(images[:0], 0.5).shape == (0, 3, 5, 8)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_scale(scale: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        zoom(noise(1, 1, 4, 4), scale)


def test_a_set_keeps_all_but_its_pixels_and_black_and_white_stays_so() -> None:
    images = torch.where(noise(5, 1, 8, 8) > 127, 255, 0).to(torch.uint8)
    data = Decoded(images, torch.arange(5), list("abcde"), [("x", "broken")])
    grey, black_and_white = (Zoomed(data, 0.7, binary) for binary in (False, True))
    batch = next(iter(black_and_white.batches([torch.tensor([3, 1])], CPU)))
    assert set(batch.images.unique().tolist()) <= {0, 255}
    assert batch.targets.tolist() == [3, 1]
    assert torch.equal(batch.images[0], black_and_white.image(3))
    assert torch.equal(grey.image(2), zoom(images, 0.7)[2])
    assert (grey.bad, list(grey.ids), len(grey)) == (data.bad, list("abcde"), 5)
