"""Equal and nearly equal images, against every pair compared one by one."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageEnhance

import hostile
from msresnet.data.duplicates import LEAST_CORRELATION, equal, hashes, leaks, near, shared
from msresnet.data.sample import ArraySource, Image
from msresnet.data.sets import Decoded
from msresnet.data.traits import BAD, TRAITS, Traits, look_at


def traits_of(pictures: list[Image]) -> Traits:
    """The records of images (C, H, W)."""
    sources = [ArraySource(picture[None], np.zeros(1, np.int64), ["a"]) for picture in pictures]
    return np.concatenate([np.frombuffer(look_at(source, 0).traits, TRAITS) for source in sources])


def scene(seed: int, height: int = 120, width: int = 160) -> Pillow.Image:
    """A picture of soft shapes, as different from another seed's as two photographs."""
    coarse = Pillow.fromarray(hostile.random_pixels(6, 8, 3, seed=seed))
    fine = Pillow.fromarray(hostile.random_pixels(30, 40, 3, seed=seed + 1_000_000))
    bicubic = Pillow.Resampling.BICUBIC
    return Pillow.blend(coarse.resize((width, height), bicubic), fine.resize((width, height), bicubic), 0.3)


def array(picture: Pillow.Image) -> Image:
    """(H, W) or (H, W, C) -> (C, H, W)."""
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def jpeg(picture: Pillow.Image, quality: int) -> Pillow.Image:
    """The picture as JPEG gives it back."""
    return Pillow.open(io.BytesIO(hostile.encode(picture, "JPEG", quality=quality)))


