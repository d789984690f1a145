"""Learned binarisation against thresholds: clean digits, noise, uneven light, and both.

    python -m benchmarks.segmentation --output benchmarks/results/segmentation.md

Trains on the embedded `binary-digits` and measures on its test digits, which training never sees. The truth is what
Otsu's threshold makes of the clean image. Noise and light are added to the test images here, by other formulas than
those that training uses. The neighbourhood threshold is given the radius and the offset that are best on the training
digits, made bad in the same way.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.tables import publish
from scipy import ndimage

from msresnet.data.preprocess import otsu
from msresnet.data.sample import MaskedArrays, Source
from msresnet.data.sources.binary_digits import binary_digits
from msresnet.infer.backends.eager import predictor_of
from msresnet.metrics import segmentation as figures
from msresnet.results import Segmentation
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit
from msresnet.train.recipes import find_recipe

Images = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.uint8]
Method = Callable[[Images], Masks]
Figures = npt.NDArray[np.float64]
NOISE = 0.15
"""Standard deviation, as a share of white."""
FLOOR, DARK = 0.25, 0.2
"""What black reflects, and the light on the dark side, as shares of white and of the light on the bright side."""
RADII, OFFSETS = (2, 3, 4, 6, 8, 12), range(-24, 25, 4)


def noisy(images: Images, seed: int) -> Images:
    """Gaussian noise."""
    rng = np.random.default_rng(seed)
    return _bytes(images / 255 + rng.normal(0, NOISE, images.shape))


def shaded(images: Images, seed: int) -> Images:
    """Paper and ink in light that falls off in a straight line from one side to the other, in any direction."""
    rng = np.random.default_rng(seed + 1)
    angles = rng.uniform(0, 2 * np.pi, len(images))[:, None, None]
    side = np.linspace(-0.5, 0.5, images.shape[-1])
    along = np.cos(angles) * side[None, None, :] + np.sin(angles) * side[None, :, None]
    reach = np.abs(along).max((1, 2), keepdims=True)
    light = 1 - (1 - DARK) * (along / reach + 1) / 2
    return _bytes((FLOOR + (1 - FLOOR) * images / 255) * light)


def _bytes(shares: npt.NDArray[np.float64]) -> Images:
    whole: Images = np.rint(255 * shares.clip(0, 1)).astype(np.uint8)
    return whole


CONDITIONS: dict[str, Callable[[Images, int], Images]] = {
    "clean": lambda images, seed: images,
    "noise": noisy,
    "shading": shaded,
    "both": lambda images, seed: noisy(shaded(images, seed), seed),
}


def by_otsu(images: Images) -> Masks:
    """Otsu's threshold of each image."""
    return np.stack([image > otsu(image) for image in images]).astype(np.uint8)


def by_neighbourhood(images: Images, radius: int, offset: int) -> Masks:
    """Brighter than the mean of the square around it by more than an offset."""
    mean = ndimage.uniform_filter(images.astype(np.float64), (0, 2 * radius + 1, 2 * radius + 1))
    masks: Masks = (images > mean + offset).astype(np.uint8)
    return masks


def best_neighbourhood(images: Images, masks: Masks) -> tuple[int, int]:
    """The radius and the offset that give the most pixels right."""
    found = {(r, o): float((by_neighbourhood(images, r, o) == masks).mean()) for r in RADII for o in OFFSETS}
    return max(found, key=lambda pair: found[pair])


def arrays(source: Source) -> tuple[Images, Masks]:
    """The images (N, H, W) and masks of a set."""
    assert isinstance(source, MaskedArrays)
    return np.asarray(source.images)[:, 0], np.asarray(source.masks)


def learned(seed: int, **settings: Any) -> tuple[Method, float, int]:
    """A trained network as a method, the seconds that its training took, and its parameters."""
    chosen = {**find_recipe("binarise").settings, **settings}
    config = TrainConfig(data="binary-digits", device="cpu", seed=seed, **chosen)
    start = time.perf_counter()
    fitted = fit(config)
    spent, predictor = time.perf_counter() - start, predictor_of(fitted.bundle, "cpu")

    def answer(images: Images) -> Masks:
        results = predictor.predict(list(images[:, None]), [str(i) for i in range(len(images))])
        assert isinstance(results, Segmentation)
        return np.stack(results.masks)

    return answer, spent, int(fitted.cost["params"])


def measured(method: Callable[[str], Method], images: Images, masks: Masks, seed: int) -> Figures:
    """Pixel accuracy and mean IoU in percent under each condition (conditions, 2)."""
    found = []
    for condition, make in CONDITIONS.items():
        answers = method(condition)(make(images, seed))
        counts = figures.counted(np.sum([figures.confusion(a, m, 2) for a, m in zip(answers, masks, strict=True)], 0))
        found.append((100 * float(figures.pixel_accuracy(counts)), 100 * float(figures.mean_iou(counts))))
    return np.array(found)


def row(name: str, found: Figures) -> str:
    """A line of the table."""
    return f"| {name} | " + " | ".join(f"{accuracy:.2f} / {overlap:.2f}" for accuracy, overlap in found) + " |"


def main() -> None:
    """Print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of the recipe")
    given = parser.parse_args()
    sets = binary_digits()
    (train, truths), (images, masks) = arrays(sets["train"]), arrays(sets["test"])
    tuned = {name: best_neighbourhood(make(train, 10), truths) for name, make in CONDITIONS.items()}
    plain, plain_spent, params = learned(0, noise=0.0, shade=0.0)
    methods: dict[str, Callable[[str], Method]] = {
        "Otsu": lambda condition: by_otsu,
        "neighbourhood, tuned": lambda condition: lambda i: by_neighbourhood(i, *tuned[condition]),
        "learned from clean images": lambda condition: plain,
    }
    rows = [row(name, measured(method, images, masks, 0)) for name, method in methods.items()]
    recipes, seconds = [], []
    for seed in range(given.seeds):
        ours, spent, _ = learned(seed)
        recipes.append(measured(lambda condition, ours=ours: ours, images, masks, seed))  # type: ignore[misc]
        seconds.append(spent)
        print(row(f"seed {seed}", recipes[-1]), flush=True)
    rows.append(row(f"learned, --recipe binarise, mean of {given.seeds}", np.mean(recipes, 0)))
    rows.append(row(f"lowest of {given.seeds}, each cell", np.min(recipes, 0)))
    lines = [
        f"{len(images)} test digits of 32x32 pixels; pixel accuracy / mean IoU in %. Noise: standard deviation "
        f"{NOISE:g} of white. Shading: black reflects {FLOOR:g}, the dark side gets {DARK:g} of the light.",
        "",
        "| | " + " | ".join(CONDITIONS) + " |",
        "|---" * (len(CONDITIONS) + 1) + "|",
        *rows,
        "",
        f"msresnet_micro with a pyramid, {params:,} parameters, {np.mean(seconds):.0f} s of training "
        f"({plain_spent:.0f} s from clean images).",
    ]
    publish("Learned binarisation against thresholds", lines, given.output)


if __name__ == "__main__":
    main()
