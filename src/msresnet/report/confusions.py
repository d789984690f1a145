"""What a classifier takes for what: the matrix with its pictures, the most frequent mix-ups, and class by class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

from msresnet.metrics.classification import confusion
from msresnet.report.answered import Answered
from msresnet.report.page import Card, Cards, Cell, Group, Groups, Matrix, Part, Section, Table, Words, percent, short
from msresnet.report.story import SMALL

Ints = npt.NDArray[np.int64]
MOST_CLASSES, MOST_PAIRS = 30, 100
"""Of more classes, the matrix shows those that are confused most; the list, the most frequent mix-ups."""
PER_CELL, MOST_BYTES = 4, 600_000
"""Pictures of a cell at most, and bytes of all of them."""


def confusions(answered: Answered) -> Section:
    """The confusion matrix, the images of its cells, and the most frequent mix-ups where it has no room for all."""
    names = answered.results.class_names
    counts = confusion(answered.answers, answered.targets, len(names))
    wrong = counts - np.diag(np.diag(counts))
    chosen = np.sort(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:MOST_CLASSES])
    groups = _groups(answered, counts, chosen)
    parts: list[Part] = [Words(_explained(len(names) - len(chosen), bool(groups)))]
    parts.append(_matrix(names, counts, chosen, {group.id for group in groups}))
    parts.append(Groups(groups))
    if len(names) > len(chosen) and wrong.any():
        parts.append(_pairs(names, counts, wrong))
    return Section("confusion", "What it confuses", parts)


def _explained(left_out: int, shown: bool) -> str:
    text = "Rows are the truth, columns the answers; a cell is filled by its share of the row."
    if left_out:
        text += f" These are the classes with most mistakes; {left_out:,} others are left out."
    return text + (" Follow a number to some of its images." if shown else "")


def _matrix(names: tuple[str, ...], counts: Ints, chosen: Ints, groups: set[str]) -> Matrix:
    shown = counts[np.ix_(chosen, chosen)]
    shares = shown / np.maximum(1, counts[chosen].sum(1, keepdims=True))
    rows = [
        [Cell(int(n), float(share), place if (place := _id(truth, answer)) in groups else "")
         for answer, n, share in zip(chosen, line, parts, strict=True)]
        for truth, line, parts in zip(chosen, shown, shares, strict=True)
    ]  # fmt: skip
    return Matrix("How often each class was answered as each", [names[c] for c in chosen], rows, _orders(shown))


def _orders(shown: Ints) -> dict[str, list[int]]:
    """Orders of the classes: by their mistakes, and with those that are confused beside each other."""
    wrong = shown - np.diag(np.diag(shown))
    if len(shown) < 3 or not wrong.any():
        return {}
    mistakes = np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")
    distances = 1 / (1.0 + wrong + wrong.T)
    condensed = distances[np.triu_indices(len(shown), 1)]
    alike = leaves_list(optimal_leaf_ordering(linkage(condensed, "average"), condensed))
    return {"most mistakes first": mistakes.tolist(), "confused side by side": alike.tolist()}


def _id(truth: int, answer: int) -> str:
    return f"cell-{truth}-{answer}"


def _groups(answered: Answered, counts: Ints, chosen: Ints) -> list[Group]:
    """The images of the cells: mistakes first, the most frequent first; of right answers, the most doubtful."""
    cells = [(int(t), int(a)) for t in chosen for a in chosen if counts[t, a]]
    cells.sort(key=lambda cell: (cell[0] == cell[1], -counts[cell]))
    members = {cell: _members(answered, *cell) for cell in cells}
    cards: dict[tuple[int, int], list[Card]] = {}
    for cell, card in _within_bounds(answered, cells, members):
        cards.setdefault(cell, []).append(card)
    return [
        Group(_id(*cell), _title(answered, cell, int(counts[cell]), len(cards[cell])), Cards(cards[cell], small=True))
        for cell in cells
        if cell in cards
    ]


def _members(answered: Answered, truth: int, answer: int) -> Ints:
    inside = np.flatnonzero((answered.targets == truth) & (answered.answers == answer))
    return answered.sure(inside, doubtful=truth == answer)[:PER_CELL]


def _within_bounds(
    answered: Answered, cells: list[tuple[int, int]], members: dict[tuple[int, int], Ints]
) -> Iterator[tuple[tuple[int, int], Card]]:
    """A picture of each cell, then a second of each, as long as there is room."""
    room = MOST_BYTES
    for place in range(PER_CELL):
        for cell in cells:
            if place < len(members[cell]):
                index = int(members[cell][place])
                card = answered.story.card(index, answered.lines(index), SMALL)
                room -= len(card.pictures[0].source)
                if room < 0:
                    return
                yield cell, card


def _title(answered: Answered, cell: tuple[int, int], count: int, shown: int) -> str:
    truth, answer = (short(answered.results.class_names[c]) for c in cell)
    which = "the most doubtful" if cell[0] == cell[1] else "the surest"
    told = f"{count:,} image{'s' if count > 1 else ''}" + (f", {shown} of {which}" if shown < count else "")
    return f"{truth}, rightly answered: {told}" if cell[0] == cell[1] else f"{truth}, answered {answer}: {told}"


def _pairs(names: tuple[str, ...], counts: Ints, wrong: Ints) -> Table:
    """The most frequent mix-ups of all classes."""
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]
    totals = counts.sum(1)
    rows = []
    for truth, answer in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if n := int(wrong[truth, answer]):
            rows.append((names[truth], names[answer], f"{n:,}", percent(n / int(totals[truth]), 1)))
    return Table("The most frequent mix-ups", ("truth", "answer", "images", "of the class"), rows, sort=True)


def classes(answered: Answered) -> Section:
    """Precision, recall, F1 of each class, and what it is most often taken for."""
    names = answered.results.class_names
    counts = confusion(answered.answers, answered.targets, len(names))
    taken = np.argmax(counts - np.diag(np.diag(counts)), axis=1)
    rows = []
    for place, row in enumerate(answered.story.evaluation.metrics["per_class"]):
        answers, other = int(counts[:, place].sum()), int(taken[place])
        most = f"{names[other]} ({int(counts[place, other]):,})" if other != place and counts[place, other] else ""
        precision = percent(row["precision"], 1) if answers else ""
        recall, f1 = (percent(row[name], 1) if row["n"] else "" for name in ("recall", "f1"))
        rows.append((row["class"], f"{row['n']:,}", f"{answers:,}", precision, recall, f1, most))
    columns = ("class", "images", "answers", "precision", "recall", "F1", "most often taken for")
    parts: list[Part] = [Table("Figures of each class", columns, rows, sort=True)]
    if absent := sum(not row["n"] for row in answered.story.evaluation.metrics["per_class"]):
        parts.insert(0, Words(f"{absent:,} of the classes have no image in this set: nothing is known of them."))
    return Section("classes", "Class by class", parts)
