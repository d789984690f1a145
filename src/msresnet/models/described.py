"""What stands beside weights, in a config.json: whose they are, how their images were made, under which licence.

Read are our own bundles, and the configs that timm's repositories hold. Nothing here builds a network or opens weights.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from msresnet import hub
from msresnet.errors import ModelError
from msresnet.hub import CONFIG, WEIGHTS
from msresnet.models.base import Config

Figures = tuple[float, ...]
FORM = {"image_size": "size", "channels": "channels", "resize": "resize", "threshold": "threshold", "binary": "binary"}
"""How images were brought to one form: the settings of a training, and what a bundle calls them."""
OF_DATA = {*Config._fields} - {"global_pool"}
"""Arguments that another training chooses for itself."""


@dataclass(frozen=True)
class Description:
    """Of weights.

    Args:
        where: the weights: 'hf:user/repo', or a path that no link leads astray.
        architecture: the network's name.
        arguments: what it was made with, but for what data decides: classes, channels, size.
        task: what it was trained to; '' where that is not said.
        form: the settings that FORM names; empty where data may decide.
        mean, std: what pixels from 0 to 1 were normalised by, per channel; empty where that is not said.
        licence: as their owner says; '' where that is not said.
        classes: what the outputs stand for, in order; empty where that is not said.
    """

    where: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    task: str = ""
    form: dict[str, Any] = field(default_factory=dict)
    mean: Figures = ()
    std: Figures = ()
    licence: str = ""
    classes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Description:
        """The object that `to_dict` wrote. Raises TypeError or ValueError for what it did not."""
        mean, std, form = tuple(values["mean"]), tuple(values["std"]), dict(values["form"])
        classes = tuple(values.get("classes", ()))
        return cls(**(values | {"mean": mean, "std": std, "form": form | _sizes(form), "classes": classes}))

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
        return on_hub(str(source))
    path = Path(source).resolve()
    folder = path if path.is_dir() else path.parent
    # Of a file with another name, what lies beside it may be of another network.
    beside = path.is_dir() or path.name == WEIGHTS
    return _read(folder / CONFIG, str(folder / CONFIG), str(path)) if beside and (folder / CONFIG).is_file() else None


def on_hub(source: str) -> Description:
    """What a repository on the hub, 'hf:user/repo', says of its weights; raises as `describe` does."""
    where = hub.place(source)
    return _read(hub.fetch(where, CONFIG), f"{where}: {CONFIG}", str(where))


def _read(file: Path, where: str, weights: str) -> Description:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError("cannot read the config", where=where, why=str(error)[:200]) from error
    try:
        if "format_version" not in values:
            return _of_timm(values, weights)
        hub.check_format(values["format_version"], where)
        return _of_bundle(values, weights)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}"[:200]
        hint = "--model NAME with --model-args, or the file of weights under another name"
        raise ModelError(
            "the config does not say which network the weights are of", where=where, why=why, hint=hint
        ) from error


def _of_bundle(values: dict[str, Any], weights: str) -> Description:
    preprocess = values["preprocess"]
    form = {setting: preprocess[name] for setting, name in FORM.items()}
    figures = _figures(preprocess)
    if figures is None:
        raise ValueError("mean and std are not figures")
    return Description(
        weights, str(values["architecture"]),
        {name: value for name, value in values["arguments"].items() if name not in OF_DATA},
        str(values["task"]["name"]), form | _sizes(form), *figures, str(values.get("licence", "")),
        tuple(map(str, values["task"]["class_names"])),
    )  # fmt: skip


def _of_timm(values: dict[str, Any], weights: str) -> Description:
    name = values["architecture"]
    if not isinstance(name, str):
        raise TypeError(f"architecture is {name!r}")
    mean, std = _figures(values.get("pretrained_cfg")) or _figures(values) or ((), ())  # older ones have one table
    return Description(weights, name, mean=mean, std=std)


def _sizes(form: dict[str, Any]) -> dict[str, Any]:
    """The size as (H, W). Raises TypeError or ValueError for what is none."""
    if not form:
        return {}
    height, width = form["image_size"]
    return {"image_size": (int(height), int(width))}


def _figures(values: Any) -> tuple[Figures, Figures] | None:
    """Mean and std; None where they are not there, or no figures."""
    try:
        mean, std = (tuple(float(figure) for figure in values[name]) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        return None
    usual = mean and len(mean) == len(std) and all(map(math.isfinite, (*mean, *std))) and min(std) > 0
    return (mean, std) if usual else None
