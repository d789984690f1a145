"""More requests than one: what is asked together is answered as if it were asked alone, and too many are told so.

The short forms run always and look at answers alone; the long ones, which look at times, are for a machine that does
nothing else (`make soak`).
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile
from loading import Clients, closed_loop, drive, open_loop
from msresnet.bundle import Bundle
from msresnet.data.preprocess import Preprocess
from msresnet.infer.backends.graph import onnx_model
from msresnet.models.factory import create_classifier
from msresnet.tasks.classification import ClassificationTask
from randomise import randomised
from serving import SLOW_HEAD, Serving, crowd, dripping, offline, outputs, picture, pixels, server
from sharding import NAMES

EXACT = 1e-5
SOAK = float(os.environ.get("MSRESNET_SOAK_SECONDS", "60"))
"""Seconds of each long form."""
SOAKED = os.environ.get("MSRESNET_SOAK_MODEL")
"""An exported model to load in place of the tests' own."""
SIDE = int(os.environ.get("MSRESNET_SOAK_SIDE", "96"))
"""Pixels of the photographs, and of what the tests' own model sees."""


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes some milliseconds an image, so that the network is what holds a server back."""
    if SOAKED is not None:
        return Path(SOAKED)
    model = create_classifier("msresnet18", num_classes=3, in_chans=3, img_size=(SIDE, SIDE))
    randomised(model, 0)
    arguments = {"num_classes": 3, "in_chans": 3, "img_size": [SIDE, SIDE]}
    preprocess = Preprocess((SIDE, SIDE), 3, mean=(0.5,) * 3, std=(0.25,) * 3)
    path = tmp_path_factory.mktemp("heavy") / "m.onnx"
    bundle = Bundle(model, "msresnet18", arguments, ClassificationTask(NAMES), preprocess)
    path.write_bytes(onnx_model(bundle).SerializeToString())
    return path


@pytest.fixture(scope="module")
def busy(heavy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with server(tmp_path_factory.mktemp("busy"), "--model", str(heavy), "--body-timeout", "5") as running:
        yield running


def photo() -> bytes:
    return hostile.encode(hostile.random_pixels(SIDE, SIDE, 3), "JPEG")


def test_L6_together_is_as_alone(model: Path, serving: Serving) -> None:
    images = pixels(40)
    truth = outputs(model, images)

    async def work(clients: Clients) -> None:
        async def one(index: int) -> None:
            tensor: dict[str, Any] = {"name": "images", "datatype": "UINT8", "shape": [1, *images.shape[1:]]}
            tensor["data"] = images[index].ravel().tolist()
            body = json.dumps({"inputs": [tensor]}).encode()
            answer = await clients.post("/v2/models/m/infer", "application/json", body)
            found = {out["name"]: out["data"] for out in answer["outputs"]}
            np.testing.assert_allclose(found["outputs"], truth[index], atol=EXACT)

        await asyncio.gather(*(one(index) for index in range(len(images))))

    before = serving.counts()
    drive(serving, work)
    after = serving.counts()
    batches = after["msresnet_batch_images_count{}"] - before.get("msresnet_batch_images_count{}", 0)
    assert batches < len(images)  # some were computed together


def test_L5_bad_requests_among_good_ones(model: Path, serving: Serving) -> None:
    good = [picture(seed) for seed in range(90)]
    expected = [row["top"] for row in offline(model, good)]
    bad = [b"", b"no image", hostile.truncated_jpeg(), hostile.gif_bomb(), hostile.png_claiming(50_000, 50_000)] * 2

    async def work(clients: Clients) -> None:
        answers = await asyncio.gather(*(clients.predict(data) for data in mixed(good, bad)))
        assert [answer["result"]["top"] for answer in answers if "result" in answer] == expected

    told = drive(serving, work)
    assert sorted(set(told.statuses)) == [200, 400, 422]
    assert told.statuses.count(200) == len(good)


def mixed(good: list[bytes], bad: list[bytes]) -> list[bytes]:
    """A bad one after every nine good ones."""
    return [data for n, one in enumerate(bad) for data in (*good[9 * n : 9 * n + 9], one)]


def test_L2_too_much_at_once_is_told_so(busy: Serving) -> None:
    """Short: all at once; whoever is not answered is told when to come again, and afterwards all is as before."""

    async def work(clients: Clients) -> None:
        await asyncio.gather(*(clients.predict(photo()) for _ in range(600)))

    told = drive(busy, work)
    assert set(told.statuses) == {200, 503}
    assert told.statuses.count(200) >= 128  # as many as may be there at once
    busy.wait_idle()
    assert busy.post("/predict", content=photo()).status_code == 200


def test_L4_slow_clients_beside_others(busy: Serving) -> None:
    """Short: while 200 clients dawdle, the others are answered."""
    with crowd(busy, 200, SLOW_HEAD) as slow, dripping(slow, b"x"):
        told = closed_loop(busy, photo(), 1.0, count=4)
    assert set(told.statuses) == {200}


@pytest.mark.slow
@pytest.mark.timeout(10_000)
def test_L1_most_of_what_it_can(busy: Serving) -> None:
    capacity = closed_loop(busy, photo(), 10).rate
    told = open_loop(busy, photo(), 0.7 * capacity, SOAK)
    middle, slowest = told.percentile(0.5), told.percentile(0.99)
    print(f"{told.rate:.0f} answers a second of {capacity:.0f}, p50 {1e3 * middle:.1f} ms, p99 {1e3 * slowest:.1f} ms")
    assert set(told.statuses) == {200}
    assert slowest <= 3 * middle


@pytest.mark.slow
@pytest.mark.timeout(10_000)
def test_L2_three_times_what_it_can(busy: Serving) -> None:
    capacity = closed_loop(busy, photo(), 10).rate
    told = open_loop(busy, photo(), 3 * capacity, min(SOAK, 60))
    assert set(told.statuses) <= {200, 429, 503}
    assert told.rate >= 0.9 * capacity


@pytest.mark.slow
@pytest.mark.timeout(10_000)
def test_L3_an_hour(busy: Serving) -> None:
    """Memory, descriptors and threads of the server and its workers stay as they are after the warm-up."""
    closed_loop(busy, photo(), min(SOAK, 60))
    before = used(busy)
    closed_loop(busy, photo(), SOAK)
    after = used(busy)
    assert after["memory"] <= before["memory"] + (50 << 20)
    assert after["files"] <= before["files"] + 2
    assert after["threads"] <= before["threads"]


def used(serving: Serving) -> dict[str, int]:
    """Bytes, open files and threads of all processes of a server, once it is idle."""
    serving.wait_idle()
    time.sleep(2)  # connections of the clients end
    found = {"memory": 0, "files": 0, "threads": 0}
    for process in (serving.process.pid, *serving.workers()):
        place = Path(f"/proc/{process}")
        lines = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
        found["memory"] += 1024 * int(lines["VmRSS"].split()[0])
        found["threads"] += int(lines["Threads"])
        found["files"] += len(list((place / "fd").iterdir()))
    return found


@pytest.mark.slow
@pytest.mark.timeout(10_000)
def test_L4_slow_clients_cost_the_others_little(busy: Serving) -> None:
    capacity = closed_loop(busy, photo(), 10).rate
    alone = open_loop(busy, photo(), 0.5 * capacity, 20).percentile(0.99)
    beside = []
    for _ in range(3):
        with crowd(busy, 200, SLOW_HEAD) as slow, dripping(slow, b"x"):
            beside.append(open_loop(busy, photo(), 0.5 * capacity, 10).percentile(0.99))
    assert statistics.median(beside) <= 2 * alone
