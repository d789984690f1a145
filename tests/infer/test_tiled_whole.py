"""Tiles against the whole image: of what is the same everywhere, a classifier says the same of both.

A network learns three textures at many scales, so that an image of 126 pixels can be asked as a whole, made smaller to
the network's 28, and by tiles, as it is.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hostile import encode
from msresnet import Classifier
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.config import Tiling
from msresnet.infer.predictor import Predictor
from msresnet.infer.tiling.predict import predict_tiles
from msresnet.results import classified
from msresnet.tasks.tiling.classes import ClassMap

SIDE, LARGE, KINDS = 28, 126, 3
Array = npt.NDArray[np.uint8]


def texture(kind: int, side: int, period: float, rng: np.random.Generator) -> Array:
    """Lines across, lines down, or spots, some pixels apart, with noise (side, side)."""
    rows, columns = np.mgrid[0:side, 0:side] + rng.uniform(0, period, 2)[:, None, None]
    down, across = (np.cos(2 * np.pi * axis / period) for axis in (rows, columns))
    waves = (down, across, down * across)[kind]
    return np.asarray((128 + 90 * waves + rng.normal(0, 10, waves.shape)).clip(0, 255), np.uint8)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, KINDS, 600)
    images = np.stack([texture(kind, SIDE, rng.uniform(4, 22), rng) for kind in kinds])
    quick: dict[str, Any] = {"model": "msresnet_micro", "epochs": 5, "batch_size": 32}
    fixed = {"device": "cpu", "precision": "fp32", "augment": "none"}
    return predictor_of(Classifier(**quick, options=fixed).fit(images, kinds).bundle_, "cpu")


def tiled(predictor: Predictor, image: Array, asked: Tiling) -> ClassMap:
    found = predict_tiles(predictor, io.BytesIO(encode(image, "PNG")), "x", asked)
    assert isinstance(found, ClassMap)
    return found


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("kind", range(KINDS))
def test_tiles_and_the_whole_image_agree_on_what_is_the_same_everywhere(
    kind: int, overlap: float, predictor: Predictor
) -> None:
    image = texture(kind, LARGE, 21, np.random.default_rng(kind))
    untiled = classified(predictor.predict([image[None]], ["x"]))
    found = tiled(predictor, image, Tiling(None, overlap))
    assert found.tiles.sum() >= 25
    assert untiled.indices[0] == found.answer.indices[0] == kind
    assert (found.labels == kind).all()
    assert np.abs(untiled.probabilities[0] - found.answer.probabilities[0]).max() < 0.1


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_an_edge_between_textures_is_placed_within_a_tile(overlap: float, predictor: Predictor) -> None:
    rng, at = np.random.default_rng(9), 60
    left, right = texture(0, LARGE, 9, rng), texture(1, LARGE, 9, rng)
    image = np.where(np.arange(LARGE) < at, left, right)
    found = tiled(predictor, image, Tiling(None, overlap))
    step = found.grid.step[1]
    begins = step * np.arange(found.grid.cells[1])
    ends = np.minimum(begins + step, LARGE)
    before, behind = found.labels[:, ends <= at - SIDE], found.labels[:, begins >= at + SIDE]
    assert before.size
    assert behind.size
    assert (before == 0).all()
    assert (behind == 1).all()
    assert abs(found.areas[0] / LARGE**2 - at / LARGE) <= SIDE / LARGE
