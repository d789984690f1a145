"""Images with boxes: every format says the same, usual layouts are found, damaged files name record and line."""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import boxed
import hostile
from boxed import FORMATS, HEIGHT, NAMES, WIDTH, Truth
from msresnet.boxes import Boxes
from msresnet.data.boxed import BoxedArrays, BoxedSource, fits
from msresnet.data.cache import open_store
from msresnet.data.decode import decode_file, read_regular
from msresnet.data.lazy import Lazy
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import Relabelled, Subset
from msresnet.data.sources.mot import read_uncut
from msresnet.data.sources.voc import read_record
from msresnet.data.splits import open_data, read_any
from msresnet.data.videos import Followed, Video, VideoSource
from msresnet.errors import DataError, ResourceError

OPTIONS = DataOptions(workers=0)
TRUTH = boxed.truth()


def opened(spec: Path | str) -> tuple[BoxedSource, list[str]]:
    """The training set of some data, and what was inferred."""
    found, notes = read_any(str(spec), OPTIONS)
    source = found["train"]
    assert isinstance(source, BoxedSource)
    return source, notes


def refused(spec: Path | str) -> DataError:
    """The error for some data."""
    with pytest.raises(DataError) as caught:
        opened(spec)
    return caught.value


def same(source: BoxedSource, truth: Truth) -> None:
    """Every image of a source has the boxes that the truth says, by name."""
    assert (source.task, source.boxed, source.classes) == ("detection", True, NAMES)
    assert len(source) == len(truth)
    for index, expected in enumerate(truth.values()):
        found = source.truth(index)
        assert np.allclose(found.xyxy, expected.xyxy, atol=1e-4)
        assert np.array_equal(found.classes, expected.classes)
        assert not found.crowd.any()
        assert source.size(index) == (HEIGHT, WIDTH) == source.image(index).shape[1:]


@pytest.mark.parametrize("form", FORMATS)
def test_A09_A10_every_format_says_the_same(form: str, tmp_path: Path) -> None:
    FORMATS[form](tmp_path, TRUTH)
    source, notes = opened(tmp_path)
    same(source, TRUTH)
    stem = list(source.ids)[2].split("/")[-1]
    assert int(stem.split(".")[0]) == (3 if form == "mot" else 2)
    path = source.path(2)
    assert path is not None
    assert np.array_equal(source.image(2), decode_file(path))
    assert len(source.files(2)) == 2
    assert any("1 images without a box" in note for note in notes)


@pytest.mark.parametrize("form", FORMATS)
def test_several_sets_have_the_same_classes(form: str, tmp_path: Path) -> None:
    FORMATS[form](tmp_path, TRUTH)
    others = {f"9{stem}": boxes.chosen(boxes.classes == 1) for stem, boxes in boxed.truth(3, seed=1).items()}
    FORMATS[form](tmp_path, others, "val")
    splits = open_data(str(tmp_path), OPTIONS)
    assert splits.val is not None
    assert splits.val.classes == splits.classes == NAMES
    assert [splits.val.truth(i).classes.tolist() for i in range(3)] == [b.classes.tolist() for b in others.values()]
    assert splits.test is None


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_a_held_out_image_keeps_its_boxes(form: str, tmp_path: Path) -> None:
    truth = boxed.truth(40)
    FORMATS[form](tmp_path, truth)
    splits = open_data(str(tmp_path), OPTIONS)
    assert sum(map(len, splits.named().values())) == 40
    for part in splits.named().values():
        for index, name in enumerate(part.ids):
            assert np.allclose(part.truth(index).xyxy, truth[Path(name).stem].xyxy, atol=1e-4)


def test_one_class_is_enough_and_none_is_not(tmp_path: Path) -> None:
    boxed.coco(tmp_path / "one", {stem: boxes.chosen(boxes.classes == 0) for stem, boxes in boxed.truth(20).items()})
    assert open_data(str(tmp_path / "one"), OPTIONS).classes == ("cat",)
    boxed.coco(tmp_path / "none", dict.fromkeys(TRUTH, Boxes.none()))
    ignored = {stem: Boxes.of(boxes.xyxy, boxes.classes, boxes.classes >= 0) for stem, boxes in TRUTH.items()}
    boxed.voc(tmp_path / "crowds", ignored)
    for name in ("none", "crowds"):
        with pytest.raises(DataError, match="no box in the training set"):
            open_data(str(tmp_path / name), OPTIONS)


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_images_without_a_box_measure(form: str, tmp_path: Path) -> None:
    FORMATS[form](tmp_path / "empty", dict.fromkeys(TRUTH, Boxes.none()))
    source, notes = opened(tmp_path / "empty")
    assert (len(source), source.classes, [len(source.truth(i)) for i in range(6)]) == (6, (), [0] * 6)
    assert any(note.endswith(", 0 classes") for note in notes)
    boxed.coco(tmp_path / "full", TRUTH)
    splits = open_data(str(tmp_path / "full"), DataOptions(workers=0, val_data=str(tmp_path / "empty")))
    assert splits.val is not None
    assert (splits.val.classes, len(splits.val.truth(0))) == (NAMES, 0)


