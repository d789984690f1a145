"""What a training takes over from the weights that it starts from: network, image size, normalisation.

All of it becomes settings, as if the user had given them, so that a run says in its train.yaml what it was and goes on
without the weights. A value that the user set is never changed.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

from msresnet.data.preprocess import Preprocess
from msresnet.errors import ModelError, UsageError
from msresnet.files import plain_yaml
from msresnet.hub import NOT_STATED, PREFIX
from msresnet.models.described import Description, describe
from msresnet.models.factory import MODELS, OF_HEADS
from msresnet.models.pretrained import licence_of, published_weights
from msresnet.nn.stems import stem_for
from msresnet.tasks.base import Task
from msresnet.train.config import TrainConfig

PUBLISHED = "published"


def described(config: TrainConfig) -> Description | None:
    """What is said of the weights that a training starts from; None without weights, and where nothing is.

    Raises ModelError where it cannot be read, UsageError for a network that is not known here.
    """
    source = config.weights
    published = source == PUBLISHED
    # A run that goes on has taken over what it takes; no network that is chosen for itself has published weights.
    if source is None or config.resume or (published and config.model == "auto"):
        return None
    try:
        found = describe(published_weights(config.model) if published else source)
    except ModelError:
        if config.model == "auto":
            raise
        return None  # the weights may fit all the same
    if found is not None and config.model == "auto":
        try:
            MODELS[found.architecture]
        except UsageError as error:
            what = f"--weights {source} are of {found.architecture!r}"
            raise UsageError(what, why=error.what, hint=error.hint or "msresnet models") from error
    return found


def with_network(config: TrainConfig, found: Description, kind: type[Task]) -> tuple[TrainConfig, list[str]]:
    """The settings with the network of the weights, and the size it was made for, where others were not asked for."""
    if config.model not in ("auto", found.architecture):
        return config, []
    foreign = {name for names in OF_HEADS.values() for name in names} - {*OF_HEADS.get(kind.head, ())}
    arguments = {name: value for name, value in (found.arguments | _pinned(found)).items() if name not in foreign}
    asked = {text.partition("=")[0] for text in config.model_args}
    own = [_as_text(name, value) for name, value in arguments.items() if value is not None and name not in asked]
    size = found.size if config.image_size is None and not config.train_sizes else None
    settled = replace(
        config,
        model=found.architecture,
        model_args=(*own, *config.model_args),
        image_size=size or config.image_size,
    )
    words = [f"model {' '.join([found.architecture, *own])}: that of the weights"] if config.model == "auto" else []
    if size is not None:
        words.append(f"image size {size[0]}x{size[1]}: that of the weights")
    return settled, words


def with_normalisation(config: TrainConfig, found: Description, channels: int) -> TrainConfig:
    """The settings with what pixels were normalised by when the weights were learnt, unless others were set."""
    if config.mean:
        return config
    mean, std = found.normalisation(channels)
    return replace(config, mean=mean, std=std)


def normalised(preprocess: Preprocess, config: TrainConfig) -> Preprocess:
    """The preprocess with the mean and std that were set, one for each channel. Raises UsageError for wrong ones."""
    mean, std = (values * (preprocess.channels if len(values) == 1 else 1) for values in (config.mean, config.std))
    return replace(preprocess, mean=mean, std=std)


def how_fitted(config: TrainConfig) -> str:
    """What is done with weights, in words."""
    by = "as theirs were" if config.mean else "by this data: nothing says how theirs were"
    return f"the classifier is new where its classes differ in number; pixels are normalised {by}"


def weights_licence(config: TrainConfig, model: str) -> str:
    """The licence of the weights that a training starts from; shown before they are downloaded."""
    source = str(config.weights)
    if source == PUBLISHED or source.startswith(PREFIX):
        return licence_of(model, source)
    with suppress(ModelError):  # of a run that goes on they may be gone
        found = describe(source)
        return NOT_STATED if found is None else found.licence or NOT_STATED
    return NOT_STATED


def _pinned(found: Description) -> dict[str, Any]:
    """What the image's size decided when the weights were learnt, as arguments: another size must not change it."""
    row = MODELS[found.architecture].row
    by_size = found.size is not None and getattr(row, "stem", "") is None and "stem" not in found.arguments
    return {"stem": stem_for(found.size)[0]} if by_size and found.size is not None else {}


def _as_text(name: str, value: Any) -> str:
    """An argument as `--model-args` takes it: a text as it is where YAML reads the same from it."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{name}={text if plain_yaml(text, name, '') == value else json.dumps(value)}"
