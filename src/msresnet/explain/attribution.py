"""Where on an image a model finds its answer: Grad-CAM (arXiv 1610.02391), by captum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor

from msresnet.bundle import Bundle


def ready(bundle: Bundle, image: npt.NDArray[np.uint8]) -> Tensor:
    """A decoded image (C, H, W) of any size -> the network's input (1, C, h, w)."""
    return bundle.preprocess.tensor(torch.tensor(bundle.preprocess.image(image))[None])


def grad_cam(bundle: Bundle, image: npt.NDArray[np.uint8], target: int) -> npt.NDArray[np.float32]:
    """How much each place speaks for a class: (h, w) of the network's input, from 0 to 1.

    Args:
        image: decoded, uint8 (C, H, W), any size.
        target: index of the class.
    """
    x = ready(bundle, image)
    layer = bundle.model.get_submodule(bundle.model.attribution_layer)
    heat = LayerGradCam(bundle.model, layer).attribute(x, target=target, relu_attributions=True)
    assert isinstance(heat, Tensor)
    heat = F.interpolate(heat.detach(), x.shape[-2:], mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max().clamp_min(1e-12)).numpy()
