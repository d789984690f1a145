"""`msresnet predict`."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from msresnet.cli.layers import Parsed, parse
from msresnet.cli.main import Common
from msresnet.errors import DataError, UsageError
from msresnet.infer.config import PredictConfig, interval, which_run
from msresnet.run_folder import LATEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from msresnet.infer.inputs import Input

TILE = "--tile"


def main(words: list[str], common: Common) -> int:
    """Print the answer for each image; unreadable ones are named on standard error, and the exit code is then 3."""
    config = parse("predict", PredictConfig, _with_side(words), common, settled=_with_model).config
    if not common.quiet:
        for line in which_run(config.model):
            print(f"· {line}", file=sys.stderr)
    if config.place == "folder":
        from msresnet.cli.predict_shards import answer_shards

        return answer_shards(config, common)
    if config.tile is not None:
        from msresnet.cli.predict_tiles import answer_tiles

        return answer_tiles(config, common, inputs_of(config))
    return _answer(config, common)


def _with_model(parsed: Parsed[PredictConfig]) -> Parsed[PredictConfig]:
    """`predict model.onnx cat.jpg`: a model in the first place is the model."""
    from msresnet.infer.backends.artefact import is_model

    config = parsed.config
    if config.model != LATEST or not config.inputs or not is_model(config.inputs[0]):
        return parsed
    found = replace(config, model=config.inputs[0], inputs=config.inputs[1:])
    return Parsed(found, parsed.origin | {"model": parsed.origin["inputs"]})


def _with_side(words: list[str]) -> list[str]:
    """`--tile` without a side means the one that the network takes."""
    spelled: list[str] = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        bare = word == TILE and not (following.isdecimal() or following in ("auto", "None"))
        spelled += [TILE, "auto"] if bare else [word]
    return spelled


def inputs_of(config: PredictConfig) -> Iterator[Input]:
    """The images that are meant."""
    from msresnet.infer.backends.artefact import refuse_models
    from msresnet.infer.inputs import Allowed, expand, may_move, standard_input

    refuse_models(config.inputs)
    if config.every is not None and not any(map(may_move, config.inputs)):
        raise UsageError("--every has no effect here", why="it is for videos and cameras", hint="leave it out")
    every = Allowed.every if config.every is None else interval(config.every)
    return expand(config.inputs, standard_input(), Allowed(config.allow_urls, every))


def _answer(config: PredictConfig, common: Common) -> int:
    from msresnet.cli.printed import open_writer
    from msresnet.infer.answers import columns
    from msresnet.infer.backends.opened import open_predictor
    from msresnet.infer.stream import answer_all

    live = _is_live(config.inputs)
    size, workers = (1, 0) if live else (config.batch_size, config.workers)
    inputs = inputs_of(config)
    predictor = open_predictor(config.model, replace(config, batch_size=size))
    if not common.quiet:
        print(f"· {predictor.backend.reason}", file=sys.stderr)
    if config.score is not None:
        predictor = predictor.from_score(config.score)
    failures, left = 0, Counter[int]()
    with ExitStack() as stack:
        names = columns(predictor.trained.postprocess, exits=config.budget is not None)
        write = stack.enter_context(open_writer(config, names))
        for part in answer_all(predictor, inputs, workers, previews=config.save_images is not None):
            rows = [] if part.results is None else part.results.to_dict(config.top)
            left.update(row["exit"] for row in rows if "exit" in row)
            write.add_batch(rows, part.errors)
            if part.results is not None:
                write.show(part.results, part.previews)
            for error in part.bad:
                print(f"error: {error}", file=sys.stderr)
            failures += len(part.bad)
            if live:
                sys.stdout.flush()
    if predictor.backend.early is not None and not common.quiet:
        print(f"· {predictor.backend.early}{_shares(left)}", file=sys.stderr)
    return DataError.exit_code if failures else 0


def _is_live(inputs: Sequence[str]) -> bool:
    """Whether images come as time goes by, so that each is answered at once."""
    from msresnet.infer.video import CAMERA

    return any(CAMERA.fullmatch(text) for text in inputs)


def _shares(left: Counter[int]) -> str:
    """How many images each exit answered, in words."""
    return "".join(f"; {left[index]:,} at exit {index}" for index in sorted(left))
