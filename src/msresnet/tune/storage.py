"""Where a search is kept: Optuna's journal in the search's folder, made whole again after a kill."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.data.sample import Source
from msresnet.data.splits import Splits
from msresnet.errors import ResourceError, UsageError
from msresnet.files import disk_errors
from msresnet.train.begun import check_same, of_data, of_files
from msresnet.tune.config import TuneConfig
from msresnet.tune.space import Choice, Dimension

if TYPE_CHECKING:
    import optuna

NAME, JOURNAL = "msresnet", "study.journal"
LOCK = f"{JOURNAL}.lock"
GRID = 20
"""Parts of a training after which it is held against the others: by progress, so that trainings with more or fewer
epochs, or with a time limit, are compared at the same share of their schedule."""
WARMUP, STARTUP = 0.3, 5
"""Share of a training, and number of trials, before any is cut short: high learning rates look bad early."""


def require_optuna() -> None:
    """Raise ResourceError where Optuna is not installed; tell it not to write its own lines."""
    try:
        import optuna
    except ImportError as error:
        raise ResourceError("tune needs Optuna", why=str(error), hint='pip install "msresnet[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_study(folder: Path | None) -> optuna.Study:
    """The study of a folder, or a new one, not yet with its pruner. Raises UsageError where its journal is damaged."""
    import optuna
    from optuna.storages import InMemoryStorage, JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage: optuna.storages.BaseStorage = InMemoryStorage()
    if folder is not None:
        path = folder / JOURNAL
        _mend(path)
        try:
            storage = JournalStorage(JournalFileBackend(str(path)))
        except (ValueError, KeyError, TypeError) as error:
            hint = "another --output, or remove the file to begin again"
            raise UsageError("the study cannot be read", where=str(path), why=str(error)[:200], hint=hint) from error
    if storage.get_all_studies():
        return optuna.load_study(study_name=NAME, storage=storage)
    return optuna.create_study(study_name=NAME, storage=storage, direction="maximize")


def close_lost(study: optuna.Study) -> list[int]:
    """Trials that were killed count as none; their settings are tried again. Returns the numbers of all such."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return [trial.number for trial in study.get_trials(deepcopy=False) if not ended(trial)]


def ended(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial ended by itself. One that was killed is none, even if its last words were written."""
    state = trial.user_attrs.get("state")
    return trial.state.is_finished() and state is not None and (trial.state.name != "FAIL" or state == "failed")


def pruner(name: str, lost: Sequence[int]) -> optuna.pruners.BasePruner:
    """What cuts trials short, as if there had never been lost ones."""
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    class Hyperband(HyperbandPruner):
        """Optuna's goes by a trial's number, which a lost one takes, and knows no rounds before it was first asked."""

        def __init__(self) -> None:
            super().__init__(1, GRID, reduction_factor=3)
            self._try_initialization(None)  # type: ignore[arg-type]  # asked only where the resource is not given

        def _get_bracket_id(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> int:
            if trial.number in lost:
                return -1  # of no round
            counted = copy.copy(trial)
            counted.number -= sum(number < trial.number for number in lost)
            return super()._get_bracket_id(study, counted)

    made = {"median": lambda: MedianPruner(STARTUP, int(WARMUP * GRID)), "hyperband": Hyperband, "none": NopPruner}
    return made[name]()


def _mend(path: Path) -> None:
    """Take away what a killed writer left: half a line, and the lock beside the journal (the folder's is ours)."""
    with disk_errors(path):
        path.with_name(LOCK).unlink(missing_ok=True)
        if path.is_file():
            whole = path.read_bytes()
            if not whole.endswith(b"\n"):
                with path.open("r+b") as file:
                    file.truncate(whole.rfind(b"\n") + 1)


def identity(config: TuneConfig, splits: Splits) -> dict[str, Any]:
    """What has to stay as it was for scores to be comparable."""
    free = ("output", "workers", "trials", "format", "resume", "exist_ok")
    assert splits.val is not None
    digest = hashlib.sha256("\n".join(splits.val.ids).encode("utf-8", "surrogateescape"))
    digest.update(splits.val.targets.tobytes())
    plain = {name: value for name, value in asdict(config).items() if name not in free}
    values: dict[str, Any] = json.loads(json.dumps(plain | {"validation_images": digest.hexdigest()[:16]}))
    return values


def began_with(config: TuneConfig, space: Sequence[Dimension], train: Source) -> dict[str, str]:
    """Digests of what the trials begin with: the training data, and all weights and teachers that may be chosen."""
    places = [config.weights, config.teacher]
    for dimension in space:
        if isinstance(dimension, Choice) and dimension.name in ("weights", "teacher"):
            places += [None if value is None else str(value) for value in dimension.values]
    return of_data(train) | of_files(places)


def check_unchanged(study: optuna.Study, now: dict[str, Any], began: dict[str, str], folder: Path | None) -> None:
    """Raise UsageError, printing the difference, for a study of other settings.

    Raises DataError for one on other training data, ModelError where weights or a teacher have changed since.
    """
    before = study.user_attrs.get("settings")
    if before is None:
        study.set_user_attr("settings", now)
        study.set_user_attr("began", began)
        return
    keys = [key for key in now if key in before and before[key] != now[key]]
    if keys:
        rows = "; ".join(f"{key}: {before[key]!r} before, {now[key]!r} now" for key in keys)
        hint = "the settings as they were, or another --output"
        raise UsageError("a search cannot go on with other settings", where=str(folder), why=rows, hint=hint)
    check_same(study.user_attrs.get("began", {}), began, "search", str(folder))
