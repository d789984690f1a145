"""What a training takes over from the weights that it starts from: the network, the form of its images, normalisation.

A value that the user set is never changed. What was said of the weights when a run began stays in its folder, so that
it goes on when they are gone, or when others lie in their place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from msresnet.data.preprocess import Preprocess
from msresnet.errors import ModelError, UsageError
from msresnet.files import plain_yaml, write_json
from msresnet.hub import NOT_STATED, PREFIX
from msresnet.models.base import ImageModel
from msresnet.models.described import OF_DATA, Description, describe
from msresnet.models.factory import MODELS, OF_HEADS, create_network
from msresnet.models.pretrained import PUBLISHED, find_file, licence_of, published_weights
from msresnet.nn.stems import stem_for
from msresnet.tasks.base import Task
from msresnet.tasks.known import TASKS
from msresnet.train.config import TrainConfig

FILE = "weights.json"


def known_of(config: TrainConfig) -> Description | None:
    """What is said of the weights that a training starts from; None without weights, and where nothing is.

    Raises ModelError for weights that are not there, or of which nothing can be read where the network is to be found;
    UsageError for a network that is not known here.
    """
    source = config.weights
    # No network that is chosen for itself has published weights.
    if source is None or (source == PUBLISHED and config.model == "auto"):
        return None
    if source != PUBLISHED and not source.startswith(PREFIX):
        find_file(source)
    try:
        found = describe(published_weights(config.model) if source == PUBLISHED else source)
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


def keep(found: Description, folder: Path) -> None:
    """Write what is said of a run's weights into its folder. Raises ResourceError when that fails."""
    write_json(folder / FILE, found.to_dict())


