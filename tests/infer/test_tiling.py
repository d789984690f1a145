"""Tiles: they cover the image, are answered as crops of it are, and their map is the mean that is promised."""

from __future__ import annotations

import csv
import io
import json
import os
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from hostile import encode, laid_down, png_claiming, random_pixels, smooth_pixels, truncated_jpeg
from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.data.bands import base
from msresnet.data.decode import decode_bytes
from msresnet.errors import DataError, UsageError
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.config import Tiling
from msresnet.infer.predictor import Predictor
from msresnet.infer.tiling.predict import predict_tiles
from msresnet.results import classified
from msresnet.tasks.tiling.classes import Blend, ClassMap
from msresnet.tasks.tiling.grid import Grid, grid_for, places
from msresnet.tasks.tiling.regions import signed_area
from sharding import NAMES, SIDE, rows

HEIGHT, WIDTH = 61, 47


@pytest.fixture
def predictor(model: Path) -> Predictor:
    return predictor_of(load_bundle(model), "cpu", batch_size=7)


def mapped(*asked: Any) -> ClassMap:
    """What `predict_tiles` gives for a classifier."""
    found = predict_tiles(*asked)
    assert isinstance(found, ClassMap)
    return found


@pytest.fixture(autouse=True)
def _small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BAND_BYTES", 1024)


@given(st.integers(1, 300), st.integers(1, 100), st.floats(0, 0.9))
def test_tiles_cover_a_side_and_stay_inside(length: int, side: int, overlap: float) -> None:
    grid = grid_for((length, length), (side, side), overlap)
    tile, begins = grid.tile[0], grid.tops
    assert begins[0] == 0
    assert begins[-1] + tile == length
    assert begins == sorted(set(begins))
    assert all(b - a <= tile * (1 - overlap) + 1 for a, b in pairwise(begins))
    assert grid.areas.sum() == length**2


def test_a_tile_is_no_larger_than_the_image() -> None:
    assert grid_for((100, 90), (28, 32), 0.25).tile == (28, 32)
    assert grid_for((20, 90), (28, 32), 0.25).tile == (20, 32)
    assert places(10, 10, 3) == [0]
    assert places(11, 10, 3) == [0, 1]


@given(st.integers(20, 60), st.integers(20, 60), st.integers(8, 19), st.floats(0, 0.9), st.integers(0, 99))
def test_a_cell_is_the_mean_over_its_pixels_and_the_tiles_on_them(
    height: int, width: int, side: int, overlap: float, seed: int
) -> None:
    """Pixel by pixel is the truth."""
    grid, random = grid_for((height, width), (side, side), overlap), np.random.default_rng(seed)
    blend, total, count = Blend(grid, 3), np.zeros((height, width, 3)), np.zeros((height, width, 1))
    for top in grid.tops:
        for left in grid.lefts:
            answer = random.dirichlet(np.ones(3))
            blend.add((top, left), answer)
            total[top : top + side, left : left + side] += answer
            count[top : top + side, left : left + side] += 1
    assert count.min() >= 1
    found = blend.probabilities()
    for row, column in np.ndindex(grid.cells):
        down = slice(row * grid.step[0], (row + 1) * grid.step[0])
        across = slice(column * grid.step[1], (column + 1) * grid.step[1])
        truth = total[down, across].sum((0, 1)) / count[down, across].sum()
        assert np.allclose(found[row, column], truth, atol=1e-5)


def by_hand(predictor: Predictor, image: npt.NDArray[np.uint8], grid: Grid) -> dict[tuple[int, int], Any]:
    """The answer for each tile, cut out of the whole image."""
    corners = [(top, left) for top in grid.tops for left in grid.lefts]
    high, wide = grid.tile
    cut = [image[:, top : top + high, left : left + wide] for top, left in corners]
    found = classified(predictor.predict(cut, [str(c) for c in corners]))
    return dict(zip(corners, found.probabilities, strict=True))


