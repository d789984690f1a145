"""Checkpoints that survive a kill at any moment: one safetensors file each, with its own digest, renamed into place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from msresnet.errors import ModelError
from msresnet.files import disk_errors
from msresnet.tensors import load_tensors, save_tensors

KEPT = 2
"""Newest checkpoints that stay, so that one damaged by the disk leaves another."""
PATTERN = "epoch-*.safetensors"


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write a checkpoint named by its epoch and step, then remove all but the newest.

    Those of a later step are damaged ones that the run went back from; they go too.
    """
    path = folder / f"epoch-{state['epoch']:05d}-step-{state['step']:07d}.safetensors"
    save_tensors(path, tensors, state)
    with disk_errors(path):
        names = checkpoints(folder)
        place = names.index(path)
        for old in names[:place] + names[place + KEPT :]:
            old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    return sorted(folder.glob(PATTERN), reverse=True)


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Tensors and state of the newest whole checkpoint, and what was wrong with newer ones.

    Raises ModelError when there is none.
    """
    problems: list[str] = []
    for path in checkpoints(folder):
        try:
            tensors, state = load_tensors(path)
            return tensors, state, problems
        except ModelError as error:
            problems.append(f"{path.name}: {error.what}")
    raise ModelError(
        "there is no checkpoint to continue from",
        where=str(folder),
        why="; ".join(problems) or "the folder holds none",
        hint="--exist-ok in place of --resume starts over",
    )


def section(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names begin with '<name>/', without it."""
    return {key[len(name) + 1 :]: t for key, t in tensors.items() if key.startswith(f"{name}/")}


def prefixed(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under '<name>/'."""
    return {f"{name}/{key}": t for key, t in tensors.items()}
