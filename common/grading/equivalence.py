r"""gold = answer by strict mathematical equivalence, for two short TeX or plain strings.

Decided in this order: same string; unions of intervals; lists, sets and \pm element by element; labels and equations; tuples, intervals
and matrices entry by entry; units; exact rational numbers; words; and only for the symbolic rest sympy, in a process that can be killed
(worker.py). No string ever reaches eval, sympify or parse_expr, no integer a float. What cannot be decided counts as different.
"""

import re
from fractions import Fraction

from common.grading import sympy_worker as worker
from common.grading.numbers_and_units import rational, split_unit
from common.grading.normalize_latex import WHERE, normalize, remove_spaces
from common.grading.parse_structure import (
    QUESTION_LABEL,
    RELATION,
    Interval,
    entries,
    chain,
    hide_brackets,
    intervals,
    split_label,
    list_label,
    elements,
)

SYMBOLIC_SECONDS = (
    3.0  # for all symbolic comparisons of one answer together; a worker's start is counted
)
MAX_ANSWER, MAX_SYMBOLIC = (
    20_000,
    1_000,
)  # characters that are understood at all, that sympy is given
MAX_ITEMS, MAX_DEPTH = 64, 12  # of a list, of nested brackets


def equivalent(gold: str, answer: str, tolerance: float = 0) -> bool:
    """Whether an answer equals the gold. tolerance: relative, for numbers whose gold is not written as an integer. Raises TimeoutError
    when sympy needs more than SYMBOLIC_SECONDS."""
    if max(len(gold), len(answer)) > MAX_ANSWER:
        return gold.strip() == answer.strip()
    gold, answer = normalize(gold), normalize(answer)
    if not WHERE.search(gold):
        answer = WHERE.sub("", answer)  # names explained that the gold does not explain
    return _Comparison(tolerance).equal(gold, answer)


KNOWN = re.compile(
    r"\\(?:frac|sqrt|cdot|times|pi|sin|cos|tan|log|ln|exp|binom|pmod|pm|lfloor|rfloor)(?![a-z])|\\(?:begin|end)\{\w+\}|\\[{}\\]"
)
NO_WORDS = re.compile(r"\\(?:begin|end)\{\w+\}|\\[A-Za-z]+|arc(?:sin|cos|tan)|(?:sin|cos|tan)h")
SHORT = {
    "yes",
    "no",
    "on",
    "dne",
    "one",
    "two",
    "six",
    "ten",
    "red",
}  # words that are not products of letters
# Not worth a worker's life: huge numbers and exponents, factorials of them, towers of powers, brackets 30 deep.
HOSTILE = re.compile(
    r"\d{300}|\d{4}\s*!|!\s*[!)}]\s*!|\^[\s{(+-]*\d{5}|(?:\^[\s{(]*\d+\s*){3}|(?:[{(\[][^{}()\[\]]*){30}"
)


WORDS = re.compile("[A-Za-z]+")


def _small(word: re.Match) -> str:
    """Even, EVEN and even are one word; AaBb and CaCO are as they are."""
    return (
        word[0].casefold()
        if word[0].istitle() or word[0].isupper() and len(word[0]) > 2
        else word[0]
    )


