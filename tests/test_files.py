"""Files that survive: atomic writes, space, locks, settings, the cache folder."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msresnet.deploy.package import new_folder
from msresnet.errors import ResourceError, UsageError
from msresnet.files import (
    as_yaml,
    cache_folder,
    check_free,
    check_output,
    check_space,
    lock,
    plain_yaml,
    read_yaml,
    sweep,
    write_atomic,
    write_json,
    write_text,
)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def broken(part: Path) -> None:
        part.write_text("half of the n", encoding="utf-8")
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(ResourceError, match="Input/output error"):
        write_atomic(path, broken)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_sync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def watched_replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr("msresnet.files.os.fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_text(tmp_path / "new" / "a.txt", "text")
    assert events == ["folder", "file", "rename", "folder"]


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """What new files of this process are denied."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o007, 0o660)])
def test_the_umask_says_who_may_read_a_file(mask: int, mode: int, tmp_path: Path) -> None:
    with umask(mask):
        write_text(tmp_path / "a.txt", "é")
        with new_folder(tmp_path / "package") as folder:
            (folder / "b.txt").touch()
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "package").stat().st_mode) == 0o777 & ~mask
    assert (tmp_path / "a.txt").read_bytes() == "é".encode()


def test_json_refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_space_is_named_in_bytes(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"1,000,000,000,000,000,000 bytes are needed, [\d,]+ are free"):
        check_space(tmp_path, 10**18)


def test_sweep_takes_only_what_killed_writers_left(tmp_path: Path) -> None:
    others = {".a.txt.x1.part", "a.msresnet-part", ".hidden", "b.txt"}
    for name in (".a.txt.x1.msresnet-part", *others):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == others


def test_K12_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with lock(tmp_path):
        with pytest.raises(ResourceError, match="another run"), lock(tmp_path):
            pass
        (tmp_path / "a").touch()
    with lock(tmp_path):
        pass


def test_a_folder_made_for_a_lock_goes_with_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError), lock(tmp_path / "runs" / "new"):
        raise UsageError("the data is absent")
    assert not (tmp_path / "runs" / "new").exists()
    with lock(tmp_path / "kept"):
        (tmp_path / "kept" / "result").touch()
    assert (tmp_path / "kept" / "result").exists()


def test_a_folder_with_files_of_others_is_not_free(tmp_path: Path) -> None:
    for name in (".lock", ".a.x.msresnet-part", "metrics.json"):
        (tmp_path / name).touch()
    check_free(tmp_path, ours=("metrics.json",))
    check_free(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"metrics\.json"):
        check_free(tmp_path)


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300])
def test_K06_an_output_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(UsageError, match="--output"):
        check_output(tmp_path / name, folder=True)
    assert (tmp_path / "file").read_bytes() == b"mine"
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path, folder=False)


def test_K04_objects_in_settings(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"epochs: 1\nlr: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 2"):
        read_yaml(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("first", ["[x, x]", "{x: 1}"])
def test_K05_alias_bomb(tmp_path: Path, first: str) -> None:
    path = tmp_path / "a.yaml"
    rows = [f"a: &a {first}"]
    for before, after in zip("abcdefghi", "bcdefghij", strict=True):
        many = ", ".join([f"*{before}"] * 9)
        rows.append(f"{after}: &{after} " + (f"[{many}]" if first.startswith("[") else f"{{<<: [{many}]}}"))
    path.write_text("\n".join(rows), encoding="utf-8")
    start = time.monotonic()
    with pytest.raises(UsageError, match="aliases"):
        read_yaml(path)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("text", ["[" * 50_000, "a: " * 20_000, "x" * 100_000, "a: [1", "\x00", "\ud800"])
def test_F17_hostile_settings_end_soon(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match=r"a\.yaml"):
        read_yaml(path)


@given(st.binary(max_size=200))
def test_F17_any_bytes_are_values_or_a_usage_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    with contextlib.suppress(UsageError):
        read_yaml(path)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_as_they_are_written(number: float) -> None:
    assert plain_yaml(json.dumps([number]), "here", "") == [number]


@given(st.one_of(st.text(), st.from_regex(r"[-+.0-9eE_:]{1,8}", fullmatch=True), st.floats(), st.booleans(), st.none()))
def test_values_come_back_as_they_were(value: object) -> None:
    """A folder may be called 2e5, or yes."""
    for shown in (value, [value, value], {"data": value}):
        for in_a_line in (False, True):
            found = plain_yaml(as_yaml(shown, in_a_line), "here", "")
            assert repr(found) == repr(shown)


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("5E3", 5e3), (".5e2", 50.0), ("e5", "e5"), ("1e", "1e")])
def test_exponents_need_no_point(text: str, value: object) -> None:
    assert plain_yaml(text, "here", "") == value


def test_F13_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MSRESNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "absent"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert cache_folder() == tmp_path / "msresnet"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "msresnet"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/msresnet")
    monkeypatch.setenv("MSRESNET_CACHE", "/c")
    assert cache_folder() == Path("/c")


def test_F13_a_deleted_working_directory(tmp_path: Path) -> None:
    code = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')\n"
    code += (
        "from pathlib import Path; from msresnet.errors import UsageError; from msresnet.files import check_output\n"
    )
    code += "try: check_output(Path('run'), folder=True)\nexcept UsageError as error: print(error)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "--output" in found.stdout
