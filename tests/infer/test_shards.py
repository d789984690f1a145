"""Shards and their answers: the same as file by file, in every form, whatever is in them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import LFS_POINTER, encode, random_pixels, truncated_jpeg
from msresnet.bundle import load_bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.errors import DataError, UsageError
from msresnet.infer.config import PredictConfig
from msresnet.infer.inputs import Input
from msresnet.infer.sharded import Worker, read_ahead
from msresnet.infer.shards import FolderShard, ListShard, TarShard, find_shards
from msresnet.runtime import StopRequest
from sharding import packed, png, predict, rows
from tiny import contents


def one_by_one(files: list[Path], model: Path, capsys: Any) -> list[tuple[str, str]]:
    """Label and probability of each file from the door for files."""
    capsys.readouterr()
    assert main(["predict", *map(str, files), "--model", str(model), "--format", "csv", "--device", "cpu"]) == 0
    return [(row["label"], row["probability"]) for row in csv.DictReader(io.StringIO(capsys.readouterr().out))]


def test_a_tar_a_folder_and_a_list_are_answered_as_their_files_are(model: Path, here: Path, capsys: Any) -> None:
    files = {f"deep/{i}.png": png(i) for i in range(9)} | {"top.jpg": encode(random_pixels(30, 20, 3), "JPEG")}
    for name, data in files.items():
        path = here / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    packed(here / "tarred.tar", files | {"notes.txt": b"no image", "deep/._0.png": b"what macOS leaves"})
    (here / "listed.txt").write_text("".join(f"photos/{name}\n\n" for name in files), encoding="utf-8")
    table = "".join(f'x,"photos/{name}"\n' for name in files)
    (here / "table.csv").write_text("label,file_name\n" + table, encoding="utf-8")
    assert predict(["tarred.tar", "photos", "listed.txt", "table.csv"], model, here / "out", "-q") == 0

    expected = one_by_one([here / "photos" / name for name in files], model, capsys)
    by_kind = {"tarred": "tarred.tar/", "photos": "photos/", "listed": "photos/", "table": "photos/"}
    for kind, prefix in by_kind.items():
        found = {row["id"]: (row["label"], row["probability"]) for row in rows(here / "out" / f"{kind}.csv")}
        assert found == {prefix + name: answer for name, answer in zip(files, expected, strict=True)}
    assert len(set(expected)) > 5


def test_every_form_holds_the_same(model: Path, shards: list[str], undisturbed: Path, here: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for form in ("jsonl", "parquet"):
        assert predict(shards, model, here / form, "--format", form, "--top", "2", "-q") == 0
    for number in range(4):
        table = rows(undisturbed / f"part-{number:02d}.csv")
        lines = (here / "jsonl" / f"part-{number:02d}.jsonl").read_text(encoding="utf-8").splitlines()
        objects = [json.loads(line) for line in lines]
        columns = parquet.read_table(here / "parquet" / f"part-{number:02d}.parquet").to_pylist()
        assert [row["id"] for row in table] == [row["id"] for row in objects] == [row["id"] for row in columns]
        for row, plain, column in zip(table, objects, columns, strict=True):
            assert row["error"] == plain.get("error", "") == (column["error"] or "")
            if not row["error"]:
                assert float(row["probability"]) == plain["probability"] == column["probability"]
                assert row["label"].removeprefix("'") == plain["label"] == column["label"]
                assert plain["top"] == column["top"]
                assert len(plain["top"]) == 2


def test_unreadable_images_are_rows_and_counted(
    model: Path, shards: list[str], undisturbed: Path, here: Path, capsys: Any
) -> None:
    bad = [row for path in sorted(undisturbed.glob("*.csv")) for row in rows(path) if row["error"]]
    assert [row["id"] for row in bad] == [f"part-{n:02d}.tar/0001.png" for n in range(4)]
    assert {(row["label"], row["probability"]) for row in bad} == {("", "")}
    assert predict(shards, model, here / "out") == 0
    message = capsys.readouterr().err
    assert "part-00: 12 images, 1 unreadable" in message
    assert "4 of 4 shards are whole; 48 images, 4 unreadable; 4 shards, 48 images now" in message
    assert predict(shards, model, here / "out") == 0
    assert "4 of 4 shards are whole; 48 images, 4 unreadable; 0 shards, 0 images now" in capsys.readouterr().err


def test_cells_that_a_spreadsheet_would_run_and_names_that_are_no_text(model: Path, here: Path) -> None:
    packed(here / "odd.tar", {"../=1+1.png": png(1), "a\nb.png": png(2), "\udcff.png": png(3), "/etc/x.png": b""})
    assert predict(["odd.tar"], model, here / "out", "-q") == 0
    found = [row["id"] for row in rows(here / "out" / "odd.csv")]
    assert found == ["odd.tar/../=1+1.png", "odd.tar/a\\nb.png", "odd.tar/\\xff.png", "odd.tar//etc/x.png"]
    assert all(row["label"] == "'=cat" for row in rows(here / "out" / "odd.csv") if "cat" in row["label"])
    assert sorted(p.name for p in here.iterdir()) == ["odd.tar", "out"]


@pytest.mark.parametrize("numbers", [(0, 1), (0, 64), (1, 5), (3, 1), (3, 5), (3, 64)])
def test_batches_and_threads_change_no_byte(
    numbers: tuple[int, int], model: Path, shards: list[str], undisturbed: Path, here: Path
) -> None:
    workers, batch = map(str, numbers)
    assert predict(shards, model, here / "out", "-q", "--workers", workers, "--batch-size", batch) == 0
    assert contents(here / "out") == contents(undisturbed)


def test_memory_does_not_grow_with_the_shard(model: Path, here: Path) -> None:
    bundle = load_bundle(model)
    peaks = []
    for count in (500, 1900):  # with fewer, caches that fill at the start are what grows
        packed(here / f"{count}.tar", {f"{i:05d}.png": png(i % 7) for i in range(count)})
        config = PredictConfig(output=str(here / f"out{count}"), device="cpu", batch_size=8, workers=2)
        worker = Worker(bundle, config, StopRequest())
        shard = TarShard(str(count), here / f"{count}.tar")
        tracemalloc.start()
        assert worker.do(shard).images == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000, "what a longer shard takes more is less than 100 bytes an image"


@given(st.integers(0, 30), st.integers(0, 3), st.integers(1, 6))
def test_reading_ahead_keeps_order_and_bound(count: int, workers: int, ahead: int) -> None:
    started: list[int] = []
    preprocess = Preprocess((2, 2), 1)

    def item(number: int) -> Input:
        data = encode(np.full((2, 2), number, np.uint8), "PNG") if number % 5 else b""
        started.append(number)
        return Input(str(number), lambda: data)

    seen = []
    for name, image in read_ahead(map(item, range(count)), preprocess, workers, ahead):
        seen.append(name)
        assert len(started) <= len(seen) + (ahead if workers else 0)
        assert isinstance(image, DataError) if int(name) % 5 == 0 else np.all(image == int(name))
    assert seen == [str(i) for i in range(count)]


def test_how_shards_are_named(here: Path, shards: list[str]) -> None:
    folder = Path(shards[0]).parent
    names = [f"part-{n:02d}" for n in range(4)]
    listed = "\n".join([*shards, "", shards[0]]).encode()
    for inputs in (shards, [str(folder)], [f"{folder}/*.tar"], [f"{folder}/part-{{00..03}}.tar"], [*shards, *shards]):
        assert [shard.name for shard in find_shards(inputs, io.BytesIO())] == names
    assert [shard.name for shard in find_shards(["-"], io.BytesIO(listed))] == names
    for name in ("a/x", "b/y"):
        (here / name).mkdir(parents=True)
    (here / "list.csv").write_text("path\n")
    found = find_shards(["*/*/", "list.csv", "."], io.BytesIO())
    assert [(type(shard), shard.name) for shard in found] == [
        (FolderShard, "x"), (FolderShard, "y"), (ListShard, "list"), (FolderShard, here.name)
    ]  # fmt: skip
    assert all(shard.path.is_absolute() for shard in found)


def test_what_is_no_shard(here: Path, shards: list[str]) -> None:
    (here / "photo.png").write_bytes(png(1))
    (here / "b").mkdir()
    shutil.copy(shards[0], here / "b")
    os.mkfifo(here / "pipe.txt")
    cases: list[tuple[list[str], type[Exception], str]] = [
        ([], UsageError, "no shard was named"),
        (["photo.png"], UsageError, "answers.csv"),
        ([shards[0], "b/part-00.tar"], UsageError, "two shards have one name"),
        (["b/part-0.tar"], DataError, "try: b/part-00.tar"),
        (["c/*.tar"], DataError, "there is no such shard"),
        (["b/part-{00..03}.tar"], DataError, "3 of 4 shards are not there"),
        (["pipe.txt"], DataError, "this is not a file"),
    ]
    for inputs, kind, message in cases:
        with pytest.raises(kind, match=message.replace("{", r"\{")):
            find_shards(inputs, io.BytesIO())


@pytest.mark.parametrize(
    "case",
    [
        ("gone.txt", b"nowhere/1.png\nnowhere/2.png\n", "none of the first 2 images is there"),
        ("binary.txt", b"a\0b.png\n", "the list is not a text of paths, line 1"),
        ("long.csv", b"x" * (1 << 17), "the list is not a text of paths"),
        ("pointer.txt", LFS_POINTER, "git lfs pull"),
        ("quotes.csv", b'path\n"' + b"a\n" * 100_000, "the list is not a table"),
        ("packed.tar.gz", b"\x1f\x8b" + bytes(600), "it is compressed"),
        ("pointer.tar", LFS_POINTER, "git lfs pull"),
        ("noise.tar", bytes(random_pixels(2048)), "there is no valid header"),
    ],
)
def test_hostile_shards_are_named_and_end_nothing(
    case: tuple[str, bytes, str], model: Path, shards: list[str], here: Path, capsys: Any
) -> None:
    name, data, message = case
    (here / name).write_bytes(data)
    assert predict([name, shards[0]], model, here / "out") == 3
    error = capsys.readouterr().err
    assert all(part in error for part in message.split(", "))
    assert "Traceback" not in error
    assert [path.name for path in (here / "out").glob("*.csv")] == ["part-00.csv"]


def test_empty_shards_have_answers_without_rows(model: Path, here: Path) -> None:
    packed(here / "empty.tar", {"0.cls": b"1"})
    (here / "nothing").mkdir()
    (here / "blank.txt").write_bytes(b"\n\n")
    inputs = ["empty.tar", "nothing", "blank.txt"]
    for form in ("csv", "jsonl", "parquet"):
        assert predict(inputs, model, here / form, "--format", form, "-q") == 0
    assert all(path.read_text() == "id,label,probability,error\n" for path in (here / "csv").glob("*.csv"))
    assert all(path.read_text() == "" for path in (here / "jsonl").glob("*.jsonl"))
    parquet = pytest.importorskip("pyarrow.parquet")
    assert [parquet.read_table(path).num_rows for path in (here / "parquet").glob("*.parquet")] == [0, 0, 0]


def test_hostile_images_in_a_shard_are_rows(model: Path, here: Path) -> None:
    packed(here / "a.tar", {"cut.jpg": truncated_jpeg(), "empty.png": b"", "lfs.png": LFS_POINTER, "good.png": png(1)})
    assert predict(["a.tar"], model, here / "out", "-q") == 0
    errors = {row["id"].split("/")[1]: row["error"] for row in rows(here / "out" / "a.csv")}
    assert errors["empty.png"] == "the image file is empty"
    assert "Git-LFS" in errors["lfs.png"]
    assert "cannot decode the image" in errors["cut.jpg"]
    assert errors["good.png"] == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "ray"}, "--engine ray needs a place"),
        ({"format": "parquet"}, "--format parquet needs a place"),
        ({"output": "out", "format": "json"}, "--format csv, jsonl, parquet"),
        ({"output": "out", "budget": "5ms"}, "--budget 0.9"),
        ({"budget": "0.9", "tta": "flip"}, "contradict each other"),
    ],
)
def test_settings_that_do_not_go_together(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PredictConfig(**settings)
