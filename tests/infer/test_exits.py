"""Early exits: who leaves where, what it costs, and that an answer does not depend on the company it was given in."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import Tensor

import msresnet
from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Image
from msresnet.data.splits import open_data
from msresnet.errors import DataError, UsageError
from msresnet.infer.backends import eager
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.config import Budget, Limited, PredictConfig, Running, budget
from msresnet.infer.evaluate import prepare
from msresnet.infer.exits import CONFIDENCES, EarlyExit, cost_curve
from msresnet.infer.inputs import expand
from msresnet.models.base import ImageModel
from msresnet.models.cost import count_macs, exit_macs
from msresnet.models.factory import create_classifier
from msresnet.nn.folding import fold
from msresnet.results import Evaluation, classified
from msresnet.runtime import StopRequest
from msresnet.tasks.classification import ClassificationTask
from msresnet.train.loop import Trainer
from msresnet.train.observer import Silent
from msresnet.train.plan import make_plan
from randomise import randomised
from tiny import config, train_words

NAMES = ["a", "b", "c", "d"]
TASK = ClassificationTask(NAMES)


@pytest.fixture(scope="module")
def run(bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network with exits."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        assert main(train_words(bars, folder, "--model-args", "exits=true", "-q", epochs=3, batch=8)) == 0
    return folder


@pytest.fixture(params=["msresnet_micro", "msdnet24_cifar"], scope="module")
def model(request: pytest.FixtureRequest) -> ImageModel:
    arguments: dict[str, Any] = {"exits": True} if request.param == "msresnet_micro" else {"layers": (1, 1, 1)}
    torch.manual_seed(0)
    network = create_classifier(request.param, num_classes=4, in_chans=1, img_size=28, **arguments)
    randomised(network)
    return fold(network)


@pytest.fixture(scope="module")
def images() -> Tensor:
    """From faint to strong, so that answers are of every sureness."""
    noise = torch.randn(40, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return noise * torch.linspace(0.05, 4, 40).view(-1, 1, 1, 1)


def decoded(folder: Path, preprocess: Preprocess) -> tuple[list[Image], list[str]]:
    """The images below a folder, and their names."""
    found = [(item.id, item.decode(preprocess.at_least)) for item in expand([str(folder)], io.BytesIO())]
    return [image for _, image in found if not isinstance(image, DataError)], [name for name, _ in found]


@torch.inference_mode()
def answered(model: ImageModel, x: Tensor, limit: Budget) -> tuple[Tensor, Tensor]:
    return EarlyExit(model, TASK, limit, x[:1])(x)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_every_image_leaves_at_the_first_answer_that_is_sure(model: ImageModel, images: Tensor, share: float) -> None:
    """The bound is one that a share of the images reaches at the first exit."""
    with torch.inference_mode():
        each = torch.stack(model(images, exits=True))
    sureness = each.double().softmax(2).amax(2)
    bound = float(sureness[0].quantile(1 - share)) + 1e-4
    sure = sureness >= bound
    sure[-1] = True
    expected = sure.int().argmax(0)
    logits, exits = answered(model, images, Budget(confidence=bound))
    assert exits.tolist() == expected.tolist()
    assert len(set(exits.tolist())) > 1
    torch.testing.assert_close(logits, each[expected, torch.arange(len(images))], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 17])
def test_company_does_not_change_an_answer(run: Path, bars: Path, batch_size: int) -> None:
    """To the last bit, though in each batch others leave and the rest goes on."""
    bundle = load_bundle(run)
    images, ids = decoded(bars, bundle.preprocess)
    at_first = classified(predictor_of(bundle, "cpu", 64, "0.000001").predict(images, ids))
    limit = f"{np.median(at_first.confidences):.17f}"
    first = classified(predictor_of(bundle, "cpu", 64, limit).predict(images, ids))
    again = classified(predictor_of(bundle, "cpu", batch_size, limit).predict(images, ids))
    assert first.exits is not None
    assert again.exits is not None
    assert len(set(first.exits.tolist())) > 1
    assert first.exits.tolist() == again.exits.tolist()
    assert np.array_equal(first.probabilities, again.probabilities)


def test_a_time_decides_how_deep_all_go(model: ImageModel, images: Tensor) -> None:
    logits, exits = answered(model, images, Budget(seconds=60))
    assert exits.tolist() == [model.num_exits - 1] * len(images)
    with torch.inference_mode():
        torch.testing.assert_close(logits, model(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match=r"--budget 0.0001ms(?s:.)*the first exit takes .* ms here"):
        answered(model, images, Budget(seconds=1e-7))


def test_a_network_with_one_exit_has_no_budget() -> None:
    plain = create_classifier("msresnet_micro", num_classes=4).eval()
    with pytest.raises(UsageError, match=r"there is one exit(?s:.)*exits=true"):
        EarlyExit(plain, TASK, Budget(confidence=0.9), torch.zeros(1, 1, 28, 28))


def test_the_curve_is_what_separate_formulas_give(model: ImageModel, images: Tensor) -> None:
    with torch.inference_mode():
        each = model(images, exits=True)
    targets = np.random.default_rng(0).integers(0, 4, len(images))
    ids = [str(i) for i in range(len(images))]
    results = TASK.decode(each[-1], ids)
    curve = cost_curve(model, TASK, each, Evaluation(results, targets, {}))
    macs = exit_macs(model)
    assert [row["macs"] for row in curve["exits"]] == macs == sorted(macs)
    for row, logits in zip(curve["exits"], each, strict=True):
        assert row["top1"] == pytest.approx(accuracy_score(targets, logits.argmax(1)))
    for row, bound in zip(curve["budgets"], CONFIDENCES, strict=True):
        logits, exits = answered(model, images, Budget(confidence=bound))
        assert row["confidence"] == bound
        assert row["top1"] == pytest.approx(accuracy_score(targets, logits.argmax(1)))
        assert row["macs"] == pytest.approx(np.mean([macs[i] for i in exits]), abs=1)
        assert sum(row["answered"]) == pytest.approx(1, abs=1e-3)


def test_operations_of_exits_add_up() -> None:
    """The last exit costs the network itself and the exits on the way."""
    with_exits = create_classifier("msresnet_micro", num_classes=4, exits=True)
    without = create_classifier("msresnet_micro", num_classes=4)
    heads = exit_macs(with_exits)[-1] - count_macs(without)
    assert exit_macs(without) == [count_macs(without)] == [count_macs(with_exits)]
    # A strided 3x3 of C to C channels on 14x14 and 7x7 maps, then C to 4 classes.
    assert heads == sum(9 * c * c * side * side + 4 * c for c, side in ((24, 7), (40, 4)))


def test_training_teaches_every_exit(bars: Path) -> None:
    settings = config(bars, model_args=("exits=true",), epochs=6)
    trainer = Trainer(make_plan(settings, open_data(settings.data, settings)), None, Silent(), StopRequest())
    before = {name: p.detach().clone() for name, p in trainer.network.named_parameters()}
    trainer.run()
    still = [name for name, p in trainer.network.named_parameters() if torch.equal(p, before[name])]
    assert still == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.9", Budget(confidence=0.9)),
        (".5", Budget(confidence=0.5)),
        ("1", Budget(confidence=1.0)),
        ("5ms", Budget(seconds=0.005)),
        ("0.2s", Budget(seconds=0.2)),
    ],
)
def test_budgets_are_read(text: str, expected: Budget) -> None:
    assert budget(text) == expected


@pytest.mark.parametrize("text", ["", "5", "0", "0.0", "-0.5", "1.5", "0ms", "5 minutes", "nan", "ms", "1e9s"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError, match=r"--budget 0.9, or --budget 5ms"):
        PredictConfig(budget=text)


def test_evaluate_and_its_report_hold_the_curve(run: Path, bars: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["evaluate", "--model", str(run), "--data", str(bars), "--output", str(tmp_path / "out"), "-q"]
    assert main([*words, "--format", "json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert [row["exit"] for row in metrics["exits"]] == [1, 2, 3]
    assert metrics["exits"][-1]["top1"] == metrics["top1"]
    assert "What an early answer costs" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert main(words[:5]) == 0
    assert "accuracy against cost" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv"])
def test_predict_says_which_exit_answered(run: Path, bars: Path, form: str, capsys: Any) -> None:
    words = ["predict", str(bars / "lying"), "--model", str(run), "--format", form]
    assert main([*words, "--budget", "0.6"]) == 0
    text = capsys.readouterr().out
    if form == "table":
        assert all(" at exit " in line for line in text.splitlines())
        return
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
    else:
        rows = json.loads(text) if form == "json" else [json.loads(line) for line in text.splitlines()]
    assert {int(row["exit"]) for row in rows} <= {1, 2, 3}
    assert main(words) == 0
    assert "exit" not in capsys.readouterr().out


def test_a_budget_that_cannot_be_kept_is_a_usage_error(run: Path, bars: Path, capsys: Any) -> None:
    assert main(["predict", str(bars / "lying"), "--model", str(run), "--budget", "0.0001ms"]) == 2
    assert "the first exit takes" in capsys.readouterr().err


def test_a_budget_is_kept_in_the_precision_that_is_asked_for(
    run: Path, bars: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit where nothing leaves early; of every exit the same. Slow without the hardware, but as exact."""
    monkeypatch.setattr(eager, "choose_precision", lambda asked, where: (asked, ""))
    bundle = load_bundle(run)
    samples = prepare(bundle, open_data(str(bars), DataOptions()).train, DataOptions(workers=0))
    pixels = np.stack([samples.image(i).numpy() for i in range(len(samples))])
    exact = eager.Eager(bundle, Running(device="cpu", precision="fp32"))
    how = Limited(device="cpu", precision="bf16")
    plain = eager.Eager(bundle, how)
    expected, _ = plain(pixels)
    found, exits = eager.Eager(bundle, replace(how, budget="1"))(pixels)
    assert exits is not None
    assert set(exits.tolist()) == {2}
    assert np.array_equal(found, expected)
    assert np.abs(expected - exact(pixels)[0]).max() > 1e-4  # float32 differs by less
    each = plain.exit_outputs(samples, len(samples))
    assert np.array_equal(each[-1].numpy(), expected)
    first, _ = eager.Eager(bundle, replace(how, budget="0.000001"))(pixels)
    assert np.array_equal(each[0].numpy(), first)


