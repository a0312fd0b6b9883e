"""Intervals and tests of scores: by hand, against scipy, and by simulation."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from common.core import stats
from common.core.stats import (
    average_interval,
    holm,
    mcnemar,
    mean_interval,
    over_seeds,
    paired_difference,
    wilson,
)


def interval_of(a, b, *settings, **named):
    """Return value, low and high of one benchmark."""
    return paired_difference([(a, b)], *settings, **named)[:3]


def sign_flip(a, b, draws=10_000, seed=0):
    """Return p of one benchmark."""
    return paired_difference([(a, b)], draws, seed)[3]


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
    "a, b, expected",
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], (0, 0, 0)),  # equal item by item: no resample can differ
        ([1, 0], [1, 0], (0, 0, 0)),
        ([1] * 5, [0] * 5, (1, 1, 1)),
        ([0] * 5, [1] * 5, (-1, -1, -1)),
        ([True], [False], (1, 1, 1)),
    ],
)
def test_differences_without_doubt(a, b, expected):
    assert interval_of(a, b) == expected


def test_paired_difference_against_all_resamples_by_hand():
    """3 items, differences +1, 0, 0. Of 27 resamples 8 sum to 0, 12 to 1, 6 to 2 and 1 to 3.

    (Binomial, p = 1/3.) The 97.5th percentile is at the first sum whose cumulated share passes it:
    26/27 = 0.963 < 0.975, so 3/3; the 2.5th is 0/3.
    """
    sums = sorted(sum(choice) for choice in itertools.product([1, 0, 0], repeat=3))
    assert [sums.count(k) for k in range(4)] == [8, 12, 6, 1]
    assert interval_of([1, 1, 0], [0, 1, 0]) == pytest.approx((1 / 3, 0, 1))


def test_paired_difference_against_a_bootstrap_of_items():
    """The plain form, items drawn with replacement. Unpaired the interval would be far wider."""
    rng = np.random.default_rng(1)
    b = rng.random(300) < 0.5
    a = b ^ (rng.random(300) < 0.1) & ~b | b & (rng.random(300) < 0.97)
    d = a.astype(int) - b.astype(int)
    means = d[rng.integers(0, 300, (10_000, 300))].mean(axis=1)
    difference, low, high = interval_of(a, b)
    assert difference == pytest.approx(d.mean())
    assert (low, high) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=0.006)
    assert high - low < 0.5 * 2 * 1.96 * np.sqrt(2 * 0.25 / 300)


@pytest.mark.parametrize("times", [100, pytest.param(400, marks=pytest.mark.slow)])
def test_a_paired_interval_covers_the_truth_as_often_as_it_says(times):
    """Experiments of 200 items; a alone is right on 20 %, b alone on 10 %: the truth is +0.1.

    95 %, up to three standard errors sqrt(times x 0.95 x 0.05), and a little less: the percentile
    bootstrap covers slightly too little.
    """
    rng, hits = np.random.default_rng(0), 0
    for i in range(times):
        kind = rng.choice(4, 200, p=[0.2, 0.1, 0.4, 0.3])
        a, b = (kind == 0) | (kind == 2), (kind == 1) | (kind == 2)
        _, low, high = interval_of(a, b, resamples=1000, seed=i)
        hits += low <= 0.1 <= high
    error = 3 * math.sqrt(times * 0.95 * 0.05)
    assert 0.938 * times - error <= hits <= 0.95 * times + error


@pytest.mark.parametrize("seed", range(5))
def test_swapping_the_models_turns_the_sign(seed):
    """The difference to the last bit, the interval up to the noise of the draws (0.001)."""
    rng = np.random.default_rng(seed)
    a, b = rng.random(200) < 0.6, rng.random(200) < 0.5
    difference, low, high = interval_of(a, b)
    other, other_low, other_high = interval_of(b, a)
    assert other == -difference and (other_low, other_high) == pytest.approx(
        (-high, -low), abs=0.011
    )
    assert low <= difference <= high and interval_of(a, b) == (difference, low, high)


def test_order_of_items_does_not_matter_but_pairing_does():
    a, b = [1, 1, 0, 0] * 20, [1, 0, 1, 0] * 20
    assert interval_of(a[::-1], b[::-1]) == interval_of(a, b)
    assert interval_of(a, a) == (0, 0, 0) != interval_of(a, sorted(a))


@pytest.mark.parametrize("a, b", [([], []), ([1], [1, 0]), ([2], [1])])
def test_what_cannot_be_paired_is_refused(a, b):
    with pytest.raises(ValueError):
        interval_of(a, b)


@pytest.mark.parametrize(
    "n, wins, losses",
    [(1000, 120, 75), (500, 0, 0), (40, 22, 6), (7, 0, 7), (1319, 3, 0), (5000, 900, 901)],
)
def test_0_and_1_are_one_draw_of_wins_losses_and_ties(n, wins, losses):
    """To the last digit: published intervals of this kit were made so."""
    a, b = np.zeros(n), np.zeros(n)
    a[:wins], b[wins : wins + losses] = 1, 1
    draws = np.random.default_rng(3).multinomial(
        n, [wins / n, losses / n, (n - wins - losses) / n], size=2000
    )
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / n, [2.5, 97.5])
    assert interval_of(a, b, 2000, seed=3) == ((wins - losses) / n, low, high)


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


def all_means(values):
    """The mean of each of the n^n equally likely resamples."""
    return np.array(
        [sum(choice) / len(values) for choice in itertools.product(values, repeat=len(values))]
    )


@pytest.mark.parametrize(
    "values", [[1, 0.5, 0], [0.25, 0.25, 0.75, 1], [0.1, 0.2, 0.3, 0.35, 0.9], [0.5, 0.5]]
)
def test_mean_interval_against_all_resamples(values):
    mean, low, high = mean_interval(values)
    assert mean == pytest.approx(sum(values) / len(values))
    expected = np.percentile(all_means(values), [2.5, 97.5], method="inverted_cdf")
    assert (low, high) == pytest.approx(expected, abs=0.02 * np.ptp(values) + 1e-9)


def test_mean_interval_is_as_wide_as_theory_says():
    """1,000 items, half 0.25, half 0.75: standard error 0.25/sqrt(1000), half width 0.0155."""
    mean, low, high = mean_interval([0.25, 0.75] * 500)
    assert mean == 0.5 and (low, high) == pytest.approx((0.5 - 0.0155, 0.5 + 0.0155), abs=0.0006)


def test_mean_interval_of_0_and_1_is_near_wilson():
    assert mean_interval([1] * 300 + [0] * 700)[1:] == pytest.approx(wilson(300, 1000), abs=0.002)


def test_a_difference_of_shares_against_a_bootstrap_of_items():
    """avg@16 of 300 items. 0.3 - 0.1 and 0.4 - 0.2, unequal in their last bits, are one value."""
    rng = np.random.default_rng(2)
    skill = rng.beta(1, 2, 300)
    a, b = rng.binomial(16, skill) / 16, rng.binomial(16, skill * 0.9) / 16
    means = (a - b)[rng.integers(0, 300, (10_000, 300))].mean(axis=1)
    difference, low, high = interval_of(a, b)
    assert difference == pytest.approx((a - b).mean()) and (low, high) == pytest.approx(
        np.percentile(means, [2.5, 97.5]), abs=0.001
    )
    values, counts = stats._count_distinct(
        np.array([0.3 - 0.1, 0.4 - 0.2, 0.0, 1 - 0.8, -0.5, 0.0])
    )
    assert values == pytest.approx([-0.5, 0.2, 0]) and list(counts) == [1, 3, 2]


@pytest.mark.parametrize("value", [0, 1, 1 / 3, 0.1, 0.7])
def test_no_doubt_no_width(value):
    """And never an interval without its own mean, which a chart would refuse."""
    mean, low, high = mean_interval([value] * 7)
    assert mean == pytest.approx(value) and low <= mean <= high and high - low < 1e-11


def test_avg_weighs_benchmarks_equally():
    """1,000 items all right, 2 items all wrong, against the reverse: the difference is 0."""
    assert paired_difference([([1] * 1000, [0] * 1000), ([0, 0], [1, 1])])[:3] == (0, 0, 0)
    assert paired_difference([([1, 1], [0, 0]), ([1, 0, 1], [1, 0, 1])])[:3] == (0.5, 0.5, 0.5)


def test_another_seed_draws_other_resamples():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 60) / 4, rng.integers(0, 5, 60) / 4
    assert interval_of(a, b) != interval_of(a, b, seed=1)
    assert mean_interval(b) != mean_interval(b, seed=1)


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


@pytest.mark.parametrize(
    "a, b, p",
    [
        ([0.5, 1, 0.2], [0.5, 1, 0.2], 1),
        ([0.5] * 3, [0] * 3, 2 / 8),
        ([0, 0, 0], [1, 1, 1], 2 / 8),
        ([1], [0], 1),
        ([1, 0.5, 0], [0, 0, 0.25], 2 / 8 + 2 / 8),
        ([0.3, 0.4, 0], [0.1, 0.2, 0], 2 / 4),
    ],
)
def test_sign_flip_by_hand(a, b, p):
    """1, 0.5, -0.25 sum to 1.25; of 8 patterns +-1 +-0.5 +-0.25 four reach it: +-1.75, +-1.25.

    0.2, 0.2, 0: 2 of 4. 10,000 draws scatter by up to 0.005 x 3 around it.
    """
    assert sign_flip(a, b) == pytest.approx(p, abs=0.015) and sign_flip(a, b) == sign_flip(b, a)


def test_sign_flip_is_never_zero_and_counts_the_data_themselves():
    assert (
        sign_flip([1] * 50, [0] * 50) == 1 / 10_001
        and sign_flip([1] * 50, [0] * 50, draws=99) == 1 / 100
    )


@pytest.mark.parametrize("wins, losses", [(8, 1), (22, 6), (30, 20), (5, 5), (120, 75)])
def test_sign_flip_of_0_and_1_is_mcnemar(wins, losses):
    a, b = [1] * wins + [0] * losses + [1] * 40, [0] * wins + [1] * losses + [1] * 40
    assert sign_flip(a, b) == pytest.approx(mcnemar(wins, losses), abs=0.015)


def test_stratified_p_against_all_patterns():
    """Differences 1, 0.5 of one benchmark and 0.25, -0.75, 0 of another.

    Expected is the share of the 16 patterns that reach |mean of means|; 10,000 draws have a
    standard error of 0.005, here four of them.
    """
    pairs = [([1, 0.5], [0, 0]), ([0.25, 0, 0.5], [0, 0.75, 0.5])]
    sums = [
        (s[0] + 0.5 * s[1]) / 2 + (0.25 * s[2] + 0.75 * s[3]) / 3
        for s in itertools.product([1, -1], repeat=4)
    ]
    observed = 1.5 / 2 - 0.5 / 3
    share = np.mean(np.abs(sums) >= observed - 1e-12)
    difference, low, high, p = paired_difference(pairs)
    assert (
        difference == pytest.approx(observed / 2)
        and low <= difference <= high
        and p == pytest.approx(share, abs=0.02)
    )


def test_sign_flip_against_scipy():
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 17, 12) / 16, rng.integers(0, 15, 12) / 16
    exact = scipy.stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert sign_flip(a, b) == pytest.approx(exact, abs=0.015)


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


def test_over_seeds_by_hand():
    """47, 48, 52: mean 49, sd sqrt(7), half width 4.3027 x sqrt(7/3) = 6.5725.

    Two seeds: 12.7062 x (their distance)/2.
    """
    assert over_seeds([47, 48, 52]) == pytest.approx(
        (49, math.sqrt(7), 49 - 6.5725, 49 + 6.5725), abs=1e-4
    )
    assert over_seeds([0.4, 0.6]) == pytest.approx(
        (0.5, math.sqrt(0.02), 0.5 - 1.27062, 0.5 + 1.27062)
    )
    assert over_seeds([0.7, 0.7, 0.7]) == pytest.approx((0.7, 0, 0.7, 0.7))


@pytest.mark.parametrize("values", [[], [1]])
def test_one_seed_says_nothing_of_seeds(values):
    with pytest.raises(ValueError):
        over_seeds(values)


def avg_at_16(n):
    """Items whose skills are beta(1, 3), mean 1/4."""
    return lambda rng, i: mean_interval(rng.binomial(16, rng.beta(1, 3, n)) / 16, 600, i)


def average(rng, i):
    return average_interval([avg_at_16(n)(rng, i) for n in (30, 100, 200)])


def average_of_few(rng, i):
    """AIME24, AMC23, MATH-500 of a weak model: often nothing right; the mean share is 0.15."""
    counts = [(n, rng.binomial(n, share)) for n, share in ((30, 0.02), (40, 0.08), (500, 0.35))]
    return average_interval([(k / n, *wilson(k, n)) for n, k in counts])


def average_difference(rng, i):
    """Each item is easier by 0.1 for a."""
    pairs = []
    for n in (30, 100):
        skill = rng.random(n) * 0.9
        pairs.append((rng.random(n) < skill + 0.1, rng.random(n) < skill))
    return paired_difference(pairs, 600, i)[:3]


def three_seeds(rng, i):
    return over_seeds(rng.normal(50, 3, 3))[1:]


SIMULATIONS = {  # experiment, truth, times, and between which shares it covers the truth
    "200 items": (avg_at_16(200), 0.25, 1000, 0.95, 0.95),
    "30 items": (avg_at_16(30), 0.25, 1000, 0.935, 0.95),
    "average": (average, 0.25, 1000, 0.945, 0.95),
    "average of few": (average_of_few, 0.15, 2000, 0.95, 0.96),
    "difference": (average_difference, 0.1, 500, 0.95, 0.955),
    "seeds": (three_seeds, 50, 2000, 0.95, 0.95),
}


@pytest.mark.parametrize("part", [0.1, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SIMULATIONS)
def test_intervals_cover_the_truth_as_often_as_they_say(name, part):
    """In 95 % of cases, up to three standard errors sqrt(0.95 x 0.05/times): 2.1 points of 1,000.

    A percentile bootstrap of 30 items covers about 94 %. The fast form takes a tenth of the cases.
    """
    experiment, truth, times, lowest, highest = SIMULATIONS[name]
    times = int(times * part)
    rng, hits = np.random.default_rng(0), 0
    for i in range(times):
        _, low, high = experiment(rng, i)
        hits += low <= truth <= high
    error = 3 * math.sqrt(0.95 * 0.05 / times)
    assert lowest - error <= hits / times <= highest + error


@pytest.mark.parametrize("times", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_p_of_equal_models_is_small_as_seldom_as_it_says(times):
    """Pairs of equal models, avg@4: p <= 0.05 in 5 %, up to three standard errors; AVG as well."""
    rng, single, several = np.random.default_rng(0), 0, 0
    for i in range(times):
        pairs = []
        for skill in (rng.random(40), rng.random(25)):
            pairs.append((rng.binomial(4, skill) / 4, rng.binomial(4, skill) / 4))
        single += sign_flip(*pairs[0], draws=999, seed=i) <= 0.05
        several += stats._sign_flip_p([a - b for a, b in pairs], 999, i) <= 0.05
    error = 3 * math.sqrt(0.95 * 0.05 / times)
    for hits in (single, several):
        assert 0.05 - error <= hits / times <= 0.05 + error


BAD = [[], [0.5, float("nan")], [1.5], [-0.1, 0.2], [None]]


@pytest.mark.parametrize("values", BAD)
def test_what_is_no_share_is_refused(values):
    for call in (
        lambda: mean_interval(values),
        lambda: interval_of(values, values),
        lambda: paired_difference([([1], [0]), (values, values)]),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_unequal_lists_are_refused():
    with pytest.raises(ValueError):
        paired_difference([([0.5], [0.5, 1])])
