r"""Model output -> answer, and answer = gold by strict mathematical equivalence.

Extraction takes the last closed \boxed{} or \fbox{}, else what follows the last answer cue, else the last number. Equality is decided
in this order: same string; exact rational numbers; structure (tuples, intervals, sets, lists, matrices, +-) element by element; words;
option letters; and only for the symbolic rest math-verify, in a process that can be killed (common/symbolic_worker.py). Model text and
golds never reach eval, sympify or parse_expr. Whatever cannot be decided counts as different.
# Differs from the paper: its grader rounds both sides to one decimal and takes x, x/100 and 100x as equal (common/paper_grader.py).
"""

import re
import string
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from common import symbolic_worker

SYMBOLIC_SECONDS = 3.0  # for all symbolic comparisons of one answer; the worker's start is not counted
MAX_TEXT, MAX_ANSWER, MAX_SYMBOLIC, MAX_DIGITS, MAX_ITEMS, MAX_DEPTH = 1_000_000, 20_000, 1_000, 4_000, 64, 12

UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "≤": r"\le ",
     "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∈": r"\in ", "°": r"^\circ ", "²": "^2", "³": "^3", "√": r"\sqrt ",
     "θ": r"\theta ", "\u00a0": " ", "\u202f": " ", "’": "'", "，": ",", "：": ":"}
)  # fmt: skip
FUNCTIONS = {"sqrt", "sin", "cos", "tan", "sec", "csc", "cot", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "log", "exp", "pi", "infty"}
UNITS = {  # spelling -> unit, for a unit's agreement; other words of four letters behind a number are units as they stand
    unit: short
    for short, units in {
        "°": "° degree degrees deg", "%": "% percent percentage pct", "m": "m meter meters metre metres", "cm": "cm centimeter centimeters",
        "mm": "mm", "km": "km kilometers kilometer", "ft": "ft feet foot", "in": "in inch inches", "mi": "mi mile miles", "g": "g gram grams",
        "kg": "kg kilogram kilograms", "s": "s sec second seconds", "min": "min minute minutes", "h": "h hr hrs hour hours", "mph": "mph",
        "usd": "usd dollar dollars", "cents": "cents cent", "j": "j joule joules", "n": "n newton newtons", "w": "w watt watts", "v": "v volt volts",
        "day": "day days", "year": "year years", "ml": "ml", "l": "l", "hz": "hz", "pa": "pa", "kj": "kj", "ev": "ev", "mol": "mol", "yd": "yd",
    }.items()
    for unit in units.split()
}  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """What judge() found. how: "boxed", "cue", "last number" (with options: the last lone letter) or "none"."""

    correct: bool
    extracted: str | None
    how: str
    timed_out: bool


def judge(text, gold, tolerance: float = 0, choices=None) -> Judgement:
    """Judge a whole model output against a gold answer. Any input of any type returns; nothing raises.

    tolerance is relative, and only for numbers when the gold is not written as an integer (0.01 = 1 %). choices ("ABCD" or a list)
    asks for an option letter, as does a gold that is a single capital letter.
    """
    text, gold = _string(text), _string(gold)
    wanted = _option(gold, string.ascii_uppercase)
    letters = "".join(map(str, choices)) if choices else string.ascii_uppercase if wanted and gold.strip(" ()") == wanted else ""
    if wanted not in letters or not wanted:
        letters = ""
    extracted, how = _extract(text, letters)
    if extracted is None or not gold.strip():
        return Judgement(False, extracted, how, False)
    if letters:
        return Judgement(_option(extracted, letters) == wanted, extracted, how, False)
    try:
        return Judgement(_Comparison(tolerance).equal(_clean(gold), _clean(extracted)), extracted, how, False)
    except TimeoutError:
        return Judgement(False, extracted, how, True)


def grade(text, gold) -> bool:
    """Whether a whole model output gives the gold answer: judge(text, gold).correct."""
    return judge(text, gold).correct


def extract(text) -> str | None:
    """The answer of a whole model output as written, or None."""
    return _extract(_string(text), "")[0]


def _string(value) -> str:
    if isinstance(value, str):
        return value[-MAX_TEXT:]
    return str(value) if isinstance(value, (bool, float, Fraction)) or (isinstance(value, int) and value.bit_length() < MAX_DIGITS) else ""


# ---- extraction ----

CUE = re.compile(
    r"(?:\banswers?\b[^\S\n]*(?:to (?:the|this) (?:question|problem)[^\S\n]*)?[*_]*[^\S\n]*(?:is|are|:|=|(?=[$\\]))|####)"
    r"(?:\s|[:*_]|therefore\b|thus\b|indeed\b)*",
    re.I,
)
MATH = re.compile(r"\$\$(.+?)\$\$|\$(?!\s)((?:\\.|[^$\\\n])+?)(?<!\s)\$(?!\d)|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
NUMBER = re.compile(r"(?<![\w)\]}.])[-+−]?\$?(?:\d[\d,]*\d|\d)?(?:\.\d+|(?<=\d))(?:/\d+)?(?:e[-+]?\d+)?(?:\s?(?:\\?%|°))?")
