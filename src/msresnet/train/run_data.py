"""What a finished run says of its data: the settings it was trained with, and the sets to measure a model on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from msresnet.data.options import DataOptions
from msresnet.data.sample import OfClasses, Source
from msresnet.data.sets import Samples
from msresnet.data.splits import is_absent, open_data, read_any, seen_from
from msresnet.errors import DataError, UsageError
from msresnet.hub import PREFIX
from msresnet.models.described import describe
from msresnet.run_folder import ENVIRONMENT, LEARNT, SETTINGS, run_of
from msresnet.train.config import TrainConfig
from msresnet.train.fit import PLACES, from_yaml

Options = TypeVar("Options", bound=DataOptions)
OWN = "these are the data of the training itself: without --data, what was held out of them is measured"
COMPARED, FEW = 10_000, 0.01
"""How many images are compared with those that a run has learnt from; a smaller share of them is not worth a word."""


def settings_of(model: str) -> TrainConfig:
    """How a model was trained.

    Args:
        model: a run's folder, or a file in it.

    Raises UsageError for a model that is not a run, and for settings that cannot be read.
    """
    path = run_of(model) / SETTINGS
    if model.startswith(PREFIX) or not path.is_file():
        raise UsageError("the model does not say which data it is of", where=model, hint="--data FOLDER")
    settings = TrainConfig(**from_yaml(path))
    return replace(settings, **found_from(path.parent, asdict(settings)))  # type: ignore[arg-type]  # could hold any option


def found_from(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The data that a run's settings name, from here: it names them from where it was trained, above its own folder."""
    given = {name: settings.get(name) for name in PLACES}
    return {name: seen_from(folder.resolve(), spec) for name, spec in given.items() if spec is not None}


def check_there(folder: Path, settings: TrainConfig) -> None:
    """Raise DataError, saying where a run was trained, for data of it that are not here."""
    for name in PLACES:
        spec = getattr(settings, name)
        if spec is not None and is_absent(spec):
            what, hint = f"the run's data {spec!r} are not here", f"--{name.replace('_', '-')} with their place"
            raise DataError(what, where=str(folder), why=_trained_in(folder), hint=hint)


def _trained_in(folder: Path) -> str:
    try:
        return f"it was trained in {json.loads((folder / ENVIRONMENT).read_text(encoding='utf-8'))['folder']}"
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def sets_of(model: str, data: str | None, options: DataOptions) -> tuple[dict[str, Source], list[str]]:
    """The sets to choose from, by split, and what was inferred.

    Args:
        model: a run's folder, or a file in it.
        data: what `--data` names; None is the run's own data, split as in its training.
        options: how data is read.

    Raises UsageError for a model that is not a run, without `data`; DataError for data that cannot be read.
    """
    if data is not None:
        sets, notes = read_any(data, options)
        return sets, [*notes, OWN] if list(sets) == ["train"] and _is_own(model, data) else notes
    settings = settings_of(model)
    check_there(run_of(model), settings)
    splits = open_data(
        settings.data, replace(settings, on_bad=options.on_bad or settings.on_bad, workers=options.workers)
    )
    said = describe(run_of(model))
    sets, notes = of_known(splits.named(), said.classes if said is not None else splits.classes)
    return sets, [*splits.notes, *notes]


def of_known(sets: dict[str, Source], classes: Sequence[str]) -> tuple[dict[str, Source], list[str]]:
    """A run's sets without images of classes that it never had, which were added since; and what was left aside."""
    new = [name for name in next(iter(sets.values())).classes if name not in classes]
    if not new or any(s.planes or s.boxed or (s.targets < 0).any() for s in sets.values()):
        return sets, []
    known = {role: OfClasses(source, classes) for role, source in sets.items()}
    known = {role: source for role, source in known.items() if len(source)}
    return dict(known), [f"images of {', '.join(new)} are left aside: the model was trained without such a class"]


def reading_of(model: str, data: str | None, options: Options) -> Options:
    """How `sets_of` a model are read: as the run did where nobody says what to do about bad images of its own data.

    Raises UsageError for a run whose settings cannot be read.
    """
    unasked = data is None and options.on_bad is None
    if not unasked or model.startswith(PREFIX) or not (run_of(model) / SETTINGS).is_file():
        return options
    return replace(options, on_bad=settings_of(model).on_bad)


def learnt(model: str, data: Samples) -> list[str]:
    """What to say of a set some of whose images a run has learnt from, whatever they are called; nothing of others.

    Compared are pixels, as the model takes them.
    """
    try:
        kept = json.loads((run_of(model) / LEARNT).read_text(encoding="utf-8"))
        known, every = set(kept["digests"]), int(kept["images"])
    except (OSError, ValueError, LookupError, TypeError):  # not a run, or one that does not say
        return []
    found = data.digests(COMPARED)
    share = sum(digest in known for digest in found) * every / max(1, len(known) * len(found))
    text = f"{'about ' if every > len(known) else ''}{min(1.0, share):.0%} of these images were learnt from in training"
    return [f"warning: {text}: without --data, what was held out is measured"] if share >= FEW else []


def _is_own(model: str, data: str) -> bool:
    """Whether data is named that a run has learnt from."""
    try:
        own = settings_of(model).data
    except UsageError:  # it is not a run
        return False
    return own == data or os.path.realpath(own) == os.path.realpath(data)
