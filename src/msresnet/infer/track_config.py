"""What a user can say about tracking. No torch here: `--help` reads this file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from msresnet.errors import UsageError, at_least
from msresnet.infer.config import Running
from msresnet.run_folder import LATEST
from msresnet.track.library import LOOKS, Tracker

Looks = Literal["auto", "learnt", "features", "none"]
ENDINGS = (".txt", ".jsonl")
FILMS = (".mp4", ".avi", ".mkv")
DECIDING = ("tracker", "appearance", "weight", "score", "keep")
"""What changes tracks, so that it means nothing where these are given."""


@dataclass(frozen=True, kw_only=True)
class FollowOptions:
    """What is followed or measured, and how boxes are joined."""

    input: Positional[str | None] = None
    """A video, a folder of frames in the order of their names, or camera:0, to be followed."""
    model: str = LATEST
    """A run's folder, any other bundle, hf:user/repo, or an exported file or folder; its task is detection."""
    data: str | None = None
    """Labelled videos to measure on: digit-videos, or a folder in MOTChallenge's layout. Default, without an input:
    the run's own."""
    split: Literal["auto", "train", "val", "test"] = "auto"
    """Which set of them. auto: test, else val, else all there is."""
    answers: str | None = None
    """Of labelled videos: measure the tracks in the files NAME.txt of a folder, as MOTChallenge has answers, instead of
    a model's."""
    tracker: Tracker = "bytetrack"
    """What joins boxes to tracks: bytetrack, botsort (with the camera's own movement), ocsort, sort or cbiou."""
    appearance: Looks = "auto"
    """What objects look like decides where boxes alone do not: by vectors that the model learnt (learnt), by its
    features as they are (features, of a run or bundle), or not at all (none). auto: learnt where the model has them."""
    weight: float = LOOKS
    """Share of the looks beside the boxes where boxes are ambiguous, from 0 to 1."""
    score: float | None = None
    """The lowest score of an object that is followed; less sure boxes only continue what is followed already. A
    new object needs 0.1 more, from 0.8 on half of what is missing to 1; with ocsort no more. Default: what the model
    says, 0.3 unless it was changed."""
    keep: int = 30
    """Frames for which an object that is not seen keeps its number."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig(Running, FollowOptions):
    """Follow the objects in a video; or, of labelled videos, measure how well that goes."""

    batch_size: int = 8
    """Frames at a time; of a camera, one."""
    output: str | None = None
    """A file: .txt as MOTChallenge has answers, or .jsonl. Of labelled videos, a folder for a .txt each and
    metrics.json."""
    save_video: str | None = None
    """A .mp4, .avi or .mkv with the tracks on its frames."""
    save_images: str | None = None
    """A folder for the frames with the tracks on them."""
    format: Literal["table", "jsonl", "mot", "json"] = "table"
    """How answers are printed, a line a frame: table, jsonl or mot; how figures are: table or json."""
    fail_under: Annotated[str | None, arg(metavar="hota=0.8,idf1=0.9")] = None
    """Of labelled videos: exit with 8 when a figure is worse than its bound: below it for hota, deta, assa, mota and
    idf1, above it for id_switches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least({"keep": (self.keep, 0)})
        for name, share in {"weight": self.weight, "score": self.score}.items():
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"--{name} {share:g}", why="from 0 to 1", hint=f"--{name} 0.5")
        if self.weight != LOOKS and (self.appearance == "none" or self.tracker == "cbiou"):
            why = "--appearance none" if self.appearance == "none" else "--tracker cbiou"
            raise UsageError(f"--weight {self.weight:g} has no effect here", why=why, hint="leave it out")
        if self.appearance not in ("auto", "none") and self.tracker == "cbiou":
            why = "cbiou compares boxes in a way of its own"
            raise UsageError(f"--appearance {self.appearance} and --tracker cbiou", why=why, hint="--tracker bytetrack")
        if self.input is None:
            self._check_measuring()
        else:
            self._check_following(self.input)

    def _check_measuring(self) -> None:
        """Raise UsageError for what is for a video without labels."""
        for name, given in {"save-video": self.save_video, "save-images": self.save_images}.items():
            if given is not None:
                raise UsageError(f"--{name} has no effect here", why="it is for a video", hint="msresnet track VIDEO")
        if self.answers is not None:
            self._check_answered(self.answers)
        if self.format not in ("table", "json"):
            raise UsageError(f"--format {self.format} is for a video", hint="--format json")
        if self.output is not None and Path(self.output).suffix.lower() in ENDINGS:
            raise UsageError(f"--output {self.output}", why="of labelled videos it is a folder", hint="--output tracks")

    def _check_answered(self, folder: str) -> None:
        """Raise UsageError for what decides about answers, where they are given; a model may still say which data."""
        for name in DECIDING:
            if getattr(self, name) != getattr(TrackConfig, name):
                raise UsageError(f"--{name} has no effect here", why=f"the tracks are in {folder}", hint="leave it out")

    def _check_following(self, text: str) -> None:
        """Raise UsageError for what is for labelled videos, and for files of a kind that cannot be written."""
        measuring: dict[str, object] = {"data": self.data, "fail-under": self.fail_under, "answers": self.answers}
        measuring |= {"split": self.split != "auto"}
        for name, given in measuring.items():
            if given:
                why = f"{text} is followed, not measured"
                raise UsageError(f"--{name} has no effect here", why=why, hint="leave one of the two out")
        if self.format == "json":
            raise UsageError("--format json is for figures", why="a video has no end yet", hint="--format jsonl")
        for name, file, endings in (("output", self.output, ENDINGS), ("save-video", self.save_video, FILMS)):
            if file is not None and Path(file).suffix.lower() not in endings:
                hint = f"--{name} tracks{endings[0]}"
                raise UsageError(f"--{name} {file}", why=f"a file that ends in {' or '.join(endings)}", hint=hint)
