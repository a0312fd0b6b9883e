"""Which training questions stand in a test set, literally or nearly, so that 03 can leave them out.

The rule, on a question's tokens, its lower-case [a-z0-9]+ words: contaminated where the two token lists are equal, or where they share a
10-gram and difflib's ratio is at least 0.6; at 0.5 to 0.6 the pair is listed for a look. A shared 10-gram alone flags contest boilerplate.

The ratio is that of tokens, SequenceMatcher(None, item, question, autojunk=False).ratio(), in this order: difflib is not symmetric, but
few pairs cross a threshold when turned round. Of characters, different questions of one kind pass 0.6 (letters are alike anywhere); with
autojunk the ratio of a long question depends on how often its words occur. Operators are no tokens: x + 3 and x - 3 are the same to it.
A text with options (what follows the first "A." of "A.", "B.", "C.", also "(A)" or "A:") is compared with and without them, and the nearest
pair counts: an MMLU question has others in MMLU-Pro, while in another spelling, "(a)", they are not told from the parts of a question.
"""

import re
from collections import Counter, defaultdict
from difflib import SequenceMatcher
from itertools import chain
from pathlib import Path

import numpy as np

from common import benchmarks
from common.files import InputError, read_jsonl

GRAM, LOOK, REMOVE = 10, 0.5, 0.6
EFFORT = 30_000_000  # steps of difflib for one pair at the very most, about a second (see _ratio); real pairs take up to 3 million
COLUMNS = ("question", "problem", "prompt")  # of a test set of one's own
OPTION = re.compile(r"(?:\s(?i:answer choices|choices|options)\s?:)?(?:\s|\$?\\[a-z]+\s?\{)\(?([A-J])[.):](?=[\s}\\])")


# --- what is compared -----------------------------------------------------------------------------------------------

def against(names, folder=None, seed=0):
    """The test sets to check against. -> {benchmark: [{"id", "question"}, ...]}, each question alone, the ids those of 05.

    names: of common/benchmarks.py, "all" of them (with `folder` those that lie there, else those that take no login; a note says which are not), or paths to a .jsonl of
    one's own: the text, or the first of a list of turns, in a column question, problem or prompt. Such a set is called like its file, or
    like its folder where the file is test.jsonl. seed: of GPQA's ids.
    Raises InputError for an unknown name, for the micro-world's sets, for two sets of one name, and for what cannot be read.
    """
    if tiny := [name for name in names if name in benchmarks.TINY]:
        raise InputError(f"{', '.join(tiny)} cannot be checked: operators are left out here, so that 12 + 7 would be 12 - 7. There is no need to:\n"
                         "the micro-world never trains on a question that it tests. Name other test sets.")
    if unknown := [name for name in names if name not in ("all", *benchmarks.BENCHMARKS) and not _is_own(name)]:
        raise InputError(f"unknown test sets {unknown}; expected --decontaminate all, a .jsonl file, or of: {' '.join(benchmarks.BENCHMARKS)}")
    found = {}
    for name in dict.fromkeys(each for name in names for each in (_present(folder) if name == "all" else [name])):
        title = _title(name)
        if title in found:
            raise InputError(f"{name}: there is a test set {title} already; rename the file, or leave one out")
        found[title] = _own(name) if _is_own(name) else benchmarks.alone(name, folder, seed=seed)
    return found


def local_files(names, folder, tests):
    """The files that `against` read, for the manifest. tests: what it gave."""
    own = {_title(name): name for name in names if _is_own(name)}
    return [*own.values(), *benchmarks.local_files(folder, [title for title in tests if title not in own])]


def _is_own(name):
    return name.endswith(".jsonl")


def _title(name):
    path = Path(name)
    return name if not _is_own(name) else path.parent.resolve().name if path.stem == "test" else path.stem


def _present(folder):
    names = [name for name, row in benchmarks.BENCHMARKS.items() if (benchmarks.is_local(name, folder) if folder else not row.private)]
    if missing := [name for name in benchmarks.BENCHMARKS if name not in names]:
        print(f"note: not checked, since {f'not in {folder}' if folder else 'it takes a login (name it)'}: {' '.join(missing)}")
    return names


def _own(path):
    found = []
    for number, row in enumerate(read_jsonl(path), 1):
        text = next((row[column] for column in COLUMNS if column in row), None)
        text = text[0] if isinstance(text, list) and text else text  # later turns of MT-Bench lean on the first
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"{path}, row {number} holds no text in a column {', '.join(COLUMNS)}; its columns are {', '.join(row) or 'none'}.\n"
                             "Expected the question there, or a list of turns.")
        found.append({"question": text})
    benchmarks.number_equal(found)
    return found


