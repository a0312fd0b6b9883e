"""Kinds of mistakes, by hand and against the authors of the micro-world."""

from common.tiny import world
from common.tiny.mistakes import count_mistakes, find_mistake

QUESTION = "Start with 17\n(1) + 5\n(2) - 3\n(3) * 7"
LINES = ["(1) 17 + 5 = 22", "(2) 22 - 3 = 19", "(3) 19 * 7 = 133", "The answer is \\boxed{ 133 }"]
CASES = {
    "carry": ["(1) 17 + 5 = 12", *LINES[1:]],
    "borrow": [LINES[0], "(2) 22 - 3 = 29", *LINES[2:]],
    "times table": [*LINES[:2], "(3) 19 * 7 = 114", LINES[3]],
    "left-out line": [LINES[0], LINES[2], LINES[3]],
    "copying slip": [LINES[0], "(2) 12 - 3 = 9", *LINES[2:]],
    "other": ["(1) 17 + 5 = 23", *LINES[1:]],
}


def test_kinds_by_hand():
    results = {kind: find_mistake(QUESTION, "\n".join(lines)) for kind, lines in CASES.items()}
    assert results == dict(zip(CASES, CASES))


def test_ends_by_hand():
    assert find_mistake(QUESTION, "\n".join(LINES[:2])) == "left-out line"
    assert find_mistake(QUESTION, "\n".join([*LINES[:3], "\\boxed{ 18 }"])) == "copying slip"
    assert find_mistake(QUESTION, "\n".join(LINES[:3])) == "other"  # cut before its answer
    assert find_mistake("Start with 1\n(1) * 3", "(1) 1 * 3 = 2") == "other"  # a small operand
    assert find_mistake(QUESTION, "no line at all") == "left-out line"
    assert find_mistake(QUESTION, "(1) 17 - 5 = 12") == "copying slip"


def test_a_sloppy_author_makes_the_three_sloppy_mistakes_only():
    """And each of them first where the two ways of calculating part."""
    rows = []
    for problem in world.problems("train", 5, 400):
        values = world.chain(problem, sloppy=True)
        output = world.solution(problem, values, set(range(len(values))))
        correct = str(values[-1]) == world.gold(problem)
        rows.append({"question": problem.question, "output": output, "correct": correct})
        if not correct:
            exact = world.chain(problem)
            first = next(i for i, value in enumerate(values) if value != exact[i])
            op = problem.steps[first][0]
            kind = {"+": "carry", "-": "borrow", "*": "times table"}[op]
            assert find_mistake(problem.question, output) == kind
    counts = count_mistakes(rows)
    assert counts.total() == sum(not row["correct"] for row in rows) > 100
    assert set(counts) == {"carry", "borrow", "times table"}
