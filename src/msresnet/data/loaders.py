"""Decoded sets in memory, and the order in which training sees them.

Every image is decoded and preprocessed once, to uint8, by threads or not; the outcome is the same. The order of an
epoch is a pure function of seed and epoch, so a run can be continued from any step. N images, B batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from msresnet.data.decode import printable
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Batch, Image, Source
from msresnet.errors import DataError, ResourceError

MOST_BAD = 0.01
"""Share of unreadable images above which data is refused when the user did not say what to do."""
CHUNK = 1024


@dataclass(frozen=True)
class Decoded:
    """A set, ready: preprocessed images (N, C, H, W) uint8, class indices (N,), ids, and what could not be read."""

    images: Tensor
    targets: Tensor
    ids: list[str]
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(id, reason) of each unreadable image."""

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """Some of the samples, in the order asked, on a device."""
        return Batch(self.images[indices].to(device), self.targets[indices].to(device), indices)

    def fingerprint(self) -> str:
        """A digest of everything that training sees of the set."""
        digest = hashlib.sha256("\n".join(self.ids).encode("utf-8", "surrogateescape"))
        digest.update(str(tuple(self.images.shape)).encode())
        digest.update(self.targets.numpy().tobytes())
        digest.update(self.images.numpy().data)
        return digest.hexdigest()[:16]


def decode_sets(
    sets: dict[str, Source], preprocess: Preprocess, workers: int = 0, on_bad: str | None = None
) -> dict[str, Decoded]:
    """Read and preprocess whole sets; how many images may be unreadable is judged over all of them together.

    A set that is not for training is judged by itself too: a large training set does not excuse a ruined test set. One
    unreadable image is no ruin, however small the set.

    Args:
        sets: by name.
        preprocess: what every image goes through.
        workers: threads that decode; 0 uses the calling one.
        on_bad: 'fail' at the first unreadable image, 'skip' any number, None up to 1 %.

    Raises DataError for unreadable images, with their number and the first reasons; ResourceError for lack of memory.
    """
    decoded = {name: _decode(source, preprocess, workers, on_bad == "fail") for name, source in sets.items()}
    _judge([entry for data in decoded.values() for entry in data.bad], sum(map(len, sets.values())), on_bad)
    for name, data in decoded.items():
        if name != "train" and len(data.bad) > 1:
            _judge(data.bad, len(sets[name]), on_bad, f" of the {name} set")
    for name, data in decoded.items():
        _check_classes(sets[name], data)
    return decoded


def decode(source: Source, preprocess: Preprocess, workers: int = 0, on_bad: str | None = None) -> Decoded:
    """`decode_sets` for one set."""
    return decode_sets({"": source}, preprocess, workers, on_bad)[""]


def _check_classes(source: Source, data: Decoded) -> None:
    """Raise DataError when none of a class's images can be read: learning goes on without no class in silence."""
    lost = np.setdiff1d(source.targets, data.targets.numpy())
    if len(lost):
        raise DataError(
            f"no image of {', '.join(source.classes[c] for c in lost[:5])} can be read",
            where=_listed(data.bad),
            hint="mend them, or remove the class",
        )


def _decode(source: Source, preprocess: Preprocess, workers: int, strict: bool) -> Decoded:
    def one(index: int) -> Image | DataError:
        try:
            return preprocess.image(source.image(index))
        except DataError as error:
            return error

    images = _allocate(len(source), preprocess)
    pixels = images.numpy()
    kept: list[int] = []
    bad: list[tuple[str, str]] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in range(0, len(source), CHUNK):
            chunk = range(start, min(start + CHUNK, len(source)))
            results = pool.map(one, chunk) if workers else map(one, chunk)
            for index, result in zip(chunk, results, strict=True):
                if isinstance(result, DataError):
                    if strict:
                        raise result
                    bad.append((source.ids[index], result.why or result.what))
                else:
                    pixels[len(kept)] = result
                    kept.append(index)
    targets = torch.from_numpy(np.asarray(source.targets)[kept].copy())
    return Decoded(images[: len(kept)], targets, [source.ids[i] for i in kept], bad)


def _allocate(count: int, preprocess: Preprocess) -> Tensor:
    shape = (count, preprocess.channels, *preprocess.size)
    try:
        return torch.empty(shape, dtype=torch.uint8)
    except RuntimeError as error:
        text = " x ".join(f"{n:,}" for n in shape)
        raise ResourceError(
            "the images do not fit into memory", why=f"{text} bytes are needed", hint="a smaller --image-size"
        ) from error


def _judge(bad: list[tuple[str, str]], total: int, on_bad: str | None, of: str = "") -> None:
    allowed = total if on_bad == "skip" else int(total * MOST_BAD)
    if len(bad) > allowed or len(bad) == total > 0:
        raise DataError(
            f"{len(bad):,} of {total:,} images{of} cannot be read",
            where=_listed(bad),
            why="all are bad" if len(bad) == total else f"more than {MOST_BAD:.0%}",
            hint="mend or remove them" + ("" if len(bad) == total else ", or --on-bad skip"),
        )


def _listed(bad: list[tuple[str, str]]) -> str:
    """The first unreadable images and the reasons."""
    listed = "; ".join(f"{printable(name)}: {reason}" for name, reason in bad[:5])
    return listed + (f"; and {len(bad) - 5:,} more" if len(bad) > 5 else "")


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order (N,) of an epoch: a permutation that only seed and epoch decide."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(mix_seed(seed, epoch)))


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, far from those of its neighbours."""
    digest = hashlib.blake2b(b",".join(str(p).encode() for p in parts), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def training_steps(count: int, batch_size: int) -> int:
    """Batches of an epoch. The last one, if it is not full, is left out, unless it is the only one."""
    return max(1, count // batch_size)


def training_batches(
    data: Decoded, order: Tensor, batch_size: int, device: torch.device, first: int = 0
) -> Iterator[Batch]:
    """An epoch's batches, from step `first`."""
    for step in range(first, training_steps(len(order), batch_size)):
        yield data.batch(order[step * batch_size : (step + 1) * batch_size], device)
