"""Sets that are decoded when they are asked for: the same as in memory, whatever the threads, files and accidents."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import hostile
from msresnet.data.cache import open_store
from msresnet.data.lazy import Lazy
from msresnet.data.loaders import decode, open_sets
from msresnet.data.options import DataOptions
from msresnet.data.order import epoch_order
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import ArraySource, Image, Source, Subset
from msresnet.data.sets import Samples
from msresnet.data.sources.folder import folder
from msresnet.data.unreadable import Unreadable
from msresnet.errors import DataError

CPU = torch.device("cpu")
PREPROCESS = Preprocess((6, 7), 3)
ORDER = epoch_order(30, 0, 0)


def files(root: Path, cats: int = 12, dogs: int = 18) -> Source:
    """Images of two classes, as files."""
    return folder(hostile.write_classes(root, {"cat": cats, "dog": dogs}))[0]


def decoding() -> int:
    """How many threads decode."""
    return sum(thread.name.startswith("decode") for thread in threading.enumerate())


def epoch(data: Samples, parts: list[int] | int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images, targets and indices of an epoch."""
    batches = list(data.batches(ORDER[: len(data)].split(parts), CPU))
    images, targets, indices = zip(*((b.images, b.targets, b.indices) for b in batches), strict=True)
    return torch.cat(images), torch.cat(targets), torch.cat(indices)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("parts", [1, 4, 30])
def test_it_gives_what_a_set_in_memory_gives(tmp_path: Path, workers: int, parts: int) -> None:
    source = files(tmp_path)
    expected = epoch(decode(source, PREPROCESS), parts)
    for store in (None, open_store(source, PREPROCESS)):
        data = Lazy(source, PREPROCESS, workers, store=store)
        for _ in range(2):
            for found, wanted in zip(epoch(data, parts), expected, strict=True):
                assert torch.equal(found, wanted)
    assert data.fingerprint() == decode(source, PREPROCESS).fingerprint()
    assert torch.equal(data.image(3), decode(source, PREPROCESS).image(3))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_second_epoch_reads_no_file(tmp_path: Path, workers: int) -> None:
    source = files(tmp_path / "data")
    data = Lazy(source, PREPROCESS, workers, store=open_store(source, PREPROCESS))
    first = epoch(data)
    shutil.rmtree(tmp_path / "data")
    for found, wanted in zip(epoch(data), first, strict=True):
        assert torch.equal(found, wanted)
    assert data.bad == []


def test_another_process_finds_what_the_first_one_kept(tmp_path: Path) -> None:
    source = files(tmp_path / "data")
    first = epoch(Lazy(source, PREPROCESS, store=open_store(source, PREPROCESS)))
    store = open_store(folder(tmp_path / "data")[0], PREPROCESS)
    shutil.rmtree(tmp_path / "data")
    assert torch.equal(epoch(Lazy(source, PREPROCESS, store=store))[0], first[0])


def spoilt(root: Path, names: list[str], workers: int, on_bad: str | None) -> Lazy:
    """A set of which some files are damaged."""
    source = files(root)
    hostile.spoil(root, names)
    return Lazy(source, PREPROCESS, workers, unreadable=Unreadable({"": len(source)}, on_bad))


BAD = ["cat/0003.png", "cat/0004.png", "cat/0011.png", "dog/0017.png"]
PLACES = {3: 5, 4: 5, 11: 0, 29: 12}
"""What takes the place of each: the next of its class that can be read, the first after the last."""


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_i03_an_unreadable_image_is_named_once_and_the_next_of_its_class_takes_its_place(
    tmp_path: Path, workers: int
) -> None:
    data = spoilt(tmp_path, BAD, workers, "skip")
    for _ in range(2):
        images, targets, indices = epoch(data)
        assert indices.tolist() == [PLACES.get(i, i) for i in ORDER.tolist()]
        assert torch.equal(targets, data.targets[ORDER])
        good = decode(Subset(data.source, np.array([i for i in range(30) if i not in PLACES])), PREPROCESS)
        names = dict(zip(good.ids, good.images, strict=True))
        assert all(torch.equal(image, names[data.ids[i]]) for image, i in zip(images, indices.tolist(), strict=True))
        assert [name for name, _ in data.bad] == BAD
        assert all("truncated" in reason for _, reason in data.bad)


def test_the_members_of_a_class_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, looked, real = spoilt(tmp_path, BAD, 0, "skip"), list[int](), np.flatnonzero

    def watched(where: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        looked.append(len(where))
        return real(where)

    monkeypatch.setattr(np, "flatnonzero", watched)
    for _ in range(3):
        epoch(data)
    assert looked == [30, 30]  # of cats and dogs


@pytest.mark.parametrize("workers", [0, 2])
def test_in_order_every_readable_image_comes_once(tmp_path: Path, workers: int) -> None:
    data = spoilt(tmp_path, BAD, workers, "skip")
    batches = list(data.in_order(4, CPU))
    assert torch.cat([b.indices for b in batches]).tolist() == [i for i in range(30) if i not in PLACES]
    images = torch.cat([b.images for b in batches])
    assert torch.equal(images, decode(data.source, PREPROCESS, on_bad="skip").images)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("on_bad", "count", "message"),
    [("fail", 1, "cannot decode the image"), (None, 1, "1 of 30 images met so far cannot be read")],
)
def test_f12_the_policy_is_kept_when_an_image_is_met(
    tmp_path: Path, workers: int, on_bad: str | None, count: int, message: str
) -> None:
    data = spoilt(tmp_path, BAD[:count], workers, on_bad)
    with pytest.raises(DataError, match=message) as caught:
        epoch(data)
    assert BAD[0] in caught.value.where
    assert decoding() == 0


