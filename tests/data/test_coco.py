"""COCO instances: crops are what the boxes say, every usual layout is found, and damaged files name the record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
from msresnet.data.decode import decode_file
from msresnet.data.options import DataOptions
from msresnet.data.sources.coco import read_coco
from msresnet.data.sources.crops import CropSource, crops
from msresnet.data.splits import open_data, read_any
from msresnet.errors import DataError

HEIGHT, WIDTH = 48, 64
Json = dict[str, Any]


def box(key: int, image: int, category: int, bbox: list[Any], **more: Any) -> Json:
    """An annotation, with an outline as real ones have."""
    outline = [[0.5, 1.5, 2.5, 3.5, 4.5, 5.5]]
    return {"id": key, "image_id": image, "category_id": category, "bbox": bbox, "segmentation": outline} | more


def instances() -> Json:
    """Three images, the last without boxes; categories with gaps in their ids; a crowd."""
    names = ("a.png", "b.png", "c.png")
    images = [{"id": 10 * i, "file_name": n, "height": HEIGHT, "width": WIDTH} for i, n in enumerate(names)]
    return {
        "info": {"year": 2026}, "licenses": [],
        "images": images,
        "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat", "supercategory": "animal"}],
        "annotations": [
            box(1, 0, 3, [4, 6, 10, 20]), box(2, 0, 90, [30.4, 10.6, 20.2, 8.8]), box(3, 10, 3, [0, 0, 64, 48]),
            box(4, 10, 90, [5, 5, 40, 40], iscrowd=1),
        ],
    }  # fmt: skip


def write(folder: Path, content: Json | str | bytes, name: str = "instances.json", images: str = ".") -> Path:
    """The images and the file that describes them."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    for seed, file in enumerate(("a.png", "b.png", "c.png")):
        pixels = hostile.random_pixels(HEIGHT, WIDTH, 3, seed=seed)
        (folder / images / file).write_bytes(hostile.encode(pixels, "PNG"))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def changed(kind: str, place: int, **values: Any) -> Json:
    """The instances with one record changed; a value of None removes its key."""
    content = instances()
    record = content[kind][place]
    record.update(values)
    content[kind][place] = {key: value for key, value in record.items() if value is not None}
    return content


def refused(path: Path) -> DataError:
    """The error for a file."""
    with pytest.raises(DataError) as caught:
        read_any(f"crops:{path}", DataOptions())
    assert caught.value.where.startswith(str(path))
    return caught.value


def test_crops_are_the_pixels_of_their_boxes(tmp_path: Path) -> None:
    source, notes = crops(write(tmp_path, instances()))
    assert source.classes == ("cat", "dog")
    assert source.targets.tolist() == [0, 1, 0]
    assert list(source.ids) == ["a.png#1", "a.png#2", "b.png#3"]
    first = decode_file(tmp_path / "a.png")
    assert np.array_equal(source.image(0), first[:, 6:26, 4:14])
    assert np.array_equal(source.image(1), first[:, 10:20, 30:51])  # every pixel that the box touches
    assert np.array_equal(source.image(2), decode_file(tmp_path / "b.png"))
    assert source.split_key(0) == source.split_key(1) != source.split_key(2)
    assert notes == [
        "COCO instances: 3 images, 4 boxes, each cut out",
        "1 boxes around crowds or to be ignored were left out",
    ]


EXPECTED = np.array([[4, 6, 14, 26], [30.4, 10.6, 50.6, 19.4], [0, 0, 64, 48], [5, 5, 45, 45]])


