r"""Read answers in words: numbers, truth values, and sentences that carry an answer.

Numbers in words follow a grammar: "twelve", "one hundred and five", "two and a half", "three
quarters", "negative five", "the square root of 5". It sees only texts of at most MAX_WORDS words,
all of them in its vocabulary.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from common.grading.quantities import SCALES, multiply
from common.grading.read_numbers import NUMBER_WORDS

MAX_WORDS = 12
GRAMMAR = Path(__file__).with_name("number_words.lark")
VALUES = SCALES | NUMBER_WORDS
OPERATIONS = {  # rules of the grammar
    "negative": "-{}",
    "square_root": r"\sqrt{{{}}}",
    "cube_root": r"\sqrt[3]{{{}}}",
    "reciprocal": r"\frac{{1}}{{{}}}",
    "half": r"\frac{{{}}}{{2}}",
}
OPERATION_WORDS = {
    "a",
    "the",
    "and",
    "negative",
    "minus",
    "square",
    "cube",
    "root",
    "reciprocal",
    "of",
}

ARTICLES = r"^(?:(?:[Aa]|an|the|on|in|at|it's) (?=\S\S))+"
CAPITALIZED = r"(?<![A-Za-z])(?:[A-Z][a-z]+|[A-Z]{3,})(?![A-Za-z])"  # Even, EVEN; not AaBb, AB
KIND = r" (?:function|number|integer|triangle|curve|series|sequence)$"  # an even function
VERBS = r"\b(?:is|are|was|were|will|has|have|does)\b"
NEGATION = r"\b(?:not|never|no|neither|nor|than)\b|n't\b"
TEXT_ANSWER = re.compile(r"[A-Za-z][A-Za-z ,.'-]{0,200}")
SAME = {  # other words for an answer
    "yes": "true",
    "no": "false",
    "not true": "false",
    "not false": "true",
    "does not exist": "dne",
    "doesn't exist": "dne",
    "undefined": "dne",
}
ALL_NUMBERS = re.compile(r"(?i)(?:all|any|every) reals?(?: numbers?)?")
NO_SOLUTION = re.compile(r"(?i)(?:there (?:is|are) )?no ?(?:real )?solutions?|(?:the )?empty set")


@lru_cache(maxsize=1)
def _parser() -> Any:
    import lark  # takes 0.1 s, which an answer without number words should not

    class Tex(lark.Transformer):
        """Turn a tree into TeX; numbers stay fractions up to the rule number."""

        def __default_token__(self, token):
            return Fraction(token) if token.isdecimal() else VALUES[token]

        def add(self, parts):
            return sum(parts)

        small = add

        def times(self, parts):
            return prod(parts)

        def number(self, parts):
            return multiply("1", parts[0])

        def __default__(self, rule, parts, meta):
            return OPERATIONS[rule].format(*parts)

    parser = lark.Lark(GRAMMAR.read_text(encoding="utf-8"), start="phrase")
    return lambda text: Tex().transform(parser.parse(text))


def spell_out(answer: str) -> str:
    r"""Return a number in words as TeX, no solution as \emptyset, anything else as it is.

    >>> spell_out("negative three quarters"), spell_out("the square root of 5"), spell_out("odd")
    ('-\\frac{3}{4}', '\\sqrt{5}', 'odd')
    """
    if ALL_NUMBERS.fullmatch(answer):
        return r"\mathbb{R}"
    if NO_SOLUTION.fullmatch(answer):
        return r"\emptyset"
    words = answer.lower().replace("-", " ").split()
    if len(words) > MAX_WORDS or not re.match("[A-Za-z]", answer):
        return answer
    for word in words:
        if not word.isdecimal() and word not in OPERATION_WORDS and word.rstrip("s") not in VALUES:
            return answer
    return _parse(" ".join(words)) or answer


@lru_cache(maxsize=1_000)
def _parse(text):
    import lark

    try:
        return _parser()(text)
    except lark.exceptions.LarkError:
        return None


def same_text(gold: str, answer: str) -> bool:
    """Return whether one of two texts is the other with an article, or a sentence that says it.

    >>> same_text("odd", "The function is odd"), same_text("odd", "The function is not odd")
    (True, False)
    """
    if not TEXT_ANSWER.fullmatch(gold) or not TEXT_ANSWER.fullmatch(answer):
        return False
    return _bare(gold) in _said(answer) or _bare(answer) in _said(gold)


def _bare(text):
    """Return the words of a text, capitalized ones in lower case, without articles before them."""
    text = re.sub(CAPITALIZED, lambda word: word[0].lower(), re.sub(r"[,.]", " ", text))
    text = re.sub(ARTICLES, "", " ".join(text.split()))
    return SAME.get(text, text)


def _said(text):
    """Return what a text may say in short: itself, Yes of "Yes, it is", both sides of "is"."""
    short = {_bare(text)}
    if re.match(r"(?i)(?:yes|no|true|false),", text):
        short.add(_bare(text.partition(",")[0]))
    short.add(re.sub(KIND, "", _bare(text)))
    subject, *rest = re.split(VERBS, text, maxsplit=1)
    if rest and subject.strip() and not re.search(NEGATION, text):
        short |= {_bare(subject), _bare(rest[0])}
    return short
