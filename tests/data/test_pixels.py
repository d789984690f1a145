"""Text files of pixels, against numpy.loadtxt and against the arrays that were written."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits

import hostile
from msresnet.cli.main import main
from msresnet.data.options import DataOptions
from msresnet.data.sample import ArraySource
from msresnet.data.sources.pixels import pixels
from msresnet.errors import DataError, UsageError

IMAGES = hostile.random_pixels(6, 3, 3, seed=1)
LABELS = np.array([4, 7, 4, 7, 7, 4])


def write(path: Path, table: npt.NDArray[np.generic], header: str = "", delimiter: str = ",", end: str = "\n") -> Path:
    """A table as text."""
    rows = [header] * bool(header) + [delimiter.join(str(cell) for cell in row) for row in table]
    path.write_bytes((end.join(rows) + end).encode())
    return path


def labelled(first: bool = True) -> npt.NDArray[np.int64]:
    """The labels' column beside the pixels."""
    flat = IMAGES.reshape(6, 9).astype(np.int64)
    return np.column_stack([LABELS, flat] if first else [flat, LABELS])


def check(source: ArraySource) -> None:
    """The source holds IMAGES and LABELS."""
    assert np.array_equal(source.images[:, 0], IMAGES)
    assert [source.classes[t] for t in source.targets] == [str(n) for n in LABELS]


def refused(path: Path, **options: object) -> DataError:
    """The error for a file."""
    with pytest.raises(DataError) as caught:
        pixels(path, DataOptions(**options))  # type: ignore[arg-type]
    assert path.name in caught.value.where
    return caught.value


