"""Boxes are learnt by the real commands, from files in the real format; a stopped run goes on as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from hostile import encode
from msresnet import Detector, load
from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.data.sample import Image
from msresnet.errors import DataError, MsresnetError, UsageError
from msresnet.infer.backends.eager import predictor_of
from msresnet.results import Detections
from msresnet.train.checkpoint import newest_checkpoint
from tiny import plan_for, same, train_words, trainer

NAMES = ("block", "ring")
HEIGHT, WIDTH = 32, 40
WIDTHS = ("--model-args", "pyramid_width=32")


def drawn(number: int) -> tuple[Image, list[list[int]], list[int]]:
    """Blocks and rings on a dark, noisy ground, apart from each other; every seventh image is empty."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 60, (HEIGHT, WIDTH)).astype(np.uint8)
    boxes: list[list[int]] = []
    for _ in range(0 if number % 7 == 6 else 3):
        side = int(rng.integers(6, 15))
        top, left = int(rng.integers(0, HEIGHT - side)), int(rng.integers(0, WIDTH - side))
        box = [left, top, left + side, top + side]
        if all(box[2] <= b[0] or b[2] <= box[0] or box[3] <= b[1] or b[3] <= box[1] for b in boxes):
            boxes.append(box)
    kinds = [int(k) for k in rng.integers(0, 2, len(boxes))]
    for (left, top, right, bottom), kind in zip(boxes, kinds, strict=True):
        image[top:bottom, left:right] = 220
        if kind:
            image[top + 2 : bottom - 2, left + 2 : right - 2] = 30
    return image, boxes, kinds


