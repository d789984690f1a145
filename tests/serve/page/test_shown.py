"""What the page is told of models: pens against the digits that people wrote, and pictures of answers."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from msresnet.bundle import load_bundle
from msresnet.data.decode import decode_bytes
from msresnet.data.preprocess import Preprocess
from msresnet.data.sources.digits import digits
from msresnet.data.sources.idx import read_idx
from msresnet.infer.backends.opened import open_predictor
from msresnet.results import Classification, Segmentation
from msresnet.serve.page.pictures import LONGEST, drawn
from msresnet.serve.page.shown import Pen, described, examples, framed, pen
from msresnet.tasks.palette import palette


def grey(mean: float, side: int = 28) -> Preprocess:
    return Preprocess((side, side), 1, mean=(mean,), std=(0.3,))


def opened(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def span(images: npt.NDArray[np.uint8]) -> float:
    """The mean of the longer side of what is written, as a share of the image's."""
    found = []
    for image in images:
        rows, columns = (np.flatnonzero((image > 64).any(axis)) for axis in (1, 0))
        found.append((max(np.ptp(rows), np.ptp(columns)) + 1) / len(image))
    return float(np.mean(found))


def test_digits_of_scikit_learn_fill_their_square() -> None:
    images = digits().images[:, 0]
    chosen = pen(grey(float(images.mean()) / 255, 24))
    assert chosen is not None
    assert chosen.fill == pytest.approx(span(images), abs=0.05)
    assert not chosen.dark


def test_digits_of_mnist_fill_two_thirds_of_it(shared_data: Path) -> None:
    images = read_idx(shared_data / "mnist" / "t10k-images-idx3-ubyte.gz", 3)
    chosen = pen(grey(float(images.mean()) / 255))
    assert chosen is not None
    assert chosen.fill == pytest.approx(span(images[:500]), abs=0.06)


def test_a_bright_mean_is_dark_ink_on_paper() -> None:
    bright, dark = pen(grey(0.87)), pen(grey(0.13))
    assert bright is not None
    assert dark is not None
    assert (bright.dark, dark.dark) == (True, False)
    assert bright[:2] == dark[:2]


@pytest.mark.parametrize(
    "preprocess", [Preprocess((28, 28), 3, mean=(0.1,) * 3, std=(0.3,) * 3), grey(0.1, 128)], ids=["colour", "large"]
)
def test_nothing_is_drawn_for_photographs(preprocess: Preprocess) -> None:
    assert pen(preprocess) is None


@pytest.mark.parametrize("fill", [1.0, 0.71])
@pytest.mark.parametrize("dark", [False, True])
def test_examples_have_their_place_in_the_square(fill: float, dark: bool) -> None:
    images = digits().images[:10]
    made = [np.asarray(framed(image, Pen(fill, 0.1, dark))) for image in images]
    ink = np.stack([255 - image if dark else image for image in made])
    assert span(ink) == pytest.approx(fill, abs=0.06)


def test_the_examples_are_known_to_the_model(trained: Path) -> None:
    bundle = load_bundle(trained)
    pictures = [decode_bytes(base64.b64decode(row["source"].partition(",")[2]), "x") for row in examples(bundle)]
    answers = open_predictor(trained).predict(pictures, ["x"] * 10)
    assert isinstance(answers, Classification)
    assert (answers.indices == np.arange(10)).sum() >= 9
    assert [row["words"] for row in examples(bundle)][:2] == ["a handwritten 0", "a handwritten 1"]


def test_other_classes_have_no_examples(nasty: Path) -> None:
    bundle = load_bundle(nasty)
    assert examples(bundle) == []
    found = described("n", bundle, True)
    assert (found["drawing"], found["classes"]) == (None, 3)
    assert found["input"] == {"height": 20, "width": 20, "channels": 3}


def test_masks_are_drawn_in_the_colours_that_are_named() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[5:10, 6:9], mask[20:, :] = 1, 3
    results = Segmentation(("x",), ("none", "cat", "dog", "fox"), (mask,), np.array([0.9]))
    shown = drawn(results)["mask"]
    picture = np.asarray(opened(shown["image"]).convert("RGB"))
    assert np.array_equal(picture, palette(4)[mask])
    assert shown["colours"] == {
        name: "#" + bytes(palette(4)[i]).hex() for name, i in (("none", 0), ("cat", 1), ("fox", 3))
    }


def test_large_masks_are_reduced_and_classes_have_no_picture() -> None:
    large = np.zeros((100, 2 * LONGEST + 1), np.uint8)
    shown = drawn(Segmentation(("x",), ("a", "b"), (large,), np.array([0.9])))["mask"]
    assert opened(shown["image"]).width <= LONGEST
    assert drawn(Classification(("x",), ("a", "b"), np.array([[0.2, 0.8]]))) == {}
