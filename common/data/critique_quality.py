"""How far critiques can be trusted: their verdicts against the golds.

Numbers only; report.py shows them. A gold speaks of the final answer alone: a critique that calls a
response with the right answer wrong may be right about its reasoning. A share is (share, low, high)
in 0..1 with its Wilson 95 % interval, which takes critiques as independent; three None if there is
nothing to share.
"""

from collections import Counter, defaultdict

from common.core.stats import wilson

CASES = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")  # response, verdict
SHOWN = 12  # groups of a table: a column may hold anything


def confusion_table(rows: list, correct: dict, field: str) -> dict:
    """Return {value of a field, such as "teacher": its line of `count_cases`}, sorted.

    Of many values the SHOWN ones with the most critiques.
    """
    groups = defaultdict(list)
    for row in rows:
        groups[str(row[field])].append(row)
    largest = sorted(groups, key=lambda name: -len(groups[name]))[:SHOWN]
    return {name: count_cases(groups[name], correct) for name in sorted(largest)}


def count_cases(rows: list, correct: dict) -> dict:
    """Return how the verdicts of critiqued rows compare with the golds.

    right_right (a right response with the verdict right), right_wrong, wrong_right, wrong_wrong,
    of the responses in `correct`. Its shares: `agrees` with the gold, of the verdicts; `accepts`:
    verdict right, of wrong responses.
    """
    counts = Counter()
    for row in rows:
        if row["id"] in correct:
            truth = "right" if correct[row["id"]] else "wrong"
            counts[f"{truth}_{row['verdict']}"] += 1
    agreeing = counts["right_right"] + counts["wrong_wrong"]
    n_wrong = counts["wrong_right"] + counts["wrong_wrong"]
    return {
        **{case: counts[case] for case in CASES},
        "critiques": len(rows),
        "agrees": _share(agreeing, counts.total()),
        "accepts": _share(counts["wrong_right"], n_wrong),
    }


def _share(k, n):
    return (k / n, *wilson(k, n)) if n else (None, None, None)