def write(root: Path, split: str, numbers: range) -> None:
    """A set in COCO's format."""
    (root / "images" / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    rows: list[dict[str, Any]] = []
    images = []
    for number in numbers:
        image, boxes, kinds = drawn(number)
        (root / "images" / split / f"{number}.png").write_bytes(encode(image, "PNG"))
        images.append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
        for (left, top, right, bottom), kind in zip(boxes, kinds, strict=True):
            bbox = [left, top, right - left, bottom - top]
            row = {"id": len(rows) + 1, "image_id": number, "category_id": kind + 1, "bbox": bbox, "iscrowd": 0}
            rows.append(row | {"area": bbox[2] * bbox[3]})
    categories = [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)]
    content = {"images": images, "categories": categories, "annotations": rows}
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images with boxes."""
    root = tmp_path_factory.mktemp("shapes")
    write(root, "train", range(64))
    write(root, "test", range(1000, 1012))
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training by the real command, at two image sizes."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    more = (*WIDTHS, "--optimizer", "muon", "--lr", "0.02", "--train-sizes", "30", "40", "--ema", "0.9")
    assert main(train_words(data, folder, *more, epochs=24, batch=8)) == 0
    return folder


def test_the_command_learns_measures_and_writes_a_run(run: Path) -> None:
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert (figures["task"], figures["split"], figures["n"]) == ("detection", "test", 12)
    assert figures["ap50"] > 0.7
    assert figures["ap"] > 0.4
    assert {row["class"] for row in figures["per_class"]} == set(NAMES)
    bundle = load_bundle(run)
    assert bundle.task.name == "detection"
    assert bundle.preprocess.whole
    assert bundle.scores["test"]["ap"] == figures["ap"]
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "detection of 2 classes" in card
    assert "AP50" in card
    lines = (run / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 13
    assert lines[0] == "id,objects,found,missed,wrong"
    report = (run / "report.html").read_text(encoding="utf-8")
    assert all(words in report for words in ("AP50", "What goes wrong", "Where it fails", "recall"))
    assert "top-1" not in report
    assert "val_ap" in (run / "history.csv").read_text(encoding="utf-8").splitlines()[0]


def test_every_door_gives_the_same_boxes(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert main(["evaluate", "--model", str(run), "--format", "json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [again[k] for k in ("ap", "ap50", "objects")] == [figures[k] for k in ("ap", "ap50", "objects")]
    folder = str(data / "images" / "test")
    assert main(["predict", "--model", str(run), folder, "--format", "jsonl", "--save-images", "seen"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    results = load(run).predict(folder)
    assert isinstance(results, Detections)
    assert [row["detections"] for row in rows] == [row["detections"] for row in results.to_dict()]
    assert all(row["count"] == len(row["detections"]) for row in rows)
    least = load_bundle(run).task.to_dict()["sure"]
    assert min(score for scores in results.scores for score in scores.tolist()) >= least
    saved = sorted(Path("seen").iterdir())
    assert len(saved) == 12
    for path in saved:
        with Pillow.open(path) as picture:
            assert picture.size == (160, 128)  # enlarged, so that labels can be read
    words = ["predict", "--model", str(run), folder, "--format", "jsonl", "--score", "0.01"]
    assert main(words) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (
        main(["predict", "--model", str(run), folder, "--output", "shards", "--format", "jsonl", "--score", "0.01"])
        == 0
    )
    written = [json.loads(line) for line in Path("shards/test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["detections"] for row in written] == [row["detections"] for row in rows]
    everything = Detector.from_bundle(load_bundle(run)).predict(folder, score=0.01)
    assert [row["count"] for row in rows] == everything.counts.tolist()
    assert everything.counts.sum() > results.counts.sum()
    arrays = load(run).predict([drawn(n)[0] for n in range(1000, 1012)])
    by_name = {Path(name).stem: index for index, name in enumerate(results.ids)}
    for index in range(12):
        assert np.allclose(arrays.boxes[index], results.boxes[by_name[str(1000 + index)]], atol=1e-3)


def test_training_ends_by_asking_the_validation_set_which_boxes_to_show(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--model", str(run), "--split", "val", "--format", "json"]) == 0
    best = json.loads(capsys.readouterr().out)["best_score"]
    assert best != 0.3
    assert load_bundle(run).task.to_dict()["sure"] == pytest.approx(best, abs=1e-6)
    assert f"from a score of {best:.2f} on" in (run / "log.txt").read_text(encoding="utf-8")


def test_boxes_are_an_images_own_whatever_its_size_and_its_company(run: Path) -> None:
    predictor = predictor_of(load_bundle(run), "cpu")
    image, _, _ = drawn(1001)
    double = image.repeat(2, 0).repeat(2, 1)
    found = predictor.predict([image[None], double[None]], ["a", "b"])
    assert isinstance(found, Detections)
    assert len(found.boxes[0]) == len(found.boxes[1]) > 0
    assert np.allclose(found.boxes[0] * 2, found.boxes[1], atol=3)
    alone = predictor.predict([image[None]], ["a"])
    assert isinstance(alone, Detections)
    assert np.allclose(alone.boxes[0], found.boxes[0], atol=1e-3)


def test_a_run_goes_on_as_if_it_had_not_been_stopped(data: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model_args": ("pyramid_width=32",), "noise": 0.1, "flip": 0.5}
    whole = trainer(plan_for(data, **settings))
    whole.run()
    first = trainer(plan_for(data, **settings), tmp_path / "c")
    first._epoch()
    first._end_of_epoch()
    second = trainer(plan_for(data, **settings), tmp_path / "c")
    second.restore(*newest_checkpoint(tmp_path / "c")[:2], "c")
    second.run()
    assert same(whole.best, second.best)
    assert whole.state.best == second.state.best


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "IMAGE", "--tta", "flip"], "the task is detection"),
        (["predict", "IMAGE", "--score", "2"], "scores are 0 to 1"),
        (["evaluate", "--data", "digits"], "the data is for classification, the model for detection"),
        (["evaluate", "--fail-under", "top1=0.9"], "top1"),
    ],
)
def test_what_a_model_of_boxes_cannot_do_is_said(
    run: Path, data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(data / "images" / "test" / "1000.png")
    code = main([*(image if w == "IMAGE" else w for w in words), "--model", str(run)])
    assert code in (2, 3)
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_settings_that_cannot_be_are_refused_before_training(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {
        "--mosaic": ["--mixup", "0.2"],
        "several classes": ["--balance", "loss"],
        "finest": ["--model-args", "finest=3"],
        "cannot be imitated": ["--teacher", str(run)],
        "--resize pad": ["--resize", "crop"],
    }
    for message, more in refused.items():
        assert main(train_words(data, None, *more)) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "--data", "digits", "--mosaic", "0.5", "--device", "cpu"]) == 2
    assert "no boxes" in capsys.readouterr().err


def test_images_without_an_object_are_measured(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, "test", range(6, 7))
    words = ["evaluate", "--model", str(run), "--data", str(tmp_path)]
    assert main([*words, "--output", str(tmp_path / "out"), "--format", "json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["n"], figures["objects"], figures["ap"]) == (1, 0, None)
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_figure_under_its_bound_is_a_failure(run: Path) -> None:
    assert main(["evaluate", "--model", str(run), "--fail-under", "ap=0.999"]) == 8
    assert main(["evaluate", "--model", str(run), "--fail-under", "ap50=0.5"]) == 0


def test_the_python_door_learns_from_arrays() -> None:
    numbers = range(30)
    images = np.stack([drawn(n)[0] for n in numbers])
    pairs = [(boxes, [NAMES[k] for k in kinds]) for _, boxes, kinds in map(drawn, numbers)]
    options = {"device": "cpu", "precision": "fp32", "model_args": ["pyramid_width=32"], "optimizer": "muon"}
    model = Detector("msresnet_micro", epochs=12, batch_size=6, lr=0.02, options=options).fit(images, pairs)
    assert model.classes_.tolist() == list(NAMES)
    shown = [{"boxes": np.array(b, float).reshape(-1, 4), "labels": labels} for b, labels in pairs]
    figures = model.evaluate(list(images), shown).metrics
    assert figures["ap50"] > 0.5
    assert model.score(images, pairs) == pytest.approx(figures["ap"])
    found = model.predict(images[0])
    assert isinstance(found, Detections)
    assert found.class_names == NAMES


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (None, "boxes"),
        ([([[0, 0, 5, 5]], ["a"])], "1 images for 2"),
        ([([[0, 0, 5, 5]], ["a"]), ([[5, 5, 0, 0]], ["a"])], "not a box"),
        ([([[0, 0, 5, 5]], ["a"]), ([[90, 90, 95, 95]], ["a"])], "not a box"),
        ([([[0, 0, 5]], ["a"]), ([], [])], "shape"),
        ([([[0, 0, 5, float("nan")]], ["a"]), ([], [])], "finite"),
        ([([[0, 0, 5, 5]], ["a", "b"]), ([], [])], "2 labels"),
        ([3, 4], "boxes"),
        ([([], []), ([], [])], "no image shows an object"),
    ],
)
def test_objects_that_are_none_are_refused(objects: Any, message: str) -> None:
    with pytest.raises((DataError, UsageError)) as caught:
        Detector(options={"device": "cpu"}).fit([np.zeros((20, 20), np.uint8)] * 2, objects)
    assert message in f"{caught.value.what} {caught.value.why}"


def test_a_score_that_is_none_is_refused(run: Path) -> None:
    with pytest.raises(MsresnetError, match="score"):
        Detector.from_bundle(load_bundle(run)).predict(torch.zeros(20, 20).numpy(), score=2.0)
