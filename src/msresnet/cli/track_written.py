"""Where `track` puts its answers as they come: lines on the screen or in a file, a video, a folder of frames."""

from __future__ import annotations

import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from msresnet.data.decode import printable
from msresnet.files import PART, check_output, disk_errors
from msresnet.infer.track_config import TrackConfig
from msresnet.infer.tracking import Answer
from msresnet.infer.video import Film, rate_of
from msresnet.results import DIGITS

USUAL_RATE = 25.0
"""Frames per second of a video that is made of frames whose rate nobody knows."""


class Sink(ABC):
    """Takes the answers one by one, in order."""

    @abstractmethod
    def add(self, answer: Answer, number: int) -> None:
        """The next frame; numbers count from 1. Raises ResourceError where it cannot be written."""

    def close(self) -> None:  # noqa: B027 - a screen has nothing left
        """All is there."""

    def discard(self) -> None:  # noqa: B027 - what is on a screen stays
        """Something went wrong: leave nothing half written."""


class Screen(Sink):
    """Lines on standard output."""

    def __init__(self, form: str, live: bool) -> None:
        self.line, self.live = FORMS[form], live

    def add(self, answer: Answer, number: int) -> None:
        """The next frame."""
        print(self.line(answer, number), end="")
        if self.live:
            sys.stdout.flush()


class Lines(Sink):
    """A file of lines, which appears when it is whole."""

    def __init__(self, path: Path, form: str) -> None:
        check_output(path, folder=False)
        self.path, self.line = path, FORMS[form]
        self.part = path.with_name(f".{path.name}.{os.getpid()}{PART}")
        with disk_errors(path):
            self.file: IO[str] = self.part.open("w", encoding="utf-8", newline="\n")

    def add(self, answer: Answer, number: int) -> None:
        """The next frame."""
        with disk_errors(self.path):
            self.file.write(self.line(answer, number))

    def close(self) -> None:
        """Give the file its name."""
        with disk_errors(self.path):
            self.file.close()
            self.part.replace(self.path)

    def discard(self) -> None:
        """Remove what is there."""
        self.file.close()
        self.part.unlink(missing_ok=True)


class Video(Sink):
    """A video with the tracks on its frames; a frame that could not be read is left out."""

    def __init__(self, path: Path, rate: float) -> None:
        check_output(path, folder=False)
        self.film = Film(path, rate)

    def add(self, answer: Answer, number: int) -> None:
        """The next frame."""
        if answer.frame.image is not None:
            from msresnet.report.followed import followed

            self.film.add(followed(answer.frame.image, answer.tracks))

    def close(self) -> None:
        """Finish the video."""
        self.film.close()

    def discard(self) -> None:
        """Remove what is there."""
        self.film.discard()


class Pictures(Sink):
    """A folder of frames with the tracks on them, as files that are numbered like the frames."""

    def __init__(self, folder: Path) -> None:
        check_output(folder, folder=True)
        self.folder = folder

    def add(self, answer: Answer, number: int) -> None:
        """The next frame."""
        if answer.frame.image is None:
            return
        from msresnet.report.annotate import as_picture, free_file
        from msresnet.report.followed import followed

        picture = as_picture(followed(answer.frame.image, answer.tracks))
        with disk_errors(self.folder), free_file(self.folder, f"{number:06d}", ".jpg").open("wb") as file:
            picture.save(file, "JPEG", quality=90)


def _table(answer: Answer, number: int) -> str:
    if answer.frame.error is not None:
        return ""
    row = answer.tracks.to_dict()[0]
    there = ", ".join(f"{t['track']} {t['label']} {t['score']:.{DIGITS}f}" for t in row["tracks"])
    return f"{printable(row['id'])}: {there or 'nothing'}\n"


def _json(answer: Answer, number: int) -> str:
    row = {"frame": number} | answer.tracks.to_dict()[0]
    if answer.frame.error is not None:
        row |= {"error": answer.frame.error.what}
    return json.dumps(row, ensure_ascii=True) + "\n"


def _mot(answer: Answer, number: int) -> str:
    return answer.tracks.to_mot(number)


FORMS: dict[str, Callable[[Answer, int], str]] = {"table": _table, "jsonl": _json, "mot": _mot}
"""How a frame is written."""


@contextmanager
def open_sinks(config: TrackConfig, live: bool) -> Iterator[list[Sink]]:
    """Everywhere that answers are to go. Files get their names at the end, unless an error comes first."""
    text, sinks = config.input or "", list[Sink]()
    try:
        if config.output is None or config.format != "table":
            sinks.append(Screen(config.format, live))
        if config.output is not None:
            path = Path(config.output)
            sinks.append(Lines(path, "mot" if path.suffix.lower() == ".txt" else "jsonl"))
        if config.save_video is not None:
            moving = not Path(text).is_dir()
            sinks.append(Video(Path(config.save_video), (rate_of(text) if moving else None) or USUAL_RATE))
        if config.save_images is not None:
            sinks.append(Pictures(Path(config.save_images)))
        yield sinks
        for sink in sinks:
            sink.close()
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise
