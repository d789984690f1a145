"""Data sets in the forms of the Hugging Face hub, from local files: no test here needs a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile
from msresnet.data.decode import decode_bytes
from msresnet.data.options import DataOptions
from msresnet.data.sample import Source
from msresnet.data.sources import hub as hub_source
from msresnet.data.splits import open_data, read_any
from msresnet.errors import DataError, MsresnetError, ResourceError, UsageError
from msresnet.hub import own_cache

datasets = pytest.importorskip("datasets", reason="the extra hub is not installed")
AUTO = DataOptions()


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_HUB_OFFLINE=1, which the libraries read when they are imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def picture(seed: int, form: str = "PNG") -> bytes:
    """A small image."""
    return hostile.encode(hostile.random_pixels(8, 8, 3, seed=seed), form)


def rows(first: int, count: int, label: Any = None, **more: Any) -> Any:
    """Images of cats and dogs in turn, as the hub has them."""
    numbers = range(first, first + count)
    forms = ["PNG" if number % 2 else "JPEG" for number in numbers]
    pictures = [{"bytes": picture(n, form), "path": None} for n, form in zip(numbers, forms, strict=True)]
    kinds = {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=["cat", "dog"])}
    content = {"image": pictures, "label": [n % 2 for n in numbers]}
    for name, (kind, values) in more.items():
        kinds[name], content[name] = kind, values
    return datasets.Dataset.from_dict(content, features=datasets.Features(kinds))


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """A folder of Parquet files with three splits."""
    folder = tmp_path / "parquet"
    for split, first, count in (("train", 0, 12), ("validation", 100, 6), ("test", 200, 4)):
        write(rows(first, count), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def write(table: Any, path: Path) -> Path:
    """One Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(str(path))
    return path


def read(spec: str, options: DataOptions = AUTO) -> Source:
    """The one set of a specification."""
    found, _ = read_any(spec, options)
    assert list(found) == ["train"]
    return found["train"]


def refused(spec: str, options: DataOptions = AUTO) -> MsresnetError:
    """The error for a specification."""
    with pytest.raises((DataError, UsageError, ResourceError)) as caught:
        read_any(spec, options)
    return caught.value


def test_a_folder_of_parquet_gives_the_same_images_as_files(parquet: Path, tmp_path: Path) -> None:
    found, notes = read_any(f"hf:{parquet}", AUTO)
    assert {split: len(source) for split, source in found.items()} == {"train": 12, "val": 6, "test": 4}
    assert found["train"].classes == ("cat", "dog")
    assert found["val"].targets.tolist() == [0, 1] * 3
    assert list(found["test"].ids) == [f"test[{i}]" for i in range(4)]
    for index in (11, 0, 6):
        expected = decode_bytes(picture(index, "PNG" if index % 2 else "JPEG"), "")
        assert np.array_equal(found["train"].image(index), expected)
    assert notes == [f"hf:{parquet}: images in 'image', labels in 'label'"]
    assert not list((tmp_path / "cache").glob("**/*.jpg"))


def test_reduced_decoding_is_asked_of_the_decoder(tmp_path: Path) -> None:
    data = hostile.encode(hostile.smooth_pixels(160, 240), "JPEG")
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": data, "path": None}], "label": ["x"]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    source = read(f"hf:{write(table, tmp_path / 'a.parquet')}")
    assert np.array_equal(source.image(0, (20, 30)), decode_bytes(data, "", (20, 30)))


@pytest.mark.parametrize("whole", [True, False])
def test_what_save_to_disk_writes(whole: bool, tmp_path: Path) -> None:
    table = rows(0, 8)
    (datasets.DatasetDict({"train": table, "test": rows(50, 2)}) if whole else table).save_to_disk(tmp_path / "saved")
    found, _ = read_any(f"hf:{tmp_path}/saved", AUTO)
    assert list(found) == (["train", "test"] if whole else ["train"])
    assert np.array_equal(found["train"].image(3), decode_bytes(picture(3), ""))
    assert not (tmp_path / "cache").exists()  # it is mapped from where it lies


@pytest.mark.parametrize("prefix", ["hf:", ""])
def test_a_parquet_file(prefix: str, tmp_path: Path) -> None:
    source = read(f"{prefix}{write(rows(0, 5), tmp_path / 'some.parquet')}")
    assert source.targets.tolist() == [0, 1, 0, 1, 0]


def test_a_folder_of_images(tmp_path: Path) -> None:
    root = hostile.write_classes(tmp_path / "train", {"cat": 2, "dog": 2}).parent
    source = read(f"hf:{root}")
    assert (source.classes, source.targets.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    assert np.array_equal(source.image(1)[0], hostile.random_pixels(8, 8, seed=1))
    (root / "train" / "cat" / "0001.png").unlink()
    with pytest.raises(DataError, match="cannot open"):
        source.image(1)
    assert source.split_key(1) == b"train[1]"


def test_equal_images_have_equal_keys_wherever_they_stand(tmp_path: Path) -> None:
    here, there = (read(f"hf:{write(rows(n, 6), tmp_path / f'{n}.parquet')}") for n in (0, 2))
    assert [here.split_key(i) for i in range(2, 6)] == [there.split_key(i) for i in range(4)]


def test_what_is_missing_is_held_out(tmp_path: Path) -> None:
    sets = open_data(f"hf:{write(rows(0, 60), tmp_path / 'a.parquet')}", AUTO).named()
    assert set(sets) == {"train", "val", "test"}
    assert sum(map(len, sets.values())) == 60
    assert len({source.split_key(i) for source in sets.values() for i in range(len(source))}) == 60


def test_downloads_go_to_our_cache(tmp_path: Path) -> None:
    from huggingface_hub import constants, hf_hub_download

    ours, before = tmp_path / "cache" / "hub", constants.HF_HUB_CACHE
    kept = ours / "datasets--user--name"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    (kept / "snapshots" / "abc").mkdir(parents=True)
    (kept / "snapshots" / "abc" / "README.md").write_text("---\n---\n")
    with own_cache():
        found = hf_hub_download("user/name", "README.md", repo_type="dataset")
    assert Path(found).is_relative_to(ours)
    assert before == constants.HF_HUB_CACHE


STRING, INTEGER, REAL = "string", "int64", "float64"


@pytest.mark.parametrize(
    ("kind", "values", "classes", "targets"),
    [
        (STRING, ["b", "a", "b"], ("a", "b"), [1, 0, 1]), (INTEGER, [10, 9, 10], ("9", "10"), [1, 0, 1]),
        (REAL, [3.0, 1.0, 3.0], ("1", "3"), [1, 0, 1]), ("bool", [True, False, True], ("False", "True"), [1, 0, 1]),
        (STRING, ["b", "a ", " b"], ("a", "b"), [1, 0, 1]), (STRING, ["9", "10", "9 "], ("9", "10"), [0, 1, 0]),
    ],
)  # fmt: skip
def test_labels_by_the_kind_of_column(
    kind: str, values: list[Any], classes: tuple[str, ...], targets: list[int], tmp_path: Path
) -> None:
    table = rows(0, 3).remove_columns("label").add_column("target", values)
    table = table.cast_column("target", datasets.Value(kind))
    source = read(f"hf:{write(table, tmp_path / 'a.parquet')}")
    assert (source.classes, source.targets.tolist()) == (classes, targets)


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (STRING, ["b", None, "b"], "label is empty"), (STRING, ["b", " ", "b"], "label is empty"),
        (INTEGER, [0, -1, 2], "label -1 is not a class"), (REAL, [0.0, float("nan"), 1.0], "label is empty"),
        (REAL, [0.0, 0.5, 1.0], "label 0.5 is not a class"),
    ],
)  # fmt: skip
def test_D08_labels_that_are_none(kind: str, values: list[Any], words: str, tmp_path: Path) -> None:
    table = rows(0, 3).remove_columns("label").add_column("label", values).cast_column("label", datasets.Value(kind))
    error = refused(f"hf:{write(table, tmp_path / 'a.parquet')}")
    assert words in error.what
    assert error.where.endswith("train[1]")


def test_a_set_without_labels(tmp_path: Path) -> None:
    table = rows(0, 3).map(lambda row: {"label": -1}, features=rows(0, 3).features)
    source = read(f"hf:{write(table, tmp_path / 'a.parquet')}")
    assert (source.targets.tolist(), source.classes) == ([-1, -1, -1], ("cat", "dog"))


def test_several_columns_need_a_name(tmp_path: Path) -> None:
    coarse = datasets.ClassLabel(names=["animal"])
    table = rows(0, 3, coarse_label=(coarse, [0, 0, 0]), mask=(datasets.Image(), rows(7, 3)["image"]))
    table = table.rename_column("label", "fine_label").rename_column("image", "photo")
    path = write(table, tmp_path / "a.parquet")
    error = refused(f"hf:{path}")
    assert error.what == "several columns hold images"
    assert error.why == "the columns are photo, fine_label, coarse_label, mask"
    chosen = DataOptions(path_column="photo")
    assert refused(f"hf:{path}", chosen).what == "several columns may hold the labels"
    source = read(f"hf:{path}", DataOptions(path_column="photo", label_column="fine_label"))
    assert source.classes == ("cat", "dog")
    unknown = refused(f"hf:{path}", DataOptions(path_column="foto"))
    assert unknown.hint == "--path-column photo"
    wrong = refused(f"hf:{path}", DataOptions(path_column="photo", label_column="mask"))
    assert "'mask' holds no labels" in wrong.what


