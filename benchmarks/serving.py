"""The server beside a plain FastAPI handler and LitServe: the same model, the same input, the same clients.

Clients send photographs, which every contestant decodes, or pixels that are ready for the network: as a tensor of the
Open Inference Protocol to ours, as a file's bytes to the others. Each contestant is a process of its own on a free port
of this machine; only one is asked at a time, round after round, and the others are stopped meanwhile: some look for
work even where there is none. What the network alone can do is measured in each round too. Ours runs as it is by
default; LitServe has as many workers, with as many threads, and batches as large as ours finds to be the fastest.

Run: python benchmarks/serving.py --model exported/digits [--send pixels] [--clients 16] [--output FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image

from msresnet.data.decode import decode_bytes
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running
from msresnet.infer.predictor import Predictor
from msresnet.machine import cores
from msresnet.serve.config import ServeConfig
from msresnet.serve.models import crew

CONTESTANTS = ("msresnet", "plain FastAPI", "LitServe")
PATIENCE = 60.0
LEAD = 0.3
"""What passes before the seconds that count, as a share of them."""
FORM = b'--B\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
Send = Literal["photographs", "pixels"]


class Asked(NamedTuple):
    """What a client posts."""

    path: str
    body: bytes
    headers: dict[str, str]


class Server(NamedTuple):
    """A contestant that runs: its port, and the group of its processes."""

    port: int
    group: int


@contextlib.contextmanager
def alone(chosen: str, servers: dict[str, Server]) -> Iterator[None]:
    """Within this, all servers but one are stopped."""
    others = [server.group for name, server in servers.items() if name != chosen]
    for group in others:
        os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        for group in others:
            os.killpg(group, signal.SIGCONT)


def opened(model: str, threads: int, batch: int) -> Predictor:
    """The model, with a number of threads, for so many images at a time."""
    return open_predictor(model, Running(threads=threads, batch_size=batch))


def answer(predictor: Predictor, files: list[bytes], send: Send) -> list[dict[str, Any]]:
    """What the other contestants do with some uploads, as ours does."""
    preprocess, ids = predictor.trained.preprocess, ["image"] * len(files)
    if send == "photographs":
        return predictor.predict([decode_bytes(data, "image", preprocess.at_least) for data in files], ids).to_dict()
    shape = (preprocess.channels, *preprocess.size)
    return predictor.predict_ready(np.stack([np.frombuffer(f, np.uint8).reshape(shape) for f in files]), ids).to_dict()


def plain(model: str, threads: int, port: int, send: Send) -> None:
    """The handler that one writes first: FastAPI runs it in threads."""
    import fastapi
    import uvicorn

    app, predictor = fastapi.FastAPI(), opened(model, threads, 1)
    upload = fastapi.File()

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/predict")
    def predict(image: bytes = upload) -> dict[str, Any]:
        return answer(predictor, [image], send)[0]

    uvicorn.run(app, port=port, log_level="critical")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextlib.contextmanager
def contestant(name: str, args: argparse.Namespace, batch: int) -> Iterator[Server]:
    """A server that answers, with batches of so many images; 0 leaves them to ours."""
    port = free_port()
    workers, threads = crew(ServeConfig(workers=args.workers), args.model)
    common = ["--model", args.model, "--port", str(port)]
    asked = [] if args.workers is None else ["--workers", str(workers)]
    asked += ["--batch-size", str(batch)] if batch else []
    fixed = ["--send", args.send, "--threads"]
    lit = str(Path(__file__).with_name("in_litserve.py"))
    words = {
        "msresnet": ["-m", "msresnet", "serve", *common, "-q", "--queue", "512", *asked],
        "plain FastAPI": [__file__, "--role", name, *common, *fixed, str(cores())],
        "LitServe": [lit, *common, *fixed, str(threads), "--batch", str(batch), "--workers", str(workers)],
    }
    threads = cores() if name == "plain FastAPI" else threads
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen([sys.executable, *words[name]], env=environment, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE
        while not healthy(port):
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit(f"{name} does not start")
            time.sleep(0.2)
        yield Server(port, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def healthy(port: int) -> bool:
    """Whether a server answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def load(port: int, asked: Asked, clients: int, seconds: float) -> tuple[float, list[float]]:
    """Answers a second of clients that ask again when they are answered, and the seconds of each answer.

    What is answered before the queue has filled, and while it empties at the end, does not count.
    """
    times: list[float] = []
    begin = time.perf_counter() + LEAD * seconds
    end = begin + seconds

    def one() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while time.perf_counter() < end:
            start = time.perf_counter()
            connection.request("POST", *asked)
            response = connection.getresponse()
            response.read()
            if response.status != http.client.OK:
                raise RuntimeError(f"{response.status} instead of an answer")
            came = time.perf_counter()
            if begin <= came < end:
                times.append(came - start)
        connection.close()

    together(one, clients)
    if not times:
        raise SystemExit(f"no answer came from port {port}")
    return len(times) / seconds, times


