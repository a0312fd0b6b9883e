"""The paper's grader: its rules by hand, where it is lax or strict, its known floors, no eval."""

import json
from pathlib import Path

import pytest

from common import grading
from common.grading import paper
from common.grading.paper import is_correct

SHARED = Path(__file__).resolve().parents[3] / "shared"


def boxed(answer):
    return rf"The answer is $\boxed{{{answer}}}$."


LAX = [  # (answer, gold): accepted by it, wrong by the strict grader
    # both rounded to one decimal
    ("27.04", "27.01"),
    ("0.04", "0"),
    ("-0.012", "0.012"),
    # relative 1e-4, 100 times, % dropped
    ("28799", "28800"),
    ("50", "0.5"),
    ("0.15", "15"),
    (r"50\%", "50"),
    # the power of ten alone; 0.000000 of it
    (r"3\cdot10^{5}", r"4\cdot10^{5}"),
    (r"10^{-20}", "0.0"),
    # brackets
    (r"(-\infty,0)", r"(-\infty,0]"),
    ("(1,2)", "1,2"),
    ("[1,2]", "(1,2]"),
    # what follows the last =
    ("0", "y'+3t=0"),
    ("a=5", "b=5"),
    ("5p+q=7", "3n-2p=7"),
    # units and single letters
    ("3 c", "3"),
    ("+b", "a+b"),
    (r"3 \text{ apples}", "3 kg"),
    ("(a)", "(d)"),
    # of a list, what its parser reads
    ("1,78", "1,-2"),
    ("4210_5", "4210_6"),
    (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
]
STRICT = [  # (answer, gold): wrong by it, right by the strict grader
    (r"\displaystyle 5", "5"),
    (r"1\frac{1}{2}", "1.5"),
    ("1{,}234", "1234"),
    ("2,1", "1,2"),
    (r"x \approx 3", "3"),
    ("8π", r"8\pi"),
]
RIGHT = [
    ("5", "5"),
    (r"\frac12", r"\frac{1}{2}"),
    ("1/2", r"\frac{1}{2}"),
    (r"\sqrt2/2", r"\frac{\sqrt{2}}{2}"),
    ("x=5", "5"),
    (r"x \in [1,2]", "[1,2]"),
    ("twenty-one", "21"),
    ("two hundred five", "205"),
    (r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("2x+1", "1+2x"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    ("3e8", r"3\times10^{8}"),
    (r"5^\circ", "5"),
    ("p+q=1", "q+p-1=0"),
    ("1,234", "1234"),
    ("025", "25"),
    ("3.", "3.0"),
]
WRONG = [
    ("5", "6"),
    ("x+1", "x+2"),
    ("(1,2)", "(1,3)"),
    ("5.2", "5.3"),
    ("True", "False"),
    ("", "5"),
]


def graded(pairs, grade):
    return {pair: grade(boxed(pair[0]), pair[1]) for pair in pairs}


def test_where_it_is_lax():
    assert graded(LAX, is_correct) == dict.fromkeys(LAX, True)
    assert graded(LAX, grading.is_correct) == dict.fromkeys(LAX, False)


def test_where_it_is_too_strict():
    assert graded(STRICT, is_correct) == dict.fromkeys(STRICT, False)
    assert graded(STRICT, grading.is_correct) == dict.fromkeys(STRICT, True)


def test_right_and_wrong_answers():
    assert graded(RIGHT, is_correct) == dict.fromkeys(RIGHT, True)
    assert graded(WRONG, is_correct) == dict.fromkeys(WRONG, False)


EXTRACTED = {
    r"\boxed{1} and \boxed{2}": "2",
    "So the answer is 7.": "7",
    "The final answer is $3/4$. I hope it is correct. It is 5.": "3/4",
    "We add 3 and 4 and get 7": "7",
    "Answer is A.\n\nThe answer is (C), not D.": "C",
    r"\boxed{12": "12",  # an unclosed last box ends with the text
}


def test_extraction():
    assert not [text for text, gold in EXTRACTED.items() if not is_correct(text, gold)]


OPTIONS = {  # what the released MMLU-Pro code reads
    "The answer is (B). Answer: C": "B",
    "Answer: C and answer: D\nAnswer: A": "D",  # the last one of the first line that has one
    "answer:\nC": "C",
    "A or B": "B",
    "none": None,
}


def test_options():
    assert {text: paper.extract_option(text, "ABCD") for text in OPTIONS} == OPTIONS
    pairs = paper.grade_many(["answer is C", "none"], ["C", "A"], choices="ABCD")
    assert pairs == [(True, False), (False, False)]


def test_units_stay_for_minerva():
    assert is_correct(boxed("3 h"), "3")
    assert not is_correct(boxed("3 h"), "3", units=False)
    assert is_correct(boxed("3h"), "3 h", units=False)


@pytest.mark.parametrize(
    "value",
    [None, 5, b"5", [], "", "\x00\ud800", "9" * 10**6, r"\boxed{" * 10**5, "the answer is" * 10**5],
    ids=range(9),
)
def test_any_input_returns(value):
    assert not is_correct(value, "7") and not is_correct(boxed("7"), value)


def test_no_code_runs(tmp_path):
    marker = str(tmp_path / "ran")
    for code in (
        f"__import__('os').system('touch {marker}')",
        f"exec(\"open('{marker}', 'w')\")",
        f"eval(compile(\"open('{marker}','w')\",'','exec'))",
    ):
        assert not is_correct(boxed(code), "7") and not is_correct(boxed("7"), code)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "benchmark, column, answer, floor",
    [
        ("minerva_math", "answer", "0", 30),
        ("minerva_math", "answer", "0.01", 34),
        ("theoremqa", "Answer", "0", 52),
        ("theoremqa", "Answer", "0.01", 85),
    ],
)
def test_the_floors_of_the_released_code(benchmark, column, answer, floor):
    """What the released code gives for always answering 0 or 0.01.

    11.0 % and 12.5 % of Minerva-Math, 6.5 % and 10.6 % of TheoremQA.
    """
    path = SHARED / "benchmarks" / benchmark / "test.jsonl"
    if not path.exists():
        pytest.skip("needs ../shared")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    units = benchmark != "minerva_math"
    golds = [str(row[column]) for row in rows]
    assert sum(is_correct(boxed(answer), gold, units) for gold in golds) == floor


def test_a_timeout_is_wrong(monkeypatch):
    monkeypatch.setattr(paper, "SECONDS", 0.5)
    endless = boxed(r"\sum_{n=1}^{10^9} \frac{1}{n^3}")
    assert not is_correct(endless, "x+2")
    assert paper.grade_many([endless], ["x+2"]) == [(False, True)]
