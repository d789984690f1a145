"""`msresnet track`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msresnet.cli.layers import parse
from msresnet.cli.main import Common
from msresnet.errors import DataError, Interrupted, UsageError
from msresnet.infer.config import which_run
from msresnet.infer.gates import check_gates, judge, read_gates
from msresnet.infer.track_config import TrackConfig
from msresnet.run_folder import METRICS
from msresnet.tasks.words import percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from msresnet.cli.screen import Screen
    from msresnet.infer.predictor import Predictor
    from msresnet.infer.tracking import Answer
    from msresnet.results import Tracks
    from msresnet.track.association import Rules
    from msresnet.track.figures import Figures

EMBEDDED = "digit-videos"
GATES: dict[str, Literal["higher", "lower"]] = {
    "hota": "higher", "deta": "higher", "assa": "higher", "mota": "higher", "idf1": "higher", "id_switches": "lower",
}  # fmt: skip
SHARES = {"hota": "HOTA", "deta": "DetA", "assa": "AssA", "mota": "MOTA", "idf1": "IDF1"}
COUNTS = {"id_switches": "switches", "missed": "missed", "wrong": "wrong"}


def main(words: list[str], common: Common) -> int:
    """Follow what is in a video and print it frame by frame, or measure on labelled videos and print the figures."""
    config = parse("track", TrackConfig, _named(words), common).config
    gates = read_gates(config.fail_under)
    check_gates(gates, GATES, ())
    from msresnet.cli.screen import Screen

    screen = Screen(common)
    if config.input is not None:
        return _follow(config, config.input, screen)
    judge(gates, GATES, _measure(config, screen))
    return 0


def _named(words: list[str]) -> list[str]:
    """The embedded videos in the first place are labelled videos, not a file."""
    return ["--data", *words] if words and words[0] == EMBEDDED else words


def _opened(config: TrackConfig, screen: Screen, live: bool = False) -> tuple[Predictor, Rules]:
    """The model at work, and how its boxes are joined."""
    from msresnet.infer.tracking import opened, rules_of

    screen.notes(which_run(config.model))
    how = replace(config, batch_size=1) if live else config
    predictor, looks = opened(config.model, how, config.appearance)
    if config.score is not None:
        predictor = predictor.from_score(config.score)
    rules = rules_of(config, predictor, looks)
    scores = f"a score of {rules.sure:g}" + (f", new ones of {rules.begins:g}" if rules.begins > rules.sure else "")
    screen.notes([f"{rules.tracker}, objects from {scores}, kept for {rules.keep} frames"])
    return predictor, rules


def _follow(config: TrackConfig, text: str, screen: Screen) -> int:
    """One video, to its end or until somebody stops it."""
    from msresnet.cli.track_written import open_sinks
    from msresnet.infer.moving import frames_of
    from msresnet.infer.tracking import follow
    from msresnet.infer.video import CAMERA
    from msresnet.runtime import stop_on_signals

    _check_apart(config, text)
    live = CAMERA.fullmatch(text) is not None
    count, highest, failures = 0, 0, 0
    given = frames_of(text)  # what is not there is told before a model is opened
    predictor, rules = _opened(config, screen, live)
    with stop_on_signals() as stop, open_sinks(config, live) as sinks:
        for item in _each(follow(given, predictor, rules)):
            error = item if isinstance(item, DataError) else item.frame.error
            if error is not None:
                print(f"error: {error}", file=sys.stderr)
                failures += 1
            if not isinstance(item, DataError):
                count += 1
                highest = max(highest, int(item.tracks.track_ids[0].max(initial=0)))
                for sink in sinks:
                    sink.add(item, count)
            if stop.code:
                break
    screen.note(f"{highest:,} objects in {count:,} frames", "bold")
    if stop.code:
        raise Interrupted("stopped by a signal; what was answered is written", exit_code=stop.code)
    return DataError.exit_code if failures else 0


def _check_apart(config: TrackConfig, text: str) -> None:
    """Raise UsageError for answers in the place of what is followed, or among its frames."""
    from msresnet.data.sources.mot import IMAGES

    given = Path(text).resolve()
    places = (("output", config.output), ("save-video", config.save_video), ("save-images", config.save_images))
    for name, place in places:
        taken = (given, given / IMAGES) if name == "save-images" else (given,)
        if place is not None and Path(place).resolve() in taken:
            raise _same_place(name, place, "what is followed stays as it is")


def _same_place(name: str, place: str, why: str) -> UsageError:
    return UsageError(f"--{name} is the place of the input", where=place, why=why, hint=f"--{name} elsewhere")


def _each(answers: Iterator[Answer]) -> Iterator[Answer | DataError]:
    """The answers, and in the end the error that breaks them off, if one does."""
    try:
        yield from answers
    except DataError as error:
        yield error


def _measure(config: TrackConfig, screen: Screen) -> dict[str, Any]:
    """Labelled videos: their figures, printed and written."""
    from msresnet.data.options import DataOptions
    from msresnet.infer.evaluate import pick
    from msresnet.infer.tracking import measure, measure_files, videos_of
    from msresnet.train.run_data import sets_of

    sets, notes = sets_of(config.model, config.data, DataOptions())
    split, source = pick(sets, config.split)
    _check_output(config, [f"{name}.txt" for name in videos_of(source)])
    screen.notes([*notes, f"measuring on the {split} set"])
    metrics: dict[str, Any] = {"task": "tracking", "split": split, "n": len(source)}
    if config.answers is not None:
        tracks, found = measure_files(source, Path(config.answers))
    else:
        predictor, rules = _opened(config, screen)
        metrics |= {"tracker": rules.tracker, "appearance": rules.appearance, "score": rules.sure, "keep": rules.keep}
        tracks, found = measure(source, predictor, rules)
    metrics |= {**found.total, "videos": found.each}
    if config.output is not None:
        _write(Path(config.output), tracks, metrics)
    _print(config, found, metrics, screen)
    return metrics


def _check_output(config: TrackConfig, names: Sequence[str]) -> None:
    """Raise UsageError for a folder that cannot be written to or holds other files, before anything is measured."""
    from msresnet.files import check_free, check_output

    if config.output is not None:
        if config.answers is not None and Path(config.output).resolve() == Path(config.answers).resolve():
            raise _same_place("output", config.output, "what is measured stays as it is")
        check_free(Path(config.output), ours=(METRICS, *names))
        check_output(Path(config.output), folder=True)


def _write(folder: Path, tracks: dict[str, Tracks], metrics: dict[str, Any]) -> None:
    from msresnet.files import write_json, write_text

    for name, answer in tracks.items():
        write_text(folder / f"{name}.txt", answer.to_mot())
    write_json(folder / METRICS, metrics)


def _print(config: TrackConfig, found: Figures, metrics: dict[str, Any], screen: Screen) -> None:
    """The figures, on standard output."""
    if config.format == "json":
        print(json.dumps(metrics, indent=2, ensure_ascii=False))
        return
    several = {"all": found.total} if len(found.each) > 1 else {}
    rows = [
        (name, *(percent(part[key]) for key in SHARES), *(f"{part[key]:,}" for key in COUNTS))
        for name, part in (found.each | several).items()
    ]
    screen.columns(("video", *SHARES.values(), *COUNTS.values()), rows, ("video",))
