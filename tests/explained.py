"""Random networks as bundles, random images, and the heat map of one image, for tests of explanations."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.explain.attribution import DEFAULT, attribute, heat_maps, ready
from msresnet.models.factory import MODELS, create_classifier
from msresnet.models.families import FAMILIES
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised

ONE_OF_EACH = [next(iter(family.members)) for family in FAMILIES]
"""A small network of every family that is registered."""
SIDE = 32
EXITS = ("msresnet_micro", {"exits": True})


def bundle(model: str = "msresnet_micro", side: int = 20, channels: int = 1, **arguments: object) -> Bundle:
    """A network with random weights, three classes and square images."""
    network = create_classifier(model, num_classes=3, in_chans=channels, img_size=(side, side), **arguments)
    randomised(network)
    return Bundle(network, model, {}, ClassificationTask(["a", "b", "c"]), Preprocess((side, side), channels))


def side_of(model: str) -> int:
    """Pixels of a small image that a network takes."""
    return min(SIDE, MODELS[model].family.defaults.img_size[0])


def picture(height: int = 20, width: int | None = None, channels: int = 1, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random bytes (C, H, W)."""
    shape = (channels, height, width or height)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def heat_map(
    bundle: Bundle, image: npt.NDArray[np.uint8], target: int, method: str = DEFAULT, stage: int | None = None
) -> npt.NDArray[np.float32]:
    """How much each place speaks for a class: (H, W) of the network's input, from 0 to 1."""
    x = ready(bundle, image)
    found = attribute(bundle, x, torch.tensor([target], device=x.device), method, stage)
    return heat_maps(found, (x.shape[-2], x.shape[-1]))[0].cpu().numpy()
