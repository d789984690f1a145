"""The article's first workflow: a text file of pixels, made grey, thresholded, binary, then trained on and evaluated.

The file holds one image a row, its label first, as `numpy.loadtxt("image_data.txt", delimiter=",")` reads it.
Run: python docs/examples/text_file.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from msresnet import Classifier
from msresnet.results import Evaluation


def make_text_file(path: Path) -> None:
    """Write scikit-learn's digits as text: the label, then 64 pixels from 0 to 255."""
    digits = load_digits()
    rows = np.column_stack([digits.target, np.rint(digits.data * 255 / 16)])
    np.savetxt(path, rows, fmt="%d", delimiter=",")


def main(folder: Path = Path(), epochs: int = 40) -> Evaluation:
    # Load the image data
    make_text_file(folder / "image_data.txt")
    image_data = np.loadtxt(folder / "image_data.txt", delimiter=",", dtype=float)
    labels, images = image_data[:, 0].astype(int), image_data[:, 1:].reshape(-1, 8, 8)
    train, test = slice(0, 1400), slice(1400, None)

    # Grey, a threshold chosen for each image, black and white
    binary = {"channels": 1, "threshold": "otsu", "binary": True}
    model = Classifier("msresnet_micro", options=binary)

    # Train and evaluate
    model.fit(images[train], labels[train], epochs=epochs, batch_size=32)
    return model.evaluate(images[test], labels[test])


if __name__ == "__main__":
    figures = main().metrics
    print(f"top-1 {100 * figures['top1']:.2f} % on {figures['n']} binary images that training never saw")
