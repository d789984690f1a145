"""Class folders: what is found, what is left aside, and what happens to images that cannot be read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import hostile
from msresnet.cli.main import main
from msresnet.data.loaders import decode, decode_sets
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import Preprocess, look
from msresnet.data.sample import Source
from msresnet.data.sets import Decoded
from msresnet.data.sources.folder import folder, split_folders
from msresnet.data.splits import open_data, read_any
from msresnet.errors import DataError

PREPROCESS = Preprocess((8, 8), 1)


def refused(root: Path) -> DataError:
    """The error for a folder as training data."""
    with pytest.raises(DataError) as caught:
        open_data(str(root), DataOptions())
    return caught.value


def test_a_good_folder(tmp_path: Path) -> None:
    source, notes = folder(hostile.write_classes(tmp_path, {"cat": 3, "dog": 2}))
    assert source.classes == ("cat", "dog")
    assert source.targets.tolist() == [0, 0, 0, 1, 1]
    assert list(source.ids) == ["cat/0000.png", "cat/0001.png", "cat/0002.png", "dog/0000.png", "dog/0001.png"]
    assert np.array_equal(source.image(3)[0], hostile.random_pixels(8, 8, seed=100_000))
    assert notes == []


def test_D01_empty_root(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.where == str(tmp_path)
    assert "subfolder per class" in error.hint


def test_D02_one_class(tmp_path: Path) -> None:
    assert "only one class" in refused(hostile.write_classes(tmp_path, {"cat": 3})).what


def test_the_folder_above_the_one_that_was_meant(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path / "unpacked", {"cat": 3, "dog": 3})
    assert "'unpacked' itself" in refused(tmp_path).hint


def test_D03_a_class_without_images(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"cat": 3, "dog": 0})
    (tmp_path / "dog" / "notes.txt").write_text("none yet")
    error = refused(tmp_path)
    assert "'dog' has no images" in error.what
    assert error.where == str(tmp_path / "dog")
    assert error.why == "1 files that are not images"


def test_D04_val_has_a_class_that_train_lacks(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    hostile.write_classes(tmp_path / "val", {"cat": 2, "newt": 2})
    error = refused(tmp_path)
    assert "newt" in error.what
    assert "cat, dog" in error.why


def test_D06_stray_files_are_left_aside_and_counted(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"cat": 2, "dog": 2})
    for name in ("labels.txt", ".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "dog/._0001.png"):
        (tmp_path / name).write_bytes(b"stray")
    for name in (".git", "cat/.thumbnails"):
        hostile.write_classes(tmp_path / name, {"": 1})
    source, notes = folder(tmp_path)
    assert len(source) == 4
    assert source.classes == ("cat", "dog")
    assert notes == ["5 files that are not images were left aside"]


def test_pictures_of_formats_that_are_not_read_are_counted_by_name(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"cat": 2, "dog": 2})
    for name in ("cat/a.HEIC", "cat/b.heic", "dog/c.avif", "dog/notes.txt"):
        (tmp_path / name).write_bytes(b"stray")
    assert folder(tmp_path)[1] == [
        "1 .avif, 2 .heic pictures, whose format is not read (convert them to JPEG or PNG), were left aside",
        "1 files that are not images were left aside",
    ]


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "VALID", "testing"), ("train", "validation", "Test")]
)
def test_split_names(names: tuple[str, str, str], tmp_path: Path) -> None:
    for number, name in enumerate(names):
        hostile.write_classes(tmp_path / name, {"cat": 3 + number, "dog": 2}, seed=1000 * number)
    found, _ = read_any(str(tmp_path), DataOptions())
    assert {split: len(source) for split, source in found.items()} == {"train": 5, "val": 6, "test": 7}


def test_accents_of_a_class_may_be_written_in_two_ways(tmp_path: Path) -> None:
    """As Linux writes them, and as a Mac does: in one folder, in two, and in a table."""
    composed, apart = "Caf\xe9", "Cafe\u0301"
    hostile.write_classes(tmp_path / "a", {apart: 3, "Bar": 3, "Tee": 3, "tee": 1})
    hostile.write_classes(tmp_path / "b", {composed: 3, "Tee": 3})
    splits = open_data(str(tmp_path / "a"), DataOptions(test_data=str(tmp_path / "b"), val_fraction=0))
    assert splits.classes == ("Bar", composed, "Tee", "tee")
    assert splits.test is not None
    assert splits.test.targets.tolist() == [1, 1, 1, 2, 2, 2]
    hostile.write_classes(tmp_path / "a", {composed: 2}, seed=9)
    both, _ = folder(tmp_path / "a")
    assert both.classes == splits.classes
    assert np.bincount(both.targets).tolist() == [3, 5, 3, 1]
    rows = [f"{apart}/0000.png,{apart}", f"{composed}/0000.png,{composed}", "Tee/0000.png,Tee"]
    (tmp_path / "a" / "labels.csv").write_text("\n".join(["path,label", *rows]))
    table, _ = read_any(str(tmp_path / "a" / "labels.csv"), DataOptions())
    assert (table["train"].classes, table["train"].targets.tolist()) == ((composed, "Tee"), [0, 0, 1])


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"bus": 3, "car": 3, "train": 3})
    assert split_folders(tmp_path) == {}
    assert open_data(str(tmp_path), DataOptions()).classes == ("bus", "car", "train")


def test_splits_without_class_folders_are_no_classes(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"train": 3, "test": 3})
    assert "no class folders" in refused(tmp_path).what


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.write_classes(tmp_path, {"cat": 2, "cat/deep": 2, "dog": 2})
    scandir = os.scandir

    def denied(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    error = refused(tmp_path)
    assert error.where == str(tmp_path / "cat" / "deep")
    assert error.why == "Permission denied"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("workers", [0, 2])
def test_I19_I20_I21_I22_in_a_folder(workers: int, tmp_path: Path) -> None:
    root = hostile.write_classes(tmp_path / "data", {"cat": 4, "dog": 4})
    (root / "cat" / "nowhere.jpg").symlink_to(root / "absent")
    (root / "cat" / "loop.jpg").symlink_to(root / "cat" / "loop.jpg")
    (root / "cat" / "circle").symlink_to(root)
    os.mkfifo(root / "dog" / "pipe.jpg")
    (root / "dog" / "folder.jpg").mkdir()
    (root / "dog" / "two\nlines.jpg").write_bytes(b"")
    (root / "dog" / os.fsdecode(b"\xff.png")).write_bytes(hostile.encode(hostile.random_pixels(8, 8), "PNG"))
    source, _ = folder(root)
    (root / "cat" / "0000.png").unlink()
    data = decode(source, PREPROCESS, workers, "skip")
    assert all(name.isprintable() for name in data.ids)
    assert [name for name, _ in data.bad] == [
        "cat/0000.png", "cat/loop.jpg", "cat/nowhere.jpg", "dog/pipe.jpg", "dog/two\\nlines.jpg",
    ]  # fmt: skip
    assert np.bincount(data.targets).tolist() == [3, 5]
    with pytest.raises(DataError) as caught:
        decode(source, PREPROCESS, workers)
    assert caught.value.what == "5 of 13 images cannot be read"
    assert caught.value.where.isprintable()


def spoilt(root: Path, bad: int, good: int = 200) -> Source:
    """A source of two classes, `good` images each, of which the first `bad` of each cannot be decoded."""
    hostile.write_classes(root, {"cat": good, "dog": good})
    hostile.spoil(root, [f"{name}/{i:04d}.png" for name in ("cat", "dog") for i in range(bad)])
    return folder(root)[0]


def outcome(source: Source, workers: int, on_bad: str | None) -> tuple[object, ...]:
    """Everything that decoding gave, or the message."""
    try:
        data = decode(source, PREPROCESS, workers, on_bad)
    except DataError as error:
        return ("refused", str(error))
    return ("decoded", len(data), data.bad, data.ids, np.bincount(data.targets).tolist(), data.fingerprint())


# (bad of each class's 200, policy, whether the set is taken)
POLICIES = [
    (0, None, True), (0, "fail", True), (0, "skip", True),
    (2, None, True), (2, "fail", False), (2, "skip", True),
    (3, None, False), (3, "fail", False), (3, "skip", True),
    (200, None, False), (200, "fail", False), (200, "skip", False),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "on_bad", "taken"), POLICIES)
def test_F12_policies_count_exactly_with_any_number_of_workers(
    bad: int, on_bad: str | None, taken: bool, tmp_path: Path
) -> None:
    source = spoilt(tmp_path, bad)
    result = outcome(source, 0, on_bad)
    assert outcome(source, 2, on_bad) == result
    if taken:
        names = [f"{name}/{i:04d}.png" for name in ("cat", "dog") for i in range(bad)]
        assert [name for name, _ in result[2]] == names  # type: ignore[attr-defined]
        assert result[4] == [200 - bad, 200 - bad]
        assert result[3] == [name for name in source.ids if name not in names]
    elif on_bad == "fail":
        assert "cat/0000.png" in str(result[1])
    else:
        assert f"{2 * bad} of 400 images cannot be read" in str(result[1])
        assert "cat/0000.png: " in str(result[1])


def test_skipped_images_leave_every_other_with_its_own_label(tmp_path: Path) -> None:
    source = spoilt(tmp_path, 3, good=20)
    data: Decoded = decode(source, PREPROCESS, 2, "skip")
    for image, target, name in zip(data.images, data.targets, data.ids, strict=True):
        seed = 100_000 * int(target) + int(Path(name).stem)
        assert Path(name).parent.name == source.classes[int(target)]
        assert np.array_equal(image[0], hostile.random_pixels(8, 8, seed=seed))


def test_F12_the_share_is_judged_over_all_sets_together(tmp_path: Path) -> None:
    """One bad image in a small validation set is no reason to refuse a large and sound data set."""
    large = spoilt(tmp_path / "train", 0)
    hostile.write_classes(tmp_path / "val", {"cat": 10, "dog": 10})
    hostile.spoil(tmp_path / "val", ["cat/0000.png"])
    small = folder(tmp_path / "val")[0]
    sets = decode_sets({"train": large, "val": small}, PREPROCESS)
    assert (len(sets["train"]), len(sets["val"])) == (400, 19)
    with pytest.raises(DataError, match="1 of 20 images"):
        decode(small, PREPROCESS)
    assert (
        len(decode_sets({"given": small}, PREPROCESS)["given"]) == 19
    )  # what is only measured is judged as it was there


@pytest.mark.parametrize("name", ["val", "test"])
def test_F12_a_large_training_set_does_not_excuse_a_ruined_small_set(name: str, tmp_path: Path) -> None:
    large, small = spoilt(tmp_path / "train", 0), spoilt(tmp_path / "small", 1, good=10)
    with pytest.raises(DataError, match=f"2 of 20 images of the {name} set cannot be read"):
        decode_sets({"train": large, name: small}, PREPROCESS)
    assert len(decode_sets({"train": large, name: small}, PREPROCESS, on_bad="skip")[name]) == 18
    # The other way round it is the training set that is small, and the common share is what counts.
    assert len(decode_sets({"train": small, name: large}, PREPROCESS)["train"]) == 18


def test_F12_no_class_is_lost_in_silence(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"cat": 300, "dog": 2})
    hostile.spoil(tmp_path, ["dog/0000.png", "dog/0001.png"])
    for policy in (None, "skip"):
        with pytest.raises(DataError, match=r"no image of dog can be read\n.*dog/0000.png"):
            decode(folder(tmp_path)[0], PREPROCESS, 0, policy)


def test_looking_passes_over_what_cannot_be_read(tmp_path: Path) -> None:
    assert look(spoilt(tmp_path, 5, good=10)) == ({(8, 8)}, True)


@pytest.mark.timeout(60)
def test_train_on_hostile_data_says_what_where_why_and_what_to_type(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt(tmp_path / "data", 3, good=10)
    os.mkfifo(tmp_path / "data" / "cat" / "pipe.jpg")
    before = threading.active_count()
    assert main(["train", "--data", "data", "--epochs", "1", "--device", "cpu"]) == 3
    message = capsys.readouterr().err
    assert "images cannot be read" in message
    assert all(f"{label}: " in message for label in ("where", "why", "try"))
    assert "--on-bad skip" in message
    assert "Traceback" not in message
    assert threading.active_count() == before
    assert not list(tmp_path.rglob("model.safetensors"))
