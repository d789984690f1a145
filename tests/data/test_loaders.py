"""Decoded sets, the order of an epoch, and its continuation from any step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

import hostile
from msresnet.bundle import Bundle
from msresnet.cli.main import main
from msresnet.data.loaders import Decoded, decode, epoch_order, mix_seed, training_batches, training_steps
from msresnet.data.preprocess import Preprocess
from msresnet.data.sample import ArraySource
from msresnet.models.factory import create_classifier
from msresnet.tasks.classification import ClassificationTask

CPU = torch.device("cpu")


def decoded(count: int = 23) -> Decoded:
    """Random images of three classes."""
    images = torch.from_numpy(hostile.random_pixels(count, 1, 4, 4))
    return Decoded(images, torch.arange(count) % 3, [f"x[{i}]" for i in range(count)])


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(0, 2**63 - 1), st.integers(0, 10**6))
def test_an_epochs_order_is_a_permutation_that_seed_and_epoch_decide(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    torch.rand(3)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, epoch_order(count, seed, epoch))


def test_the_order_leaves_the_global_generator_alone_and_differs_between_epochs_and_seeds() -> None:
    state = torch.get_rng_state()
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert torch.equal(torch.get_rng_state(), state)


def test_mixed_seeds_of_neighbours_do_not_collide() -> None:
    seeds = {mix_seed(a, b) for a in range(100) for b in range(100)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mix_seed(1, 23) != mix_seed(12, 3)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.data())
def test_an_epoch_can_be_continued_from_any_step(count: int, batch_size: int, data: st.DataObject) -> None:
    samples, order = decoded(count), epoch_order(count, 0, 0)
    batches = list(training_batches(samples, order, batch_size, CPU))
    assert len(batches) == training_steps(count, batch_size)
    seen = torch.cat([batch.indices for batch in batches])
    assert seen.tolist() == order[: len(seen)].tolist()
    assert len(seen) == (count // batch_size * batch_size or count)
    first = data.draw(st.integers(0, len(batches)))
    rest = list(training_batches(samples, order, batch_size, CPU, first))
    assert [b.indices.tolist() for b in rest] == [b.indices.tolist() for b in batches[first:]]


def test_batches_hold_the_samples_that_their_indices_name() -> None:
    samples = decoded()
    for batch in training_batches(samples, epoch_order(23, 0, 0), 5, CPU):
        assert len(batch) == 5
        assert torch.equal(batch.images, samples.images[batch.indices])
        assert torch.equal(batch.targets, samples.targets[batch.indices])


def test_the_fingerprint_changes_with_pixels_labels_names_and_shape() -> None:
    first, pixel, label = decoded(), decoded(), decoded()
    pixel.images[7, 0, 2, 2] += 1
    label.targets[7] = (label.targets[7] + 1) % 3
    name = Decoded(first.images, first.targets, ["y", *first.ids[1:]])
    shape = Decoded(first.images.reshape(23, 1, 2, 8), first.targets, first.ids)
    others = [data.fingerprint() for data in (pixel, label, name, shape, decoded(22))]
    assert first.fingerprint() == decoded().fingerprint()
    assert len({first.fingerprint(), *others}) == 6


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_decoding_keeps_the_order_across_chunks_with_any_number_of_workers(workers: int) -> None:
    images = hostile.random_pixels(2500, 1, 3, 3)
    data = decode(ArraySource(images, np.arange(2500) % 7, "abcdefg"), Preprocess((3, 3), 1), workers)
    assert np.array_equal(data.images, images)
    assert np.array_equal(data.targets, np.arange(2500) % 7)
    assert (data.ids[2499], data.bad) == ("array[2499]", [])


def tiny_bundle(folder: Path) -> Path:
    """A network that was never trained, as a bundle."""
    arguments = {"num_classes": 2, "in_chans": 1, "img_size": [16, 16]}
    model = create_classifier("msresnet_micro", **arguments).eval()
    task = ClassificationTask(("cat", "dog"))
    return Bundle(model, "msresnet_micro", arguments, task, Preprocess((16, 16), 1)).save(folder)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_I03_predict_names_the_bad_image_and_answers_for_the_good(
    workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_bundle(tmp_path / "model")
    (tmp_path / "bad.jpg").write_bytes(hostile.truncated_jpeg())
    (tmp_path / "good.png").write_bytes(hostile.encode(hostile.random_pixels(16, 16), "PNG"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = ["predict", "bad.jpg", "good.png", "--model", "model", "--device", "cpu", "--workers", workers]
    assert main(words) == 3
    out, err = capsys.readouterr()
    assert out.startswith("good.png: ")
    assert len(out.splitlines()) == 1
    assert "error: cannot decode the image" in err
    assert "where: bad.jpg" in err
    assert "why: " in err
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.timeout(60)
def test_I14_predict_gives_every_orientation_the_same_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_bundle(tmp_path / "model")
    upright = hostile.random_pixels(16, 24, 3)
    for orientation in range(1, 9):
        exif = Pillow.Exif()
        exif[0x0112] = orientation
        turned = hostile.laid_down(upright, orientation)
        (tmp_path / f"{orientation}.png").write_bytes(hostile.encode(turned, "PNG", exif=exif))
    assert main(["predict", "*.png", "--model", "model", "--device", "cpu", "--format", "csv"]) == 0
    answers = [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(answers) == 8
    assert len(set(answers)) == 1
