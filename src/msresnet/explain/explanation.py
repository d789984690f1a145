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
from msresnet.data.targets import framed
from msresnet.errors import UsageError
from msresnet.explain.attribution import DEFAULT, attribute, full_size, heat_maps, ready
from msresnet.explain.faithfulness import CONTROLS, faithfulness
from msresnet.explain.neighbours import Neighbour
from msresnet.explain.scales import ScaleResponse, by_field, scale_responses
from msresnet.results import DIGITS, Results, classified
from msresnet.results.detections import BOX_DIGITS
from msresnet.tasks.base import Subject
from msresnet.tasks.palette import outlined

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
    """Where one method finds the answer.

    Args:
        heat: how much each place of the network's input speaks for the class, (H, W) in 0 to 1.
        hottest: (row, column) of what speaks most for it, in the image's own pixels; None where nothing does.
    """

    method: str
    heat: Heat
    hottest: tuple[int, int] | None
    scores: Scores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the method, the hottest place or None, the scores if they were asked for."""
        pixel = None if self.hottest is None else dict(zip(("row", "column"), self.hottest, strict=True))
        place = {"method": self.method, "hottest_pixel": pixel}
        return place | ({} if self.scores is None else self.scores.to_dict())


@dataclass(frozen=True)
class Explanation:
    """Why a model answered as it did on one image.

    Args:
        picture: what the network saw, uint8 (C, H, W), with a frame around the object that is explained.
        target: the class that is explained.
        answer: what the model says: a class, and how sure it is of it.
        facts: the answer as plain values.
        looks: a heat map for each method.
        scales: empty where blocks look at one scale only.
        controls: the scores of maps that know nothing of the model, beside those of `looks`.
        neighbours: the nearest images of a set, if they were asked for.
    """

    id: str
    picture: Image
    target: str
    answer: tuple[str, float]
    facts: dict[str, Any]
    looks: list[Look]
    scales: list[ScaleResponse]
    controls: dict[str, Scores] = field(default_factory=dict)
    neighbours: list[Neighbour] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the answer, the class explained, what each method found, the scales, the neighbours."""
        found: dict[str, Any] = {**self.facts, "id": printable(self.id), "explained": self.target}
        found["maps"] = [look.to_dict() for look in self.looks]
        if self.controls:
            found["controls"] = {name: scores.to_dict() for name, scores in self.controls.items()}
        found["scales"] = [s.to_dict() for s in self.scales]
        if self.neighbours:
            found["neighbours"] = [n.to_dict() for n in self.neighbours]
        return found

    def lines(self) -> list[str]:
        """The explanation in words: a line, and one more for each method's scores and for the neighbours."""
        best, probability = self.answer
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in by_field(self.scales)[:4])
        scales = f"{self.target} by scale: {shares}" if shares else "it has no operator whose scales can be told apart"
        rows = [f"{printable(self.id)}: {best} {probability:.{DIGITS}f}; {scales}"]
        measured = {look.method: look.scores for look in self.looks if look.scores is not None} | self.controls
        rows += [f"  {name}: {scores}" for name, scores in measured.items()]
        rows += [f"  nearest: {printable(n.id)} {n.label}, distance {n.distance:.{DIGITS}f}" for n in self.neighbours]
        return rows


def subjects(bundle: Bundle, image: Image, results: Results) -> list[Subject]:
    """What can be explained of the answer about an image uint8 (C, H, W), the surest first. Raises UsageError."""
    outputs = torch.empty(0)
    if bundle.task.located:  # the place of an answer is looked for in them
        with torch.no_grad():
            outputs = bundle.model(ready(bundle, image))
    frame = bundle.preprocess.frame((image.shape[1], image.shape[2])) if bundle.task.whole else None
    return bundle.task.subjects(outputs, results, frame)


def explain(
    bundle: Bundle,
    image: Image,
    results: Results,
    subject: Subject,
    wanted: Wanted,
    *,
    size: tuple[int, int] | None = None,
) -> Explanation:
    """Explain what a model makes of an image.

    Args:
        image: decoded, uint8 (C, H, W), any size.
        results: the model's answer on it.
        subject: what of it to explain.
        wanted: what to find out.
        size: (H, W) of the image in its file, whose pixels places are told in; None where it was decoded whole.

    Raises UsageError for an unknown method or stage, and for scores of an object, ModelError where the network's output
    is not finite.
    """
    if wanted.scores and subject.box is not None:
        what = "deletion and insertion are measured of whole images"
        raise UsageError(what, why="a box is explained", hint="leave them out")
    x, target = ready(bundle, image), subject.target
    asked = torch.tensor([target], device=x.device)
    own = size or (image.shape[1], image.shape[2])
    looks = [_look(bundle, x, subject, method, wanted, own=own) for method in wanted.methods]
    controls = {name: _scores(bundle, x, asked, control(x)) for name, control in CONTROLS.items() if wanted.scores}
    scales = scale_responses(bundle, image, target, subject.place)
    name, picture = bundle.task.class_names[target], bundle.preprocess.image(image)
    if subject.box is None:
        answer, facts = classified(results).top(1)[0][0], results.to_dict()[0]
    else:
        answer = name, subject.score
        box = [round(float(value), BOX_DIGITS) for value in subject.box]
        facts = {"id": results.ids[0], "label": name, "score": round(subject.score, DIGITS), "box": box}
        lying = framed(subject.box[None], bundle.preprocess.frame((image.shape[1], image.shape[2])))
        picture = outlined(picture, lying, np.array([target]))
    return Explanation(results.ids[0], picture, name, answer, facts, looks, scales, controls)


def _look(bundle: Bundle, x: Tensor, subject: Subject, method: str, wanted: Wanted, *, own: tuple[int, int]) -> Look:
    target = torch.tensor([subject.target], device=x.device)
    attribution = attribute(bundle, x, target, method, wanted.stage, place=subject.place)
    size = (x.shape[-2], x.shape[-1])
    heat = heat_maps(attribution, size)[0].cpu().numpy()
    scores = _scores(bundle, x, target, full_size(attribution, size)) if wanted.scores else None
    row, column = (int(place) for place in np.unravel_index(int(heat.argmax()), heat.shape))
    return Look(method, heat, bundle.preprocess.seen_at((row, column), own) if heat.any() else None, scores)


def _scores(bundle: Bundle, x: Tensor, target: Tensor, importance: Tensor) -> Scores:
    deletion, insertion = faithfulness(bundle, x, target, importance).areas()
    return Scores(float(deletion[0]), float(insertion[0]))
