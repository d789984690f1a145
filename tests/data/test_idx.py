"""IDX files: equality with the bytes of the format's description, and no harm from false ones."""

from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hostile
from msresnet.cli.main import main
from msresnet.data.options import DataOptions
from msresnet.data.sources.idx import idx_pair, labels_beside, read_idx
from msresnet.data.splits import open_data, read_any, whole
from msresnet.errors import DataError

IMAGES = hostile.random_pixels(12, 5, 4)
LABELS = (np.arange(12) % 3).astype(np.uint8)
MIB = 1 << 20


def refused(data: bytes, tmp_path: Path, dimensions: int = 3) -> str:
    """The message for a file of these bytes, which must name it."""
    path = tmp_path / "x-ubyte"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_idx(path, dimensions)
    assert caught.value.where == str(path)
    return str(caught.value)


def peak_of_refusing(data: bytes, tmp_path: Path) -> int:
    """The largest allocation, in bytes, while a file is refused."""
    tracemalloc.start()
    try:
        refused(data, tmp_path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pair_written_by_hand(zipped: bool, tmp_path: Path) -> None:
    path = hostile.write_idx_pair(tmp_path, IMAGES, LABELS, zipped=zipped)
    source = idx_pair(path, labels_beside(path))
    assert np.array_equal(source.images[:, 0], IMAGES)
    assert np.array_equal(source.targets, LABELS)
    assert source.classes == ("0", "1", "2")


def test_a_folder_with_both_splits(tmp_path: Path) -> None:
    hostile.write_idx_pair(tmp_path, IMAGES, LABELS)
    hostile.write_idx_pair(tmp_path, IMAGES[:6], LABELS[:6], prefix="t10k", zipped=True)
    found, _ = read_any(str(tmp_path), DataOptions())
    assert {split: len(source) for split, source in found.items()} == {"train": 12, "test": 6}
    assert len(whole(str(tmp_path), DataOptions(), "test")[0]) == 6


def test_D13_wrong_magic(tmp_path: Path) -> None:
    good = hostile.idx(IMAGES)
    assert "0x00000d03" in refused(b"\0\0\x0d\x03" + good[4:], tmp_path)
    assert "0x00000801" in refused(hostile.idx(LABELS), tmp_path)
    assert "2 dimensions" in refused(good, tmp_path, dimensions=2)


def test_D14_count_and_bytes_differ(tmp_path: Path) -> None:
    good = hostile.idx(IMAGES)
    assert "needs 240, it holds 239" in refused(good[:-1], tmp_path)
    assert "too long" in refused(good + b"\0", tmp_path)
    assert "header is truncated" in refused(good[:10], tmp_path)


def test_D15_a_header_that_claims_2_to_31_items_allocates_nothing(tmp_path: Path) -> None:
    claim = hostile.idx_header(2**31, 28, 28)
    assert "2,147,483,648 x 28 x 28" in refused(claim, tmp_path)
    assert peak_of_refusing(claim, tmp_path) < MIB
    assert peak_of_refusing(gzip.compress(claim), tmp_path) < MIB
    assert peak_of_refusing(hostile.idx_header(2**32 - 1, 2**32 - 1, 2**32 - 1), tmp_path) < MIB


def test_D15_a_zipped_claim_within_the_bound_of_deflate_allocates_what_is_there(tmp_path: Path) -> None:
    noise = hostile.random_pixels(MIB).tobytes()
    data = gzip.compress(hostile.idx_header(600, 1000, 1000) + noise, 1)
    assert peak_of_refusing(data, tmp_path) < 8 * MIB


def test_D16_counts_of_images_and_labels_differ(tmp_path: Path) -> None:
    path = hostile.write_idx_pair(tmp_path, IMAGES, LABELS[:11])
    with pytest.raises(DataError) as caught:
        idx_pair(path, labels_beside(path))
    assert caught.value.why == "12 images, 11 labels"


def test_D17_truncated_gzip(tmp_path: Path) -> None:
    data = gzip.compress(hostile.idx(IMAGES))
    assert "truncated" in refused(data[: len(data) // 2], tmp_path)
    assert "CRC check failed" in refused(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], tmp_path)


def test_D18_a_gzip_bomb_is_not_inflated(tmp_path: Path) -> None:
    bomb = gzip.compress(hostile.idx(IMAGES) + bytes(256 * MIB), 1)
    assert len(bomb) < 2 * MIB
    assert "too long" in refused(bomb, tmp_path)
    assert peak_of_refusing(bomb, tmp_path) < 2 * MIB
    claim = gzip.compress(hostile.idx_header(2, 2**15, 2**15) + bytes(256 * MIB), 1)
    assert "at most" in refused(claim, tmp_path)
    assert peak_of_refusing(claim, tmp_path) < 2 * MIB


def test_D20_git_lfs_pointer(tmp_path: Path) -> None:
    assert "Git-LFS" in refused(hostile.LFS_POINTER, tmp_path)


@pytest.mark.parametrize("shape", [(0, 28, 28), (3, 0, 28), (3, 28, 0)])
def test_images_of_no_pixels_are_refused(shape: tuple[int, int, int], tmp_path: Path) -> None:
    path = hostile.write_idx_pair(tmp_path, np.zeros(shape, np.uint8), LABELS[: shape[0]])
    with pytest.raises(DataError, match="hold no image"):
        idx_pair(path, labels_beside(path))


def test_labels_that_are_missing(tmp_path: Path) -> None:
    path = hostile.write_idx_pair(tmp_path, IMAGES, LABELS)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="put train-labels-idx1-ubyte beside it"):
        labels_beside(path)


@pytest.mark.timeout(10)
def test_I20_a_pipe_in_place_of_the_images_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    (tmp_path / "my-images-ubyte").write_bytes(b"")
    with pytest.raises(DataError):
        whole(str(tmp_path), DataOptions(), "test")


def read(data: bytes, dimensions: int) -> hostile.Bytes | None:
    """The array in these bytes, or nothing where they are refused."""
    with TemporaryDirectory() as name:
        path = Path(name) / "x"
        path.write_bytes(data)
        try:
            return read_idx(path, dimensions)
        except DataError:
            return None


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([1, 3]), st.booleans())
def test_F17_any_bytes_are_an_array_or_are_refused(data: bytes, dimensions: int, zipped: bool) -> None:
    array = read(gzip.compress(data) if zipped else data, dimensions)
    assert array is None or hostile.idx(array) == data


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 4), min_size=3, max_size=3), st.binary(max_size=70))
@example([0, 3_036_988_439, 3_037_012_561], b"")
def test_F17_any_header_is_believed_only_when_it_is_true(shape: list[int], body: bytes) -> None:
    array = read(hostile.idx_header(*shape) + body, 3)
    true = shape[0] * shape[1] * shape[2] == len(body)
    assert (array is not None) == true or 0 in shape
    assert array is None or array.tobytes() == body


@settings(deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_F17_mutated_files_are_an_array_or_are_refused(seed: int, zipped: bool) -> None:
    whole_file = hostile.idx(IMAGES)
    array = read(hostile.mutated(gzip.compress(whole_file, mtime=0) if zipped else whole_file, seed), 3)
    assert array is None or array.ndim == 3


def test_real_mnist(shared_data: Path) -> None:
    folder = shared_data / "mnist"
    if not folder.is_dir():
        pytest.skip("no MNIST beside the project")
    splits = open_data(str(folder), DataOptions(val_fraction=0.0))
    assert (len(splits.train), len(splits.named()["test"])) == (60_000, 10_000)
    assert splits.train.image(0).shape == (1, 28, 28)
    # The counts of the ten digits that the data's authors publish.
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(splits.train.targets).tolist() == published


def test_train_on_a_truncated_file_says_what_and_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = hostile.write_idx_pair(tmp_path / "data", IMAGES, LABELS)
    path.write_bytes(path.read_bytes()[:-7])
    assert main(["train", "--data", "data", "--epochs", "1"]) == 3
    message = capsys.readouterr().err
    assert "error: the IDX file is too short" in message
    assert "train-images-idx3-ubyte" in message
    assert "Traceback" not in message
