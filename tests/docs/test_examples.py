"""The article's two workflows run as they are printed in the documentation."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.datasets import load_digits

from boxed import truth, voc
from msresnet.bundle import load_bundle

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_text_file_to_binary_images_to_a_classifier(tmp_path: Path) -> None:
    measured = example("text_file").main(tmp_path, epochs=12)
    assert measured.metrics["n"] == 397
    assert measured.metrics["top1"] > 0.85


def write_idx(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    """MNIST's format: magic number, dimensions, bytes; gzipped."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_mnist_workflow_on_files_of_the_same_form(tmp_path: Path) -> None:
    bunch = load_digits()
    images = np.kron(np.rint(bunch.images * 255 / 16), np.ones((1, 2, 2))).astype(np.uint8)
    for split, part in (("train", slice(0, 1200)), ("t10k", slice(1200, None))):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images[part])
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", bunch.target[part].astype(np.uint8))
    measured = example("mnist").main(tmp_path, epochs=8)
    assert measured.metrics["n"] == 597
    assert measured.metrics["top1"] > 0.85


@pytest.mark.slow
def test_mnist_workflow_on_mnist(shared_data: Path) -> None:
    assert example("mnist").main(shared_data / "mnist", epochs=1).metrics["top1"] > 0.97


def test_cells_are_found_in_a_folder_of_the_same_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, split in enumerate(("train", "val")):
        voc(tmp_path / "cells", {f"{number}{stem}": boxes for stem, boxes in truth(8, seed=number).items()}, split)
    model = example("detect_cells").main(str(tmp_path / "cells"), quick=True, folder=str(tmp_path / "model"))
    assert capsys.readouterr().out.startswith("AP ")
    assert load_bundle(tmp_path / "model").task.class_names == tuple(map(str, model.classes_))
