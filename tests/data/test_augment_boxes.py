"""What moves a thing moves its box; what is cut off is no longer a box, or nobody knows what it is of."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from msresnet.data.augment import Augment, augment
from msresnet.data.augment_boxes import LEAST_SIDE, augment_boxes, mosaic, packed
from msresnet.data.draws import Draws
from msresnet.data.targets import NOTHING, padded

MOVES = {
    "flip": Augment(flip=1.0),
    "shift": Augment(shift=0.25),
    "scale": Augment(scale=1.0, shift=0.2),
    "mosaic": Augment(mosaic=1.0),
    "all": Augment(flip=0.5, shift=0.1, scale=0.4, mosaic=0.5),
}
HEIGHT, WIDTH = 72, 96


def things(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images of bright rectangles apart from each other, whose brightness says their class, and their boxes."""
    generator = torch.Generator().manual_seed(seed)
    images, parts = torch.zeros(count, 1, HEIGHT, WIDTH), []
    for image in images:
        rows = list[list[int]]()
        for _ in range(int(torch.randint(0, 9, (1,), generator=generator))):
            width, height = torch.randint(8, 30, (2,), generator=generator).tolist()
            left = int(torch.randint(0, WIDTH - width, (1,), generator=generator))
            top = int(torch.randint(0, HEIGHT - height, (1,), generator=generator))
            around = image[0, max(0, top - 3) : top + height + 3, max(0, left - 3) : left + width + 3]
            if not around.any():
                kind = len(rows) % 4
                image[0, top : top + height, left : left + width] = 0.4 + 0.2 * kind
                rows.append([kind, left, top, left + width, top + height, 0])
        parts.append(torch.tensor(rows, dtype=torch.float32).view(-1, 6))
    return images, padded(parts)


def check(images: Tensor, boxes: Tensor) -> int:
    """Whether each box holds its thing and nothing bright lies outside of all; how many boxes were looked into."""
    looked = 0
    for image, rows in zip(images[:, 0], boxes, strict=True):
        outside = torch.ones_like(image, dtype=torch.bool)
        for kind, left, top, right, bottom, crowd in rows[rows[:, 0] != NOTHING].tolist():
            assert 0 <= left < right <= WIDTH
            assert 0 <= top < bottom <= HEIGHT
            outside[max(0, int(top) - 1) : int(bottom) + 2, max(0, int(left) - 1) : int(right) + 2] = False
            inner = image[int(top + 2) : int(bottom - 1), int(left + 2) : int(right - 1)]
            if crowd == 0 and inner.numel():
                assert (inner - (0.4 + 0.2 * kind)).abs().max() < 0.05
                looked += 1
        assert not (image[outside] > 0.1).any()
    return looked


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("seed", range(4))
def test_boxes_stay_on_their_things(name: str, seed: int) -> None:
    images, boxes = things(16, seed)
    moved, found = augment_boxes(images, boxes, MOVES[name], Draws(seed, 16))
    assert check(moved, found) > 15
    assert not torch.equal(moved, images)


def test_without_a_mosaic_pixels_are_those_of_images_without_boxes() -> None:
    images, boxes = things(8)
    for settings in (Augment(flip=0.5, scale=0.5, shift=0.1), Augment(rotate=20, shear=0.1)):
        assert torch.equal(
            augment_boxes(images, boxes, settings, Draws(2, 8))[0], augment(images, settings, Draws(2, 8))
        )


def test_what_is_only_moved_is_moved_by_whole_pixels() -> None:
    images = torch.rand(8, 1, HEIGHT, WIDTH)
    boxes = torch.tensor([[[2.0, 40, 30, 60, 50, 0]]]).repeat(8, 1, 1)
    moved, found = augment_boxes(images, boxes, Augment(shift=0.2), Draws(1, 8))
    for index in range(8):
        _, left, top, right, bottom, _ = (round(value) for value in found[index, 0].tolist())
        assert (right - left, bottom - top) == (20, 20)
        assert torch.allclose(moved[index, :, top:bottom, left:right], images[index, :, 30:50, 40:60], atol=1e-3)
    assert len(set(found[:, 0, 1].tolist())) > 4


