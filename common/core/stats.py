"""Intervals and tests of scores: a share, a mean over items, a paired difference, several
benchmarks, several seeds.

All intervals are two-sided 95 %. Bootstraps resample the items of a test set, so they say what
other questions of the same kind would give; other seeds, orders and prompts vary besides
(over_seeds). Per item a score is a share in 0..1: 0 or 1 of a greedy answer, or a mean over the k
samples of the item (avg@k), which is why items are resampled and never samples.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, t

Interval = tuple[float, float, float]  # value, low, high
Shares = Sequence[float] | np.ndarray  # one in 0..1 for each item


def wilson(correct: int, n: int) -> tuple:
    """Return the 95 % interval of a proportion, (low, high) in 0..1 (Wilson 1927).

    By hand: 8 of 10 gives center (0.8 + z^2/20) / (1 + z^2/10) = 0.7167 and half width 0.2265, so
    (0.490, 0.943). Raises ValueError unless 0 <= correct <= n and n >= 1.
    """
    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(wins: int, losses: int) -> float:
    """Return the exact two-sided p that two models differ on the same items (McNemar 1947).

    wins, losses: how many items only the first, only the second model gets right. Under "no
    difference" wins is binomial(wins + losses, 1/2); p is twice the smaller tail, at most 1, and 1
    without such items; 0.0 if a float cannot hold it.
    By hand: 8 against 1: (1 + 9) of 2^9 = 512 outcomes have at most one loss, so
    p = 2 x 10/512 = 0.039. Raises ValueError for a negative count, TypeError for a fraction.
    """
    if wins == losses:
        return 1.0
    return float(binomtest(wins, wins + losses).pvalue)


def paired_difference(a: Shares, b: Shares, resamples=10_000, seed=0) -> Interval:
    """Return the mean of a - b over the same items with its percentile bootstrap interval.

    a, b: share in 0..1 per item, in the same order; the result is in -1..1. Items are resampled,
    so what both models find hard stays paired.
    By hand: [1, 1, 0] and [0, 1, 0]: differences +1, 0, 0, so 1/3. 8/27 = 30 % of all resamples
    have mean 0 and 1/27 = 4 % have mean 1: (1/3, 0, 1). Raises ValueError if the lists are empty,
    not equally long, or hold anything outside 0..1.
    """
    return _bootstrap([_differences(a, b)], resamples, seed)


def mean_interval(values: Shares, resamples=10_000, seed=0) -> Interval:
    """Return the mean over items of avg@k, pass@k or maj@k with its percentile bootstrap interval.

    values: share in 0..1 per item. Of few items (30 of AIME24) it covers the truth in 94 rather
    than 95 % of cases; for 0/1 wilson is the better one. By hand: [1, 0, 0]: as in
    paired_difference, (1/3, 0, 1). Raises ValueError as it does.
    """
    return _bootstrap([_shares(values)], resamples, seed)


def stratified_difference(pairs: list, resamples=10_000, seed=0) -> tuple:
    """Return the difference of AVG, the unweighted mean over benchmarks: (value, low, high, p).

    pairs: a list of (a, b), one a benchmark, each as in paired_difference; each benchmark is
    resampled on its own, since its items are its own sample. p: two-sided, by 10,000 random flips
    of the signs of all differences (see sign_flip).
    By hand: ([1, 1], [0, 0]) and ([1, 0, 1], [1, 0, 1]): (1 + 0)/2 = 0.5 whatever is drawn, so
    (0.5, 0.5, 0.5); two of the four sign patterns reach |0.5|, so p is about 1/2.
    Raises ValueError as paired_difference does.
    """
    differences = [_differences(a, b) for a, b in pairs]
    return *_bootstrap(differences, resamples, seed), _sign_flip_p(differences, 10_000, seed)


def average_interval(intervals: list) -> Interval:
    """Return AVG, the unweighted mean over benchmarks, from the interval of each.

    intervals: (mean, low, high) a benchmark, in 0..1, each from items of its own. The distances to
    the ends are combined as independent errors are (MOVER, Zou and Donner 2008), so that 0 of 30
    adds its share of doubt, as no bootstrap of zeros does.
    By hand: (0.5, 0.4, 0.6) and (0, 0, 0.1): 0.25, less sqrt(0.1^2 + 0)/2 = 0.05, plus
    sqrt(0.1^2 + 0.1^2)/2 = 0.071: (0.25, 0.2, 0.321).
    """
    n = len(intervals)
    mean = statistics.fmean(mean for mean, _, _ in intervals)
    below = math.hypot(*(mean - low for mean, low, _ in intervals)) / n
    above = math.hypot(*(high - mean for mean, _, high in intervals)) / n
    return mean, max(0.0, mean - below), min(1.0, mean + above)


def sign_flip(a: Shares, b: Shares, draws=10_000, seed=0) -> float:
    """Return the two-sided p that the paired mean difference is zero.

    It is for values that are not just 0 and 1 (those: mcnemar). Under "no difference" each a - b
    might as well be b - a. p = (1 + draws whose mean is at least as far from zero) / (draws + 1),
    so never zero; 1.0 if a and b are equal item by item. By hand: three differences of 0.5: 2 of 8
    sign patterns are as extreme, so p is about 1/4. Raises ValueError as paired_difference does.
    """
    return _sign_flip_p([_differences(a, b)], draws, seed)


def holm(ps: Sequence) -> list:
    """Return the adjusted p of several tests, in the same order (Holm 1979).

    At < 0.05 there is no more than 5 % risk of any false one. The smallest of m is multiplied by
    m, the next by m - 1, ...; none falls below the one before it, none passes 1.
    By hand: [0.02, 0.01, 0.04]: 0.01 x 3 = 0.03; 0.02 x 2 = 0.04; 0.04 x 1: [0.04, 0.03, 0.04].
    An empty list stays one.
    """
    order = np.argsort(ps)
    scaled = np.sort(ps) * np.arange(len(ps), 0, -1)
    adjusted = np.zeros(len(ps))
    adjusted[order] = np.maximum.accumulate(scaled).clip(max=1)
    return adjusted.tolist()


def over_seeds(values: Sequence) -> tuple:
    """Return scores of one recipe under several seeds as (mean, standard deviation, low, high).

    In the unit of the values. Standard deviation with n - 1; the interval is Student's, of the
    mean over seeds. By hand: 47, 48, 52: mean 49, variance (4 + 1 + 9)/2 = 7, sd 2.646, half width
    4.3027 x 2.646/sqrt(3) = 6.572, so 42.43 to 55.57: three seeds say little.
    Raises statistics.StatisticsError, a ValueError, for fewer than two values.
    """
    n = len(values)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean, deviation, mean - half, mean + half


# --- how they are drawn --------------------------------------------------------------------------
# scipy's bootstrap and permutation_test give the same and take 300 to 500 times as long.


def _shares(values):
    shares = np.asarray(values, dtype=float)
    if shares.ndim != 1 or not len(shares) or not 0 <= shares.min() <= shares.max() <= 1:
        raise ValueError(f"expected a list of at least one share in 0..1, got {str(shares)[:80]}")
    return shares


def _differences(a, b):
    a, b = _shares(a), _shares(b)
    if len(a) != len(b):
        raise ValueError(f"expected two equally long lists, got {len(a)} and {len(b)} shares")
    return a - b


def _distinct(items):
    """Return the distinct values and how many items have each.

    The largest magnitudes first, + before -: the order decides which draws a seed gives.
    """
    # 0.3 - 0.1 and 0.4 - 0.2 are one value.
    values, counts = np.unique(np.round(items, 12), return_counts=True)
    order = np.lexsort((-values, -np.abs(values)))
    return values[order], counts[order]


def _resampled_means(items, resamples, rng):
    """Return the mean of each resample of the items, [resamples].

    Only how many items have each value matters, so a resample is one multinomial draw: for 0/1 of
    wins, losses and ties.
    """
    values, counts = _distinct(items)
    n = len(items)
    return rng.multinomial(n, counts / n, size=resamples) @ values / n


def _flipped_means(differences, draws, rng):
    """Return the mean difference under each draw of random signs, [draws].

    Of c items with the same |difference| a binomial number b keeps the plus: their sum is
    value x (2 b - c).
    """
    values, counts = _distinct(np.abs(differences))
    positive = rng.binomial(counts, 0.5, size=(draws, len(values)))
    return (2 * positive - counts) @ values / len(differences)


def _bootstrap(strata, resamples, seed):
    """Return the mean of the strata's means, with its 2.5th and 97.5th percentile."""
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for items in strata:
        total += _resampled_means(items, resamples, rng)
    low, high = np.percentile(total / len(strata), [2.5, 97.5])
    mean = statistics.fmean(map(statistics.fmean, strata))
    # Rounding may pass the mean if no resample differs.
    return mean, min(float(low), mean), max(float(high), mean)


def _sign_flip_p(strata, draws, seed):
    rng = np.random.default_rng(seed)
    flipped = np.zeros(draws)
    observed = 0.0
    for differences in strata:
        flipped += _flipped_means(differences, draws, rng)
        observed += statistics.fmean(differences)
    extreme = np.abs(flipped) >= abs(observed) - 1e-9  # ties count, whatever their last bits
    return float((extreme.sum() + 1) / (draws + 1))
