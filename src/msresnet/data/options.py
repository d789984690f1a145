"""What a user can say about data, as flags, YAML keys and keywords. No torch here: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from tyro.conf import arg

from msresnet.machine import cores


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where images come from and how they are split."""

    val_data: str | None = None
    """Validation data in the same forms; without it, some of the training data is held out."""
    test_data: str | None = None
    """Test data in the same forms, never seen by training or by the choice of the model."""
    val_fraction: float | None = None
    """Share of the training data held out for validation where there is none (by a stable hash). Default: 0.1, of
    large sets about 5,000 images."""
    test_fraction: float = 0.2
    """Share held out for testing where there is neither a validation nor a test set."""
    image_shape: Annotated[tuple[int, ...] | None, arg(metavar="H W")] = None
    """Shape of the images in a .csv: H W, or C H W. Default: square and grey."""
    label_column: Annotated[str, arg(metavar="NAME")] = "auto"
    """Which column of a table holds the label: auto, first, last, none, or a name."""
    path_column: Annotated[str, arg(metavar="NAME")] = "auto"
    """Which column of a table holds the images' paths, of a hub's data set the images: auto, first, last, or a name."""
    on_bad: Literal["fail", "skip"] | None = None
    """What to do with unreadable images. Default: skip up to 1 % of them, fail above."""
    workers: int = field(default_factory=cores)
    """Threads that decode images; 0 decodes in the main one. Default: one for each core. The outcome is the same."""
    cache: Literal["auto", "ram", "disk", "none"] = "auto"
    """Where decoded images are kept: ram, disk (a file in the cache folder; the second epoch decodes nothing), or none.
    Default: in memory if half of what is free holds them, else on the disk if half of what is free there does."""


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """How every image is brought to one form, before training and ever after."""

    image_size: Annotated[tuple[int, ...] | None, arg(metavar="PIXELS")] = None
    """Side in pixels, or height and width. Default: that of the data if it is all alike, else 224."""
    channels: Literal[1, 3] | None = None
    """1 grey, 3 RGB. Default: as the data."""
    resize: Literal["squash", "crop", "pad"] = "squash"
    """squash keeps all content, crop and pad keep the proportions."""
    threshold: str | None = None
    """Grey level that separates dark from bright: 0 to 255, otsu (per image), or adaptive (per neighbourhood)."""
    binary: bool = False
    """With a threshold: black and white. Without: what is under the threshold becomes black, the rest stays grey."""