def test_a_turned_thing_lies_in_its_box() -> None:
    images, boxes = things(16)
    moved, found = augment_boxes(images, boxes, Augment(rotate=30, shear=0.1), Draws(1, 16))
    for image, rows in zip(moved[:, 0], found, strict=True):
        outside = torch.ones_like(image, dtype=torch.bool)
        for _, left, top, right, bottom, _ in rows[rows[:, 0] != NOTHING].tolist():
            outside[max(0, int(top) - 1) : int(bottom) + 2, max(0, int(left) - 1) : int(right) + 2] = False
        assert not (image[outside] > 0.1).any()


@pytest.mark.parametrize("settings", [Augment(policy=1.0), Augment(noise=0.3), Augment(shade=0.9)], ids=str)
def test_changes_of_light_leave_boxes_as_they_are(settings: Augment) -> None:
    images, boxes = things(8)
    changed, same = augment_boxes(images.repeat(1, 3, 1, 1), boxes, settings, Draws(2, 8))
    assert torch.equal(same, packed(boxes))
    assert not torch.equal(changed, images.repeat(1, 3, 1, 1))


def test_twice_mirrored_is_as_before() -> None:
    images, boxes = things(8)
    once = augment_boxes(images, boxes, Augment(flip=1.0), Draws(0, 8))
    again, same = augment_boxes(*once, Augment(flip=1.0), Draws(1, 8))
    assert torch.equal(again, images)
    assert torch.allclose(same, packed(boxes))


def test_what_is_mostly_cut_off_is_ignored_and_what_is_gone_is_gone() -> None:
    row = [1.0, 0.0, 20.0, 40.0, 50.0, 0.0]
    boxes, images = torch.tensor([[row]]).repeat(400, 1, 1), torch.zeros(400, 1, HEIGHT, WIDTH)
    _, found = augment_boxes(images, boxes, Augment(shift=0.6), Draws(4, 400))
    rows = found[:, 0]
    there = rows[:, 0] != NOTHING
    area = (rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])
    thin = (rows[:, 3] - rows[:, 1]).minimum(rows[:, 4] - rows[:, 2]) < LEAST_SIDE
    assert torch.equal(rows[there, 5] == 1, ((area < 0.25 * 40 * 30) | thin)[there])
    assert 0 < int((~there).sum()) < 200
    assert (rows[there, 5] == 1).any()


def test_a_mosaic_is_of_an_image_and_its_neighbour_in_full_pixels() -> None:
    images = torch.arange(1, 7).view(6, 1, 1, 1).expand(6, 3, HEIGHT, WIDTH) / 10
    mixed, _ = mosaic(images, padded([torch.empty(0, 6)] * 6), 1.0, Draws(0, 6))
    for index, image in enumerate(mixed):
        found = (image * 10).round().unique().int().tolist()
        assert found == sorted({index + 1, (index ^ 1) + 1})
        share = ((image * 10).round() == index + 1).float().mean()
        assert 0.2 < share < 0.8  # the parts across from each other
    untouched, _ = mosaic(images, padded([torch.empty(0, 6)] * 6), 0.0, Draws(0, 6))
    assert torch.equal(untouched, images)


def test_a_processs_part_changes_as_in_the_whole_batch() -> None:
    (images, boxes), settings = things(8), MOVES["all"]
    whole_images, whole = augment_boxes(images, boxes, settings, Draws(7, 8))
    part_images, part = augment_boxes(images[4:], boxes[4:], settings, Draws(7, 8, 4))
    assert torch.allclose(part_images, whole_images[4:], atol=1e-6)
    assert torch.allclose(part, packed(whole[4:]), atol=1e-4)


def test_batches_without_a_box_and_of_one_image() -> None:
    for count in (1, 3):
        images = torch.rand(count, 1, 20, 30)
        none = padded([torch.empty(0, 6)] * count)
        changed, found = augment_boxes(images, none, MOVES["all"], Draws(0, count))
        assert changed.shape == images.shape
        assert found.shape == (count, 1, 6)
        assert (found[..., 0] == NOTHING).all()


@given(st.lists(st.lists(st.integers(-1, 3), max_size=6), min_size=1, max_size=4))
def test_packing_loses_no_box_and_keeps_their_order(classes: list[list[int]]) -> None:
    parts = [torch.tensor([[k, i, 0, i + 1, 1, 0] for i, k in enumerate(row)]).view(-1, 6).float() for row in classes]
    found = packed(padded(parts))
    for rows, part in zip(found, parts, strict=True):
        assert rows[rows[:, 0] != NOTHING].tolist() == part[part[:, 0] != NOTHING].tolist()
    assert found.shape[1] == max(1, *(sum(k >= 0 for k in row) for row in [*classes, []]))
