"""The test sets as a table: where each is, what a model is asked, the gold, how it is graded.

A test set is read from the hub, or from `DIR/NAME/test.jsonl` in the hub's columns. To add one,
add a row to TEST_SETS.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from common import grading
from common.core import prompts
from common.core.config import parse_pairs
from common.core.errors import InputError
from common.core.files import content_id, read_jsonl
from common.data import readers
from common.tiny import world

LETTERS = "ABCDEFGHIJ"
MATH_FORM = (prompts.SOLVE_SYSTEM, prompts.STOP)  # the system line, strings that end an answer


@dataclass(frozen=True)
class TestSet:
    """A row of the table. The fields are in the order in which a reader wants to know them."""

    # Where it is on the hub: all configs are read, in this order.
    path: str = ""
    configs: tuple = (None,)
    split: str = "test"
    subset_file: str = ""  # beside this file: ids of its rows, the first 8 hex digits of each
    private: bool = False  # its authors ask not to post it: read from the hub only, never stored
    # How many items it has, and a digest of them (if a copy was at hand).
    items: int = 0
    digest: str = ""
    # Columns, and functions if the column alone is not what is needed.
    question: str = "question"
    gold: str = "answer"
    prepare: Callable | None = None  # (record, seed) -> record
    user_turn: Callable | None = None  # record -> what the model is asked
    parse_gold: Callable | None = None  # the gold's column -> gold
    # The prompt around the user's turn.
    prompt_form: tuple = MATH_FORM
    # How answers are graded.
    tolerance: float = 0  # relative, for golds that are measured numbers
    units: bool = True  # the paper's grader deletes unit words
    choices: str = ""  # the letters of the options
    license: str = ""


# --- columns of one set only --------------------------------------------------------------------


def _after_hashes(solution):
    """Return what follows the last #### of a GSM8K solution."""
    return solution.split("####")[-1].strip()


def _ask_true_or_false(record):
    """Ask a TheoremQA question as the paper does. As for all maths, " (True or False)" follows."""
    if record["Answer"] in ("True", "False"):
        return record["Question"] + " Answer with \\boxed{True} or \\boxed{False}."
    return record["Question"]


def _options(record):
    return [option for option in record["options"] if option != "N/A"]


def _ask_mmlu_pro(record):
    lines = [f"{letter}. {option}\n" for letter, option in zip(LETTERS, _options(record))]
    return (
        f"Question:\n{record['question']}\nOptions:\n{''.join(lines)}"
        "Answer: Let's think step by step.\n"
    )


def _shuffle_options(record, seed):
    """Shuffle GPQA's options, of which the right one comes first.

    # Differs from the paper: its code shuffles without a seed.
    """
    columns = ["Correct Answer"] + [f"Incorrect Answer {number}" for number in (1, 2, 3)]
    options = [record[column].strip() for column in columns]
    order = random.Random(f"gpqa {seed} {record['Question']}").sample(range(4), 4)
    shuffled = [options[i] for i in order]
    return record | {"options": shuffled, "answer": LETTERS[order.index(0)]}


def _ask_gpqa(record):
    options = [f"({letter}) {option}" for letter, option in zip(LETTERS, record["options"])]
    return f"{record['Question']}\nAnswer Choices: {' '.join(options)}"


# --- the table ----------------------------------------------------------------------------------