def forms(question):
    """The words that are compared: without options, and where it has some also with them. -> one or two lists of words, or none

    A bare "Which of the following is true?" equals every other one: of 29 MMLU questions with stems of under ten words that were found in
    MMLU-Pro 24 are the same question, and rather some too many are left out than too few.

    >>> forms("What is $2^{10}$?\\nA: 1,024\\nB: 20\\nC: 210")
    [['what', 'is', '2', '10'], ['what', 'is', '2', '10', 'a', '1', '024', 'b', '20', 'c', '210']]
    """
    marks = list(OPTION.finditer(question))
    at = "".join(mark[1] for mark in marks).find("ABC")
    stem = question[: marks[at].start()] if at >= 0 else question
    words = [re.findall("[a-z0-9]+", text.lower()) for text in dict.fromkeys((stem, question))]
    return [some for some in words if some]


# --- the comparison -------------------------------------------------------------------------------------------------

def matches(questions, tests):
    """All pairs that are equal, or share a 10-gram and have a ratio of at least 0.5. -> list of dicts, in the order of the questions.

    questions: {question_id: text}. tests: as `against` gives them. A dict: question_id, question, benchmark, item (its id), item_question,
    ratio (1.0 where equal), how ("exact" or "10-gram"), removed (equal, or ratio >= 0.6). A question's pairs come benchmark by benchmark
    in the order of `tests`, the best first. Of a private benchmark both texts are None: they are its question, or nearly.
    A question, or an item, without a token matches nothing.
    """
    items = [(name, item) for name, found in tests.items() for item in found]
    texts = [(number, words) for number, (_, item) in enumerate(items) for words in forms(item["question"])]
    place, index = {name: i for i, name in enumerate(tests)}, _Index([words for _, words in texts])
    found, unread = [], 0
    for question_id, question in questions.items():
        written, nearest = forms(question), {}  # {number of the item: (ratio, how)}
        unread += not written
        for entry, ratio, how in chain.from_iterable(map(index.near, written)):
            number = texts[entry][0]
            nearest[number] = max(nearest.get(number, (0.0, "")), (ratio, how))
        for number, (ratio, how) in sorted(nearest.items(), key=lambda hit: (place[items[hit[0]][0]], -hit[1][0], hit[0])):
            name, item = items[number]
            private = name in benchmarks.BENCHMARKS and benchmarks.of(name).private
            found.append({"question_id": question_id, "question": None if private else question, "benchmark": name, "item": item["id"],
                          "item_question": None if private else item["question"], "ratio": ratio, "how": how, "removed": ratio >= REMOVE})
    if unread:
        print(f"note: {unread} questions have no letter a-z and no digit, and so cannot be checked")
    return found


class _Index:
    """Items by their 10-grams and words, in flat arrays: 20,700 items take 40 MB. Its filters lose no match."""

    def __init__(self, texts):
        self.texts, self.equal, self.terms = texts, defaultdict(list), {}
        for number, words in enumerate(texts):
            self.equal[" ".join(words)].append(number)
        # Postings: the items of grams[i] are owners[bounds[i] : bounds[i + 1]].
        hashes = [_grams(words) for words in texts]
        owners, hashes = np.repeat(np.arange(len(texts)), [len(h) for h in hashes]), np.concatenate([_grams([]), *hashes])
        order = np.argsort(hashes, kind="stable")
        self.owners, (self.grams, starts) = owners[order], np.unique(hashes[order], return_index=True)
        self.bounds = np.append(starts, len(order))
        # The words of item i, as numbers: words[ends[i] - lengths[i] : ends[i]].
        self.words = np.array([self.terms.setdefault(term, len(self.terms)) for words in texts for term in _terms(words)], dtype=np.int32)
        self.lengths = np.array([len(words) for words in texts], dtype=np.int64)
        self.ends, self.in_question = np.cumsum(self.lengths), np.zeros(len(self.terms), dtype=bool)

    def near(self, words):
        """-> [(number of the item, ratio, how)]"""
        equal = self.equal.get(" ".join(words), [])
        found = [(number, 1.0, "exact") for number in equal]
        matcher = None
        for number in self._candidates(words).tolist():
            if number not in equal:
                matcher = matcher or SequenceMatcher(None, (), words, autojunk=False)  # what it knows of `words` serves all items
                if (ratio := _ratio(matcher, self.texts[number])) >= LOOK:
                    found.append((number, ratio, "10-gram"))
        return found

    def _candidates(self, words):
        """Numbers of the items that share a 10-gram and pass difflib's two upper bounds of the ratio: by length, and by common multiset.

        For all at once, as boilerplate brings thousands: real_quick_ratio and quick_ratio do the same pair by pair.
        """
        grams = _grams(words)
        at = np.searchsorted(self.grams, grams)
        grams, at = grams[at < len(self.grams)], at[at < len(self.grams)]
        shares = np.zeros(len(self.texts), dtype=bool)
        for i in at[self.grams[at] == grams].tolist():
            shares[self.owners[self.bounds[i] : self.bounds[i + 1]]] = True
        numbers = np.flatnonzero(shares)
        lengths = self.lengths[numbers]
        keep = 2.0 * np.minimum(lengths, len(words)) / (lengths + len(words)) >= LOOK
        numbers, lengths = numbers[keep], lengths[keep]
        if not len(numbers):
            return numbers
        known = [self.terms[term] for term in _terms(words) if term in self.terms]
        self.in_question[known] = True
        offsets = np.cumsum(lengths) - lengths
        cells = np.repeat(self.ends[numbers] - lengths - offsets, lengths) + np.arange(lengths.sum())
        common = np.add.reduceat(self.in_question[self.words[cells]], offsets, dtype=np.int64)
        self.in_question[known] = False
        return numbers[2.0 * common / (lengths + len(words)) >= LOOK]


