"""50,000 training questions against all test questions, on one core: seconds, pairs and memory.

    python -m tests.bench.decontaminate [questions]

real         MATH's and GSM8K's training questions, then again with other numbers and a word left
             out, against every benchmark in ../shared (left out if that does not exist).
boilerplate  20,700 made-up items. Half of them, and half of the questions, end in one of three
             sentences of 14 words, so that 8 of 100 pairs share a 10-gram. A tenth of the
             questions are items with a word left out.

Each is measured with a half of the questions and with all: near-linear is a ratio of about 2. Then
every pair of a sample is compared by difflib, and each of its pairs has to be found.
Status 1 if one is not, or if the whole takes over 180 s.
"""

import random
import re
import resource
import sys
import time

from common.core.files import read_jsonl
from common.data import decontamination
from tests.conftest import SHARED
from tests.data.test_decontamination import compare_all, difflib_ratio, make_tests

SECONDS = 180
N_QUESTIONS, N_ITEMS = 400, 2500  # of the sample that difflib compares
N_MADE_UP = 20_700


def change(text, shift, rng):
    """Other numbers, and one word left out."""
    words = re.sub(r"\d+", lambda number: str(int(number[0]) + shift), text).split(" ")
    del words[rng.randrange(len(words))]
    return " ".join(words)


def real(n):
    texts = []
    for path in sorted((SHARED / "questions").glob("*.jsonl")):
        texts += [row["question"] for row in read_jsonl(path)]
    rng = random.Random(0)
    questions = texts[:n]
    for i in range(len(texts), n):
        questions.append(change(texts[i % len(texts)], i // len(texts), rng))
    rng.shuffle(questions)
    return questions, decontamination.load_test_sets(["all"], SHARED / "benchmarks")


def boilerplate(n):
    rng = random.Random(0)
    words = [f"w{i}" for i in range(8000)]
    weights = [1 / (i + 5) for i in range(len(words))]
    sentences = [" ".join(rng.choices(words, k=14)) for _ in range(3)]
    draws = iter(rng.choices(words, weights, k=90 * (n + N_MADE_UP)))
    texts = []
    for i in range(n + N_MADE_UP):
        text = " ".join(next(draws) for _ in range(rng.randrange(30, 90)))
        texts.append(f"{text} {rng.choice(sentences)}" if i % 2 else text)
    items, questions = texts[:N_MADE_UP], texts[N_MADE_UP:]
    for i in range(0, n, 10):
        questions[i] = change(rng.choice(items), 0, rng)
    return questions, make_tests(items=items)


def find(questions, tests):
    """-> (seconds of CPU, {(question id, test set, item id): ratio})."""
    start = time.process_time()
    matches = decontamination.find_matches(dict(enumerate(questions)), tests)
    seconds = time.process_time() - start
    pairs = {(m["question_id"], m["benchmark"], m["item"]): m["ratio"] for m in matches}
    return seconds, pairs


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name, questions, tests):
    before, n_items = peak_mb(), sum(map(len, tests.values()))
    half_seconds, _ = find(questions[: len(questions) // 2], tests)
    seconds, pairs = find(questions, tests)
    n_removed = sum(ratio >= decontamination.REMOVE for ratio in pairs.values())
    print(
        f"{name}: {len(questions)} questions, {n_items} items: {seconds:.1f} s CPU, ratio to half "
        f"of the questions {seconds / half_seconds:.1f}; {len(pairs)} pairs found, {n_removed} to "
        f"remove; {peak_mb() - before:.0f} MB more at the peak",
        flush=True,
    )
    return seconds <= SECONDS


def compare(name, questions, tests):
    rng = random.Random(1)
    sample = rng.sample(questions, N_QUESTIONS)
    items = [(name, item) for name, test_items in tests.items() for item in test_items]
    part = {}
    for test_set, item in rng.sample(items, N_ITEMS):
        part.setdefault(test_set, []).append(item)
    seconds, pairs = find(sample, part)
    start = time.process_time()
    by_difflib = compare_all(dict(enumerate(sample)), part, difflib_ratio)
    ratio = (time.process_time() - start) / seconds
    missing = [pair for pair in by_difflib if pair not in pairs]
    print(
        f"{name}, {N_QUESTIONS} x {N_ITEMS}: difflib on every pair takes {ratio:.0f} times as long "
        f"and finds {len(by_difflib)} pairs, {len(missing)} of them not found here "
        f"({len(pairs)} are)",
        flush=True,
    )
    return not missing


if __name__ == "__main__":
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    sets = {"boilerplate": boilerplate(n)}
    if (SHARED / "questions").is_dir():
        sets["real"] = real(n)
    results = []
    for name, (questions, tests) in sets.items():
        results.append(measure(name, questions, tests))
        results.append(compare(name, questions, tests))
    sys.exit(not all(results))
