"""Intervals and tests of scores: by hand, against published examples and scipy."""

import math

import numpy as np
import pytest
import scipy.stats

from common.core.stats import (
    average_interval,
    holm,
    interval_p,
    mcnemar,
    mean_interval,
    over_seeds,
    paired_interval,
    ratio_interval,
    seeds_difference,
    wilson,
)


@pytest.mark.parametrize(
    "correct, n, low, high",
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (0, 1, 0.0, 0.7935),
        (1, 2, 0.0945, 0.9055),
        (50, 100, 0.4038, 0.5962),
    ],
)
def test_wilson_by_hand(correct, n, low, high):
    """z^2 = 3.8415. 0 of n: (0, z^2/(n + z^2)): 3.8415/13.8415 = 0.2775, 3.8415/4.8415 = 0.7935.

    n of n is the mirror image. Half right: 0.5 -+ z/2 / sqrt(n + z^2):
    n = 2: 0.97998/sqrt(5.8415) = 0.4055; n = 100: 0.97998/sqrt(103.8415) = 0.0962.
    8 of 10: center (0.8 + 0.19207)/1.38415 = 0.71674,
    half width 1.959964/1.38415 * sqrt(0.016 + 0.0096036) = 0.22657.
    """
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


SIZES = [*range(1, 60), 100, 200, 500, 1000, 1319, 5000]


