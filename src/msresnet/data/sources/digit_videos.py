"""`digit-videos`: digits that move, cross, hide and leave, made from scikit-learn's, to follow them.

Each video is 60 frames of 128x160 pixels in which up to a dozen digits move over a dark, noisy ground. Some pairs are
sent towards each other; of these, half go through each other, and half turn back where they meet, so that places alone
do not tell who is who. Digits that hide are not drawn for a few frames, nor are they in the truth, and come back where
they would have been; digits that reach an edge leave and never come back, and others come in. A digit keeps its ink and
its size. The draws come from numpy's legacy generator, whose stream never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from msresnet.boxes import Boxes, areas, clip
from msresnet.data.boxed import BoxedArrays
from msresnet.data.sample import ArraySource, Image, Source
from msresnet.data.sources.digit_scenes import DIMMEST, HEIGHT, SHOWN, WIDTH, ground, inked, seen, stamp
from msresnet.data.sources.digits import digits
from msresnet.data.videos import Followed, Video, VideoSource

NAME = "digit-videos"
FRAMES, RATE = 60, 15.0
COUNTS = {"train": 192, "val": 4, "test": 40}
"""Videos of each set."""
SIDES = (14, 36)
"""Of digits, in pixels."""
SPEEDS = (0.5, 2.5)
"""Pixels from frame to frame."""
PAIRS, SINGLES = (1, 4), (2, 6)
"""Of each video, how many, at most one less than the second number."""
HIDING, GAP = 0.4, (3, 9)
"""Share of digits that hide once, and for how many frames."""
LEAST_SEEN = 0.3
"""Share of a digit's box that must be within the image to be in the truth."""


@dataclass(frozen=True)
class Actor:
    """A digit and its way: where its middle is in each frame (FRAMES, 2), down and across, and when it is shown.

    Its box, xyxy in pixels, is that of what is seen of it when it stands at the upper left corner.
    """

    pixels: npt.NDArray[np.uint8]
    box: tuple[int, int, int, int]
    target: int
    path: npt.NDArray[np.float64]
    shown: npt.NDArray[np.bool_]


def digit_videos() -> dict[str, Source]:
    """The training, the validation and the test set."""
    embedded = digits()
    return {split: _videos(split, embedded, seed) for seed, split in enumerate(COUNTS)}


def _videos(split: str, embedded: ArraySource, seed: int) -> VideoSource:
    draws, count = np.random.RandomState(100 + seed), COUNTS[split]
    images = np.empty((count * FRAMES, 1, HEIGHT, WIDTH), np.uint8)
    boxes, objects, videos = list[Boxes](), list[int](), list[Video]()
    for number in range(count):
        start = number * FRAMES
        actors = _cast(embedded, SHOWN[split], draws)
        for frame in range(FRAMES):
            images[start + frame, 0] = ground((HEIGHT, WIDTH), draws)
            there, who = _draw(images[start + frame, 0], actors, frame)
            boxes.append(there)
            objects += who
        videos.append(Video(f"{split}-{number + 1:02d}", start, start + FRAMES, RATE))
    frames = BoxedArrays(images, boxes, embedded.classes, NAME)
    ids = [f"{NAME}/{video.name}[{i + 1}]" for video in videos for i in range(FRAMES)]
    return VideoSource(frames, Followed(tuple(videos), np.array(objects, np.int64)), ids)


def _cast(embedded: ArraySource, shown: tuple[int, int], draws: np.random.RandomState) -> list[Actor]:
    """The digits of one video, those in front at the end."""
    found = []
    for _ in range(draws.randint(*PAIRS)):
        found += _pair(embedded, shown, draws)
    for _ in range(draws.randint(*SINGLES)):
        place, velocity = draws.random_sample(2) * (HEIGHT, WIDTH), _velocity(draws)
        path = _straight(place - velocity * draws.randint(FRAMES), velocity)
        found.append(_actor(embedded, shown, path, draws))
    return [_hidden(actor, draws) if draws.random_sample() < HIDING else actor for actor in found]


def _pair(embedded: ArraySource, shown: tuple[int, int], draws: np.random.RandomState) -> list[Actor]:
    """Two digits that meet in the middle of the video, and go on or turn back."""
    place = (0.3 + 0.4 * draws.random_sample(2)) * (HEIGHT, WIDTH)
    when, velocity = FRAMES // 2 + draws.randint(-8, 9), _velocity(draws)
    turns, beside = draws.random_sample() < 0.5, draws.normal(0, 2, 2)
    paths = []
    for sign in (1, -1):
        path = _straight(place + beside * sign - velocity * sign * when, velocity * sign)
        if turns:
            path[when:] = path[when] - (path[when:] - path[when])
        paths.append(path)
    return [_actor(embedded, shown, path, draws) for path in paths]


def _velocity(draws: np.random.RandomState) -> npt.NDArray[np.float64]:
    """Pixels from frame to frame, down and across."""
    angle, speed = 2 * np.pi * draws.random_sample(), draws.uniform(*SPEEDS)
    return np.array([np.sin(angle), np.cos(angle)]) * speed


def _straight(start: npt.NDArray[np.float64], velocity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return start + velocity * np.arange(FRAMES)[:, None]


def _actor(
    embedded: ArraySource, shown: tuple[int, int], path: npt.NDArray[np.float64], draws: np.random.RandomState
) -> Actor:
    """Any digit on a way. What has left the image never comes back."""
    index, side, ink = draws.randint(*shown), draws.randint(*SIDES), draws.randint(DIMMEST, 256)
    inside = np.all((path > -side / 2) & (path < np.array([HEIGHT, WIDTH]) + side / 2), axis=1)
    first = int(inside.argmax()) if inside.any() else FRAMES
    gone = np.flatnonzero(~inside[first:])
    there = np.zeros(FRAMES, np.bool_)
    there[first : first + (int(gone[0]) if len(gone) else FRAMES)] = True
    pixels = inked(embedded.image(index)[0], side, ink)
    return Actor(pixels, seen(pixels, 0, 0), int(embedded.targets[index]), path, there)


def _hidden(actor: Actor, draws: np.random.RandomState) -> Actor:
    """The same digit, not shown for some frames."""
    start, length = draws.randint(5, FRAMES - 10), draws.randint(*GAP)
    shown = actor.shown.copy()
    shown[start : start + length] = False
    return replace(actor, shown=shown)


def _draw(image: Image, actors: list[Actor], frame: int) -> tuple[Boxes, list[int]]:
    """Draw a frame into an image (H, W); gives the boxes of what can be seen, and their objects' numbers."""
    there = [(number, actor) for number, actor in enumerate(actors, 1) if actor.shown[frame]]
    if not there:
        return Boxes.none(), []
    whole = np.empty((len(there), 4), np.float32)
    for place, (_, actor) in enumerate(there):
        half = len(actor.pixels) / 2
        top, left = (round(middle - half) for middle in actor.path[frame].tolist())
        stamp(image, actor.pixels, top, left)
        whole[place] = np.add(actor.box, (left, top, left, top))
    inside = clip(whole, (HEIGHT, WIDTH))
    kept = np.flatnonzero(areas(inside) >= LEAST_SEEN * areas(whole)).tolist()
    numbers, classes = [there[place][0] for place in kept], [there[place][1].target for place in kept]
    return Boxes.of(inside[kept], classes), numbers
