"""What a user can say about serving. No torch and no FastAPI here: `--help` reads this file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from msresnet.errors import UsageError, at_least
from msresnet.infer.config import Engine, Precision
from msresnet.run_folder import LATEST

LOOPBACK = ("127.0.0.1", "::1", "localhost")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a model may be called: it becomes part of an address."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Answer over HTTP: a page for people, POST /predict, and the Open Inference Protocol (/v2) for programs."""

    model: Annotated[tuple[str, ...], arg(metavar="[NAME=]PATH")] = (LATEST,)
    """Runs, bundles, hf:user/repo, or exported files, several if wanted; NAME=PATH says what each is called. The first
    answers where none is named."""
    host: str = "127.0.0.1"
    """The address to listen at. The default is reached from this machine alone; 0.0.0.0 from everywhere."""
    port: int = 8000
    """0 takes a free one, and says which."""
    workers: int | None = None
    """Processes for each model, which are replaced when they die; 0 computes in the server's own process. Default:
    two for an exported file in OpenVINO, unless --threads is given, so that cores have work while one waits. Else
    one."""
    threads: int | None = None
    """Threads of each process. Default: the cores, shared among the workers that --workers asks for."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    backend: Engine = "auto"
    """What runs the models. auto: torch for a bundle, for an exported file the fastest that is installed."""
    precision: Precision = "auto"
    """auto: float32 for a bundle, what an exported file was made for."""
    batch_size: int | None = None
    """Images that are computed at once, at most. Default: as many as are fastest, which is measured at the start."""
    max_delay: float = 2.0
    """Milliseconds that an image waits for others, which are being decoded, to join its batch."""
    queue: int = 128
    """Images that may wait for each model; more are refused with 503 and Retry-After."""
    timeout: float = 10.0
    """Seconds after which a request that still waits for its answer is refused with 503."""
    max_body: int = 32
    """MiB of a request's body, inflated."""
    max_pixels: int = 50
    """Millions of pixels of an image."""
    max_images: int = 64
    """Images of one request."""
    header_timeout: float = 10.0
    """Seconds in which a connection has to send a request's headers."""
    body_timeout: float = 30.0
    """Seconds in which a request's body has to come."""
    max_connections: int = 1000
    """Connections at a time; further ones take the place of those that have been idle the longest."""
    reload: bool = False
    """Look every second whether a model's files have changed, and reload it; a bad one leaves the old in place."""
    api_key_file: str | None = None
    """A file whose first line is the key that requests must bring. Without it, MSRESNET_API_KEY; without both, none."""
    access_log: bool = False
    """Write a line for each request to standard error."""

    def __post_init__(self) -> None:
        lows: dict[str, tuple[float | None, float]] = {
            "workers": (self.workers, 0),
            "queue": (self.queue, 1),
            "max-body": (self.max_body, 1),
            "max-pixels": (self.max_pixels, 1),
            "max-images": (self.max_images, 1),
            "max-connections": (self.max_connections, 1),
            "max-delay": (self.max_delay, 0),
            "port": (self.port, 0),
            "batch-size": (self.batch_size, 1),
            "threads": (self.threads, 1),
        }
        at_least(lows)
        times = {
            "timeout": self.timeout,
            "header-timeout": self.header_timeout,
            "body-timeout": self.body_timeout,
        }
        for name, seconds in times.items():
            if not 0 < seconds < 86_400:
                raise UsageError(f"--{name} {seconds:g}", why="seconds, above 0", hint=f"--{name} 10")
        if self.port > 65_535:
            raise UsageError(f"--port {self.port}", why="ports end at 65535", hint="--port 8000")
        if self.max_images > self.queue:
            why = f"a request of {self.max_images} images would never find room"
            raise UsageError(
                f"--queue {self.queue}", why=why, hint=f"--queue {self.max_images}, or a lower --max-images"
            )
        _ = self.models

    @property
    def models(self) -> dict[str, str]:
        """Paths by name, in the order given. Raises UsageError for names that are none, or are given twice."""
        found: dict[str, str] = {}
        for text in self.model:
            name, path = _named(text)
            if not NAME.fullmatch(name):
                why = "letters, digits, '.', '_' and '-'; it becomes part of an address"
                raise UsageError(f"--model {text}: {name!r} is not a name", why=why, hint=f"--model digits={path}")
            if name in found:
                raise UsageError(f"two models are called {name!r}", hint=f"--model {name}2={path}")
            found[name] = path
        if not found:
            raise UsageError("--model names nothing", hint="--model runs/latest")
        return found

    @property
    def is_local(self) -> bool:
        """Whether only this machine is answered."""
        return self.host in LOOPBACK


def _named(text: str) -> tuple[str, str]:
    """A model's name and path, from NAME=PATH or from the path alone."""
    name, equals, path = text.partition("=")
    if equals and NAME.fullmatch(name):
        return name, path
    whole = Path(text)
    if whole == Path(LATEST) and whole.is_symlink():
        return whole.readlink().name, text
    return (whole.stem if whole.suffix in (".onnx", ".xml") else whole.name), text
