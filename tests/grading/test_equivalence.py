"""Strict equality of two answers.

Cases derived by hand, cases labelled by people who had not seen the grader, and properties.
"""

import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from common.grading.equivalence import equivalent
from common.grading.grader import extract_answer, grade, grade_many, is_correct
from common.grading.normalize_latex import normalize
from common.grading.quantities import find_unit, join_quantities, read_quantity, root_units
from common.grading.read_numbers import read_number

SHARED = Path(__file__).resolve().parents[3] / "shared"
CASES = Path(__file__).resolve().parents[1] / "cases"
SAMPLE = 12  # the quick tests take every twelfth case of the long lists


def read(path):
    if not path.exists():
        pytest.skip("needs ../shared")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


BY_HAND = read(CASES / "by_hand.jsonl")  # each holds in both directions
ANSWERS = sorted({row[side] for row in BY_HAND for side in ("answer", "gold")})


@pytest.mark.parametrize("equal", [True, False])
def test_pairs_derived_by_hand(equal):
    """2.5e3 = 2500; 1 1/2 = 1.5; 0.1666... = 1/6; sqrt(8) = 2 sqrt(2); y = 1 - x is x + y = 1."""
    wrong = []
    for row in BY_HAND:
        if row["equal"] is equal:
            both = {
                equivalent(row["gold"], row["answer"]),
                equivalent(row["answer"], row["gold"]),
            }
            if both != {equal}:
                wrong.append(row)
    assert not wrong


def test_every_answer_equals_itself():
    assert not [answer for answer in ANSWERS if not equivalent(answer, answer)]


def brackets(answer):
    if answer.count("(") != answer.count(")"):
        return answer
    return answer.replace("(", r"\left(").replace(")", r"\right)")


REWRITES = {  # what models do to an answer without changing it
    "dfrac": lambda answer: answer.replace(r"\frac", r"\dfrac"),
    "brackets": brackets,
    "period": lambda answer: answer + ".",
    "dollars": lambda answer: f"${answer}$" if "$" not in answer else answer,
    "style": lambda answer: rf"\displaystyle {answer}",
    "spaces": lambda answer: re.sub(r"(?<==)|(?<=[a-z)}],)", " ", answer),
    "cdot": lambda answer: answer.replace(r"\cdot", r"\times"),
    "final": lambda answer: rf"\text{{The final answer is }} {answer}",
}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_rewriting_changes_nothing(rewrite):
    assert not [answer for answer in ANSWERS if not equivalent(answer, REWRITES[rewrite](answer))]


def spellings(value):
    sign, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    yield f"{sign}{top}/{bottom}"
    yield rf"{sign}\frac{{{top}}}{{{bottom}}}"
    yield rf"\dfrac{{{sign}{top}}}{{{bottom}}}"
    if 10**6 % bottom == 0:
        millionths = top * (10**6 // bottom)
        yield f"{sign}{millionths // 10**6}.{millionths % 10**6:06d}"
    if bottom > 1 and top > bottom:
        yield rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}"


def test_rationals_are_equal_exactly_when_their_values_are():
    """An oracle: fractions.Fraction. Every spelling of two random rationals, without sympy."""
    rng = random.Random(0)
    wrong = []
    for _ in range(80):
        value, other = (
            Fraction(rng.randint(-40, 40), rng.choice([1, 2, 3, 4, 5, 7, 8, 10])) for _ in range(2)
        )
        for first in spellings(value):
            for second in spellings(other):
                if equivalent(second, first) != (value == other):
                    wrong.append((first, second))
    assert not wrong


def test_polynomials_are_equal_exactly_when_their_coefficients_are():
    """An oracle: products of two linear factors against expanded ones, half of them off by one."""
    rng = random.Random(1)
    wrong = []
    for _ in range(40):
        a, b, c, d = (rng.choice([-3, -2, -1, 1, 2, 3]) for _ in range(4))
        error = [0, 0, 0]
        if rng.random() < 0.5:
            error[rng.randrange(3)] = rng.choice([-1, 1])
        square, linear, constant = a * c + error[0], a * d + b * c + error[1], b * d + error[2]
        pair = f"({a}x{b:+})({c}x{d:+})", f"{constant} {linear:+}x {square:+}x^2"
        if equivalent(*pair) != (error == [0, 0, 0]):
            wrong.append(pair)
    assert not wrong


