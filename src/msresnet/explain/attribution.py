"""Where on an image a model finds its answer, by captum: each method is a function from a question to a map.

Grad-CAM (arXiv 1610.02391) weighs the maps of a stage, integrated gradients (arXiv 1703.01365) add up the logit's
gradient on the way from nothing to the image, occlusion (arXiv 1311.2901) hides places and looks what that costs.
"Nothing" is the mean colour of the training images, zero after normalisation: an image's own border may show the
object, and black is as bright as any other value to a network that has only seen photographs.

B batch, C channels, H and W pixels of the network's input, h and w of an attribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam, LayerGradientXActivation, Occlusion
from torch import Tensor, nn

from msresnet.bundle import Bundle
from msresnet.errors import ModelError, UsageError, nearest
from msresnet.models.base import ImageModel

MOST_PIXELS, MOST_ROWS = 2**19, 256
"""Pixels and images that go through a network at once, so that memory is bounded: 10 images of 224 a side."""
STEPS, MOST_STEPS, CLOSE = 32, 256, 0.05
"""Integrated gradients: steps at first and at most, and how near (`gap`) their sum must come to what it explains."""
WINDOWS = 7
"""An occluding window has this part of the image's sides, and moves by half of its own."""

SMOOTH = 1 / 56
"""Deviation that single pixels are smoothed by for the eye, as a share of the longer side."""


@dataclass(frozen=True)
class Question:
    """What is asked of a network.

    Args:
        forward: normalised images (B, C, H, W) -> how much is said for each class (B, K).
        images: normalised (B, C, H, W).
        targets: the class of each that is to be explained (B,).
        layer: the module whose maps Grad-CAM weighs.
        local: whether it is about one place of the images, and not about all of them.
    """

    forward: Callable[[Tensor], Tensor]
    images: Tensor
    targets: Tensor
    layer: nn.Module
    local: bool = False


Method = Callable[[Question], Tensor]
"""Gives (B, h, w): above zero where a place speaks for the class, below where it speaks against it."""


def grad_cam(question: Question) -> Tensor:
    """The layer's maps, weighted by their mean gradients, at the layer's resolution; two octaves at the finer one's.

    About one place, each value is weighted by its own gradient (HiResCAM, arXiv 2011.08891): the mean forgets where.
    """
    weighed = LayerGradientXActivation if question.local else LayerGradCam
    found = weighed(question.forward, question.layer).attribute(question.images, target=question.targets)
    parts = [found] if isinstance(found, Tensor) else [part for part in found if part is not None]
    size = parts[0].shape[-2:]
    return torch.stack([F.interpolate(part.detach(), size).sum(1) for part in parts]).sum(0)


def integrated_gradients(question: Question) -> Tensor:
    """Per pixel, its channels added; with more steps until the sum is the logit's difference (`gap`)."""
    images, steps = question.images.clone().requires_grad_(), STEPS
    rows = max(len(images), rows_at_once(images.shape))
    while True:
        found = IntegratedGradients(question.forward).attribute(
            images, baselines=0.0, target=question.targets, n_steps=steps, internal_batch_size=rows
        )
        attribution: Tensor = found.detach().float().sum(1)
        if steps >= MOST_STEPS or not float(gap(question, attribution).max()) > CLOSE:  # no number ends it too
            return attribution
        steps *= 2


def gap(question: Question, attribution: Tensor) -> Tensor:
    """How far attributions (B, H, W) are from adding up to logit(image) - logit(nothing), as a share of it (B,).

    Of a difference under one logit, it is a share of one.
    """
    both = torch.cat([question.images, torch.zeros_like(question.images)])
    with torch.no_grad():
        logits = question.forward(both).gather(1, question.targets.repeat(2)[:, None])[:, 0]
    image, nothing = logits.chunk(2)
    return (attribution.sum((1, 2)) - (image - nothing)).abs() / (image - nothing).abs().clamp_min(1)


