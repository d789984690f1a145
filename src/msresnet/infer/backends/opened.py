"""From a path to a model at work: which backend runs it, and why. Torch is loaded only where it is what runs."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from msresnet.errors import ModelError, UsageError
from msresnet.infer.backend import Backend
from msresnet.infer.backends.artefact import find_file, read_bytes, read_config, read_onnx
from msresnet.infer.config import Engine, Running
from msresnet.infer.predictor import Predictor
from msresnet.trained import Trained

if TYPE_CHECKING:
    from msresnet.bundle import Bundle

NATIVE = ("torch", "compiled")
USUAL = Running()
Shape = tuple[int, ...]


def open_predictor(path: str | Path, how: Running = USUAL) -> Predictor:
    """A trained model at work: a run's folder, a bundle, hf:user/repo, or an exported file or folder.

    Raises ModelError for a model that cannot be loaded, UsageError for what it cannot do, ResourceError for what lacks.
    """
    file = find_file(path)
    if file is not None:
        return _run_file(file, how)
    from msresnet.bundle import load_bundle

    return run_bundle(load_bundle(path), how)


def bundle_at(path: str | Path, wanted: str) -> Bundle:
    """The bundle at a path, as `load_bundle`. Raises UsageError, naming what is wanted, for an exported file."""
    from msresnet.bundle import load_bundle, only_answers

    if find_file(path) is not None:
        raise only_answers(wanted)
    return load_bundle(path)


def engine_of(path: str | Path, asked: Engine) -> Engine:
    """What runs a model: as asked, else torch for a bundle, for an exported file the fastest that is installed.

    On CPUs OpenVINO was the faster in every measurement (benchmarks/results/inference.md).
    """
    if asked != "auto":
        return asked
    file = find_file(path)
    if file is None:
        return "torch"
    return "openvino" if file.suffix == ".xml" or find_spec("openvino") is not None else "onnxruntime"


def run_bundle(bundle: Bundle, how: Running = USUAL) -> Predictor:
    """A bundle at work on any backend; raises as `open_predictor` does."""
    if how.backend in ("auto", *NATIVE):
        from msresnet.infer.backends.eager import Eager

        return Predictor(bundle, Eager(bundle, how), how.batch_size)
    _check_plain(how, bundle.architecture)
    from msresnet.infer.backends.graph import onnx_model

    contents = onnx_model(bundle).SerializeToString()
    precision = "fp32" if how.precision == "auto" else how.precision
    backend = _onnx(how.backend, contents, precision, bundle.architecture, how, _alone(bundle, how))
    return Predictor(bundle, backend, how.batch_size)


def _run_file(file: Path, how: Running) -> Predictor:
    if how.backend in NATIVE:
        why = "torch runs bundles"
        raise UsageError(
            f"--backend {how.backend} with an exported model", where=str(file), why=why, hint="leave it out"
        )
    _check_plain(how, str(file))
    if file.suffix == ".xml":
        return _run_openvino(file, how)
    contents, trained = read_onnx(file)
    engine = engine_of(file, how.backend)
    precision = _precision(how, trained.precision, file)
    backend = _onnx(engine, contents, precision, str(file), how, _alone(trained, how))
    if how.backend == "auto":
        backend.reason += ": the fastest that is installed"
    return Predictor(trained, backend, how.batch_size)


def _run_openvino(file: Path, how: Running) -> Predictor:
    from msresnet.infer.backends.openvino import OpenVino, read_model

    if how.backend == "onnxruntime":
        raise UsageError("--backend onnxruntime with an OpenVINO model", where=str(file), hint="--backend openvino")
    read_bytes(file)  # says what is wrong with what is not a file
    model, text, digest = read_model(file)
    network = hashlib.sha256(read_bytes(file.with_suffix(".bin"))).hexdigest()
    trained = read_config(text, network, str(file))
    if digest != network:
        why = "the SHA-256 of its weights differs from the recorded one"
        raise ModelError("the model is damaged", where=str(file.with_suffix(".bin")), why=why, hint="export it again")
    precision = _precision(how, trained.precision, file)
    backend = OpenVino(model, precision, str(file), how, _alone(trained, how))
    return Predictor(trained, backend, how.batch_size)


def _alone(trained: Trained, how: Running) -> Shape | None:
    """The shape of images (1, C, H, W) that come one at a time, where they do."""
    return (1, trained.preprocess.channels, *trained.preprocess.size) if how.batch_size == 1 else None


def _onnx(  # noqa: PLR0917
    engine: Engine, contents: bytes, precision: str, where: str, how: Running, alone: Shape | None
) -> Backend:
    if engine == "openvino":
        from msresnet.infer.backends.openvino import OpenVino

        return OpenVino(contents, precision, where, how, alone)
    from msresnet.infer.backends.onnxruntime import OnnxRuntime

    if precision == "bf16":
        why = "ONNX Runtime computes in float32 here"
        raise UsageError("--precision bf16 with ONNX Runtime", where=where, why=why, hint="--backend openvino")
    return OnnxRuntime(contents, precision, where, how)


def _check_plain(how: Running, where: str) -> None:
    """Raise UsageError for what only torch can do."""
    for flag, given in (("budget", how.limit is not None), ("tta", how.tta != "none")):
        if given:
            why = "an exported network goes from one end to the other, once"
            raise UsageError(f"--{flag} outside torch", where=where, why=why, hint="a run, with --backend torch")


def _precision(how: Running, made_for: str, file: Path) -> str:
    """In what a file is run. Raises UsageError where that contradicts what it was made for."""
    if how.precision in ("auto", made_for):
        return made_for
    if how.precision == "bf16" and made_for == "fp32":
        return "bf16"
    why = f"it was exported in {made_for}"
    raise UsageError(f"--precision {how.precision}", where=str(file), why=why, hint="leave it out")
