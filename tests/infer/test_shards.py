"""Prediction over shards: the same answers as file by file, whole or absent, whoever is killed."""

from __future__ import annotations

import csv
import fcntl
import io
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import LFS_POINTER, encode, random_pixels, truncated_jpeg
from msresnet.bundle import Bundle, load_bundle
from msresnet.cli.main import main
from msresnet.data.preprocess import Preprocess
from msresnet.errors import DataError, UsageError
from msresnet.infer.config import PredictConfig
from msresnet.infer.sharded import Asked, Worker, beginning, read_ahead, work
from msresnet.infer.shards import FolderShard, Item, ListShard, TarShard, find_shards
from msresnet.models.factory import create_classifier
from msresnet.runtime import StopRequest
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised
from tiny import contents, kill, start, wait_for

NAMES = ["=cat", "dog", "fox"]
SIDE = 12


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """The working directory."""
    return tmp_path


def make_model(folder: Path, seed: int = 0) -> Path:
    """A network that answers differently to different images."""
    model = create_classifier("msresnet_micro", num_classes=3, in_chans=1, img_size=(SIDE, SIDE))
    randomised(model, seed)
    preprocess = Preprocess((SIDE, SIDE), 1, mean=(0.5,), std=(0.2,))
    arguments = {"num_classes": 3, "in_chans": 1, "img_size": [SIDE, SIDE]}
    return Bundle(model, "msresnet_micro", arguments, ClassificationTask(NAMES), preprocess).save(folder)  # type: ignore[arg-type]


def png(seed: int) -> bytes:
    return encode(random_pixels(SIDE + seed % 3, SIDE, seed=seed), "PNG")


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def make_shards(folder: Path, shards: int, images: int) -> list[str]:
    """Tar files of images and labels, each with an image that cannot be read."""
    folder.mkdir(parents=True)
    for number in range(shards):
        files = {f"{i:04d}.png": png(1000 * number + i) for i in range(images)}
        files |= {"0001.png": b"no image", "0000.cls": b"1"}
        packed(folder / f"part-{number:02d}.tar", files)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return make_shards(tmp_path_factory.mktemp("shards") / "data", 4, 12)


@pytest.fixture(scope="module")
def undisturbed(model: Path, shards: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answers of one run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "answers"
    assert predict(shards, model, folder) == 0
    return folder


def predict(inputs: list[str], model: Path, output: Path, *more: str) -> int:
    return main(words(inputs, model, output, *more))


def words(inputs: list[str], model: Path, output: Path, *more: str) -> list[str]:
    return ["predict", *inputs, "--model", str(model), "--output", str(output), "--device", "cpu", *more]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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
    assert all("'=cat" == row["label"] for row in rows(here / "out" / "odd.csv") if "cat" in row["label"])
    assert sorted(p.name for p in here.iterdir()) == ["odd.tar", "out"]


@pytest.mark.parametrize("workers", ["0", "3"])
@pytest.mark.parametrize("batch", ["1", "5", "64"])
def test_batches_and_threads_change_no_byte(
    workers: str, batch: str, model: Path, shards: list[str], undisturbed: Path, here: Path
) -> None:
    assert predict(shards, model, here / "out", "-q", "--workers", workers, "--batch-size", batch) == 0
    assert contents(here / "out") == contents(undisturbed)


def killed_at_random(command: list[str], output: Path, errors: Path, kills: int, longest: float) -> int:
    """Two processes at a time, one of them killed after a random time, so many times; how many of the kills hit."""
    rng, busy, hits = np.random.default_rng(0), output / ".msresnet" / "busy", 0
    running = [start(command, errors), start(command, errors)]
    for _ in range(kills):
        wait_for(lambda: busy.is_dir() and any(busy.iterdir()))
        time.sleep(rng.uniform(0, longest))
        victim = running.pop(int(rng.integers(2)))
        if victim.exitcode is None:
            hits += kill(victim, signal.SIGKILL) == -signal.SIGKILL
        running.append(start(command, errors))
    for process in running:
        process.join()
    return hits


def check_kills(folder: Path, model: Path, kills: int, shards: int, images: int) -> None:
    inputs = make_shards(folder / "data", shards, images)
    assert predict(inputs, model, folder / "alone", "-q") == 0
    command = words(inputs, model, folder / "killed", "-q")
    assert killed_at_random(command, folder / "killed", folder / "errors", kills, 0.3) >= 0.8 * kills
    assert main(command) == 0
    assert contents(folder / "killed") == contents(folder / "alone")


def test_x08_a_few_kills_change_no_byte(model: Path, here: Path) -> None:
    check_kills(here, model, kills=5, shards=6, images=150)


@pytest.mark.slow
def test_x08_fifty_kills_change_no_byte(model: Path, here: Path) -> None:
    check_kills(here, model, kills=50, shards=60, images=400)


HOLDER = """
import sys, time
from msresnet.infer.ledger import Ledger
from pathlib import Path
import json
ledger = Ledger(Path(sys.argv[1]), json.loads(sys.argv[2]), "csv")
with ledger.hold("part-01") as ours:
    (ledger.folder / ".part-01.csv.abc.msresnet-part").write_text("half")
    print("held" if ours else "busy", flush=True)
    time.sleep(600)
"""


def test_a_shard_that_another_process_is_at_is_left_alone_until_that_dies(
    model: Path, shards: list[str], undisturbed: Path, here: Path, capsys: Any
) -> None:
    settings = (undisturbed / ".msresnet" / "settings.json").read_text(encoding="utf-8")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(here / "out"), settings], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert predict(shards, model, here / "out") == 0
        assert "3 of 4 shards are whole" in (text := capsys.readouterr().err)
        assert "1 are with other processes" in text
        assert not (here / "out" / "part-01.csv").exists()
    finally:
        holder.kill()
        holder.communicate()
    assert predict(shards, model, here / "out", "-q") == 0
    assert contents(here / "out") == contents(undisturbed)


