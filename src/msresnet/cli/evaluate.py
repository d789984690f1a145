"""`msresnet evaluate`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import UsageError
from msresnet.infer.config import EvaluateConfig

GATES = ("top1", "top5")


def main(words: list[str], common: Common) -> int:
    """Measure a model on labelled images; prints the figures."""
    parsed = parse("evaluate", EvaluateConfig, words, common.config)
    config = parsed.config
    if common.print_config:
        print(parsed.table())
        return 0
    gate = _gate(config.fail_under)
    from msresnet.bundle import load_bundle
    from msresnet.cli.screen import Screen
    from msresnet.files import check_output
    from msresnet.infer.evaluate import evaluate, pick, prepare
    from msresnet.infer.predictor import Predictor
    from msresnet.report.html import Story
    from msresnet.runtime import environment

    screen = Screen(common)
    if config.output is not None:
        check_output(Path(config.output), folder=True)
    bundle = load_bundle(config.model)
    splits = _splits(config)
    split, source = pick(splits.named(), config.split)
    screen.notes([*splits.notes, f"measuring on the {split} set"])
    data = prepare(bundle, source, config)
    measured = evaluate(Predictor(bundle, config.device, config.batch_size), data, split)
    if config.output is not None:
        command = shlex.join(["msresnet", "evaluate", *words])
        story = Story(bundle, measured, data, [], splits.notes, environment(), command)
        _write(Path(config.output), story)
        screen.note(f"report: {Path(config.output) / 'report.html'}")
    if config.format == "json":
        print(json.dumps(measured.metrics, indent=2, ensure_ascii=False))
    else:
        _table(measured.metrics, screen)
    return _judge(gate, measured.metrics)


def _splits(config: EvaluateConfig) -> Any:
    """The sets to choose from: those named now, else those the run was trained on."""
    from dataclasses import replace

    from msresnet.data.splits import Splits, open_data, read_any
    from msresnet.train.config import TrainConfig
    from msresnet.train.fit import CONFIG, from_yaml

    if config.data is None:
        named = Path(config.model)
        path = (named if named.is_dir() else named.parent) / CONFIG
        if not path.is_file():
            raise UsageError("the model does not say which data it is of", where=str(path.parent), hint="--data FOLDER")
        settings = TrainConfig(**from_yaml(path))
        return open_data(settings.data, replace(settings, on_bad=config.on_bad, workers=config.workers))
    found, notes = read_any(config.data, config)
    return Splits(found.get("train", next(iter(found.values()))), found.get("val"), found.get("test"), notes)


def _write(folder: Path, story: Any) -> None:
    from msresnet.cli.pipeline import METRICS, PREDICTIONS, REPORT
    from msresnet.files import write_json, write_text
    from msresnet.infer.evaluate import predictions_csv
    from msresnet.report.html import write_report

    write_json(folder / METRICS, story.evaluation.metrics)
    write_text(folder / PREDICTIONS, predictions_csv(story.evaluation))
    write_report(folder / REPORT, story)


def _table(metrics: dict[str, Any], screen: Any) -> None:
    from rich.table import Table

    low, high = metrics["top1_ci95"]
    table = Table(title=f"{metrics['split']} set, {metrics['n']:,} images", title_justify="left")
    for name in ("figure", "value", "95 % interval"):
        table.add_column(name)
    table.add_row("top-1", f"{100 * metrics['top1']:.2f} %", f"{100 * low:.2f} to {100 * high:.2f} %")
    table.add_row("top-5", f"{100 * metrics['top5']:.2f} %", "")
    table.add_row("loss", f"{metrics['loss']:.4f}", "")
    table.add_row("calibration error", f"{metrics['ece']:.4f}", "")
    screen.table(table)
    classes = Table()
    for name in ("class", "precision", "recall", "F1", "images"):
        classes.add_column(name, justify="left" if name == "class" else "right")
    for row in metrics["per_class"]:
        figures = (f"{100 * row[k]:.1f}" for k in ("precision", "recall", "f1"))
        classes.add_row(row["class"], *figures, f"{row['n']:,}")
    screen.table(classes)


def _gate(text: str | None) -> tuple[str, float] | None:
    """A figure's name and its lower bound from 'top1=0.9'. Raises UsageError."""
    if text is None:
        return None
    name, _, bound = text.partition("=")
    try:
        lowest = float(bound)
    except ValueError:
        lowest = -1.0
    if name not in GATES or not 0 <= lowest <= 1:
        why = f"{' or '.join(GATES)}, and a bound from 0 to 1"
        raise UsageError(f"--fail-under {text}", why=why, hint="--fail-under top1=0.9")
    return name, lowest


def _judge(gate: tuple[str, float] | None, metrics: dict[str, Any]) -> int:
    from msresnet.errors import QualityGateError

    if gate is not None and metrics[gate[0]] < gate[1]:
        raise QualityGateError(f"{gate[0]} is {metrics[gate[0]]:.4f}, under {gate[1]:g}", why="--fail-under")
    return 0
