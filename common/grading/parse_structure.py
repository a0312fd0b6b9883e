r"""What an answer is made of: lists, tuples, matrices, unions of intervals, inequalities, labels. For strings in normal form (spelling.py)."""

import re

from common.grading.normalize_latex import squash


def flat(answer: str) -> str:
    """As long as the answer, with \0 for what stands in brackets (of any kind: (0,1] is a pair) and \1 where the outermost close."""
    out, depth, last = [], 0, 0
    for token in re.finditer(r"\\begin\{\w+\}|\\end\{\w+\}|\\[{}]|[()\[\]{}]", answer):
        out.append("\0" * (token.start() - last) if depth else answer[last : token.start()])
        depth = max(depth + (1 if token[0].startswith(r"\b") or token[0][-1] in "([{" else -1), 0)
        out.append("\0" * (len(token[0]) - 1) + ("\0" if depth else "\1"))
        last = token.end()
    return "".join(out) + answer[last:]


def split(answer: str, separator: str) -> list[str]:
    """The parts of an answer between the separators outside all brackets."""
    cuts = [
        (0, 0),
        *(match.span() for match in re.finditer(separator, flat(answer))),
        (len(answer), len(answer)),
    ]
    return [
        part for (_, start), (end, _) in zip(cuts, cuts[1:]) if (part := answer[start:end].strip())
    ]


def enclosed(answer: str) -> bool:
    """Whether the first bracket closes at the end."""
    return bool(answer) and flat(answer).find("\1") == len(answer) - 1


# ---- labels: x = 5, f(x) = 2x, \angle ABC = 30 ----

LETTER = r"(?:\\[a-z]+|[A-Za-z])(?:_(?:\w|\{[^{}]*\}))?'*"
NAME = (  # a letter, a vector or an angle, AB, a word; with a subscript, primes and arguments
    r"(?!\\(?:sin|cos|tan|cot|sec|csc|log|ln|exp|frac|sqrt|max|min)(?![a-z]))(?:\\(?:angle|triangle|overline|vec|hat|mathbb)\s*)?"
    r"(?:\\[A-Za-z]+|\{\w+\}|[A-Z]{2,3}|[A-Za-z]{4,}|[A-Za-z])(?:_(?:\w|\\[a-z]+|\{[^{}]*\}))?'*\s?(?:\([\w,.\s]*\))?"
)
LABEL = re.compile(
    rf"({NAME}(?::{NAME})*|\|\w+\||\({NAME}(?:,\s*{NAME})*\)|{NAME}(?:\s[a-z]+)*(?=:))"
    r"\s*(?:=|\\approx|\\in(?![a-z])|(?<=[a-z]{4}):)\s*(?=\S)"
)
ASKED = re.compile(
    rf"{NAME}(?:[+/]{NAME})*|\\frac\{{{NAME}\}}\{{{NAME}\}}"
)  # m+n, V_o/V_i: the question names it. Without spaces


def label_of(answer: str) -> tuple[str, str]:
    """x = 5 -> ("x", "5"); A = \\pi r^2 = 9\\pi -> ("A", "9\\pi"); an equation such as x + y = 1 has no label: ("", itself)."""
    label = LABEL.match(answer)
    return (
        (squash(label[1]), answer[label.end() :].rpartition("=")[2].strip())
        if label
        else ("", answer)
    )


# ---- lists and tuples ----

COMMA = r",?\s*\b(?:and|or)\b\s*|[,;]"
MATRIX = re.compile(
    r"([(\[]?)\s*\\begin\{([pbBvV]?matrix|smallmatrix|array|cases)\}(.*)\\end\{\2\}\s*([)\]]?)"
)
PLUS_MINUS, MINUS_PLUS = re.compile(r"\\pm(?![a-z])"), re.compile(r"\\mp(?![a-z])")


def list_label(answer: str) -> str:
    r"""The label that stands before a whole list, with its sign: of x = 1, 2 and S = \{1, 4\}, not of x = 1, y = 2; or ""."""
    label = LABEL.match(answer)
    rest = answer[label.end() :] if label else ""
    several = len(split(rest, COMMA)) > 1 and not re.search(r"[=<>]|\\[lg]e(?![a-z])", rest)
    return label[0] if re.match(r"\\\{[^|:]*\\\}$", rest) or several else ""


def parts(answer: str) -> list[str]:
    r"""The elements of a set or a bare list, the equations of a system, a \pm b as two; another answer is its only element."""
    answer = answer.removeprefix(list_label(answer))
    inner = re.fullmatch(r"\\\{([^|:]*)\\\}|\{([^|:]*,[^|:]*)\}", answer)
    if inner and enclosed(answer):
        answer = inner[1] or inner[2] or ""
    matrix = MATRIX.fullmatch(answer)
    if matrix and matrix[2] == "cases" and "&" not in matrix[3]:
        return [row.strip(" ,") for row in matrix[3].split("\\\\") if row.strip(" ,")]
    doubled = [
        MINUS_PLUS.sub(minus, PLUS_MINUS.sub(plus, part))
        for part in split(answer, COMMA)
        for plus, minus in ("+-", "-+")[: 2 if PLUS_MINUS.search(part) else 1]
    ]
    return [re.sub(r"(^|=)\s*\+\s*(?=\S)", r"\1", part) for part in doubled]


