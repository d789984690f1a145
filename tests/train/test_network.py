"""Two hosts, as network namespaces joined by a cable: torchrun trains across it, and the cable is disturbed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from msresnet.train.checkpoint import checkpoints, newest_checkpoint
from peers import free_port
from tiny import losses, same, train_words, wait_for, weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HOSTS = ("msresnet-a", "msresnet-b")


def ip(*words: str, check: bool = True) -> int:
    return subprocess.run(["ip", *words], check=check, capture_output=True).returncode


@pytest.fixture
def hosts() -> Iterator[None]:
    """Two namespaces, 10.77.0.1 and 10.77.0.2, with an interface `cable` each."""
    if shutil.which("ip") is None or ip("netns", "add", HOSTS[0], check=False):
        pytest.skip("network namespaces need root and iproute2")
    try:
        ip("netns", "add", HOSTS[1])
        ip("link", "add", "cable", "netns", HOSTS[0], "type", "veth", "peer", "name", "cable", "netns", HOSTS[1])
        for number, host in enumerate(HOSTS, 1):
            ip("-n", host, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", host, "link", "set", "cable", "up")
            ip("-n", host, "link", "set", "lo", "up")
        yield
    finally:
        for host in HOSTS:
            ip("netns", "del", host, check=False)


@contextmanager
def nodes(words: list[str], here: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """torchrun on both hosts; each one's messages go to a file of its own."""
    port, running = free_port(), []
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"}
    for number, host in enumerate(HOSTS):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(number)]
        torchrun += ["--nproc-per-node", "1", "--master-addr", "10.77.0.1", "--master-port", str(port)]
        command = ["ip", "netns", "exec", host, *torchrun, "-m", "msresnet", *words]
        with (here / f"{host}.txt").open("wb") as log:
            running.append(subprocess.Popen(command, cwd=here, env=environment, stdout=log, stderr=log))
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


def ended(running: list[subprocess.Popen[bytes]], patience: float = 300) -> list[int]:
    return [process.wait(patience) for process in running]


def test_X2_two_hosts_train_what_one_trains(hosts: None, bars: Path, here: Path) -> None:
    words = train_words(bars, here / "two", "--sync-bn", "on", epochs=6)
    with nodes(words, here) as running:
        assert ended(running) == [0, 0], (here / f"{HOSTS[0]}.txt").read_text()
    with nodes(train_words(bars, here / "again", "--sync-bn", "on", epochs=6), here) as running:
        assert ended(running) == [0, 0]
    assert same(weights(here / "two"), weights(here / "again"))
    assert losses(here / "two") == losses(here / "again")


def test_X4_a_slow_and_lossy_link_only_takes_longer(hosts: None, bars: Path, here: Path) -> None:
    if shutil.which("tc") is None:
        pytest.skip("tc is not here")
    for host in HOSTS:
        delay = ["tc", "qdisc", "add", "dev", "cable", "root", "netem", "delay", "200ms", "loss", "5%"]
        if subprocess.run(["ip", "netns", "exec", host, *delay], check=False, capture_output=True).returncode:
            pytest.skip("the kernel has no netem")
    with nodes(train_words(bars, here / "run", "-q", epochs=1), here) as running:
        codes = ended(running, 550)
    assert set(codes) <= {0, 1}
    if codes != [0, 0]:
        said = (here / f"{HOSTS[0]}.txt").read_text() + (here / f"{HOSTS[1]}.txt").read_text()
        assert "another process of this training is gone" in said


def test_X4_a_link_down_for_a_minute(hosts: None, bars: Path, here: Path) -> None:
    with nodes(train_words(bars, here / "run", "-q", epochs=60), here) as running:
        wait_for(lambda: len(checkpoints(here / "run" / "checkpoint")) >= 2)
        ip("-n", HOSTS[0], "link", "set", "cable", "down")
        time.sleep(60)
        ip("-n", HOSTS[0], "link", "set", "cable", "up")
        codes = ended(running, 400)
    if codes != [0, 0]:
        said = (here / f"{HOSTS[0]}.txt").read_text() + (here / f"{HOSTS[1]}.txt").read_text()
        assert "another process of this training is gone" in said
    assert newest_checkpoint(here / "run" / "checkpoint")[2] == []
