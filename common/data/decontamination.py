"""Which training questions are in a test set, literally or nearly, so that 03 can leave them out.

The rule, on a question's tokens (its lower-case [a-z0-9]+ words): contaminated if the two token
lists are equal, or if they share a 10-gram and their ratio (near_duplicates.py) is at least 0.6.
At 0.5 to 0.6 the pair is listed for a look. A shared 10-gram alone flags contest boilerplate.

The ratio is that of tokens: of characters, different questions of one kind pass 0.6. Operators are
no tokens: x + 3 and x - 3 are the same to it.
A text with options (what follows the first "A." of "A.", "B.", "C.", also "(A)" or "A:") is
compared with and without them, and the nearest pair counts: an MMLU question has other options in
MMLU-Pro, and in another spelling, "(a)", options are not told from the question.
A text without a letter a-z and without a digit matches nothing.
"""

import re
from collections import defaultdict
from pathlib import Path

from common.core.errors import InputError
from common.core.files import read_jsonl
from common.core.tables import count
from common.data import near_duplicates, sources, test_sets

REMOVE = 0.6  # from near_duplicates.LOOK on a pair is listed
OPTION = re.compile(
    r"(?:\s(?i:answer choices|choices|options)\s?:)?"
    r"(?:\s|\$?\\[a-z]+\s?\{)\(?([A-J])[.):](?=[\s}\\])"
)


def load_test_sets(names: list, folder=None, seed=0) -> dict:
    """Return {test set: its items}; only their "id" and "stem" are used here.

    names: of common/data/test_sets.py; "all" of them (if there is a `folder`, those in it, else
    those that need no login); or paths of .jsonl files with a column "question".
    seed: of GPQA's ids. Raises InputError for an unknown name, and for what cannot be read.
    """
    if "all" in names:
        names = [*test_sets.list_public(folder), *_list_critic_sets(folder), *names]
    tests = {}
    for name in names:
        if name in test_sets.TEST_SETS:
            tests[name] = test_sets.load_items(name, folder, seed=seed)
        elif name in sources.TEST_SOURCES:
            tests[name] = _make_items(sources.read_questions(name, folder))
        elif name.endswith(".jsonl"):
            tests[name] = _make_items(
                row["question"] for row in read_jsonl(Path(name), ["question"])
            )
        elif name != "all":
            raise InputError(
                f"--decontaminate {name}: expected all, a .jsonl file, or of: "
                f"{' '.join([*test_sets.TEST_SETS, *sources.TEST_SOURCES])}\n"
                "(The micro-world never trains on a question that it tests.)"
            )
    return tests


def _list_critic_sets(folder):
    """Return the names of the test sets of critics in the folder (None: on the hub)."""
    if folder is None:
        return [name for name in sources.TEST_SOURCES if sources.is_on_hub(name)]
    return [name for name in sources.TEST_SOURCES if test_sets.local_path(name, folder).is_file()]


def _make_items(questions):
    items = [{"question": question, "stem": question} for question in questions]
    test_sets.assign_ids(items)
    return items


def tokenize_variants(question: str) -> list:
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


def find_matches(questions: dict, tests: dict) -> list:
    """Return all pairs that are equal, or share a 10-gram and have a ratio of at least 0.5.

    questions: {question_id: text}. tests: as `load_test_sets` returns them.
    A pair: question_id, question, benchmark, item (its id), item_question, ratio (1.0 if equal),
    how ("exact" or "10-gram"), removed (ratio >= 0.6). In the order of the questions, the best
    first. Of a private benchmark both texts are None: they are its question, or nearly.
    """
    items, texts = [], []  # a text: (place in items, tokens)
    for name, test_items in tests.items():
        for item in test_items:
            for tokens in tokenize_variants(item["stem"]):
                texts.append((len(items), tokens))
            items.append((name, item))
    index = near_duplicates.Index(texts)
    pairs = []
    for question_id, question in questions.items():
        ratios = index.find(tokenize_variants(question))
        for place in sorted(ratios, key=lambda place: -ratios[place]):
            name, item = items[place]
            pairs.append(_describe_pair(question_id, question, name, item, ratios[place]))
    return pairs


def _describe_pair(question_id, question, benchmark, item, ratio):
    private = test_sets.get_test_set(benchmark).private
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


def describe_matches(matches: list) -> list:
    """Return a line for each test set that was hit. "Borderline" questions are not removed."""
    removed = defaultdict(dict)  # test set -> {question_id: whether its best match removes it}
    for match in matches:
        removed[match["benchmark"]].setdefault(match["question_id"], match["removed"])
    lines = []
    for name, questions in removed.items():
        n, n_listed = sum(questions.values()), len(questions)
        lines.append(f"{name}: {count(n, 'question')} removed, {n_listed - n:,} borderline kept")
    return lines


def normalize_question(question: str) -> str:
    """Return a question in lower case without white space, operators kept.

    Two questions are the same word for word if these are equal.
    """
    return "".join(question.lower().split())


def report_overlap(trained: dict, tests: dict) -> list:
    """Return lines that say how many items of each test set a training set holds word for word.

    trained: {training set: its questions by `normalize_question`}. tests: {benchmark: items}.
    """
    lines = []
    for benchmark, items in tests.items():
        for name, questions in trained.items():
            n = sum(normalize_question(item["stem"]) in questions for item in items)
            if n:
                lines.append(
                    f"{name} was trained on {n:,} of the {len(items):,} questions of {benchmark}, "
                    f"word for word (03_build.py --decontaminate {benchmark} leaves them out)"
                )
    return lines
