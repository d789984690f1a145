"""Vectors at the places of a pyramid: as many as there are boxes, of length one, and those of the untrained network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from msresnet.errors import UsageError
from msresnet.models.factory import create_detector, network_arguments
from msresnet.nn.detection import places
from msresnet.nn.embedding import EmbeddingHead, PooledFeatures
from msresnet.nn.folding import fold
from randomise import randomised, relative_error

STRIDES = (4, 8, 16)


def maps(size: tuple[int, int]) -> list[torch.Tensor]:
    """A pyramid of random maps of an image of (H, W)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 6, -(-size[0] // s), -(-size[1] // s), generator=generator) for s in STRIDES]


@pytest.mark.parametrize("size", [(32, 48), (33, 41), (5, 7)])
@pytest.mark.parametrize("kind", ["learnt", "pooled"])
def test_each_place_has_a_vector_of_length_one(kind: str, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    embedder = EmbeddingHead(6, 10) if kind == "learnt" else PooledFeatures(STRIDES)
    vectors = embedder(maps(size))
    assert vectors.shape == (2, len(places(size, STRIDES)[0]), 10 if kind == "learnt" else 6)
    lengths = vectors.norm(dim=2)
    assert bool((lengths < 1 + 1e-5).all())
    if size[0] > 16:  # of a map of few pixels, nothing is left beside its mean
        assert bool((lengths > 1 - 1e-5).all())


def test_pooled_features_are_means_of_the_finest_map_around_each_place() -> None:
    given = maps((32, 48))
    vectors = PooledFeatures(STRIDES)(given)
    finest = given[0] - given[0].mean((2, 3), keepdim=True)
    # The place of stride 8 in row 1 and column 2 covers rows 2, 3 and columns 4, 5; around each, two pixels a side.
    around = torch.stack(
        [finest[:, :, r - 2 : r + 3, c - 2 : c + 3].mean((2, 3)) for r in (2, 3) for c in (4, 5)]
    ).mean(0)
    assert torch.allclose(vectors[:, 8 * 12 + 1 * 6 + 2], F.normalize(around), atol=1e-5)


def test_vectors_stand_behind_the_classes_and_change_nothing_before_them() -> None:
    size = (36, 52)
    models = []
    for embedding in (0, 16):
        torch.manual_seed(0)
        model = create_detector("msresnet_micro", num_classes=3, in_chans=1, img_size=size, embedding=embedding)
        models.append(randomised(model).eval())
    models[1].load_state_dict(models[0].state_dict(), strict=False)
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        plain, more = models[0](x), models[1](x)
        assert more.shape == (*plain.shape[:2], 4 + 3 + 16)
        assert torch.equal(more[..., :7], plain)
        assert relative_error(fold(models[1])(x), more) < 1e-5


def test_all_parameters_of_a_detector_with_vectors_learn() -> None:
    model = randomised(create_detector("msresnet_micro", num_classes=3, in_chans=1, img_size=(32, 32), embedding=16))
    answers = model.train()(torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)))
    weights = torch.randn(answers.shape, generator=torch.Generator().manual_seed(2))
    (answers.clamp(-1e6, 1e6) * weights).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("embedding", [-1, 2.5, True, "many", 100_000])
def test_vectors_that_cannot_be(embedding: object) -> None:
    with pytest.raises(UsageError, match="embedding"):
        create_detector("msresnet_micro", embedding=embedding)  # type: ignore[arg-type]
    assert "embedding" in network_arguments("detector", "msresnet_micro")
