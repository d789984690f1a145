"""Packed data: what is read back is what was packed, to the last pixel; what is damaged is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import hostile
from msresnet.cli.main import main
from msresnet.data.decode import decode_bytes
from msresnet.data.loaders import decode, open_sets
from msresnet.data.options import DataOptions, PreprocessOptions
from msresnet.data.preprocess import Preprocess, choose
from msresnet.data.sample import Source
from msresnet.data.sets import Decoded
from msresnet.data.sources.packed import MARKER, packed_splits
from msresnet.data.splits import open_data
from msresnet.errors import DataError, UsageError


def folders(root: Path, form: str = "PNG") -> Path:
    """train/ and val/ with two classes of images of different sizes."""
    for number, (split, count) in enumerate((("train", 9), ("val", 4))):
        for target, name in enumerate(("cat", "dog")):
            below = root / split / name
            below.mkdir(parents=True)
            for i in range(count):
                pixels = hostile.random_pixels(40 + i, 50, 3, seed=1000 * number + 100 * target + i)
                (below / f"{i}.{form.lower()}").write_bytes(hostile.encode(pixels, form))
    return root


def pack(*words: str) -> int:
    """Run the command."""
    return main(["data", "pack", "--data", "data", "--output", "packed", "-q", *words])


def digests(folder: Path) -> dict[str, str]:
    """What is in each file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != ".lock"}


