"""What a detector minimises: quality focal loss for classes (arXiv 2006.04388) and GIoU for boxes (arXiv 1902.09630).

B batch, P places, K classes, M places that learn an object.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.box_tensors import giou, iou
from msresnet.tasks.assignment import IGNORED

BOX_WEIGHT = 2.0
"""Of the boxes' loss beside the classes': generalised focal loss's."""


def detection_loss(outputs: Tensor, encoded: Tensor) -> Tensor:
    """Boxes and logits (B, P, 4 + K) and what places learn (B, P, 5) -> the loss, the mean over what learns an object.

    A class's score is to be how well the box of its place fits, 0 where there is no object. Where the network is surer,
    the box counts more.
    """
    outputs = outputs.float()
    learns = encoded[..., 0] >= 0
    logits, truth = outputs[..., 4:], encoded[learns]
    boxes, classes = outputs[learns][:, :4], truth[:, 0].long()
    wanted = torch.zeros_like(logits)
    here = learns.nonzero(as_tuple=True)
    wanted[(*here, classes)] = iou(boxes.detach(), truth[:, 1:])
    known = (encoded[..., 0] != IGNORED)[..., None]
    of_classes = (quality_focal_loss(logits, wanted) * known).sum() / max(1, len(truth))
    sure = logits.detach()[learns].sigmoid().amax(1)
    of_boxes = ((1 - giou(boxes, truth[:, 1:])) * sure).sum() / sure.sum().clamp_min(1e-6)
    return of_classes + BOX_WEIGHT * of_boxes


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """|q - p|^2 times the cross-entropy of p to q, p being the logit's probability (section 3.1), of each (...)."""
    away = (quality - logits.sigmoid()).square()
    return away * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
