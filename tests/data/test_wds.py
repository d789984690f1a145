"""Shards in tar files: the same members as the standard library's reader finds, read in place, nothing extracted."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hostile
from msresnet.cli.main import main
from msresnet.data.decode import decode_bytes
from msresnet.data.options import DataOptions
from msresnet.data.sample import Source
from msresnet.data.sources.tar import members
from msresnet.data.sources.wds import expand, shards
from msresnet.data.splits import open_data, read_any
from msresnet.errors import DataError, MsresnetError, UsageError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
AUTO = DataOptions()


def picture(seed: int) -> bytes:
    """A small PNG."""
    return hostile.encode(hostile.random_pixels(8, 8, 3, seed=seed), "PNG")


def pack(
    path: Path, files: list[tuple[str, bytes | tarfile.TarInfo]], form: int = tarfile.PAX_FORMAT, mode: str = "w"
) -> Path:
    """A tar file of some contents by name, or of members without content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, content in files:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(kind: bytes, link: str = "") -> tarfile.TarInfo:
    """A member that is not a file."""
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, link
    return info


def samples(first: int, count: int, kind: str = "cls") -> list[tuple[str, bytes | tarfile.TarInfo]]:
    """Numbered samples of classes 0, 1 and 2 in turn."""
    files: list[tuple[str, bytes | tarfile.TarInfo]] = []
    for number in range(first, first + count):
        files.append((f"{number:06d}.png", picture(number)))
        label = number % 3
        files.append(
            (f"{number:06d}.{kind}", json.dumps({"label": label}).encode() if kind == "json" else b"%d\n" % label)
        )
    return files


def read(spec: str, options: DataOptions = AUTO) -> Source:
    """The one set of a specification."""
    found, _ = read_any(spec, options)
    assert list(found) == ["train"]
    return found["train"]


def refused(spec: str, options: DataOptions = AUTO) -> MsresnetError:
    """The error for a specification."""
    with pytest.raises((DataError, UsageError)) as caught:
        read_any(spec, options)
    return caught.value


@pytest.mark.parametrize("kind", ["cls", "json", "txt"])
@pytest.mark.parametrize("form", FORMATS)
def test_shards_give_the_same_images_as_files(kind: str, form: int, tmp_path: Path) -> None:
    for number in range(3):
        pack(tmp_path / f"set-{number:03d}.tar", samples(5 * number, 5, kind), form)
    before = sorted(tmp_path.iterdir())
    source = read(f"wds:{tmp_path}/set-{{000..002}}.tar")
    assert source.classes == ("0", "1", "2")
    assert source.targets.tolist() == [number % 3 for number in range(15)]
    assert source.ids[7] == "set-001.tar/000007.png"
    for index in (14, 0, 7):
        assert np.array_equal(source.image(index), decode_bytes(picture(index), ""))
    assert sorted(tmp_path.iterdir()) == before


def test_splits_are_told_by_the_names_of_the_shards(tmp_path: Path) -> None:
    for name, first, count in (("train-0", 0, 6), ("train-1", 6, 6), ("val-0", 100, 5), ("test_0", 200, 4)):
        pack(tmp_path / f"{name}.tar", samples(first, count))
    found, notes = read_any(f"wds:{tmp_path}", AUTO)
    assert {split: len(source) for split, source in found.items()} == {"train": 12, "val": 5, "test": 4}
    assert "train: 12 images in 2 shards" in notes
    assert len(read(f"wds:{tmp_path}/val-0.tar")) == 5  # named alone, it is the only set
    assert len(read(str(tmp_path / "val-0.tar"))) == 5


