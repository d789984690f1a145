"""`msresnet evaluate`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import DataError, UsageError
from msresnet.infer.config import FORMS, EvaluateConfig, which_run
from msresnet.infer.gates import check_gates, judge, read_gates
from msresnet.run_folder import METRICS, PREDICTIONS, REPORT, run_of
from msresnet.tasks.words import title

if TYPE_CHECKING:
    from msresnet.bundle import Bundle
    from msresnet.cli.screen import Screen
    from msresnet.data.sample import Source
    from msresnet.data.sets import Samples
    from msresnet.infer.predictor import Predictor
    from msresnet.report.story import Story
    from msresnet.results import Evaluation
    from msresnet.tasks.base import Table, Task
    from msresnet.trained import Trained

SPLITTING = ("val_data", "test_data", "val_fraction", "test_fraction")
READING = ("image_shape", "label_column")


def main(words: list[str], common: Common) -> int:
    """Measure a model on labelled images; prints the figures."""
    parsed = parse("evaluate", EvaluateConfig, words, common)
    config = parsed.config
    gates = read_gates(config.fail_under)
    _check_used(parsed.origin, config)
    from msresnet.bundle import bundle_of
    from msresnet.cli.screen import Screen
    from msresnet.report.story import Story
    from msresnet.runtime import environment
    from msresnet.tasks.known import TASKS

    screen, flags = Screen(common), [name.replace("_", "-") for name in parsed.origin]
    # What no task knows is refused before a model is loaded, what this one does not know after.
    check_gates(gates, {name: side for task in TASKS.values() for name, side in task.gates.items()}, flags)
    _check_output(config)
    predictor, fitted = _opened(config.model, config), dict[str, Any]()
    rival = None if config.baseline is None else _opened(config.baseline, config)
    task = predictor.trained.task
    check_gates(gates, task.gates, flags)
    _check_possible(config, predictor.trained, None if rival is None else rival.trained)
    sets, notes = _sets(config)
    screen.notes([*which_run(config.model), *notes])
    if predictor.backend.name != "torch":
        screen.notes([predictor.backend.reason])
    if config.calibrate:
        predictor, fitted = _calibrate(predictor, sets, config, screen)
    split, source = _pick(sets, config, fitted)
    measured, data, warnings = _measure(predictor, rival, (split, source), config, screen)
    if fitted:
        measured.metrics["calibration"] = fitted
        warnings += _keep(bundle_of(predictor.trained, "--calibrate"), split, measured.metrics, config, screen)
    if config.output is not None:
        command = shlex.join(["msresnet", "evaluate", *common.given, *words])
        known = config.data is None and data.fingerprint() == _before(config.model, split)
        story = Story(predictor.trained, measured, data, [], [*notes, *warnings], environment(), command, known)
        _write(config, story)
        screen.note(f"report: {Path(config.output) / REPORT}")
    _print(task, measured.metrics, config, screen)
    judge(gates, task.gates, measured.metrics)
    return 0


def _opened(model: str, config: EvaluateConfig) -> Predictor:
    from msresnet.infer.backends.opened import open_predictor

    return open_predictor(model, config)


def _check_used(given: Collection[str], config: EvaluateConfig) -> None:
    """Raise UsageError for a setting that has no effect here."""
    useless = dict.fromkeys(SPLITTING, ("evaluate splits no data; it measures on one set", "--data, with --split"))
    if config.data is None:
        why = "without --data, it is read as it was in training"
        useless |= dict.fromkeys(READING, (why, "--data, with --split"))
    if config.output is None:
        useless["predictions"] = ("nothing is written", "--output FOLDER")
    for name in given:
        if name in useless:
            why, hint = useless[name]
            raise UsageError(f"--{name.replace('_', '-')} has no effect here", why=why, hint=hint)


def _check_output(config: EvaluateConfig) -> None:
    """Raise UsageError for a folder that cannot be written to or holds files of others, before anything is measured."""
    from msresnet.files import check_free, check_output
    from msresnet.infer.answers import need_pyarrow

    if config.output is not None:
        answers = [str(Path(PREDICTIONS).with_suffix(f".{form}")) for form in FORMS]
        check_free(Path(config.output), ours=(METRICS, REPORT, *answers), made=_is_measured)
        check_output(Path(config.output), folder=True)
        if config.predictions == "parquet":
            need_pyarrow()


def _is_measured(folder: Path) -> bool:
    """Whether a folder's figures are of an evaluation: other programs write metrics.json too."""
    try:
        found = json.loads((folder / METRICS).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"task", "split", "params", "macs"} <= found.keys()


