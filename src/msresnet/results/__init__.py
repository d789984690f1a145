"""What comes out, the same object whichever door or backend made it."""

from __future__ import annotations

from msresnet.results.base import DIGITS, SHOWN, Results
from msresnet.results.classification import Classification, classified
from msresnet.results.detections import Detections
from msresnet.results.evaluation import Evaluation
from msresnet.results.segmentation import Segmentation
from msresnet.results.tracks import Tracks

__all__ = [
    "DIGITS",
    "SHOWN",
    "Classification",
    "Detections",
    "Evaluation",
    "Results",
    "Segmentation",
    "Tracks",
    "classified",
]
