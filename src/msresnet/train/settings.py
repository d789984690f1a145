"""Single settings of a training, from text: their types, and the nearest name for a wrong one. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from msresnet.errors import UsageError, nearest
from msresnet.files import read_yaml
from msresnet.train.config import TrainConfig

ELSEWHERE = {
    "resume": "the same command goes on by itself",
    "exist_ok": "the same command goes on by itself; another --output starts over",
    "devices": "trainings follow each other in one process",
}
"""Settings of `train` that mean nothing where several trainings follow each other."""
OWN = ("output", "resume", "exist_ok", "seed")
"""What a verb that trains several times decides itself."""
DATA = (
    "data", "val_data", "test_data", "val_fraction", "test_fraction", "image_shape", "label_column", "on_bad",
)  # fmt: skip
"""What has to be the same for trainings that are compared."""


@cache
def kinds() -> dict[str, tuple[Any, ...]]:
    """The types that each setting may have, None left out."""
    return {field.name: _alternatives(_hints()[field.name]) for field in fields(TrainConfig)}


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(TrainConfig)


def known(name: str, where: str) -> None:
    """Raise UsageError, with the nearest, for a name that is not a setting."""
    if name not in kinds():
        close = nearest(name, kinds())
        raise UsageError(f"unknown setting {name!r}", where=where, hint=close or "msresnet train --help lists them")


def split_list(text: str) -> list[str]:
    """The values that commas separate; those within brackets stay together: operator=plain,widths=[32,64]."""
    return re.findall(r"(?:\[[^\]]*\]|[^,])+", text)


def from_text(name: str, text: str, where: str) -> Any:
    """The value of a setting; `changed` checks its bounds. Raises UsageError for an unknown name and a wrong type."""
    known(name, where)
    if text in ("none", "None") and NoneType in get_args(_hints()[name]):
        return None
    for kind in kinds()[name]:
        value = _converted(text, kind)
        if value is not None:
            return value
    usual = getattr(TrainConfig, name, None)  # what is worked out again each time has no value there
    hint = f"{name}={usual}" if usual not in (None, "", ()) else "msresnet train --help"
    raise UsageError(f"{name}={text}", where=where, why=f"it takes {_words(name)}", hint=hint)


def from_file(path: Path) -> dict[str, Any]:
    """The settings in a YAML file. Raises UsageError, naming the file and the key."""
    try:
        values = read_yaml(path)
    except OSError as error:
        why = error.strerror or ""
        raise UsageError(
            "cannot read the settings", where=str(path), why=why, hint="a YAML file: epochs: 10"
        ) from error
    if not isinstance(values, dict):
        raise UsageError("the file holds no settings", where=str(path), hint="lr: 0.01")
    settings = {}
    for key, value in values.items():
        known(str(key), str(path))
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        settings[str(key)] = None if value is None else from_text(str(key), text, str(path))
    return settings


def changed(base: TrainConfig, settings: dict[str, Any], where: str) -> TrainConfig:
    """Other values for some settings. Raises UsageError, saying where, when one is out of bounds or two disagree."""
    try:
        return replace(base, **settings)
    except UsageError as error:
        raise UsageError(error.what, where=error.where or where, why=error.why, hint=error.hint) from error


def common(config: TrainConfig, **changes: Any) -> TrainConfig:
    """The settings of `train` within those of a verb that takes them too, with some changes."""
    values = {field.name: getattr(config, field.name) for field in fields(TrainConfig)}
    return TrainConfig(**(values | changes))


@dataclass(frozen=True, kw_only=True)
class RepeatedConfig(TrainConfig):
    """The settings of all trainings of a verb that trains several times."""

    resume: bool = False
    """Not here: the same command goes on by itself."""
    exist_ok: bool = False
    """Not here: another --output starts over."""
    devices: str | None = None
    """Not here: trainings follow each other in one process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_elsewhere(self, ELSEWHERE)


def refuse_elsewhere(config: TrainConfig, elsewhere: dict[str, str]) -> None:
    """Raise UsageError, with the reason, for a setting of `train` that means nothing to another verb."""
    for field in fields(config):
        if field.name in elsewhere and getattr(config, field.name) != field.default:
            flag = field.name.replace("_", "-")
            raise UsageError(f"--{flag} has no effect here", why=elsewhere[field.name], hint="leave it out")


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union that are not None, literals first and text last: the narrowest that fits is taken."""
    members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    order = {Literal: 0, tuple: 1}
    return tuple(
        sorted((m for m in members if m is not NoneType), key=lambda m: order.get(get_origin(m), 2 + (m is str)))
    )


def _converted(text: str, kind: Any) -> Any:
    """A text as a type; None where it does not fit."""
    if get_origin(kind) is Literal:
        return next((choice for choice in get_args(kind) if str(choice) == text), None)
    if get_origin(kind) is tuple:
        parts = [_converted(part, get_args(kind)[0]) for part in split_list(text)]
        return None if None in parts else tuple(parts)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    try:
        return kind(text)
    except ValueError:
        return None


def _words(name: str) -> str:
    """What a setting takes."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    found = []
    for kind in kinds()[name]:
        if get_origin(kind) is Literal:
            found += [str(choice) for choice in get_args(kind)]
        elif get_origin(kind) is tuple:
            found.append(f"{names[get_args(kind)[0]]} or several, with commas")
        else:
            found.append(names[kind])
    return " or ".join(found)
