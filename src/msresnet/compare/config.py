"""Everything a user can say about a comparison. No torch here: `msresnet compare --help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from msresnet.errors import UsageError, at_least
from msresnet.train.settings import RepeatedConfig, refuse_elsewhere

DEFAULT_SECONDS = 60.0
BUDGET = ("epochs", "time_limit", "operations")
LARGE = ((1e15, "quadrillion"), (1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
ELSEWHERE = {"time_limit": "--seconds says how long each training may take"}
"""What means nothing here, beside what no repeated training takes."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Who is compared, at which budget."""

    contestants: Positional[Annotated[tuple[str, ...], arg(metavar="CONTESTANT")]] = ()
    """A model (resnet18), a recipe, or a file of settings (fast.yaml), each with settings of its own behind it and a
    name before it where you like: 'resnet18 lr=0.01', 'wide: model=msresnet18 model_args=operator=res2net'. 'base:'
    is what the flags say for all."""
    seconds: float | None = None
    """Time for each training, validation included. Default: 60, unless --epochs is given, which compares at equal
    passes over the data, or --operations, which compares at equal multiply-adds of the networks as used."""
    seeds: int = 5
    """Trainings of each contestant, with seeds from --seed on. More may be added later by the same command."""
    baseline: str | None = None
    """The contestant that the others are held against. Default: the best, with all pairs counted as looked at."""
    split: Literal["auto", "test", "val"] = "auto"
    """The images that the verdict is of. auto: the test set if there is one, measured once for each trained model. val:
    the test set is not touched; use it while you still choose."""
    format: Literal["table", "json", "csv"] = "table"
    """How the result is printed."""


# Settings of the comparison come first in the help, those of all its trainings after them.
@dataclass(frozen=True, kw_only=True)
class CompareConfig(RepeatedConfig, CompareOptions):
    """Train several contestants at an equal budget over several seeds, and say which is better by more than chance."""

    output: str | None = None
    """The folder; what is finished there is not trained again. Default: runs/compare-<data>."""
    time_limit: str | None = None
    """Not here: --seconds says how long each training may take."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_elsewhere(self, ELSEWHERE)
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise UsageError(f"--seconds {self.seconds}", why="a time is positive and finite", hint="--seconds 60")
        given = [f"--{name}" for name in ("seconds", "epochs", "operations") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(", but ".join(given), why="a comparison has one budget", hint="leave all but one out")
        at_least({"seeds": (self.seeds, 1)})

    @property
    def budget(self) -> dict[str, Any]:
        """What is the same for each training, as settings of it."""
        if self.epochs is not None or self.operations is not None:
            return {"epochs": self.epochs, "time_limit": None, "operations": self.operations}
        return {"epochs": None, "time_limit": f"{self.seconds or DEFAULT_SECONDS:.12g}s", "operations": None}

    @property
    def all_seeds(self) -> range:
        """The seeds of each contestant."""
        return range(self.seed, self.seed + self.seeds)

    def budget_words(self) -> str:
        """The budget for people."""
        if self.epochs is not None:
            return f"{self.epochs:,} epoch{'s' if self.epochs > 1 else ''} each"
        if self.operations is not None:
            return f"{_large(self.operations)} multiply-adds of the network as used each"
        return f"{self.seconds or DEFAULT_SECONDS:g} seconds each"


def _large(number: float) -> str:
    """A few digits and a word, such as 50 trillion."""
    size, name = next((unit for unit in LARGE if number >= 0.9995 * unit[0]), (1.0, ""))
    digits = f"{number / size:.3g}" if number < 999.5 * size else f"{number / size:,.0f}"
    return f"{digits} {name}".rstrip()


def budget_free(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe without its own budget, for a comparison has one."""
    return {name: value for name, value in settings.items() if name not in BUDGET}