def test_what_decides_the_side_of_a_sample_is_its_own(tmp_path: Path) -> None:
    pack(tmp_path / "a.tar", samples(0, 9))
    pack(tmp_path / "b.tar", samples(0, 9))  # the same keys again
    few, many = read(f"wds:{tmp_path}/b.tar"), read(f"wds:{tmp_path}/a.tar,{tmp_path}/b.tar")
    assert [few.split_key(i) for i in range(9)] == [many.split_key(i) for i in range(9, 18)]
    assert len({many.split_key(i) for i in range(18)}) == 18


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("{a}/x-{{0..2}}.tar", "x-0 x-1 x-2"), ("{a}/x-{{2,0}}.tar", "x-2 x-0"), ("{a}/*-1.tar", "x-1 y-1"),
        ("{a}/x-0.tar {a}/y-1.tar", "x-0 y-1"), ("{a}/y-{{0..1}}.tar, {a}/x-?.tar", "y-0 y-1 x-0 x-1 x-2"),
        ("{a}/{{x,y}}-{{0..1}}.tar", "x-0 x-1 y-0 y-1"), ("{a}", "x-0 x-1 x-2 y-0 y-1"),
    ],
)  # fmt: skip
def test_paths_with_braces_and_wildcards(spec: str, names: str, tmp_path: Path) -> None:
    for name in ("x-0", "x-1", "x-2", "y-0", "y-1"):
        (tmp_path / f"{name}.tar").write_bytes(b"")
    found = expand(spec.format(a=tmp_path))
    assert [path.stem for path in found] == names.split()


def test_a_path_with_spaces_and_commas_is_one_if_it_is_there(tmp_path: Path) -> None:
    pack(tmp_path / "my shards, {1..2}.tar", samples(0, 3))
    assert len(read(f"wds:{tmp_path}/my shards, {{1..2}}.tar")) == 3
    (tmp_path / "some data").mkdir()
    for name in "ab":
        pack(tmp_path / "some data" / f"{name}.tar", samples(0, 2))
    assert len(read(f"wds:{tmp_path}/some data/{{a,b}}.tar")) == 4
    assert len(read(f"wds:{tmp_path}/some data/*.tar")) == 4


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("wds:", "names no shard"), ("wds: ,", "names no shard"), ("wds:x-{0..9}.tar", "10 of 10 shards"),
        ("wds:x-{0..9.tar", "braces do not match"), ("wds:x-{9..0}.tar", "not a range of shards"),
        ("wds:x-{0..99999999}.tar", "not a range of shards"), ("wds:{0..999}{0..999}.tar", "more than 100,000"),
        ("wds:*.tar", "there are no shards"), ("wds:a\0b.tar", "names no file"),
        (f"wds:{'x' * 5000}", "cannot be found"),
        ("wds:~nobody-of-this-name/x.tar", "cannot be found"),
    ],
)  # fmt: skip
def test_specifications_that_name_nothing(spec: str, words: str) -> None:
    assert words in refused(spec).what


@pytest.mark.parametrize("name", ["classes.txt", "classes.json"])
def test_names_of_classes_beside_the_shards(name: str, tmp_path: Path) -> None:
    words = ["ant", "bee", "cow", "dodo"]
    (tmp_path / name).write_text("\n".join(words) if name.endswith("txt") else json.dumps(words))
    path = pack(tmp_path / "a.tar", samples(0, 4))
    source = read(f"wds:{path}")
    assert (source.classes, source.targets.tolist()) == (tuple(words), [0, 1, 2, 0])
    pack(path, [("x.png", picture(0)), ("x.cls", b"bee"), ("y.png", picture(1)), ("y.cls", b"3")])
    assert read(f"wds:{path}").targets.tolist() == [1, 3]
    pack(path, [("x.png", picture(0)), ("x.cls", b"4")])
    error = refused(f"wds:{path}")
    assert error.what == "the label 4 is not a class"
    assert error.where == "a.tar/x.png"
    (tmp_path / name).write_text("[" if name.endswith("json") else "same\nsame")
    assert "list of classes" in refused(f"wds:{path}").what


