"""Intervals and tests of scores: one share, a mean over items, a paired difference, several benchmarks, several seeds.

All intervals are two-sided 95 %. Bootstraps resample the items of a test set, so they say what other questions of the same
kind would give; other seeds, orders and prompts vary besides (over_seeds). Per item a score is a share in 0..1: 0 or 1 of a
greedy answer, or a mean over the k samples of the item (avg@k), which is why items are resampled and never samples.
"""

import math

import numpy as np

T_975 = (  # 97.5 % quantile of Student's t for 1, 2, ... 30 degrees of freedom
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314,
    2.1199, 2.1098, 2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423)  # fmt: skip
CELLS = 2_000_000  # of a table of draws that is held at once: 16 MB as integers, as much again as floats


def wilson(correct, n, z=1.959964):
    """95 % interval of a proportion, (low, high) in 0..1 (Wilson 1927).

    By hand: 8 of 10 gives centre (0.8 + z^2/20) / (1 + z^2/10) = 0.7167 and half width 0.2265, so (0.490, 0.943).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n and n >= 1, got {correct} of {n}")
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(
        1.0, max(p, centre + half)
    )  # rounding may pass p at 0 and 1


def mcnemar(wins, losses):
    """Exact two-sided p that two models differ on the same items, from the items only one of them gets right (McNemar 1947).

    wins, losses: how many items only the first, only the second model gets right. Under "no difference" wins is binomial(wins
    + losses, 1/2); p is twice the smaller tail, at most 1, and 1 without such items; 0.0 where a float cannot hold it.
    By hand: 8 against 1: (1 + 9) of 2^9 = 512 outcomes have at most one loss, so p = 2 x 10/512 = 0.039.
    Raises ValueError unless both are whole numbers >= 0.
    """
    if not (wins >= 0 and losses >= 0 and wins % 1 == losses % 1 == 0):
        raise ValueError(f"expected two counts, got {wins} and {losses}")
    wins, losses = int(wins), int(losses)  # Python's integers do not overflow, numpy's do
    n, term, tail = wins + losses, 1, 1
    for i in range(min(wins, losses)):
        term = term * (n - i) // (i + 1)  # n choose i + 1
        tail += term
    return min(1.0, 2 * tail / 2**n)


def paired_difference(a, b, resamples=10_000, seed=0):
    """Mean of a - b over the same items, with its percentile bootstrap interval. -> (difference, low, high) in -1..1.

    a, b: share in 0..1 per item, in the same order. Items are resampled, so what both models find hard stays paired.
    By hand: [1, 1, 0] and [0, 1, 0]: differences +1, 0, 0, so 1/3. 8/27 = 30 % of all resamples have mean 0 and 1/27 = 4 % have
    mean 1: (1/3, 0, 1). Raises ValueError where the lists are empty, not equally long, or hold anything outside 0..1.
    """
    return _bootstrap([_differences(a, b)], resamples, seed)


def mean_interval(values, resamples=10_000, seed=0):
    """Mean over items of avg@k, pass@k or maj@k, with its percentile bootstrap interval. -> (mean, low, high) in 0..1.

    values: share in 0..1 per item. Of few items (30 of AIME24) it covers the truth in 94 rather than 95 % of cases; for 0/1
    wilson is the better one. By hand: [1, 0, 0]: as in paired_difference, (1/3, 0, 1). Raises ValueError as it does.
    """
    return _bootstrap([_shares(values)], resamples, seed)


def stratified_difference(pairs, resamples=10_000, seed=0):
    """Difference of AVG, the unweighted mean over benchmarks. -> (difference, low, high, p).

    pairs: a list of (a, b), one a benchmark, each as in paired_difference; each benchmark is resampled on its own, since its
    items are its own sample. p: two-sided, by 10,000 random flips of the signs of all differences (see sign_flip).
    By hand: ([1, 1], [0, 0]) and ([1, 0, 1], [1, 0, 1]): (1 + 0)/2 = 0.5 whatever is drawn, so (0.5, 0.5, 0.5); two of the four
    sign patterns reach |0.5|, so p is about 1/2. Raises ValueError as paired_difference does, and without a benchmark.
    """
    differences = [_differences(a, b) for a, b in pairs]
    return *_bootstrap(differences, resamples, seed), _flip_p(differences, 10_000, seed)


def average_interval(intervals):
    """AVG, the unweighted mean over benchmarks, from the interval of each. -> (mean, low, high) in 0..1.

    intervals: (mean, low, high) a benchmark, each from items of its own. The distances to the ends are combined as independent errors
    are (MOVER, Zou and Donner 2008), so that 0 of 30 adds its share of doubt, as no bootstrap of zeros does.
    By hand: (0.5, 0.4, 0.6) and (0, 0, 0.1): 0.25, less sqrt(0.1^2 + 0)/2 = 0.05, plus sqrt(0.1^2 + 0.1^2)/2 = 0.071: (0.25, 0.2, 0.321).
    Raises ValueError without a benchmark, and where an interval does not hold its mean.
    """
    if not intervals or not all(0 <= low <= mean <= high <= 1 for mean, low, high in intervals):
        raise ValueError(f"expected at least one (mean, low, high) in 0..1, got {list(intervals)}")
    means, lows, highs = (np.array(side, dtype=float) for side in zip(*intervals))
    mean = math.fsum(means) / len(means)
    return (
        mean,
        max(0.0, mean - float(np.linalg.norm(means - lows)) / len(means)),
        min(1.0, mean + float(np.linalg.norm(highs - means)) / len(means)),
    )


def sign_flip(a, b, draws=10_000, seed=0):
    """Two-sided p that the paired mean difference is zero, where values are not just 0 and 1 (those: mcnemar).

    Under "no difference" each a - b might as well be b - a. p = (1 + draws whose mean is at least as far from zero) / (draws
    + 1), so never zero; 1.0 where a and b are equal item by item. By hand: three differences of 0.5: 2 of 8 sign patterns are
    as extreme, so p is about 1/4. Raises ValueError as paired_difference does.
    """
    return _flip_p([_differences(a, b)], draws, seed)


def holm(ps):
    """Adjusted p of several tests, in the same order: no more than 5 % risk of any false one at < 0.05 (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, ..., none falls below the one before it, none passes 1.
    By hand: [0.02, 0.01, 0.04]: 0.01 x 3 = 0.03; 0.02 x 2 = 0.04; 0.04 x 1: [0.04, 0.03, 0.04]. An empty list stays one.
    Raises ValueError for anything outside 0..1.
    """
    if not all(0 <= p <= 1 for p in ps):
        raise ValueError(f"expected p values in 0..1, got {list(ps)}")
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min(1.0, float(ps[i]) * (len(ps) - rank)))
        adjusted[i] = least
    return adjusted


def over_seeds(values):
    """Scores of the same recipe under several seeds. -> (mean, standard deviation, low, high), in the unit of the values.

    Standard deviation with n - 1; the interval is Student's, of the mean over seeds. By hand: 47, 48, 52: mean 49, variance
    (4 + 1 + 9)/2 = 7, sd 2.646, half width 4.3027 x 2.646/sqrt(3) = 6.572, so 42.43 to 55.57: three seeds say little.
    Raises ValueError for fewer than two values, or one that is not finite.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"expected the finite scores of at least two seeds, got {values.tolist()}")
    mean, sd = math.fsum(values) / len(values), float(values.std(ddof=1))
    half = _t_975(len(values) - 1) * sd / math.sqrt(len(values))
    return mean, sd, mean - half, mean + half


