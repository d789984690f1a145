"""Everything a user can say about a search. No torch here: `msresnet tune --help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from msresnet.errors import at_least
from msresnet.train.settings import RepeatedConfig


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
class TuneConfig(RepeatedConfig, TuneOptions):
    """Search for the settings that train best, by the score on the validation set; the test set is not touched."""

    output: str | None = None
    """The folder of the search; what is finished there is not tried again. Default: runs/tune-<data>."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least({"trials": (self.trials, 1)})
