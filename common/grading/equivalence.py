r"""Decide gold = answer by strict mathematical equivalence, for two short TeX or plain strings.

The order: the same string; unions of intervals; lists, sets and \pm element by element; labels and
equations; tuples, intervals and matrices entry by entry; units; exact rational numbers; words.
Only the symbolic rest goes to sympy, in a process that can be killed (sympy_worker.py).

No string ever reaches eval, sympify or parse_expr, and no integer becomes a float. What cannot be
decided counts as different.
"""

import re
from fractions import Fraction

from common.grading import sympy_worker
from common.grading.normalize_latex import WHERE, normalize, remove_spaces
from common.grading.parse_structure import (
    QUESTION_LABEL,
    RELATION,
    chain,
    elements,
    entries,
    hide_brackets,
    intervals,
    is_column,
    is_list,
    split_label,
)
from common.grading.quantities import agree, join_quantities, multiply, ratio, read_quantity
from common.grading.read_numbers import read_number
from common.grading.text_answers import same_text, spell_out

SYMBOLIC_SECONDS = 4.0  # of CPU time, for all symbolic comparisons of one answer
MAX_ANSWER, MAX_SYMBOLIC = 20_000, 1_000  # characters: understood at all, given to sympy
MAX_ITEMS, MAX_DEPTH = 64, 12  # of a list, of nested brackets

KNOWN = (  # names that leave a left side a calculation: 3 \cdot 4 = 12
    r"\\(?:frac|sqrt|cdot|times|pi|sin|cos|tan|log|ln|exp|binom|pmod|pm|lfloor|rfloor)(?![a-z])"
    r"|\\(?:begin|end)\{\w+\}|\\[{}\\]"
)
UNKNOWN = r"[A-Za-df-hj-z]|\\"  # a letter or a command; e and i are numbers
ARGUMENTS = r"\([A-Za-z,]*\)$"  # of f(x)
NO_WORDS = (
    r"[LMR](?:sun|earth|jup)|\\(?:begin|end)\{\w+\}|\\[A-Za-z]+|arc(?:sin|cos|tan)|(?:sin|cos|tan)h"
)
SHORT_WORDS = {"yes", "no", "on", "dne", "one", "two", "six", "ten", "red"}  # on is not no
CAPITALIZED = r"(?<![A-Za-z])(?:[A-Z][a-z]*|[A-Z]{3,})(?![A-Za-z])"  # Even, EVEN; not AaBb, CaCO
VERBATIM = r"[\dA-Fa-f]+_(?:\d+|\{\w+\})|[^{}]*:[^{}]*|.*\\pmod\b.*"  # 101_2, 1:2, 5 \pmod{7}
DERIVATIVE = r"\\frac\{ ?d ?([A-Za-z]) ?\}\{ ?d ?[A-Za-z] ?\}"
# Not worth a worker's life: huge numbers and exponents, factorials of them, towers of powers,
# brackets 30 deep.
HOSTILE = re.compile(
    r"\d{300}|\d{4}\s*!|!\s*[!)}]\s*!|\^[\s{(+-]*\d{5}"
    r"|(?:\^[\s{(]*\d+\s*){3}|(?:[{(\[][^{}()\[\]]*){30}"
)


def equivalent(gold: str, answer: str, tolerance: float = 0) -> bool:
    """Return whether an answer equals the gold.

    tolerance: relative, for numbers whose gold is not written as an integer.
    Raises TimeoutError if sympy needs more than SYMBOLIC_SECONDS.
    """
    if max(len(gold), len(answer)) > MAX_ANSWER:
        return gold.strip() == answer.strip()
    gold, answer = normalize(gold), normalize(answer)
    if not re.search(WHERE, gold):
        answer = re.sub(WHERE, "", answer)  # names that the gold does not explain
    return _Comparison(tolerance).equal(gold, answer)