def test_a_score_never_leaves_its_interval():
    """Not even by a rounding error: a chart refuses error bars of negative length."""
    scores = [(correct, n) for n in SIZES for correct in {0, 1, n // 3, n - 1, n}]
    assert [s for s in scores if not 0 <= wilson(*s)[0] <= s[0] / s[1] <= wilson(*s)[1] <= 1] == []


def test_wilson_is_symmetric_and_rises():
    for n in SIZES:
        for correct in {0, 1, n // 3, n - 1, n}:
            low, high = wilson(correct, n)
            assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low))
            assert correct == 0 or low > wilson(correct - 1, n)[0]


@pytest.mark.parametrize("correct, n", [(0, 0), (-1, 5), (6, 5), (0, -1)])
def test_wilson_refuses_what_is_no_share(correct, n):
    with pytest.raises(ValueError):
        wilson(correct, n)


@pytest.mark.parametrize(
    "n, wins, losses, low, high",
    [
        (48, 26, 4, 0.2548067, 0.6251933),
        (100, 64, 5, 0.5784314 - 1.959964 * 0.05953213, 0.5784314 + 1.959964 * 0.05953213),
        (30, 0, 0, -0.0866, 0.0866),
        (5, 5, 0, 0.1958, 1),
        (1, 0, 1, -1, 0.7335),
    ],
)
def test_paired_interval_of_right_and_wrong(n, wins, losses, low, high):
    """The first two are the examples of the R packages statpsych and vcmeta (Bonett and Price).

    No item of 30: 0 -+ 1.96 sqrt((2/32)/32) = 1.96 x 0.0442. 5 of 5: mean 5/7, variance
    1 - 25/49 = 0.4898, half width 1.96 sqrt(0.4898/7) = 0.5184. One loss of one: mean -1/3,
    variance 1 - 1/9, half width 1.96 sqrt(0.8889/3) = 1.06687.
    """
    first, second = np.zeros(n), np.zeros(n)
    first[:wins], second[n - losses :] = 1, 1
    expected = (wins - losses) / n, low, high
    assert paired_interval(first, second) == pytest.approx(expected, abs=5e-5)


def test_paired_interval_of_shares_by_hand():
    """Differences 0.5, 0, and -1, +1: mean 0.125, variance 2.25/4 - 0.125^2 = 0.546875.

    Half width 1.96 sqrt(0.546875/4) = 0.7247.
    """
    interval = paired_interval([0.75, 0.5], [0.25, 0.5])
    assert interval == pytest.approx((0.25, 0.125 - 0.7247, 0.125 + 0.7247), abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_swapping_the_models_turns_the_sign(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 60) / 4, rng.integers(0, 5, 60) / 4
    difference, low, high = paired_interval(a, b)
    assert low <= difference <= high
    assert paired_interval(b, a) == pytest.approx((-difference, -high, -low))


def test_order_of_items_does_not_matter_but_pairing_does():
    a, b = [1, 1, 0, 0] * 20, [1, 0, 1, 0] * 20
    assert paired_interval(a[::-1], b[::-1]) == pytest.approx(paired_interval(a, b))
    _, low, high = paired_interval(a, a)
    _, wider_low, wider_high = paired_interval(a, sorted(a))
    assert wider_low < low < 0 < high < wider_high


@pytest.mark.parametrize("a, b", [([], []), ([1], [1, 0]), ([2], [1])])
def test_what_cannot_be_paired_is_refused(a, b):
    with pytest.raises(ValueError):
        paired_interval(a, b)


@pytest.mark.parametrize(
    "wins, losses, p",
    [
        (0, 0, 1),
        (5, 5, 1),
        (1, 0, 1),
        (2, 0, 0.5),
        (6, 0, 2 / 64),
        (8, 1, 20 / 512),
        (3, 1, 10 / 16),
        (5, 4, 1),
    ],
)
def test_mcnemar_by_hand(wins, losses, p):
    """6 to 0: 2 x 1/2^6. 8 to 1: 2 x (1 + 9)/2^9. 3 to 1: 2 x (1 + 4)/2^4.

    5 to 4: the tail is 256/512, doubled 1. 5 to 5: over 1, so 1.
    """
    assert mcnemar(wins, losses) == pytest.approx(p) == mcnemar(losses, wins)


@pytest.mark.parametrize("wins, losses", [(1, 8), (22, 6), (200, 251), (480, 520)])
def test_mcnemar_counts_outcomes(wins, losses):
    """Twice the share of the 2^n outcomes with at most so many of the rarer, in whole numbers."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    assert mcnemar(np.int64(wins), np.int64(losses)) == pytest.approx(2 * tail / 2**n)


def test_mcnemar_of_a_certain_difference_is_zero():
    """2^-12,031 is less than a float can hold."""
    assert mcnemar(12_032, 0) == 0


@pytest.mark.parametrize(
    "wins, losses", [(-1, 2), (2, -1), (1.5, 2), (float("nan"), 1), (float("inf"), 1)]
)
def test_mcnemar_wants_counts(wins, losses):
    with pytest.raises((ValueError, TypeError)):
        mcnemar(wins, losses)


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0.5, 0.5], (0.5, 0.1535, 0.8465)),
        ([0.25] * 14, (0.25, 0.1856, 0.3769)),
        ([1] * 8 + [0] * 2, (0.8, *wilson(8, 10))),
        ([0.0] * 30, (0, *wilson(0, 30))),
    ],
)
def test_mean_interval_by_hand(values, expected):
    """0, 0.5, 0.5, 1: variance 0.125, half width 1.96 sqrt(0.125/4) = 0.3465.

    14 of 0.25, and 0 and 1: mean 4.5/16 = 0.28125, variance 1.875/16 - 0.28125^2 = 0.03809, half
    width 1.96 sqrt(0.03809/16) = 0.0956. Right and wrong: Wilson's.
    """
    assert mean_interval(values) == pytest.approx(expected, abs=1e-4)


def test_mean_interval_is_as_wide_as_theory_says():
    """1,000 items, half 0.25, half 0.75: standard error 0.25/sqrt(1000), half width 0.0155."""
    expected = (0.5, 0.5 - 0.0155, 0.5 + 0.0155)
    assert mean_interval([0.25, 0.75] * 500) == pytest.approx(expected, abs=0.0002)


@pytest.mark.parametrize("value", [0, 1, 1 / 3, 0.01, 0.99])
@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_a_mean_never_leaves_its_interval(n, value):
    """A chart refuses error bars of negative length; equal items are no certainty."""
    mean, low, high = mean_interval([value] * n)
    assert 0 <= low <= mean <= high <= 1 and high > low


def test_ratio_interval_by_hand():
    """1 of 1 and 1 of 3: see its docstring; 1.959964 x sqrt(0.15625/4) = 0.3874."""
    expected = (0.5, 0.5 - 0.3874, 0.5 + 0.3874)
    assert ratio_interval([1, 1], [1, 3]) == pytest.approx(expected, abs=5e-5)


def test_the_ratio_of_items_of_one_size_is_a_mean_of_shares():
    parts = [0, 1, 2, 3, 4, 4, 1]
    shares = [part / 4 for part in parts]
    assert ratio_interval(parts, [4] * 7) == pytest.approx(mean_interval(shares))


@pytest.mark.parametrize("n_items", [30, 541])
def test_a_ratio_interval_covers_the_truth(n_items):
    """Items of 1 to 3 parts that are right or wrong together, or not: 95 % of 400, give or take."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        wholes = rng.integers(1, 4, n_items)
        rates = rng.beta(0.6, 0.9, n_items)  # mean 0.4, whatever the size
        _, low, high = ratio_interval(rng.binomial(wholes, rates), wholes)
        covered += low <= 0.4 <= high
    assert covered >= 0.925 * 400


def test_average_by_hand():
    """Half right of 400 and of 100: half widths 0.0488 and 0.0962 (Wilson).

    Of their mean sqrt(0.0488^2 + 0.0962^2)/2 = 0.0539. Nothing right of 30 is no certainty:
    Wilson's 0.1135 above, and half of that in the mean with a sure 0.5.
    """
    mean, low, high = average_interval([(0.5, *wilson(200, 400)), (0.5, *wilson(50, 100))])
    assert mean == 0.5 and (low, high) == pytest.approx((0.4461, 0.5539), abs=1e-4)
    assert average_interval([(0.5, 0.5, 0.5), (0, *wilson(0, 30))]) == pytest.approx(
        (0.25, 0.25, 0.25 + 0.1135 / 2), abs=1e-4
    )
    assert average_interval([(0.5, 0.4, 0.6), (0, 0, 0.1)]) == pytest.approx(
        (0.25, 0.2, 0.3207), abs=1e-4
    )
    assert average_interval([(0, 0, 0.1)]) == (0, 0, 0.1)
    differences = [(-0.5, -0.6, -0.4), (0.1, 0, 0.2)]
    assert average_interval(differences) == pytest.approx((-0.2, -0.2707, -0.1293), abs=1e-4)


@pytest.mark.parametrize(
    "interval, p",
    [
        ((0.25, 0.2, 0.5), 1.1e-22),
        ((-0.1, -0.3, 0.1), 0.32709),
        ((0.1, 0.0, 0.5), 0.05),
        ((0.0, -0.2, 0.1), 1),
    ],
)
def test_p_of_an_interval_by_hand(interval, p):
    """The end towards zero is 1.96 standard errors away: 9.8, 0.98, 1.96 and 0 of them."""
    assert interval_p(*interval) == pytest.approx(p, rel=0.05 if p < 1e-9 else 1e-4)
    difference, low, high = interval
    assert interval_p(-difference, -high, -low) == interval_p(*interval)


def test_p_and_interval_never_disagree():
    """Below 0.05 if and only if zero is outside: also if the sets have an item or two, or one of
    them does not tell the models apart.
    """
    rng, significant = np.random.default_rng(0), []
    for sizes in ((1, 1), (1, 2, 2, 1, 1, 2), (30,), (20, 30), (40, 25, 272)):
        for _ in range(100):
            skill, intervals = rng.random(), []
            for n in sizes:
                first, second = rng.binomial(4, 0.5, n) / 4, rng.binomial(4, skill, n) / 4
                intervals.append(paired_interval(first, second if rng.random() < 0.8 else first))
            difference, low, high = average_interval(intervals)
            significant.append(interval_p(difference, low, high) < 0.05)
            assert significant[-1] == (low > 0 or high < 0)
    assert 100 < sum(significant) < 400


def test_p_of_many_items_is_near_students():
    """500 items, avg@4: two more items hardly matter."""
    rng = np.random.default_rng(4)
    for skill in (0.5, 0.52, 0.55):
        first, second = rng.binomial(4, skill, 500) / 4, rng.binomial(4, 0.5, 500) / 4
        expected = scipy.stats.ttest_rel(first, second).pvalue
        p = interval_p(*paired_interval(first, second))
        assert p == pytest.approx(expected, rel=0.05, abs=1e-4)


def naive_holm(ps):
    """By the definition: the largest (m - k + 1) p_(k) over all p no larger than this one.

    Equal p share the first one's factor.
    """
    factor = {p: len(ps) - sorted(ps).index(p) for p in ps}
    return [min(1, max(factor[q] * q for q in ps if q <= p)) for p in ps]


@pytest.mark.parametrize(
    "ps, adjusted",
    [
        ([0.02, 0.01, 0.04], [0.04, 0.03, 0.04]),
        ([0.5], [0.5]),
        ([0.6, 0.7], [1, 1]),
        ([0.01, 0.011, 0.2], [0.03, 0.03, 0.2]),
        ([0.03, 0.03], [0.06, 0.06]),
        ([0, 1], [0, 1]),
        ([], []),
    ],
)
def test_holm_by_hand(ps, adjusted):
    """[0.01, 0.011, 0.2]: 0.01 x 3 = 0.03; 0.011 x 2 = 0.022 is raised to 0.03; 0.2 x 1.

    Equal p stay equal: 0.03 x 2, and no less.
    """
    assert holm(ps) == pytest.approx(adjusted)


def test_holm_against_its_definition():
    rng = np.random.default_rng(0)
    for m in range(1, 12):
        ps = [float(p) for p in np.round(rng.random(m) ** 3, 2)]
        adjusted = holm(ps)
        assert adjusted == pytest.approx(naive_holm(ps)) and holm(np.array(ps)) == adjusted
        assert all(p <= q <= 1 for p, q in zip(ps, adjusted)) and holm(ps[::-1]) == adjusted[::-1]


def sure(*means):
    """Return runs whose items leave no doubt, so that only the spread of the runs is left."""
    return [(mean, mean, mean) for mean in means]


def test_over_seeds_by_hand():
    """0.47, 0.48, 0.52: sd sqrt(0.0007), half width 4.3027 x sqrt(0.0007/3) = 0.0657.

    Two seeds: 12.7062 x (their distance)/2, cut at 0 and 1.
    """
    expected = (0.49, math.sqrt(0.0007), 0.49 - 0.0657, 0.49 + 0.0657)
    assert over_seeds(sure(0.47, 0.48, 0.52)) == pytest.approx(expected, abs=1e-4)
    expected = (0.5, math.sqrt(0.0002), 0.5 - 0.1271, 0.5 + 0.1271)
    assert over_seeds(sure(0.49, 0.51)) == pytest.approx(expected, abs=1e-4)
    assert over_seeds(sure(0.4, 0.6))[2:] == (0, 1)


def test_equal_seeds_are_no_certainty():
    """Twice 21 of 40: Wilson's (0.3750, 0.6706), whose distances shrink by sqrt(2).

    Twice 0 of 30: Wilson's 0.1135/sqrt(2).
    """
    run = (21 / 40, *wilson(21, 40))
    assert over_seeds([run, run]) == pytest.approx((0.525, 0, 0.4190, 0.6280), abs=1e-3)
    none = (0, *wilson(0, 30))
    assert over_seeds([none, none]) == pytest.approx((0, 0, 0, 0.0803), abs=1e-4)
    assert seeds_difference([none, none], [none, none]) == pytest.approx(
        (-0.0803, 0.0803), abs=1e-4
    )


@pytest.mark.parametrize("values", [[], [1]])
def test_one_seed_says_nothing_of_seeds(values):
    runs = sure(*values)
    with pytest.raises(ValueError):
        over_seeds(runs)
    with pytest.raises(ValueError):
        seeds_difference(sure(0.4, 0.5), runs)


@pytest.mark.parametrize(
    "first, second", [((0.5, 0.52, 0.49), (0.4, 0.41)), ((0.3, 0.31), (0.6, 0.6, 0.62, 0.59))]
)
def test_the_difference_over_seeds_is_that_of_welch(first, second):
    welch = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    found = seeds_difference(sure(*first), sure(*second))
    assert found == pytest.approx((welch.low, welch.high))


@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_p_of_equal_models_is_small_as_seldom_as_it_says(times):
    """Pairs of equal models, avg@4: p <= 0.05 in at most 5 %, up to three standard errors; AVG too.

    It is less with few items, since the two that are added to an interval differ from the others.
    """
    rng, single, several = np.random.default_rng(0), 0, 0
    for _ in range(times):
        pairs = []
        for skill in (rng.random(40), rng.random(25)):
            pairs.append((rng.binomial(4, skill) / 4, rng.binomial(4, skill) / 4))
        intervals = [paired_interval(*pair) for pair in pairs]
        single += interval_p(*intervals[0]) <= 0.05
        several += interval_p(*average_interval(intervals)) <= 0.05
    error = 3 * math.sqrt(0.95 * 0.05 / times)
    for hits in (single, several):
        assert hits / times <= 0.05 + error


@pytest.mark.parametrize("values", [[], [0.5, float("nan")], [1.5], [-0.1, 0.2], [None]])
def test_what_is_no_share_is_refused(values):
    with pytest.raises(ValueError):
        mean_interval(values)
    with pytest.raises(ValueError):
        paired_interval(values, values)
