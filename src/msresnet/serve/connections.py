"""Connections that say nothing, or too much, are ended: what uvicorn leaves open.

A connection has some seconds for a request's headers, and headers have a size. When there are too many connections, the
one that has waited longest without a request makes room.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD, MOST_FIELDS = 32 << 10, 100
"""Bytes and fields of a request's headers."""
KEEP_ALIVE = 75
"""Seconds between two requests: more than proxies take, so that they end their connections and not we."""
FRESH = 0.1
"""Seconds in which a connection may have sent a request that nobody has read yet."""


@dataclass
class Limits:
    """What all connections of a server share.

    Args:
        most: connections at a time.
        patience: seconds for a request's headers.
    """

    most: int
    patience: float
    waiting: dict[GuardedProtocol, float] = field(default_factory=dict)
    """Those without a request and since when, longest first."""

    def protocol(self) -> Any:
        """What uvicorn calls for each connection."""
        return partial(GuardedProtocol, limits=self)


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on the parser of Node.js, with limits."""

    def __init__(self, *args: Any, limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = limits
        self._clock: asyncio.TimerHandle | None = None
        self._head = self._fields = 0
        self._coming = self._begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in place of one that waits."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.most:
            oldest, since = next(iter(self.limits.waiting.items()), (None, 0.0))
            if oldest is None or self.loop.time() - since < FRESH:
                self._end(503, "there are too many connections")
                return
            oldest._served()
            oldest.transport.close()
        self._await_head(self.limits.patience)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._served()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; count it while it is not a whole head."""
        within, self._begun = self._coming, False  # a body, which is none of a head's bytes
        super().data_received(data)
        if self._clock is None or self._coming or (within and not self._begun):
            return
        if self._head == 0:  # a request begins
            self._await_head(self.limits.patience)
        self._head += 1 if within else len(data)  # how many follow the body is not known
        if self._head > MOST_HEAD:
            self._end(431, "the headers are too large")

    def on_message_begin(self) -> None:
        """The first byte of a request is there."""
        self._begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header field. Raises ValueError, at which uvicorn answers 400, for the one too many."""
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise ValueError("too many header fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request is there."""
        self._served()
        self._coming = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Its body is there as well."""
        self._coming = False
        super().on_message_complete()
        if self._clock is not None:  # it was answered before all of it had come
            self._await_head(KEEP_ALIVE)

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the end of this one's body, which nobody reads any more."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._await_head(self.limits.patience if self._coming else KEEP_ALIVE)

    def _await_head(self, patience: float) -> None:
        self._served()
        self._head = self._fields = 0
        self.limits.waiting[self] = self.loop.time()
        self._clock = self.loop.call_later(patience, self._too_late)

    def _served(self) -> None:
        self.limits.waiting.pop(self, None)
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _too_late(self) -> None:
        if self._head:
            self._end(408, "the headers did not come in time")
        else:
            self._served()
            self.transport.close()

    def _end(self, status: int, what: str) -> None:
        """Answer without a request, and close."""
        self._served()
        if self.transport.is_closing():
            return
        body = json.dumps({"error": what}).encode()
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"retry-after: 1\r\nconnection: close\r\n\r\n" + body)
        self.transport.close()
