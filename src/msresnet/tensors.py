"""Tensors in files: safetensors with a digest of their contents, never a pickle.

The digest stands in the file's own header, so one rename makes tensors, description and digest valid together. Files
that others wrote carry no digest and load as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from msresnet.errors import ModelError
from msresnet.files import write_atomic

DIGEST, META = "sha256", "msresnet"
PICKLES = (b"\x80", b"PK\x03\x04")
"""How pickles and torch's zipped pickles begin."""


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write tensors and a JSON description as one file, atomically. Raises ResourceError when that fails."""
    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(meta, allow_nan=True)
    header = {META: text, DIGEST: _digest(plain, text), "format": "pt"}
    size = sum(t.numel() * t.element_size() for t in plain.values()) + len(text)
    write_atomic(path, lambda part: _save(plain, part, header), expected_bytes=size)


def _save(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    try:
        save_file(tensors, path, metadata=header)
    except SafetensorError as error:
        # The library hides the system's error number in its text.
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the description in a file. Raises ModelError, naming the file, for one that is not whole."""
    where = str(path)
    start = _start(path)
    # A header may by chance be as long as a pickle's first byte says; only its brace tells them apart.
    if start.startswith(PICKLES) and start[8:9] != b"{":
        raise ModelError(
            "the weights are a pickle, which is never loaded",
            where=where,
            why="unpickling runs whatever its author wrote",
            hint="convert them to safetensors where you trust them",
        )
    if start[8:9] != b"{":
        why = "it does not begin as safetensors files do"
        hint = "a run or another bundle, or a safetensors file; of a damaged one, a copy"
        raise ModelError("the file holds no weights", where=where, why=why, hint=hint)
    try:
        with safe_open(path, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        what = "no whole safetensors file"
        raise ModelError(what, where=where, why=str(error), hint="restore it from a copy") from error
    text = header.get(META, "{}")
    if (DIGEST in header or META in header) and header.get(DIGEST) != _digest(tensors, text):
        why = "their SHA-256 differs from the recorded one"
        raise ModelError("the weights are damaged", where=where, why=why, hint="restore them from a copy")
    return tensors, json.loads(text)


def _start(path: Path) -> bytes:
    """The first nine bytes of a file. Raises ModelError for what is not a file, or empty."""
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ModelError("the weights are not a file", where=str(path), hint="restore them from a copy")
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ModelError("cannot open the weights", where=str(path), why=error.strerror or "") from error
    if not start:
        raise ModelError("the weights' file is empty", where=str(path), hint="restore it from a copy")
    return start


def check_finite(tensors: dict[str, Tensor], where: str) -> None:
    """Raise ModelError, naming the first, when weights hold NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ModelError("the weights hold NaN or infinity", where=f"{where}: {name}", hint="an earlier checkpoint")


def check_matches(given: dict[str, Tensor], wanted: dict[str, Tensor], where: str, name: str) -> None:
    """Raise ModelError when weights are not of an architecture: the first five keys, or both shapes, are named."""
    missing, extra = [k for k in wanted if k not in given], [k for k in given if k not in wanted]
    if missing or extra:
        why = f"missing: {_first(missing)}; unknown: {_first(extra)}"
        hint = "the model, its arguments and its image size, that they are of"
        raise ModelError(f"the weights are not those of {name}", where=where, why=why, hint=hint)
    for key, tensor in wanted.items():
        if given[key].shape != tensor.shape:
            what = f"{tuple(given[key].shape)} in the file, {tuple(tensor.shape)} in {name}"
            hint = ""
            is_classifier = key.split(".")[-2:-1] in (["fc"], ["classifier"])
            if is_classifier and given[key].ndim and given[key].shape[0] != tensor.shape[0]:
                what = f"{given[key].shape[0]} classes in the file, {tensor.shape[0]} in the model ({what})"
                hint = f"num_classes={given[key].shape[0]}"
            raise ModelError("the weights have another shape", where=f"{where}: {key}", why=what, hint=hint)


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return (", ".join(keys[:5]) or "none") + more


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
