"""Everything a user can say about explanations. No torch here: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from msresnet.errors import UsageError, at_least
from msresnet.run_folder import LATEST


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """Show where on an image, and at which scale, a model finds its answer; or at which scales, over a whole set."""

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders or patterns. Without any, --split or --data names a set whose scales are looked at."""
    model: str = LATEST
    """A run's folder, any other bundle, or hf:user/repo; an exported network cannot be looked into."""
    target: str | None = None
    """The class to explain. Default: the model's answer."""
    objects: int | None = None
    """Of a detector: how many of the surest objects of each image. Default: 3."""
    method: str | None = None
    """How places are found: integrated-gradients (the default), grad-cam, occlusion; several with commas, or all."""
    stage: int | None = None
    """For grad-cam: the stage whose maps are weighed, from 0 (fine). Default: the one that explains best."""
    scores: bool = False
    """Measure how faithful each map is, by deletion (small is good) and insertion (large is good), beside a random
    map and the image's edges."""
    neighbours: int = 0
    """How many of the nearest training images to show."""
    data: str | None = None
    """Data in any form that `train` takes, for the neighbours or for a whole set. Default: the run's own."""
    split: Literal["auto", "train", "val", "test"] = "auto"
    """Which set of it. auto: for neighbours train; for a whole set test, else val."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    output: str = "explanation.png"
    """The picture; the figures stand beside it as .json, places in them in the image's own pixels."""
    format: Literal["table", "json"] = "table"
    """How the figures are printed."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, and what would have no effect."""
        at_least({"neighbours": (self.neighbours, 0), "objects": (self.objects, 1)})
        named = self.data is not None or self.split != "auto"
        if self.inputs and named and not self.neighbours:
            why = "the images that are named are explained; --data and --split say where neighbours are looked for"
            raise UsageError("--data and --split have no effect here", why=why, hint="--neighbours 5")
        single = {
            "method": self.method is not None,
            "stage": self.stage is not None,
            "scores": self.scores,
            "neighbours": self.neighbours > 0,
        }
        useless = [name for name, given in single.items() if given]
        if named and not self.inputs and useless:
            why = "of a set, the scales are looked at, not the single images"
            raise UsageError(f"--{useless[0]} has no effect on a whole set", why=why, hint="msresnet explain photo.jpg")
