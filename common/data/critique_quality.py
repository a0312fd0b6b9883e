"""How far critiques can be trusted: their verdicts against the golds.

Numbers only; report.py shows them. A gold speaks of the final answer alone: a critique that calls a
response with the right answer wrong may be right about its reasoning. A share is (share, low, high)
in 0..1 with its Wilson 95 % interval, which takes critiques as independent; three None if there is
nothing to share.
"""

from collections import Counter

from common import grading
from common.core.stats import wilson

CASES = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")  # response, verdict
SHOWN = 12  # groups of a table: a column may hold anything


def collect_golds(rows: list) -> dict:
    """Return {question_id: its golds}: none if all are blank, several if they conflict."""
    golds = {}
    for row in rows:
        question_golds = golds.setdefault(row["question_id"], set())
        if row["gold"] is not None:
            question_golds.add(str(row["gold"]).strip())
    for question_golds in golds.values():
        question_golds.discard("")
    return golds


def grade_responses(rows: list, golds: dict) -> tuple:
    """Return ({response id: does it give the gold answer}, counts in words), each graded once.

    golds: as collect_golds gives them; a row without a gold shares that of its question. Not graded
    if the question has none, or different ones (even the same number in two forms: which one is
    meant is not for us to say); timed out if it took the grader too long.
    """
    gradable, unclear = {}, set()
    for row in rows:
        if len(golds[row["question_id"]]) == 1:
            gradable[row["id"]] = row
        else:
            unclear.add(row["id"])
    responses, texts = [], []
    for row in gradable.values():
        responses.append(row["response"])
        texts += golds[row["question_id"]]
    correct = {}
    for name, result in zip(gradable, grading.grade_many(responses, texts)):
        if not result.timed_out:
            correct[name] = result.correct
    counts = (
        f"{len(correct)} graded, {sum(correct.values())} right, "
        f"{len(gradable) - len(correct)} timed out, {len(unclear)} without a clear gold"
    )
    return correct, counts


def confusion_table(rows: list, correct: dict, field: str) -> dict:
    """Return {value of a field, such as "teacher": its line of `count_cases`}, sorted.

    Of many values the SHOWN ones with the most critiques.
    """
    groups = {}
    for row in rows:
        groups.setdefault(str(row[field]), []).append(row)
    largest = sorted(groups, key=lambda name: -len(groups[name]))[:SHOWN]
    table = {}
    for name in sorted(largest):
        table[name] = count_cases(groups[name], correct)
    return table


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
    cases = {case: counts[case] for case in CASES}
    agreeing = cases["right_right"] + cases["wrong_wrong"]
    accepted = cases["wrong_right"]
    n_wrong = accepted + cases["wrong_wrong"]
    return {
        **cases,
        "critiques": len(rows),
        "agrees": share(agreeing, counts.total()),
        "accepts": share(accepted, n_wrong),
    }


def share(k: int, n: int) -> tuple:
    """Return k of n as (share, low, high), three None if n is 0."""
    if not n:
        return (None, None, None)
    return (k / n, *wilson(k, n))
