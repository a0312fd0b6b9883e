"""Intervals and tests of scores: a share, a mean over items, a paired difference, several
benchmarks, several seeds.

All intervals are two-sided 95 %, and say what other questions of the same kind would give; other
seeds, orders and prompts vary besides (over_seeds). Per item a score is a share in 0..1: 0 or 1 of
a greedy answer, or a mean over the k samples of the item (avg@k), which is why n counts items and
never samples. How often each interval covers the truth: python -m tests.bench.coverage
"""

import math
import statistics

import numpy as np
from scipy.stats import binomtest, norm, t

Z = float(norm.ppf(0.975))


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


def mean_interval(values) -> tuple:
    """Return (mean, low, high) of avg@k, pass@k or maj@k over items, in 0..1.

    values: share in 0..1 per item. If each is 0 or 1 the interval is Wilson's, else a normal one
    after an item of 0 and an item of 1 are added: few items may have missed the rare ones that
    are unlike the rest, and a bootstrap of them then covers the truth in 75 rather than 95 %.
    By hand: [0.5, 0.5] becomes 0, 0.5, 0.5, 1: mean 0.5, variance 0.125, so
    0.5 -+ 1.96 x sqrt(0.125/4) = 0.5 -+ 0.346.
    """
    shares = _check_shares(values)
    mean = statistics.fmean(shares)
    if np.isin(shares, (0, 1)).all():
        return mean, *wilson(int(shares.sum()), len(shares))
    return mean, *_adjusted_interval(shares, 0.0, 1.0)


def ratio_interval(parts, wholes) -> tuple:
    """Return (ratio, low, high) of sum(parts) / sum(wholes) over items of unequal size, in 0..1.

    parts: how many of an item's wholes are right; what belongs to one item is not independent.
    Each item is replaced by its part of the ratio, and the interval is mean_interval's.
    By hand: 1 of 1 and 1 of 3: ratio 0.5, mean size 2. The items become 0.5 + (1 - 0.5)/2 = 0.75
    and 0.5 + (1 - 1.5)/2 = 0.25; with 0 and 1 the variance is 0.15625, so
    0.5 -+ 1.96 x sqrt(0.15625/4) = 0.5 -+ 0.387.
    """
    ratio = sum(parts) / sum(wholes)
    errors = np.subtract(parts, np.multiply(ratio, wholes))
    return ratio, *_adjusted_interval(ratio + errors / statistics.fmean(wholes), 0.0, 1.0)


def paired_interval(first, second) -> tuple:
    """Return (difference, low, high): the mean of first - second over items, in -1..1.

    first, second: share in 0..1 per item, in the same order. An item of -1 and an item of +1 are
    added; for right and wrong this is the interval of Bonett and Price (2012), which is near the
    score intervals of Tango and Newcombe. Two models that differ nowhere may differ elsewhere.
    By hand: 26 items right for the first alone, 4 for the second alone, 18 equal: the mean becomes
    (27 - 5)/50 = 0.44, the variance (27 + 5)/50 - 0.44^2 = 0.4464, so
    0.44 -+ 1.96 x sqrt(0.4464/50) = (0.255, 0.625) around 22/48.
    Raises ValueError if the lists are not equally long, empty, or hold anything outside 0..1.
    """
    differences = np.subtract(*_check_shares((first, second)))
    return statistics.fmean(differences), *_adjusted_interval(differences, -1.0, 1.0)


def interval_p(difference: float, low: float, high: float) -> float:
    """Return the two-sided p of "no difference" that belongs to a difference and its interval.

    It is below 0.05 if and only if the interval lies on one side of zero: the distance to the end
    towards zero is that of 1.96 standard errors.
    By hand: 0.25 (0.2, 0.321) is 1.96 x 0.25/0.05 = 9.8 standard errors from zero, -0.1 (-0.3, 0.1)
    one half of 1.96, so p = 0.327.
    """
    half = difference - low if difference > 0 else high - difference
    return float(2 * norm.sf(Z * abs(difference) / half))