def _check_possible(config: EvaluateConfig, *models: Trained | None) -> None:
    """Raise UsageError for what models cannot be asked, before anything is measured."""
    from msresnet.bundle import bundle_of
    from msresnet.infer.robustness import check_sizes

    flags = ("baseline", "abstain_below", "object_scale", "image_sizes")
    asked = [name.replace("_", "-") for name in flags if getattr(config, name)]
    for model in models:
        if model is not None:
            why = f"the task of {model.architecture} is {model.task.name}"
            if config.calibrate and not model.task.calibrates:
                raise UsageError("--calibrate has nothing to fit", why=why, hint="leave it out")
            if asked and not model.task.right_or_wrong:
                raise UsageError(f"--{asked[0]} is for answers that are right or wrong", why=why, hint="leave it out")
            if config.calibrate:
                bundle_of(model, "--calibrate")
            if config.sizes:
                check_sizes(bundle_of(model, "--image-sizes"), config.sizes)


def _sets(config: EvaluateConfig) -> tuple[dict[str, Source], list[str]]:
    """The sets to choose from, those named now, else those the run was trained on; and what was inferred."""
    from msresnet.train.run_data import sets_of

    found, notes = sets_of(config.model, config.data, config)
    # Whether a set that has no name was trained on is not known.
    unnamed = config.data is not None and config.split == "auto" and found.keys() == {"train"}
    return ({"given": found["train"]} if unnamed else found), notes


def _calibrate(
    predictor: Predictor, sets: dict[str, Source], config: EvaluateConfig, screen: Screen
) -> tuple[Predictor, dict[str, Any]]:
    """A predictor with what was fitted, and how that came about."""
    from msresnet.infer.backends.opened import run_bundle
    from msresnet.infer.calibrate import calibrate, pick_for_fitting
    from msresnet.infer.evaluate import prepare

    split, source = pick_for_fitting(sets, config.split)
    bundle, fitted = calibrate(predictor, prepare(predictor.trained, source, config), split)
    words = (f"{name} {before:.4f} before, {after:.4f} after" for name, (before, after) in _pairs(fitted))
    screen.note(f"calibrated on the {split} set, {fitted['n']:,} images: {'; '.join(words)}", "bold")
    return run_bundle(bundle, config), fitted


def _pairs(fitted: dict[str, Any]) -> list[tuple[str, list[float]]]:
    """What was fitted, then what it changed: in words, and each before and after."""
    names = ("temperature", "score", "ece", "loss")
    words = {"score": "score of boxes that are shown"}
    return [(words.get(name) or title(name), fitted[name]) for name in names if name in fitted]


def _pick(sets: dict[str, Source], config: EvaluateConfig, fitted: dict[str, Any]) -> tuple[str, Source]:
    """The set to measure on: of a calibrated model the test set, else the one that it was calibrated on."""
    from msresnet.infer.evaluate import pick

    measures_itself = fitted and config.split == "auto" and "test" not in sets
    return pick(sets, fitted["split"] if measures_itself else config.split)


def _for_baseline(rival: Predictor, source: Source, config: EvaluateConfig) -> Samples:
    """A set as the baseline takes it. Raises DataError, which says that it is the baseline that cannot."""
    from msresnet.infer.evaluate import prepare

    try:
        return prepare(rival.trained, source, config)
    except DataError as error:
        where = f"--baseline {config.baseline}"
        raise DataError(error.what, where=where, why=error.why, hint="--baseline ANOTHER") from error


