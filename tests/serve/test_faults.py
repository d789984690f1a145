"""What goes wrong while others ask: workers die, models are replaced, memory ends, the server is told to stop."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import hostile
from msresnet.bundle import load_bundle
from msresnet.infer.backends.graph import onnx_model
from msresnet.machine import cores
from serving import GOLDEN, SMALL, Serving, offline, picture, server, start
from sharding import make_model
from tiny import wait_for


class Load:
    """Clients that ask without a pause, and what they were told."""

    def __init__(self, serving: Serving, clients: int = 4) -> None:
        self.serving, self.stopping = serving, threading.Event()
        self.statuses: Counter[int] = Counter()
        self.answers: list[Any] = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def wait(self, more: int) -> None:
        """Wait until so many more have been answered."""
        before = len(self.answers)
        wait_for(lambda: len(self.answers) >= before + more)

    def _ask(self) -> None:
        with httpx.Client(base_url=self.serving.client.base_url, timeout=60, trust_env=False) as client:
            while not self.stopping.is_set():
                response = client.post("/predict", files={"image": ("x.png", GOLDEN)})
                with self.lock:
                    self.statuses[response.status_code] += 1
                    if response.status_code == 200:
                        self.answers.append(response.json()["result"])


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers otherwise."""
    folder = tmp_path_factory.mktemp("other")
    path = folder / "m.onnx"
    path.write_bytes(onnx_model(load_bundle(make_model(folder / "m", seed=5))).SerializeToString())
    return path


@pytest.mark.parametrize("way", ["asked", "watched"])
def test_F14_a_model_is_replaced_under_load(way: str, model: Path, other: Path, tmp_path: Path) -> None:
    """First by a damaged file, then by a good one: no request fails, and each answer is of one of the models."""
    path = tmp_path / "live.onnx"
    shutil.copy(model, path)
    old, new = (offline(source, [GOLDEN])[0] for source in (model, other))
    assert old != new
    words = ["--model", "m=live.onnx", *SMALL, *(["--reload"] if way == "watched" else [])]
    with server(tmp_path, *words) as serving, Load(serving) as load:
        load.wait(20)
        replace(path, other.read_bytes()[:-100])
        if way == "asked":
            assert serving.post("/v2/repository/models/m/load").status_code == 422
        wait_for(lambda: serving.counts().get("msresnet_model_loads_total{good=no}") == 1)
        load.wait(20)
        assert load.answers[-1] == old
        replace(path, other.read_bytes())
        if way == "asked":
            assert serving.post("/v2/repository/models/m/load").status_code == 200
        wait_for(lambda: serving.counts()["msresnet_model_loads_total{good=yes}"] == 2)
        load.wait(40)
        assert load.answers[-1] == new
        assert serving.get("/health").status_code == 200
        wait_for(lambda: len(serving.workers()) == 1)  # the old one has left
    assert set(load.statuses) == {200}
    assert all(answer in (old, new) for answer in load.answers)
    assert "the old one stays" in serving.text


def replace(path: Path, data: bytes) -> None:
    """Another file under the same name, in one step."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)


def test_F15_a_worker_is_killed_under_load(model: Path, golden: dict[str, Any], tmp_path: Path) -> None:
    """Only what it computed is lost, and another takes its place."""
    with server(tmp_path, "--model", str(model), *SMALL) as serving, Load(serving) as load:
        for kills in range(1, 4):
            load.wait(20)
            (worker,) = serving.workers()
            os.kill(worker, signal.SIGKILL)
            start = time.monotonic()
            load.wait(20)
            assert time.monotonic() - start < 5
            assert serving.counts()["msresnet_workers_replaced_total{}"] == kills
            assert serving.workers() != [worker]
    assert set(load.statuses) <= {200, 503}
    assert load.statuses[503] <= 3 * len(load.threads)
    assert all(answer == golden for answer in load.answers)


def test_F15_one_worker_of_two(model: Path, golden: dict[str, Any], tmp_path: Path) -> None:
    with server(tmp_path, "--model", str(model), *SMALL, "--workers", "2") as serving, Load(serving) as load:
        load.wait(10)
        first, second = serving.workers()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: "was replaced" in serving.text)
        load.wait(10)
        assert second in serving.workers()
        assert len(serving.workers()) == 2
    assert load.statuses[503] <= len(load.threads)
    assert all(answer == golden for answer in load.answers)


def test_F15_a_worker_that_hangs_is_none_that_answers(model: Path, tmp_path: Path) -> None:
    """Requests meet their deadline, and are told so."""
    with server(tmp_path, "--model", str(model), *SMALL, "--timeout", "1") as serving:
        (worker,) = serving.workers()
        os.kill(worker, signal.SIGSTOP)
        response = serving.predict(GOLDEN)
        assert response.status_code == 503
        assert "in time" in response.json()["error"]
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: serving.predict(GOLDEN).status_code == 200)


def test_a_worker_that_finds_another_model_is_not_mixed_with_the_old(
    model: Path, tmp_path: Path, golden: dict[str, Any]
) -> None:
    """The files were replaced without a word; when a worker dies, all of the server turns to the new model."""
    path = tmp_path / "m.onnx"
    shutil.copy(model, path)
    with server(tmp_path, "--model", "m.onnx", *SMALL) as serving:
        bundle = load_bundle(model.parent / "m")
        names = {"class_names": ["a", "b", "c"], "temperature": 2.0}
        task = type(bundle.task).from_dict(names)
        replace(path, onnx_model(type(bundle)(**vars(bundle) | {"task": task})).SerializeToString())
        assert serving.predict(GOLDEN).json()["result"] == golden
        os.kill(serving.workers()[0], signal.SIGKILL)
        wait_for(lambda: serving.get("/models").json()["models"][0]["class_names"] == ["a", "b", "c"])
        wait_for(lambda: serving.predict(GOLDEN).status_code == 200)
        assert serving.predict(GOLDEN).json()["result"]["label"] in "abc"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_F16_told_to_stop_under_load(
    number: signal.Signals, model: Path, golden: dict[str, Any], tmp_path: Path
) -> None:
    """What was accepted is answered, what comes later is told 503, and the end is an orderly one."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(GOLDEN)
    with server(tmp_path, "--model", str(model), *SMALL) as serving, contextlib.ExitStack() as stack:
        accepted = [connected(serving, stack) for _ in range(20)]
        for connection in accepted:
            connection.sendall(head + GOLDEN[:10])
        wait_for(lambda: serving.counts()["msresnet_requests_active{}"] == 21)
        idle = connected(serving, stack)
        serving.process.send_signal(number)
        wait_for(lambda: "requests are being finished" in serving.text)
        late = serving.predict(GOLDEN)
        assert late.status_code == 503
        assert late.headers["retry-after"]
        assert late.headers["connection"] == "close"
        assert serving.get("/v2/health/live").status_code == 200
        for connection in accepted:
            connection.sendall(GOLDEN[10:])
        for connection in accepted:
            answer = Serving.rest(connection)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["result"] == golden
        assert serving.process.wait(30) == 0
        assert idle.recv(10) == b""
        assert serving.workers() == [] if Path(f"/proc/{serving.process.pid}").exists() else True