def test_names_that_look_like_numbers_of_lines(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("1\n2\n3\n")
    pack(tmp_path / "train.tar", [("x.png", picture(0)), ("x.cls", b"1"), ("y.png", picture(1)), ("y.cls", b"3")])
    pack(tmp_path / "val.tar", [("x.png", picture(2)), ("x.cls", b"1")])
    found, _ = read_any(f"wds:{tmp_path}", AUTO)
    assert [source.targets.tolist() for source in found.values()] == [[0, 2], [0]]  # no line has the number 3
    pack(tmp_path / "train.tar", [("x.png", picture(0)), ("x.cls", b"1"), ("y.png", picture(1)), ("y.cls", b"2")])
    found, _ = read_any(f"wds:{tmp_path}", AUTO)
    assert [source.targets.tolist() for source in found.values()] == [[1, 2], [1]]


def test_labels_that_are_names_and_the_first_kind_counts(tmp_path: Path) -> None:
    files = [
        ("d.1/a.JPG", hostile.encode(hostile.random_pixels(8, 8, 3), "JPEG")), ("d.1/a.txt", b"a caption"),
        ("d.1/a.json", b'{"width": 8, "class": "newt", "label_other": 7}'), ("d.1/a.seg.png", picture(9)),
        ("d.1/b.txt", b" cat \n"), ("d.1/b.png", picture(1)), ("d.1/b.webp", b"second"), ("d.1/readme.md", b"x"),
        ("d.1/.hidden.png", b"x"),
    ]  # fmt: skip
    found, notes = shards(f"wds:{pack(tmp_path / 'a.tar', [*files])}", AUTO)
    source = found["train"]
    assert list(source.ids) == ["a.tar/d.1/a.JPG", "a.tar/d.1/b.png"]
    assert [source.classes[target] for target in source.targets] == ["newt", "cat"]
    assert np.array_equal(source.image(1), decode_bytes(picture(1), ""))
    assert "train: 1 further images of a sample were left aside" in notes
    other = read(f"wds:{tmp_path}/a.tar", DataOptions(label_column="label_other"))
    assert sorted(other.classes) == ["7", "cat"]
    assert read(f"wds:{tmp_path}/a.tar", DataOptions(label_column="none")).targets.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([("a.cls", b"")], "the label is empty"), ([("a.cls", b"nan")], "the label is nan"),
        ([("a.cls", b"\xff\xfe")], "utf-8"), ([("a.cls", b"x" * 70_000)], "70,000 bytes, the limit is 65,536"),
        ([("a.json", b"{")], "property name"), ([("a.json", b"[" * 60_000)], "recursion"),
        ([("a.json", b'{"x": 1}')], "no one key for the label among x"), ([("a.json", b'{"label": 1.5}')], "not 1.5"),
        ([("a.json", b'{"label": 1, "class": 2}')], "no one key"), ([("a.cls", b"-3")], "whole numbers from 0"),
        ([("a.cls", b"1"), ("b.png", picture(1))], "an image has no label"),
    ],
)  # fmt: skip
def test_D08_labels_that_are_none(files: list[tuple[str, bytes]], words: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("a.png", picture(0)), *files])
    error = refused(f"wds:{path}")
    assert words in f"{error.what} {error.why}"
    assert "a.tar" in error.where


