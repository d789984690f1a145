"""From trainings to a table and a verdict: whose difference is more than chance."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from msresnet.compare.records import Answers, Training
from msresnet.errors import DataError
from msresnet.metrics.significance import LEVEL, Difference, accuracy_interval, compare_answers, holm


class Interval(NamedTuple):
    """A share and its 95 % interval over seeds and images (over images alone for one seed)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Standing:
    """A contestant in the table.

    Args:
        seeds: how many trainings ended.
        failures: why others did not, by seed.
        val, test: accuracy; None where it was not measured.
        params, macs: of the network as trained, and as used.
        images_per_second, seconds, epochs: of training, medians over the seeds.
        inference: images answered a second, by batch size.
    """

    name: str
    seeds: int
    failures: dict[int, str]
    val: Interval | None = None
    test: Interval | None = None
    params: int = 0
    macs: int = 0
    images_per_second: float = 0.0
    seconds: float = 0.0
    epochs: float = 0.0
    inference: Mapping[int, float] | None = None


@dataclass(frozen=True)
class Contest:
    """A contestant held against the reference.

    Args:
        difference: contestant minus reference.
        p: corrected for how many comparisons were looked at.
    """

    name: str
    difference: Difference
    p: float

    @property
    def beyond_chance(self) -> bool:
        """Whether equal contestants would seldom differ as much."""
        return self.p < LEVEL

    @property
    def verdict(self) -> str:
        """In words; with one seed, of these trainings and not of the methods."""
        direction = "better" if self.difference.mean > 0 else "worse"
        if self.difference.covers == "images":
            found = f"{direction}, beyond the luck of the images" if self.beyond_chance else "no difference shown"
            return f"{found}; one seed alone"
        return f"{direction} by more than chance" if self.beyond_chance else "no difference shown"


@dataclass(frozen=True)
class Outcome:
    """What the trainings say.

    Args:
        standings: best first; those without a finished training last.
        split: the set that the verdict is of; it orders the table.
        reference: whom the others are held against; None where nobody finished.
        chosen: whether the user named it; the best of the table otherwise.
        contests: the others against the reference, in the order of the table.
        looked_at: comparisons that p is corrected for: all pairs where the reference is the best of the table.
        images: of the set.
        trainings: all of them, failed ones too.
    """

    standings: tuple[Standing, ...]
    split: str
    reference: str | None
    chosen: bool
    contests: tuple[Contest, ...]
    looked_at: int
    images: int
    trainings: tuple[Training, ...]

    def contest(self, name: str) -> Contest | None:
        """A contestant against the reference; None for the reference itself."""
        return next((contest for contest in self.contests if contest.name == name), None)

    @property
    def chance(self) -> str:
        """What the verdicts hold a difference against, in words."""
        seeds = [c.difference.seeds for c in self.contests] or [s.seeds for s in self.standings]
        return "chance" if max(seeds) > 1 else "the luck of the images; one seed says nothing of others"

    def notes(self) -> dict[str, tuple[str, ...]]:
        """What was inferred for the first training of each contestant, and met in it."""
        found: dict[str, tuple[str, ...]] = {}
        for training in self.trainings:
            if not training.failure:
                found.setdefault(training.contestant, training.notes)
        return found

    def explanation(self) -> list[str]:
        """What the figures are, in sentences."""
        if self.reference is None:
            return ["no training ended, so there is nothing to compare"]
        several = max(s.seeds for s in self.standings) > 1
        draws = "the draw of seeds and of images" if several else "the draw of images alone"
        if several and (single := [s.name for s in self.standings if s.seeds == 1]):
            draws += f", those of one seed ({', '.join(single)}) the draw of images alone"
        lines = [f"95 % intervals cover {draws}; they are of each figure by itself"]
        if self.contests:
            against = self.reference if self.chosen else f"{self.reference}, the best of these, so all pairs count"
            lines.append(f"difference: points on {self.images:,} {self.split} images, from {against}")
            many = (
                f"after Holm's correction for {self.looked_at} comparisons" if self.looked_at > 1 else "one comparison"
            )
            lines.append(f"p: how often equal contestants differ as much ({many})")
        if not several:
            lines.append("one seed: this is about these trainings; another seed may turn it round")
        if self.split == "val":
            lines.append("the validation set also chose the epoch of each training: accuracies are a little flattered")
        return [*lines, "images a second: of the folded network in float32, all contestants in turn, medians"]


