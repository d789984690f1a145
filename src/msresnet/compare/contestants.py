"""Contestants from what people type: [NAME:] [MODEL, RECIPE or FILE] [setting=value ...]; `NAME:` alone is as it is."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from msresnet.compare.config import BUDGET, CompareConfig
from msresnet.errors import UsageError, nearest
from msresnet.models.factory import MODELS
from msresnet.train.config import TrainConfig
from msresnet.train.recipes import RECIPES
from msresnet.train.settings import DATA, OWN, changed, common, from_file, from_text, known

SPELLING = "resnet18, 'resnet18 lr=0.01', or 'wide: model=msresnet18 model_args=operator=res2net'"
LONGEST_SLUG = 100
"""Characters: with what is added, a file's name that any file system takes."""


@dataclass(frozen=True)
class Contestant:
    """One way to train.

    Args:
        name: what it is called in tables.
        config: all its settings, those of the first seed.
        words: what it says beyond what is the same for all.
        notes: what was left out of a file, or said otherwise for all.
    """

    name: str
    config: TrainConfig
    words: str
    notes: list[str] = field(default_factory=list)

    @property
    def slug(self) -> str:
        """Its name as part of a file's name; of a long one the beginning, and a digest of it all."""
        slug = re.sub(r"[^A-Za-z0-9._+-]+", "-", self.name).strip("-.") or "contestant"
        if len(slug) <= LONGEST_SLUG:
            return slug
        return f"{slug[:LONGEST_SLUG]}-{hashlib.sha256(self.name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def contestants(config: CompareConfig) -> list[Contestant]:
    """All contestants of a comparison, ready to train. Raises UsageError, naming the one that cannot be used."""
    base = common(config, output=None, **config.budget)
    found = [_contestant(text, base) for text in config.contestants]
    if not found:
        raise UsageError("there is nobody to compare", hint=f"msresnet compare {SPELLING}")
    for kind in ("name", "slug"):
        names = [getattr(contestant, kind) for contestant in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UsageError(f"two contestants are called {twice!r}", hint="give one a name: 'other: ...'")
    if config.baseline is not None and config.baseline not in (names := [c.name for c in found]):
        raise UsageError(f"--baseline {config.baseline!r} is not a contestant", hint=nearest(config.baseline, names))
    return found


def _contestant(text: str, base: TrainConfig) -> Contestant:
    name, rest = _named(text)
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise UsageError("a contestant cannot be read", where=text, why=str(error), hint=SPELLING) from error
    if not words and not name:
        raise UsageError("a contestant says nothing", where=repr(text), hint=SPELLING)
    settings: dict[str, Any] = {}
    notes: list[str] = []
    if words and "=" not in words[0]:
        settings, notes = _foundation(words[0], base)
        name = name or " ".join([_short(words[0]), *words[1:]])
        words = words[1:]
    if not name:
        raise UsageError("a contestant has no name", where=text, hint=f"'NAME: {text}'")
    settings |= _typed(words, text, base)
    config = changed(base, settings, text)
    if config.model != "auto":
        MODELS[config.model]
    said = {key: value for key, value in settings.items() if getattr(base, key) not in (value, _default(key))}
    notes += [f"{key} {value} in place of {getattr(base, key)}" for key, value in said.items()]
    words = [f"{key}={','.join(map(str, v)) if isinstance(v, tuple) else v}" for key, v in settings.items()]
    return Contestant(name, config, " ".join(words), [f"{name}: {note}" for note in notes])


def _named(text: str) -> tuple[str, str]:
    """The name before a colon, and the rest; a colon behind an equals sign belongs to a value."""
    found = re.match(r"\s*([^:=]+):(.*)", text, re.DOTALL)
    name = found[1].strip() if found else ""
    if found and not (name and name.isprintable()):
        raise UsageError("a contestant's name cannot be printed", where=repr(text), hint=SPELLING)
    return name, found[2] if found else text


def _foundation(word: str, base: TrainConfig) -> tuple[dict[str, Any], list[str]]:
    """What a first word without an equals sign stands for: a model, a recipe, or a file of settings."""
    if word in MODELS:
        return {"model": word}, []
    if word in RECIPES:
        held_out = {key: RECIPES[word].settings[key] for key in DATA if key in RECIPES[word].settings}
        rest = {key: value for key, value in RECIPES[word].settings.items() if key not in DATA}
        settings, notes = _from_others(rest, base, f"the recipe {word}")
        # What a recipe holds out is for its own use; who compares needs the same images for all.
        return settings, notes + (
            [f"{', '.join(held_out)} of the recipe {word} left to the comparison"] if held_out else []
        )
    if Path(word).suffix in (".yaml", ".yml"):
        return _from_others(from_file(Path(word)), base, word)
    close = nearest(word, [*MODELS.names(), *RECIPES])
    hint = f"{close}; " if close else ""
    what = f"{word!r} is not a model, a recipe or a .yaml file"
    raise UsageError(what, hint=f"{hint}msresnet models lists the models")


def _from_others(settings: dict[str, Any], base: TrainConfig, where: str) -> tuple[dict[str, Any], list[str]]:
    """Settings that were written for a training of their own: what the comparison decides is left out, and said.

    Raises UsageError where they are of other data.
    """
    for key in DATA:
        if key in settings and settings.pop(key) != (now := getattr(base, key)):
            raise UsageError(f"{where} is of another {key}", why=f"all are compared on {key} {now}", hint=f"--{key}")
    own = [key for key in (*OWN, *BUDGET, "recipe") if settings.pop(key, None) not in (None, _default(key))]
    return settings, [f"{', '.join(own)} of {where} left to the comparison"] if own else []


def _typed(words: list[str], text: str, base: TrainConfig) -> dict[str, Any]:
    """Settings written behind a contestant."""
    settings = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not a setting", where=text, why="setting=value", hint=SPELLING)
        known(key, text)
        if key in (*OWN, *BUDGET, *DATA):
            raise UsageError(f"{key} is the same for all contestants", where=text, hint="say it once, outside")
        if key == "recipe":
            raise UsageError("a recipe stands first", where=text, hint=f"'NAME: {value} ...'")
        settings[key] = from_text(key, value, text)
    return settings


def _short(word: str) -> str:
    """What a file is called for short: run/train.yaml is the run's."""
    path = Path(word)
    if path.suffix not in (".yaml", ".yml"):
        return word
    return path.parent.name if path.stem in ("train", "best") and path.parent.name else path.stem


def _default(key: str) -> Any:
    return asdict(TrainConfig())[key]
