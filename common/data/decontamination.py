"""Which training questions stand in a test set, literally or nearly, so that 03 can leave them out.

The rule, on a question's tokens, its lower-case [a-z0-9]+ words: contaminated where the two token lists are equal, or where they share a
10-gram and difflib's ratio is at least 0.6; at 0.5 to 0.6 the pair is listed for a look. A shared 10-gram alone flags contest boilerplate.

The ratio is that of tokens (of characters, different questions of one kind pass 0.6: letters are alike anywhere). Operators are no
tokens: x + 3 and x - 3 are the same to it.
A text with options (what follows the first "A." of "A.", "B.", "C.", also "(A)" or "A:") is compared with and without them, and the nearest
pair counts: an MMLU question has others in MMLU-Pro, while in another spelling, "(a)", they are not told from the parts of a question.
"""

import re
from itertools import chain
from pathlib import Path

from common.core.errors import InputError
from common.core.files import read_jsonl
from common.data import near_duplicates, test_sets

REMOVE = 0.6  # from near_duplicates.LOOK on a pair is listed
COLUMNS = ("question", "problem", "prompt")  # of a test set of one's own
OPTION = re.compile(
    r"(?:\s(?i:answer choices|choices|options)\s?:)?(?:\s|\$?\\[a-z]+\s?\{)\(?([A-J])[.):](?=[\s}\\])"
)


# --- what is compared -----------------------------------------------------------------------------------------------


def load_test_sets(names, folder=None, seed=0):
    """The test sets to check against. -> {benchmark: [{"id", "question"}, ...]}, each question alone, the ids those of 05.

    names: of common/data/test_sets.py, "all" of them (with `folder` those that lie there, else those that take no login; a note says which
    are not), or paths to a .jsonl of one's own: the text, or the first of a list of turns, in a column question, problem or prompt. Such
    a set is called like its file, or like its folder where the file is test.jsonl. seed: of GPQA's ids.
    Raises InputError for an unknown name, for the micro-world's sets, for two sets of one name, and for what cannot be read.
    """
    if tiny := [name for name in names if name in test_sets.TINY]:
        raise InputError(
            f"{', '.join(tiny)} cannot be checked: operators are left out here, so that 12 + 7 would be 12 - 7. There is no need to:\n"
            "the micro-world never trains on a question that it tests. Name other test sets."
        )
    if unknown := [
        name for name in names if name not in ("all", *test_sets.TEST_SETS) and not _is_own(name)
    ]:
        raise InputError(
            f"unknown test sets {unknown}; expected --decontaminate all, a .jsonl file, or of: {' '.join(test_sets.TEST_SETS)}"
        )
    found = {}
    for name in dict.fromkeys(
        each for name in names for each in (_present(folder) if name == "all" else [name])
    ):
        title = _title(name)
        if title in found:
            raise InputError(
                f"{name}: there is a test set {title} already; rename the file, or leave one out"
            )
        found[title] = (
            _own(name) if _is_own(name) else test_sets.load_questions(name, folder, seed=seed)
        )
    return found


def list_local_files(names, folder, tests):
    """The files that `load_test_sets` read, for the manifest. tests: what it gave."""
    own = {_title(name): name for name in names if _is_own(name)}
    return [
        *own.values(),
        *test_sets.list_local_files(folder, [title for title in tests if title not in own]),
    ]


def _is_own(name):
    return name.endswith(".jsonl")


def _title(name):
    path = Path(name)
    return (
        name
        if not _is_own(name)
        else path.parent.resolve().name
        if path.stem == "test"
        else path.stem
    )


def _present(folder):
    names = [
        name
        for name, row in test_sets.TEST_SETS.items()
        if (test_sets.is_local(name, folder) if folder else not row.private)
    ]
    if missing := [name for name in test_sets.TEST_SETS if name not in names]:
        print(
            f"note: not checked, since {f'not in {folder}' if folder else 'it takes a login (name it)'}: {' '.join(missing)}"
        )
    return names


def _own(path):
    found = []
    for number, row in enumerate(read_jsonl(path), 1):
        text = next((row[column] for column in COLUMNS if column in row), None)
        text = (
            text[0] if isinstance(text, list) and text else text
        )  # later turns of MT-Bench lean on the first
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{path}, row {number} holds no text in a column {', '.join(COLUMNS)}; its columns are {', '.join(row) or 'none'}.\n"
                "Expected the question there, or a list of turns."
            )
        found.append({"question": text})
    test_sets.assign_ids(found)
    return found


def tokenize_variants(question):
    """The words that are compared: without options, and where it has some also with them. -> one or two lists of words, or none

    A bare "Which of the following is true?" equals every other one: of 29 MMLU questions with stems of under ten words that were found in
    MMLU-Pro 24 are the same question, and rather some too many are left out than too few.

    >>> tokenize_variants("What is $2^{10}$?\\nA: 1,024\\nB: 20\\nC: 210")
    [['what', 'is', '2', '10'], ['what', 'is', '2', '10', 'a', '1', '024', 'b', '20', 'c', '210']]
    """
    marks = list(OPTION.finditer(question))
    at = "".join(mark[1] for mark in marks).find("ABC")
    stem = question[: marks[at].start()] if at >= 0 else question
    words = [re.findall("[a-z0-9]+", text.lower()) for text in dict.fromkeys((stem, question))]
    return [some for some in words if some]


