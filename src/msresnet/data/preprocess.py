"""The deterministic path from any image to the network's input; one object, saved with the model.

Training, evaluation, prediction, export and serving use the same object, so they answer alike on the same file.
C channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageFilter

from msresnet.data.decode import file_size
from msresnet.data.options import PreprocessOptions
from msresnet.data.resize import Frame, Resize, frame, resize, resize_mask, seen_at
from msresnet.data.sample import Image, Source, mask_of
from msresnet.errors import DataError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

RESIZES = get_args(Resize)
ADAPTIVE_OFFSET = 10
"""Grey levels that a pixel must be above its neighbourhood's mean, so that flat areas stay dark."""
DEFAULT_SIDE, LARGEST_LIKE_DATA = 224, 256
FEW = 256
"""About so many images are looked at before anything is decided."""
LOOK = (32, 32)
"""Scale, in pixels, at which files show whether they have colour."""
TINY, ENLARGED = range(6, 16), 24
"""Images of so few pixels a side are enlarged: strides would leave nothing of them."""


@dataclass(frozen=True)
class Preprocess:
    """Resize, then grey or RGB, then threshold, then normalise.

    Args:
        size: (H, W) in pixels.
        channels: 1 grey, 3 RGB.
        resize: 'squash' keeps all content, 'crop' the middle, 'pad' adds black borders.
        threshold: None, a grey level as text, 'otsu' or 'adaptive'.
        binary: whether what passes the threshold becomes 255, or keeps its grey level.
        mean, std: per channel, of pixels in 0 to 1.
        value_range: (lowest, highest) of arrays that are not uint8, mapped to 0 to 255; None for what was learnt from
            bytes, beside which only shares of 1 make sense.
        whole: whether files are decoded at their full size, because answers are given at it.
    """

    size: tuple[int, int]
    channels: int
    resize: Resize = "squash"
    threshold: str | None = None
    binary: bool = False
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    value_range: tuple[float, float] | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.binary and self.threshold is None:
            raise UsageError("binary needs a threshold", hint="--threshold otsu --binary")
        level = self.threshold
        if level not in (None, "otsu", "adaptive") and not (str(level).isdecimal() and int(str(level)) <= 255):
            raise UsageError(f"threshold {level!r}", why="0 to 255, otsu or adaptive", hint="--threshold otsu")
        if len(self.size) != 2 or min(self.size) < 1 or self.channels not in (1, 3):
            what = f"images of {self.channels} channels and {self.size} pixels cannot be made"
            raise UsageError(what, hint="1 or 3 channels, height and width: --channels 3 --image-size 224")
        if self.resize not in RESIZES:
            raise UsageError(f"resize {self.resize!r}", why=", ".join(RESIZES), hint="--resize squash")
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, self.channels):
            what = f"mean {self.mean} and std {self.std} do not fit {self.channels} channels"
            raise UsageError(what, hint="one number each, or one for each channel")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            why = "they are finite, and std is above 0"
            raise UsageError(f"mean {self.mean} and std {self.std}", why=why, hint="mean 0.5 and std 0.25")

    @property
    def at_least(self) -> tuple[int, int] | None:
        """(H, W): what the decoder must give at least. Every door decodes by it, so that all see the same pixels.

        That is the size itself: nothing is enlarged that was not smaller, whatever the proportions. None: all there is.
        """
        return None if self.whole else self.size

    def shape(self, source: Source) -> tuple[int, int, int]:
        """(planes, H, W) of what `read` gives."""
        return (self.channels + source.planes, *self.size)

    def read(self, source: Source, index: int) -> Image:
        """One sample of a source, ready: uint8 (planes, H, W), its channels and then its mask if it has one.

        Raises DataError for one that cannot be read, and for a mask of another size than its image.
        """
        image = source.image(index, self.at_least)
        ready = image if self.is_applied(source) else self.image(image)
        if not source.planes:
            return ready
        mask = mask_of(source, index, image)
        return np.concatenate([ready, resize_mask(mask, self.size, self.resize)[None]])

    def frame(self, size: tuple[int, int]) -> Frame:
        """Where an image of (H, W) pixels lies within the network's input."""
        return frame(size, self.size, self.resize)

    def seen_at(self, pixel: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """(row, column) of an image of (H, W) pixels under a pixel of the network's input; see `resize.seen_at`."""
        return seen_at(pixel, size, self.size, self.resize)

    def is_applied(self, source: Source) -> bool:
        """Whether a source's images are ready. Raises DataError where something else was done to them."""
        if source.applied is None:
            return False
        done = Preprocess.from_dict(source.applied)
        if done.steps() != self.steps():
            why = f"packed: {done.steps()}; wanted: {self.steps()}"
            hint = "the images themselves, or msresnet data pack with the same settings"
            raise DataError("the data was packed for another preprocess", why=why, hint=hint)
        return True

    def image(self, image: Image) -> Image:
        """uint8 (1 or 3, any H, any W) -> uint8 (channels, H, W)."""
        small = self._coloured(resize(image, self.size, self.resize))
        return small if self.threshold is None else self._thresholded(small)

    def tensor(self, images: Tensor) -> Tensor:
        """uint8 (B, C, H, W) -> normalised float32 (B, C, H, W), on the same device."""
        return self.normalise(images.float().div_(255))

    def normalise(self, images: Tensor) -> Tensor:
        """Pixels in 0 to 1 (B, C, H, W) -> zero mean, unit variance."""
        import torch

        from msresnet.data.upload import sent

        mean, std = sent(torch.tensor((self.mean, self.std)), images.device).view(2, 1, -1, 1, 1)
        normal: Tensor = (images - mean) / std
        return normal

    def _coloured(self, image: Image) -> Image:
        if image.shape[0] == self.channels:
            return image
        if self.channels == 3:
            return np.repeat(image, 3, axis=0)
        picture = Pillow.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        return np.asarray(picture.convert("L"))[None]  # ITU-R 601 luma

    def _thresholded(self, image: Image) -> Image:
        return np.stack([self._channel(channel) for channel in image])

    def _channel(self, grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if self.threshold == "adaptive":
            radius = max(2, min(self.size) // 8)
            mean = np.asarray(Pillow.fromarray(grey).filter(ImageFilter.BoxBlur(radius)))
            passes = grey.astype(np.int16) > mean.astype(np.int16) + ADAPTIVE_OFFSET
        else:
            passes = grey > (otsu(grey) if self.threshold == "otsu" else int(str(self.threshold)))
        return np.where(passes, np.uint8(255) if self.binary else grey, np.uint8(0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The object that `to_dict` wrote."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)

    def steps(self) -> str:
        """What is done to the pixels, in one line for people."""
        steps = ["grey" if self.channels == 1 else "RGB", f"{self.resize} to {self.size[0]}x{self.size[1]}"]
        if self.threshold is not None:
            name = self.threshold if self.threshold in ("otsu", "adaptive") else f"at {self.threshold}"
            steps.append(f"threshold {name}" + (" to black and white" if self.binary else ""))
        steps += ["decoded whole"] * self.whole
        return " → ".join(steps)

    def describe(self) -> str:
        """All that is done, in one line for people."""
        numbers = ", ".join(f"{m:.3f}±{s:.3f}" for m, s in zip(self.mean, self.std, strict=True))
        return f"{self.steps()} → normalise ({numbers})"


def otsu(grey: npt.NDArray[np.uint8]) -> int:
    """The grey level whose split gives the largest variance between dark and bright (Otsu, 1979).

    Of an image of one level it is that level: nothing is brighter.
    """
    if grey.min() == grey.max():
        return int(grey.min())
    counts = np.bincount(grey.ravel(), minlength=256).astype(np.float64)
    levels = np.arange(256)
    dark = counts.cumsum()
    bright = dark[-1] - dark
    dark_sum = (counts * levels).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = dark_sum / dark - (dark_sum[-1] - dark_sum) / bright
        variance = dark * bright * difference**2
    best = np.nan_to_num(variance, nan=-1.0)
    # Between two peaks every level is as good as another: take the middle of the (first) plateau.
    equal = np.flatnonzero(best >= best.max() * (1 - 1e-12))
    plateau = equal[equal - equal[0] == np.arange(len(equal))]
    return int(plateau.mean())


def to_uint8(array: npt.ArrayLike, value_range: tuple[float, float]) -> Image:
    """Any numbers to uint8: `value_range` is mapped to 0 to 255, what lies outside is clipped. Raises DataError."""
    values = np.asarray(array)
    if values.dtype == np.uint8:
        return values
    low, high = value_range
    scaled = (values.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    if not np.isfinite(scaled).all():
        raise DataError("the images hold NaN or infinity")
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def plan(
    options: PreprocessOptions, sizes: set[tuple[int, int]], grey: bool, total: int = 0
) -> tuple[Preprocess, list[str]]:
    """The preprocess for images of these (H, W) sizes, before mean and std are known, and the reasons in words.

    `total` is the number of images in the set that `look` saw some of.
    """
    reasons = []
    seen = len(_places(total))
    sample = f" of {seen} looked at" if seen < total else ""
    if options.image_size is not None:
        given = options.image_size
        if len(given) not in (1, 2) or min(given) < 1:
            what = f"--image-size {' '.join(map(str, given))}"
            raise UsageError(what, why="one side in pixels, or height and width", hint="--image-size 224")
        size = (given[0], given[-1])
    elif len(sizes) == 1 and max(next(iter(sizes))) <= LARGEST_LIKE_DATA:
        size = next(iter(sizes))
        if min(size) in TINY:
            factor = -(-ENLARGED // min(size))
            reasons.append(f"image size {factor} times {size[0]}x{size[1]}: tiny images are enlarged")
            size = (size[0] * factor, size[1] * factor)
        else:
            reasons.append(f"image size {size[0]}x{size[1]}: all images{sample} have it")
    else:
        size = (DEFAULT_SIDE, DEFAULT_SIDE)
        reasons.append(f"image size {DEFAULT_SIDE}: the images differ in size or are large (--image-size changes it)")
    channels = options.channels or (1 if grey or options.threshold else 3)
    if options.channels is None:
        why_grey = f"no image{sample} has colour" if grey else "a threshold works on grey levels"
        reasons.append("RGB: the images have colour" if channels == 3 else f"grey: {why_grey}")
    return Preprocess(size, channels, options.resize, options.threshold, options.binary), reasons


def sizes_before(size: tuple[int, int]) -> set[tuple[int, int]]:
    """The sizes (H, W) of images that `plan` makes this one of, where all have the same: itself, and tiny ones."""
    found = {size}
    for side in TINY:
        factor = -(-ENLARGED // side)
        height, width = size[0] // factor, size[1] // factor
        if min(height, width) == side and (height * factor, width * factor) == size:
            found.add((height, width))
    return found


def with_statistics(preprocess: Preprocess, images: Tensor | Iterable[Tensor]) -> Preprocess:
    """The same preprocess with mean and std (per channel) of preprocessed images (N, C, H, W) uint8, or of parts."""
    import torch

    parts = images[:: max(1, len(images) // 10_000)].split(256) if isinstance(images, torch.Tensor) else images
    # Counts of grey levels are exact, whatever the order, and small; the images as floats would fill the memory.
    counts = torch.zeros(preprocess.channels, 256, dtype=torch.float64)
    for part in parts:
        counts += torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in part.unbind(1)])
    share = counts / counts.sum(1, keepdim=True)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ levels
    std = (share @ levels.square() - mean.square()).clamp_min(0).sqrt().clamp_min(1e-3)
    return replace(preprocess, mean=_rounded(mean), std=_rounded(std))


def _rounded(values: Tensor) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)


def _places(total: int) -> range:
    """Some evenly spaced indices."""
    return range(0, total, max(1, total // FEW))


def look(source: Source) -> tuple[set[tuple[int, int]], bool]:
    """The sizes (H, W) of some evenly spaced images, and whether all are grey; unreadable ones are passed over."""
    sizes: set[tuple[int, int]] = set()
    grey = True
    for index in _places(len(source)):
        path = source.path(index)
        try:
            image = source.image(index, None if path is None else LOOK)
            sizes.add((image.shape[1], image.shape[2]) if path is None else file_size(path))
        except DataError:
            continue
        grey = grey and (image.shape[0] == 1 or is_grey(image))
    return sizes, grey


def choose(options: PreprocessOptions, source: Source) -> tuple[Preprocess, list[str]]:
    """The preprocess for a training set, before mean and std are known, and the reasons in words.

    Raises UsageError where packed images are to go through something else.
    """
    if source.applied is None:
        sizes, grey = look(source)
        preprocess, reasons = plan(options, sizes, grey, len(source))
        return replace(preprocess, whole=source.planes > 0 or source.boxed), reasons
    done = Preprocess.from_dict(source.applied)
    size = None if options.image_size is None else (options.image_size[0], options.image_size[-1])
    asked = {
        "image-size": (size, done.size),
        "channels": (options.channels, done.channels),
        "threshold": (options.threshold, done.threshold),
        "resize": (None if options.resize == PreprocessOptions.resize else options.resize, done.resize),
        "binary": (options.binary or None, done.binary),
    }
    for name, (wanted, was) in asked.items():
        if wanted not in (None, was):
            what = f"--{name}, but the data was packed with another"
            raise UsageError(what, why=f"packed: {done.steps()}", hint="leave it out, or msresnet data pack again")
    return done, [f"packed as {done.steps()}"]


def is_grey(image: Image) -> bool:
    """Whether the channels of (C, H, W) are equal."""
    return bool((image == image[:1]).all())
