"""What masks look like: the images with most wrong pixels, their truths, and where the answers differ."""

from __future__ import annotations

from msresnet.report.page import Card, Cards, Line, Section, Words
from msresnet.report.plots import as_rgb
from msresnet.report.story import Story, picture
from msresnet.tasks.words import percent, title

MOST_SHOWN = 12


def looked_at(story: Story) -> Section:
    """The worst images first, each with its truth, the answer, and the mistakes."""
    task, evaluation = story.trained.task, story.evaluation
    shown = task.examples(evaluation, MOST_SHOWN)
    rows = task.rows(evaluation)
    words = f"The {len(shown)} images with the largest share of wrong pixels, of {len(rows):,}."
    return Section(
        "masks", "Where it fails", [Words(words), Cards([_card(story, index, rows[index]) for index in shown])]
    )


def _card(story: Story, index: int, row: dict[str, float | None]) -> Card:
    """An image and its masks, with the figures of the one image."""
    pictures = [
        picture(as_rgb(pixels), f"{caption} of {story.id(index)}")
        for caption, pixels in story.trained.task.pictures(story.image(index), story.evaluation, index)
    ]
    lines = [Line(title(name), percent(row[name])) for name in ("pixel_accuracy", "miou", "confidence")]
    return Card(pictures, lines, story.id(index))
