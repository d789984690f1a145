"""Which layers 8 bits hurt, found by measuring: those stay in float until the task's figure is good enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msresnet.deploy.compress.int8 import Float, Ready, quantised
from msresnet.infer.backend import Outputs
from msresnet.infer.backends.onnxruntime import OnnxRuntime
from msresnet.infer.config import Running

if TYPE_CHECKING:
    from onnx import ModelProto

BATCH = 16


@dataclass(frozen=True)
class Chosen:
    """A quantised network.

    Args:
        proto: the network.
        kept: the layers that stay in float, the most sensitive first.
        layers: how many there are.
        drop: how much less the task's figure is on the images that chose.
    """

    proto: ModelProto
    kept: tuple[str, ...]
    layers: int
    drop: float

    def words(self) -> str:
        """What was chosen, in one line."""
        kept = f"; in float: {', '.join(self.kept)}" if self.kept else ""
        return f"{self.layers - len(self.kept)} of {self.layers} layers in 8 bits{kept}"


def choose(found: Float, bits: int, images: Ready, drop: Callable[[ModelProto], float], bound: float) -> Chosen:
    """Quantise all layers, or leave the worst in float: none, one, two, four and so on, until `drop` is within a bound.

    Args:
        found: the calibrated network.
        bits: of the weights.
        images: (N, C, H, W) uint8, to see what each layer does alone.
        drop: how much less the task's figure is with a network, on images that nothing else is decided by.
        bound: the most that it may be.
    """
    count, worst = 0, tuple[str, ...]()
    while True:
        network = quantised(found, worst[:count], bits)
        lost = drop(network)
        if lost <= bound or count >= len(found.layers):
            return Chosen(network, worst[:count], len(found.layers), lost)
        worst = worst or ranked(found, bits, images)
        count = min(len(found.layers), max(1, 2 * count))


def ranked(found: Float, bits: int, images: Ready) -> tuple[str, ...]:
    """The layers, the most sensitive first: by how much noise each alone brings into the network's outputs."""
    exact = _outputs(found.file.read_bytes(), images)
    everything = {*found.layers, *found.others}
    noise = {}
    for layer in found.layers:
        alone = quantised(found, everything - {layer}, bits)
        answers = _outputs(alone.SerializeToString(), images)
        noise[layer] = float(np.square(answers - exact).sum())
    return tuple(sorted(noise, key=noise.__getitem__, reverse=True))


def _outputs(contents: bytes, images: Ready) -> Outputs:
    """What a network gives for images, in float64."""
    backend = OnnxRuntime(contents, "int8", "the network", Running())
    parts = [backend(images[start : start + BATCH])[0] for start in range(0, len(images), BATCH)]
    return np.concatenate(parts).astype(np.float64)
