"""Strict equality of two answers: hand-derived cases by class, labelled cases by people who had not seen the grader, properties."""

import json
import random
import re
from fractions import Fraction
from pathlib import Path

import pytest

from common.grading.equivalence import equivalent
from common.grading.grader import extract_answer, grade, grade_many, is_correct
from common.grading.numbers_and_units import read_number, split_unit
from common.grading.normalize_latex import normalize

SHARED = Path(__file__).resolve().parents[3] / "shared"
CASES = Path(__file__).resolve().parents[1] / "cases"

EQUAL = {  # class -> pairs; each holds in both directions
    "spelling": [(r"\dfrac12", r"\frac{1}{2}"), (r"\left( 1, 2 \right)", "(1,2)"), ("1251.", "1251"), (r"\text{Even}", "even"),
        ("−5", "-5"), (r"\$5", "5"), (r"\bf{25}", "25"), ("½", "1/2"), ("4.5×10³³", "4.5e33"), (r"\langle 1, 2 \rangle", "(1,2)"),
        ("np.arcsin(10/13)", r"\sin^{-1}\left(\frac{10}{13}\right)"), (r"\\dfrac{2}{3}", "2/3"), (r"\$40", r"$\$40$")],
    "thousands": [("1,234", "1234"), ("1{,}234{,}567", "1234567"), (r"12,\!345", "12345"), (r"1\,234", "1234"), ("1 000", "1000"),
        (r"\$32,\!348", r"\$32,348"), ("14 {, }916", "14916")],
    # 2.5e3 = 2500; 1 1/2 = 1.5; 4.50 = 9/2; 2/(-3) = -2/3; 0.1666... = 1/6
    "rationals": [("2.5e3", "2500"), (r"2.5 \times 10^{3}", "2500"), (r"1\frac{1}{2}", "1.5"), ("1 1/2", "3/2"),
        ("4.50", r"\frac{9}{2}"), ("2/(-3)", r"-\frac{2}{3}"), (r"0.1\overline{6}", "1/6"), (r"0.\bar{7}", r"\frac{7}{9}")],
    "percent": [("5%", r"5\%"), ("28 percent", r"28\%")],
    "units": [(r"10\text{ cm}^2", "10"), ("12 feet", "12 ft"), (r"45^\circ", "45"), ("6 square inches", r"6 \text{ inches}^2"),
        (r"99\pi \text{ square inches}", r"99\pi"), (r"\frac{600}{7} \text{ km/h}", r"\frac{600}{7}"), ("10 mph", "10 miles per hour"),
        (r"3\ \mathrm{kg\,m^2}", r"3 \text{ kg} \cdot \text{m}^2"), (r"\frac{1}{2} N", r"\frac{N}{2}"),
        (r"9.8\,\mathrm{m/s^{2}}", "9.8"), (r"5^\circ C", "5 degrees Celsius"), (r"5\ \mu m", "5"), ("7 million", "7000000"), ("12th", "12")],
    "labels": [("x = 5", "5"), ("f(x) = 2x", "2x"), (r"x \in [1,2]", "[1,2]"), ("(x, y) = (1, 2)", "(1,2)"),
        (r"\angle ABC = 30", "30"), ("a=1, b=2", "1,2"), (r"A = \pi r^2 = 9\pi", r"9\pi"), (r"S = \{1, 4\}", "4, 1"),
        ("x = 1, 2", "2, 1"), (r"\frac{BT}{BM} = \sqrt{2}", r"\sqrt{2}"), (r"f(x)=1 \text{ for all } x", "f(x)=1"),
        (r"y(0.2) \approx 0.6705", "0.6705")],
    "lists": [("1, 2, 3", "3,1,2"), (r"\{1, 2\}", "2, 1"), (r"1 \text{ and } 3", "3,1"),
        (r"1 \pm \sqrt{2}", r"1-\sqrt{2}, 1+\sqrt{2}"), ("(1,2),(3,4)", "(3,4), (1,2)"), (r"\begin{cases} x=1 \\ y=2 \end{cases}", "x=1, y=2"),
        (r"f(x)=\pm x", "f(x)=x, f(x)=-x")],
    "intervals": [("(0.5, 1]", r"(\frac{1}{2}, 1]"), (r"0 < x \le 1", "(0,1]"), ("x<2 or x>3", r"(-\infty,2)\cup(3,\infty)"),
        (r"(-\infty,1)\cup(2,\infty)", r"(-\infty, 1) ∪ (2, +∞)"), (r"\{x | x > 1\}", "x>1"), (r"|x| \le 3", "[-3,3]"),
        (r"x \ne 3", r"(-\infty,3)\cup(3,\infty)"), (r"\mathbb{R}", r"(-\infty,\infty)"), ("x>1 and x<3", "1<x<3"), ("f(4) > f(1)", "f(1) < f(4)")],
    "matrices": [(r"\begin{pmatrix} 1/2 \\ 3 \end{pmatrix}", r"\begin{bmatrix} 0.5 \\[4pt] 3 \end{bmatrix}"),
        (r"\frac{1}{2}\begin{pmatrix} 1 \\ 4 \end{pmatrix}", r"\begin{pmatrix} 1/2 \\ 2 \end{pmatrix}")],
    "bases": [("4210_5", "4210_{5}"), ("(4210)_{5}", "4210_5")],
    # sqrt(8) = 2 sqrt(2); (x+1)^2 = x^2 + 2x + 1; y = 1 - x is x + y = 1
    "symbolic": [(r"\sqrt{8}", r"2\sqrt{2}"), ("(x+1)^2", "x^2+2x+1"), ("sqrt(3)/3", r"\frac{1}{\sqrt 3}"), ("12pi", r"\pi \cdot 12"),
        ("y = 1 - x", "x + y = 1"), ("2n-1", "-1+2n"), (r"\frac{t}{m}", r"\frac{1}{m} t"), ("i(2-i)", "1+2i"), (r"\sin 30^\circ", "1/2"),
        (r"2 \arcsin \sqrt{a}", r"\arccos(1 - 2a)"), (r"\frac{\sinh(at)}{a}", r"\frac{1}{2a}(\exp{a*t} - \exp{-a*t})"),
        (r"\frac{3}{x+1}-\frac{1}{x-2}", r"\frac{2x-7}{(x+1)(x-2)}"), (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
        (r"m \frac{dv}{dt} + bv = f", r"bv + m\dot{v} = f"), (r"e^{i\pi/3}", r"\frac{1+\sqrt{3}i}{2}"), ("2x+4y=6", "x+2y=3"),
        (r"E_1 + \gamma E_2", r"\gamma E_{2} + E_{1}"), (r"\ln(x^2)", r"2\ln x"), ("xy", "yx"), (r"4/3 \pi r^3", r"\frac{4}{3}\pi r^3"), (r"\frac\pi4", r"\frac{\pi}{4}"), ("x^(n+1)", "x^{n+1}"),
        (r"{a+b \over c}", r"\frac{a+b}{c}"), (r"\sqrt{a}\sqrt{b}", r"\sqrt{ab}"), (r"\frac{mg}{2}", r"\frac{1}{2}mg")],
}  # fmt: skip

DIFFERENT = {
    "integers": [("28799", "28800"), ("100000000000000000000", "100000000000000000001"), ("-5", "5"), ("12", "21"), ("1 2", "12")],
    "rounding": [("0.333", "1/3"), ("27.04", "27.01"), ("1.0000001", "1"), (r"\sqrt{2}", "1.4142"), (r"\frac{22}{7}", r"\pi"),
        (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"), (r"\sqrt{2}", "1.4142135623730951"), ("e^{-300}", "0"), ("e^{300}+1", "e^{300}"), (r"1+e^{-e^{9}}", "1")],
    "percent": [(r"50\%", "0.5"), (r"50\%", "50"), ("15", "0.15")],
    "units": [("5 cm", "5 m"), ("3 hours", "3 minutes"), ("7 million", "7"), ("36 cents", r"\$36"), ("5 m/s", "5 m/s^2"), ("5 m", "5 m^2"),
        ("2 thirds", "2"), ("5 factorial", "5"), ("0.3 repeating", "0.3"), ("5 degrees below zero", "5"), ("€5", r"\$5")],
    "labels": [("x = 3", "y = 3"), ("x < 3", "3"), (r"x \ge 5", "5"), ("n = 3k", "3"), ("2x + z = 1", "1"), ("f(x) = 2x", "g(x) = 2x"),
        ("f(n)=1, g(n)=n", "f(n)=n, g(n)=1"), ("x = 1, 2", "y = 1, 2"), (r"x \in [1,2]", r"y \in [1,2]")],
    "lists": [("1", "1, 2"), ("1,2", "1,3"), ("1, 1", "1, 2"), (r"\pm 5", "5"), (r"\{1,2\}", r"\{1,2,3\}")],
    "tuples": [("(1,2)", "(2,1)"), ("[3,4]", "(3,4]"), (r"(-\infty,0)", r"(-\infty,0]"), ("(0,1)", "0,1"), ("1,234", "(1,234)"), ("(1;2)", "(2;1)")],
    "intervals": [("x<2 or x>3", r"(-\infty,2]\cup(3,\infty)"), ("|x| < 3", "[-3,3]"), ("x < 3", "x > 3"), ("a < b", "b < a"),
        (r"x \ne 3", r"\mathbb{R}"), ("x<2 or x>3", "x<2 and x>3"), ("0 < x < 1", r"0 < x \le 1")],
    "matrices": [(r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}")],
    "bases": [("4210_5", "4210_6"), ("101_2", "101")],
    "words": [("even", "odd"), ("no", "on"), ("temperature -5", "temperature 5"), ("True", "False"), (r"\text{East}", r"\text{West}")],
    "symbols": [("N", "n"), ("x^2", "x^{-2}"), ("2x", "2y"), ("f'", "f"), (r"5 \mod 7", r"5 \mod 8"), ("1:2", "2:1"), ("i", "-i"),
        (r"\frac{1}{2006!}", r"\frac{1}{2004!}"), (r"\frac{1}{m} t", r"\frac{1}{m}"), (r"\sqrt{x^2}", "x"), (r"\log 5", r"\ln 5"),
        ("1", "(-1)^k"), (r"\frac{1+(-1)^k}{2}", "1"), ("|xy|", "xy"), (r"\frac{a}{b}", r"\frac{|a|}{|b|}"), ("100-x", "|x-100|"),
        ("50", r"\max(x,50)"), ("AB", "ab"), ("2mg", "2"), ("3ft", "3"),
        ("C_1 e^x", "c_1 e^x"), ("2x+4y=6", "x+2y=4"), ("x-y", "y-x"), ("f(2) = 5", "x = 5"), ("e^{2x}", "e^{2}x"), ("0", r"\ln 2/2"), ("a_{n+1}", "a_{n-1}"), ("f(2x+2)", "2f(x+1)"),
        ("x'y", "xy'"), ("I^2R", "IR"), (r"\sin x", r"\sin(x^\circ)"), ("-2.5", "-2+1/2"), ("x=0", "x(x-1)=0"), ("AaBb", "aabb"),
        (r"60^\circ", r"2\theta=60^\circ"), (r"\sum_{k=1}^n a_k", "n a_k"), ("2^T", "2"), (r"\dot{x}", r"\ddot{x}"), ("x_1", "x_2")],
}  # fmt: skip


def pairs(table):
    return [
        pytest.param(*pair, id=f"{group}: {pair[0]} | {pair[1]}")
        for group, group_pairs in table.items()
        for pair in group_pairs
    ]


@pytest.mark.parametrize("one, other", pairs(EQUAL))
def test_equal(one, other):
    assert equivalent(one, other) and equivalent(other, one)


@pytest.mark.parametrize("one, other", pairs(DIFFERENT))
def test_different(one, other):
    assert not equivalent(one, other) and not equivalent(other, one)


EVERY = sorted(
    {
        side
        for table in (EQUAL, DIFFERENT)
        for group in table.values()
        for pair in group
        for side in pair
    }
)


@pytest.mark.parametrize("answer", EVERY)
def test_every_answer_equals_itself(answer):
    assert equivalent(answer, answer)


REWRITES = {  # what models do to an answer without changing it
    "dfrac": lambda answer: answer.replace(r"\frac", r"\dfrac"),
    "brackets": lambda answer: (
        answer.replace("(", r"\left(").replace(")", r"\right)")
        if answer.count("(") == answer.count(")")
        else answer
    ),
    "period": lambda answer: answer + ".",
    "dollars": lambda answer: f"${answer}$" if "$" not in answer else answer,
    "style": lambda answer: rf"\displaystyle {answer}",
    "spaces": lambda answer: re.sub(r"(?<==)|(?<=[a-z)}],)", " ", answer),
    "cdot": lambda answer: answer.replace(r"\cdot", r"\times"),
    "final": lambda answer: rf"\text{{The final answer is }} {answer}",
}


@pytest.mark.parametrize("rewrite", REWRITES)
def test_rewriting_changes_nothing(rewrite):
    assert not [answer for answer in EVERY if not equivalent(answer, REWRITES[rewrite](answer))]


def spellings(value):
    sign, top, bottom = "-" * (value < 0), abs(value.numerator), value.denominator
    yield from (
        f"{sign}{top}/{bottom}",
        rf"{sign}\frac{{{top}}}{{{bottom}}}",
        rf"\dfrac{{{sign}{top}}}{{{bottom}}}",
    )
    if 10**6 % bottom == 0:
        yield f"{sign}{top * (10**6 // bottom) // 10**6}.{top * (10**6 // bottom) % 10**6:06d}"
    if bottom > 1 and top > bottom:
        yield rf"{sign}{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}"


def test_rationals_are_equal_exactly_when_their_values_are():
    """An oracle: fractions.Fraction. Every spelling of two random rationals, 1,500 pairs, none of which needs sympy."""
    rng = random.Random(0)
    for _ in range(150):
        one, other = (
            Fraction(rng.randint(-40, 40), rng.choice([1, 2, 3, 4, 5, 7, 8, 10])) for _ in range(2)
        )
        for first in spellings(one):
            for second in spellings(other):
                assert equivalent(second, first) == (one == other), (first, second)


def test_polynomials_are_equal_exactly_when_their_coefficients_are():
    """An oracle: coefficients. Products of two linear factors against expanded ones, right or with one coefficient off by one."""
    rng = random.Random(1)
    for _ in range(40):
        a, b, c, d = (rng.choice([-3, -2, -1, 1, 2, 3]) for _ in range(4))
        wrong = [0, 0, 0]
        if rng.random() < 0.5:
            wrong[rng.randrange(3)] = rng.choice([-1, 1])
        two, one, none = a * c + wrong[0], a * d + b * c + wrong[1], b * d + wrong[2]
        assert equivalent(f"({a}x{b:+})({c}x{d:+})", f"{none} {one:+}x {two:+}x^2") == (
            wrong == [0, 0, 0]
        )


@pytest.mark.parametrize("answer, value", [
    ("12", 12), ("-3.50", Fraction(-7, 2)), (r"\frac{3}{-4}", Fraction(-3, 4)), ("2 1/3", Fraction(7, 3)), (r"0.\overline{36}", Fraction(4, 11)),
    (r"3 \times 10^{-2}", Fraction(3, 100)), ("1/0", None), ("x", None), ("1e999999", None), ("9" * 5_000, None), ("²", None),
])  # fmt: skip
def test_rational(answer, value):
    assert read_number(answer) == value


@pytest.mark.parametrize("answer, split", [
    ("12 feet", ("12", "ft")), (r"3 \text{ m}\,\text{s}^{-2}", ("3", "m*s^-2")), ("10 miles per hour", ("10", "h^-1*mi")), ("5m", ("5m", "")),
    ("2t", ("2t", "")), ("7 dozen", ("7 dozen", "")), (r"\frac{1}{m} t", (r"\frac{1}{m} t", "")), (r"\sin 32^\circ", (r"\sin 32°", "")),
    (r"35 \text{ g/mol}", ("35", "g*mol^-1")), (r"16 \text{ cubic feet}", ("16", "ft^3")), (r"\$36", ("36", "$")),
])  # fmt: skip
def test_units(answer, split):
    assert split_unit(normalize(answer)) == split


def test_tolerance_is_relative_and_not_for_integers():
    assert equivalent("4.0", "4.04", 0.01) and not equivalent("4.0", "4.05", 0.01)
    assert equivalent("7.36e-12", "7.4e-12", 0.01)  # 0.04 / 7.36 = 0.5 %
    assert equivalent("1.41", r"\sqrt{2}", 0.01) and equivalent("(1.5, 2.5)", "(1.51, 2.49)", 0.01)
    assert (
        not equivalent("28800", "28799", 0.01)
        and not equivalent("0.0", "0.01", 0.01)
        and not equivalent("1.41", r"\sqrt{2}")
    )


def disagreements(rows, results, label):
    return [
        f"{row} -> {j}"
        for row, j in zip(rows, results)
        if j.correct != row[label] or row.get("how", j.extraction_method) != j.extraction_method
    ]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_labelled_pairs():
    """1,226 pairs of 48 classes, half of them near misses, written and checked by someone who had not seen the grader."""
    rows = read(CASES / "equivalence.jsonl")
    results = grade_many(
        [rf"The answer is $\boxed{{{row['answer']}}}$." for row in rows],
        [row["gold"] for row in rows],
    )
    assert len(rows) == 1226 and not disagreements(rows, results, "equal")


def test_labelled_outputs():
    """1,300 whole outputs in the styles of many models, written by two people who had not seen the grader."""
    rows = read(CASES / "outputs.jsonl")
    results = [grade(row["output"], row["gold"], choices=row.get("choices")) for row in rows]
    assert len(rows) == 1316 and not disagreements(rows, results, "correct")


@pytest.mark.skipif(not (SHARED / "grading/dev.jsonl").exists(), reason="needs ../shared")
def test_labelled_cases_of_other_projects():
    """The undisputed cases: at least 98.5 % agree, and no wrong answer is accepted."""
    rows = [
        row
        for row in read(SHARED / "grading/dev.jsonl")
        if not row["tag"].startswith("disputed") and row["kind"] != "extract_only"
    ]
    texts = [
        row["pred"] if row["kind"] == "extract" else rf"So $\boxed{{{row['pred']}}}$"
        for row in rows
    ]
    results = grade_many(texts, [row["gold"] for row in rows])
    assert not [row for row, j in zip(rows, results) if j.correct and not row["expected"]]
    assert sum(j.correct == row["expected"] for row, j in zip(rows, results)) / len(rows) >= 0.985


GOLDS = {
    "math": lambda row: extract_answer(row["solution"]), "math500": lambda row: row["answer"], "minerva_math": lambda row: row["answer"],
    "gsm8k": lambda row: row["answer"].partition("####")[2].strip(), "olympiadbench": lambda row: row["final_answer"][0],
    "theoremqa": lambda row: str(row["Answer"]), "aime24": lambda row: str(row["answer"]), "amc23": lambda row: str(row["answer"]),
}  # fmt: skip


@pytest.mark.parametrize("benchmark", GOLDS)
def test_every_gold_equals_itself(benchmark):
    path = SHARED / "benchmarks" / benchmark / "test.jsonl"
    if not path.exists():
        pytest.skip("needs ../shared")
    golds = [GOLDS[benchmark](row) for row in read(path)]
    boxed = grade_many(
        [rf"So the result is $\boxed{{{gold}}}$, as asked." for gold in golds], golds
    )
    assert not [gold for gold, j in zip(golds, boxed) if not j.correct]
    assert all(is_correct(gold, gold) for gold in golds)
    assert not [gold for gold in golds if not equivalent(gold, gold)]


@pytest.mark.parametrize("benchmark", ["math500", "minerva_math", "olympiadbench", "theoremqa"])
def test_a_gold_with_one_digit_changed_is_wrong(benchmark):
    path = SHARED / "benchmarks" / benchmark / "test.jsonl"
    if not path.exists():
        pytest.skip("needs ../shared")
    rng, golds, changed = random.Random(0), [], []
    for gold in (GOLDS[benchmark](row) for row in read(path)):
        if digits := [match.start() for match in re.finditer(r"\d", gold)]:
            at = rng.choice(digits)
            golds.append(gold)
            changed.append(
                gold[:at] + str((int(gold[at]) + rng.randint(1, 9)) % 10) + gold[at + 1 :]
            )
    results = grade_many([rf"\boxed{{{answer}}}" for answer in changed], golds)
    assert not [(gold, answer) for gold, answer, j in zip(golds, changed, results) if j.correct]
