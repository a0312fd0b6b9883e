"""How far critiques can be trusted: verdicts against golds, by the strict grader, and teachers against each other.

Numbers only; data_report.py shows them. A gold speaks of the final answer alone: a critique that calls a response with the right answer
wrong may be right about its reasoning. Shares are (share, low, high) in 0..1 with their Wilson 95 % interval, which takes critiques as
independent, or three None where there is nothing to share.
"""

from collections import Counter
from itertools import combinations

from common import grading
from common.core.stats import wilson
from common.core.verdicts import VERDICTS

NOTHING = (None, None, None)


def collect_golds(rows):
    """{question_id: its golds as texts}: none where all are blank, several where they conflict."""
    found = {}
    for row in rows:
        gold = "" if row["gold"] is None else str(row["gold"]).strip()
        found.setdefault(row["question_id"], set()).update({gold} - {""})
    return found


def grade_responses(rows, golds):
    """Which responses give the gold answer. -> ({id: True or False}, counts), each response graded once. golds: of the questions, as above.

    Left out and counted: responses without a gold (None or blank), those whose question has different golds in different rows (even if
    they are the same number in two forms: which one is meant is not for us to say; counted as questions), and those that took the
    grader too long. A row without a gold shares that of its question.
    """
    responses = list({row["id"]: row for row in rows}.values())
    known = [row for row in responses if len(golds[row["question_id"]]) == 1]
    judged = grading.grade_many(
        [row["response"] for row in known], [min(golds[row["question_id"]]) for row in known]
    )
    found = {row["id"]: j.correct for row, j in zip(known, judged) if not j.timed_out}
    return found, {
        "graded": len(found),
        "timed out": len(known) - len(found),
        "without a gold": sum(not golds[row["question_id"]] for row in responses),
        "conflicting golds (questions)": sum(
            len(golds[name]) > 1 for name in {row["question_id"] for row in rows}
        ),
    }


def count_cases(rows, right):
    """Counts of the four cases, "wrong called right" and so on, over the critiques whose response is known to be right or wrong."""
    return Counter(
        f"{'right' if right[row['id']] else 'wrong'} called {row['verdict']}"
        for row in rows
        if row["id"] in right and row.get("verdict") in VERDICTS
    )


def confusion_table(rows, right):
    """Verdicts by teacher and source, and against golds -> a list of dicts, sorted; None as teacher or source: all of them, last.

    critiques = called_right + called_wrong + unparsed, of all rows; right_right (a right response called right), right_wrong (called
    wrong), wrong_right, wrong_wrong, of those in `right`. Shares: `positive` of the verdicts that are right; `agrees` of the verdicts that
    agree with the gold; `accepts` of the wrong responses that were called right.
    """
    groups = {}
    for row in rows:
        teacher, source = str(row["teacher"]), str(row["source"])
        for key in ((teacher, source), (teacher, None), (None, source), (None, None)):
            groups.setdefault(key, []).append(row)
    return [
        _line(*key, groups[key], right)
        for key in sorted(groups, key=lambda key: [(name is None, name or "") for name in key])
    ]


def _line(teacher, source, rows, right):
    verdicts, n = Counter(str(row.get("verdict")) for row in rows), count_cases(rows, right)
    wrong = n["wrong called right"] + n["wrong called wrong"]
    return {
        "teacher": teacher,
        "source": source,
        "critiques": len(rows),
        "called_right": verdicts["right"],
        "called_wrong": verdicts["wrong"],
        "unparsed": len(rows) - verdicts["right"] - verdicts["wrong"],
        **{
            f"{was}_{called}": n[f"{was} called {called}"]
            for was in VERDICTS
            for called in VERDICTS
        },
        "positive": share(verdicts["right"], verdicts["right"] + verdicts["wrong"]),
        "agrees": share(n["right called right"] + n["wrong called wrong"], n.total()),
        "accepts": share(n["wrong called right"], wrong),
    }


def share(k, n):
    """k of n -> (share, low, high), or three None where n is 0."""
    return (k / n, *wilson(k, n)) if n else NOTHING


def teacher_agreement(rows):
    """Every pair of teachers on the responses that both judged -> a list of dicts, sorted; pairs without such responses are left out.

    a, b: the teachers; n responses; both_right, only_a (a alone calls it right), only_b, both_wrong; `agrees` a share; kappa (Cohen 1960):
    agreement beyond what chance gives, 1 at best, None where both always say the same word. By hand: 4 both right, 1 only a, 2 only b, 3
    both wrong: agree 7/10; by chance 5/10 x 6/10 + 5/10 x 4/10 = 0.5; kappa (0.7 - 0.5)/(1 - 0.5) = 0.4.
    Of several critiques by one teacher of one response the first with a verdict counts.
    """
    said = {}
    for row in rows:
        if row.get("verdict") in VERDICTS:
            said.setdefault(str(row["teacher"]), {}).setdefault(
                row["id"], row["verdict"] == "right"
            )
    pairs = []
    for a, b in combinations(sorted(said), 2):
        cells = Counter((said[a][i], said[b][i]) for i in said[a] if i in said[b])
        n, both, only_a, only_b, neither = (
            cells.total(),
            *(cells[cell] for cell in ((True, True), (True, False), (False, True), (False, False))),
        )
        if not n:
            continue
        chance = (both + only_a) * (both + only_b) + (neither + only_b) * (
            neither + only_a
        )  # times n^2: whole numbers, so 1 is exactly 1
        pairs.append(
            {
                "a": a,
                "b": b,
                "n": n,
                "both_right": both,
                "only_a": only_a,
                "only_b": only_b,
                "both_wrong": neither,
                "agrees": share(both + neither, n),
                "kappa": None
                if chance == n * n
                else ((both + neither) * n - chance) / (n * n - chance),
            }
        )
    return pairs
