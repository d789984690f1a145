"""Outlines of areas: filled again they are the areas; each ring is simple, and turns the way that is promised."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from msresnet.tasks.tiling.grid import Grid
from msresnet.tasks.tiling.regions import Mask, Region, Ring, features, outlines, regions, signed_area

masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def parts_of(mask: Mask) -> list[Mask]:
    labels, count = ndimage.label(mask)
    return [labels == i + 1 for i in range(count)]


def filled(rings: list[Ring], shape: tuple[int, ...]) -> Mask:
    """The cells whose middle is inside of an odd number of rings, by counting crossings to the left."""
    inside = np.zeros(shape, np.bool_)
    for ring in rings:
        for (x, y), (next_x, next_y) in pairwise(ring):
            if x == next_x:
                inside[min(y, next_y) : max(y, next_y), x:] ^= True
    return inside


@given(masks)
def test_the_rings_of_an_area_fill_it_and_nothing_else(mask: Mask) -> None:
    for part in parts_of(mask):
        rings = outlines(part)
        assert np.array_equal(filled(rings, part.shape), part)
        assert sum(map(signed_area, rings)) == part.sum()
        assert signed_area(rings[0]) > 0
        assert all(signed_area(ring) < 0 for ring in rings[1:])


@given(masks)
def test_rings_are_closed_and_simple_and_have_corners_only(mask: Mask) -> None:
    for part in parts_of(mask):
        for ring in outlines(part):
            assert ring[0] == ring[-1]
            assert max(Counter(ring[:-1]).values()) == 1
            around = [*ring, ring[1]]
            for (ax, ay), (bx, by), (cx, cy) in zip(around, around[1:], around[2:], strict=False):
                assert (ax == bx) != (ay == by)
                assert (ax == bx) != (bx == cx)
                assert (ax, ay) != (cx, cy)


@given(masks)
def test_an_area_has_a_hole_for_each_gap(mask: Mask) -> None:
    """scipy's labels of what is outside are the truth; gaps that touch at a corner are two."""
    for part in parts_of(mask):
        _, outside = ndimage.label(~np.pad(part, 1))
        assert len(outlines(part)) == outside


def regions_of(probabilities: npt.NDArray[np.float32], size: tuple[int, int], step: int) -> list[Region]:
    return regions(probabilities.argmax(2), probabilities.max(2), Grid(size, (step, step), (step, step)))


@pytest.mark.parametrize("seed", range(5))
def test_the_areas_of_all_regions_are_the_image(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(3), (5, 7)).astype(np.float32)
    size = 4 * 10 + 3, 6 * 10 + 7  # the last cells are smaller
    found = regions_of(probabilities, size, 10)
    assert sum(region.area for region in found) == size[0] * size[1]
    assert all(sum(map(signed_area, region.rings)) == region.area for region in found)
    labels = np.repeat(np.repeat(probabilities.argmax(2), 10, 0), 10, 1)[: size[0], : size[1]]
    drawn = np.full(size, -1)
    for region in found:
        drawn[filled(region.rings, size)] = region.label
    assert np.array_equal(drawn, labels)
    for region in found:
        chosen = filled(region.rings, size)
        surer = np.repeat(np.repeat(probabilities.max(2), 10, 0), 10, 1)[: size[0], : size[1]]
        assert region.probability == pytest.approx(surer[chosen].mean(), abs=1e-5)


def test_geojson_is_what_its_standard_asks_for() -> None:
    """RFC 7946: at least four positions, the first and the last equal, the outer ring first and counterclockwise."""
    ring = np.ones((3, 3, 2), np.float32) * [0.9, 0.1]
    ring[1, 1] = [0.2, 0.8]
    outer, inner = features(regions_of(ring.astype(np.float32), (30, 30), 10), ("a", "b"))
    assert outer["type"] == inner["type"] == "Feature"
    assert outer["properties"] == {"class": "a", "probability": 0.9, "area": 800}
    assert inner["properties"] == {"class": "b", "probability": 0.8, "area": 100}
    assert [len(r) for r in outer["geometry"]["coordinates"]] == [5, 5]
    assert [signed_area(r) for r in outer["geometry"]["coordinates"]] == [900, -100]
    assert signed_area(inner["geometry"]["coordinates"][0]) == 100
