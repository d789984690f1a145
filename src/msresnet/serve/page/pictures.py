"""Pictures for the page, as text that stands in an answer: heat maps, masks, what a network saw. No torch here.

H and W pixels, C channels, K classes.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from msresnet.data.sample import Image
from msresnet.results import Results
from msresnet.tasks.palette import palette

Heat = npt.NDArray[np.float32]
GLOW = np.array([(76, 16, 110), (180, 40, 110), (240, 96, 60), (253, 178, 50), (253, 246, 178)], np.float64)
"""Colours of a heat map from where it begins to where it is hottest, each brighter than the one before."""
BRIGHTEST = 0.99
"""Share of the pixels of a heat map below the end of its scale: a few extreme ones would leave all others dark."""
LONGEST = 1024
"""Pixels of a mask's longer side for the page; more are seen by nobody and take seconds."""


def data_url(picture: Pillow.Image) -> str:
    """A picture as a data: URL of a PNG."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def as_seen(image: Image) -> str:
    """uint8 (1 or 3, H, W) as a data: URL."""
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    return data_url(Pillow.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels))


def glow(heat: Heat) -> str:
    """A heat map (H, W), 0 to 1, as a data: URL: the hotter, the brighter and the less transparent."""
    strength = np.clip(heat / max(float(np.quantile(heat, BRIGHTEST)), 1e-12), 0, 1)
    place = strength.astype(np.float64) * (len(GLOW) - 1)
    colours = [np.interp(place, range(len(GLOW)), GLOW[:, channel]) for channel in range(3)]
    layers = np.stack([*colours, 255 * strength**0.75], -1)
    return data_url(Pillow.fromarray(np.rint(layers).astype(np.uint8)))


def drawn(results: Results) -> dict[str, Any]:
    """What an answer about one image has to show beside its words: a mask and the colours of its classes, or nothing.

    {'mask': {'image': data: URL, 'colours': {label: '#rrggbb'}}}; the first class, mostly the background, is dark.
    """
    mask, names = results.mask, results.class_names
    if mask is None:
        return {}
    step = -(-max(mask.shape) // LONGEST)
    small = np.ascontiguousarray(mask[::step, ::step])
    colours = palette(max(3, len(names)))  # the palette of two is black and white, which no picture shines through
    picture = Pillow.frombytes("P", (small.shape[1], small.shape[0]), small.tobytes())
    picture.putpalette(colours.tobytes())
    shown = {names[index]: "#" + bytes(colours[index]).hex() for index in np.unique(mask).tolist()}
    return {"mask": {"image": data_url(picture), "colours": shown}}