MATH_CONFIGS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
MATH = TestSet(
    path="EleutherAI/hendrycks_math",
    configs=MATH_CONFIGS,
    items=5000,
    digest="fc887a210a8ac71b",
    question="problem",
    gold="solution",
    parse_gold=grading.extract_answer,
    license="MIT",
)
TEST_SETS = {
    "gsm8k": TestSet(
        path="openai/gsm8k",
        configs=("main",),
        items=1319,
        digest="d543867faeb640a8",
        parse_gold=_after_hashes,
        license="MIT",
    ),
    "math": MATH,
    "math500": TestSet(
        path="HuggingFaceH4/MATH-500",
        items=500,
        digest="fc384bd783773c9e",
        question="problem",
        license="MIT",
    ),
    "math500_validation": replace(
        MATH,
        subset_file="math500_validation.txt",
        items=500,
        digest="b3ed84b2e84b25da",
    ),
    # Golds of Minerva and TheoremQA are rounded measurements; 1 % is what Minerva's authors allow.
    "minerva_math": TestSet(
        path="math-ai/minervamath",
        items=272,
        digest="cf13cd19954e15fd",
        tolerance=0.01,
        units=False,
        license="none stated; MIT OpenCourseWare",
    ),
    "olympiadbench": TestSet(
        path="Hothan/OlympiadBench",
        configs=("OE_TO_maths_en_COMP",),
        split="train",
        items=675,  # the hub has 674
        digest="be27d338f6e85b01",
        gold="final_answer",
        parse_gold=lambda answers: answers[0],
        license="Apache-2.0",
    ),
    "aime24": TestSet(
        path="HuggingFaceH4/aime_2024",
        split="train",
        items=30,
        digest="9aa992e5d3aeda35",
        question="problem",
        license="none stated; MAA contest",
    ),
    "aime25": TestSet(
        path="math-ai/aime25",
        items=30,
        question="problem",
        license="Apache-2.0; MAA contest",
    ),
    "amc23": TestSet(
        path="math-ai/amc23",
        items=40,
        digest="adb99e9bd549de20",
        license="none stated; MAA contest",
    ),
    "theoremqa": TestSet(
        path="TIGER-Lab/TheoremQA",
        items=800,
        digest="262cd572cb5f404c",
        question="Question",
        gold="Answer",
        user_turn=_ask_true_or_false,
        tolerance=0.01,
        license="MIT",
    ),
    "mmlu_pro": TestSet(
        path="TIGER-Lab/MMLU-Pro",
        items=12032,
        digest="b0ef0b8f047743bc",
        user_turn=_ask_mmlu_pro,
        prompt_form=(prompts.MMLU_SYSTEM, prompts.MMLU_STOP),
        choices=LETTERS,
        license="MIT",
    ),
    "gpqa": TestSet(
        path="Idavidrein/gpqa",
        configs=("gpqa_diamond",),
        split="train",
        private=True,
        items=198,
        question="Question",
        prepare=_shuffle_options,
        user_turn=_ask_gpqa,
        prompt_form=(prompts.SYSTEM, prompts.GPQA_STOP),
        choices="ABCD",
        license="CC-BY-4.0, not to be posted",
    ),
}
# Parts of the micro-world's questions that are never trained on.
TINY = {"tiny": slice(0, 1000), "tiny_validation": slice(1000, 1500)}
NAMES = (*TINY, *TEST_SETS)
VALIDATION = ("math500", "math500_validation")  # sets to choose checkpoints on
HELDOUT = "heldout"  # a run's own questions, see evaluate/checkpoint_selection.py
PLAIN = TestSet(gold="gold")  # of the micro-world, and of a run's own questions


def get_test_set(name: str) -> TestSet:
    """Return the table's row; raise InputError if there is none."""
    if name not in (*NAMES, HELDOUT):
        raise InputError(
            f"unknown benchmark {name!r}; the benchmarks are: --benchmarks {' '.join(NAMES)}"
        )
    return TEST_SETS.get(name, PLAIN)


def find_private(names: Iterable[str]) -> list[str]:
    """Return those of the test sets that may not be posted."""
    return [name for name in names if get_test_set(name).private]


# --- reading ------------------------------------------------------------------------------------