@pytest.mark.parametrize("form", ["voc", "mot"])
def test_A05_boxes_are_cut_where_only_the_image_says_its_size(form: str, tmp_path: Path) -> None:
    path = FORMATS[form](tmp_path, {"00": Boxes.of([[50, 30, 75, 44], [70, 9, 80, 19], [1, 1, 9, 9]], [0, 1, 1])})
    if form == "mot":
        (path.parents[1] / "seqinfo.ini").unlink()
    else:
        described = tmp_path / "Annotations" / "00.xml"
        described.write_text(re.sub("<size>.*</size>", "", described.read_text()))
    source, notes = opened(tmp_path)
    assert source.truth(0).xyxy.tolist() == [[50, 30, WIDTH, HEIGHT], [1, 1, 9, 9]]
    assert any(note.startswith("1 boxes reached beyond") for note in notes)
    assert any(note.startswith("1 boxes have no area") for note in notes)


def without_sizes(form: str, root: Path) -> BoxedSource:
    """Images that alone say their sizes."""
    FORMATS[form](root, TRUTH)
    for path in root.rglob("seqinfo.ini"):
        path.unlink()
    for path in root.rglob("*.xml"):
        path.write_text(re.sub("<size>.*</size>", "", path.read_text()))
    return opened(root)[0]


@pytest.mark.parametrize("form", ["yolo", "voc", "mot"])
def test_each_image_is_read_once_for_pixels_and_size_and_never_where_a_batch_is_waited_for(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = without_sizes(form, tmp_path)
    readers = list[str]()

    def watched(path: str | Path, **how: Any) -> bytes:
        readers.append(threading.current_thread().name)
        return read_regular(path, **how)

    monkeypatch.setattr("msresnet.data.decode.read_regular", watched)
    preprocess = Preprocess((20, 30), 3, whole=True)
    parts, found = torch.arange(len(source)).split(2), []
    for first, store in ((True, None), (False, open_store(source, preprocess))):
        data = Lazy(source, preprocess, workers=2, store=store)
        found += [batch.targets for _ in range(2) for batch in data.batches(parts, torch.device("cpu"))]
        assert [data.size(i) for i in range(len(data))] == [(HEIGHT, WIDTH)] * len(data)
        assert not any(name == threading.main_thread().name for name in readers)
        assert len(readers) == (2 if first else 3) * len(source)
    again = Lazy(opened(tmp_path)[0], preprocess, workers=2, store=open_store(source, preprocess))
    readers.clear()
    found += [batch.targets for batch in again.batches(parts, torch.device("cpu"))]
    assert len(readers) == (len(source) if form == "yolo" else 1)  # only of YOLO, opening asks for no size
    assert not any(name == threading.main_thread().name for name in readers)
    for place, targets in enumerate(found):
        assert torch.equal(targets, found[place % len(parts)])


def test_an_image_that_cannot_be_read_leaves_its_boxes_uncut(tmp_path: Path) -> None:
    boxed.voc(tmp_path, {"00": Boxes.of([[50, 30, 75, 44]], [0])})
    path = tmp_path / "Annotations" / "00.xml"
    path.write_text(re.sub("<size>.*</size>", "", path.read_text()))
    (tmp_path / "JPEGImages" / "00.png").write_bytes(b"no image")
    source, _ = opened(tmp_path)
    assert source.truth(0).xyxy.tolist() == [[50, 30, 75, 44]]
    with pytest.raises(DataError):
        source.image(0)


def test_arrays_and_their_subsets() -> None:
    images = [hostile.random_pixels(1, 20 + i, 30, seed=i) for i in range(3)]
    boxes = [Boxes.of([[0, 0, 5, 5]], [1], [True]), Boxes.none(), Boxes.of([[1, 2, 3, 4], [0, 0, 9, 9]], [0, 2])]
    source = BoxedArrays(images, boxes, ("a", "b", "c"))
    assert source.present().tolist() == [0, 2]
    assert source.size(2) == (22, 30)
    part = Relabelled(Subset(source, np.array([2, 1])), ("c", "x", "b", "a"))
    assert part.truth(0).classes.tolist() == [3, 0]
    assert len(part.truth(1)) == 0
    with pytest.raises(DataError, match="each image needs its boxes"):
        BoxedArrays(images, boxes[:2], ("a", "b", "c"))


# COCO: what is no matter of records is in test_coco.py.


def test_A11_crowds_stay_and_are_known(tmp_path: Path) -> None:
    path = boxed.coco(tmp_path, TRUTH)
    content = json.loads(path.read_text())
    content["annotations"][0]["iscrowd"] = content["annotations"][1]["ignore"] = 1
    path.write_text(json.dumps(content))
    source, notes = opened(path)
    assert source.truth(0).crowd[:3].tolist() == [True, True, *([False] * (len(source.truth(0)) - 2))][:3]
    assert any("2 boxes to be ignored" in note for note in notes)


def test_a_category_without_a_box_is_no_class(tmp_path: Path) -> None:
    path = boxed.coco(tmp_path, TRUTH)
    content = json.loads(path.read_text())
    content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})  # as exports have it
    path.write_text(json.dumps(content))
    source, notes = opened(tmp_path)
    same(source, TRUTH)
    assert "no box is of animals" in notes


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_A06_A07_an_image_that_is_absent_or_of_another_size(form: str, tmp_path: Path) -> None:
    FORMATS[form](tmp_path, TRUTH)
    source, _ = opened(tmp_path)
    paths = [source.path(index) for index in range(2)]
    assert paths[0] is not None
    assert paths[1] is not None
    paths[0].write_bytes(hostile.encode(hostile.random_pixels(WIDTH, HEIGHT, 3), "PNG"))
    paths[1].unlink()
    for at_least in (None, (8, 8)):
        with pytest.raises(DataError, match="another size") as caught:
            source.image(0, at_least)
        assert caught.value.why == f"upright it is {HEIGHT}x{WIDTH}, they say {WIDTH}x{HEIGHT}"
    with pytest.raises(DataError, match="cannot open") as caught:
        source.image(1)
    assert "01.png" in caught.value.where


