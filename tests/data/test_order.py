"""The order of an epoch: permutations, balance, and seeds."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from msresnet.data.order import balanced_order, epoch_order, mix_seed


@given(st.integers(1, 300), st.integers(0, 2**62), st.integers(0, 1000))
def test_an_epoch_sees_every_sample_once_and_only_seed_and_epoch_decide(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, epoch_order(count, seed, epoch))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.integers(0, 2**62))
def test_a_balanced_epoch_sees_all_classes_equally_often(targets: list[int], seed: int) -> None:
    labels = torch.tensor(targets)
    order = balanced_order(labels, seed, 0)
    assert len(order) == len(labels)
    seen = torch.bincount(labels[order], minlength=7)[labels.unique()]
    assert int(seen.max() - seen.min()) <= 1
    for target in labels.unique():
        members = order[labels[order] == target].bincount(minlength=len(labels))[labels == target]
        assert int(members.max() - members.min()) <= 1  # no sample is favoured within its class


def test_balanced_epochs_differ_and_reach_all_of_a_large_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 10)
    orders = [balanced_order(labels, 3, epoch) for epoch in range(30)]
    assert len({tuple(order.tolist()) for order in orders}) == 30
    assert set(torch.cat(orders).tolist()) == set(range(60))


def test_seeds_of_neighbours_are_far_apart_and_all_parts_count() -> None:
    seeds = {mix_seed(a, b) for a in range(100) for b in range(100)}
    assert len(seeds) == 10_000
    assert mix_seed(1, 23) != mix_seed(12, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)
