"""Texts that equal another one or nearly do: a shared 10-gram of tokens, and a ratio.

The ratio of two token lists a, b is 2 x (tokens of their longest common subsequence) / (len(a) +
len(b)), by rapidfuzz. It is at least difflib's, whose matching blocks are a common subsequence.
"""

from collections import defaultdict

from rapidfuzz.distance import Indel

GRAM = 10  # tokens in a row
LOOK = 0.5  # the least ratio that is reported
# A text is compared with at most so many others. Contest boilerplate, a sentence that thousands
# share, would otherwise make the work quadratic.
MAX_COMPARED = 200


class Index:
    """Texts, each a list of tokens, by their 10-grams."""

    def __init__(self, texts: list):
        self.texts = texts
        self.owners = defaultdict(list)  # 10-gram -> numbers of the texts that hold it
        for number, tokens in enumerate(texts):
            for gram in _grams(tokens):
                self.owners[gram].append(number)

    def find(self, tokens: list) -> dict:
        """Return {number of a text: ratio} of texts that equal `tokens` (ratio 1.0), or share a
        10-gram and have a ratio of at least LOOK.
        """
        ratios = {}
        for number in self.find_candidates(tokens):
            ratio = Indel.normalized_similarity(tokens, self.texts[number], score_cutoff=LOOK)
            if ratio >= LOOK:
                ratios[number] = ratio
        return ratios

    def find_candidates(self, tokens: list) -> set:
        """Return numbers of texts that share a 10-gram, those of rare ones first.

        A near copy nearly always shares a rare one, too: the grams at the edge of boilerplate
        hold words of the question.
        """
        owners = [self.owners.get(gram, []) for gram in _grams(tokens)]
        owners.sort(key=len)
        candidates = set()
        for numbers in owners:
            if len(candidates) < MAX_COMPARED:
                candidates.update(numbers[:MAX_COMPARED])
        return candidates


def _grams(tokens):
    """Return the 10-grams; of a shorter text the text itself, which only an equal one has."""
    starts = range(max(1, len(tokens) - GRAM + 1))
    return {tuple(tokens[start : start + GRAM]) for start in starts}
