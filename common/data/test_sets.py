"""The test sets as a table: where the rows are, what a model is asked, what the gold is, how answers are read.

A benchmark is read from the hub, or from `<dir>/<name>/test.jsonl` in the hub's columns. To add one, add a row.
"""

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import grading
from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id, read_jsonl
from common.tiny import world

LETTERS = "ABCDEFGHIJ"
MATH_FORM = (prompts.SOLVE_SYSTEM, prompts.STOP)  # system line, stop strings


@dataclass(frozen=True)
class TestSet:
    """question, gold: a column, or a function of the record. tolerance: relative, of golds that are measured numbers; units: whether
    the paper's grader deletes unit words; choices: the option letters. digest: of all items, where a copy was at hand. private: its authors ask not to post it: hub only, never stored.
    """

    path: str | None  # on the hub
    configs: tuple  # all of them are read, in this order
    split: str
    question: str | Callable
    gold: str | Callable
    items: int
    licence: str
    digest: str = ""
    prompt_form: tuple = MATH_FORM
    tolerance: float = 0
    units: bool = True
    choices: str = ""
    private: bool = False
    prepare: Callable = lambda record, seed: record
    question_column: str = ""  # the column with the question alone, where `question` is a function
    subset_file: str = (
        ""  # file beside this one with the ids of the rows that belong to it, 8 hex digits each
    )

    def read(self, column, record):
        return column(record) if callable(column) else record[column]


def _true_or_false(record):
    """TheoremQA as the paper asks it; " (True or False)" follows as in every maths benchmark."""
    return record["Question"] + (
        " Answer with \\boxed{True} or \\boxed{False}."
        if record["Answer"] in ("True", "False")
        else ""
    )


def _options(record):
    lines = [
        f"{letter}. {option}\n"
        for letter, option in zip(LETTERS, (o for o in record["options"] if o != "N/A"))
    ]
    return f"Question:\n{record['question']}\nOptions:\n{''.join(lines)}Answer: Let's think step by step.\n"


def _shuffle(record, seed):
    """GPQA lists the right answer first. # Differs from the paper: its code shuffles without a seed."""
    options = [
        record[f"{kind} Answer{number}"].strip()
        for kind, number in [("Correct", ""), *(("Incorrect", f" {n}") for n in (1, 2, 3))]
    ]
    order = random.Random(f"gpqa {seed} {record['Question']}").sample(range(4), 4)
    return record | {"options": [options[i] for i in order], "answer": LETTERS[order.index(0)]}


def _choices(record):
    return f"{record['Question']}\nAnswer Choices: " + " ".join(
        f"({a}) {o}" for a, o in zip(LETTERS, record["options"])
    )


MATH_CONFIGS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
MATH = dict(
    path="EleutherAI/hendrycks_math",
    configs=MATH_CONFIGS,
    split="test",
    question="problem",
    gold=lambda r: grading.extract_answer(r["solution"]),
    licence="MIT",
)
# tolerance: golds of Minerva and TheoremQA are rounded measurements; 1 % is what Minerva's authors allow.
TEST_SETS = {
    "gsm8k": TestSet(
        "openai/gsm8k",
        ("main",),
        "test",
        "question",
        lambda r: r["answer"].split("####")[-1].strip(),
        1319,
        "MIT",
        "d543867faeb640a8",
    ),
    "math": TestSet(**MATH, items=5000, digest="fc887a210a8ac71b"),
    "math500": TestSet(
        "HuggingFaceH4/MATH-500",
        (None,),
        "test",
        "problem",
        "answer",
        500,
        "MIT",
        "fc384bd783773c9e",
    ),
    "math500_validation": TestSet(
        **MATH, items=500, digest="b3ed84b2e84b25da", subset_file="math500_validation.txt"
    ),
    "minerva_math": TestSet(
        "math-ai/minervamath",
        (None,),
        "test",
        "question",
        "answer",
        272,
        "none stated; MIT OpenCourseWare",
        "cf13cd19954e15fd",
        tolerance=0.01,
        units=False,
    ),
    "olympiadbench": TestSet(
        "Hothan/OlympiadBench",
        ("OE_TO_maths_en_COMP",),
        "train",
        "question",
        lambda r: r["final_answer"][0],
        675,
        "Apache-2.0",
        "be27d338f6e85b01",
    ),  # the hub has 674
    "aime24": TestSet(
        "HuggingFaceH4/aime_2024",
        (None,),
        "train",
        "problem",
        "answer",
        30,
        "none stated; MAA contest",
        "9aa992e5d3aeda35",
    ),
    "aime25": TestSet(
        "math-ai/aime25", (None,), "test", "problem", "answer", 30, "Apache-2.0; MAA contest"
    ),
    "amc23": TestSet(
        "math-ai/amc23",
        (None,),
        "test",
        "question",
        "answer",
        40,
        "none stated; MAA contest",
        "adb99e9bd549de20",
    ),
    "theoremqa": TestSet(
        "TIGER-Lab/TheoremQA",
        (None,),
        "test",
        _true_or_false,
        "Answer",
        800,
        "MIT",
        "262cd572cb5f404c",
        tolerance=0.01,
        question_column="Question",
    ),
    "mmlu_pro": TestSet(
        "TIGER-Lab/MMLU-Pro",
        (None,),
        "test",
        _options,
        "answer",
        12032,
        "MIT",
        "b0ef0b8f047743bc",
        choices=LETTERS,
        prompt_form=(prompts.MMLU_SYSTEM, prompts.MMLU_STOP),
        question_column="question",
    ),
    "gpqa": TestSet(
        "Idavidrein/gpqa",
        ("gpqa_diamond",),
        "train",
        _choices,
        "answer",
        198,
        "CC-BY-4.0, not to be posted",
        choices="ABCD",
        prompt_form=(prompts.SYSTEM, prompts.GPQA_STOP),
        private=True,
        prepare=_shuffle,
        question_column="Question",
    ),
}
TINY = {
    "tiny": slice(0, 1000),
    "tiny_validation": slice(1000, 1500),
}  # of the micro-world's questions that are never trained on
NAMES = (*TINY, *TEST_SETS)
HELDOUT = "heldout"  # a run's own questions, see best_checkpoint.py
PLAIN = TestSet(
    None, (), "", "question", "gold", 0, ""
)  # how questions of one's own, and the micro-world's, are asked