def test_a_process_that_ends_later_takes_over_from_one_that_died(model: Path, shards: list[str], here: Path) -> None:
    """What was busy at first is looked at again before a process leaves."""
    worker = Worker(load_bundle(model), Asked(here / "out", device="cpu"), "m", StopRequest())
    held = (here / "out" / ".msresnet" / "busy" / "part-00").open("w")
    fcntl.flock(held, fcntl.LOCK_EX)
    found = find_shards(shards, io.BytesIO())
    tally = work(worker, found, lambda outcome, tally: held.close())
    assert [outcome.state for outcome in tally.outcomes.values()] == ["answered"] * 4
    assert [outcome.shard for outcome in tally.outcomes.values()][0] == "part-00"


def test_another_model_or_other_settings_are_refused_with_the_difference(
    model: Path, shards: list[str], undisturbed: Path, here: Path, capsys: Any
) -> None:
    shutil.copytree(undisturbed, here / "out")
    other = make_model(here / "other", seed=1)
    assert predict(shards, other, here / "out") == 2
    message = capsys.readouterr().err
    assert f"digest: {json.loads((here / 'out/.msresnet/settings.json').read_text())['digest']} there" in message
    assert f"({model} there, {other} now)" in message
    assert predict(shards, model, here / "out", "--tta", "flip", "--format", "jsonl") == 2
    message = capsys.readouterr().err
    assert "format: csv there, jsonl now; top: None there, 5 now; tta: none there, flip now" in message
    assert contents(here / "out") == contents(undisturbed)
    shutil.copytree(model, here / "copied")
    assert predict(shards, here / "copied", here / "out", "-q") == 0


def test_what_changed_since_is_answered_again(model: Path, undisturbed: Path, shards: list[str], here: Path) -> None:
    shutil.copytree(Path(shards[0]).parent, here / "data")
    inputs = [str(here / "data" / Path(shard).name) for shard in shards]
    assert predict(inputs, model, here / "out", "-q") == 0
    (here / "out" / "part-00.csv").unlink()
    (here / "out" / "part-01.csv").write_text("cut off", encoding="utf-8")
    (here / "out" / ".msresnet" / "done" / "part-02.json").write_text("{}", encoding="utf-8")
    packed(Path(inputs[3]), {"new.png": png(5)})
    assert predict(inputs, model, here / "out", "-q") == 0
    for number in range(3):
        name = f"part-{number:02d}.csv"
        assert (here / "out" / name).read_bytes() == (undisturbed / name).read_bytes()
    assert [row["id"] for row in rows(here / "out" / "part-03.csv")] == ["part-03.tar/new.png"]


def test_a_folder_that_gained_an_image_is_answered_again(model: Path, here: Path) -> None:
    (here / "photos").mkdir()
    for seed, count in ((1, 1), (2, 2)):
        (here / "photos" / f"{seed}.png").write_bytes(png(seed))
        assert predict(["photos"], model, here / "out", "-q") == 0
        assert len(rows(here / "out" / "photos.csv")) == count


