"""A trained model that can be used anywhere: a folder with weights, config.json and a card. No pickle.

config.json holds what is needed to build, feed and read the network: format version, architecture and its arguments,
task and class names, preprocess, scores and how they were measured, licence.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msresnet import hub
from msresnet.data.preprocess import Preprocess
from msresnet.errors import ModelError, MsresnetError, UsageError, nearest
from msresnet.files import write_json, write_text
from msresnet.hub import CARD, CONFIG, FORMAT_VERSION, WEIGHTS
from msresnet.models.base import Config, ImageModel
from msresnet.models.cost import count_macs
from msresnet.models.factory import create_network, network_arguments
from msresnet.run_folder import UNFINISHED, is_unfinished, resume_hint
from msresnet.tasks.base import Task
from msresnet.tasks.known import TASKS
from msresnet.tasks.postprocess.base import Postprocess
from msresnet.tensors import check_finite, check_matches, load_tensors, save_tensors
from msresnet.trained import Trained, read_labels, read_preprocess

OF_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl")
"""How files of weights end; what is wrong with one is said of its contents."""


@dataclass(frozen=True)
class Bundle(Trained):
    """A network, what its outputs mean, and how its inputs are made.

    Args:
        architecture, arguments: what `create_model` takes.
        scores: figures by split, each with how it was measured.
        licence: of the weights, as their owner says.
        labels: what the classes were called before they became names, in their order: numbers, flags or texts.
    """

    model: ImageModel
    architecture: str
    arguments: dict[str, Any]
    task: Task
    preprocess: Preprocess
    scores: dict[str, Any] = field(default_factory=dict)
    licence: str = "not stated"
    labels: list[Any] | None = None

    @property
    def postprocess(self) -> Postprocess:
        """From the network's outputs to results."""
        return self.task.postprocess

    @property
    def params(self) -> int:
        """Parameters of the network."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def macs(self) -> int:
        """Multiply-accumulates for an image."""
        return count_macs(self.model)

    def with_scores(self, scores: dict[str, Any]) -> Bundle:
        """The same bundle with other scores."""
        return replace(self, scores=scores)

    def save(self, folder: Path) -> Path:
        """Write the folder; each file appears whole or not at all. Raises ResourceError when that fails."""
        save_tensors(folder / WEIGHTS, self.model.state_dict(), {"architecture": self.architecture})
        return self.save_config(folder)

    def save_config(self, folder: Path, before: Bundle | None = None) -> Path:
        """Write all but the weights, which lie there already; raises as `save` does.

        A card that is not the one of the bundle `before` was written by somebody, and stays.
        """
        write_json(folder / CONFIG, self.config())
        if before is None or _has_card(folder, before):
            write_text(folder / CARD, card(self))
        return folder

    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        return {
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "arguments": self.arguments,
            "task": self.task.to_dict(),
            "preprocess": self.preprocess.to_dict(),
            "scores": self.scores,
            "licence": self.licence,
        } | ({} if self.labels is None else {"labels": self.labels})


def bundle_of(trained: Trained, wanted: str) -> Bundle:
    """The same model, known to be a bundle. Raises UsageError, naming what is wanted, for an exported file."""
    if isinstance(trained, Bundle):
        return trained
    raise only_answers(wanted)


def only_answers(wanted: str) -> UsageError:
    """That something needs a bundle, and the model is an exported file."""
    why = "an exported network answers, and cannot be changed or looked into"
    return UsageError(f"{wanted} with an exported model", why=why, hint="the run it came from")


def load_bundle(path: str | Path) -> Bundle:
    """The bundle in a folder (or named by its config.json or weights), or in 'hf:user/repo'; on the CPU, in evaluation.

    Raises ModelError, naming the file, for one that is absent, damaged, of a newer format, or not what it says.
    """
    config_file, config, weights_file = _files(path)
    tensors, _ = load_tensors(weights_file)
    where = str(config_file)
    try:
        task = TASKS[config["task"]["name"]].from_dict(config["task"])
        labels = read_labels(config.get("labels"), task.num_outputs)
        preprocess = read_preprocess(config["preprocess"])
        arguments = dict(config["arguments"])
        name = config["architecture"]
        # A config describes a network and nothing else: it fetches no weights and reads no files.
        if other := arguments.keys() - {*Config._fields, *network_arguments(task.head, name)}:
            raise ValueError(f"{', '.join(sorted(map(str, other)))}: no argument of {name}")
        with torch.device("meta"):  # what a hostile config asks for takes no memory before the weights agree with it
            wanted = create_network(task.head, name, **arguments)
        if wanted.num_classes != task.num_outputs:
            raise ValueError(f"{wanted.num_classes} outputs, {task.num_outputs} class names")
        check_matches(tensors, wanted.state_dict(), str(weights_file), name)
        _check_input(wanted, preprocess)
        model = create_network(task.head, name, **arguments)
    except ModelError:
        raise
    except MsresnetError as error:
        what = "the bundle names what cannot be built"
        raise ModelError(what, where=where, why=error.what, hint=error.hint) from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        what, why = "the bundle's config is incomplete or contradicts itself", f"{type(error).__name__}: {error}"
        raise ModelError(what, where=where, why=why[:300]) from error
    load_weights(model, tensors, str(weights_file), name)
    scores, licence = config.get("scores", {}), config.get("licence", "not stated")
    return Bundle(model.eval(), name, arguments, task, preprocess, scores, licence, labels)


@torch.no_grad()
def _check_input(wanted: ImageModel, preprocess: Preprocess) -> None:
    """Raise ValueError, or torch's RuntimeError, for a network (on no device) that does not take what preprocess gives.

    Most networks take images of any size; those that take one size show it when they are run.
    """
    if wanted.in_chans != preprocess.channels:
        raise ValueError(f"the network takes {wanted.in_chans} channels, preprocess gives {preprocess.channels}")
    if wanted.config.img_size != tuple(preprocess.size):
        wanted.eval()(torch.empty(1, preprocess.channels, *preprocess.size, device="meta"))


def load_weights(model: torch.nn.Module, tensors: dict[str, Tensor], where: str, name: str) -> None:
    """Load tensors into a network. Raises ModelError when they do not belong to it or are not finite."""
    check_matches(tensors, model.state_dict(), where, name)
    check_finite(tensors, where)
    model.load_state_dict(tensors)


def _files(path: str | Path) -> tuple[Path, dict[str, Any], Path]:
    """Where a bundle's config is, what it says, and where its weights are; from the hub, both of one commit."""
    if not str(path).startswith(hub.PREFIX):
        folder = _folder(Path(path))
        return folder / CONFIG, _read_config(folder / CONFIG), folder / WEIGHTS
    where = hub.place(str(path))
    file = hub.fetch(where, CONFIG)
    config = _read_config(file)  # what is not a bundle is known before its weights are downloaded
    hub.announce(where)
    return file, config, hub.fetch(where._replace(revision=hub.commit(file) or where.revision), WEIGHTS)


