"""Where a classifier fails, and where it was in doubt."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msresnet.report.answered import Answered
from msresnet.report.looks import Heat, overlaid
from msresnet.report.page import Card, Cards, Part, Section, Words

MOST_WORST, MOST_DOUBTFUL = 12, 12


def worst(answered: Answered) -> list[int]:
    """The wrong answers that were given with most confidence."""
    return [int(index) for index in answered.sure(np.flatnonzero(~answered.correct))[:MOST_WORST]]


def doubtful(answered: Answered) -> list[int]:
    """The images whose two most probable classes are closest."""
    probabilities = answered.results.probabilities
    if probabilities.shape[1] < 2:
        return []
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return [int(index) for index in np.argsort(first - second, kind="stable")[:MOST_DOUBTFUL]]


def mistakes(answered: Answered, heats: Mapping[int, Heat]) -> Section:
    """The worst mistakes with what spoke for them, and the most doubtful answers."""
    wrong, shown = int((~answered.correct).sum()), worst(answered)
    beside = " Beside the image, what spoke for the wrong answer." if heats.keys() & set(shown) else ""
    parts: list[Part] = [Words(_told(wrong, len(shown)) + beside, soft=bool(wrong))]
    if shown:
        parts.append(Cards([_card(answered, index, heats) for index in shown]))
    if unsure := doubtful(answered):
        parts.append(Words("Below, where the two most probable classes were closest; wrong ones are red."))
        parts.append(Cards([_undecided(answered, index) for index in unsure], small=True))
    return Section("mistakes", "Where it fails, where it doubts", parts)


def _told(wrong: int, shown: int) -> str:
    if wrong == 0:
        return "No mistake on this set."
    if shown < wrong:
        return f"{shown} of {wrong:,} mistakes, the most confident first."
    return "The one mistake." if wrong == 1 else f"All {wrong} mistakes, the most confident first."


def _card(answered: Answered, index: int, heats: Mapping[int, Heat]) -> Card:
    card = answered.story.card(index, answered.lines(index))
    if index not in heats:
        return card
    name = answered.results.class_names[answered.answers[index]]
    return Card([*card.pictures, overlaid(answered.story, index, heats[index], name)], card.lines, card.id)


def _undecided(answered: Answered, index: int) -> Card:
    """An image with its two most probable classes, the wrong ones marked."""
    order = np.argsort(-answered.results.probabilities[index], kind="stable")[:2]
    target = int(answered.targets[index])
    lines = [answered.line(index, int(c), tone="" if c == target else "wrong") for c in order]
    if target not in order:
        lines.append(answered.line(index, target, "truth"))
    return answered.story.card(index, lines)
