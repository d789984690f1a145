"""Tables of paths and labels: how they are told from tables of pixels, which columns count, and what is refused."""

from __future__ import annotations

import csv
import io
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
from msresnet.cli.main import main
from msresnet.data.decode import decode_file
from msresnet.data.names import Names, Numbered, Printed, below, spread
from msresnet.data.options import DataOptions
from msresnet.data.sample import Source
from msresnet.data.sources.table import holds_paths
from msresnet.data.splits import open_data, read_any
from msresnet.errors import DataError, MsresnetError, UsageError

AUTO = DataOptions()
ROWS = [("cat/0000.png", "cat"), ("cat/0001.png", "cat"), ("dog/0000.png", "dog")]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two images of a cat and two of a dog, in folders beside which tables are written."""
    return hostile.write_classes(tmp_path / "set", {"cat": 2, "dog": 2})


def write(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    """A table beside the images."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(rows: Sequence[tuple[str, ...]], delimiter: str = ",", end: str = "\n") -> str:
    """Rows as a text file, by the standard library's writer."""
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end).writerows(rows)
    return buffer.getvalue()


def read(path: Path, options: DataOptions = AUTO) -> tuple[Source, list[str]]:
    """The one set of a table."""
    found, notes = read_any(str(path), options)
    assert list(found) == ["train"]
    return found["train"], notes


def refused(path: Path, options: DataOptions = AUTO) -> MsresnetError:
    """The error for a table."""
    with pytest.raises((DataError, UsageError)) as caught:
        read_any(str(path), options)
    return caught.value


def test_a_table_gives_the_same_images_as_the_files(images: Path) -> None:
    source, notes = read(write(images, lines([("path", "label"), *ROWS])))
    assert source.classes == ("cat", "dog")
    assert source.targets.tolist() == [0, 0, 1]
    assert list(source.ids) == [name for name, _ in ROWS]
    for index, (name, _) in enumerate(ROWS):
        assert source.path(index) == images / name
        assert np.array_equal(source.image(index), decode_file(images / name))
        assert source.split_key(index) == name.encode()
    assert notes == ["a table of paths in 'path', labels in 'label'"]


@pytest.mark.parametrize("path_name", ["path", "file", "filename", "image", "filepath", "File Name", "image_path"])
@pytest.mark.parametrize("label_name", ["label", "class", "Category", "target"])
def test_columns_are_found_by_their_names(path_name: str, label_name: str, images: Path) -> None:
    rows = [("id", label_name, "width", path_name), *(("7", label, "8", name) for name, label in ROWS)]
    source, _ = read(write(images, lines(rows)))
    assert (list(source.ids), source.targets.tolist()) == ([name for name, _ in ROWS], [0, 0, 1])


@pytest.mark.parametrize("turned", [False, True])
def test_without_a_header_the_column_that_looks_like_paths(turned: bool, images: Path) -> None:
    rows = [row[::-1] if turned else row for row in ROWS]
    source, notes = read(write(images, lines(rows)))
    assert (list(source.ids), source.targets.tolist()) == ([name for name, _ in ROWS], [0, 0, 1])
    assert notes == [f"a table of paths in 'column {1 + turned}', labels in 'column {2 - turned}'"]


def test_columns_that_the_user_names(images: Path) -> None:
    rows = [("a", "b", "c"), *((name, "x", label) for name, label in ROWS)]
    path = write(images, lines(rows))
    assert "which column holds the labels is not clear" in refused(path).what
    by_name, _ = read(path, DataOptions(path_column="a", label_column="c"))
    by_place, _ = read(path, DataOptions(path_column="first", label_column="last"))
    assert by_name.targets.tolist() == by_place.targets.tolist() == [0, 0, 1]
    error = refused(path, DataOptions(label_column="colour"))
    assert isinstance(error, UsageError)
    assert "--label-column colour: there is no such column" in error.what
    assert error.why == "the columns are a, b, c"
    assert "the same column" in refused(path, DataOptions(path_column="a", label_column="first")).what
    unlabelled, _ = read(path, DataOptions(label_column="none"))
    assert (unlabelled.targets.tolist(), unlabelled.classes) == ([-1, -1, -1], ())