class _Comparison:
    """The comparison of a gold and an answer, with one allowance of time for sympy.

    The methods that VALUE_RULES lists return None if their rule does not apply.
    """

    def __init__(self, tolerance):
        self.tolerance, self.depth = tolerance, 0
        self.sympy = sympy_worker.Allowance(SYMBOLIC_SECONDS)

    def equal(self, gold, answer):
        """Return whether two strings in normal form are the same; if undecided, False."""
        if not gold or not answer or self.depth > MAX_DEPTH:
            return False
        self.depth += 1
        verdict = self._compare(gold, answer)
        self.depth -= 1
        return verdict

    def _compare(self, gold, answer):
        if remove_spaces(gold) == remove_spaces(answer):
            return True
        gold, answer = join_quantities(spell_out(gold)), join_quantities(spell_out(answer))
        if same_text(gold, answer):
            return True
        verdict = self._unions(gold, answer)
        if verdict is not None:
            return verdict
        if self._chains(gold, answer):
            return True
        golds, answers = elements(gold), elements(answer)
        if len(golds) != 1 or len(answers) != 1:
            return self._lists(golds, answers)
        verdicts = (rule(self, golds[0], answers[0]) for rule in self.VALUE_RULES)
        return next(verdict for verdict in verdicts if verdict is not None)

    def _unions(self, gold, answer):
        """Compare unions of intervals: the same pieces in any order."""
        union, other = intervals(gold), intervals(answer)
        if not union or not other or entries(gold)[0] and entries(answer)[0]:
            return None
        return self._pair_up(union[1], other[1]) if len({union[0], other[0]} - {""}) < 2 else None

    def _chains(self, gold, answer):
        golds, answers = chain(gold), chain(answer)
        same_signs = len(golds) > 1 and golds[1::2] == answers[1::2]
        return same_signs and self._all(golds[::2], answers[::2])

    def _all(self, golds, answers):
        return len(golds) == len(answers) and all(map(self.equal, golds, answers))

    def _lists(self, golds, answers):
        """Compare lists or sets in any order, but (1, 2, 3) with the list 1, 2, 3 in this order."""
        if len(golds) == len(answers):
            return self._pair_up(golds, answers)
        gold, answer = _as_tuple(golds), _as_tuple(answers)
        if is_list(*gold) and is_list(*answer):
            return self._all(gold[1], answer[1])
        return self._point(golds, answers) or self._point(answers, golds)

    def _point(self, point, coordinates):
        """Compare (1, 3) with x = 1, y = 3, whose names are in the order of the alphabet."""
        if len(point) != 1:
            return False
        kind, values = entries(point[0])
        labels = [split_label(coordinate)[0] for coordinate in coordinates]
        in_order = all(labels) and labels == sorted(set(labels))
        named = [split_label(coordinate)[1] for coordinate in coordinates]
        return kind == "()" and in_order and self._all(values, named)

    def _pair_up(self, golds, answers):
        """Return whether each gold has an answer of its own."""
        if len(golds) != len(answers) or len(golds) > MAX_ITEMS:
            return False
        answers = list(answers)
        for gold in golds:
            for answer in answers:
                if self.equal(gold, answer):
                    answers.remove(answer)
                    break
            else:
                return False
        return True

    def _labels(self, gold, answer):
        """Compare labelled values: x = 1 is 1, but not y = 1."""
        gold_label, gold_value = split_label(gold)
        answer_label, answer_value = split_label(_rename_argument(gold, answer))
        if gold_label and answer_label:
            if _same_label(gold_label, answer_label) and self.equal(gold_value, answer_value):
                return True
            return "(" not in gold_label + answer_label and self._symbolic(gold, answer)
        if not gold_label and not answer_label:
            return None
        if _is_equation(answer if gold_label else gold):  # y = 1 - x against x + y = 1
            return self._symbolic(gold, answer)
        return self.equal(gold_value, answer_value)

    def _one_equation(self, gold, answer):
        r"""Compare a value with an equation: 3 \cdot 4 = 12 and m + n = 12 say 12, 2x = 12 not."""
        equation = gold if _is_equation(gold) else answer
        if _is_equation(gold) == _is_equation(answer):
            return None
        left, _, right = equation.rpartition("=")
        calculation = not re.search(UNKNOWN, re.sub(KNOWN, "", left))
        if not calculation and not re.fullmatch(QUESTION_LABEL, remove_spaces(left)):
            return False
        if equation == gold:
            return self.equal(right.strip(), answer)
        return self.equal(gold, right.strip())

    def _inner_values(self, gold, answer):
        """Compare without parentheses around a single value, and without approximations of it."""
        inner, other = _inside(gold), _inside(answer)
        return None if (inner, other) == (gold, answer) else self.equal(inner, other)

    def _entries(self, gold, answer):
        """Compare tuples, intervals and matrices entry by entry."""
        (gold_kind, golds), (answer_kind, answers) = entries(gold), entries(answer)
        if gold_kind and answer_kind:
            lists = is_list(gold_kind, golds) and is_list(answer_kind, answers)
            kinds = {gold_kind, answer_kind}
            is_point = {"()", "[]"} & kinds and any(map(is_column, kinds))  # (1, 2), as a column
            return (lists or is_point or gold_kind == answer_kind) and self._all(golds, answers)
        if not gold_kind and not answer_kind or r"\begin" in gold + answer:
            return None
        return None if re.search(RELATION, answer if gold_kind else gold) else False

    def _units(self, gold, answer):
        """Compare quantities: 5 km is 5000 m. A unit may be left out, but not %: 50 is not 50 %."""
        first, second = read_quantity(gold), read_quantity(answer)
        if (first.value, second.value) == (gold, answer):
            plain = gold.replace("§", ""), answer.replace("§", "")
            return None if plain == (gold, answer) else self.equal(*plain)
        if not agree(first, second):
            return False
        if self.equal(first.value, multiply(second.value, ratio(first, second))):
            return True
        # A single letter may have been a factor: \frac{1}{2} N is \frac{N}{2}.
        return None if first.is_letter or second.is_letter else False

    def _numbers(self, gold, answer):
        value, other = read_number(gold), read_number(answer)
        if value is None or other is None:
            return None
        tolerance = 0 if re.fullmatch(r"[-+]?\d+", gold) else Fraction(self.tolerance)
        return abs(value - other) <= tolerance * abs(value)

    def _verbatim(self, gold, answer):
        """Compare ratios, congruences and numbers in another base as strings."""
        if re.fullmatch(VERBATIM, gold) or re.fullmatch(VERBATIM, answer):
            return remove_spaces(gold) == remove_spaces(answer)
        return None

    def _words(self, gold, answer):
        """Compare words without spaces, hyphens and the case of capitalized ones; xy is yx."""
        texts = re.sub(NO_WORDS, " ", f"{gold} {answer}")
        if not re.search("[A-Za-z]{4}", texts) and not _both("[A-Za-z ]+", gold, answer):
            return None
        gold, answer = _letters_only(gold), _letters_only(answer)
        if _both("[a-z]{2,3}", gold, answer) and not {gold, answer} & SHORT_WORDS:
            return sorted(gold) == sorted(answer)
        return gold == answer and len(gold) > 1

    def _symbolic(self, gold, answer):
        for side in (gold, answer):
            if len(side) > MAX_SYMBOLIC or HOSTILE.search(side):
                return False
        if "'" in gold + answer:
            gold, answer = (re.sub(DERIVATIVE, r"\1'", side) for side in (gold, answer))
        if gold.count("'") != answer.count("'"):  # the grammar drops primes: f' is not f
            return False
        return self.sympy.ask("equal", gold, answer, self.tolerance)

    VALUE_RULES = (
        _labels,
        _one_equation,
        _inner_values,
        _entries,
        _units,
        _numbers,
        _verbatim,
        _words,
        _symbolic,
    )