def _folder(path: Path) -> Path:
    if path.name in (CONFIG, WEIGHTS) and path.is_file():
        return path.parent
    if path.is_file():
        if path.suffix.lower() not in OF_WEIGHTS:
            why = f"its name ends in {path.suffix!r}" if path.suffix else "its name has no ending"
            hint = "a run's folder, or a file that ends in .onnx or .xml"
            raise ModelError("the file is not a model", where=str(path), why=why, hint=hint)
        load_tensors(path)  # says what is wrong with a file that holds no weights at all
        raise ModelError("weights alone are not a model", where=str(path), hint=f"the folder that holds {CONFIG} too")
    if not path.is_dir():
        beside = [p.parent.name for p in path.parent.glob(f"*/{CONFIG}")]
        close = nearest(path.name, beside)
        raise ModelError(
            "there is no such model", where=str(path), hint=str(path.with_name(close)) if close else "--model runs/NAME"
        )
    return path


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        unfinished = is_unfinished(path.parent)
        why = UNFINISHED if unfinished else f"it has no {path.name}, as runs and saved models have, not exported ones"
        folder = path.parent.resolve() if unfinished else path.parent
        hint = f"{resume_hint(folder)}, or --model another" if unfinished else "--model runs/NAME"
        raise ModelError("the folder is not a bundle", where=str(folder), why=why, hint=hint) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError("cannot read the bundle's config", where=str(path), why=str(error)) from error
    if not isinstance(config, dict) or not isinstance(config.get("format_version"), int):
        hint = "weights of a network alone: msresnet train --weights, or create_model(..., pretrained=...)"
        raise ModelError(
            "the config has no format_version", where=str(path), why="it was not written by msresnet", hint=hint
        )
    hub.check_format(config["format_version"], str(path))
    return config


def check_own(folder: Path) -> None:
    """Raise UsageError where saving a bundle would overwrite a file that is not of a bundle in this folder."""
    files = [name for name in (CONFIG, WEIGHTS, CARD) if (folder / name).exists()]
    with suppress(ModelError):
        _read_config(folder / CONFIG)
        files = [name for name in files if name == CARD]
        if not files or _has_card(folder, load_bundle(folder)):
            return
    if files:
        what, why = f"{files[0]} there is not of a saved model", "nothing of yours is to be overwritten"
        raise UsageError(what, where=str(folder), why=why, hint="another folder")


def _has_card(folder: Path, bundle: Bundle) -> bool:
    try:
        return (folder / CARD).read_text("utf-8") == card(bundle)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def card(bundle: Bundle) -> str:
    """The model card, in Markdown."""
    names = bundle.task.class_names
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    rows = [{"split": split} | bundle.task.summary(figures) for split, figures in bundle.scores.items()]
    head = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"] if rows else []
    table = "\n".join([*head, *("| " + " | ".join(row.values()) + " |" for row in rows)]) or "Not measured."
    return f"""# {bundle.architecture}, {bundle.task.name} of {len(names)} classes

Classes: {shown}

Input: {bundle.preprocess.describe()}. {bundle.params:,} parameters. Licence of the weights: {bundle.licence}.

{table}

```
msresnet predict --model . image.png
```

```python
import msresnet

print(msresnet.load(".").predict("image.png"))
```
"""
