"""Compare scores, paired by item, if both were made under the same conditions. Shares are 0..1."""

import statistics
from collections import Counter

from common.core import stats
from common.evaluate.scores import Result

SIGNIFICANCE = 0.05
EQUAL = "not distinguishable"


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


def compare(results: dict, models: list, baselines: list) -> list:
    """Compare models with the baselines on every benchmark of the results, paired by item.

    results: {(benchmark, label): Result}. models: labels. No pair is compared twice. Returns for
    each pair a row for each benchmark, and "AVG" if there are several and all could be compared.
    `refused` says why two cannot be compared.
    difference, low, high, p: see compare_pairs. holm: p corrected for all rows; comparisons: how
    many these are. outcome: "better", "worse" or "not distinguishable", by holm; if both sides are
    means over seeds also by the interval over the seeds (runs_low, runs_high).
    """
    rows = []
    for number, baseline in enumerate(baselines):
        for model in models:
            if model not in baselines[: number + 1]:
                rows += _compare_model(results, model, baseline)
    compared = [row for row in rows if "refused" not in row]
    for row, p in zip(compared, stats.holm([row["p"] for row in compared])):
        row |= {"holm": p, "comparisons": len(compared)}
        row["outcome"] = _outcome(row)
    return rows


def _compare_model(results, model, baseline):
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
            row |= compare_pairs([pair])
        rows.append(row)
    if len(pairs) == len(rows) > 1:
        rows.append({"benchmark": "AVG"} | names | compare_pairs(pairs))
    return rows


def compare_pairs(pairs: list) -> dict:
    """Return difference, interval and p of a pair of results; of several pairs those of their AVG.

    If every item is right or wrong as a whole, a single pair has counts of items and the exact
    McNemar test, else p is that of the interval.
    """
    shares = [(first.shares(), second.shares()) for first, second in pairs]
    intervals = [stats.paired_interval(*pair) for pair in shares]
    difference, low, high = stats.average_interval(intervals)
    row = {"difference": difference, "low": low, "high": high}
    row["accuracy"], row["baseline_accuracy"] = map(_mean_of_means, zip(*shares))
    first, second = shares[0]
    if len(pairs) == 1 and {*first, *second} <= {0, 1}:
        counts = Counter(zip(first, second))
        row["both"], row["wins"] = counts[1, 1], counts[1, 0]
        row["losses"], row["neither"] = counts[0, 1], counts[0, 0]
        row["p"] = stats.mcnemar(row["wins"], row["losses"])
    else:
        row["p"] = stats.interval_p(difference, low, high)
    model_runs, baseline_runs = [_average_benchmarks(results) for results in zip(*pairs)]
    if model_runs and baseline_runs:  # a single run has no spread: nothing is said of seeds
        row["runs_low"], row["runs_high"] = stats.seeds_difference(model_runs, baseline_runs)
    return row


def _mean_of_means(shares):
    """Return the mean over benchmarks of the mean over their items."""
    return statistics.fmean(map(statistics.fmean, shares))


def _average_benchmarks(results):
    """Return (mean, low, high) over results of each training run; nothing without seeds."""
    return [stats.average_interval(run) for run in zip(*(result.runs for result in results))]


def _outcome(row):
    if row["holm"] >= SIGNIFICANCE:
        return EQUAL
    outcome = "better" if row["difference"] > 0 else "worse"
    if "runs_low" not in row:
        return outcome
    if row["runs_low"] <= 0 <= row["runs_high"]:
        return f"{outcome} on these items, {EQUAL} over seeds"
    return f"{outcome}, over seeds too"


def average_seeds(results: dict, groups: dict) -> tuple:
    """Average several training runs of one training set.

    groups: {name: labels of its runs}. Returns {(benchmark, name): Result of the mean}, and rows
    with the mean, the standard deviation and the 95 % interval over the runs (low, high).
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
                row["accuracies"] = [accuracy for accuracy, _, _ in average.runs]
                row |= {"mean": mean, "sd": deviation, "low": low, "high": high}
            rows.append(row)
    return merged, rows


def _average_runs(name, runs):
    """Return the Result of the mean over runs, item by item."""
    shares = [run.shares() for run in runs]
    rows = []
    for key, values in zip(runs[0].by_item(), zip(*shares)):
        rows.append({"id": key, "sample": 0, "correct": sum(values) / len(values)})
    intervals = [stats.mean_interval(values) for values in shares]
    return Result(runs[0].benchmark, name, rows, runs[0].conditions, runs=tuple(intervals))
