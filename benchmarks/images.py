"""Images in memory, read by msresnet's own loader, so that all contestants learn from the same bytes.

B batch, N images, C channels, H and W pixels.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

from msresnet.data.loaders import decode_sets
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.data.preprocess import Preprocess, look, plan, with_statistics
from msresnet.data.sample import ArraySource, Source
from msresnet.data.splits import Splits, arrange, open_data


@dataclass(frozen=True)
class Images:
    """A training and a test set: uint8 (N, C, H, W) and class indices (N,); nothing is held out for validation."""

    train: Tensor
    train_targets: Tensor
    test: Tensor
    test_targets: Tensor
    classes: tuple[str, ...]
    preprocess: Preprocess

    def to(self, device: torch.device) -> Images:
        """The same on a device."""
        names = ("train", "train_targets", "test", "test_targets")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def splits(self, options: DataOptions) -> Splits:
        """The sets as `fit` takes them; a validation set is held out of the training set if the options say so."""
        pairs = {"train": (self.train, self.train_targets), "test": (self.test, self.test_targets)}
        found: dict[str, Source] = {
            name: ArraySource(images.cpu().numpy(), targets.cpu().numpy(), self.classes, name)
            for name, (images, targets) in pairs.items()
        }
        return arrange(found, options)


def read(spec: str) -> Images:
    """Decode data as `--data` names it, or a .tar.gz of it. Raises any MsresnetError."""
    with _unpacked(spec) as place:
        splits = open_data(place, DataOptions(val_fraction=0.0))
        sizes, grey = look(splits.train)
        preprocess, _ = plan(PreprocessOptions(), sizes, grey, len(splits.train))
        sets = decode_sets({"train": splits.train, "test": splits.named()["test"]}, preprocess, workers=2)
    train, test = sets["train"], sets["test"]
    preprocess = with_statistics(preprocess, train.images)
    return Images(train.images, train.targets, test.images, test.targets, splits.classes, preprocess)


@contextmanager
def _unpacked(spec: str) -> Iterator[str]:
    if not spec.endswith((".tar.gz", ".tgz", ".tar")):
        yield spec
        return
    with TemporaryDirectory() as folder:
        with tarfile.open(Path(spec).expanduser()) as archive:
            archive.extractall(folder, filter="data")
        yield folder


def random_crops(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Move each image of (B, C, H, W) by up to some pixels; what comes in is mirrored at the border.

    The outcome lies channels-last in memory.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (pixels,) * 4, mode="reflect").permute(0, 2, 3, 1)  # (B, H + 2p, W + 2p, C)
    down, right = torch.randint(2 * pixels + 1, (2, count), generator=generator).to(images.device)
    rows = down[:, None] + torch.arange(height, device=images.device)
    columns = right[:, None] + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def mirrored(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror those images of (B, C, H, W), left to right, that (B,) booleans choose."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)
