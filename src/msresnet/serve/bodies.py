"""Bodies of requests, read whole: limited in size and time, inflated, and bounded in memory all together."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from msresnet.serve.failures import BUSY, MALFORMED, Refusal

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Inflate = Callable[[bytes, int], bytes]
WINDOWS = {b"gzip": 31, b"deflate": 47}
"""zlib's window for each way in which a body may be compressed; 47 takes zlib's own header or gzip's."""
PLAIN = b"identity"
LINGER = 1.0
"""Seconds in which the rest of a body that is not wanted may come."""
MOST_IN_MEMORY = 16
"""Bodies of the full size that all requests together may hold."""


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Bodies:
    """Reads bodies.

    Args:
        most: bytes of one, inflated.
        patience: seconds for one to come.
    """

    def __init__(self, most: int, patience: float) -> None:
        self.most, self.patience = most, patience
        self.held = 0

    @contextlib.asynccontextmanager
    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> AsyncIterator[bytes]:
        """The whole body, which counts as held until this is left.

        Raises Refusal for one that is too large, too slow or broken, ClientLeft when its sender goes away.
        """
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.most:
            raise self._too_large()
        encoding = headers.get(b"content-encoding", PLAIN).strip().lower()
        if encoding not in (*WINDOWS, PLAIN):
            raise Refusal(415, "the body's compression is not known", hint="gzip, deflate or none")
        body = bytearray()
        try:
            await self._in_time(body, encoding, receive)
            yield bytes(body)
        finally:
            self.held -= len(body)

    async def _in_time(self, body: bytearray, encoding: bytes, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self.patience):
                await self._fill(body, encoding, receive)
        except TimeoutError as error:
            why = f"it took more than {self.patience:g} s"
            raise Refusal(408, "the body did not come in time", why=why, close=True) from error

    async def _fill(self, body: bytearray, encoding: bytes, receive: Receive) -> None:
        packed = zlib.decompressobj(WINDOWS[encoding]) if encoding in WINDOWS else None
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            more = message.get("more_body", False)
            self._take(body, message.get("body", b""), None if packed is None else packed.decompress)
        if packed is not None and (not packed.eof or packed.unused_data):
            raise Refusal(MALFORMED, "the compressed body is not whole")

    def _take(self, body: bytearray, piece: bytes, inflate: Inflate | None) -> None:
        """Add what has come to a body."""
        before = len(body)
        try:
            body += piece if inflate is None else inflate(piece, self.most + 1 - before)
        except zlib.error as error:
            raise Refusal(MALFORMED, "the body cannot be inflated") from error
        self.held += len(body) - before
        if len(body) > self.most:
            raise self._too_large()
        if self.held > MOST_IN_MEMORY * self.most:
            raise Refusal(BUSY, "there are too many large bodies at once", retry_after=1)

    def _too_large(self) -> Refusal:
        return Refusal(413, "the body is too large", why=f"the limit is {self.most:,} bytes, inflated")


async def discard(receive: Receive) -> None:
    """Let a body come, for a moment: whoever still sends when the connection ends does not see the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body", False):
                pass
