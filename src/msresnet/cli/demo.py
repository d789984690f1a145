"""`msresnet demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msresnet.cli.layers import parse
from msresnet.cli.main import Common

ENOUGH = 15
"""Epochs from which on the digits are learnt. Two cores that nobody else uses do twice as many in the usual time."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Train on the embedded digits, measure on held-out ones, predict one, explain it, write a report. Offline."""

    output: str = "runs/demo"
    """The run's folder; an earlier demo there is replaced."""
    time_limit: str = "30s"
    """Longest training time."""


def main(words: list[str], common: Common) -> int:
    """Run the whole tour; the last lines are a labelled prediction and the report's path."""
    config = parse("demo", DemoConfig, words, common).config
    from msresnet.bundle import load_bundle
    from msresnet.cli.pipeline import headline, train_run
    from msresnet.cli.screen import Screen
    from msresnet.files import check_free
    from msresnet.infer.backends.eager import predictor_of
    from msresnet.results import classified
    from msresnet.run_folder import HISTORY, REPORT, SETTINGS
    from msresnet.train.config import TrainConfig, seconds

    if not (Path(config.output) / SETTINGS).exists():
        check_free(Path(config.output))
    screen = Screen(common)
    training = TrainConfig(data="digits", epochs=60, time_limit=config.time_limit, output=config.output, exist_ok=True)
    finished = train_run(training, screen, ["demo", *words])
    assert finished is not None  # a demo has one process
    epochs = len((finished.folder / HISTORY).read_text(encoding="utf-8").splitlines()) - 1
    if epochs < ENOUGH:
        longer = f"--time-limit {round(4 * seconds(config.time_limit))}s"
        done = f"epochs within {config.time_limit}: {epochs} of {training.epochs}"
        screen.note(
            f"{done}. The digits want {ENOUGH} or more, for which a busy machine takes longer: {longer}", "bold"
        )
    print(headline(finished.evaluation))
    bundle = load_bundle(finished.folder)
    answer = predictor_of(bundle, "cpu").predict_ready(finished.data.image(0)[None], [finished.data.ids[0]])
    truth = bundle.task.class_names[int(finished.data.targets[0])]
    label, probability = classified(answer).top(1)[0][0]
    print(f"prediction: {answer.ids[0]} is a {label} with probability {probability:.4f} (it is labelled {truth})")
    print(f"report: {finished.folder / REPORT}")
    return 0
