r"""Model output -> answer -> right or wrong, by strict mathematical equivalence.

The answer is the last closed \boxed{} or \fbox{}, else what follows the last answer cue, else the last number. Multiple choice compares
letters; everything else goes to equivalence.py.
"""

# Differs from the paper: its grader rounds both sides to one decimal and accepts x, x/100 and 100x.
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from common.equivalence import MAX_DIGITS, equivalent

MAX_TEXT = 1_000_000  # characters of an output that are looked at, from its end


@dataclass(frozen=True)
class Judgement:
    """What judge() found. how: "boxed", "cue", "last number" (among options: a lone letter) or "none"."""

    correct: bool
    extracted: str | None
    how: str
    timed_out: bool


def judge(text, gold, tolerance: float = 0, choices=None) -> Judgement:
    """Judge a whole model output against a gold answer. Any input of any type returns, nothing raises.

    tolerance is relative (0.01 = 1 %) and only for numbers whose gold is not written as an integer. choices ("ABCD" or a list of
    letters) asks for an option letter, as does a gold that is a single capital letter. timed_out: sympy took too long, so the answer
    counts as wrong without being known to be.
    """
    text, gold = _string(text), _string(gold).strip()
    letters = re.escape("".join(map(str, choices)).upper()) if choices else string.ascii_uppercase
    lone = re.sub(r"\\[a-z]+|[\W_]", "", gold)  # C, (C), \text{(C)}
    wanted = lone.upper() if choices else lone
    if len(wanted) == 1 and wanted in letters:
        extracted, how = _extract_option(text, letters)
        return Judgement(extracted == wanted, extracted, how, False)
    extracted, how = _extract(text)
    if extracted is None or not gold:
        return Judgement(False, extracted, how, False)
    try:
        return Judgement(equivalent(gold, extracted, tolerance), extracted, how, False)
    except TimeoutError:
        return Judgement(False, extracted, how, True)


def grade(text, gold) -> bool:
    """Whether a whole model output gives the gold answer: judge(text, gold).correct."""
    return judge(text, gold).correct


def extract(text) -> str | None:
    """The answer of a whole model output, as written, or None."""
    return _extract(_string(text))[0]


def _string(value) -> str:
    if isinstance(value, (bool, float, Fraction)) or isinstance(value, int) and value.bit_length() < MAX_DIGITS:
        value = str(value)
    return value[-MAX_TEXT:] if isinstance(value, str) else ""


CUE = re.compile(
    r"(?:\banswers?\b[ *_]{0,5}(?:to (?:the|this) (?:question|problem)[ *_]{0,5})?(?:is\b|are\b|:|=|(?=[$\\]))|^A:|####)"
    r"(?:[\s:*_]|therefore\b|thus\b)*",
    re.I | re.M,
)
MATH = r"\$\$.+?\$\$|\$ [^$\n]+ \$|\$(?!\s)(?:\\.|[^$\\\n])+?(?<!\s)\$(?!\d)|\\\(.+?\\\)|\\\[.+?\\\]"  # "$200 and $70" is no math
MATHS = re.compile(rf"(?:{MATH})(?:\s*(?:,|and\b|or\b)+\s*(?:{MATH}))*", re.S)
NUMBER = re.compile(r"(?<![\w.)\]}])[-+−]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[-+]?\d+|/\d+)?(?:\s?\\?[%°])?", re.I)
SENTENCE_END = re.compile(r"\.(?=\s|$)|,?\s(?=(?:because|since|so|which|where|I hope)\b)|,\s(?!and\b|or\b)(?=[a-z]{2,}\s)|<\|")


def _extract(text: str) -> tuple[str | None, str]:
    """(the answer as written or None, how it was found)."""
    text = text.rpartition("</think>")[2]
    if box := _last_box(text):
        return box, "boxed"
    for answer in _cues(text):
        return answer, "cue"
    line = text.strip().rpartition("\n")[2].strip()
    if len(line) <= 80 and re.search(r"\d", line) and not re.search(r"(?<!\\)\b[A-Za-z]{2,}|[$€:]", line):
        return line, "last number"  # a last line that is bare mathematics: x = 3/4
    last = [match for pattern in (MATHS, NUMBER) for match in pattern.finditer(text[-5_000:])]
    return (max(last, key=lambda match: match.end())[0], "last number") if last else (None, "none")


def _extract_option(text: str, letters: str) -> tuple[str | None, str]:
    """(an option letter or None, how it was found): boxed, after a cue, opening the output ("D. ..."), or the last lone letter."""
    text = text.rpartition("</think>")[2]
    lead = r"(?i:\\(?:text|math)\w*\s*\{|option\b|choice\b|[\W_])*"
    small = f"|[{letters.lower()}](?!\\s)" if letters != string.ascii_uppercase else ""  # without choices, n is not N
    option = re.compile(rf"{lead}([{letters}]{small})(?![\w'’])(?!\s(?:and|or)\s)")
    box = _last_box(text)
    for answer, how in [(box, "boxed"), *((answer, "cue") for answer in _cues(text))]:
        if match := option.match(answer):
            return match[1].upper(), how
    if box:
        return box, "boxed"
    opening = re.match(rf"\W*([{letters}])[).:]", text)
    # "I" and "A" before a word are English; in brackets they are options.
    lone = re.findall(rf"\(([{letters}])\)|(?<![^\W_]|['’])(?!I\b)([{letters}])(?![\w'’])(?!\s[a-z])", text)
    found = opening[1] if opening else "".join(lone[-1]) if lone else None
    return found, "last number" if found else "none"


def _last_box(text: str) -> str:
    r"""The content of the last closed \boxed{...} that is not empty, or "". One pass; escaped braces do not count."""
    last, stack = "", []
    for match in re.finditer(r"\\{1,4}(?:boxed|fbox)\s{0,9}\{|\\.|[{}]", text, re.S):
        if match[0] == "}" and stack:
            start, boxed = stack.pop()
            last = (boxed and text[start : match.start()].strip()) or last
        elif match[0][-1] == "{" and match[0] != r"\{":
            stack.append((match.end(), len(match[0]) > 1))
    return last


def _cues(text: str) -> Iterator[str]:
    """What the answer cues introduce, from the last cue to the first: leading math, else the end of the sentence."""
    for cue in list(CUE.finditer(text))[:-100:-1]:
        rest = text[cue.end() : cue.end() + 2_000]
        if math := MATHS.match(rest):
            yield math[0]
            continue
        said = SENTENCE_END.split(rest.partition("\n")[0])[0]
        said = re.split(r"\s(?:is|are)\s", said)[-1].strip(" *_`")  # "The largest n is 34"
        if len(re.findall(r"[A-Za-z]{2,}", said)) > 2 and (inner := re.findall(MATH, said) or NUMBER.findall(said)):
            said = inner[-1]  # "Jane started growing Sphere 3 hours ago"
        if re.search(r"\w", said):
            yield said