class Numbered(Source):
    """Many tiny images, of which every `bad`-th cannot be read."""

    def __init__(self, count: int, bad: int) -> None:
        super().__init__(["a", "b"], np.arange(count) % 2, [f"x[{i}]" for i in range(count)])
        self.every = bad

    def image(self, index: int, at_least: tuple[int, int] | None = None) -> Image:
        """One grey pixel, enlarged."""
        if index % self.every == 0:
            raise DataError("cannot decode the image", where=self.ids[index], why="it is damaged")
        return np.full((1, 2, 2), index % 256, np.uint8)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("bad", "count"), [(1000, 2), (100, 20), (2, 21)])
def test_f12_counts_of_corrupt_files_are_exact(bad: int, count: int, workers: int) -> None:
    """0.1 and 1 % go through, of 50 % the first above 1 % ends it."""
    data = Lazy(Numbered(2000, bad), Preprocess((2, 2), 1), workers)
    parts = torch.arange(2000).split(64)
    if count <= 20:
        batches = list(data.batches(parts, CPU))
        assert sum(int((b.indices != p).sum()) for b, p in zip(batches, parts, strict=True)) == count
    else:
        with pytest.raises(DataError, match="21 of 2,000 images met so far cannot be read"):
            list(data.batches(parts, CPU))
    assert len(data.bad) == count


@pytest.mark.parametrize("workers", [0, 2])
def test_f11_files_that_vanish_in_mid_epoch_are_named(tmp_path: Path, workers: int) -> None:
    source = files(tmp_path)
    data = Lazy(source, PREPROCESS, workers, unreadable=Unreadable({"": 30}, "skip"))
    batches = data.batches(torch.arange(30).split(2), CPU)
    next(batches)
    for index in (20, 25):
        path = source.path(index)
        assert path is not None
        path.unlink()
    indices = torch.cat([b.indices for b in batches])
    assert indices.tolist() == [*range(2, 20), 21, *range(21, 25), 26, *range(26, 30)]
    assert [name for name, _ in data.bad] == [source.ids[20], source.ids[25]]
    assert all("No such file" in reason for _, reason in data.bad)


def test_a_class_without_a_readable_image_is_named(tmp_path: Path) -> None:
    data = spoilt(tmp_path, [f"cat/{i:04d}.png" for i in range(12)], 2, "skip")
    with pytest.raises(DataError, match="no image of cat can be read"):
        epoch(data)


def test_a_small_set_is_judged_by_itself_and_all_sets_together(tmp_path: Path) -> None:
    large, small = files(tmp_path / "train", 150, 150), files(tmp_path / "val", 10, 10)
    hostile.spoil(tmp_path / "val", ["cat/0001.png", "dog/0001.png"])
    sets, _ = open_sets({"train": large, "val": small}, PREPROCESS, DataOptions(cache="none", workers=0))
    batches = sets["val"].batches(torch.arange(20).split(1), CPU)
    assert sum(1 for _, b in zip(range(11), batches, strict=False)) == 11  # one is no ruin
    with pytest.raises(DataError, match="2 of 20 images of the val set met so far"):
        list(batches)


def test_who_stops_listening_stops_the_threads(tmp_path: Path) -> None:
    data = Lazy(files(tmp_path), PREPROCESS, 3)
    batches = data.batches(ORDER.split(2), CPU)
    next(batches)
    assert decoding() > 0
    batches.close()  # type: ignore[attr-defined]
    assert decoding() == 0


def test_no_more_is_read_ahead_than_a_few_batches() -> None:
    asked: list[int] = []

    def parts() -> object:
        for part in torch.arange(3000).split(10):
            asked.append(int(part[0]))
            yield part

    data = Lazy(ArraySource(hostile.random_pixels(3000, 1, 2, 2), np.arange(3000) % 2, "ab"), Preprocess((2, 2), 1), 2)
    batches = data.batches(parts(), CPU)  # type: ignore[arg-type]
    next(batches)
    assert len(asked) <= 4


@pytest.mark.timeout(60)
def test_d11_a_million_samples_open_at_once_and_hold_nothing_of_their_own() -> None:
    source = Numbered(1_000_000, 1_000_001)
    sets, (note,) = open_sets({"train": source}, Preprocess((32, 32), 1), DataOptions(cache="none"))
    batch = next(iter(sets["train"].batches(torch.arange(999_990, 1_000_000).split(10), CPU)))
    assert batch.images[:, 0, 0, 0].tolist() == [i % 256 for i in range(999_990, 1_000_000)]
    assert sets["train"].ids is source.ids
    assert "decoded when they are needed" in note
