"""Each test against scipy or the definition written out, and how often equal methods are called different."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from msresnet.metrics.significance import (
    LEVEL,
    accuracy_interval,
    compare_answers,
    holm,
    paired_t,
    sign_flip_images,
    spread,
    t_test,
    tango_interval,
)

Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@st.composite
def answers(draw: st.DrawFn, most_seeds: int = 4, most_images: int = 9) -> tuple[Flags, Flags]:
    """Right answers of two methods (S, N)."""
    seeds, images = draw(st.integers(1, most_seeds)), draw(st.integers(1, most_images))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return rng.random((seeds, images)) < 0.7, rng.random((seeds, images)) < draw(st.sampled_from([0.2, 0.7]))


@given(answers(most_seeds=1, most_images=60))
def test_one_seed_is_mcnemars_exact_test(pair: tuple[Flags, Flags]) -> None:
    left, right = pair
    only_left, only_right = int((left & ~right).sum()), int((right & ~left).sum())
    either = only_left + only_right
    expected = stats.binomtest(only_left, either).pvalue if either else 1.0
    assert sign_flip_images(left, right) == pytest.approx(expected)
    found = compare_answers(left, right)
    assert found.p == pytest.approx(expected)
    assert found.covers == "images"
    assert found.p_seeds is None


@given(answers())
def test_several_seeds_are_all_changes_of_sign(pair: tuple[Flags, Flags]) -> None:
    left, right = pair
    favours = left.sum(0).astype(int) - right.sum(0).astype(int)
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(favours))).reshape(len(favours), -1)
    sums = np.abs((favours[:, None] * signs).sum(0))
    assert sign_flip_images(left, right) == pytest.approx((sums >= abs(favours.sum())).mean())


def test_many_images_keep_their_small_p() -> None:
    left, right = np.ones((1, 20_000), bool), np.ones((1, 20_000), bool)
    right[:, :60] = False
    assert sign_flip_images(left, right) == pytest.approx(2 * 0.5**60, rel=1e-6)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=10))
def test_paired_t_is_scipys(differences: list[float]) -> None:
    values = np.array(differences)
    if np.ptp(values) > 1e-6:
        assert paired_t(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=1e-9)


@given(answers(most_images=30))
def test_the_variance_is_that_of_the_two_way_layout(pair: tuple[Flags, Flags]) -> None:
    table = pair[0].astype(float) - pair[1].astype(float)
    seeds, images = table.shape
    if seeds < 2 or images < 2:
        return
    rows, columns = np.indices(table.shape)
    dummies = [np.eye(seeds)[rows.ravel()], np.eye(images)[columns.ravel()]]
    everything = np.hstack([np.ones((table.size, 1)), *dummies])

    def left_over(design: Floats) -> float:
        fitted = design @ np.linalg.lstsq(design, table.ravel(), rcond=None)[0]
        return float(((table.ravel() - fitted) ** 2).sum())

    both = left_over(everything) / ((seeds - 1) * (images - 1))
    by_seed = (left_over(everything[:, [0, *range(1 + seeds, 1 + seeds + images)]]) - left_over(everything)) / (
        seeds - 1
    )
    by_image = (left_over(everything[:, : 1 + seeds]) - left_over(everything)) / (images - 1)
    expected = max(by_seed + by_image - both, by_seed, by_image) / table.size
    found = spread(table)
    assert found.error**2 == pytest.approx(expected, abs=1e-9)
    assert found.mean == pytest.approx(table.mean())
    assert found.freedom >= seeds - 1


def test_one_seed_has_the_usual_error_of_a_mean() -> None:
    table = np.random.default_rng(0).random((1, 40))
    assert spread(table).error == pytest.approx(stats.sem(table[0]))
    assert t_test(spread(table - 0.5)) == pytest.approx(
        2 * stats.norm.sf(abs(table.mean() - 0.5) / stats.sem(table[0]))
    )


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_his_procedure_rejects(ps: list[float], level: float) -> None:
    rejected: set[int] = set()
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        if ps[index] * (len(ps) - rank) > level:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(ps)) if p <= level} == rejected


@given(answers(most_images=40))
def test_sides_are_alike(pair: tuple[Flags, Flags]) -> None:
    one, other = compare_answers(*pair), compare_answers(*pair[::-1])
    assert (one.mean, one.low, one.high, one.p) == pytest.approx((-other.mean, -other.high, -other.low, other.p))
    assert one.low <= one.mean <= one.high
    assert 0 <= one.p <= 1
    same = compare_answers(pair[0], pair[0])
    assert (same.mean, same.p, same.p_images) == (0, 1, 1)


def test_the_interval_and_p_agree() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        left, right = trained(rng, (2, 4, 150), 0.5, 0.5)
        found = compare_answers(left, right)
        assert (found.p < LEVEL) == (found.low > 0 or found.high < 0)


@pytest.mark.parametrize("images", [1, 3, 6, 20, 100])
def test_the_interval_of_one_seed_agrees_with_mcnemars_test(images: int) -> None:
    step = max(1, images // 12)
    for first, second in ((b, c) for b in range(0, images + 1, step) for c in range(0, images + 1 - b, step)):
        left, right = np.zeros((2, 1, images), bool)
        left[0, :first], right[0, first : first + second] = True, True
        found = compare_answers(left, right)
        assert (found.p < LEVEL) == (found.low > 0 or found.high < 0)
        assert found.low <= found.mean <= found.high
        assert found.high - found.low > 0.01


@pytest.mark.parametrize(("first", "second", "images"), [(12, 3, 50), (1, 0, 44), (20, 25, 70)])
def test_the_score_interval_is_where_the_score_test_just_does_not_reject(first: int, second: int, images: int) -> None:
    left, right = np.zeros((2, images), bool)
    left[:first], right[first : first + second] = True, True
    for end in tango_interval(left, right):

        def unlikely(share: float, end: float = end) -> float:
            """Minus the likelihood, where the second alone is right of `share` of the images."""
            rest = images - first - second
            return -float(
                stats.multinomial.logpmf([first, second, rest], images, [share + end, share, 1 - 2 * share - end])
            )

        best = optimize.minimize_scalar(
            unlikely, bounds=(max(0, -end), (1 - end) / 2), method="bounded", options={"xatol": 1e-12}
        ).x
        score = (first - second - images * end) / np.sqrt(images * (2 * best + end * (1 - end)))
        assert abs(score) == pytest.approx(stats.norm.isf(0.025), rel=1e-4)


@pytest.mark.parametrize("shares", [(0.12, 0.03), (0.05, 0.05), (0.2, 0.05), (0.3, 0.2)])
def test_an_interval_of_one_seed_holds_the_truth(shares: tuple[float, float]) -> None:
    images, held, (first, second) = 40, 0.0, shares
    for one, other in ((b, c) for b in range(images + 1) for c in range(images + 1 - b)):
        counts = [one, other, images - one - other]
        weight = float(stats.multinomial.pmf(counts, images, [first, second, 1 - first - second]))
        if weight > 1e-5:
            left, right = np.zeros((2, 1, images), bool)
            left[0, :one], right[0, one : one + other] = True, True
            found = compare_answers(left, right)
            held += weight * (found.low - 1e-9 <= first - second <= found.high + 1e-9)
    assert held >= 0.94


def test_a_handful_of_images_proves_nothing() -> None:
    found = compare_answers(np.ones((2, 3), bool), np.zeros((2, 3), bool))
    assert found.p == found.p_images == pytest.approx(0.25)
    assert found.low <= 0 < found.high
    same = compare_answers(np.ones((2, 30), bool), np.ones((2, 30), bool))
    assert same.low < 0 < same.high


def test_no_mistake_over_few_seeds_is_as_sure_as_its_images() -> None:
    mean, low, high = accuracy_interval(np.ones((2, 100), bool))
    expected = stats.binomtest(100, 100).proportion_ci(method="wilson")
    assert (mean, low, high) == pytest.approx((1, expected.low, 1))


def test_answers_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        compare_answers(np.ones((2, 3), bool), np.ones((2, 4), bool))
    with pytest.raises(ValueError, match="shape"):
        compare_answers(np.ones((0, 3), bool), np.ones((0, 3), bool))


def test_an_accuracy_has_wilsons_interval() -> None:
    correct = np.random.default_rng(0).random((1, 500)) < 0.93
    expected = stats.binomtest(int(correct.sum()), 500).proportion_ci(method="wilson")
    assert accuracy_interval(correct) == pytest.approx((correct.mean(), expected.low, expected.high), abs=1e-4)
    mean, low, high = accuracy_interval(np.ones((3, 50), bool))
    assert mean == 1
    assert high == pytest.approx(1)
    assert 0.5 < low < 0.97
    assert accuracy_interval(np.zeros((1, 0), bool)) == (0, 0, 1)


def trained(rng: np.random.Generator, shape: tuple[int, int, int], by_image: float, by_seed: float) -> Flags:
    """Right answers (M, S, N) of methods that are equally good over all seeds and images.

    Args:
        by_image: how much a method's strength on an image is its own; `by_seed`: how much a seed's luck is.
    """
    methods, seeds, images = shape
    difficulty = rng.normal(1.5, 1.0, (1, 1, images))
    strengths = rng.normal(0, by_image, (methods, 1, images)) + rng.normal(0, by_seed, (methods, seeds, 1))
    return rng.random(shape) < 1 / (1 + np.exp(-difficulty - strengths))


CHANCE = [(5, 1.5, 0.0), (5, 0.0, 0.5), (5, 1.0, 0.3), (3, 1.0, 0.3), (2, 0.5, 0.2), (10, 1.0, 0.3)]


@pytest.mark.parametrize(("seeds", "by_image", "by_seed"), CHANCE)
def test_equal_methods_are_called_different_in_five_of_a_hundred(seeds: int, by_image: float, by_seed: float) -> None:
    rng = np.random.default_rng(0)
    tables = (trained(rng, (2, seeds, 120), by_image, by_seed) for _ in range(600))
    rate = np.mean([compare_answers(left, right).p < LEVEL for left, right in tables])
    assert rate <= 0.075  # four standard errors above 5 % would be 0.086


def test_what_speaks_of_one_draw_alone_is_wrong_far_more_often() -> None:
    rng = np.random.default_rng(0)
    by_images = [compare_answers(*trained(rng, (2, 8, 120), 2.0, 0.0)).p_seeds for _ in range(300)]
    by_seeds = [compare_answers(*trained(rng, (2, 3, 400), 0.0, 0.8)).p_images for _ in range(300)]
    assert np.mean([p is not None and p < LEVEL for p in by_images]) > 0.15
    assert np.mean([p < LEVEL for p in by_seeds]) > 0.15


def test_the_best_of_several_equal_methods_seldom_stands_out() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(300):
        tables = trained(rng, (4, 4, 100), 0.8, 0.3)
        pairs = [(i, j) for i in range(4) for j in range(i)]
        found += min(holm([compare_answers(tables[i], tables[j]).p for i, j in pairs])) < LEVEL
    assert found / 300 <= 0.08


def test_a_real_difference_is_found() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(100):
        left, right = trained(rng, (2, 5, 500), 0.3, 0.1)
        found.append(compare_answers(left & (rng.random(left.shape) < 0.9), right).p < LEVEL)
    assert np.mean(found) > 0.9


def test_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = np.mean([trained(rng, (1, 10, 1000), 0.5, 0.3).mean() for _ in range(200)])
    intervals = [accuracy_interval(trained(rng, (1, 5, 150), 0.5, 0.3)[0]) for _ in range(400)]
    assert np.mean([low <= truth <= high for _, low, high in intervals]) > 0.92
