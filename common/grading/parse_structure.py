r"""Take an answer apart: lists, tuples, matrices, unions of intervals, inequalities, labels.

All functions expect normal form (normalize_latex.normalize).
"""

import re

from common.grading.normalize_latex import compile_rules, remove_spaces, rewrite
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
    for cut in re.finditer(rf"{separator}|\Z", hide_brackets(answer)):
        pieces.append(answer[start : cut.start()].strip())
        start = cut.end()
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
SET = r"(?:\\\{|\{(?=.*,))([^|:]*?)\\?\}"  # \{1, 2\}, {1, 2}
SET_UNION = r"\\\}\s*\\cup\s*\\\{"  # \{1\} \cup \{2\}
MATRIX = re.compile(
    r"([(\[]?)\s*\\begin\{([pbBvV]?matrix|smallmatrix|array|cases)\}(.*)\\end\{\2\}\s*([)\]]?)"
)
DOTS = r"(-?\d{1,9}), ?(-?\d{1,9}), ?\\cdots ?, ?(-?\d{1,9})$"  # 1, 2, \cdots, 6
MAX_FILLED = 64  # elements of a list that is written with dots, at most
ROWS = r"\[\s*\[[^\[\]]*\](?:\s*[,;]\s*\[[^\[\]]*\])+\s*\]"  # [[1, 2], [3, 4]]
CONDITION = r"^(?:if|when|for)\b|,$"  # if x > 0,
PLUS_MINUS, MINUS_PLUS = r"\\pm(?![a-z])", r"\\mp(?![a-z])"


def elements(answer: str) -> list[str]:
    r"""Return the elements of a set or a bare list, or the equations of a system.

    a \pm b is two elements. Any other answer is its only element.
    """
    answer = re.sub(SET_UNION, ",", answer)
    value = split_label(answer)[1]
    inner = re.fullmatch(SET, value)
    if inner and is_enclosed(value):  # also of S = \{1, 2\}
        answer = inner[1]
    matrix = MATRIX.fullmatch(answer)
    if matrix and matrix[2] == "cases" and "&" not in matrix[3]:
        return [row.strip(" ,") for row in split(matrix[3], r"\\\\")]
    signed = []
    for part in split(re.sub(DOTS, _fill_in, answer), COMMA):
        signed.append(_choose_signs(part, "+", "-"))
        if re.search(PLUS_MINUS, part):
            signed.append(_choose_signs(part, "-", "+"))
    return signed


def _fill_in(dots):
    r"""Return 1, 2, \cdots, 6 with what the dots leave out: equal steps of integers."""
    first, second, last = map(int, dots.groups())
    numbers = range(first, last, second - first or 1)
    if not 1 < len(numbers) < MAX_FILLED or numbers[-1] + numbers.step != last:
        return dots[0]
    return ", ".join(map(str, [*numbers, last]))


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
    if re.fullmatch(ROWS, answer):
        return _cells(re.findall(r"\[([^\[\]]+)\]", answer), ",")
    matrix = MATRIX.fullmatch(answer)
    if matrix and matrix[2] not in ("vmatrix", "Vmatrix") and bool(matrix[1]) == bool(matrix[4]):
        kind, cells = _cells(matrix[3].split(r"\\"), "&")
        if matrix[2] == "cases":
            return f"cases {kind}", [re.sub(CONDITION, "", cell).strip() for cell in cells]
        return kind, cells
    if answer[0] in "([" and answer[-1] in ")]":
        return answer[0] + answer[-1], split(answer[1:-1], "[,;]")
    return "", []


def _cells(lines, separator):
    rows = [line.split(separator) for line in lines if line.strip(" ,&")]
    return " ".join(str(len(row)) for row in rows), [cell.strip() for row in rows for cell in row]


def is_column(kind: str) -> bool:
    return len(kind.split()) > 1 and set(kind.split()) == {"1"}


def is_list(kind: str, items: list[str]) -> bool:
    """Return whether entries are an ordered list, in any brackets, and no interval.

    A list is a column, three or more entries, or two entries of which the first is larger.

    >>> is_list("[]", ["1", "2", "6"]), is_list("()", ["0.6", "-0.6"]), is_list("[]", ["1", "2"])
    (True, True, False)
    """
    if is_column(kind):
        return True
    numbers = [number for number in map(read_number, items) if number is not None]
    decreases = len(items) == len(numbers) == 2 and numbers[0] > numbers[1]
    nested = any(entries(item)[0] for item in items)
    return kind in ("()", "[]") and (len(items) > 2 or decreases or nested)


# ---- inequalities and intervals ----

