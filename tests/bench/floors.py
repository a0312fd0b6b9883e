"""Measure the floors of the test sets: python -m tests.bench.floors [DIR]   (3 minutes)

DIR holds NAME/test.jsonl, ../shared/benchmarks by default. Writes common/data/floors.json.
"""

import json
import sys
from pathlib import Path

from common.core.files import write_atomic
from common.data import floors, test_sets
from common.ifeval.grading import grade, measure

# Answers that say nothing; the last one looks like two answers.
IFEVAL_CONSTANTS = (".", '"a"', '"<<a>>"', '"<<a>>\n\n******\n\nb"')


def measure_ifeval_floor(items: list) -> dict:
    """Return the floor of IFEval, and in "shares" the best of each of its four shares.

    Both gradings agree on these answers.
    """
    passed, shares = {}, {}
    for answer in IFEVAL_CONSTANTS:
        verdicts = [[grade(answer, item["gold"])] for item in items]
        for name, share in measure(verdicts).items():
            if not name.endswith("interval"):
                shares[f"{name}_floor"] = max(share, shares.get(f"{name}_floor", 0))
        passed[answer] = sum(all(rows[0]["strict"]) for rows in verdicts)
    best = max(passed, key=lambda answer: passed[answer])
    floor = {"n": len(items), "answer": best, "correct": passed[best]}
    return floor | {"paper_answer": best, "paper_correct": passed[best], "shares": shares}


if __name__ == "__main__":
    folder = sys.argv[1] if sys.argv[1:] else "../shared/benchmarks"
    lines = []
    for name in test_sets.list_public(folder):
        items = test_sets.load_items(name, folder)
        if name == "ifeval":
            floor = measure_ifeval_floor(items)
        else:
            floor = floors.measure_floor(test_sets.get_test_set(name), items)
        lines.append(f"{json.dumps(name)}: {json.dumps(floor)}")
        print(lines[-1], flush=True)
    path = Path(floors.__file__).with_suffix(".json")
    write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")
