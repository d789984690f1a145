"""msresnet: image recognisers built on multi-scale ResNets.

    import msresnet

    model = msresnet.Classifier().fit("folder/of/class/folders")
    print(model.predict("photo.jpg"))

Names are loaded when they are first used, so that `msresnet --help` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msresnet.detector import Detector as Detector
    from msresnet.estimator import Classifier as Classifier
    from msresnet.estimator import load as load
    from msresnet.models.factory import create_model as create_model
    from msresnet.models.factory import list_models as list_models
    from msresnet.nn.folding import fold as fold
    from msresnet.segmenter import Segmenter as Segmenter

_HOMES = {
    "Classifier": "msresnet.estimator",
    "Detector": "msresnet.detector",
    "Segmenter": "msresnet.segmenter",
    "load": "msresnet.estimator",
    "create_model": "msresnet.models.factory",
    "list_models": "msresnet.models.factory",
    "fold": "msresnet.nn.folding",
}
__all__ = ["Classifier", "Detector", "Segmenter", "create_model", "fold", "list_models", "load"]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("msresnet")
    if name not in _HOMES:
        raise AttributeError(f"module 'msresnet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
