"""Which training questions are in a test set, literally or nearly, so that 03 can leave them out.

The rule, on a question's tokens (its lower-case [a-z0-9]+ words): contaminated if the two token
lists are equal, or if they share a 10-gram and their ratio (near_duplicates.py) is at least 0.6.
At 0.5 to 0.6 the pair is listed for a look. A shared 10-gram alone flags contest boilerplate.

The ratio is that of tokens: of characters, different questions of one kind pass 0.6. Operators are
no tokens: x + 3 and x - 3 are the same to it.
A text with options (what follows the first "A." of "A.", "B.", "C.", also "(A)" or "A:") is
compared with and without them, and the nearest pair counts: an MMLU question has other options in
MMLU-Pro, and in another spelling, "(a)", options are not told from the question.
"""

import re
from pathlib import Path

from common.core.errors import InputError
from common.core.files import read_jsonl
from common.data import near_duplicates, test_sets

REMOVE = 0.6  # from near_duplicates.LOOK on a pair is listed
OPTION = re.compile(
    r"(?:\s(?i:answer choices|choices|options)\s?:)?"
    r"(?:\s|\$?\\[a-z]+\s?\{)\(?([A-J])[.):](?=[\s}\\])"
)


# --- what is compared ---------------------------------------------------------------------------


def load_test_sets(names: list[str], folder=None, seed: int = 0) -> dict[str, list[dict]]:
    """Return {test set: its items}, of which "id" and "stem" are used here.

    names: of common/data/test_sets.py; "all" of them (if there is a `folder`, those in it, else
    those that need no login; a note says which are left out); or paths of .jsonl files with a
    column "question". Such a set is called like its file. seed: of GPQA's ids.
    Raises InputError for an unknown name, and for what cannot be read.
    """
    tests = {}
    for name in dict.fromkeys(_expand_all(names, folder)):
        title = Path(name).stem
        if title in tests:
            raise InputError(f"{name}: there is a test set {title} already; rename the file.")
        if name in test_sets.TEST_SETS:
            tests[title] = test_sets.load_items(name, folder, seed=seed)
        elif name.endswith(".jsonl"):
            items = [{"question": row["question"]} for row in read_jsonl(Path(name), ["question"])]
            test_sets.assign_ids(items)
            tests[title] = [item | {"stem": item["question"]} for item in items]
        else:
            raise InputError(
                f"--decontaminate {name}: expected all, a .jsonl file, or of: "
                f"{' '.join(test_sets.TEST_SETS)}\n"
                "(The micro-world never trains on a question that it tests.)"
            )
    return tests


def _expand_all(names, folder):
    if "all" not in names:
        return names
    present, missing = [], []
    for name, test_set in test_sets.TEST_SETS.items():
        is_there = test_sets.local_path(name, folder) if folder else not test_set.private
        (present if is_there else missing).append(name)
    if missing:
        reason = f"not in {folder}" if folder else "it needs a login (name it)"
        print(f"note: not checked, since {reason}: {' '.join(missing)}")
    return [*present, *(name for name in names if name != "all")]


def list_local_files(names: list[str], folder, tests: dict) -> list[str]:
    """Return the files that `load_test_sets(names, folder)` read. tests: what it returned."""
    files = [name for name in names if name.endswith(".jsonl")]
    return files + test_sets.list_local_files(folder, tests)


def tokenize_variants(question: str) -> list[list[str]]:
    """Return the tokens without options and, if there are some, also with them.

    Without options a bare "Which of the following is true?" equals every other one. Of 29 MMLU
    questions with stems of under ten tokens that were found in MMLU-Pro 24 are the same question,
    and rather some too many are left out than too few.

    >>> tokenize_variants("What is $2^{10}$?\\nA: 1,024\\nB: 20\\nC: 210")
    [['what', 'is', '2', '10'], ['what', 'is', '2', '10', 'a', '1', '024', 'b', '20', 'c', '210']]
    """
    marks = list(OPTION.finditer(question))
    letters = "".join(mark[1] for mark in marks)
    texts = [question]
    if "ABC" in letters:
        stem = question[: marks[letters.find("ABC")].start()]
        texts = [stem, question]
    token_lists = [re.findall("[a-z0-9]+", text.lower()) for text in texts]
    return [tokens for tokens in token_lists if tokens]


