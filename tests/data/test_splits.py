"""Which samples train, choose and measure: disjoint, stable, by class, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hostile
from msresnet.cli.main import main
from msresnet.data import splits as module
from msresnet.data.options import DataOptions
from msresnet.data.sample import ArraySource, Source
from msresnet.data.splits import arrange, hold_out, open_data, whole
from msresnet.errors import DataError, UsageError

Labels = npt.NDArray[np.int64]


def source(count: int, classes: int = 3, seed: int = 0) -> ArraySource:
    """Different images of some classes; the first ones are the same for any count."""
    images = np.stack([hostile.random_pixels(1, 4, 4, seed=seed + i) for i in range(count)])
    names = [f"class{c}" for c in range(classes)]
    return ArraySource(images, np.arange(count) % classes, names)


def keys(part: Source) -> set[bytes]:
    """The pixels of all samples."""
    return {part.image(i).tobytes() for i in range(len(part))}


@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5, 0.95])
def test_the_parts_are_disjoint_and_whole_and_hold_the_share_of_each_class(fraction: float) -> None:
    whole_set = source(300)
    rest, held = hold_out(whole_set, fraction, "val")
    assert keys(rest) | keys(held) == keys(whole_set)
    assert not keys(rest) & keys(held)
    # Four standard deviations of a count of 100.
    spread = 4 * np.sqrt(100 * fraction * (1 - fraction))
    assert np.all(np.abs(np.bincount(held.targets) - 100 * fraction) <= spread)
    for part in (rest, held):
        for i in range(len(part)):
            assert part[i].target == whole_set.targets[whole_set.ids.index(part.ids[i])]


def test_the_choice_is_the_same_again_and_whatever_the_order() -> None:
    first, again = hold_out(source(60), 0.2, "val")[1], hold_out(source(60), 0.2, "val")[1]
    assert list(first.ids) == list(again.ids)
    base = source(60)
    order = np.random.default_rng(0).permutation(60)
    shuffled = ArraySource(base.images[order], base.targets[order], base.classes)
    assert keys(hold_out(shuffled, 0.2, "val")[1]) == keys(first)
    assert keys(hold_out(source(60), 0.2, "test")[1]) != keys(first)


@settings(deadline=None, max_examples=30)
@given(st.integers(150, 200), st.integers(1, 60), st.sampled_from([0.1, 0.2, 0.4]))
def test_adding_samples_moves_no_other(count: int, more: int, fraction: float) -> None:
    small, large = source(count), source(count + more)
    before, after = hold_out(small, fraction, "val")[1], hold_out(large, fraction, "val")[1]
    assert keys(after) & keys(small) == keys(before)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=40), st.floats(0.05, 0.9))
def test_equal_images_never_stand_on_both_sides(rows: list[tuple[int, int]], fraction: float) -> None:
    images = np.array([level for level, _ in rows], np.uint8).reshape(-1, 1, 1, 1)
    targets = np.array([target for _, target in rows])
    rest, held = hold_out(ArraySource(images, targets, "abc"), fraction, "val")
    assert not keys(rest) & keys(held)
    assert len(rest) + len(held) == len(rows)
    assert set(rest.targets) == set(targets)


def test_a_class_of_one_image_stays_in_training_and_of_two_is_split() -> None:
    labels = np.array([0] * 10 + [1] * 2 + [2])
    base = source(13)
    rest, held = hold_out(ArraySource(base.images, labels, "abc"), 0.1, "val")
    assert np.bincount(rest.targets, minlength=3)[1:].tolist() == [1, 1]
    assert np.bincount(held.targets, minlength=3)[1:].tolist() == [1, 0]


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_every_class_of_two_or_more_is_on_both_sides_of_any_share(fraction: float) -> None:
    rest, held = hold_out(source(30), fraction, "val")
    fewer, more = sorted((rest, held), key=len)
    assert np.bincount(fewer.targets).tolist() == [1, 1, 1]
    assert len(fewer) + len(more) == 30


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_cannot_be_held_out(fraction: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        hold_out(source(9), fraction, "val")


def test_what_is_missing_is_held_out_and_said() -> None:
    splits = arrange({"train": source(300)}, DataOptions())
    counts = {name: len(part) for name, part in splits.named().items()}
    assert counts["test"] == pytest.approx(60, abs=28)  # four standard deviations
    assert counts["val"] == pytest.approx(0.1 * (300 - counts["test"]), abs=20)
    parts = [keys(part) for part in splits.named().values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 300
    assert all(set(part.targets) == {0, 1, 2} for part in splits.named().values())
    assert [note.split(":")[0] for note in splits.notes] == ["test set", "validation set"]


@pytest.mark.parametrize(("fraction", "said"), [(0.2, True), (0.5, False)])
def test_sets_of_very_few_images_are_told(fraction: float, said: bool) -> None:
    splits = arrange({"train": source(30)}, DataOptions(test_fraction=fraction, val_fraction=fraction))
    for note, name in zip(splits.notes[:2], ("test", "val"), strict=True):
        assert "; so few say little" in note
        assert (f", --{name}-fraction 0.3 holds more out" in note) == said
    enough = arrange({"train": source(300)}, DataOptions(test_fraction=0.2, val_fraction=0.2))
    assert not any("so few" in note for note in enough.notes)


def test_where_nothing_can_be_held_out_there_is_no_empty_set() -> None:
    same = ArraySource(np.zeros((8, 1, 4, 4), np.uint8), np.arange(8) % 2, "ab")
    splits = arrange({"train": same}, DataOptions())
    assert (list(splits.named()), len(splits.train)) == (["train"], 8)
    assert [note.split(":")[0] for note in splits.notes[2:]] == ["so there is no test set", "so there is no val set"]


def test_what_is_given_is_taken_as_it_is() -> None:
    test, val = source(30, seed=1000), source(30, seed=2000)
    splits = arrange({"train": source(300), "test": test}, DataOptions())
    assert splits.test is test
    assert (len(splits.train) + len(splits.val or []), len(splits.notes)) == (300, 1)
    splits = arrange({"train": source(300), "val": val}, DataOptions())
    assert (len(splits.train), splits.val, splits.test, splits.notes) == (300, val, None, [])
    splits = arrange({"train": source(300)}, DataOptions(val_fraction=0.0, test_fraction=0.0))
    assert (len(splits.train), splits.val, splits.test) == (300, None, None)


@pytest.mark.parametrize(("fraction", "low", "high"), [(None, 10, 60), (0.1, 70, 130), (0.5, 450, 550)])
def test_only_a_share_that_nobody_gave_is_capped(
    fraction: float | None, low: int, high: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_HELD_OUT", 30)
    splits = arrange({"train": source(1000), "test": source(3, seed=5000)}, DataOptions(val_fraction=fraction))
    assert splits.val is not None
    assert low <= len(splits.val) <= high
    assert ("about 30 are enough" in splits.notes[-1]) == (fraction is None)


def test_a_class_that_a_set_lacks_is_noted() -> None:
    splits = arrange({"train": source(30), "test": source(2, seed=1000)}, DataOptions())
    assert "the test set has no image of class2" in splits.notes


def test_classes_are_matched_by_name_when_their_order_differs() -> None:
    other = source(30, seed=1000)
    turned = ArraySource(other.images, 2 - other.targets, ["class2", "class1", "class0"])
    splits = arrange({"train": source(30), "test": turned}, DataOptions())
    assert splits.test is not None
    assert splits.test.classes == splits.train.classes
    assert np.array_equal(splits.test.targets, other.targets)
    few = ArraySource(other.images[:4], np.array([0, 0, 1, 1]), ["class1", "class2"])
    assert arrange({"train": source(30), "test": few}, DataOptions()).test.targets.tolist() == [1, 1, 2, 2]  # type: ignore[union-attr]


def test_D04_a_class_that_training_lacks() -> None:
    test = ArraySource(source(4).images, np.array([0, 1, 2, 3]), ["class0", "class1", "class2", "newt"])
    with pytest.raises(DataError, match="newt"):
        arrange({"train": source(30), "test": test}, DataOptions())


def test_D02_one_class_that_has_images() -> None:
    one = ArraySource(source(4).images, np.zeros(4, np.int64), ["a", "b"])
    with pytest.raises(DataError, match="only one class"):
        arrange({"train": one}, DataOptions())


def test_labels_must_be_there() -> None:
    unlabelled = ArraySource(source(4).images, np.full(4, -1), [])
    for sets in ({"train": unlabelled}, {"train": source(9), "val": unlabelled}):
        with pytest.raises(DataError, match="no labels"):
            arrange(dict[str, Source](sets), DataOptions())
    with pytest.raises(DataError, match="empty"):
        arrange({"train": ArraySource(source(4).images[:0], np.zeros(0, np.int64), "ab")}, DataOptions())


def test_other_data_for_validation_and_test(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b", "c")):
        hostile.write_classes(tmp_path / name, {"cat": 4 + number, "dog": 4}, seed=1000 * number)
    root = str(tmp_path)
    splits = open_data(f"{root}/a", DataOptions(val_data=f"{root}/b", test_data=f"{root}/c"))
    assert {name: len(part) for name, part in splits.named().items()} == {"train": 8, "val": 9, "test": 10}
    (tmp_path / "a").rename(tmp_path / "train")
    (tmp_path / "b").rename(tmp_path / "val")
    with pytest.raises(UsageError, match=f"{root} holds a val set"):
        open_data(root, DataOptions(val_data=f"{root}/c"))
    (tmp_path / "train").rename(tmp_path / "test")
    with pytest.raises(DataError) as caught:
        open_data(root, DataOptions(test_data=None))
    assert caught.value.where == root


@pytest.mark.parametrize(
    ("sets", "for_val", "for_test"),
    [
        ("train val test", "val", "test"), ("train val", "val", "val"), ("train test", None, "test"),
        ("val test", "val", "test"), ("train", "train", "train"),
    ],
)  # fmt: skip
def test_a_folder_of_several_sets_gives_the_one_that_fits_the_role(
    sets: str, for_val: str | None, for_test: str, tmp_path: Path
) -> None:
    counts = {"train": 4, "val": 5, "test": 6}
    for name in sets.split():
        hostile.write_classes(tmp_path / name, {"cat": counts[name], "dog": 1}, seed=1000)
    assert len(whole(str(tmp_path), DataOptions(), "test")[0]) == counts[for_test] + 1
    if for_val is not None:
        assert len(whole(str(tmp_path), DataOptions(), "val")[0]) == counts[for_val] + 1
    else:
        with pytest.raises(DataError, match="there is no val set"):
            whole(str(tmp_path), DataOptions(), "val")


def test_a_table_without_labels_is_shown_and_not_learnt_from(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "x.csv", np.arange(36).reshape(4, 9), "%d", ",")
    splits = open_data(str(tmp_path / "x.csv"), DataOptions(), unlabelled=True)
    assert ({name: len(part) for name, part in splits.named().items()}, splits.classes) == ({"train": 4}, ())
    assert "no labels: nothing is held out" in splits.notes
    with pytest.raises(DataError, match="no labels"):
        open_data(str(tmp_path / "x.csv"), DataOptions())
    assert open_data("digits", DataOptions(), unlabelled=True).val is not None


def write_table(path: Path, labels: list[int], pixels: list[float]) -> None:
    """One grey image of 2 x 2 pixels for each label."""
    np.savetxt(path, [[label, *pixels] for label in labels], "%g", ",")


@pytest.mark.parametrize("beside", [True, False])
def test_the_training_table_says_what_white_is(beside: bool, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_table(tmp_path / "set" / "train.csv", [0, 1], [0, 255, 7, 9])
    other = tmp_path / ("set/test.csv" if beside else "other.csv")
    options = DataOptions(test_data=None if beside else str(other), val_fraction=0)
    write_table(other, [0, 1], [0, 1, 1, 1])
    test = open_data(str(tmp_path / "set"), options).test
    assert test is not None
    assert test.image(0).ravel().tolist() == [0, 1, 1, 1]
    write_table(other, [0, 1], [0, 0.5, 1, 1])
    with pytest.raises(DataError, match="0 to 1, those of the training file 0 to 255"):
        open_data(str(tmp_path / "set"), options)
    write_table(tmp_path / "set" / "train.csv", [0, 1], [0, 1, 0.2, 0.3])
    write_table(other, [0, 1], [0, 200, 1, 1])
    with pytest.raises(DataError, match="the training file's pixels are 0 to 1"):
        open_data(str(tmp_path / "set"), options)


def test_the_error_for_unknown_data_names_every_form(tmp_path: Path) -> None:
    (tmp_path / "notes.docx").write_bytes(b"x")
    for spec in ("nowhere", str(tmp_path / "notes.docx")):
        with pytest.raises(DataError) as caught:
            open_data(spec, DataOptions())
        for word in ("digits", "mnist", "folder", "paths and labels", "pixels", "IDX", "COCO", "hf:user/name", "wds:"):
            assert word in caught.value.hint


@pytest.mark.parametrize("spec", ["absent/folder", "a" * 300, "~nobody-of-this-name/x", "x\0y"])
def test_data_that_is_not_there(spec: str) -> None:
    with pytest.raises(DataError, match="there is no data at"):
        open_data(spec, DataOptions())


@pytest.mark.parametrize(
    ("spec", "near"),
    [("phots", "photos"), ("PHOTOS", "photos"), ("MNIST", "mnist"), ("phots/train", "photos"),
     ("~/phots", "HOME/photos"), ("my pictures/trian", "'my pictures/train'"), ("photos/trian", None),
     ("my pictures/mnist", None)],
)  # fmt: skip
def test_a_mistyped_path_is_answered_with_what_lies_nearby(
    spec: str, near: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("photos", "my pictures/train", ".phots"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="there is no data at") as caught:
        open_data(spec, DataOptions())
    expected = module.FORMS if near is None else f"--data {near.replace('HOME', str(tmp_path))}"
    assert caught.value.hint == expected


@pytest.mark.parametrize(("name", "hint"), [("a.zip", "unpack"), ("a.tar.gz", "unpack"), ("a.npz", "Classifier().fit")])
def test_a_file_that_holds_images_in_another_form(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="not a known form") as caught:
        open_data(str(tmp_path / name), DataOptions())
    assert hint in caught.value.hint


def test_idx_files_below_are_pointed_to(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        open_data(str(tmp_path), DataOptions())
    assert caught.value.hint == f"--data {raw}"


def test_train_names_the_nearest_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "digit"]) == 3
    message = capsys.readouterr().err
    assert "there is no data at 'digit'" in message
    assert "try: --data digits" in message
    assert "Traceback" not in message


def test_digits_are_split_without_a_common_image() -> None:
    splits = open_data("digits", DataOptions())
    parts = [keys(part) for part in splits.named().values()]
    assert sum(len(part) for part in splits.named().values()) == 1797
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_what_is_inferred_of_further_sets_is_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        hostile.write_classes(tmp_path / name, {"cat": 4, "dog": 4})
    notes = open_data(str(tmp_path / "a"), DataOptions(val_data=str(tmp_path / "b"))).notes
    assert f"--val-data: class folders in {tmp_path / 'b'}" in notes


def kaggle(root: Path, header: bool) -> None:
    """A table of labels and pixels beside one of pixels alone."""
    rng = np.random.default_rng(0)
    table = np.column_stack([np.arange(60) % 3, rng.integers(0, 256, (60, 16))])
    names = ",".join(["label", *(f"pixel{i}" for i in range(16))])
    for name, first in (("train", 0), ("test", 1)):
        title = names.partition(",")[2] if first else names
        np.savetxt(root / f"{name}.csv", table[:, first:], "%d", ",", header=title * header, comments="")


@pytest.mark.parametrize(("column", "header"), [("auto", True), ("first", True), ("label", True), ("first", False)])
def test_a_table_for_the_test_without_labels_is_left_aside(column: str, header: bool, tmp_path: Path) -> None:
    kaggle(tmp_path, header)
    splits = open_data(str(tmp_path), DataOptions(label_column=column))
    assert sum(len(part) for part in splits.named().values()) == 60
    assert f"the test set in {tmp_path} has no labels and is left aside: it is for msresnet predict" in splits.notes
    assert splits.test is not None
    named = DataOptions(label_column=column, test_data=str(tmp_path / "test.csv"))
    with pytest.raises(DataError, match="the test set has no labels"):
        open_data(str(tmp_path / "train.csv"), named)


@pytest.mark.parametrize("header", ["path,label", ""])
def test_a_table_of_paths_without_labels_is_left_aside(header: str, tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"cat": 20, "dog": 20, "new": 5})
    rows = [f"{name}/{i:04d}.png,{name}" for name in ("cat", "dog") for i in range(20)]
    (tmp_path / "train.csv").write_text("\n".join([header, *rows]))
    bare = [f"new/{i:04d}.png" for i in range(5)]
    (tmp_path / "test.csv").write_text("\n".join([header.partition(",")[0], *bare]))
    splits = open_data(str(tmp_path), DataOptions())
    assert (sum(len(part) for part in splits.named().values()), splits.classes) == (40, ("cat", "dog"))
    assert any("has no labels and is left aside" in note for note in splits.notes)


def test_a_folder_for_the_test_without_classes_is_left_aside(tmp_path: Path) -> None:
    hostile.write_classes(tmp_path / "train", {"cat": 20, "dog": 20})
    hostile.write_classes(tmp_path, {"test": 5}, seed=7)
    splits = open_data(str(tmp_path), DataOptions())
    assert sum(len(part) for part in splits.named().values()) == 40
    assert any("has no labels and is left aside" in note for note in splits.notes)
    measured, _ = whole(str(tmp_path), DataOptions(), "test")
    assert measured.targets.tolist() == [-1] * 5  # evaluate says so, and measures no other set in its place
    hostile.write_classes(tmp_path, {"other": 20}, seed=99)
    hostile.write_classes(tmp_path / "other", {"cat": 4, "dog": 4}, seed=50)
    given = open_data(str(tmp_path), DataOptions(test_data=str(tmp_path / "other")))
    assert given.test is not None
    assert len(given.test) == 8