def test_a_damaged_shard_stops_no_other(
    model: Path, shards: list[str], undisturbed: Path, here: Path, capsys: Any
) -> None:
    shutil.copytree(Path(shards[0]).parent, here / "data")
    inputs = [str(here / "data" / Path(shard).name) for shard in shards]
    whole = Path(inputs[1]).read_bytes()
    Path(inputs[1]).write_bytes(whole[: len(whole) // 3])
    assert predict(inputs, model, here / "out") == 3
    message = capsys.readouterr().err
    assert "error: part-01: the file is no whole tar file" in message
    assert "3 of 4 shards are whole" in message
    assert sorted(p.name for p in (here / "out").glob("*")) == [".msresnet", "part-00.csv", "part-02.csv", "part-03.csv"]
    Path(inputs[1]).write_bytes(whole)
    assert predict(inputs, model, here / "out", "-q") == 0
    assert (here / "out" / "part-01.csv").read_bytes() == (undisturbed / "part-01.csv").read_bytes()


def test_a_shard_that_changes_while_it_is_read_is_not_answered(model: Path, here: Path) -> None:
    packed(here / "a.tar", {f"{i}.png": png(i) for i in range(5)})
    asked = Asked(here / "out", device="cpu", batch_size=2, workers=0)
    worker = Worker(load_bundle(model), asked, "m", StopRequest())
    stamps = itertools.count()

    class Changing(TarShard):
        def stamp(self) -> str:
            return str(next(stamps))

    outcome = worker.do(Changing("a", here / "a.tar"))
    assert outcome.state == "failed"
    assert "changed while it was read" in outcome.error
    assert not (here / "out" / "a.csv").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_leaves_whole_answers_only(
    number: signal.Signals, code: int, model: Path, here: Path, undisturbed: Path
) -> None:
    inputs = make_shards(here / "data", 3, 300)
    process = start(words(inputs, model, here / "out"), here / "errors")
    wait_for(lambda: (here / "out" / "part-00.csv").exists())
    found = kill(process, number)
    there = sorted(p.name for p in (here / "out").iterdir() if p.name != ".msresnet")
    assert found == code or (found == 0 and len(there) == 3)  # a fast machine is through before it is asked
    assert all(name.endswith(".csv") and len(rows(here / "out" / name)) == 300 for name in there)
    assert list((here / "out" / ".msresnet" / "busy").iterdir()) == []
    if found == code:
        assert "the same command continues" in (here / "errors").read_text(encoding="utf-8")


def test_f03_a_full_disk_loses_nothing(model: Path, here: Path) -> None:
    shards = make_shards(here / "data", 2, 60)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # files that grow beyond this fail, as on a full disk
    try:
        assert predict(shards, model, here / "out", "-q") == 5
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(p.name for p in (here / "out").iterdir()) == [".msresnet"]
    assert predict(shards, model, here / "out", "-q") == 0
    assert predict(shards, model, here / "again", "-q") == 0
    assert contents(here / "out") == contents(here / "again")


def test_memory_does_not_grow_with_the_shard(model: Path, here: Path) -> None:
    bundle = load_bundle(model)
    peaks = []
    for count in (100, 1500):
        packed(here / f"{count}.tar", {f"{i:05d}.png": png(i % 7) for i in range(count)})
        worker = Worker(bundle, Asked(here / f"out{count}", device="cpu", batch_size=8), "m", StopRequest())
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

    def item(number: int) -> Item:
        data = encode(np.full((2, 2), number, np.uint8), "PNG") if number % 5 else b""
        started.append(number)
        return Item(str(number), lambda: data)

    seen = []
    for name, image in read_ahead(map(item, range(count)), preprocess, workers, ahead):
        seen.append(name)
        assert len(started) <= len(seen) + (ahead if workers else 0)
        assert isinstance(image, DataError) if int(name) % 5 == 0 else np.all(image == int(name))
    assert seen == [str(i) for i in range(count)]


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 4))
def test_every_process_sees_every_shard_and_begins_elsewhere(count: int, world: int, array: int) -> None:
    found = [TarShard(str(i), Path(f"/{i}.tar")) for i in range(count)]
    by_rank = [beginning(found, {"RANK": str(r), "WORLD_SIZE": str(world)}) for r in range(world)]
    by_array = [
        beginning(found, {
            "SLURM_ARRAY_TASK_ID": str(10 + 2 * a), "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "2",
            "SLURM_ARRAY_TASK_MAX": str(8 + 2 * array), "SLURM_PROCID": str(p), "SLURM_NTASKS": str(world),
        })
        for a in range(array) for p in range(world)
    ]  # fmt: skip
    for orders in (by_rank, by_array):
        assert all(sorted(order, key=lambda s: int(s.name)) == found for order in orders)
        if count >= len(orders):
            assert len({order[0].name for order in orders}) == len(orders)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"RANK": "3", "WORLD_SIZE": "2"},
        {"RANK": "first", "WORLD_SIZE": "2"},
        {"SLURM_ARRAY_TASK_ID": "-1"},
        {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "3"},
        {"SLURM_PROCID": "", "SLURM_NTASKS": "4"},
    ],
)
def test_a_launcher_that_says_nothing_sensible_is_no_matter(environment: dict[str, str]) -> None:
    found = [TarShard(str(i), Path(f"/{i}.tar")) for i in range(7)]
    assert beginning(found, environment) == found


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
        (["photo.png"], UsageError, "leave --output out"),
        ([shards[0], "b/part-00.tar"], UsageError, "two shards have one name"),
        (["b/part-0.tar"], DataError, "try: b/part-00.tar"),
        (["c/*.tar"], DataError, "there is no such shard"),
        (["b/part-{00..03}.tar"], DataError, "3 of 4 shards are not there"),
        (["pipe.txt"], DataError, "this is no file"),
    ]
    for inputs, kind, message in cases:
        with pytest.raises(kind, match=message.replace("{", r"\{")):
            find_shards(inputs, io.BytesIO())


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("gone.txt", b"nowhere/1.png\nnowhere/2.png\n", "none of the first 2 images is there"),
        ("binary.txt", b"a\0b.png\n", "the list is no text of paths, line 1"),
        ("long.csv", b"x" * (1 << 17), "the list is no text of paths"),
        ("pointer.txt", LFS_POINTER, "git lfs pull"),
        ("quotes.csv", b'path\n"' + b"a\n" * 100_000, "the list is no table"),
        ("packed.tar.gz", b"\x1f\x8b" + bytes(600), "it is compressed"),
        ("pointer.tar", LFS_POINTER, "git lfs pull"),
        ("noise.tar", bytes(random_pixels(2048)), "there is no valid header"),
    ],
)
def test_hostile_shards_are_named_and_end_nothing(
    name: str, data: bytes, message: str, model: Path, shards: list[str], here: Path, capsys: Any
) -> None:
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


