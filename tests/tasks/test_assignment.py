"""Assignment is the paper's, step by step, and no object goes without a place; very many boxes take little memory."""

from __future__ import annotations

import resource
from multiprocessing.connection import Connection
from statistics import mean, stdev

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from msresnet.data.targets import padded
from msresnet.nn.detection import places
from msresnet.tasks.assignment import BACKGROUND, IGNORED, assigned
from tiny import CONTEXT, PATIENCE

Box = tuple[float, float, float, float]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [max(0.0, x[2] - x[0]) * max(0.0, x[3] - x[1]) for x in (a, b)]
    return shared / max(sum(areas) - shared, 1e-7)


def by_the_paper(boxes: list[Box], size: tuple[int, int], strides: tuple[int, ...]) -> list[int | None]:
    """Algorithm 1 of arXiv 1912.02424, for one image: which box each place learns. Squares of 8 strides, k = 9.

    Then those that no place learns, one by one: the free place nearest to each.
    """
    levels = []
    for stride in strides:
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        levels.append([(stride * (x + 0.5), stride * (y + 0.5), stride) for y in range(rows) for x in range(columns)])
    every = [place for level in levels for place in level]
    owners: list[tuple[float, int] | None] = [None] * len(every)
    nearest = []
    for number, box in enumerate(boxes):
        centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        candidates, firsts, start = list[int](), list[int](), 0
        for level in levels:
            far = [(x - centre[0]) ** 2 + (y - centre[1]) ** 2 for x, y, _ in level]
            firsts.append(len(candidates))
            candidates += [start + i for i in sorted(range(len(level)), key=lambda i: far[i])[:9]]
            start += len(level)
        around = [(x - 4 * s, y - 4 * s, x + 4 * s, y + 4 * s) for x, y, s in (every[i] for i in candidates)]
        overlaps = [overlap(box, anchor) for anchor in around]
        nearest.append(candidates[max(firsts, key=lambda i: overlaps[i])])
        least = mean(overlaps) + (stdev(overlaps) if len(overlaps) > 1 else 0)
        for i, value in zip(candidates, overlaps, strict=True):
            x, y, _ = every[i]
            inside = box[0] < x < box[2] and box[1] < y < box[3]
            if value >= least and inside and (owners[i] is None or value > owners[i][0]):  # type: ignore[index]
                owners[i] = (value, number)
    learnt = [None if owner is None else owner[1] for owner in owners]
    for number in set(range(len(boxes))) - set(learnt):
        if owners[nearest[number]] is None:
            learnt[nearest[number]] = max(number, learnt[nearest[number]] or 0)
    return learnt


def rows(boxes: list[Box], crowd: float = 0.0) -> Tensor:
    """Boxes of one image as a batch has them, their number being their class: (1, M, 6)."""
    return padded([torch.tensor([[i, *box, crowd] for i, box in enumerate(boxes)]).view(-1, 6)])


