"""The search itself, by Optuna, whose home is this folder: which settings next, which trainings are cut short.

What is tried next depends on the seed and on what was found before, and on nothing else: a search that was stopped
anywhere goes on as if it had not been, as far as trainings repeat themselves (those with a time limit do not quite).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.data.loaders import Opener
from msresnet.data.splits import Splits, open_data
from msresnet.errors import DivergedError, Interrupted, ModelError, UsageError, first_line
from msresnet.files import as_yaml, write_text
from msresnet.models.factory import MODELS
from msresnet.runtime import StopRequest, stop_on_signals
from msresnet.tasks.base import Task
from msresnet.tasks.known import TASKS
from msresnet.tasks.words import title
from msresnet.train.config import TrainConfig, seconds
from msresnet.train.fit import fit
from msresnet.train.observer import Observer, Silent
from msresnet.train.plan import learning
from msresnet.train.settings import common
from msresnet.tune.config import TuneConfig
from msresnet.tune.space import Choice, Dimension, read_space, with_settings
from msresnet.tune.storage import (
    GRID,
    JOURNAL,
    LOCK,
    began_with,
    check_unchanged,
    close_lost,
    ended,
    identity,
    open_study,
    pruner,
    require_optuna,
)
from msresnet.tune.trials import Scale, State, Trial, Tuned, best, to_csv

if TYPE_CHECKING:
    import optuna

TRIALS, BEST = "trials.csv", "best.yaml"
OURS = (JOURNAL, LOCK, TRIALS, BEST)
"""What a search leaves in its folder."""
FAILURES = (UsageError, ModelError, MemoryError, RuntimeError)
"""What may be wrong with one choice of settings and not with all; torch raises RuntimeError for want of memory."""
FEWEST, FOR_EACH = 10, 4
"""Finished trials, in all and for each dimension, before it is said what matters."""
Announce = Callable[[str], None]


def tune(
    config: TuneConfig,
    splits: Splits | None = None,
    folder: Path | None = None,
    observer: Observer | None = None,
    announce: Announce = lambda line: None,
) -> Tuned:
    """Try settings until `config.trials` trainings have ended; the validation set alone says which are good.

    Args:
        config: everything a user can say.
        splits: the data; None opens `config.data`. A test set is put aside.
        folder: where the study is kept, whose lock the caller holds; what is finished there counts. None keeps
            everything in memory.
        observer: who watches each training.
        announce: takes a line for each thing that happens.

    Raises UsageError for what cannot be searched, before anything trains; Interrupted on SIGINT and SIGTERM, with the
    study kept; ResourceError where Optuna is not installed.
    """
    space = check(config)
    splits = splits or open_data(config.data, config)
    if splits.val is None:
        what = "there is no validation set to choose by"
        raise UsageError(what, why="the test set chooses nothing", hint="--val-fraction 0.1 or --val-data")
    metric = _metric(config, space, TASKS[splits.train.task])
    study = open_study(folder)
    began = {} if folder is None else began_with(config, space, splits.train)
    check_unchanged(study, identity(config, splits), began, folder)
    study.pruner = pruner(config.pruner, close_lost(study))
    for note in splits.notes:
        announce(note)
    with stop_on_signals() as stop:
        alone, said = replace(splits, test=None), {*splits.notes}
        search = _Search(study, config, space, metric, alone, folder, stop, observer or Silent(), announce, said)
        search.run()
    return search.result()


def check(config: TuneConfig) -> tuple[Dimension, ...]:
    """What is searched. Raises what `tune` raises before it looks at the data."""
    require_optuna()
    space = read_space(config.space, _fixed(config))
    named = [value for d in space if isinstance(d, Choice) and d.name == "model" for value in d.values]
    for name in [*named, config.model]:
        if name != "auto":
            MODELS[str(name)]
    return space


def _metric(config: TuneConfig, space: Sequence[Dimension], kind: type[Task]) -> str:
    """The figure that all trials are scored by. Raises UsageError where it would not be the same."""
    fixed = _fixed(config)
    varied = [with_settings(fixed, {d.name: value}) for d in space if d.name == "balance" for value in d.ends]
    found = {kind.chosen_by(learning(each)) for each in varied or [fixed]}
    if len(found) > 1:
        what = "trials with and without --balance cannot be compared"
        why = f"some are scored by {' and some by '.join(sorted(map(title, found)))}"
        raise UsageError(what, why=why, hint="balance=loss,sample, or a search for each")
    return found.pop()


def _fixed(config: TuneConfig) -> TrainConfig:
    """The settings of all trials."""
    return common(config, output=None)


@dataclass
class _Search:
    """A study in motion. What the first trial says is told, of the others what they meet; all of it is kept."""

    study: optuna.Study
    config: TuneConfig
    space: tuple[Dimension, ...]
    metric: str
    splits: Splits
    folder: Path | None
    stop: StopRequest
    observer: Observer
    announce: Announce
    told: set[str]
    begun: bool = False
    opener: Opener = field(default_factory=Opener)

    def run(self) -> None:
        """Trials until there are enough."""
        if done := len(self.trials()):
            self._begin(next((trial.notes for trial in self.trials() if trial.notes), ()))
            self.announce(f"finished already: {done} of {self.config.trials} trials")
        while (done := len(self.trials())) < self.config.trials:
            self._check_stop()
            self.study.sampler = _sampler(self.config.seed, done)
            trial = self.study.ask({dimension.name: _distribution(dimension) for dimension in self.space})
            self._try(trial)
            self.write()
            self.announce(f"{done + 1:>3} of {self.config.trials}  {self.trials()[-1].line()}")

    def trials(self) -> list[Trial]:
        """Those that ended by themselves, in the order in which they did."""
        found = [trial for trial in self.study.get_trials(deepcopy=False) if ended(trial)]
        return [_record(number, trial) for number, trial in enumerate(found, 1)]

    def result(self) -> Tuned:
        """What was found. Raises UsageError where no trial ended with a model."""
        trials = tuple(self.trials())
        scales = {dimension.name: _scale(dimension) for dimension in self.space}
        return Tuned(trials, self._settings(best(trials)), _importance(self.study), scales, self.metric)

    def write(self) -> None:
        """Write what people and `train --config` read; a killed search leaves it as of its last trial."""
        trials = self.trials()
        if self.folder is None:
            return
        write_text(self.folder / TRIALS, to_csv(trials))
        if any(trial.state == "finished" for trial in trials):
            write_text(self.folder / BEST, as_yaml(self._settings(best(trials))))

    def _settings(self, trial: Trial) -> dict[str, Any]:
        """A trial's settings that are not defaults; a recipe's are among them, and its name would bring back others."""
        plain = asdict(replace(with_settings(_fixed(self.config), trial.chosen), recipe=None))
        usual = asdict(TrainConfig())
        kept = {name: value for name, value in plain.items() if value != usual[name] or name in ("data", "model")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}

    def _begin(self, notes: Sequence[str]) -> None:
        if not self.begun:
            self._tell(notes)
        self.begun = self.begun or bool(notes)

    def _tell(self, notes: Sequence[str]) -> None:
        for note in notes:
            if note not in self.told:
                self.told.add(note)
                self.announce(note)

    def _try(self, trial: optuna.Trial) -> None:
        """One training; how it ended is told to the study."""
        from optuna.trial import TrialState

        watcher = _Watcher(trial, self.stop, self.observer, _fixed(self.config))

        def begin(notes: list[str]) -> None:
            watcher.notes = notes
            self._begin(notes)

        try:
            watcher.config = with_settings(watcher.config, trial.params)  # two choices may contradict each other
            fitted = fit(watcher.config, self.splits, observer=watcher, announce=begin, opener=self.opener)
            watcher.notes = fitted.notes
            self._tell(fitted.late)
        except _CutShort:
            watcher.note("cut short")
            self.study.tell(trial, state=TrialState.PRUNED)
        except DivergedError as error:
            watcher.note("diverged", error.what)
            self.study.tell(trial, 0.0)  # the sampler learns to stay away, which it would not from a failure
        except Interrupted:
            self.study.tell(trial, state=TrialState.FAIL)
            self._check_stop()
            raise
        except FAILURES as error:
            watcher.note("failed", first_line(error, 300))
            self.study.tell(trial, state=TrialState.FAIL)
        else:
            watcher.note("finished")
            self.study.tell(trial, watcher.score)

    def _check_stop(self) -> None:
        """Raise Interrupted where a signal asked to stop, saying what is kept."""
        if self.stop.code:
            hint = "the same command goes on" if self.folder is not None else ""
            what = f"stopped by a signal; finished trials are kept: {len(self.trials())} of {self.config.trials}"
            raise Interrupted(what, exit_code=self.stop.code, hint=hint)


class _CutShort(Exception):
    """The training is hopeless."""


class _Watcher:
    """Reports a training's validation scores to the study, and leaves it when it is hopeless or a signal asked."""

    def __init__(self, trial: optuna.Trial, stop: StopRequest, observer: Observer, config: TrainConfig) -> None:
        self.trial, self.stop, self.observer, self.config = trial, stop, observer, config
        self.score, self.loss, self.reported, self.row = -1.0, math.inf, 0, dict[str, Any]()
        self.notes: list[str] = []

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Pass it on, and leave where a signal asked for it."""
        self.observer.step(epoch, step, steps, loss)
        if self.stop.code:
            raise Interrupted("left", exit_code=self.stop.code)

    def epoch(self, row: dict[str, Any]) -> None:
        """Report the best score at each part of the training that has passed: what was known of it at that time."""
        self.observer.epoch(row)
        self.row = row
        before = self.score
        metric = next((name for name in row if name.startswith("val_") and name != "val_loss"), None)
        if metric is not None and (row[metric], -row["val_loss"]) > (self.score, -self.loss):
            self.score, self.loss = row[metric], row["val_loss"]
        now = int(GRID * self.progress(row))
        for part in range(self.reported + 1, now + 1):
            score = self.score if part == now else before
            if score >= 0:
                self.trial.report(score, part)
        self.reported = max(now, self.reported)
        if now < GRID and self.trial.should_prune():
            raise _CutShort

    def progress(self, row: dict[str, Any]) -> float:
        """Share of the training that is done, of its epochs, its time or its operations."""
        limit = math.inf if self.config.time_limit is None else seconds(self.config.time_limit)
        by_operations = float(row.get("operations", 0)) / (self.config.operations or math.inf)
        by_epochs, by_time = float(row["epoch"]) / self.config.passes, float(row["seconds"]) / limit
        return min(1.0, max(by_epochs, by_time, by_operations))

    def note(self, state: State, why: str = "") -> None:
        """Keep with the trial how it ended, and what was said of it."""
        seen = {"score": self.score, "loss": self.loss} if self.score >= 0 else {}
        known = {
            "state": state,
            "why": why,
            "epochs": self.row.get("epoch", 0),
            "seconds": self.row.get("seconds", 0.0),
            "notes": self.notes,
        }
        for name, value in (seen | known).items():
            self.trial.set_user_attr(name, value)


def _sampler(seed: int, done: int) -> optuna.samplers.BaseSampler:
    """Decides the next settings, by the seed and by how many were tried: the same after a restart."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=random.Random(f"{seed}/{done}").getrandbits(32))


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.values)
    low, high, step = dimension.low, dimension.high, dimension.step
    if isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
        return IntDistribution(low, high, log=dimension.log, step=step or 1)
    return FloatDistribution(low, high, log=dimension.log, step=step)


def _scale(dimension: Dimension) -> Scale:
    if isinstance(dimension, Choice):
        return "list"
    return "log" if dimension.log else "linear"


def _record(number: int, trial: optuna.trial.FrozenTrial) -> Trial:
    notes = tuple(trial.user_attrs.get("notes", ()))
    return Trial(number=number, chosen=dict(trial.params), **(trial.user_attrs | {"notes": notes}))


def _importance(study: optuna.Study) -> dict[str, float]:
    """Share of each dimension in how the scores vary; nothing where too little was tried to say.

    Trials that diverged are left out: their zero says how badly a setting fails, not how the scores of the others vary.
    """
    from optuna import create_study
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("state") == "finished"]
    varied = [name for name in (finished[0].params if finished else ()) if len({t.params[name] for t in finished}) > 1]
    if not varied or len(finished) < max(FEWEST, FOR_EACH * len(varied)):
        return {}
    kept = create_study(direction=study.direction)
    kept.add_trials(finished)
    with suppress(ValueError, RuntimeError):  # all scores alike
        return dict(get_param_importances(kept, evaluator=FanovaImportanceEvaluator(seed=0), params=varied))
    return {}
