"""Networks assembled from the parts in `msresnet.nn`, and the factory that makes them by name."""

from msresnet.models.base import ImageModel
from msresnet.models.factory import create_model, list_models

__all__ = ["ImageModel", "create_model", "list_models"]