def average_interval(intervals: list | tuple) -> tuple:
    """Return AVG, the unweighted mean over benchmarks, from the interval of each.

    intervals: (mean or difference, low, high) a benchmark, each from items of its own. The
    distances to the ends are combined as independent errors are (MOVER, Zou and Donner 2008), so
    that 0 of 30 adds its share of doubt, as no bootstrap of zeros does.
    By hand: (0.5, 0.4, 0.6) and (0, 0, 0.1): 0.25, less sqrt(0.1^2 + 0)/2 = 0.05, plus
    sqrt(0.1^2 + 0.1^2)/2 = 0.071: (0.25, 0.2, 0.321).
    """
    means, lows, highs = np.transpose(intervals)
    mean = statistics.fmean(means)
    below = math.hypot(*(means - lows)) / len(means)
    above = math.hypot(*(highs - means)) / len(means)
    return mean, mean - below, mean + above


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


def over_seeds(runs: list | tuple) -> tuple:
    """Return scores of one recipe under several seeds as (mean, standard deviation, low, high).

    runs: (mean, low, high) of each training, in 0..1. Standard deviation with n - 1. The interval
    is Student's, of the mean over seeds, but no narrower than the items allow: two seeds that
    happen to have the same score are no certainty.
    By hand: 0.47, 0.48, 0.52: mean 0.49, variance (4 + 1 + 9)/20,000 = 0.0007, sd 0.0265, half
    width 4.3027 x 0.0265/sqrt(3) = 0.0657, so 0.424 to 0.556: three seeds say little.
    """
    mean, low, high = average_interval(runs)
    values = [run[0] for run in runs]
    half = _student_half_width(values)
    low, high = min(low, mean - half), max(high, mean + half)
    return mean, statistics.stdev(values), max(0.0, low), min(1.0, high)


def seeds_difference(first: list, second: list) -> tuple:
    """Return the interval (low, high) of the difference of two recipes' means over seeds.

    first, second: (mean, low, high) of each training, at least two of each recipe. Welch's
    interval, but no narrower than the items allow, as in over_seeds.
    By hand: 0.4 and 0.6 against 0.1 and 0.1: variance 0.02/2 + 0, 1 degree of freedom, half width
    12.706 x 0.1 = 1.27, so all of -1..1.
    """
    half = _student_half_width([run[0] for run in first], [run[0] for run in second])
    mean, low, high = average_interval(first)
    other_mean, other_low, other_high = average_interval(second)
    below = max(half, math.hypot(mean - low, other_high - other_mean))
    above = max(half, math.hypot(high - mean, other_mean - other_low))
    difference = mean - other_mean
    return max(-1.0, difference - below), min(1.0, difference + above)


def _student_half_width(*groups):
    """Return the half width of a mean, or of a difference of means, at unequal variances."""
    variances = [statistics.variance(group) / len(group) for group in groups]
    total = sum(variances)
    if not total:
        return 0.0
    spread = 0.0
    for variance, group in zip(variances, groups):
        spread += variance**2 / (len(group) - 1)
    freedom = total**2 / spread  # Welch and Satterthwaite; n - 1 of a single group
    return float(t.ppf(0.975, freedom)) * math.sqrt(total)


def _adjusted_interval(values, smallest, largest):
    """Return the normal interval of a mean after one item at each end of the scale is added."""
    values = np.append(values, (smallest, largest))
    mean, half = values.mean(), Z * values.std() / math.sqrt(len(values))
    return max(smallest, float(mean - half)), min(largest, float(mean + half))


def _check_shares(values):
    shares = np.asarray(values, dtype=float)  # a ValueError if two lists are not equally long
    if not shares.size or not 0 <= shares.min() <= shares.max() <= 1:
        raise ValueError(f"expected at least one share in 0..1, got {str(shares)[:80]}")
    return shares
