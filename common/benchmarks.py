"""The test sets as a table: where the rows are, which column is the question, what the gold is.

A benchmark is read from the hub, or from `<dir>/<name>/test.jsonl` in the hub's columns. To add one, add a row.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from common import answers
from common.files import InputError, content_id, read_jsonl
from common.tiny import world


@dataclass(frozen=True)
class Benchmark:
    path: str  # on the hub
    configs: tuple  # all of them are read, in this order
    question: str  # column
    gold: Callable  # record -> text
    items: int
    licence: str


MATH_CONFIGS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
                "precalculus")
BENCHMARKS = {
    "gsm8k": Benchmark("openai/gsm8k", ("main",), "question", lambda r: r["answer"].split("####")[-1].strip(), 1319, "MIT"),
    "math": Benchmark("EleutherAI/hendrycks_math", MATH_CONFIGS, "problem", lambda r: answers.extract(r["solution"]), 5000, "MIT"),
    "math500": Benchmark("HuggingFaceH4/MATH-500", (None,), "problem", lambda r: r["answer"], 500, "MIT"),
}
NAMES = ("tiny", *BENCHMARKS)


def items(name, folder=None, revision=None, limit=None, seed=0):
    """-> list of {"id", "question", "gold"}, at most `limit`, in the test set's order.

    "tiny" is 1,000 questions of the micro-world of this seed, from the part of it that is never trained on.
    """
    if name == "tiny":
        rows = world.test_items(seed, 1000)[:limit]
        return [{"id": content_id(r["question"]), **r} for r in rows]
    if name not in BENCHMARKS:
        raise InputError(f"unknown benchmark {name!r}; the benchmarks are: --benchmarks {' '.join(NAMES)}")
    benchmark = BENCHMARKS[name]
    records = _local(Path(folder) / name / "test.jsonl") if folder else _hub(benchmark, revision)
    result = []
    for number, record in enumerate(records[:limit], 1):
        try:
            question, gold = record[benchmark.question], benchmark.gold(record)
        except (KeyError, TypeError, AttributeError) as error:
            lacks = error if isinstance(error, KeyError) else "a usable answer"
            raise InputError(f"{name}, row {number} lacks {lacks}; it has {', '.join(record)}.\n"
                             f"Expected the columns of {benchmark.path} on the hub.") from None
        if not question or not gold:
            raise InputError(f"{name}, row {number} has no {'question' if not question else 'gold'}.")
        result.append({"id": content_id(question), "question": question, "gold": gold})
    if limit is None and len(result) != benchmark.items:
        print(f"note: {name} has {len(result)} items here, {benchmark.items} are usual")
    return result


def _local(path):
    if not path.is_file():
        raise InputError(f"{path} is not there; --benchmarks-dir expects DIR/NAME/test.jsonl.\n"
                         "Leave --benchmarks-dir out to read the benchmark from the hub.")
    return read_jsonl(path)


def _hub(benchmark, revision):
    import datasets

    try:
        return [row for config in benchmark.configs
                for row in datasets.load_dataset(benchmark.path, config, split="test", revision=revision)]
    except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
        raise InputError(f"{benchmark.path} could not be read from the hub ({type(error).__name__}: {str(error)[:200]})\n"
                         "Check the connection, or give local files: --benchmarks-dir DIR (DIR/NAME/test.jsonl)") from error
