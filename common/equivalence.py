r"""gold = answer by strict mathematical equivalence, for two short TeX or plain strings.

Decided in this order: same string; structure (lists, sets, tuples, intervals, matrices, \pm) element by element; exact rational
numbers; words; and only for the symbolic rest math-verify, in a process that can be killed (symbolic_worker.py). No string ever
reaches eval, sympify or parse_expr, no integer a float. Whatever cannot be decided counts as different.
"""

import re
from fractions import Fraction

from common import symbolic_worker

SYMBOLIC_SECONDS = 3.0  # for all symbolic comparisons of one answer together; the worker's start is not counted
MAX_ANSWER, MAX_SYMBOLIC = 20_000, 1_000  # characters that are understood at all, that sympy is given
MAX_DIGITS, MAX_ITEMS, MAX_DEPTH = 4_000, 64, 12  # of a rational (and its power of ten), of a list, of nested brackets

UNICODE = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "≤": r"\le ", "≥": r"\ge ",
     "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∈": r"\in ", "²": "^2", "³": "^3", "√": r"\sqrt ", "\u00a0": " ", "’": "'"}
)  # fmt: skip
REWRITES = [
    (r"(?<=\d)(?:\{,\}|,\\!|\\[,!; ])\s*(?=\d{3}(?!\d))", ""),  # thousands: 1{,}234  1,\!234  1\,234
    (r"\\\\\[[^\]]*\]", r"\\\\"),  # \\[4pt]
    (r"\\(?:text|math(?:rm|bf|it)|mbox|operatorname|boxed|fbox)\w*\s*\{([^{}]*)\}", r" \1 "),
    (r"\\(?:left|right|[bB]igg?[lr]?|(?:display|text)style|q?quad|limits)(?![A-Za-z])|(?<!\\)\\[][,!;:() ]|\\?\$|[€£~]", " "),
    (r"\\[dtc](frac|binom)", r"\\\1"),
    (r"\\leq(?:slant)?(?![a-z])|<=", r"\\le "), (r"\\geq(?:slant)?(?![a-z])|>=", r"\\ge "),
    (r"\\lt(?![a-z])", "<"), (r"\\gt(?![a-z])", ">"), (r"\\%", "%"),
    (r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-z])", "°"),
    (r"\^\s*\{?\s*(?:th|st|nd|rd)\b\s*\}?", ""),  # 12^{th}
    (r"\\frac\s*(\w|\{[^{}]*\})\s*(\w)", r"\\frac\1{\2}"), (r"\\frac\s*(\w)\s*\{", r"\\frac{\1}{"),  # \frac12, \frac{1}2
    (r"(?<![\\A-Za-z])(sqrt|pi|infty|sin|cos|tan|log|ln|exp)(?![A-Za-z])", r"\\\1 "),
    (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"), (r"\\sqrt\s*(\d+|\w)", r"\\sqrt{\1}"),
    (r"\((\d+)\)\s*_", r"\1_"),  # (4210)_5
    (r"^\s*\\\{\s*\w\s*(?:\\mid|[|:])([^{}|]*)\\\}\s*$", r"\1"),  # {x | 0 < x < 1} is 0 < x < 1
    (r"\s+", " "),
]  # fmt: skip


def equivalent(gold: str, answer: str, tolerance: float = 0) -> bool:
    """Whether an answer equals the gold. tolerance: relative, for numbers whose gold is not written as an integer. Raises TimeoutError
    when sympy needs more than SYMBOLIC_SECONDS."""
    if max(len(gold), len(answer)) > MAX_ANSWER:
        return gold.strip() == answer.strip()
    return _Comparison(tolerance).equal(_clean(gold), _clean(answer))


def _clean(answer: str) -> str:
    """One spelling for what TeX, models and data sets write in many ways; the mathematics is untouched."""
    answer = answer.translate(UNICODE)
    for pattern, replacement in REWRITES:
        answer = re.sub(pattern, replacement, answer)
    answer = re.sub(r"^([\"'`])(.*)\1$", r"\2", answer.strip(" *:").rstrip(" .,;:*\\")).strip()
    if re.fullmatch(r"[-+]?\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)(?:\.\d+)?(?:\s*[A-Za-z%°].*)?", answer):
        answer = re.sub(r"(?<=\d)[, ](?=\d{3})", "", answer)
    return answer


