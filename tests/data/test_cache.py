"""The store of decoded images: it gives back what was put in, or nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
from msresnet.data.cache import Store, free_disk, open_store, store_key
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Subset
from msresnet.data.sources.folder import FileSource, folder
from msresnet.errors import ResourceError
from msresnet.machine import free_memory

SHAPE = (3, 5, 4)
PREPROCESS = Preprocess((8, 8), 1)


def picture(index: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """An image that its index decides."""
    return hostile.random_pixels(*shape, seed=index)


def files(root: Path) -> FileSource:
    """Six images of two classes."""
    return folder(hostile.write_classes(root, {"cat": 3, "dog": 3}))[0]


def test_slots_are_empty_until_they_are_filled_and_keep_over_processes(tmp_path: Path) -> None:
    store = Store(tmp_path / "below" / "x.u8", 4, SHAPE)
    assert [store.read(i) for i in range(4)] == [None] * 4
    store.write(2, picture(2))
    store.write(0, np.zeros(SHAPE, np.uint8))
    for each in (store, Store(store.path, 4, SHAPE)):
        for _ in range(2):
            found = each.read(2)
            assert found is not None
            assert np.array_equal(found, picture(2))
        black = each.read(0)
        assert black is not None
        assert not black.any()
        assert each.read(1) is None
        assert each.read(3) is None


def test_images_in_any_layout_are_kept_by_their_pixels(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.u8", 1, SHAPE)
    rows_last = np.asfortranarray(picture(0))
    store.write(0, rows_last[:, ::-1])
    found = store.read(0)
    assert found is not None
    assert np.array_equal(found, picture(0)[:, ::-1])


@given(st.integers(0, 2**32), st.integers(0, 3))
def test_a_damaged_slot_is_an_empty_one(tmp_path_factory: pytest.TempPathFactory, seed: int, index: int) -> None:
    path = tmp_path_factory.mktemp("store") / "x.u8"
    store = Store(path, 4, SHAPE)
    for i in range(4):
        store.write(i, picture(i))
    data = bytearray(path.read_bytes())
    data[index * store.slot + seed % store.slot] ^= 1 + seed % 255
    path.write_bytes(data)
    again = Store(path, 4, SHAPE)
    assert again.read(index) is None
    assert all(again.read(i) is not None for i in range(4) if i != index)


def test_f02_a_file_that_was_cut_short_gives_what_is_left_and_takes_the_rest_anew(tmp_path: Path) -> None:
    store = Store(tmp_path / "x.u8", 4, SHAPE)
    for i in range(4):
        store.write(i, picture(i))
    assert store.read(3) is not None
    os.truncate(store.path, store.slot * 2 + 7)
    assert store.read(3) is None
    again = Store(store.path, 4, SHAPE)
    assert [again.read(i) is not None for i in range(4)] == [True, True, False, False]
    again.write(3, picture(3))
    assert store.read(3) is not None


FILL = """
import sys, numpy as np
from pathlib import Path
from msresnet.data.cache import Store
store, start = Store(Path(sys.argv[1]), 2000, (3, 64, 64)), int(sys.argv[2])
print("begun", flush=True)
for i in range(start, 2000):
    store.write(i, np.random.default_rng(i).integers(0, 256, (3, 64, 64), dtype=np.uint8))
"""


@pytest.mark.timeout(60)
def test_f01_processes_that_are_killed_while_they_fill_one_store_leave_no_wrong_image(tmp_path: Path) -> None:
    path, shape = tmp_path / "x.u8", (3, 64, 64)
    command = [sys.executable, "-c", FILL, str(path)]
    workers = [subprocess.Popen([*command, start], stdout=subprocess.PIPE) for start in ("0", "10")]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    time.sleep(0.1)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    store = Store(path, 2000, shape)
    found = [store.read(i) for i in range(2000)]
    filled = [i for i, image in enumerate(found) if image is not None]
    assert filled
    assert all(np.array_equal(found[i], picture(i, shape)) for i in filled)  # type: ignore[arg-type]


def test_f03_a_disk_that_fills_up_is_left_alone_and_what_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "x.u8", 3, SHAPE)
    store.write(0, picture(0))

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    store.write(1, picture(1))
    monkeypatch.undo()
    store.write(2, picture(2))
    assert store.trouble == "No space left on device"
    assert [store.read(i) is not None for i in range(3)] == [True, False, False]


def test_f03_a_disk_without_room_is_an_error_with_both_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = files(tmp_path / "data")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ResourceError, match=r"408 bytes are needed, 100 are free") as caught:
        open_store(source, PREPROCESS)
    assert caught.value.exit_code == 5


def test_f11_the_key_changes_with_files_order_and_preprocess_and_with_nothing_else(tmp_path: Path) -> None:
    source = files(tmp_path / "data")
    key = store_key(source, PREPROCESS)
    assert key == store_key(folder(tmp_path / "data")[0], PREPROCESS)
    assert key == store_key(source, Preprocess((8, 8), 1, mean=(0.1,), std=(0.2,)))
    others = [store_key(source, Preprocess((8, 9), 1)), store_key(source, Preprocess((8, 8), 3))]
    others += [
        store_key(source, Preprocess((8, 8), 1, "crop")),
        store_key(source, Preprocess((8, 8), 1, threshold="7")),
    ]
    others.append(store_key(Subset(source, np.array([1, 0, 2, 3, 4, 5])), PREPROCESS))
    others.append(store_key(Subset(source, np.array([0, 1, 2, 3, 4])), PREPROCESS))
    others.append(store_key(files(tmp_path / "elsewhere"), PREPROCESS))
    changed = tmp_path / "data" / "cat" / "0001.png"
    os.utime(changed, ns=(1, 1))
    others.append(store_key(source, PREPROCESS))
    changed.write_bytes(changed.read_bytes() + b"more")
    os.utime(changed, ns=(1, 1))
    others.append(store_key(source, PREPROCESS))
    changed.unlink()
    others.append(store_key(source, PREPROCESS))
    assert len({key, *others}) == 11


def test_what_is_free_is_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder")
    assert free_disk() == 0
    (tmp_path / "cache").unlink()
    assert free_disk() > 0
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory() <= total
