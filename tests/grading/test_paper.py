"""The paper's grader: its rules by hand, where it is lax, where it is strict, the floors it is known for, and no eval."""

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
    ("27.04", "27.01"), ("0.04", "0"), ("-0.012", "0.012"),  # both rounded to one decimal
    ("28799", "28800"), ("50", "0.5"), ("0.15", "15"), (r"50\%", "50"),  # relative 1e-4, 100 times, % dropped
    (r"3\cdot10^{5}", r"4\cdot10^{5}"), (r"10^{-20}", "0.0"),  # the power of ten alone; 0.000000 of it
    (r"(-\infty,0)", r"(-\infty,0]"), ("(1,2)", "1,2"), ("[1,2]", "(1,2]"),
    ("0", "y'+3t=0"), ("a=5", "b=5"), ("5p+q=7", "3n-2p=7"),  # what follows the last =
    ("3 c", "3"), ("+b", "a+b"), (r"3 \text{ apples}", "3 kg"), ("(a)", "(d)"),  # units and single letters
    ("1,78", "1,-2"),  # of a list, what its parser reads
    ("4210_5", "4210_6"), (r"\frac{1}{2006!}", r"\frac{1}{2004!}"),
]  # fmt: skip


@pytest.mark.parametrize("answer, gold", LAX)
def test_where_it_is_lax(answer, gold):
    assert is_correct(boxed(answer), gold) and not grading.is_correct(boxed(answer), gold)


STRICT = [
    (r"\displaystyle 5", "5"),
    (r"1\frac{1}{2}", "1.5"),
    ("1{,}234", "1234"),
    ("2,1", "1,2"),
    (r"x \approx 3", "3"),
    ("8π", r"8\pi"),
]


@pytest.mark.parametrize("answer, gold", STRICT)
def test_where_it_is_too_strict(answer, gold):
    assert not is_correct(boxed(answer), gold) and grading.is_correct(boxed(answer), gold)


@pytest.mark.parametrize(
    "answer, gold",
    [("5", "5"), (r"\frac12", r"\frac{1}{2}"), ("1/2", r"\frac{1}{2}"), ("x=5", "5"), (r"x \in [1,2]", "[1,2]"), ("twenty-one", "21"),
     (r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"), ("2x+1", "1+2x"), (r"\sqrt{8}", r"2\sqrt{2}"),
     ("3e8", r"3\times10^{8}"), (r"5^\circ", "5"), ("p+q=1", "q+p-1=0"), ("1,234", "1234"), ("025", "25"), ("3.", "3.0")],
)  # fmt: skip
def test_right_answers(answer, gold):
    assert is_correct(boxed(answer), gold)


@pytest.mark.parametrize(
    "answer, gold",
    [("5", "6"), ("x+1", "x+2"), ("(1,2)", "(1,3)"), ("5.2", "5.3"), ("True", "False"), ("", "5")],
)
def test_wrong_answers(answer, gold):
    assert not is_correct(boxed(answer), gold)


@pytest.mark.parametrize(
    "output, gold",
    [
        (r"\boxed{1} and \boxed{2}", "2"),
        ("So the answer is 7.", "7"),
        ("The final answer is $3/4$. I hope it is correct. It is 5.", "3/4"),
        ("We add 3 and 4 and get 7", "7"),
        ("Answer is A.\n\nThe answer is (C), not D.", "C"),
        (r"\boxed{12", "12"),  # an unclosed last box ends with the text
    ],
)
def test_extraction(output, gold):
    assert is_correct(output, gold)


def test_units_stay_for_minerva():
    assert (
        is_correct(boxed("3 h"), "3")
        and not is_correct(boxed("3 h"), "3", units=False)
        and is_correct(boxed("3h"), "3 h", units=False)
    )


@pytest.mark.parametrize(
    "value",
    [None, 5, b"5", [], "", "\x00\ud800", "9" * 10**6, r"\boxed{" * 10**5, "the answer is" * 10**5],
)
def test_any_input_returns(value):
    assert not is_correct(value, "7") and not is_correct(boxed("7"), value)


def test_no_code_runs(tmp_path):
    for code in (
        "__import__('os').system('touch {}')",
        "exec(\"open('{}', 'w')\")",
        "eval(compile(\"open('{}','w')\",'','exec'))",
    ):
        code = code.replace("{}", str(tmp_path / "ran"))
        assert (
            not is_correct(boxed(code), "7")
            and not is_correct(boxed("7"), code)
            and not list(tmp_path.iterdir())
        )


@pytest.mark.parametrize("benchmark, column, answer, floor", [
    ("minerva_math", "answer", "0", 30), ("minerva_math", "answer", "0.01", 34), ("theoremqa", "Answer", "0", 52), ("theoremqa", "Answer", "0.01", 85),
])  # fmt: skip
def test_the_floors_of_the_released_code(benchmark, column, answer, floor):
    """What the released code gives for always answering 0 or 0.01: 11.0 % and 12.5 % of Minerva-Math, 6.5 % and 10.6 % of TheoremQA."""
    path = SHARED / "benchmarks" / benchmark / "test.jsonl"
    if not path.exists():
        pytest.skip("needs ../shared")
    golds = [
        str(json.loads(line)[column]) for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert (
        sum(is_correct(boxed(answer), gold, units=benchmark != "minerva_math") for gold in golds)
        == floor
    )


def test_a_timeout_is_wrong(monkeypatch):
    monkeypatch.setattr(paper, "SECONDS", 0.5)
    assert not is_correct(boxed(r"\sum_{n=1}^{10^9} \frac{1}{n^3}"), "x+2")
