"""What a user can say about prediction and evaluation. No torch here: `--help` reads this file."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast, get_args

from tyro.conf import Positional, arg

from msresnet.data.options import DataOptions
from msresnet.durations import duration
from msresnet.errors import UsageError, at_least
from msresnet.machine import cores
from msresnet.run_folder import LATEST

TTA = Literal["none", "flip", "shifts", "flip+shifts", "scales", "flip+scales"]
Precision = Literal["auto", "fp32", "bf16"]
Engine = Literal["auto", "torch", "compiled", "onnxruntime", "openvino"]
"""What can run a network."""
Form = Literal["csv", "jsonl", "parquet"]
"""How a shard's answers are written."""
FORMS: tuple[Form, ...] = get_args(Form)
SMALLEST_TILE, MOST_OVERLAP, MOST_SECONDS = 8, 0.9, 1e6


@dataclass(frozen=True)
class Budget:
    """When a network with several exits stops: at an answer this sure (0 to 1), or after these seconds an image."""

    confidence: float | None = None
    seconds: float | None = None


def budget(text: str) -> Budget:
    """A budget from '0.9' (how sure), or from a time with its unit, such as '5ms'. Raises UsageError otherwise."""
    if seconds := duration(text, bare=False):
        return Budget(seconds=seconds)
    if re.fullmatch(r"\d?\.\d+|1", text) and 0 < float(text) <= 1:
        return Budget(confidence=float(text))
    raise UsageError(f"--budget {text}", why="a probability up to 1, or a time", hint="--budget 0.9, or --budget 5ms")


@dataclass(frozen=True, kw_only=True)
class Running:
    """What runs a network, and how: the flags of each verb that runs one, and what `open_predictor` takes.

    `Viewed` and `Limited` add what only torch can do. Raises UsageError for counts below 1, and for a budget beside
    views or compiled code.
    """

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    backend: Engine = "auto"
    """What runs the network: torch, compiled (torch.compile), onnxruntime or openvino. Default: torch for a run, the
    fastest that is installed for an exported file."""
    precision: Precision = "auto"
    """fp32, or bf16 where the processor computes in it. Default: fp32, or what an exported file was made for."""
    threads: int | None = None
    """Of the network. Default: one for each core."""
    batch_size: int = 64
    """Images at a time."""

    def __post_init__(self) -> None:
        at_least({"batch-size": (self.batch_size, 1), "threads": (self.threads, 1)})
        if self.tta not in get_args(TTA):
            raise UsageError(f"unknown views {self.tta!r}", hint=", ".join(get_args(TTA)))
        if self.limit is None:
            return
        if self.tta != "none":
            why = "every view of an image goes through the whole network"
            raise UsageError(f"--tta {self.tta} and a budget contradict each other", why=why, hint="one of the two")
        if self.backend == "compiled":
            why = "compiled code goes to the end of the network"
            raise UsageError("--backend compiled and a budget contradict each other", why=why, hint="one of the two")

    @property
    def tta(self) -> TTA:
        """Views of each image whose outputs are averaged: none, where no flag says otherwise."""
        return "none"

    @property
    def limit(self) -> Budget | None:
        """When a network with several exits stops: None, at its end, where no flag says otherwise."""
        return None


@dataclass(frozen=True, kw_only=True)
class Viewed(Running):
    """The same, for several views of each image."""

    tta: TTA = "none"
    """Average over views of each image: its mirror image (flip), small moves (shifts), other sizes (scales), or flip
    with one of the others. Each view costs a pass through the network."""


@dataclass(frozen=True, kw_only=True)
class Limited(Viewed):
    """The same, for a network that may stop early as well."""

    budget: str | None = None
    """For networks with several exits: leave at an answer this sure, such as 0.9, or go as deep as a time for each
    image allows, such as 5ms."""

    @property
    def limit(self) -> Budget | None:
        """What the budget says. Raises UsageError for a text that says none."""
        return None if self.budget is None else budget(self.budget)


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """Which model is measured, on which set."""

    model: str = LATEST
    """A run's folder, any other bundle, hf:user/repo, or an exported file or folder."""
    data: str | None = None
    """Labelled data in any form that `train` takes. Default: the run's own."""
    split: Literal["auto", "train", "val", "test"] = "auto"
    """Which set. auto: test, else val, else all there is."""


