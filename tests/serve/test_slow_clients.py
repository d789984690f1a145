"""Clients that dawdle, leave, or only sit there: they cost a connection, and that not for long."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving import GOLDEN, SLOW_HEAD, SMALL, Serving, asked, crowd, dripping, pixels, server, status_of
from tiny import wait_for

READY = b'{"ready":true}'
CROWD = 200
LAST = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def serving(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server whose patience is short."""
    words = ["--header-timeout", "1.5", "--body-timeout", "1.5", "--max-connections", "300"]
    with server(tmp_path_factory.mktemp("server"), "--model", str(model), *SMALL, *words) as running:
        yield running


def test_H14_slow_headers_are_cut(unharmed: Serving, golden: dict[str, Any]) -> None:
    with crowd(unharmed, CROWD, b"GET /health HTTP/1.1\r\nX: ") as slow, dripping(slow, b"x"):
        for _ in range(5):
            assert unharmed.predict(GOLDEN).json()["result"] == golden
        assert {status_of(Serving.rest(connection)) for connection in slow} == {408}


def test_H15_slow_bodies_are_cut(unharmed: Serving, golden: dict[str, Any]) -> None:
    with crowd(unharmed, CROWD, SLOW_HEAD + b"") as slow, dripping(slow, b"x"):
        for _ in range(5):
            assert unharmed.predict(GOLDEN).json()["result"] == golden
        assert {status_of(Serving.rest(connection)) for connection in slow} == {408}


def test_H20_a_body_without_end_is_refused_and_not_kept(unharmed: Serving) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece, before = b"10000\r\n" + bytes(1 << 16) + b"\r\n", memory(unharmed)
    with socket.create_connection(("127.0.0.1", unharmed.port), 30) as connection:
        connection.sendall(head)
        end = time.monotonic() + 30
        try:
            while time.monotonic() < end:
                connection.sendall(piece)
        except OSError:
            pass  # it was cut
        assert time.monotonic() < end
        with contextlib.suppress(OSError):
            assert status_of(connection.recv(1 << 16)) == 413
    assert memory(unharmed) < before + (64 << 20)


def memory(serving: Serving) -> int:
    """Bytes of the server that are in memory."""
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_H16_who_leaves_during_the_upload_frees_the_place(unharmed: Serving) -> None:
    with crowd(unharmed, 50, SLOW_HEAD + b"0123"):
        wait_for(lambda: unharmed.counts()["msresnet_requests_active{}"] == 51)
    wait_for(lambda: unharmed.counts()["msresnet_requests_active{}"] == 1)
    assert unharmed.counts()["msresnet_queue_images{}"] == 0
    assert unharmed.counts()["msresnet_requests_total{status=499}"] >= 50


def test_H16_who_leaves_during_the_computation_frees_the_place(unharmed: Serving) -> None:
    (worker,) = unharmed.workers()
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    os.kill(worker, signal.SIGSTOP)
    try:
        with crowd(unharmed, 20, head % len(GOLDEN) + GOLDEN):
            wait_for(lambda: unharmed.counts()["msresnet_queue_images{}"] == 20)
        wait_for(lambda: unharmed.counts()["msresnet_queue_images{}"] == 0)
    finally:
        os.kill(worker, signal.SIGCONT)


def test_H17_ten_thousand_connections_that_say_nothing(unharmed: Serving, golden: dict[str, Any]) -> None:
    """Those that sit longest make room; at no time are there many more than are allowed."""
    with contextlib.ExitStack() as stack:
        for number in range(10_000):
            connection = stack.enter_context(socket.socket())
            connection.connect(("127.0.0.1", unharmed.port))
            if number % 2000 == 1999:
                wait_for(lambda: golden == answer_of(unharmed))  # at worst it has to come again
                assert len(list(Path(f"/proc/{unharmed.process.pid}/fd").iterdir())) < 400


def answer_of(serving: Serving) -> Any:
    """The answer about the picture; in a flood the connection may be refused, and there is none."""
    try:
        return serving.predict(GOLDEN).json().get("result")
    except httpx.TransportError:
        return None


def test_H17_connections_that_all_ask_leave_no_room(unharmed: Serving) -> None:
    """Whose request is on its way is not cut for another, who is told to come again."""
    with crowd(unharmed, 300, SLOW_HEAD + b""):
        wait_for(lambda: unharmed.raw(LAST).startswith(b"HTTP/1.1 503 "))
    wait_for(lambda: unharmed.get("/health").status_code == 200)


def test_a_connection_serves_many_requests_and_then_waits(unharmed: Serving) -> None:
    """Between requests it may wait for longer than a request may take to come."""
    text = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", unharmed.port), 30) as connection:
        for pause in (0, 0, 2.0):
            time.sleep(pause)
            connection.sendall(text)
            answer = b""
            while not answer.endswith(READY):
                answer += connection.recv(1 << 16)
            assert status_of(answer) == 200
        connection.sendall(text + text)  # pipelined
        answers = b""
        while answers.count(READY) < 2:
            answers += connection.recv(1 << 16)


def test_a_refused_body_does_not_become_the_next_request(unharmed: Serving) -> None:
    body = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 50_000
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body)
    last = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = unharmed.raw(head + body + last)
    assert statuses_of(answer) == [413, 404]


def test_the_end_of_a_refused_body_is_no_head(unharmed: Serving) -> None:
    """It may come after the answer, in one piece that is larger than a head may be; then the connection goes on."""
    with refused_but_for(unharmed, 60_000) as connection:
        connection.sendall(bytes(60_000))
        time.sleep(2.0)  # between requests, longer than one may take to come
        connection.sendall(LAST)
        assert statuses_of(Serving.rest(connection)) == [413, 200]


def test_a_head_that_begins_behind_a_refused_body_comes_in_time(unharmed: Serving) -> None:
    with refused_but_for(unharmed, 1000) as connection:
        connection.sendall(bytes(1000) + b"GET /health HTTP/1.1\r\nX: ")
        start = time.monotonic()
        assert statuses_of(Serving.rest(connection)) == [413, 408]
        assert time.monotonic() - start < 10


@contextlib.contextmanager
def refused_but_for(serving: Serving, late: int) -> Iterator[socket.socket]:
    """A connection whose body is too large, and was read but for its last bytes."""
    size = 2 << 20
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % size
    with socket.create_connection(("127.0.0.1", serving.port), 30) as connection:
        connection.sendall(head + bytes(size - late))
        time.sleep(0.5)  # so that the server has answered, and read what came
        yield connection


def statuses_of(answers: bytes) -> list[int]:
    """The statuses of answers, one after another."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


def test_deadlines_are_kept(unharmed: Serving) -> None:
    """A microsecond, as clients of the protocol may ask, is too short."""
    response = unharmed.infer(asked(pixels(1)) | {"parameters": {"timeout": 1}})
    assert response.status_code == 503
    assert "in time" in response.json()["error"]
    unharmed.wait_idle()
