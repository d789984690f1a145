"""What a model looks at: heat maps of some images, and the scales that carry its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from msresnet.bundle import Bundle
from msresnet.errors import ModelError
from msresnet.explain.attribution import DEFAULT, MOST_STEPS, attribute, device_of, heat_maps
from msresnet.report.answered import Answered
from msresnet.report.page import Card, Cards, Part, Picture, Section, Words
from msresnet.report.plots import overlay
from msresnet.report.story import Story, picture

Heat = npt.NDArray[np.float32]
MOST_EXAMPLES = 10
MOST_MACS, PASSES, AT_ONCE = 2e11, 3, 8
"""Multiply-adds that explaining may take, some seconds of two cores, so that the same model gets the same report on
every machine; a gradient costs as much as three answers; images at once."""
CHEAPEST, FEW = "grad-cam", 4
"""The method in place of the default where not even so many images could be explained by that."""


def examples(answered: Answered) -> list[int]:
    """An image of each of some classes, answered rightly if any is; the classes with most mistakes first."""
    found, classes = [], np.unique(answered.targets)
    missed = np.bincount(answered.targets[~answered.correct], minlength=int(classes.max(initial=0)) + 1)[classes]
    for target in classes[np.argsort(-missed, kind="stable")][:MOST_EXAMPLES]:
        members = np.flatnonzero(answered.targets == target)
        right = members[answered.correct[members]]
        found.append(int((right if len(right) else members)[0]))
    return found


def explained(story: Story, wanted: Sequence[tuple[int, int]]) -> tuple[dict[int, Heat], str]:
    """Heat maps (H, W), 0 to 1, of images and the class each is asked about, and the method.

    The default method asks a network for up to hundreds of gradients an image, so that of large networks the first
    images alone are explained. Where that would be hardly any, the cheapest method, which asks for one gradient, takes
    its place.
    """
    bundle = story.trained
    if not isinstance(bundle, Bundle):  # an exported network has no gradients
        return {}, CHEAPEST
    each = PASSES * bundle.macs
    method, fit = DEFAULT, int(MOST_MACS / (each * MOST_STEPS))
    if fit < min(FEW, len(wanted)):
        method, fit = CHEAPEST, int(MOST_MACS / each)
    few = wanted[: max(1, fit)]
    found: dict[int, Heat] = {}
    try:
        for place in range(0, len(few), AT_ONCE):
            _add(found, story, bundle, few[place : place + AT_ONCE], method)
    except ModelError:  # a gradient that is not a number explains nothing; all else that is told holds
        return {}, method
    return found, method


def _add(found: dict[int, Heat], story: Story, bundle: Bundle, wanted: Sequence[tuple[int, int]], method: str) -> None:
    indices, targets = zip(*wanted, strict=True)
    device, pixels = device_of(bundle), torch.from_numpy(np.stack([story.image(i) for i in indices]))
    images = bundle.preprocess.tensor(pixels.to(device))
    attribution = attribute(bundle, images, torch.tensor(targets, device=device), method)
    maps = heat_maps(attribution, (images.shape[-2], images.shape[-1]))
    found |= dict(zip(indices, maps.cpu().numpy(), strict=True))


def overlaid(story: Story, index: int, heat: Heat, name: str) -> Picture:
    """An image with its heat map on it."""
    return picture(overlay(story.image(index), heat), f"the same image, bright where it speaks for {name}")


def looks(answered: Answered, chosen: Sequence[int], heats: Mapping[int, Heat], method: str) -> Section | None:
    """Images with their heat maps, and the scales."""
    cards = []
    for index in chosen:
        if index in heats:
            name = answered.results.class_names[answered.answers[index]]
            card = answered.story.card(index, answered.lines(index))
            heat = overlaid(answered.story, index, heats[index], name)
            cards.append(Card([*card.pictures, heat], card.lines, card.id))
    if not cards:
        return None
    text = f"Beside each image, where its answer was found ({method}): the brighter, the more it speaks for it. "
    text += "The classes with most mistakes come first."
    if method == CHEAPEST:
        text += f" {method} is quick and coarse, on photographs no better than edges; msresnet explain takes {DEFAULT}."
    if len(cards) < len(chosen):
        text += f" {len(chosen) - len(cards)} more would have taken too long; msresnet explain shows any."
    parts: list[Part] = [Words(text), Cards(cards)]
    return Section("looks", "What it looks at", parts)
