r"""Read answers in words: numbers, truth values, and sentences that carry an answer.

Numbers in words follow a grammar: "twelve", "one hundred and five", "two and a half", "three
quarters", "negative five", "the square root of 5". It sees only texts of at most MAX_WORDS words,
all of them in its vocabulary.
"""

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from common.grading.quantities import SCALES, multiply

MAX_WORDS = 12
GRAMMAR = r"""
    ?phrase: "the"? signed
    ?signed: ("negative" | "minus") signed    -> negative
           | "square" "root" "of" signed      -> square_root
           | "cube" "root" "of" signed        -> cube_root
           | "reciprocal" "of" signed         -> reciprocal
           | "half" "of" signed               -> half
           | number                           -> tex
    ?number: whole | part
           | whole "and" part                 -> add
    ?part: (small | ONE) FRACTION             -> times
         | HALF                               -> add
    ?whole: large | below
          | large "and"? below                -> add
    ?large: millions | thousands
          | millions thousands                -> add
    millions: below MILLION                   -> times
    thousands: below THOUSAND                 -> times
    ?below: hundreds | small
          | hundreds "and"? small             -> add
    hundreds: (small | ONE) HUNDRED           -> times
    small: TENS DIGIT? | TEEN | DIGIT | FIGURES
    TENS: /(?:twen|thir|for|fif|six|seven|eigh|nine)ty/
    TEEN: /ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen/
    DIGIT: /zero|one|two|three|four|five|six|seven|eight|nine/
    FIGURES: /\d+/
    ONE: "a"
    HALF: "half"
    HUNDRED: "hundred"
    THOUSAND: "thousand"
    MILLION: /million|billion|trillion/
    FRACTION: /(?:hal(?:f|ve)|third|quarter|fourth|fifth|sixth|seventh|eighth|ninth|tenth)s?/
    %ignore " "
"""
SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
)
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
VALUES = {word: 10 * ten for ten, word in enumerate(TENS.split())}
VALUES |= {word: number for number, word in enumerate(SMALL.split())} | {"a": 1} | SCALES
OPERATIONS = {"the", "and", "negative", "minus", "square", "cube", "root", "reciprocal", "of"}

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
NO_SOLUTION = re.compile(r"(?i)(?:there (?:is|are) )?no ?(?:real )?solutions?|(?:the )?empty set")


@lru_cache(maxsize=1)
def _parser() -> Any:
    import lark  # takes 0.1 s, which an answer without number words should not

    class Tex(lark.Transformer):
        """Turn a tree into TeX; numbers stay fractions up to the rule tex."""

        def add(self, parts):
            return sum(map(_value_of, parts))

        small = add

        def times(self, parts):
            return _value_of(parts[0]) * _value_of(parts[1])

        def tex(self, parts):
            return multiply("1", Fraction(parts[0]))

        def negative(self, parts):
            return f"-{parts[0]}"

        def square_root(self, parts):
            return rf"\sqrt{{{parts[0]}}}"

        def cube_root(self, parts):
            return rf"\sqrt[3]{{{parts[0]}}}"

        def reciprocal(self, parts):
            return rf"\frac{{1}}{{{parts[0]}}}"

        def half(self, parts):
            return rf"\frac{{{parts[0]}}}{{2}}"

    parser = lark.Lark(GRAMMAR, start="phrase")
    return lambda text: Tex().transform(parser.parse(text))


def _value_of(word):
    """Return the value of a word or of digits; a value stays."""
    if not isinstance(word, str):
        return word
    return int(word) if word.isdecimal() else VALUES.get(word) or VALUES[word.rstrip("s")]


def spell_out(answer: str) -> str:
    r"""Return a number in words as TeX, no solution as \emptyset, anything else as it is.

    >>> spell_out("negative three quarters"), spell_out("the square root of 5"), spell_out("odd")
    ('-\\frac{3}{4}', '\\sqrt{5}', 'odd')
    """
    if NO_SOLUTION.fullmatch(answer):
        return r"\emptyset"
    words = answer.lower().replace("-", " ").split()
    if len(words) > MAX_WORDS or not re.match("[A-Za-z]", answer):
        return answer
    if not all(_is_in_vocabulary(word) for word in words):
        return answer
    return _parse(" ".join(words)) or answer


def _is_in_vocabulary(word):
    return word in OPERATIONS or word in VALUES or word.rstrip("s") in VALUES or word.isdecimal()


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
