"""What turns outputs into answers, by the task's name."""

from __future__ import annotations

from typing import Any

from msresnet.tasks.postprocess.base import Postprocess
from msresnet.tasks.postprocess.classification import ClassificationPostprocess
from msresnet.tasks.postprocess.detection import DetectionPostprocess
from msresnet.tasks.postprocess.segmentation import SegmentationPostprocess

POSTPROCESSES: dict[str, type[Postprocess]] = {
    each.task: each for each in (ClassificationPostprocess, SegmentationPostprocess, DetectionPostprocess)
}


def read_postprocess(values: dict[str, Any]) -> Postprocess:
    """From what `Task.to_dict` wrote. Raises KeyError, TypeError or ValueError for what it did not write."""
    return POSTPROCESSES[values["name"]].from_dict(values)