def test_reduced_decoding_fits() -> None:
    assert fits((101, 67), (201, 133), True)
    assert not fits((101, 67), (201, 133), False)
    assert fits((201, 133), (201, 133), False)
    assert not fits((133, 201), (201, 133), True)


# VOC


@pytest.mark.parametrize(
    ("records", "pictures"),
    [("Annotations", "JPEGImages"), ("annotations", "images"), (".", "."), ("train", "train")],
)
def test_layouts_of_voc(records: str, pictures: str, tmp_path: Path) -> None:
    boxed.images(tmp_path / pictures, TRUTH)
    (tmp_path / records).mkdir(exist_ok=True)
    for stem, boxes in TRUTH.items():
        (tmp_path / records / f"{stem}.xml").write_text(boxed.voc_record(stem, boxes))
    same(opened(tmp_path)[0], TRUTH)
    (tmp_path / pictures / "07.png").write_bytes((tmp_path / pictures / "00.png").read_bytes())
    source, notes = opened(tmp_path)
    assert len(source) == len(TRUTH)
    assert "1 images without an XML file were left aside" in notes
    assert "no corner is 0: corners are taken as pixels from 1 on" in notes


def test_sets_of_voc_below_each_split(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        boxed.voc(tmp_path / split, TRUTH)
    assert list(read_any(str(tmp_path), OPTIONS)[0]) == ["train", "val"]


def test_trainval_trains_where_there_is_no_train(tmp_path: Path) -> None:
    path = boxed.voc(tmp_path, TRUTH)
    path.rename(path.with_name("trainval.txt"))
    path.with_name("test.txt").write_text("00 1\n02 -1\n")
    found, _ = read_any(str(tmp_path), OPTIONS)
    assert {split: len(source) for split, source in found.items()} == {"train": 6, "test": 2}


def test_images_that_another_set_lists_are_not_left_aside(tmp_path: Path) -> None:
    boxed.voc(tmp_path, TRUTH)
    boxed.voc(tmp_path, {"90": Boxes.of([[1, 1, 9, 9]], [0])}, "val")
    assert not any("left aside" in note for note in opened(tmp_path)[1])
    (tmp_path / "Annotations" / "90.xml").unlink()
    (tmp_path / "ImageSets" / "Main" / "val.txt").unlink()
    assert "1 images without an XML file were left aside" in opened(tmp_path)[1]


def test_what_a_list_has_twice_is_read_once(tmp_path: Path) -> None:
    path = boxed.voc(tmp_path, TRUTH)
    path.write_text(path.read_text() + "00\n00\n02\n")
    source, notes = opened(tmp_path)
    same(source, TRUTH)
    assert "train: 3 images are listed again and read once" in notes


@pytest.mark.parametrize("first", [0, 1])
def test_corners_of_further_sets_count_as_in_the_training_set(first: int, tmp_path: Path) -> None:
    """Alone, either set would be taken for what the other is."""
    for name, corner in (("train", first), ("val", 1 - first)):
        boxed.voc(tmp_path / name, {f"{n:02d}": Boxes.of([[corner - 1, 4, 20, 20]], [0]) for n in range(4)})
    splits = open_data(str(tmp_path / "train"), DataOptions(workers=0, val_data=str(tmp_path / "val"), test_fraction=0))
    assert splits.val is not None
    assert splits.train.truth(0).xyxy.tolist() == [[0, 5 - first, 20, 20]]
    assert splits.val.truth(0).xyxy.tolist() == [[1 - first, 5 - first, 20, 20]]
    assert f"{'no' if first else 'some'} corner is 0" in " ".join(splits.notes)


def test_corners_from_0_on_are_coordinates(tmp_path: Path) -> None:
    boxed.voc(tmp_path, {"00": Boxes.of([[-1, 4, 20, 20], [9, 9, 19, 19]], [0, 1])})  # written as 0 and 10
    source, notes = opened(tmp_path)
    assert source.truth(0).xyxy.tolist() == [[0, 5, 20, 20], [10, 10, 19, 19]]
    assert any("taken as coordinates from 0 on" in note for note in notes)


def test_A11_difficult_objects_are_to_be_ignored(tmp_path: Path) -> None:
    boxed.voc(tmp_path, {"00": Boxes.of([[0, 4, 20, 20], [9, 9, 19, 19]], [0, 1], [True, False])})
    assert opened(tmp_path)[0].truth(0).crowd.tolist() == [True, False]


def test_A05_A04_boxes_of_voc_are_cut_and_counted(tmp_path: Path) -> None:
    boxed.voc(tmp_path, {"00": Boxes.of([[50, 30, 75, 44], [8, 8, 9, 9], [1, 1, 9, 9]], [0, 1, 1])})
    source, notes = opened(tmp_path)
    assert source.truth(0).xyxy.tolist() == [[50, 30, WIDTH, HEIGHT], [1, 1, 9, 9]]
    assert any(note.startswith("1 boxes reached beyond") and "00.xml, object 1" in note for note in notes)
    assert any(note.startswith("1 boxes have no area") and "00.xml, object 2" in note for note in notes)


def record(tmp_path: Path, text: str | bytes) -> Path:
    """One VOC file of some text."""
    boxed.voc(tmp_path, TRUTH)
    path = tmp_path / "Annotations" / "00.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def box_of(corners: str, name: str = "cat") -> str:
    """A file with one object of these corners."""
    keys = zip(("xmin", "ymin", "xmax", "ymax"), corners.split(), strict=False)
    inside = "".join(f"<{key}>{value}</{key}>" for key, value in keys)
    return f"<annotation><object><name>{name}</name><bndbox>{inside}</bndbox></object></annotation>"


@pytest.mark.parametrize(
    "corners", ["5 5 3 9", "5 5 9 3", "nan 1 2 3", "1 2 inf 4", "1 2 3", "a b c d", "1 2 3 1e300", ""]
)
def test_A04_corners_of_voc_that_are_none(corners: str, tmp_path: Path) -> None:
    path = record(tmp_path, box_of(corners))
    error = refused(tmp_path)
    assert error.where == f"{path}, object 1"
    assert error.what in ("an object has no box", "a box is turned inside out")


def test_an_object_without_a_name(tmp_path: Path) -> None:
    record(tmp_path, box_of("1 2 3 4", name=" "))
    assert refused(tmp_path).what == "an object has no name"


BOMB = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 10))
HOSTILE_XML = {
    "entities": f'<!DOCTYPE annotation [<!ENTITY a0 "ha">{BOMB}]><annotation>&a9;</annotation>',
    "outside": '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>',
    "doctype": '<!DOCTYPE annotation SYSTEM "http://localhost/x.dtd"><annotation/>',
}


