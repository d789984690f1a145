"""Streams of inputs: in order, few ahead, batches that end where images are large."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hostile import encode, random_pixels
from msresnet.bundle import load_bundle
from msresnet.infer import stream
from msresnet.infer.backends.eager import predictor_of
from msresnet.infer.inputs import Input, expand
from msresnet.infer.predictor import Predictor
from msresnet.infer.stream import ahead, answer_all
from msresnet.results import Results, classified


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_few_are_taken_in_advance(workers: int) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(200):
            taken.append(number)
            yield number

    found = ahead(lambda n: n * n, numbers(), workers)
    for place, value in enumerate(found):
        assert value == place * place
        assert len(taken) - place <= stream.AHEAD * workers + 1
    assert len(taken) == 200


def test_a_stream_that_is_left_ends_its_threads() -> None:
    before = threading.active_count()
    found = ahead(lambda n: n, iter(range(1000)), 3)
    assert next(found) == 0
    found.close()
    assert threading.active_count() == before


def test_an_error_in_a_thread_is_raised_where_its_result_is_asked_for() -> None:
    found = ahead(lambda n: 1 // n, iter([1, 2, 0, 4]), 2)
    assert [next(found), next(found)] == [1, 0]
    with pytest.raises(ZeroDivisionError):
        next(found)


def images(count: int) -> list[Input]:
    return [Input(str(i), pixels=random_pixels(1, 30, 30, seed=i)) for i in range(count)]


def answered(predictor: Predictor, inputs: list[Input]) -> list[Results]:
    return [part.results for part in answer_all(predictor, inputs, 2) if part.results is not None]


def test_batches_are_full_unless_images_are_large(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = predictor_of(load_bundle(model), "cpu", batch_size=8)
    usual = answered(predictor, images(20))
    monkeypatch.setattr(stream, "MOST_BYTES", 3 * 900)
    small = answered(predictor, images(20))
    assert [len(part) for part in usual] == [8, 8, 4]
    assert [len(part) for part in small] == [3, 3, 3, 3, 3, 3, 2]
    together, apart = (np.concatenate([classified(p).probabilities for p in parts]) for parts in (usual, small))
    assert np.array_equal(together, apart)


def test_a_batch_of_which_nothing_can_be_read(model: Path, here: Path) -> None:
    (here / "bad.png").write_bytes(b"no image")
    (here / "good.png").write_bytes(encode(random_pixels(12, 12), "PNG"))
    predictor = predictor_of(load_bundle(model), "cpu", batch_size=1)
    parts = [*answer_all(predictor, expand(["bad.png", "good.png", "gone.png"], io.BytesIO()), 2)]
    assert [part.results is None for part in parts] == [True, False, True]
    assert [error.where for part in parts for error in part.bad] == ["bad.png", "gone.png"]
