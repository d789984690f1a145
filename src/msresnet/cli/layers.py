"""Where each setting comes from: defaults < recipe < config file < environment < flags.

Every layer is written as flags and parsed by tyro, so one set of types and messages serves all. `--epochs 10` and
`epochs=10` are the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Generic, TypeVar

import docstring_parser
import tyro
from docstring_parser import DocstringStyle

from msresnet.cli.main import Common
from msresnet.errors import UsageError, nearest
from msresnet.files import as_yaml, read_yaml
from msresnet.train.settings import split_list

C = TypeVar("C")
ENVIRONMENT_PREFIX = "MSRESNET_"
SHOWN = 60


@dataclass(frozen=True)
class Parsed(Generic[C]):
    """A verb's configuration, and for each setting that is not a default, the layer that set it."""

    config: C
    origin: dict[str, str]

    def explicit(self) -> dict[str, Any]:
        """The settings that somebody set."""
        return {name: getattr(self.config, name) for name in self.origin}

    def table(self) -> str:
        """All settings with their origin, as YAML with comments."""
        rows = []
        for name, value in asdict(self.config).items():  # type: ignore[call-overload]
            text = as_yaml(list(value) if isinstance(value, tuple) else value, in_a_line=True)
            rows.append(f"{name}: {text.splitlines()[0]}  # {self.origin.get(name, 'default')}")
        return "\n".join(rows)


def parse(
    verb: str,
    kind: type[C],
    argv: list[str],
    common: Common,
    *,
    recipes: Callable[[str], dict[str, Any]] | None = None,
    settled: Callable[[Parsed[C]], Parsed[C]] = lambda parsed: parsed,
) -> Parsed[C]:
    """Read all layers. Raises UsageError, or exits with 2 after tyro's message, which names the nearest flag.

    With --print-config prints all settings and exits with 0.

    Args:
        verb: for messages and the environment.
        kind: the dataclass of the settings.
        argv: the words after the verb.
        common: the switches of every verb.
        recipes: the settings of a recipe by name, for a verb that takes `--recipe`.
        settled: what follows from all layers together, for a verb where something does.
    """
    kinds = {f.name: str(f.type) for f in fields(kind)}  # type: ignore[arg-type]
    names = set(kinds)
    layers: list[tuple[str, list[str]]] = []
    if common.config is not None:
        layers.append((common.config, _tokens(_read(common.config, names), kinds)))
    layers.append(("environment", _tokens(_environment(verb, kinds), kinds)))
    layers.append(("flag", _together(spelled_out(argv, kinds), kinds)))
    name = _value_of("recipe", [token for _, tokens in layers for token in tokens])
    if recipes is not None and name not in (None, "None"):
        layers.insert(0, (f"recipe {name}", _tokens(recipes(name), kinds)))
    current: C | None = None
    origin: dict[str, str] = {}
    for source, tokens in layers:
        before = kind() if current is None else current
        with _named(source, tokens), _flowing():
            current = tyro.cli(kind, prog=f"msresnet {verb}", args=tokens, default=current)
        said = _set_by(tokens, names)
        if source == common.config:  # its null says something only where it undoes something
            said -= {name for name in said if getattr(before, name) is None and getattr(current, name) is None}
        origin |= dict.fromkeys(said, source)
        bare = [name for name in names if _positional(kinds[name])]
        origin |= {name: source for name in bare if getattr(before, name) != getattr(current, name)}
    assert current is not None
    parsed = settled(Parsed(current, origin))
    if common.print_config:
        print(parsed.table(), flush=True)  # what cannot be written is told before Python shuts down
        raise SystemExit(0)
    return parsed


def spelled_out(argv: list[str], kinds: dict[str, str]) -> list[str]:
    """`key=value` words as flags, by the type of each key. Raises UsageError, with the nearest, for an unknown one."""
    if argv and not argv[0].startswith("-") and "=" not in argv[0] and not any(map(_positional, kinds.values())):
        hint = " or ".join(f"--{name} {argv[0]}" for name in ("data", "model") if name in kinds)
        raise UsageError(f"nothing is expected here: {argv[0]!r}", hint=hint or "msresnet VERB --help")
    tokens: list[str] = []
    flag = ""
    for before, word in zip(["", *argv], argv, strict=False):
        flag = word if word.startswith("--") else flag
        key, equals, value = word.partition("=")
        key = underscored if (underscored := key.replace("-", "_")) in kinds else key
        plain = word.startswith("-") or not equals or not key.isidentifier() or os.path.lexists(word)
        if plain or _takes_value(before, kinds) or _takes_texts(flag, kinds):
            tokens.append(word)
        elif key in kinds:
            tokens += _tokens({key: _scalar(value, kinds[key])}, kinds)
        else:
            close = nearest(key, kinds)
            hint = f"{close}=…" if close else "msresnet VERB --help"
            raise UsageError(f"unknown setting {key!r}", where=word, hint=hint)
    return tokens


def _together(tokens: list[str], kinds: dict[str, str]) -> list[str]:
    """A flag of several texts that is given again goes on with its list, where the parser would forget what it had."""
    lists: dict[str, list[str]] = {}
    others: list[str] = []
    values = others
    for token in tokens:
        flag, equals, value = token.partition("=")
        if not token.startswith("-"):
            values.append(token)
        elif _takes_texts(flag, kinds):
            values = lists.setdefault(flag.replace("_", "-"), [])
            if equals:
                values.append(value)
                values = others
        else:
            values = others
            others.append(token)
    return [*others, *(word for flag, values in lists.items() for word in (flag, *values))]