@pytest.mark.parametrize("kind", HOSTILE_XML)
def test_A12_entities_are_never_expanded(kind: str, tmp_path: Path) -> None:
    path = record(tmp_path, HOSTILE_XML[kind])
    error = refused(tmp_path)
    assert (error.what, error.where) == ("the XML may be hostile", str(path))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (boxed.voc_record("00", TRUTH["00"])[:200], "the file is not XML"), ("", "the file is not XML"),
        (b"\xff\xfe\x00", "the file is not XML"), ("<a/>", "the XML is not a VOC annotation"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "the file is not XML"),
        (hostile.LFS_POINTER, "a Git-LFS pointer stands in place of the data"),
    ],
)  # fmt: skip
def test_A01_xml_that_is_none(text: str | bytes, what: str, tmp_path: Path) -> None:
    path = record(tmp_path, text)
    error = refused(tmp_path)
    assert (error.what, error.where) == (what, str(path))


def test_A08_xml_nested_250_000_deep(tmp_path: Path) -> None:
    path = tmp_path / "deep.xml"
    path.write_text("<annotation>" + "<a>" * 250_000 + "</a>" * 250_000 + "</annotation>")
    assert read_record(path).objects == []


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boxed.voc(tmp_path, TRUTH)
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    with pytest.raises(ResourceError, match="defusedxml") as caught:
        opened(tmp_path)
    assert caught.value.hint == 'pip install "msresnet[detect]"'


