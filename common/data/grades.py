"""Responses against their golds: 02 grades each, 03 reads the grades."""

from common import grading


def add_grades(rows: list) -> None:
    """Set `correct` in each row that has no grade yet: does its response give its gold?

    True or False; None without a gold, and if it took the grader too long.
    """
    ungraded = []
    for row in rows:
        if not isinstance(row.get("correct"), bool):
            row["correct"] = None
            if _read_gold(row):
                ungraded.append(row)
    responses, golds = [row["response"] for row in ungraded], map(_read_gold, ungraded)
    for row, result in zip(ungraded, grading.grade_many(responses, golds)):
        if not result.timed_out:
            row["correct"] = result.correct


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
