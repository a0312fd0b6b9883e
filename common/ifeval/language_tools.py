"""Sentences, words and languages, by the two libraries of requirements-ifeval.txt.

Both work offline and give the same answer every time: punkt is nltk's sentence splitter with its
English parameters inside, and langdetect draws with a fixed seed.
"""

import importlib
import re
from functools import cache

from common.core.errors import InputError

SEED = 0
# Where nltk's word tokenizer (Treebank) cuts, in so far as a capital word can begin or end there.
WORD_CUT = re.compile(
    r"""
    [\s;@#$%&?!*()\[\]{}<>"`«»“”‘’„\u2012-\u2015]+ | -- | \.\.+ | '' | [:,](?!\d)
    # DO | N'T, JOHN | 'S
    | (?<=[^'\s])(?=(?:'[sSmMdD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)
        (?:[\s;@#$%&?!*()\[\]{}<>"`«»“”‘’„\u2012-\u2015] | -- | [:,](?!\d) | \.+(?:\W|\Z) | \Z))
    | (?<=\b(?i:can|gim|gon|got|lem|wan))(?=(?i:not|me|na|ta)\b)  # CAN | NOT
    """,
    re.VERBOSE,
)


@cache
def load_libraries() -> tuple:
    """Return the modules punkt and langdetect; InputError if one is not installed."""
    try:
        return importlib.import_module("punkt"), importlib.import_module("langdetect")
    except ImportError as error:
        raise InputError(
            f"IFEval is graded with {error.name}, which is not installed.\n"
            "Run: pip install -r requirements-ifeval.txt"
        ) from None


def split_sentences(text: str) -> list:
    """Return the sentences of an English text."""
    punkt, _ = load_libraries()
    return punkt.sent_tokenize(text)


def detect_language(text: str) -> str | None:
    """Return the ISO code of a text's language, None if there is no letter to tell it by."""
    _, langdetect = load_libraries()
    langdetect.DetectorFactory.seed = SEED
    try:
        return langdetect.detect(text)
    except langdetect.LangDetectException:
        return None


def count_capital_words(text: str) -> int:
    """Return how many words are in capitals, words as nltk's word_tokenize cuts them.

    >>> count_capital_words("I DON'T say NASA, U.S. and R2-D2.")  # I, DO, N'T, NASA, U.S., R2-D2
    6
    """
    return sum(map(str.isupper, WORD_CUT.split(text)))
