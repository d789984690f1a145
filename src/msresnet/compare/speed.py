"""How fast trained models answer, side by side: what else the machine does meanwhile hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.predictor import Predictor

BATCHES = (1, 64)
ROUNDS = 9
LEAST_SECONDS = 0.05
"""Time measured at once; shorter answers are repeated."""


def inference_speed(bundles: Mapping[str, Bundle], device: str) -> dict[str, dict[int, float]]:
    """Images answered a second, by name and batch size: the medians of several rounds, all models in each round.

    Decoded images in, probabilities out, as `Predictor` answers; the network is folded, in float32.
    """
    predictors = {name: predictor_of(bundle, device, max(BATCHES)) for name, bundle in bundles.items()}
    inputs = {name: _images(bundle) for name, bundle in bundles.items()}
    measured: dict[str, dict[int, list[float]]] = {name: {batch: [] for batch in BATCHES} for name in bundles}
    for number in range(-1, ROUNDS):  # the first one warms up
        for name, predictor in predictors.items():
            for batch in BATCHES:
                rate = _rate(predictor, inputs[name][:batch], LEAST_SECONDS if number >= 0 else 0.0)
                if number >= 0:
                    measured[name][batch].append(rate)
    return {name: {b: statistics.median(rates) for b, rates in found.items()} for name, found in measured.items()}


def _images(bundle: Bundle) -> Tensor:
    """Noise of the form that a model takes (B, C, H, W); what is on an image changes no speed."""
    generator = torch.Generator().manual_seed(0)
    shape = (max(BATCHES), bundle.preprocess.channels, *bundle.preprocess.size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def _rate(predictor: Predictor, images: Tensor, least: float) -> float:
    """Images a second over at least so many seconds."""
    ids = [""] * len(images)
    count, start = 0, time.perf_counter()
    while True:
        predictor.predict_ready(images, ids)
        count += len(images)
        if (spent := time.perf_counter() - start) > least:
            return count / spent
