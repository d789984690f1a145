"""`msresnet benchmark`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.deploy.benchmark.config import BenchmarkConfig
from msresnet.errors import ResourceError, UsageError, some

if TYPE_CHECKING:
    from msresnet.cli.screen import Screen
    from msresnet.data.sample import Source
    from msresnet.deploy.agreement import Ready
    from msresnet.deploy.benchmark.contestants import Contestant
    from msresnet.deploy.benchmark.run import Measured

CSV, JSON, PAGE = "benchmark.csv", "benchmark.json", "benchmark.html"
SEED = 0


def main(words: list[str], common: Common) -> int:
    """Measure all contestants in turn; prints a row for each and each batch."""
    config = parse("benchmark", BenchmarkConfig, words, common).config
    from msresnet.cli.screen import Screen
    from msresnet.deploy.benchmark.contestants import contestants
    from msresnet.deploy.benchmark.peak import peaks
    from msresnet.deploy.benchmark.run import measure_all
    from msresnet.deploy.benchmark.table import rows
    from msresnet.files import check_free, check_output
    from msresnet.machine import cores
    from msresnet.runtime import choose_device

    screen = Screen(common)
    choose_device(config.device)
    if config.output is not None:
        check_free(Path(config.output), ours=(CSV, JSON, PAGE))
        check_output(Path(config.output), folder=True)
    with TemporaryDirectory(prefix="msresnet-benchmark-") as folder:
        chosen: list[Contestant] = []
        for model in config.models:
            source = _labelled(model, config)
            images = None if source is None else _ready(model, source, config)
            chosen += contestants(model, config, images, Path(folder))
        least = len(chosen) * config.rounds * len(config.sizes) * config.seconds
        how = f"{some(config.rounds, 'round')} of {config.seconds:g} s for each batch, {least:,.0f} s at least"
        screen.notes([f"{some(len(chosen), 'contestant')}, {how}"])
        found, failures = measure_all(chosen, config.sizes, config.rounds, config.seconds, screen.note)
        for line in failures:
            screen.note(line, "yellow")
        if not found:
            raise ResourceError("no contestant could be measured", why=failures[0].splitlines()[0])
        for each in found:
            each.figures = _score(each, config)
        here = {each.known["precision"] for each in found if each.known["device"] == "cpu"}
        reached = peaks(here, config.threads or cores())
    screen.notes([f"large convolutions reach {value / 1e9:,.0f} G/s in {p}" for p, value in reached.items()])
    table = rows(found, config.sizes, reached)
    if config.output is not None:
        _write(Path(config.output), table, reached, shlex.join(["msresnet", "benchmark", *common.given, *words]))
        screen.note(f"report: {Path(config.output) / PAGE}")
    _print(table, config.format, screen)
    return 0


def _labelled(model: str, config: BenchmarkConfig) -> Source | None:
    """The set to measure accuracy on: --data, else the run's own; None where there is none."""
    from msresnet.infer.evaluate import pick
    from msresnet.train.run_data import sets_of

    if config.data is None and not Path(model).exists():
        return None
    try:
        sets, _ = sets_of(model, config.data, config)
    except UsageError:  # a model that does not say which data it is of has its speed measured
        return None
    return pick(sets, "auto")[1]


def _ready(model: str, source: Source, config: BenchmarkConfig) -> Ready | None:
    """Readable images to calibrate on, as the model takes them; None for files, which are as they are."""
    import numpy as np
    import torch

    from msresnet.bundle import load_bundle
    from msresnet.data.sample import Subset
    from msresnet.deploy.benchmark.contestants import CALIBRATION
    from msresnet.deploy.compress.packed import pixels
    from msresnet.infer.backends.artefact import find_file
    from msresnet.infer.evaluate import prepare

    if find_file(model) is not None or not Path(model).exists():
        return None
    bundle = load_bundle(model)
    chosen = np.random.default_rng(SEED).permutation(len(source))[:CALIBRATION]
    data = prepare(bundle, Subset(source, np.sort(chosen)), config)
    return pixels(data, bundle, torch.arange(len(data)))[0]


def _score(each: Measured, config: BenchmarkConfig) -> dict[str, Any]:
    """The task's own figure, with its interval, on some labelled images; nothing where there are none."""
    import numpy as np

    from msresnet.data.sample import Subset
    from msresnet.deploy.benchmark.worker import running
    from msresnet.infer.backends.opened import open_predictor
    from msresnet.infer.evaluate import evaluate, prepare

    asked, source = each.contestant.asked, None
    if each.contestant.trained:
        source = _labelled(each.contestant.model, config)
    if source is None:
        return {}
    predictor = open_predictor(asked["path"], running(asked))
    chosen = np.random.default_rng(SEED).permutation(len(source))[: config.images]
    measured = evaluate(predictor, prepare(predictor.trained, Subset(source, np.sort(chosen)), config), "benchmark")
    metric = predictor.trained.task.metric
    low, high = measured.metrics.get(f"{metric}_ci95") or (None, None)
    return {"metric": metric, "score": measured.metrics[metric], "score_low": low, "score_high": high}


def _write(folder: Path, table: list[dict[str, Any]], reached: dict[str, float], command: str) -> None:
    from msresnet.files import write_json, write_text
    from msresnet.report.benchmark import write_page
    from msresnet.runtime import environment

    here = environment()
    write_json(folder / JSON, {"command": command, "peaks": reached, "rows": table, "environment": here})
    write_text(folder / CSV, _csv(table))
    write_page(folder / PAGE, table, reached, here, command)


def _csv(table: list[dict[str, Any]]) -> str:
    from msresnet.deploy.benchmark.table import COLUMNS
    from msresnet.rows import csv_text

    return csv_text([COLUMNS, *([row[name] for name in COLUMNS] for row in table)])


def _print(table: list[dict[str, Any]], form: str, screen: Screen) -> None:
    from msresnet.deploy.benchmark.table import HEADS, cells

    if form == "json":
        print(json.dumps(table, indent=2, ensure_ascii=False))
    elif form == "csv":
        print(_csv(table), end="")
    else:
        screen.columns(HEADS, [cells(row) for row in table], words=HEADS[:2])
