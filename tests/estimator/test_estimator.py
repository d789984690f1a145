"""The Python door: scikit-learn's own checks, and what users do with it."""

from __future__ import annotations

import json
import threading
from dataclasses import fields
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
from msresnet import Classifier, estimator_base
from msresnet.bundle import load_bundle
from msresnet.data.splits import Splits
from msresnet.errors import DataError, DivergedError, ModelError, UsageError
from msresnet.estimator_base import ARGUMENTS, ELSEWHERE
from msresnet.infer.inputs import Input
from msresnet.infer.predictor import Predictor
from msresnet.train.config import AUGMENTATIONS, TrainConfig
from msresnet.train.fit import Fitted, fit
from msresnet.train.loop import Trainer
from msresnet.train.recipes import find_recipe

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


def write_set(folder: Path, count: int = 12) -> Path:
    """Dark and bright pictures in class folders."""
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("bright", 150)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(low, low + 100, (12, 12)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


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
    search = GridSearchCV(pipeline, {"net__epochs": [1, 40]}, cv=2, error_score="raise").fit(rows, labels)
    assert search.best_params_ == {"net__epochs": 40}
    assert search.best_score_ > 0.8
    assert set(search.predict(rows[:20])) <= {"zero", "one", "two"}


def test_saved_and_loaded_it_answers_alike(trained: Classifier, digits: tuple[Any, Any], tmp_path: Path) -> None:
    images, labels = digits
    loaded = msresnet.load(trained.save(tmp_path / "model"))
    assert isinstance(loaded, Classifier)
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
    write_set(tmp_path / "set")
    model = Classifier(**FAST | {"epochs": 12, "batch_size": 8}).fit(tmp_path / "set")
    answer = model.predict(tmp_path / "set" / "bright" / "3.png")
    assert answer.labels == ["bright"]
    assert model.evaluate(tmp_path / "set").metrics["top1"] > 0.9
    assert len(model.predict(str(tmp_path / "set" / "dark"))) == 12


def test_several_files_are_asked_at_once(trained: Classifier, digits: tuple[Any, Any], tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, digits[0], strict=False):
        Image.fromarray((image * 15).astype(np.uint8)).save(path)
    assert list(trained.predict(paths).ids) == list(map(str, paths))
    with pytest.raises(UsageError, match="a list of paths is not a set"):
        trained.evaluate(paths)


def test_a_folder_is_asked_in_batches_decoded_by_threads(
    trained: Classifier, digits: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, image in enumerate(digits[0][:11]):
        Image.fromarray((image * 15).astype(np.uint8)).save(tmp_path / f"{index:02}.png")
    batches, threads, predict, decode = list[int](), set[str](), Predictor.predict, Input.decode_with_preview

    def watched_predict(self: Predictor, images: Any, ids: Any) -> Any:
        batches.append(len(images))
        return predict(self, images, ids)

    def watched_decode(self: Input, *how: Any) -> Any:
        threads.add(threading.current_thread().name)
        return decode(self, *how)

    whole = trained.predict(str(tmp_path))
    monkeypatch.setattr(Predictor, "predict", watched_predict)
    monkeypatch.setattr(Input, "decode_with_preview", watched_decode)
    monkeypatch.setattr(trained._predictor, "batch_size", 4)
    found = trained.predict(str(tmp_path))
    assert batches == [4, 4, 3]
    assert threading.main_thread().name not in threads
    assert found.ids == whole.ids
    assert np.array_equal(found.probabilities, whole.probabilities)
    (tmp_path / "05.png").write_bytes(b"no image")
    (tmp_path / "09.png").unlink()
    with pytest.raises(DataError, match="no image of a known format") as caught:
        trained.predict(str(tmp_path))
    assert caught.value.where == str(tmp_path / "05.png")
    assert not any(thread.name in threads for thread in threading.enumerate())


def test_validation_data_beside_a_folder_takes_nothing_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Splits] = []

    def watched(config: TrainConfig, splits: Splits, **rest: Any) -> Fitted:
        seen.append(splits)
        return fit(config, splits, **rest)

    monkeypatch.setattr(estimator_base, "train", watched)
    data, other = write_set(tmp_path / "set"), write_set(tmp_path / "other", 3)
    Classifier(**FAST).fit(data, validation_data=other)
    assert {name: len(part) for name, part in seen[0].named().items()} == {"train": 24, "val": 6}


def test_validation_data_that_contradicts_is_refused(tmp_path: Path) -> None:
    for name in ("train", "val"):
        write_set(tmp_path / "set" / name, 3)
    other = write_set(tmp_path / "other", 3)
    with pytest.raises(UsageError, match="holds a val set"):
        Classifier(**FAST).fit(tmp_path / "set", validation_data=other)
    with pytest.raises(UsageError, match="a path and arrays"):
        Classifier(**FAST).fit(other, validation_data=(np.zeros((2, 12, 12)), [0, 1]))


def test_a_model_of_bytes_takes_shares_of_1_and_no_other_numbers(digits: tuple[Any, Any], tmp_path: Path) -> None:
    images = (digits[0] * 15).astype(np.uint8)
    trained = Classifier(**FAST).fit(images, digits[1])
    for model in (trained, Classifier.from_bundle(load_bundle(trained.save(tmp_path / "model")))):
        assert np.array_equal(model.predict_proba(images[:5]), model.predict_proba(images[:5] / 255))
        with pytest.raises(DataError, match="largest value is 240"):
            model.predict(images[:5].astype(float))
        with pytest.raises(DataError, match="smallest value is -1"):
            model.predict(images[:5] / 255 - 1)


def test_an_images_answer_does_not_depend_on_its_batch(digits: tuple[Any, Any]) -> None:
    images = digits[0] * 15
    model = Classifier(**FAST | {"epochs": 3}).fit(images, digits[1])
    dark = images[:1] / 240
    assert np.array_equal(model.predict_proba(dark), model.predict_proba(np.concatenate([dark, images[:3]]))[:1])


LABELS: list[Any] = [[-1, 1], [False, True], [-1.0, 1.0], ["0", "1"], ["no", "yes"], [7, 300]]


@pytest.mark.parametrize("pair", LABELS)
def test_labels_keep_their_kind(pair: list[Any], tmp_path: Path) -> None:
    images, labels = np.random.default_rng(0).random((40, 8, 8)), np.array(pair * 20)
    trained = Classifier(**FAST).fit(images, labels)
    loaded = msresnet.load(trained.save(tmp_path / "model"))
    assert isinstance(loaded, Classifier)
    assert loaded.classes_.dtype == labels.dtype
    assert loaded.classes_.tolist() == pair
    assert np.array_equal(loaded.predict(images), trained.predict(images))


@pytest.mark.parametrize(("fitted", "given"), [([0.0, 1.0], [0, 1]), ([0, 1], [0.0, 1.0]), ([False, True], [0, 1])])
def test_equal_labels_match_whatever_their_kind(fitted: list[Any], given: list[Any]) -> None:
    images = np.random.default_rng(0).random((40, 8, 8))
    model = Classifier(**FAST).fit(images, np.array(fitted * 20))
    assert model.score(images, np.array(given * 20)) == model.score(images, np.array(fitted * 20))


def test_a_model_of_files_knows_names_and_takes_numbers(tmp_path: Path) -> None:
    data = write_set(tmp_path / "set")
    (data / "dark").rename(data / "0")
    (data / "bright").rename(data / "1")
    trained = Classifier(**FAST).fit(data)
    loaded = msresnet.load(trained.save(tmp_path / "model"))
    images = np.full((2, 12, 12), [[[50]], [[200]]], np.uint8)
    assert trained.classes_.tolist() == loaded.classes_.tolist() == ["0", "1"]
    assert loaded.score(images, [0, 1]) == loaded.score(images, ["0", "1"]) == trained.score(images, [0.0, 1.0])


@pytest.mark.parametrize("labels", [["a"], "ab", [None, 1], [[1], [2]]])
def test_labels_of_a_damaged_bundle_are_refused(labels: Any, tmp_path: Path) -> None:
    Classifier(**FAST).fit(np.random.default_rng(0).random((4, 8, 8)), [1, 2, 1, 2]).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["labels"] == [1, 2]
    (tmp_path / "config.json").write_text(json.dumps(config | {"labels": labels}))
    with pytest.raises(ModelError, match="labels"):
        msresnet.load(tmp_path)


def test_a_failed_fit_leaves_the_model_as_it_was(digits: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = digits[0].reshape(-1, 64), digits[1]
    model = Classifier(**FAST).fit(rows, labels)
    before = dict(vars(model))

    def diverge(config: TrainConfig, splits: Splits, **rest: Any) -> None:
        raise DivergedError("the loss is not finite")

    monkeypatch.setattr(estimator_base, "train", diverge)
    with pytest.raises(DivergedError):
        model.fit(rows[:, :49], np.where(labels > 4, "large", "small"))
    assert vars(model) == before


def test_it_shows_in_a_notebook(trained: Classifier, digits: tuple[Any, Any]) -> None:
    assert "top-1" in trained.evaluate(*digits)._repr_html_()
    assert "<" in trained._repr_html_()


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (np.zeros((4, 5, 5)), None, "requires y"),
        (np.zeros((4, 5, 5, 2)), [0, 1, 0, 1], "are not images"),
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"options": {"optimizer": "adam"}}, "optimizer='adam'"), ({"options": {"mixup": "x"}}, "mixup='x'"),
        ({"time_limit": 5}, "time_limit=5"), ({"epochs": "2"}, "epochs='2'"), ({"epochs": 1.5}, "epochs=1.5"),
        ({"model": None}, "model=None"), ({"batch_size": 4.5}, "batch_size=4.5"),
        ({"options": {"image_size": "28"}}, "image_size='28'"), ({"options": {"image_size": (28, "x")}}, "image_size="),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_are_named(arguments: dict[str, Any], words: str, digits: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match=words):
        Classifier(**arguments).fit(*digits)
    with pytest.raises(UsageError, match="optimizer='adamw' or optimizer='sgd'"):  # what to type
        Classifier(options={"optimizer": "adam"}).fit(*digits)
    with pytest.raises(UsageError, match="validation_data is not a pair"):
        Classifier(**FAST).fit(*digits, validation_data=(digits[0],))


