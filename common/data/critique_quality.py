"""How far critiques can be trusted: verdicts against golds, and teachers against each other.

Numbers only; report.py shows them. A gold speaks of the final answer alone: a critique that calls a
response with the right answer wrong may be right about its reasoning. A share is (share, low, high)
in 0..1 with its Wilson 95 % interval, which takes critiques as independent; three None if there is
nothing to share.
"""

from collections import Counter
from itertools import combinations

from common import grading
from common.core.stats import wilson
from common.core.verdicts import VERDICTS

CASES = ("right_right", "right_wrong", "wrong_right", "wrong_wrong")  # response, verdict


def collect_golds(rows: list) -> dict:
    """Return {question_id: its golds}: none if all are blank, several if they conflict."""
    golds = {}
    for row in rows:
        text = "" if row["gold"] is None else str(row["gold"]).strip()
        golds.setdefault(row["question_id"], set()).update([text] if text else [])
    return golds


def grade_responses(rows: list, golds: dict) -> tuple:
    """Return ({response id: does it give the gold answer}, counts). Each response is graded once.

    golds: as collect_golds gives them; a row without a gold shares that of its question. Not graded
    if the question has none, or different ones (even the same number in two forms: which one is
    meant is not for us to say); timed out if it took the grader too long.
    """
    responses = {row["id"]: row for row in rows}
    gradable = [row for row in responses.values() if len(golds[row["question_id"]]) == 1]
    results = grading.grade_many(
        [row["response"] for row in gradable],
        [min(golds[row["question_id"]]) for row in gradable],
    )
    correct = {}
    for row, result in zip(gradable, results):
        if not result.timed_out:
            correct[row["id"]] = result.correct
    return correct, {
        "graded": len(correct),
        "timed out": len(gradable) - len(correct),
        "without a clear gold": len(responses) - len(gradable),
    }


def confusion_table(rows: list, correct: dict, *fields: str) -> dict:
    """Return {values of the fields: line} over groups of critiques, sorted.

    fields: of a row, such as "teacher", "source". A line counts critiques = right + wrong +
    unparsed verdicts; right_right (a right response with the verdict right), right_wrong,
    wrong_right, wrong_wrong, of the responses in `correct`. Its shares: `called_right` of the
    verdicts; `agrees` with the gold, of the verdicts; `accepts`: verdict right, of wrong responses.
    """
    groups = {}
    for row in rows:
        key = tuple(str(row[field]) for field in fields)
        groups.setdefault(key, []).append(row)
    return {key: _confusion_line(groups[key], correct) for key in sorted(groups)}


def _confusion_line(rows, correct):
    counts = Counter()
    for row in rows:
        verdict = row["verdict"]
        if verdict not in VERDICTS:
            continue
        counts[verdict] += 1
        if row["id"] in correct:
            truth = "right" if correct[row["id"]] else "wrong"
            counts[f"{truth}_{verdict}"] += 1
    n_wrong = counts["wrong_right"] + counts["wrong_wrong"]
    n_graded = n_wrong + counts["right_right"] + counts["right_wrong"]
    n_verdicts = counts["right"] + counts["wrong"]
    line = {name: counts[name] for name in (*VERDICTS, *CASES)}
    return line | {
        "critiques": len(rows),
        "unparsed": len(rows) - n_verdicts,
        "called_right": share(counts["right"], n_verdicts),
        "agrees": share(counts["right_right"] + counts["wrong_wrong"], n_graded),
        "accepts": share(counts["wrong_right"], n_wrong),
    }


def share(k: int, n: int) -> tuple:
    """Return k of n as (share, low, high), three None if n is 0."""
    return (k / n, *wilson(k, n)) if n else (None, None, None)


def teacher_agreement(rows: list) -> list:
    """Return a line for every two teachers with verdicts on the same responses, sorted.

    a, b: the teachers; n: responses; a_right, b_right: those with the verdict right; agree: those
    with the same verdict; kappa (Cohen 1960): agreement beyond what chance gives, 1 at best, None
    if both always give the same verdict. By hand: 4 both right, 1 only a, 2 only b, 3 both wrong:
    agree 7/10; by chance 5/10 x 6/10 + 5/10 x 4/10 = 0.5; kappa (0.7 - 0.5)/(1 - 0.5) = 0.4.
    Of several critiques by one teacher of one response the first with a verdict counts.
    """
    verdicts = {}
    for row in rows:
        if row["verdict"] in VERDICTS:
            by_teacher = verdicts.setdefault(str(row["teacher"]), {})
            by_teacher.setdefault(row["id"], row["verdict"])
    lines = []
    for a, b in combinations(sorted(verdicts), 2):
        ids = verdicts[a].keys() & verdicts[b].keys()
        if ids:
            pairs = [(verdicts[a][name], verdicts[b][name]) for name in ids]
            lines.append({"a": a, "b": b} | _compare_verdicts(pairs))
    return lines


def _compare_verdicts(pairs):
    n = len(pairs)
    a_right = sum(a == "right" for a, _ in pairs)
    b_right = sum(b == "right" for _, b in pairs)
    agree = sum(a == b for a, b in pairs)
    # Times n^2, so that all are whole numbers and 1 is exactly 1.
    chance = a_right * b_right + (n - a_right) * (n - b_right)
    kappa = None if chance == n * n else (agree * n - chance) / (n * n - chance)
    return {"n": n, "a_right": a_right, "b_right": b_right, "agree": agree, "kappa": kappa}