def occlusion(question: Question) -> Tensor:
    """Per pixel, the mean loss of the logit over the windows that hide it."""
    channels, *sides = question.images.shape[1:]
    window = [max(1, round(side / WINDOWS)) for side in sides]
    at_once = max(1, rows_at_once(question.images.shape) // len(question.images))
    with torch.no_grad():
        found = Occlusion(question.forward).attribute(
            question.images,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *(max(1, side // 2) for side in window)),
            baselines=0.0,
            target=question.targets,
            perturbations_per_eval=at_once,
        )
    return found.float().mean(1)  # type: ignore[no-any-return]


METHODS: dict[str, Method] = {
    "grad-cam": grad_cam,
    "integrated-gradients": integrated_gradients,
    "occlusion": occlusion,
}
DEFAULT = "integrated-gradients"
"""The most faithful of them on digits and on photographs: benchmarks/results/explanations.md."""


def rows_at_once(size: Sequence[int]) -> int:
    """How many images of (..., H, W) go through a network at once."""
    return min(MOST_ROWS, max(1, MOST_PIXELS // (size[-2] * size[-1])))


def ready(bundle: Bundle, image: npt.NDArray[np.uint8]) -> Tensor:
    """A decoded image (C, H, W) of any size -> the network's input (1, C, h, w), on the network's device."""
    return bundle.preprocess.tensor(torch.tensor(bundle.preprocess.image(image))[None].to(device_of(bundle)))


def device_of(bundle: Bundle) -> torch.device:
    """Where a bundle's network is."""
    return next(bundle.model.parameters()).device


def attribute(
    bundle: Bundle,
    images: Tensor,
    targets: Tensor,
    method: str = DEFAULT,
    stage: int | None = None,
    *,
    place: int | None = None,
) -> Tensor:
    """A method's attribution (B, h, w) for normalised images (B, C, H, W) and a class of each (B,).

    `stage` is Grad-CAM's; `place` is where a detector says what is to be explained, None for all of the image.

    Raises UsageError for a method or a stage that does not exist, ModelError for one that is not finite.
    """
    function, layer = METHODS[check_method(method)], layer_of(bundle.model, stage)
    found = function(
        Question(logits_of(bundle, place), images, targets, bundle.model.get_submodule(layer), place is not None)
    )
    if not bool(found.isfinite().all()):
        why = "an output or a gradient of the network is infinite or no number"
        raise ModelError(f"{method} gives no finite explanation", why=why, hint="train again, at a lower --lr")
    return found


def logits_of(bundle: Bundle, place: int | None = None) -> Callable[[Tensor], Tensor]:
    """From normalised images (B, C, H, W) to how much is said for each class (B, K), by the last exit."""
    return lambda images: bundle.task.per_class(bundle.model(images), place)


def heat_maps(attribution: Tensor, size: tuple[int, int]) -> Tensor:
    """What speaks for the class, for the eye: enlarged to (B, H, W), or smoothed where it has a value for each pixel.

    Each map goes from 0 to 1.
    """
    heat = full_size(attribution.relu(), size)
    if attribution.shape[1:] == size:
        heat = blurred(heat[:, None], SMOOTH)[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)


def blurred(images: Tensor, share: float) -> Tensor:
    """(B, C, H, W) through a Gaussian whose deviation is a share of the longer side; borders are repeated."""
    deviation = share * max(images.shape[-2:])
    reach = math.ceil(3 * deviation)
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(places**2) / (2 * deviation**2))
    channels = images.shape[1]
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    wide = F.conv2d(F.pad(images, (reach, reach, 0, 0), mode="replicate"), kernel, groups=channels)
    return F.conv2d(F.pad(wide, (0, 0, reach, reach), mode="replicate"), kernel.mT, groups=channels)


def full_size(attribution: Tensor, size: tuple[int, int]) -> Tensor:
    """An attribution (B, h, w) at the resolution of the input (B, H, W)."""
    return F.interpolate(attribution[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def check_method(method: str) -> str:
    """The name of a method. Raises UsageError, with the nearest, for one that does not exist."""
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}", hint=nearest(method, METHODS) or ", ".join(METHODS))
    return method


def layer_of(model: ImageModel, stage: int | None) -> str:
    """Path of the module whose maps Grad-CAM weighs. Raises UsageError for a stage that does not exist."""
    if stage is None:
        return model.attribution_layer
    last = model.used_stages - 1
    if not 0 <= stage <= last:
        why = f"the network has stages 0 (fine) to {last} (coarse)"
        raise UsageError(f"there is no stage {stage}", why=why, hint=f"--stage {min(max(stage, 0), last)}")
    return model.stage_module(stage)