def bracketed(answer: str) -> tuple[str, list[str]]:
    r"""(2, 3] -> ("(]", ["2", "3"]); a matrix -> (its row lengths, its entries); anything else -> ("", [])."""
    if not enclosed(answer):
        return "", []
    matrix = MATRIX.fullmatch(answer)
    if matrix and matrix[2] not in ("vmatrix", "Vmatrix") and bool(matrix[1]) == bool(matrix[4]):
        rows = [
            [entry.strip() for entry in row.split("&")]
            for row in matrix[3].split("\\\\")
            if row.strip(" ,&")
        ]
        kind = " ".join(str(len(row)) for row in rows)
        if matrix[2] == "cases":  # & \text{if } x > 0,
            kind, rows = (
                f"cases {kind}",
                [
                    [re.sub(r"^(?:if|when|for)\b|,$", "", entry).strip() for entry in row]
                    for row in rows
                ],
            )
        return kind, [entry for row in rows for entry in row]
    return (
        (answer[0] + answer[-1], split(answer[1:-1], "[,;]"))
        if answer[0] in "([" and answer[-1] in ")]"
        else ("", [])
    )


# ---- inequalities and intervals ----

RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne)(?![a-z])|\\cup|\\cap|\\setminus|\\\{")
ORDER = re.compile(r"<|>|\\(?:le|ge|ne)(?![a-z])")
FLIPPED = {">": "<", r"\ge": r"\le", "<": ">", r"\le": r"\ge", r"\ne": r"\ne"}
ALONE = re.compile(rf"(\|?)\s*({LETTER})\s*\1")  # x or |x|
EVERYTHING = re.compile(
    r"\\mathbb\{R\}|(?:all|any) real(?: number)?s?|reals?|[a-z]\s*\\in\s*\\mathbb\{R\}|-\s*\\infty\s*<\s*[a-z]\s*<\s*\+?\\infty"
)

Interval = tuple[str, str, str, str]  # bracket, lower end, upper end, bracket


def chain(answer: str) -> tuple[list[str], list[str]] | None:
    """An inequality as (its sides, its signs), all written with < and \\le: b > a is a < b; None for anything else."""
    sides, signs = [side.strip() for side in ORDER.split(answer)], ORDER.findall(answer)
    if signs and set(signs) <= {">", r"\ge"}:
        sides, signs = sides[::-1], [FLIPPED[sign] for sign in signs[::-1]]
    return (sides, signs) if signs else None


def intervals(answer: str) -> tuple[str, list[Interval]] | None:
    r"""(the variable or "", the pieces of a union): (0,1] \cup (2,\infty), 0 < x \le 1 or x > 2; None for anything else."""
    variables, pieces = set(), []
    if member := re.match(rf"({LETTER})\s*\\in\s*(?=[(\[])", answer):
        answer, variables = answer[member.end() :], {member[1]}
    if EVERYTHING.fullmatch(answer):
        return "", [("(", r"-\infty", r"\infty", ")")]
    for part in split(
        answer,
        r"\\cup(?![a-z])|,?\s*\bor\b\s*|,(?![^<>]*$)"
        if ORDER.search(answer)
        else r"\\cup(?![a-z])",
    ):
        kind, ends = bracketed(part)
        if len(ends) == 2 and kind in ("()", "(]", "[)", "[]"):
            pieces.append((kind[0], *(re.sub(r"^\+\s*", "", end) for end in ends), kind[1]))
        elif point := re.fullmatch(r"\\\{([^,]*)\\\}", part):
            pieces.append(("[", point[1], point[1], "]"))
        elif ordered := _inequality(part) or _between(part):
            variables.add(ordered[0])
            pieces += ordered[1]
        else:
            return None
    return ("".join(variables), pieces) if pieces and len(variables) <= 1 else None


def _between(part: str) -> tuple[str, list[Interval]] | None:
    """x > a and x < b."""
    both = [_inequality(side) for side in split(part, r",?\s*\band\b\s*")]
    if (
        len(both) != 2
        or None in both
        or both[0][0] != both[1][0]
        or any(len(pieces) != 1 for _, pieces in both)
    ):
        return None
    (low,), (high,) = sorted(
        (pieces for _, pieces in both), key=lambda pieces: pieces[0][1] == r"-\infty"
    )
    return (
        (both[0][0], [(*low[:2], *high[2:])])
        if low[2] == r"\infty" and high[1] == r"-\infty"
        else None
    )


def _inequality(part: str) -> tuple[str, list[Interval]] | None:
    r"""(the variable, the intervals) of an inequality in which it stands alone: a < x \le b, x > a, |x| < a, x \ne a."""
    ordered = chain(part)
    if ordered is None:
        return None
    sides, signs = ordered
    if len(sides) == 3 and re.fullmatch(LETTER, sides[1]) and set(signs) <= {"<", r"\le"}:
        return sides[1], [
            ("[" if "e" in signs[0] else "(", sides[0], sides[2], "]" if "e" in signs[1] else ")")
        ]
    if len(sides) != 2:
        return None
    sign = signs[0]
    if not ALONE.fullmatch(sides[0]):
        sides, sign = sides[::-1], FLIPPED[sign]
    if not (variable := ALONE.fullmatch(sides[0])):
        return None
    absolute, name, end = variable[1], variable[2], sides[1]
    opening, closing = "[" if "e" in sign else "(", "]" if "e" in sign else ")"
    below, above = (
        ("(", r"-\infty", f"-({end})" if absolute else end, closing),
        (opening, end, r"\infty", ")"),
    )
    if sign == r"\ne":
        return (
            None if absolute else (name, [("(", r"-\infty", end, ")"), ("(", end, r"\infty", ")")])
        )
    if absolute:
        return name, [(opening, f"-({end})", end, closing)] if sign in ("<", r"\le") else [
            below,
            above,
        ]
    return name, [below if sign in ("<", r"\le") else above]
