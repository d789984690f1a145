"""`msresnet predict`."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from typing import Any

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import DataError
from msresnet.infer.config import PredictConfig, budget


def main(words: list[str], common: Common) -> int:
    """Print the answer for each image; unreadable ones are named on standard error, and the exit code is then 3."""
    parsed = parse("predict", PredictConfig, words, common.config)
    config = parsed.config
    if common.print_config:
        print(parsed.table())
        return 0
    if config.output is not None:
        from msresnet.cli.predict_shards import answer_shards

        return answer_shards(config, common)
    from msresnet.bundle import load_bundle
    from msresnet.infer.inputs import expand
    from msresnet.infer.predictor import Predictor, decode_all

    limit = None if config.budget is None else budget(config.budget)
    predictor = Predictor(load_bundle(config.model), config.device, config.batch_size, limit, config.tta)
    images = decode_all(expand(config.inputs, sys.stdin.buffer), predictor.bundle.preprocess, config.workers)
    write = _Writer(config.format or "table", config.top, exits=limit is not None)
    failures, left = 0, Counter[int]()
    for results, bad in predictor.predict_stream(images):
        if results is not None:
            left.update(() if results.exits is None else (int(e) + 1 for e in results.exits))
            write.rows(results.to_dict(config.top))
        for error in bad:
            print(f"error: {error}", file=sys.stderr)
        failures += len(bad)
    write.end()
    if predictor.early is not None and not common.quiet:
        print(f"· {predictor.early.reason}{_shares(left)}", file=sys.stderr)
    return DataError.exit_code if failures else 0


def _shares(left: Counter[int]) -> str:
    """How many images each exit answered, in words."""
    return "".join(f"; {left[index]:,} at exit {index}" for index in sorted(left))


class _Writer:
    """Answers on standard output, in one of the formats, as they come."""

    def __init__(self, form: str, top: int, exits: bool) -> None:
        self.form, self.top, self.exits = form, top, exits
        self.kept: list[dict[str, Any]] = []
        if form == "csv":
            self.csv = csv.writer(sys.stdout, lineterminator="\n")
            self.csv.writerow(["id", "label", "probability", *(["exit"] if exits else [])])

    def rows(self, items: list[dict[str, Any]]) -> None:
        """Print what can be printed now."""
        from msresnet.data.decode import printable
        from msresnet.infer.answers import csv_cells

        for item in items:
            if self.form == "jsonl":
                print(json.dumps(item, ensure_ascii=True))
            elif self.form == "csv":
                self.csv.writerow(csv_cells(item, self.exits))
            elif self.form == "json":
                self.kept.append(item)
            else:
                others = ", ".join(f"{t['label']} {t['probability']:.4f}" for t in item["top"][1 : min(3, self.top)])
                answer = f"{printable(item['id'])}: {item['label']} {item['probability']:.4f}"
                left = f"  at exit {item['exit']}" if self.exits else ""
                print(answer + (f"  ({others})" if others else "") + left)

    def end(self) -> None:
        """Print what had to wait for the end."""
        if self.form == "json":
            print(json.dumps(self.kept, indent=2, ensure_ascii=True))
