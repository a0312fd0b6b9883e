"""The floor of a test set: what one and the same answer to every question scores.

floors.json has the floors of the sets of the table; `python -m tests.bench.floors` makes it.
"""

import json
from collections import Counter
from pathlib import Path

from common import grading
from common.data.test_sets import TestSet, get_test_set
from common.grading import paper

CONSTANTS = ("0", "A", ".", "0.01")  # and the most frequent gold
MAX_GOLDS = 500  # different ones, of a set that is measured on the spot: at most some 10 s


def find_floor(name: str, items: list) -> dict | None:
    """Return the floor of a test set as measure_floor does, None if that would take long."""
    floors = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    if name in floors:
        return floors[name]
    if len({item["gold"] for item in items}) > MAX_GOLDS:
        return None
    return measure_floor(get_test_set(name), items)


def measure_floor(test_set: TestSet, items: list) -> dict:
    """Return how many of n items the best constant answer gets right, by each grader.

    {"n", "answer", "correct", "paper_answer", "paper_correct"}. By hand: of the golds 3, 3, 0.04
    the answer 3 gets two right by the strict grader; by the paper's 0.01 gets one (both round to
    0.0), and 3 two.
    """
    golds = Counter(item["gold"] for item in items)
    strict, lax = Counter(), Counter()
    for answer in dict.fromkeys([*CONSTANTS, golds.most_common(1)[0][0]]):
        texts, choices = [f"\\boxed{{{answer}}}"] * len(golds), test_set.choices
        grades = grading.grade_many(texts, golds, test_set.tolerance, choices or None)
        paper_grades = paper.grade_many(texts, list(golds), test_set.units, choices)
        for n, grade, (correct_paper, _) in zip(golds.values(), grades, paper_grades):
            strict[answer] += n * grade.correct
            lax[answer] += n * correct_paper
    floor = {"n": len(items)}
    floor["answer"], floor["correct"] = strict.most_common(1)[0]
    floor["paper_answer"], floor["paper_correct"] = lax.most_common(1)[0]
    return floor