def test_splits_in_a_column(images: Path) -> None:
    words = ["train", "Validation", "test", "valid", "training"]
    rows = [("path", "label", "split")]
    rows += [(f"{label}/000{i % 2}.png", label, word) for i, word in enumerate(words) for label in ("cat", "dog")]
    found, notes = read_any(str(write(images, lines(rows))), AUTO)
    assert {split: len(source) for split, source in found.items()} == {"train": 4, "val": 4, "test": 2}
    assert "sets in 'split'" in notes[0]
    error = refused(write(images, lines([*rows, ("cat/0000.png", "cat", "holdout")])))
    assert "'holdout' is not a set" in error.what
    assert error.where.endswith("labels.csv, row 12")


def test_D04_a_class_that_only_validation_has(images: Path) -> None:
    rows = [("path", "label", "split"), *((name, label, "train") for name, label in ROWS)]
    path = write(images, lines([*rows, ("dog/0001.png", "newt", "val")]))
    with pytest.raises(DataError, match="newt"):
        open_data(str(path), AUTO)


def test_tables_for_each_set(images: Path) -> None:
    write(images, lines([("path", "label"), *ROWS]), "train.csv")
    write(images, lines([("path", "label"), ("dog/0001.png", "dog")]), "test.csv")
    found, _ = read_any(str(images), AUTO)
    assert {split: len(source) for split, source in found.items()} == {"train": 3, "test": 1}
    both = [("path", "label", "split"), ("cat/0001.png", "cat", "val"), ("dog/0000.png", "dog", "test")]
    write(images, lines(both), "val.csv")
    error = refused(images)
    assert error.what == "a table of one set holds several"
    assert "it holds val, test" in error.why


@pytest.mark.parametrize("labels", [("7", "7", "12"), ("7.0", "7", "12.0")])
def test_labels_that_are_numbers_are_ordered_by_value(labels: tuple[str, ...], images: Path) -> None:
    rows = [(name, label) for (name, _), label in zip(ROWS, labels, strict=True)]
    source, _ = read(write(images, lines([("path", "label"), *rows])))
    assert (source.classes, source.targets.tolist()) == (("7", "12"), [0, 0, 1])


@pytest.mark.parametrize(
    "labels", [("1_0", "1_1", "11"), ("001", "01", "1"), ("1e1", "10", "2"), ("1", "10", "\uff11"), ("5_000", "7", "8")]
)
def test_labels_that_are_no_plain_numbers_stay_as_they_are_written(labels: tuple[str, ...], images: Path) -> None:
    rows = [(name, label) for (name, _), label in zip(ROWS, labels, strict=True)]
    source, _ = read(write(images, lines([("path", "label"), *rows])))
    assert (source.classes, source.targets.tolist()) == (tuple(sorted(labels)), np.argsort(np.argsort(labels)).tolist())


# text of the file, whether it is a table of paths
KINDS = [
    ("a.jpg,cat\nb.jpg,dog\n", True), ("0,cat/a.PNG\n1,b.png\n", True), ("path,label\nx,1\n", True),
    ("file;breed\n000bec180eb18c7604dcecc8fe0dba07;pug\n", True), ("a/1.jpg 0\na/2.jpg 1\n", True),
    ("image,label\n1,0\n2,1\n", True), ("label,pixel0,pixel1\n0,255,3\n", False), ("0,255,3,9\n1,7,8,9\n", False),
    ("0 255 3 9\n", False), ("image,p1,p2,p3\n1,2,3,4\n", False), ("", False), ("\n\n", False), ("0.png\n", True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "paths"), KINDS)
def test_a_table_of_paths_is_told_from_one_of_pixels(text: str, paths: bool, tmp_path: Path) -> None:
    assert holds_paths(write(tmp_path, text), AUTO) is paths
    assert holds_paths(write(tmp_path, "\ufeff" + text.replace("\n", "\r\n")), AUTO) is paths


