"""The Task seam. Training, inference, export and reports know what a network is for only through this.

A target is whatever belongs to an image: the index of its class, the class of each of its pixels. B batch, K classes,
N images, C channels, H and W pixels of the network's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msresnet.data.augment import Augment, augment, mix
from msresnet.data.draws import Draws
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import Frame
from msresnet.data.sample import Image, Source
from msresnet.data.sets import Samples
from msresnet.errors import UsageError
from msresnet.results import Evaluation, Results
from msresnet.tasks.postprocess.base import Postprocess

Better = Literal["higher", "lower"]
Picture = tuple[str, Image]
"""A caption, and an image (C, H, W) uint8."""


class Table(NamedTuple):
    """Figures as texts, for a screen or a page: numbers stand right, the first column left."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


class Subject(NamedTuple):
    """What of an answer can be explained: a class, of the image as a whole or of an object in it.

    Args:
        target: index of the class.
        score: how sure the answer is of it, 0 to 1.
        place: at which of the network's places it is said; None: of the whole image.
        box: (4,) xyxy in the image's own pixels, of an object.
    """

    target: int
    score: float
    place: int | None = None
    box: npt.NDArray[np.float32] | None = None


class Learning(NamedTuple):
    """What a user can say about how a task learns.

    Args:
        label_smoothing: probability spread over all classes; None is what suits the task.
        weigh: whether rare classes count more in the loss.
        draw: whether all classes are drawn equally often.
        dice: share of the Dice loss, of masks.
        strides: of the network's maps where it answers at their places, as `ImageModel.strides` has them.
    """

    label_smoothing: float | None = None
    weigh: bool = False
    draw: bool = False
    dice: float = 0.0
    strides: tuple[int, ...] = ()


