"""Everything a user can say about training: the one source of the flags, the YAML keys and the Python keywords.

No torch here: `msresnet train --help` reads this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.durations import duration
from msresnet.errors import UsageError

Auto = Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is trained on what, and where the run goes."""

    recipe: str | None = None
    """A set of settings with a name and a measured score, see `msresnet train --recipe list`; other settings given
    here replace its own."""
    data: str = "digits"
    """digits (embedded), scaled-digits and binary-digits (made of them), mnist, a folder of class folders, a folder
    with train/ and val/ or test/, a .csv of paths and labels or of pixels, images/ and masks/ (a class for each pixel),
    a .csv of images and masks, boxes as COCO, VOC, YOLO or MOTChallenge have them, digit-scenes, digit-videos,
    crops:PATH (COCO's boxes as images to classify), IDX files, a folder that `msresnet data pack` wrote, hf:name, or
    wds:shards-{000..099}.tar."""
    model: str = "auto"
    """A name from `msresnet models`. Default: msresnet_micro for images up to 32 pixels (on a GPU, for grey ones),
    else msresnet18."""
    model_args: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """Arguments of the model as name=value, such as operator=res2net shortcut_levels=3 stem=deep."""
    weights: str | None = None
    """What to start from: a run or another bundle of yours, 'published' (the model's own, see
    `msresnet models --pretrained`), hf:user/repo, or a safetensors file. What is said of them is taken over unless set
    here: network and normalisation, of a run also size, grey and threshold. Default: random weights."""
    mean: Annotated[tuple[float, ...], arg(metavar="SHARE")] = ()
    """With --std: what pixels, from 0 to 1, are normalised by; one number, or one for each channel. Default: what
    --weights were learnt with, else that of the training data."""
    std: Annotated[tuple[float, ...], arg(metavar="SHARE")] = ()
    """With --mean: the standard deviations."""
    output: str | None = None
    """The run's folder. Default: runs/<data>, or runs/<data>-<model> where --model says which; numbered if taken."""
    exist_ok: bool = False
    """Start over in a folder that holds a run; its files are replaced."""
    resume: bool = False
    """Continue the newest run, or the one in --output, exactly where it was."""


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """For how long, and with which steps."""

    epochs: int | None = None
    """Passes over the training data. Default: 20, or as many as --time-limit or --operations allow."""
    time_limit: str | None = None
    """Longest training time, such as 90s, 2m, 1h30m; the schedule is scaled to fit."""
    operations: float | None = None
    """Most multiply-adds of the training, such as 5e13: three passes over the network as used for each image, at the
    size it is learnt from, and one over a teacher; the schedule is scaled to fit. What branches that fold away cost
    while training is not counted, nor sweeps of 'auto'; --freeze counts as if all learnt."""
    batch_size: int | Auto = 128
    """Images in a step, over all processes together; auto: the one with the most images a second that fits."""
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """adamw; sgd with Nesterov momentum; muon (orthogonal steps) for convolutions with adamw for the rest."""
    lr: float | Auto | None = None
    """Highest learning rate; auto: found by a sweep before training. Default at batch 128: adamw 0.008 under a million
    parameters, else 0.002; muon as adamw; sgd 0.3."""
    weight_decay: float | None = None
    """On weights of two and more dimensions. Default: 0.05, for sgd 0.0005."""
    schedule: Literal["cosine", "one-cycle", "linear"] = "cosine"
    """cosine or linear: warm-up, then down. one-cycle: up and down, the momentum the other way."""
    warmup: float | None = None
    """Share of the schedule in which the learning rate rises, 0.1 by default; one-cycle has its own."""
    clip_grad: float | None = None
    """Largest norm of the gradient. Default: no limit."""
    ema: float = 0.998
    """Decay of the averaged weights for each step; 0 keeps none. The better of raw and averaged is kept."""
    patience: int | None = None
    """Stop after so many epochs without a better validation score. Default: never."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch is always validated."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each layer to the one below it, for fine-tuning: 0.75."""
    freeze: int = 0
    """Stages that keep what --weights gave them, the stem first: 1 is the stem, 2 the first stage too."""


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """What is learnt beyond the labels as they are."""

    label_smoothing: float | None = None
    """Probability spread over all classes in the targets. Default: 0.05, of masks 0."""
    drop_rate: float = 0.0
    """Dropout before the classifier."""
    drop_path_rate: float = 0.0
    """Stochastic depth of the last block."""
    balance: Literal["none", "sample", "loss"] = "none"
    """For classes of different size: draw all classes equally often, or weigh the loss by their rarity. Of classes of
    images, balanced accuracy instead of top-1 then chooses the epoch."""
    skip_easy: float = 0.0
    """Leave out this share of the images that are well known already (whose loss was below the mean), others in each
    epoch; the first epoch and the last tenth of the training learn from all. Epochs take less time: have more."""
    dice: float = 0.0
    """Of masks: share of the Dice loss, which weighs small classes like large ones; the rest is cross-entropy."""
    teacher: str | None = None
    """A trained model (a run, a bundle, hf:user/repo) whose answers are learnt beside the labels. Its images may differ
    from these in size, and in nothing else."""
    teacher_share: float = 0.5
    """Share of the teacher in the loss."""
    temperature: float = 2.0
    """Softens the answers of teacher and student."""


