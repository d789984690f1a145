"""What stands between the network and the routes: every request is limited, timed, counted and, at the end, refused.

It reads the whole body first, so that no route sees one that is too large, too slow or broken; then it lets the route
answer, and cancels it when the client goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from msresnet.serve.failures import BUSY, CLIENT_LEFT, MALFORMED, Refusal, no_memory
from msresnet.serve.metrics import Metrics

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/v2/health/live", "/v2/health/ready", "/")
"""Paths without a key: they say nothing of the models."""
CLOSE = (b"connection", b"close")
PAGE, PAGE_DATA = "/page/", "/page/models"
BODILESS = ("GET", "HEAD", "OPTIONS", "DELETE")
WINDOWS = {b"gzip": 31, b"deflate": 47}
"""zlib's window for each way in which a body may be compressed; 47 takes zlib's own header or gzip's."""
MOST_IN_MEMORY = 16
"""Bodies of the full size that all requests together may hold while they come."""


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Guard:
    """The outermost part of the server.

    Args:
        app: the routes.
        metrics: where each request is counted.
        key: that requests must bring; '' where none is asked.
        max_body: bytes of a body, inflated.
        patience: seconds for a body to come.
        access: called with (method, path, status, seconds) at the end of each request.
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        *,
        key: str,
        max_body: int,
        patience: float,
        access: Callable[[str, str, int, float], None] | None = None,
    ) -> None:
        self.app, self.metrics, self.max_body, self.patience, self.access = app, metrics, max_body, patience, access
        self._key = key.encode()
        self.active, self.draining, self._held = 0, False, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), CLIENT_LEFT
        self.active += 1
        self.metrics.active.set(self.active)

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.draining and CLOSE not in message["headers"]:
                    message["headers"] = [*message["headers"], CLOSE]
            await send(message)

        try:
            await self._answer(scope, receive, noted)
        except ClientLeft:
            status = CLIENT_LEFT
        except Refusal as refused:
            await _send(refused, noted)
        except MemoryError:
            await _send(no_memory(), noted)
        finally:
            self.active -= 1
            self.metrics.active.set(self.active)
            seconds = time.perf_counter() - start
            self.metrics.counted(status, seconds)
            if self.access is not None:
                self.access(scope["method"], scope["path"], status, seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._check_key(scope, headers)
        if self.draining and scope["path"] not in OPEN:
            raise Refusal(BUSY, "the server is stopping", retry_after=5, close=True)
        body = b"" if scope["method"] in BODILESS else await self._body(headers, receive)
        await self._run(scope, body, receive, send)

    def _check_key(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        path = scope["path"]
        page = scope["method"] == "GET" and path.startswith(PAGE) and path != PAGE_DATA
        if not self._key or path in OPEN or page:
            return
        brought = headers.get(b"x-api-key", b"")
        scheme, _, word = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            brought = word.strip()
        if not hmac.compare_digest(brought, self._key):
            raise Refusal(401, "this server asks for a key", hint="Authorization: Bearer KEY")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """The whole body, inflated. Raises Refusal for one that is too large, too slow or broken."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_body:
            raise self._too_large()
        encoding = headers.get(b"content-encoding", b"identity").strip().lower()
        if encoding not in (*WINDOWS, b"identity"):
            raise Refusal(415, "the body's compression is not known", hint="gzip, deflate or none")
        inflate = zlib.decompressobj(WINDOWS[encoding]) if encoding in WINDOWS else None
        body = bytearray()
        try:
            async with asyncio.timeout(self.patience):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    more = message.get("more_body", False)
                    self._take(body, message.get("body", b""), inflate)
        except TimeoutError as error:
            why = f"it took more than {self.patience:g} s"
            raise Refusal(408, "the body did not come in time", why=why, close=True) from error
        finally:
            self._held -= len(body)
        if inflate is not None and (not inflate.eof or inflate.unused_data):
            raise Refusal(MALFORMED, "the compressed body is not whole")
        return bytes(body)

    def _take(self, body: bytearray, piece: bytes, inflate: Any) -> None:
        """Add what has come to a body."""
        before = len(body)
        if inflate is None:
            body += piece
        else:
            try:
                body += inflate.decompress(piece, self.max_body + 1 - before)
            except zlib.error as error:
                raise Refusal(MALFORMED, "the body cannot be inflated") from error
        self._held += len(body) - before
        if len(body) > self.max_body:
            raise self._too_large()
        if self._held > MOST_IN_MEMORY * self.max_body:
            raise Refusal(BUSY, "too many bodies are coming at once", retry_after=1, close=True)

    def _too_large(self) -> Refusal:
        return Refusal(413, "the body is too large", why=f"the limit is {self.max_body:,} bytes, inflated")

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let the routes answer, unless the client goes away first."""
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        answering = asyncio.ensure_future(self.app(scope, replay, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                answering.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await answering
                raise ClientLeft
            answering.result()
        finally:
            for task in (answering, leaving):
                task.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(refused: Refusal, send: Send) -> None:
    """Answer with a refusal."""
    body = json.dumps(refused.body()).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | refused.headers()
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
