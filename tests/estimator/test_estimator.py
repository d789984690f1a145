"""The Python door: scikit-learn's own checks, and what users do with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import msresnet
from msresnet import Classifier
from msresnet.errors import DataError, UsageError

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 64, "options": {"precision": "fp32", "device": "cpu"}}


def expected_failures(estimator: Classifier) -> dict[str, str]:
    """Checks that no image model can pass, each with its reason. There is none."""
    return {}


@pytest.mark.filterwarnings("ignore:Can't check dok sparse matrix for nan or inf")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [Classifier(epochs=12, batch_size=16, validation_fraction=0.0, options={"precision": "fp32", "device": "cpu"})],
    expected_failed_checks=expected_failures,
)
def test_scikit_learn_checks(estimator: Classifier, check: Any) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    bunch = load_digits()
    return bunch.images[:400], bunch.target[:400]


@pytest.fixture(scope="module")
def trained(digits: tuple[Any, Any]) -> Classifier:
    return Classifier(**FAST | {"epochs": 25, "lr": 0.01}).fit(*digits)


def test_it_learns_digits(trained: Classifier, digits: tuple[Any, Any]) -> None:
    bunch = load_digits()
    assert trained.score(bunch.images[400:], bunch.target[400:]) > 0.85
    assert trained.classes_.tolist() == list(range(10))


def test_shapes_of_one_set_give_one_answer(trained: Classifier, digits: tuple[Any, Any]) -> None:
    images, _ = digits
    expected = trained.predict_proba(images[:9])
    assert expected.shape == (9, 10)
    assert np.allclose(expected.sum(1), 1)
    for same in (images[:9, None], images[:9, ..., None], images[:9].astype("float32")):
        assert np.array_equal(trained.predict_proba(same), expected)


def test_probabilities_do_not_depend_on_company(trained: Classifier, digits: tuple[Any, Any]) -> None:
    images, _ = digits
    together = trained.predict_proba(images[:101])
    for size in (1, 2, 3, 17, 64):
        parts = [trained.predict_proba(images[i : min(101, i + size)]) for i in range(0, 101, size)]
        assert np.array_equal(np.concatenate(parts), together)


def test_flat_rows_work_in_a_pipeline_and_a_grid_search() -> None:
    bunch = load_digits(n_class=3)
    rows, labels = bunch.data[:150], np.array(["zero", "one", "two"])[bunch.target[:150]]
    pipeline = Pipeline([("scale", MinMaxScaler()), ("net", Classifier(**FAST))])
    search = GridSearchCV(pipeline, {"net__epochs": [1, 6]}, cv=2, error_score="raise").fit(rows, labels)
    assert search.best_params_ == {"net__epochs": 6}
    assert set(search.predict(rows[:20])) <= {"zero", "one", "two"}


def test_saved_and_loaded_it_answers_alike(trained: Classifier, digits: tuple[Any, Any], tmp_path: Path) -> None:
    images, labels = digits
    loaded = msresnet.load(trained.save(tmp_path / "model"))
    assert np.array_equal(loaded.predict_proba(images), trained.predict_proba(images))
    assert np.array_equal(loaded.predict(images), trained.predict(images))
    assert loaded.score(images, labels) == trained.score(images, labels)


def test_validation_data_chooses_the_model(digits: tuple[Any, Any]) -> None:
    images, labels = digits
    model = Classifier(**FAST).fit(images[:300], labels[:300], validation_data=(images[300:], labels[300:]))
    expected = model.evaluate(images[300:], labels[300:]).metrics["loss"]
    assert model.history_[-1]["val_loss"] == pytest.approx(expected, rel=1e-4)


def test_epochs_and_batch_size_of_one_call(digits: tuple[Any, Any]) -> None:
    model = Classifier(**FAST).fit(*digits, epochs=2, batch_size=100)
    assert len(model.history_) == 2
    assert model.get_params()["epochs"] == 1


def test_a_folder_is_trained_on_measured_and_asked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 150)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(low, low + 100, (12, 12)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    model = Classifier(**FAST | {"epochs": 12, "batch_size": 8}).fit(tmp_path / "set")
    answer = model.predict(tmp_path / "set" / "bright" / "3.png")
    assert answer.labels == ["bright"]
    assert model.evaluate(tmp_path / "set").metrics["top1"] > 0.9
    assert len(model.predict(str(tmp_path / "set" / "dark"))) == 12


def test_shares_of_255_are_understood_by_a_model_of_bytes(digits: tuple[Any, Any]) -> None:
    images = (digits[0] * 15).astype(np.uint8)
    model = Classifier(**FAST).fit(images, digits[1])
    assert np.array_equal(model.predict_proba(images[:5]), model.predict_proba(images[:5] / 255))


def test_it_shows_in_a_notebook(trained: Classifier, digits: tuple[Any, Any]) -> None:
    assert "top-1" in trained.evaluate(*digits)._repr_html_()
    assert "<" in trained._repr_html_()


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.zeros((4, 5, 5)), None, "requires y"),
        (np.zeros((4, 5, 5, 2)), [0, 1, 0, 1], "are no images"),
        (np.zeros((4, 5, 5)), [0, 1, 0], "inconsistent"),
        (np.full((4, 5, 5), np.nan), [0, 1, 0, 1], "NaN"),
        ("no/such/folder", None, "no data at"),
    ],
)
def test_bad_input_is_a_value_error(X: Any, y: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Classifier(**FAST).fit(X, y)


def test_unknown_options_and_labels_are_named(trained: Classifier, digits: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match="optimizer"):
        Classifier(options={"optimiser": "sgd"}).fit(*digits)
    with pytest.raises(DataError, match="unknown label '11'"):
        trained.score(digits[0][:2], [1, 11])
