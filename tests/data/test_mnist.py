"""The download of MNIST, from servers on this machine: good, wrong, broken and absent."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hostile
from msresnet.cli.main import main
from msresnet.data.sources import mnist
from msresnet.errors import DataError, ResourceError

LABELS = (np.arange(20) % 10).astype(np.uint8)
NAMES = tuple(mnist.MD5)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class named it
        """Nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `good/`, small files under MNIST's names whose checksums are the expected ones."""
    root = tmp_path / "served"
    for prefix, seed in (("train", 0), ("t10k", 1)):
        hostile.write_idx_pair(root / "good", hostile.random_pixels(20, 28, 28, seed=seed), LABELS, prefix, zipped=True)
    sums = {name: hashlib.md5(gzip.decompress((root / "good" / name).read_bytes())).hexdigest() for name in NAMES}
    monkeypatch.setattr(mnist, "MD5", sums)
    return root


@pytest.fixture
def address(served: Path) -> Iterator[str]:
    """Where `served` is served."""
    handler = functools.partial(Handler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def cached(tmp_path: Path) -> list[str]:
    """Every file in the cache."""
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if p.is_file())


def mirrors(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    """Look here, in this order."""
    monkeypatch.setenv("MSRESNET_MIRRORS", " ".join(urls))


def spoilt(served: Path, data: bytes) -> str:
    """A folder in which every file is these bytes."""
    (served / "bad").mkdir()
    for name in NAMES:
        (served / "bad" / name).write_bytes(data)
    return "bad"


def test_good_files_are_fetched_once(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirrors(monkeypatch, f"{address}/good/")
    found = mnist.mnist()
    assert np.array_equal(found["train"].images[:, 0], hostile.random_pixels(20, 28, 28, seed=0))
    assert np.array_equal(found["test"].images[:, 0], hostile.random_pixels(20, 28, 28, seed=1))
    assert cached(tmp_path) == sorted(NAMES)
    mirrors(monkeypatch, "http://127.0.0.1:9/")
    assert np.array_equal(mnist.mnist()["train"].targets, LABELS)


def bad_contents() -> dict[str, bytes]:
    """What a broken mirror may send."""
    return {
        "another file": gzip.compress(hostile.idx(hostile.random_pixels(20, 28, 28, seed=9))),
        "truncated": gzip.compress(hostile.random_pixels(5000).tobytes())[:2000],
        "a web page": b"<html>Please log in</html>",
        "nothing": b"",
        "a bomb": gzip.compress(bytes(mnist.MAX_BYTES + 1), 1),
    }


BAD = [
    ("another file", "checksum"),
    ("truncated", "no whole gzip file"),
    ("a web page", "no whole gzip file"),
    ("nothing", "checksum"),
    ("a bomb", "inflates beyond"),
]


@pytest.mark.parametrize("case", BAD)
def test_D17_D18_a_bad_mirror_is_passed_over(
    case: tuple[str, str], served: Path, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, reason = case
    bad = f"{address}/{spoilt(served, bad_contents()[kind])}"
    mirrors(monkeypatch, bad)
    with pytest.raises(DataError, match=reason):
        mnist.mnist()
    assert cached(tmp_path) == []
    mirrors(monkeypatch, bad, f"{address}/absent", f"{address}/good")
    assert len(mnist.mnist()["train"]) == 20
    assert cached(tmp_path) == sorted(NAMES)


def test_a_file_beyond_the_limit_is_not_kept(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist, "MAX_BYTES", 100)
    mirrors(monkeypatch, f"{address}/good")
    with pytest.raises(DataError, match="more than 100 bytes"):
        mnist.mnist()
    assert cached(tmp_path) == []


@pytest.fixture
def babbler() -> Iterator[str]:
    """A server that answers something that is not HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"220 mail.example ready\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_all_mirrors_dead_names_three_ways_out(
    babbler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirrors(monkeypatch, "http://127.0.0.1:9/", babbler, "nonsense:/x")
    with pytest.raises(DataError) as caught:
        mnist.mnist()
    error = caught.value
    assert error.where == str(tmp_path / "cache" / "mnist")
    assert error.why.count("; ") == 2
    assert "refused" in error.why
    assert all(
        way in error.hint for way in ("--data FOLDER", "copy train-images", "MSRESNET_MIRRORS=", "--data digits")
    )
    assert cached(tmp_path) == []
    assert main(["train", "--data", "mnist", "--epochs", "1"]) == 3
    assert "Traceback" not in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_mirrors(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    mirrors(monkeypatch, f"{address}/good")
    with pytest.raises(ResourceError):
        mnist.mnist()
