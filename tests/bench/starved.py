"""Are verdicts the same on an idle and on a starved machine?

    python -m tests.bench.starved [responses]

400 real responses (../shared/responses/realcritic_mix.jsonl) and 20 symbolic comparisons are
graded alone, then beside forty busy loops, each in a session of its own, so that the system gives
the grader a small share of the cores. Prints the pairs with another verdict or another time-out.
Status 1 if there is one.
"""

import json
import subprocess
import sys
import time

from common.grading import grade_many
from common.grading.grader import _equivalent
from tests.conftest import SHARED

LOOPS = 40
SYMBOLIC = [  # (gold, answer): easy for sympy, and none is decided without it
    (rf"{k}\sin(\frac{{\pi}}{{5}}x)+{k + 1}", rf"\boxed{{{k}*\sin(\pi*x/5)+{k + 1}}}")
    for k in range(2, 12)
] + [(rf"\frac{{x^2-{k * k}}}{{x-{k}}}", rf"\boxed{{x+{k}}}") for k in range(2, 12)]


def grade_all(pairs):
    """Return [(correct, timed out)] of all pairs; prints the seconds."""
    _equivalent.cache_clear()
    began = time.monotonic()
    results = grade_many([text for _, text in pairs], [gold for gold, _ in pairs])
    lost = sum(result.timed_out for result in results)
    right = sum(result.correct for result in results)
    took = time.monotonic() - began
    print(f"{len(pairs)} pairs: {right} right, {lost} timed out, {took:.0f} s", flush=True)
    return [(result.correct, result.timed_out) for result in results]


def main():
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    pairs = []
    with open(SHARED / "responses" / "realcritic_mix.jsonl", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            pairs.append((str(row["gold_answer"]), row["response"]))
    pairs = SYMBOLIC + pairs[:size]
    alone = grade_all(pairs)
    loop = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(loop, start_new_session=True) for _ in range(LOOPS)]
    try:
        starved = grade_all(pairs)
    finally:
        for process in loops:
            process.kill()
    changed = [pair for pair, *verdicts in zip(pairs, alone, starved) if verdicts[0] != verdicts[1]]
    print(f"{len(changed)} of {len(pairs)} verdicts differ")
    for gold, text in changed:
        print(f"  gold {gold[:60]!r}, response ends {text[-60:]!r}")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
