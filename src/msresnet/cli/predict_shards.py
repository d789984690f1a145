"""`msresnet predict SHARD... --output FOLDER`."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from msresnet.bundle import load_bundle
from msresnet.cli.main import Common
from msresnet.cli.screen import Screen
from msresnet.data.decode import printable
from msresnet.errors import DataError
from msresnet.infer.backends.artefact import find_file
from msresnet.infer.config import PredictConfig
from msresnet.infer.inputs import standard_input
from msresnet.infer.sharded import Outcome, Tally, Worker, beginning, work
from msresnet.infer.shards import find_shards
from msresnet.runtime import stop_on_signals

SHOWN = 20


def answer_shards(config: PredictConfig, common: Common) -> int:
    """Write a file of answers for each shard; the exit code is 3 when a shard cannot be read."""
    assert config.output is not None
    screen, start = Screen(common), time.perf_counter()
    shards = beginning(find_shards(config.inputs, standard_input()), os.environ)
    device = _device(config.device, torch.cuda.device_count())
    config = replace(config, output=str(Path(config.output).absolute()), device=device)

    def note(outcome: Outcome, tally: Tally) -> None:
        screen.note(_line(outcome, tally, len(shards)))

    file = find_file(config.model)
    given = load_bundle(config.model) if file is None else file.absolute()
    if config.engine == "ray":
        from msresnet.infer.on_ray import work_on_ray

        tally = work_on_ray(given, config, shards, note)
    else:
        with stop_on_signals() as stop:
            tally = work(Worker(given, config, stop), shards, note)
    screen.note(summary(tally, time.perf_counter() - start), "bold")
    failed = tally.of("failed")
    for outcome in failed[:SHOWN]:
        print(f"error: {printable(outcome.shard)}: {outcome.error}", file=sys.stderr)
    if len(failed) > SHOWN:
        print(f"error: and {len(failed) - SHOWN:,} more shards cannot be read", file=sys.stderr)
    return DataError.exit_code if failed else 0


def summary(tally: Tally, seconds: float) -> str:
    """What is there now, in a line."""
    answered = tally.of("answered")
    images = sum(outcome.images for outcome in answered)
    parts = [f"{tally.finished:,} of {len(tally.outcomes):,} shards are whole"]
    parts += [f"{tally.images:,} images" + (f", {tally.unreadable:,} unreadable" if tally.unreadable else "")]
    parts += [f"{len(answered):,} shards, {images:,} images now in {seconds:,.1f} s"]
    parts += [f"{len(busy):,} are with other processes" for busy in [tally.of("busy")] if busy]
    parts += [f"{len(failed):,} cannot be read" for failed in [tally.of("failed")] if failed]
    return "; ".join(parts)


def _line(outcome: Outcome, tally: Tally, total: int) -> str:
    if outcome.state == "failed":
        return f"{printable(outcome.shard)}: cannot be read"
    bad = f", {outcome.unreadable:,} unreadable" if outcome.unreadable else ""
    return f"{printable(outcome.shard)}: {outcome.images:,} images{bad}  ({tally.finished:,} of {total:,} shards)"


def _device(asked: str, gpus: int) -> str:
    """With a launcher that starts a process for each GPU, each takes its own."""
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
    return f"cuda:{int(local) % gpus}" if asked == "auto" and gpus > 1 and local.isdecimal() else asked
