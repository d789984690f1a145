"""Everything a user can say about training: the one source of the flags, the YAML keys and the Python keywords.

No torch here: `msresnet train --help` reads this file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What is trained, for how long, and how."""

    data: str = "digits"
    """digits (embedded), mnist, a folder of class folders, a folder with train/ and val/ or test/, IDX files, or a
    .csv of pixels."""
    model: str = "auto"
    """A name from `msresnet models`. Default: msresnet_micro for images up to 32 pixels (on a GPU, for grey ones),
    else msresnet18."""
    model_args: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """Arguments of the model as name=value, such as operator=res2net shortcut_levels=3 stem=deep."""
    weights: str | None = None
    """What to start from: 'published' (the model's own, see `msresnet models --pretrained`), hf:user/repo, or a
    safetensors file. Default: random weights."""
    output: str | None = None
    """The run's folder. Default: runs/<data>-<model>, numbered if taken."""
    exist_ok: bool = False
    """Start anew in a folder that holds a run; its files are replaced."""
    resume: bool = False
    """Continue the newest run, or the one in --output, exactly where it was."""

    epochs: int | None = None
    """Passes over the training data. Default: 20, or as many as --time-limit allows."""
    time_limit: str | None = None
    """Longest training time, such as 90s, 2m, 1h30m; the schedule is scaled to fit."""
    batch_size: int = 128
    """Images in a step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with Nesterov momentum."""
    lr: float | None = None
    """Highest learning rate. Default at batch 128: adamw 0.008 under a million parameters, else 0.002; sgd 0.3."""
    weight_decay: float | None = None
    """On weights of two and more dimensions. Default: 0.05 for adamw, 0.0005 for sgd."""
    schedule: Literal["cosine", "one-cycle"] = "cosine"
    """cosine: warm-up, then down. one-cycle: up and down, the momentum the other way."""
    warmup: float | None = None
    """Share of the schedule in which the learning rate rises, 0.1 by default; one-cycle has its own."""
    label_smoothing: float = 0.05
    """Probability spread over all classes in the targets."""
    clip_grad: float | None = None
    """Largest norm of the gradient. Default: no limit."""
    ema: float = 0.998
    """Decay of the averaged weights for each step; 0 keeps none. The better of raw and averaged is kept."""
    patience: int | None = None
    """Stop after so many epochs without a better validation score. Default: never."""
    drop_rate: float = 0.0
    """Dropout before the classifier."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block."""

    augment: Literal["auto", "none"] = "auto"
    """auto: by the kind of images; each of the following replaces its part."""
    flip: float | None = None
    """Probability of a mirror image."""
    shift: float | None = None
    """Farthest move, as a share of the side."""
    rotate: float | None = None
    """Largest turn in degrees."""
    scale: float | None = None
    """Largest relative change of size."""
    erase: float | None = None
    """Probability of blanking a rectangle."""
    mixup: float | None = None
    """Beta parameter of blending pairs of images."""
    cutmix: float | None = None
    """Beta parameter of pasting parts of other images."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the hardware computes in it."""
    seed: int = 0
    """Decides weights, order and augmentation."""


# The bases stand in this order so that the flags do in the other: data and model first, preprocessing last.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(PreprocessOptions, DataOptions, TrainingOptions):
    """Train a classifier, measure it on held-out images, and write a report."""

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            # A comparison with NaN is false, so it is refused here as well.
            if value is not None and not low <= value < high:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {value}", why=f"it must be at least {low} and below {high}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise UsageError(f"--lr {self.lr}", why="a learning rate is positive and finite", hint="--lr 0.004")
        if self.weights == "":
            raise UsageError("--weights ''", hint="--weights published, hf:user/repo or a safetensors file")
        if self.time_limit is not None:
            seconds(self.time_limit)
        if self.warmup is not None and self.schedule == "one-cycle":
            raise UsageError("--warmup, but --schedule one-cycle", why="it rises for 30 %", hint="leave one out")
        asked = next((name for name in _AUGMENTATIONS if getattr(self, name)), None)
        if self.augment == "none" and asked is not None:
            raise UsageError(f"--augment none, but --{asked}", hint="leave one of them out")


def seconds(text: str) -> float:
    """Seconds from '90', '90s', '2m' or '1h30m'. Raises UsageError for anything else, zero included."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        text += "s"
    if not re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        raise UsageError(f"{text!r} is no length of time", hint="--time-limit 90s, 2m or 1h30m")
    total = sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"([\d.]+)([smhd])", text))
    if total <= 0:
        raise UsageError("a time limit of zero leaves nothing to do", hint="--time-limit 2m")
    return total


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_AUGMENTATIONS = ("flip", "shift", "rotate", "scale", "erase", "mixup", "cutmix")
_BIG = 10**9
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, _BIG),
    ("batch_size", 2, _BIG),  # one image with maps of one pixel has no variance for batch normalisation
    ("workers", 0, 1024),
    ("weight_decay", 0, _BIG),
    ("warmup", 0, 1),
    ("label_smoothing", 0, 1),
    ("clip_grad", 1e-12, _BIG),
    ("ema", 0, 1),
    ("patience", 1, _BIG),
    ("drop_rate", 0, 1),
    ("drop_path_rate", 0, 1),
    ("flip", 0, 1.0001),
    ("shift", 0, 1.0001),
    ("rotate", 0, 180.0001),
    ("scale", 0, 10),
    ("erase", 0, 1.0001),
    ("mixup", 0, _BIG),
    ("cutmix", 0, _BIG),
    ("val_fraction", 0, 1),
    ("test_fraction", 0, 1),
    ("seed", 0, 2**63),
)
