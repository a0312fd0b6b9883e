"""50,000 training questions against all test questions, on one core: seconds, pairs, peak memory, and all pairs by the same rule beside it.

    python -m tests.bench.decontaminate [questions]

real         MATH's and GSM8K's training questions, then again with other numbers and a word left out, against every benchmark in ../shared
             (left out where that is not there).
boilerplate  20,700 made-up items; half of them, and half of the questions, end in one of three sentences of 14 words, so that 8 of 100
             pairs share a 10-gram. A tenth of the questions are items with a word left out.

Naive is every pair in turn: equal, or a common 10-gram of the two sets and then difflib's ratio. It runs on a sample and its result must be
the same; status 1 where it is not, or where the whole takes over 180 s.
"""

import random
import re
import resource
import sys
import time

from common.core.files import read_jsonl
from common.data import decontamination, near_duplicates
from tests.conftest import SHARED
from tests.data.test_decontamination import naive

SECONDS, SAMPLE = 180, (400, 2500)  # of naive: questions, items


def changed(text, again, rng):
    """Other numbers, and one word left out."""
    words = re.sub(r"\d+", lambda number: str(int(number[0]) + again), text).split(" ")
    del words[rng.randrange(len(words))]
    return " ".join(words)


def real(n):
    if not (SHARED / "questions").is_dir():
        return None
    texts = [
        row["question"]
        for file in sorted((SHARED / "questions").glob("*.jsonl"))
        for row in read_jsonl(file)
    ]
    rng = random.Random(0)
    questions = [
        changed(texts[i % len(texts)], i // len(texts), rng) if i >= len(texts) else texts[i]
        for i in range(n)
    ]
    return questions, decontamination.load_test_sets(["all"], SHARED / "benchmarks")


def boilerplate(n):
    rng = random.Random(0)
    words = [f"w{i}" for i in range(8000)]
    weights = [1 / (i + 5) for i in range(len(words))]
    sentences = [" ".join(rng.choices(words, k=14)) for _ in range(3)]
    draws = iter(rng.choices(words, weights, k=90 * (n + 20_700)))
    draw = lambda: " ".join(next(draws) for _ in range(rng.randrange(30, 90)))
    texts = [f"{draw()} {rng.choice(sentences)}" if i % 2 else draw() for i in range(n + 20_700)]
    questions = [
        text if i % 10 else changed(rng.choice(texts[:20_700]), 0, rng)
        for i, text in enumerate(texts[20_700:])
    ]
    return questions, {
        "made up": [{"id": str(i), "question": text} for i, text in enumerate(texts[:20_700])]
    }


def measure(name, questions, tests):
    compared = 0
    rule = near_duplicates._ratio

    def counted(*pair):
        nonlocal compared
        compared += 1
        return rule(*pair)

    questions = {str(i): question for i, question in enumerate(questions)}
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    near_duplicates._ratio = counted
    found = decontamination.find_matches(questions, tests)
    near_duplicates._ratio = rule
    seconds, items = time.process_time() - began, sum(map(len, tests.values()))
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{name}: {len(questions)} questions, {items} items: {seconds:.1f} s CPU, {compared} of {len(questions) * items:.1e} pairs compared by "
        f"difflib, {len(found)} found, {sum(match['removed'] for match in found)} to remove; {peak:.0f} MB more at the peak",
        flush=True,
    )
    rng = random.Random(1)
    some = dict(rng.sample(sorted(questions.items()), min(SAMPLE[0], len(questions))))
    flat = rng.sample([(test, item) for test, found in tests.items() for item in found], SAMPLE[1])
    few = {test: [item for name, item in flat if name == test] for test in tests}
    took, results = [], []
    for way in (decontamination.find_matches, naive):
        began = time.process_time()
        results.append(
            [(m["question_id"], m["benchmark"], m["item"], m["ratio"]) for m in way(some, few)]
        )
        took.append(time.process_time() - began)
    same = sorted(results[0]) == sorted(results[1])
    whole = took[1] / (len(some) * len(flat)) * len(questions) * items
    print(
        f"{name}, {len(some)} x {len(flat)}: {took[0]:.2f} s, naive {took[1]:.1f} s, ratio {took[1] / took[0]:.0f}; naive at the whole's size, "
        f"by its time a pair: {whole:.0f} s, ratio {whole / seconds:.0f}; {'the same' if same else 'NOT THE SAME'} {len(results[1])} pairs",
        flush=True,
    )
    return same and seconds <= SECONDS


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    sets = {"real": real(n), "boilerplate": boilerplate(n)}
    sys.exit(not all([measure(name, *data) for name, data in sets.items() if data]))
