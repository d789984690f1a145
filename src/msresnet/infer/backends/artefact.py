"""Exported files: where one lies, what it carries of its model, and whether it is whole. No torch here.

An ONNX file keeps it in its metadata, an OpenVINO model in its runtime information: the model's config under one key,
and the SHA-256 of the network under another.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msresnet.errors import ModelError, MsresnetError, ResourceError, UsageError
from msresnet.hub import CONFIG, WEIGHTS, check_format
from msresnet.trained import Exported

if TYPE_CHECKING:
    from onnx import ModelProto

META, DIGEST = "msresnet", "msresnet_sha256"
ENDINGS = (".onnx", ".xml")
VERSION, STEM = "1", "model"
"""Triton and OpenVINO Model Server look for VERSION/STEM.* in a model's folder."""


def find_file(path: str | Path) -> Path | None:
    """The exported file that is named, or lies in the folder that is named; None for what is none, such as a bundle."""
    path = Path(path)
    if path.suffix in ENDINGS:
        return path
    if is_bundle(path):
        return None
    places = [folder / f"{STEM}{ending}" for ending in ENDINGS for folder in (path / VERSION, path)]
    return next((place for place in places if place.is_file()), None)


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a bundle."""
    return all((path / name).is_file() for name in (CONFIG, WEIGHTS))


def is_model(text: str) -> bool:
    """Whether an argument beside images names a trained model, which somebody meant to ask."""
    path = Path(text)
    if not os.path.isdir(text):  # noqa: PTH112 - which is False, and no error, for a name that is too long
        return path.suffix in ENDINGS
    return is_bundle(path) or find_file(path / VERSION) is not None


def refuse_models(inputs: Iterable[str]) -> None:
    """Raise UsageError for a model among images."""
    for text in inputs:
        if is_model(text):
            raise UsageError("that is a model, no image", where=text, hint=f"--model {text}")


def read_bytes(path: Path) -> bytes:
    """The contents of a file. Raises ModelError for what is none."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ModelError("the model is not a file", where=str(path))
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError("there is no such model", where=str(path), hint="--model runs/NAME, or model.onnx") from error
    except OSError as error:
        raise ModelError("cannot read the model", where=str(path), why=error.strerror or str(error)) from error


def read_onnx(path: Path) -> tuple[bytes, Exported]:
    """The bytes of an ONNX file and what they carry.

    Raises ModelError for a file that is damaged, of others, or keeps weights in further files: nothing else is opened.
    """
    where = str(path)
    try:
        import onnx
    except ImportError as error:
        raise missing("onnx", error) from error
    contents = read_bytes(path)
    try:
        proto = onnx.load_model_from_string(contents)
    except Exception as error:  # protobuf's own class, which moves between its versions
        raise ModelError("not a whole ONNX file", where=where, why=_short(error), hint="export it again") from error
    if outside := next((t.name for t in _initialisers(proto) if t.data_location == onnx.TensorProto.EXTERNAL), None):
        why, hint = f"{outside} lies in another file, and no other file is opened", "export it again"
        raise ModelError("the ONNX file is not all of the model", where=where, why=why, hint=hint)
    found = {entry.key: entry.value for entry in proto.metadata_props}
    network = digest_of(proto)
    trained = read_config(found.get(META), network, where)
    if found.get(DIGEST) != network:
        why = "the SHA-256 of its network differs from the recorded one"
        raise ModelError("the model is damaged", where=where, why=why, hint="export it again")
    return contents, trained


def read_config(text: str | None, network: str, where: str) -> Exported:
    """What an exported file says of its model; `network` is the digest of its network.

    Raises ModelError for a file of others, a damaged one, and one of a newer format.
    """
    if text is None:
        why, hint = "it does not say how images go in and what comes out", "msresnet export --model runs/NAME"
        beside = find_file(Path(where).parent)
        if beside is not None and beside != Path(where):  # such as a detector's file with suppression inside
            hint = f"the model beside it: {beside}"
        raise ModelError("the file was not exported by msresnet", where=where, why=why, hint=hint)
    try:
        values = json.loads(text)
        check_format(values["format_version"], where)
        return Exported(values, network)
    except ModelError:
        raise
    except (MsresnetError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        why = _short(error)
        raise ModelError("what the file says of its model contradicts itself", where=where, why=why) from error


def stamp(proto: ModelProto, values: dict[str, Any]) -> ModelProto:
    """Let an ONNX model carry a config and its digest, in place of what it carried; returns the same object."""
    del proto.metadata_props[:]
    for key, value in ((META, json.dumps(values)), (DIGEST, digest_of(proto))):
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return proto


def digest_of(proto: ModelProto) -> str:
    """The SHA-256 of an ONNX model's network."""
    return hashlib.sha256(proto.graph.SerializeToString(deterministic=True)).hexdigest()


def missing(package: str, error: ImportError) -> ResourceError:
    """What to raise where a package of the extra is not installed."""
    return ResourceError(f"this needs {package}", why=str(error), hint='pip install "msresnet[export]"')


def _initialisers(proto: ModelProto) -> list[Any]:
    """The stored tensors of a model, those of its functions and attributes too."""
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    held = [tensor for node in nodes for a in node.attribute for tensor in (a.t, *a.tensors)]
    graphs = [graph for node in nodes for a in node.attribute for graph in (a.g, *a.graphs)]
    return [*proto.graph.initializer, *held, *(tensor for graph in graphs for tensor in graph.initializer)]


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