def test_shards_without_images_or_labels(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", [("a.png", picture(0)), ("b.png", picture(1))])
    assert read(f"wds:{path}").targets.tolist() == [-1, -1]
    with pytest.raises(DataError, match="no labels"):
        open_data(f"wds:{path}", AUTO)
    pack(path, [("a.txt", b"words"), ("b.mp3", b"noise")])
    assert "hold no images" in refused(f"wds:{path}").what
    path.write_bytes(b"")
    assert "hold no images" in refused(f"wds:{path}").what


def odd_members() -> list[tuple[str, bytes | tarfile.TarInfo]]:
    """What an attacker puts into an archive, and long and strange names."""
    return [
        ("../../escaped.png", picture(0)), ("/etc/absolute.png", picture(1)), ("a\nb\x1b[31m.png", picture(2)),
        ("link.png", special(tarfile.SYMTYPE, "/etc/passwd")), ("hard.png", special(tarfile.LNKTYPE, "../../x")),
        ("device.png", special(tarfile.CHRTYPE)), ("pipe.png", special(tarfile.FIFOTYPE)),
        ("folder.png", special(tarfile.DIRTYPE)), ("d/" * 120 + "long.png", picture(3)),
        ("é" * 90 + ".png", picture(4)), ("empty.png", b""), ("last.png", picture(5)),
    ]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_D19_members_are_those_that_the_standard_library_finds(form: int, tmp_path: Path) -> None:
    odd = [m for m in odd_members() if form != tarfile.USTAR_FORMAT or len(m[0]) < 90]
    path = pack(tmp_path / "a.tar", odd, form)
    with tarfile.open(path) as tar:
        oracle = [(m.name, m.offset_data, m.size, m.isreg()) for m in tar]
    assert [(m.name.rstrip("/"), m.start, m.size, m.plain) for m in members(path)] == oracle
    content = path.read_bytes()
    assert all(m.head == content[m.start : m.start + min(m.size, 512)] for m in members(path))


def test_D19_a_hostile_tar_writes_nothing_and_reads_nothing_else(tmp_path: Path) -> None:
    path = pack(tmp_path / "in" / "a.tar", odd_members())
    before = sorted(tmp_path.rglob("*"))
    found, notes = shards(f"wds:{path}", DataOptions(label_column="none"))
    source = found["train"]
    assert len(source) == 7
    assert "train: 5 links, devices and folders were left aside" in notes
    assert all(name.isprintable() for name in source.ids)
    assert np.array_equal(source.image(0), decode_bytes(picture(0), ""))
    with pytest.raises(DataError, match="empty"):
        source.image(list(source.ids).index("a.tar/empty.png"))
    assert sorted(tmp_path.rglob("*")) == before


def test_D19_many_entries_are_bounded(tmp_path: Path) -> None:
    block = special(tarfile.DIRTYPE)
    block.name = "folder"
    path = tmp_path / "a.tar"
    path.write_bytes(block.tobuf(tarfile.USTAR_FORMAT) * 10_000 + bytes(1024))
    tracemalloc.start()
    assert "hold no images" in refused(f"wds:{path}").what
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_D19_sizes_that_lie(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.tar", samples(0, 2), tarfile.USTAR_FORMAT).read_bytes()
    for size in (b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001\0", b"0x000000001\0"):
        header = bytearray(whole[:512])
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        (tmp_path / "a.tar").write_bytes(bytes(header) + whole[512:])
        assert "not a whole tar file" in refused(f"wds:{tmp_path}/a.tar").what


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_D19_compressed_shards_are_refused(suffix: str, tmp_path: Path) -> None:
    path = pack(tmp_path / f"a.tar.{suffix}", samples(0, 2), mode=f"w:{suffix}")
    error = refused(f"wds:{path}")
    assert error.why == "it is compressed"
    assert "decompress" in error.hint


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.tar", samples(0, 5)).read_bytes()
    for length in (100, 512, 600, 700, 1100, 2700):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        error = refused(f"wds:{tmp_path}/a.tar")
        assert error.what == "the file is not a whole tar file"
        assert error.where.startswith(f"{tmp_path / 'a.tar'}, byte ")


def test_I23_a_shard_that_changes_after_indexing(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", samples(0, 5))
    source = read(f"wds:{path}")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(DataError, match="shorter than before"):
        source.image(4)
    path.write_bytes(bytes(20_000))
    with pytest.raises(DataError, match="cannot decode") as caught:
        source.image(4)
    assert caught.value.where == f"{path}/000004.png"
    path.unlink()
    with pytest.raises(DataError, match="cannot read"):
        source.image(4)


def test_D20_a_git_lfs_pointer(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(hostile.LFS_POINTER)
    assert "Git-LFS pointer" in refused(f"wds:{tmp_path}/a.tar").what


def test_the_command_takes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(tmp_path / "train-0.tar", samples(0, 30))
    pack(tmp_path / "val-0.tar", samples(100, 9))
    assert main(["data", "show", "--data", f"wds:{tmp_path}/*.tar"]) == 0
    assert "train: 30 images in 1 shards" in capsys.readouterr().err


@given(seed=st.integers(0, 10_000), form=st.sampled_from(FORMATS[1:]))
def test_F17_damaged_tars_are_read_or_refused(seed: int, form: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = pack(tmp_path_factory.mktemp("fuzz") / "a.tar", [*odd_members(), *samples(0, 2)], form)
    path.write_bytes(hostile.mutated(path.read_bytes(), seed))
    try:
        found, _ = shards(f"wds:{path}", AUTO)
    except DataError:
        return
    assert all(len(source.ids) == len(source.targets) for source in found.values())
