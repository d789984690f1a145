"""Images with masks, from folders, tables and rows of pixels; and every way in which they can be wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image as Pillow
from sklearn.datasets import load_digits

from hostile import encode, random_pixels
from msresnet.data.cache import store_key
from msresnet.data.decode import decode_values
from msresnet.data.lazy import Lazy
from msresnet.data.loaders import decode, open_sets
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.data.preprocess import Preprocess, choose
from msresnet.data.resize import frame, resize_mask
from msresnet.data.sample import IGNORED, MaskedArrays, Relabelled, Source, Subset
from msresnet.data.sets import Samples
from msresnet.data.sources.meaning import UNKNOWN, meaning
from msresnet.data.splits import Splits, open_data, read_any
from msresnet.errors import DataError

Mask = npt.NDArray[np.uint8]
OPTIONS = DataOptions(workers=0)
CPU = torch.device("cpu")


def truth(number: int, classes: int = 2, size: tuple[int, int] = (9, 11)) -> Mask:
    """Class indices, different for every number; each class is there."""
    mask = random_pixels(*size, seed=number) % classes
    mask[0, :classes] = np.arange(classes)
    return mask


def folder(root: Path, count: int = 8, white: int = 255, images: str = "images", masks: str = "masks") -> Path:
    """Grey JPEGs and PNG masks of two classes."""
    (root / images).mkdir(parents=True)
    (root / masks).mkdir(parents=True)
    for number in range(count):
        mask = truth(number)
        (root / images / f"{number:02d}.jpg").write_bytes(encode((mask * 120 + 60).astype(np.uint8), "JPEG"))
        (root / masks / f"{number:02d}.png").write_bytes(encode((mask * white).astype(np.uint8), "PNG"))
    return root


def only(found: tuple[dict[str, Source], list[str]]) -> Source:
    """The one set that was found."""
    assert list(found[0]) == ["train"]
    return found[0]["train"]


def test_folders_side_by_side(tmp_path: Path) -> None:
    found = read_any(str(folder(tmp_path)), OPTIONS)
    source = only(found)
    assert (source.task, source.classes, len(source)) == ("segmentation", ("background", "foreground"), 8)
    assert source.ids[3] == "images/03.jpg"
    assert source.truth(3).tolist() == truth(3).tolist()
    assert source.size(3) == (9, 11) == source.image(3).shape[1:]
    assert any("images and masks in images/ and masks/" in note for note in found[1])
    assert any("0 background, 255 foreground" in note for note in found[1])


@pytest.mark.parametrize("inside", [True, False], ids=["split-first", "images-first"])
def test_several_sets_mean_the_same_by_the_same_values(tmp_path: Path, inside: bool) -> None:
    for split in ("train", "valid", "test"):
        names = (f"{split}/images", f"{split}/masks") if inside else (f"images/{split}", f"masks/{split}")
        folder(tmp_path, 4, white=1, images=names[0], masks=names[1])
    blank = tmp_path / ("test/masks" if inside else "masks/test") / "00.png"
    blank.write_bytes(encode(np.zeros((9, 11), np.uint8), "PNG"))
    splits = open_data(str(tmp_path), OPTIONS)
    assert splits.val is not None
    assert splits.test is not None
    assert [len(s) for s in splits.named().values()] == [4, 4, 4]
    assert splits.test.classes == ("background", "foreground")
    assert splits.test.truth(0).max() == 0
    assert splits.test.truth(1).tolist() == truth(1).tolist()


def test_palettes_one_bit_and_sixteen_bits_are_numbers(tmp_path: Path) -> None:
    mask = truth(1, 4)
    palette = Pillow.frombytes("P", (mask.shape[1], mask.shape[0]), mask.tobytes())
    palette.putpalette([10, 20, 30] * 256)
    forms: dict[str, Any] = {
        "palette.png": palette,
        "deep.png": Pillow.fromarray(mask.astype(np.uint16)),
        "grey.bmp": mask,
    }
    for name, picture in forms.items():
        (tmp_path / name).write_bytes(encode(picture, name[-3:].upper()))
        assert decode_values(tmp_path / name).tolist() == mask.tolist(), name
    (tmp_path / "one.png").write_bytes(encode(Pillow.fromarray(mask > 1), "PNG"))
    assert decode_values(tmp_path / "one.png").tolist() == (255 * (mask > 1)).tolist()
    grey = np.repeat(mask[:, :, None], 3, 2)
    (tmp_path / "rgb.png").write_bytes(encode(grey, "PNG"))
    assert decode_values(tmp_path / "rgb.png").tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("colours.png", random_pixels(5, 5, 3), "not numbers"),
        ("mask.jpg", random_pixels(5, 5), "not a file for masks"),
        ("float.tif", random_pixels(5, 5).astype(np.float32), "not numbers"),
        ("alpha.png", random_pixels(5, 5, 4), "not numbers"),
    ],
)
def test_files_that_are_no_masks(tmp_path: Path, name: str, picture: npt.NDArray[np.generic], message: str) -> None:
    form = {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], "PNG")
    (tmp_path / name).write_bytes(encode(picture, form))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message) as caught:
        decode_values(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("values", "names", "classes", "ignored"),
    [
        ({0, 255}, [], ("background", "foreground"), False),
        ({0, 1}, [], ("background", "foreground"), True),
        ({0, 1, 255}, [], ("background", "foreground"), True),
        ({0, 1, 2, 3}, [], ("0", "1", "2", "3"), True),
        ({0, 1, 2, 255}, [], ("0", "1", "2"), True),
        ({0, 255}, ["paper", "ink"], ("paper", "ink"), False),
        ({0, 1, 255}, ["paper", "ink"], ("paper", "ink"), True),
        ({0, 4}, list("abcde"), tuple("abcde"), True),
        ({0}, ["a", "b"], ("a", "b"), True),
    ],
)
def test_what_values_mean(values: set[int], names: list[str], classes: tuple[str, ...], ignored: bool) -> None:
    means = meaning(values, names, "here")
    assert means.classes == classes
    assert all(means.lookup[value] != UNKNOWN for value in values)
    assert (means.lookup[255] == IGNORED) == ignored
    assert sorted(set(means.lookup.tolist()) - {UNKNOWN, IGNORED}) == list(range(len(classes)))


@pytest.mark.parametrize(
    ("values", "names", "message"),
    [
        ({0, 7, 255}, [], "not clear which values"),
        ({1, 2, 3}, [], "not clear which values"),
        (set(range(100)), [], "look like pictures"),
        ({0, 1, 300}, [], "look like pictures"),
        ({0}, [], "only one class"),
        ({255}, [], "only one class|no class"),
    ],
)
def test_values_that_cannot_be_meant(values: set[int], names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        meaning(values, names, "here")


def test_an_unknown_value_is_an_unreadable_image_that_says_where(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "classes.txt").write_text("paper\nink\n", encoding="utf-8")
    wrong = truth(5) * 255
    wrong[4, 6] = 9
    (tmp_path / "masks" / "05.png").write_bytes(encode(wrong, "PNG"))
    source = only(read_any(str(tmp_path), OPTIONS))
    assert source.classes == ("paper", "ink")
    with pytest.raises(DataError, match=r"holds 9, which is not a class[\s\S]*row 5, column 7[\s\S]*255 \(ink\)"):
        source.truth(5)
    preprocess = Preprocess((9, 11), 1, whole=True)
    with pytest.raises(DataError, match="1 of 8 images cannot be read"):
        decode(source, preprocess)
    left = decode(source, preprocess, on_bad="skip")
    assert (len(left), left.bad[0][0]) == (7, "images/05.jpg")


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "masks" / "02.png").write_bytes(encode(truth(2, size=(11, 9)) * 255, "PNG"))
    source = only(read_any(str(tmp_path), OPTIONS))
    with pytest.raises(DataError, match=r"another size[\s\S]*mask is 11x9, the image 9x11"):
        Preprocess((9, 11), 1, whole=True).read(source, 2)


def test_images_without_a_mask_and_masks_without_an_image(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "images" / "05.jpg").unlink()
    assert any("1 masks without an image" in note for note in read_any(str(tmp_path), OPTIONS)[1])
    (tmp_path / "masks" / "03.png").unlink()
    (tmp_path / "masks" / "03.jpg").write_bytes(encode(truth(3), "JPEG"))
    with pytest.raises(DataError, match=r"1 of 7 images have no mask[\s\S]*03\.jpg[\s\S]*JPEG changes values"):
        read_any(str(tmp_path), OPTIONS)


@pytest.mark.parametrize(
    ("text", "message"), [("a\n", "1 names"), ("a\nb\na\n", "'a' stands there twice"), ("", "0 names")]
)
def test_names_of_classes_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    folder(tmp_path)
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_any(str(tmp_path), OPTIONS)


def test_a_table_of_images_and_masks(tmp_path: Path) -> None:
    folder(tmp_path)
    rows = [f"images/{n:02d}.jpg,masks/{n:02d}.png,{'test' if n > 5 else 'train'}" for n in range(8)]
    table = tmp_path / "pairs.csv"
    table.write_text("image,mask,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found, notes = read_any(str(table), OPTIONS)
    assert {name: len(source) for name, source in found.items()} == {"train": 6, "test": 2}
    assert found["test"].truth(1).tolist() == truth(7).tolist()
    assert "images in 'image' and masks in 'mask'" in notes[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("images/00.jpg", "the row has 1 columns"),
        ("images/00.jpg,../../etc/passwd.png", "leads out"),
        ("/abs/a.png,masks/00.png", "leads out"),
        (",masks/00.png", "path is empty"),
        ("images/00.jpg,notes.txt", "not a name of an image"),
    ],
)
def test_rows_that_cannot_be(tmp_path: Path, row: str, message: str) -> None:
    table = folder(tmp_path) / "pairs.csv"
    table.write_text(f"image,mask\nimages/00.jpg,masks/00.png\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        read_any(str(table), OPTIONS)
    assert "row 3" in str(caught.value)


def pixel_files(root: Path, count: int = 6, side: int = 5, name: str = "digits") -> tuple[npt.NDArray[np.int64], Path]:
    """The article's text files: grey images, one a row, and what a threshold made of them."""
    grey = np.random.default_rng(0).integers(0, 256, (count, side * side))
    np.savetxt(root / f"{name}.csv", grey, "%d", ",")
    np.savetxt(root / f"{name}-masks.csv", 255 * (grey > 127), "%d", ",")
    return grey, root / f"{name}.csv"


