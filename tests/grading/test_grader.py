"""Whole outputs: extraction, options, many at once, any type, and answers that attack."""

import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from common.grading import (
    equivalence,
    paper,
    sympy_worker,
    without_cut_number,
    without_thinking,
)
from common.grading.grader import GradeResult, extract_answer, grade, grade_many, is_correct
from tests import hostile


def boxed(answer):
    return f"So the answer is $\\boxed{{{answer}}}$."


EXTRACTED = [  # (output, answer, method)
    (r"First \boxed{1}, then \boxed{2}.", "2", "boxed"),
    # an unclosed last box is no answer, escaped braces do not count
    (r"\boxed{\frac{1}{2}} and a check of \boxed{", r"\frac{1}{2}", "boxed"),
    (r"\boxed {7} or \fbox{8}", "8", "boxed"),
    (r"so $n = \boxed 8$", "8", "boxed"),
    (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}", "boxed"),
    (r"\boxed{\boxed{5}}", r"\boxed{5}", "boxed"),
    (r"\boxed{3} was a guess. \boxed{}", "3", "boxed"),
    (r"<think>maybe \boxed{1}</think> The answer is 2.", "2", "cue"),
    (r"maybe \boxed{1}</think> The answer is 2.", "2", "cue"),
    (r"The answer is 9. <think>or \boxed{10}? Wait", "9", "cue"),
    (r"<|begin_of_thought|>\boxed{1}<|end_of_thought|> Answer: 4", "4", "cue"),
    ("The answer is 12.<|im_end|>\nQuestion: what is 3 + 4? The answer is 7.", "12", "cue"),
    ("3 * 14 = 42. The answer is 42 [END]", "42", "cue"),
    ("The answer is 12, which is even. There are 7 steps.", "12", "cue"),
    ("The answer is 42 (since 6 * 7 = 42).", "42", "cue"),
    ("**Answer:** $24.310$", "$24.310$", "cue"),
    ("__Answer:__ 14", "14", "cue"),
    ("<b>Answer:</b> 42", "42", "cue"),
    ("<answer>42</answer> as I said", "42", "cue"),
    ("Answer: $x$ = 5, obtained after 3 steps", "$x$ = 5", "cue"),
    ("**Final answer:**\n\n42", "42", "cue"),
    ("Answer: 12\nNo.\nAnswer: 15", "15", "cue"),
    ("答案是 15。", "15", "cue"),
    ("She sells 9 eggs.\n#### 18", "18", "cue"),
    ("#### Step 1: count\nThere are 6.\nThe answer is 30.\n#### Step 3: check", "30", "cue"),
    ("Final Answer: The final answer is $3$. I hope it is correct.", "$3$", "cue"),
    ("Final answer: The largest $n$ is 34.", "34", "cue"),
    (
        r"The answer is \begin{pmatrix} 1 \\ 2 \end{pmatrix}.",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        "cue",
    ),
    ("It costs $200,000 - $130,000 = $70,000.", "$70,000", "last number"),
    ("Adding 3 and 4.\nx = 7", "x = 7", "last number"),
    ("so it is 2^10", None, "none"),
    ("So $2x = 6$ gives $x = 3$.", "$x = 3$", "last number"),
    ("Let $x$ be the number of apples.", None, "none"),
    ("There is no answer here", None, "none"),
    # words that bound, negate or compute belong to the answer
    ("The answer is strictly less than 7.", "strictly less than 7", "cue"),
    ("The answer is the cube root of 8.", "the cube root of 8", "cue"),
    ("The answer is that Tom keeps a total of 7 apples.", "7", "cue"),
    ("The answer wasn't 7.", None, "none"),
    ("The answer must be more than 7.", None, "none"),
    ("The answer is not 7 but 8.", "8", "cue"),
    ("The total is 12. It cannot exceed 30.", "12", "last number"),
    ("The answer is 7!", "7", "cue"),
    # numbers of steps and items
    ("Cost: 40\nPart 7", "40", "last number"),
    ("1) add\n2) halve\n3) print the result", None, "none"),
    ("1. add\n2. halve\n3.", None, "none"),
    ("12 eggs are left.\n2. Done", "12", "last number"),
    ("(1) add\n(2) halve", None, "none"),
    ("It must lie between 3 and 4.", None, "none"),
    ("a) 12\nb) 15", "15", "last number"),
    # other scripts
    ("所以一共有24个苹果。", "24", "last number"),
    ("答案为：１２", "12", "cue"),
    ("정답은 17입니다.", "17", "last number"),
    ("It took 3 hours and 20 minutes.", "3 hours and 20 minutes", "last number"),
]


