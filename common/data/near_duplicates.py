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
    """Texts by their 10-grams. A text is (owner, its tokens); an owner may have several."""

    def __init__(self, texts: list):
        self.texts = texts
        self.holders = defaultdict(list)  # 10-gram -> numbers of the texts that hold it
        for number, (_, tokens) in enumerate(texts):
            for gram in _grams(tokens):
                self.holders[gram].append(number)

    def find(self, variants: list) -> dict:
        """Return {owner: ratio}, by the nearest text of an owner and variant of the question.

        They equal each other (ratio 1.0), or share a 10-gram and have a ratio of at least LOOK.
        """
        ratios = {}
        for tokens in variants:
            for number in self.find_candidates(tokens):
                owner, text = self.texts[number]
                ratio = Indel.normalized_similarity(tokens, text, score_cutoff=LOOK)
                if ratio >= LOOK:
                    ratios[owner] = max(ratio, ratios.get(owner, 0))
        return ratios

    def find_candidates(self, tokens: list) -> set:
        """Return numbers of texts that share a 10-gram, those of rare ones first.

        A near copy nearly always shares a rare one, too: the grams at the edge of boilerplate
        hold words of the question.
        """
        holders = [self.holders.get(gram, []) for gram in _grams(tokens)]
        holders.sort(key=len)
        candidates = set()
        for numbers in holders:
            if len(candidates) < MAX_COMPARED:
                candidates.update(numbers[:MAX_COMPARED])
        return candidates


def _grams(tokens):
    """Return the 10-grams; of a shorter text the text itself, which only an equal one has."""
    starts = range(max(1, len(tokens) - GRAM + 1))
    return {tuple(tokens[start : start + GRAM]) for start in starts}