# The bases of configurations stand in this order so that the flags do in the other.
@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Viewed, SetOptions, DataOptions):
    """Measure a trained model on labelled images."""

    baseline: str | None = None
    """Another model, measured on the same images: its figures stand beside, and McNemar's exact test says whether the
    difference is more than chance."""
    calibrate: bool = False
    """Fit a temperature, by which logits are divided, so that probabilities mean what they say; for a detector the
    score from which its boxes are shown, where precision and recall are best together. It is kept in the model, and
    fitted on the validation set, or on the set that --split or --data names."""
    abstain_below: float | None = None
    """Withhold answers less sure than this, such as 0.9; says how many are left, and how many of them are right."""
    object_scale: Annotated[str | None, arg(metavar="0.5,1,2")] = None
    """Make the object smaller or larger within its frame, which is filled with the image's own border colour; gives
    accuracy at each scale, and the area under the curve over the logarithm of the scale, from 0 to 1."""
    image_sizes: Annotated[str | None, arg(metavar="20,28,40")] = None
    """Bring the images to other sizes, in pixels of the longer edge; gives the same curve over sizes."""
    output: str | None = None
    """A folder for metrics.json, the predictions and report.html. Default: nothing is written."""
    predictions: Form = "csv"
    """With --output: how the answer for each image is written, as predictions.csv, .jsonl or .parquet."""
    format: Literal["table", "json"] = "table"
    """How the figures are printed."""
    fail_under: Annotated[str | None, arg(metavar="top1=0.9,ece=0.05")] = None
    """Exit with 8 when a figure is worse than its bound: below it where more is better (top1, top5,
    balanced_accuracy, macro_f1; object_scale and image_size are the areas, answered and answered_accuracy are of
    --abstain-below), above it where less is better (loss, ece, aurc)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least({"workers": (self.workers, 0)})
        if self.abstain_below is not None and not 0 < self.abstain_below <= 1:
            raise UsageError(f"--abstain-below {self.abstain_below:g}", why="a probability", hint="--abstain-below 0.9")
        if self.calibrate and self.tta != "none":
            why = "what is fitted is kept for answers without it"
            raise UsageError(f"--calibrate and --tta {self.tta} contradict each other", why=why, hint="one of the two")
        if self.calibrate and self.model.startswith("hf:"):
            hint = "a copy on this machine"
            raise UsageError("--calibrate writes into the model, which lies elsewhere", where=self.model, hint=hint)
        _ = self.scales, self.sizes

    @property
    def scales(self) -> tuple[float, ...]:
        """Those of --object-scale, rising. Raises UsageError for what is not a list of them."""
        return numbers("object-scale", self.object_scale, "0.5,1,2")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Those of --image-sizes, rising. Raises UsageError for what is not a list of them."""
        found = numbers("image-sizes", self.image_sizes, "20,28,40")
        if any(side != int(side) for side in found):
            raise UsageError(f"--image-sizes {self.image_sizes}", why="whole pixels", hint="--image-sizes 20,28,40")
        return tuple(int(side) for side in found)


def numbers(flag: str, text: str | None, example: str) -> tuple[float, ...]:
    """Different numbers above zero, rising, from '0.5,1,2'; none from None. Raises UsageError for anything else."""
    try:
        found = [] if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < number < math.inf for number in found):
        raise UsageError(f"--{flag} {text}", why="numbers above 0, separated by commas", hint=f"--{flag} {example}")
    if len(set(found)) < len(found):
        raise UsageError(f"--{flag} {text}", why="each of them once", hint=f"--{flag} {example}")
    return tuple(sorted(found))


