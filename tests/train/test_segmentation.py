"""Masks are learnt: the loss against torch and the formula, validation against scikit-learn, and the real commands."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Pillow
from sklearn.metrics import jaccard_score
from torch import Tensor

from hostile import encode
from msresnet import load
from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.data.augment import Augment
from msresnet.data.loaders import decode
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import frame
from msresnet.data.sample import IGNORED, Image, MaskedArrays
from msresnet.errors import UsageError
from msresnet.infer.backends.eager import predictor_of
from msresnet.report.annotate import safe_name
from msresnet.results import Segmentation
from msresnet.tasks.base import Learning
from msresnet.tasks.classification import ClassificationTask
from msresnet.tasks.palette import coloured, mistakes
from msresnet.tasks.postprocess import segmentation
from msresnet.tasks.segmentation import SegmentationTask, dice_loss
from msresnet.train.checkpoint import newest_checkpoint
from tiny import plan_for, same, train_words, trainer

NAMES = ("sky", "sea", "land")


def case(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (B, K, H, W) and masks (B, H, W) with unknown pixels."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.randint(0, 3, (4, 7, 5), generator=generator).to(torch.uint8)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORED
    return torch.randn(4, 3, 7, 5, generator=generator), masks


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("factors", [None, [0.5, 2.0, 4.0]], ids=["plain", "weighted"])
def test_the_loss_is_torchs_over_known_pixels(smoothing: float, factors: list[float] | None) -> None:
    outputs, masks = case()
    task = SegmentationTask(NAMES, smoothing, factors)
    known = masks != IGNORED
    flat, truth = outputs.movedim(1, -1)[known], masks[known].long()
    weights = torch.tensor(factors or [1.0, 1.0, 1.0])[truth]
    each = F.cross_entropy(flat, truth, reduction="none", label_smoothing=smoothing)
    expected = (weights * each).sum() / weights.sum()
    assert task.loss(outputs, task.encode(masks)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_dice_is_the_formula_over_the_classes_that_are_shown() -> None:
    outputs, masks = case(1)
    masks[masks == 2] = IGNORED  # a class that the batch does not show
    known = (masks != IGNORED).flatten().numpy()
    chances = outputs.softmax(1).movedim(1, -1).reshape(-1, 3).numpy()[known].astype(np.float64)
    truth = np.eye(3)[masks.flatten().numpy()[known]]
    each = [1 - (2 * (p * g).sum() + 1) / ((p**2).sum() + g.sum() + 1) for p, g in zip(chances.T, truth.T, strict=True)]
    assert dice_loss(outputs, masks.long()).item() == pytest.approx(np.mean(each[:2]), rel=1e-5)
    task = SegmentationTask(NAMES, dice=0.25)
    entropy = SegmentationTask(NAMES).loss(outputs, masks.long())
    assert task.loss(outputs, masks.long()).item() == pytest.approx(0.75 * entropy.item() + 0.25 * np.mean(each[:2]))


def test_a_batch_of_which_nothing_is_known_teaches_nothing() -> None:
    outputs = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = SegmentationTask(NAMES, dice=0.5).loss(outputs, torch.full((2, 4, 4), IGNORED))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.abs().sum()


def test_what_validation_keeps_gives_scikit_learns_figure() -> None:
    outputs, masks = case(2)
    task = SegmentationTask((*NAMES, "never"))
    outputs = torch.cat([outputs, torch.full_like(outputs[:, :1], -99.0)], 1)
    rows = torch.cat([task.validation_rows(outputs[:1], masks[:1]), task.validation_rows(outputs[1:], masks[1:])])
    assert rows.shape == (4, task.row_width)
    metric, loss = task.validation_figures(rows, torch.zeros(4, dtype=torch.long)).values()
    known = masks != IGNORED
    answer, truth = outputs.argmax(1)[known].numpy(), masks[known].numpy()
    assert metric == pytest.approx(jaccard_score(truth, answer, average="macro"))
    assert loss == pytest.approx(F.cross_entropy(outputs.movedim(1, -1)[known], masks[known].long()).item(), rel=1e-5)
    results = task.postprocess(outputs.numpy(), list("abcd"))
    assert task.evaluate(results, list(masks.numpy())).metrics["miou"] == pytest.approx(metric)


def test_answers_are_enlarged_to_the_image_and_borders_are_cut_off() -> None:
    task = SegmentationTask(("dark", "bright"))
    logits = torch.full((1, 2, 8, 8), 5.0)
    logits[:, 0] = 0
    logits[:, 1, :, :2] = logits[:, 1, :, 6:] = -5  # the border, and nothing else, is dark
    place = frame((30, 15), (8, 8), "pad")
    found = task.postprocess(logits.numpy(), ["a"], [place])
    assert found.masks[0].shape == (30, 15)
    assert (found.masks[0] == 1).all()
    assert found.confidences[0] == pytest.approx(torch.sigmoid(torch.tensor(5.0)).item(), rel=1e-5)


@pytest.mark.parametrize("size", [(57, 43), (3, 400), (400, 3), (20, 10), (16, 24)])
@pytest.mark.parametrize("band", [1, 700, segmentation.BAND])
def test_the_answer_by_bands_is_the_whole_ones(
    size: tuple[int, int], band: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "BAND", 5 * band)
    outputs = np.random.default_rng(0).normal(0, 3, (1, 5, 16, 24)).astype(np.float32)
    found = SegmentationTask(tuple("abcde")).postprocess(outputs, ["a"], [frame(size, (16, 24), "squash")])
    whole = F.interpolate(torch.from_numpy(outputs), size, mode="bilinear").softmax(1)[0]
    assert np.array_equal(found.masks[0], whole.argmax(0).numpy())
    assert found.confidences[0] == pytest.approx(whole.amax(0).mean().item(), abs=1e-6)


@pytest.mark.parametrize("size", [(1000, 1000), (1, 1_000_000), (1_000_000, 1)])
def test_an_answers_memory_does_not_grow_with_the_image(size: tuple[int, int]) -> None:
    """But for its mask, a byte for each pixel."""
    outputs = np.random.default_rng(0).normal(0, 3, (1, 20, 32, 32)).astype(np.float32)
    task = SegmentationTask(tuple(map(str, range(20))))
    tracemalloc.start()
    try:
        task.postprocess(outputs, ["a"], [frame(size, (32, 32), "squash")])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 40 * segmentation.BAND


def test_masks_follow_images_to_other_sizes() -> None:
    masks = torch.arange(4, dtype=torch.uint8).view(1, 2, 2)
    larger = SegmentationTask(("a", "b", "c", "d")).resized(masks, (4, 6))
    assert larger.tolist() == masks.repeat_interleave(2, 1).repeat_interleave(3, 2).tolist()


@pytest.mark.parametrize(
    ("preprocess", "augment", "how", "message"),
    [
        (Preprocess((8, 8), 1, resize="crop"), Augment(), Learning(), "every pixel is to get a class"),
        (Preprocess((8, 8), 1), Augment(mixup=0.2), Learning(), "has two classes"),
        (Preprocess((8, 8), 1), Augment(), Learning(draw=True), "cannot be drawn by class"),
    ],
)
def test_what_pixels_cannot_be_learnt_with(
    preprocess: Preprocess, augment: Augment, how: Learning, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        SegmentationTask.check(preprocess, augment, how)
    with pytest.raises(UsageError, match="compares masks"):
        ClassificationTask.check(Preprocess((8, 8), 1), Augment(), Learning(dice=0.5))


def test_weights_go_by_pixels() -> None:
    masks = np.zeros((3, 4, 4), np.uint8)
    masks[:, 0, 0], masks[:, 3, 3] = 1, IGNORED
    data = decode(MaskedArrays(np.zeros((3, 1, 4, 4), np.uint8), masks, ("a", "b")), Preprocess((4, 4), 1, whole=True))
    task = SegmentationTask.learning(("a", "b"), data, Learning(weigh=True))
    assert task.class_weights.tolist() == pytest.approx([45 / (2 * 42), 45 / (2 * 3)], rel=1e-5)


def drawn(number: int, side: int = 16) -> tuple[Image, Image]:
    """A bright box on a dark, noisy ground, and where it is."""
    rng = np.random.default_rng(number)
    top, left = rng.integers(1, side - 7, 2)
    mask = np.zeros((side, side), np.uint8)
    mask[top : top + 6, left : left + 6] = 1
    return (mask * 120 + rng.integers(0, 100, mask.shape)).astype(np.uint8), mask


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images and masks."""
    root = tmp_path_factory.mktemp("boxes")
    for split, count in (("train", 40), ("test", 8)):
        for name in ("images", "masks"):
            (root / split / name).mkdir(parents=True)
        for number in range(count):
            image, mask = drawn(number + 100 * (split == "test"))
            (root / split / "images" / f"{number}.png").write_bytes(encode(image, "PNG"))
            (root / split / "masks" / f"{number}.png").write_bytes(encode(mask * 255, "PNG"))
    return root


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training by the real command."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    words = train_words(data, folder, "--train-sizes", "12", "16", "--flip", "0.5", "--lr", "0.01", epochs=12, batch=8)
    assert main(words) == 0
    return folder