def test_D10_a_list_that_leads_out(tmp_path: Path) -> None:
    boxed.voc(tmp_path, TRUTH).write_text("00\n../../etc/passwd\n")
    assert refused(tmp_path).what == "a list of images names a path"


def test_sizes_that_the_xml_does_not_know_come_from_the_image(tmp_path: Path) -> None:
    record(tmp_path, boxed.voc_record("00", TRUTH["00"], size=(0, 0)))
    same(opened(tmp_path)[0], TRUTH)


# YOLO


@pytest.mark.parametrize("layout", ["images/train labels/train", "train/images train/labels", "images labels"])
@pytest.mark.parametrize("named", ["data.yaml", "classes.txt", "nothing"])
def test_layouts_of_yolo(layout: str, named: str, tmp_path: Path) -> None:
    boxed.yolo(tmp_path / "made", TRUTH)
    root = tmp_path / "root"
    for made, target in zip(("images/train", "labels/train"), layout.split(), strict=True):
        shutil.copytree(tmp_path / "made" / made, root / target)
    if named == "data.yaml":
        (root / "data.yaml").write_text(f"train: ../{layout.split(maxsplit=1)[0]}\nnc: 2\nnames: ['cat', 'dog']\n")
    elif named == "classes.txt":
        (root / "classes.txt").write_text("cat\ndog\n")
    source, _ = opened(root)
    if named == "nothing":
        assert source.classes == ("0", "1")
        source.classes = NAMES
    same(source, TRUTH)


def test_a_yaml_and_lists_of_images(tmp_path: Path) -> None:
    path = boxed.yolo(tmp_path, TRUTH)
    (tmp_path / "some.txt").write_text("./images/train/00.png\nimages/train/02.png\n")
    path.write_text("train: [images/train]\nval: some.txt\nnames: {0: cat, 1: dog, 5: yak}\n")
    found, notes = read_any(str(path), OPTIONS)
    assert {split: len(source) for split, source in found.items()} == {"train": 6, "val": 2}
    assert np.allclose(found["val"].truth(1).xyxy, TRUTH["02"].xyxy, atol=1e-4)
    assert "no box is of yak" in notes
    path.write_text("train: images/train\nval: images/train\nnames: [cat, dog]\n")
    found, notes = read_any(str(path), OPTIONS)
    assert list(found) == ["train"]
    assert "val is the training set again, which cannot measure: left out" in notes


