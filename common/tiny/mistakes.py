"""What went wrong first in a solution of the micro-world: a table of kinds for each model."""

import re
from collections import Counter

from common.tiny.world import calculate

KINDS = ("carry", "borrow", "times table", "left-out line", "copying slip", "other")
LINE = re.compile(r"\((\d+)\) (-?\d+) ([-+*]) (\d+) = (-?\d+)")
STEP = re.compile(r"\(\d+\) ([-+*]) (\d+)")


def find_mistake(question: str, output: str) -> str:
    """Return the kind of the first mistake in a wrong output, one of KINDS.

    carry: 17 + 5 = 12; borrow: 23 - 7 = 26; times table: 3 * 7 = 18; left-out line: a step is not
    written down; copying slip: a number or sign of the question or of the line before is changed,
    or the answer is not that of the last line; other: any other result, or no answer.

    >>> find_mistake("Start with 17\\n(1) + 5\\n(2) - 2", "(1) 17 + 5 = 12\\n(2) 12 - 2 = 10")
    'carry'
    """
    value = question.splitlines()[0].removeprefix("Start with ")
    written = LINE.findall(output)
    for number, (op, operand) in enumerate(STEP.findall(question), 1):
        if not written or int(written[0][0]) > number:
            return "left-out line"
        _, before, *rest = written.pop(0)
        if (before, *rest[:2]) != (value, op, operand):
            return "copying slip"
        value = rest[2]
        kind = _check_line(int(before), op, int(operand), int(value))
        if kind:
            return kind
    return "copying slip" if "boxed" in output else "other"


def _check_line(before, op, operand, result):
    """Return the kind of mistake in a line, None if it is right."""
    if result == calculate(before, op, operand):
        return None
    if result == calculate(before, op, operand, sloppy=True):
        return {"+": "carry", "-": "borrow", "*": "times table"}[op]
    return "other"


def count_mistakes(rows: list) -> Counter:
    """Return how many wrong rows of 05 have each kind of mistake."""
    return Counter(find_mistake(r["question"], r["output"]) for r in rows if not r["correct"])