def test_rows_of_pixels_with_a_twin_of_masks(tmp_path: Path) -> None:
    grey, path = pixel_files(tmp_path)
    source = only(read_any(str(path), OPTIONS))
    assert (source.task, source.classes, len(source)) == ("segmentation", ("background", "foreground"), 6)
    assert source.image(2).ravel().tolist() == grey[2].tolist()
    assert source.truth(2).ravel().tolist() == (grey[2] > 127).astype(int).tolist()


def test_tables_for_training_and_test_mean_the_same(tmp_path: Path) -> None:
    pixel_files(tmp_path, name="train")
    pixel_files(tmp_path, 3, name="test")
    np.savetxt(tmp_path / "test-masks.csv", np.zeros((3, 25)), "%d", ",")  # a class is absent here
    found, _ = read_any(str(tmp_path), OPTIONS)
    assert {name: len(source) for name, source in found.items()} == {"train": 6, "test": 3}
    assert found["test"].classes == found["train"].classes


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.zeros((5, 25)), r"do not fit the images[\s\S]*5 rows of 25"),
        (np.zeros((6, 24)), "do not fit"),
        (np.full((6, 25), 0.5), "holds 0.5, which is not a class"),
        (np.full((6, 25), np.nan), "holds nan"),
        (np.full((6, 25), -1), "holds -1"),
        (np.ones((6, 25)), "only one class"),
    ],
)
def test_twins_that_do_not_fit(tmp_path: Path, masks: npt.NDArray[np.float64], message: str) -> None:
    _, path = pixel_files(tmp_path)
    np.savetxt(tmp_path / "digits-masks.csv", masks, "%g", ",")
    with pytest.raises(DataError, match=message) as caught:
        read_any(str(path), OPTIONS)
    assert "digits-masks.csv" in str(caught.value)