def test_a_yaml_that_names_no_images(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("names: [cat, dog]\n")
    error = refused(path)
    assert (error.what, error.where) == ("the file names no images", str(path))
    assert "no class folders" in refused(tmp_path).what
    hostile.write_classes(tmp_path, {"cat": 3, "dog": 3})
    assert classes_of(tmp_path) == ("cat", "dog")


@pytest.mark.parametrize("text", ["--- 1\n--- 2\n", "a: !Ref b\n", "["])
def test_a_yaml_of_another_program_beside_class_folders(text: str, tmp_path: Path) -> None:
    hostile.write_classes(tmp_path, {"cat": 3, "dog": 3})
    path = tmp_path / "compose.yml"
    path.write_text(text)
    assert classes_of(tmp_path) == ("cat", "dog")
    path.rename(tmp_path / "data.yaml")
    assert refused(tmp_path).where == str(tmp_path / "data.yaml")
    boxed.yolo(tmp_path / "boxes", TRUTH).write_text(text)
    (tmp_path / "boxes" / "data.yaml").rename(tmp_path / "boxes" / "mine.yaml")
    assert refused(tmp_path / "boxes").where == str(tmp_path / "boxes" / "mine.yaml")


def classes_of(root: Path) -> tuple[str, ...]:
    """Of a folder that holds no boxes."""
    return read_any(str(root), OPTIONS)[0]["train"].classes


def test_an_outline_gives_its_box(tmp_path: Path) -> None:
    boxed.yolo(tmp_path, TRUTH)
    (tmp_path / "labels" / "train" / "00.txt").write_text("0 0.1 0.2 0.5 0.1 0.4 0.9\n1 0.5 0.5 0.2 0.2\n")
    source, notes = opened(tmp_path)
    expected = np.array([[0.1 * WIDTH, 0.1 * HEIGHT, 0.5 * WIDTH, 0.9 * HEIGHT], [24, 16, 36, 24]])
    assert np.allclose(source.truth(0).xyxy, expected, atol=1e-4)
    assert "1 outlines: the box around each is taken" in notes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 30 20 10 10", "not normalised"), ("0 0.5 0.5 1.5 0.2", "not normalised"), ("0 -0.3 0.5 0.2 0.2", "not no"),
        ("0 0.5 0.5 0.2", "4 columns"), ("0 0.5 0.5 0.2 0.2 0.9", "6 columns"), ("cat 0.5 0.5 0.2 0.2", "beside num"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5"), ("-1 0.5 0.5 0.2 0.2", "class -1"), ("2 0.5 0.5 0.2 0.2", "has no name"),
        ("0 nan 0.5 0.2 0.2", "not a number"), ("0 0.5 inf 0.2 0.2", "not a number"),
        ("0,0.5,0.5,0.2,0.2", "beside numbers"),
    ],
)  # fmt: skip
def test_A13_A04_lines_of_yolo_that_are_none(line: str, words: str, tmp_path: Path) -> None:
    boxed.yolo(tmp_path, TRUTH)
    path = tmp_path / "labels" / "train" / "02.txt"
    path.write_text(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    error = refused(tmp_path)
    assert words in error.what
    assert error.where == f"{path}, line 3"


def test_A05_boxes_of_yolo_are_cut_and_counted(tmp_path: Path) -> None:
    boxed.yolo(tmp_path, TRUTH)
    (tmp_path / "labels" / "train" / "00.txt").write_text("0 1.0 0.5 0.5 0.5\n1 0.5 0.5 0.0 0.2\n")
    source, notes = opened(tmp_path)
    assert np.allclose(source.truth(0).xyxy, [[0.75 * WIDTH, 0.25 * HEIGHT, WIDTH, 0.75 * HEIGHT]], atol=1e-4)
    assert any(note.startswith("1 boxes reached beyond") and "00.txt:1" in note for note in notes)
    assert any(note.startswith("1 boxes have no area") and "00.txt:2" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: [cat, cat]\n", "stands twice"), ("names: 7\n", "not a list of names"),
        ("names: {a: b}\n", "not a list"),
        ("train: nowhere\nnames: [cat, dog]\n", "not there"), ("train: [1]\nnames: [cat, dog]\n", "not a folder"),
        ("names: &a [*a]\n", "not plain YAML"), ("names: !!python/object:os.system x\n", "not plain YAML"),
        ("train: images\n", "names no classes"), ("[" * 10_000, "not plain YAML"),
    ],
)  # fmt: skip
def test_settings_of_yolo_that_are_none(text: str, words: str, tmp_path: Path) -> None:
    path = boxed.yolo(tmp_path, TRUTH)
    path.write_text(text)
    error = refused(path)
    assert words in error.what
    assert error.where.startswith(str(path))


def test_D20_a_pointer_in_place_of_labels(tmp_path: Path) -> None:
    boxed.yolo(tmp_path, TRUTH)
    (tmp_path / "labels" / "train" / "00.txt").write_bytes(hostile.LFS_POINTER)
    assert "Git-LFS pointer" in refused(tmp_path).what


# MOTChallenge


def test_videos_have_objects_and_stay_together(tmp_path: Path) -> None:
    boxed.mot(tmp_path, TRUTH)
    boxed.mot(tmp_path / "more", TRUTH)
    shutil.move(tmp_path / "more" / "train" / "one", tmp_path / "train" / "two")
    source, _ = opened(tmp_path)
    assert isinstance(source, VideoSource)
    first, second = source.followed.videos
    assert (first.name, first.start, first.stop, first.rate) == ("one", 0, 6, 25.0)
    assert (second.name, second.start, second.stop) == ("two", 6, 12)
    assert source.objects(2).tolist() == [30 + i for i in range(len(TRUTH["02"]))] == source.objects(8).tolist()
    assert {source.split_key(i) for i in range(6)} == {b"one"}


@pytest.mark.parametrize("name", ["{}.png", "{:04d}.png", "frame_{}.png"])
def test_A16_frames_are_in_the_order_of_their_numbers(name: str, tmp_path: Path) -> None:
    truth = boxed.truth(12)
    frames = boxed.mot(tmp_path, truth).parents[1] / "img1"
    for path in sorted(frames.iterdir()):
        path.rename(frames / name.format(int(path.stem)))
    source, _ = opened(tmp_path)
    same(source, truth)
    assert [text.split("/")[-1] for text in source.ids] == [name.format(number) for number in range(1, 13)]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("000001", "000000", "the first is 000000.png"), ("000001", "7", "the first is 000002.png"),
        ("000003", "10", "after 000002.png comes 000004.png"), ("000003", "02", "after 000002.png comes 02.png"),
    ],
)  # fmt: skip
def test_A16_a_number_of_a_frame_that_is_missing_or_there_twice(old: str, new: str, why: str, tmp_path: Path) -> None:
    frames = boxed.mot(tmp_path, TRUTH).parents[1] / "img1"
    (frames / f"{old}.png").rename(frames / f"{new}.png")
    error = refused(tmp_path)
    assert (error.what, error.where, error.why) == ("the frames are not numbered 1, 2, 3, ...", str(frames), why)