RELATION = r"[<>=]|\\(?:le|ge|ne)(?![a-z])|\\cup|\\cap|\\setminus|\\\{"
ORDER = re.compile(r"(<|>|\\(?:le|ge|ne)(?![a-z]))")
ASCENDING = {">": "<", r"\ge": r"\le"}
CUP = r"\\cup(?![a-z])"
ALTERNATIVES = rf"{CUP}|,?\s*\bor\b\s*|,(?![^<>]*$)"  # x < 1 or x > 2; x < 1, x > 2
EVERYTHING = (
    r"\\mathbb\{R\}|(?:all|any) real(?: number)?s?|reals?|[a-z]\s*\\in\s*\\mathbb\{R\}"
    r"|-\s*\\infty\s*<\s*[a-z]\s*<\s*\+?\\infty"
)
MEMBER = rf"({LETTER})\s*\\in\s*(?=[(\[])"  # x \in [1,2]
POINT = rf"\\\{{([^,]*)\\\}}|({LETTER}) ?= ?([^=,]+)"  # \{3\}, x = 3
LESS = r"<|\\le(?![a-z])"
SIDE = rf"(?:(?!{LESS}| or ).)+"
BETWEEN = re.compile(rf"(.+) ({LESS}) ({LETTER}) ({LESS}) (.+)")
SOLUTIONS = compile_rules(  # in turn: each inequality becomes low < x < high
    [
        # a < x and x < b; x < b and a < x
        (rf"^(.+ (?:{LESS}) ({LETTER})) and \2 ((?:{LESS}) .+)$", r"\1 \3"),
        (rf"^({LETTER}) ((?:{LESS}) .+) and (.+ (?:{LESS})) \1$", r"\3 \1 \2"),
        # |x| < a; a < |x|; x \ne a
        (rf"^\| ?({LETTER}) ?\| ({LESS}) (.+)$", r"-(\3) \2 \1 \2 \3"),
        (rf"^(.+) ({LESS}) \| ?({LETTER}) ?\|$", r"\3 \2 -(\1) or \1 \2 \3"),
        (rf"^({LETTER}) \\ne (.+)$", r"\1 < \2 or \2 < \1"),
        # x < a; a < x
        (rf"(^| or )({LETTER} (?:{LESS}) {SIDE})(?= or |$)", r"\1-\\infty < \2"),
        (rf"(^| or )({SIDE} (?:{LESS}) {LETTER})(?= or |$)", r"\1\2 < \\infty"),
    ]
)
OPENING, CLOSING = {"<": "(", r"\le": "["}, {"<": ")", r"\le": "]"}


def chain(answer: str) -> list[str]:
    r"""Return the sides and the signs of an inequality in turn; without signs it is one side.

    Signs that all point down are turned: b > a is a < b.
    """
    parts = [part.strip() for part in ORDER.split(answer)]
    if not set(parts[1::2]) <= ASCENDING.keys():
        return parts
    return [ASCENDING.get(part, part) for part in reversed(parts)]


def intervals(answer: str) -> tuple[str, list[str]] | None:
    r"""Return the variable (or "") and the intervals of a union, None for anything else.

    >>> intervals(r"|x| \ge 2"), intervals(r"(0,1] \cup \{3\}")
    (('x', ['(-\\infty, -(2)]', '[2, \\infty)']), ('', ['(0,1]', '[3, 3]']))
    """
    if re.fullmatch(EVERYTHING, answer):
        return "", [r"(-\infty, \infty)"]
    member = re.match(MEMBER, answer)
    variables = {member[1]} if member else set()
    pieces = []
    answer = answer[member.end() :] if member else answer
    for part in _solve(answer) if ORDER.search(answer) else split(answer, CUP):
        variable, interval = _read_interval(part)
        variables.add(variable)
        pieces.append(interval)
    variables.discard("")
    return ("".join(variables), pieces) if all(pieces) and len(variables) < 2 else None


def _solve(answer):
    """Return the alternatives of inequalities, each with its variable between two values."""
    alternatives = []
    for part in split(answer, ALTERNATIVES):
        sides = [" ".join(chain(side)) for side in split(part, r",?\s*\band\b\s*")]
        alternatives += rewrite(" and ".join(sides), SOLUTIONS).split(" or ")
    return alternatives


def _read_interval(piece):
    r"""Return the variable, or "", and the interval, or "": of a < x \le b, (0,1], \{3\}, x = 3."""
    between = BETWEEN.fullmatch(piece)
    if between:
        low, opening, variable, closing, high = between.groups()
        return variable, f"{OPENING[opening]}{low}, {high}{CLOSING[closing]}"
    kind, ends = entries(piece)
    if len(ends) == 2 and kind[0] in "([":
        return "", piece
    point = re.fullmatch(POINT, piece)
    if not point:
        return "", ""
    value = point[1] or point[3]
    return point[2] or "", f"[{value}, {value}]"
