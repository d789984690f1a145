"""Shards of small pictures, a model that tells them apart, and the command that answers them."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import torch

from hostile import encode, random_pixels
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.models.factory import create_classifier
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised

NAMES = ["=cat", "dog", "fox"]
SIDE = 12


def make_model(folder: Path, seed: int = 0) -> Path:
    """A network that answers differently to different images, and the same in every run for one seed.

    Weights of chance now and then had a probability at the edge of its last printed digit, where runtimes may differ.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model = create_classifier("msresnet_micro", num_classes=3, in_chans=1, img_size=(SIDE, SIDE))
    randomised(model, seed)
    preprocess = Preprocess((SIDE, SIDE), 1, mean=(0.5,), std=(0.2,))
    arguments = {"num_classes": 3, "in_chans": 1, "img_size": [SIDE, SIDE]}
    return Bundle(model, "msresnet_micro", arguments, ClassificationTask(NAMES), preprocess).save(folder)


def png(seed: int) -> bytes:
    return encode(random_pixels(SIDE + seed % 3, SIDE, seed=seed), "PNG")


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_shards(folder: Path, shards: int, images: int) -> list[str]:
    """Tar files of images and labels, each with an image that cannot be read."""
    folder.mkdir(parents=True)
    for number in range(shards):
        files = {f"{i:04d}.png": png(1000 * number + i) for i in range(images)}
        files |= {"0001.png": b"no image", "0000.cls": b"1"}
        packed(folder / f"part-{number:02d}.tar", files)
    return [str(path) for path in sorted(folder.iterdir())]


def predict(inputs: list[str], model: Path, output: Path, *more: str) -> int:
    return main(words(inputs, model, output, *more))


def words(inputs: list[str], model: Path, output: Path, *more: str) -> list[str]:
    return ["predict", *inputs, "--model", str(model), "--output", str(output), "--device", "cpu", *more]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
