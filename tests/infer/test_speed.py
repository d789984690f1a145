"""How fast a model answers is measured once it is warm."""

from __future__ import annotations

import time

import pytest
import torch

from explained import bundle
from msresnet.data.sets import Decoded
from msresnet.infer.backend import Exits, Outputs, Pixels
from msresnet.infer.backends.eager import Eager, predictor_of
from msresnet.infer.evaluate import evaluate


def test_the_first_answer_which_pays_for_what_is_made_once_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, waits = Eager.__call__, [1.0]

    def slow_at_first(self: Eager, images: Pixels) -> tuple[Outputs, Exits | None]:
        if waits:
            time.sleep(waits.pop())
        return answer(self, images)

    monkeypatch.setattr(Eager, "__call__", slow_at_first)
    images = torch.randint(0, 256, (6, 1, 20, 20), dtype=torch.uint8)
    data = Decoded(images, torch.arange(6) % 3, [str(i) for i in range(6)])
    assert evaluate(predictor_of(bundle(), "cpu"), data, "given").metrics["inference_images_per_second"] > 6