def _both(pattern, gold, answer):
    return re.fullmatch(pattern, gold) and re.fullmatch(pattern, answer)


def _is_equation(side):
    return "=" in hide_brackets(side)


def _as_tuple(items):
    return entries(split_label(items[0])[1]) if len(items) == 1 else ("()", items)


def _same_label(label, other):
    """Return whether f(x) = x and y = x, or f = x, or f(x) = x name the same; g(x) = x does not."""
    bare, other_bare = re.sub(ARGUMENTS, "", label), re.sub(ARGUMENTS, "", other)
    one_function = (bare != label) != (other_bare != other)
    return label == other or one_function and (bare == other_bare or "y" in (label, other))


def _rename_argument(gold, answer):
    """Return f(t) = t + 1 as f(x) = x + 1, if the gold is about f(x)."""
    argument, other = (re.match(r"[A-Za-z]\(([a-z])\) ?=", side) for side in (gold, answer))
    if not argument or not other or argument[1] in answer:
        return answer
    return re.sub(rf"(?<![A-Za-z\\]){other[1]}(?![A-Za-z])", argument[1], answer)


def _inside(side):
    r"""Return x of (x) and of x \approx 3, the matrix of a bracketed one; [5] stays a list."""
    side = side.partition(r"\approx")[0].strip()
    kind, items = entries(side)
    if len(items) == 1 and (kind == "()" or kind == "[]" and items[0].startswith(r"\begin")):
        return items[0]
    return side


def _letters_only(side):
    side = re.sub(r"['\"]|(?<=[A-Za-z])-(?=[A-Za-z])", "", side)
    side = re.sub(CAPITALIZED, lambda word: word[0].lower(), side)
    return re.sub(r"\s", "", side)