def _measure(
    predictor: Predictor, rival: Predictor | None, chosen: tuple[str, Source], config: EvaluateConfig, screen: Screen
) -> tuple[Evaluation, Samples, list[str]]:
    """All that was asked for, of one set; the set, and what makes its figures less than they seem."""
    from msresnet.data.unreadable import skipped
    from msresnet.infer.baseline import beside
    from msresnet.infer.evaluate import evaluate, prepare
    from msresnet.infer.robustness import bands, robustness

    (split, source), model = chosen, predictor.trained
    views = "" if config.tta == "none" else f", outputs averaged over views ({config.tta})"
    screen.notes([f"measuring on the {split} set{views}"])
    data = prepare(model, source, config)
    warnings = _changed(config, split, data)
    for warning in warnings:
        screen.note(warning, "yellow")
    others = None if rival is None else _for_baseline(rival, source, config)
    measured = evaluate(predictor, data, split)
    figures = measured.metrics
    if rival is not None and others is not None:
        theirs = evaluate(rival, others, split)
        figures["baseline"] = beside(model, measured, rival.trained, theirs, str(config.baseline))
    if config.abstain_below is not None:
        figures["abstain"] = model.task.abstaining(measured, config.abstain_below)
    if model.task.right_or_wrong and (rows := bands(measured.predictions.ids, model.task.right(measured))):
        figures["scale_bands"] = rows
    if config.scales or config.sizes:
        figures["robustness"] = robustness(predictor, rival, source, config)
    missing = skipped(split, len(data.bad))
    screen.notes(missing)
    return measured, data, [*missing, *warnings]


def _changed(config: EvaluateConfig, split: str, data: Samples) -> list[str]:
    """A warning where a run says that it knew a set as another one; runs that say nothing are believed."""
    before = None if config.data is not None else _before(config.model, split)
    if before in (None, data.fingerprint()):
        return []
    return [f"warning: the {split} set has changed since training; images that were trained on may be in it"]


def _before(model: str, split: str) -> str | None:
    """The digest of a set when a run was trained; None where it does not say."""
    from msresnet.cli.pipeline import DIGEST

    try:
        return str(json.loads((run_of(model) / METRICS).read_text(encoding="utf-8"))[DIGEST][split])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _keep(bundle: Bundle, split: str, metrics: dict[str, Any], config: EvaluateConfig, screen: Screen) -> list[str]:
    """Write what was fitted into the model's folder; returns a warning where figures flatter because of it."""
    from msresnet.infer.calibrate import keep

    folder = run_of(config.model)
    keep(folder, bundle, split if config.data is None else None, metrics)
    name, (_, value) = _pairs(metrics["calibration"])[0]
    screen.note(f"{name} {value:.4f} is kept in {folder}; every verb and Python use it from now on")
    if bundle.task.calibrated_figures and metrics["calibration"]["split"] == split:
        why = "it was fitted on the images that are measured here: their loss and calibration error flatter"
        screen.note(f"warning: {why}", "yellow")
        return [f"warning: {why}"]
    return []


def _write(config: EvaluateConfig, story: Story) -> None:
    """The folder of --output."""
    from msresnet.files import write_json
    from msresnet.infer.answers import write_predictions
    from msresnet.report.html import write_report

    folder = Path(str(config.output))
    write_json(folder / METRICS, story.evaluation.metrics)
    answers = (folder / PREDICTIONS).with_suffix(f".{config.predictions}")
    write_predictions(answers, story.trained.task.rows(story.evaluation))
    write_report(folder / REPORT, story)


def _print(task: Task, metrics: dict[str, Any], config: EvaluateConfig, screen: Screen) -> None:
    """The figures, on standard output."""
    from msresnet.infer import baseline, robustness

    if config.format == "json":
        print(json.dumps(metrics, indent=2, ensure_ascii=False))
        return
    beside = [baseline.table(metrics, task.gates)] if "baseline" in metrics else []
    for table in (*task.tables(metrics), *beside, *robustness.tables(metrics)):
        screen.table(drawn(table))


def drawn(table: Table) -> Any:
    """A table of texts for the screen: numbers stand right, and nothing is markup."""
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(title=escape(table.title) or None, title_justify="left")
    for index, name in enumerate(table.columns):
        numeric = all(row[index][:1] in "+-.0123456789" for row in table.rows)  # '' is in every text
        grid.add_column(name, justify="right" if index and numeric else "left")
    for row in table.rows:
        grid.add_row(*map(escape, row))
    return grid
