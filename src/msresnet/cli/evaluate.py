"""`msresnet evaluate`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import UsageError
from msresnet.infer.config import EvaluateConfig

if TYPE_CHECKING:
    from msresnet.data.sample import Source

GATES = ("top1", "top5")
SPLITTING = ("val_data", "test_data", "val_fraction", "test_fraction")
READING = ("image_shape", "label_column")


def main(words: list[str], common: Common) -> int:
    """Measure a model on labelled images; prints the figures."""
    parsed = parse("evaluate", EvaluateConfig, words, common.config)
    config = parsed.config
    if common.print_config:
        print(parsed.table())
        return 0
    gate = _gate(config.fail_under)
    _check_used(parsed.origin, config)
    from msresnet.bundle import load_bundle
    from msresnet.cli.screen import Screen
    from msresnet.files import check_free, check_output
    from msresnet.infer.evaluate import evaluate, pick, prepare
    from msresnet.infer.predictor import Predictor
    from msresnet.report.html import Story
    from msresnet.runtime import environment
    from msresnet.train.fit import METRICS, PREDICTIONS, REPORT

    screen = Screen(common)
    if config.output is not None:
        check_free(Path(config.output), ours=(METRICS, PREDICTIONS, REPORT))
        check_output(Path(config.output), folder=True)
    bundle = load_bundle(config.model)
    sets, notes = _sets(config)
    split, source = pick(sets, config.split)
    views = "" if config.tta == "none" else f", outputs averaged over views ({config.tta})"
    screen.notes([*notes, f"measuring on the {split} set{views}"])
    data = prepare(bundle, source, config)
    if config.data is None and _changed(_run(config), split, data.fingerprint()):
        warning = f"warning: the {split} set has changed since training; images that were trained on may be in it"
        screen.note(warning, "yellow")
    measured = evaluate(Predictor(bundle, config.device, config.batch_size, tta=config.tta), data, split)
    if config.output is not None:
        command = shlex.join(["msresnet", "evaluate", *words])
        story = Story(bundle, measured, data, [], notes, environment(), command)
        _write(Path(config.output), story)
        screen.note(f"report: {Path(config.output) / 'report.html'}")
    if config.format == "json":
        print(json.dumps(measured.metrics, indent=2, ensure_ascii=False))
    else:
        _table(measured.metrics, screen)
    return _judge(gate, measured.metrics)


def _check_used(given: Collection[str], config: EvaluateConfig) -> None:
    """Raise UsageError for a setting that has no effect here."""
    useless = dict.fromkeys(SPLITTING, "evaluate splits no data; it measures on one set of --data")
    if config.data is None:
        useless |= dict.fromkeys(READING, "without --data, it is read as it was in training")
    for name in given:
        if name in useless:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} has no effect here", why=useless[name], hint="--data, with --split")


def _sets(config: EvaluateConfig) -> tuple[dict[str, Source], list[str]]:
    """The sets to choose from, those named now, else those the run was trained on; and what was inferred."""
    from dataclasses import replace

    from msresnet.data.splits import open_data, read_any
    from msresnet.train.config import TrainConfig
    from msresnet.train.fit import CONFIG, from_yaml

    if config.data is None:
        path = _run(config) / CONFIG
        if not path.is_file():
            raise UsageError("the model does not say which data it is of", where=str(path.parent), hint="--data FOLDER")
        settings = TrainConfig(**from_yaml(path))
        splits = open_data(settings.data, replace(settings, on_bad=config.on_bad, workers=config.workers))
        return splits.named(), splits.notes
    found, notes = read_any(config.data, config)
    unnamed = config.split == "auto" and found.keys() == {"train"}  # whether it was trained on is not known
    return ({"given": found["train"]} if unnamed else found), notes


def _run(config: EvaluateConfig) -> Path:
    named = Path(config.model)
    return named if named.is_dir() else named.parent


def _changed(run: Path, split: str, digest: str) -> bool:
    """Whether a run says that it knew a set as another one; runs that say nothing are believed."""
    from msresnet.cli.pipeline import DIGEST
    from msresnet.train.fit import METRICS

    try:
        before = json.loads((run / METRICS).read_text(encoding="utf-8"))[DIGEST][split]
    except (OSError, ValueError, LookupError, TypeError):
        return False
    return bool(before != digest)


def _write(folder: Path, story: Any) -> None:
    from msresnet.files import write_json, write_text
    from msresnet.infer.evaluate import predictions_csv
    from msresnet.report.html import write_report
    from msresnet.train.fit import METRICS, PREDICTIONS, REPORT

    write_json(folder / METRICS, story.evaluation.metrics)
    write_text(folder / PREDICTIONS, predictions_csv(story.evaluation))
    write_report(folder / REPORT, story)


def _table(metrics: dict[str, Any], screen: Any) -> None:
    from rich.markup import escape
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
        classes.add_row(escape(row["class"]), *figures, f"{row['n']:,}")
    screen.table(classes)
    if "exits" in metrics:
        screen.table(_exits(metrics))
    if metrics["worst"]:
        mistakes = Table(title="most confident mistakes", title_justify="left")
        for name in ("image", "truth", "answer", "probability"):
            mistakes.add_column(name)
        for item in metrics["worst"]:
            texts = (escape(item[k]) for k in ("id", "truth", "label"))
            mistakes.add_row(*texts, f"{item['probability']:.4f}")
        screen.table(mistakes)


def _exits(metrics: dict[str, Any]) -> Any:
    """What each exit, and each bound on how sure an answer must be, gives for which cost."""
    from rich.table import Table

    table = Table(title="accuracy against cost", title_justify="left")
    for name in ("stop at", "top-1", "multiply-adds", "answered at each exit"):
        table.add_column(name, justify="left" if name == "stop at" else "right")
    rows = [(f"exit {row['exit']}", row, "") for row in metrics["exits"]]
    for row in metrics["budgets"]:
        shares = " ".join(f"{100 * share:.0f}" for share in row["answered"])
        rows.append((f"probability {row['confidence']:g}", row, shares + " %"))
    for name, row, shares in rows:
        table.add_row(name, f"{100 * row['top1']:.2f} %", f"{row['macs'] / 1e6:,.1f} M", shares)
    return table


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
