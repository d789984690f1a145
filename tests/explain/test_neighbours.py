"""Nearest images against scikit-learn's, however the set is held and cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from explained import bundle, picture
from msresnet.bundle import Bundle
from msresnet.data.lazy import Lazy
from msresnet.data.sets import Decoded, Samples
from msresnet.data.splits import open_data
from msresnet.errors import ModelError, UsageError
from msresnet.explain import attribution
from msresnet.explain.neighbours import embed, nearest_images
from msresnet.train.config import TrainConfig
from tiny import pictures


def set_of(made: Bundle, count: int, seed: int = 100) -> Decoded:
    """Random images with labels."""
    height, width = made.preprocess.size
    images = [picture(height, width, made.preprocess.channels, seed=seed + i) for i in range(count)]
    return Decoded(torch.from_numpy(np.stack(images)), torch.arange(count) % 3, [f"image {i}" for i in range(count)])


@pytest.mark.parametrize("model", ["msresnet_micro", "article_cnn", "msdnet24_cifar"])
@pytest.mark.parametrize("at_once", [4, 1000])
def test_they_are_scikit_learns(model: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribution, "MOST_ROWS", at_once)
    made, data, asked = bundle(model, 28), set_of(bundle(model, 28), 23), set_of(bundle(model, 28), 3, seed=7)
    found = nearest_images(made, asked.images, data, 5)
    model_of = made.model
    with torch.no_grad():
        features = [
            model_of.forward_head(model_of.forward_features(made.preprocess.tensor(part)), pre_logits=True).numpy()
            for part in (data.images, asked.images)
        ]
    distances, indices = NearestNeighbors(n_neighbors=5, metric="cosine").fit(features[0]).kneighbors(features[1])
    for row, far, near in zip(found, distances, indices, strict=True):
        assert [n.id for n in row] == [data.ids[i] for i in near]
        assert [n.label for n in row] == ["abc"[int(data.targets[i])] for i in near]
        assert [n.distance for n in row] == pytest.approx(far.tolist(), abs=1e-5)
        assert all(np.array_equal(n.picture, data.images[i].numpy()) for n, i in zip(row, near, strict=True))


def test_an_image_of_the_set_is_nearest_to_itself() -> None:
    made = bundle()
    data = set_of(made, 9)
    (row,) = nearest_images(made, data.images[4:5], data, 1)
    assert row[0].id == "image 4"
    assert row[0].distance == pytest.approx(0, abs=1e-6)


def test_of_equal_images_the_earlier_comes_first() -> None:
    made = bundle()
    data = set_of(made, 1)
    twins = Decoded(data.images.repeat(6, 1, 1, 1), torch.zeros(6, dtype=torch.int64), list("abcdef"))
    (row,) = nearest_images(made, data.images, twins, 3)
    assert [n.id for n in row] == ["a", "b", "c"]


def test_how_a_set_is_held_makes_no_difference(tmp_path: Path) -> None:
    made = bundle(side=12)
    source = open_data(str(pictures(tmp_path / "bars")), TrainConfig(data="")).train
    lazy: Samples = Lazy(source, made.preprocess)
    held = Decoded(torch.stack([lazy.image(i) for i in range(len(lazy))]), lazy.targets, lazy.ids)
    asked = held.images[:2]
    one, other = (nearest_images(made, asked, data, 4) for data in (lazy, held))
    assert [[n.id for n in row] for row in one] == [[n.id for n in row] for row in other]


def test_more_neighbours_than_images_are_refused() -> None:
    made = bundle()
    with pytest.raises(UsageError, match="--neighbours 4, but the set holds 3 images"):
        nearest_images(made, set_of(made, 1).images, set_of(made, 3), 4)


def test_features_that_are_no_numbers_are_refused() -> None:
    made = bundle()
    made.model.get_submodule("conv1").weight.data.fill_(float("nan"))  # type: ignore[operator]
    with pytest.raises(ModelError, match="features are not finite"):
        embed(made, set_of(made, 1).images)
