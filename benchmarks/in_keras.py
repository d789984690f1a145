"""The article's network in Keras, in an environment of its own that needs numpy and Keras alone.

`benchmarks.mnist` calls it: it takes the images as an .npz file, and prints one line of JSON at the end. Keras
trains as the article prints it: Adam, batch 32, 10 epochs, pixels divided by 255, the last epoch's weights; only the
labels are repaired.

Run: python benchmarks/in_keras.py IMAGES.npz [--seed 0] [--threads 2]
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np


def network(keras: Any) -> Any:
    """The article's layers, compiled for integer labels."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(128, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


def use_threads(keras: Any, threads: int) -> None:
    """Give the backend as many threads as the others have."""
    if keras.backend.backend() == "tensorflow":
        importlib.import_module("tensorflow").config.threading.set_intra_op_parallelism_threads(threads)
    elif keras.backend.backend() == "torch":
        importlib.import_module("torch").set_num_threads(threads)


def main() -> None:
    """Train, measure the test set once, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="an .npz of x_train, y_train, x_test, y_test; images (N, 28, 28)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    began = time.perf_counter()
    with np.load(args.images) as stored:
        arrays = {name: stored[name] for name in stored.files}
    x_train, x_test = (arrays[name][..., None].astype("float32") / 255.0 for name in ("x_train", "x_test"))
    import keras

    use_threads(keras, args.threads)
    keras.utils.set_random_seed(args.seed)
    model = network(keras)
    start = time.perf_counter()
    model.fit(x_train, arrays["y_train"], epochs=args.epochs, batch_size=args.batch_size, verbose=0)
    end = time.perf_counter()
    accuracy = float(model.evaluate(x_test, arrays["y_test"], verbose=0)[1])
    figures = {
        "name": f"Keras {keras.__version__} ({keras.backend.backend()}), the article's network",
        "accuracy": accuracy,
        "params": int(model.count_params()),
        "images": args.epochs * len(x_train),
        "seconds": end - start,
        "whole": end - began,
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
