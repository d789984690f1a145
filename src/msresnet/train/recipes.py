"""Settings with a name and a measured score: `msresnet train --recipe mnist-fast`. No torch here.

Each recipe's docstring states the command, what it costs on which hardware, and the score that was measured.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msresnet.errors import UsageError, nearest

Settings = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """Settings of `TrainConfig` with a name, and what is known of them, in words."""

    name: str
    settings: Settings
    text: str


RECIPES: dict[str, Recipe] = {}


def recipe(function: Callable[[], Settings]) -> Callable[[], Settings]:
    """Enter a function of settings into the table, under its name with hyphens."""
    name = function.__name__.replace("_", "-")
    RECIPES[name] = Recipe(name, function(), inspect.getdoc(function) or "")
    return function


def find_recipe(name: str) -> Recipe:
    """The recipe of a name. Raises UsageError, with the nearest, for an unknown one."""
    if name not in RECIPES:
        hint = nearest(name, RECIPES) or ", ".join(RECIPES)
        raise UsageError(f"unknown recipe {name!r}", where="--recipe", hint=f"--recipe {hint}")
    return RECIPES[name]


@recipe
def mnist_fast() -> Settings:
    """MNIST in less than a pass: `msresnet train --recipe mnist-fast --data mnist`.

    Mean of 5 seeds on two cores of an AMD EPYC with AVX2: 99.07 % of the test images (98.98 % the worst) after 22
    seconds, where the ten epochs of the article's network in Keras take 339 and reach 98.77 %
    (benchmarks/results/mnist.md). About 40,000 images are learnt from, two thirds of them at 20 pixels.
    """
    return {
        "model": "msresnet_micro",
        "operations": 5e11,
        "batch_size": 128,
        "optimizer": "muon",
        "lr": 0.02,
        "train_sizes": (20, 28),
        "size_batches": (128, 128),
        "schedule": "linear",
        "warmup": 0.2,
        "ema": 0.99,
        "val_fraction": 0.0,
    }


@recipe
def mnist_best() -> Settings:
    """MNIST with at most 110,474 parameters, in minutes: `msresnet train --recipe mnist-best --data mnist`.

    Mean of 5 seeds on two cores of an AMD EPYC with AVX2: 99.68 % of the test images (99.63 % the worst) after 256
    seconds, three quarters of what the article's network in Keras takes for 98.77 % (benchmarks/results/mnist.md).
    Leaving out what is known buys about twice as many epochs for the same price (docs/decisions.md). All training
    images are learnt from.
    """
    return {
        "model": "msresnet_micro",
        "model_args": ("operator=plain",),
        "epochs": 15,
        "skip_easy": 0.7,
        "batch_size": 128,
        "optimizer": "muon",
        "lr": 0.02,
        "train_sizes": (20, 28),
        "size_batches": (128, 128),
        "val_fraction": 0.0,
    }


@recipe
def cifar10_fast() -> Settings:
    """Small colour images in minutes: `msresnet train --recipe cifar10-fast --data FOLDER`, with train/ and test/.

    Ten minutes of one core, by the images it sees. After 180 seconds of one core of an AMD EPYC with AVX2 each, mean of
    3 seeds, 336,410 parameters: 75.4 % of the test images, where airbench94 has 57.6 % (58.3 % with multi-crop
    evaluation); see benchmarks/results/cifar10.md. All training images are learnt from.
    """
    return {
        "model": "msresnet_micro",
        "model_args": ("widths=[32,64,128]", "pool=avg"),
        "epochs": 6,
        "batch_size": 128,
        "optimizer": "muon",
        "lr": 0.03,
        "train_sizes": (20, 26, 32),
        "size_batches": (128, 128, 128),
        "shift": 0.0625,
        "rotate": 0.0,
        "scale": 0.0,
        "val_fraction": 0.0,
    }


@recipe
def cifar10_best() -> Settings:
    """The same network, learning four times as long: `msresnet train --recipe cifar10-best --data FOLDER`.

    Forty minutes of one core, by the images it sees; it was measured for 180 seconds of one core of an AMD EPYC with
    AVX2, mean of 3 seeds: 75.0 % of the test images, where timm's resnet18 with a small stem has 24.1 %
    (benchmarks/results/cifar10.md).
    """
    return {**cifar10_fast(), "epochs": 24, "shift": 0.125, "label_smoothing": 0.1}


@recipe
def from_scratch() -> Settings:
    """Photographs of your own, from random weights: `msresnet train --recipe from-scratch --data FOLDER`.

    Not measured at its whole length yet; what it is made of is that of `detect-cells` and of the CIFAR-10 trials in
    docs/decisions.md. Some minutes for a thousand images of 32 pixels on one core of an AMD EPYC.
    """
    return {
        "model": "msresnet10",
        "model_args": ("widths=[32,64,128,256]", "stem_width=32"),
        "epochs": 40,
        "batch_size": 64,
        "optimizer": "muon",
        "lr": 0.01,
        "label_smoothing": 0.1,
        "shift": 0.125,
        "cutmix": 1.0,
        "mix_until": 0.8,
    }


@recipe
def finetune() -> Settings:
    """Few images, and weights that know others: `msresnet train --recipe finetune --weights W --data FOLDER`.

    W is a run of yours (its network comes with it), `published` with a --model that has them, hf:user/repo, or a
    safetensors file. From a run of `mnist-best` (with --val-fraction 0.16667: 99.65 %), scikit-learn's digits, --data
    digits: 98.3 % of the 358 test images after 6 seconds of two cores of an AMD EPYC with bf16; from random weights,
    --model msresnet_micro --model-args operator=plain --image-size 28, 72.6 % (seed 0).
    """
    return {
        "epochs": 10,
        "batch_size": 32,
        "optimizer": "adamw",
        "lr": 0.001,
        "layer_decay": 0.75,
        "ema": 0.99,
        "warmup": 0.2,
    }


@recipe
def binarise() -> Settings:
    """Foreground from background in bad light: `msresnet train --recipe binarise --data binary-digits`.

    Mean of 3 seeds after 117 s of one core of an AMD EPYC: of the pixels of digits that training never saw, 99.1 % as
    Otsu's threshold makes them of the clean image; 98.1 % under noise, 98.7 % in uneven light, 96.1 % in both, where
    Otsu's threshold has 93.9, 90.2 and 79.8 %. Learned from clean images (--noise 0 --shade 0): 99.8 % of clean ones
    (python -m benchmarks.segmentation).
    """
    return {
        "epochs": 24,
        "batch_size": 32,
        "optimizer": "muon",
        "lr": 0.02,
        "ema": 0.99,
        "shift": 0.08,
        "rotate": 0.0,
        "scale": 0.0,
        "noise": 0.25,
        "shade": 0.9,
        "val_fraction": 0.0,
    }


@recipe
def detect() -> Settings:
    """Small objects in small images: `msresnet train --recipe detect --data digit-scenes`.

    On two cores of an AMD EPYC with AVX2: after 519 seconds an AP of 90.2 % on the test scenes (AP50 98.1 %, small
    objects 88.6 %; another seed 90.5 and 88.8 %). Moves by whole pixels leave edges as sharp as those that are
    measured, and boxes in whole pixels are answered as such.
    """
    return {
        "model": "msresnet_micro",
        "model_args": ("operator=plain", "pyramid_width=32"),
        "epochs": 6,
        "validate_every": 2,
        "batch_size": 8,
        "optimizer": "muon",
        "lr": 0.015,
        "mosaic": 0.0,
        "scale": 0.0,
        "shift": 0.1,
    }


@recipe
def detect_cells() -> Settings:
    """Objects in photographs of one kind: `msresnet train --recipe detect-cells --data BCCD`.

    The test images of BCCD, mean of two seeds (0, 1) after 44 minutes of one busy core of an AMD EPYC with AVX2 each,
    from random weights: AP 61.0 %, AP50 89.2 %, with 2,809,708 parameters. Half of msresnet10's channels are worth
    four times as many epochs in the same time. The size has the photographs' proportions.
    """
    return {
        "model": "msresnet10",
        "model_args": ("widths=[32,64,128,256]", "stem_width=32", "pyramid_width=64"),
        "image_size": (288, 384),
        "epochs": 60,
        "batch_size": 8,
        "optimizer": "muon",
        "lr": 0.015,
        "flip": 0.5,
        "validate_every": 5,
    }