def files() -> dict[str, bytes]:
    pixels = smooth_pixels(HEIGHT, WIDTH)
    noisy = (pixels // 2 + random_pixels(HEIGHT, WIDTH, 3) // 2).astype(np.uint8)
    found = {form: encode(noisy, form) for form in ("PNG", "TIFF", "JPEG", "WEBP", "BMP")}
    for orientation in (3, 6, 7):
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        found[f"PNG {orientation}"] = encode(laid_down(noisy, orientation), "PNG", exif=exif)
    return found


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("name", [*files()])
def test_tiles_of_a_file_are_answered_as_crops_of_the_decoded_image(
    name: str, overlap: float, predictor: Predictor
) -> None:
    data = files()[name]
    image = decode_bytes(data, "x")
    found = mapped(predictor, io.BytesIO(data), "x", Tiling(SIDE + 3, overlap))
    answers = by_hand(predictor, image, found.grid)
    blend = Blend(found.grid, 3)
    for corner, answer in answers.items():
        blend.add(corner, answer)
    # float32 sums depend on the order, which is the file's
    assert np.allclose(found.probabilities, blend.probabilities(), atol=1e-6)
    winners = np.argmax([*answers.values()], 1)
    assert found.tiles.tolist() == np.bincount(winners, minlength=3).tolist()
    mean = np.average(found.probabilities.reshape(-1, 3), 0, found.grid.areas.ravel())
    assert np.allclose(found.answer.probabilities[0], mean, atol=1e-6)
    assert found.areas.sum() == image.shape[1] * image.shape[2]
    assert np.array_equal(found.overview, image)


def test_the_highest_of_all_tiles(predictor: Predictor) -> None:
    data = files()["PNG"]
    found = mapped(predictor, io.BytesIO(data), "x", Tiling(SIDE, 0.25, "max"))
    highest = np.max([*by_hand(predictor, decode_bytes(data, "x"), found.grid).values()], 0)
    assert np.allclose(found.answer.probabilities[0], highest / highest.sum())


@pytest.mark.parametrize("size", [(SIDE, SIDE), (5, 9), (30, 25)])
def test_an_image_within_a_tile_is_answered_as_without_tiles(size: tuple[int, int], predictor: Predictor) -> None:
    data = encode(random_pixels(*size, 3), "JPEG")
    found = mapped(predictor, io.BytesIO(data), "x", Tiling(30))
    at_least = predictor.trained.preprocess.at_least
    plain = classified(predictor.predict([decode_bytes(data, "x", at_least)], ["x"]))
    assert np.array_equal(found.answer.probabilities, plain.probabilities)
    assert found.probabilities.shape[:2] == (1, 1)
    assert found.tiles.sum() == 1
    assert found.areas.sum() == size[0] * size[1]


def test_the_overview_is_the_mean_of_squares(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msresnet.infer.tiling.strips.OVERVIEW", 9)
    pixels = random_pixels(HEIGHT, WIDTH)
    found = mapped(predictor, io.BytesIO(encode(pixels, "PNG")), "x", Tiling(SIDE))
    factor = -(-HEIGHT // 9)
    for row, column in np.ndindex(found.overview.shape[1:]):
        square = pixels[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor]
        assert abs(found.overview[0, row, column] - square.mean()) <= 0.5


def test_a_grid_that_is_moved_changes_the_map_by_no_more_than_its_tiles_differ(predictor: Predictor) -> None:
    """What does not depend on the place, such as an image of one colour, has one answer everywhere."""
    flat = encode(np.full((HEIGHT, WIDTH), 99, np.uint8), "PNG")
    maps = [mapped(predictor, io.BytesIO(flat), "x", Tiling(SIDE, o)).probabilities for o in (0.0, 0.5)]
    assert np.allclose(maps[0][0, 0], maps[0], atol=1e-6)
    assert np.allclose(maps[0][0, 0], maps[1], atol=1e-6)


@pytest.mark.parametrize(("side", "overlap"), [(7, 0.25), (0, 0.25), (-3, 0.25), (64, -0.1), (64, 0.95), (64, 1.0)])
def test_tiles_out_of_range(side: int, overlap: float) -> None:
    with pytest.raises(UsageError, match=r"--tile|--overlap"):
        Tiling(side, overlap)


def test_nan_is_no_overlap() -> None:
    with pytest.raises(UsageError, match="--overlap nan"):
        Tiling(64, float("nan"))


def test_a_map_that_would_be_too_large_is_refused_before_it_is_made() -> None:
    with pytest.raises(UsageError, match="a larger --tile"):
        Blend(Grid((300_000, 300_000), (28, 28), (21, 21)), 1000)


def test_I03_a_file_that_is_cut_off_has_no_answer(predictor: Predictor) -> None:
    with pytest.raises(DataError):
        mapped(predictor, io.BytesIO(encode(random_pixels(400, 300), "TIFF")[:60_000]), "x", Tiling(SIDE))


def predict(words: list[str], model: Path, *more: str) -> int:
    return main(["predict", *words, "--model", str(model), "--device", "cpu", *more])


def test_the_command_writes_a_map_for_each_image(model: Path, here: Path, capsys: Any) -> None:
    (here / "a").mkdir()
    for place in ("big.png", "a/big.png", "small.png"):
        size = (SIDE, SIDE) if place == "small.png" else (HEIGHT, WIDTH)
        (here / place).write_bytes(encode(random_pixels(*size, 3), "PNG"))
    words = ["big.png", "a/big.png", "small.png", "./big.png"]
    assert predict(words, model, "--tile", str(SIDE), "--overlap", "0.5", "--output", "maps", "--format", "json") == 0
    captured = capsys.readouterr()
    answers = json.loads(captured.out)
    assert [row["id"] for row in answers] == ["big.png", "a/big.png", "small.png"]
    assert sorted(p.name for p in (here / "maps").iterdir()) == ["a_big.png", "big.png", "small.png"]
    folder = here / "maps" / "big.png"
    assert {p.name for p in folder.iterdir()} == {"counts.csv", "map.png", "regions.geojson", "summary.json"}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["height"], summary["width"], summary["tile"]) == (HEIGHT, WIDTH, [SIDE, SIDE])
    assert summary["probability"] == answers[0]["probability"]
    counts = rows(folder / "counts.csv")
    assert [row["class"] for row in counts] == ["'=cat", *NAMES[1:]]
    assert sum(int(row["area"]) for row in counts) == HEIGHT * WIDTH
    assert sum(int(row["tiles"]) for row in counts) == summary["tiles"] == 10 * 7
    features = json.loads((folder / "regions.geojson").read_text(encoding="utf-8"))["features"]
    assert len(features) == summary["regions"]
    outlined = sum(signed_area(ring) for f in features for ring in f["geometry"]["coordinates"])
    assert outlined == sum(f["properties"]["area"] for f in features) == HEIGHT * WIDTH
    with Pillow.open(folder / "map.png") as picture:
        assert picture.width > picture.height > 300

    plain = predict(["small.png"], model, "--format", "csv")
    assert plain == 0
    untiled = next(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert f"{answers[2]['probability']:.4f}" == untiled["probability"]


@pytest.mark.parametrize("words", [["big.png", "--tile"], ["--tile", "big.png"], ["big.png", "tile=auto"]])
def test_a_side_can_be_left_out(words: list[str], model: Path, here: Path, capsys: Any) -> None:
    (here / "big.png").write_bytes(encode(random_pixels(HEIGHT, WIDTH), "PNG"))
    assert predict(words, model) == 0
    assert f"tiles of {SIDE}x{SIDE}" in capsys.readouterr().err
    assert not (here / "maps").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.png", "--tile", "4"], "--tile 4"),
        (["x.png", "--tile", "64", "--overlap", "1"], "--overlap 1"),
        (["x.png", "--overlap", "0.5"], "--tile auto"),
        (["x.png", "--whole", "max"], "--tile auto"),
        (["x.png", "--tile", "64", "--save-images", "p"], "contradict"),
        (["x.png", "--tile", "64", "--output", "x.csv"], "it is a folder"),
        (["x.png", "--tile", "64", "--format", "parquet"], "parquet"),
    ],
)
def test_what_cannot_be_asked_of_tiles(words: list[str], message: str, model: Path, capsys: Any) -> None:
    assert predict(words, model) == 2
    assert message in capsys.readouterr().err


def test_bad_files_are_told_one_by_one_and_the_rest_is_answered(model: Path, here: Path, capsys: Any) -> None:
    (here / "good.png").write_bytes(encode(random_pixels(HEIGHT, WIDTH), "PNG"))
    bad = {
        "I01.png": b"",
        "I03.jpg": truncated_jpeg(),
        "I05.png": png_claiming(50_000, 50_000),
        "I09.jpg": b"%PDF-1.4",
        "I16.png": encode(random_pixels(1, 2000), "PNG"),
        "cut.tif": encode(random_pixels(200, 200, 3), "TIFF")[:9000],
    }
    for name, data in bad.items():
        (here / name).write_bytes(data)
    (here / "I20.jpg").mkdir()
    (here / "I19.png").symlink_to("I19.png")
    (here / "I19.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(here / "I20.png")
    names = [*bad, "I19.png", "I19.jpg", "I20.jpg", "I20.png", "absent.png", "good.png"]
    assert predict(names, model, "--tile", "20", "--output", "maps", "--format", "jsonl") == 3
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == ["good.png"]
    assert captured.err.count("error: ") == len(names) - 1
    assert all(f"where: {name}" in captured.err for name in names[:-1])
    assert [p.name for p in (here / "maps").iterdir()] == ["good.png"]
    assert "Traceback" not in captured.err


def test_memory_does_not_grow_with_the_height(predictor: Predictor, here: Path) -> None:
    """What Python and numpy hold; 20,000 pixels a side are measured by benchmarks/tiles.py."""
    peaks = []
    for height in (600, 4800):
        path = here / f"{height}.png"
        path.write_bytes(encode(random_pixels(height, 256), "PNG"))
        with path.open("rb") as file:
            tracemalloc.start()
            mapped(predictor, file, "x", Tiling(48, 0.0))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 4200 * 256 / 2, peaks


def test_a_tiled_answer_holds_together(predictor: Predictor) -> None:
    found = mapped(predictor, io.BytesIO(files()["TIFF"]), "x", Tiling(SIDE))
    assert np.allclose(found.probabilities.sum(2), 1, atol=1e-5)
    assert found.answer.probabilities.sum() == pytest.approx(1)
    assert found.note == ""
    assert "no bands" in mapped(predictor, io.BytesIO(files()["BMP"]), "x", Tiling(SIDE)).note
