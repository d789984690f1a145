"""Training at several image sizes: which size, how many images, and which part of the network learns, at each moment.

Progressive resizing goes from the smallest to the largest size (arXiv 2104.00298, section 4); random sizes make one
network good at all of them. The last part, at the size of use and without random changes, lets classifier and
normalisation settle on what they will meet (FixRes, arXiv 1906.06423).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msresnet.errors import UsageError
from msresnet.train.config import TrainConfig


@dataclass(frozen=True)
class Moment:
    """What a step is like.

    Args:
        size: (H, W) in pixels; images of another size are resized on the device.
        batch: images in the step, over all processes.
        finishing: whether only classifier and normalisation learn.
    """

    size: tuple[int, int]
    batch: int
    finishing: bool = False


@dataclass(frozen=True)
class Sizes:
    """The moments of a training.

    Args:
        moments: from the smallest size to the largest.
        last: the size of use.
        finish: share of the training at the end in which only classifier and normalisation learn.
        schedule: 'progressive' or 'random'.
    """

    moments: tuple[Moment, ...]
    last: Moment
    finish: float = 0.0
    schedule: Literal["progressive", "random"] = "progressive"

    def at(self, progress: float, draw: float) -> Moment:
        """The moment after a share `progress` of the training; `draw`, 0 to 1, decides where chance does."""
        main = 1 - self.finish
        if self.finish and progress >= main:
            return self.last
        share = draw if self.schedule == "random" else progress / main
        return self.moments[min(len(self.moments) - 1, int(share * len(self.moments)))]

    def describe(self) -> str:
        """The sizes in words, '' for a single one."""
        words = ", ".join(f"{m.size[0]}x{m.size[1]} in batches of {m.batch}" for m in self.moments)
        text = f"training sizes, {self.schedule}: {words}" if len(self.moments) > 1 else ""
        if self.finish:
            text += f"{'; ' if text else ''}last {self.finish:.0%} at {self.last.size[0]}x{self.last.size[1]}: "
            text += "only classifier and normalisation learn"
        return text


def plan_sizes(config: TrainConfig, size: tuple[int, int], batch: int) -> Sizes:
    """The sizes that a configuration asks for, of images of `size` (H, W) in use.

    Raises UsageError for a training size above that of use.
    """
    last = Moment(size, batch, finishing=True)
    longest = max(size)
    sides = config.train_sizes or (longest,)
    if max(sides) > longest:
        what = f"--train-sizes {' '.join(map(str, config.train_sizes))}, but images have {longest} pixels"
        raise UsageError(what, why="training enlarges no image", hint=f"--image-size {max(sides)}")
    asked = config.size_batches or tuple(
        _even(batch * (max(sides) / side) ** 2) if side < max(sides) else batch for side in sides
    )
    moments = [Moment(_scaled(size, side), count) for side, count in zip(sides, asked, strict=True)]
    return Sizes(tuple(sorted(moments, key=lambda m: m.size)), last, config.finish, config.size_schedule)


def _scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A size whose longer side has so many pixels."""
    factor = side / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _even(count: float) -> int:
    """The nearest even number from 2 on, so that pairs of images stay together."""
    return max(2, round(count / 2) * 2)
