"""A class for each pixel: learned binarisation with two classes, semantic segmentation with more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.data.augment import Augment
from msresnet.data.augment_masks import augment_masks
from msresnet.data.decode import printable
from msresnet.data.draws import Draws
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import Frame
from msresnet.data.sample import IGNORED, Image
from msresnet.data.sets import Samples
from msresnet.errors import UsageError
from msresnet.metrics import segmentation as figures
from msresnet.metrics.classification import Counts
from msresnet.results import DIGITS, Evaluation, Results, Segmentation
from msresnet.tasks.base import Better, Learning, Picture, Table, Task, class_weights, refuse_mosaic
from msresnet.tasks.palette import coloured, mistakes
from msresnet.tasks.postprocess.segmentation import SegmentationPostprocess
from msresnet.tasks.words import interval, percent, title

MOST_CLASSES, MOST_WORST = 100, 10
SMOOTH = 1.0
"""Pixels added above and below in Dice, so that a class of few pixels does not make it jump."""
Masks = Sequence[Image]


class SegmentationTask(Task):
    """Softmax over K classes at each pixel; cross-entropy, and perhaps Dice, over the pixels whose class is known.

    Args:
        class_names: in the order of the class indices.
        label_smoothing: probability spread over all classes.
        class_weights: a factor of a pixel's loss by its class; None is one for all.
        dice: share of the Dice loss (V-Net, arXiv 1606.04797) in the whole; the rest is cross-entropy.
    """

    name: ClassVar[str] = "segmentation"
    head: ClassVar[str] = "pyramid"
    metric: ClassVar[str] = "miou"
    kept: ClassVar[tuple[str, ...]] = ("n", "miou", "miou_ci95", "pixel_accuracy", "pixel_accuracy_ci95", "boundary_f")
    gates: ClassVar[dict[str, Better]] = {"miou": "higher", "pixel_accuracy": "higher", "boundary_f": "higher"}
    averages: ClassVar[bool] = False

    def __init__(
        self,
        class_names: Sequence[str],
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        dice: float = 0.0,
    ) -> None:
        super().__init__(class_names)
        self.label_smoothing, self.dice = label_smoothing, dice
        self.class_weights = torch.ones(len(self.class_names)) if class_weights is None else torch.tensor(class_weights)

    @classmethod
    def learning(cls, class_names: Sequence[str], data: Samples, how: Learning) -> Self:
        """The task for training on a set; weights go by pixels."""
        weights = class_weights(_pixels(data, len(class_names))) if how.weigh else None
        return cls(class_names, how.label_smoothing or 0.0, weights, how.dice)

    @classmethod
    def check(cls, preprocess: Preprocess, augment: Augment, how: Learning) -> None:
        """Raise UsageError for blended images, cropped ones, and classes that are to be drawn equally often."""
        refuse_mosaic(augment)
        if preprocess.resize == "crop":
            why = "what is cut off would get no class"
            raise UsageError("--resize crop, but every pixel is to get a class", why=why, hint="--resize pad or squash")
        if augment.mixup:
            why = "a pixel of a blended image has two classes"
            raise UsageError(f"--mixup {augment.mixup:g}, but every pixel has a class", why=why, hint="--cutmix 1")
        if how.draw:
            why = "an image shows several classes, so images cannot be drawn by class"
            raise UsageError("--balance sample, but every pixel has a class", why=why, hint="--balance loss")

    def encode(self, targets: Tensor) -> Tensor:
        """Masks (B, H, W) uint8 -> class indices, IGNORED where nobody knows."""
        return targets.long()

    def resized(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks (B, any H, any W) -> (B, H, W), each pixel from the nearest."""
        if targets.shape[-2:] == size:
            return targets
        return F.interpolate(targets[:, None], size, mode="nearest-exact")[:, 0]

    def vary(self, images: Tensor, targets: Tensor, settings: Augment, draws: Draws) -> tuple[Tensor, Tensor]:
        """Random changes: pixels (B, C, H, W) in 0 to 1 and masks (B, H, W), which move together."""
        images, masks = augment_masks(images, targets, settings, draws)
        return images, self.encode(masks)

    def loss(self, outputs: Tensor, encoded: Tensor) -> Tensor:
        """Logits (B, K, H, W) and class indices (B, H, W) -> the mean over known pixels; 0 where none is known."""
        logits, known = outputs.float(), encoded != IGNORED
        each = F.cross_entropy(
            logits, encoded, ignore_index=IGNORED, reduction="none", label_smoothing=self.label_smoothing
        )
        weights = self.class_weights.to(outputs.device)[encoded.where(known, 0)].where(known, 0)
        entropy = (weights * each).sum() / weights.sum().clamp_min(1e-12)
        return (1 - self.dice) * entropy + self.dice * dice_loss(logits, encoded) if self.dice else entropy

    def imitate(self, outputs: Tensor, truth: Tensor, temperature: float) -> Tensor:
        """Divergence of softened answers of all pixels in nats, times the temperature's square (arXiv 1503.02531)."""
        mine, theirs = ((t.float() / temperature).log_softmax(1) for t in (outputs, truth))
        each = F.kl_div(mine, theirs, reduction="none", log_target=True).sum(1)
        return each.mean() * temperature**2

    @property
    def row_width(self) -> int:
        """Pixels right, asked for and answered of each class, the summed loss, and the known pixels."""
        return 3 * self.num_outputs + 2

    def validation_rows(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Logits (B, K, H, W) and masks (B, H, W) -> counts and loss of each image (B, F)."""
        truth, count = targets.long().flatten(1), self.num_outputs
        known, answer = (truth != IGNORED).float(), outputs.argmax(1).flatten(1)
        losses = F.cross_entropy(outputs.float(), targets.long(), ignore_index=IGNORED, reduction="none").flatten(1)
        asked = truth.where(known > 0, 0)
        right = known * (answer == truth)
        empty = known.new_zeros(len(truth), count)
        parts = [empty.scatter_add(1, asked, right), empty.scatter_add(1, asked, known)]
        parts += [empty.scatter_add(1, answer, known), losses.sum(1, keepdim=True), known.sum(1, keepdim=True)]
        return torch.cat(parts, 1)

    def validation_figures(self, rows: Tensor, targets: Tensor) -> dict[str, float]:
        """Mean IoU over all pixels of a set and log loss of a pixel, from what was kept of each image (N, F)."""
        sums = rows.double().sum(0).cpu().numpy()
        right, asked, answered = sums[:-2].reshape(3, self.num_outputs)
        score = float(figures.mean_iou(Counts(right, asked, answered)))
        return {self.metric: 0.0 if np.isnan(score) else score, "loss": float(sums[-2] / max(1.0, sums[-1]))}

    @property
    def postprocess(self) -> SegmentationPostprocess:
        """Softmax of the logits at each pixel."""
        return SegmentationPostprocess(self.class_names)

    def truths(self, data: Samples, indices: Tensor) -> list[Image]:
        """The masks of some samples at their images' own sizes."""
        return [data.truth(index) for index in indices.tolist()]

    def evaluate(self, results: Segmentation, targets: Masks) -> Evaluation:
        """Mean IoU and pixel accuracy with 95 % intervals over images, and each class's figures."""
        classes = len(self.class_names)
        pairs = zip(results.masks, targets, strict=True)
        matrices = [figures.confusion(answer, truth, classes) for answer, truth in pairs]
        confusions = np.array(matrices, np.int64).reshape(len(results), classes, classes)
        each, whole = figures.counted(confusions), figures.counted(confusions.sum(0))
        metrics = {
            "task": self.name,
            "n": len(results),
            "pixels": int(confusions.sum()),
            "miou": _plain(figures.mean_iou(whole)),
            "miou_ci95": _ends(figures.interval(figures.mean_iou, each)),
            "pixel_accuracy": _plain(figures.pixel_accuracy(whole)),
            "pixel_accuracy_ci95": _ends(figures.interval(figures.pixel_accuracy, each)),
            "per_class": self._per_class(whole, each),
        }
        return Evaluation(results, targets, metrics, self.headline(metrics))

    def _per_class(self, whole: Counts, each: Counts) -> list[dict[str, Any]]:
        """IoU, precision, recall of each class, its pixels, and the images that show it; None where it is absent."""
        overlaps = figures.iou(whole)
        return [
            {
                "class": name,
                "iou": None if np.isnan(overlaps[i]) else float(overlaps[i]),
                "precision": _plain(whole.right[i] / max(1, whole.answered[i])),
                "recall": _plain(whole.right[i] / max(1, whole.asked[i])),
                "pixels": int(whole.asked[i]),
                "n": int((each.asked[:, i] > 0).sum()),
            }
            for i, name in enumerate(self.class_names)
        ]

    def details(self, evaluation: Evaluation) -> dict[str, Any]:
        """Boundary F, the confusion of pixels, and the worst images."""
        results, classes = _masks(evaluation), len(self.class_names)
        pairs = list(zip(results.masks, evaluation.targets, strict=True))
        edges = np.array([figures.boundary_f(answer, truth, classes) for answer, truth in pairs]).reshape(-1, classes)
        of_images = edges[~np.isnan(edges).all(1)]
        found: dict[str, Any] = {
            "boundary_f": _plain(np.nanmean(np.nanmean(of_images, 1))) if len(of_images) else None,
            "boundary_tolerance": f"{100 * figures.TOLERANCE:g} % of the diagonal, at least 1 pixel",
        }
        if classes <= MOST_CLASSES:
            total = np.sum([figures.confusion(answer, truth, classes) for answer, truth in pairs], axis=0)
            found["confusion"] = np.asarray(total).tolist()
        rows = self.rows(evaluation)
        return found | {"worst": [rows[i] for i in self.examples(evaluation, MOST_WORST)]}

    def headline(self, metrics: dict[str, Any]) -> str:
        """Pixel accuracy with its interval, and the mean IoU."""
        sure = interval(metrics["pixel_accuracy_ci95"])  # one image gives none
        known = f" (95 % interval {sure})" if sure else ""
        accuracy, overlap = percent(metrics["pixel_accuracy"]), percent(metrics["miou"])
        return f"pixel accuracy {accuracy}{known}, mean IoU {overlap} on {metrics['n']:,} images"

    def summary(self, kept: dict[str, Any]) -> dict[str, str]:
        """Images, mean IoU, pixel accuracy and its interval."""
        return {
            "images": f"{kept['n']:,}",
            **{title(name): percent(kept[name]) for name in ("miou", "pixel_accuracy")},
            "95 % interval": interval(kept["pixel_accuracy_ci95"]) or "-",
        }

    def tables(self, metrics: dict[str, Any]) -> list[Table]:
        """Figures of all pixels, of each class, and the worst images."""
        of_all = ("miou", "pixel_accuracy")
        lines = [(title(name), percent(metrics[name]), interval(metrics[f"{name}_ci95"])) for name in of_all]
        tolerance = metrics["boundary_tolerance"]
        lines.append((f"{title('boundary_f')} within {tolerance}", percent(metrics["boundary_f"]), ""))
        names = ("iou", "precision", "recall")
        classes = [
            (row["class"], *(percent(row[k]) for k in names), f"{row['pixels']:,}", f"{row['n']:,}")
            for row in metrics["per_class"]
        ]
        of_image = ("pixel_accuracy", "miou")
        worst = [(row["id"], *(percent(row[name]) for name in of_image)) for row in metrics["worst"]]
        heading = f"{metrics['split']} set, {metrics['n']:,} images"
        return [
            Table(heading, ("figure", "value", "95 % interval"), lines),
            Table("", ("class", *map(title, names), "pixels", "images"), classes),
            Table("worst images", ("image", *map(title, of_image)), worst),
        ]

    def rows(self, evaluation: Evaluation) -> list[dict[str, Any]]:
        """Id, size, confidence, and the figures of each image; None where no pixel is known."""
        found, classes = [], len(self.class_names)
        results = _masks(evaluation)
        for name, answer, truth, confidence in zip(
            results.ids, results.masks, evaluation.targets, results.confidences, strict=True
        ):
            counts = figures.counted(figures.confusion(answer, truth, classes))
            found.append(
                {
                    "id": printable(name),
                    "height": answer.shape[0],
                    "width": answer.shape[1],
                    "confidence": round(float(confidence), DIGITS),
                    "pixel_accuracy": _rounded(figures.pixel_accuracy(counts)),
                    "miou": _rounded(figures.mean_iou(counts)),
                }
            )
        return found

    def examples(self, evaluation: Evaluation, most: int) -> list[int]:
        """The images with the largest share of wrong pixels first."""
        accuracy = [1.0 if row["pixel_accuracy"] is None else row["pixel_accuracy"] for row in self.rows(evaluation)]
        return [int(index) for index in np.argsort(accuracy, kind="stable")[:most]]

    def pictures(self, image: Image, evaluation: Evaluation, index: int, frame: Frame | None = None) -> list[Picture]:
        """The image, the truth, the answer, and where they differ."""
        answer, truth, classes = _masks(evaluation).masks[index], evaluation.targets[index], len(self.class_names)
        masks = [("truth", coloured(truth, classes)), ("answer", coloured(answer, classes))]
        return [("image", image), *masks, ("mistakes in red", mistakes(answer, truth, classes))]

    def per_class(self, outputs: Tensor, place: int | None = None) -> Tensor:
        """The mean logit of each class over all pixels (B, K)."""
        return outputs.mean((2, 3))


def dice_loss(logits: Tensor, encoded: Tensor) -> Tensor:
    """1 - 2 sum(p g) / (sum(p^2) + sum(g)) over known pixels of a batch, the mean over the classes that it shows.

    p is the probability of a class at a pixel, g 1 where it is the truth (V-Net, arXiv 1606.04797).
    """
    known = (encoded != IGNORED)[:, None]
    truth = F.one_hot(encoded.where(known[:, 0], 0), logits.shape[1]).movedim(-1, 1) * known
    chances = logits.softmax(1) * known
    both, mine, theirs = ((chances * truth).sum((0, 2, 3)), chances.square().sum((0, 2, 3)), truth.sum((0, 2, 3)))
    each = 1 - (2 * both + SMOOTH) / (mine + theirs + SMOOTH)
    shown = (theirs > 0).float()
    return (each * shown).sum() / shown.sum().clamp_min(1)


def _pixels(data: Samples, classes: int) -> list[int]:
    """How many pixels of a set are of each class (K,)."""
    counts = torch.zeros(256, dtype=torch.long)
    for batch in data.batches(torch.arange(len(data)).split(256), torch.device("cpu")):
        counts += torch.bincount(batch.targets.flatten(), minlength=256)
    return counts[:classes].tolist()


def _masks(evaluation: Evaluation) -> Segmentation:
    results: Results = evaluation.predictions
    assert isinstance(results, Segmentation)
    return results


def _plain(value: Any) -> float:
    return 0.0 if np.isnan(value) else float(value)


def _rounded(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _ends(pair: tuple[float, float] | None) -> list[float] | None:
    return None if pair is None else list(pair)
