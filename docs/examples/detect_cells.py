"""Find and count blood cells: train a detector on photographs with boxes, measure it, count what it finds.

Run it as python docs/examples/detect_cells.py BCCD, where BCCD is that data set (MIT licence), or any other folder in a
form that docs/detection.md names. It takes three quarters of an hour on one core; `--quick` only shows that it works.
"""

from __future__ import annotations

import sys
from collections import Counter

from msresnet import Detector


def main(data: str, quick: bool = False, folder: str = "cells") -> Detector:
    """Train on a folder, save the model, and print what it reaches and what it finds."""
    options = {  # with the network, what `msresnet train --recipe detect-cells` stands for
        "model_args": ("widths=[32,64,128,256]", "stem_width=32", "pyramid_width=64"),
        "image_size": (96, 96) if quick else (288, 384),
        "optimizer": "muon",
        "flip": 0.5,
        "validate_every": 5,
    }
    model = Detector("msresnet10", epochs=1 if quick else 60, batch_size=8, lr=0.015, options=options)
    print(model.fit(data).evaluate(data))  # of the test set, if there is one
    model.save(folder)
    for image in model.predict(data)[:5]:
        names = [image.class_names[index] for index in image.classes[0]]
        print(image.ids[0], dict(Counter(names)))
    return model


if __name__ == "__main__":
    main(sys.argv[1], quick="--quick" in sys.argv[2:])