def test_two_videos_of_one_name_in_a_set(tmp_path: Path) -> None:
    for split in ("train", "val", "valid"):
        boxed.mot(tmp_path, TRUTH, split)
    error = refused(tmp_path)
    assert (error.what, error.where) == ("two videos of a set have one name", str(tmp_path / "valid" / "one"))


def test_identities_differ_between_videos(tmp_path: Path) -> None:
    boxed.mot(tmp_path, TRUTH)
    for name in ("two", "three"):
        shutil.copytree(tmp_path / "train" / "one", tmp_path / "train" / name)
    source, _ = opened(tmp_path)
    assert isinstance(source, VideoSource)
    found = [np.concatenate([source.identities(6 * video + frame) for frame in range(6)]) for video in range(3)]
    assert np.array_equal(found[1] - found[0].max(), found[0])
    assert np.array_equal(found[2] - found[1].max(), found[0])
    assert [source.followed.place(index) for index in (0, 5, 6, 17)] == [0, 0, 1, 2]


@pytest.mark.timeout(10)
def test_identities_of_20_000_videos_do_not_take_seconds() -> None:
    count, pixel = 20_000, np.zeros((1, 2, 2), np.uint8)
    frames = BoxedArrays([pixel] * count, [Boxes.of([[0, 0, 1, 1]], [0])] * count, ("a",))
    videos = tuple(Video(str(index), index, index + 1, 30.0) for index in range(count))
    source = VideoSource(frames, Followed(videos, np.ones(count, np.int64)))
    assert [int(source.identities(index)[0]) for index in range(count)] == list(range(1, count + 1))
    assert source.split_key(count - 1) == str(count - 1).encode()


def truth_lines(tmp_path: Path, *lines: str) -> Path:
    """A video of six frames whose truth has these lines, and which names no classes."""
    path = boxed.mot(tmp_path, TRUTH)
    path.with_name("labels.txt").unlink()
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    "line", ["2,7,11,6,5,4", "2,7,11,6,5,4,1,1,0.8", "2,7,11,6,5,4,1,-1,-1,-1", "2 7 11 6 5 4 1 1 1"]
)
def test_A14_A15_lines_of_six_nine_and_ten_columns(line: str, tmp_path: Path) -> None:
    truth_lines(tmp_path, line)
    source, _ = opened(tmp_path)
    assert source.classes == ("pedestrian",)
    assert source.truth(1).xyxy.tolist() == [[10, 5, 15, 9]]
    assert not source.truth(1).crowd.any()
    assert [len(source.truth(i)) for i in range(6)] == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1,1,5,5,4,4,1"], "7 columns"), (["0,1,5,5,4,4"], "no frame 0"), (["1.5,1,5,5,4,4"], "no frame 1.5"),
        (["1,0,5,5,4,4"], "no object 0"), (["1,1,5,5,-4,4"], "inside out"), (["1,1,nan,5,4,4"], "not a number"),
        (["1,1,a,5,4,4"], "beside numbers"), (["1,1,5,5,4,4", "1,1,9,9,4,4"], "twice in a frame"),
        (["1,1,5,5,4,1e30"], "not a number"), (["", "1,x,5,5,4,4"], "beside numbers"),
    ],
)  # fmt: skip
def test_A14_lines_of_mot_that_are_none(lines: list[str], words: str, tmp_path: Path) -> None:
    path = truth_lines(tmp_path, "1,9,5,5,4,4", *lines)
    error = refused(tmp_path)
    assert words in error.what
    assert error.where == f"{path}, line {1 + len(lines)}"


def test_A11_what_does_not_count_in_mot17(tmp_path: Path) -> None:
    kinds = ("1,1", "0,7", "0,3", "0,1")  # a pedestrian; a sitting one, a car and one to be ignored
    truth_lines(tmp_path, *(f"1,{i + 1},{6 * i + 1},1,5,5,{kind},1" for i, kind in enumerate(kinds)))
    source, _ = opened(tmp_path)
    assert source.truth(0).crowd.tolist() == [False, True, True]
    assert source.truth(0).xyxy[:, 0].tolist() == [0, 6, 18]
    assert isinstance(source, VideoSource)
    assert source.objects(0).tolist() == [1, 0, 0]


@pytest.mark.parametrize(("name", "crowd"), [("MOT17-02", [False]), ("MOT20-01", [False, True])])
def test_A11_vehicles_without_a_motor_are_ignored_in_mot20(name: str, crowd: list[bool], tmp_path: Path) -> None:
    truth_lines(tmp_path, "1,1,1,1,5,5,1,1,1", "1,2,7,1,5,5,0,6,1")
    (tmp_path / "train" / "one").rename(tmp_path / "train" / name)
    assert opened(tmp_path)[0].truth(0).crowd.tolist() == crowd


