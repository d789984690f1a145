"""What a user can say about compression. No torch here: `--help` reads this file."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from tyro.conf import arg

from msresnet.data.options import DataOptions
from msresnet.errors import UsageError, at_least
from msresnet.run_folder import LATEST

To = Literal["int8", "bf16", "folded", "pruned", "distilled"]
KINDS: tuple[To, ...] = get_args(To)
TRAINED: tuple[To, ...] = ("pruned", "distilled")
"""What learns from the data again; the others are computed."""
PACKED: tuple[To, ...] = ("int8", "bf16", "folded")
"""What is written as an exported folder; the others are bundles."""
ONLY: dict[str, tuple[To, ...]] = {
    "calibration": ("int8",),
    "weight_bits": ("int8",),
    "keep": ("pruned",),
    "student": ("distilled",),
    "student_args": ("distilled",),
    "epochs": TRAINED,
    "time_limit": TRAINED,
    "lr": TRAINED,
    "batch_size": TRAINED,
    "teacher_share": TRAINED,
    "temperature": TRAINED,
}
"""Settings that have an effect for some results alone."""
READING = (
    "val_data", "test_data", "val_fraction", "test_fraction", "image_shape", "label_column", "path_column",
)  # fmt: skip
"""Settings that say how data is read, where it is named."""


@dataclass(frozen=True, kw_only=True)
class CompressConfig(DataOptions):
    """Make a trained model smaller and faster, and measure what that costs."""

    model: str = LATEST
    """A run's folder, any other bundle, or hf:user/repo."""
    to: To = "int8"
    """int8: weights and activations of 8 bits, calibrated on training images, for ONNX Runtime and OpenVINO. bf16: the
    same network, to be computed in bfloat16 where the processor can. folded: normalisation and branches computed into
    the convolutions, exactly. pruned: without the channels that matter least, then trained on. distilled: a smaller
    model that learns from this one's answers."""
    output: str | None = None
    """The folder of the result. Default: compressed/NAME-TO, after the model's folder."""
    data: str | None = None
    """Data in any form that `train` takes. Default: the run's own."""
    split: Literal["auto", "val", "test"] = "auto"
    """Which set both models are measured on. auto: test, else val."""
    calibration: int = 300
    """int8: how many training images say how large activations get."""
    weight_bits: Literal[7, 8] = 7
    """int8: bits of the weights. With 8, processors without VNNI add up to more than they can hold, and answers suffer;
    7 is right on all of them."""
    keep: float = 0.5
    """pruned: share of the multiply-adds that stays, at most."""
    student: str | None = None
    """distilled: the smaller model, a name from `msresnet models`."""
    student_args: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """distilled: its arguments, such as widths=[32,64,128,256]."""
    epochs: int | None = None
    """pruned, distilled: passes over the training data. Default: 10, or as many as --time-limit allows."""
    time_limit: str | None = None
    """pruned, distilled: longest training time, such as 90s, 2m, 1h30m."""
    lr: float | None = None
    """pruned, distilled: highest learning rate. Default: for pruned a quarter of that of a new model."""
    batch_size: int = 128
    """pruned, distilled: images in a step."""
    teacher_share: float = 0.5
    """pruned, distilled: how much the given model's answers count in the loss; the labels count for the rest."""
    temperature: float = 2.0
    """pruned, distilled: softens the answers of both."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps: where training and torch run."""
    seed: int = 0
    """Decides which images are looked at, weights and order."""
    max_drop: float | None = None
    """Refuse to write, with 8, when top-1 (or the task's own figure) falls by more than this share, such as 0.005.
    int8 keeps sensitive layers in float until it falls no more than this on validation images (without it: 0.005)."""
    fail_under: Annotated[str | None, arg(metavar="top1=0.98")] = None
    """Refuse to write, with 8, when a figure of the result is worse than its bound."""
    format: Literal["table", "json"] = "table"
    """How the comparison is printed."""

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1:
            raise UsageError(f"--keep {self.keep:g}", why="a share between 0 and 1", hint="--keep 0.5")
        at_least({"calibration": (self.calibration, 1), "batch-size": (self.batch_size, 2), "epochs": (self.epochs, 1)})
        if self.max_drop is not None and not 0 <= self.max_drop < 1:
            raise UsageError(f"--max-drop {self.max_drop:g}", why="a share from 0, under 1", hint="--max-drop 0.005")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise UsageError(f"--lr {self.lr:g}", why="a learning rate is positive and finite", hint="--lr 0.002")
        if not 0 <= self.teacher_share <= 1:
            raise UsageError(f"--teacher-share {self.teacher_share:g}", why="from 0 to 1", hint="--teacher-share 0.5")
        if self.to == "distilled" and self.student is None:
            raise UsageError("--to distilled needs a smaller model", hint="--student msresnet10")


def check_used(given: Collection[str], config: CompressConfig) -> None:
    """Raise UsageError for a setting that has no effect on what is asked for; `given` holds those that were set."""
    for name in given:
        if config.data is None and name in READING:
            why = "without --data, it is read and split as it was in training"
            raise UsageError(f"--{name.replace('_', '-')} has no effect here", why=why, hint="--data FOLDER")
        if name in ONLY and config.to not in ONLY[name]:
            why = f"it is for --to {' and '.join(ONLY[name])}"
            raise UsageError(f"--{name.replace('_', '-')} has no effect here", why=why, hint="leave it out")
