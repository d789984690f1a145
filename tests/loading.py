"""Clients by the dozen: a closed loop, in which each waits for its answer, and an open one, which does not wait."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serving import Serving, status_of


@dataclass
class Told:
    """What clients were told, and the seconds that good answers took."""

    statuses: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    elapsed: float = 1.0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.seconds) / self.elapsed

    def percentile(self, share: float) -> float:
        return float(np.quantile(self.seconds, share))


class Clients:
    """Connections to a server, as many as are asked on at a time; a heavier client would measure itself."""

    def __init__(self, port: int) -> None:
        self.port, self.told = port, Told()
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def predict(self, data: bytes) -> Any:
        """The answer about the file of an image."""
        return await self.post("/predict", "image/jpeg", data)

    async def post(self, path: str, kind: str, body: bytes) -> Any:
        """The JSON of an answer, whose status and time are noted."""
        start = time.perf_counter()
        reader, writer = await self._connection()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
        content = json.loads(await reader.readexactly(length))
        if b"connection: close" in answer:
            writer.close()
        else:
            self.idle.append((reader, writer))
        status = status_of(answer)
        self.told.statuses.append(status)
        if status == 200:
            self.told.seconds.append(time.perf_counter() - start)
        return content

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An open one, as clients have it: of those that nobody used the server closes some."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def close(self) -> None:
        for _, writer in self.idle:
            writer.close()
            await writer.wait_closed()


def drive(serving: Serving, work: Callable[[Clients], Awaitable[None]]) -> Told:
    """Let clients work, without garbage collection.

    Looking through a process that has torch takes 0.3 s, through the answers of ten minutes as long, and what has to be
    sent meanwhile then comes at once, as from no client that is out there.
    """

    async def whole() -> Told:
        clients = Clients(serving.port)
        start = time.perf_counter()
        await work(clients)
        clients.told.elapsed = time.perf_counter() - start
        await clients.close()
        return clients.told

    gc.collect()
    gc.disable()
    try:
        return asyncio.run(whole())
    finally:
        gc.enable()


def closed_loop(serving: Serving, data: bytes, seconds: float, count: int = 16) -> Told:
    """Clients of which each asks when it has its answer: at what rate the server can answer."""

    async def work(clients: Clients) -> None:
        end = time.perf_counter() + seconds

        async def one() -> None:
            while time.perf_counter() < end:
                await clients.predict(data)

        await asyncio.gather(*(one() for _ in range(count)))

    return drive(serving, work)


def open_loop(serving: Serving, data: bytes, rate: float, seconds: float) -> Told:
    """Requests that come at a rate, whatever the server does."""

    async def work(clients: Clients) -> None:
        start = time.perf_counter()
        async with asyncio.TaskGroup() as asking:  # which lets go of the answers that have come
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
                asking.create_task(clients.predict(data))

    return drive(serving, work)
