"""`msresnet VERB ...`: find the verb, run it, turn errors into messages and exit codes."""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import traceback
from dataclasses import dataclass
from types import FrameType

from msresnet.errors import Interrupted, MsresnetError, UsageError, nearest

VERBS = {
    "demo": "train, measure, predict and explain on embedded digits, in under a minute",
    "train": "train a classifier, segmenter or detector on your images",
    "evaluate": "measure a trained model on labelled images",
    "predict": "say what is on images",
    "track": "follow the objects in a video, or measure on labelled ones how well that goes",
    "explain": "show where, and at which scale, a model finds its answer",
    "compare": "train several ways at an equal budget, and say which is better by more than chance",
    "tune": "search for the settings that train best",
    "compress": "make a model smaller and faster, and measure what that costs",
    "export": "write a model for ONNX Runtime, OpenVINO, Triton and others, and prove that it answers the same",
    "benchmark": "measure speed, memory and accuracy by every backend and precision",
    "data": "look at data as the network sees it, check it, pack it (data show, check, pack)",
    "models": "list the networks, with parameters and operations",
    "serve": "answer over HTTP: a page for people, an API for programs",
    "doctor": "check this installation and machine",
}
ALIASES = dict.fromkeys(("val", "validate", "eval", "test"), "evaluate") | {"fit": "train", "infer": "predict"}
INTERRUPTED, RESOURCE, BUG, USAGE = 130, 5, 1, 2


@dataclass(frozen=True)
class Common:
    """Switches that every verb takes."""

    debug: bool = False
    quiet: bool = False
    print_config: bool = False
    config: str | None = None

    @property
    def given(self) -> list[str]:
        """The words that name the settings file, for the command that reproduces a run."""
        return [] if self.config is None else ["--config", self.config]


def entry() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())


def _terminated(number: int, frame: FrameType | None) -> None:
    """Leave as after Ctrl-C: what is half written is removed, what was started is ended. The second leaves at once."""
    signal.signal(number, signal.SIG_DFL)
    sys.exit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    common = Common(debug="--debug" in words)
    try:
        common, words = split_common(words)
        code = _dispatch(words, common)
        sys.stdout.flush()  # what cannot be written is told here, not while Python shuts down
        return code
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else USAGE
    except BaseException as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # say nothing more
            return 0
        if common.debug:
            traceback.print_exc()
        return _explain(error)


def split_common(words: list[str]) -> tuple[Common, list[str]]:
    """The common switches, wherever they stand, and the other words. Raises UsageError for --config without a file."""
    switches = {"--debug": "debug", "-q": "quiet", "--quiet": "quiet", "--print-config": "print_config"}
    found: dict[str, bool] = {}
    rest: list[str] = []
    config: str | None = None
    iterator = iter(words)
    for word in iterator:
        if word in switches:
            found[switches[word]] = True
        elif word == "--config":
            config = next(iterator, None)
            if config is None:
                raise UsageError("--config needs a file", hint="--config train.yaml")
        elif word.startswith(("--config=", "config=")):
            config = word.partition("=")[2]
        else:
            rest.append(word)
    return Common(**found, config=config), rest


def _dispatch(words: list[str], common: Common) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else USAGE
    if words[0] in ("--version", "version"):
        from importlib import metadata

        print(metadata.version("msresnet"))
        return 0
    verb = ALIASES.get(words[0], words[0])
    if verb not in VERBS:
        raise UsageError(f"unknown verb {words[0]!r}", hint=nearest(verb, [*VERBS, *ALIASES]) or "msresnet --help")
    module = importlib.import_module(f"msresnet.cli.{verb}")
    return int(module.main(words[1:], common))


def _reader_left() -> bool:
    """Whether nobody reads standard output any more: of a broken pipe, whether it is that one."""
    try:
        output = sys.stdout.fileno()
    except ValueError:  # it is no file
        return False
    watched = select.poll()
    watched.register(output, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in watched.poll(0))


def _explain(error: BaseException) -> int:
    if isinstance(error, MsresnetError):
        process = f"process {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
        print(process + (str(error) if isinstance(error, Interrupted) else f"error: {error}"), file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, MemoryError) or "not enough memory" in str(error) or "out of memory" in str(error):
        print("error: not enough memory\n  try: a smaller --batch-size or --image-size", file=sys.stderr)
        return RESOURCE
    if isinstance(error, OSError):
        where = f"\n  where: {error.filename}" if error.filename else ""
        print(f"error: the system refused: {error.strerror or error}{where}", file=sys.stderr)
        return RESOURCE
    print(f"error: a bug in msresnet: {type(error).__name__}: {error}\n  try: --debug shows where", file=sys.stderr)
    return BUG


def _help() -> str:
    rows = "\n".join(f"  {verb:<10}{text}" for verb, text in VERBS.items())
    return f"""usage: msresnet VERB [OPTIONS]

Image recognisers built on multi-scale ResNets.

{rows}

Every verb takes --help, --config FILE, --print-config, -q and --debug; --epochs 10 and epochs=10 are the same.
Begin with: msresnet demo"""