def test_the_values_are_those_of_numpy_loadtxt(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", labelled())
    table = np.loadtxt(path, delimiter=",")
    source, notes = pixels(path, DataOptions())
    assert np.array_equal(source.images.reshape(6, 9), table[:, 1:])
    assert np.array_equal([int(source.classes[t]) for t in source.targets], table[:, 0])
    assert notes == ["10 columns: label in the first column, images of 1 x 3 x 3"]


def test_the_label_may_stand_last_or_be_absent(tmp_path: Path) -> None:
    last, _ = pixels(write(tmp_path / "x.csv", labelled(first=False)), DataOptions(label_column="last"))
    check(last)
    none, _ = pixels(write(tmp_path / "y.csv", IMAGES.reshape(6, 9)), DataOptions())
    assert np.array_equal(none.images[:, 0], IMAGES)
    assert none.targets.tolist() == [-1] * 6


def test_a_shape_by_flag(tmp_path: Path) -> None:
    flat = hostile.random_pixels(4, 12)
    path = write(tmp_path / "x.csv", flat)
    grey, _ = pixels(path, DataOptions(image_shape=(2, 6)))
    colour, _ = pixels(path, DataOptions(image_shape=(3, 2, 2)))
    assert np.array_equal(grey.images, flat.reshape(4, 1, 2, 6))
    assert np.array_equal(colour.images, flat.reshape(4, 3, 2, 2))


def test_pixels_from_0_to_1(tmp_path: Path) -> None:
    source, _ = pixels(write(tmp_path / "x.csv", np.array([[0.0, 0.2, 0.6, 1.0]])), DataOptions())
    assert source.images.ravel().tolist() == [0, 51, 153, 255]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_D09_delimiters_and_line_ends(delimiter: str, end: str, tmp_path: Path) -> None:
    header = delimiter.join(["label", *(f"p{i}" for i in range(9))])
    check(pixels(write(tmp_path / "x.csv", labelled(), header, delimiter, end), DataOptions())[0])


def test_D09_byte_order_mark_and_latin_1(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", labelled())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    check(pixels(path, DataOptions())[0])
    header = ",".join(["étiquette", *(f"p{i}" for i in range(9))])
    path.write_bytes(f"{header}\n".encode("latin-1") + write(tmp_path / "y.csv", labelled()).read_bytes())
    check(pixels(path, DataOptions())[0])


def test_D07_a_column_is_lacking(tmp_path: Path) -> None:
    short = write(tmp_path / "x.csv", labelled()[:, :-2])
    error = refused(short)
    assert "8 columns" in error.what
    assert "--image-shape" in error.hint
    ragged = tmp_path / "y.csv"
    ragged.write_text("1,2,3,4,5\n1,2,3,4\n1,2,3,4,5\n")
    assert refused(ragged).why == "row 2 has 4 columns, the first has 5"


def test_D07_a_label_alone_is_no_image(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "x.csv", LABELS[:, None]), label_column="first")
    assert "1 columns" in error.what


@pytest.mark.parametrize("label", ["-1", "nan", "inf", "2.5", "1e9"])
def test_D08_a_label_that_is_no_class(label: str, tmp_path: Path) -> None:
    table = labelled().astype(str)
    table[3, 0] = label
    error = refused(write(tmp_path / "x.csv", table, header=",".join("abcdefghij")))
    assert "is not a class" in error.what
    assert error.where.endswith("x.csv, row 5")


@pytest.mark.parametrize(("cell", "reason"), [("", "empty"), ("cat", "'cat'"), ("0x10", "'0x10'")])
def test_D08_a_cell_that_is_no_number(cell: str, reason: str, tmp_path: Path) -> None:
    table = labelled().astype(str)
    table[3, 2] = cell
    assert refused(write(tmp_path / "x.csv", table)).why == f"row 4, column 3 is {reason}"


@pytest.mark.parametrize("pixel", ["256", "-1", "nan", "inf"])
def test_D08_a_pixel_out_of_range(pixel: str, tmp_path: Path) -> None:
    table = labelled().astype(str)
    table[3, 2] = pixel
    error = refused(write(tmp_path / "x.csv", table))
    assert error.where.endswith("x.csv, row 4, pixel 2")
    assert "0 to 255" in error.why


@pytest.mark.parametrize(
    ("text", "what"), [("", "empty"), ("\n \n", "empty"), ("label,a,b,c,d\n", "a header and no row")]
)
def test_files_without_rows(text: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    assert what in refused(tmp_path / "x.csv").what


def test_D20_git_lfs_pointer(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(hostile.LFS_POINTER)
    assert "Git-LFS" in refused(tmp_path / "x.csv").what


def test_an_image_shape_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", labelled())
    for shape in ((0, 9), (9,), (1, 1, 3, 3)):
        with pytest.raises(UsageError, match="image-shape"):
            pixels(path, DataOptions(image_shape=shape))


@settings(deadline=None)
@given(
    arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(1), st.integers(1, 4), st.integers(1, 4))),
    st.sampled_from(["first", "last"]),
    st.sampled_from([",", ";", "\t"]),
    st.booleans(),
)
def test_what_was_written_is_read(images: hostile.Bytes, column: str, delimiter: str, header: bool) -> None:
    labels = np.arange(len(images)) * 3
    flat = images.reshape(len(images), -1).astype(np.int64)
    flat[0, 0] = 255  # a largest pixel of 0 or 1 would mean a range of 0 to 1
    table = np.column_stack([labels, flat] if column == "first" else [flat, labels])
    title = delimiter.join(f"c{i}" for i in range(table.shape[1])) if header else ""
    with TemporaryDirectory() as name:
        path = write(Path(name) / "x.csv", table, title, delimiter)
        options = DataOptions(label_column=column, image_shape=images.shape[2:])
        source, _ = pixels(path, options)
    assert np.array_equal(source.images.reshape(len(flat), -1), flat)
    assert [source.classes[t] for t in source.targets] == [str(n) for n in labels]


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text('0123456789.,;-+einfa#"\t\r\n \0', max_size=60).map(str.encode)))
def test_F17_any_bytes_are_a_table_or_are_refused(data: bytes) -> None:
    with TemporaryDirectory() as name:
        path = Path(name) / "x.csv"
        path.write_bytes(data)
        try:
            source, _ = pixels(path, DataOptions())
        except DataError:
            return
    assert source.images.ndim == 4
    assert source.images.size > 0


def test_train_names_file_row_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = labelled().astype(str)
    table[3, 0] = "-5"
    write(tmp_path / "x.csv", table)
    assert main(["train", "--data", "x.csv", "--epochs", "1"]) == 3
    message = capsys.readouterr().err
    assert "error: the label -5 is not a class" in message
    assert "where: x.csv, row 4" in message
    assert "try: --label-column" in message
    assert "Traceback" not in message


