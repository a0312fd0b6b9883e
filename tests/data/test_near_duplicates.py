"""The index behind decontamination: which texts it compares, and that hashes decide nothing. The rule itself: test_decontaminate.py."""

from difflib import SequenceMatcher

import numpy as np

from common.data import near_duplicates
from tests.data.test_decontamination import WORDS, one, real_looking, text, tokens


def test_only_what_difflibs_bounds_leave_is_compared():
    """The items that share a 10-gram and whose quick_ratio is at least 0.5: those, and no others, cost a ratio."""
    texts = [tokens(question) for question in real_looking(7, 150)]
    index = near_duplicates.Index(texts)
    grams = [set(zip(*(words[i:] for i in range(10)))) for words in texts]
    for words in map(tokens, real_looking(8, 100)):
        mine = set(zip(*(words[i:] for i in range(10))))
        assert index._candidates(words).tolist() == [
            i
            for i, item in enumerate(texts)
            if mine & grams[i] and SequenceMatcher(None, item, words, False).quick_ratio() >= 0.5
        ]


def test_two_grams_of_one_hash_are_not_taken_for_each_other(monkeypatch):
    """The index holds hashes; whether a 10-gram is shared, the texts themselves say."""
    monkeypatch.setattr(
        near_duplicates, "_grams", lambda words: np.zeros(max(0, len(words) - 9), dtype=np.int64)
    )
    a, b = text(*WORDS[:9], "x", *WORDS[9:14]), text(*WORDS[:9], "y", *WORDS[9:14])
    assert SequenceMatcher(None, a.split(), b.split(), False).ratio() > 0.9 and one(a, b) is None
    assert one(text(*WORDS[:12], "x"), text(*WORDS[:12])) == (24 / 25, "10-gram", True)