def test_extraction():
    found = [(extract_answer(text), grade(text, "0").extraction_method) for text, *_ in EXTRACTED]
    assert not [case for case, pair in zip(EXTRACTED, found) if case[1:] != pair]


OPTIONS = [  # (output, gold, choices, correct)
    (r"\boxed{\text{(C)}}", "C", None, True),
    (r"\boxed{F) 3.2 \times 10^5}", "F", "ABCDEFGHIJ", True),
    ("A is wrong. The answer is (J).", "J", "ABCDEFGHIJ", True),
    ("The answer is B because a car moves.", "A", "ABCD", False),
    ("The answer: D, it cannot be A or B", "D", "ABCD", True),
    ("D. it can't be A or B", "D", "ABCD", True),
    ("It is not A, therefore I think it is B", "B", ["A", "B", "C"], True),
    ("Option A is incorrect. Therefore, option D is correct.", "D", "ABCD", True),
    ("Step 4: P-F is the strongest.\nSolution: Choice_B: P-F", "B", None, True),
    ("Solution: Choice B/D", "D", "ABCD", False),
    ("The answer is both (A) and (C).", "C", "ABCD", False),
    ("Solution: None of the choices (A, B, C, or D) are correct.", "D", "ABCD", False),
    # a box that holds no option is a wrong answer, not a missing one
    (r"A weighs less. \boxed{42}", "A", "ABCD", False),
    (r"\boxed{c}", "(C)", "ABCD", True),
    ("I see a car. A car is fast.", "A", "ABCD", False),
    (r"\boxed{A and B}", "A", None, False),
    (r"\boxed{A, C}", "A", "ABCD", False),
    (r"\boxed{\text{A}, \text{C}}", "A", "ABCD", False),
    (r"\boxed{A \text{ and } C}", "A", None, False),
    ("The answer is not A.", "A", "ABCD", False),
    (r"\boxed{A}", "-A", None, False),
    # formulas are no letters
    (r"\boxed{C+1}", "C", None, False),
    (r"\boxed{C_1}", "C", "ABCD", False),
    (r"\boxed{F = ma}", "F", None, False),
    (r"\boxed{(d)}", "(d)", None, True),
    (r"\boxed{(b)}", "(d)", None, False),
    ("The answer is $C$.", "(c)", None, True),
    ("(c)", "(c)", None, True),
    # a letter beats an earlier boxed formula
    (r"\boxed{A \to B}. So the correct option is (C).", "C", "ABCD", True),
    # rejected, excluded, several, a name, a walk that was cut
    ("I would choose option C instead of option A.", "C", "ABCD", True),
    ("C is right, D isn't.", "C", "ABCD", True),
    ("Only C works; A and B fail.", "C", "ABCD", True),
    ("Not B but D.", "D", "ABCD", True),
    ("It's D over A.", "D", "ABCD", True),
    ("The answer cannot be B.", "B", "ABCD", False),
    ("I'd eliminate C. That leaves (A) and (D). (D) is wrong. So (A).", "A", "ABCD", True),
    ("Anything except D.", "D", "ABCD", False),
    ("Options B and D are both correct.", "D", "ABCD", False),
    ("The answer is hepatitis B.", "B", "ABCD", False),
    ("Option A: too small. Option B: too large. Option C:", "C", "ABCD", False),
    ("c) 12", "C", "ABCD", True),
    ("故选B", "B", "ABCD", True),
    # without choices a letter beyond J is a symbol
    (r"\boxed{n}", "N", None, False),
    (r"\boxed{ℝ}", r"\mathbb{R}", None, True),
]


def test_options():
    assert not [
        (text, gold)
        for text, gold, choices, correct in OPTIONS
        if grade(text, gold, choices=choices).correct is not correct
    ]


def test_a_number_at_the_end_of_a_cut_output_is_no_answer():
    """12 may have been the start of 125; 7 was complete."""
    cut = without_cut_number("3 + 4 = 7, so the total is $1,2")
    assert is_correct(cut, "7")
    assert without_cut_number("The answer is 12 apples") == "The answer is 12 apples"


BOXES = {  # (output, gold): correct. A question of several parts may be answered by several boxes
    (r"The mean is $\boxed{2}$; the mode is $\boxed{4}$.", "2, 4"): True,
    (r"The roots are $\boxed{2}$ and $\boxed{4}$.", "2, 5"): False,
    (r"First $\boxed{2}$. Wait, it is $\boxed{4}$.", "2, 4"): False,
}


def test_several_boxes_are_one_list():
    assert {pair: is_correct(*pair) for pair in BOXES} == BOXES


