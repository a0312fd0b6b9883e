r"""Model output -> answer -> right or wrong, by strict mathematical equivalence.

The answer is the last closed \boxed{} or \fbox{}, else what follows the last answer cue, else the last number. Multiple choice compares
letters; everything else goes to grading/equivalence.py. Nothing that a model or a data set wrote is evaluated as code.
"""

# Differs from the paper: its grader rounds both sides to one decimal and accepts x, x/100 and 100x.
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from numbers import Number

from common.grading.equivalence import equivalent
from common.grading.extraction import answer_of, option_of
from common.grading.sympy_worker import WORKERS

MAX_TEXT = 1_000_000  # characters of an output that are looked at, from its end
OPTIONS = "ABCDEFGHIJ"
LETTER = re.compile(
    r"[\s$]*(?:\\(?:text|mathrm|mathbf)\w*\s*\{)?\s*\(?\s*([A-Za-z])\s*\)?[.:]?\s*\}?[\s$.]*"
)  # C, (C), \text{(C)}


@dataclass(frozen=True)
class GradeResult:
    """What grade() found. extraction_method: "boxed", "cue", "last number" (among options: a lone letter) or "none"."""

    correct: bool
    extracted: str | None
    extraction_method: str
    timed_out: bool


def grade(text, gold, tolerance: float = 0, choices=None) -> GradeResult:
    """Judge a whole model output against a gold answer, text or number. No text or gold of any type raises; what is neither is wrong.

    Reasoning blocks (<think>...</think>) do not count. tolerance is relative (0.01 = 1 %) and only for numbers whose gold is not written
    as an integer. choices ("ABCD" or a list of letters) asks for an option letter, as does a gold A to J or (a) to (j). timed_out: sympy
    took too long or too much memory, so the answer counts as wrong without being known to be. Raises ValueError for a tolerance or choices
    that cannot be meant, RuntimeError where sympy cannot be started.
    """
    if not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 1:
        raise ValueError(
            f"tolerance {tolerance!r}: it is relative, from 0 to less than 1 (0.01 is 1 %)"
        )
    if choices is not None and not (
        isinstance(choices, (str, list, tuple))
        and re.fullmatch("([A-Za-z],)+", "".join(f"{c}," for c in choices))
    ):
        raise ValueError(
            f'choices {choices!r}: expected the letters of the options, as "ABCD" or a list'
        )
    text, gold = _string(text), _string(gold).strip()
    found = LETTER.fullmatch(gold)
    lone = found[1] if found else ""
    letters = "".join(choices).upper() if choices else OPTIONS
    small = bool(choices) or re.fullmatch(r"\W*\([a-j]\)\W*", gold) is not None  # (c)
    wanted = lone.upper() if small else lone
    if choices or len(wanted) == 1 and wanted in letters:
        extracted, how = option_of(text, letters, small)
        return GradeResult(
            wanted in letters and (extracted == wanted or text.strip() == gold),
            extracted,
            how,
            False,
        )
    extracted, how = answer_of(text)
    if not gold:
        return GradeResult(False, extracted, how, False)
    if text.strip() == gold:  # an output that is nothing but the answer, in words
        return GradeResult(True, extracted, how, False)
    if extracted is None:
        return GradeResult(False, None, how, False)
    try:
        same = equivalent if len(gold) + len(extracted) > 1_000 else _equivalent
        return GradeResult(same(gold, extracted, tolerance), extracted, how, False)
    except TimeoutError:
        return GradeResult(False, extracted, how, True)


def is_correct(text, gold) -> bool:
    """Whether a whole model output gives the gold answer: grade(text, gold).correct."""
    return grade(text, gold).correct


def extract_answer(text) -> str | None:
    """The answer of a whole model output, as written, or None."""
    return answer_of(_string(text))[0]


def grade_many(
    texts: Iterable, golds: Iterable, tolerance: float = 0, choices=None
) -> list[GradeResult]:
    """grade() for every pair, in the order given; equal pairs are judged once, up to WORKERS symbolic answers at a time. Raises
    ValueError for lists of different lengths, and what grade() raises."""
    texts, golds = list(texts), list(golds)
    if len(texts) != len(golds):
        raise ValueError(
            f"{len(texts)} outputs and {len(golds)} golds: one gold for each output is needed"
        )
    pairs = [(_string(text), _string(gold)) for text, gold in zip(texts, golds)]
    unique = list(dict.fromkeys(pairs))
    threads = ThreadPoolExecutor(WORKERS)
    try:
        results = dict(
            zip(unique, threads.map(lambda pair: grade(*pair, tolerance, choices), unique))
        )
    finally:
        threads.shutdown(cancel_futures=True)  # after an interrupt, do not grade the rest
    return [results[pair] for pair in pairs]


_equivalent = lru_cache(maxsize=100_000)(
    equivalent
)  # samples of one problem often give the same answer; a timeout is not kept


NUMBERS = (bool, int, float, Fraction, Decimal)


def _string(value) -> str:
    """The text of a string or number (numpy's too); "" for anything else, whatever it says it is."""
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)[-MAX_TEXT:]
    try:
        return (
            str(value)
            if kind in NUMBERS or kind.__module__ == "numpy" and issubclass(kind, Number)
            else ""
        )
    except ValueError:  # more digits than Python prints
        return ""