def test_a_table_of_pixels_takes_the_label_by_name(tmp_path: Path) -> None:
    rows = [("p0", "p1", "digit", "p2", "p3"), ("1", "2", "7", "3", "4"), ("5", "6", "9", "7", "8")]
    source, notes = read(write(tmp_path, lines(rows)), DataOptions(label_column="digit"))
    assert source.classes == ("7", "9")
    assert source.image(0).ravel().tolist() == [1, 2, 3, 4]
    assert "label in column 3" in notes[0]
    assert "--label-column cat" in refused(tmp_path / "labels.csv", DataOptions(label_column="cat")).what


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,width\ncat/0000.png,7\n", None), ("path\ncat/0000.png\n", "no column of labels"),
        ("cat/0000.png\n", "no column of labels"), ("path,a,b\ncat/0000.png,7,8\n", "not clear"),
        ("name,label\n1,cat\n2,dog\n", None), ("path,label\n", "no row"),
    ],
)  # fmt: skip
def test_D07_a_column_is_missing(text: str, words: str | None, images: Path) -> None:
    path = write(images, text)
    if words is not None:
        error = refused(path)
        assert words in error.what
        assert error.where == str(path)
    elif text.startswith("path"):  # of two columns, the other is the label
        assert read(path)[0].classes == ("7",)
    else:  # nothing tells that it is of paths
        assert "--path-column NAME" in refused(path).hint


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("", "empty"), ("  ", "empty"), ("nan", "the label is nan"), ("NaN", "the label is NaN"), ("-1", "not a class"),
        ("1.5", "not a class"), ("inf", "not a class"), ("1e300", "not a class"), ("1000001", "not a class"),
        ("-nan", "not a class"),
    ],
)  # fmt: skip
def test_D08_labels_that_are_none(label: str, words: str, images: Path) -> None:
    rows = [("path", "label"), ("cat/0000.png", "3"), ("cat/0001.png", label)]
    error = refused(write(images, lines(rows)))
    assert words in error.what
    assert error.where == f"{images / 'labels.csv'}, row 3"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_D09_however_it_is_written(encoding: str, delimiter: str, end: str, images: Path) -> None:
    (images / "cat" / "0000.png").rename(images / "cat" / "höhe, 1.png")
    rows = [("path", "label"), ("cat/höhe, 1.png", "Käfer"), ("dog\\0000.png", "dog; or wolf"), ("", "")]
    text = lines(rows[:3], delimiter, end) + end
    source, _ = read(write(images, text.encode(encoding)))
    assert list(source.ids) == ["cat/höhe, 1.png", "dog/0000.png"]
    assert source.classes == ("Käfer", "dog; or wolf")
    assert source.image(0).shape == source.image(1).shape == (1, 8, 8)


@pytest.mark.parametrize(
    "path", ["../secret.png", "cat/../../secret.png", "..\\secret.png", "/etc/secret.png", "..", "./..", "//x.png"]
)
def test_D10_a_path_outside_the_root(path: str, images: Path) -> None:
    (images.parent / "secret.png").write_bytes(hostile.encode(hostile.random_pixels(8, 8), "PNG"))
    error = refused(write(images, lines([("path", "label"), *ROWS, (path, "cat")])))
    assert "leads out of the table's folder" in error.what
    assert error.where.endswith("row 5")


def test_D10_absolute_paths_are_taken_all_or_none(images: Path) -> None:
    far = images.parent / "elsewhere"
    far.mkdir()
    absolute = [(str(images / name), label) for name, label in ROWS]
    source, notes = read(write(far, lines([("path", "label"), *absolute])))
    assert np.array_equal(source.image(2), decode_file(images / "dog/0000.png"))
    assert f"all paths are absolute, below {images}" in notes
    inside, notes = read(write(images, lines([("path", "label"), *absolute[:2], ROWS[2]])))
    assert list(inside.ids) == [name for name, _ in ROWS]  # below the table's own folder they are as good as relative
    assert len(notes) == 1
    two_trees = [("path", "label"), absolute[0], ("/nowhere/x.png", "dog")]
    assert "below a common folder" in refused(write(far, lines(two_trees))).why
    assert (
        "absolute paths are taken where every row" in refused(write(far, lines([*two_trees[:2], ("a.png", "b")]))).why
    )