def connected(serving: Serving, stack: contextlib.ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", serving.port), 60))


def test_F16_the_second_signal_does_not_wait(model: Path, tmp_path: Path) -> None:
    with server(tmp_path, "--model", str(model), *SMALL) as serving, contextlib.ExitStack() as stack:
        connected(serving, stack).sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        wait_for(lambda: serving.counts()["msresnet_requests_active{}"] == 2)
        serving.process.send_signal(signal.SIGTERM)
        wait_for(lambda: "requests are being finished" in serving.text)
        assert serving.stop() == 0


def test_workers_end_when_their_server_is_killed(model: Path, tmp_path: Path) -> None:
    serving = start(tmp_path, "--model", str(model), *SMALL)
    (worker,) = serving.workers()
    serving.process.kill()
    serving.process.wait(60)
    serving.client.close()
    wait_for(lambda: not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2])


@pytest.fixture
def starved(model: Path, tmp_path: Path) -> Iterator[Serving]:
    """A server that may take 300 MB of address space more than it does."""
    with server(tmp_path, "--model", str(model), *SMALL, "--max-body", "32") as serving:
        assert serving.predict(GOLDEN).status_code == 200
        status = Path(f"/proc/{serving.process.pid}/status").read_text()
        taken = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmSize")).split()[1])
        limit = taken + (100 << 20)
        resource.prlimit(serving.process.pid, resource.RLIMIT_AS, (limit, limit))
        yield serving


def test_F8_out_of_memory(starved: Serving, golden: dict[str, Any]) -> None:
    """Pictures that take more memory than there is are told so, with 503; small ones are answered as ever."""
    large = hostile.encode(hostile.random_pixels(2, 2, 3).repeat(3500, 0).repeat(3500, 1), "PNG", compress_level=1)
    for _ in range(3):
        response = starved.predict(large)
        assert response.status_code == 503
        assert "memory" in response.json()["error"]
        assert response.headers["retry-after"]
        assert starved.predict(GOLDEN).json()["result"] == golden


def test_by_itself_a_file_has_two_workers(model: Path, golden: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with server(tmp_path, "--model", str(model)) as serving:
        commands = [Path(f"/proc/{worker}/cmdline").read_text() for worker in serving.workers()]
        assert len(commands) == min(2, cores())
        # The first measures how many images at a time are fastest, the second knows it.
        assert ['"batch": null' in command for command in commands] == [True, False][: len(commands)]
        assert serving.predict(GOLDEN).json()["result"] == golden


def test_workers_zero_computes_in_the_server(model: Path, golden: dict[str, Any], tmp_path: Path) -> None:
    with server(tmp_path, "--model", str(model), *SMALL, "--workers", "0") as serving:
        assert serving.workers() == []
        assert serving.predict(GOLDEN).json()["result"] == golden
        assert serving.post("/v2/repository/models/m/load").status_code == 200
        assert serving.predict(GOLDEN).json()["result"] == golden
        with Load(serving) as load:
            load.wait(20)
        assert set(load.statuses) == {200}
        assert serving.stop() == 0


def test_a_bundle_and_a_file_side_by_side(bundle: Path, model: Path, tmp_path: Path) -> None:
    """Both give the answers that each gives offline; the first is asked where none is named."""
    words = ["--model", f"torch={bundle}", f"onnx={model}", *SMALL]
    with server(tmp_path, *words) as serving:
        files = [picture(seed) for seed in range(6)]
        for name, source in (("torch", bundle), ("onnx", model)):
            expected = offline(source, files)
            found = [serving.predict(data, params={"model": name}).json()["result"] for data in files]
            assert found == expected
        assert serving.predict(GOLDEN).json()["model"] == "torch"
        shown = {one["name"]: one for one in serving.get("/models").json()["models"]}
        assert shown["torch"]["can_explain"]
        assert not shown["onnx"]["can_explain"]
        assert list(shown) == ["torch", "onnx"]
