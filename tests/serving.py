"""A real server process on a free port of this machine, and what is asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
from prometheus_client.parser import text_string_to_metric_families

from hostile import encode, random_pixels
from msresnet.data.decode import decode_bytes
from msresnet.infer.backends.opened import open_predictor
from sharding import SIDE
from tiny import wait_for

PATIENCE = 30.0
SMALL = ("--workers", "1", "--threads", "1", "--batch-size", "8", "--max-body", "1")
"""Settings of servers here: one worker with one thread, and a limit that is quickly reached."""
ADDRESS = re.compile(r"serving at http://127\.0\.0\.1:(\d+)")


def picture(seed: int = 1) -> bytes:
    """A small PNG."""
    return encode(random_pixels(SIDE + seed % 3, SIDE, seed=seed), "PNG")


GOLDEN = picture(1)
SLOW_HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
"""Of a request whose body is to come."""


def offline(model: Path, images: Sequence[bytes]) -> list[dict[str, Any]]:
    """What the model answers without a server, row by row."""
    predictor = open_predictor(model)
    at_least = predictor.trained.preprocess.at_least
    return predictor.predict([decode_bytes(data, "x", at_least) for data in images], ["image"] * len(images)).to_dict()


def outputs(model: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The network's outputs for images (N, C, H, W), each computed alone."""
    backend = open_predictor(model).backend
    return np.concatenate([backend(image[None])[0] for image in pixels]).astype(np.float32)


@dataclass
class Serving:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    client: httpx.Client

    @property
    def text(self) -> str:
        """What it has said."""
        return self.log.read_text(encoding="utf-8")

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.client.post(path, **more)

    def predict(self, data: bytes, **more: Any) -> httpx.Response:
        return self.post("/predict", files={"image": ("x.png", data)}, **more)

    def infer(self, body: Any, model: str = "m", headers: dict[str, str] | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.post(f"/v2/models/{model}/infer", content=content, headers=headers)

    def counts(self) -> dict[str, float]:
        """Every figure of /metrics, by its name and its labels."""
        found = {}
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()) if name != "model")
                found[f"{sample.name}{{{labels}}}"] = sample.value
        return found

    def workers(self) -> list[int]:
        """The process ids of those that compute."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(word) for task in tasks for word in task.read_text().split()]

    def wait_idle(self) -> None:
        """Wait until nothing is left to answer."""
        wait_for(lambda: self.counts()["msresnet_queue_images{}"] == 0)

    def raw(self, data: bytes, patience: float = PATIENCE) -> bytes:
        """Whatever comes back for some bytes, until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), patience) as connection:
            connection.sendall(data)
            return self.rest(connection)

    @staticmethod
    def rest(connection: socket.socket) -> bytes:
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                parts.append(part)
        return b"".join(parts)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


def start(folder: Path, *words: str, **environment: str) -> Serving:
    """Start a server and wait until it answers."""
    log = folder / "serve.log"
    command = [sys.executable, "-m", "msresnet", "serve", "--port", "0", *words]
    with log.open("wb") as errors:
        settings = os.environ | {"OMP_NUM_THREADS": "1"} | environment
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder, env=settings)
    wait_for(lambda: process.poll() is not None or ADDRESS.search(log.read_text(encoding="utf-8")) is not None)
    found = ADDRESS.search(log.read_text(encoding="utf-8"))
    assert found is not None, log.read_text(encoding="utf-8")
    client = httpx.Client(base_url=f"http://127.0.0.1:{found[1]}", timeout=PATIENCE, trust_env=False)
    return Serving(process, int(found[1]), log, client)


@contextlib.contextmanager
def server(folder: Path, *words: str, **environment: str) -> Iterator[Serving]:
    """A server for as long as it is needed; in the end it has left no traceback."""
    serving = start(folder, *words, **environment)
    try:
        yield serving
    finally:
        serving.client.close()
        if serving.process.poll() is None:
            serving.stop()
        serving.process.wait(60)
    assert "Traceback" not in serving.text, serving.text
    assert "a bug" not in serving.text, serving.text


def asked(pixels: npt.NDArray[Any], **more: Any) -> dict[str, Any]:
    """A request of the Open Inference Protocol, in JSON."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.ravel().tolist()}
    return {"inputs": [tensor | more]}


def pixels(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Images (N, 1, SIDE, SIDE) at the network's size."""
    return random_pixels(count, 1, SIDE, SIDE, seed=seed)


def status_of(answer: bytes) -> int:
    """The status in the bytes of an answer."""
    return int(answer.split(b" ", 2)[1])


@contextlib.contextmanager
def crowd(serving: Serving, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Many connections, each of which has sent some bytes."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), 30))
            connection.sendall(first)
            found.append(connection)
        yield found


def drip(connections: list[socket.socket], drop: bytes, stop: threading.Event) -> None:
    """Send a byte on each, again and again."""
    while not stop.wait(0.2):
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.sendall(drop)


@contextlib.contextmanager
def dripping(connections: list[socket.socket], drop: bytes) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=drip, args=(connections, drop, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