def test_an_output_that_is_nothing_but_the_gold():
    assert is_correct("odd $n$", "odd $n$") and not is_correct("even $n$", "odd $n$")


def test_many_at_once_are_graded_as_one_by_one(monkeypatch):
    monkeypatch.setattr(sympy_worker, "PAIRS_OF_A_WORKER", 9)  # of 41 pairs: several threads
    texts = [boxed(rf"\sqrt{{{2 * k * k}}}") for k in range(1, 40)] + ["none", None]
    golds = [rf"{k + k % 2}\sqrt{{2}}" for k in range(1, 40)] + ["1", "2"]  # right for even k
    results = grade_many(texts, golds)
    assert [result.correct for result in results[:39]] == [k % 2 == 0 for k in range(1, 40)]
    assert results == [grade(*pair) for pair in zip(texts, golds)]
    assert not results[39].correct and not results[40].correct


def test_many_at_once_take_a_tolerance():
    results = grade_many(["4.04"] * 2, ["4.0", "4"], tolerance=0.01)
    assert [result.correct for result in results] == [True, False]


def test_many_at_once_need_a_gold_each():
    with pytest.raises(ValueError, match="2 outputs and 1 golds"):
        grade_many(["1", "2"], ["1"])


@pytest.mark.parametrize(
    "setting",
    [
        {"tolerance": 1},
        {"tolerance": "x"},
        {"tolerance": None},
        {"choices": 4},
        {"choices": ""},
        {"choices": ["Paris", "Rome"]},
    ],
    ids=str,
)
def test_settings_out_of_range(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        grade("5", "5", **setting)


def test_equal_pairs_are_graded_once(monkeypatch):
    questions = []

    def ask(*question):
        questions.append(question)
        return True, 0.0

    monkeypatch.setattr(sympy_worker, "ask", ask)
    assert len(grade_many([boxed("y+z+7")] * 50, ["7+y+z"] * 50)) == 50
    assert len(questions) == 1


def test_repeated_answers_ask_sympy_once(monkeypatch):
    questions, ask = [], sympy_worker.ask

    def count(*question):
        questions.append(question)
        return ask(*question)

    monkeypatch.setattr(sympy_worker, "ask", count)
    assert all(is_correct(boxed(r"\sqrt{7}\sqrt{7}+y"), "y+7") for _ in range(5))
    assert len(questions) == 1


NUMBERS = [5, 2.5, True, Fraction(1, 3), 10**5000, Fraction(10**5000, 7), float("nan")]


@pytest.mark.parametrize(
    "value", [None, b"x", [], {}, object(), *NUMBERS], ids=lambda value: type(value).__name__
)
def test_any_type_returns(value):
    assert isinstance(grade(value, value), GradeResult)
    assert not is_correct(boxed("8"), value) and not is_correct(value, "8")
    assert extract_answer(value) is None or value in NUMBERS


def test_numbers_are_read_as_their_text():
    assert is_correct(5, Decimal("5.0")) and is_correct(5, 5) and is_correct("5", 5)
    assert is_correct(boxed("2.5"), 2.5) and is_correct(boxed("1/3"), Fraction(1, 3))
    assert is_correct("True", True)


QUICK = ("inject/", "regex/", "unicode/", "type/")
HOSTILE = [pytest.param(QUICK, id="quick"), pytest.param(("",), id="all", marks=pytest.mark.slow)]


@pytest.mark.parametrize("prefixes", HOSTILE)
def test_hostile_inputs(prefixes, tmp_path, monkeypatch):
    """No code runs, none is taken for right, and what follows is graded as ever.

    Their time and memory: tests/bench/hostile.py.
    """
    assert equivalence.SYMBOLIC_SECONDS < 6
    monkeypatch.setattr(equivalence, "SYMBOLIC_SECONDS", 0.7)
    cases = hostile.cases(str(tmp_path / "ran"))
    assert len(cases) > 150
    cases = [case for case in cases if case[0].startswith(prefixes)]
    results = grade_many([text for _, text, _ in cases], [gold for _, _, gold in cases])
    assert not [name for (name, *_), result in zip(cases, results) if result.correct]
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert is_correct(boxed(r"\sqrt{8}"), r"2\sqrt{2}")


PUMPED = [
    "a + ", "5 / ", "a / ", "~", "$", " ", r"\ ", "9", "1,", "1 ", "x_", "(", "[", "{", r"\{",
    "|", "=", "a = ", "-", "^", "^2", "and ", "or ", "is ", "answer is ", "The answer is 1. ",
    "**", "####", r"\text{", r"\text{ a } ", r"\frac", r"\frac{1}{", r"\sqrt", r"\left(",
    r"\begin{cases}", "kg m ", "m/s", "meters ", "secs ", "solution: ", "a.", "1.", ".", "°",
    "<", r"\le ", "x < ", r"\cup ", r"\pm ", "1:", "<think>", "</think>", r"\boxed{",
    r"\boxed 1", "A ", "A, ", "option A ", "for all x ", "where ", "\\\\", "&", "%",
    r"\times10", "10^{", "e", "é", "½", "²", "§", "、", "５", "one ", "hundred ", "5 ft ", "5'",
    r"\text{cm}", r"1\frac{\text{", r"\frac{g}{cm}", r"\quad 1", "not A, ", "option ", "1. a\n",
]  # fmt: skip
SLOW = [(times, 1) for times in (28, 400, 6_000)]


@pytest.mark.parametrize(
    "times, step", [(28, 4), (400, 8), *(pytest.param(*s, marks=pytest.mark.slow) for s in SLOW)]
)
@pytest.mark.parametrize("end", ["", "1 = 5", ")!?"])
def test_no_repetition_takes_long(times, step, end, monkeypatch):
    """No regular expression explodes, or is more than quadratic with a small constant.

    They run in this process, which nothing can stop. Measured in CPU seconds.
    """
    monkeypatch.setattr(sympy_worker, "ask", lambda *_: (False, 0.0))
    slow = []
    for token in PUMPED[::step]:
        pumped = token * times + end
        for text in (pumped, rf"\boxed{{{pumped}}}", f"The answer is {pumped}"):
            start = time.process_time()
            grade(text, "5")
            grade(text, "A", choices="ABCD")
            grade(boxed("5"), pumped)
            paper.is_correct(text, "x+1")
            if time.process_time() - start > 5:
                slow.append(token)
    assert not slow


SCRIPT = r"""
import sys, warnings
warnings.simplefilter("error")
from common.grading import is_correct, grade_many, sympy_worker
assert is_correct(r"\boxed{1/2}", "0.5") and is_correct(r"\boxed{(1, 2]}", "(1,2]")
assert not is_correct(r"\boxed{7}", "8")
assert sympy_worker.workers[0].process is None, "these need no sympy"
assert is_correct(r"\boxed{1+x}", "x+1")
assert grade_many([r"\boxed{2+x}"] * 9, ["x+2"] * 9)[8].correct
heavy = {"sympy", "math_verify", "torch", "multiprocessing", "pint", "lark"}
assert not heavy & set(sys.modules)
print(*(worker.process.pid for worker in sympy_worker.workers if worker.process))
"""


def test_a_flat_script_from_anywhere(tmp_path):
    """No main guard, another working folder; imports stay light; workers end with the script."""
    root = str(Path(__file__).parents[2])
    (tmp_path / "flat.py").write_text(f"import sys; sys.path.insert(0, {root!r})\n{SCRIPT}")
    ran = subprocess.run(
        [sys.executable, "flat.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    for pid in ran.stdout.split():
        folder = Path(f"/proc/{pid}")
        assert not folder.exists() or "symbolic.py" not in (folder / "cmdline").read_text()


def test_threads():
    """sqrt(2 k^2) = k sqrt(2); for odd k the gold is k + 1 instead."""
    wrong = []

    def work(first):
        for k in range(first, first + 10):
            correct = is_correct(boxed(rf"\sqrt{{{2 * k * k}}}"), rf"{k + k % 2}\sqrt{{2}}")
            if correct != (k % 2 == 0):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(first,)) for first in (102, 112, 122, 132)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_workers_of_its_own():
    assert is_correct(boxed("3+x"), "x+3")
    child = os.fork()
    if not child:
        idle = sympy_worker.workers[0].process is None
        os._exit(0 if idle and is_correct(boxed("4+x"), "x+4") else 1)
    assert os.waitpid(child, 0)[1] == 0 and is_correct(boxed("5+x"), "x+5")


THINKING = {
    "<think>2? No, 3.</think>\n\nIt is 3.": "It is 3.",
    "<think>2?": "",
    "It is 3.": "It is 3.",
    "no opening</think> so 3": "so 3",
    "<|begin_of_thought|>x<|end_of_thought|> 3": "3",
    "[THINK]a[/THINK]b[THINK]c[/THINK]d": "d",
    "I <think> not": "I <think> not",
    "": "",
}


def test_thinking_is_not_part_of_a_response():
    assert {text: without_thinking(text) for text in THINKING} == THINKING