def _grams(words):
    """A hash of each different 10-gram; that two are really equal, the longest common block shows (see _ratio)."""
    return np.unique(np.array([hash(gram) for gram in zip(*(words[i:] for i in range(GRAM)))], dtype=np.int64))


def _terms(words):
    """Each word with its how-manieth occurrence, so that the terms which two texts share are their common multiset."""
    seen = Counter()
    for word in words:
        seen[word] += 1
        yield word, seen[word]


def _ratio(matcher, item):
    """difflib's ratio of an item and the matcher's question, 0 where they share no 10-gram: their longest common block is shorter.

    difflib takes at most one step a word of the shorter text, times the words of the item, times their occurrences in the question. A pair
    that might take more than EFFORT (hostile, or a list of the same few words) is judged by quick_ratio, an upper bound: it is removed
    rather than kept.
    """
    matcher.set_seq1(item)
    if min(len(item), len(matcher.b)) * sum(1 + len(matcher.b2j.get(word, ())) for word in item) > EFFORT:
        return matcher.quick_ratio()
    longest = max(block.size for block in matcher.get_matching_blocks())
    return matcher.ratio() if longest >= GRAM else 0.0


# --- what is told ---------------------------------------------------------------------------------------------------

def summary(found, tests):
    """Counts of `matches`, a benchmark each. -> {benchmark: {"items", "hit", "exact", "removed", "borderline"}}

    items: of the test set; hit: those that a removed question matches; exact: those that are literally equal to one; removed: questions;
    borderline: questions that are listed for a look and not removed, for this benchmark.
    """
    counts = {}
    for name, items in tests.items():
        mine = [match for match in found if match["benchmark"] == name]
        removed = {match["question_id"] for match in mine if match["removed"]}
        counts[name] = {"items": len(items), "hit": len({m["item"] for m in mine if m["removed"]}),
                        "exact": len({m["item"] for m in mine if m["how"] == "exact"}), "removed": len(removed),
                        "borderline": len({m["question_id"] for m in mine} - removed)}
    return counts


def lines(counts):
    """A summary in words, of the benchmarks that were hit at all."""
    return [f"{name}: {n['removed']:,} questions removed, which match {n['hit']:,} of its {n['items']:,} items ({n['exact']:,} of them word for "
            f"word); {n['borderline']:,} borderline ones kept" for name, n in counts.items() if n["removed"] or n["borderline"]]


def plain(question):
    """A question in lower case without white space, operators kept: by which two are the same word for word."""
    return "".join(question.lower().split())


def seen(trained, tests, folder=None, revisions=None, seed=0):
    """Lines that say how many items of each test set stand word for word among what an arm was trained on.

    trained: {arm: set of `plain` questions, None where they are not known}. tests: {benchmark: items}, as 05 asks them.
    """
    lines = [f"what {arm} was trained on no longer stands in 03_data, so it was not held against the test sets"
             for arm, known in trained.items() if known is None]
    for name, items in tests.items():
        if benchmarks.of(name).alone:  # the prompt adds something to the question: options, "True or False"
            items = benchmarks.alone(name, folder, (revisions or {}).get(name), seed, len(items))
        counts = {arm: overlap(known, items) for arm, known in trained.items() if known}
        if hit := ", ".join(f"{arm} {n:,}" for arm, n in counts.items() if n):
            lines.append(f"{name}: of its {len(items):,} questions so many stand word for word in the training sets: {hit} (03_build.py "
                         f"--decontaminate {name} leaves them out)")
    return lines


def overlap(known, items):
    """How many items' question is among the `plain` questions. items: of one benchmark, with the question alone."""
    return sum(plain(item["question"]) in known for item in items)
