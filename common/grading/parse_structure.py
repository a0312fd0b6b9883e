r"""Take an answer apart: lists, tuples, matrices, unions of intervals, inequalities, labels.

All functions expect normal form (normalize_latex.normalize).
"""

import re
from typing import NamedTuple

from common.grading.normalize_latex import remove_spaces
from common.grading.read_numbers import read_number

# ---- brackets ----

BRACKET = re.compile(
    r"(\\begin\{\w+\}|\\?\{|[(\[])|(\\end\{\w+\}|\\?\}|[)\]])|[^\\()\[\]{}]+|\\"
)  # one that opens | one that closes | text between them


def hide_brackets(answer: str) -> str:
    r"""Return a text of the same length, with \0 for what is in brackets, and \1 at the last ones.

    Brackets of any kind close each other: (0,1] is a pair. What follows the last bracket is not
    hidden, even if one is still open.

    >>> hide_brackets("2(x+1), y")
    '2\x00\x00\x00\x00\x01, y'
    """
    depth, last = 0, max(answer.rfind(bracket) for bracket in "()[]{}")

    def hide(token):
        nonlocal depth
        opening, closing = token.groups()
        depth = max(depth + bool(opening) - bool(closing), 0)
        if closing and not depth:
            return "\0" * (len(closing) - 1) + "\1"
        return "\0" * len(token[0]) if depth and token.start() <= last else token[0]

    return BRACKET.sub(hide, answer)


def split(answer: str, separator: str) -> list[str]:
    """Return the parts of an answer between the separators (a pattern) outside all brackets."""
    pieces, start = [], 0
    for cut in re.finditer(separator, hide_brackets(answer)):
        pieces.append(answer[start : cut.start()].strip())
        start = cut.end()
    pieces.append(answer[start:].strip())
    return list(filter(None, pieces))


def is_enclosed(answer: str) -> bool:
    """Return whether the first bracket closes at the end."""
    return bool(answer) and hide_brackets(answer).find("\1") == len(answer) - 1


# ---- labels: x = 5, f(x) = 2x, \angle ABC = 30 ----

LETTER = r"(?:\\[a-z]+|[A-Za-z])(?:_(?:\w|\{[^{}]*\}))?'*"  # x, \theta, x_1, x'
NAME = (  # a letter, a vector or an angle, AB, a word; with a subscript, primes and arguments
    r"(?!\\(?:sin|cos|tan|cot|sec|csc|log|ln|exp|frac|sqrt|max|min)(?![a-z]))"
    r"(?:\\(?:angle|triangle|overline|vec|hat|mathbb)\s*)?"
    r"(?:\\[A-Za-z]+|\{\w+\}|[A-Z]{2,3}|[A-Za-z]{4,}|p[A-Z]{1,2}[a-z]?|[A-Za-z])"
    r"(?:_(?:\w|\\[a-z]+|\{[^{}]*\}))?'*\s?(?:\([\w,.\s]*\))?"
)
LABEL = re.compile(  # x =, (x, y) =, x \in, |AB| =, area:
    rf"({NAME}(?::{NAME})*|\|\w+\||\({NAME}(?:,\s*{NAME})*\)|{NAME}(?:\s[a-z]+)*(?=:))"
    r"\s*(?:=|\\approx|\\in(?![a-z])|(?<=[a-z]{4}):)\s*(?=\S)"
)
QUESTION_LABEL = (  # m+n, V_o/V_i: the question names it. Without spaces
    rf"{NAME}(?:[+/]{NAME})*|\\frac\{{{NAME}\}}\{{{NAME}\}}"
)


def split_label(answer: str) -> tuple[str, str]:
    r"""Return (label or "", value).

    An equation such as x + y = 1 has no label.

    >>> split_label("x = 5"), split_label(r"A = \pi r^2 = 9\pi"), split_label("x + y = 1")
    (('x', '5'), ('A', '9\\pi'), ('', 'x + y = 1'))
    """
    label = LABEL.match(answer)
    if not label:
        return "", answer
    return remove_spaces(label[1]), answer[label.end() :].rpartition("=")[2].strip()


# ---- lists and matrices ----

COMMA = r",?\s*\b(?:and|or)\b\s*|[,;]"  # 1, 2 and 3
SET = r"\\\{([^|:]*)\\\}|\{([^|:]*,[^|:]*)\}"  # \{1, 2\}, {1, 2}
SET_UNION = r"\\\}\s*\\cup\s*\\\{"  # \{1\} \cup \{2\}
MATRIX = re.compile(
    r"([(\[]?)\s*\\begin\{([pbBvV]?matrix|smallmatrix|array|cases)\}(.*)\\end\{\2\}\s*([)\]]?)"
)
MAX_FILLED = 64  # elements that "..." may be expanded to
CONDITION = r"^(?:if|when|for)\b|,$"  # if x > 0,
PLUS_MINUS, MINUS_PLUS = r"\\pm(?![a-z])", r"\\mp(?![a-z])"


