"""Boxes from tiles: what lies in an image is found once, as a whole, wherever the tiles' edges are.

In place of a network stands one that is never wrong: it frames every bright patch that it sees, whole or cut.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from scipy import ndimage

from hostile import encode
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.errors import UsageError
from msresnet.infer.backend import Backend, Pixels
from msresnet.infer.config import Tiling
from msresnet.infer.predictor import Predictor
from msresnet.infer.tiling.predict import predict_tiles
from msresnet.tasks.tiling.boxes import BoxMap, Seen, one_each
from msresnet.trained import Exported

NAMES = ("=dim", "bright")
TILE, PLACES = 32, 40
Places = list[tuple[int, int, int, int]]


class Framing(Backend):
    """Frames connected pixels above black: of class 0 below 150, else of class 1; surer of the larger ones."""

    name, precision, threads, reason = "framing", "fp32", 1, "for tests"

    def __call__(self, images: Pixels) -> tuple[Any, None]:
        """(B, 1, H, W) uint8 -> (B, PLACES, 4 + 2)."""
        outputs = np.full((len(images), PLACES, 6), -20, np.float32)
        outputs[:, :, :4] = 0
        for row, image in zip(outputs, np.asarray(images), strict=True):
            parts, _ = ndimage.label(image[0] > 20, np.ones((3, 3)))
            for number, (down, across) in enumerate(ndimage.find_objects(parts)):
                row[number, :4] = across.start, down.start, across.stop, down.stop
                row[number, 4 + int(image[0, down, across].max() > 150)] = 2 + (row[number, 2:4].sum() % 7) / 4
        return outputs, None


def framing(side: int = TILE) -> Predictor:
    """A detector of bright patches that takes images of so many pixels."""
    preprocess = Preprocess((side, side), 1, whole=True)
    task = {"name": "detection", "class_names": list(NAMES)}
    known = {"architecture": "framing", "arguments": {}, "precision": "fp32", "params": 1, "macs": 1}
    trained = Exported({**known, "preprocess": asdict(preprocess), "task": task})
    return Predictor(trained, Framing(), batch_size=5)


def scene(height: int, width: int, places: Places) -> npt.NDArray[np.uint8]:
    """Patches on black."""
    image = np.zeros((height, width), np.uint8)
    for number, (left, top, right, bottom) in enumerate(places):
        image[top:bottom, left:right] = (100, 220)[number % 2]
    return image


def found(image: npt.NDArray[np.uint8], asked: Tiling) -> BoxMap:
    answer = predict_tiles(framing(), io.BytesIO(encode(image, "PNG")), "x", asked)
    assert isinstance(answer, BoxMap)
    return answer


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, int, Places]:
    """Patches of 4 to 14 pixels on a lattice that keeps them apart."""
    rows, columns, pitch = draw(st.integers(1, 5)), draw(st.integers(1, 6)), 20
    places = []
    for row in range(rows):
        for column in range(columns):
            if draw(st.booleans()):
                wide, high = draw(st.integers(4, 14)), draw(st.integers(4, 14))
                left, top = column * pitch + draw(st.integers(0, 4)), row * pitch + draw(st.integers(0, 4))
                places.append((left, top, left + wide, top + high))
    return max(40, rows * pitch), max(40, columns * pitch), places


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_objects_smaller_than_the_overlap_are_found_once_and_whole(given: tuple[int, int, Places]) -> None:
    """The truth is what was painted; tiles overlap by 16 pixels, patches have at most 14."""
    height, width, places = given
    answer = found(scene(height, width, places), Tiling(TILE, 0.5)).answer
    expected = {(place, number % 2) for number, place in enumerate(places)}
    boxes = {(tuple(map(round, box)), int(kind)) for box, kind in zip(answer.boxes[0], answer.classes[0], strict=True)}
    assert len(answer.boxes[0]) == len(places)
    assert boxes == expected
    assert (np.diff(answer.scores[0]) <= 0).all()


@pytest.mark.parametrize("place", [(10, 40, 190, 52), (100, 3, 111, 97), (20, 10, 180, 90)])
@pytest.mark.parametrize("overlap", [0.25, 0.5])
def test_an_object_that_no_tile_holds_is_put_together(place: tuple[int, int, int, int], overlap: float) -> None:
    answer = found(scene(100, 200, [place, (0, 0, 5, 5)]), Tiling(TILE, overlap)).answer
    assert {tuple(map(round, box)) for box in answer.boxes[0]} == {place, (0, 0, 5, 5)}


def test_an_image_within_a_tile_is_answered_as_without_tiles() -> None:
    image = scene(30, 28, [(2, 3, 9, 12), (15, 15, 25, 28)])
    answer = found(image, Tiling(TILE)).answer
    plain: Any = framing().predict([image[None]], ["x"])
    assert np.array_equal(answer.boxes[0], plain.boxes[0])
    assert np.array_equal(answer.scores[0], plain.scores[0])


LEFT, RIGHT = (0, 0, 32, 32), (16, 0, 48, 32)
Row = tuple[tuple[float, float, float, float], float, int, tuple[int, int, int, int], bool]


def joined(*rows: Row) -> tuple[list[list[float]], list[int]]:
    """Boxes and classes of rows of box, score, class, tile and whether it is cut."""
    boxes, scores, classes, tiles, cut = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    seen = Seen(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
        np.array(tiles, np.float32).reshape(-1, 4),
        np.array(cut, np.bool_),
    )
    found = one_each(seen, 0.6)
    assert (np.diff(found[1]) <= 0).all()
    return found[0].tolist(), found[2].tolist()


def test_parts_belong_together_by_class_and_place() -> None:
    assert joined() == ([], [])
    found = joined(
        ((10, 5, 32, 20), 0.5, 0, LEFT, True),
        ((16, 5, 40, 20), 0.9, 0, RIGHT, True),
        ((16, 5, 40, 20), 0.8, 1, RIGHT, True),
        ((18, 22, 40, 30), 0.7, 0, RIGHT, True),
    )
    assert found == ([[10, 5, 40, 20], [16, 5, 40, 20], [18, 22, 40, 30]], [0, 1, 0])


def test_a_small_object_in_front_does_not_take_a_large_ones_part_away() -> None:
    large = [((0, 0, 32, 20), 0.99, 0, LEFT, True), ((16, 0, 48, 20), 0.99, 0, RIGHT, True)]
    boxes, _ = joined(*large, ((17, 2, 30, 18), 0.3, 0, LEFT, False))
    assert boxes == [[0, 0, 48, 20], [17, 2, 30, 18]]


def test_what_one_tile_told_apart_stays_apart() -> None:
    boxes, _ = joined(
        ((2, 4, 31.5, 28), 0.9, 0, LEFT, True),
        ((16.5, 4, 32, 28), 0.8, 0, LEFT, True),
        ((16, 4, 31.5, 28), 0.7, 0, RIGHT, True),
        ((16.5, 4, 46, 28), 0.6, 0, RIGHT, True),
    )
    assert boxes == [[2, 4, 31.5, 28], [16.5, 4, 46, 28]]


def test_boxes_of_tiles_that_the_network_sees_reduced_are_in_the_images_pixels() -> None:
    places = [(4, 8, 20, 24), (60, 8, 90, 30), (100, 60, 118, 84)]
    answer = found(scene(100, 160, places), Tiling(2 * TILE, 0.5)).answer
    assert len(answer.boxes[0]) == 3
    # Reducing blurs edges by a pixel of the network's, which is two of the image's.
    assert np.abs(np.sort(answer.boxes[0], 0) - np.sort(np.array(places), 0)).max() <= 2


def test_more_boxes_than_memory_should_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msresnet.tasks.tiling.boxes.MOST", 2)
    with pytest.raises(UsageError, match="more than 2 boxes"):
        found(scene(99, 99, [(0, 0, 5, 5), (40, 0, 45, 5), (0, 40, 5, 45)]), Tiling(TILE))


def test_what_has_no_effect_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="--whole max has no effect"):
        found(scene(99, 99, []), Tiling(TILE, whole="max"))
    monkeypatch.setattr("msresnet.cli.predict_tiles.open_predictor", lambda *_: framing())
    assert main(["predict", "absent.png", "--tile", "--whole", "max", "--format", "csv"]) == 2
    assert capsys.readouterr().out == "", "nothing is printed before it is known"


def test_the_command_writes_boxes_of_a_large_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = [(10, 10, 20, 22), (100, 30, 110, 41), (60, 60, 70, 70)]
    Path("big.png").write_bytes(encode(scene(90, 140, places), "PNG"))
    monkeypatch.setattr("msresnet.cli.predict_tiles.open_predictor", lambda *_: framing())
    words = ["predict", "big.png", "--tile", "--overlap", "0.5", "--output", "maps", "--format", "json"]
    assert main(words) == 0
    captured = capsys.readouterr()
    (row,) = json.loads(captured.out)
    assert main([*words[:3], "--overlap", "0.5", "--score", "0.99", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["count"] == 0
    assert {tuple(d["box"]) for d in row["detections"]} == set(places)
    assert "2 =dim" in captured.err
    folder = tmp_path / "maps" / "big.png"
    assert list(csv.reader((folder / "counts.csv").read_text().splitlines())) == [
        ["class", "objects"],
        ["'=dim", "2"],
        ["bright", "1"],
    ]
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["objects"], summary["regions"], summary["tile"]) == (3, 3, [TILE, TILE])
    shapes = json.loads((folder / "regions.geojson").read_text())["features"]
    assert [len(shape["geometry"]["coordinates"][0]) for shape in shapes] == [5, 5, 5]
    with Pillow.open(folder / "map.png") as picture:
        assert picture.width > picture.height > 180
