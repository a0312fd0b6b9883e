"""Intervals: by hand, against scipy, and whether they hold what they promise."""

import itertools

import numpy as np
import pytest

from common.stats import paired_difference, wilson


@pytest.mark.parametrize("correct, n, low, high", [
    (8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 1, 0.0, 0.7935), (1, 2, 0.0945, 0.9055), (50, 100, 0.4038, 0.5962)])
def test_wilson_by_hand(correct, n, low, high):
    """z^2 = 3.8415. 0 of n: (0, z^2/(n + z^2)), so 3.8415/13.8415 = 0.2775 and 3.8415/4.8415 = 0.7935. n of n: its mirror image.

    Half right: 0.5 -+ z/2 / sqrt(n + z^2): n = 2: 0.97998/sqrt(5.8415) = 0.4055; n = 100: 0.97998/sqrt(103.8415) = 0.0962.
    8 of 10: centre (0.8 + 0.19207)/1.38415 = 0.71674, half width 1.959964/1.38415 * sqrt(0.016 + 0.0096036) = 0.22657.
    """
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


SIZES = [*range(1, 60), 100, 200, 500, 1000, 1319, 5000]


def test_a_score_never_leaves_its_interval():
    """Not even by a rounding error: a chart refuses error bars of negative length, at the very end of an evaluation."""
    scores = [(correct, n) for n in SIZES for correct in {0, 1, n // 3, n - 1, n}]
    assert [s for s in scores if not 0 <= wilson(*s)[0] <= s[0] / s[1] <= wilson(*s)[1] <= 1] == []


@pytest.mark.parametrize("n", SIZES)
def test_wilson_is_symmetric_and_rises(n):
    for correct in {0, 1, n // 3, n - 1, n}:
        low, high = wilson(correct, n)
        assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))
        assert correct == 0 or low > wilson(correct - 1, n)[0]


@pytest.mark.extra
@pytest.mark.parametrize("n", [1, 2, 7, 30, 272, 500])
def test_wilson_against_scipy(n):
    scipy_stats = pytest.importorskip("scipy.stats")
    for correct in {0, 1, n // 2, n - 1, n}:
        theirs = scipy_stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
        assert wilson(correct, n) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@pytest.mark.parametrize("correct, n", [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_wilson_refuses_what_is_no_share(correct, n):
    with pytest.raises(ValueError, match=f"{correct} of {n}"):
        wilson(correct, n)


@pytest.mark.parametrize("a, b, expected", [
    ([1, 1, 0, 0], [1, 1, 0, 0], (0, 0, 0)),  # equal item by item: no resample can differ
    ([1, 0], [1, 0], (0, 0, 0)), ([1] * 5, [0] * 5, (1, 1, 1)), ([0] * 5, [1] * 5, (-1, -1, -1)), ([True], [False], (1, 1, 1)),
])
def test_differences_without_doubt(a, b, expected):
    assert paired_difference(a, b) == expected


def test_paired_difference_against_all_resamples_by_hand():
    """3 items, differences +1, 0, 0. Of 27 equally likely resamples 8 sum to 0, 12 to 1, 6 to 2 and 1 to 3 (binomial, p = 1/3).

    The 97.5th percentile is where the cumulated share passes it: 26/27 = 0.963 < 0.975, so 3/3; the 2.5th is 0/3.
    """
    sums = sorted(sum(choice) for choice in itertools.product([1, 0, 0], repeat=3))
    assert [sums.count(k) for k in range(4)] == [8, 12, 6, 1]
    assert paired_difference([1, 1, 0], [0, 1, 0]) == pytest.approx((1 / 3, 0, 1))


def test_paired_difference_against_a_bootstrap_of_items():
    """The plain form, items drawn with replacement; and pairing counts: unpaired the interval would be far wider."""
    rng = np.random.default_rng(1)
    b = rng.random(300) < 0.5
    a = b ^ (rng.random(300) < 0.1) & ~b | b & (rng.random(300) < 0.97)
    d = a.astype(int) - b.astype(int)
    means = d[rng.integers(0, 300, (10_000, 300))].mean(axis=1)
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(d.mean())
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.006)
    assert high - low < 0.5 * 2 * 1.96 * np.sqrt(2 * 0.25 / 300)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """400 experiments of 200 items; a alone is right on 20 %, b alone on 10 %, so the truth is +0.1.

    95 % of 400 = 380; three standard deviations sqrt(400 x 0.95 x 0.05) = 4.4 below that is 367 (above: 393), and the
    percentile bootstrap covers slightly too little: 362.
    """
    rng, hits = np.random.default_rng(0), 0
    for i in range(400):
        kind = rng.choice(4, 200, p=[0.2, 0.1, 0.4, 0.3])
        _, low, high = paired_difference((kind == 0) | (kind == 2), (kind == 1) | (kind == 2), resamples=1000, seed=i)
        hits += low <= 0.1 <= high
    assert 362 <= hits <= 393


@pytest.mark.parametrize("seed", range(5))
def test_swapping_the_models_turns_the_sign(seed):
    """The difference to the last bit, the interval up to the noise of the draws (about 0.001 at 10,000)."""
    rng = np.random.default_rng(seed)
    a, b = rng.random(200) < 0.6, rng.random(200) < 0.5
    difference, low, high = paired_difference(a, b)
    other, other_low, other_high = paired_difference(b, a)
    assert other == -difference and (other_low, other_high) == pytest.approx((-high, -low), abs=0.011)
    assert low <= difference <= high and paired_difference(a, b) == (difference, low, high)


def test_order_of_items_does_not_matter_but_pairing_does():
    a, b = [1, 1, 0, 0] * 20, [1, 0, 1, 0] * 20
    assert paired_difference(a[::-1], b[::-1]) == paired_difference(a, b)
    assert paired_difference(a, a) == (0, 0, 0) != paired_difference(a, sorted(a))


@pytest.mark.parametrize("a, b", [([], []), ([1], [1, 0]), ([[1]], [[0]])])
def test_what_cannot_be_paired_is_refused(a, b):
    with pytest.raises(ValueError, match="equally long"):
        paired_difference(a, b)
