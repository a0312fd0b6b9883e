"""The index behind decontamination: what it compares. The rule: test_decontamination.py."""

import pytest

from common.data import near_duplicates
from tests.data.test_decontamination import WORDS, real_looking, tokens


def test_a_text_equals_another_or_shares_a_10_gram():
    """By hand: 12 of 12 + 13 tokens in common, 2 x 12 / 25 = 0.96; without a 10-gram nothing."""
    index = near_duplicates.Index([("a", WORDS[:12]), ("b", WORDS[:9]), ("c", WORDS[:9])])
    assert index.find([[*WORDS[:12], "new"]]) == {"a": pytest.approx(24 / 25)}
    assert index.find([WORDS[:9]]) == {"b": 1.0, "c": 1.0}
    assert index.find([["new"]]) == {} == index.find([])


def test_the_nearest_of_several_texts_counts():
    """By hand: of 12 words against 12 + 13, 24 / 25, and against 12 + 12, which are equal."""
    index = near_duplicates.Index([("a", [*WORDS[:12], "new"]), ("a", WORDS[:12])])
    assert index.find([WORDS[:12]]) == {"a": 1.0}
    assert index.find([[*WORDS[:11], "x"], [*WORDS[:12], "y"]]) == {"a": pytest.approx(24 / 25)}


def test_only_texts_that_share_a_10_gram_are_compared():
    texts = [tokens(question) for question in real_looking(7, 60)]
    index = near_duplicates.Index(list(enumerate(texts)))
    grams = [near_duplicates._grams(text) for text in texts]
    for words in map(tokens, real_looking(8, 40)):
        sharing = [i for i in range(60) if grams[i] & near_duplicates._grams(words)]
        assert sorted(index.find_candidates(words)) == sharing


def test_boilerplate_is_not_quadratic_and_hides_no_copy(monkeypatch):
    """1,000 texts end in one sentence of 14 tokens, so that each shares a 10-gram with each.

    A question that ends in it, too, is compared with few of them, and its near copy is among them:
    that shares rarer 10-grams.
    """
    monkeypatch.setattr(near_duplicates, "MAX_COMPARED", 20)
    ending = WORDS[:14]
    texts = [[f"t{i}w{j}" for j in range(30)] + ending for i in range(1000)]
    index = near_duplicates.Index(list(enumerate(texts)))
    for i in range(0, 1000, 100):
        question = [word for j, word in enumerate(texts[i]) if j != 15]
        candidates = index.find_candidates(question)
        assert i in candidates and len(candidates) < 2 * near_duplicates.MAX_COMPARED
        assert index.find([question]) == {i: pytest.approx(86 / 87)}
