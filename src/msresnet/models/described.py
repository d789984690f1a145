"""What stands beside weights, in a config.json: whose they are, how their images were made, under which licence.

Read are our own bundles, and the configs that timm's repositories hold. Nothing here builds a network or opens weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msresnet import hub
from msresnet.errors import ModelError
from msresnet.models.base import Config

CONFIG = "config.json"
Figures = tuple[float, ...]


@dataclass(frozen=True)
class Description:
    """Of weights.

    Args:
        architecture: the network's name.
        arguments: what it was made with, but for what data decides: classes, channels, size.
        size: (H, W) of the images, None where data may decide.
        mean, std: what pixels from 0 to 1 were normalised by, per channel; empty where that is not said.
        licence: as their owner says; '' where that is not said.
    """

    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    mean: Figures = ()
    std: Figures = ()
    licence: str = ""

    def normalisation(self, channels: int) -> tuple[Figures, Figures]:
        """Mean and std for images of so many channels: grey ones are normalised by the mean over colours."""
        both = (self.mean, self.std)
        if len(self.mean) in (0, channels):
            return both
        mean, std = ((sum(figures) / len(figures),) * channels for figures in both)
        return mean, std


def describe(source: str | Path) -> Description | None:
    """What is said of the weights in a folder, a file, or 'hf:user/repo'; None where nothing is.

    Raises ModelError for a config that cannot be read or contradicts itself, and where the hub cannot be asked.
    """
    if str(source).startswith(hub.PREFIX):
        where = hub.place(str(source))
        return _read(hub.fetch(where, CONFIG), f"{where}: {CONFIG}")
    path = Path(source)
    file = (path if path.is_dir() else path.parent) / CONFIG
    return _read(file, str(file)) if file.is_file() else None


def _read(file: Path, where: str) -> Description:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError("cannot read the config", where=where, why=str(error)[:200]) from error
    try:
        return _of_bundle(values) if "format_version" in values else _of_timm(values)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"[:200]
        raise ModelError("the config does not say which network the weights are of", where=where, why=why) from error


def _of_bundle(values: dict[str, Any]) -> Description:
    preprocess = values["preprocess"]
    height, width = map(int, preprocess["size"])
    arguments = {name: value for name, value in values["arguments"].items() if name not in _OF_DATA}
    mean, std = _figures(preprocess)
    licence = str(values.get("licence", ""))
    return Description(str(values["architecture"]), arguments, (height, width), mean, std, licence)


def _of_timm(values: dict[str, Any]) -> Description:
    name = values["architecture"]
    if not isinstance(name, str):
        raise TypeError(f"architecture is {name!r}")
    trained = values.get("pretrained_cfg", {})
    mean, std = _figures(trained) if {"mean", "std"} <= trained.keys() else ((), ())
    return Description(name, mean=mean, std=std)


_OF_DATA = {*Config._fields} - {"global_pool"}
"""Arguments that another training chooses anew."""


def _figures(values: dict[str, Any]) -> tuple[Figures, Figures]:
    mean, std = (tuple(map(float, values[name])) for name in ("mean", "std"))
    if len(mean) != len(std) or min(std) <= 0:
        raise ValueError(f"mean {mean} and std {std} do not belong together")
    return mean, std
