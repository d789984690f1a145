"""One call from a trained model to a smaller one: made, measured beside the given one, written if it is good enough.

Nothing is written before it is measured, so that what is refused leaves nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msresnet.bundle import Bundle
from msresnet.deploy.compress.config import PACKED, CompressConfig, To
from msresnet.deploy.compress.data import Data
from msresnet.deploy.compress.made import Given, Made, Scores, Watcher, engines, files_of
from msresnet.deploy.compress.packed import pack, pixels
from msresnet.deploy.compress.table import BATCH, Comparison, Row, check_good, speed
from msresnet.deploy.compress.training import distil, prune
from msresnet.deploy.package import COMPRESS, new_folder
from msresnet.infer.baseline import beside
from msresnet.infer.config import Engine
from msresnet.infer.evaluate import evaluate
from msresnet.infer.gates import read_gates
from msresnet.infer.predictor import Predictor
from msresnet.results import Evaluation


def compress(bundle: Bundle, data: Data, config: CompressConfig, place: Path, watcher: Watcher) -> Comparison:
    """Make, measure, and write unless a bound is broken.

    Args:
        bundle: the given model.
        data: of the model.
        config: what is wanted.
        place: the folder of the result.
        watcher: who is told, the comparison before it is judged.

    Raises QualityGateError, with nothing written, and what making it raises.
    """
    split = data.measured_on(config.split)
    given = Given(bundle)
    made = _make(given, data, config, place.name, watcher)
    found, evaluation = _compared(given, data, config, split, made)
    watcher.compared(found)
    check_good(found, read_gates(config.fail_under), config.max_drop)
    kept = {name: evaluation.metrics[name] for name in bundle.task.kept}
    scores = {split: kept | {"measured_by": COMPRESS, "data": data.settings.data}}
    with new_folder(place, files_of(config.to)) as folder:
        made.write(folder, scores)
    return found


def _make(given: Given, data: Data, config: CompressConfig, name: str, watcher: Watcher) -> Made:
    if config.to in PACKED:
        return pack(given, data, config, name, watcher)
    learn = prune if config.to == "pruned" else distil
    smaller = learn(given.bundle, data, config, watcher)

    def write(folder: Path, scores: Scores) -> None:
        smaller.with_scores(scores).save(folder)

    after = Given(smaller)
    return Made(after.at_work(_engines(config.to), config.device), after.size, alike=True, write=write)


def _engines(to: To) -> tuple[Engine, ...]:
    """The runtimes that both models are measured in: torch, and what is installed for exported networks."""
    return engines() if to == "int8" else ("torch", *engines())


def _compared(
    given: Given, data: Data, config: CompressConfig, split: str, made: Made
) -> tuple[Comparison, Evaluation]:
    """Both models' sizes, speeds and figures, and the evaluation of the result where it is worst."""
    samples, bundle, task = data.sets[split], given.bundle, given.bundle.task
    images, _ = pixels(samples, bundle, data.some(split, BATCH, config.seed))
    originals = [(p, speed(p, images)) for p in given.at_work(_engines(config.to), config.device)]
    fastest, _ = max(originals, key=lambda pair: pair[1][1])
    before = evaluate(fastest, samples, split)
    rows = [_row("before", predictor, given.size, fast, before) for predictor, fast in originals]
    difference, results = dict[str, Any](), list[Evaluation]()
    for predictor in made.predictors:
        if not results or not made.alike:
            results.append(evaluate(predictor, samples, split))
            if task.right_or_wrong:
                name = f"{predictor.backend.name} {predictor.backend.precision}"
                difference[name] = beside(bundle, results[-1], bundle, before, config.model)["difference"]
        rows.append(_row("after", predictor, made.size, speed(predictor, images), results[-1]))
    worst = min(results, key=lambda result: float(result.metrics[task.metric]))
    return Comparison(config.to, split, task.metric, task.gates, rows, difference), worst


def _row(model: str, predictor: Predictor, size: int, fast: tuple[float, float], measured: Evaluation) -> Row:
    trained, backend = predictor.trained, predictor.backend
    words = (model, backend.name, backend.precision, size, trained.params, trained.macs)
    return Row(*words, *fast, measured.metrics)
