"""The tasks by name: what a bundle says of its network, and what data is for."""

from __future__ import annotations

from msresnet.tasks.base import Task
from msresnet.tasks.classification import ClassificationTask
from msresnet.tasks.detection import DetectionTask
from msresnet.tasks.segmentation import SegmentationTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (ClassificationTask, SegmentationTask, DetectionTask)}
USUAL: type[Task] = ClassificationTask
"""What a network is for of which nothing is known but its name."""