def test_a_folder_of_others_is_refused(model: Path, shards: list[str], here: Path, capsys: Any) -> None:
    (here / "out").mkdir()
    (here / "out" / "thesis.csv").write_text("mine")
    assert predict(shards, model, here / "out") == 2
    assert "holds files that are not of such a command" in capsys.readouterr().err
    assert contents(here / "out") == {"thesis.csv": b"mine"}
    (here / "file").write_text("")
    assert predict(shards, model, here / "file") == 2


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


def test_without_ray_its_one_pip_line_is_printed(
    model: Path, shards: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it was not installed
    assert predict(shards, model, here / "out", "--engine", "ray") == 5
    assert 'pip install "msresnet[ray]"' in capsys.readouterr().err


def of_ray() -> list[int]:
    """The processes of Ray's workers that this one started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, parent = (folder / "cmdline").read_bytes(), int(folder.name)
            while parent not in (0, 1, os.getpid()):
                parent = int((Path("/proc") / str(parent) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid() and command.startswith(b"ray::RemoteWorker"):
            found.append(int(folder.name))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_x08_ray_gives_the_same_bytes_and_outlives_a_lost_process(
    model: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason='needs pip install "msresnet[ray]"')
    from msresnet.infer.on_ray import work_on_ray

    inputs = make_shards(here / "data", 8, 200)
    assert predict(inputs, model, here / "plain", "-q") == 0
    assert predict(inputs, model, here / "ray", "-q", "--engine", "ray") == 0
    assert contents(here / "ray") == contents(here / "plain")

    killed: list[int] = []

    def note(*_: Any) -> None:
        if not killed:
            killed.extend(of_ray()[:1])
            os.kill(killed[0], signal.SIGKILL)

    found = find_shards(inputs, io.BytesIO())
    tally = work_on_ray(load_bundle(model), Asked(here / "lost", device="cpu"), str(model), found, note)
    assert tally.finished == 8
    assert predict(inputs, model, here / "lost", "-q") == 0
    assert contents(here / "lost") == contents(here / "plain")
    assert predict(inputs, make_model(here / "other", seed=1), here / "ray", "-q", "--engine", "ray") == 2