def together(work: Callable[[], None], count: int) -> None:
    """Do the same in so many threads, until all have done it."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def raw(predictor: Predictor, batch: int, seconds: float) -> float:
    """Images a second of the network alone."""
    preprocess = predictor.trained.preprocess
    images = np.random.default_rng(0).integers(0, 256, (batch, preprocess.channels, *preprocess.size), dtype=np.uint8)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or count < 2:
        predictor.backend(images)
        count += 1
    return batch * count / (time.perf_counter() - start)


def photo(side: int) -> bytes:
    """A JPEG of smooth noise, as large as photographs of that size are."""
    noise = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def requests(predictor: Predictor, data: bytes, send: Send, port: int) -> dict[str, Asked]:
    """What is posted to each contestant; ours listens at `port`."""
    form = Asked("/predict", FORM + data + b"\r\n--B--\r\n", {"Content-Type": "multipart/form-data; boundary=B"})
    asked = dict.fromkeys(CONTESTANTS, form)
    if send == "pixels":
        shape = [1, predictor.trained.preprocess.channels, *predictor.trained.preprocess.size]
        sizes = {"binary_data_size": len(data)}
        tensor = {"name": "images", "datatype": "UINT8", "shape": shape, "parameters": sizes}
        # Of its outputs, the one that says what the others answer.
        text = json.dumps({"inputs": [tensor], "outputs": [{"name": "answers"}]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(text))}
        asked["msresnet"] = Asked(f"/v2/models/{served(port)['name']}/infer", text + data, headers)
    return asked


def served(port: int) -> dict[str, Any]:
    """What our server says of its model."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/models")
    (model,) = json.loads(connection.getresponse().read())["models"]
    return dict(model)


def compare(args: argparse.Namespace) -> list[str]:
    """The rows of the result, as Markdown."""
    found: dict[str, list[float]] = {name: [] for name in ("network alone", *CONTESTANTS)}
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    with contextlib.ExitStack() as stack:
        first, *others = CONTESTANTS
        servers = {first: stack.enter_context(contestant(first, args, args.batch))}
        best = int(served(servers[first].port)["batch_size"])
        servers |= {name: stack.enter_context(contestant(name, args, best)) for name in others}
        predictor = opened(args.model, cores(), best)
        preprocess = predictor.trained.preprocess
        pixels = np.random.default_rng(0).integers(0, 256, (preprocess.channels, *preprocess.size), dtype=np.uint8)
        data = pixels.tobytes() if args.send == "pixels" else photo(args.side)
        asked = requests(predictor, data, args.send, servers["msresnet"].port)
        for name, (port, _) in servers.items():  # to warm up
            rate, _ = load(port, asked[name], args.clients, args.seconds / 3)
            print(f"{name}: port {port}, {rate:.1f} images/s", file=sys.stderr, flush=True)
        for _ in range(args.rounds):
            with alone("", servers):
                found["network alone"].append(raw(predictor, best, args.seconds))
            for name, (port, _) in servers.items():
                with alone(name, servers):
                    rate, seconds = load(port, asked[name], args.clients, args.seconds)
                found[name].append(rate)
                times[name] += seconds
    rows = ["| | images/s | of the network alone | p50, ms | p99, ms |", "|---|--:|--:|--:|--:|"]
    for name, rates in found.items():
        share = statistics.median(r / n for r, n in zip(rates, found["network alone"], strict=True))
        late = [f"{1000 * float(np.quantile(times[name], q)):.1f}" if name in times else "" for q in (0.5, 0.99)]
        rows.append(f"| {name} | {statistics.median(rates):.1f} | {100 * share:.0f} % | {' | '.join(late)} |")
    backend, (workers, threads) = predictor.backend, crew(ServeConfig(workers=args.workers), args.model)
    what = "ready pixels" if args.send == "pixels" else f"JPEG of {len(data):,} bytes ({args.side} pixels)"
    rows += [
        "",
        f"{predictor.trained.architecture} at {preprocess.size[0]} pixels, {backend.name} in {backend.precision}, "
        f"{workers} workers with {threads} threads each, batches of up to {best}; {what}, {args.clients} clients; "
        f"medians of {args.rounds} rounds of {args.seconds:g} s",
    ]
    return rows


def main() -> None:
    """Measure and print, and write what was printed; or be one of the contestants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, help="processes that share the cores; default: what serve takes itself")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--send", choices=get_args(Send), default="photographs")
    parser.add_argument("--side", type=int, default=500, help="of the uploaded JPEG, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each contestant in a round")
    parser.add_argument("--batch", type=int, default=0, help="images at a time; 0: what our server finds itself")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.role is not None:
        plain(args.model, args.threads, args.port, args.send)
    else:
        rows = compare(args)
        words = shlex.join(["python", "benchmarks/serving.py", *sys.argv[1:]])
        text = "\n".join(["# Answers a second over HTTP", "", *rows, f"`{words}`", ""])
        print(text)
        if args.output:
            args.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
