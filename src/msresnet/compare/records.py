"""What each training left: one file each in the comparison's folder, whole or absent, so that nothing is done twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.compare.contestants import Contestant
from msresnet.data.sample import Source
from msresnet.errors import UsageError
from msresnet.files import write_json
from msresnet.results import Evaluation, classified
from msresnet.rows import csv_text
from msresnet.train.begun import check_same, of_data, of_files
from msresnet.train.config import TrainConfig

Flags = npt.NDArray[np.bool_]
FREE = ("output", "workers", "seed")
"""Settings that do not change what a training computes, or that a file's name says."""
TRAININGS = "trainings"
SCORES = ("val_top1", "test_top1")
COLUMNS = ("contestant", "seed", *SCORES, "seconds", "epochs", "images_per_second", "params", "macs", "failure")


@dataclass(frozen=True)
class Answers:
    """What a trained model got right on a set: flags (N,), and a digest of the images' names and truths."""

    correct: Flags
    images: str

    @property
    def top1(self) -> float:
        """Share of right answers."""
        return float(self.correct.mean())

    @staticmethod
    def of(measured: Evaluation) -> Answers:
        """From an evaluation."""
        predictions = classified(measured.predictions)
        digest = hashlib.sha256("\n".join(predictions.ids).encode("utf-8", "surrogateescape"))
        digest.update(measured.targets.tobytes())
        return Answers(predictions.indices == measured.targets, digest.hexdigest()[:16])


@dataclass(frozen=True)
class Training:
    """One training of a contestant.

    Args:
        seconds, epochs: how long it took, validation included.
        images_per_second: in training.
        params, macs: of the network as trained, and as used.
        answers: by set, 'val' and 'test'.
        failure: why there is no model; '' where there is one.
        code: the exit code that belongs to the failure.
        notes: what was inferred and met.
        copies: test images that are also in the training set; None where nobody looked.
    """

    contestant: str
    seed: int
    seconds: float = 0.0
    epochs: int = 0
    images_per_second: float = 0.0
    params: int = 0
    macs: int = 0
    answers: dict[str, Answers] | None = None
    failure: str = ""
    code: int = 0
    notes: tuple[str, ...] = ()
    copies: int | None = None

    def row(self) -> dict[str, Any]:
        """Its figures, without the answers."""
        scores = {f"{name}_top1": answers.top1 for name, answers in (self.answers or {}).items()}
        return {name: (vars(self) | dict.fromkeys(SCORES) | scores)[name] for name in COLUMNS}

    def to_dict(self, config: TrainConfig, began: Mapping[str, str]) -> dict[str, Any]:
        """Plain values, with the settings it was trained by, and digests of what it began with."""
        answers = {name: _packed(item) for name, item in (self.answers or {}).items()}
        met = {"notes": list(self.notes), "copies": self.copies}
        return self.row() | met | {"answers": answers, "settings": settings(config), "began": dict(began)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Training:
        """From plain values. Raises KeyError, TypeError or ValueError for others."""
        kept = {name: values[name] for name in COLUMNS if name not in SCORES}
        answers = {name: _unpacked(item) for name, item in values["answers"].items()}
        return Training(**kept, answers=answers, notes=tuple(values["notes"]), copies=values["copies"])


def _packed(item: Answers) -> dict[str, Any]:
    """One bit for each image."""
    return {"n": len(item.correct), "images": item.images, "correct": np.packbits(item.correct).tobytes().hex()}


def _unpacked(item: dict[str, Any]) -> Answers:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(item["correct"]), np.uint8), count=int(item["n"]))
    return Answers(bits.astype(bool), str(item["images"]))


def settings(config: TrainConfig) -> dict[str, Any]:
    """What decides a training, as JSON holds it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return {name: value for name, value in values.items() if name not in FREE}


class Records:
    """The trainings of a comparison on the disk, whose lock the caller holds.

    Args:
        folder: None keeps everything in memory.
        train: what all learn from.
    """

    def __init__(self, folder: Path | None, train: Source) -> None:
        self.folder = folder
        self.kept: dict[tuple[str, int], Training] = {}
        self.data = {} if folder is None else of_data(train)
        self.began: dict[str, dict[str, str]] = {}

    def load(self, contestants: Sequence[Contestant], seeds: Sequence[int], split: str) -> None:
        """Read what is finished, and measured on a set.

        Raises UsageError, with the difference, for other settings; DataError and ModelError for other training data,
        and where weights or a teacher have changed.
        """
        for contestant in contestants:
            if self.folder is not None:
                config = contestant.config
                self.began[contestant.name] = self.data | of_files((config.weights, config.teacher))
            for seed in seeds:
                path = self._path(contestant, seed)
                if path is None or not path.is_file():
                    continue
                training, before, began = _read(path)
                _check_unchanged(before, settings(contestant.config), contestant.name, path)
                if split in (training.answers or {}):  # what failed is tried again
                    check_same(began, self.began[contestant.name], "comparison", str(path))
                    self.kept[contestant.name, seed] = training

    def add(self, contestant: Contestant, training: Training) -> None:
        """Keep a training."""
        self.kept[contestant.name, training.seed] = training
        path = self._path(contestant, training.seed)
        if path is not None:
            write_json(path, training.to_dict(contestant.config, self.began[contestant.name]))

    def _path(self, contestant: Contestant, seed: int) -> Path | None:
        return None if self.folder is None else self.folder / TRAININGS / f"{contestant.slug}-seed-{seed}.json"


def _read(path: Path) -> tuple[Training, dict[str, Any], dict[str, str]]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Training.from_dict(values), dict(values["settings"]), dict(values["began"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise UsageError(
            "a finished training cannot be read", where=str(path), why=why, hint="remove the file"
        ) from error


def _check_unchanged(before: dict[str, Any], now: dict[str, Any], name: str, path: Path) -> None:
    keys = [key for key in now if key in before and before[key] != now[key]]
    if keys:
        rows = "; ".join(f"{key}: {before[key]!r} before, {now[key]!r} now" for key in keys)
        hint = "the settings as they were, another name for the contestant, or another --output"
        raise UsageError(f"{name} was trained with other settings", where=str(path), why=rows, hint=hint)


def to_csv(trainings: Sequence[Training]) -> str:
    """One row for each training."""
    return csv_text([COLUMNS, *(training.row().values() for training in trainings)])