NUMBERS = {
    "12": 12,
    "-3.50": Fraction(-7, 2),
    r"\frac{3}{-4}": Fraction(-3, 4),
    "2 1/3": Fraction(7, 3),
    r"0.\overline{36}": Fraction(4, 11),
    r"0.1\overline{6}": Fraction(1, 6),
    "-.(3)": Fraction(-1, 3),
    r"3 \times 10^{-2}": Fraction(3, 100),
    "1/0": None,
    "x": None,
    "1e999999": None,
    "9" * 5_000: None,
    "²": None,
}


def test_numbers_are_exact():
    assert {text: read_number(text) for text in NUMBERS} == NUMBERS


QUANTITIES = {  # value, scale, {(root unit, power)}, description
    "12 feet": ("12", 1, {("meter", 1)}, set()),
    r"3 \text{ m}\,\text{s}^{-2}": ("3", 1, {("meter", 1), ("second", -2)}, set()),
    r"3.2\, \frac{\text{kg}}{\text{m}^3}": ("3.2", 1, {("gram", 1), ("meter", -3)}, set()),
    "10 mph": ("10", 1, {("meter", 1), ("second", -1)}, set()),
    r"16 \text{ cubic feet}": ("16", 1, {("meter", 3)}, set()),
    r"12 \text{ sec}": ("12", 1, {("second", 1)}, set()),
    r"2 M_\odot": ("2", 1, {("gram", 1)}, set()),
    r"\$7 \text{ million}": ("7", 10**6, {("dollar", 1)}, set()),
    "7 dozen": ("7", 12, set(), set()),
    r"8 \text{ blue marbles}": ("8", 1, set(), {"blue", "marble"}),
    r"8 \text{ cups of flour}": ("8", 1, {("meter", 3)}, {"of", "flour"}),
    # letters that may be factors, an argument, words that change the value
    "5m": ("5m", 1, set(), set()),
    "3 ab": ("3 ab", 1, set(), set()),
    r"\frac{1}{m} t": (r"\frac{1}{m} t", 1, set(), set()),
    r"\sin 32^\circ": (r"\sin 32°", 1, set(), set()),
    r"8 \text{ fewer}": ("8 §fewer", 1, set(), set()),
}


def test_units_scales_and_descriptions_are_split_off():
    quantities = {text: read_quantity(normalize(text)) for text in QUANTITIES}
    assert {
        text: (quantity.value, quantity.scale, quantity.unit, quantity.words)
        for text, quantity in quantities.items()
    } == QUANTITIES


def test_sizes_of_units():
    """An inch is 2.54 cm, a pound 453.59237 g, a kWh 3600 kJ = 3.6e9 g m^2 / s^2."""
    inch, pounds, energy = find_unit("inch"), find_unit("Pounds"), find_unit("kWh")
    assert inch and pounds and energy
    assert root_units({inch: 1}) == (pytest.approx(0.0254), {("meter", 1)})
    assert root_units({pounds: 1}) == (pytest.approx(453.59237), {("gram", 1)})
    joule = {("gram", 1), ("meter", 2), ("second", -2)}
    assert root_units({energy: 1}) == (pytest.approx(3.6e9), joule)
    assert find_unit("marbles") is None and find_unit("m" * 1_000) is None


def test_a_quantity_in_two_units_is_one():
    """6 ft 3 in = 6 3/12 ft; 5 m and 3 m are two."""
    assert join_quantities("6 ft 3 in") == r"\frac{25}{4} ft"
    assert join_quantities("5 m and 3 m") == "5 m and 3 m"


CONVERSIONS = {  # (answer, gold): equal
    (r"5000 \text{ m}", r"5 \text{ km}"): True,
    (r"36 \text{ km/h}", r"10 \text{ m/s}"): True,
    (r"3\pi \text{ km}", r"3000\pi \text{ m}"): True,
    (r"5\text{ N}", r"5\text{ kg m/s}^2"): True,
    (r"90 \text{ minutes}", r"1.5 \text{ hours}"): True,
    ("5 cents", r"\$0.05"): True,
    (r"5 \text{ km}", "5000"): False,
    (r"5000 \text{ m}", r"50 \text{ km}"): False,
    (r"20^\circ\text{C}", r"20 \text{ K}"): False,
    (r"5\text{ Msun}^8", r"5\text{ amu}^8"): False,  # a quotient of more than a float holds
    (r"5 \text{ m north}", r"5 \text{ m south}"): False,
    (r"5 \text{ apples}", r"5 \text{ oranges}"): False,
}


def test_equal_quantities_in_different_units():
    assert {pair: equivalent(pair[1], pair[0]) for pair in CONVERSIONS} == CONVERSIONS


