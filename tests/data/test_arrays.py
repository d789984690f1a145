"""Arrays of any numbers as images: which value is black and which is white."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from msresnet.data.arrays import range_of_all, value_range_of


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 1], [0.5, 0.25]], (0.0, 1.0)), ([[0, 200], [7, 8]], (0.0, 255.0)), ([[7, 8.5], [0, 200]], (0.0, 200.0)),
        ([[0, 100], [7, 8]], (0.0, 100.0)), ([[-1, 1], [0, 0]], (-1.0, 1.0)), ([[3, 4], [300, 2]], (2.0, 300.0)),
    ],
)  # fmt: skip
def test_the_range_of_several_images_is_that_of_all_their_values(
    values: list[list[float]], expected: tuple[float, float]
) -> None:
    images: list[Any] = [np.array([row]) for row in values]
    assert range_of_all(images) == value_range_of(np.concatenate(images)) == expected
    bytes_alone = [np.array([[0, 7]], np.uint8)]
    assert range_of_all(bytes_alone) is None
    assert range_of_all([*bytes_alone, *images]) == value_range_of(np.concatenate([*bytes_alone, *images]))


def test_the_range_takes_no_copy_of_all_images() -> None:
    images = [np.arange(250_000, dtype=np.float32).reshape(500, 500) % 256 for _ in range(20)]
    tracemalloc.start()
    try:
        assert range_of_all(images) == (0.0, 255.0)
        assert tracemalloc.get_traced_memory()[1] < 3 * images[0].nbytes
    finally:
        tracemalloc.stop()
