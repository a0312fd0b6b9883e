r"""Grade a model output: find its answer, and compare it with the gold.

The answer is the last closed \boxed{} or \fbox{}, else what follows the last answer cue, else the
last number. Multiple choice compares letters; everything else goes to equivalence.py. Nothing that
a model or a data set wrote is evaluated as code.
"""

# Differs from the paper: its grader rounds both sides to one decimal and accepts x, x/100 and 100x.
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, partial
from numbers import Number

from common.grading.equivalence import equivalent
from common.grading.extraction import find_answer, find_listed_boxes
from common.grading.options import find_option
from common.grading.sympy_worker import map_unique

MAX_TEXT = 1_000_000  # characters of an output that are read, from its end
MAX_CACHED = 1_000  # characters of a gold and an answer whose comparison is remembered
OPTIONS = "ABCDEFGHIJ"
LETTER = (  # C, (C), \text{(C)}
    r"[\s$]*(?:\\(?:text|mathrm|mathbf)\w*\s*\{)?\s*\(?\s*([A-Za-z])\s*\)?[.:]?\s*\}?[\s$.]*"
)
LOWER_CASE = r"\W*\([a-j]\)\W*"  # (c)
LIST = r"[,;]|\b(?:and|or)\b|\\cup"
NUMBERS = (bool, int, float, Fraction, Decimal)


@dataclass(frozen=True)
class GradeResult:
    """What grade() returns.

    extraction_method: "boxed", "cue", "last number" (among options: a lone letter) or "none".
    """

    correct: bool
    extracted: str | None
    extraction_method: str
    timed_out: bool = False


def grade(text, gold, tolerance: float = 0, choices=None) -> GradeResult:
    """Grade a whole model output against a gold answer, text or number.

    No text or gold of any type raises; what is neither a string nor a number is wrong. Reasoning
    blocks (<think>...</think>) do not count.

    tolerance: relative (0.01 is 1 %), only for numbers whose gold is not written as an integer.
    choices: "ABCD" or a list of letters asks for an option letter, as does a gold A to J or (a) to
    (j).

    timed_out: sympy took too long or too much memory, so the answer counts as wrong without being
    known to be. Raises ValueError for a tolerance or choices out of range, RuntimeError if sympy
    cannot be started.
    """
    _check_options(tolerance, choices)
    text, gold = _to_string(text), _to_string(gold).strip()
    lower_case = bool(choices or re.fullmatch(LOWER_CASE, gold))
    letters = "".join(choices or OPTIONS).upper()
    letter = _gold_letter(gold, lower_case)
    if choices or letter and letter in letters:
        option, method = find_option(text, letters, lower_case)
        correct = letter in letters and (option == letter or text.strip() == gold)
        return GradeResult(correct, option, method)
    return _grade_answer(text, gold, tolerance)


def _grade_answer(text, gold, tolerance):
    answer, method = find_answer(text)
    if text.strip() == gold and gold:  # an output that is nothing but the answer, in words
        return GradeResult(True, answer, method)
    if not gold or answer is None:
        return GradeResult(False, answer, method)
    result = _compare(gold, answer, tolerance, method)
    boxes = find_listed_boxes(text) if method == "boxed" and not result.correct else ""
    if boxes and re.search(LIST, gold):
        several = _compare(gold, boxes, tolerance, method)
        result = several if several.correct else result
    return result


def _compare(gold, answer, tolerance, method):
    try:
        compare = _equivalent if len(gold) + len(answer) <= MAX_CACHED else equivalent
        return GradeResult(compare(gold, answer, tolerance), answer, method)
    except TimeoutError:
        return GradeResult(False, answer, method, timed_out=True)


def is_correct(text, gold) -> bool:
    """Return whether a whole model output gives the gold answer."""
    return grade(text, gold).correct


def extract_answer(text) -> str | None:
    """Return the answer of a whole model output, as written, or None."""
    return find_answer(_to_string(text))[0]


def grade_many(
    texts: Iterable, golds: Iterable, tolerance: float = 0, choices=None
) -> list[GradeResult]:
    """Return grade() of every pair, in the same order.

    Equal pairs are graded once, several symbolic answers at a time. Raises ValueError for lists of
    different lengths, and what grade() raises.
    """
    texts, golds = list(map(_to_string, texts)), list(map(_to_string, golds))
    if len(texts) != len(golds):
        raise ValueError(
            f"{len(texts)} outputs and {len(golds)} golds: one gold for each output is needed"
        )
    return map_unique(partial(grade, tolerance=tolerance, choices=choices), texts, golds)


# Samples of one problem often give the same answer. A timeout is not remembered.
_equivalent = lru_cache(maxsize=100_000)(equivalent)


def _check_options(tolerance, choices):
    if not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 1:
        raise ValueError(
            f"tolerance {tolerance!r}: it is relative, from 0 to less than 1 (0.01 is 1 %)"
        )
    if choices is None or isinstance(choices, (str, list, tuple)) and _are_letters(choices):
        return
    raise ValueError(
        f'choices {choices!r}: expected the letters of the options, as "ABCD" or a list'
    )


def _are_letters(choices):
    return re.fullmatch("([A-Za-z],)+", "".join(f"{choice}," for choice in choices))


def _gold_letter(gold, lower_case):
    letter = re.fullmatch(LETTER, gold)
    if not letter:
        return ""
    return letter[1].upper() if lower_case else letter[1]


def _to_string(value):
    """Return the text of a string or a number (numpy's too), and "" for anything else.

    The type decides, whatever a value says that it is.
    """
    kind = type(value)
    if issubclass(kind, str):
        return str.__str__(value)[-MAX_TEXT:]
    if kind not in NUMBERS and not (kind.__module__ == "numpy" and issubclass(kind, Number)):
        return ""
    try:
        return str(value)
    except ValueError:  # more digits than Python prints
        return ""
