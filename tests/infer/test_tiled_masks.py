"""Masks from tiles: what a network sees within half an overlap it says of a tile as of the whole image."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from scipy import ndimage

from hostile import encode, smooth_pixels
from msresnet import Segmenter
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.errors import UsageError
from msresnet.infer.backend import Backend, Pixels
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.config import Tiling
from msresnet.infer.predictor import Predictor
from msresnet.infer.tiling.predict import predict_tiles
from msresnet.results import Segmentation
from msresnet.tasks.tiling import masks
from msresnet.tasks.tiling.grid import Grid, places
from msresnet.tasks.tiling.masks import MaskMap, majority, middles, squares
from msresnet.tasks.tiling.regions import signed_area
from msresnet.trained import Exported

NAMES = ("=dark", "grey", "bright")
TILE = 32
Array = npt.NDArray[Any]


class Blurring(Backend):
    """Three classes by the mean of a square around each pixel; what lies beyond the image is its edge, repeated."""

    name, precision, threads, reason = "blurring", "fp32", 1, "for tests"

    def __init__(self, reach: int) -> None:
        self.reach = reach

    def __call__(self, images: Pixels) -> tuple[Any, None]:
        """(B, 1, H, W) uint8 -> logits (B, 3, H, W)."""
        side = 2 * self.reach + 1
        kernel = np.ones((1, side, side), np.int64)
        sums = ndimage.convolve(np.asarray(images)[:, 0].astype(np.int64), kernel, mode="nearest")
        means = sums / side**2  # whole numbers until here, so that a pixel has the same mean in every tile
        return np.stack([-np.abs(means - level) for level in (60, 120, 180)], 1).astype(np.float32), None


def blurring(size: tuple[int, int], reach: int) -> Predictor:
    """A segmenter that takes images (H, W)."""
    task = {"name": "segmentation", "class_names": list(NAMES)}
    known = {"architecture": "blurring", "arguments": {}, "precision": "fp32", "params": 1, "macs": 1}
    trained = Exported({**known, "preprocess": asdict(Preprocess(size, 1, whole=True)), "task": task})
    return Predictor(trained, Blurring(reach), batch_size=5)


def mapped(predictor: Predictor, image: Array, asked: Tiling) -> MaskMap:
    found = predict_tiles(predictor, io.BytesIO(encode(image, "PNG")), "x", asked)
    assert isinstance(found, MaskMap)
    return found


def whole(predictor: Predictor, image: Array) -> Array:
    """The mask of an image that the network takes as it is."""
    found = predictor.predict([image[None]], ["x"])
    assert isinstance(found, Segmentation)
    return found.masks[0]


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 60))
def test_what_tiles_give_of_a_side_covers_it_once(length: int, tile: int, step: int) -> None:
    tile = min(tile, length)
    begins = places(length, tile, min(step, tile))
    given_by = middles(begins, tile)
    covered = np.concatenate([np.arange(length)[part] for part in given_by.values()])
    assert covered.tolist() == [*range(length)]
    for begin, part in given_by.items():
        assert begin <= part.start <= part.stop <= begin + tile
        for pixel in range(part.start, part.stop):  # no other tile has it nearer to its middle
            own = min(pixel - begin, begin + tile - 1 - pixel)
            assert own + 1 >= max(min(pixel - b, b + tile - 1 - pixel) for b in begins)


@settings(max_examples=60)
@given(st.integers(TILE, 90), st.integers(TILE, 90), st.sampled_from([0.25, 0.4, 0.6]), st.integers(0, 9))
def test_tiles_give_the_mask_of_the_whole_image_where_half_an_overlap_is_what_the_network_sees(
    height: int, width: int, overlap: float, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    image = ndimage.uniform_filter(image, 3)
    reach = (TILE - round(TILE * (1 - overlap))) // 2
    found = mapped(blurring((TILE, TILE), reach), image, Tiling(None, overlap))
    assert found.tiles == len(places(height, TILE, found.grid.step[0])) * len(places(width, TILE, found.grid.step[1]))
    assert np.array_equal(found.answer.masks[0], whole(blurring((height, width), reach), image))


def test_without_enough_overlap_edges_show() -> None:
    """What the test above holds is of the overlap: with less of it, pixels along the edges of tiles differ."""
    image = np.random.default_rng(0).integers(0, 256, (18, 18), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
    found = mapped(blurring((TILE, TILE), 7), image, Tiling(None, 0.0)).answer.masks[0]
    differ = found != whole(blurring((90, 90), 7), image)
    assert 0.01 < differ.mean() < 0.5
    near_an_edge = np.abs(np.arange(90)[:, None] - np.array([32, 58, 64])).min(1) <= 7
    assert not differ[~near_an_edge][:, ~near_an_edge].any()


def test_a_trained_network_says_of_tiles_what_it_says_of_the_whole_image() -> None:
    """msresnet_micro with its pyramid sees beyond half an overlap; what it learnt to look at lies within it."""
    rng = np.random.default_rng(0)
    scene, truth = rng.random((96, 96)) * 0.4, np.zeros((96, 96))
    for top, left in [(5, 5), (20, 28), (28, 70), (44, 40), (60, 10), (70, 74), (84, 50), (8, 84)]:
        truth[top : top + 6, left : left + 6] = 1
    scene += 0.5 * truth
    corners = rng.integers(0, 64, (60, 2))
    cuts = np.stack([scene[y : y + 32, x : x + 32] for y, x in corners])
    known = np.stack([truth[y : y + 32, x : x + 32] for y, x in corners])
    quick: dict[str, Any] = {"model": "msresnet_micro", "batch_size": 16, "lr": 0.01, "epochs": 8}
    model = Segmenter(**quick, options={"device": "cpu", "precision": "fp32"}).fit(cuts, known)
    bundle = model.bundle_
    image = np.rint(scene * 255).clip(0, 255).astype(np.uint8)
    untiled = whole(predictor_of(replace(bundle, preprocess=replace(bundle.preprocess, size=(96, 96))), "cpu"), image)
    assert (untiled & (truth > 0)).sum() / (untiled | (truth > 0)).sum() > 0.7
    tiled = mapped(predictor_of(bundle, "cpu"), image, Tiling(None, 0.5))
    assert tiled.tiles == 25
    assert (tiled.answer.masks[0] == untiled).mean() > 0.98
    assert (tiled.answer.masks[0] & untiled).sum() / (tiled.answer.masks[0] | untiled).sum() > 0.85


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 7), st.integers(0, 99))
def test_a_square_has_the_class_of_most_of_its_pixels(height: int, width: int, side: int, seed: int) -> None:
    mask = np.random.default_rng(seed).integers(0, 3, (height, width), dtype=np.uint8)
    coarse = Grid((height, width), (side, side), (side, side))
    labels, areas = majority(mask, coarse, 4)
    assert areas.tolist() == np.bincount(mask.ravel(), minlength=4).tolist()
    assert labels.shape == coarse.cells
    for row, column in np.ndindex(coarse.cells):
        square = mask[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert labels[row, column] == np.bincount(square.ravel()).argmax()


def test_an_image_within_a_tile_is_answered_as_without_tiles() -> None:
    image = smooth_pixels(30, 25)[:, :, 2]
    predictor = blurring((TILE, TILE), 2)
    found = mapped(predictor, image, Tiling())
    plain = predictor.predict([image[None]], ["x"])
    assert isinstance(plain, Segmentation)
    assert np.array_equal(found.answer.masks[0], plain.masks[0])
    assert found.answer.confidences == pytest.approx(plain.confidences)
    assert found.tiles == 1


def test_the_command_writes_the_mask_the_map_and_outlines_to_the_pixel(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("msresnet.cli.predict_tiles.open_predictor", lambda *_: blurring((TILE, TILE), 3))
    image = ndimage.uniform_filter(np.random.default_rng(3).integers(0, 256, (70, 51), dtype=np.uint8), 5)
    Pillow.fromarray(image).save(here / "big.png")
    assert main(["predict", "big.png", "--model", "m", "--tile", "--output", "maps", "--format", "json"]) == 0
    captured = capsys.readouterr()
    assert "tiles of 32x32: " in captured.err
    (row,) = json.loads(captured.out)
    folder = here / "maps" / "big.png"
    assert {p.name for p in folder.iterdir()} == {
        "counts.csv", "map.png", "mask.png", "regions.geojson", "summary.json",
    }  # fmt: skip
    with Pillow.open(folder / "mask.png") as picture:
        mask = np.asarray(picture)
    assert np.array_equal(mask, whole(blurring((70, 51), 3), image))
    with (folder / "counts.csv").open(encoding="utf-8") as file:
        counts = list(csv.DictReader(file))
    assert [line["class"] for line in counts] == ["'=dark", *NAMES[1:]]
    assert [int(line["area"]) for line in counts] == np.bincount(mask.ravel(), minlength=3).tolist()
    assert {s["label"]: s["share"] for s in row["shares"]}["grey"] == pytest.approx(float((mask == 1).mean()), abs=1e-4)
    features = json.loads((folder / "regions.geojson").read_text(encoding="utf-8"))["features"]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert len(features) == summary["regions"] == sum(ndimage.label(mask == c)[1] for c in range(3))
    assert (summary["tiles"], summary["outlined"], summary["confidence"]) == (6, 1, row["confidence"])
    for index, name in enumerate(NAMES):
        mine = [f for f in features if f["properties"]["class"] == name]
        outlined = sum(signed_area(ring) for f in mine for ring in f["geometry"]["coordinates"])
        assert outlined == sum(f["properties"]["area"] for f in mine) == (mask == index).sum()
    with Pillow.open(folder / "map.png") as picture:
        assert picture.width > picture.height > 300


def test_a_mask_that_would_be_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "MOST", 64 * 64 - 1)
    with pytest.raises(UsageError, match="64 x 64 pixels"):
        mapped(blurring((TILE, TILE), 1), np.zeros((64, 64), np.uint8), Tiling())
    assert squares((masks.OUTLINED, 5)).step == (1, 1)
    assert squares((masks.OUTLINED + 1, 5)).step == (2, 2)
