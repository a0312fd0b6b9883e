"""How far critiques can be trusted: their verdicts against the golds.

Numbers only; report.py shows them. A gold speaks of the final answer alone: a critique that calls a
response with the right answer wrong may be right about its reasoning. A share is (share, low, high)
in 0..1 with its Wilson 95 % interval, which takes critiques as independent; three None if there is
nothing to share.
"""

from collections import Counter, defaultdict

from common import grading
from common.core.stats import wilson

CASES = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")  # response, verdict
SHOWN = 12  # groups of a table: a column may hold anything


def add_grades(rows: list) -> None:
    """Set `correct` in each row that has no grade yet: does its response give its gold?

    True or False; None without a gold, and if it took the grader too long.
    """
    ungraded = [row for row in rows if not isinstance(row.get("correct"), bool)]
    golds = [_read_gold(row) for row in ungraded]
    results = grading.grade_many([row["response"] for row in ungraded], golds)
    for row, gold, result in zip(ungraded, golds, results):
        is_known = gold and not result.timed_out
        row["correct"] = result.correct if is_known else None


def collect_golds(rows: list) -> dict:
    """Return {question_id: its golds}: none if all are blank, several if they conflict."""
    golds = {}
    for row in rows:
        question_golds = golds.setdefault(row["question_id"], set())
        gold = _read_gold(row)
        if gold:
            question_golds.add(gold)
    return golds


def _read_gold(row):
    return "" if row["gold"] is None else str(row["gold"]).strip()


def grade_responses(rows: list, golds: dict) -> tuple:
    """Return ({response id: does it give the gold answer}, counts in words), each graded once.

    02 has graded most of them. golds: as collect_golds gives them; a row without a gold shares that
    of its question. Not graded if the question has none, or different ones (even the same number in
    two forms: which one is meant is not for us to say); timed out if it took the grader too long.
    """
    responses = {}
    for row in rows:
        question_golds = golds[row["question_id"]]
        if len(question_golds) == 1:
            responses[row["id"]] = row | {"gold": min(question_golds)}
    add_grades(list(responses.values()))
    correct = {}
    for name, row in responses.items():
        if row["correct"] is not None:
            correct[name] = row["correct"]
    n_responses = len({row["id"] for row in rows})
    counts = (
        f"{len(correct)} graded, {sum(correct.values())} right, {len(responses) - len(correct)} "
        f"timed out, {n_responses - len(responses)} without a clear gold"
    )
    return correct, counts


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
