"""The test sets as a table: where each is, what a model is asked, the gold, how it is graded.

A test set is read from the hub, or from `DIR/NAME/test.jsonl` in the hub's columns. To add one,
add a row to TEST_SETS; a file of your own needs none (`add_own_sets`).
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import grading
from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id, read_jsonl
from common.core.manifests import file_label
from common.core.tables import count
from common.data import readers
from common.ifeval.grading import pack_instructions
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
    part_of: str = ""  # the set it is cut out of, by the ids (8 hex digits) in NAME.txt
    private: bool = False  # its authors ask not to post it: read from the hub only, never shown
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
    instructions: bool = False  # the gold is a list of them, which common/ifeval checks


# --- columns of one set only --------------------------------------------------------------------


def _after_hashes(solution):
    """Return what follows the last #### of a GSM8K solution."""
    return solution.split("####")[-1].strip()


def _ask_true_or_false(record):
    """Ask a TheoremQA question as the paper does. As for all maths, " (True or False)" follows."""
    if record["Answer"] in ("True", "False"):
        return record["Question"] + " Answer with \\boxed{True} or \\boxed{False}."
    return record["Question"]


def _ask_mmlu_pro(record):
    options = [option for option in record["options"] if option != "N/A"]
    lines = [f"{letter}. {option}\n" for letter, option in zip(LETTERS, options)]
    return (
        f"Question:\n{record['question']}\nOptions:\n{''.join(lines)}"
        "Answer: Let's think step by step.\n"
    )


def _shuffle_options(record, seed):
    """Shuffle GPQA's options; in its record the right one comes first.

    # Differs from the paper: its code shuffles without a seed.
    """
    columns = ["Correct Answer"] + [f"Incorrect Answer {number}" for number in (1, 2, 3)]
    options = [record[column].strip() for column in columns]
    order = random.Random(f"gpqa {seed} {record['Question']}").sample(range(4), 4)
    shuffled = [options[i] for i in order]
    return record | {"options": shuffled, "answer": LETTERS[order.index(0)]}


def _ask_gpqa(record):
    return _list_choices(record["Question"], record["options"])


def _list_choices(question, options):
    lettered = [f"({letter}) {option}" for letter, option in zip(LETTERS, options)]
    return f"{question}\nAnswer Choices: {' '.join(lettered)}"


def _ask_own_choices(record):
    """Return the question of an own set and its choices: a list, in a CSV file written as JSON."""
    options = record["choices"]
    if isinstance(options, str):
        options = json.loads(options)
    letters = LETTERS[: len(options)]
    if not isinstance(options, list) or record["gold"] not in tuple(letters):
        raise ValueError(f"choices {options!r}: expected a list, and as gold one of {letters}")
    return _list_choices(record["question"], options)


# --- the table ----------------------------------------------------------------------------------