def _squash(answer: str) -> str:
    """Without spaces (except between digits) and without braces around a single token: the form in which strings are compared."""
    return re.sub(r"([_^])\{(-?\w+)\}", r"\1\2", re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", answer))


NUM = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
RATIONAL = re.compile(
    rf"""(?P<sign>[-+]?)\s*(?:
      (?P<whole>\d+)(?:\s*\\frac\{{(?P<n1>\d+)\}}\{{(?P<d1>\d+)\}} | \s(?P<n2>\d+)/(?P<d2>\d+))
    | \\frac\{{\s*(?P<n3>{NUM})\s*\}}\{{\s*(?P<d3>{NUM})\s*\}} | \(?(?P<n4>{NUM})\)?\s*/\s*\(?(?P<d4>{NUM})\)?
    | (?:(?P<n5>{NUM})\s*(?:\\times|\\cdot|\*)\s*)?10\s*\^\s*[{{(]?\s*(?P<e1>[-+]?\d+)\s*[}})]?
    | (?P<n6>{NUM})(?:[eE](?P<e2>[-+]?\d+))? )""",
    re.X,
)


def _rational(answer: str) -> Fraction | None:
    """The exact value of an integer, decimal, fraction, mixed number or power of ten; None for anything else or too large."""
    match = RATIONAL.fullmatch(answer) if len(answer) <= MAX_DIGITS else None
    if not match:
        return None
    part = {name.rstrip("123456"): value for name, value in match.groupdict().items() if value is not None}
    exponent, denominator = part.get("e", "0"), Fraction(part.get("d", "1"))
    if len(exponent) > 5 or abs(int(exponent)) > MAX_DIGITS or not denominator:
        return None
    value = Fraction(part.get("whole", "0")) + Fraction(part.get("n", "1")) / denominator * Fraction(10) ** int(exponent)
    return -value if part["sign"] == "-" else value


def _flat(answer: str) -> str:
    """As long as the answer, with \0 for what stands in brackets (of any kind: (0,1] is a pair) and \1 where the outermost close."""
    out, depth, last = [], 0, 0
    for token in re.finditer(r"\\begin\{\w+\}|\\end\{\w+\}|\\[{}]|[()\[\]{}]", answer):
        out.append("\0" * (token.start() - last) if depth else answer[last : token.start()])
        depth = max(depth + (1 if token[0].startswith(r"\b") or token[0][-1] in "([{" else -1), 0)
        out.append("\0" * (len(token[0]) - 1) + ("\0" if depth else "\1"))
        last = token.end()
    return "".join(out) + answer[last:]


def _split(answer: str, separator: str) -> list[str]:
    """The parts of an answer between the separators outside all brackets."""
    cuts = [(0, 0), *(match.span() for match in re.finditer(separator, _flat(answer))), (len(answer), len(answer))]
    return [part for (_, start), (end, _) in zip(cuts, cuts[1:]) if (part := answer[start:end].strip())]


def _parts(answer: str) -> list[str]:
    r"""The elements of a set or a bare list, a \pm b as two of them; another answer is its only element."""
    inner = re.fullmatch(r"\\\{([^|:]*)\\\}|\{([^|:]*,[^|:]*)\}", answer)
    if inner and _flat(answer).find("\1") == len(answer) - 1:
        answer = inner[1] or inner[2] or ""
    signs = [(r"\pm", "+", r"\mp", "-"), (r"\pm", "-", r"\mp", "+")]
    parts = _split(answer, r",?\s*\b(?:and|or)\b\s*|[,;]")
    return [part.replace(*s[:2]).replace(*s[2:]) for part in parts for s in (signs if r"\pm" in part else signs[:1])]


def _bracketed(answer: str) -> tuple[str, list[str]]:
    r"""(2, 3] -> ("(]", ["2", "3"]); a matrix -> (its row lengths, its entries); anything else -> ("", [])."""
    if _flat(answer).find("\1") != len(answer) - 1:
        return "", []
    if matrix := re.fullmatch(r"\\begin\{([pb]?matrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", answer):
        rows = [row.split("&") for row in matrix[2].split("\\\\") if row.strip()]
        return " ".join(str(len(row)) for row in rows), [entry.strip() for row in rows for entry in row]
    return (answer[0] + answer[-1], _split(answer[1:-1], ",")) if answer[0] in "([" and answer[-1] in ")]" else ("", [])


NAME = (
    r"(?!\\(?:sin|cos|tan|log|ln|frac|sqrt))(?:\\(?:angle|triangle|overline)\s*)?(?:\\[a-z]+|[A-Z]{2,3}|[A-Za-z]{4,}|[A-Za-z])"
    r"(?:_(?:\w|\{[^{}]*\}))?'*\s?(?:\([\w,\s/]*\))?"
)
LABEL = re.compile(rf"({NAME}(?::{NAME})*|\|\w+\||\({NAME}(?:,\s*{NAME})*\))\s*(?:=|\\approx|\\in(?![a-z])|(?<=[a-z]{{4}}):)\s*(?=\S)")
SUM = re.compile(rf"{NAME}(?:\s*\+\s*{NAME})*\s*")
UNIT = re.compile(  # a short unit, any word of four letters that does not change the value, or one letter behind a number and a space
    r"(.*[\d})])\s*(%|°|(?:(?:square|cubic) )?(?:percent|pct|cm|mm|km|ft|in|kg|mi|ml|hr|min|sec|mph"
    r"|(?!base|hundred|thousand|million|billion|dozen)[A-Za-z]{4,})(?: [A-Za-z ]+)?(?:\s?\^\{?\d\}?)?)|(.*\d\}?) ([msgJNWVKCAFLT])"
)
SAME_UNIT = {"percent": "%", "percentage": "%", "pct": "%", "degree": "°", "feet": "ft", "foot": "ft", "inche": "in", "hour": "hr"}
RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne)(?![a-z])|\\cup|\\\{")
NO_WORDS = re.compile(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+|arc(?:sin|cos|tan)|(?:sin|cos|tan)h")
# Not worth a worker's life: huge numbers and exponents, factorials of them, towers of powers, brackets 30 deep.
HOSTILE = re.compile(r"\d{300}|\d{4}\s*!|!\s*[!)}]\s*!|\^[\s{(+-]*\d{5}|(?:\^[\s{(]*\d+\s*){3}|(?:[{(\[][^{}()\[\]]*){30}")


def _label(answer: str) -> tuple[str, str]:
    """x = 5 -> ("x", "5"); A = \\pi r^2 = 9\\pi -> ("A", "9\\pi"); an equation such as x + y = 1 has no label."""
    label = LABEL.match(answer)
    return (_squash(label[1]), answer[label.end() :].rpartition("=")[2].strip()) if label else ("", answer)


def _unit(answer: str) -> tuple[str, str]:
    """12 feet -> ("12", "feet"); 5 percent -> ("5", "%")."""
    match = UNIT.fullmatch(answer)
    if not match or match[4] and _rational(match[3].strip()) is None:
        return answer, ""
    unit = re.sub(r"^square(\w+)", r"\1^2", _squash((match[2] or match[4]).lower()))
    base, _, power = unit.partition("^")
    base = base.removesuffix("s")
    return (match[1] or match[3]).strip(), SAME_UNIT.get(base, base) + power


class _Comparison:
    """Equality of a gold and an answer in normal form, within one allowance of time for sympy."""

    def __init__(self, tolerance: float):
        self.tolerance, self.seconds = tolerance, SYMBOLIC_SECONDS

    def equal(self, gold: str, answer: str, depth: int = 0) -> bool:
        """Whether two strings in normal form are the same answer; False where that cannot be decided."""
        if not gold or not answer or depth > MAX_DEPTH:
            return False
        if _squash(gold) == _squash(answer):
            return True
        golds, answers = _parts(gold), _parts(answer)
        if len(golds) != 1 or len(answers) != 1:
            return self._lists(golds, answers, depth + 1)
        (gold_label, gold_value), (answer_label, answer_value) = _label(golds[0]), _label(answers[0])
        if gold_label and answer_label:  # x = 1 is not y = 1; f(x) = x is y = x
            return (gold_label == answer_label or "(" in gold_label + answer_label) and self.equal(gold_value, answer_value, depth + 1)
        if gold_label or answer_label:
            equation = "=" in (answer if gold_label else gold)  # y = 1 - x against x + y = 1
            return self._symbolic(gold, answer) if equation else self.equal(gold_value, answer_value, depth + 1)
        if "=" in answer and "=" not in gold:  # 3 \cdot 4 = 12 and m + n = 12 say 12; 2x + z = 12 does not
            left, _, right = answers[0].rpartition("=")
            asked = SUM.fullmatch(left) or not re.search("[A-Za-df-hj-z]", NO_WORDS.sub("", left))  # e and i are numbers
            return bool(asked) and self.equal(gold, right.strip(), depth + 1)
        if r"\approx" in gold + answer:  # the side in front of it is the exact one
            gold, answer = (side.partition(r"\approx")[0].strip() for side in (golds[0], answers[0]))
            return self.equal(gold, answer, depth + 1)
        return self._values(golds[0], answers[0], depth + 1)

    def _lists(self, golds: list[str], answers: list[str], depth: int) -> bool:
        """Lists and sets: the same elements in any order. (1, 2, 3) is the list 1, 2, 3 in this order."""
        if len(golds) != len(answers):
            pairs = [_bracketed(_label(side[0])[1]) if len(side) == 1 else ("()", side) for side in (golds, answers)]
            (gold_kind, golds), (answer_kind, answers) = pairs
            same_shape = gold_kind == answer_kind == "()" and len(golds) == len(answers) > 2
            return same_shape and all(self.equal(*pair, depth) for pair in zip(golds, answers))
        if len(golds) > MAX_ITEMS:
            return False
        for gold in golds:
            same = next((answer for answer in answers if self.equal(gold, answer, depth)), None)
            if same is None:
                return False
            answers.remove(same)
        return True

    def _values(self, gold: str, answer: str, depth: int) -> bool:
        """Two answers that are neither lists nor labelled."""
        (gold_kind, golds), (answer_kind, answers) = _bracketed(gold), _bracketed(answer)
        if gold_kind in ("()", "[]") and len(golds) == 1 or answer_kind in ("()", "[]") and len(answers) == 1:
            # Parentheses around one thing are none; [5] stays a list, but brackets around a matrix belong to it.
            sides = [
                items[0] if len(items) == 1 and (kind == "()" or kind == "[]" and items[0].startswith(r"\begin")) else side
                for side, kind, items in ((gold, gold_kind, golds), (answer, answer_kind, answers))
            ]
            return sides != [gold, answer] and self.equal(*sides, depth)
        if gold_kind and answer_kind:
            same_shape = gold_kind == answer_kind and len(golds) == len(answers)
            return same_shape and all(self.equal(*pair, depth) for pair in zip(golds, answers))
        if (gold_kind or answer_kind) and not RELATION.search(answer if gold_kind else gold):
            return False
        (gold_value, gold_unit), (answer_value, answer_unit) = _unit(gold), _unit(answer)
        if gold_unit != answer_unit and (gold_unit and answer_unit or "%" in (gold_unit, answer_unit)):
            return False  # a unit may be left out, but not %: 50 is not 50 %, nor is 0.5 taken for it
        if gold_unit or answer_unit:
            return self.equal(gold_value, answer_value, depth)
        exact = _rational(gold), _rational(answer)
        if None not in exact:
            allowed = Fraction(min(self.tolerance, 1)) if self.tolerance > 0 and not re.fullmatch(r"[-+]?\d+", gold) else 0
            return abs(exact[0] - exact[1]) <= allowed * abs(exact[0])
        return self._words(gold, answer)

    def _words(self, gold: str, answer: str) -> bool:
        """Ratios, congruences, numbers in another base and words are equal as strings or not at all; what is left is for sympy."""
        if any(re.fullmatch(r"[\dA-Fa-f]+_(?:\d+|\{\w+\})|[^{}]*:[^{}]*|.*\\[pb]?mod\b.*", side) for side in (gold, answer)):
            return False
        plain = [NO_WORDS.sub(" ", side) for side in (gold, answer)]
        if any(re.search("[A-Za-z]{4}", side) for side in plain) or all(re.fullmatch("[A-Za-z ]+", side) for side in (gold, answer)):
            gold, answer = (re.sub(r"[\s'\"]|(?<=[A-Za-z])-(?=[A-Za-z])", "", side).casefold() for side in (gold, answer))
            return gold == answer and len(gold) > 1
        return self._symbolic(gold, answer)

    def _symbolic(self, gold: str, answer: str) -> bool:
        if any(len(side) > MAX_SYMBOLIC or HOSTILE.search(side) for side in (gold, answer)):
            return False
        if gold.count("'") != answer.count("'"):  # math-verify drops primes: f' is not f, 15' is not 15
            return False
        equal, seconds = symbolic_worker.worker.equal(gold, answer, max(self.seconds, 0.01))
        self.seconds -= seconds
        return equal
