"""The Python door for masks: the article's call, forms of images and masks, what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.base import clone

from msresnet import Classifier, Segmenter, load
from msresnet.errors import DataError, UsageError
from msresnet.results import Segmentation

Array = npt.NDArray[Any]
QUICK: dict[str, Any] = {
    "model": "msresnet_micro",
    "batch_size": 16,
    "lr": 0.01,
    "options": {"device": "cpu", "precision": "fp32"},
}


def boxes(count: int, side: int = 16, white: float = 1.0) -> tuple[Array, Array]:
    """Bright boxes on dark, noisy ground (N, H, W) in 0 to `white`, and where they are."""
    rng = np.random.default_rng(side + count)
    images, masks = rng.random((count, side, side)) * 0.4, np.zeros((count, side, side))
    for image, mask, (top, left) in zip(images, masks, rng.integers(1, side - 7, (count, 2)), strict=True):
        mask[top : top + 6, left : left + 6] = 1
        image[top : top + 6, left : left + 6] += 0.5
    return images * white, masks


@pytest.fixture(scope="module")
def trained() -> Segmenter:
    """Fitted to floats and to masks of 0 and 255."""
    images, masks = boxes(40)
    return Segmenter(epochs=10, **QUICK).fit(images, masks * 255)


def test_the_articles_call_learns_one_image_from_its_binary_image() -> None:
    image, mask = (a[0] for a in boxes(1, 24))
    gray_image = image.astype("float32")
    binary_image = (gray_image > 0.5).astype("float32")
    model = Segmenter(epochs=10, **QUICK).fit(gray_image, binary_image)
    answer = model.predict(gray_image)
    assert answer.shape == (24, 24)
    assert (answer == mask).mean() > 0.95
    assert set(np.unique(answer)) <= {0, 1}


def test_masks_come_back_as_the_numbers_and_forms_that_went_in(trained: Segmenter) -> None:
    images, masks = boxes(5)
    found = trained.predict(images)
    assert found.shape == masks.shape
    assert (found == masks * 255).mean() > 0.95
    assert trained.classes_.tolist() == [0, 255]
    assert (trained.predict(images[0]) == found[0]).all()
    several = trained.predict([images[0], boxes(1, 20)[0][0]])
    assert [mask.shape for mask in several] == [(16, 16), (20, 20)]
    assert (several[0] == found[0]).all()


def test_images_as_narrow_as_colour_has_channels(trained: Segmenter) -> None:
    for width in (1, 3):
        (mask,) = trained.predict([np.zeros((32, width))])
        assert mask.shape == (32, width)


def test_one_photograph_is_one_image() -> None:
    images, masks = boxes(8)
    colours = np.repeat((images * 100).astype(np.uint8)[..., None], 3, axis=-1)
    model = Segmenter(**QUICK, epochs=1, validation_fraction=0).fit(colours, masks)
    assert model.predict(colours[0]).shape == (16, 16)
    assert len(Segmenter(**QUICK, epochs=1).fit(colours[0], masks[0]).predict(colours)) == 8
    assert model.predict(colours[:2]).shape == (2, 16, 16)
    assert model.predict([colours[0]])[0].shape == (16, 16)


def test_evaluation_and_score(trained: Segmenter) -> None:
    images, masks = boxes(6)
    measured = trained.evaluate(images, masks * 255)
    right = float((trained.predict(images) == masks * 255).mean())
    assert measured.metrics["pixel_accuracy"] == pytest.approx(right)
    assert trained.score(images, masks * 255) == measured.metrics["miou"]
    assert "pixel accuracy" in str(measured)
    assert "<b>" in measured._repr_html_()
    unknown = masks * 255
    unknown[:, :8] = -1
    half = trained.evaluate(images, unknown)
    assert half.metrics["pixels"] == 6 * 8 * 16


def test_what_is_saved_answers_as_before(trained: Segmenter, tmp_path: Path) -> None:
    images, _ = boxes(4)
    again = load(trained.save(tmp_path / "kept"))
    assert isinstance(again, Segmenter)
    assert (again.predict(images) == trained.predict(images)).all()
    assert again.classes_.tolist() == [0, 255]


def test_data_by_name_and_files(tmp_path: Path) -> None:
    images, masks = boxes(12, white=255)
    np.savetxt(tmp_path / "boxes.csv", images.reshape(12, -1), "%d", ",")
    np.savetxt(tmp_path / "boxes-masks.csv", masks.reshape(12, -1), "%d", ",")
    model = Segmenter(epochs=1, **QUICK).fit(str(tmp_path / "boxes.csv"))
    assert model.classes_.tolist() == ["background", "foreground"]
    assert model.evaluate(str(tmp_path / "boxes.csv")).metrics["n"] == 12
    again = load(model.save(tmp_path / "kept"))
    assert isinstance(again, Segmenter)
    assert set(np.unique(again.predict(images.astype(np.uint8)))) <= {0, 1}
    Image.fromarray(images[0].astype(np.uint8)).save(tmp_path / "one.png")
    results = model.predict(str(tmp_path / "one.png"))
    assert isinstance(results, Segmentation)
    assert results.masks[0].shape == (16, 16)


def test_it_is_an_estimator() -> None:
    model = Segmenter("msresnet_micro", epochs=3, options={"dice": 0.3})
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(UsageError, match="Segmenter\\(random_state=3\\)"):
        Segmenter(options={"seed": 3}).fit(*boxes(4))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x, y[:3]), "3 masks for 8 images"),
        (lambda x, y: (x, y[:, 1:]), "another size"),
        (lambda x, y: (np.where(x > 0.8, np.nan, x), y), "NaN"),
        (lambda x, y: (x, np.where(y > 0, np.nan, y)), "NaN"),
        (lambda x, y: (x, y * 0.5), "fractions"),
        (lambda x, y: (x, y * 0), "one class"),
        (lambda x, y: (x, np.arange(y.size).reshape(y.shape)), "2048 classes"),
        (lambda x, y: (x.astype(str), y), "numbers"),
        (lambda x, y: ([], []), "empty"),
        (lambda x, y: (x, None), "learnt from masks"),
        (lambda x, y: ("digits", None), "Segmenter for segmentation"),
        (lambda x, y: (x.ravel(), y.ravel()), "numbers \\(H, W\\)"),
    ],
)
def test_what_cannot_be_learnt(spoil: Any, message: str) -> None:
    model = Segmenter(epochs=1, **QUICK)
    with pytest.raises((UsageError, DataError), match=message):
        model.fit(*spoil(*boxes(8)))
    assert "bundle_" not in vars(model)


def test_unknown_numbers_in_later_masks(trained: Segmenter) -> None:
    images, masks = boxes(3)
    with pytest.raises(DataError, match=r"holds 7.*not a class[\s\S]*0, 255"):
        trained.evaluate(images, np.where(masks > 0, 7, 0))
    with pytest.raises(UsageError, match="needs masks"):
        trained.evaluate(images)


def test_a_classifier_takes_no_masks() -> None:
    with pytest.raises(UsageError, match="Classifier for classification"):
        Classifier(epochs=1).fit("binary-digits")