def test_binary_digits_are_what_otsu_makes_of_clean_digits() -> None:
    embedded = load_digits()
    found, _ = read_any("binary-digits", OPTIONS)
    assert {name: len(source) for name, source in found.items()} == {"train": 1347, "test": 450}
    for split, start in (("train", 0), ("test", 1347)):
        for index in (0, 100, 449):
            image, mask = found[split].image(index)[0], found[split].truth(index)
            assert image.shape == mask.shape == (32, 32)
            levels = np.unique(image)
            inner = [within(image, level) for level in levels[:-1]]
            best = levels[int(np.argmin(inner))]
            assert abs(int((image > best).sum()) - int(mask.sum())) <= 8  # levels between two peaks are equally good
            small = embedded.images[start + index]
            assert np.corrcoef(image.reshape(8, 4, 8, 4).mean((1, 3)).ravel(), small.ravel())[0, 1] > 0.95
    keys = [{source.split_key(i) for i in range(len(source))} for source in found.values()]
    assert not keys[0] & keys[1]


def within(image: Mask, level: int) -> float:
    """The variance within dark and bright, weighted, which Otsu's threshold makes smallest."""
    dark, bright = image[image <= level], image[image > level]
    return float(dark.var() * len(dark) + bright.var() * len(bright))


def test_masks_are_resized_with_their_images(tmp_path: Path) -> None:
    mask = truth(0, 3, (10, 6))
    doubled = resize_mask(mask, (20, 12), "squash")
    assert doubled[::2, ::2].tolist() == mask.tolist() == doubled[1::2, 1::2].tolist()
    padded = resize_mask(mask, (20, 20), "pad")
    place = frame((10, 6), (20, 20), "pad")
    assert (place.top, place.left, place.inner) == (0, 4, (20, 12))
    assert padded[place.rows, place.columns].tolist() == doubled.tolist()
    assert (padded[:, :4] == IGNORED).all()
    assert (padded[:, 16:] == IGNORED).all()