# --- the comparison -------------------------------------------------------------------------------------------------


def find_matches(questions, tests):
    """All pairs that are equal, or share a 10-gram and have a ratio of at least 0.5. -> list of dicts, in the order of the questions.

    questions: {question_id: text}. tests: as `load_test_sets` gives them. A dict: question_id, question, benchmark, item (its id), item_question,
    ratio (1.0 where equal), how ("exact" or "10-gram"), removed (equal, or ratio >= 0.6). A question's pairs come benchmark by benchmark
    in the order of `tests`, the best first. Of a private benchmark both texts are None: they are its question, or nearly.
    A question, or an item, without a token matches nothing.
    """
    items = [(name, item) for name, found in tests.items() for item in found]
    texts = [
        (number, words)
        for number, (_, item) in enumerate(items)
        for words in tokenize_variants(item["question"])
    ]
    place, index = (
        {name: i for i, name in enumerate(tests)},
        near_duplicates.Index([words for _, words in texts]),
    )
    found, unread = [], 0
    for question_id, question in questions.items():
        written, nearest = tokenize_variants(question), {}  # {number of the item: (ratio, how)}
        unread += not written
        for entry, ratio, how in chain.from_iterable(map(index.near, written)):
            number = texts[entry][0]
            nearest[number] = max(nearest.get(number, (0.0, "")), (ratio, how))
        for number, (ratio, how) in sorted(
            nearest.items(), key=lambda hit: (place[items[hit[0]][0]], -hit[1][0], hit[0])
        ):
            name, item = items[number]
            private = name in test_sets.TEST_SETS and test_sets.get_test_set(name).private
            found.append(
                {
                    "question_id": question_id,
                    "question": None if private else question,
                    "benchmark": name,
                    "item": item["id"],
                    "item_question": None if private else item["question"],
                    "ratio": ratio,
                    "how": how,
                    "removed": ratio >= REMOVE,
                }
            )
    if unread:
        print(f"note: {unread} questions have no letter a-z and no digit, and so cannot be checked")
    return found


# --- what is told ---------------------------------------------------------------------------------------------------


def summarize(found, tests):
    """Counts of `find_matches`, a benchmark each. -> {benchmark: {"items", "hit", "exact", "removed", "borderline"}}

    items: of the test set; hit: those that a removed question matches; exact: those that are literally equal to one; removed: questions;
    borderline: questions that are listed for a look and not removed, for this benchmark.
    """
    counts = {}
    for name, items in tests.items():
        mine = [match for match in found if match["benchmark"] == name]
        removed = {match["question_id"] for match in mine if match["removed"]}
        counts[name] = {
            "items": len(items),
            "hit": len({m["item"] for m in mine if m["removed"]}),
            "exact": len({m["item"] for m in mine if m["how"] == "exact"}),
            "removed": len(removed),
            "borderline": len({m["question_id"] for m in mine} - removed),
        }
    return counts


def describe_summary(counts):
    """A summary in words, of the benchmarks that were hit at all."""
    return [
        f"{name}: {n['removed']:,} questions removed, which match {n['hit']:,} of its {n['items']:,} items ({n['exact']:,} of them word for "
        f"word); {n['borderline']:,} borderline ones kept"
        for name, n in counts.items()
        if n["removed"] or n["borderline"]
    ]


def normalize_question(question):
    """A question in lower case without white space, operators kept: by which two are the same word for word."""
    return "".join(question.lower().split())


def report_overlap(trained, tests, folder=None, revisions=None, seed=0):
    """Lines that say how many items of each test set stand word for word among what an arm was trained on.

    trained: {arm: set of `normalize_question` questions, None where they are not known}. tests: {benchmark: items}, as 05 asks them.
    """
    lines = [
        f"what {arm} was trained on no longer stands in 03_data, so it was not held against the test sets"
        for arm, known in trained.items()
        if known is None
    ]
    for name, items in tests.items():
        if test_sets.get_test_set(
            name
        ).user_turn:  # the prompt adds something to the question: options, "True or False"
            items = test_sets.load_questions(
                name, folder, (revisions or {}).get(name), seed, len(items)
            )
        counts = {arm: count_overlap(known, items) for arm, known in trained.items() if known}
        if hit := ", ".join(f"{arm} {n:,}" for arm, n in counts.items() if n):
            lines.append(
                f"{name}: of its {len(items):,} questions so many stand word for word in the training sets: {hit} (03_build.py "
                f"--decontaminate {name} leaves them out)"
            )
    return lines


def count_overlap(known, items):
    """How many items' question is among the `normalize_question` questions. items: of one benchmark, with the question alone."""
    return sum(normalize_question(item["question"]) in known for item in items)
