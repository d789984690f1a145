"""What moves a pixel moves its class; what changes light leaves classes alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msresnet.data.augment import Augment, augment, noise, shade
from msresnet.data.augment_masks import augment_masks
from msresnet.data.draws import Draws
from msresnet.data.sample import IGNORED

MOVES = {
    "flip": Augment(flip=1.0),
    "shift": Augment(shift=0.2),
    "rotate": Augment(rotate=25),
    "scale": Augment(scale=0.4),
    "shear": Augment(shear=0.2),
    "elastic": Augment(elastic=0.1),
    "all": Augment(flip=0.5, shift=0.1, rotate=20, scale=0.2, shear=0.1, elastic=0.1),
}


def blocks(count: int = 8, side: int = 24) -> Tensor:
    """Masks (B, H, W) of large areas of four classes."""
    coarse = torch.randint(0, 4, (count, 4, 4), generator=torch.Generator().manual_seed(0))
    return coarse.repeat_interleave(side // 4, 1).repeat_interleave(side // 4, 2).to(torch.uint8)


def as_images(masks: Tensor) -> Tensor:
    """An image whose pixels say their class: (class + 1) / 8, so that black is outside."""
    return (masks.float()[:, None] + 1) / 8


@pytest.mark.parametrize("name", MOVES)
def test_masks_move_with_their_images(name: str) -> None:
    masks = blocks()
    images, moved = augment_masks(as_images(masks), masks, MOVES[name], Draws(3, len(masks)))
    alone = augment(as_images(masks), MOVES[name], Draws(3, len(masks)))
    assert torch.equal(images, alone)
    assert not torch.equal(moved, masks)
    pure = torch.isclose(images[:, 0] * 8, (images[:, 0] * 8).round(), atol=1e-4)  # not blended at an edge
    read = (images[:, 0] * 8).round().long() - 1
    known = torch.where(moved == IGNORED, -1, moved.long())
    assert (read == known)[pure].float().mean() > 0.98
    assert pure.float().mean() > 0.5


def test_what_comes_in_from_outside_and_what_is_blanked_is_ignored() -> None:
    masks = torch.zeros(6, 20, 20, dtype=torch.uint8)
    _, shifted = augment_masks(as_images(masks), masks, Augment(shift=0.3), Draws(1, 6))
    assert set(shifted.unique().tolist()) == {0, IGNORED}
    images, blanked = augment_masks(as_images(masks), masks, Augment(erase=1.0), Draws(1, 6))
    share = (blanked == IGNORED).float().mean((1, 2))
    assert ((share > 0.01) & (share < 0.25)).all()
    once = torch.full_like(masks, IGNORED)
    assert (augment_masks(images, once, Augment(flip=1.0, rotate=10), Draws(1, 6))[1] == IGNORED).all()


@pytest.mark.parametrize("settings", [Augment(policy=1.0), Augment(noise=0.3), Augment(shade=0.9)], ids=str)
def test_changes_of_light_leave_masks_as_they_are(settings: Augment) -> None:
    masks = blocks()
    images, same = augment_masks(as_images(masks).repeat(1, 3, 1, 1), masks, settings, Draws(2, len(masks)))
    assert torch.equal(same, masks)
    assert not torch.equal(images, as_images(masks).repeat(1, 3, 1, 1))


def test_cutmix_pastes_classes_with_pixels() -> None:
    masks = blocks()
    images, mixed = augment_masks(as_images(masks), masks, Augment(cutmix=1.0), Draws(5, len(masks)))
    assert torch.equal((images[:, 0] * 8).round().to(torch.uint8) - 1, mixed)
    assert not torch.equal(mixed, masks)


def test_a_processs_part_changes_as_in_the_whole_batch() -> None:
    masks, settings = blocks(), Augment(flip=0.5, rotate=20, noise=0.2, shade=0.5, erase=0.5)
    images, whole = augment_masks(as_images(masks), masks, settings, Draws(7, 8))
    part_images, part = augment_masks(as_images(masks)[4:], masks[4:], settings, Draws(7, 8, 4))
    assert torch.equal(part, whole[4:])
    assert torch.allclose(part_images, images[4:], atol=1e-6)


def test_noise_is_gaussian_of_the_strength_that_was_drawn() -> None:
    images = torch.full((64, 1, 40, 40), 0.5)
    changed = noise(images, 0.1, Draws(0, 64)) - images
    strengths = changed.flatten(1).std(1)
    assert strengths.max() < 0.11
    assert strengths.mean() == pytest.approx(0.05, rel=0.2)  # uniform from none to all
    normal = changed.flatten(1) / strengths[:, None]
    assert (normal.abs() < 1).float().mean() == pytest.approx(0.6827, abs=0.02)
    assert changed.mean((1, 2, 3)).abs().max() < 0.02


def test_shade_is_finite_towards_every_corner() -> None:
    class Corners(Draws):
        """Full strength, and directions of an eighth, three eighths, ... of a turn, a little more and less."""

        def uniform(self, rows: int, images: Tensor) -> Tensor:
            turns = (torch.arange(len(images)) % 4 * 2 + 1) / 8 + (torch.arange(len(images)) // 4 - 8) * 2**-24
            return torch.stack([torch.ones(len(images)), torch.rand(len(images)), turns, torch.rand(len(images))])

    changed = shade(torch.rand(64, 1, 32, 32), 0.9, Corners(0, 64))
    assert torch.isfinite(changed).all()


def test_shade_dims_along_one_direction_and_keeps_the_range() -> None:
    images = torch.rand(50, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    changed = shade(images, 1.0, Draws(0, 50))
    assert changed.min() >= 0
    assert changed.max() <= 1
    flat = shade(torch.ones(50, 1, 16, 20), 1.0, Draws(0, 50))[:, 0]
    steps = flat.diff(dim=1), flat.diff(dim=2)
    assert all(bool(((s >= -1e-6).all((1, 2)) | (s <= 1e-6).all((1, 2))).all()) for s in steps)  # monotone each way
    assert (flat.amax((1, 2)) - flat.amin((1, 2))).max() > 0.8
