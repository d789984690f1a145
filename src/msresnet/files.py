"""Files that survive: atomic writes, digests, locks, the cache folder.

A file appears under its final name only when it is whole and on the disk: write beside it, fsync, rename, fsync the
folder. What was there before stays until then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msresnet.errors import ResourceError

DIGEST_CHUNK = 1 << 20


def write_atomic(path: Path, write: Callable[[Path], None], expected_bytes: int = 0) -> None:
    """Let `write` make a file at a temporary name, then move it to `path` in one step.

    Raises ResourceError when the disk is full or cannot be written; `path` is then as it was before.
    """
    with disk_errors(path, expected_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        check_space(path.parent, expected_bytes)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        try:
            write(part)
            part.chmod(0o644)
            _sync(part)
            part.replace(path)
            _sync(path.parent)
        finally:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, UTF-8."""
    write_atomic(path, lambda part: part.write_text(text, encoding="utf-8") and None, len(text))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically, indented, keys as given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_space(folder: Path, needed: int) -> None:
    """Raise ResourceError, naming both numbers, when a folder's disk has less than `needed` bytes free."""
    if needed > shutil.disk_usage(folder).free:
        raise _full(folder, needed)


def _full(folder: Path, needed: int) -> ResourceError:
    return ResourceError(
        "the disk is full",
        where=str(folder),
        why=f"{needed:,} bytes are needed, {shutil.disk_usage(folder).free:,} are free",
        hint="free some space, then the same command with --resume",
    )


@contextlib.contextmanager
def disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turn operating system errors while writing `path` into a ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(path.parent, needed) from error
        raise ResourceError(
            f"cannot write {path.name}", where=str(path), why=error.strerror or str(error), hint="--output elsewhere"
        ) from error


def sha256(path: Path) -> str:
    """Hex digest of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(DIGEST_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process. Raises ResourceError when another one holds it; the kernel frees it on death."""
    with disk_errors(folder / ".lock"):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(
                "another run is writing this folder", where=str(folder), hint="wait for it, or --output another folder"
            ) from error
        yield
    finally:
        os.close(handle)


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
