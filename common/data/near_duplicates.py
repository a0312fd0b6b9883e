"""Texts that equal another one or nearly do: a shared 10-gram of tokens, and a ratio.

The ratio of two token lists a, b is 2 x (tokens of their longest common subsequence) / (len(a) +
len(b)), by rapidfuzz. It is at least difflib's, whose matching blocks are a common subsequence.
"""

from collections import defaultdict
from itertools import chain

from rapidfuzz import process
from rapidfuzz.distance import Indel

GRAM = 10  # tokens in a row
LOOK = 0.5  # the least ratio that is reported
# A text is compared with at most so many others. Contest boilerplate, a sentence that thousands
# share, would otherwise make the work quadratic.
MAX_COMPARED = 200
UNKNOWN = chr(0x10FFFF)  # a token that no text of the index has


class Index:
    """Texts by their 10-grams. 20,000 questions of 70 tokens need about 280 MB.

    A text is a string with one character for each token, so that equality and 10-grams are those
    of strings, and rapidfuzz compares tokens.
    """

    def __init__(self, token_lists: list[list[str]]):
        tokens = dict.fromkeys(chain.from_iterable(token_lists))
        self.characters = {token: chr(i) for i, token in enumerate(tokens)}
        self.texts = [self._encode(tokens) for tokens in token_lists]
        self.equal = defaultdict(list)  # text -> numbers of the texts
        self.owners = defaultdict(list)  # 10-gram -> numbers of the texts that hold it
        for number, text in enumerate(self.texts):
            self.equal[text].append(number)
            for gram in _grams(text):
                self.owners[gram].append(number)

    def find(self, tokens: list[str]) -> dict[int, float]:
        """Return {number of a text: ratio} of the texts that equal `tokens` (ratio 1.0), or
        share a 10-gram and have a ratio of at least LOOK.
        """
        text = self._encode(tokens)
        ratios = dict.fromkeys(self.equal.get(text, []), 1.0)
        candidates = {number: self.texts[number] for number in self._candidates(text)}
        similar = process.extract_iter(
            text, candidates, scorer=Indel.normalized_similarity, score_cutoff=LOOK
        )
        return {number: ratio for _, ratio, number in similar} | ratios

    def _candidates(self, text):
        """Return numbers of texts that share a 10-gram, those of rare ones first.

        A near copy nearly always shares a rare one, too: the grams at the edge of boilerplate
        hold words of the question.
        """
        owners = [self.owners[gram] for gram in _grams(text) if gram in self.owners]
        numbers = set()
        for few_first in sorted(owners, key=len):
            if len(numbers) >= MAX_COMPARED:
                break
            numbers.update(few_first[:MAX_COMPARED])
        return numbers

    def _encode(self, tokens):
        return "".join([self.characters.get(token, UNKNOWN) for token in tokens])


def _grams(text):
    return {text[i : i + GRAM] for i in range(len(text) - GRAM + 1)}