@dataclass(frozen=True, kw_only=True)
class SizeOptions:
    """Training at several image sizes."""

    train_sizes: Annotated[tuple[int, ...], arg(metavar="PIXELS")] = ()
    """Longer sides that training sees, such as 128 160 192; each batch has one of them, none above --image-size, which
    is the size of use. Default: that alone."""
    size_batches: Annotated[tuple[int, ...], arg(metavar="IMAGES")] = ()
    """Batch size for each of --train-sizes. Default: --batch-size for the largest, more for the smaller, by area."""
    size_schedule: Literal["progressive", "random"] = "progressive"
    """progressive: from the smallest to the largest; random: any of them in each step."""
    finish: float = 0.0
    """Last share of the training, at --image-size and without random changes, in which only classifier and
    normalisation learn."""


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """Random changes of the training images."""

    augment: Literal["auto", "none"] = "auto"
    """auto: by the kind of images; each of the following replaces its part."""
    flip: float | None = None
    """Probability of a mirror image."""
    shift: float | None = None
    """Farthest move, as a share of the side."""
    rotate: float | None = None
    """Largest turn in degrees."""
    scale: float | None = None
    """Largest relative change of the object's size: 1 is from half to double."""
    shear: float | None = None
    """Largest slant, as a share of the side."""
    elastic: float | None = None
    """Largest move of a place by bending, as a share of the side."""
    policy: float | None = None
    """Strength, 0 to 1, of two random changes of colour, contrast, sharpness or form for each image."""
    shade: float | None = None
    """Most of the light, 0 to 1, that may be missing on one side of an image: for uneven illumination."""
    noise: float | None = None
    """Largest standard deviation of noise, as a share of white."""
    erase: float | None = None
    """Probability of blanking a rectangle."""
    mixup: float | None = None
    """Beta parameter of blending pairs of images."""
    cutmix: float | None = None
    """Beta parameter of pasting parts of other images."""
    mosaic: float | None = None
    """Of images with boxes: probability of an image that is put together from parts of two."""
    mix_until: float = 1.0
    """Share of the training after which images are mixed no more."""


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Where it runs."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    devices: str | None = None
    """Several processes on this machine: 0,1 for two GPUs, all for all of them, cpu:2 for two processes on the CPU."""
    shard: bool = False
    """Divide weights, gradients and optimiser among the processes (FSDP) instead of a copy in each (DDP)."""
    sync_bn: Literal["auto", "on", "off"] = "auto"
    """Whether batch statistics are those of all processes together; auto: where a process has under 32 images."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the hardware computes in it."""
    compile: bool = False
    """Compile the network with torch.compile: a minute at the start, faster steps after it."""
    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    """Record the network's part of a step once for each size and replay it, which spares small networks most of a
    step's time; auto: on a single GPU, without --compile."""
    tracker: str | None = None
    """Report to tensorboard, wandb, mlflow or trackio as well, or to several, with commas."""
    seed: int = 0
    """Decides weights, order and augmentation."""


