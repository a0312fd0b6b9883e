"""Sentences, words and languages, by the two libraries of requirements-ifeval.txt.

Both work offline and give the same answer every time: punkt is nltk's sentence splitter with its
English parameters inside, and langdetect draws with a fixed seed.
"""

import importlib
import re
from functools import cache

from common.core.errors import InputError

SEED = 0
# Where the Treebank tokenizer cuts, in so far as a capital word can begin or end there.
WORD_CUT = re.compile(r"""[\s;@#$%&?!*()\[\]{}<>"`«»“”‘’„\u2012-\u2015]+|--|\.\.+|''|[:,](?!\d)""")
SENTENCE_END = re.compile(r"""(?<!\.)\.[\])}>"'»”’ ]*\Z""")
# "DON'T" is two words, DO and N'T; so are JOHN'S and CANNOT.
CONTRACTION = re.compile(r"(?<=[^'])('[sSmMdD]|'ll|'LL|'re|'RE|'ve|'VE|n't|N'T)\Z")
TWO_IN_ONE = re.compile(r"(?i)\b(can|gim|gon|got|lem|wan)(not|me|na|ta)\b")


@cache
def load_library(name: str):
    """Return a module, "punkt" or "langdetect"; InputError if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"IFEval is graded with {name}, which is not installed.\n"
            "Run: pip install -r requirements-ifeval.txt"
        ) from None


def split_sentences(text: str) -> list:
    """Return the sentences of an English text."""
    return load_library("punkt").sent_tokenize(text)


def detect_language(text: str) -> str | None:
    """Return the ISO code of a text's language, None if there is no letter to tell it by."""
    langdetect = load_library("langdetect")
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
    count = 0
    for sentence in split_sentences(text):
        for word in WORD_CUT.split(SENTENCE_END.sub("", sentence)):
            parts = TWO_IN_ONE.sub(r"\1 \2", CONTRACTION.sub(r" \1", word)).split()
            count += sum(map(str.isupper, parts))
    return count
