"""Compare scores, paired by item, if both were made under the same conditions. Shares are 0..1."""

import math
from collections import Counter

from common.core import stats
from common.evaluate.scores import Result

SIGNIFICANCE = 0.05


def refusal(first: Result, second: Result) -> str | None:
    """Return why two results cannot be compared, or None if they can."""
    for key in {**first.conditions, **second.conditions}:
        a, b = first.conditions.get(key), second.conditions.get(key)
        if a != b:
            return f"other conditions: {key} {a} / {b}"
    if [row["id"] for row in first.rows] != [row["id"] for row in second.rows]:
        return "other items"
    failed = [result.model for result in (first, second) if result.has_failed_items()]
    if failed:
        return (
            f"items without an output of {' and '.join(failed)}: run the same command again, "
            "or count them as wrong: --count-failed"
        )
    return None


def paired_p(first: list[float], second: list[float], seed: int = 0) -> float:
    """Return p of two models on the same items.

    It is the exact McNemar test if every item is right or wrong as a whole, else a sign-flip test.
    """
    if {*first, *second} <= {0, 1}:
        counts = Counter(zip(first, second))
        return stats.mcnemar(counts[1, 0], counts[0, 1])
    return stats.sign_flip(first, second, seed=seed)


# --- a model against the baseline -----------------------------------------------------------------


def compare(results: dict, model: str, baseline: str, seed: int = 0) -> list[dict]:
    """Compare a model with the baseline on every benchmark of the results, paired by item.

    results: {(benchmark, label): Result}. Returns a row for each benchmark, and a last one, "AVG",
    if there are several and all could be compared. `refused` says why two cannot be compared.
    difference, low, high: paired bootstrap over items. p: see paired_p. holm: p corrected for the
    number of benchmarks. outcome: "better", "worse" or "not distinguishable", by holm; for means
    over seeds also by the interval over the seeds (runs_low, runs_high).
    """
    rows, pairs = [], []
    for benchmark in dict.fromkeys(name for name, _ in results):
        row = {"benchmark": benchmark, "model": model, "baseline": baseline}
        first, second = results.get((benchmark, model)), results.get((benchmark, baseline))
        reason = "no result of all seeds, see Over seeds"
        if first and second:
            reason = refusal(first, second)
        if reason:
            rows.append(row | {"refused": reason})
            continue
        pairs.append((first, second))
        rows.append(row | _compare_pair(first, second, seed))
    compared = [row for row in rows if "refused" not in row]
    corrected = stats.holm([row["p"] for row in compared])
    for row, p in zip(compared, corrected):
        row["holm"] = p
    if len(compared) == len(rows) > 1:
        average = {"benchmark": "AVG", "model": model, "baseline": baseline}
        average |= _compare_averages(pairs, seed)
        compared.append(average)
        rows.append(average)
    for row in compared:
        row["outcome"] = _outcome(row)
    return rows


def _compare_pair(first, second, seed):
    """Return difference, interval, p and counts of two results on the same items."""
    a, b = first.shares(), second.shares()
    difference, low, high = stats.paired_difference(a, b, seed=seed)
    row = {"difference": difference, "low": low, "high": high, "p": paired_p(a, b, seed)}
    if {*a, *b} <= {0, 1}:
        counts = Counter(zip(a, b))
        row["both"], row["wins"] = counts[1, 1], counts[1, 0]
        row["losses"], row["neither"] = counts[0, 1], counts[0, 0]
    return row | _seed_interval(difference, first.runs, second.runs)


def _compare_averages(pairs, seed):
    """Return the same of AVG, the plain mean over benchmarks."""
    shares = [(first.shares(), second.shares()) for first, second in pairs]
    difference, low, high, p = stats.stratified_difference(shares, seed=seed)
    row = {"difference": difference, "low": low, "high": high, "p": p, "holm": p}
    first_runs = _mean_runs([first.runs for first, _ in pairs])
    second_runs = _mean_runs([second.runs for _, second in pairs])
    return row | _seed_interval(difference, first_runs, second_runs)


def _mean_runs(runs):
    """Return the mean over benchmarks of each training run. runs: a tuple for each benchmark."""
    return tuple(math.fsum(values) / len(values) for values in zip(*runs))


def _seed_interval(difference, first_runs, second_runs):
    """Return the interval over training runs; {} if neither side is a mean over seeds.

    The errors of independent trainings add in quadrature.
    """
    half_widths = []
    for runs in (first_runs, second_runs):
        if runs:
            mean, _, _, high = stats.over_seeds(runs)
            half_widths.append(high - mean)
    if not half_widths:
        return {}
    half_width = math.hypot(*half_widths)
    return {
        "runs_low": max(-1.0, difference - half_width),
        "runs_high": min(1.0, difference + half_width),
    }


def _outcome(row):
    if row["holm"] >= SIGNIFICANCE:
        return "not distinguishable"
    outcome = "better" if row["difference"] > 0 else "worse"
    if "runs_low" not in row:
        return outcome
    if row["runs_low"] <= 0 <= row["runs_high"]:
        return f"{outcome} on these items, not distinguishable over seeds"
    return f"{outcome}, over seeds too"


# --- several seeds --------------------------------------------------------------------------------


def average_seeds(results: dict, groups: dict, seed: int = 0) -> tuple[dict, list[dict]]:
    """Average several training runs of one training set.

    groups: {name: labels of its runs}. Returns {(benchmark, name): Result of the mean}, and rows
    with the mean, the standard deviation, Student's 95 % interval over the runs (low, high) and
    the interval over the items of these runs (items_low, items_high).
    """
    merged, rows = {}, []
    for name, labels in groups.items():
        for benchmark in dict.fromkeys(key for key, label in results if label in labels):
            runs = [results[benchmark, label] for label in labels]
            row = {"benchmark": benchmark, "model": name, "runs": len(runs)}
            reasons = [reason for run in runs[1:] if (reason := refusal(runs[0], run))]
            if reasons:
                rows.append(row | {"refused": reasons[0]})
            else:
                merged[benchmark, name], summary = _average_runs(name, runs, seed)
                rows.append(row | summary)
    return merged, rows


def _average_runs(name, runs, seed):
    """Return the Result of the mean over runs, item by item, and the row's figures."""
    shares = [run.shares() for run in runs]
    accuracies = [sum(values) / len(values) for values in shares]
    mean, deviation, low, high = stats.over_seeds(accuracies)
    by_item = [sum(values) / len(runs) for values in zip(*shares)]
    _, items_low, items_high = stats.mean_interval(by_item, seed=seed)
    rows = []
    for item, share in zip(runs[0].by_item(), by_item):
        rows.append({"id": item, "sample": 0, "correct": share, "correct_paper": None})
    merged = Result(runs[0].benchmark, name, rows, runs[0].conditions, runs=tuple(accuracies))
    return merged, {
        "mean": mean,
        "sd": deviation,
        "low": max(0.0, low),
        "high": min(1.0, high),
        "items_low": items_low,
        "items_high": items_high,
        "accuracies": accuracies,
    }
