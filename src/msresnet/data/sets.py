"""Sets of preprocessed images as training and evaluation take them. N images, B batch, C channels, H and W pixels."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from msresnet.data.sample import Batch, Source
from msresnet.data.targets import BoxTable
from msresnet.data.upload import UPLOADING, sent

FINGERPRINTED = 1_000
"""Images whose pixels go into a set's fingerprint, evenly spaced; of small sets, all."""


class Samples(ABC):
    """A set, ready to be asked for batches.

    Attributes:
        targets: class index of each sample (N,); 0 where it has a mask or boxes instead.
        ids: where each sample comes from.
    """

    def __init__(self, targets: Tensor, ids: Sequence[str]) -> None:
        self.targets, self.ids = targets, ids

    def __len__(self) -> int:
        return len(self.targets)

    @property
    @abstractmethod
    def bad(self) -> list[tuple[str, str]]:
        """(id, reason) of each unreadable image that was met so far, in the order of the set."""

    @property
    def notes(self) -> list[str]:
        """What a person should know that came up while the set was used."""
        return []

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """One image (C, H, W) uint8."""

    @abstractmethod
    def truth(self, index: int) -> Any:
        """What belongs to one sample, as the data has it: class index, mask or boxes at the image's own size."""

    @abstractmethod
    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one sample's image as it came."""

    @abstractmethod
    def batches(self, parts: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """A batch on a device for each tensor of indices, in order; what comes next is made ready meanwhile.

        `indices` of a batch differ from those asked for where an image could not be read and another of its class
        took its place.
        """

    def in_order(self, batch_size: int, device: torch.device) -> Iterator[Batch]:
        """Every readable sample once, in the order of the set: those that others took the place of are left out."""
        parts = torch.arange(len(self)).split(batch_size)
        for part, batch in zip(parts, self.batches(parts, device), strict=True):
            own = batch.indices == part
            if bool(own.all()):
                yield batch
            elif bool(own.any()):
                there = own.to(device)
                yield Batch(batch.images[there], batch.targets[there], part[own])

    def fingerprint(self) -> str:
        """A digest of names, labels, and the pixels of up to a thousand images; the same however the set is held."""
        digest = hashlib.sha256()
        for name in self.ids:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
        digest.update(self.targets.numpy().tobytes())
        for batch in self.batches(evenly(len(self), FINGERPRINTED).split(100), torch.device("cpu")):
            digest.update(str(tuple(batch.images.shape)).encode())
            digest.update(batch.images.numpy().tobytes())
            if batch.targets.ndim > 1:
                digest.update(batch.targets.numpy().tobytes())
        return digest.hexdigest()[:16]

    def digests(self, most: int) -> list[str]:
        """A digest of the pixels of each of up to `most` images, evenly spaced: equal images have equal ones."""
        found: list[str] = []
        for batch in self.batches(evenly(len(self), most).split(100), torch.device("cpu")):
            found += [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() for image in batch.images.numpy()]
        return found


class Decoded(Samples):
    """A set in memory, or mapped into it.

    Args:
        images: (N, C, H, W) uint8.
        targets: (N,).
        ids: N texts.
        bad: what could not be read; it is not in the set.
        instead: what batches give instead of class indices: masks uint8 (N, H, W), or boxes.
        origin: the source, and the place of each sample in it; None where samples are all that is known.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        ids: Sequence[str],
        bad: Sequence[tuple[str, str]] = (),
        *,
        instead: Tensor | BoxTable | None = None,
        origin: tuple[Source, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(targets, ids)
        self.images, self._bad, self.instead, self.origin = images, list(bad), instead, origin

    @property
    def bad(self) -> list[tuple[str, str]]:
        """(id, reason) of each unreadable image."""
        return self._bad

    def image(self, index: int) -> Tensor:
        """One image (C, H, W) uint8."""
        return self.images[index]

    def truth(self, index: int) -> Any:
        """What belongs to one sample."""
        if self.origin is None:
            assert not isinstance(self.instead, BoxTable)  # they come with their source
            return int(self.targets[index]) if self.instead is None else self.instead[index].numpy()
        source, places = self.origin
        return source.truth(places[index])

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of one sample's image as it came."""
        if self.origin is None:
            return self.images.shape[-2], self.images.shape[-1]
        source, places = self.origin
        return source.size(places[index])

    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """Some of the samples, in the order asked, on a device."""
        images, targets = self.images[indices], (self.targets if self.instead is None else self.instead)[indices]
        with UPLOADING:
            return Batch(sent(images, device), sent(targets, device), indices)

    def batches(self, parts: Iterable[Tensor], device: torch.device) -> Iterator[Batch]:
        """A batch for each tensor of indices, one ahead where a device computes beside this machine."""
        if device.type == "cpu":
            yield from (self.batch(part, device) for part in parts)
            return
        with ThreadPoolExecutor(1) as pool:
            following = None
            for part in parts:
                ready, following = following, pool.submit(self.batch, part, device)
                if ready is not None:
                    yield ready.result()
            if following is not None:
                yield following.result()


def evenly(count: int, most: int) -> Tensor:
    """Up to `most` of the first `count` indices, evenly spaced."""
    return torch.arange(0, count, max(1, -(-count // most)))
