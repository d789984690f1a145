"""Images in archives: the same answers as files; what is damaged, encrypted or swells is told, the rest answered."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hostile
from msresnet.cli.main import main
from msresnet.errors import DataError
from msresnet.infer import archives
from msresnet.infer.archives import images_in
from msresnet.infer.inputs import expand
from sharding import packed, png

IMAGES = ["one.png", "deep/two.png", "deep/er/three.png"]
FILES = {name: png(number) for number, name in enumerate([*IMAGES, ".four.png"])} | {"notes.txt": b"none"}


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("deep")
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def squeezed(path: Path, files: dict[str, bytes], squeeze: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(squeeze(packed(path.with_suffix(".part"), files).read_bytes()))
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "a.zip": zipped,
    "stored.zip": lambda path, files: zipped(path, files, zipfile.ZIP_STORED),
    "bz2.zip": lambda path, files: zipped(path, files, zipfile.ZIP_BZIP2),
    "a.tar": packed,
    "a.tar.gz": lambda path, files: squeezed(path, files, gzip.compress),
    "a.tgz": lambda path, files: squeezed(path, files, gzip.compress),
    "a.tar.bz2": lambda path, files: squeezed(path, files, bz2.compress),
}


@pytest.mark.parametrize("name", [*MAKERS])
def test_members_are_the_images_of_an_archive(name: str, here: Path) -> None:
    path = MAKERS[name](here / name, FILES)
    found = {key: read() for key, read in images_in(str(path))}
    assert found == {f"{path}/{member}": FILES[member] for member in IMAGES}
    assert [p.name for p in here.iterdir() if p.suffix != ".part"] == [name]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_members_are_answered_as_files_are(name: str, model: Path, here: Path, capsys: Any) -> None:
    MAKERS[name](here / name, FILES)
    (here / "plain").mkdir()
    for member in IMAGES:
        (here / "plain" / Path(member).name).write_bytes(FILES[member])
    files = [f"plain/{Path(member).name}" for member in IMAGES]
    flags = ["--model", str(model), "--device", "cpu", "--format", "jsonl"]
    assert main(["predict", *files, *flags]) == 0
    truth = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["predict", f"*{Path(name).suffix}", *flags]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in found] == [f"{name}/{member}" for member in IMAGES]
    assert [row["top"] for row in found] == [row["top"] for row in truth]


def test_an_archive_that_two_arguments_name_comes_once(here: Path) -> None:
    zipped(here / "a.zip", FILES)
    words = ["a.zip", "*.zip", str(here / "a.zip")]
    assert [item.id for item in expand(words, io.BytesIO(b"./a.zip\n"))] == [f"a.zip/{member}" for member in IMAGES]
    assert len([*expand([*words, "-"], io.BytesIO(b"./a.zip\n"))]) == 3


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_damaged_members_are_told_one_by_one(name: str, model: Path, here: Path, capsys: Any) -> None:
    files = {"0.png": hostile.truncated_jpeg(), **FILES, "9.png": b"", "bomb.png": hostile.png_claiming(50_000, 50_000)}
    MAKERS[name](here / name, files)
    assert main(["predict", name, "--model", str(model), "--format", "jsonl"]) == 3
    captured = capsys.readouterr()
    assert [json.loads(line)["id"] for line in captured.out.splitlines()] == [f"{name}/{m}" for m in IMAGES]
    assert captured.err.count("error: ") == 3
    assert all(f"where: {name}/{member}" in captured.err for member in ("0.png", "9.png", "bomb.png"))


def errors(path: Path) -> tuple[list[str], list[str]]:
    """The names that are readable, and the errors of the others, through the door of `predict`."""
    items = list(expand([str(path)], io.BytesIO()))
    found = [(item.id, item.decode()) for item in items]
    good = [name for name, image in found if not isinstance(image, DataError)]
    return good, [f"{name}: {image}" for name, image in found if isinstance(image, DataError)]


def test_an_encrypted_member_is_told(here: Path) -> None:
    path = zipped(here / "a.zip", {"a.png": png(1), "b.png": png(2)})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag stands in both headers
        at = data.rindex(mark) + offset
        data[at] |= 1
    path.write_bytes(data)
    good, bad = errors(path)
    assert good == [f"{path}/a.png"]
    assert len(bad) == 1
    assert "encrypted" in bad[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA])
def test_members_packed_in_unusual_ways_are_told(method: int, here: Path) -> None:
    good, bad = errors(zipped(here / "a.zip", {"a.png": png(1)}, method))
    assert good == []
    assert "compressed in a way that is not read" in bad[0]


def test_a_flipped_byte_in_a_member_is_told(here: Path) -> None:
    path = zipped(here / "a.zip", {"a.png": png(1), "b.png": png(2)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 10] ^= 1
    path.write_bytes(data)
    good, bad = errors(path)
    assert good == [f"{path}/b.png"]
    assert "damaged" in bad[0]


def test_D19_names_that_lead_elsewhere_are_names_and_nothing_more(here: Path) -> None:
    files = {"../up.png": png(1), "/etc/root.png": png(2), "a\nb.png": png(3)}
    for name in ("a.zip", "a.tar", "a.tgz"):
        good, bad = errors(MAKERS[name](here / name, files))
        assert len(good) == 3
        assert bad == []
        assert not any("\n" in key for key in good)
    assert not (here.parent / "up.png").exists()


def test_D19_links_and_devices_are_passed_over(here: Path) -> None:
    with tarfile.open(here / "a.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind!r}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("good.png")
        info.size = len(png(1))
        tar.addfile(info, io.BytesIO(png(1)))
    (here / "a.tgz").write_bytes(gzip.compress((here / "a.tar").read_bytes()))
    for name in ("a.tar", "a.tgz"):
        assert errors(here / name) == ([f"{here / name}/good.png"], [])


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
def test_a_member_over_the_limit_is_not_inflated(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBER", 10_000)
    good, bad = errors(MAKERS[name](here / name, {"a.png": png(1), "large.png": bytes(20_000), "z.png": png(2)}))
    assert good[0].endswith("a.png")
    assert len(bad) == 1
    assert "the limit" in bad[0]
    assert len(good) == (1 if name == "a.tgz" else 2)  # a packed archive cannot be gone on with


def test_D18_a_packed_archive_that_swells_is_left(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_GROWTH", 1 << 20)
    files = {f"{i}.png": bytes(1 << 20) for i in range(20)}
    _, bad = errors(MAKERS["a.tgz"](here / "a.tgz", files))
    assert "swells too much" in bad[-1]
    assert len(bad) < 20


def test_a_zip_that_claims_less_than_it_holds(here: Path) -> None:
    path = zipped(here / "a.zip", {"a.png": png(1) + bytes(5000)})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 100)
    path.write_bytes(data)
    good, bad = errors(path)
    assert good == []
    assert len(bad) == 1


def test_a_list_of_members_that_is_too_long_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_DIRECTORY", 500)
    good, bad = errors(zipped(here / "a.zip", {f"{i}.png": b"" for i in range(50)}))
    assert good == []
    assert "too many members" in bad[0]


@pytest.mark.parametrize("name", [*MAKERS])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_an_archive_that_is_cut_off(name: str, share: float, here: Path) -> None:
    path = MAKERS[name](here / name, {**FILES, "long.png": hostile.random_pixels(60_000).tobytes()})
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    good, bad = errors(path)
    assert bad
    assert len(good) <= 3


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tgz"])
@pytest.mark.parametrize("seed", range(30))
def test_F17_a_mutated_archive_never_ends_in_a_bug(name: str, seed: int, here: Path) -> None:
    path = MAKERS[name](here / name, FILES)
    path.write_bytes(hostile.mutated(path.read_bytes(), seed))
    good, bad = errors(path)
    assert len(good) + len(bad) <= 10


def test_I20_what_is_no_archive(here: Path) -> None:
    import os

    os.mkfifo(here / "pipe.zip")
    (here / "text.zip").write_bytes(b"no archive")
    (here / "lfs.tar").write_bytes(hostile.LFS_POINTER)
    (here / "plain.tgz").write_bytes(packed(here / "x.tar", FILES).read_bytes())
    for name in ("pipe.zip", "text.zip", "lfs.tar", "plain.tgz", "gone.zip", "gone.tar", "gone.tgz"):
        good, bad = errors(here / name)
        assert (good, len(bad)) == ([], 1)
    empty = errors(zipped(here / "empty.zip", {}))
    assert "no image was found" in empty[1][0]