def test_a_column_that_never_changes_is_no_label(tmp_path: Path) -> None:
    """scikit-learn's digits with the label last: their first pixel is always 0."""
    digits = load_digits()
    np.savetxt(tmp_path / "digits.csv", np.column_stack([digits.data, digits.target])[:50], fmt="%d", delimiter=",")
    source, notes = pixels(tmp_path / "digits.csv", DataOptions())
    assert source.targets.tolist() == digits.target[:50].tolist()
    assert "label in the last column" in notes[0]


@pytest.mark.parametrize("name", ["label", "Class", "target"])
def test_a_header_says_which_column_is_the_label(name: str, tmp_path: Path) -> None:
    """The first pixel of light paper changes as labels do, so only the name tells."""
    path = write(tmp_path / "x.csv", labelled(first=False), ",".join([*(f"pixel{i}" for i in range(9)), name]))
    source, notes = pixels(path, DataOptions())
    check(source)
    assert notes == ["10 columns: label in the last column, images of 1 x 3 x 3"]


def test_a_header_with_two_labels_is_refused_until_one_is_named(tmp_path: Path) -> None:
    table = np.column_stack([LABELS, labelled()])
    path = write(tmp_path / "x.csv", table, ",".join(["label", "class", *(f"p{i}" for i in range(9))]))
    error = refused(path)
    assert (error.what, error.why) == ("several columns may hold the labels", "they are label, class")
    assert "--label-column label" in error.hint


def test_that_the_last_column_may_be_the_label_too_is_said(tmp_path: Path) -> None:
    table = labelled(first=False)
    table[:, 0] = np.arange(6) + 200
    assert (
        "the last may be it too: --label-column last" in pixels(write(tmp_path / "x.csv", table), DataOptions())[1][0]
    )


WORDS = np.array(["four", "seven", "four", "seven", "seven", "four"])


@pytest.mark.parametrize("title", ["label", "digit", '"digit"', ""])
@pytest.mark.parametrize("numbered", [False, True])
@pytest.mark.parametrize("first", [True, False])
def test_labels_may_be_words(title: str, numbered: bool, first: bool, tmp_path: Path) -> None:
    flat = IMAGES.reshape(6, 9).astype(str)
    table = np.column_stack([WORDS, flat] if first else [flat, WORDS])
    names = [str(i) if numbered else f"p{i}" for i in range(9)]
    header = ",".join([title, *names] if first else [*names, title]) if title else ""
    source, _ = pixels(write(tmp_path / "x.csv", table, header), DataOptions())
    assert np.array_equal(source.images[:, 0], IMAGES)
    assert [source.classes[t] for t in source.targets] == WORDS.tolist()


def test_labels_of_a_table_of_pixels_stay_as_they_are_written(tmp_path: Path) -> None:
    table = labelled().astype(str)
    table[:, 0] = np.where(LABELS == 4, "01", "1")
    assert pixels(write(tmp_path / "x.csv", table), DataOptions())[0].classes == ("01", "1")
    np.savetxt(tmp_path / "y.csv", labelled(), delimiter=",")
    check(pixels(tmp_path / "y.csv", DataOptions())[0])


@pytest.mark.parametrize("title", ["", "Unnamed: 0"])
@pytest.mark.parametrize("header", [",".join(["label", *(f"p{i}" for i in range(9))]), ",".join(map(str, range(10)))])
def test_an_index_of_pandas_is_left_aside(title: str, header: str, tmp_path: Path) -> None:
    table = np.column_stack([[0, 5, 2, 3, 9, 1], labelled()])
    path = write(tmp_path / "x.csv", table, f"{title},{header}")
    for column in ("auto", "first"):
        source, notes = pixels(path, DataOptions(label_column=column))
        check(source)
        assert notes[1:] == ["the first column numbers the rows and is left aside"]
    bare, _ = pixels(write(path, table[:, [0, *range(2, 11)]], f",{','.join(map(str, range(9)))}"), DataOptions())
    assert np.array_equal(bare.images[:, 0], IMAGES)
    assert bare.targets.tolist() == [-1] * 6
