"""Addresses, against real servers on this machine: what is fetched, what is refused; nothing waits for ever."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from msresnet.cli.main import main
from msresnet.errors import DataError
from msresnet.infer import remote
from msresnet.infer.remote import Patience, fetch, is_url, shown
from sharding import png

SOON = Patience(silent=0.5, whole=1.5)


class Pages(http.server.BaseHTTPRequestHandler):
    """Answers by the path; notes what was asked."""

    asked: list[str]

    def do_GET(self) -> None:  # the name is the library's
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        kind, _, rest = self.path[1:].partition("/")
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", rest if rest else "/good.png")
            self.end_headers()
        elif kind == "loop":
            self.send_response(301)
            self.send_header("Location", self.path)
            self.end_headers()
        elif kind == "claims":
            self.reply(b"", length="99999999999")
        elif kind == "endless":
            self.endless(b"x" * 65536, 0)
        elif kind == "drops":
            self.endless(b"x", 0.05)
        elif kind == "good.png":
            self.reply(png(1))
        elif kind == "page":
            self.reply(b"<html>no image</html>")
        else:
            self.send_error(404)

    def reply(self, body: bytes, length: str | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def endless(self, piece: bytes, pause: float) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(piece)
                time.sleep(pause)
        except OSError:
            pass

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as serving:
        serving.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def url(server: Any, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{path}"


@contextmanager
def silent(first: bytes = b"", drop: bytes = b"") -> Iterator[int]:
    """A server that takes a connection, and then says little or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stop = threading.Event()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(first)
                while not stop.wait(0.05):
                    try:
                        connection.sendall(drop)
                    except OSError:
                        return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(listening.getsockname()[1])
        stop.set()
        thread.join(5)


def test_an_image_is_fetched_and_redirects_are_followed(server: Any) -> None:
    assert fetch(url(server, "good.png")) == png(1)
    assert fetch(url(server, "moved")) == png(1)
    assert server.asked == ["/good.png", "/moved", "/good.png"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("gone", "the server answered 404"),
        ("loop", "too many redirects"),
        ("moved/file:///etc/passwd", "is not an http:// or https:// address"),
        ("moved/ftp://127.0.0.1/x", "is not an http:// or https:// address"),
        ("moved/http://169.254.169.254/latest/meta-data", "private or a reserved network"),
        ("claims", "too large"),
    ],
)
def test_H19_what_is_refused(path: str, reason: str, server: Any) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        fetch(url(server, path))
    assert caught.value.where.startswith("http://127.0.0.1")


def test_H20_an_endless_body_is_cut(server: Any) -> None:
    with pytest.raises(DataError, match="more than 1,000,000 bytes came"):
        fetch(url(server, "endless"), limit=1_000_000)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"more than 1\.5 s"):
        fetch(url(server, "drops"), SOON)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(("first", "drop"), [(b"", b""), (b"HTTP/1.1 200 OK\r\nX: ", b"y"), (b"", b"z")])
def test_H14_a_server_that_says_little_is_left(first: bytes, drop: bytes) -> None:
    with silent(first, drop) as port, pytest.raises(DataError, match="cannot fetch the image"):
        fetch(f"http://127.0.0.1:{port}/x.png", SOON)


def test_nobody_listens_and_no_such_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for address in (f"http://127.0.0.1:{port}/x.png", "http://name.invalid/x.png", "http://[::1", "http:///x.png"):
        with pytest.raises(DataError):
            fetch(address, SOON)


PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]
PRIVATE = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "100.64.0.1", "::1", "fc00::1", "::ffff:10.0.0.1",
           "2002:0a00:0001::1"]  # fmt: skip
NEVER = ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "::", "::ffff:169.254.169.254", "ff02::1"]


@pytest.mark.parametrize("text", [*PUBLIC, *PRIVATE, *NEVER])
def test_H19_which_addresses_are_reached(text: str) -> None:
    address = ip_address(text)
    assert remote._allowed(address, private=False) == (text in PUBLIC)
    assert remote._allowed(address, private=True) == (text not in NEVER)
    assert remote._is_private([address]) == (text not in PUBLIC) or address.is_multicast


def test_H19_a_public_address_does_not_lead_to_a_private_one(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name's first answer is public, its second is this machine: the one that was looked at counts."""
    found = iter([["93.184.215.14"], ["127.0.0.1"]])

    def answer(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in next(found)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(DataError, match="private or a reserved network"):
        fetch(f"http://rebound.example:{server.server_port}/good.png", SOON)
    assert server.asked == []


def test_a_name_of_which_one_address_is_private_is_refused(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, server.server_port)) for ip in (PUBLIC[0], "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(DataError, match="private or a reserved network"):
        fetch("http://two.example/good.png", SOON)


def test_a_redirect_never_leaves_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_answer", lambda *_: "http://127.0.0.1/x.png")
    with pytest.raises(DataError, match="leaves https"):
        fetch("https://127.0.0.1/x.png")


def test_https_checks_the_certificate() -> None:
    """A server without one, and one that nobody signed, are not servers of that name."""
    with silent(b"HTTP/1.1 200 OK\r\n\r\n") as port, pytest.raises(DataError, match="cannot fetch"):
        fetch(f"https://127.0.0.1:{port}/x.png", SOON)


def test_addresses_are_inputs_like_others_once_they_are_allowed(
    server: Any, model: Path, here: Path, capsys: Any
) -> None:
    (here / "x.png").write_bytes(png(1))
    good, bad, page = (url(server, path) for path in ("good.png", "gone", "page"))
    words = ["predict", "x.png", good, bad, page, "--model", str(model), "--format", "jsonl"]
    assert main(words) == 2
    assert server.asked == []
    capsys.readouterr()
    assert main([*words, "--allow-urls", "--save-images", "shown"]) == 3
    captured = capsys.readouterr()
    file, fetched = (json.loads(line) for line in captured.out.splitlines())
    assert (file["id"], fetched["id"]) == ("x.png", good)
    assert file["top"] == fetched["top"]
    assert "the server answered 404" in captured.err
    assert "no image of a known format" in captured.err
    assert sorted(server.asked) == ["/gone", "/good.png", "/page"]  # once each, pictures and all


def test_names_and_passwords_are_not_shown() -> None:
    assert shown("https://me:secret@example.com:8000/a?b=c") == "https://example.com:8000/a?b=c"
    assert is_url("http://x")
    assert is_url("file:///etc/passwd")
    assert not is_url("photos/a.jpg")
    assert not is_url("a b://c")