def _t_975(df):
    """Beyond the table the first terms of Cornish and Fisher's series in 1/df, within 0.0001 from 31 on."""
    return T_975[df - 1] if df <= len(T_975) else 1.959964 + 2.3723 / df + 2.8225 / df**2


def _shares(values):
    values = np.asarray(values, dtype=float)
    if (
        values.ndim != 1 or not len(values) or not ((values >= 0) & (values <= 1)).all()
    ):  # NaN is neither
        raise ValueError(
            f"expected a list of at least one share in 0..1, got shape {values.shape}: {str(values)[:80]}"
        )
    return values


def _differences(a, b):
    if len(np.shape(a)) != 1 or np.shape(a) != np.shape(b) or not len(a):
        raise ValueError(
            f"expected two equally long lists of shares, got shapes {np.shape(a)} and {np.shape(b)}"
        )
    return _shares(a) - _shares(b)


def _distinct(values):
    """-> distinct values and how many items have each. The largest magnitudes first, + before -: a fixed order of the draws."""
    values, counts = np.unique(
        np.round(values, 12), return_counts=True
    )  # 0.3 - 0.1 and 0.4 - 0.2 are one value
    order = np.lexsort((-values, -np.abs(values)))
    return values[order], counts[order]


def _chunks(draws, width):
    """Sizes of parts of `draws` rows, `width` cells each, so that none holds more than CELLS; the stream of draws is the same."""
    rows = max(1, CELLS // width)
    return [min(rows, draws - start) for start in range(0, draws, rows)]


def _bootstrap(strata, resamples, seed):
    """Mean of the strata's means, with the 2.5th and 97.5th percentile of the same over resampled items."""
    if not strata:
        raise ValueError("expected at least one benchmark, got none")
    rng, means = np.random.default_rng(seed), 0.0
    for items in strata:
        # Only how many items have each value matters, so a resample is one multinomial draw: for 0/1 of wins, losses, ties.
        values, counts = _distinct(items)
        n, chunks = len(items), _chunks(resamples, len(values))
        means += (
            np.concatenate([rng.multinomial(n, counts / n, size=size) @ values for size in chunks])
            / n
        )
    mean = math.fsum(math.fsum(items) / len(items) for items in strata) / len(strata)
    low, high = np.percentile(means / len(strata), [2.5, 97.5])
    return (
        mean,
        min(float(low), mean),
        max(float(high), mean),
    )  # rounding may pass the mean where no resample differs


def _flip_p(strata, draws, seed):
    rng, flipped, observed = np.random.default_rng(seed), np.zeros(draws), 0.0
    for differences in strata:
        n, (values, counts) = len(differences), _distinct(np.abs(differences))
        # Of c items with the same |difference| a binomial number b keeps the plus: their sum is value x (2 b - c).
        chunks = _chunks(draws, len(values))
        plus = np.concatenate(
            [rng.binomial(counts, 0.5, size=(size, len(values))) @ values for size in chunks]
        )
        flipped += (2 * plus - counts @ values) / n
        observed += math.fsum(differences) / n
    extreme = np.abs(flipped) >= abs(observed) - 1e-9  # ties count, whatever their last bits
    return float((extreme.sum() + 1) / (draws + 1))
