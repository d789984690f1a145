"""How long the slowest answers take while requests come evenly spaced, at a share of what the server can.

The network alone is measured in turns with the server: in this process, without HTTP, it computes what has come, up to
a batch. So what the machine itself does to the slowest is seen beside what the server adds. An answer's time begins
when its request was to be sent, whether or not somebody was free to send it. The first second does not count: in it
connections are made.

Run: python -m benchmarks.tail --model exported/digits [--share 0.7] [--rounds 5] [--seconds 30] [--output FILE]
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from benchmarks.serving import PATIENCE, Asked, alone, contestant, load, opened, photo, requests, served, together
from benchmarks.tables import publish

from msresnet.infer.predictor import Predictor
from msresnet.machine import cores

SENDERS, LEAD = 96, 1.0
"""Requests that may be on their way at a time, and the seconds that do not count."""


class Times(NamedTuple):
    """Milliseconds of the middle answer and of the slowest in a hundred."""

    p50: float
    p99: float

    @property
    def ratio(self) -> float:
        """How many times the middle the slowest take."""
        return self.p99 / self.p50


def times(seconds: list[float]) -> Times:
    """The middle and the slowest of some answers."""
    return Times(*(1e3 * float(np.quantile(seconds, share)) for share in (0.5, 0.99)))


def by_itself(predictor: Predictor, batch: int, rate: float, seconds: float) -> Times:
    """The network alone, given so many images a second, evenly spaced."""
    preprocess, total = predictor.trained.preprocess, int(rate * (LEAD + seconds))
    shape = (batch, preprocess.channels, *preprocess.size)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for count in range(1, batch + 1):  # the first of a shape takes longer
        predictor.backend(images[:count])
    taken: list[float] = []
    start = time.perf_counter()
    while len(taken) < total:
        first = len(taken)
        time.sleep(max(0.0, start + first / rate - time.perf_counter()))
        due = int((time.perf_counter() - start) * rate) + 1 - first
        count = max(1, min(due, batch, total - first))
        predictor.backend(images[:count])
        end = time.perf_counter() - start
        taken += [end - number / rate for number in range(first, first + count)]
    return times(taken[int(rate * LEAD) :])


def asked_evenly(port: int, asked: Asked, rate: float, seconds: float) -> Times:
    """A server, sent so many requests a second, evenly spaced. Raises RuntimeError for any answer but 200."""
    start, total = time.perf_counter(), int(rate * (LEAD + seconds))
    numbers, taken, wrong = itertools.count(), [0.0] * total, list[str]()

    def one() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        while (number := next(numbers)) < total:
            time.sleep(max(0.0, start + number / rate - time.perf_counter()))
            try:
                connection.request("POST", *asked)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                wrong.append(f"{type(error).__name__}: {error}")
                return
            if response.status != http.client.OK:
                wrong.append(str(response.status))
            taken[number] = time.perf_counter() - start - number / rate
        connection.close()

    together(one, SENDERS)
    if wrong:
        raise RuntimeError(f"{wrong[0]} instead of an answer, {len(wrong)} times")
    return times(taken[int(rate * LEAD) :])


def measure(args: argparse.Namespace) -> list[str]:
    """The rows of the result, as Markdown."""
    found: dict[str, list[Times]] = {"network alone": [], "msresnet": []}
    with contestant("msresnet", args, args.batch) as server:
        batch = int(served(server.port)["batch_size"])
        predictor = opened(args.model, cores(), batch)
        preprocess = predictor.trained.preprocess
        asked = requests(predictor, photo(args.side), args.send, server.port)["msresnet"]
        load(server.port, asked, args.clients, args.seconds / 3)  # to warm up
        capacity, _ = load(server.port, asked, args.clients, args.seconds)
        rate = args.share * capacity
        for _ in range(args.rounds):
            with alone("", {"msresnet": server}):
                found["network alone"].append(by_itself(predictor, batch, rate, args.seconds))
            found["msresnet"].append(asked_evenly(server.port, asked, rate, args.seconds))
    rows = ["| | p50, ms | p99, ms | p99 / p50 of a round | of each round |", "|---|--:|--:|--:|---|"]
    for name, each in found.items():
        p50, p99, ratio = (statistics.median(column) for column in zip(*((*t, t.ratio) for t in each), strict=True))
        rows.append(f"| {name} | {p50:.1f} | {p99:.1f} | {ratio:.1f} | {', '.join(f'{t.ratio:.1f}' for t in each)} |")
    backend = predictor.backend
    return [
        *rows,
        "",
        f"{predictor.trained.architecture} at {preprocess.size[0]} pixels, {backend.name} in {backend.precision}; "
        f"JPEG of {args.side} pixels; {rate:.0f} images a second, {args.share:g} of {capacity:.0f}; medians of "
        f"{args.rounds} rounds of {args.seconds:g} s",
    ]


def main() -> None:
    """Measure and print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="an exported model or a bundle")
    parser.add_argument("--share", type=float, default=0.7, help="of what the server can")
    parser.add_argument("--clients", type=int, default=16, help="that find out what it can")
    parser.add_argument("--workers", type=int, help="default: what serve takes itself")
    parser.add_argument("--side", type=int, default=500, help="of the uploaded JPEG, in pixels")
    parser.add_argument("--batch", type=int, default=0, help="images at a time; 0: what the server finds itself")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each in a round")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    args.send = "photographs"
    publish("The slowest answers", measure(args), args.output)


if __name__ == "__main__":
    main()
