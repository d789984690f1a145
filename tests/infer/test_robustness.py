"""Curves over scales: areas by hand and by integration, the same images for both models, sizes that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hostile import random_pixels
from msresnet.bundle import Bundle, load_bundle
from msresnet.data.options import DataOptions
from msresnet.data.sample import ArraySource
from msresnet.data.zoom import zoom
from msresnet.errors import DataError, UsageError
from msresnet.infer import robustness as module
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.backends.opened import run_bundle
from msresnet.infer.config import EvaluateConfig, Running, numbers
from msresnet.infer.evaluate import evaluate, prepare
from msresnet.infer.predictor import Predictor
from msresnet.infer.robustness import (
    SCALES,
    Curve,
    against,
    bands,
    check_sizes,
    image_sizes,
    log_weights,
    object_scales,
    robustness,
    tables,
)
from msresnet.models.cost import count_macs
from msresnet.models.factory import create_classifier
from msresnet.results import classified

OPTIONS = DataOptions(workers=0)


@pytest.fixture(scope="module")
def bundle(model: Path) -> Bundle:
    return load_bundle(model)


@pytest.fixture(scope="module")
def source(bundle: Bundle) -> ArraySource:
    """Noise that is labelled with what the model answers, but for every third image."""
    channels, (height, width) = bundle.preprocess.channels, bundle.preprocess.size
    images, names = random_pixels(30, channels, height, width), bundle.task.class_names
    answers = classified(predictor_of(bundle).predict(list(images), [""] * 30)).indices
    answers[::3] = (answers[::3] + 1) % len(names)
    return ArraySource(images, answers, names)


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=8, unique=True))
def test_weights_are_those_of_trapezoids_over_the_logarithm(points: list[float]) -> None:
    points = sorted(points)
    if np.diff(np.log(points)).min() < 1e-6:
        return
    values = np.random.default_rng(0).random(len(points))
    width = np.log(points[-1] / points[0])
    expected = np.trapezoid(values, np.log(points)) / width
    assert log_weights(points) @ values == pytest.approx(expected, rel=1e-9)
    assert log_weights(points).sum() == pytest.approx(1)


def test_the_area_of_a_worked_example() -> None:
    right = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], bool)
    found = Curve((0.5, 1.0, 2.0), right).to_dict("scale")
    assert [row["top1"] for row in found["rows"]] == [0.25, 0.5, 0.75]
    assert found["area"] == pytest.approx(0.25 * 0.25 + 0.5 * 0.5 + 0.25 * 0.75)
    assert Curve((3.0,), right[:1]).to_dict("scale")["area"] == 0.25


def test_scale_one_is_the_plain_answer_and_others_are_those_of_zoomed_images(
    bundle: Bundle, source: ArraySource
) -> None:
    predictor = predictor_of(bundle)
    curve = object_scales(predictor, source, OPTIONS, (0.5, 1.0))
    plain = evaluate(predictor, prepare(bundle, source, OPTIONS), "given")
    assert curve.right[1].mean() == plain.metrics["top1"] == pytest.approx(20 / 30)
    smaller = zoom(torch.from_numpy(source.images), 0.5).numpy()
    by_hand = classified(predictor.predict(list(smaller), [""] * 30)).indices == source.targets
    assert np.array_equal(curve.right[0], by_hand)


def test_sizes_are_those_of_the_longer_edge(bundle: Bundle, source: ArraySource) -> None:
    side = max(bundle.preprocess.size)
    curve = image_sizes(predictor_of(bundle), source, OPTIONS, (side, side + 8))
    assert curve.right[0].mean() == pytest.approx(20 / 30)
    assert curve.macs == (count_macs(bundle.model), count_macs(bundle.model, (side + 8, side + 8)))


def test_what_runs_the_network_runs_it_at_every_size(
    bundle: Bundle, source: ArraySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Running] = []

    def opened(resized: Bundle, how: Running) -> Predictor:
        asked.append(how)
        return run_bundle(resized, how)

    monkeypatch.setattr(module, "run_bundle", opened)
    config = EvaluateConfig(image_sizes="16,24", backend="onnxruntime", batch_size=7, workers=0)
    predictor = run_bundle(bundle, config)
    found = robustness(predictor, None, source, config)
    assert asked == [config, config]
    assert len(found["image_size"]["rows"]) == 2


def test_sizes_that_a_network_does_not_take(bundle: Bundle) -> None:
    fixed = create_classifier("article_cnn", in_chans=1, img_size=28, num_classes=len(bundle.task.class_names))
    with pytest.raises(UsageError, match="article_cnn takes images of"):
        check_sizes(Bundle(fixed.eval(), "article_cnn", {}, bundle.task, bundle.preprocess), (28, 40))
    with pytest.raises(UsageError, match="at least 22 pixels"):
        check_sizes(Bundle(fixed.eval(), "article_cnn", {}, bundle.task, bundle.preprocess), (20,))


def test_a_baseline_stands_beside_and_differences_are_paired(bundle: Bundle, source: ArraySource) -> None:
    predictor, config = predictor_of(bundle), EvaluateConfig(object_scale="1,0.5", workers=0)
    found = robustness(predictor, predictor, source, config)
    curve = found["object_scale"]
    assert [row["scale"] for row in curve["rows"]] == [0.5, 1.0]
    assert curve["baseline"]["rows"] == curve["rows"]
    assert curve["difference"] == {"area": 0.0, "ci95": [0.0, 0.0]}
    (table,) = tables({"robustness": found})
    assert [row[0] for row in table.rows] == ["0.5", "1", "area", "more area"]
    left, right = np.zeros((2, 50), bool), np.zeros((2, 50), bool)
    left[:, ::2] = True
    difference = against(Curve((0.5, 1.0), left), Curve((0.5, 1.0), right), SCALES)["difference"]
    assert difference["area"] == 0.5
    assert difference["ci95"][0] < 0.5 < difference["ci95"][1]


def test_models_that_read_different_images_are_not_compared() -> None:
    one, other = Curve((1.0,), np.ones((1, 3), bool)), Curve((1.0,), np.ones((1, 2), bool))
    with pytest.raises(DataError, match="different images"):
        against(one, other, SCALES)


def test_bands_hold_every_image_once() -> None:
    ids = [f"scaled-digits[test {i}] x{s:.2f}" for i, s in enumerate((0.25, 0.34, 0.36, 0.5, 0.71, 1.0))]
    rows = bands(ids, np.array([1, 0, 1, 1, 0, 1], bool))
    assert [(row["n"], row["top1"]) for row in rows] == [(2, 0.5), (1, 1.0), (1, 1.0), (2, 0.5)]
    (table,) = tables({"scale_bands": rows})
    assert table.rows[0] == ("0.25 to 0.35", "50.00 %", "9.45 to 90.55 %", "2")
    assert bands(["a.png", ids[0]], np.ones(2, bool)) == []
    assert bands([], np.ones(0, bool)) == []


@pytest.mark.parametrize("text", ["", "a", "1,,2", "0,1", "-1", "nan", "inf", "1,1.0"])
def test_what_are_no_scales(text: str) -> None:
    with pytest.raises(UsageError, match="--object-scale"):
        numbers("object-scale", text, "0.5,1,2")
    with pytest.raises(UsageError, match="--object-scale"):
        EvaluateConfig(object_scale=text)


def test_sizes_are_whole_pixels() -> None:
    assert EvaluateConfig(image_sizes="40,20").sizes == (20, 40)
    with pytest.raises(UsageError, match="whole pixels"):
        EvaluateConfig(image_sizes="20.5")