class _Comparison:
    """Equality of a gold and an answer in normal form, within one allowance of time for sympy."""

    def __init__(self, tolerance: float):
        self.tolerance, self.seconds = tolerance, SYMBOLIC_SECONDS

    def equal(self, gold: str, answer: str, depth: int = 0) -> bool:
        """Whether two strings in normal form are the same answer; False where that cannot be decided."""
        if not gold or not answer or depth > MAX_DEPTH:
            return False
        if remove_spaces(gold) == remove_spaces(answer):
            return True
        unions = intervals(gold), intervals(answer)
        if (
            None not in unions
            and not (entries(gold)[0] and entries(answer)[0])
            and len({name for name, _ in unions} - {""}) < 2
        ):
            return self._unions(unions[0][1], unions[1][1], depth + 1)
        chains = chain(gold), chain(answer)
        if (
            None not in chains
            and chains[0][1] == chains[1][1]
            and self._all(chains[0][0], chains[1][0], depth + 1)
        ):
            return True
        golds, answers = elements(gold), elements(answer)
        if len(golds) != 1 or len(answers) != 1:
            labels = {remove_spaces(list_label(side)) for side in (gold, answer)} - {""}
            return len(labels) < 2 and self._lists(golds, answers, depth + 1)
        gold, answer = golds[0], answers[0]
        (gold_label, gold_value), (answer_label, answer_value) = (
            split_label(gold),
            split_label(answer),
        )
        if gold_label and answer_label:  # x = 1 is not y = 1; f(x) = x is y = x, not g(x) = x
            bare = [re.sub(r"\([A-Za-z,]*\)$", "", label) for label in (gold_label, answer_label)]
            one_function = (bare[0] != gold_label) != (
                bare[1] != answer_label
            )  # f(x) = x is f = x, and y = x
            same = (
                gold_label == answer_label
                or one_function
                and (bare[0] == bare[1] or "y" in (gold_label, answer_label))
            )
            if same and self.equal(gold_value, answer_value, depth + 1):
                return True
            return "(" not in gold_label + answer_label and self._symbolic(gold, answer)
        equations = tuple("=" in hide_brackets(side) for side in (gold, answer))
        if gold_label or answer_label:
            equation = equations[1 if gold_label else 0]  # y = 1 - x against x + y = 1
            return (
                self._symbolic(gold, answer)
                if equation
                else self.equal(gold_value, answer_value, depth + 1)
            )
        if (
            equations[0] != equations[1]
        ):  # 3 \cdot 4 = 12 and m + n = 12 say 12; 2x + z = 12 does not
            left, _, right = (answer if equations[1] else gold).rpartition("=")
            asked = QUESTION_LABEL.fullmatch(remove_spaces(left)) or not re.search(
                r"[A-Za-df-hj-z]|\\", KNOWN.sub("", left)
            )  # e and i are numbers
            return bool(asked) and self.equal(
                *((gold, right.strip()) if equations[1] else (right.strip(), answer)), depth + 1
            )
        if r"\approx" in gold + answer:  # the side in front of it is the exact one
            gold, answer = (side.partition(r"\approx")[0].strip() for side in (gold, answer))
            return self.equal(gold, answer, depth + 1)
        return self._values(gold, answer, depth + 1)

    def _unions(self, golds: list[Interval], answers: list[Interval], depth: int) -> bool:
        """Unions of intervals: the same pieces in any order."""

        def same(gold: Interval, answer: Interval) -> bool:
            return gold[::3] == answer[::3] and all(
                self.equal(*ends, depth) for ends in zip(gold[1:3], answer[1:3])
            )

        return len(golds) == len(answers) <= MAX_ITEMS and self._pair_up(golds, answers, same)

    def _all(self, golds: list[str], answers: list[str], depth: int) -> bool:
        return len(golds) == len(answers) and all(
            self.equal(*pair, depth) for pair in zip(golds, answers)
        )

    def _lists(self, golds: list[str], answers: list[str], depth: int) -> bool:
        """Lists and sets: the same elements in any order. (1, 2, 3) is the list 1, 2, 3 in this order."""
        if len(golds) != len(answers):
            pairs = [
                entries(split_label(side[0])[1]) if len(side) == 1 else ("()", side)
                for side in (golds, answers)
            ]
            (gold_kind, golds), (answer_kind, answers) = pairs
            return (
                gold_kind == answer_kind == "()"
                and len(golds) > 2
                and self._all(golds, answers, depth)
            )
        return len(golds) <= MAX_ITEMS and self._pair_up(
            golds, answers, lambda one, other: self.equal(one, other, depth)
        )

    def _pair_up(self, golds: list, answers: list, same) -> bool:
        """Whether each gold has an answer of its own."""
        answers = list(answers)
        for gold in golds:
            found = next(
                (place for place, answer in enumerate(answers) if same(gold, answer)), None
            )
            if found is None:
                return False
            del answers[found]
        return True

    def _values(self, gold: str, answer: str, depth: int) -> bool:
        """Two answers that are neither lists nor labelled."""
        (gold_kind, golds), (answer_kind, answers) = entries(gold), entries(answer)
        if (
            gold_kind in ("()", "[]")
            and len(golds) == 1
            or answer_kind in ("()", "[]")
            and len(answers) == 1
        ):
            # Parentheses around one thing are none; [5] stays a list, but brackets around a matrix belong to it.
            sides = [
                items[0]
                if len(items) == 1
                and (kind == "()" or kind == "[]" and items[0].startswith(r"\begin"))
                else side
                for side, kind, items in ((gold, gold_kind, golds), (answer, answer_kind, answers))
            ]
            return sides != [gold, answer] and self.equal(*sides, depth)
        if gold_kind and answer_kind:
            return gold_kind == answer_kind and self._all(golds, answers, depth)
        if (
            (gold_kind or answer_kind)
            and not RELATION.search(answer if gold_kind else gold)
            and not r"\begin" in gold + answer
        ):
            return False
        (gold_value, gold_unit), (answer_value, answer_unit) = split_unit(gold), split_unit(answer)
        if gold_unit != answer_unit and (
            gold_unit and answer_unit or "%" in (gold_unit, answer_unit)
        ):
            return (
                False  # a unit may be left out, but not %: 50 is not 50 %, nor is 0.5 taken for it
            )
        if (gold_unit or answer_unit) and self.equal(gold_value, answer_value, depth):
            return True
        if gold_unit == answer_unit != "" or len(gold_unit + answer_unit) > 1:
            return False  # a single letter may have been a factor: \frac{1}{2} N is \frac{N}{2}
        exact = rational(gold), rational(answer)
        if None not in exact:
            allowed = (
                Fraction(min(self.tolerance, 1))
                if self.tolerance > 0 and not re.fullmatch(r"[-+]?\d+", gold)
                else 0
            )
            return abs(exact[0] - exact[1]) <= allowed * abs(exact[0])
        return self._words(gold, answer)

    def _words(self, gold: str, answer: str) -> bool:
        """Ratios, congruences, numbers in another base and words are equal as strings or not at all; what is left is for sympy."""
        if any(
            re.fullmatch(r"[\dA-Fa-f]+_(?:\d+|\{\w+\})|[^{}]*:[^{}]*|.*\\pmod\b.*", side)
            for side in (gold, answer)
        ):
            return remove_spaces(gold) == remove_spaces(answer)
        plain = [NO_WORDS.sub(" ", side) for side in (gold, answer)]
        if (
            all(re.fullmatch("[A-Za-z]{2,3}", side) for side in (gold, answer))
            and not {gold.casefold(), answer.casefold()} & SHORT
        ):
            return (gold[0].casefold(), gold[1:]) == (answer[0].casefold(), answer[1:]) or sorted(
                gold
            ) == sorted(answer)  # Odd, odd; xy, yx
        if any(re.search("[A-Za-z]{4}", side) for side in plain) or all(
            re.fullmatch("[A-Za-z ]+", side) for side in (gold, answer)
        ):
            gold, answer = (
                WORDS.sub(_small, re.sub(r"['\"]|(?<=[A-Za-z])-(?=[A-Za-z])", "", side))
                for side in (gold, answer)
            )
            gold, answer = (re.sub(r"\s", "", side) for side in (gold, answer))
            return gold == answer and len(gold) > 1
        return self._symbolic(gold, answer)

    def _symbolic(self, gold: str, answer: str) -> bool:
        if any(len(side) > MAX_SYMBOLIC or HOSTILE.search(side) for side in (gold, answer)):
            return False
        if gold.count("'") != answer.count(
            "'"
        ):  # the grammar drops primes: f' is not f, 15' is not 15
            return False
        equal, seconds = worker.ask(
            ["equal", gold, answer, self.tolerance], max(self.seconds, 0.01)
        )
        self.seconds -= seconds
        return equal