MATH_CONFIGS = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra")
MATH_CONFIGS += ("number_theory", "prealgebra", "precalculus")
MATH = TestSet(  # license: MIT
    "EleutherAI/hendrycks_math",
    configs=MATH_CONFIGS,
    items=5000,
    digest="fc887a210a8ac71b",
    question="problem",
    gold="solution",
    parse_gold=grading.extract_answer,
)
TEST_SETS = {
    "gsm8k": TestSet(  # license: MIT
        "openai/gsm8k",
        configs=("main",),
        items=1319,
        digest="d543867faeb640a8",
        parse_gold=_after_hashes,
    ),
    "math": MATH,
    "math500": TestSet(  # license: MIT
        "HuggingFaceH4/MATH-500", items=500, digest="fc384bd783773c9e", question="problem"
    ),
    "math500_validation": replace(MATH, part_of="math", items=500, digest="b3ed84b2e84b25da"),
    # Golds of Minerva and TheoremQA are rounded measurements; 1 % is what Minerva's authors allow.
    "minerva_math": TestSet(  # license: none stated; MIT OpenCourseWare
        "math-ai/minervamath", items=272, digest="cf13cd19954e15fd", tolerance=0.01, units=False
    ),
    "olympiadbench": TestSet(  # license: Apache-2.0
        "Hothan/OlympiadBench",
        configs=("OE_TO_maths_en_COMP",),
        split="train",
        items=675,  # the hub has 674
        digest="be27d338f6e85b01",
        gold="final_answer",
        parse_gold=lambda answers: answers[0],
    ),
    "aime24": TestSet(  # license: none stated; MAA contest
        "HuggingFaceH4/aime_2024",
        split="train",
        items=30,
        digest="9aa992e5d3aeda35",
        question="problem",
    ),
    "aime25": TestSet(  # license: Apache-2.0; MAA contest
        "math-ai/aime25", items=30, question="problem"
    ),
    "amc23": TestSet(  # license: none stated; MAA contest
        "math-ai/amc23", items=40, digest="adb99e9bd549de20"
    ),
    "theoremqa": TestSet(  # license: MIT
        "TIGER-Lab/TheoremQA",
        items=800,
        digest="262cd572cb5f404c",
        question="Question",
        gold="Answer",
        user_turn=_ask_true_or_false,
        tolerance=0.01,
    ),
    "mmlu_pro": TestSet(  # license: MIT
        "TIGER-Lab/MMLU-Pro",
        items=12032,
        digest="b0ef0b8f047743bc",
        user_turn=_ask_mmlu_pro,
        prompt_form=(prompts.MMLU_SYSTEM, prompts.MMLU_STOP),
        choices=LETTERS,
    ),
    "gpqa": TestSet(  # license: CC-BY-4.0, not to be posted
        "Idavidrein/gpqa",
        configs=("gpqa_diamond",),
        split="train",
        private=True,
        items=198,
        question="Question",
        prepare=_shuffle_options,
        user_turn=_ask_gpqa,
        prompt_form=(prompts.SYSTEM, prompts.GPQA_STOP),
        choices="ABCD",
    ),
    "ifeval": TestSet(  # license: Apache-2.0
        "google/IFEval",
        split="train",
        items=541,
        digest="c410fb407968eba5",
        question="prompt",
        gold="instructions",
        prepare=pack_instructions,
        prompt_form=("", []),  # see evaluate/instruction_following.py
        instructions=True,
    ),
}
# Parts of the micro-world's questions that are never trained on.
TINY = {"tiny": slice(0, 1000), "tiny_validation": slice(1000, 1500)}
NAMES = (*TINY, *TEST_SETS)
HELDOUT = "heldout"  # a run's own questions, see evaluate/checkpoint_selection.py
PLAIN = TestSet(gold="gold")  # of the micro-world, and of a run's own questions
OWN_SETS: dict[str, TestSet] = {}  # the user's, by add_own_sets


def get_test_set(name: str) -> TestSet:
    """Return the table's row."""
    return TEST_SETS.get(name) or OWN_SETS.get(name, PLAIN)


def add_own_sets(benchmarks: list, tolerance: float = 0.0) -> list:
    """Return the names of --benchmarks; NAME=FILE of them is made a test set of that name.

    The file has question and gold, and choices if the gold is a letter. tolerance: see TestSet.
    """
    names = []
    for benchmark in benchmarks:
        name, _, path = benchmark.partition("=")
        names.append(name)
        if not path:
            continue
        is_known = name in (*NAMES, HELDOUT, "AVG") or name in names[:-1]
        if is_known or name != file_label(name) or not path.endswith(readers.READABLE):
            raise InputError(
                f"--benchmarks {benchmark!r} is no NAME=FILE: a NAME of letters, digits and '-' "
                f"that no other test set has, and a file {' '.join(readers.READABLE)}"
            )
        form: dict[str, Any] = {}
        if any(record.get("choices") for record in readers.read_records(path)):
            form = dict(choices=LETTERS, user_turn=_ask_own_choices)
        OWN_SETS[name] = TestSet(path, gold="gold", tolerance=tolerance, **form)
    return names


# --- reading ------------------------------------------------------------------------------------


