"""Why a model answered as it did on one image: heat maps, scales, neighbours and the answer, as one object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.decode import printable
from msresnet.explain.attribution import DEFAULT, attribute, full_size, heat_maps, ready
from msresnet.explain.faithfulness import CONTROLS, faithfulness
from msresnet.explain.neighbours import Neighbour
from msresnet.explain.scales import ScaleResponse, by_field, scale_responses
from msresnet.results import DIGITS, Classification

Image = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """What is to be found out about an image.

    Args:
        methods: names in `attribution.METHODS`.
        stage: of Grad-CAM; None is the network's own layer.
        scores: whether to measure deletion and insertion.
    """

    methods: tuple[str, ...] = (DEFAULT,)
    stage: int | None = None
    scores: bool = False


@dataclass(frozen=True)
class Scores:
    """Areas under the class's probability: small is good while pixels are deleted, large while they are inserted."""

    deletion: float
    insertion: float

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return {"deletion": round(self.deletion, DIGITS), "insertion": round(self.insertion, DIGITS)}

    def __str__(self) -> str:
        return f"deletion {self.deletion:.{DIGITS}f}, insertion {self.insertion:.{DIGITS}f}"


@dataclass(frozen=True)
class Look:
    """Where one method finds the answer: how much each place speaks for the class, (H, W) in 0 to 1."""

    method: str
    heat: Heat
    scores: Scores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the method, the hottest place, the scores if they were asked for."""
        row, column = (int(i) for i in np.unravel_index(int(self.heat.argmax()), self.heat.shape))
        place = {"method": self.method, "hottest_pixel": {"row": row, "column": column}}
        return place | ({} if self.scores is None else self.scores.to_dict())


@dataclass(frozen=True)
class Explanation:
    """Why a model answered as it did on one image.

    Args:
        picture: what the network saw, uint8 (C, H, W).
        target: the class that is explained.
        looks: a heat map for each method.
        scales: empty where blocks look at one scale only.
        controls: the scores of maps that know nothing of the model, beside those of `looks`.
        neighbours: the nearest images of a set, if they were asked for.
    """

    id: str
    picture: Image
    target: str
    result: Classification
    looks: list[Look]
    scales: list[ScaleResponse]
    controls: dict[str, Scores] = field(default_factory=dict)
    neighbours: list[Neighbour] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the answer, the class explained, what each method found, the scales, the neighbours."""
        found: dict[str, Any] = {**self.result.to_dict()[0], "id": printable(self.id), "explained": self.target}
        found["maps"] = [look.to_dict() for look in self.looks]
        if self.controls:
            found["controls"] = {name: scores.to_dict() for name, scores in self.controls.items()}
        found["scales"] = [s.to_dict() for s in self.scales]
        if self.neighbours:
            found["neighbours"] = [n.to_dict() for n in self.neighbours]
        return found

    def lines(self) -> list[str]:
        """The explanation in words: a line, and one more for each method's scores and for the neighbours."""
        best, probability = self.result.top(1)[0][0]
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in by_field(self.scales)[:4])
        scales = f"{self.target} by scale: {shares}" if shares else "it has no operator whose scales can be told apart"
        rows = [f"{printable(self.id)}: {best} {probability:.{DIGITS}f}; {scales}"]
        measured = {look.method: look.scores for look in self.looks if look.scores is not None} | self.controls
        rows += [f"  {name}: {scores}" for name, scores in measured.items()]
        rows += [f"  nearest: {printable(n.id)} {n.label}, distance {n.distance:.{DIGITS}f}" for n in self.neighbours]
        return rows


def explain(bundle: Bundle, image: Image, result: Classification, target: int, wanted: Wanted) -> Explanation:
    """Explain what a model makes of an image.

    Args:
        image: decoded, uint8 (C, H, W), any size.
        result: the model's answer on it.
        target: the class to explain.

    Raises UsageError for an unknown method or stage, ModelError where the network's output is not finite.
    """
    x = ready(bundle, image)
    asked = torch.tensor([target], device=x.device)
    looks = [_look(bundle, x, asked, method, wanted) for method in wanted.methods]
    controls = {name: _scores(bundle, x, asked, control(x)) for name, control in CONTROLS.items() if wanted.scores}
    scales = scale_responses(bundle, image, target)
    name, picture = bundle.task.class_names[target], bundle.preprocess.image(image)
    return Explanation(result.ids[0], picture, name, result, looks, scales, controls)


def _look(bundle: Bundle, x: Tensor, target: Tensor, method: str, wanted: Wanted) -> Look:
    attribution = attribute(bundle, x, target, method, wanted.stage)
    size = (x.shape[-2], x.shape[-1])
    heat = heat_maps(attribution, size)[0].cpu().numpy()
    return Look(method, heat, _scores(bundle, x, target, full_size(attribution, size)) if wanted.scores else None)


def _scores(bundle: Bundle, x: Tensor, target: Tensor, importance: Tensor) -> Scores:
    deletion, insertion = faithfulness(bundle, x, target, importance).areas()
    return Scores(float(deletion[0]), float(insertion[0]))
