"""Everything a user can say about a search. No torch here: `msresnet tune --help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from msresnet.errors import UsageError
from msresnet.train.config import TrainConfig
from msresnet.train.settings import refuse_elsewhere

ELSEWHERE = {
    "resume": "the same command goes on by itself",
    "exist_ok": "the same command goes on by itself; another --output starts anew",
    "devices": "trainings follow each other in one process",
}
"""Settings of `train` that mean nothing here."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What is searched, and for how long."""

    space: Annotated[tuple[str, ...], arg(metavar="SETTING=RANGE")] = ()
    """What may vary, here or as words of the command: a range lr=1e-4:1e-1:log, weight_decay=0:0.1, epochs=5:20:5 (in
    steps of 5), a list model=resnet18,msresnet18, or a model's argument model_args.operator=plain,res2net."""
    trials: int = 30
    """Trainings. More may be added later by the same command."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """What ends hopeless trainings early: median, when worse than half of the others after the same share of the
    training (not before 30 % of it); hyperband, in rounds of elimination; none."""
    format: Literal["table", "json", "csv"] = "table"
    """How the result is printed."""


# What is searched comes first in the help, the settings of all trainings after it.
@dataclass(frozen=True, kw_only=True)
class TuneConfig(TrainConfig, TuneOptions):
    """Search for the settings that train best, by the score on the validation set; the test set is not touched."""

    output: str | None = None
    """The folder of the search; what is finished there is not tried again. Default: runs/tune-<data>."""
    resume: bool = False
    """Not here: the same command goes on by itself."""
    exist_ok: bool = False
    """Not here: another --output starts anew."""
    devices: str | None = None
    """Not here: trainings follow each other in one process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_elsewhere(self, ELSEWHERE)
        if self.trials < 1:
            raise UsageError(f"--trials {self.trials}", why="it must be at least 1")
