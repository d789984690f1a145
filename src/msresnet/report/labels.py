"""What to look at in the data: labels that the model contradicts with confidence, and images that are there twice."""

from __future__ import annotations

import numpy as np

from msresnet.data.duplicates import Groups, equal, near
from msresnet.data.sets import Decoded
from msresnet.data.traits import TRAITS, Traits, traits_of
from msresnet.metrics.label_suspects import label_suspects
from msresnet.report.answered import Answered
from msresnet.report.page import Card, Cards, Heading, Line, Part, Section, Words, percent
from msresnet.report.story import SMALL

MOST_SUSPECTS, MOST_GROUPS, PER_GROUP = 12, 12, 3
MOST_COMPARED = 20_000
"""Images of a set, in memory, that are compared with each other: a few seconds."""


def labels(answered: Answered) -> Section:
    """Label suspects and duplicates."""
    return Section("labels", "What to check in the data", [*_suspects(answered), *_duplicates(answered)])


def _suspects(answered: Answered) -> list[Part]:
    suspects = label_suspects(answered.results.probabilities, answered.targets)
    heading = Heading("Labels that may be wrong")
    if not len(suspects.indices):
        return [heading, Words("None: the model contradicts no label with more than its usual confidence.")]
    count = len(suspects.indices)
    text = (
        f"{count:,} image{'s' if count > 1 else ''} for which the model is surer of another class than it usually is "
        "of that class's own. Either the label is wrong or the model is; the most striking first. Confident learning "
        f"(arXiv 1911.00068), which trusts the model, puts the share of wrong labels at {percent(suspects.share)}."
    )
    if answered.story.evaluation.metrics["split"] == "train":
        text += " The model was trained on these images, so it contradicts fewer labels than it should."
    rows = zip(suspects.indices[:MOST_SUSPECTS].tolist(), suspects.suggested.tolist(), strict=False)
    return [heading, Words(text), Cards([_suspect(answered, index, looks) for index, looks in rows], small=True)]


def _suspect(answered: Answered, index: int, looks: int) -> Card:
    lines = [answered.line(index, int(answered.targets[index]), "label", "wrong")]
    return answered.story.card(index, [*lines, answered.line(index, looks, "looks like")], SMALL)


def _duplicates(answered: Answered) -> list[Part]:
    """Groups of images that are equal, or nearly, as the network takes them; those of several labels first."""
    heading, data = Heading("Images that are there twice"), answered.story.data
    if not isinstance(data, Decoded) or len(data) > MOST_COMPARED:
        return [heading, Words("The set is too large to compare its images here; msresnet data check does.")]
    traits = _traits(answered)
    same = equal(traits)
    close, _ = near(traits, same)
    if not same and not close:
        return [heading, Words("None, not even nearly.")]
    groups = sorted([*same, *close], key=lambda group: -len(set(answered.targets[group])))
    told = [_counts(same, "equal"), _counts(close, "nearly equal")]
    text = f"As the network takes them: {' and '.join(text for text in told if text)}."
    conflicts = sum(len(set(answered.targets[group])) > 1 for group in groups)
    text += f" {conflicts:,} of these groups bear different labels." if conflicts else " Their labels agree."
    return [heading, Words(text), Cards([_group(answered, group) for group in groups[:MOST_GROUPS]], small=True)]


def _traits(answered: Answered) -> Traits:
    found = np.zeros(len(answered.results), TRAITS)
    for index in range(len(found)):
        found[index] = traits_of(answered.story.image(index))
    return found


def _counts(groups: Groups, words: str) -> str:
    if not groups:
        return ""
    images = sum(map(len, groups))
    return f"{images:,} {words} images in {len(groups):,} group{'s' if len(groups) > 1 else ''}"


def _group(answered: Answered, group: list[int]) -> Card:
    """Some images of a group, and the labels they bear."""
    story, names = answered.story, answered.results.class_names
    found = sorted({int(target) for target in answered.targets[group]})
    about, tone = ("labels", "wrong") if len(found) > 1 else ("label", "")
    lines = [Line(", ".join(names[target] for target in found), about=about, tone=tone)]
    more = f" and {len(group) - PER_GROUP:,} more" if len(group) > PER_GROUP else ""
    ids = ", ".join(story.id(index) for index in group[:PER_GROUP])
    return Card([story.picture(index, SMALL) for index in group[:PER_GROUP]], lines, ids + more)
