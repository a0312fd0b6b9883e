"""Scores -> comparisons: what may stand beside what, paired by item, and how sure one can be. Shares are 0..1."""

from collections import Counter

from common.core import stats
from common.evaluate.scores import Result


def refusal(one, other):
    """Why two results cannot be compared, or None."""
    differing = [
        f"{key} {one.conditions.get(key)} / {other.conditions.get(key)}"
        for key in {**one.conditions, **other.conditions}
        if one.conditions.get(key) != other.conditions.get(key)
    ]
    if differing:
        return "other conditions: " + "; ".join(differing)
    if [r["id"] for r in one.rows] != [r["id"] for r in other.rows]:
        return "other items"
    if failed := [r.model for r in (one, other) if any(row["strict"] is None for row in r.rows)]:
        return f"items without an output of {' and '.join(failed)}: run the same command again, or count them as wrong: --count-failed"
    return None


def paired_p(ours, theirs, seed=0):
    """p of two models on the same items: exact McNemar where items are right or wrong as a whole, else a sign-flip test."""
    if {*ours, *theirs} <= {0, 1}:
        pairs = Counter(zip(ours, theirs))
        return stats.mcnemar(pairs[1, 0], pairs[0, 1])
    return stats.sign_flip(ours, theirs, seed=seed)


def compare(results, model, baseline, seed=0):
    """model against baseline on every benchmark of the results, paired by item. -> a list of dicts, the last "AVG" where there are several.

    Shares 0..1. p: see paired_p; holm: p corrected for the number of benchmarks; low, high: paired bootstrap over items. `refused` says why
    where the two cannot be compared. word: "better", "worse" or "not distinguishable" by holm; of a mean over seeds by the interval over
    the seeds (runs_low, runs_high), too.
    """
    found, pairs = [], []
    for name in dict.fromkeys(benchmark for benchmark, _ in results):
        row = {"benchmark": name, "model": model, "baseline": baseline}
        found.append(row)
        if missing := [label for label in (model, baseline) if (name, label) not in results]:
            row["refused"] = f"no result of {' and '.join(missing)}, see Over seeds"
            continue
        one, other = results[name, model], results[name, baseline]
        if why := refusal(one, other):
            row["refused"] = why
            continue
        ours, theirs = list(one.values().values()), list(other.values().values())
        pairs.append((ours, theirs))
        row |= dict(
            zip(("difference", "low", "high"), stats.paired_difference(ours, theirs, seed=seed))
        )
        row["p"] = paired_p(ours, theirs, seed)
        if {*ours, *theirs} <= {0, 1}:
            cells = Counter(zip(ours, theirs))
            row |= {
                "both": cells[1, 1],
                "wins": cells[1, 0],
                "losses": cells[0, 1],
                "neither": cells[0, 0],
            }
        if one.runs or other.runs:  # errors of independent trainings add in quadrature
            half = (
                sum(
                    ((stats.over_seeds(r.runs)[3] - stats.over_seeds(r.runs)[2]) / 2) ** 2
                    for r in (one, other)
                    if r.runs
                )
                ** 0.5
            )
            row |= {
                "runs_low": max(-1.0, row["difference"] - half),
                "runs_high": min(1.0, row["difference"] + half),
            }
    compared = [row for row in found if "refused" not in row]
    for row, p in zip(compared, stats.holm([row["p"] for row in compared])):
        row["holm"] = p
    if len(compared) > 1 and len(compared) == len(found):
        average = dict(
            zip(("difference", "low", "high", "p"), stats.stratified_difference(pairs, seed=seed))
        )
        compared.append(
            {"benchmark": "AVG", "model": model, "baseline": baseline}
            | average
            | {"holm": average["p"]}
        )
        found.append(compared[-1])
    over_runs = any("runs_low" in row for row in compared)
    for row in compared:
        row["word"] = (
            "not distinguishable"
            if row["holm"] >= 0.05
            else "better"
            if row["difference"] > 0
            else "worse"
        )
        if over_runs and row["word"] != "not distinguishable":
            over_zero = "runs_low" in row and not row["runs_low"] <= 0 <= row["runs_high"]
            row["word"] += (
                ", over seeds too"
                if over_zero
                else " on these items; see the seeds"
                if row["benchmark"] == "AVG"
                else (" on these items, not distinguishable over seeds")
            )
    return found


def over_seeds(results, groups, seed=0):
    """Several training runs of one arm. groups: {name: labels}. -> ({(benchmark, name): Result of the mean over runs}, list of dicts:
    mean, sd and Student's 95 % interval over the runs, and beside it the interval over items of the runs at hand)."""
    merged, table = {}, []
    for name, labels in groups.items():
        for benchmark in dict.fromkeys(b for b, label in results if label in labels):
            runs = [results[benchmark, label] for label in labels]
            why = next((why for run in runs[1:] if (why := refusal(runs[0], run))), None)
            row = {"benchmark": benchmark, "model": name, "runs": len(runs)}
            if why or len(runs) < 2 or any(None in run.values().values() for run in runs):
                table.append(row | {"refused": why})
                continue
            values = [list(run.values().values()) for run in runs]
            means = [sum(v) / len(v) for v in values]
            mean, sd, low, high = stats.over_seeds(means)
            row |= {"mean": mean, "sd": sd, "low": max(0.0, low), "high": min(1.0, high)}
            per_item = [sum(of_item) / len(runs) for of_item in zip(*values)]
            row |= dict(
                zip(("items_low", "items_high"), stats.mean_interval(per_item, seed=seed)[1:])
            )
            table.append(row | {"accuracies": means})
            rows = [
                {"id": i, "sample": 0, "strict": v, "paper": None}
                for i, v in zip(runs[0].values(), per_item)
            ]
            merged[benchmark, name] = Result(
                benchmark, name, rows, runs[0].conditions, runs=tuple(means)
            )
    return merged, table
