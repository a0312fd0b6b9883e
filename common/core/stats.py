"""Intervals and tests of scores: a share, a mean over items, a paired difference, several
benchmarks, several seeds.

All intervals are two-sided 95 %. Bootstraps resample the items of a test set, so they say what
other questions of the same kind would give; other seeds, orders and prompts vary besides
(over_seeds). Per item a score is a share in 0..1: 0 or 1 of a greedy answer, or a mean over the k
samples of the item (avg@k), which is why items are resampled and never samples. scipy's bootstrap
and permutation_test give the same and take 300 to 500 times as long.
"""

import math
import statistics

import numpy as np
from scipy.stats import binomtest, t


def wilson(correct: int, n: int) -> tuple:
    """Return the 95 % interval of a proportion, (low, high) in 0..1 (Wilson 1927).

    By hand: 8 of 10 gives center (0.8 + z^2/20) / (1 + z^2/10) = 0.7167 and half width 0.2265, so
    (0.490, 0.943).
    """
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p that two models differ on the same items (McNemar 1947).

    wins, losses: how many items only the first, only the second model gets right. Under "no
    difference" wins is binomial(wins + losses, 1/2); p is twice the smaller tail, at most 1, and 1
    without such items; 0.0 if a float cannot hold it.
    By hand: 8 against 1: (1 + 9) of 2^9 = 512 outcomes have at most one loss, so
    p = 2 x 10/512 = 0.039.
    """
    if wins == losses:
        return 1.0
    return float(binomtest(wins, wins + losses).pvalue)


def mean_interval(values, resamples=10_000, seed=0) -> tuple:
    """Return (value, low, high): the mean over items of avg@k, pass@k or maj@k, its bootstrap.

    values: share in 0..1 per item. Of few items (30 of AIME24) it covers the truth in 94 rather
    than 95 % of cases; for 0/1 wilson is the better one. By hand: [1, 0, 0]: 8/27 = 30 % of all
    resamples have mean 0 and 1/27 = 4 % have mean 1: (1/3, 0, 1).
    """
    return _bootstrap([_check_shares(values)], resamples, seed)


def paired_difference(pairs: list, resamples=10_000, seed=0) -> tuple:
    """Return (value, low, high, p): the mean of a - b, of several benchmarks that of their means.

    pairs: (a, b) a benchmark, share in 0..1 per item, in the same order. Items are resampled, each
    benchmark's on their own, so what both models find hard stays paired. p: two-sided, for values
    that are not just 0 and 1 (those: mcnemar). Under "no difference" each a - b might as well be
    b - a: p = (1 + draws whose mean is at least as far from zero) / (draws + 1), so never zero.
    By hand: ([1, 1], [0, 0]) and ([1, 0, 1], [1, 0, 1]): (1 + 0)/2 = 0.5 whatever is drawn, so
    (0.5, 0.5, 0.5); two of the four sign patterns reach |0.5|, so p is about 1/2. Raises
    ValueError if two lists are not equally long, empty, or hold anything outside 0..1.
    """
    differences = [np.subtract(*_check_shares(pair)) for pair in pairs]
    return *_bootstrap(differences, resamples, seed), _sign_flip_p(differences, resamples, seed)


def average_interval(intervals: list) -> tuple:
    """Return AVG, the unweighted mean over benchmarks, from the interval of each.

    intervals: (mean, low, high) a benchmark, in 0..1, each from items of its own. The distances to
    the ends are combined as independent errors are (MOVER, Zou and Donner 2008), so that 0 of 30
    adds its share of doubt, as no bootstrap of zeros does.
    By hand: (0.5, 0.4, 0.6) and (0, 0, 0.1): 0.25, less sqrt(0.1^2 + 0)/2 = 0.05, plus
    sqrt(0.1^2 + 0.1^2)/2 = 0.071: (0.25, 0.2, 0.321).
    """
    means, lows, highs = np.transpose(intervals)
    mean = statistics.fmean(means)
    below = math.hypot(*(means - lows)) / len(means)
    above = math.hypot(*(highs - means)) / len(means)
    return mean, max(0.0, mean - below), min(1.0, mean + above)


def holm(ps) -> list:
    """Return the adjusted p of several tests, in the same order (Holm 1979).

    At < 0.05 there is no more than 5 % risk of any false one. The smallest of m is multiplied by
    m, the next by m - 1, ...; none falls below the one before it, none passes 1.
    By hand: [0.02, 0.01, 0.04]: 0.01 x 3 = 0.03; 0.02 x 2 = 0.04; 0.04 x 1: [0.04, 0.03, 0.04].
    """
    order = np.argsort(ps)
    scaled = np.sort(ps) * np.arange(len(ps), 0, -1)
    adjusted = np.zeros(len(ps))
    adjusted[order] = np.maximum.accumulate(scaled).clip(max=1)
    return adjusted.tolist()


def over_seeds(values) -> tuple:
    """Return scores of one recipe under several seeds as (mean, standard deviation, low, high).

    In the unit of the values. Standard deviation with n - 1; the interval is Student's, of the
    mean over seeds. By hand: 47, 48, 52: mean 49, variance (4 + 1 + 9)/2 = 7, sd 2.646, half width
    4.3027 x 2.646/sqrt(3) = 6.572, so 42.43 to 55.57: three seeds say little.
    """
    n = len(values)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean, deviation, mean - half, mean + half


def _check_shares(values):
    shares = np.asarray(values, dtype=float)  # a ValueError if two lists are not equally long
    if not shares.size or not 0 <= shares.min() <= shares.max() <= 1:
        raise ValueError(f"expected at least one share in 0..1, got {str(shares)[:80]}")
    return shares


def _count_distinct(items):
    """Return the distinct values and how many items have each.

    The largest magnitudes first, + before -: the order decides which draws a seed gives.
    """
    # rounded: 0.3 - 0.1 and 0.4 - 0.2 are one value
    values, counts = np.unique(np.round(items, 12), return_counts=True)
    order = np.lexsort((-values, -np.abs(values)))
    return values[order], counts[order]


def _bootstrap(strata, resamples, seed):
    """Return the mean of the strata's means, with its 2.5th and 97.5th percentile.

    Only how many items have each value matters, so a resample is one multinomial draw: for 0/1 of
    wins, losses and ties.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for items in strata:
        values, counts = _count_distinct(items)
        n = len(items)
        total += rng.multinomial(n, counts / n, size=resamples) @ values / n
    low, high = np.percentile(total / len(strata), [2.5, 97.5])
    mean = statistics.fmean(map(statistics.fmean, strata))
    # Rounding may pass the mean if no resample differs.
    return mean, min(float(low), mean), max(float(high), mean)


def _sign_flip_p(strata, draws, seed):
    """Return the share of random signs that give a mean as far from zero as the one observed.

    Of c items with the same |difference| a binomial number b keeps the plus: their sum is
    value x (2 b - c).
    """
    rng = np.random.default_rng(seed)
    flipped = np.zeros(draws)
    observed = 0.0
    for differences in strata:
        values, counts = _count_distinct(np.abs(differences))
        positive = rng.binomial(counts, 0.5, size=(draws, len(values)))
        flipped += (2 * positive - counts) @ values / len(differences)
        observed += statistics.fmean(differences)
    extreme = np.abs(flipped) >= abs(observed) - 1e-9  # ties count, whatever their last bits
    return float((extreme.sum() + 1) / (draws + 1))