def list_label(answer: str) -> str:
    r"""Return the label of a whole list with its sign, or "".

    x = 1, 2 and S = \{1, 4\} have one; x = 1, y = 2 has none.
    """
    label = LABEL.match(answer)
    if not label:
        return ""
    rest = answer[label.end() :]
    several = len(split(rest, COMMA)) > 1 and not re.search(r"[=<>]|\\[lg]e(?![a-z])", rest)
    return label[0] if several or re.match(r"\\\{[^|:]*\\\}$", rest) else ""


def elements(answer: str) -> list[str]:
    r"""Return the elements of a set or a bare list, or the equations of a system.

    a \pm b is two elements. Any other answer is its only element.
    """
    answer = re.sub(SET_UNION, ",", answer.removeprefix(list_label(answer)))
    inner = re.fullmatch(SET, answer)
    if inner and is_enclosed(answer):
        answer = inner[1] or inner[2] or ""
    matrix = MATRIX.fullmatch(answer)
    if matrix and matrix[2] == "cases" and "&" not in matrix[3]:
        rows = [row.strip(" ,") for row in matrix[3].split(r"\\")]
        return list(filter(None, rows))
    signed = []
    for part in _fill_in(split(answer, COMMA)):
        signed.append(_choose_signs(part, "+", "-"))
        if re.search(PLUS_MINUS, part):
            signed.append(_choose_signs(part, "-", "+"))
    return signed


def _fill_in(parts):
    r"""Return 1, 2, \cdots, 6 with what the dots leave out: equal steps of integers."""
    if len(parts) < 4 or parts[-2] != r"\cdots":
        return parts
    shown = [*parts[-4:-2], parts[-1]]
    if not all(re.fullmatch(r"-?\d{1,9}", part) for part in shown):
        return parts
    before, start, end = map(int, shown)
    step = start - before
    if not step or (end - start) % step or not 0 < (end - start) // step < MAX_FILLED:
        return parts
    return parts[:-2] + [str(number) for number in range(start + step, end + step, step)]


def _choose_signs(part, plus, minus):
    part = re.sub(MINUS_PLUS, minus, re.sub(PLUS_MINUS, plus, part))
    return re.sub(r"(^|=)\s*\+\s*(?=\S)", r"\1", part)  # +5 is 5


def entries(answer: str) -> tuple[str, list[str]]:
    r"""Return (kind, entries): the brackets of a tuple or interval, the row lengths of a matrix.

    For anything else both are empty.

    >>> entries("(2, 3]"), entries(r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"), entries("5")
    (('(]', ['2', '3']), ('2 2', ['1', '2', '3', '4']), ('', []))
    """
    if not is_enclosed(answer):
        return "", []
    matrix = MATRIX.fullmatch(answer)
    if matrix and matrix[2] not in ("vmatrix", "Vmatrix") and bool(matrix[1]) == bool(matrix[4]):
        return _matrix_entries(matrix[2], matrix[3].split(r"\\"))
    if answer[0] in "([" and answer[-1] in ")]":
        return _as_matrix(answer[0] + answer[-1], split(answer[1:-1], "[,;]"))
    return "", []


def _as_matrix(kind, items):
    """Return [[1, 2], [3, 4]] as a matrix, and other items with their brackets."""
    rows = [split(item[1:-1], ",") for item in items if item.startswith("[") and is_enclosed(item)]
    if kind != "[]" or len(rows) != len(items) or len(rows) < 2:
        return kind, items
    return " ".join(str(len(row)) for row in rows), [entry for row in rows for entry in row]


def is_list(kind: str, items: list[str]) -> bool:
    """Return whether entries are an ordered list, in any brackets, and no interval.

    A list is a column, three or more entries, or two entries of which the first is larger.

    >>> is_list("[]", ["1", "2", "6"]), is_list("()", ["0.6", "-0.6"]), is_list("[]", ["1", "2"])
    (True, True, False)
    """
    if len(items) > 1 and set(kind.split()) == {"1"}:
        return True
    numbers = [number for number in map(read_number, items) if number is not None]
    decreases = len(items) == len(numbers) == 2 and numbers[0] > numbers[1]
    return kind in ("()", "[]") and (len(items) > 2 or decreases or any(map(is_enclosed, items)))


def _matrix_entries(environment, lines):
    rows = [line.split("&") for line in lines if line.strip(" ,&")]
    cells = [entry.strip() for row in rows for entry in row]
    kind = " ".join(str(len(row)) for row in rows)
    if environment != "cases":
        return kind, cells
    return f"cases {kind}", [re.sub(CONDITION, "", entry).strip() for entry in cells]


# ---- inequalities and intervals ----

