"""Random changes for training: identities, symmetries, shares, and the law of the random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats
from torch import Tensor

from msresnet.data.augment import KNOTS, Augment, augment, bending, beta, erase, flip, mix, translate, warp
from msresnet.data.draws import Draws, part


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def draws(count: int = 6, seed: int = 0) -> Draws:
    """Random numbers for a batch of one process."""
    return Draws(seed, count)


class Fixed(Draws):
    """The uniform numbers of every image are these instead of random ones."""

    def __init__(self, *rows: float) -> None:
        super().__init__(0, 1)
        self.values = torch.tensor(rows)

    def uniform(self, rows: int, images: Tensor) -> Tensor:
        return self.values[:rows, None].expand(rows, len(images))


def batch(count: int = 6, height: int = 12, width: int = 18, channels: int = 3) -> Tensor:
    """Random images (B, C, H, W) in 0 to 1."""
    return torch.rand(count, channels, height, width, generator=generator(1))


ALL = Augment(flip=0.5, shift=0.1, rotate=20, scale=0.2, shear=0.1, elastic=0.05, policy=0.5, erase=0.5)


def test_zero_settings_change_nothing() -> None:
    images = batch()
    assert torch.equal(augment(images, Augment(), draws()), images)
    assert all(getattr(Augment(), field.name) == 0 for field in fields(Augment))


def test_the_same_seed_gives_the_same_images_and_another_seed_others() -> None:
    first, again, other = (augment(batch(), ALL, draws(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == batch().shape


def test_images_given_are_not_changed_in_place() -> None:
    images = batch()
    augment(images, ALL, draws())
    mix(images, torch.eye(6), Augment(cutmix=1.0), draws())
    assert torch.equal(images, batch())


def test_flip_is_a_mirror_left_to_right_and_its_own_inverse() -> None:
    images = batch()
    once = flip(images, 1.0, draws(len(images)))
    assert torch.equal(once, torch.fliplr(images.permute(2, 3, 0, 1)).permute(2, 3, 0, 1))
    assert torch.equal(flip(once, 1.0, draws(len(once))), images)
    assert torch.equal(flip(images, 0.0, draws(len(images))), images)


def test_flip_takes_about_its_share_of_the_images() -> None:
    images = batch(4000, 1, 2, 1)
    flipped = (flip(images, 0.3, draws(len(images))) != images).flatten(1).any(1)
    assert stats.binomtest(int(flipped.sum()), 4000, 0.3).pvalue > 1e-3


def test_warping_without_parameters_is_the_identity() -> None:
    assert torch.allclose(warp(batch(), Augment(), draws()), batch(), atol=1e-5)


@pytest.mark.parametrize(("draw", "quarters"), [(1.0, 1), (0.0, -1)])
def test_turning_by_90_degrees_equals_rot90(draw: float, quarters: int) -> None:
    images = batch(height=12, width=12)
    turned = warp(images, Augment(rotate=90), Fixed(draw, 0.5, 0.5, 0.5, 0.5, 0.5))
    assert torch.allclose(turned, torch.rot90(images, quarters, (2, 3)), atol=1e-4)


def test_images_that_are_not_square_turn_without_shear() -> None:
    image = np.zeros((20, 40), np.float32)
    image[6:14, 10:30] = np.random.default_rng(0).random((8, 20))
    image = ndimage.gaussian_filter(image, 1.5)
    turn = Fixed(1.0, 0.5, 0.5, 0.5, 0.5, 0.5)
    turned = warp(torch.from_numpy(image)[None, None], Augment(rotate=30), turn)
    assert turned.shape == (1, 1, 20, 40)
    assert np.allclose(turned[0, 0], ndimage.rotate(image, 30, reshape=False, order=1), atol=1e-4)


def test_shift_moves_by_a_share_of_the_side_and_leaves_black() -> None:
    images = batch(height=12, width=20)
    moved = warp(images, Augment(shift=0.25), Fixed(0.5, 0.5, 1.0, 0.5, 0.5, 0.5))
    assert torch.allclose(moved[..., :15], images[..., 5:], atol=1e-5)
    assert moved[..., 15:].abs().max() < 1e-5


def test_translation_by_whole_pixels_equals_rolling_and_leaves_black() -> None:
    images = batch(200, 8, 12)
    moved = translate(images, 0.25, draws(200))
    seen = set()
    for before, after in zip(images, moved, strict=True):
        padded = F.pad(before, (3, 3, 2, 2))
        found = [(y, x) for y in range(5) for x in range(7) if torch.equal(padded[:, y : y + 8, x : x + 12], after)]
        assert len(found) == 1
        seen |= set(found)
    assert len(seen) == 35  # every move comes up


def test_shear_slants_by_a_share_of_the_side() -> None:
    image = torch.zeros(1, 1, 41, 41)
    image[..., 20] = 1  # an upright line
    slanted = warp(image, Augment(shear=0.5), Fixed(0.5, 0.5, 0.5, 0.5, 1.0, 0.5))
    places = slanted[0, 0].argmax(1)
    assert torch.allclose((places - 20).float(), (20 - torch.arange(41)).float() / 2, atol=1)


def test_bending_moves_the_knots_as_drawn_and_what_lies_between_smoothly() -> None:
    images = batch(40, 29, 57)
    moves = bending(images, 0.1, draws(40, seed=7))
    drawn = draws(40, seed=7).uniform(2 * KNOTS**2, images).T.reshape(40, 2, KNOTS, KNOTS)
    assert torch.allclose(moves[:, ::7, ::14].permute(0, 3, 1, 2), (drawn * 2 - 1) * 0.2, atol=1e-6)
    assert moves.diff(dim=1).abs().max() < 0.2 * 2 / 7 * 1.6  # no steeper than a cubic between two knots, by row
    same = bending(images, 0.1, Fixed(*[1.0] * 50))
    assert torch.allclose(same, torch.full((40, 29, 57, 2), 0.2), atol=1e-6)


def test_bent_images_are_those_of_scipy() -> None:
    images = batch(3, 24, 30, 1)
    moves = bending(images, 0.08, Draws(5, 3)).numpy() / 2

    class Still(Draws):
        """Nothing moves but by bending."""

        def uniform(self, rows: int, images: Tensor) -> Tensor:
            return torch.full((rows, len(images)), 0.5) if rows == 6 else super().uniform(rows, images)

    bent = warp(images, Augment(elastic=0.08), Still(5, 3))
    rows, columns = np.mgrid[:24, :30]
    for image, found, move in zip(images, bent, moves, strict=True):
        places = [rows + 24 * move[..., 1], columns + 30 * move[..., 0]]
        padded = np.pad(image[0].numpy(), 9)
        wanted = ndimage.map_coordinates(padded, [place + 9 for place in places], order=1)
        np.testing.assert_allclose(found[0], wanted, atol=1e-4)


def test_numbers_are_those_of_the_whole_batch_whatever_the_number_of_processes() -> None:
    images, targets = batch(26), torch.eye(26)
    some = Augment(flip=0.5, shift=0.1, rotate=9, scale=0.2, elastic=0.1, policy=0.4)
    settings = replace(some, erase=0.5, cutmix=1.0, mixup=0.3)
    for seed in range(4):
        numbers = Draws(seed, 26)
        whole = mix(augment(images, settings, numbers), targets, settings, numbers)
        for world in (1, 2, 3, 5):
            pieces = []
            for rank in range(world):
                mine = part(26, rank, world)
                own = Draws(seed, 26, mine.start)
                pieces.append(mix(augment(images[mine], settings, own), targets[mine], settings, own))
            for joined, expected in zip((torch.cat(p) for p in zip(*pieces, strict=True)), whole, strict=True):
                assert torch.allclose(joined, expected, atol=1e-6)


@pytest.mark.parametrize("total", [0, 1, 2, 7, 32, 33])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_parts_cover_a_batch_once_and_keep_pairs(total: int, world: int) -> None:
    parts = [part(total, rank, world) for rank in range(world)]
    assert [i for p in parts for i in range(p.start, p.stop)] == list(range(total))
    assert all(p.start % 2 == 0 for p in parts)


@pytest.mark.parametrize(("draw", "factor"), [(1.0, 1.5), (0.0, 1 / 1.5)])
def test_scale_changes_lengths_by_its_factor(draw: float, factor: float) -> None:
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 81), torch.linspace(-1, 1, 81), indexing="ij")
    disc = ((rows**2 + columns**2) < 0.4**2).float()[None, None]
    area = warp(disc, Augment(scale=0.5), Fixed(0.5, draw, 0.5, 0.5, 0.5, 0.5)).sum() / disc.sum()
    assert float(area) == pytest.approx(factor**-2, rel=0.02)


def test_erase_blanks_exactly_one_rectangle_of_2_to_20_percent_with_the_mean() -> None:
    images = batch(200, 40, 60)
    changed = (erase(images, 1.0, draws(len(images))) != images).any(1)
    for before, after, mask in zip(images, erase(images, 1.0, draws(len(images))), changed, strict=True):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        box = (slice(None), slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        assert mask[box[1:]].all()
        assert int(mask.sum()) == mask[box[1:]].numel()
        assert torch.allclose(after[box], before.mean((1, 2))[:, None, None].expand_as(after[box]))
        assert 0.01 < mask.float().mean() < 0.22
    assert torch.equal(erase(images, 0.0, draws(len(images))), images)


@pytest.mark.parametrize("settings", [Augment(mixup=0.4), Augment(cutmix=1.0), Augment(mixup=1.0, cutmix=0.3)])
def test_targets_still_sum_to_1(settings: Augment) -> None:
    targets = torch.eye(6)
    for seed in range(20):
        _, mixed = mix(batch(), targets, settings, draws(seed=seed))
        assert torch.allclose(mixed.sum(1), torch.ones(6))
        assert (mixed >= 0).all()


def test_mixup_blends_images_as_it_blends_targets() -> None:
    images, identity = batch(), torch.eye(6)
    for seed in range(20):
        mixed, shares = mix(images, identity, Augment(mixup=1.0), draws(seed=seed))
        assert torch.allclose(mixed, torch.einsum("ij,jchw->ichw", shares, images), atol=1e-6)


def test_the_share_of_cutmix_is_the_area_that_was_pasted() -> None:
    count, identity = 6, torch.eye(6)
    images = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 1, 13, 17)
    for seed in range(40):
        mixed, shares = mix(images, identity, Augment(cutmix=1.0), draws(seed=seed))
        areas = torch.stack([(mixed == k).float().mean((1, 2, 3)) for k in range(count)], 1)
        assert torch.allclose(areas, shares, atol=1e-6)


def test_one_image_alone_is_not_mixed() -> None:
    images, targets = mix(batch(1), torch.eye(1), Augment(mixup=1.0), draws(1))
    assert torch.equal(images, batch(1))
    assert torch.equal(targets, torch.eye(1))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
def test_beta_draws_follow_the_beta_distribution(alpha: float) -> None:
    source = generator(5)
    numbers = np.array([beta(alpha, source) for _ in range(3000)])
    law = stats.beta(alpha, alpha)
    assert stats.kstest(numbers, law.cdf).pvalue > 0.01
    assert numbers.mean() == pytest.approx(0.5, abs=5 * math.sqrt(law.var() / 3000))
    assert numbers.var() == pytest.approx(law.var(), rel=0.1)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("alpha", [1e-300, 1e-9, 1e-3, 1e6])
def test_beta_of_extreme_parameters_ends_and_lies_between_0_and_1(alpha: float) -> None:
    assert all(0 <= beta(alpha, generator(seed)) <= 1 for seed in range(20))


@pytest.mark.parametrize("change", [flip, erase])
def test_changes_are_made_image_by_image(change: Callable[[Tensor, float, Draws], Tensor]) -> None:
    images = batch(64)
    changed = (change(images, 0.5, draws(64)) != images).flatten(1).any(1)
    assert 10 < int(changed.sum()) < 54
