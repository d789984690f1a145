"""The report of a model: which sections it has, by what the model is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msresnet.files import write_text
from msresnet.report.answered import Answered
from msresnet.report.confusions import classes, confusions
from msresnet.report.detection import found, mistaken, precision
from msresnet.report.labels import labels
from msresnet.report.looks import examples, explained, looks
from msresnet.report.mistakes import mistakes, worst
from msresnet.report.overview import lead, learning, origin, overview, tables
from msresnet.report.page import Section, page
from msresnet.report.scales import scales
from msresnet.report.segmentation import looked_at
from msresnet.report.story import Story
from msresnet.report.trust import cost, robustness, trust
from msresnet.results import Classification

Teller = Callable[[Story], Sequence[Section | None]]


def write_report(path: Path, story: Story) -> None:
    """Write the report. Raises ResourceError when it cannot be written."""
    write_text(path, render(story))


def render(story: Story) -> str:
    """The report as HTML text, without a reference to anything outside."""
    task = story.trained.task
    title = f"{story.trained.architecture} · {task.name} of {len(task.class_names)} classes"
    told = TELLERS.get(task.name, _plainly)(story)
    sections = [overview(story), learning(story), *told, origin(story)]
    return page(title, lead(story), [section for section in sections if section is not None])


def _classification(story: Story) -> Sequence[Section | None]:
    assert isinstance(story.evaluation.predictions, Classification)
    answered = Answered(story, story.evaluation.predictions)
    chosen, wrong = examples(answered), worst(answered)
    wanted = [(index, int(answered.answers[index])) for index in dict.fromkeys(_in_turn(chosen, wrong))]
    heats, method = explained(story, wanted)
    return [
        confusions(answered),
        classes(answered),
        mistakes(answered, heats),
        labels(answered),
        trust(answered),
        robustness(story),
        looks(answered, chosen, heats, method),
        scales(story),
        cost(story),
    ]


def _segmentation(story: Story) -> Sequence[Section | None]:
    return [tables(story), looked_at(story), scales(story)]


def _detection(story: Story) -> Sequence[Section | None]:
    return [tables(story), precision(story), mistaken(story), found(story), scales(story)]


def _in_turn(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """The items of two lists, one of each in turn."""
    longest = range(max(len(one), len(other)))
    return [items[place] for place in longest for items in (one, other) if place < len(items)]


def _plainly(story: Story) -> Sequence[Section | None]:
    return [tables(story)]


TELLERS: dict[str, Teller] = {
    "classification": _classification,
    "segmentation": _segmentation,
    "detection": _detection,
}
"""Sections by task; other tasks show their tables."""
