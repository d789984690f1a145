"""Boxes of a batch: where their images lie in the network's input, and the same however a set is held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import boxed
from msresnet.boxes import Boxes
from msresnet.data.lazy import Lazy
from msresnet.data.loaders import decode
from msresnet.data.options import DataOptions
from msresnet.data.preprocess import Preprocess
from msresnet.data.resize import frame
from msresnet.data.sample import Relabelled, Subset
from msresnet.data.splits import read_any
from msresnet.data.targets import BoxTable, box_rows, framed, padded
from msresnet.errors import DataError


def test_rows_are_class_box_and_crowd_in_the_networks_input() -> None:
    boxes = Boxes.of([[0, 0, 10, 20], [5, 4, 10, 8]], [3, 0], [False, True])
    squashed = box_rows(boxes, frame((20, 10), (40, 40), "squash"))
    assert squashed.tolist() == [[3, 0, 0, 40, 40, 0], [0, 20, 8, 40, 16, 1]]
    padded_ = box_rows(boxes, frame((20, 10), (40, 40), "pad"))
    assert padded_.tolist() == [[3, 10, 0, 30, 40, 0], [0, 20, 8, 30, 16, 1]]
    assert framed(boxes.xyxy, None) is boxes.xyxy


def test_images_of_different_numbers_of_boxes_stand_beside_each_other() -> None:
    parts = [torch.rand(count, 6) for count in (2, 0, 5)]
    table = BoxTable(parts)
    for order in ([0, 1, 2], [2, 2, 1], [1], []):
        batch = table[torch.tensor(order, dtype=torch.long)]
        most = max([1, *(len(parts[i]) for i in order)])
        assert batch.shape == (len(order), most, 6)
        for rows, index in zip(batch, order, strict=True):
            assert torch.equal(rows[: len(parts[index])], parts[index])
            assert (rows[len(parts[index]) :] == -1).all()
    assert padded([]).shape == (0, 1, 6)


@pytest.mark.parametrize("mode", ["squash", "pad"])
def test_sets_in_memory_and_sets_read_when_asked_for_are_the_same(mode: str, tmp_path: Path) -> None:
    truth = boxed.truth(7)
    boxed.coco(tmp_path, truth)
    source = read_any(str(tmp_path), DataOptions())[0]["train"]
    preprocess = Preprocess((32, 50), 3, resize=mode, whole=True)  # type: ignore[arg-type]
    memory, lazy = decode(source, preprocess), Lazy(source, preprocess, 2)
    assert memory.fingerprint() == lazy.fingerprint()
    parts = torch.tensor([0, 1, 4, 6, 2]).split(3)
    pairs = zip(memory.batches(parts, torch.device("cpu")), lazy.batches(parts, torch.device("cpu")), strict=True)
    for one, other in pairs:
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
    assert (memory.truth(2).xyxy == truth[source.ids[2].rpartition("/")[2][:2]].xyxy).all()


def test_an_unreadable_image_takes_its_boxes_with_it(tmp_path: Path) -> None:
    truth = boxed.truth(6)
    boxed.coco(tmp_path, truth)
    (tmp_path / "images" / "train" / "03.png").write_bytes(b"no image")
    source = read_any(str(tmp_path), DataOptions())[0]["train"]
    place = next(i for i, name in enumerate(source.ids) if name.endswith("03.png"))
    preprocess = Preprocess((40, 60), 3, whole=True)
    memory = decode(source, preprocess, on_bad="skip")
    assert len(memory) == 5
    kept = [i for i in range(6) if i != place]
    for index, origin in enumerate(kept):
        assert (memory.truth(index).xyxy == source.truth(origin).xyxy).all()
        batch = memory.batch(torch.tensor([index]), torch.device("cpu"))
        assert (batch.targets[0, :, 1:5][batch.targets[0, :, 0] >= 0].numpy() == source.truth(origin).xyxy).all()
    with pytest.raises(DataError):
        decode(source, preprocess, on_bad="fail")


def test_classes_are_matched_by_name_in_boxes_too(tmp_path: Path) -> None:
    boxed.coco(tmp_path, boxed.truth(4))
    source = read_any(str(tmp_path), DataOptions())[0]["train"]
    other = Relabelled(source, ("dog", "bird", "cat"))
    some = Subset(other, np.array([3, 0]))
    assert (some.task, some.boxed, some.planes) == ("detection", True, 0)
    swapped = {0: 2, 1: 0}
    for index, origin in enumerate((3, 0)):
        truth = source.truth(origin)
        assert some.truth(index).classes.tolist() == [swapped[k] for k in truth.classes.tolist()]
        assert (some.truth(index).xyxy == truth.xyxy).all()
        assert some.size(index) == source.size(origin)
