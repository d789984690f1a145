"""What a search may vary, from what people type: lr=1e-4:1e-1:log, epochs=5:20:5, model=resnet18,msresnet18."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msresnet.errors import UsageError
from msresnet.train.config import TrainConfig
from msresnet.train.settings import DATA, OWN, changed, from_text, kinds, known, split_list

ARGUMENT = "model_args."
FIXED = (*OWN, *DATA, "recipe", "time_limit", "operations", "device", "devices", "workers", "tracker", "shard")
"""What is the same for all trials."""
SPELLING = "lr=1e-4:1e-1:log, weight_decay=0:0.1, epochs=5:20:5, model=resnet18,msresnet18"
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included; whole ones if both ends and the step are."""

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[Value, ...]:
        """What is checked before anything trains."""
        return self.low, self.high


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    name: str
    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """What is checked before anything trains."""
        return self.values


Dimension = Range | Choice


def varies(word: str) -> bool:
    """Whether a word `name=value` of the command line is a range or a list of values, and no single value."""
    name, equals, value = word.partition("=")
    if not equals or word.startswith("-") or name in FIXED:
        return False
    return "," in value or (":" in value and _numeric(name))


def read_space(words: Sequence[str], fixed: TrainConfig) -> tuple[Dimension, ...]:
    """The dimensions of a search. Raises UsageError, naming the word, for what cannot be searched."""
    if not words:
        raise UsageError("there is nothing to search", hint=f"msresnet tune {SPELLING}")
    space = tuple(_dimension(word) for word in words)
    names = [dimension.name for dimension in space]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{twice} is given twice", where=" ".join(words), hint="leave one of them out")
    first = {dimension.name: dimension.ends[0] for dimension in space}
    for word, dimension in zip(words, space, strict=True):
        for end in dimension.ends:
            with_settings(fixed, first | {dimension.name: end}, word)
    return space


def with_settings(fixed: TrainConfig, chosen: dict[str, Any], where: str = "") -> TrainConfig:
    """The training of a trial: the fixed settings with what was chosen. Raises UsageError for what is out of bounds."""
    arguments = {name.removeprefix(ARGUMENT): v for name, v in chosen.items() if name.startswith(ARGUMENT)}
    settings = {name: _as_held(name, value) for name, value in chosen.items() if not name.startswith(ARGUMENT)}
    if arguments:
        kept = [text for text in fixed.model_args if text.partition("=")[0] not in arguments]
        settings["model_args"] = (*kept, *(f"{name}={_text(value)}" for name, value in arguments.items()))
    return changed(fixed, settings, where)


def _dimension(word: str) -> Dimension:
    name, equals, value = word.partition("=")
    if not equals or not value:
        raise UsageError(f"{word!r} is not a range", hint=SPELLING)
    if not name.startswith(ARGUMENT):
        known(name, word)
    if name in FIXED:
        raise UsageError(f"{name} is the same for all trials", where=word, hint=f"--{name.replace('_', '-')}")
    if name == "model_args":
        raise UsageError("arguments of the model vary one by one", where=word, hint=f"{ARGUMENT}operator=plain,res2net")
    if ":" in value and _numeric(name):
        return _range(name, value.split(":"), word)
    return Choice(name, tuple(_value(name, text, word) for text in split_list(value)))


def _range(name: str, parts: list[str], word: str) -> Range:
    if len(parts) not in (2, 3):
        raise UsageError(f"{word!r} is not a range", why="low:high, low:high:log or low:high:step", hint=SPELLING)
    low, high = (_number(name, text, word) for text in parts[:2])
    if low >= high:
        raise UsageError(f"{word!r} is not a range", why=f"{low} is not below {high}", hint=f"{name}={high}:{low}")
    extra = parts[2] if len(parts) > 2 else ""
    if extra == "log":
        if low <= 0:
            raise UsageError(
                f"{word!r} is not a range", why="a logarithm needs a low end above 0", hint=f"{name}=1e-4:{high}:log"
            )
        return Range(name, low, high, log=True)
    step = _number(name, extra, word) if extra else None
    if step is not None and not 0 < step <= high - low:
        raise UsageError(
            f"{word!r} is not a range", why=f"no step of {step} fits between {low} and {high}", hint=SPELLING
        )
    return Range(name, low, high, step=step)


def _number(name: str, text: str, word: str) -> float:
    """An end of a range or its step, whole where the setting is."""
    value = _plain(text) if name.startswith(ARGUMENT) else from_text(name, text, word)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(f"{text!r} is not a number", where=word, hint=SPELLING)
    return value


def _value(name: str, text: str, word: str) -> Value:
    if name.startswith(ARGUMENT):
        return _plain(text)
    value = from_text(name, text, word)
    return value[0] if isinstance(value, tuple) else value  # type: ignore[no-any-return]


def _numeric(name: str) -> bool:
    """Whether a setting takes numbers; arguments of models may, and no unknown name is taken for a text."""
    return name not in kinds() or bool({int, float} & set(kinds()[name]))


def _plain(text: str) -> Value:
    """A value of a model's argument."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _text(value: Value) -> str:
    """A value as `--model-args` takes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_held(name: str, value: Any) -> Any:
    """A chosen value as TrainConfig holds it: sizes of images are several numbers."""
    return (value,) if any(getattr(kind, "__origin__", None) is tuple for kind in kinds()[name]) else value