class Task(ABC):
    """Encode targets, compute the loss, decode outputs, measure, and say it in words."""

    name: ClassVar[str]
    head: ClassVar[str]
    """Which head the network has, as `create_network` knows it."""
    metric: ClassVar[str]
    """The figure that models are known by; larger is better."""
    kept: ClassVar[tuple[str, ...]]
    """Figures that a bundle keeps."""
    gates: ClassVar[dict[str, Better]]
    """Figures that --fail-under may name, and which side of a bound is good."""
    right_or_wrong: ClassVar[bool] = False
    """Whether an answer is simply right or wrong, and sure to some degree: `right`, `abstaining`."""
    imitates: ClassVar[bool] = True
    """Whether a network can learn from another's answers."""
    explained: ClassVar[bool] = False
    """Whether single answers can be explained: `subjects`."""
    calibrates: ClassVar[bool] = False
    """Whether there is something to fit to labelled answers afterwards: `calibrated`."""
    calibrated_figures: ClassVar[frozenset[str]] = frozenset()
    """Figures that change with what is fitted then."""
    needs_calibration: ClassVar[bool] = False
    """Whether a model is not ready for use before that, so that a training does it by itself."""
    located: ClassVar[bool] = False
    """Whether an image has any number of answers, each with a place."""
    averages: ClassVar[bool] = True
    """Whether the outputs for moved and mirrored views of an image may be averaged as they are."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)

    @classmethod
    @abstractmethod
    def learning(cls, class_names: Sequence[str], data: Samples, how: Learning) -> Self:
        """The task for training on a set, with settings that `check` lets pass."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The task that `to_dict` wrote. Raises KeyError, TypeError or ValueError for what it did not write."""
        return cls(values["class_names"])

    @classmethod
    def changes(cls, preprocess: Preprocess) -> tuple[Augment, str]:
        """Random changes that suit images of a kind, unless the user says otherwise, and what they are for."""
        if preprocess.channels == 1:
            return Augment(shift=0.08, rotate=12, scale=0.12), "for grey images: shift, rotate, scale, no mirror"
        return Augment(flip=0.5, shift=0.1, scale=0.15), "for colour images: mirror, shift, scale"

    @classmethod
    def suggested(cls, source: Source) -> dict[str, Any]:
        """Arguments of the network that a training set suggests, unless the user says otherwise."""
        return {}

    @property
    def num_outputs(self) -> int:
        """Outputs that the network needs."""
        return len(self.class_names)

    @classmethod
    @abstractmethod
    def check(cls, preprocess: Preprocess, augment: Augment, how: Learning) -> None:
        """Raise UsageError for settings that this task cannot be learnt with."""

    @classmethod
    def chosen_by(cls, how: Learning) -> str:
        """The figure that chooses the epoch, and between settings; larger is better."""
        return cls.metric

    @abstractmethod
    def encode(self, targets: Tensor) -> Tensor:
        """Targets as the data holds them -> as the loss takes them."""

    def resized(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Targets of images that were brought to (H, W) pixels."""
        return targets

    def vary(self, images: Tensor, targets: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
        """Random changes for training: pixels (B, C, H, W) in 0 to 1 and targets -> the same, targets encoded."""
        return mix(augment(images, settings, draws), self.encode(targets), settings, draws)

    @abstractmethod
    def loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """A scalar to minimise, the mean over the batch."""

    def loss_of_each(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """The loss of each image on its own (B,)."""
        pairs = zip(outputs.split(1), encoded.split(1), strict=True)
        return torch.stack([self.loss(one, target) for one, target in pairs])

    def loss_of_exits(self, answers: Sequence[Tensor], encoded: Tensor) -> Tensor:
        """The mean loss over a network's exits (arXiv 1703.09844, section 4)."""
        return torch.stack([self.loss(outputs, encoded) for outputs in answers]).mean()

    @abstractmethod
    def imitate(self, outputs: Tensor, truth: Tensor, temperature: float) -> Tensor:
        """How far outputs are from a teacher's: a scalar to minimise, the mean over the batch."""

    @property
    @abstractmethod
    def row_width(self) -> int:
        """F, the numbers that `validation_rows` leaves of an image."""

    @abstractmethod
    def validation_rows(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What a validation keeps of a batch: a row of F numbers for each image (B, F), which processes can share."""

    @abstractmethod
    def validation_figures(self, rows: Tensor, targets: Tensor) -> dict[str, float]:
        """The loss, and all figures that can choose, from the rows of a whole set (N, F) and its class indices (N,)."""

    @property
    @abstractmethod
    def postprocess(self) -> Postprocess:
        """What turns outputs into answers, and is kept with every model."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What `Results.to_dict` says of an image beside its id that fits into a table."""
        return self.postprocess.columns

    @property
    def whole(self) -> bool:
        """Whether answers are given at the size of the image, so that it is decoded whole."""
        return self.postprocess.whole

    def decode(self, outputs: Tensor, ids: Sequence[str], frames: Sequence[Frame] | None = None) -> Results:
        """Outputs of a network -> results for people; the arguments are those of `Postprocess`."""
        return self.postprocess(outputs.detach().cpu().numpy(), ids, frames)

    def truths(self, data: Samples, indices: Tensor) -> Any:
        """What results about some samples of a set are compared with."""
        return data.targets[indices].numpy()

    @abstractmethod
    def evaluate(self, results: Any, targets: Any) -> Evaluation:
        """Results and truths -> figures that are cheap enough for every epoch."""

    def details(self, evaluation: Evaluation) -> dict[str, Any]:
        """Figures that cost more or are long, asked for once: plain values for metrics.json."""
        return {}

    def right(self, evaluation: Evaluation) -> npt.NDArray[np.bool_]:
        """Which answers are right (N,). Raises UsageError where an answer is not simply right or wrong."""
        what = "this is for answers that are right or wrong"
        raise UsageError(what, why=f"the model's task is {self.name}", hint="a classifier")

    def confidences(self, outputs: Tensor) -> npt.NDArray[np.float64]:
        """How sure each answer is, 0 to 1 (N,), of outputs (N, ...) that networks with several exits give."""
        raise NotImplementedError(self.name)

    def calibrated(self, evaluation: Evaluation) -> tuple[Self, dict[str, Any]]:
        """The same task, with what labelled answers say of its scores, and figures before and after.

        Raises UsageError where there is nothing to fit, DataError for answers that cannot be fitted.
        """
        why = f"the model's task is {self.name}"
        raise UsageError("--calibrate has nothing to fit", why=why, hint="leave it out")

    def abstaining(self, evaluation: Evaluation, below: float) -> dict[str, Any]:
        """What is left when answers less sure than `below` are withheld. Raises UsageError where none can be."""
        why = f"the model's task is {self.name}"
        raise UsageError("--abstain-below is for classification", why=why, hint="leave it out")

    @abstractmethod
    def headline(self, metrics: dict[str, Any]) -> str:
        """The figures that matter most, in one line."""

    @abstractmethod
    def summary(self, figures: dict[str, Any]) -> dict[str, str]:
        """The figures that a bundle keeps, in words, by column of the card's table."""

    @abstractmethod
    def tables(self, metrics: dict[str, Any]) -> list[Table]:
        """The figures of an evaluation for the screen."""

    @abstractmethod
    def rows(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """A row of plain values for each image, with its id: the file of predictions."""

    @abstractmethod
    def examples(self, evaluation: Evaluation, most: int) -> list[int]:
        """The images worth showing, the worst answers first."""

    def pictures(self, image: Image, evaluation: Evaluation, index: int, frame: Frame | None = None) -> list[Picture]:
        """An image (C, H, W) of a set and what was answered about it, to look at.

        `frame` says where the image lies in what is given of it; None: it is the image itself.
        """
        return [("image", image)]

    def per_class(self, outputs: Tensor, place: int | None = None) -> Tensor:
        """How much outputs speak for each class, over whole images or at a place: (B, K). What is explained."""
        return outputs

    def subjects(self, outputs: Tensor, results: Results, frame: Frame | None) -> list[Subject]:
        """What can be explained of the answer about one image, the surest first.

        Args:
            outputs: of the network for it (1, ...), where answers are `located`.
            results: what people are shown of it.
            frame: where it lies in the network's input.

        Raises UsageError where nothing can be.
        """
        why = f"the model's task is {self.name}"
        raise UsageError("single answers cannot be explained", why=why, hint="msresnet predict shows them")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return {"name": self.name, "class_names": list(self.class_names)}


def refuse_mosaic(augment: Augment) -> None:
    """Raise UsageError for images that are put together where nobody could say what they show."""
    if augment.mosaic:
        raise UsageError(f"--mosaic {augment.mosaic:g}, but images have no boxes", hint="--cutmix 1")


def class_weights(counts: Sequence[int]) -> list[float]:
    """A factor of the loss for each class, by its rarity in counts (K,); the mean over all that was counted is one."""
    present = np.maximum(1, np.asarray(counts))
    return [round(float(sum(counts) / (len(counts) * n)), 6) for n in present]