def test_boxes_for_other_readers_are_absolute_xyxy(tmp_path: Path) -> None:
    coco = read_coco(write(tmp_path, instances()))
    assert np.allclose(coco.boxes, EXPECTED)
    assert coco.sizes.tolist() == [[HEIGHT, WIDTH]] * 3
    assert (coco.images.tolist(), coco.targets.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    assert coco.crowd.tolist() == [False, False, False, True]
    assert (list(coco.files), list(coco.image_ids)) == (["a.png", "b.png", "c.png"], ["0", "10", "20"])


@pytest.mark.parametrize("at_least", [(20, 20), (60, 90), (200, 200), (1000, 1000)])
@pytest.mark.parametrize("bbox", [[0, 0, 320, 200], [111, 57, 90, 120], [300, 180, 21, 21], [7, 150, 313, 51]])
def test_reduced_decoding_cuts_the_same_region(at_least: tuple[int, int], bbox: list[int], tmp_path: Path) -> None:
    content = changed("images", 0, height=201, width=321)
    content["annotations"] = [box(1, 0, 3, bbox)]
    path = write(tmp_path, content)
    (tmp_path / "a.png").write_bytes(hostile.encode(hostile.smooth_pixels(201, 321), "JPEG", quality=95))
    source, _ = crops(path)
    whole, reduced = source.image(0), source.image(0, at_least)
    for axis in (1, 2):
        assert reduced.shape[axis] >= min(at_least[axis - 1], whole.shape[axis])
        assert reduced.shape[axis] <= whole.shape[axis]
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    for row, column in corners:  # the gradients tell where a pixel comes from; one reduced pixel is up to eight wide
        difference = whole[:, row, column].astype(int) - reduced[:, row, column].astype(int)
        assert np.abs(difference).max() <= 255 * 8 / 200 + 3


LAYOUTS = [
    ("instances.json", "."), ("instances.json", "images"), ("annotations/instances_val2017.json", "val2017"),
    ("annotations/instances_train2017.json", "images/train2017"), ("annotations/whatever.json", "images"),
    ("instances_train.json", "images/train"), ("valid/_annotations.coco.json", "valid"), ("labels/x.json", "."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "images"), LAYOUTS)
def test_the_images_are_found(name: str, images: str, tmp_path: Path) -> None:
    found, _ = read_any(f"crops:{write(tmp_path, instances(), name, images)}", DataOptions())
    assert np.array_equal(found["train"].image(2), decode_file(tmp_path / images / "b.png"))


@pytest.mark.parametrize(
    "layout",
    [
        {s: (f"annotations/instances_{s}2017.json", f"{s}2017") for s in ("train", "val")},
        {s: (f"annotations/instances_{s}.json", f"images/{s}") for s in ("train", "test")},
        {"train": ("annotations/train.json", "train"), "val": ("annotations/val.json", "val")},
        {s: (f"{n}/_annotations.coco.json", n) for s, n in (("train", "train"), ("val", "valid"), ("test", "test"))},
        {"train": ("_annotations.coco.json", ".")}, {"train": ("instances_train.json", "images")},
        {"train": ("annotations/instances_default.json", "images")}, {"train": ("labels.json", ".")},
    ],
)  # fmt: skip
def test_layouts_of_folders(layout: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    for name, images in layout.values():
        write(tmp_path, instances(), name, images)
    if (tmp_path / "annotations").is_dir():
        (tmp_path / "annotations" / "captions_train2017.json").write_text("{}")
    found, notes = read_any(f"crops:{tmp_path}", DataOptions())
    assert list(found) == list(layout)
    for split, (name, images) in layout.items():
        source = found[split]
        assert isinstance(source, CropSource)
        assert source.root.resolve() == (tmp_path / images).resolve()
        assert f"{split}: {name}" in notes


def test_crops_of_what_holds_no_instances(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no COCO instances to cut"):
        read_any(f"crops:{tmp_path}", DataOptions())
    with pytest.raises(DataError, match="no data at 'nowhere'"):
        read_any("crops:nowhere", DataOptions())


def test_two_files_for_one_set(tmp_path: Path) -> None:
    for year in (2014, 2017):
        write(tmp_path, instances(), f"annotations/instances_train{year}.json", f"train{year}")
    with pytest.raises(DataError, match="several files hold the train set") as caught:
        read_any(f"crops:{tmp_path}", DataOptions())
    assert "instances_train2014.json" in caught.value.why


def test_two_files_of_which_nothing_says_what_they_are(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path, instances(), f"annotations/{name}.json", "images")
    (tmp_path / "package.json").write_text('{"name": "images"}')
    with pytest.raises(DataError, match="several files of instances") as caught:
        read_any(f"crops:{tmp_path}", DataOptions())
    assert "second.json" in caught.value.why
    assert "package.json" not in caught.value.why


def test_a_damaged_file_of_a_known_name_is_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "_annotations.coco.json").write_text('{"im')
    with pytest.raises(DataError, match="the file is not JSON"):
        read_any(f"crops:{tmp_path}", DataOptions())


def test_all_crops_of_an_image_stay_on_one_side(tmp_path: Path) -> None:
    content = instances()
    content["images"] = [
        {"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(60)
    ]  # fmt: skip
    content["annotations"] = [box(7 * i + j, i, (3, 90)[j % 2], [j, j, 20, 20]) for i in range(60) for j in range(7)]
    path = write(tmp_path, content)
    for i in range(60):
        (tmp_path / f"{i}.png").write_bytes((tmp_path / "a.png").read_bytes())
    sides = open_data(f"crops:{path}", DataOptions()).named().values()
    owners = [{name.split("#")[0] for name in side.ids} for side in sides]
    assert len(owners) == 3
    assert sum(map(len, owners)) == len(set.union(*owners)) == 60


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_A01_truncated_json(share: float, tmp_path: Path) -> None:
    text = json.dumps(instances())
    error = refused(write(tmp_path, text[: int(len(text) * share)]))
    assert error.what == "the file is not JSON"
    assert "line 1 column" in error.why


@pytest.mark.parametrize(
    ("content", "record", "key"),
    [
        (changed("annotations", 1, image_id=7), "annotation id 2", "'image_id' is 7"),
        (changed("annotations", 1, category_id=4), "annotation id 2", "'category_id' is 4"),
        (changed("annotations", 1, category_id=None), "annotation id 2", "'category_id' is not there"),
        (changed("annotations", 1, image_id=[0]), "annotation id 2", r"'image_id' is \[0\]"),
        (changed("annotations", 1, image_id=True), "annotation id 2", "'image_id' is True"),
    ],
)
def test_A02_unknown_ids(content: Json, record: str, key: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{record}: key {key}"):
        crops(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("annotations", 1, id=1), "annotation id 1: several have this id"),
        (changed("images", 1, id=0), "image id 0: several have this id"),
        (changed("categories", 1, id=90), "category id 90: several have this id"),
        (changed("categories", 1, name="dog"), "category id 90: another one is called 'dog' too"),
        (changed("annotations", 1, id=None), "annotation number 2: its id is not there"),
        (changed("images", 2, id=1.5), "image number 3: its id is 1.5"),
    ],
)
def test_A03_duplicate_ids(content: Json, message: str, tmp_path: Path) -> None:
    assert refused(write(tmp_path, content)).what == message


@pytest.mark.parametrize(
    "bbox",
    [
        [1, 2, -3, 4], [1, 2, 3, -0.5], [float("nan"), 2, 3, 4], [1, 2, float("inf"), 4], [1, 2, 3], [1, 2, 3, 4, 5],
        ["1", 2, 3, 4], [1, 2, None, 4], [True, 2, 3, 4], [1, 2, 10**400, 4], {"x": 1}, "1 2 3 4",
    ],
)  # fmt: skip
def test_A04_boxes_that_are_none(bbox: Any, tmp_path: Path) -> None:
    error = refused(write(tmp_path, changed("annotations", 1, bbox=bbox)))
    assert error.what.startswith("annotation id 2: key 'bbox' is ")


def test_A04_huge_numbers_in_the_text(tmp_path: Path) -> None:
    text = json.dumps(instances()).replace("30.4", "1e999")
    assert "annotation id 2: key 'bbox' is [inf" in refused(write(tmp_path, text)).what
    text = json.dumps(instances()).replace("30.4", "9" * 5000)
    assert "not JSON" in refused(write(tmp_path, text)).what


def test_A04_A05_boxes_are_cut_at_the_edges_and_counted(tmp_path: Path) -> None:
    content = instances()
    content["annotations"] += [
        box(5, 0, 3, [50, 30, 100, 100]), box(6, 0, 3, [-5, -5, 10, 10]), box(7, 0, 3, [1e300, 0, 5, 5]),
        box(8, 0, 3, [5, 5, 0, 9]), box(9, 0, 3, [5, 5, 0.2, 9]), box(11, 0, 3, [54.5, 20, 10, 10]),
    ]  # fmt: skip
    source, notes = crops(write(tmp_path, content))
    image = decode_file(tmp_path / "a.png")
    at = {name: index for index, name in enumerate(source.ids)}
    assert np.array_equal(source.image(at["a.png#5"]), image[:, 30:, 50:])
    assert np.array_equal(source.image(at["a.png#6"]), image[:, :5, :5])
    assert np.array_equal(source.image(at["a.png#11"]), image[:, 20:30, 54:])  # half a pixel is no news
    assert not {"a.png#7", "a.png#8", "a.png#9"} & set(at)
    assert "2 boxes reached beyond their image and were cut (annotation 5, 6)" in notes
    assert "2 boxes have no area within their image and were left out (annotation 7, 8)" in notes
    assert "1 boxes too small were left out" in notes


def test_A06_an_absent_image_is_named_with_its_id(tmp_path: Path) -> None:
    path = write(tmp_path, instances())
    source, _ = crops(path)
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match="cannot open") as caught:
        source.image(2)
    assert caught.value.where == f"{tmp_path / 'b.png'}, image id 10"
    for name in ("a.png", "c.png"):
        (tmp_path / name).unlink()
    error = refused(path)
    assert error.what == "the images are not there"
    assert "a.png is in none of" in error.why


def test_A07_another_size_than_the_annotations_say(tmp_path: Path) -> None:
    source, _ = crops(write(tmp_path, changed("images", 0, height=WIDTH, width=HEIGHT)))
    for at_least in (None, (8, 8)):
        with pytest.raises(DataError, match="another size") as caught:
            source.image(0, at_least)
        assert "image id 0" in caught.value.where
        assert caught.value.why == "upright it is 64x48, they say 48x64"


def test_A07_half_the_size_passes_for_reduced_decoding_only(tmp_path: Path) -> None:
    source, _ = crops(write(tmp_path, changed("images", 0, height=2 * HEIGHT, width=2 * WIDTH)))
    with pytest.raises(DataError, match="another size"):
        source.image(0)


@pytest.mark.parametrize("text", ["[" * 250_000, '{"images":' * 250_000, '{"a":' + "[" * 250_000 + "]" * 250_000 + "}"])
def test_A08_json_nested_250_000_deep(text: str, tmp_path: Path) -> None:
    assert refused(write(tmp_path, text)).what in ("the JSON is nested too deep", "the file is not JSON")


def test_A09_A10_gaps_in_ids_and_images_without_boxes(tmp_path: Path) -> None:
    content = instances()
    content["categories"] += [{"id": 0, "name": "animals"}, {"id": 10**12, "name": "yak"}]
    content["annotations"].append(box(-4, 10, 10**12, [1, 1, 9, 9]))
    source, notes = crops(write(tmp_path, content))
    assert source.classes == ("cat", "dog", "yak")
    assert source.targets.tolist() == [0, 1, 0, 2]
    assert "no box is of animals" in notes


def test_A11_crowds_and_what_is_to_be_ignored(tmp_path: Path) -> None:
    content = changed("annotations", 0, ignore=1)
    source, notes = crops(write(tmp_path, content))
    assert list(source.ids) == ["a.png#2", "b.png#3"]
    assert "2 boxes around crowds or to be ignored were left out" in notes
    for record in content["annotations"]:
        record["iscrowd"] = 1
    assert refused(write(tmp_path, content)).what == "the file holds no box to cut out"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "no COCO instances"), ("{}", "no list of images"), ("", "not JSON"), (b"\xff\xfe\x00", "not JSON"),
        ({**instances(), "categories": {}}, "no list of categories"),
        ({**instances(), "images": [7]}, "image number 1"),
        (changed("images", 0, file_name=None), "image id 0: key 'file_name' is not there"),
        (changed("images", 0, file_name=7), "image id 0: key 'file_name' is 7"),
        (changed("images", 0, height=0), "image id 0: key 'height' is 0"),
        (changed("images", 0, width=1.5), "image id 0: key 'width' is 1.5"),
        (changed("images", 0, width=1e12), "image id 0: key 'width'"),
        (changed("categories", 0, name=""), "category id 90: key 'name' is ''"),
        (hostile.LFS_POINTER, "Git-LFS pointer"),
    ],
)  # fmt: skip
def test_records_that_are_damaged_are_named(content: Json | str | bytes, words: str, tmp_path: Path) -> None:
    assert words in refused(write(tmp_path, content)).what


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "..\\x.png", "sub/../../x.png"])
def test_D10_a_path_outside_the_root(name: str, tmp_path: Path) -> None:
    error = refused(write(tmp_path, changed("images", 1, file_name=name)))
    assert error.what.startswith("image id 10: key 'file_name' is ")


@given(data=st.data())
def test_F17_values_of_any_kind_are_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = instances()
    kind = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    record = data.draw(st.sampled_from(content[kind]))
    values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    record[data.draw(st.sampled_from(list(record)))] = data.draw(values | st.lists(values, max_size=5))
    try:
        coco = read_coco(write(tmp_path_factory.mktemp("fuzz"), content))
    except DataError:
        return
    edges = coco.sizes[coco.images][:, ::-1]
    assert ((coco.boxes[:, :2] >= 0) & (coco.boxes[:, 2:] <= edges) & (coco.boxes[:, 2:] > coco.boxes[:, :2])).all()