def test_exits_are_timed_in_the_precision_that_is_asked_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eager, "choose_precision", lambda asked, where: (asked, ""))
    bundle, seen = load_bundle(run), set[bool]()
    advance = type(bundle.model).advance

    def noted(self: ImageModel, state: list[Tensor], index: int) -> tuple[list[Tensor], Tensor]:
        seen.add(torch.is_autocast_enabled("cpu"))
        return advance(self, state, index)

    monkeypatch.setattr(type(bundle.model), "advance", noted)
    eager.Eager(bundle, Limited(device="cpu", precision="bf16", budget="60s"))
    assert seen == {True}


def test_compiled_code_and_a_budget_are_refused() -> None:
    with pytest.raises(UsageError, match="--backend compiled and a budget contradict each other"):
        PredictConfig(backend="compiled", budget="0.9")


def test_the_python_door_keeps_a_budget_too(run: Path, bars: Path) -> None:
    model = msresnet.load(run)
    assert isinstance(model, msresnet.Classifier)
    early = model.predict(str(bars / "lying"), budget="0.000001")
    assert early.exits.tolist() == [0] * len(early)
    limited = predictor_of(load_bundle(run), "cpu", 64, "0.000001")
    expected = limited.predict(*decoded(bars / "lying", limited.trained.preprocess))
    assert np.array_equal(early.probabilities, classified(expected).probabilities)
    with pytest.raises(UsageError, match=r"--budget 0\.9"):
        model.predict(str(bars / "lying"), budget="soon")
