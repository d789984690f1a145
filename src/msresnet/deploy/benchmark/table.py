"""What a benchmark found, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msresnet.deploy.benchmark.run import Measured
from msresnet.tasks.words import interval, percent

COLUMNS = (
    "model", "backend", "device", "precision", "batch", "images_per_second", "p50_ms", "p95_ms", "p99_ms", "start_s",
    "memory_mib", "share_of_peak", "metric", "score", "score_low", "score_high",
)  # fmt: skip


def rows(found: Sequence[Measured], batches: Sequence[int], peaks: dict[str, float]) -> list[dict[str, Any]]:
    """A row of plain values for each contestant and batch; None where something was not measured."""
    table = []
    for each in found:
        for batch in batches:
            p50, p95, p99 = (1000 * each.latency(batch, share) for share in (0.5, 0.95, 0.99))
            share = each.reached(batch, peaks)
            speed = {
                "images_per_second": round(each.rate(batch), 2),
                "p50_ms": round(p50, 3),
                "p95_ms": round(p95, 3),
                "p99_ms": round(p99, 3),
                "start_s": round(each.start, 3),
                "memory_mib": round(each.memory / 2**20, 1),
                "share_of_peak": None if share is None else round(share, 4),
            }
            who = {"model": each.contestant.model, "backend": each.contestant.way}
            who |= {name: each.known[name] for name in ("device", "precision")}
            empty = dict.fromkeys(COLUMNS[-4:])
            table.append({**who, "batch": batch, **speed, **empty, **each.figures})
    return table


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """A row for people."""
    share = "" if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.0f} %"
    score = ""
    if row["score"] is not None:
        score = percent(row["score"])
        if row["score_low"] is not None:  # the AP of boxes has no interval
            score += f" ({interval((row['score_low'], row['score_high']), unit='')})"
    return (
        row["model"],
        row["backend"] if row["device"] == "cpu" else f"{row['backend']} ({row['device']})",
        str(row["batch"]),
        f"{row['images_per_second']:,.1f}",
        *(f"{row[name]:,.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
        f"{row['start_s']:.1f}",
        f"{row['memory_mib']:,.0f}",
        share,
        score,
    )


HEADS = ("model", "backend", "batch", "images/s", "p50 ms", "p95 ms", "p99 ms", "start s", "MiB", "of peak", "score")
