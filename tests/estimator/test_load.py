"""What `load` gives: the device, what a clone keeps; and what all estimators read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits

from hostile import random_pixels
from msresnet import Classifier, Detector, Segmenter, load
from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.errors import DataError, UsageError
from msresnet.estimator_base import Places
from msresnet.models.factory import create_network
from msresnet.tasks.known import TASKS

Kind = type[Classifier] | type[Segmenter] | type[Detector]
SIDE = 32


def untrained(kind: Kind, channels: int = 3) -> Any:
    """An estimator with a network of chance."""
    task = TASKS[kind.task](["a", "b"])
    arguments = {"num_classes": 2, "in_chans": channels, "img_size": [SIDE, SIDE], "operator": "plain"}
    network = create_network(task.head, "msresnet_micro", **arguments).eval()
    preprocess = Preprocess((SIDE, SIDE), channels, mean=(0.5,) * channels, std=(0.2,) * channels)
    return kind.from_bundle(Bundle(network, "msresnet_micro", arguments, task, preprocess), "cpu")


def test_a_clone_trains_the_same_network_on_the_same_device(tmp_path: Path) -> None:
    digits = load_digits()
    images, labels = digits.images[:80], digits.target[:80]
    made = {"operator": "plain", "widths": [8, 8, 16], "stem": "small"}
    asked = {"model_args": ["operator=plain", "widths=[8,8,16]", 'stem="small"'], "drop_rate": 0.1, "device": "cpu"}
    trained = Classifier("msresnet_micro", epochs=1, options=asked).fit(images, labels)
    loaded = load(trained.save(tmp_path / "model"), device="cpu")
    assert isinstance(loaded, Classifier)
    assert loaded.get_params()["options"]["device"] == "cpu"
    again = clone(loaded).fit(images, labels, epochs=1)
    kept = {name: value for name, value in trained.bundle_.arguments.items() if name != "drop_rate"}
    assert again.bundle_.arguments == kept
    assert made.items() <= kept.items()
    assert [t.shape for t in again.bundle_.model.parameters()] == [t.shape for t in trained.bundle_.model.parameters()]


def test_the_device_is_where_it_answers(tmp_path: Path) -> None:
    folder = untrained(Classifier).save(tmp_path / "model")
    model = load(folder, "cpu")
    assert model._predictor.backend.device == "cpu"
    with pytest.raises(UsageError, match="unknown device 'abacus'"):
        load(folder, device="abacus")


def test_a_bundle_belongs_to_the_estimator_of_its_task() -> None:
    with pytest.raises(UsageError, match=r"the model is for classification, Segmenter for segmentation[\s\S]*load"):
        Segmenter.from_bundle(untrained(Classifier).bundle_)


@pytest.mark.parametrize("kind", [Classifier, Segmenter, Detector])
def test_planes_of_colour_are_not_taken_for_grey_images(kind: Kind) -> None:
    model, photo = untrained(kind), random_pixels(3, SIDE, SIDE)
    for ask in (model.predict, lambda X: model.evaluate(X, [0])):
        with pytest.raises(DataError, match=r"one image in colour or three grey ones[\s\S]*X\[None\]"):
            ask(photo)
    assert [len(model.predict(given)) for given in (photo[None], [photo], photo[:, None], list(photo))] == [1, 1, 3, 3]
    assert len(untrained(kind, channels=1).predict(photo)) == 3


def test_a_photograph_is_one_image_for_a_classifier_of_colour_too() -> None:
    model, photo = untrained(Classifier), random_pixels(SIDE, SIDE, 3)
    assert np.array_equal(model.predict_proba(photo), model.predict_proba(photo[None]))
    assert model.evaluate(photo, ["a"]).metrics["n"] == 1
    assert len(untrained(Classifier, channels=1).predict(photo)) == SIDE


def test_equal_labels_are_one_whatever_their_kind() -> None:
    numbers, names = Places(np.array([0.0, 1.0])), Places(np.array(["0", "1", "dog"]))
    assert numbers.of([0, True, "1", "1.0", 0.0]) == [0, 1, 1, 1, 0]
    assert names.of([0, True, 1.0, "dog"]) == [0, 1, 1, 2]
    with pytest.raises(DataError, match=r"unknown label '2'[\s\S]*image 4[\s\S]*0, 1, dog"):
        names.of(["dog", 2], where="image 4")
