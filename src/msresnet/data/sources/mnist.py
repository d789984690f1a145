"""MNIST: from the cache, else downloaded with progress and checked, else an error that names the ways out.

Terms: Creative Commons Attribution-Share Alike 3.0; Yann LeCun, Corinna Cortes and Christopher Burges.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import os
import shutil
import urllib.request
import zlib
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from msresnet.data.sample import ArraySource
from msresnet.data.sources.idx import idx_splits
from msresnet.errors import DataError
from msresnet.files import cache_folder, write_atomic

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MD5 = {
    "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
}
"""Of the inflated contents, so that it does not matter who zipped them."""
TIMEOUT = 20
MAX_BYTES = 64 << 20


def mnist() -> dict[str, ArraySource]:
    """The 60,000 training and 10,000 test images. Raises DataError when they are not available."""
    folder = cache_folder() / "mnist"
    missing = [name for name in MD5 if not (folder / name).is_file()]
    if missing:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            for name in missing:
                _fetch(name, folder, progress)
    return idx_splits(folder)


def mirrors() -> tuple[str, ...]:
    """Where to look, first to last: MSRESNET_MIRRORS (separated by spaces) replaces the list."""
    return tuple(os.environ.get("MSRESNET_MIRRORS", "").split()) or MIRRORS


def _fetch(name: str, folder: Path, progress: Progress) -> None:
    failures = []
    for mirror in mirrors():
        url = mirror.rstrip("/") + "/" + name
        try:
            data = _download(url, name, progress)
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{url}: {getattr(error, 'reason', None) or str(error) or type(error).__name__}")
            continue
        write_atomic(folder / name, lambda part, data=data: part.write_bytes(data) and None)  # type: ignore[misc]
        return
    raise DataError(
        "MNIST is not in the cache and cannot be downloaded",
        where=str(folder),
        why="; ".join(failures),
        hint=f"--data FOLDER with the four IDX files you have; or copy {', '.join(MD5)} into {folder}; "
        "or name a mirror: MSRESNET_MIRRORS=https://... (digits needs no download: --data digits)",
    )


def _download(url: str, name: str, progress: Progress) -> bytes:
    """The checked bytes of a file. Raises OSError, HTTPException or ValueError, with the reason."""
    data = bytearray()
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length") or 0) or None
        task = progress.add_task(name, total=total)
        while chunk := answer.read(1 << 16):
            data += chunk
            if len(data) > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES:,} bytes")
            progress.advance(task, len(chunk))
    try:
        digest = hashlib.md5(usedforsecurity=False)
        with gzip.open(io.BytesIO(data)) as inflated:
            shutil.copyfileobj(inflated, _Hasher(digest))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"no whole gzip file ({error})") from error
    if digest.hexdigest() != MD5[name]:
        raise ValueError(f"checksum {digest.hexdigest()}, expected {MD5[name]}")
    return bytes(data)


class _Hasher:
    """A file that only digests what is written to it, up to the largest size that can be right."""

    def __init__(self, digest: hashlib._Hash) -> None:
        self.digest, self.room = digest, MAX_BYTES

    def write(self, data: bytes) -> int:
        """Digest some bytes. Raises ValueError beyond the limit (a gzip bomb)."""
        self.room -= len(data)
        if self.room < 0:
            raise ValueError("the file inflates beyond any MNIST file")
        self.digest.update(data)
        return len(data)
