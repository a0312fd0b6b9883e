"""How often the intervals of common/core/stats.py cover the truth: 95 of 100 times, they say.

    python -m tests.bench.coverage           # 2,000 experiments a cell, about a minute

A cell is one situation: so many items, and how the models answer them. Its coverage is the share
of simulated experiments whose interval holds the truth. tests/core/test_coverage.py wants at
least 93 % of every cell, less two standard errors of the simulation.
"""

import itertools
import math
from functools import cache

import numpy as np

from common.core import stats

DRAWS = 2000
SIZES = (30, 40, 272, 500, 1319)  # AIME24, AMC23, Minerva-Math, MATH-500, GSM8K
DISCORDANCES = (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2)
BASELINES = (0.02, 0.1, 0.5, 0.9, 0.98)
MEANS, CONCENTRATIONS = (0.02, 0.1, 0.5), (0.5, 5)  # of Beta: 0.5 is mostly never or always right
SAMPLES = 16
TOLERANCE = 1e-9  # of the last bits of a truth such as 0.1 - 0.05


def holds(interval, truth):
    """Return whether an interval (..., low, high) holds the truth."""
    return interval[-2] - TOLERANCE <= truth <= interval[-1] + TOLERANCE


@cache
def pair_interval(n, wins, losses):
    """Return the interval of n items; how many both or neither has right makes no difference."""
    first, second = np.zeros(n), np.zeros(n)
    first[:wins] = 1
    second[wins : wins + losses] = 1
    return stats.paired_interval(first, second)


@cache
def share_interval(n, correct):
    return stats.mean_interval([1] * correct + [0] * (n - correct))


# --- the cells: tuples that begin with n -------------------------------------------------------


def discordances():
    """Return (wins, losses) in shares of the items: all on one side, or half on each."""
    shares = {(0.0, 0.0)}
    for discordance in DISCORDANCES:
        shares |= {(discordance, 0), (0, discordance), (discordance / 2, discordance / 2)}
    return sorted(shares)


def share_cells():
    return list(itertools.product(SIZES, BASELINES))


def pair_cells():
    """Return (n, baseline accuracy, wins, losses), without what no baseline can win or lose."""
    cells = []
    for n, baseline, (wins, losses) in itertools.product(SIZES, BASELINES, discordances()):
        if losses <= baseline + TOLERANCE and wins <= 1 - baseline + TOLERANCE:
            cells.append((n, baseline, wins, losses))
    return cells


def average_cells():
    return [(sum(SIZES), wins, losses) for wins, losses in discordances()]


def sample_cells():
    """Return (n, mean, concentration) of the items' chances to be answered right."""
    return list(itertools.product(SIZES, MEANS, CONCENTRATIONS))


def sample_pair_cells():
    """Return (n, mean, concentration, share of the items that the first model has learned)."""
    return list(itertools.product(SIZES, MEANS, CONCENTRATIONS, (0.02, 0.2)))


def seed_cells():
    """Return (n, mean, sd of the trainings, trainings)."""
    return list(itertools.product((30, 40, 1000), (0.1, 0.5), (0.02, 0.04), (2, 3)))


def welch_cells():
    """Return (n, mean, sd of the trainings, trainings of one side, and of the other)."""
    cells = itertools.product((30, 40, 1000), (0.1, 0.5), (0.02, 0.04), ((2, 2), (2, 3), (3, 3)))
    return [(n, mean, sd, *trainings) for n, mean, sd, trainings in cells]


# --- the experiments: the hits of `draws` of them in a cell --------------------------------------


def cover_shares(rng, draws, n, accuracy):
    return sum(
        holds(share_interval(n, count), accuracy) for count in rng.binomial(n, accuracy, draws)
    )


def cover_pairs(rng, draws, n, baseline, wins, losses):
    shares = [wins, losses, baseline - losses, 1 - baseline - wins]
    counts = rng.multinomial(n, np.clip(shares, 0, 1), draws)
    hits = [holds(pair_interval(n, *row[:2]), wins - losses) for row in counts.tolist()]
    return sum(hits)


def cover_averages(rng, draws, total, wins, losses):
    assert total == sum(SIZES)
    hits = 0
    for _ in range(draws):
        intervals = []
        for n in SIZES:
            counts = rng.multinomial(n, [wins, losses, 1 - wins - losses])
            intervals.append(pair_interval(n, *counts[:2].tolist()))
        hits += holds(stats.average_interval(intervals), wins - losses)
    return hits


def chances(rng, draws, n, mean, concentration):
    return rng.beta(mean * concentration, (1 - mean) * concentration, (draws, n))


def cover_samples(rng, draws, n, mean, concentration):
    correct = rng.binomial(SAMPLES, chances(rng, draws, n, mean, concentration))
    return sum(holds(stats.mean_interval(row), mean) for row in correct / SAMPLES)


def cover_sample_pairs(rng, draws, n, mean, concentration, learned):
    chance = chances(rng, draws, n, mean, concentration)
    better = np.where(rng.random(chance.shape) < learned, 1, chance)
    first, second = rng.binomial(SAMPLES, better), rng.binomial(SAMPLES, chance)
    truth = learned * (1 - mean)
    pairs = zip(first / SAMPLES, second / SAMPLES)
    return sum(holds(stats.paired_interval(*pair), truth) for pair in pairs)


def trainings(rng, n, mean, sd, runs):
    """Return the interval of each training; their accuracies are from Beta."""
    concentration = mean * (1 - mean) / sd**2 - 1
    correct = rng.binomial(n, chances(rng, 1, runs, mean, concentration)[0])
    return [share_interval(n, count) for count in correct.tolist()]


def cover_seeds(rng, draws, n, mean, sd, runs):
    hits = 0
    for _ in range(draws):
        hits += holds(stats.over_seeds(trainings(rng, n, mean, sd, runs)), mean)
    return hits


def cover_welch(rng, draws, n, mean, sd, runs, other_runs):
    hits = 0
    for _ in range(draws):
        first = trainings(rng, n, mean, sd, runs)
        second = trainings(rng, n, mean, sd, other_runs)
        hits += holds(stats.seeds_difference(first, second), 0)
    return hits


KINDS = {
    "right answers": (share_cells, cover_shares),
    "pairs": (pair_cells, cover_pairs),
    "AVG of pairs": (average_cells, cover_averages),
    "avg@16": (sample_cells, cover_samples),
    "pairs of avg@16": (sample_pair_cells, cover_sample_pairs),
    "mean over seeds": (seed_cells, cover_seeds),
    "difference over seeds": (welch_cells, cover_welch),
}


def measure(kind: str, draws: int = DRAWS, every: int = 1) -> dict:
    """Return {cell: coverage in 0..1} of each `every`-th cell of a kind."""
    list_cells, cover = KINDS[kind]
    rng = np.random.default_rng(0)
    return {cell: cover(rng, draws, *cell) / draws for cell in list_cells()[::every]}


def least(draws: int) -> float:
    """Return the coverage that a cell must have: 93 %, less two standard errors."""
    return 0.93 - 2 * math.sqrt(0.93 * 0.07 / draws)


def main():
    print(
        "| intervals of | n | cells | least coverage | mean coverage |\n|---|---:|---:|---:|---:|"
    )
    for kind in KINDS:
        coverage = measure(kind)
        for n in sorted({cell[0] for cell in coverage}):
            values = [value for cell, value in coverage.items() if cell[0] == n]
            low, mean = 100 * min(values), 100 * np.mean(values)
            print(f"| {kind} | {n} | {len(values)} | {low:.1f} | {mean:.1f} |", flush=True)


if __name__ == "__main__":
    main()