def test_a_size_is_one_number_or_two_and_numbers_may_be_numpys(digits: tuple[Any, Any]) -> None:
    options = FAST["options"] | {"image_size": 12}
    model = Classifier(epochs=np.int64(1), lr=np.float64(0.01), batch_size=64, options=options)  # type: ignore[arg-type]
    assert model.fit(digits[0][:80], digits[1][:80]).bundle_.preprocess.size == (12, 12)


def test_a_second_fit_forgets_the_first(digits: tuple[Any, Any]) -> None:
    images, labels = digits[0][:80], digits[1][:80]
    model = Classifier(**FAST).fit(images.reshape(80, -1), labels)
    assert model.n_features_in_ == images[0].size
    cut = images[:, :7, :7]
    assert model.fit(cut, labels).predict(cut.reshape(80, -1)).shape == (80,)


def test_weights_of_samples_are_checked_as_scikit_learn_does(trained: Classifier, digits: tuple[Any, Any]) -> None:
    images, labels = digits[0][:3], digits[1][:3]
    for weights in (np.ones(2), [1, 1, np.nan]):
        with pytest.raises(ValueError, match=r"inconsistent|NaN"):
            trained.score(images, labels, sample_weight=weights)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("epochs", r"Classifier\(epochs=3\)"), ("seed", r"Classifier\(random_state=3\)"),
        ("val_fraction", r"Classifier\(validation_fraction=3\)"),
        *((name, "no meaning here") for name in ("output", "resume", "exist_ok", "data", "val_data", "test_data")),
        ("devices", "in one process"), ("shard", "in one process"), ("test_fraction", r"evaluate\(X, y\)"),
    ],
)  # fmt: skip
def test_options_that_belong_elsewhere_are_refused(option: str, words: str, digits: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError, match=words):
        Classifier(options={option: 3}).fit(*digits)