@pytest.fixture
def opened(tmp_path: Path) -> tuple[Source, Preprocess]:
    """A source of files, and how training would take it."""
    source = only(read_any(str(folder(tmp_path / "data")), OPTIONS))
    preprocess, _ = choose(PreprocessOptions(image_size=(12,)), source)
    assert preprocess.whole
    assert preprocess.at_least is None
    return source, preprocess


def batch(data: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    found = next(iter(data.batches([torch.tensor([3, 1, 6])], CPU)))
    return found.images.clone(), found.targets.clone()


def test_memory_threads_and_the_disk_give_the_same_images_and_masks(opened: tuple[Source, Preprocess]) -> None:
    source, preprocess = opened
    ways: dict[str, Samples] = {"ram": decode(source, preprocess), "lazy": Lazy(source, preprocess, workers=2)}
    for _ in range(2):  # the second time, the disk answers
        ways["disk"] = open_sets({"": source}, preprocess, replace(OPTIONS, cache="disk"))[0][""]
        images, masks = batch(ways["ram"])
        assert images.shape == (3, 1, 12, 12)
        assert (masks.shape, masks.dtype) == ((3, 12, 12), torch.uint8)
        for name, data in ways.items():
            assert all(torch.equal(a, b) for a, b in zip(batch(data), (images, masks), strict=True)), name
        assert len({data.fingerprint() for data in ways.values()}) == 1
    assert masks[0].tolist() == resize_mask(truth(3), (12, 12), "squash").tolist()
    for data in ways.values():
        assert data.truth(3).tolist() == truth(3).tolist()
        assert data.size(3) == (9, 11)


def test_another_mask_is_another_set(opened: tuple[Source, Preprocess], tmp_path: Path) -> None:
    source, preprocess = opened
    before = store_key(source, preprocess), decode(source, preprocess).fingerprint()
    path = tmp_path / "data" / "masks" / "00.png"
    path.write_bytes(encode((1 - truth(0)) * 255, "PNG"))
    assert store_key(source, preprocess) != before[0]
    assert decode(source, preprocess).fingerprint() != before[1]


def test_parts_and_renumbered_sets_keep_their_masks() -> None:
    images = random_pixels(5, 1, 4, 4)
    masks = np.stack([truth(i, 3, (4, 4)) for i in range(5)])
    masks[0, 3, 3] = IGNORED
    source = MaskedArrays(images, masks, ("a", "b", "c"))
    part = Subset(source, np.array([4, 0]))
    assert part.truth(0).tolist() == masks[4].tolist()
    other = Relabelled(part, ("c", "b", "x", "a"))
    expected = np.array([3, 1, 0])[masks[0].clip(0, 2)]
    expected[3, 3] = IGNORED
    assert (other.task, other.truth(1).tolist()) == ("segmentation", expected.tolist())


def test_sets_of_another_kind_do_not_go_together(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(DataError, match="of another kind"):
        open_data(str(tmp_path), replace(OPTIONS, val_data="digits"))


def test_a_split_needs_no_classes_of_images(tmp_path: Path) -> None:
    splits: Splits = open_data(str(folder(tmp_path, 30)), OPTIONS)
    assert splits.test is not None
    assert splits.val is not None
    assert sum(map(len, splits.named().values())) == 30
