"""OpenVINO on the CPU. No torch here.

Models are read by its runtime alone: its converter reports its use to others, and is never called.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np

from msresnet.errors import ModelError, UsageError, some
from msresnet.infer.backend import Backend, Exits, Outputs, Pixels, threads_for
from msresnet.infer.backends.artefact import DIGEST, META, missing
from msresnet.infer.config import Running

Shape = tuple[int, ...]
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""In which precision OpenVINO computes what the model leaves open."""


class OpenVino(Backend):
    """A model that OpenVINO compiled: for images of any number and size, or for the one shape that comes.

    Args:
        model: an ONNX model's bytes, or what `read_model` gave.
        precision: of the model; bf16 is taken where the processor computes in it.
        where: what the model is called in messages.
        how: the device is 'auto' or 'cpu'.
        alone: the shape (1, C, H, W) of images that come one at a time: those are answered sooner by a network that was
            compiled for nothing else. Other shapes are compiled for when the first comes.

    Raises ModelError for what cannot be run, UsageError for a device that is not here, ResourceError without the
    package.
    """

    name = "openvino"

    def __init__(self, model: Any, precision: str, where: str, how: Running, alone: Shape | None = None) -> None:
        if how.device not in ("auto", "cpu"):
            raise UsageError(f"--device {how.device} with OpenVINO", why="it runs on the CPU here", hint="--device cpu")
        self.precision, self.where = precision, where
        self.threads, why = threads_for(how.threads)
        self.settings = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": str(self.threads),
            "NUM_STREAMS": "1",
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned, the threads of every process would take the same first cores, however many there are.
            "ENABLE_CPU_PINNING": "NO",
        }
        self.core = load_core()
        self.requests: dict[Shape | None, Any] = {}
        try:
            self.network = self.core.read_model(model) if isinstance(model, bytes) else model
            self.requests[alone] = self._compiled(alone)
        except RuntimeError as error:
            raise ModelError(
                "OpenVINO cannot run the model", where=where, why=short(error), hint="export it again"
            ) from error
        self.one_at_a_time = Lock()
        self.reason = f"OpenVINO, {precision}, {some(self.threads, 'thread')} ({why})"

    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        """Images (B, C, H, W) uint8 -> outputs (B, ...)."""
        images = np.ascontiguousarray(images)
        # A request refuses a second thread while it computes, and writes every answer to the same place.
        with self.one_at_a_time:
            try:
                found = self._request(images.shape).infer([images])
            except RuntimeError as error:
                shape, why = "x".join(map(str, images.shape)), short(error)
                raise ModelError(f"OpenVINO cannot answer images of {shape}", where=self.where, why=why) from error
            outputs = np.array(found[0])
        if len(outputs) != len(images):  # what of other channels comes to, without a word
            shape = "x".join(map(str, images.shape))
            why = f"{len(outputs)} answers came for {len(images)}; the network takes others"
            raise ModelError(f"OpenVINO cannot answer images of {shape}", where=self.where, why=why)
        return outputs, None

    def _request(self, shape: Shape) -> Any:
        """What computes images of a shape."""
        if shape in self.requests:
            return self.requests[shape]
        if None not in self.requests:
            self.requests[None] = self._compiled(None)
        return self.requests[None]

    def _compiled(self, shape: Shape | None) -> Any:
        """A request to the network, compiled for one shape or for any."""
        network = self.network
        if shape is not None:
            network = network.clone()
            network.reshape(list(shape))
        return self.core.compile_model(network, "CPU", self.settings).create_infer_request()


class _Stack(ctypes.Structure):
    """What sigaltstack takes and gives."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _own_stack() -> Iterator[None]:
    """Within this, what gives the thread another stack for signal handlers gives it in vain."""
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)


def load_core() -> Any:
    """OpenVINO's entrance. Raises ResourceError without the package.

    Its CPU plugin comes with a stack for signal handlers, and unmaps it when it goes. Where it goes in another thread,
    or after one that came later, the thread would be left with a stack that is gone, and the next signal that Python
    handles, such as SIGTERM, would end the process by SIGSEGV; so the thread keeps the one it has.
    """
    try:
        import openvino
    except ImportError as error:
        raise missing("OpenVINO", error) from error
    with _own_stack():
        core = openvino.Core()
        core.get_property("CPU", "FULL_DEVICE_NAME")  # which loads the plugin
    return core


def read_model(path: Path) -> tuple[Any, str | None, str | None]:
    """An OpenVINO model, the config and the digest that it carries. Raises ModelError for what is none."""
    core = load_core()
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:
        hint = "export it again; the .bin belongs beside the .xml"
        raise ModelError("no whole OpenVINO model", where=str(path), why=short(error), hint=hint) from error
    return model, _carried(model, META), _carried(model, DIGEST)


def _carried(model: Any, key: str) -> str | None:
    return cast(str, model.get_rt_info(key).astype(str)) if model.has_rt_info(key) else None


def short(error: Exception) -> str:
    """The end of what OpenVINO says, which names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[-2:])[:300]
