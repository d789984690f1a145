"""Who takes part in a benchmark: each model by each backend and precision that can be here.

Files for other runtimes are made once, before anything is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch

from msresnet.bundle import Bundle, load_bundle
from msresnet.data.preprocess import Preprocess
from msresnet.deploy.agreement import Ready
from msresnet.deploy.benchmark.config import BenchmarkConfig
from msresnet.deploy.benchmark.peers import is_peer
from msresnet.errors import MsresnetError, UsageError
from msresnet.infer.backends.artefact import find_file, stamp
from msresnet.infer.backends.graph import onnx_model
from msresnet.models.factory import MODELS, create_network
from msresnet.runtime import choose_precision
from msresnet.tasks.known import USUAL
from msresnet.trained import exported_config

CLASSES, CALIBRATION = 1000, 32
HALF = (0.5, 0.5, 0.5)
WEIGHT_BITS = 7
"""Of int8, as `msresnet compress` takes them unless asked otherwise."""
NATIVE = ("torch", "compiled")


@dataclass(frozen=True)
class Contestant:
    """A model and what runs it.

    Args:
        model: as the user named it.
        way: backend, and a precision that is not float32, such as 'openvino-int8'.
        asked: what its process opens.
        trained: whether its answers mean something.
    """

    model: str
    way: str
    asked: dict[str, Any]
    trained: bool


def contestants(model: str, config: BenchmarkConfig, images: Ready | None, folder: Path) -> list[Contestant]:
    """All ways in which a model can run here, or those that are asked for.

    Args:
        model: as the user named it.
        config: which ways, how many threads, and the size of the images of networks that were not trained.
        images: to calibrate int8 on, preprocessed (N, C, H, W) uint8; None takes noise for what was not trained.
        folder: for files, which are read as long as anything is measured.

    Raises ModelError and UsageError for a model that cannot be opened, UsageError for a way that it cannot run in.
    """
    if is_peer(model):
        asked = {"peer": model, "size": config.size, "device": config.device, "threads": config.threads}
        return [Contestant(model, "torch", asked, trained=False)]
    file = find_file(model)
    if file is not None:
        return _of_file(model, file, config)
    size = config.size if not Path(model).exists() and model in MODELS else None
    bundle = load_bundle(model) if size is None else untrained(model, size)
    maker = Maker(bundle, model, config.device, size, images, Path(mkdtemp(dir=folder)))
    ways = _possible() if config.ways is None else config.ways
    return [Contestant(model, way, maker.asked(way) | {"threads": config.threads}, size is None) for way in ways]


def untrained(name: str, size: int) -> Bundle:
    """A network with random weights, for its speed; BatchNorm has seen nothing, which changes no speed."""
    arguments: dict[str, Any] = {"num_classes": CLASSES, "in_chans": 3, "img_size": [size, size]}
    torch.manual_seed(0)
    task = USUAL([str(index) for index in range(CLASSES)])
    network = create_network(task.head, name, **arguments).eval()
    return Bundle(network, name, arguments, task, Preprocess((size, size), 3, mean=HALF, std=HALF))


def _of_file(model: str, file: Path, config: BenchmarkConfig) -> list[Contestant]:
    runs = ("openvino",) if file.suffix == ".xml" else ("onnxruntime", "openvino")
    chosen = [name for name in runs if (find_spec(name) if config.ways is None else name in config.ways)]
    if not chosen:
        raise UsageError(f"{model} runs in none of {config.backends}", hint=f"--backends {','.join(runs)}")
    asked = {"path": str(file), "threads": config.threads}
    return [Contestant(model, way, asked | {"backend": way}, trained=True) for way in chosen]


def _possible() -> list[str]:
    """All ways that are here, but for torch.compile."""
    found = ["torch"]
    for backend in ("onnxruntime", "openvino"):
        if find_spec(backend) is not None and find_spec("onnxscript") is not None:
            found += [backend, *(["openvino-bf16"] if backend == "openvino" and _has_bf16() else [])]
            found += [f"{backend}-int8"]
    return found


def _has_bf16() -> bool:
    try:
        return choose_precision("auto", torch.device("cpu"))[0] == "bf16"
    except MsresnetError:
        return False


class Maker:
    """What the processes of a bundle's ways open, in a folder of its own.

    Args:
        bundle, model: the model, and as the user named it.
        device: where torch runs it.
        size: of the images of a network that was not trained; None for others.
        images: as for `contestants`.
        folder: an empty one.
    """

    def __init__(  # noqa: PLR0917
        self, bundle: Bundle, model: str, device: str, size: int | None, images: Ready | None, folder: Path
    ) -> None:
        self.bundle, self.model, self.device, self.size = bundle, model, device, size
        self.images, self.folder = images, folder
        self.proto: Any = None

    def asked(self, way: str) -> dict[str, Any]:
        """What the process of a way opens; its file is made where there is none yet."""
        backend, _, precision = way.partition("-")
        if backend in NATIVE:
            here = {"path": self.model} if self.size is None else {"network": self.model, "size": self.size}
            return {**here, "backend": backend, "device": self.device}
        file = self.folder / f"{'int8' if precision == 'int8' else 'float'}.onnx"
        if not file.exists():
            self.proto = onnx_model(self.bundle) if self.proto is None else self.proto
            made = in_int8(self.bundle, self.proto, self.images) if precision == "int8" else self.proto
            file.write_bytes(made.SerializeToString())
        return {"path": str(file), "backend": backend, "precision": "bf16" if precision == "bf16" else "auto"}


def in_int8(bundle: Bundle, proto: Any, images: Ready | None) -> Any:
    """The network in int8, all layers; `msresnet compress` is what watches over the answers."""
    from msresnet.deploy.compress.int8 import calibrated, quantised

    if images is None:
        shape = (CALIBRATION, bundle.preprocess.channels, *bundle.preprocess.size)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with calibrated(proto, images[:CALIBRATION]) as found:
        return stamp(quantised(found, (), WEIGHT_BITS), exported_config(bundle, "int8"))
