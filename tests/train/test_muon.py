"""Muon against torch's own for matrices, against AdamW for the rest, and against the singular value decomposition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from msresnet.train.muon import Muon, orthogonalise


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 40), (2, 40, 5), (1, 1, 7), (1, 16, 9)])
def test_singular_values_become_about_one_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = random(*shape)
    result = orthogonalise(matrices)
    assert result.shape == matrices.shape
    left, _, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    inside = left.mT @ result.double() @ right.mT  # diagonal, where the singular vectors are the same
    diagonal = inside.diagonal(dim1=1, dim2=2)
    assert (inside - torch.diag_embed(diagonal)).abs().max() < 1e-3
    assert diagonal.min() > 0.3  # small values rise slower
    assert diagonal.max() < 1.3


def test_nothing_to_orthogonalise_gives_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
def test_steps_on_matrices_are_those_of_torch(shape: tuple[int, int]) -> None:
    start, gradients = random(*shape), [random(*shape, seed=s) for s in range(1, 6)]
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    mine = Muon([{"params": [ours], "weight_decay": 0.1, "orthogonal": True}], 0.02, momentum=0.9)
    torchs = torch.optim.Muon([theirs], 0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        for parameter, optimizer in ((ours, mine), (theirs, torchs)):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved  # torch iterates in bfloat16


def test_a_convolution_moves_as_its_matrix() -> None:
    kernel, matrix = torch.nn.Parameter(random(8, 3, 3, 3)), torch.nn.Parameter(random(8, 3, 3, 3).reshape(8, 27))
    gradient = random(8, 3, 3, 3, seed=4)
    for parameter in (kernel, matrix):
        optimizer = Muon([{"params": [parameter], "weight_decay": 0.0, "orthogonal": True}], 0.1)
        parameter.grad = gradient.reshape(parameter.shape)
        optimizer.step()
    assert torch.equal(kernel.reshape(8, 27), matrix)


def test_what_is_no_matrix_moves_as_by_adamw() -> None:
    start = [random(5), random(4, 3)]
    ours, theirs = ([torch.nn.Parameter(t.clone()) for t in start] for _ in range(2))
    mine = Muon([{"params": ours, "weight_decay": 0.1, "orthogonal": False}], 0.01, momentum=0.9)
    torchs = torch.optim.AdamW(theirs, 0.01, betas=(0.9, 0.99), weight_decay=0.1)
    for seed in range(5):
        for parameters, optimizer in ((ours, mine), (theirs, torchs)):
            for parameter in parameters:
                parameter.grad = random(*parameter.shape, seed=seed)
            optimizer.step()
    for left, right in zip(ours, theirs, strict=True):
        assert torch.allclose(left, right, atol=1e-6)


def test_equal_shapes_in_one_product_equal_one_by_one() -> None:
    starts = [random(6, 2, 3, 3, seed=s) for s in range(3)]
    together, apart = ([torch.nn.Parameter(t.clone()) for t in starts] for _ in range(2))
    joint = Muon([{"params": together, "weight_decay": 0.0, "orthogonal": True}], 0.1)
    single = [Muon([{"params": [p], "weight_decay": 0.0, "orthogonal": True}], 0.1) for p in apart]
    for seed in range(3):
        for left, right in zip(together, apart, strict=True):
            left.grad = random(*left.shape, seed=seed)
            right.grad = left.grad.clone()
        joint.step()
        for optimizer in single:
            optimizer.step()
    for left, right in zip(together, apart, strict=True):
        assert torch.allclose(left, right, atol=1e-6)