def test_tolerance_is_relative_and_not_for_integers():
    assert equivalent("4.0", "4.04", 0.01) and not equivalent("4.0", "4.05", 0.01)
    assert equivalent("7.36e-12", "7.4e-12", 0.01)  # 0.04 / 7.36 = 0.5 %
    assert equivalent("1.41", r"\sqrt{2}", 0.01) and not equivalent("1.41", r"\sqrt{2}")
    assert equivalent("(1.5, 2.5)", "(1.51, 2.49)", 0.01)
    assert not equivalent("28800", "28799", 0.01)
    assert not equivalent("0.0", "0.01", 0.01)


def box(answer):
    return rf"The answer is $\boxed{{{answer}}}$."


def differing(rows, results, label):
    return [
        f"{row} -> {result}"
        for row, result in zip(rows, results)
        if result.correct != row[label]
        or row.get("how", result.extraction_method) != result.extraction_method
    ]


@pytest.mark.parametrize("step", [SAMPLE, pytest.param(1, marks=pytest.mark.slow)])
def test_labelled_pairs(step):
    """1,226 pairs of 48 classes, half of them near misses, by people who had not seen it."""
    rows = read(CASES / "equivalence.jsonl")
    assert len(rows) == 1226
    rows = rows[::step]
    results = grade_many([box(row["answer"]) for row in rows], [row["gold"] for row in rows])
    assert not differing(rows, results, "equal")


@pytest.mark.parametrize("step", [SAMPLE, pytest.param(1, marks=pytest.mark.slow)])
def test_labelled_outputs(step):
    """1,316 whole outputs in the styles of many models, by two people who had not seen it."""
    rows = read(CASES / "outputs.jsonl")
    assert len(rows) == 1316
    rows = rows[::step]
    results = [grade(row["output"], row["gold"], choices=row.get("choices")) for row in rows]
    assert not differing(rows, results, "correct")


@pytest.mark.slow
def test_labelled_cases_of_other_projects():
    """The undisputed cases: at least 98.5 % agree, and no wrong answer is accepted."""
    rows = [
        row
        for row in read(SHARED / "grading/dev.jsonl")
        if not row["tag"].startswith("disputed") and row["kind"] != "extract_only"
    ]
    texts = [row["pred"] if row["kind"] == "extract" else box(row["pred"]) for row in rows]
    results = grade_many(texts, [row["gold"] for row in rows])
    wrong = [row for row, result in zip(rows, results) if result.correct != row["expected"]]
    assert not [row for row in wrong if not row["expected"]]
    assert len(wrong) / len(rows) <= 0.015


GOLDS = {
    "math": lambda row: extract_answer(row["solution"]),
    "math500": lambda row: row["answer"],
    "minerva_math": lambda row: row["answer"],
    "gsm8k": lambda row: row["answer"].partition("####")[2].strip(),
    "olympiadbench": lambda row: row["final_answer"][0],
    "theoremqa": lambda row: str(row["Answer"]),
    "aime24": lambda row: str(row["answer"]),
    "amc23": lambda row: str(row["answer"]),
}


def golds_of(benchmark):
    return [GOLDS[benchmark](row) for row in read(SHARED / "benchmarks" / benchmark / "test.jsonl")]


SLOW_GOLDS = ("math", "gsm8k")


@pytest.mark.parametrize(
    "benchmark",
    [pytest.param(b, marks=pytest.mark.slow) if b in SLOW_GOLDS else b for b in GOLDS],
)
def test_every_gold_equals_itself(benchmark):
    golds = golds_of(benchmark)
    results = grade_many([box(gold) for gold in golds], golds)
    assert not [gold for gold, result in zip(golds, results) if not result.correct]
    assert all(is_correct(gold, gold) for gold in golds)
    assert not [gold for gold in golds if not equivalent(gold, gold)]


@pytest.mark.parametrize(
    "benchmark",
    [
        "math500",
        pytest.param("minerva_math", marks=pytest.mark.slow),
        pytest.param("olympiadbench", marks=pytest.mark.slow),
        pytest.param("theoremqa", marks=pytest.mark.slow),
    ],
)
def test_a_gold_with_one_digit_changed_is_wrong(benchmark):
    rng, golds, changed = random.Random(0), [], []
    for gold in golds_of(benchmark):
        digits = [match.start() for match in re.finditer(r"\d", gold)]
        if digits:
            place = rng.choice(digits)
            digit = (int(gold[place]) + rng.randint(1, 9)) % 10
            golds.append(gold)
            changed.append(f"{gold[:place]}{digit}{gold[place + 1 :]}")
    results = grade_many([box(answer) for answer in changed], golds)
    assert not [pair for *pair, result in zip(golds, changed, results) if result.correct]
