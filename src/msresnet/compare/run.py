"""The comparison itself: a rehearsal, the trainings seed by seed, answers, speed, verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msresnet.bundle import Bundle, load_bundle
from msresnet.compare.config import CompareConfig
from msresnet.compare.contestants import Contestant, contestants
from msresnet.compare.judge import Comparison, by_name, judge
from msresnet.compare.records import TRAININGS, Answers, Records, Training, to_csv
from msresnet.compare.speed import inference_speed
from msresnet.data.duplicates import copies
from msresnet.data.loaders import Opener
from msresnet.data.splits import Splits, open_data
from msresnet.errors import Interrupted, MsresnetError, ResourceError, UsageError
from msresnet.files import write_json, write_text
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.evaluate import evaluate
from msresnet.run_folder import SETTINGS
from msresnet.runtime import StopRequest, stop_on_signals
from msresnet.tasks.classification import ClassificationTask
from msresnet.tasks.words import percent
from msresnet.train.fit import Fitted, fit, to_yaml
from msresnet.train.observer import Observer, Silent

RESULTS, TABLE = "results.json", "results.csv"
MODELS = "models"
OURS = (RESULTS, TABLE, TRAININGS, MODELS)
"""What a comparison leaves in its folder."""
FAILURES = (MsresnetError, MemoryError, RuntimeError)
"""What may go wrong in one training; torch raises RuntimeError for want of memory."""
Announce = Callable[[str], None]


def compare(
    config: CompareConfig,
    splits: Splits | None = None,
    folder: Path | None = None,
    observer: Observer | None = None,
    announce: Announce = lambda line: None,
) -> Comparison:
    """Train all contestants at the same budget over the same seeds, and judge them.

    The trainings of one seed follow each other, then those of the next: a machine that grows slower hits all alike.
    Each training chooses its epoch on the validation set. The test set, unless `config.split` is 'val', is measured
    once for each trained model, after that. A contestant that fails is reported, and the others go on.

    Args:
        config: everything a user can say.
        splits: the data; None opens `config.data`.
        folder: where trainings are kept, whose lock the caller holds; what is finished there is not trained again. None
            keeps everything in memory.
        observer: who watches each training.
        announce: takes a line for each thing that happens.

    Raises UsageError for a contestant that cannot be, before anything trains; Interrupted on SIGINT and SIGTERM.
    """
    chosen = contestants(config)
    splits = splits or open_data(config.data, config)
    if splits.train.task != ClassificationTask.name:
        what = f"the data is for {splits.train.task}, which is not compared"
        raise UsageError(what, why="answers are compared that are right or wrong", hint="msresnet train, evaluate")
    split = _split(config.split, splits)
    records = Records(folder, splits.train)
    records.load(chosen, config.all_seeds, split)
    notes = [*splits.notes, *(note for contestant in chosen for note in contestant.notes)]
    for note in notes:
        announce(note)
    with stop_on_signals() as stop:
        held_out = splits if split == "test" else replace(splits, test=None)
        stage = _Stage(config, held_out, records, stop, observer or Silent(), announce, {*notes})
        stage.train_all(stage.rehearse_all(chosen))
        announce("measuring how fast the models answer, side by side")
        speeds = inference_speed(stage.models(chosen), config.device)
    trainings = [records.kept[key] for key in ((c.name, seed) for c in chosen for seed in config.all_seeds)]
    outcome = judge([c.name for c in chosen], trainings, speeds, split, config.baseline)
    who = {contestant.name: contestant.words for contestant in chosen}
    met = [note for note in by_name(outcome.notes()) if note not in notes]
    comparison = Comparison(outcome, config.budget_words(), config.data, who, (*notes, *met))
    if folder is not None:
        write_json(folder / RESULTS, comparison.to_dict())
        write_text(folder / TABLE, to_csv(trainings))
    return comparison


@dataclass
class _Stage:
    """What the trainings of a comparison share.

    Args:
        records: what is finished, and where it is kept.
        stop: asked after each step.
        told: what was said of data and contestants already.
        bundles: the first model of each contestant.
        opener: has the images of the last training.
    """

    config: CompareConfig
    splits: Splits
    records: Records
    stop: StopRequest
    observer: Observer
    announce: Announce
    told: set[str]
    bundles: dict[str, Bundle] = field(default_factory=dict)
    opener: Opener = field(default_factory=Opener)

    def rehearse_all(self, chosen: Sequence[Contestant]) -> list[Contestant]:
        """Take one step of each that is not finished, so that what cannot work is known before hours of training.

        Returns those that can, and says what was inferred for them; the failure of the others is recorded.
        """
        able = []
        notes: dict[str, Sequence[str]] = {}
        for contestant in chosen:
            missing = self._missing(contestant)
            met, error = self._rehearse(contestant) if missing else (self._first(contestant).notes, None)
            if error is None:
                able.append(contestant)
                notes[contestant.name] = met
                continue
            self.announce(f"{contestant.name} cannot take part: {reason(error)}")
            for seed in missing:
                self.records.add(contestant, _failed(contestant, seed, error))
        self._tell(by_name(notes))
        return able

    def train_all(self, able: Sequence[Contestant]) -> None:
        """All trainings that are not finished, seed by seed."""
        rounds = [(contestant, seed) for seed in self.config.all_seeds for contestant in able]
        missing = [(contestant, seed) for contestant, seed in rounds if seed in self._missing(contestant)]
        if done := len(rounds) - len(missing):
            self.announce(f"finished already: {done} of {len(rounds)} trainings")
        for number, (contestant, seed) in enumerate(missing, 1):
            training = self._train(contestant, seed)
            self.records.add(contestant, training)
            self.announce(f"{number:>3} of {len(missing)}  {_line(training)}")

    def models(self, chosen: Sequence[Contestant]) -> dict[str, Bundle]:
        """One trained model of each contestant that has any, as trained now or as kept before."""
        found = {}
        for contestant in chosen:
            home = self._home(contestant)
            if contestant.name in self.bundles:
                found[contestant.name] = self.bundles[contestant.name]
            elif home is not None and (home / SETTINGS).is_file():
                found[contestant.name] = load_bundle(home)
        return found

    def _missing(self, contestant: Contestant) -> list[int]:
        return [seed for seed in self.config.all_seeds if (contestant.name, seed) not in self.records.kept]

    def _first(self, contestant: Contestant) -> Training:
        return next(t for (name, _), t in self.records.kept.items() if name == contestant.name)

    def _rehearse(self, contestant: Contestant) -> tuple[Sequence[str], BaseException | None]:
        """What was inferred for a contestant, and why it cannot train, if it cannot."""
        notes: list[str] = []
        try:
            self._fit(contestant, self.config.seed, _Watches(self.stop, Silent(), steps=1), notes.extend)
        except Interrupted:
            self._stopped()
        except FAILURES as error:
            return notes, error
        return notes, None

    def _train(self, contestant: Contestant, seed: int) -> Training:
        """Train and measure; a failure is a result too."""
        try:
            fitted = self._fit(contestant, seed, _Watches(self.stop, self.observer))
            device = self.config.device
            held_out = {name: data for name, data in fitted.sets.items() if name != "train"}
            measured = {n: evaluate(predictor_of(fitted.bundle, device), data, n) for n, data in held_out.items()}
            self._keep(fitted.bundle, contestant)
            self._tell(fitted.late)
        except Interrupted:
            self._stopped()
            raise
        except FAILURES as error:
            return _failed(contestant, seed, error)
        cost = fitted.cost
        return Training(
            contestant=contestant.name,
            seed=seed,
            seconds=cost["train_seconds"],
            epochs=len(fitted.history),
            images_per_second=cost["images_per_second"],
            params=cost["params"],
            macs=cost["macs"],
            answers={name: Answers.of(evaluation) for name, evaluation in measured.items()},
            notes=tuple(fitted.notes),
            copies=copies(fitted.sets, "test") if "test" in fitted.sets else None,
        )

    def _tell(self, notes: Sequence[str]) -> None:
        """Say each line once: most are the same for all."""
        for note in notes:
            if note not in self.told:
                self.told.add(note)
                self.announce(note)

    def _fit(
        self, contestant: Contestant, seed: int, observer: Observer, told: Callable[[list[str]], None] = lambda _: None
    ) -> Fitted:
        config = replace(contestant.config, seed=seed)
        return fit(config, self.splits, observer=observer, announce=told, opener=self.opener)

    def _keep(self, bundle: Bundle, contestant: Contestant) -> None:
        """Keep a contestant's first model, with the settings that train it."""
        home = self._home(contestant)
        if any(name == contestant.name and not t.failure for (name, _), t in self.records.kept.items()):
            return
        self.bundles[contestant.name] = bundle
        if home is not None:
            bundle.save(home)
            write_text(home / SETTINGS, to_yaml(contestant.config))

    def _home(self, contestant: Contestant) -> Path | None:
        return None if self.records.folder is None else self.records.folder / MODELS / contestant.slug

    def _stopped(self) -> None:
        """Raise Interrupted where a signal asked to stop, saying what is kept."""
        if self.stop.code:
            done = sum(not training.failure for training in self.records.kept.values())
            hint = "the same command goes on" if self.records.folder is not None else ""
            what = f"stopped by a signal; finished trainings are kept: {done}"
            raise Interrupted(what, exit_code=self.stop.code, hint=hint)