RELATION = r"[<>=]|\\(?:le|ge|ne)(?![a-z])|\\cup|\\cap|\\setminus|\\\{"
ORDER = re.compile(r"<|>|\\(?:le|ge|ne)(?![a-z])")
FLIPPED = {">": "<", r"\ge": r"\le", "<": ">", r"\le": r"\ge", r"\ne": r"\ne"}
BRACKETS = {"<": "()", r"\le": "[]"}
SOLUTIONS = {  # of x < a and of |x| < a
    "<": "( -∞ a )",
    r"\le": "( -∞ a ]",
    ">": "( a ∞ )",
    r"\ge": "[ a ∞ )",
    r"\ne": "( -∞ a ) | ( a ∞ )",
    "|<": "( -a a )",
    r"|\le": "[ -a a ]",
    "|>": "( -∞ -a ) | ( a ∞ )",
    r"|\ge": "( -∞ -a ] | [ a ∞ )",
}
VARIABLE = rf"(\|?)\s*({LETTER})\s*\1"  # x or |x|
MEMBER = rf"({LETTER})\s*\\in\s*(?=[(\[])"  # x \in [1,2]
POINT = r"\\\{([^,]*)\\\}"  # \{3\}
CUP = r"\\cup(?![a-z])"
ALTERNATIVES = rf"{CUP}|,?\s*\bor\b\s*|,(?![^<>]*$)"  # x < 1 or x > 2; x < 1, x > 2
EVERYTHING = (
    r"\\mathbb\{R\}|(?:all|any) real(?: number)?s?|reals?|[a-z]\s*\\in\s*\\mathbb\{R\}"
    r"|-\s*\\infty\s*<\s*[a-z]\s*<\s*\+?\\infty"
)
ABOVE, BELOW = r"\infty", r"-\infty"


class Interval(NamedTuple):
    """An interval: ("(", "0", "1", "]") is 0 < x <= 1."""

    opening: str
    low: str
    high: str
    closing: str


Union = tuple[str, list[Interval]]  # the variable or "", its intervals


def chain(answer: str) -> tuple[list[str], list[str]]:
    r"""Return an inequality as (its sides, its signs); without signs it is none.

    Signs that all point one way are written with < and \le: b > a is a < b.
    """
    sides, signs = [side.strip() for side in ORDER.split(answer)], ORDER.findall(answer)
    if set(signs) <= {">", r"\ge"}:
        return sides[::-1], [FLIPPED[sign] for sign in reversed(signs)]
    return sides, signs


def intervals(answer: str) -> Union | None:
    r"""Return a union of intervals, or None for anything else.

    (0,1] \cup (2,\infty) and 0 < x \le 1 or x > 2 have the same pieces.
    """
    variables, pieces = set(), []
    member = re.match(MEMBER, answer)
    if member:
        answer, variables = answer[member.end() :], {member[1]}
    if re.fullmatch(EVERYTHING, answer):
        return "", [Interval("(", BELOW, ABOVE, ")")]
    for part in split(answer, ALTERNATIVES if ORDER.search(answer) else CUP):
        union = _bracketed(part) or _inequality(part) or _between(part)
        if union is None:
            return None
        variables.add(union[0])
        pieces += union[1]
    variables.discard("")
    return ("".join(variables), pieces) if pieces and len(variables) <= 1 else None


def _bracketed(part):
    r"""Read (0,1] or the point \{3\} or x = 3."""
    kind, ends = entries(part)
    if len(ends) == 2 and kind[0] in "([":
        low, high = (re.sub(r"^\+\s*", "", end) for end in ends)
        return "", [Interval(kind[0], low, high, kind[1])]
    point = re.fullmatch(rf"()(?:{POINT})", part) or re.fullmatch(rf"({LETTER}) ?= ?([^=,]+)", part)
    return (point[1], [Interval("[", point[2], point[2], "]")]) if point else None


def _inequality(part):
    r"""Read an inequality with its variable alone: a < x \le b, x > a, |x| < a, x \ne a."""
    sides, signs = chain(part)
    if len(sides) == 3 and re.fullmatch(LETTER, sides[1]) and set(signs) <= BRACKETS.keys():
        opening, closing = BRACKETS[signs[0]][0], BRACKETS[signs[1]][1]
        return sides[1], [Interval(opening, sides[0], sides[2], closing)]
    if len(sides) != 2:
        return None
    sign = signs[0]
    if not re.fullmatch(VARIABLE, sides[0]):
        sides, sign = sides[::-1], FLIPPED[sign]
    variable, end = re.fullmatch(VARIABLE, sides[0]), sides[1]
    if not variable or (variable[1], sign) == ("|", r"\ne"):
        return None
    ends = {"a": end, "-a": f"-({end})", "∞": ABOVE, "-∞": BELOW}
    pieces = [piece.split() for piece in SOLUTIONS[variable[1] + sign].split("|")]
    return variable[2], [Interval(o, ends[low], ends[high], c) for o, low, high, c in pieces]


def _between(part):
    """Read x > a and x < b."""
    sides = [_inequality(side) for side in split(part, r",?\s*\band\b\s*")]
    names = {name for name, _ in filter(None, sides)}
    pieces = [pieces[0] for _, pieces in filter(None, sides) if len(pieces) == 1]
    if len(sides) != 2 or len(pieces) != 2 or len(names) != 1:
        return None
    low, high = sorted(pieces, key=lambda piece: piece.low == BELOW)
    if low.high != ABOVE or high.low != BELOW:
        return None
    return names.pop(), [Interval(low.opening, low.low, high.high, high.closing)]
