"""The process that serves: its port, its key, its signals, and a stop that finishes what it has accepted."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
import time
from importlib import metadata
from pathlib import Path
from types import FrameType

import uvicorn

from msresnet.errors import ResourceError, UsageError
from msresnet.serve.app import build
from msresnet.serve.bodies import Bodies
from msresnet.serve.config import ServeConfig
from msresnet.serve.connections import KEEP_ALIVE, Limits
from msresnet.serve.guard import Guard
from msresnet.serve.metrics import Metrics
from msresnet.serve.models import Models

KEY = "MSRESNET_API_KEY"
A_KEY = f"letters and digits in one line, or the environment variable {KEY}"
SPARE = 200
"""File descriptors for everything that is not a connection."""
LAST, NOTICE = 30.0, 1.0
"""Seconds for accepted requests to end after a signal, and in which new ones are told that the server stops."""
BACKLOG = 2048


def serve(config: ServeConfig, quiet: bool = False) -> int:
    """Serve until a signal comes; returns the exit code.

    Raises MsresnetError for a key, a port or a model that cannot be used.
    """
    key = read_key(config.api_key_file)
    _allow_files(config.max_connections + SPARE)
    with bind(config.host, config.port) as listening:
        return asyncio.run(_serve(config, key, listening, quiet))


def read_key(file: str | None) -> str:
    """The key that requests must bring, '' for none. Raises UsageError for a file that holds none."""
    if file is None:
        return os.environ.get(KEY, "").strip()
    try:
        with Path(file).open(encoding="ascii") as lines:
            key = lines.readline(4096).strip()
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is not plain letters"
        raise UsageError("cannot read the key", where=file, why=why, hint=A_KEY) from error
    if not key:
        raise UsageError("the file holds no key", where=file, why="its first line is empty", hint=A_KEY)
    return key


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address. Raises ResourceError for a port that is taken, UsageError for no address of here."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host}", why="no such address", hint="--host 127.0.0.1") from error
    # Where the protocol is not said, asyncio leaves Nagle's algorithm at work, and every answer but the first of a
    # connection comes 40 ms late.
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        why = error.strerror or str(error)
        hint = f"--port {port + 1}, or --port 0 for any that is free"
        raise ResourceError(f"cannot listen at port {port}", where=host, why=why, hint=hint) from error
    return listening


async def _serve(config: ServeConfig, key: str, listening: socket.socket, quiet: bool) -> int:
    metrics = Metrics()
    models = Models(config, metrics)
    try:
        await models.load_all()
        app = build(models, metrics, metadata.version("msresnet"))
        bodies = Bodies(config.max_body << 20, config.body_timeout)
        guard = Guard(app, metrics, bodies, key, _say_access if config.access_log else None)
        limits = Limits(config.max_connections, config.header_timeout)
        server = Server(guard, limits, [] if quiet else _words(config, models, key, listening))
        watching = asyncio.create_task(models.watch()) if config.reload else None
        gc.collect()
        gc.freeze()  # all this stays; each search of it for what can go would hold answers up by 40 to 60 ms
        await server.serve(sockets=[listening])
        if watching is not None:
            watching.cancel()
    finally:
        gc.unfreeze()
        await models.close()
    return 0


class Server(uvicorn.Server):
    """uvicorn, which at a signal goes on until what it accepted is answered; new requests are told to go elsewhere.

    Args:
        guard: the application.
        limits: of connections.
        words: what to say once it listens; without any it is silent at its end, too.
    """

    def __init__(self, guard: Guard, limits: Limits, words: list[str]) -> None:
        settings = uvicorn.Config(
            guard,
            http=limits.protocol(),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=5,
        )
        super().__init__(settings)
        self.guard, self.words, self.since = guard, words, 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        for line in self.words:
            print(line, file=sys.stderr, flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks, the second leaves what is not answered."""
        if self.guard.draining:
            self.should_exit = self.force_exit = True
            return
        self.guard.draining, self.since = True, time.monotonic()
        if self.words:
            name = signal.Signals(sig).name
            print(f"· {name}: {self.guard.active} requests are being finished", file=sys.stderr, flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop now."""
        if self.guard.draining:
            waited = time.monotonic() - self.since
            if waited > LAST or (waited > NOTICE and self.guard.active == 0):
                self.should_exit = True
        return await super().on_tick(counter)


def _words(config: ServeConfig, models: Models, key: str, listening: socket.socket) -> list[str]:
    """What is served, where, and how."""
    host, port = listening.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    lines = [
        f"· {served.name}: {served.trained.architecture}, {served.started.backend} in {served.started.precision} "
        f"({served.started.reason}), up to {served.batcher.size} images at a time ({served.started.found})"
        for served in models.all
    ]
    if not key and not config.is_local:
        lines.append("! whoever reaches this address may use it: there is no key (--api-key-file)")
    return [*lines, f"· serving at {address}"]


def _say_access(method: str, path: str, status: int, seconds: float) -> None:
    shown = path if path.isprintable() else ascii(path)
    print(f"{method} {shown[:200]} {status} {1000 * seconds:.1f} ms", file=sys.stderr)


def _allow_files(wanted: int) -> None:
    """Let this process open so many files. Raises ResourceError where the system does not allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            why = f"{wanted} open files are needed, the limit is {hard}"
            hint = f"--max-connections {max(1, hard - SPARE)}"
            raise ResourceError("the system allows too few open files", why=why, hint=hint)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