class _Watches:
    """Passes on what happens, and leaves a training when a signal asked for it, or after so many steps."""

    def __init__(self, stop: StopRequest, observer: Observer, steps: float = math.inf) -> None:
        self.stop, self.observer, self.left = stop, observer, steps

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Pass it on, and leave where it was the last."""
        self.observer.step(epoch, step, steps, loss)
        self.left -= 1
        if self.stop.code or self.left <= 0:
            raise Interrupted("left", exit_code=self.stop.code)

    def epoch(self, row: dict[str, Any]) -> None:
        """Pass it on."""
        self.observer.epoch(row)


def _split(asked: str, splits: Splits) -> str:
    """The set that the verdict is of. Raises UsageError where there is none."""
    present = [name for name in ("test", "val") if name in splits.named()]
    split = asked if asked != "auto" else next(iter(present), "test")
    if split not in present:
        hint = "--test-fraction 0.2 or --test-data" if split == "test" else "--val-fraction 0.1 or --val-data"
        raise UsageError(f"there is no {split} set to compare on", hint=hint)
    return split


def _failed(contestant: Contestant, seed: int, error: BaseException) -> Training:
    code = error.exit_code if isinstance(error, MsresnetError) else ResourceError.exit_code
    return Training(contestant.name, seed, failure=reason(error), code=code)


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, MsresnetError):
        return "; ".join(part for part in (error.what, error.why) if part)
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _line(training: Training) -> str:
    """A training in one line."""
    head = f"{training.contestant}, seed {training.seed}: "
    if training.failure:
        return f"{head}failed: {training.failure}"
    scores = [f"{name} {percent(answers.top1)}" for name, answers in (training.answers or {}).items()]
    return head + ", ".join([*scores, f"{training.epochs} epochs in {training.seconds:.1f} s"])
