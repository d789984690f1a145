"""Boxes around objects and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from msresnet.box_tensors import scale
from msresnet.boxes import Boxes
from msresnet.data.augment import Augment
from msresnet.data.augment_boxes import augment_boxes
from msresnet.data.decode import printable
from msresnet.data.draws import Draws
from msresnet.data.names import spread
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import Frame
from msresnet.data.sample import Image, Source
from msresnet.data.sets import Samples
from msresnet.data.targets import NOTHING, framed
from msresnet.errors import DataError, UsageError
from msresnet.metrics.detection import AREAS, THRESHOLDS, figures
from msresnet.metrics.detection_errors import RIGHT, errors, judged
from msresnet.metrics.matching import average_precision, best_score, matched
from msresnet.results import Detections, Evaluation, Results
from msresnet.tasks.appearance_loss import WEIGHT, appearance_loss
from msresnet.tasks.assignment import assigned
from msresnet.tasks.base import Better, Learning, Picture, Subject, Table, Task
from msresnet.tasks.detection_loss import detection_loss
from msresnet.tasks.palette import outlined
from msresnet.tasks.postprocess.detection import DetectionPostprocess, in_image
from msresnet.tasks.postprocess.rules import Rules
from msresnet.tasks.words import percent, title

NEAR, ROUNDED = 0.01, 0.5
"""Pixels within which two places say the same box, and more of them where answers are whole pixels."""
LOUDEST = 80.0
"""A logit beyond which a score is 0 or 1."""
WHOLE, ASKED = 0.01, 1000
"""Pixels from a whole one that are laid to rounding, and how many images of a set are asked, all over it."""
LOOKED_AT = 300
"""Boxes of an image that a validation during training looks at: a new network answers everywhere."""
MOST_WORST = 10
EMBEDDING = 128
"""Numbers of a vector that tells objects apart: FairMOT's (arXiv 2004.01888)."""
COUNTED = ("objects", "found", "missed", "wrong")
Truths = Sequence[Boxes]
PER_BOX = 3
"""Numbers that a validation keeps of a box: score, class, and which thresholds it passes."""


