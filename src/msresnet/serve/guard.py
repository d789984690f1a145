"""What stands between the network and the routes: every request is limited, timed, counted and, at the end, refused.

It reads the whole body first, so that no route sees one that is too large, too slow or broken; then it lets the route
answer, and cancels it when the client goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from msresnet.serve.bodies import Bodies, ClientLeft, Message, Receive, discard
from msresnet.serve.failures import BUSY, CLIENT_LEFT, Refusal, no_memory
from msresnet.serve.metrics import Metrics

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Access = Callable[[str, str, int, float], None]

OPEN = ("/health", "/v2/health/live", "/v2/health/ready", "/")
"""Paths without a key: they say nothing of the models."""
PAGE, PAGE_DATA = "/page/", ("/page/models", "/page/examples")
"""Below which the page's files need no key, and what of it says something of the models."""
BODILESS = ("GET", "HEAD", "OPTIONS", "DELETE")
CLOSE = (b"connection", b"close")


class Guard:
    """The outermost part of the server.

    Args:
        app: the routes.
        metrics: where each request is counted.
        bodies: how bodies are read.
        key: that requests must bring; '' where none is asked.
        access: called with (method, path, status, seconds) at the end of each request.
    """

    def __init__(self, app: App, metrics: Metrics, bodies: Bodies, key: str, access: Access | None = None) -> None:
        self.app, self.metrics, self.bodies, self.access = app, metrics, bodies, access
        self._key = key.encode()
        self.active, self.draining = 0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
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
        except Exception as error:
            print(f"error: a bug in msresnet: {type(error).__name__}: {error}", file=sys.stderr)
            if status == CLIENT_LEFT:  # nothing was answered yet
                await _send(Refusal(500, "a bug of the server's; its own log says more"), noted)
        finally:
            self.active -= 1
            self.metrics.active.set(self.active)
            seconds = time.perf_counter() - start
            self.metrics.counted(status, seconds)
            if self.access is not None:
                self.access(scope["method"], scope["path"], status, seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._check_key(scope["method"], scope["path"], headers)
        if self.draining and scope["path"] not in OPEN:
            await discard(receive)
            raise Refusal(BUSY, "the server is stopping", retry_after=5, close=True)
        if scope["method"] in BODILESS:
            await self._run(scope, b"", receive, send)
            return
        async with self.bodies.read(headers, receive) as body:
            await self._run(scope, body, receive, send)

    def _check_key(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        page = method == "GET" and path.startswith(PAGE) and path not in PAGE_DATA
        if not self._key or path in OPEN or page:
            return
        brought = headers.get(b"x-api-key", b"")
        scheme, _, word = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            brought = word.strip()
        if not hmac.compare_digest(brought, self._key):
            raise Refusal(401, "this server asks for a key", hint="Authorization: Bearer KEY")

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
