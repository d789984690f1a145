"""What a search found, as plain records: one for each trial, and which is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msresnet.errors import UsageError
from msresnet.rows import csv_text
from msresnet.tasks.words import percent

State = Literal["finished", "cut short", "diverged", "failed"]
Scale = Literal["linear", "log", "list"]
FIGURES = ("trial", "state", "score", "loss", "epochs", "seconds")


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Args:
        number: in the order of their ends, from 1.
        chosen: the settings that vary.
        score, loss: of the best epoch on the validation set; of what was seen where it was cut short.
        why: what went wrong, if anything did.
        notes: what was inferred and met.
    """

    number: int
    state: State
    chosen: dict[str, Any]
    score: float | None = None
    loss: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    why: str = ""
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """In one line."""
        chosen = ", ".join(f"{name} {shown(value)}" for name, value in self.chosen.items())
        score = "" if self.score is None else f"{percent(self.score)}  "
        end = {"finished": "", "cut short": f"  (cut short after {self.epochs} epochs)"}
        return f"{score}{chosen}{end.get(self.state, f'  ({self.state}: {self.why})')}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        figures = (self.number, self.state, self.score, self.loss, self.epochs, self.seconds)
        return dict(zip(FIGURES, figures, strict=True)) | {"settings": self.chosen, "why": self.why}


@dataclass(frozen=True)
class Tuned:
    """A search that ended.

    Args:
        trials: in the order of their ends.
        settings: all settings of the best one that are not defaults, as best.yaml holds them.
        importance: share of each dimension in how the scores vary (fANOVA); empty where too little was tried.
        scales: how each dimension is searched: 'linear', 'log', or 'list' of values.
        metric: the figure that the scores are, as metrics.json names it.
    """

    trials: tuple[Trial, ...]
    settings: dict[str, Any]
    importance: Mapping[str, float]
    scales: Mapping[str, Scale]
    metric: str

    @property
    def best(self) -> Trial:
        """The finished trial of the highest score, of the lowest loss where scores are equal."""
        return best(self.trials)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "best": self.best.to_dict(),
            "settings": self.settings,
            "importance": dict(self.importance),
            "trials": [trial.to_dict() for trial in self.trials],
        }


def best(trials: Sequence[Trial]) -> Trial:
    """The best of some trials. Raises UsageError, with a reason, where none finished."""
    finished = ranked(trials)
    if not finished or finished[0].state != "finished":
        why = next((trial.why for trial in trials if trial.why), "all were cut short")
        raise UsageError("no trial ended with a model", why=why, hint="other ranges, or --pruner none")
    return finished[0]


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Finished ones first, each kind by score, then by loss."""

    def rank(trial: Trial) -> tuple[bool, float, float]:
        score = -1.0 if trial.score is None else trial.score
        return trial.state != "finished", -score, float("inf") if trial.loss is None else trial.loss

    return sorted(trials, key=rank)


def shown(value: Any) -> str:
    """A value in a few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def to_csv(trials: Sequence[Trial]) -> str:
    """One row for each trial, its settings at full precision."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.chosen))
    rows: list[list[Any]] = [[*FIGURES, *names, "why"]]
    for trial in trials:
        figures = [trial.to_dict()[name] for name in FIGURES]
        rows.append([*figures, *(trial.chosen.get(name) for name in names), trial.why])
    return csv_text(rows)
