"""Texts that equal another one or nearly do: a shared 10-gram of words and difflib's ratio, in near-linear time over many texts.

The ratio of (text, question) is SequenceMatcher(None, text, question, autojunk=False).ratio(), in this order: difflib is not symmetric,
but few pairs cross a threshold when turned round. With autojunk the ratio of a long text would depend on how often its words occur.
"""

from collections import Counter, defaultdict
from difflib import SequenceMatcher

import numpy as np

GRAM, LOOK = 10, 0.5  # words in a row; the least ratio that is told
EFFORT = 30_000_000  # steps of difflib for one pair at the very most, about a second (see _ratio); real pairs take up to 3 million


class Index:
    """Texts (lists of words) by their 10-grams and words, in flat arrays: 20,700 take 40 MB. Its filters lose no match."""

    def __init__(self, texts):
        self.texts, self.equal, self.terms = texts, defaultdict(list), {}
        for number, words in enumerate(texts):
            self.equal[" ".join(words)].append(number)
        # Postings: the texts of grams[i] are owners[bounds[i] : bounds[i + 1]].
        hashes = [_grams(words) for words in texts]
        owners, hashes = (
            np.repeat(np.arange(len(texts)), [len(h) for h in hashes]),
            np.concatenate([_grams([]), *hashes]),
        )
        order = np.argsort(hashes, kind="stable")
        self.owners, (self.grams, starts) = (
            owners[order],
            np.unique(hashes[order], return_index=True),
        )
        self.bounds = np.append(starts, len(order))
        # The words of text i, as numbers: words[ends[i] - lengths[i] : ends[i]].
        self.words = np.array(
            [
                self.terms.setdefault(term, len(self.terms))
                for words in texts
                for term in _terms(words)
            ],
            dtype=np.int32,
        )
        self.lengths = np.array([len(words) for words in texts], dtype=np.int64)
        self.ends, self.in_question = np.cumsum(self.lengths), np.zeros(len(self.terms), dtype=bool)

    def near(self, words):
        """The texts that equal a question, or share a 10-gram and have a ratio of at least LOOK -> [(number of the text, ratio, how)], how "exact"
        (ratio 1.0) or "10-gram"."""
        equal = self.equal.get(" ".join(words), [])
        found = [(number, 1.0, "exact") for number in equal]
        matcher = None
        for number in self._candidates(words).tolist():
            if number not in equal:
                matcher = matcher or SequenceMatcher(
                    None, (), words, autojunk=False
                )  # what it knows of `words` serves all texts
                if (ratio := _ratio(matcher, self.texts[number])) >= LOOK:
                    found.append((number, ratio, "10-gram"))
        return found

    def _candidates(self, words):
        """Numbers of the texts that share a 10-gram and pass difflib's two upper bounds of the ratio: by length, and by common multiset.

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
        cells = np.repeat(self.ends[numbers] - lengths - offsets, lengths) + np.arange(
            lengths.sum()
        )
        common = np.add.reduceat(self.in_question[self.words[cells]], offsets, dtype=np.int64)
        self.in_question[known] = False
        return numbers[2.0 * common / (lengths + len(words)) >= LOOK]


def _grams(words):
    """A hash of each different 10-gram; that two are really equal, the longest common block shows (see _ratio)."""
    return np.unique(
        np.array([hash(gram) for gram in zip(*(words[i:] for i in range(GRAM)))], dtype=np.int64)
    )


def _terms(words):
    """Each word with its how-manieth occurrence, so that the terms which two texts share are their common multiset."""
    seen = Counter()
    for word in words:
        seen[word] += 1
        yield word, seen[word]


def _ratio(matcher, text):
    """difflib's ratio of a text and the matcher's question, 0 where they share no 10-gram: their longest common block is shorter.

    difflib takes at most one step a word of the shorter text, times the words of the other, times their occurrences in the question. A pair
    that might take more than EFFORT (hostile, or a list of the same few words) is judged by quick_ratio, an upper bound: it is removed
    rather than kept.
    """
    matcher.set_seq1(text)
    if (
        min(len(text), len(matcher.b)) * sum(1 + len(matcher.b2j.get(word, ())) for word in text)
        > EFFORT
    ):
        return matcher.quick_ratio()
    longest = max(block.size for block in matcher.get_matching_blocks())
    return matcher.ratio() if longest >= GRAM else 0.0