def get_test_set(name):
    """The table's row; InputError for a name that is not in it."""
    if name not in (*NAMES, HELDOUT):
        raise InputError(
            f"unknown benchmark {name!r}; the benchmarks are: --benchmarks {' '.join(NAMES)}"
        )
    return TEST_SETS.get(name, PLAIN)


def load_items(name, folder=None, revision=None, limit=None, seed=0):
    """-> list of {"id", "question", "gold"}, at most `limit`, in the test set's order. `question` is what the user's turn says.

    seed: of the micro-world and of the order of GPQA's options.
    """
    return [item for item, _ in _pairs(name, folder, revision, limit, seed)]


def load_questions(name, folder=None, revision=None, seed=0, limit=None):
    """-> list of {"id", "question"}, the ids of `items`: a benchmark's questions without options and what a prompt adds to them."""
    benchmark = get_test_set(name)
    return [
        {"id": item["id"], "question": record[benchmark.question_column or benchmark.question]}
        for item, record in _pairs(name, folder, revision, limit, seed)
    ]


def _pairs(name, folder, revision, limit, seed):
    """-> list of (item, the record it was made of)"""
    benchmark = get_test_set(name)
    if name == HELDOUT:
        raise InputError(
            "heldout is a set to choose checkpoints on, not to report: --selection heldout"
        )
    if name in TINY:
        records = world.test_items(seed, TINY[name].stop)[TINY[name]]
    else:
        records = (
            _local(name, benchmark, Path(folder))
            if folder and not benchmark.private
            else _hub(benchmark, revision)
        )
    pairs = [
        (_item(name, benchmark, record, number, seed), record)
        for number, record in enumerate(records, 1)
    ]
    if benchmark.subset_file:
        wanted = set((Path(__file__).parent / benchmark.subset_file).read_text().split())
        pairs = [
            (item, record) for item, record in pairs if content_id(item["question"])[:8] in wanted
        ]
    found = [item for item, _ in pairs]
    assign_ids(found)
    if name in TEST_SETS and limit is None:
        _compare(name, benchmark, found)
    return pairs[:limit]