@dataclass(frozen=True)
class Comparison:
    """A finished comparison.

    Args:
        outcome: who is better, and whether that is more than chance.
        budget: in words.
        data: what was learnt, as it was named.
        who: what each contestant says beyond what is the same for all.
        notes: what was inferred about data and contestants.
    """

    outcome: Outcome
    budget: str
    data: str
    who: dict[str, str]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as results.json holds them."""
        found = self.outcome
        contests = [
            {"name": c.name, "p_corrected": c.p, "verdict": c.verdict, **asdict(c.difference)} for c in found.contests
        ]
        return {
            "data": self.data,
            "budget": self.budget,
            "split": found.split,
            "images": found.images,
            "contestants": [_plain(standing) | {"settings": self.who[standing.name]} for standing in found.standings],
            "reference": found.reference,
            "comparisons_corrected_for": found.looked_at,
            "contests": contests,
            "notes": list(self.notes),
            "trainings": [training.row() for training in found.trainings],
        }


def by_name(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said of several contestants: lines of all first, then those of some, with their names."""
    lines = dict.fromkeys(line for each in notes.values() for line in each)
    who = {line: [name for name, each in notes.items() if line in each] for line in lines}
    shared = [line for line in lines if len(who[line]) == len(notes)]
    return [*shared, *(f"{', '.join(who[line])}: {line}" for line in lines if line not in shared)]


def judge(
    names: Sequence[str],
    trainings: Sequence[Training],
    speeds: Mapping[str, Mapping[int, float]],
    split: str,
    baseline: str | None,
) -> Outcome:
    """Hold finished trainings against each other. Raises DataError when they were measured on different images."""
    by_name = {name: {t.seed: t for t in trainings if t.contestant == name and not t.failure} for name in names}
    _check_same_images(trainings)
    standings = [_standing(name, trainings, speeds.get(name)) for name in names]
    standings.sort(key=lambda s: -_share(s, split))
    finished = [s.name for s in standings if s.seeds]
    reference = baseline if baseline in finished else next(iter(finished), None)
    chosen = reference is not None and reference == baseline
    pairs = [(left, right) for left, right in combinations(finished, 2) if not chosen or reference in (left, right)]
    found = {pair: _difference(by_name[pair[0]], by_name[pair[1]], split) for pair in pairs}
    known = {pair: difference for pair, difference in found.items() if difference is not None}
    corrected = dict(zip(known, holm([d.p for d in known.values()]), strict=True))
    contests = []
    for (left, right), difference in known.items():
        if reference == left:
            contests.append(Contest(right, _turned(difference), corrected[left, right]))
        elif reference == right:
            contests.append(Contest(left, difference, corrected[left, right]))
    contests.sort(key=lambda c: finished.index(c.name))
    images = next((len(t.answers[split].correct) for t in trainings if t.answers and split in t.answers), 0)
    return Outcome(
        standings=tuple(standings),
        split=split,
        reference=reference,
        chosen=chosen,
        contests=tuple(contests),
        looked_at=len(known),
        images=images,
        trainings=tuple(trainings),
    )


def _standing(name: str, trainings: Sequence[Training], inference: Mapping[int, float] | None) -> Standing:
    mine = [t for t in trainings if t.contestant == name]
    ended = [t for t in mine if not t.failure]
    failures = {t.seed: t.failure for t in mine if t.failure}
    if not ended:
        return Standing(name, 0, failures)
    return Standing(
        name=name,
        seeds=len(ended),
        failures=failures,
        val=_interval(ended, "val"),
        test=_interval(ended, "test"),
        params=ended[0].params,
        macs=ended[0].macs,
        images_per_second=statistics.median(t.images_per_second for t in ended),
        seconds=statistics.median(t.seconds for t in ended),
        epochs=statistics.median(t.epochs for t in ended),
        inference=inference,
    )


def _interval(trainings: Sequence[Training], split: str) -> Interval | None:
    rows = [t.answers[split].correct for t in trainings if t.answers and split in t.answers]
    return Interval(*accuracy_interval(np.stack(rows))) if rows else None


def _share(standing: Standing, split: str) -> float:
    interval = standing.test if split == "test" else standing.val
    return -1.0 if interval is None else interval.mean


def _difference(left: Mapping[int, Training], right: Mapping[int, Training], split: str) -> Difference | None:
    """Over the seeds that both have."""
    seeds = sorted(left.keys() & right.keys())
    if not seeds:
        return None
    table = [np.stack([_answers(side[seed], split).correct for seed in seeds]) for side in (left, right)]
    return compare_answers(table[0], table[1])


def _answers(training: Training, split: str) -> Answers:
    assert training.answers is not None
    return training.answers[split]


def _turned(difference: Difference) -> Difference:
    """The same, seen from the other side."""
    values = asdict(difference) | {"mean": 0 - difference.mean, "low": 0 - difference.high, "high": 0 - difference.low}
    return Difference(**values)


def _check_same_images(trainings: Sequence[Training]) -> None:
    for split in ("val", "test"):
        seen = {t.answers[split].images for t in trainings if t.answers and split in t.answers}
        if len(seen) > 1:
            why = "answers are compared image by image"
            raise DataError(f"the {split} set has changed between trainings", why=why, hint="another --output")


def _plain(standing: Standing) -> dict[str, Any]:
    values = asdict(standing)
    for split in ("val", "test"):
        interval = values[split]
        values[split] = None if interval is None else dict(zip(("top1", "low", "high"), interval, strict=True))
    return values