@pytest.mark.parametrize("order", ["011", "101", "110"])
def test_an_object_that_counts_twice_is_noticed_wherever_it_stands(order: str, tmp_path: Path) -> None:
    path = truth_lines(tmp_path, *(f"1,1,{6 * n + 1},1,5,5,{counts},1,1" for n, counts in enumerate(order)))
    error = refused(tmp_path)
    assert (error.what, error.where) == ("an object is twice in a frame", f"{path}, line {order.rindex('1') + 1}")
    path.write_text("1,1,1,1,5,5,0,1,1\n1,1,7,1,5,5,1,1,1\n1,1,13,1,5,5,0,1,1\n")
    assert opened(tmp_path)[0].truth(0).crowd.tolist() == [True, False, True]


def test_in_answers_the_seventh_column_is_how_sure_they_are(tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    path.write_text("1,1,1,1,5,5,0,-1,-1,-1\n2,1,1,1,5,5,0.5,-1,-1,-1\n")
    assert [who.tolist() for _, who in read_uncut(path, 2, answers=True)] == [[1], [1]]
    path.write_text("1,1,1,1,5,5,0,-1,-1,-1\n1,1,1,1,5,5,0.5,-1,-1,-1\n")
    with pytest.raises(DataError, match="twice in a frame"):
        read_uncut(path, 1, answers=True)


def test_A16_truth_and_video_of_different_lengths(tmp_path: Path) -> None:
    path = truth_lines(tmp_path, "4,1,5,5,4,4")
    assert any("the truth ends at frame 4 of 6" in note for note in opened(tmp_path)[1])
    path.write_text("7,1,5,5,4,4\n")
    error = refused(tmp_path)
    assert (error.what, error.why) == (
        "the truth is longer than the video", "the truth goes on to frame 7, there are 6 images"
    )  # fmt: skip


def test_A05_numbers_of_objects_stay_beside_their_boxes(tmp_path: Path) -> None:
    truth_lines(tmp_path, "1,1,900,5,4,4", "1,2,5,5,4,4", "2,3,58,38,9,9")  # the first lies outside
    source, notes = opened(tmp_path)
    assert isinstance(source, VideoSource)
    assert (source.objects(0).tolist(), source.objects(1).tolist()) == ([2], [3])
    assert source.truth(1).xyxy.tolist() == [[57, 37, WIDTH, HEIGHT]]
    assert sum("boxes" in note and "line" in note for note in notes) == 2


@pytest.mark.parametrize("text", ["", "[Sequence]\nimWidth=x\n", "[Sequence]\nframeRate=0\n", "nonsense", "\x00"])
def test_a_video_whose_facts_are_none(text: str, tmp_path: Path) -> None:
    path = boxed.mot(tmp_path, TRUTH)
    info = path.parents[1] / "seqinfo.ini"
    info.write_text(text)
    assert refused(tmp_path).where == str(info)
    info.unlink()
    same(opened(tmp_path)[0], TRUTH)


def test_videos_without_a_truth(tmp_path: Path) -> None:
    boxed.mot(tmp_path, TRUTH)
    shutil.copytree(tmp_path / "train" / "one", tmp_path / "train" / "two")
    (tmp_path / "train" / "two" / "gt" / "gt.txt").unlink()
    assert any("1 videos without gt/gt.txt" in note for note in opened(tmp_path)[1])
    (tmp_path / "train" / "one" / "gt" / "gt.txt").unlink()
    assert refused(tmp_path).what == "no video has a truth"


@given(data=st.data())
def test_F17_any_bytes_are_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    form = data.draw(st.sampled_from(["voc", "yolo", "mot"]))
    FORMATS[form](root, TRUTH)
    path = {"voc": "Annotations/00.xml", "yolo": "labels/train/00.txt", "mot": "train/one/gt/gt.txt"}[form]
    (root / path).write_bytes(hostile.mutated((root / path).read_bytes(), data.draw(st.integers(0, 10**6))))
    try:
        source, _ = opened(root)
    except DataError:
        return
    for index in range(len(source)):
        found: Any = source.truth(index)
        assert (found.xyxy >= 0).all()
        assert (found.xyxy <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


def test_the_blood_cells(shared_data: Path) -> None:
    splits = open_data(str(shared_data / "bccd"), OPTIONS)
    assert splits.classes == ("Platelets", "RBC", "WBC")
    assert {name: len(source) for name, source in splits.named().items()} == {"train": 205, "val": 87, "test": 72}
    counts = np.zeros(3, np.int64)
    for source in splits.named().values():
        assert isinstance(source, BoxedSource)
        counts += np.bincount(source.boxes.classes, minlength=3)
    assert counts.sum() == 4155 + 372 + 361 - 2  # two are single pixels
    assert splits.train.image(0).shape == (3, 480, 640)