@pytest.mark.parametrize(
    ("words", "preprocess"),
    [
        (["--image-size", "16", "24"], Preprocess((16, 24), 3)),
        (["--image-size", "20", "--resize", "crop", "--channels", "1"], Preprocess((20, 20), 1, "crop")),
        (["--image-size", "20", "--threshold", "otsu"], Preprocess((20, 20), 1, threshold="otsu")),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_packed_images_are_those_that_the_files_give(
    tmp_path: Path, words: list[str], preprocess: Preprocess, form: str
) -> None:
    folders(tmp_path / "data", form)
    assert pack(*words, "--workers", "2") == 0
    packed = open_data("packed", DataOptions())
    given = open_data("data", DataOptions())
    chosen, _ = choose(PreprocessOptions(), packed.train)
    assert chosen.steps() == preprocess.steps()
    for name, source in packed.named().items():
        there, here = decode(source, chosen), decode(given.named()[name], preprocess)
        assert torch.equal(there.images, here.images)
        assert torch.equal(there.targets, here.targets)
        assert list(there.ids) == list(here.ids)
        assert there.fingerprint() == here.fingerprint()
    assert packed.classes == given.classes


def test_packed_images_are_mapped_and_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path / "data")
    assert pack("--image-size", "16") == 0
    monkeypatch.setattr("msresnet.data.decode.decode_bytes", lambda *_: pytest.fail("something was decoded"))
    monkeypatch.setattr("msresnet.data.loaders.free_memory", lambda: 0)
    packed = open_data("packed", DataOptions())
    preprocess, _ = choose(PreprocessOptions(), packed.train)
    sets, _ = open_sets(packed.named(), preprocess, DataOptions())
    train = sets["train"]
    assert isinstance(train, Decoded)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    spans = [[int(n, 16) for n in row.split()[0].split("-")] for row in maps if "train-images.npy" in row]
    assert any(low <= train.images.data_ptr() < high for low, high in spans)
    train.images[0] = 0  # what is written stays with who wrote it
    assert packed_splits(tmp_path / "packed")["train"].images[0].any()


def test_equal_data_gives_equal_files_whatever_the_threads(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    for form in ("cache", "shards"):
        found = []
        for workers in ("0", "3"):
            output = f"{form}-{workers}"
            assert pack("--output", output, "--format", form, "--workers", workers) == 0
            found.append(digests(tmp_path / output))
        assert found[0] == found[1]


@pytest.mark.parametrize("form", ["cache", "shards"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_i03_what_cannot_be_read_is_left_out_and_named(
    tmp_path: Path, form: str, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    hostile.spoil(tmp_path / "data", ["train/cat/3.png"])
    words = ["data", "pack", "--data", "data", "--output", "packed", "--format", form, "--workers", workers]
    assert main(words) == 3
    assert "cat/3.png" in capsys.readouterr().err
    assert not (tmp_path / "packed" / MARKER).exists()
    assert main([*words, "--on-bad", "skip"]) == 0
    told = capsys.readouterr().err
    assert "left out: cat/3.png: image file is truncated" in told
    assert "17 train, 8 val images, 1 left out" in told
    if form == "cache":
        assert [len(s) for s in packed_splits(tmp_path / "packed").values()] == [17, 8]
    else:
        assert len(members(tmp_path / "packed" / "train-000000.tar")) == 2 * 17


def members(path: Path) -> dict[str, bytes]:
    """The names and contents in a tar file."""
    with tarfile.open(path) as shard:
        found = {}
        for member in shard:
            assert (member.mtime, member.uid, member.uname, member.mode) == (0, 0, "", 0o644)
            content = shard.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
    return found


def test_shards_hold_the_files_own_bytes_and_their_classes(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", "JPEG")
    assert pack("--format", "shards", "--shard-size", "5") == 0
    names = sorted(p.name for p in (tmp_path / "packed").glob("*.tar"))
    assert names == [f"train-00000{i}.tar" for i in range(4)] + [f"val-00000{i}.tar" for i in range(2)]
    classes = (tmp_path / "packed" / "classes.txt").read_text().splitlines()
    assert classes == ["cat", "dog"]
    shards = [members(tmp_path / "packed" / name) for name in names if name.startswith("train")]
    assert [len(shard) for shard in shards] == [10, 10, 10, 6]
    found = {
        (content, shard[name[:-3] + "cls"]) for shard in shards for name, content in shard.items() if name[-3:] == "jpg"
    }
    files = {(p.read_bytes(), str(classes.index(p.parent.name)).encode()) for p in (root / "train").rglob("*.jpeg")}
    assert found == files
    order = [name for shard in shards for name in shard if name.endswith("jpg")]
    assert order != sorted(order)


@pytest.mark.parametrize("names", [["1", "2", "3"], [str(number) for number in range(12)]])
def test_classes_that_are_called_by_numbers_keep_their_images_in_shards(tmp_path: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        for i in range(3):
            path = tmp_path / "data" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(hostile.encode(hostile.random_pixels(8, 8, 3, seed=100 * number + i), "PNG"))
    assert pack("--format", "shards") == 0
    given, packed = (open_data(spec, DataOptions()).named() for spec in ("data", "wds:packed"))
    assert given.keys() == packed.keys()
    for split, source in given.items():
        assert named_pixels(packed[split]) == named_pixels(source)


def named_pixels(source: Source) -> set[tuple[bytes, str]]:
    """The images of a set, each with the name of its class."""
    return {(source.image(i).tobytes(), source.classes[target]) for i, target in enumerate(source.targets)}


@pytest.mark.parametrize("form", ["cache", "shards"])
def test_the_command_that_is_named_in_the_end_takes_what_was_packed(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    assert main(["data", "pack", "--data", "data", "--output", "my data", "--format", form]) == 0
    told = " ".join(capsys.readouterr().err.split()).partition("train with it: msresnet train --data ")[2]
    packed = open_data(shlex.split(told)[0], DataOptions())
    assert {name: len(source) for name, source in packed.named().items()} == {"train": 18, "val": 8}
    assert packed.classes == ("cat", "dog")


def test_shards_that_were_not_all_written_are_refused(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    assert pack("--format", "shards") == 0
    (tmp_path / "packed" / ".unfinished").touch()
    with pytest.raises(DataError, match="did not end here"):
        open_data("packed", DataOptions())


def test_tar_files_beside_class_folders_are_left_aside(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    assert pack("--format", "shards") == 0
    (tmp_path / "packed" / "train-000000.tar").rename(tmp_path / "data" / "train" / "copy.tar")
    assert len(open_data("data/train", DataOptions(val_fraction=0, test_fraction=0)).train) == 18


def test_arrays_become_png_in_shards_with_the_same_pixels(tmp_path: Path) -> None:
    assert main(["data", "pack", "--data", "digits", "--output", "packed", "--format", "shards", "-q"]) == 0
    train = open_data("digits", DataOptions()).train
    shard = members(tmp_path / "packed" / "train-000000.tar")
    for name, content in list(shard.items())[:40:2]:
        index = int(name.split(".")[0])
        assert np.array_equal(decode_bytes(content, name), train.image(index))
        assert int(shard[name.replace("png", "cls")]) == train.targets[index]
        with Pillow.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"


def spoil_marker(folder: Path) -> None:
    """Another format."""
    said = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps(said | {"format": 2}))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no json": lambda f: (f / MARKER).write_text("{"),
    "deep json": lambda f: (f / MARKER).write_text("[" * 100_000),
    "another json": lambda f: (f / MARKER).write_text("[1]"),
    "another version": spoil_marker,
    "no images": lambda f: (f / "train-images.npy").unlink(),
    "cut short": lambda f: os.truncate(f / "train-images.npy", 1000),
    "empty": lambda f: os.truncate(f / "train-images.npy", 0),
    "a pickle": lambda f: np.save(f / "train-images.npy", np.array([print], object), allow_pickle=True),
    "other numbers": lambda f: np.save(f / "train-images.npy", np.zeros((18, 3, 16, 16), np.float32)),
    "another shape": lambda f: np.save(f / "train-images.npy", np.zeros((18, 3, 8, 16), np.uint8)),
    "another count": lambda f: np.save(f / "train-images.npy", np.zeros((17, 3, 16, 16), np.uint8)),
    "no targets": lambda f: (f / "train-samples.json").write_text("{}"),
    "a target too high": lambda f: (f / "train-samples.json").write_text(
        json.dumps({"targets": [2] * 18, "ids": ["x"] * 18})
    ),
    "huge targets": lambda f: (f / "train-samples.json").write_text(
        json.dumps({"targets": [10**30] * 18, "ids": ["x"] * 18})
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_packed_data_is_refused_with_the_file_named(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    assert pack("--image-size", "16") == 0
    DAMAGE[damage](tmp_path / "packed")
    assert main(["data", "show", "--data", "packed", "-q"]) == 3
    told = capsys.readouterr().err
    assert "where: packed/" in told
    assert "data pack again" in told


def test_what_was_packed_in_one_way_is_not_used_in_another(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    assert pack("--image-size", "16") == 0
    train = open_data("packed", DataOptions()).train
    with pytest.raises(UsageError, match="--image-size, but the data was packed with another"):
        choose(PreprocessOptions(image_size=(32,)), train)
    assert choose(PreprocessOptions(image_size=(16,)), train)[0].size == (16, 16)
    with pytest.raises(UsageError, match="--resize, but the data was packed with another"):
        choose(PreprocessOptions(resize="crop"), train)
    with pytest.raises(UsageError, match="--binary, but the data was packed with another"):
        choose(PreprocessOptions(binary=True), train)
    with pytest.raises(DataError, match="packed for another preprocess"):
        decode(train, Preprocess((32, 32), 3))


def test_what_was_packed_may_be_said_again(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    words = ["--image-size", "16", "--resize", "crop", "--threshold", "otsu", "--binary"]
    assert pack(*words) == 0
    train = open_data("packed", DataOptions()).train
    said = PreprocessOptions(image_size=(16,), resize="crop", threshold="otsu", binary=True)
    assert choose(said, train)[0].steps() == choose(PreprocessOptions(), train)[0].steps()


def test_settings_that_would_do_nothing_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path / "data")
    assert pack("--format", "shards", "--image-size", "16") == 2
    assert pack("--shard-size", "3") == 2
    assert pack("--shard-size", "0", "--format", "shards") == 2
    assert main(["data", "pak"]) == 2
    assert "msresnet data pack" in capsys.readouterr().err


def test_files_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path / "data")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "mine.txt").write_text("mine")
    assert pack() == 2
    assert "mine.txt" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "packed").iterdir() if p.name != ".lock"] == ["mine.txt"]


def test_files_that_come_after_a_refused_pack_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data")
    assert pack("--data", "absent") == 3
    mine = ["labels.json", "features.npy", "train-old.tar"]
    for name in mine:
        (tmp_path / "packed" / name).write_text("mine")
    (tmp_path / "packed" / "train-images.npy").write_text("half of it")
    assert pack() == 2
    assert "labels.json" in capsys.readouterr().err
    assert all((tmp_path / "packed" / name).read_text() == "mine" for name in mine)
    for name in mine:
        (tmp_path / "packed" / name).unlink()
    assert pack() == 0


@pytest.mark.timeout(90)
def test_f01_a_pack_that_was_killed_is_no_packed_data_and_can_be_begun_again(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    code = (
        "import msresnet.data.pack as p, os, signal, sys\n"
        "p.write_json = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from msresnet.cli.main import main\n"
        "main(['data', 'pack', '--data', 'data', '--output', 'packed', '-q'])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert packed_splits(tmp_path / "packed") == {}
    assert (tmp_path / "packed" / "train-images.npy").exists()
    with pytest.raises(DataError):
        open_data("packed", DataOptions())
    assert pack("--format", "shards") == 0
    assert sorted(digests(tmp_path / "packed")) == ["classes.txt", "train-000000.tar", "val-000000.tar"]
    assert pack() == 2