def test_D11_a_million_rows_are_not_a_million_objects(images: Path) -> None:
    count = 30_000
    rows = "".join(f"cat/{i:07d}_of_a_long_enough_name.png,class{i % 300}\n" for i in range(count))
    path = write(images, "path,label\ncat/0000.png,class0\n" + rows)
    tracemalloc.start()
    source, _ = read(path)
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (len(source), len(source.classes)) == (count + 1, 300)
    letters = path.stat().st_size
    assert now < 1.5 * letters
    assert peak < 2 * letters + 2_000_000
    assert source.ids[count] == f"cat/{count - 1:07d}_of_a_long_enough_name.png"
    with pytest.raises(DataError, match="cannot open"):
        source.image(count)


def test_D20_a_git_lfs_pointer(tmp_path: Path) -> None:
    error = refused(write(tmp_path, hostile.LFS_POINTER))
    assert "Git-LFS pointer" in error.what
    assert error.hint == "git lfs pull"


@pytest.mark.parametrize(
    ("text", "words", "row"),
    [
        ("path,label\na.png,cat\nb.png,cat,7\n", "3 columns, the first has 2", 3),
        ("path,label\na.png,cat\n\nb.png\n", "1 columns, the first has 2", 4),
        ("path,label\na.png,cat\n,dog\n", "the path is empty", 3),
        ('path,label\na.png,"' + "x" * 200_000 + "\n", "the row cannot be read", 2),
    ],
)
def test_rows_that_are_wrong_are_named(text: str, words: str, row: int, tmp_path: Path) -> None:
    error = refused(write(tmp_path, text))
    assert words in error.what
    assert error.where == f"{tmp_path / 'labels.csv'}, row {row}"


def test_images_that_are_all_absent_are_noticed_at_once(images: Path) -> None:
    error = refused(write(images, "path,label\nmissing/1.png,cat\nmissing/2.png,dog\n"))
    assert error.what == "the images are not there"
    assert f"such as {images}/missing/1.png" in error.why
    assert str(images) in error.hint


def test_a_column_of_serial_numbers_is_no_label(images: Path) -> None:
    hostile.write_classes(images, {"many": 60})
    rows = [("path", "label"), *((f"many/{i:04d}.png", f"serial{i}") for i in range(60))]
    with pytest.raises(DataError, match="a class of its own"):
        open_data(str(write(images, lines(rows))), AUTO)


def test_train_names_the_row_and_the_remedy(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(images, lines([("path", "label"), *ROWS, ("../x.png", "cat")]))
    assert main(["data", "show", "--data", str(path)]) == 3
    message = capsys.readouterr().err
    assert f"where: {path}, row 5" in message
    assert "Traceback" not in message


@given(data=st.binary(max_size=300) | st.text(alphabet='a./\\",;\n\r\t\0"é7 png', max_size=80).map(str.encode))
def test_F17_any_bytes_are_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for head in (b"", b"path,label\n", b"a.png,b\n"):
        try:
            found, _ = read_any(str(write(folder, head + data)), AUTO)
        except (DataError, UsageError):
            continue
        for source in found.values():
            assert len(source.ids) == len(source.targets)


@given(st.lists(st.text()))
def test_names_are_a_list_of_texts(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    names = Names(texts)
    assert list(names) == texts
    assert names[1:-1] == texts[1:-1]
    assert names[::-2] == texts[::-2]
    assert [names[i - len(texts)] for i in range(len(texts))] == texts
    assert all(name.isprintable() for name in Printed(names))
    with pytest.raises(IndexError):
        names[len(texts)]


def test_numbered_and_spread() -> None:
    assert list(Numbered("train", 3)) == Numbered("train", 3)[:] == ["train[0]", "train[1]", "train[2]"]
    assert (spread(0, 5), spread(3, 5), spread(100, 4)) == ([], [0, 1, 2], [0, 25, 50, 75])


@given(st.text(alphabet="a./\\", max_size=12))
def test_D10_below_never_leaves_its_folder(name: str) -> None:
    found = below(name)
    root = Path("/top/root")
    path = Path(str(root) + "/" + name.replace("\\", "/"))
    depth, lowest = 0, 0
    for part in path.parts[3:]:
        depth += -1 if part == ".." else 1
        lowest = min(lowest, depth)
    if found is not None:
        assert not found.startswith(("/", "../"))
        assert ".." not in found.split("/")
    elif name and not name.startswith(("/", "\\")) and lowest >= 0:
        assert depth == 0  # it is the folder itself
