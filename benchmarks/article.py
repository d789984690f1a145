"""The article's network in this trainer and in Keras, and the micro network beside them: accuracy and seconds.

Keras runs where it is installed, with whichever backend it finds; otherwise its row says so. Keras trains as the
article prints it: Adam, batch 32, 10 epochs, pixels divided by 255, the last epoch's weights. Here, `article_cnn` gets
the same epochs and batch size, and then both networks get the seconds of `--seconds`.

Run: python benchmarks/article.py --data mnist [--seconds 240] [--output benchmarks/results/article.md]
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msresnet.data.options import DataOptions
from msresnet.data.sample import ArraySource
from msresnet.data.splits import read_any
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.evaluate import evaluate
from msresnet.runtime import environment
from msresnet.train.config import TrainConfig
from msresnet.train.fit import fit

EPOCHS, BATCH = 10, 32


@dataclass(frozen=True)
class Row:
    """One contestant."""

    name: str
    params: int
    seconds: float
    accuracy: float


def ours(name: str, config: TrainConfig) -> Row:
    """Train with msresnet; the test set is measured once, at the end."""
    start = time.perf_counter()
    fitted = fit(config)
    seconds = time.perf_counter() - start
    measured = evaluate(predictor_of(fitted.bundle), fitted.sets["test"], "test")
    return Row(name, fitted.cost["params"], seconds, measured.metrics["top1"])


def in_keras(data: str) -> Row:
    """Train the article's code, repaired: sparse labels instead of one-hot ones."""
    import keras

    found, _ = read_any(data, DataOptions())
    train, test = found["train"], found["test"]
    assert isinstance(train, ArraySource)
    assert isinstance(test, ArraySource)
    layers: Any = keras.layers
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
    x_train, x_test = (s.images[:, 0, :, :, None].astype("float32") / 255.0 for s in (train, test))
    start = time.perf_counter()
    model.fit(x_train, train.targets, epochs=EPOCHS, batch_size=BATCH, verbose=2)
    seconds = time.perf_counter() - start
    accuracy = float(model.evaluate(x_test, test.targets, verbose=0)[1])
    return Row(
        f"Keras {keras.__version__} ({keras.backend.backend()}), article_cnn", model.count_params(), seconds, accuracy
    )


def main() -> None:
    """Run the contestants one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="MNIST as msresnet takes it")
    parser.add_argument("--seconds", type=int, default=240, help="time for each network in the second part")
    parser.add_argument("--output", type=Path, default=None, help="a file for the table")
    args = parser.parse_args()
    limit = f"{args.seconds}s"
    rows = [
        ours(
            "msresnet, article_cnn, same epochs",
            TrainConfig(data=args.data, model="article_cnn", epochs=EPOCHS, batch_size=BATCH),
        )
    ]
    if importlib.util.find_spec("keras") is not None:
        rows.insert(0, in_keras(args.data))
    rows += [
        ours(f"msresnet, {name}, {limit}", TrainConfig(data=args.data, model=name, time_limit=limit))
        for name in ("article_cnn", "msresnet_micro")
    ]
    table = ["| | parameters | seconds | test top-1 |", "|---|---|---|---|"]
    table += [f"| {r.name} | {r.params:,} | {r.seconds:.0f} | {100 * r.accuracy:.2f} % |" for r in rows]
    if len(rows) < 4:
        table.append("| Keras is not installed | | | |")
    machine = environment()
    here = f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, seed 0, one run each"
    text = "\n".join([*table, "", here, f"`python benchmarks/article.py --data MNIST --seconds {args.seconds}`", ""])
    print(text)
    if args.output is not None:
        args.output.write_text("# The article's network\n\n" + text, encoding="utf-8")


if __name__ == "__main__":
    main()