VARIANTS = {
    "quality 30": lambda p: jpeg(p, 30),
    "half": lambda p: p.resize((p.width // 2, p.height // 2), Pillow.Resampling.BICUBIC),
    "larger": lambda p: p.resize((p.width * 2, p.height * 2), Pillow.Resampling.BILINEAR),
    "squashed": lambda p: p.resize((100, 100), Pillow.Resampling.LANCZOS),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.15),
    "paler": lambda p: ImageEnhance.Contrast(p).enhance(0.8),
    "grey": lambda p: p.convert("L"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_of_a_picture_are_found_and_no_other_picture(variant: str) -> None:
    scenes = [scene(seed) for seed in range(40)]
    traits = traits_of([array(p) for p in [*scenes, *map(VARIANTS[variant], scenes[:20])]])
    groups, complete = near(traits, [])
    assert complete
    assert all(len(group) == 2 and group[1] == group[0] + 40 for group in groups)
    assert len(groups) >= 18


def brute(small: npt.NDArray[np.uint8]) -> list[list[int]]:
    """The groups, from every pair: hashes bit by bit, and numpy's correlation."""
    coarse = small.reshape(len(small), 8, 2, 9, 2).astype(int).sum((2, 4)) // 4
    bits = coarse[:, :, 1:] - coarse[:, :, :-1] > 2
    count = len(small)
    linked = np.eye(count, dtype=bool)
    for i in range(count):
        for j in range(i):
            correlations = [np.corrcoef(t[i].ravel(), t[j].ravel())[0, 1] for t in (small, coarse)]
            linked[i, j] = linked[j, i] = (bits[i] != bits[j]).sum() <= 3 and min(correlations) >= LEAST_CORRELATION
    reached = np.linalg.matrix_power(linked.astype(float), count) > 0
    groups = {tuple(np.flatnonzero(row).tolist()) for row in reached}
    return sorted(list(group) for group in groups if len(group) > 1)


@pytest.mark.parametrize("noise", [2, 5, 6])
def test_near_is_what_comparing_every_pair_gives(noise: int) -> None:
    random = np.random.default_rng(noise)
    base = random.integers(0, 256, (12, 16, 18))
    copies = base[random.integers(0, 12, 90)] + random.integers(-noise, noise + 1, (90, 16, 18))
    traits = np.zeros(90, TRAITS)
    traits["state"], traits["small"] = 1, np.clip(copies, 0, 255)
    expected = brute(traits["small"])
    assert near(traits, [])[0] == expected
    assert expected


def test_the_hash_ignores_noise_on_flat_areas_and_sees_every_other_area() -> None:
    flat = np.full((1, 8, 9), 250, np.uint8)
    noisy = flat + hostile.random_pixels(1, 8, 9) % 3
    assert hashes(flat).tolist() == hashes(noisy).tolist() == [0]
    rising = np.tile(np.arange(0, 90, 10, dtype=np.uint8), (1, 8, 1))
    assert hashes(rising).tolist() == [2**64 - 1]
    single = []
    for row in range(8):
        for column in range(8):
            step = flat.copy()
            step[0, row, : column + 1] = 0
            single.append(int(hashes(step)[0]))
    assert sorted(single) == [1 << n for n in range(64)]


def test_very_many_alike_are_bounded_and_still_one_group() -> None:
    traits = np.zeros(700, TRAITS)
    traits["state"] = 1
    traits["small"] = scene(0).convert("L").resize((18, 16), Pillow.Resampling.BOX)
    groups, complete = near(traits, [])
    assert groups == [list(range(700))]
    assert not complete


def test_what_shows_nothing_is_like_nothing() -> None:
    """Flat pictures, and those with a little noise, say nothing by being alike."""
    flat = [np.full((3, 20, 20), level, np.uint8) for level in (0, 1, 128, 255)]
    noisy = [np.full((3, 20, 20), 100, np.uint8) + hostile.random_pixels(3, 20, 20, seed=s) % 4 for s in range(5)]
    assert near(traits_of([*flat, *noisy]), []) == ([], True)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30))
def test_equal_groups_are_those_of_a_dictionary(pixels: list[tuple[int, bool]]) -> None:
    traits = np.zeros(len(pixels), TRAITS)
    traits["state"] = 1
    expected: dict[int, list[int]] = {}
    for index, (key, bad) in enumerate(pixels):
        traits["pixels"][index] = key
        traits["state"][index] = BAD if bad else 1
        if not bad:
            expected.setdefault(key, []).append(index)
    assert equal(traits) == sorted(group for group in expected.values() if len(group) > 1)


def test_equal_pixels_are_equal_whatever_the_file() -> None:
    grey = hostile.random_pixels(1, 8, 6)
    other = grey.copy()
    other[0, 7, 5] ^= 1
    pictures = [grey, np.repeat(grey, 3, axis=0), other, grey.reshape(1, 6, 8)]
    assert equal(traits_of(pictures)) == [[0, 1]]


@given(st.data())
def test_shared_is_what_comparing_every_pair_gives(data: st.DataObject) -> None:
    shape = data.draw(st.sampled_from([(1, 1, 1), (1, 2, 2), (3, 5, 9)]))
    seeds = st.lists(st.integers(0, 3), min_size=1, max_size=12)
    train = np.stack([hostile.random_pixels(*shape, seed=s) for s in data.draw(seeds)])
    other = np.stack([hostile.random_pixels(*shape, seed=s) for s in data.draw(seeds)])
    for image in other:
        image[0, -1, -1] ^= data.draw(st.integers(0, 1))
    expected = [any(np.array_equal(image, known) for known in train) for image in other]
    assert shared(train, other).tolist() == expected


def test_shared_of_other_shapes_and_of_nothing() -> None:
    images = hostile.random_pixels(5, 1, 8, 8)
    assert not shared(images, hostile.random_pixels(5, 1, 8, 9)).any()
    assert shared(images, images[:0]).shape == (0,)
    assert not shared(images[:0], images).any()


def decoded(images: Image) -> Decoded:
    return Decoded(torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64), [""] * len(images))


def test_D05_leaks_are_counted_and_said() -> None:
    images = hostile.random_pixels(300, 1, 28, 28)
    fresh = hostile.random_pixels(100, 1, 28, 28, seed=1)
    sets = {"train": decoded(images), "val": decoded(fresh[:50]), "test": decoded(np.concatenate([fresh, images[:7]]))}
    assert leaks(sets) == [
        "7 of the 107 test images are also in the training set: the score flatters (msresnet data check names them)"
    ]
    assert leaks({"train": decoded(images), "val": decoded(images[:1])})[0].startswith("1 of the 1 val images is ")
    assert leaks({"train": decoded(images)}) == []