# The bases stand in this order so that the flags do in the other: data and model first, preprocessing last.
@dataclass(frozen=True, kw_only=True)
class TrainConfig(
    MachineOptions,
    PreprocessOptions,
    DataOptions,
    AugmentOptions,
    SizeOptions,
    LearningOptions,
    ScheduleOptions,
    RunOptions,
):
    """Train a classifier, segmenter or detector, measure it on held-out images, and write a report."""

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            # A comparison with NaN is false, so it is refused here as well.
            if value not in (None, "auto") and not low <= value < high:
                flag = name.replace("_", "-")
                why = f"it must be at least {low} and below {high}"
                raise UsageError(f"--{flag} {value}", why=why, hint=f"leave --{flag} out for its default")
        if not isinstance(self.lr, str | None) and not 0 < self.lr < float("inf"):
            raise UsageError(f"--lr {self.lr}", why="a learning rate is positive and finite", hint="--lr 0.004")
        if self.weights == "":
            raise UsageError("--weights ''", hint="--weights runs/NAME, published, hf:user/repo or a safetensors file")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=1) <= 0:
            what, why = f"--mean {self.mean} --std {self.std}", "they are finite, and std is above 0"
            raise UsageError(what, why=why, hint="--mean 0.5 --std 0.25")
        if self.time_limit is not None:
            seconds(self.time_limit)
        for wrong, first, second, hint in self._contradictions():
            if wrong:
                raise UsageError(f"{first}, but {second}", hint=hint)

    @property
    def passes(self) -> float:
        """Most passes over the training data; infinity where another limit ends the training."""
        unlimited = self.time_limit is None and self.operations is None
        return self.epochs or (DEFAULT_EPOCHS if unlimited else math.inf)

    def _contradictions(self) -> list[tuple[bool, str, str, str]]:
        """Settings that cannot stand together: whether they do, both in words, and what to do."""
        asked = next((name for name in AUGMENTATIONS if getattr(self, name)), None)
        sizes, batches = self.train_sizes, self.size_batches
        late = self.warmup is not None and self.schedule == "one-cycle"
        unequal = bool(batches) and len(batches) != len(sizes)
        example = "--train-sizes 128 192 --size-batches 128 64"
        return [
            (late, "--schedule one-cycle", "--warmup", "leave --warmup out: it rises for 30 %"),
            (self.augment == "none" and asked is not None, "--augment none", f"--{asked}", "leave one of them out"),
            (unequal, "--size-batches", "not one for each of --train-sizes", example),
            (min(sizes, default=2) < 2, "--train-sizes", "one is under 2 pixels", example),
            (min(batches, default=2) < 2, "--size-batches", "one is under 2 images", example),
            (
                self.shard and self.optimizer == "muon",
                "--shard",
                "--optimizer muon",
                "muon needs whole matrices: adamw, sgd",
            ),
            (
                self.skip_easy > 0 and self.balance == "sample",
                "--skip-easy",
                "--balance sample draws images of its own",
                "--balance loss",
            ),
            (bool(self.mean) != bool(self.std), "--mean and --std", "one is missing", "--mean 0.5 --std 0.25"),
            (self.devices is not None and self.device != "auto", "--devices", "--device", "leave --device out"),
        ]


def seconds(text: str) -> float:
    """Seconds of a time limit, as `duration` reads them. Raises UsageError for anything else, zero included."""
    total = duration(text)
    if total is None:
        raise UsageError(f"{text!r} is not a length of time", hint="--time-limit 90s, 2m or 1h30m")
    if total <= 0:
        raise UsageError("a time limit of zero leaves nothing to do", hint="--time-limit 2m")
    return total


DEFAULT_EPOCHS = 20
AUGMENTATIONS = (
    "flip", "shift", "rotate", "scale", "shear", "elastic", "policy", "shade", "noise", "erase", "mixup", "cutmix",
    "mosaic"
)  # fmt: skip
_BIG = 10**9
_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, _BIG),
    ("operations", 1, 1e30),
    ("batch_size", 2, _BIG),  # one image with maps of one pixel has no variance for batch normalisation
    ("workers", 0, 1024),
    ("weight_decay", 0, _BIG),
    ("warmup", 0, 1),
    ("label_smoothing", 0, 1),
    ("clip_grad", 1e-12, _BIG),
    ("ema", 0, 1),
    ("patience", 1, _BIG),
    ("validate_every", 1, _BIG),
    ("layer_decay", 1e-6, 1.0001),
    ("freeze", 0, 100),
    ("skip_easy", 0, 1),
    ("dice", 0, 1.0001),
    ("teacher_share", 0, 1.0001),
    ("temperature", 1e-3, 1e3),
    ("finish", 0, 1),
    ("mix_until", 0, 1.0001),
    ("drop_rate", 0, 1),
    ("drop_path_rate", 0, 1),
    ("flip", 0, 1.0001),
    ("shift", 0, 1.0001),
    ("rotate", 0, 180.0001),
    ("scale", 0, 10),
    ("shear", 0, 1.0001),
    ("elastic", 0, 1.0001),
    ("policy", 0, 1.0001),
    ("shade", 0, 1.0001),
    ("noise", 0, 1.0001),
    ("erase", 0, 1.0001),
    ("mixup", 0, _BIG),
    ("cutmix", 0, _BIG),
    ("mosaic", 0, 1.0001),
    ("val_fraction", 0, 1),
    ("test_fraction", 0, 1),
    ("seed", 0, 2**63),
)