def load_items(name: str, folder=None, limit=None, seed=0) -> list:
    """Return a test set's items, a sample of `limit` of them, in its order.

    An item has id, question, stem and gold.

    question: what the user's turn says. stem: the question alone, without options or what else
    the prompt adds to it.
    folder: read it from folder/NAME/test.jsonl, not from the hub. seed: of the sample, of the
    micro-world, and of the order of GPQA's options.
    """
    if name not in (*NAMES, *OWN_SETS):
        raise InputError(
            f"unknown benchmark {name!r}; the benchmarks are: --benchmarks {' '.join(NAMES)}\n"
            "One of your own: --benchmarks NAME=FILE.jsonl (fields: question, gold)"
        )
    test_set = get_test_set(name)
    if name in TINY:
        records = world.test_items(seed, TINY[name].stop)[TINY[name]]
    elif folder and name in TEST_SETS and not test_set.private:
        records = read_jsonl(local_path(name, folder))
    else:
        records = _read_hub(test_set)
    items = []
    for number, record in enumerate(records, 1):
        items.append(_make_item(f"{name}, row {number}", test_set, record, seed))
    assign_ids(items)
    if test_set.part_of:
        subset = set(Path(__file__).with_name(f"{name}.txt").read_text().split())
        items = [item for item in items if item["id"][:8] in subset]
    digest = compute_digest(items)
    if name not in TEST_SETS and not items:
        raise InputError(f"{name} has no questions.\nExpected a file with an item in each line.")
    if name in TEST_SETS and digest != test_set.digest:
        expected = f"{count(test_set.items, 'item')} {test_set.digest or 'of any digest'}"
        print(f"note: {name} has {count(len(items), 'item')} {digest}; the kit expects {expected}")
    return sample_items(items, limit, seed)


def sample_items(items: list, limit: int | None, seed: int) -> list:
    """Return a random sample of `limit` items in the set's order, all of them without a limit.

    The first ones would be no fair share: the first 1,000 of MATH are all algebra.
    """
    sample, _ = readers.sample_records(items, limit or len(items), seed)
    return [item for _, item in sample]


def _read_hub(test_set):
    """Return the records; a private set is streamed, so that not even a cache of it remains."""
    records = []
    for config in test_set.configs:
        records += readers.read_records(
            test_set.path, config, test_set.split, streaming=test_set.private
        )
    return records


def _make_item(place, test_set, record, seed):
    try:
        if test_set.prepare:
            record = test_set.prepare(record, seed)
        stem, gold = record[test_set.question], record[test_set.gold]
        question = test_set.user_turn(record) if test_set.user_turn else stem
        if test_set.parse_gold:
            gold = test_set.parse_gold(gold)
        if type(gold) in (int, float):
            gold = str(gold)
        if not stem.strip() or not gold.strip():
            raise ValueError(f"question {stem!r}, gold {gold!r}")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{place} has no usable question and gold ({error!r}); it has {', '.join(record)}.\n"
            f"Expected the columns of {test_set.path} (common/data/test_sets.py). A file of your "
            "own has question and gold; and choices, a list, if the gold is the letter of one."
        ) from None
    if (
        not test_set.choices and not test_set.instructions
    ):  # as the released code writes a maths question
        question = question.strip()
        if gold in ("True", "False"):
            question += " (True or False)"
    return {"question": question, "stem": stem, "gold": gold}


def assign_ids(items: list) -> None:
    """Give each item its "id": the hash of its question.

    If a question occurs twice (TheoremQA, MMLU-Pro), its place among its equals is hashed, too.
    """
    counts = Counter()
    for item in items:
        item["id"] = question_id = content_id(item["question"])
        if counts[question_id]:
            item["id"] = content_id(item["question"], counts[question_id])
        counts[question_id] += 1


def compute_digest(items: list) -> str:
    """Return 16 hex digits of all questions and golds, whatever their order."""
    return content_id(sorted([item["question"], item["gold"]] for item in items))[:16]


# --- a folder of test sets ----------------------------------------------------------------------


def local_path(name: str, folder) -> Path:
    """Return the file of a test set in `folder`: DIR/NAME/test.jsonl, of a part its whole's."""
    return Path(folder, get_test_set(name).part_of or name, "test.jsonl")


def list_public(folder=None) -> list:
    """Return the names of the test sets in `folder` (None: on the hub) that are not private."""
    names = []
    for name, test_set in TEST_SETS.items():
        if not test_set.private and (folder is None or local_path(name, folder).is_file()):
            names.append(name)
    return names


def list_local_files(folder, names) -> list:
    """Return the local files, in `folder` (None: the hub) or named, that these sets are read from.

    names: as add_own_sets returns them, or --decontaminate without "all".
    """
    files = [Path(name) for name in names if name.endswith(".jsonl")]
    files += [Path(OWN_SETS[name].path) for name in names if name in OWN_SETS]
    for name in names if folder else []:
        path = local_path(name, folder)
        if path.is_file() and not get_test_set(name).private:
            files.append(path)
    return files