def test_a_recipe_sets_what_is_not_said() -> None:
    made = find_recipe("mnist-best").settings
    config = Classifier(options={"recipe": "mnist-best"})._config()
    assert {name: getattr(config, name) for name in made} == made
    said = Classifier(lr=0.5, options={"recipe": "mnist-best", "skip_easy": 0.1})._config(epochs=3)
    assert (said.lr, said.skip_easy, said.epochs) == (0.5, 0.1, 3)
    assert said.optimizer == "muon"
    with pytest.raises(UsageError, match="unknown recipe 'mnist-bst'"):
        Classifier(options={"recipe": "mnist-bst"})._config()


OPTIONS: dict[str, Any] = {
    "model_args": ("operator=plain",), "weights": "published", "mean": (0.4,), "std": (0.3,), "operations": 1e9,
    "optimizer": "sgd", "weight_decay": 0.1, "schedule": "linear", "warmup": 0.3, "clip_grad": 1.0, "ema": 0.0,
    "patience": 3, "validate_every": 2, "layer_decay": 0.5, "freeze": 1, "label_smoothing": 0.2, "drop_rate": 0.1,
    "drop_path_rate": 0.1, "balance": "loss", "skip_easy": 0.5, "dice": 0.5, "teacher": "a", "teacher_share": 0.1,
    "temperature": 3.0, "train_sizes": (20,), "size_batches": (20,), "size_schedule": "random", "finish": 0.1,
    "augment": "none", **dict.fromkeys(AUGMENTATIONS, 0.5), "mix_until": 0.5, "device": "cpu", "sync_bn": "off",
    "precision": "fp32", "compile": True, "cuda_graphs": "off", "tracker": "tensorboard", "recipe": "mnist-fast",
    "image_shape": (8, 8), "label_column": "first", "path_column": "first", "on_bad": "skip", "workers": 77,
    "cache": "none", "image_size": (12,), "channels": 3, "resize": "pad", "threshold": "otsu", "binary": True,
}  # fmt: skip
"""Of each setting that is an option: a value that is not its usual one."""