def _item(name, benchmark, record, number, seed):
    try:
        record = benchmark.prepare(record, seed)
        question, gold = (
            benchmark.read(benchmark.question, record),
            benchmark.read(benchmark.gold, record),
        )
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        lacks = error if isinstance(error, KeyError) else "a usable answer"
        raise InputError(
            f"{name}, row {number} lacks {lacks}; it has {', '.join(record)}.\n"
            f"Expected the columns that its row in common/data/test_sets.py reads ({benchmark.path} on the hub)."
        ) from None
    if isinstance(gold, (int, float)) and not isinstance(gold, bool) and math.isfinite(gold):
        gold = str(gold)
    for what, text in (("question", question), ("gold", gold)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{name}, row {number} has no {what}.")
    if benchmark.prompt_form is MATH_FORM:  # as the released code writes a maths question
        question = question.strip() + (" (True or False)" if gold in ("True", "False") else "")
    if benchmark.choices and gold not in tuple(
        benchmark.choices[: sum(o != "N/A" for o in record["options"])]
    ):
        raise InputError(
            f"{name}, row {number}: its gold {gold[:20]!r} is none of its {len(record['options'])} options."
        )
    item = {"question": question, "gold": gold}
    return (
        item | {"options": sum(o != "N/A" for o in record["options"])}
        if benchmark.choices
        else item
    )


def assign_ids(found):
    """Gives each item its id. The id is the question's hash; of questions that occur twice (TheoremQA, MMLU-Pro) the later ones count on."""
    seen = Counter()
    for item in found:
        item["id"] = content_id(item["question"])
        seen[item["id"]] += 1
        if (n := seen[item["id"]]) > 1:
            item["id"] = content_id(item["question"], n - 1)


def compute_digest(found):
    """16 hex digits of all questions and golds, in whatever order."""
    return content_id(sorted([item["question"], item["gold"]] for item in found))[:16]


def _compare(name, benchmark, found):
    """A note where the set is not the one that the kit was checked with."""
    if len(found) != benchmark.items:
        print(f"note: {name} has {len(found)} items here, {benchmark.items} are usual")
    elif benchmark.digest and compute_digest(found) != benchmark.digest:
        print(
            f"note: {name} has other questions or golds than the copy the kit was checked with (digest {compute_digest(found)}, not "
            f"{benchmark.digest}): a changed revision? Scores stand beside others of this digest only."
        )


def _file(name, benchmark, folder):
    """A file of its own, or the larger set of which this one is a part."""
    path = folder / name / "test.jsonl"
    whole = folder / "math" / "test.jsonl"
    return whole if benchmark.subset_file and not path.is_file() and whole.is_file() else path


def is_local(name, folder):
    """Whether `folder` holds the benchmark; a private one is never read from there."""
    return (
        not get_test_set(name).private and _file(name, get_test_set(name), Path(folder)).is_file()
    )


def _local(name, benchmark, folder):
    path = _file(name, benchmark, folder)
    if not path.is_file():
        raise InputError(
            f"{path} is not there; --benchmarks-dir expects DIR/NAME/test.jsonl.\n"
            "Leave --benchmarks-dir out to read the benchmark from the hub."
        )
    return read_jsonl(path)


def _hub(benchmark, revision):
    import datasets

    try:  # a private set is streamed: not even a cache of it stays
        return [
            row
            for config in benchmark.configs
            for row in datasets.load_dataset(
                benchmark.path,
                config,
                split=benchmark.split,
                revision=revision,
                streaming=benchmark.private,
            )
        ]
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        hint = (
            "It is read from the hub only, never from a local file: check the connection, ask for access on its page, log in: hf auth login"
            if benchmark.private
            else "Check the connection, or give local files: --benchmarks-dir DIR (DIR/NAME/test.jsonl)"
        )
        raise InputError(
            f"{benchmark.path} could not be read from the hub ({type(error).__name__}: {str(error)[:200]})\n{hint}"
        ) from error


def parse_revisions(given, names):
    """["NAME=REVISION", ...] -> {name: revision}; one bare revision is that of the only benchmark from the hub. The set that checkpoints
    are chosen on may be named, too."""
    hub = [name for name in names if name in TEST_SETS]
    if len(given) == 1 and "=" not in given[0] and len(hub) == 1:
        return {hub[0]: given[0]}
    pairs = dict(text.partition("=")[::2] for text in given)
    if wrong := [
        text
        for text in given
        if text.partition("=")[0] not in (*hub, "math500", "math500_validation")
        or not text.partition("=")[2]
    ]:
        raise InputError(
            f"--revision {' '.join(wrong)}: expected NAME=REVISION for benchmarks of this run: {' '.join(hub) or 'none is from the hub'}"
        )
    return pairs


def describe(name, found, revision):
    """What a score's manifest says of its items."""
    return {
        "hub": get_test_set(name).path,
        "revision": revision,
        "items": len(found),
        "digest": compute_digest(found),
    }


def find_private(names):
    return [name for name in names if get_test_set(name).private]


def list_local_files(folder, names):
    """The files in `folder` (None: the hub) from which these test sets are read, for the manifest."""
    return [
        str(_file(name, get_test_set(name), Path(folder)))
        for name in names
        if folder and name in TEST_SETS and is_local(name, folder)
    ]
