"""What is computed from a bundle without training, as an exported folder: folded, in bfloat16, or in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from msresnet.bundle import Bundle
from msresnet.data.sets import Samples
from msresnet.deploy.agreement import agreement
from msresnet.deploy.compress.bf16 import Rounded, bf16_model, has_bf16
from msresnet.deploy.compress.config import CompressConfig
from msresnet.deploy.compress.data import Data
from msresnet.deploy.compress.int8 import Ready, calibrated
from msresnet.deploy.compress.made import Given, Made, Scores, Watcher, backends, engines
from msresnet.deploy.compress.sensitive import choose
from msresnet.deploy.package import About, describe, write_onnx
from msresnet.errors import QualityGateError, ResourceError
from msresnet.infer.backend import Backend
from msresnet.infer.backends.artefact import stamp
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.backends.graph import dims_of
from msresnet.infer.predictor import Predictor
from msresnet.trained import Exported, exported_config

if TYPE_CHECKING:
    from onnx import ModelProto

SENSITIVE = 0.005
"""int8: what the task's figure may lose on validation images unless --max-drop says otherwise."""
JUDGED, ALONE, COMPARED = 2000, 64, 64
"""Images that layers are chosen by, that each layer is looked at alone with, and that runtimes are compared on."""


def pack(given: Given, data: Data, config: CompressConfig, name: str, watcher: Watcher) -> Made:
    """A bundle as one ONNX file, folded; in bfloat16 or in 8 bits where that is asked.

    Args:
        given: the model.
        data: of it: training images calibrate, validation images choose.
        config: what is wanted.
        name: of the folder, by which servers know the model.
        watcher: who is told.

    Raises ResourceError without the packages, ModelError for a network that does not go into ONNX.
    """
    bundle, network, precision, words = given.bundle, given.proto, "fp32", list[str]()
    if config.to == "int8":
        (network, words), precision = _int8(bundle, data, config, network), "int8"
        watcher.notes(words)
    elif config.to == "bf16":
        network, precision = bf16_model(network), "bf16"
    values = exported_config(bundle, precision)
    predictors = _running(stamp(network, values), values)
    if config.to == "bf16":
        predictors.append(Predictor(bundle, Rounded(bundle)))
        watcher.notes([f"bf16: {has_bf16()[1]}; torch's autocast rounds as such arithmetic does"])

    def write(folder: Path, scores: Scores) -> None:
        told = Exported(values | {"scores": values["scores"] | scores})
        write_onnx(folder, stamp(network, told.config()))
        images, ids = pixels(data.sets["train"], bundle, data.some("train", COMPARED, config.seed))
        original = predictor_of(bundle, "cpu")
        found = [f"{p.backend.name}: {agreement(original, p, images, ids).words()}" for p in predictors]
        proof = "; ".join([*words, *found])
        describe(folder, told, About(name, "onnx", precision, *dims_of(given.program), proof))

    return Made(predictors, len(network.SerializeToString()), alike=precision == "fp32", write=write)


def pixels(data: Samples, bundle: Bundle, indices: Tensor) -> tuple[Ready, list[str]]:
    """Some preprocessed images of a set, (M, C, H, W) uint8, and their ids; unreadable ones are left out."""
    batches = list(data.batches(indices.split(64), torch.device("cpu")))
    found = torch.cat([batch.indices for batch in batches]).tolist()
    images = np.concatenate([batch.images.numpy() for batch in batches])[:, : bundle.preprocess.channels]
    return np.ascontiguousarray(images), [data.ids[i] for i in found]


def _running(network: ModelProto, values: dict[str, object]) -> list[Predictor]:
    """A network in every runtime that takes its precision. Raises ResourceError where there is none."""
    told = Exported(values)
    names = [name for name in engines() if name == "openvino" or told.precision != "bf16"]
    if not names:
        hint = 'pip install "msresnet[export]"'
        raise ResourceError(f"nothing that runs networks in {told.precision} is installed", hint=hint)
    return [Predictor(told, backend) for backend in backends(network, told.precision, names)]


def _int8(bundle: Bundle, data: Data, config: CompressConfig, proto: ModelProto) -> tuple[ModelProto, list[str]]:
    """The network in 8 bits, the layers that bear it least in float, and what was chosen, in words."""
    chosen = data.some("train", config.calibration, config.seed)
    images, _ = pixels(data.sets["train"], bundle, chosen)
    ranges = f"int8: ranges of activations from {len(images):,} training images, drawn with seed {config.seed}"
    judges = "val" if "val" in data.sets else "train"
    judging = data.some(judges, JUDGED, config.seed)
    before = _figure(Predictor(bundle, _runtime(proto)), data.sets[judges], judging)
    bound = SENSITIVE if config.max_drop is None else config.max_drop

    def drop(network: ModelProto) -> float:
        return before - _figure(Predictor(bundle, _runtime(network)), data.sets[judges], judging)

    with calibrated(proto, images) as found:
        best = choose(found, config.weight_bits, images[:ALONE], drop, bound)
    metric = bundle.task.metric
    lost = f"{metric} falls by {best.drop:.4f} on {len(judging):,} {judges} images, at most {bound:g} was asked"
    if len(best.kept) == best.layers:
        why = f"{metric} falls by more than {bound:g} with any of them in 8 bits"
        raise QualityGateError("no layer bears 8 bits", why=why, hint="--max-drop 0.02, --weight-bits 8, or --to bf16")
    return best.proto, [ranges, f"int8: {best.words()}; {lost}"]


def _runtime(network: ModelProto) -> Backend:
    return backends(network, "int8", ("onnxruntime",))[0]


def _figure(predictor: Predictor, data: Samples, indices: Tensor) -> float:
    """The task's figure on some images of a set."""
    trained, parts, kept = predictor.trained, [], []
    for batch in data.batches(indices.split(predictor.batch_size), torch.device("cpu")):
        places = batch.indices.tolist()
        frames = [trained.preprocess.frame(data.size(i)) for i in places] if trained.postprocess.whole else None
        parts.append(predictor.predict_ready(batch.images, [data.ids[i] for i in places], frames))
        kept.append(batch.indices)
    results = type(parts[0]).joined(parts)
    measured = trained.task.evaluate(results, trained.task.truths(data, torch.cat(kept)))
    return float(measured.metrics[trained.task.metric])
