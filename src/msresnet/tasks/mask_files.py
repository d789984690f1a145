"""Masks as files: palette PNGs whose values are the class indices, in colours that people can look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from msresnet.data.sample import Image
from msresnet.files import write_atomic
from msresnet.tasks.palette import palette


def save_mask(mask: Image, classes: int, path: Path) -> None:
    """Write class indices (H, W) as a palette PNG. Raises ResourceError when that fails."""
    # Not a copy: a mask may be as large as what a machine can hold.
    picture = Pillow.frombuffer("P", (mask.shape[1], mask.shape[0]), np.ascontiguousarray(mask), "raw", "P", 0, 1)
    picture.putpalette(palette(classes).tobytes())
    write_atomic(path, lambda part: picture.save(part, "PNG"))
