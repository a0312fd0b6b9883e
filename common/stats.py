"""Intervals of scores: Wilson for one, paired bootstrap for a difference."""

import math

import numpy as np


def wilson(correct, n, z=1.959964):
    """95 % interval of a proportion, (low, high) in 0..1 (Wilson 1927).

    By hand: 8 of 10 gives centre (0.8 + z^2/20) / (1 + z^2/10) = 0.7167 and half width 0.2265, so (0.490, 0.943).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"expected 0 <= correct <= n and n >= 1, got {correct} of {n}")
    p = correct / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))  # rounding may pass p at 0 and 1


def paired_difference(a, b, resamples=10_000, seed=0):
    """Mean of a - b over the same items, with its 95 % bootstrap interval. -> (difference, low, high).

    a, b: 0/1 per item, in the same order. Items are resampled, so what both models find hard stays paired.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or not np.isin([a, b], [0, 1]).all():
        raise ValueError(f"expected two equally long lists of 0 and 1, got shapes {a.shape} and {b.shape}")
    # Only how many items favour a, b or neither matters, so a resample is one multinomial draw.
    n, wins, losses = len(a), int((a > b).sum()), int((a < b).sum())
    draws = np.random.default_rng(seed).multinomial(n, [wins / n, losses / n, (n - wins - losses) / n], size=resamples)
    low, high = np.percentile((draws[:, 0] - draws[:, 1]) / n, [2.5, 97.5])
    return (wins - losses) / n, float(low), float(high)
