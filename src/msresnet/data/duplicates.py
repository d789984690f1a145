"""Equal and nearly equal images: in a survey of files, and between decoded sets.

Nearly equal are images whose difference hashes differ in few bits (64 bits: is each of 8 x 8 areas darker than its
right neighbour?) and whose grey thumbnails correlate almost fully. Brightness, compression, scale and colour then make
little difference; a crop of a few percent does. N images, M images of another set.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from msresnet.data.sample import Image
from msresnet.data.sets import Decoded, Samples
from msresnet.data.traits import COLUMNS, GOOD, ROWS, Traits

MARGIN = 2
"""Grey levels by which an area must be darker, so that flat areas do not make bits of noise."""
BANDS, BAND_BITS = 4, 16
"""Hashes that differ in fewer bits than there are bands are equal in at least one band."""
WINDOW = 512
"""Neighbours, in the order of a band, that a hash is compared with: a bound where very many share a band."""
MOST_CHECKED, PART = 10_000_000, 1 << 14
"""Pairs of thumbnails that are compared at most, and at once."""
LEAST_CORRELATION = 0.9968
"""Of thumbnails: a root mean square difference of 0.08 standard deviations."""
LEAST_CONTRAST = 4.0
"""Standard deviation, in grey levels, under which a thumbnail shows nothing to compare."""
SAMPLED = 64
"""Bytes of an image that say whether it is worth comparing whole."""
Groups = list[list[int]]
Indices = npt.NDArray[np.int64]
Pairs = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


def equal(traits: Traits) -> Groups:
    """Groups of images with the same size and pixels, as indices in rising order."""
    good = np.flatnonzero(traits["state"] == GOOD)
    _, number, counts = np.unique(traits["pixels"][good], return_inverse=True, return_counts=True)
    groups: dict[int, list[int]] = defaultdict(list)
    for place in np.flatnonzero(counts[number] > 1).tolist():
        groups[int(number[place])].append(int(good[place]))
    return sorted(groups.values())


def near(traits: Traits, groups: Groups) -> tuple[Groups, bool]:
    """Groups of nearly equal images, one of each of the equal `groups`; and whether all were compared."""
    chosen = (traits["state"] == GOOD) & ~traits["constant"]
    chosen[[index for group in groups for index in group[1:]]] = False
    indices = np.flatnonzero(chosen)
    fine = traits["small"][indices].reshape(len(indices), ROWS * COLUMNS)
    seen = _in_parts(fine, lambda part: _centred(part).std(1) >= LEAST_CONTRAST)
    pairs, complete = _pairs(fine[seen])
    return _joined(indices[seen][pairs]), complete


def hashes(coarse: npt.NDArray[np.uint8]) -> Hashes:
    """Grey levels (N, 8, 9) -> difference hashes (N,). Every fourth bit goes into the same band of 16."""
    darker = coarse[:, :, 1:] > np.minimum(coarse[:, :, :-1], 255 - MARGIN) + np.uint8(MARGIN)
    spread = darker.reshape(len(coarse), BAND_BITS, BANDS).transpose(0, 2, 1).reshape(len(coarse), BANDS * BAND_BITS)
    packed: Hashes = np.packbits(spread, axis=1).view(">u8").ravel().astype(np.uint64)
    return packed


def halved(fine: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Thumbnails (N, 288) -> (N, 8, 9), each the mean of four grey levels."""
    quarters = fine.reshape(len(fine), ROWS // 2, 2, COLUMNS // 2, 2)
    means: npt.NDArray[np.uint8] = (quarters.sum((2, 4), dtype=np.uint16) // 4).astype(np.uint8)
    return means


def _pairs(fine: npt.NDArray[np.uint8]) -> tuple[Pairs, bool]:
    """Index pairs (K, 2) of nearly equal thumbnails (N, 288), and whether all near hashes were compared."""
    areas = halved(fine)
    keys, coarse = hashes(areas), areas.reshape(len(areas), ROWS * COLUMNS // 4)
    found = [np.zeros((0, 2), np.int64)]
    room, complete = MOST_CHECKED, True
    for band in range(BANDS):
        for one, two, cut in _candidates(keys, band):
            complete = complete and not cut
            room -= len(one)
            if room < 0:
                return np.concatenate(found), False
            pairs = np.stack([one, two], 1)
            pairs = pairs[_in_parts(pairs, partial(_alike, coarse))]  # leaves few for the next line
            found.append(pairs[_in_parts(pairs, partial(_alike, fine))])
    return np.concatenate(found), complete


def _candidates(keys: Hashes, band: int) -> Iterator[tuple[Indices, Indices, bool]]:
    """Pairs of near hashes that share this band and none before; the last says whether the window cut others off."""
    left, right = np.uint64(BAND_BITS * band), np.uint64((64 - BAND_BITS * band) % 64)
    # Sorted by the band first, then by what follows it: those that share a band are neighbours.
    turned = (keys << left) | (keys >> right)
    order = np.argsort(turned, kind="stable")
    keys, bands = keys[order], (turned[order] >> np.uint64(64 - BAND_BITS)).astype(np.uint16)
    first = np.arange(len(order))
    for step in range(1, WINDOW + 1):
        first = first[: np.searchsorted(first, len(order) - step)]
        first = first[bands[first] == bands[first + step]]
        if not len(first):
            return
        differing = keys[first] ^ keys[first + step]
        close = first[(np.bitwise_count(differing) < BANDS) & _new(differing, band)]
        yield order[close], order[close + step], step == WINDOW


def _new(differing: Hashes, band: int) -> npt.NDArray[np.bool_]:
    """Whether pairs share no band before this one, in which they were found already."""
    new = np.ones(len(differing), bool)
    for before in range(band):
        new &= (differing >> np.uint64(64 - BAND_BITS * (before + 1))) & np.uint64(0xFFFF) != 0
    return new


def _in_parts(rows: npt.NDArray[Any], test: Callable[[npt.NDArray[Any]], Any]) -> npt.NDArray[np.bool_]:
    """What a test says of each row; a part of them at once, since the test takes more memory than the rows."""
    parts = [test(rows[start : start + PART]) for start in range(0, len(rows), PART)]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _alike(levels: npt.NDArray[np.uint8], pairs: Pairs) -> npt.NDArray[np.bool_]:
    """Whether grey levels (N, L) correlate, pair by pair."""
    first, second = _centred(levels[pairs[:, 0]]), _centred(levels[pairs[:, 1]])
    product = np.einsum("nk,nk->n", first, second)
    lengths = np.einsum("nk,nk->n", first, first) * np.einsum("nk,nk->n", second, second)
    alike: npt.NDArray[np.bool_] = product >= LEAST_CORRELATION * np.sqrt(lengths)
    return alike


def _centred(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = rows.astype(np.float32)
    values -= values.mean(1, keepdims=True)
    return values


def _joined(pairs: Pairs) -> Groups:
    """Groups of indices that pairs connect, in rising order."""
    members, ends = np.unique(pairs, return_inverse=True)
    one, two = ends.reshape(-1, 2).T
    root = np.arange(len(members))
    while True:
        before = root.copy()
        lowest = np.minimum(root[one], root[two])
        np.minimum.at(root, one, lowest)
        np.minimum.at(root, two, lowest)
        root = root[root]
        if (root == before).all():
            break
    groups: dict[int, list[int]] = defaultdict(list)
    for member, first in zip(members.tolist(), root.tolist(), strict=True):
        groups[first].append(member)
    return list(groups.values())


def leaks(sets: Mapping[str, Samples]) -> list[str]:
    """A line for each set of which some images, as the network sees them, are also in the training set.

    Only sets in memory are compared; nothing is decoded for it.
    """
    notes = []
    for name, data in sets.items():
        if name != "train" and (count := copies(sets, name)):
            verb = "is" if count == 1 else "are"
            what = f"{count:,} of the {len(data):,} {name} images {verb} also in the training set"
            notes.append(f"{what}: the score flatters (msresnet data check names them)")
    return notes


def copies(sets: Mapping[str, Samples], name: str) -> int | None:
    """How many images of a set, as the network sees them, are also in the training set; None where nobody looks."""
    train, data = sets["train"], sets[name]
    if not isinstance(train, Decoded) or not isinstance(data, Decoded):
        return None
    return int(shared(train.images.numpy(), data.images.numpy()).sum())


def shared(train: Image, other: Image) -> npt.NDArray[np.bool_]:
    """Which of some images (M, C, H, W) are, pixel by pixel, also among others (N, C, H, W)."""
    if train.shape[1:] != other.shape[1:]:
        return np.zeros(len(other), bool)
    left, right = _sampled(train), _sampled(other)
    common = set(left) & set(right)
    whole = {_whole(train[i]) for i, key in enumerate(left) if key in common} if common else set()
    return np.array([key in common and _whole(other[i]) in whole for i, key in enumerate(right)], bool)


def _sampled(images: Image) -> list[bytes]:
    """Some evenly spaced bytes of each image."""
    size = math.prod(images.shape[1:])
    rows, step = images.reshape(len(images), size), max(1, size // SAMPLED)
    few = np.ascontiguousarray(rows[:, step // 2 :: step])
    keys: list[bytes] = few.view(f"V{few.shape[1]}").ravel().tolist()
    return keys


def _whole(image: Image) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()