def test_each_setting_of_training_is_an_argument_an_option_or_refused() -> None:
    """Whoever adds one says which, and an option arrives where training reads it."""
    assert ARGUMENTS.keys().isdisjoint(ELSEWHERE)
    rest = {field.name for field in fields(TrainConfig)} - ARGUMENTS.keys() - ELSEWHERE.keys()
    assert rest == OPTIONS.keys()
    together = {"mean": ["std"], "std": ["mean"], "size_batches": ["train_sizes"]}
    for name, value in OPTIONS.items():
        options = {other: OPTIONS[other] for other in [name, *together.get(name, [])]}
        assert getattr(Classifier(options=options)._config(), name) == value != getattr(TrainConfig(), name), name


def test_epochs_are_printed_where_that_is_asked(digits: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    Classifier(**FAST).fit(*digits)
    assert capsys.readouterr().out == ""
    Classifier(**FAST).fit(*digits, epochs=2, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1"], ["epoch", "2"]]
    assert all("val_top1" in line for line in lines)


def test_an_interrupted_fit_keeps_the_best_of_its_epochs(
    digits: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch, stop_at = Trainer._epoch, 2

    def interrupted(self: Trainer) -> None:
        if self.state.epoch == stop_at:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    model = Classifier(**FAST)
    with pytest.raises(KeyboardInterrupt, match="stopped after epoch 2; the model is fitted"):
        model.fit(*digits, epochs=9)
    assert len(model.history_) == 2
    assert model.predict(digits[0]).shape == (400,)
    kept, stop_at = model.bundle_, 0
    with pytest.raises(KeyboardInterrupt, match="nothing of this fit is kept"):
        model.fit(*digits)
    assert model.bundle_ is kept