def random_boxes(seed: int, count: int, size: tuple[int, int]) -> list[Box]:
    """Boxes of all sizes at odd places, so that no two places are equally near."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 4, generator=generator, dtype=torch.float64)
    found = []
    for x, y, w, h in numbers.tolist():
        width, height = 3 + w**2 * size[1] * 0.8, 3 + h**2 * size[0] * 0.8
        left, top = x * (size[1] - width), y * (size[0] - height)
        found.append(tuple(torch.tensor([left, top, left + width, top + height]).tolist()))  # as float32 has them
    return found


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("size", "strides"), [((64, 96), (4, 8, 16, 32)), ((61, 45), (8, 16)), ((20, 20), (32,))])
def test_places_learn_what_the_paper_says(seed: int, size: tuple[int, int], strides: tuple[int, ...]) -> None:
    boxes = random_boxes(seed, 1 + seed * 2, size)
    found = assigned(rows(boxes), size, strides)[0]
    expected = by_the_paper(boxes, size, strides)
    assert found[:, 0].tolist() == [BACKGROUND if owner is None else owner for owner in expected]
    for row, owner in zip(found, expected, strict=True):
        assert owner is None or tuple(row[1:].tolist()) == boxes[owner]


def test_more_boxes_than_are_looked_at_together() -> None:
    boxes = random_boxes(3, 150, (64, 64))
    found = assigned(rows(boxes), (64, 64), (4, 8, 16))[0, :, 0].tolist()
    assert found == [BACKGROUND if o is None else o for o in by_the_paper(boxes, (64, 64), (4, 8, 16))]


@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 60), st.floats(0, 50), st.floats(0, 50)), max_size=8))
def test_a_place_outside_of_its_object_is_the_only_one_that_learns_it(corners: list[Box]) -> None:
    boxes = [(x, y, x + w, y + h) for x, y, w, h in corners]
    found = assigned(rows(boxes), (64, 64), (4, 8, 16))[0]
    middles, _ = places((64, 64), (4, 8, 16))
    numbers = found[:, 0].tolist()
    for (x, y), (index, left, top, right, bottom) in zip(middles.tolist(), found.tolist(), strict=True):
        assert index == BACKGROUND or (left < x < right and top < y < bottom) or numbers.count(index) == 1
        assert index == BACKGROUND or (right > left and bottom > top)


@given(
    st.floats(0.5, 20),
    st.floats(0.5, 20),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([(8,), (8, 16), (8, 16, 32)]),
)
def test_an_object_alone_is_learnt_however_small(
    width: float, height: float, x: float, y: float, strides: tuple[int, ...]
) -> None:
    left, top = x * (64 - width), y * (64 - height)
    found = assigned(rows([(left, top, left + width, top + height)]), (64, 64), strides)[0]
    middles, steps = places((64, 64), strides)
    learns = found[:, 0] == 0
    assert learns.any()
    assert (
        (middles[learns] - torch.tensor([left + width / 2, top + height / 2])).abs() <= 12 * steps[learns, None]
    ).all()


def test_a_small_object_takes_no_place_from_another_and_two_do_not_share_one() -> None:
    large, small, other = (0.0, 0.0, 64.0, 64.0), (33.0, 33.0, 35.0, 35.0), (32.5, 32.5, 34.5, 34.5)
    alone = assigned(rows([large]), (64, 64), (8,))[0]
    assert torch.equal(assigned(rows([large, small]), (64, 64), (8,))[0], alone)
    assert (alone[:, 0] == 0).any()
    found = assigned(rows([small, other]), (64, 64), (8,))[0]
    assert found[found[:, 0] >= 0].tolist() == [[1, *other]]


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    parts = [rows(random_boxes(seed, count, (48, 48)))[0] for seed, count in ((1, 7), (2, 1), (3, 12))]
    parts.insert(1, torch.empty(0, 6))
    together = assigned(padded(parts), (48, 48), (4, 8, 16))
    for index, part in enumerate(parts):
        assert torch.equal(together[index], assigned(padded([part]), (48, 48), (4, 8, 16))[0])
    assert (together[1, :, 0] == BACKGROUND).all()


def test_a_crowd_teaches_nothing_and_hides_nothing_that_is_known() -> None:
    crowd, known = (8.0, 8.0, 40.0, 40.0), (16.0, 16.0, 32.0, 32.0)
    batch = padded([torch.cat([rows([crowd], 1.0)[0], torch.tensor([[3, *known, 0.0]])])])
    found = assigned(batch, (48, 48), (4, 8))[0]
    alone = assigned(rows([known]), (48, 48), (4, 8))[0, :, 0]
    middles, _ = places((48, 48), (4, 8))
    in_crowd = ((middles > 8) & (middles < 40)).all(1)
    assert torch.equal(found[:, 0] == 3, alone == 0)
    assert torch.equal(found[:, 0] == IGNORED, in_crowd & (alone != 0))


def test_ten_thousand_boxes_take_little_memory() -> None:
    ours, child = CONTEXT.Pipe()  # in a process of its own: the most that this one has ever held is not a measure
    process = CONTEXT.Process(target=_assign_many, args=(child,))
    process.start()
    assert ours.poll(PATIENCE)
    assigns, more = ours.recv()
    process.join(PATIENCE)
    assert assigns
    assert more < 200_000  # KiB; at once 1 GB


def _assign_many(parent: Connection) -> None:
    boxes = rows(random_boxes(0, 10_000, (128, 128)))
    assigned(boxes[:, :100], (128, 128), (4, 8, 16, 32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = assigned(boxes, (128, 128), (4, 8, 16, 32))
    parent.send((bool((found[..., 0] >= 0).any()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
