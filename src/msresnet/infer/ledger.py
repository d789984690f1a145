"""What is done in a folder of answers, and who is at what: any number of processes work on it without talking.

    answers/
      shard-000.csv              a shard's answers; it appears whole
      .msresnet/settings.json    the model and the settings, the same for all of them
      .msresnet/done/shard-000.json   that they are whole, and of which shard
      .msresnet/busy/shard-000   held by the process that is at it; the kernel frees it on death

The locks save work, no more. Where a disk does not keep them between machines, a shard is answered twice, and the
second answer replaces the first by the same bytes.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from msresnet.bundle import bundle_of
from msresnet.data.decode import printable
from msresnet.errors import ResourceError, UsageError
from msresnet.files import (
    PART,
    check_free,
    check_output,
    disk_errors,
    foreign,
    make_folder,
    sweep,
    write_atomic,
    write_json,
)
from msresnet.infer.shards import Shard
from msresnet.trained import Exported, Trained

FOLDER, SETTINGS, DONE, BUSY = ".msresnet", "settings.json", "done", "busy"
NAMED = "model"
"""The setting that is for people; the digest says whether a model is another."""


@dataclass(frozen=True)
class Mark:
    """What is noted of a shard whose answers are whole: its stamp, the file's size in bytes, images, and bad ones."""

    shard: str
    size: int
    images: int
    unreadable: int


class Ledger:
    """A folder of answers.

    Args:
        folder: made where there is none.
        settings: plain values that answers depend on.
        ending: of the files of answers.

    Raises UsageError for a folder that holds other things, or answers of another model or other settings, with the
    difference; ResourceError for a disk that cannot be written or has no locks.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], ending: str) -> None:
        self.folder, self.inner, self.ending = folder, folder / FOLDER, ending
        check_output(folder, folder=True)
        if foreign(folder, ours=(FOLDER,)) and not self.inner.is_dir():  # in this order: others may just have begun
            check_free(folder, ours=(FOLDER,))
        for name in (DONE, BUSY):
            with disk_errors(self.inner / name):
                make_folder(self.inner / name)
        with _held(self.inner / "lock", wait=True):
            sweep(self.inner)
            self._agree(settings)

    def _agree(self, settings: dict[str, Any]) -> None:
        path = self.inner / SETTINGS
        if not path.exists():
            write_json(path, settings)
        there = _json(path)
        if there is None:
            raise UsageError("the folder's settings cannot be read", where=printable(path), hint="another --output")
        different = [
            f"{key}: {there.get(key, 'none')} there, {settings.get(key, 'none')} now"
            for key in dict.fromkeys([*there, *settings])
            if key != NAMED and there.get(key) != settings.get(key)
        ]
        if different:
            models = f" ({there.get(NAMED)} there, {settings[NAMED]} now)" if "digest" in different[0] else ""
            raise UsageError(
                "--output holds answers of another model or of other settings",
                where=str(self.folder),
                why="; ".join(different) + models,
                hint="another --output, or the same command as before",
            )

    def place(self, name: str) -> Path:
        """Where a shard's answers go."""
        return self.folder / f"{name}.{self.ending}"

    def done(self, shard: Shard, stamp: str) -> Mark | None:
        """What was noted of a shard whose answers are there, whole, and of the shard as it is now; else None."""
        noted = _json(self._mark(shard.name))
        try:
            mark = Mark(**noted) if noted is not None else None
            return mark if mark and mark.shard == stamp and mark.size == self.place(shard.name).stat().st_size else None
        except (OSError, TypeError):  # no answers, or a note that is none: the shard is answered again
            return None

    def begun(self, name: str) -> bool:
        """Whether a process is at a shard, or was killed at it."""
        return (self.inner / BUSY / name).exists()

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Keep others from a shard; False where another process is at it. What a killed one left of it is removed."""
        with _held(self.inner / BUSY / name, wait=False) as handle:
            if handle is not None:
                if os.fstat(handle).st_size:  # listing a folder of many answers takes long: only where it is needed
                    self._sweep(name)
                os.pwrite(handle, b"\n", 0)
            yield handle is not None

    def _sweep(self, name: str) -> None:
        for folder, file in ((self.folder, self.place(name).name), (self.inner / DONE, f"{name}.json")):
            for part in folder.glob(f".{glob.escape(file)}.*{PART}"):
                part.unlink(missing_ok=True)

    def keep(self, shard: Shard, stamp: str, write: Callable[[Path], tuple[int, int]]) -> Mark:
        """Let `write` answer a shard into a file, which then appears; it gives the images and the bad ones."""
        counts: list[tuple[int, int]] = []
        place = self.place(shard.name)
        write_atomic(place, lambda part: counts.append(write(part)))
        images, unreadable = counts[0]
        mark = Mark(stamp, place.stat().st_size, images, unreadable)
        write_json(self._mark(shard.name), asdict(mark))
        return mark

    def _mark(self, name: str) -> Path:
        return self.inner / DONE / f"{name}.json"


def digest(trained: Trained) -> str:
    """A text that is another for every model that may answer differently: of its weights, classes and preprocess."""
    config = trained.config()
    known = {key: config[key] for key in ("architecture", "arguments", "task", "preprocess")}
    found = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    if isinstance(trained, Exported):
        found.update(trained.network.encode())
        return found.hexdigest()[:16]
    for name, tensor in sorted(bundle_of(trained, "this").model.state_dict().items()):
        found.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


@contextlib.contextmanager
def _held(path: Path, wait: bool) -> Iterator[int | None]:
    """Hold a file that is made for it and removed in the end; None, without `wait`, where another process holds it."""
    while (handle := _taken(path, wait)) is None and wait:
        pass
    try:
        yield handle
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


def _taken(path: Path, wait: bool) -> int | None:
    """A handle that holds a file, or None where another holds it, or has removed it since it was opened."""
    with disk_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.fstat(handle).st_nlink:
            return handle
    except BlockingIOError:
        pass
    except OSError as error:
        os.close(handle)
        hint = "--output on a disk with locks: a local one, NFS 4, or Lustre mounted with flock"
        raise ResourceError("the disk has no locks", where=printable(path), why=str(error), hint=hint) from error
    os.close(handle)
    return None


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