class DetectionTask(Task):
    """Boxes by ATSS and GIoU, scores by quality focal loss.

    Args:
        class_names: in the order of the class indices.
        rules: which boxes are answers.
        size: (H, W) in pixels of the images that are learnt from.
        strides: of the network's maps; empty where nothing is to be learnt.
    """

    name: ClassVar[str] = "detection"
    head: ClassVar[str] = "detector"
    metric: ClassVar[str] = "ap"
    kept: ClassVar[tuple[str, ...]] = ("n", "objects", "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    gates: ClassVar[dict[str, Better]] = {"ap": "higher", "ap50": "higher", "ap75": "higher"}
    imitates: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    explained: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True
    located: ClassVar[bool] = True

    def __init__(
        self,
        class_names: Sequence[str],
        rules: Rules | None = None,
        *,
        size: tuple[int, int] = (1, 1),
        strides: Sequence[int] = (),
    ) -> None:
        super().__init__(class_names)
        self.rules, self.size, self.strides = rules or Rules(), size, tuple(strides)

    @classmethod
    def learning(cls, class_names: Sequence[str], data: Samples, how: Learning) -> Self:
        """The task for training on a set; its answers are whole pixels where the set's boxes are."""
        image, rules = data.image(0), Rules(pixels=whole_pixels(data))
        return cls(class_names, rules, size=(image.shape[1], image.shape[2]), strides=how.strides)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The task that `to_dict` wrote."""
        known = DetectionPostprocess.from_dict(values)
        return cls(known.class_names, known.rules)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return super().to_dict() | asdict(self.rules)

    @classmethod
    def check(cls, preprocess: Preprocess, augment: Augment, how: Learning) -> None:
        """Raise UsageError for images that are cropped, blended or blanked, and for what is said of classes."""
        if preprocess.resize == "crop":
            raise UsageError(
                "--resize crop, but objects are to be found in the whole image", hint="--resize pad or squash"
            )
        for name in ("elastic", "mixup", "cutmix", "erase"):
            if value := getattr(augment, name):
                why = "what bends, covers or blends objects leaves their boxes where they are"
                raise UsageError(f"--{name} {value:g}, but images have boxes", why=why, hint="--mosaic 1")
        if how.draw or how.weigh:
            why = "an image shows objects of several classes"
            raise UsageError("--balance, but images have boxes", why=why, hint="leave it out")
        if how.dice or how.label_smoothing:
            name = "dice" if how.dice else "label-smoothing"
            why = "a score is learnt as how well its box fits"
            raise UsageError(f"--{name}, but images have boxes", why=why, hint="leave it out")

    @classmethod
    def changes(cls, preprocess: Preprocess) -> tuple[Augment, str]:
        """Objects of other sizes at other places and in other company; of colour images, mirrored too."""
        chosen = Augment(mosaic=0.5, shift=0.1, scale=0.5)
        if preprocess.channels == 1:
            return chosen, "for grey images with boxes: mosaic, shift, scale, no mirror"
        return replace(chosen, flip=0.5), "for colour images with boxes: mosaic, mirror, shift, scale"

    @classmethod
    def suggested(cls, source: Source) -> dict[str, Any]:
        """Vectors that tell objects apart, where the data says who is who."""
        return {} if not len(source) or source.identities(0) is None else {"embedding": EMBEDDING}

    @property
    def postprocess(self) -> DetectionPostprocess:
        """Non-maximum suppression of the boxes with a score."""
        return DetectionPostprocess(self.class_names, self.rules)

    def encode(self, targets: Tensor) -> Tensor:
        """Boxes (B, M, 6 or 7) in images of the task's size -> what each place learns (B, P, 5 or 6)."""
        return assigned(targets, self.size, self.strides)

    def resized(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (B, M, 6) of images that were brought from the task's size to (H, W) pixels."""
        if size == self.size:
            return targets
        moved = scale(targets[..., 1:5], (size[0] / self.size[0], size[1] / self.size[1]))
        return torch.cat([targets[..., :1], moved, targets[..., 5:]], -1)

    def vary(self, images: Tensor, targets: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
        """Random changes: pixels (B, C, H, W) in 0 to 1 and boxes (B, M, 6), which move together."""
        images, boxes = augment_boxes(images, targets, settings, draws)
        return images, assigned(boxes, (images.shape[-2], images.shape[-1]), self.strides)

    def loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Boxes, logits and perhaps vectors (B, P, 4 + K + E) and what places learn (B, P, 5 or 6) -> a scalar.

        The mean over what learns an object; where who is who is known, vectors learn that too.
        """
        known = 4 + self.num_outputs
        loss = detection_loss(outputs[..., :known], encoded[..., :5])
        if outputs.shape[-1] == known or encoded.shape[-1] == 5:
            return loss
        return loss + WEIGHT * appearance_loss(outputs[..., known:], encoded[..., 5])

    def imitate(self, outputs: Tensor, truth: Tensor, temperature: float) -> Tensor:
        """Raise UsageError: boxes are learnt from data alone."""
        why = "a detector learns from boxes alone"
        raise UsageError("--teacher, but images have boxes", why=why, hint="leave it out")

    @property
    def row_width(self) -> int:
        """Score, class and thresholds of each box, objects of each class, the loss."""
        return PER_BOX * self.rules.most + self.num_outputs + 1

    def validation_rows(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Outputs (B, P, 4 + K + E) and boxes (B, M, 6 or 7) -> what was found and missed of each image (B, F)."""
        post = DetectionPostprocess(self.class_names, self.rules, LOOKED_AT).unrounded()
        whole = Frame(self.size, 0, 0, self.size)
        found = post(outputs.float().cpu().numpy(), [""] * len(outputs), [whole] * len(outputs))
        losses = self.loss_of_each(outputs, self.encode(targets)).cpu()
        rows = torch.zeros(len(outputs), self.row_width)
        for index, (row, truth) in enumerate(zip(rows, targets.cpu(), strict=True)):
            _condense(row, found[index], _boxes(truth))
        rows[:, -1] = losses
        return rows.to(outputs.device)

    def validation_figures(self, rows: Tensor, targets: Tensor) -> dict[str, float]:
        """AP over classes and thresholds, and mean loss of an image, from what was kept of each image (N, F)."""
        kept = rows.cpu().numpy()
        boxes = kept[:, : PER_BOX * self.rules.most].reshape(-1, PER_BOX)
        boxes = boxes[boxes[:, 0] > 0]
        bits = boxes[:, 2].astype(np.int64)[:, None] >> np.arange(2 * len(THRESHOLDS)) & 1
        hits, ignored = np.split(bits.astype(np.bool_), 2, 1)
        objects = kept[:, PER_BOX * self.rules.most : -1].sum(0).astype(np.int64)
        each = average_precision(boxes[:, 0], boxes[:, 1].astype(np.int64), hits, ignored, objects)
        score = float(np.nanmean(each)) if objects.any() else 0.0
        return {self.metric: score, "loss": float(kept[:, -1].mean())}

    def truths(self, data: Samples, indices: Tensor) -> list[Boxes]:
        """The boxes of some samples in their images' own pixels."""
        return [data.truth(index) for index in indices.tolist()]

    def evaluate(self, results: Detections, targets: Truths) -> Evaluation:
        """Average precision over classes and thresholds, by size, and of each class."""
        found = figures(results, targets)
        metrics = {
            "task": self.name,
            "n": len(results),
            "objects": sum(int((~truth.crowd).sum()) for truth in targets),
            **found.summary(),
            "score": self.rules.sure,
            "best_score": best_score(results, targets),
            "per_class": found.rows(self.class_names),
        }
        return Evaluation(results, targets, metrics, self.headline(metrics))

    def details(self, evaluation: Evaluation) -> dict[str, Any]:
        """What kinds of mistakes there are and what each costs, and the worst images."""
        found = errors(self._sure(evaluation), evaluation.targets)
        gains = {kind: None if np.isnan(gain) else float(gain) for kind, gain in found.gains.items()}
        rows = self.rows(evaluation)
        worst = [rows[i] for i in self.examples(evaluation, MOST_WORST)]
        return {"mistakes": found.counts, "mistakes_cost": gains, "worst": worst}

    def calibrated(self, evaluation: Evaluation) -> tuple[Self, dict[str, Any]]:
        """The same task, showing boxes from the score at which precision and recall are best together (F1).

        Raises DataError where no box is right.
        """
        if not evaluation.metrics["ap50"]:
            raise DataError(
                "no score fits these answers", why=f"no box is right, of {len(evaluation.targets):,} images"
            )
        sure = float(evaluation.metrics["best_score"])
        fitted = type(self)(self.class_names, replace(self.rules, sure=sure), size=self.size, strides=self.strides)
        return fitted, {"n": len(evaluation.targets), "score": [self.rules.sure, sure]}

    def headline(self, metrics: dict[str, Any]) -> str:
        """AP, and AP at an overlap of a half."""
        return f"AP {percent(metrics['ap'])}, AP50 {percent(metrics['ap50'])} on {metrics['n']:,} images"

    def summary(self, figures: dict[str, Any]) -> dict[str, str]:
        """Images, objects, AP, AP50 and AP by size."""
        counts = {"images": f"{figures['n']:,}", "objects": f"{figures['objects']:,}"}
        whole = {title(name): percent(figures[name]) for name in ("ap", "ap50")}
        return counts | whole | {size: percent(figures[f"ap_{size}"]) for size in AREAS[1:]}

    def _sure(self, evaluation: Evaluation) -> Detections:
        """The answers that people are shown: not those from the score that would suit the measured set best."""
        results: Results = evaluation.predictions
        assert isinstance(results, Detections)
        return results.above(self.rules.sure)

    def tables(self, metrics: dict[str, Any]) -> list[Table]:
        """Figures of all classes, of each, and the worst images."""
        names = ("ap", "ap50", "ap75", *(f"ap_{size}" for size in AREAS[1:]), "ar")
        lines = [(title(name), percent(metrics[name])) for name in names]
        columns = ("ap", "ap50", "ap75", "recall")
        classes = [
            (row["class"], *(percent(row[key]) for key in columns), f"{row['boxes']:,}", f"{row['n']:,}")
            for row in metrics["per_class"]
        ]
        wrong = [
            (kind, f"{metrics['mistakes'][kind]:,}", percent(metrics["mistakes_cost"][kind]))
            for kind in metrics["mistakes"]
        ]
        worst = [(row["id"], *(f"{row[key]:,}" for key in COUNTED)) for row in metrics["worst"]]
        heading = f"{metrics['split']} set, {metrics['n']:,} images, {metrics['objects']:,} objects"
        return [
            Table(heading, ("figure", "value"), lines),
            Table("", ("class", *map(title, columns), "objects", "images"), classes),
            Table(f"at scores from {metrics['score']:.2f}", ("mistake", "boxes", "AP50 without it, more"), wrong),
            Table("worst images", ("image", *COUNTED), worst),
        ]

    def rows(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """Id of each image, its objects, and how many are found, missed and made up at the score for people."""
        sure, rows = self._sure(evaluation), []
        for index, (name, truth) in enumerate(zip(sure.ids, evaluation.targets, strict=True)):
            kinds, _ = judged(sure.boxes[index], sure.scores[index], sure.classes[index], truth)
            objects, right = int((~truth.crowd).sum()), int((kinds == RIGHT).sum())
            counts = (objects, right, objects - right, int((kinds >= 0).sum()))
            rows.append({"id": printable(name), **dict(zip(COUNTED, counts, strict=True))})
        return rows

    def examples(self, evaluation: Evaluation, most: int) -> list[int]:
        """The images with most objects missed and made up first."""
        wrong = [-row["missed"] - row["wrong"] for row in self.rows(evaluation)]
        return [int(index) for index in np.argsort(wrong, kind="stable")[:most]]

    def pictures(self, image: Image, evaluation: Evaluation, index: int, frame: Frame | None = None) -> list[Picture]:
        """The image with the boxes of the truth, and with those of the answer that are sure enough."""
        sure, truth = self._sure(evaluation), evaluation.targets[index]
        pairs = [("truth", truth.xyxy, truth.classes), ("answer", sure.boxes[index], sure.classes[index])]
        return [(name, outlined(image, framed(boxes, frame), classes)) for name, boxes, classes in pairs]

    def per_class(self, outputs: Tensor, place: int | None = None) -> Tensor:
        """The logit of the surest box of each class, or of the box at one place (B, K)."""
        logits = outputs[..., 4 : 4 + self.num_outputs]
        return logits.amax(1) if place is None else logits[:, place]

    def subjects(self, outputs: Tensor, results: Results, frame: Frame | None) -> list[Subject]:
        """The boxes, each with the place that it came from: of those with its corners the one with its score."""
        assert isinstance(results, Detections)
        rows = outputs[0].detach().float().cpu().numpy()
        boxes, logits = in_image(rows[:, :4], frame), rows[:, 4 : 4 + self.num_outputs]
        found = []
        for box, score, index in zip(results.boxes[0], results.scores[0], results.classes[0], strict=True):
            far = np.abs(boxes - box).max(1)
            near = np.flatnonzero(far <= max(float(far.min()), ROUNDED * self.rules.pixels) + NEAR)
            scores = 1 / (1 + np.exp(-np.clip(logits[near, index], -LOUDEST, LOUDEST)))
            place = int(near[np.argmin(np.abs(scores - score))])
            found.append(Subject(int(index), float(score), place, box))
        return sorted(found, key=lambda subject: -subject.score)


def whole_pixels(data: Samples) -> bool:
    """Whether all boxes, of which there are some, of up to ASKED images end at whole pixels of their images."""
    count = 0
    for index in spread(len(data), ASKED):
        try:
            corners = data.truth(index).xyxy
        except DataError:  # its size is unknown: told where it is decoded
            continue
        if np.abs(corners - np.rint(corners)).max(initial=0) > WHOLE:
            return False
        count += len(corners)
    return count > 0


def _boxes(rows: Tensor) -> Boxes:
    """The rows of one image (M, 6) that are boxes."""
    there = rows[rows[:, 0] != NOTHING].numpy()
    return Boxes.of(there[:, 1:5], there[:, 0].astype(np.int64), there[:, 5] > 0)


def _condense(row: Tensor, found: Detections, truth: Boxes) -> None:
    """Write what was found in one image (the only one of `found`) into a row (F,)."""
    boxes, scores, classes = found.boxes[0], found.scores[0], found.classes[0]
    flags = np.concatenate(matched(boxes, classes, truth), 1)
    codes = flags @ (1 << np.arange(flags.shape[1]))
    numbers = np.stack([scores, classes, codes], 1, dtype=np.float32).ravel()
    row[: len(numbers)] = torch.from_numpy(numbers)
    counts = np.bincount(truth.classes[~truth.crowd], minlength=len(found.class_names))
    row[-1 - len(counts) : -1] = torch.from_numpy(counts)