def kept(folder: Path) -> Description | None:
    """What was said of a run's weights when it began; None where nothing was. Raises ModelError for a damaged file."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Description.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"[:200]
        raise ModelError("the run's file cannot be read", where=str(path), why=why, hint="start a new run") from error


def with_network(
    config: TrainConfig, found: Description, kind: type[Task], packed: bool
) -> tuple[TrainConfig, list[str]]:
    """The settings with network and form of the weights where others were not asked for; and what was taken, in words.

    Args:
        packed: whether the data is in a form already, which then counts.
    """
    form = {} if packed else _form(config, found)
    told = {name: value for name, value in form.items() if value != getattr(TrainConfig, name)}
    words = [f"{name.replace('_', ' ')} {_plain(value)}: that of the weights" for name, value in told.items()]
    config = replace(config, **form)
    if config.model not in ("auto", found.architecture):
        return config, words
    foreign = {name for names in OF_HEADS.values() for name in names} - {*OF_HEADS.get(kind.head, ())}
    arguments = found.arguments | _pinned(found, kind)
    asked = {text.partition("=")[0] for text in config.model_args}
    own = [
        _as_text(name, value) for name, value in arguments.items() if value is not None and name not in asked | foreign
    ]
    words += [f"model {' '.join([found.architecture, *own])}: that of the weights"]
    return replace(config, model=found.architecture, model_args=(*own, *config.model_args)), words


def own_arguments(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """What a network was made with, as `--model-args` takes it: all but what data and settings decide."""
    return tuple(_as_text(name, value) for name, value in arguments.items() if name not in OF_DATA)


def with_normalisation(
    config: TrainConfig, found: Description | None, preprocess: Preprocess
) -> tuple[TrainConfig, str]:
    """The settings with what pixels were normalised by when the weights were learnt; and whose figures count."""
    if config.mean:
        return config, "as asked"
    if found is None or not found.mean:
        return config, "by this data: nothing says how theirs were"
    if found.form and (found.form["threshold"], found.form["binary"]) != (preprocess.threshold, preprocess.binary):
        return config, "by this data: theirs went through another threshold"
    mean, std = found.normalisation(preprocess.channels)
    return replace(config, mean=mean, std=std), "as theirs were"


def normalised(preprocess: Preprocess, config: TrainConfig) -> Preprocess:
    """The preprocess with the mean and std that were set, one for each channel. Raises UsageError for wrong ones."""
    mean, std = (values * (preprocess.channels if len(values) == 1 else 1) for values in (config.mean, config.std))
    return replace(preprocess, mean=mean, std=std)


def begin_from(
    weights: str | bool, found: Description | None, task: Task, name: str, arguments: dict[str, Any]
) -> ImageModel:
    """A network with given weights; what it answers belongs to classes by their names, where those are known.

    A class that the weights do not know begins anew, as the whole classifier does where names are not known and the
    numbers of classes differ.

    Args:
        weights: as `create_model` takes them; False for none.
        found: what is said of them.
        task: what is to be learnt, with the classes of the data.
        name, arguments: of the network.

    Raises ModelError and UsageError, as `create_model` does.
    """
    head = task.head
    rows = known_rows(found, head, task.class_names)
    if weights is False or rows is None:
        return create_network(head, name, pretrained=weights, **arguments)
    assert found is not None
    theirs = create_network(head, name, pretrained=weights, **(arguments | {"num_classes": len(found.classes)}))
    model = create_network(head, name, **arguments)
    fresh, given = model.state_dict(), theirs.state_dict()
    theirs.reset_classifier(0)
    classifier = given.keys() - theirs.state_dict().keys()
    ours = [place for place, row in enumerate(rows) if row is not None]
    for key in classifier:
        fresh[key][ours] = given[key][[row for row in rows if row is not None]]
    model.load_state_dict(given | {key: fresh[key] for key in classifier})
    return model


def known_rows(found: Description | None, head: str, classes: Sequence[str]) -> list[int | None] | None:
    """Which class of the weights each class of the data is, if any; None where all are as they are, or not known."""
    alike = found is not None and found.task in TASKS and TASKS[found.task].head == head
    if found is None or not alike or not found.classes or found.classes == tuple(classes):
        return None
    places = {name: place for place, name in enumerate(found.classes)}
    return [places.get(name) for name in classes]


@contextmanager
def ways_out(found: Description | None) -> Iterator[None]:
    """Say what to leave out where weights do not fit a network that is not the one they are said to be of."""
    try:
        yield
    except ModelError as error:
        if found is None:
            raise
        hint = f"leave --model, --model-args and --image-size out: they are of {found.architecture}"
        hint += f" at {_plain(found.form['image_size'])} pixels" if found.form else ""
        raise ModelError(error.what, where=error.where, why=error.why, hint=hint) from error


def licence(config: TrainConfig, model: str, found: Description | None) -> str:
    """The licence of the weights that a training starts from; shown before they are downloaded."""
    source = str(config.weights)
    if found is not None and found.licence not in ("", NOT_STATED):
        return found.licence
    return licence_of(model, source) if source == PUBLISHED or source.startswith(PREFIX) else NOT_STATED


def _form(config: TrainConfig, found: Description) -> dict[str, Any]:
    """The form of images that is taken over."""
    form = found.form
    if not form:
        return {}
    taken: dict[str, Any] = {}
    if config.image_size is None and max(form["image_size"]) >= max(config.train_sizes, default=0):
        taken["image_size"] = form["image_size"]
    # Grey data stays grey: the weights for RGB are summed, which is exact, and grey images are changed otherwise.
    if config.channels is None and form["channels"] == 1:
        taken["channels"] = 1
    if config.threshold is None and not config.binary and config.resize == "squash":
        taken |= {name: form[name] for name in ("resize", "threshold", "binary")}
    return taken


def _pinned(found: Description, kind: type[Task]) -> dict[str, Any]:
    """What the image's size decided when the weights were learnt, as arguments: another size must not change it."""
    if not found.form:
        return {}
    pinned: dict[str, Any] = {}
    size = found.form["image_size"]
    row = MODELS[found.architecture].row
    if getattr(row, "stem", "") is None and found.arguments.get("stem") is None:
        pinned["stem"] = stem_for(size)[0]
    if found.task in TASKS and TASKS[found.task].head == kind.head:
        with torch.device("meta"):
            network = create_network(kind.head, found.architecture, **(found.arguments | {"img_size": size}))
        if network.strides:
            pinned["finest"] = network.strides[0]
    return pinned


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _as_text(name: str, value: Any) -> str:
    """An argument as `--model-args` takes it: a text as it is where YAML reads the same from it."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{name}={text if plain_yaml(text, name, '') == value else json.dumps(value)}"