@dataclass(frozen=True, kw_only=True)
class AnswerOptions:
    """What is answered, by which model, and where the answers go."""

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders, patterns such as 'photos/*.jpg', .zip and .tar files, videos, camera:0, or - for a list of files
    or one image on standard input. A first one that is a run or another model is the model. With --output FOLDER,
    shards: .tar files of images, folders, .txt or .csv lists of paths, patterns, 'shard-{000..099}.tar'."""
    model: str = LATEST
    """A run's folder, any other bundle, hf:user/repo, or an exported file or folder."""
    output: str | None = None
    """A file that ends in .csv, .jsonl or .parquet: all answers, once they are there. A folder: each shard's answers
    become a file there, which appears when it is whole. Shards that are done are skipped, so the same command
    continues; any number of processes that see the folder may run it at once. With --tile, a folder of maps."""
    top: int = 5
    """How many classes to list for each image."""
    score: float | None = None
    """Of boxes: the lowest score that is shown. Default: what the model says, 0.3 unless it was changed."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Limited, AnswerOptions):
    """Say what is on images: of a few, printed; of shards without end, with --output."""

    workers: int = field(default_factory=cores)
    """Threads that decode images; 0 decodes in the main one. Default: one for each core."""
    format: Literal["table", "json", "jsonl", "csv", "parquet"] | None = None
    """How the answers are printed: table (the default), json, jsonl or csv; or written, with --output: csv (the
    default), jsonl or parquet."""
    save_images: str | None = None
    """A folder for the images, reduced to at most 1,024 pixels, with their answers on them."""
    allow_urls: bool = False
    """Let inputs, and lines of a list, be http:// and https:// addresses, each of one image."""
    every: str | None = None
    """Of videos and cameras, an image each time so long has passed, such as 0.5s or 2m. Default: 1s."""
    tile: Literal["auto"] | int | None = None
    """Look at images of any size tile by tile: of so many pixels a side, or (auto) as many as the network takes."""
    overlap: float = 0.25
    """Share of a tile that the next one covers again."""
    whole: Literal["mean", "max"] = "mean"
    """What tiles say about the whole image: the mean over its area, or the highest each class reaches anywhere."""
    engine: Literal["plain", "ray"] = "plain"
    """With --output: plain works in this process, ray on all machines of a Ray cluster (or on this one)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least({"workers": (self.workers, 0), "top": (self.top, 1)})
        if self.every is not None:
            interval(self.every)
        self._check_tiles()
        place = self.place
        if place == "folder":
            self._check_shards()
        elif self.engine == "ray" or (self.format == "parquet" and place != "file"):
            what = "--engine ray" if self.engine == "ray" else "--format parquet"
            hint = "--output FOLDER" if self.engine == "ray" else "--output answers.parquet"
            raise UsageError(f"{what} needs a place for the answers", hint=hint)
        elif place == "file" and self.format not in (None, self.form):
            what = f"--format {self.format}, but --output {self.output}"
            raise UsageError(what, why="the file's ending says its format", hint="one of the two")

    @property
    def place(self) -> Literal["screen", "file", "folder", "maps"]:
        """Where answers go: each printed, all into one file, a file a shard, or a folder with the maps of tiles."""
        if self.tile is not None:
            return "screen" if self.output is None else "maps"
        if self.output is None:
            return "screen"
        return "file" if Path(self.output).suffix[1:] in FORMS else "folder"

    @property
    def form(self) -> Form:
        """The format of the file, or of those in the folder, that --output names."""
        return cast(Form, Path(self.output or "").suffix[1:] if self.place == "file" else self.format or "csv")

    def _check_tiles(self) -> None:
        if self.tile is None:
            for name, value in {"overlap": self.overlap != 0.25, "whole": self.whole != "mean"}.items():
                if value:
                    raise UsageError(f"--{name} has no effect here", why="it is for tiles", hint="--tile auto")
            return
        tiling(self)
        for name, given in {"save-images": self.save_images, "every": self.every}.items():
            if given is not None:
                raise UsageError(f"--{name} and --tile contradict each other", hint="one of the two")
        if self.output is not None and Path(self.output).suffix[1:] in FORMS:
            hint = f"--output {Path(self.output).stem or 'maps'}"
            raise UsageError(f"--output {self.output}", why="with --tile it is a folder", hint=hint)

    def _check_shards(self) -> None:
        """Raise UsageError for what answers to shards cannot be."""
        if self.format not in (None, *FORMS):
            raise UsageError(f"--format {self.format} is for the screen", hint=f"--format {', '.join(FORMS)}")
        if self.limit is not None and self.limit.seconds is not None:
            why = "a time reaches another exit on every machine, so that shards would be answered differently"
            raise UsageError(f"--budget {self.budget} with --output", why=why, hint="--budget 0.9")
        useless = {"save-images": self.save_images, "allow-urls": self.allow_urls, "every": self.every}
        for name, given in useless.items():
            if given:
                why = "shards hold images, and each becomes a file of answers"
                raise UsageError(f"--{name} with --output {self.output}", why=why, hint="--output answers.csv, or none")


@dataclass(frozen=True)
class Tiling:
    """How a large image is taken apart.

    Args:
        side: of a tile, in pixels; None is what the network takes.
        overlap: share of a tile that the next one covers again.
        whole: what the tiles say about the whole image.

    Raises UsageError for values out of range.
    """

    side: int | None = None
    overlap: float = 0.25
    whole: Literal["mean", "max"] = "mean"

    def __post_init__(self) -> None:
        if self.side is not None and self.side < SMALLEST_TILE:
            raise UsageError(f"--tile {self.side}", why=f"pixels, at least {SMALLEST_TILE}", hint="--tile auto")
        if not 0 <= self.overlap <= MOST_OVERLAP:
            why = f"a share from 0 to {MOST_OVERLAP}"
            raise UsageError(f"--overlap {self.overlap:g}", why=why, hint="--overlap 0.25")


def tiling(config: PredictConfig) -> Tiling:
    """What a configuration says about tiles. Raises UsageError for values out of range."""
    side = config.tile if isinstance(config.tile, int) else None
    return Tiling(side, config.overlap, config.whole)


def interval(text: str) -> float:
    """Seconds from one image of a video to the next, as `duration` reads them. Raises UsageError for anything else."""
    found = duration(text)
    if found is None or not 0 < found < MOST_SECONDS:
        raise UsageError(f"--every {text}", why="seconds from one image to the next", hint="--every 0.5s")
    return found


def which_run(model: str) -> list[str]:
    """What to say when a model is the newest run: which one that is."""
    path = Path(LATEST)
    if Path(model) != path or not path.is_symlink():
        return []
    return [f"{LATEST} is {path.parent / path.readlink()}"]
