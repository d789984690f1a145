"""What is done about images that cannot be read: how many may be, and what is said when it is too much."""

from __future__ import annotations

from collections.abc import Mapping

from msresnet.data.decode import printable
from msresnet.errors import DataError

MOST_BAD = 0.01
"""Share of unreadable images above which data is refused when the user did not say what to do."""


class Unreadable:
    """The unreadable images of sets that belong together, as they are met.

    Args:
        totals: images of each set, by name.
        on_bad: 'fail' at the first unreadable image, 'skip' any number, None up to 1 %.
    """

    def __init__(self, totals: Mapping[str, int], on_bad: str | None = None) -> None:
        self.totals, self.on_bad = totals, on_bad
        self.found: dict[str, dict[int, tuple[str, str]]] = {name: {} for name in totals}

    def add(self, name: str, index: int, sample: str, error: DataError) -> None:
        """Note one of a set. Raises the error itself where none may be."""
        if self.on_bad == "fail":
            raise error
        self.found[name][index] = (sample, error.why or error.what)

    def of(self, name: str) -> list[tuple[str, str]]:
        """(id, reason) of those of a set, in its order."""
        return [entry for _, entry in sorted(self.found[name].items())]

    def judge(self, so_far: str = "") -> None:
        """Raise DataError, with the number and the first reasons, where too many are unreadable.

        All sets are judged together. A set that is not for training is judged by itself too: a large training set does
        not excuse a ruined test set. One unreadable image is no ruin, however small such a set, also when it is alone.
        """
        self._judge(list(self.found), so_far)
        for name, found in self.found.items():
            if name != "train" and len(found) > 1:
                self._judge([name], f" of the {name} set{so_far}")

    def _judge(self, names: list[str], of: str) -> None:
        count, total = sum(len(self.found[n]) for n in names), sum(self.totals[n] for n in names)
        most = total if self.on_bad == "skip" else max(int(total * MOST_BAD), int("train" not in names))
        if count <= most and not count == total > 0:
            return
        raise DataError(
            f"{count:,} of {total:,} images{of} cannot be read",
            where=listed([entry for n in names for entry in self.of(n)]),
            why="all are bad" if count == total else f"more than {MOST_BAD:.0%}",
            hint="mend or remove them" + ("" if count == total else ", or --on-bad skip"),
        )


def skipped(name: str, count: int) -> list[str]:
    """What a person is told of a set some of whose images could not be read; nothing where all could."""
    return [f"{count} unreadable images of the {name} set were skipped"] if count else []


def listed(bad: list[tuple[str, str]]) -> str:
    """The first unreadable images and the reasons."""
    text = "; ".join(f"{printable(name)}: {reason}" for name, reason in bad[:5])
    return text + (f"; and {len(bad) - 5:,} more" if len(bad) > 5 else "")


def class_lost(names: list[str], bad: list[tuple[str, str]]) -> DataError:
    """What is said when none of a class's images can be read: learning goes on without no class in silence."""
    what = f"no image of {', '.join(names[:5])} can be read"
    return DataError(what, where=listed(bad), hint="mend them, or remove the class")
