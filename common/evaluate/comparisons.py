"""Compare scores, paired by item, if both were made under the same conditions. Shares are 0..1."""

import math
from collections import Counter

from common.core import stats
from common.evaluate.scores import Result

SIGNIFICANCE = 0.05


def refusal(first, second) -> str | None:
    """Return why two Results cannot be compared, or None if they can."""
    for key in first.conditions | second.conditions:
        a, b = first.conditions.get(key), second.conditions.get(key)
        if a != b:
            return f"other conditions: {key} {a} / {b}"
    if [row["id"] for row in first.rows] != [row["id"] for row in second.rows]:
        return "other items"
    for result in (first, second):
        if result.has_failed_items():
            return f"items without an output of {result.model}: run again, or --count-failed"
    return None


def compare(results: dict, model: str, baseline: str, seed: int = 0) -> list:
    """Compare a model with the baseline on every benchmark of the results, paired by item.

    results: {(benchmark, label): Result}. Returns a row for each benchmark, and a last one, "AVG",
    if there are several and all could be compared. `refused` says why two cannot be compared.
    difference, low, high, p: see compare_pairs. holm: p corrected for the number of benchmarks.
    outcome: "better", "worse" or "not distinguishable", by holm; for means over seeds also by the
    interval over the seeds (runs_low, runs_high).
    """
    rows, pairs = [], []
    names = {"model": model, "baseline": baseline}
    for benchmark in dict.fromkeys(name for name, _ in results):
        row = {"benchmark": benchmark} | names
        pair = results.get((benchmark, model)), results.get((benchmark, baseline))
        reason = "no result of all seeds, see Over seeds"
        if all(pair):
            reason = refusal(*pair)
        if reason:
            row["refused"] = reason
        else:
            pairs.append(pair)
            row |= compare_pairs([pair], seed)
        rows.append(row)
    compared = [row for row in rows if "refused" not in row]
    for row, p in zip(compared, stats.holm([row["p"] for row in compared])):
        row["holm"] = p
    if len(compared) == len(rows) > 1:
        average = compare_pairs(pairs, seed) | {"benchmark": "AVG"} | names
        average["holm"] = average["p"]
        compared.append(average)
        rows.append(average)
    for row in compared:
        row["outcome"] = _outcome(row)
    return rows


def compare_pairs(pairs: list, seed: int = 0) -> dict:
    """Return difference, interval and p of a pair of results; of several pairs those of their AVG.

    The interval is a paired bootstrap over items. If every item is right or wrong as a whole, a
    single pair has counts of items and the exact McNemar test, else p is by sign flips.
    """
    shares = [(first.shares(), second.shares()) for first, second in pairs]
    difference, low, high, p = stats.paired_difference(shares, seed=seed)
    row = {"difference": difference, "low": low, "high": high, "p": p}
    first, second = shares[0]
    if len(pairs) == 1 and {*first, *second} <= {0, 1}:
        counts = Counter(zip(first, second))
        row["both"], row["wins"] = counts[1, 1], counts[1, 0]
        row["losses"], row["neither"] = counts[0, 1], counts[0, 0]
        row["p"] = stats.mcnemar(row["wins"], row["losses"])
    half_width = math.hypot(*map(_seed_half_width, zip(*pairs)))
    if half_width:  # errors of independent trainings add in quadrature
        row["runs_low"] = max(-1.0, difference - half_width)
        row["runs_high"] = min(1.0, difference + half_width)
    return row


def _seed_half_width(results):
    """Return the half width, over training runs, of the mean over results; 0 without seeds."""
    runs = [sum(values) / len(values) for values in zip(*(result.runs for result in results))]
    if not runs:
        return 0.0
    mean, _, _, high = stats.over_seeds(runs)
    return high - mean


def _outcome(row):
    if row["holm"] >= SIGNIFICANCE:
        return "not distinguishable"
    outcome = "better" if row["difference"] > 0 else "worse"
    if "runs_low" not in row:
        return outcome
    if row["runs_low"] <= 0 <= row["runs_high"]:
        return f"{outcome} on these items, not distinguishable over seeds"
    return f"{outcome}, over seeds too"


def average_seeds(results: dict, groups: dict) -> tuple:
    """Average several training runs of one training set.

    groups: {name: labels of its runs}. Returns {(benchmark, name): Result of the mean}, and rows
    with the mean, the standard deviation and Student's 95 % interval over the runs (low, high).
    """
    merged, rows = {}, []
    for name, labels in groups.items():
        for benchmark in dict.fromkeys(key for key, _ in results):
            runs = [results[benchmark, label] for label in labels]
            row = {"benchmark": benchmark, "model": name, "runs": len(runs)}
            reason = None
            for run in runs:
                reason = reason or refusal(runs[0], run)
            if reason:
                row["refused"] = reason
            else:
                merged[benchmark, name] = average = _average_runs(name, runs)
                mean, deviation, low, high = stats.over_seeds(average.runs)
                row |= {"accuracies": average.runs, "mean": mean, "sd": deviation}
                row |= {"low": max(0.0, low), "high": min(1.0, high)}
            rows.append(row)
    return merged, rows


def _average_runs(name, runs):
    """Return the Result of the mean over runs, item by item."""
    shares = [run.shares() for run in runs]
    rows = []
    for key, values in zip(runs[0].by_item(), zip(*shares)):
        rows.append({"id": key, "sample": 0, "correct": sum(values) / len(values)})
    accuracies = [sum(values) / len(values) for values in shares]
    return Result(runs[0].benchmark, name, rows, runs[0].conditions, runs=tuple(accuracies))
