"""How well objects are found: precision against recall, kinds of mistakes, and the images with most of them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from msresnet.metrics.detection import RECALLS, figures
from msresnet.metrics.detection_errors import KINDS, MISSED
from msresnet.report.charts import axes_of, chart, key, named
from msresnet.report.page import Card, Cards, Line, Section, Table, Words, percent, short
from msresnet.report.plots import BLUE, GREY, ORANGE, as_rgb
from msresnet.report.story import Story, picture
from msresnet.results import Detections

MOST_SHOWN, SIDE = 12, 320
"""Images that are shown, and pixels of their longer side: boxes are to be seen."""
MOST_CURVES = 20
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
"""How the curves of classes are drawn, as long as there are no more of these; of many, only the worst has a name."""
MEANING = {
    "duplicate": "a second box on an object that is found already",
    "classification": "a box on an object of another class",
    "localisation": "a box near an object of its class, that overlaps it by less than a half",
    "both": "a box near an object of another class",
    "background": "a box where there is no object",
    MISSED: "an object that no box comes near",
}


def precision(story: Story) -> Section | None:
    """Precision against recall at an overlap of a half; nothing where there is no object."""
    results, task = story.evaluation.predictions, story.trained.task
    assert isinstance(results, Detections)
    found = figures(results, story.evaluation.targets)
    curves = np.array([found.curve(index)[0] for index in range(len(task.class_names))])
    if np.isnan(curves).all():
        return None
    figure, axes = axes_of("At an overlap of a half", "recall, %", "precision, %")
    known = np.flatnonzero(~np.isnan(curves).any(1)).tolist()
    worst = min(known, key=lambda index: float(curves[index].mean()))  # the mean over recalls is AP50
    few = len(known) <= len(DASHES)
    names = [named(name) for name in task.class_names]
    for place, index in enumerate(known if few else known[:MOST_CURVES]):
        style: dict[str, Any] = {"linestyle": DASHES[place], "label": names[index]} if few else {}
        axes.plot(100 * RECALLS, 100 * curves[index], color=GREY, linewidth=1.0 if few else 0.6, **style)
    if not few:
        axes.plot(100 * RECALLS, 100 * curves[worst], color=ORANGE, linewidth=1.2, label=names[worst])
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # classes without an object
        mean = np.nanmean(curves, 0)
    axes.plot(100 * RECALLS, 100 * mean, color=BLUE, linewidth=1.8, label="mean of the classes")
    key(axes)
    shown, best = (story.evaluation.metrics[name] for name in ("score", "best_score"))
    text = "Blue is the mean, grey is each class. "
    if not few:
        some = "each class" if len(known) <= MOST_CURVES else f"the first {MOST_CURVES} of {len(known):,} classes"
        text = f"Blue is the mean, grey is {some}, orange the class with the lowest AP50. "
    text += f"Answers are shown from a score of {shown:.2f} on; {best:.2f} would suit these images best."
    over = np.flatnonzero(mean >= 0.5)
    words = "Precision is under a half at every recall."
    if len(over):
        words = f"Precision is at least a half up to a recall of {percent(RECALLS[over[-1]])}."
    if len(known) > 1:
        words += f" The class with the lowest AP50 is {short(task.class_names[worst])}."
    title = "How many are found, and how many of them are right"
    return Section("precision", title, [Words(text), chart(figure, words)])


def mistaken(story: Story) -> Section | None:
    """How many mistakes of each kind there are, and what each costs; nothing where they were not counted."""
    metrics = story.evaluation.metrics
    if "mistakes" not in metrics:
        return None
    counts, costs = metrics["mistakes"], metrics["mistakes_cost"]
    kinds = [*KINDS, MISSED]
    figure, axes = axes_of("What each kind costs", "points of AP50", "")
    values = [100 * (costs[kind] or 0.0) for kind in kinds]
    axes.barh(kinds[::-1], values[::-1], color=ORANGE, height=0.6)
    worst = kinds[int(np.argmax(values))]
    most = f"Most is lost to one kind of mistake: {worst}, {max(values):.2f} points of AP50."
    drawing = chart(figure, most if max(values) > 0 else "No kind of mistake costs anything.")
    rows = [(kind, MEANING[kind], f"{counts[kind]:,}") for kind in kinds]
    text = (
        f"Boxes count from a score of {metrics['score']:.2f} on. A cost is what AP50 would gain without such mistakes."
    )
    table = Table("mistakes", ("kind", "what it is", "boxes"), rows)
    return Section("mistakes", "What goes wrong", [Words(text), drawing, table])


def found(story: Story) -> Section:
    """The images with most objects missed and made up, the worst first."""
    task, evaluation = story.trained.task, story.evaluation
    shown, rows = task.examples(evaluation, MOST_SHOWN), task.rows(evaluation)
    words = f"The {len(shown)} images with most objects missed or made up, of {len(rows):,}."
    return Section("boxes", "Where it fails", [Words(words), Cards([_card(story, i, rows[i]) for i in shown])])


def _card(story: Story, index: int, row: dict[str, int]) -> Card:
    """An image with the boxes of the truth and of the answer."""
    frame = story.trained.preprocess.frame(story.data.size(story.places[index]))
    shown = story.trained.task.pictures(story.image(index), story.evaluation, index, frame)
    pictures = [picture(as_rgb(pixels), f"{caption} of {story.id(index)}", SIDE) for caption, pixels in shown]
    lines = [Line(name, f"{row[name]:,}") for name in ("objects", "found", "missed", "wrong")]
    return Card(pictures, lines, story.id(index))