# --- the comparison -----------------------------------------------------------------------------


def find_matches(questions: dict[str, str], tests: dict[str, list[dict]]) -> list[dict]:
    """Return all pairs that are equal, or share a 10-gram and have a ratio of at least 0.5.

    questions: {question_id: text}. tests: as `load_test_sets` returns them.
    A pair: question_id, question, benchmark, item (its id), item_question, ratio (1.0 if equal),
    how ("exact" or "10-gram"), removed (ratio >= 0.6). In the order of the questions, the best
    first. Of a private benchmark both texts are None: they are its question, or nearly.
    A question, or an item, without a token matches nothing.
    """
    items, owners, texts = [], [], []  # texts[i] is a variant of the question of items[owners[i]]
    for name, test_items in tests.items():
        for item in test_items:
            variants = tokenize_variants(item["stem"])
            owners += [len(items)] * len(variants)
            texts += variants
            items.append((name, item))
    index = near_duplicates.Index(texts)
    pairs, n_without_token = [], 0
    for question_id, question in questions.items():
        variants = tokenize_variants(question)
        n_without_token += not variants
        ratios = {}  # {number of the item: its best ratio}
        for tokens in variants:
            for i, ratio in index.find(tokens).items():
                ratios[owners[i]] = max(ratio, ratios.get(owners[i], 0.0))
        for i in sorted(ratios, key=lambda i: -ratios[i]):
            name, item = items[i]
            pairs.append(_describe_pair(question_id, question, name, item, ratios[i]))
    if n_without_token:
        print(f"note: {n_without_token} questions have no letter a-z and no digit: not checked")
    return pairs


def _describe_pair(question_id, question, benchmark, item, ratio):
    private = benchmark in test_sets.TEST_SETS and test_sets.get_test_set(benchmark).private
    return {
        "question_id": question_id,
        "question": None if private else question,
        "benchmark": benchmark,
        "item": item["id"],
        "item_question": None if private else item["stem"],
        "ratio": ratio,
        "how": "exact" if ratio == 1.0 else "10-gram",
        "removed": ratio >= REMOVE,
    }


# --- what is reported ---------------------------------------------------------------------------


def describe_matches(matches: list[dict], tests: dict[str, list[dict]]) -> list[str]:
    """Return a line for each test set that was hit. "Borderline" questions are not removed."""
    lines = []
    for name, items in tests.items():
        pairs = [match for match in matches if match["benchmark"] == name]
        removed_pairs = [pair for pair in pairs if pair["removed"]]
        n_items = len({pair["item"] for pair in removed_pairs})
        n_removed = len({pair["question_id"] for pair in removed_pairs})
        n_borderline = len({pair["question_id"] for pair in pairs}) - n_removed
        if pairs:
            lines.append(
                f"{name}: {n_removed:,} questions removed, which match {n_items:,} of its "
                f"{len(items):,} items; {n_borderline:,} borderline ones kept"
            )
    return lines


def normalize_question(question: str) -> str:
    """Return a question in lower case without white space, operators kept.

    Two questions are the same word for word if these are equal.
    """
    return "".join(question.lower().split())


def report_overlap(trained: dict[str, set], tests: dict[str, list[dict]]) -> list[str]:
    """Return lines that say how many items of each test set a training set holds word for word.

    trained: {training set: its questions by `normalize_question`}. tests: {benchmark: items}.
    """
    lines = []
    for benchmark, items in tests.items():
        counts = []
        for name, questions in trained.items():
            n_hits = count_overlap(questions or set(), items)
            if n_hits:
                counts.append(f"{name} {n_hits:,}")
        if counts:
            lines.append(
                f"{benchmark}: of its {len(items):,} questions so many are in the training sets "
                f"word for word: {', '.join(counts)} "
                f"(03_build.py --decontaminate {benchmark} leaves them out)"
            )
    return lines


def count_overlap(questions: set, items: list[dict]) -> int:
    """Return how many items' stems are among `normalize_question` questions."""
    return sum(normalize_question(item["stem"]) in questions for item in items)
