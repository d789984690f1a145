"""The article's second workflow: MNIST, trained with validation, then evaluated.

Run: python docs/examples/mnist.py [folder with the four IDX files]
"""

from __future__ import annotations

import sys
from pathlib import Path

from msresnet import Classifier
from msresnet.data.sources.idx import idx_splits
from msresnet.data.sources.mnist import mnist
from msresnet.results import Evaluation


def main(folder: Path | None = None, epochs: int = 10) -> Evaluation:
    # Load the MNIST data set
    sets = mnist() if folder is None else idx_splits(folder)
    y_train, y_test = sets["train"].targets, sets["test"].targets

    # Preprocess the image data
    x_train = sets["train"].images[:, 0].astype("float32") / 255.0
    x_test = sets["test"].images[:, 0].astype("float32") / 255.0

    # Train with the last training images as validation, then evaluate on the test set
    held_out = len(x_train) // 12
    train, validation = slice(None, -held_out), slice(-held_out, None)
    model = Classifier("msresnet_micro")
    model.fit(x_train[train], y_train[train], epochs=epochs, validation_data=(x_train[validation], y_train[validation]))
    return model.evaluate(x_test, y_test)


if __name__ == "__main__":
    figures = main(Path(sys.argv[1]) if len(sys.argv) > 1 else None).metrics
    print(f"top-1 {100 * figures['top1']:.2f} % on {figures['n']:,} test images")
