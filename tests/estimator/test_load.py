"""What `load` gives: the device, what a clone keeps; and what all estimators read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.base import clone
from sklearn.datasets import load_digits

from hostile import random_pixels, smooth_pixels
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


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_saving_overwrites_nothing_of_others(name: str, tmp_path: Path) -> None:
    model, mine = untrained(Classifier), '{"my": "own"}'
    (tmp_path / name).write_text(mine)
    with pytest.raises(UsageError, match=rf"{name} there is not of a saved model[\s\S]*another folder"):
        model.save(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, mine)]


def test_saving_goes_over_an_earlier_model_but_not_over_a_card_of_ones_own(tmp_path: Path) -> None:
    folder = untrained(Classifier, 1).save(tmp_path / "model")
    later = untrained(Classifier, 3)
    assert load(later.save(folder)).bundle_.preprocess.channels == 3
    (folder / "README.md").write_text("what I know of it")
    with pytest.raises(UsageError, match=r"README\.md there is not of a saved model"):
        later.save(folder)


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


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_is_one_whatever_its_form(channels: int) -> None:
    model, image = untrained(Classifier, channels), random_pixels(SIDE, SIDE)
    expected = model.predict_proba(image[None])
    assert expected.shape == (1, 2)
    lists = (image / 255).tolist(), (image[..., None] / 255).tolist()
    forms = (image, image[..., None], list(image), [image], *lists)
    for given in (*forms, Pillow.fromarray(image), image.reshape(1, -1)):
        assert np.array_equal(model.predict_proba(given), expected)
    photo = random_pixels(40, 30, 3)
    for colour in (photo, [photo], Pillow.fromarray(photo), [Pillow.fromarray(photo)]):
        assert np.array_equal(model.predict_proba(colour), model.predict_proba(photo[None]))
    rows = random_pixels(5, SIDE * SIDE)
    for several in (rows, (rows / 255).tolist(), list(rows), random_pixels(5, SIDE, SIDE)):
        assert len(model.predict(several)) == 5


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((30, 20), r"one image or 30 rows of pixels[\s\S]*32 x 32[\s\S]*X\[None\] for one image$"),
        ((30, 36), r"one image or 30 rows of pixels[\s\S]*X\[None\] for one image, X\.reshape\(-1, 6, 6\) for rows"),
        ((SIDE, SIDE, 4), r"X\[\.\.\., :3\] leaves transparency out"),
        ((SIDE, SIDE, 2), r"X\[\.\.\., :1\] leaves transparency out"),
    ],
)
def test_what_may_be_one_image_or_several_is_refused(shape: tuple[int, ...], words: str) -> None:
    model = untrained(Classifier, channels=1)
    with pytest.raises(DataError, match=words):
        model.predict(random_pixels(*shape))
    with pytest.raises(DataError, match=words):
        model.evaluate(random_pixels(*shape), ["a"])


def test_an_enlarged_image_is_known_by_its_own_size() -> None:
    digits = load_digits()
    model = Classifier(epochs=1, options={"device": "cpu"}).fit(digits.images[:80], digits.target[:80])
    expected = model.predict(digits.images[:9])
    assert model.bundle_.preprocess.size != digits.images[0].shape
    assert np.array_equal(model.predict(digits.images[0]), expected[:1])
    assert np.array_equal(model.predict(digits.data[:9]), expected)


def test_images_with_a_narrow_side_are_several_where_such_were_learnt() -> None:
    windows = np.random.default_rng(0).random((40, 20, 3))
    model = Classifier(epochs=1, options={"device": "cpu"}).fit(windows, [0, 1] * 20)
    assert len(model.predict(windows)) == 40


def test_equal_labels_are_one_whatever_their_kind() -> None:
    numbers, names = Places(np.array([0.0, 1.0])), Places(np.array(["0", "1", "dog"]))
    assert numbers.of([0, True, "1", "1.0", 0.0]) == [0, 1, 1, 1, 0]
    assert names.of([0, True, 1.0, "dog"]) == [0, 1, 1, 2]
    with pytest.raises(DataError, match=r"unknown label '2'[\s\S]*image 4[\s\S]*0, 1, dog"):
        names.of(["dog", 2], where="image 4")


def test_a_picture_of_pillow_is_answered_as_its_file(tmp_path: Path) -> None:
    model, photo = untrained(Classifier), Pillow.fromarray(smooth_pixels(40, 30))
    turned = Pillow.Exif()
    turned[274] = 6
    photo.quantize(16).save(tmp_path / "palette.png")
    photo.save(tmp_path / "turned.png", exif=turned)
    clear = photo.convert("RGBA")
    clear.putalpha(Pillow.linear_gradient("L").resize(photo.size))
    clear.save(tmp_path / "transparent.png")
    photo.convert("CMYK").save(tmp_path / "print.tif")
    photo.convert("1").save(tmp_path / "binary.png")
    paths = sorted(map(str, tmp_path.iterdir()))
    opened = [Pillow.open(path) for path in paths]
    expected = model.predict_proba(paths)
    assert np.array_equal(model.predict_proba(opened), expected)
    for picture, alone in zip(opened, expected, strict=True):
        assert np.array_equal(model.predict_proba(picture), alone[None])
    assert model.evaluate(opened, ["a"] * len(opened)).metrics["n"] == len(opened)
    with pytest.raises(DataError, match=r"a list of Pillow's images and of others[\s\S]*item 1"):
        model.predict([photo, np.asarray(photo)])
    with pytest.raises(DataError, match=r"floating-point image has no known range[\s\S]*image 0"):
        model.predict(photo.convert("F"))


@pytest.mark.parametrize("kind", [Segmenter, Detector])
def test_pictures_of_other_tasks_are_decoded_as_files(kind: Kind, tmp_path: Path) -> None:
    model, photo = untrained(kind), Pillow.fromarray(smooth_pixels(40, 30)).quantize(16)
    photo.save(tmp_path / "palette.png")
    expected, found = model.predict(str(tmp_path / "palette.png")), model.predict(photo)
    if kind is Segmenter:
        assert np.array_equal(found, expected.masks[0])
        assert np.array_equal(model.predict([photo])[0], expected.masks[0])
    else:
        assert len(found) == 1
        assert found.to_dict()[0]["detections"] == expected.to_dict()[0]["detections"]


def test_a_classifier_learns_from_pictures_of_any_sizes() -> None:
    rng = np.random.default_rng(0)
    shades = [(low, side) for low in (0, 150) for side in range(20, 32)]
    pictures = [Pillow.fromarray(rng.integers(low, low + 100, (side, 24, 3)).astype(np.uint8)) for low, side in shades]
    labels = ["bright" if low else "dark" for low, _ in shades]
    options = {"device": "cpu", "image_size": 16}
    model = Classifier("msresnet_micro", epochs=1, batch_size=8, options=options).fit(pictures, labels)
    assert model.predict(pictures).shape == (24,)
    assert model.bundle_.preprocess.value_range is None
