"""A bundle for other runtimes: written, opened again, and compared with the original on real images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from msresnet.bundle import Bundle
from msresnet.deploy.agreement import Agreement, Ready, agreement, check_same
from msresnet.deploy.config import Form
from msresnet.deploy.package import (
    CARD,
    TRITON,
    About,
    describe,
    new_folder,
    write_onnx,
    write_openvino,
    write_program,
)
from msresnet.deploy.suppression import FILE, check_answers, rules_of, suppressed
from msresnet.infer.backend import Backend, Exits, Outputs, Pixels
from msresnet.infer.backends.artefact import VERSION
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.backends.graph import dims_of, onnx_model, program_of
from msresnet.infer.backends.opened import open_predictor
from msresnet.infer.config import Running
from msresnet.infer.predictor import Predictor
from msresnet.trained import exported_config

ALONE, FEW = "openvino, one image at a time", 16
"""Another network than for batches, since OpenVINO compiles one for single images, and how many it is asked about."""


@dataclass(frozen=True)
class Packaged:
    """A package: where it lies, its model's file, its bytes, and how it compares with the original by each runtime."""

    folder: Path
    file: Path
    size: int
    agreements: dict[str, Agreement]
    free: bool
    suppressed: Path | None = None
    """The file with suppression inside, if there is one."""


class Program(Backend):
    """A torch.export program that was read again, only to be compared."""

    name, precision = "torch.export", "fp32"

    def __init__(self, file: Path) -> None:
        # What was written a moment ago may be read; files of others are never loaded, since torch may unpickle there.
        self.network = torch.export.load(file).module()
        self.threads, self.reason = torch.get_num_threads(), "torch.export"

    @torch.inference_mode()
    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        """Images (B, C, H, W) uint8 -> outputs (B, ...)."""
        return self.network(torch.as_tensor(images)).numpy(), None


def export(
    bundle: Bundle,
    form: Form,
    place: Path,
    images: Ready,
    ids: Sequence[str],
    *,
    max_batch: int = 64,
    nms: bool = False,
) -> Packaged:
    """Write a package; it appears only if its answers are those of the bundle.

    Args:
        bundle: the model.
        form: of the file.
        place: the package's folder, whose name is the model's for servers.
        images: to compare on, preprocessed (N, C, H, W) uint8.
        ids: of the images.
        max_batch: the largest batch that Triton may put together.
        nms: of a detector, whether a file with suppression inside is written as well.

    Raises ModelError where the network does not go into the form or answers otherwise there; UsageError, ResourceError.
    """
    rules = rules_of(bundle.postprocess, form) if nms else None
    with new_folder(place, (TRITON, CARD, VERSION, FILE)) as folder:
        program = program_of(bundle)
        if form == "torch":
            file = write_program(folder, program, exported_config(bundle, "fp32"))
        else:
            proto = onnx_model(bundle, program)
            file = write_onnx(folder, proto) if form == "onnx" else write_openvino(folder, proto)
        original = predictor_of(bundle, "cpu", 16)
        found = {name: agreement(original, p, images, ids) for name, p in _runtimes(bundle, form, file).items()}
        if "openvino" in found:
            alone = open_predictor(file, Running(backend="openvino", batch_size=1))
            found[ALONE] = agreement(original, alone, images[:FEW], ids[:FEW])
        for each in found.values():
            check_same(each, str(place))
        proof = "; ".join(f"{name}: {each.words()}" for name, each in found.items())
        about = About(place.name, form, "fp32", *dims_of(program), proof, max_batch)
        if rules is not None:
            (folder / FILE).write_bytes(suppressed(proto, bundle.task.class_names, rules).SerializeToString())
            check_answers(folder / FILE, original, images)
        describe(folder, bundle, about)
        inner, size = file.relative_to(folder), sum(f.stat().st_size for f in file.parent.iterdir())
    return Packaged(place, place / inner, size, found, -1 in about.taken, place / FILE if nms else None)


def _runtimes(bundle: Bundle, form: Form, file: Path) -> dict[str, Predictor]:
    """The file at work in all that runs it here, by name."""
    if form == "torch":
        return {Program.name: Predictor(bundle, Program(file), 16)}
    names: tuple[Literal["onnxruntime", "openvino"], ...] = ("openvino",)
    if form == "onnx":
        names = ("onnxruntime", "openvino") if _has_openvino() else ("onnxruntime",)
    return {name: open_predictor(file, Running(backend=name, batch_size=16)) for name in names}


def _has_openvino() -> bool:
    from importlib.util import find_spec

    return find_spec("openvino") is not None


def summary(found: Packaged) -> dict[str, Any]:
    """Plain values for the screen."""
    return {
        "folder": str(found.folder),
        "file": str(found.file),
        "bytes": found.size,
        "any_size": found.free,
        **({} if found.suppressed is None else {"detections": str(found.suppressed)}),
        "agreement": {name: each.to_dict() for name, each in found.agreements.items()},
    }
