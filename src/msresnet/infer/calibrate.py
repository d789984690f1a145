"""What makes a trained model's scores mean what they say, fitted on labelled images and kept in its bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from msresnet.bundle import Bundle, bundle_of
from msresnet.data.sets import Samples
from msresnet.errors import DataError, UsageError
from msresnet.files import LOCK, lock
from msresnet.infer.predictor import Predictor

T = TypeVar("T")
COMMAND = "msresnet evaluate --calibrate"


def pick_for_fitting(sets: Mapping[str, T], split: str) -> tuple[str, T]:
    """The set to fit on: validation, else the only one. Raises UsageError where it would be a test set unasked."""
    for name in ("val", "given", "train") if split == "auto" else (split,):
        if name in sets and (name != "train" or split == "train" or len(sets) == 1):
            return name, sets[name]
    why = "what is fitted on a test set measures nothing any more"
    raise UsageError(
        f"there is no {'validation' if split == 'auto' else split} set to calibrate on",
        why=f"there is {', '.join(sets)}; {why}",
        hint=f"--data OTHER, or --split {' or '.join(sets)} to say that it is meant",
    )


def calibrate(predictor: Predictor, data: Samples, split: str) -> tuple[Bundle, dict[str, Any]]:
    """The bundle with what was fitted on a set, and the figures before and after.

    Raises DataError for answers that nothing fits, UsageError for a task without anything to fit.
    """
    bundle = bundle_of(predictor.trained, "--calibrate")
    results, indices = predictor.predict_set(data)
    task, figures = bundle.task.calibrated(bundle.task.evaluate(results, bundle.task.truths(data, indices)))
    return replace(bundle, task=task), {"split": split, **figures}


def settled(
    bundle: Bundle, sets: Mapping[str, Samples], opened: Callable[[Bundle], Predictor]
) -> tuple[Bundle, dict[str, Any]]:
    """A trained bundle with what its task has to know before it is used, from the validation set, and what was fitted.

    It stays as it is, with nothing fitted, where the task needs nothing, there is no such set, or no answer is right.
    `opened` puts a bundle to work, which is done only where something is to be fitted.
    """
    if not bundle.task.needs_calibration or "val" not in sets:
        return bundle, {}
    try:
        return calibrate(opened(bundle), sets["val"], "val")
    except DataError:
        return bundle, {}


def keep(folder: Path, bundle: Bundle, split: str | None, metrics: dict[str, Any]) -> None:
    """Write a calibrated bundle's config into its folder; the weights there stay, and a card that somebody wrote.

    Figures that were measured before and depend on it leave the scores, those of `split` are replaced by new ones.

    Args:
        folder: of the bundle.
        bundle: the calibrated one.
        split: of the model's own data, which was measured again; None for other data.
        metrics: what was measured.

    Raises ResourceError when that fails; the bundle is then as it was before.
    """
    depend = bundle.task.calibrated_figures
    scores = {
        name: {key: value for key, value in entry.items() if key not in depend} for name, entry in bundle.scores.items()
    }
    if split in scores:
        new = {name: metrics[name] for name in bundle.task.kept}
        scores[split] |= new | {"measured_by": COMMAND}
    with lock(folder) if (folder / LOCK).exists() else nullcontext():
        bundle.with_scores(scores).save_config(folder, before=bundle)
