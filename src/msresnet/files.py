"""Files that survive: atomic writes, locks, the cache folder.

A file appears under its final name only when it is whole and on the disk: write beside it, fsync, rename, fsync the
folder. What was there before stays until then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from msresnet.errors import HeldError, ResourceError, UsageError

MOST_SETTINGS = 64 << 10
"""Bytes of a file of settings; larger ones take minutes to parse and are not settings."""
FULL = (errno.ENOSPC, errno.EDQUOT)
PART, LOCK = ".msresnet-part", ".lock"


def write_atomic(path: Path, write: Callable[[Path], None], expected_bytes: int = 0) -> None:
    """Let `write` make a file at a temporary name, then move it to `path` in one step.

    Raises ResourceError when the disk is full or cannot be written; `path` is then as it was before.
    """
    with disk_errors(path, expected_bytes):
        make_folder(path.parent)
        check_space(path.parent, expected_bytes)
        part = part_of(path)
        part.touch(exist_ok=False)
        try:
            write(part)
            _sync(part)
            part.replace(path)
            _sync(path.parent)
        finally:
            part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """A name beside `path`, hidden and nobody else's, for what is not whole yet.

    Whoever makes it does so in the usual way, by which the umask says who may read it; `tempfile` lets nobody else.
    """
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART}")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    data = text.encode()

    def write(part: Path) -> None:
        part.write_bytes(data)

    write_atomic(path, write, len(data))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys as given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; each new name is on the disk before anything is written below it."""
    if not folder.is_dir():
        if folder.parent != folder:
            make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def sweep(folder: Path) -> None:
    """Remove what killed writers left. Only for a process that holds the folder's lock."""
    for part in folder.glob(f".*{PART}"):
        part.unlink(missing_ok=True)


def foreign(folder: Path, ours: Collection[str] = ()) -> list[str]:
    """What a folder holds besides `ours`, locks, and what killed writers left; nothing where there is no folder."""
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    return [n for n in names if n not in ours and n != LOCK and not (n.startswith(".") and n.endswith(PART))]


def check_free(
    folder: Path,
    ours: Collection[str] = (),
    hint: str = "--output elsewhere",
    made: Callable[[Path], bool] | None = None,
) -> None:
    """Raise UsageError for a folder that holds files of others: by their names, or since `made` does not know it."""
    others = foreign(folder, ours)
    if not others and made is not None and not made(folder):
        others = foreign(folder)
    if others:
        why = f"such as {', '.join(others[:3])}; nothing there is to be overwritten"
        raise UsageError("--output holds files that are not of such a command", where=str(folder), why=why, hint=hint)


def check_output(path: Path, folder: bool) -> None:
    """Raise UsageError for an output that cannot be written: an unwritable place, a file for a folder, or the reverse.

    Folders that are missing are made.
    """
    target = path if folder else path.parent
    try:
        if path.is_file() if folder else path.is_dir():
            kind = "file" if folder else "folder"
            raise UsageError(f"--output is a {kind}", where=str(path), hint="--output elsewhere")
        make_folder(target)
        with tempfile.TemporaryFile(dir=target):
            pass
    except OSError as error:
        if error.errno in (*FULL, errno.EIO):
            raise ResourceError("the disk takes no file", where=str(target), why=error.strerror or "") from error
        raise UsageError(
            "--output cannot be written", where=str(path), why=error.strerror or str(error), hint="--output elsewhere"
        ) from error


def check_space(folder: Path, needed: int) -> None:
    """Raise ResourceError, naming both numbers, when a folder's disk has less than `needed` bytes free."""
    if needed > shutil.disk_usage(folder).free:
        raise _full(folder, needed)


def _full(folder: Path, needed: int) -> ResourceError:
    return ResourceError(
        "the disk is full",
        where=str(folder),
        why=f"{needed:,} bytes are needed, {shutil.disk_usage(folder).free:,} are free",
        hint="free some space, then the same command again, a training with --resume",
    )


@contextlib.contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn operating system errors while writing `path` into a ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _full(path.parent, needed) from error
        raise ResourceError(
            f"cannot write {path.name}", where=str(path), why=error.strerror or str(error), hint="--output elsewhere"
        ) from error


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; one that was made for it and stays empty is removed in the end.

    Raises UsageError when the folder cannot be written to, HeldError when another process holds it. The kernel frees it
    on death.
    """
    new, name = not folder.exists(), folder / LOCK
    check_output(folder, folder=True)
    with disk_errors(name):
        handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(handle).st_nlink == 0:  # its holder removed it between our opening and our locking
                raise BlockingIOError
        except BlockingIOError as error:
            raise HeldError(
                "another run is writing this folder", where=str(folder), hint="wait for it, or --output another folder"
            ) from error
        try:
            yield
        finally:
            if new and [p.name for p in folder.iterdir()] == [name.name]:
                name.unlink()
                folder.rmdir()
    finally:
        os.close(handle)


def read_yaml(path: Path) -> Any:
    """Plain values from a file of settings. Raises OSError; UsageError, naming the line, for no plain YAML."""
    with path.open("rb") as file:
        data = file.read(MOST_SETTINGS + 1)
    if len(data) > MOST_SETTINGS:
        why = f"more than {MOST_SETTINGS:,} bytes"
        raise UsageError("the file is too large for settings", where=str(path), why=why, hint="a YAML file of settings")
    try:
        text = data.decode("utf-8-sig")
    except ValueError as error:
        why = str(error)[:200]
        raise UsageError("the file is not text", where=str(path), why=why, hint="a YAML file in UTF-8") from error
    return plain_yaml(text, str(path), hint="epochs: 10")


def plain_yaml(text: str, where: str, hint: str) -> Any:
    """Plain values from a text. Raises UsageError, naming the line, for no plain YAML."""
    try:
        return yaml.load(text, _Plain)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        reason = getattr(error, "problem", None) or str(error)
        raise UsageError("this is not plain YAML", where=place, why=reason[:200], hint=hint) from error


class _Plain(yaml.SafeLoader):
    """Without aliases: a few of them stand for more memory than any machine has."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not taken", mark)
        return super().compose_node(parent, index)


class _Written(yaml.SafeDumper):
    """What `_Plain` reads as it was."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Unlike YAML 1.1, everybody takes 1e-5 for a number; a text that looks like one then is written in quotes.
_EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
for _form in (_Plain, _Written):
    _form.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def as_yaml(value: Any, in_a_line: bool = False) -> str:
    """Plain values as a text that `plain_yaml` reads; a list or mapping over several lines, or in one."""
    width = math.inf if in_a_line else None
    return yaml.dump(
        value, Dumper=_Written, sort_keys=False, allow_unicode=True, default_flow_style=in_a_line, width=width
    )


def cache_folder() -> Path:
    """Where downloads are kept: MSRESNET_CACHE, else the user's cache folder, else a temporary one."""
    if given := os.environ.get("MSRESNET_CACHE"):
        return Path(given)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "msresnet"
    home = os.path.expanduser("~")  # noqa: PTH111 - pathlib raises where there is no home
    if home != "~" and Path(home).is_dir():
        return Path(home) / ".cache" / "msresnet"
    return Path(tempfile.gettempdir()) / "msresnet"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