def test_the_command_learns_measures_and_writes_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert (figures["task"], figures["split"], figures["n"]) == ("segmentation", "test", 8)
    assert figures["miou"] > 0.8
    bundle = load_bundle(run)
    assert bundle.task.name == "segmentation"
    assert bundle.preprocess.whole
    assert bundle.scores["test"]["miou"] == figures["miou"]
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "mean IoU" in card
    assert "segmentation of 2 classes" in card
    lines = (run / "predictions.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 9
    assert lines[0].startswith("id,height,width,confidence,pixel_accuracy,miou")
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "mistakes in red" in report
    assert "top-1" not in report
    history = (run / "history.csv").read_text(encoding="utf-8").splitlines()
    assert "val_miou" in history[0]


def test_evaluate_predict_and_python_give_the_same_masks(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert main(["evaluate", "--model", str(run), "--format", "json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [again[k] for k in ("miou", "pixel_accuracy", "boundary_f")] == [
        figures[k] for k in ("miou", "pixel_accuracy", "boundary_f")
    ]
    images = sorted((data / "test" / "images").iterdir())
    assert main(["predict", "--model", str(run), str(data / "test" / "images"), "--save-images", "seen"]) == 0
    results = load(run).predict(str(data / "test" / "images"))
    assert isinstance(results, Segmentation)
    assert len(results) == len(images)
    assert len(list(Path("seen").glob("*.png"))) == len(images)
    values = [np.asarray(Pillow.open(Path("seen") / f"{safe_name(name)}.png")) for name in results.ids]
    assert all((value == mask).all() for value, mask in zip(values, results.masks, strict=True))
    truths = [drawn(int(Path(name).stem) + 100)[1] for name in results.ids]
    accuracy = np.mean([(m == t).mean() for m, t in zip(results.masks, truths, strict=True)])
    assert accuracy == pytest.approx(figures["pixel_accuracy"])


def test_a_search_calls_its_scores_by_their_name(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = train_words(data, tmp_path / "out", "--trials", "1", "lr=1e-3:1e-2", epochs=1, batch=8)
    assert main(["tune", *words[1:]]) == 0
    assert "val mean IoU" in capsys.readouterr().out
    page = (tmp_path / "out" / "tuning.html").read_text(encoding="utf-8")
    assert "validation mean IoU of the best" in page
    assert "top-1" not in page


def test_a_mask_is_an_images_own_whatever_stands_beside_it(run: Path) -> None:
    predictor = predictor_of(load_bundle(run), "cpu")
    images = [drawn(n, side)[0][None] for n, side in ((1, 16), (2, 24), (3, 17))]
    together = predictor.predict(images, list("abc"))
    assert isinstance(together, Segmentation)
    assert [mask.shape for mask in together.masks] == [(16, 16), (24, 24), (17, 17)]
    for index, image in enumerate(images):
        alone = predictor.predict([image], ["x"])
        assert isinstance(alone, Segmentation)
        assert (alone.masks[0] == together.masks[index]).all()


def test_a_run_goes_on_as_if_it_had_not_been_stopped(data: Path, tmp_path: Path) -> None:
    whole = trainer(plan_for(data, flip=0.5, noise=0.1, cutmix=1.0))
    whole.run()
    first = trainer(plan_for(data, flip=0.5, noise=0.1, cutmix=1.0), tmp_path / "c")
    first._epoch()
    first._end_of_epoch()
    second = trainer(plan_for(data, flip=0.5, noise=0.1, cutmix=1.0), tmp_path / "c")
    second.restore(*newest_checkpoint(tmp_path / "c")[:2], "c")
    second.run()
    assert same(whole.best, second.best)
    assert whole.state.best == second.state.best


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "IMAGE"], "needs a classifier"),
        (["predict", "IMAGE", "--tta", "flip"], "the task is segmentation"),
        (["evaluate", "--data", "digits"], "the data is for classification, the model for segmentation"),
        (["evaluate", "--fail-under", "top1=0.9"], "top1"),
    ],
)
def test_what_a_model_of_masks_cannot_do_is_said(
    run: Path, data: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(data / "test" / "images" / "0.png")
    code = main([*(image if w == "IMAGE" else w for w in words), "--model", str(run)])
    assert code in (2, 3)
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_settings_that_cannot_be_are_refused_before_training(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in ((["--mixup", "0.2"], "--cutmix 1"), (["--balance", "sample"], "--balance loss")):
        assert main(train_words(data, None, *more)) == 2
        assert message in capsys.readouterr().err
    assert main(["train", "--data", "digits", "--dice", "0.5", "--device", "cpu"]) == 2
    assert "compares masks" in capsys.readouterr().err


def test_a_figure_under_its_bound_is_a_failure(run: Path) -> None:
    assert main(["evaluate", "--model", str(run), "--fail-under", "miou=0.999"]) == 8
    assert main(["evaluate", "--model", str(run), "--fail-under", "pixel_accuracy=0.5"]) == 0


def test_pictures_show_truth_answer_and_mistakes() -> None:
    truth, answer = np.array([[0, 1], [1, IGNORED]], np.uint8), np.array([[0, 0], [1, 1]], np.uint8)
    black, white, red, grey = ([0, 0, 0], [255, 255, 255], [214, 39, 40], [128, 128, 128])
    assert coloured(truth, 2).transpose(1, 2, 0).tolist() == [[black, white], [white, grey]]
    found = mistakes(answer, truth, 2).transpose(1, 2, 0)
    assert [found[0, 1].tolist(), found[1, 1].tolist()] == [red, [42, 42, 42]]
