"""Every image of all sets, looked at once: in processes that may be lost, and remembered for the next time.

What was read is kept in the cache, under the file's path, size, times and inode, so that a second survey only asks the
file system. N images in all sets together.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from msresnet.data.isolation import USUAL, Bounds, Lost, isolated
from msresnet.data.sample import Source
from msresnet.data.traits import BAD, GOOD, TRAITS, UNSEEN, Outcome, Traits, look_at
from msresnet.errors import ResourceError, first_line
from msresnet.files import cache_folder, write_atomic

SAVE_EVERY = 60.0
"""Seconds after which what is known so far is kept, in case that the survey is killed."""
VERSION = f"1, Pillow {PIL.__version__}"
"""Of what a record means. Another version's are not believed."""
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Survey:
    """What is known of all images of some sets, one after the other.

    Args:
        sets: by name.
        traits: one record each (N).
        reasons: why an image cannot be read, by index.
        notes: what did not go as planned, in words.
    """

    sets: dict[str, Source]
    traits: Traits
    reasons: dict[int, str]
    notes: list[str]

    def __post_init__(self) -> None:
        if len(self.traits) != sum(map(len, self.sets.values())):
            raise ValueError(f"{len(self.traits)} records of {sum(map(len, self.sets.values()))} images")

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        """Class index of each image (N,)."""
        return np.concatenate([np.asarray(source.targets) for source in self.sets.values()])

    @property
    def roles(self) -> npt.NDArray[np.int64]:
        """Number of the set of each image (N,)."""
        return np.repeat(np.arange(len(self.sets)), [len(source) for source in self.sets.values()])

    def find(self, index: int) -> tuple[str, Source, int]:
        """The set's name, the set, and the index within it."""
        for name, source in self.sets.items():
            if index < len(source):
                return name, source, index
            index -= len(source)
        raise IndexError(index)


def survey(
    sets: dict[str, Source],
    name: str,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    bounds: Bounds = USUAL,
) -> Survey:
    """Look at all images of some sets.

    Args:
        sets: by name.
        name: of the data, under which the results are remembered.
        workers: processes that decode.
        progress: called with the number of images done, and of all.
        bounds: what one image may use.

    Raises ResourceError when no process can be started.
    """
    keys = [
        _key([] if source.planes else source.files(index))  # a mask may change where its image does not
        for source in sets.values()
        for index in range(len(source))
    ]
    memory = _Memory(_place(name), np.array(keys, np.uint64))
    todo: list[int] = np.flatnonzero(memory.traits["state"] == UNSEEN).tolist()
    known = len(keys) - len(todo)
    work = partial(_look, list(sets.values()))
    try:
        for count, (index, outcome) in enumerate(isolated(work, todo, workers, bounds), 1):
            memory.put(index, outcome)
            progress(known + count, len(keys))
    finally:
        memory.save()
    return Survey(sets, memory.traits, memory.reasons, memory.notes)


def _look(sources: Sequence[Source], index: int) -> Outcome:
    for source in sources:
        if index < len(source):
            break
        index -= len(source)
    return look_at(source, index)


def _key(paths: Sequence[Path]) -> int:
    """What files are known by: it changes when one of them does. 0 for what is not a regular file, and for none."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - pathlib takes the path apart first, which costs more than asking
        except (OSError, ValueError):
            return 0
        if not stat.S_ISREG(status.st_mode):
            return 0
        facts = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        digest.update(os.fsencode(path) + repr(facts).encode())
    return int.from_bytes(digest.digest()[:8], "little") if paths else 0


def _place(name: str) -> Path:
    digest = hashlib.sha256(os.fsencode(name) + b"\0" + os.fsencode(Path.cwd())).hexdigest()
    return cache_folder() / "check" / f"{digest[:16]}.npz"


class _Memory:
    """The records of this survey, begun with those that an earlier one kept of the same files.

    Only what could be read is kept: the next time, the rest may have been mended.
    """

    def __init__(self, place: Path, keys: Keys) -> None:
        self.place, self.keys, self.notes = place, keys, list[str]()
        self.traits = np.zeros(len(keys), TRAITS)
        self.reasons: dict[int, str] = {}
        self.saved, self.new = time.monotonic(), False
        self._recall()

    def put(self, index: int, outcome: Outcome | Lost) -> None:
        """Keep one outcome, and now and then everything on the disk."""
        if outcome.reason:
            self.reasons[index] = outcome.reason
            self.traits["state"][index] = BAD
        elif isinstance(outcome, Outcome):
            self.traits[index] = np.frombuffer(outcome.traits, TRAITS)[0]
            self.new = self.new or bool(self.keys[index])
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write what was read; a cache that cannot be written costs nothing but time."""
        self.saved = time.monotonic()
        if not self.new:
            return
        chosen = np.flatnonzero((self.traits["state"] == GOOD) & (self.keys != 0))
        chosen = chosen[np.argsort(self.keys[chosen], kind="stable")]

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, version=VERSION, keys=self.keys[chosen], traits=self.traits[chosen])

        try:
            write_atomic(self.place, write, chosen.size * TRAITS.itemsize)
            self.new = False
        except (ResourceError, OSError) as error:
            self.notes = [f"the next check will be no faster: {first_line(error)}: {self.place}"]

    def _recall(self) -> None:
        try:
            with self.place.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                if str(file["version"]) != VERSION or file["traits"].dtype != TRAITS:
                    return
                keys, traits = file["keys"], file["traits"]
            at = np.searchsorted(keys, self.keys).clip(max=len(keys) - 1)
            known = (keys[at] == self.keys) & (self.keys != 0)
            self.traits[known] = traits[at[known]]
        except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, TypeError, MemoryError):
            return  # none yet, or one that is damaged
