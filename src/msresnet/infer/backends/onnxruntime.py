"""ONNX Runtime on the CPU, or on a GPU where its package for one is installed. No torch here."""

from __future__ import annotations

from typing import Any

import numpy as np

from msresnet.errors import ModelError, UsageError, some
from msresnet.infer.backend import INPUT, Backend, Exits, Outputs, Pixels, threads_for
from msresnet.infer.backends.artefact import missing
from msresnet.infer.config import Running

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime(Backend):
    """A session over an ONNX model.

    Args:
        contents: the model's bytes; all of it.
        precision: of the model.
        where: what the model is called in messages.
        how: the device 'auto' is the CPU.

    Raises ModelError for what cannot be run, UsageError for a device that is not here, ResourceError without the
    package.
    """

    name = "onnxruntime"

    def __init__(self, contents: bytes, precision: str, where: str, how: Running) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise missing("ONNX Runtime", error) from error
        kind = "cpu" if how.device == "auto" else how.device.partition(":")[0]
        if PROVIDERS.get(kind) not in onnxruntime.get_available_providers():
            why = "this ONNX Runtime has no such device"
            raise UsageError(f"--device {how.device} with ONNX Runtime", why=why, hint="--device cpu")
        self.precision, self.where = precision, where
        self.threads, why = threads_for(how.threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        try:
            self.session: Any = onnxruntime.InferenceSession(contents, options, providers=[PROVIDERS[kind]])
        except Exception as error:  # its classes share no base of their own
            text = " ".join(str(error).split())[:300]
            raise ModelError(
                "ONNX Runtime cannot run the model", where=where, why=text, hint="export it again"
            ) from error
        self.reason = f"ONNX Runtime {onnxruntime.__version__}, {precision}, {some(self.threads, 'thread')} ({why})"

    def __call__(self, images: Pixels) -> tuple[Outputs, Exits | None]:
        """Images (B, C, H, W) uint8 -> outputs (B, ...)."""
        try:
            (outputs,) = self.session.run(None, {INPUT: np.ascontiguousarray(images)})
        except Exception as error:  # its classes share no base of their own
            shape, text = "x".join(map(str, images.shape)), " ".join(str(error).split())[:300]
            raise ModelError(f"ONNX Runtime cannot answer images of {shape}", where=self.where, why=text) from error
        return outputs, None