def load_items(
    name: str,
    folder: str | Path | None = None,
    revision: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[dict]:
    """Return a test set's items, at most `limit`, in its order: id, question, stem, gold.

    question: what the user's turn says. stem: the question alone, without options or what else
    the prompt adds to it. options: how many, if the set has some.
    folder: read it from folder/NAME/test.jsonl, not from the hub. seed: of the micro-world, and of
    the order of GPQA's options.
    """
    test_set = get_test_set(name)
    if name == HELDOUT:
        raise InputError("heldout is a set to choose checkpoints on: --selection heldout")
    if name in TINY:
        records = world.test_items(seed, TINY[name].stop)[TINY[name]]
    elif folder and not test_set.private:
        path = local_path(name, folder)
        if not path:
            raise InputError(
                f"{folder}/{name}/test.jsonl does not exist.\n"
                "Leave --benchmarks-dir out to read the benchmark from the hub."
            )
        records = read_jsonl(path)
    else:
        records = _read_hub(test_set, revision)
    items = []
    for number, record in enumerate(records, 1):
        items.append(_make_item(f"{name}, row {number}", test_set, record, seed))
    assign_ids(items)
    if test_set.subset_file:
        subset = set((Path(__file__).parent / test_set.subset_file).read_text().split())
        items = [item for item in items if item["id"][:8] in subset]
    if name in TEST_SETS and limit is None:
        _print_differences(name, items)
    return items[:limit]


def _make_item(place, test_set, record, seed):
    try:
        if test_set.prepare:
            record = test_set.prepare(record, seed)
        stem, gold = record[test_set.question], record[test_set.gold]
        question = test_set.user_turn(record) if test_set.user_turn else stem
        if test_set.parse_gold:
            gold = test_set.parse_gold(gold)
        n_options = len(_options(record)) if test_set.choices else 0
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        missing = error if isinstance(error, KeyError) else "a usable answer"
        raise InputError(
            f"{place} lacks {missing}; it has {', '.join(record)}.\n"
            f"Expected the columns of {test_set.path} on the hub (common/data/test_sets.py)."
        ) from None
    if type(gold) in (int, float) and math.isfinite(gold):
        gold = str(gold)
    for field, text in (("question", stem), ("gold", gold)):
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{place} has no {field}.")
    item = {"question": question, "stem": stem, "gold": gold}
    if test_set.choices:
        if gold not in list(test_set.choices[:n_options]):
            raise InputError(f"{place}: its gold {gold!r} is not one of its {n_options} options.")
        return item | {"options": n_options}
    # As the released code writes a maths question.
    item["question"] = question.strip()
    if gold in ("True", "False"):
        item["question"] += " (True or False)"
    return item


def assign_ids(items: list[dict]) -> None:
    """Give each item its "id": the hash of its question.

    If a question occurs twice (TheoremQA, MMLU-Pro), its place among its equals is hashed, too.
    """
    counts = Counter()
    for item in items:
        question_id = content_id(item["question"])
        n_before = counts[question_id]
        counts[question_id] += 1
        item["id"] = content_id(item["question"], n_before) if n_before else question_id


def compute_digest(items: list[dict]) -> str:
    """Return 16 hex digits of all questions and golds, whatever their order."""
    return content_id(sorted([item["question"], item["gold"]] for item in items))[:16]


def _print_differences(name, items):
    """Print a note if the set is not the one that the kit was checked with."""
    test_set, digest = TEST_SETS[name], compute_digest(items)
    if len(items) != test_set.items or digest != (test_set.digest or digest):
        print(
            f"note: {name} is not as usual: {len(items)} items (usual: {test_set.items}), digest "
            f"{digest} (usual: {test_set.digest}). Compare scores only with others of this digest."
        )


def local_path(name: str, folder: str | Path) -> Path | None:
    """Return the file of a test set in `folder`, None if there is none.

    A private set is never read from there. A part of MATH is cut out of MATH's file.
    """
    if TEST_SETS[name].private:
        return None
    paths = [Path(folder) / name / "test.jsonl"]
    if TEST_SETS[name].subset_file:
        paths.append(Path(folder) / "math" / "test.jsonl")
    paths = [path for path in paths if path.is_file()]
    return paths[0] if paths else None


def _read_hub(test_set, revision):
    records = []
    for config in test_set.configs:
        # A private set is streamed: not even a cache of it remains.
        records += readers.read_hub(
            test_set.path, config, test_set.split, revision, test_set.private
        )
    return records


def parse_revisions(texts: list[str], names: Iterable[str]) -> dict[str, str]:
    """Return {"math": "abc"} for ["math=abc"].

    Raises InputError for a name that is neither among `names` nor a set to choose checkpoints on.
    """
    hub_names = [name for name in (*names, *VALIDATION) if name in TEST_SETS]
    return parse_pairs(texts, "--revision", hub_names)


# --- for manifests ------------------------------------------------------------------------------


def describe(name: str, items: list[dict], revision: str | None) -> dict:
    """Return what a score's manifest says of its items."""
    return {
        "hub": get_test_set(name).path or None,
        "revision": revision,
        "items": len(items),
        "digest": compute_digest(items),
    }


def list_local_files(folder: str | Path | None, names: Iterable[str]) -> list[str]:
    """Return the files in `folder` (None: the hub) from which these test sets are read."""
    if folder is None:
        return []
    paths = [local_path(name, folder) for name in names if name in TEST_SETS]
    return [str(path) for path in paths if path]