def _takes_value(word: str, kinds: dict[str, str]) -> bool:
    """Whether a word is a flag whose value is the next word."""
    return _kind(word, kinds) not in ("", "bool")


def _takes_texts(word: str, kinds: dict[str, str]) -> bool:
    """Whether a word is a flag whose values are all words up to the next flag, `name=value` ones among them."""
    return "tuple[str" in _kind(word, kinds)


def _kind(word: str, kinds: dict[str, str]) -> str:
    return kinds.get(word[2:].replace("-", "_"), "") if word.startswith("--") else ""


def _scalar(text: str, kind: str) -> Any:
    """What a value stands for, by the type of its key: true and false are switches, commas make lists."""
    if kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return split_list(text) if "tuple" in kind else text


def _flag(key: str, value: Any) -> list[str]:
    name = key.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    if isinstance(value, (list, tuple)):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={value}"]


def _tokens(values: dict[str, Any], kinds: dict[str, str]) -> list[str]:
    """Settings as words of the command line, those without a flag first."""
    given = {key: value for key, value in values.items() if value is not None or _may_be_none(kinds[key])}
    bare = [value for key, value in given.items() if _positional(kinds[key])]
    flags = [token for key, value in given.items() if not _positional(kinds[key]) for token in _flag(key, value)]
    return [str(word) for value in bare for word in (value if isinstance(value, list) else [value])] + flags


def _may_be_none(kind: str) -> bool:
    """Whether null says something: that a layer below is not to count, such as the number of epochs of a recipe."""
    return "| None" in kind


def _positional(kind: str) -> bool:
    return kind.startswith("Positional")


def _value_of(name: str, tokens: list[str]) -> str | None:
    """The last value that a flag is given, read before all flags are known to be right."""
    found = None
    for token, following in zip(tokens, [*tokens, ""][1:], strict=True):
        flag, equals, value = token.partition("=")
        if flag == f"--{name}":
            found = value if equals else following
    return found


def _set_by(tokens: list[str], names: set[str]) -> set[str]:
    found = set()
    for token in tokens:
        if token.startswith("--"):
            name = token[2:].partition("=")[0].replace("-", "_")
            found.add(name.removeprefix("no_") if name not in names else name)
    return found & names


def _environment(verb: str, kinds: dict[str, str]) -> dict[str, Any]:
    """MSRESNET_TRAIN_EPOCHS and the like: of one verb each, for the same key may mean another thing to another verb."""
    prefix = f"{ENVIRONMENT_PREFIX}{verb.replace(' ', '_').upper()}_"
    keys = {f"{prefix}{name.upper()}": name for name in kinds}
    given = {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefix)}
    for name in given:
        if name not in keys:
            hint = nearest(name, keys) or f"msresnet {verb} --help"
            raise UsageError(f"unknown setting {name[:SHOWN]!r}", where="environment", hint=hint)
    return {keys[name]: _scalar(value, kinds[keys[name]]) for name, value in given.items()}


def _read(path: str, names: set[str]) -> dict[str, Any]:
    """The settings in a YAML file. Raises UsageError, naming file and line or key."""
    try:
        values = read_yaml(Path(path))
    except OSError as error:
        why = error.strerror or ""
        raise UsageError("cannot read the config file", where=path, why=why, hint="--config train.yaml") from error
    if not isinstance(values, dict):
        raise UsageError("the config file holds no settings", where=path, hint="epochs: 10")
    for key, value in values.items():
        if key not in names:
            close = nearest(str(key), names)
            hint = close or "msresnet VERB --help"
            raise UsageError(f"unknown setting {str(key)[:SHOWN]!r}", where=f"{path}: {str(key)[:SHOWN]}", hint=hint)
        items = value if isinstance(value, list) else [value]
        if not all(item is None or isinstance(item, (str, int, float, bool)) for item in items):
            hint = f"{key}: a number, a text, or a list of them"
            raise UsageError(f"the setting {key!r} is not a plain value", where=f"{path}: {key}", hint=hint)
    return values


@contextlib.contextmanager
def _flowing() -> Iterator[None]:
    """Within this, descriptions flow over their lines: tyro takes indented ones for paragraphs of their own."""
    parse = docstring_parser.parse_from_object

    def flowing(obj: Any, style: DocstringStyle = DocstringStyle.AUTO) -> docstring_parser.Docstring:
        found = parse(obj, style)
        for each in found.params:
            each.description = " ".join((each.description or "").split()) or None
        return found

    docstring_parser.parse_from_object = flowing
    try:
        yield
    finally:
        docstring_parser.parse_from_object = parse


@contextlib.contextmanager
def _named(source: str, tokens: list[str]) -> Iterator[None]:
    """Say which layer a wrong value came from, unless it is the command line itself."""
    try:
        yield
    except SystemExit as leaving:
        if leaving.code in (0, None) or source == "flag":
            raise
        where = f"{source}: {' '.join(tokens)}"
        raise UsageError(
            "a setting cannot be used", where=where, why="see above", hint="msresnet VERB --help"
        ) from None