def test_images_that_are_not_declared_as_such(tmp_path: Path) -> None:
    kinds = datasets.Features({"jpg": datasets.Value("binary"), "cls": datasets.Value("int64")})
    table = datasets.Dataset.from_dict({"jpg": [picture(0), b"none"], "cls": [0, 1]}, features=kinds)
    source = read(f"hf:{write(table, tmp_path / 'a.parquet')}", DataOptions(label_column="cls"))
    assert np.array_equal(source.image(0), decode_bytes(picture(0), ""))
    with pytest.raises(DataError, match="cannot decode") as caught:
        source.image(1)
    assert caught.value.where == f"hf:{tmp_path}/a.parquet, train[1]"


def test_D10_a_row_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(0))
    paths = [
        str(tmp_path / "secret.png"),
        "/etc/passwd",
        "https://example.org/x.png",
        f"{tmp_path}/d/../secret.png",
        None,
    ]
    kinds = datasets.Features(
        {
            "image": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "label": datasets.Value("int64"),
        }
    )
    content = {"image": [{"bytes": None, "path": path} for path in paths], "label": [0, 1, 0, 1, 0]}
    write(datasets.Dataset.from_dict(content, features=kinds), tmp_path / "d" / "train.parquet")
    source = read(f"hf:{tmp_path}/d")
    for index in range(5):
        with pytest.raises(DataError, match="the row holds no image") as caught:
            source.image(index)
        assert caught.value.where == f"hf:{tmp_path}/d, train[{index}]"


def test_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    error = refused("hf:somebody/some_pictures")
    assert error.what == "the data set cannot be read"
    assert "somebody/some_pictures" in error.why


@pytest.mark.parametrize("listens", [True, False])
def test_what_was_fetched_before_needs_no_network(
    listens: bool, parquet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_source, "answers", lambda: listens)
    read_any(f"hf:{parquet}", AUTO)
    kept = tmp_path / "cache" / "datasets"
    (kept / "parquet").rename(kept / "somebody___some_pictures")
    for path in kept.glob("**/parquet-*.arrow"):
        path.rename(path.with_name(path.name.replace("parquet-", "some_pictures-")))
    for path in kept.glob("**/dataset_info.json"):
        path.write_text(path.read_text().replace('"dataset_name": "parquet"', '"dataset_name": "some_pictures"'))
    found, notes = read_any("hf:somebody/some_pictures", AUTO)
    assert {split: len(source) for split, source in found.items()} == {"train": 12, "val": 6, "test": 4}
    assert "not stated, see https://huggingface.co/datasets/somebody/some_pictures" in notes[0]
    error = refused("hf:somebody/others")
    assert isinstance(error, DataError)
    if not listens:
        assert "is not in the cache and cannot be downloaded" in error.what


@pytest.mark.parametrize(
    "spec", ["hf:", "hf:nobody", "hf:a/b/c", "hf:../x/y", "hf:./nowhere", "hf:/nowhere", "hf:a\0/b"]
)
def test_names_of_nothing(spec: str) -> None:
    error = refused(spec)
    assert "hf:user/name" in error.hint


def test_files_that_are_damaged_or_hold_something_else(tmp_path: Path) -> None:
    path = write(rows(0, 5), tmp_path / "a.parquet")
    whole = path.read_bytes()
    for data in (b"", b"PAR1", whole[: len(whole) // 2], hostile.LFS_POINTER, hostile.mutated(whole, 3)[:-40]):
        path.write_bytes(data)
        error = refused(f"hf:{path}")
        assert error.what == "the data set cannot be read"
        assert error.where == f"hf:{path}"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.json").write_text(json.dumps({"question": "why?"}))
    assert refused(f"hf:{tmp_path}/text").what == "no column holds images"
    (tmp_path / "empty").mkdir()
    assert refused(f"hf:{tmp_path}/empty").what == "the data set cannot be read"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "code.py").write_text("raise SystemExit('ran')")
    assert "no longer supported" in refused(f"hf:{tmp_path}/code").why
    assert "known form" in refused(f"hf:{tmp_path}/text/train.json").what


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    error = refused("hf:user/name")
    assert isinstance(error, ResourceError)
    assert error.hint == 'pip install "msresnet[hub]"'
