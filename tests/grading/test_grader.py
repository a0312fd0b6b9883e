"""Whole outputs: extraction, options, many at once, any type; inputs that try to break or run something are in test_hostile."""

import os
import subprocess
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest

from common.grading import equivalence, paper, sympy_worker as worker
from common.grading.extraction import without_thinking
from common.grading.grader import GradeResult, extract_answer, grade, grade_many, is_correct
from tests import hostile


def boxed(answer):
    return f"So the answer is $\\boxed{{{answer}}}$."


EXTRACTED = [  # (output, answer, how)
    (r"First \boxed{1}, then \boxed{2}.", "2", "boxed"),
    (
        r"\boxed{\frac{1}{2}} and a check of \boxed{",
        r"\frac{1}{2}",
        "boxed",
    ),  # an unclosed last box is no answer
    (r"\boxed {7} or \fbox{8}", "8", "boxed"),
    (r"so $n = \boxed 8$", "8", "boxed"),
    (
        r"\boxed{\left\{1, 2\right\}}",
        r"\left\{1, 2\right\}",
        "boxed",
    ),  # escaped braces do not count
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
]


@pytest.mark.parametrize("output, answer, how", EXTRACTED)
def test_extraction(output, answer, how):
    assert extract_answer(output) == answer
    assert grade(output, "0").extraction_method == how


@pytest.mark.parametrize(
    "output, gold, choices, correct",
    [
        (r"\boxed{\text{(C)}}", "C", None, True),
        (r"\boxed{F) 3.2 \times 10^5}", "F", "ABCDEFGHIJ", True),
        (r"A is wrong. The answer is (J).", "J", "ABCDEFGHIJ", True),
        ("The answer is B because a car moves.", "A", "ABCD", False),
        ("The answer: D, it cannot be A or B", "D", "ABCD", True),
        ("D. it can't be A or B", "D", "ABCD", True),
        ("It is not A, therefore I think it is B", "B", ["A", "B", "C"], True),
        ("Option A is incorrect. Therefore, option D is correct.", "D", "ABCD", True),
        ("Step 4: P-F is the strongest.\nSolution: Choice_B: P-F", "B", None, True),
        ("Solution: Choice B/D", "D", "ABCD", False),
        ("The answer is both (A) and (C).", "C", "ABCD", False),
        ("Solution: None of the choices (A, B, C, or D) are correct.", "D", "ABCD", False),
        (
            r"A weighs less. \boxed{42}",
            "A",
            "ABCD",
            False,
        ),  # a box that holds no option is a wrong answer, not a missing one
        (r"\boxed{c}", "(C)", "ABCD", True),
        ("I see a car. A car is fast.", "A", "ABCD", False),
        (r"\boxed{A and B}", "A", None, False),
        (r"\boxed{A, C}", "A", "ABCD", False),
        (r"\boxed{\text{A}, \text{C}}", "A", "ABCD", False),
        (r"\boxed{A \text{ and } C}", "A", None, False),
        ("The answer is not A.", "A", "ABCD", False),
        (r"\boxed{A}", "-A", None, False),
        (r"\boxed{C+1}", "C", None, False),  # formulas are no letters
        (r"\boxed{C_1}", "C", "ABCD", False),
        (r"\boxed{F = ma}", "F", None, False),
        (r"\boxed{(d)}", "(d)", None, True),
        (r"\boxed{(b)}", "(d)", None, False),
        ("The answer is $C$.", "(c)", None, True),
        ("(c)", "(c)", None, True),
        (r"\boxed{n}", "N", None, False),  # without choices a letter beyond J is a symbol
        (r"\boxed{ℝ}", r"\mathbb{R}", None, True),
    ],
)
def test_options(output, gold, choices, correct):
    assert grade(output, gold, choices=choices).correct is correct


def test_an_output_that_is_nothing_but_the_gold():
    assert is_correct("odd $n$", "odd $n$") and not is_correct("even $n$", "odd $n$")


def test_many_at_once_are_judged_as_one_by_one():
    texts = [boxed(rf"\sqrt{{{2 * k * k}}}") for k in range(1, 40)] + ["none", None]
    golds = [rf"{k + k % 2}\sqrt{{2}}" for k in range(1, 40)] + ["1", "2"]  # right for even k
    results = grade_many(texts, golds)
    assert [judgement.correct for judgement in results] == [k % 2 == 0 for k in range(1, 40)] + [
        False,
        False,
    ]
    assert results == [grade(*pair) for pair in zip(texts, golds)]
    assert grade_many(["4.04"] * 2, ["4.0", "4"], tolerance=0.01) == [
        grade("4.04", "4.0", 0.01),
        grade("4.04", "4", 0.01),
    ]
    with pytest.raises(ValueError, match="2 outputs and 1 golds"):
        grade_many(["1", "2"], ["1"])


@pytest.mark.parametrize(
    "setting",
    [
        {"tolerance": 1},
        {"tolerance": "x"},
        {"tolerance": None},
        {"choices": 4},
        {"choices": ["Paris", "Rome"]},
    ],
    ids=str,
)
def test_settings_that_cannot_be_meant(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        grade("5", "5", **setting)


def test_equal_pairs_are_judged_once(monkeypatch):
    asked = []
    monkeypatch.setattr(worker, "ask", lambda *arguments: asked.append(arguments) or (True, 0.0))
    assert len(grade_many([boxed("y+z+7")] * 50, ["7+y+z"] * 50)) == 50 and len(asked) == 1


def test_repeated_answers_ask_sympy_once(monkeypatch):
    asked = []
    monkeypatch.setattr(
        worker, "ask", lambda *arguments, ask=worker.ask: asked.append(arguments) or ask(*arguments)
    )
    assert (
        all(is_correct(boxed(r"\sqrt{7}\sqrt{7}+y"), "y+7") for _ in range(5)) and len(asked) == 1
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        2.5,
        True,
        Fraction(1, 3),
        b"x",
        [],
        {},
        object(),
        10**5000,
        Fraction(10**5000, 7),
        float("nan"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_type_returns(value):
    assert (
        isinstance(grade(value, value), GradeResult)
        and not is_correct(boxed("8"), value)
        and not is_correct(value, "8")
    )
    assert extract_answer(value) is None or isinstance(value, (bool, int, float, Fraction))


def test_numbers_are_read_as_their_text():
    assert (
        is_correct(5, Decimal("5.0"))
        and is_correct(5, 5)
        and is_correct("5", 5)
        and is_correct(boxed("2.5"), 2.5)
        and is_correct(boxed("1/3"), Fraction(1, 3))
        and is_correct("True", True)
    )


def test_hostile_inputs(tmp_path, monkeypatch):
    """None runs code or is taken for right, and what comes after is graded as ever. Their time and memory: tests/bench/hostile.py."""
    assert equivalence.SYMBOLIC_SECONDS == 3.0
    monkeypatch.setattr(equivalence, "SYMBOLIC_SECONDS", 0.7)
    cases = hostile.cases(str(tmp_path / "ran"))
    results = grade_many([text for _, text, _ in cases], [gold for _, _, gold in cases])
    assert len(cases) > 150 and not [
        name for (name, *_), judged in zip(cases, results) if judged.correct
    ]
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert is_correct(boxed(r"\sqrt{8}"), r"2\sqrt{2}")


PUMPED = [
    "a + ", "5 / ", "a / ", "~", "$", " ", r"\ ", "9", "1,", "1 ", "x_", "(", "[", "{", r"\{", "|", "=", "a = ", "-", "^", "^2", "and ", "or ",
    "is ", "answer is ", "The answer is 1. ", "**", "####", r"\text{", r"\text{ a } ", r"\frac", r"\frac{1}{", r"\sqrt", r"\left(", r"\begin{cases}",
    "kg m ", "m/s", "meters ", "secs ", "solution: ", "a.", "1.", ".", "°", "<", r"\le ", "x < ", r"\cup ", r"\pm ", "1:", "<think>", "</think>", r"\boxed{", r"\boxed 1", "A ", "A, ",
    "option A ", "for all x ", "where ", r"\\", "&", "%", r"\times10", "10^{", "e", "é", "½", "²",
]  # fmt: skip


@pytest.mark.parametrize("times", [28, 400, 6_000])
@pytest.mark.parametrize("end", ["", "1 = 5", ")!?"])
def test_no_repetition_takes_long(times, end, monkeypatch):
    """Regular expressions run where nothing can stop them: none may explode, or be more than quadratic with a small constant."""
    monkeypatch.setattr(worker, "ask", lambda *_: (False, 0.0))
    for token in PUMPED:
        for text in (
            token * times + end,
            rf"\boxed{{{token * times + end}}}",
            f"The answer is {token * times + end}",
        ):
            start = time.process_time()
            (
                grade(text, "5"),
                grade(text, "A", choices="ABCD"),
                grade(boxed("5"), token * times + end),
                paper.is_correct(text, "x+1"),
            )
            assert time.process_time() - start < 2, (token, times, end)


SCRIPT = r"""
import sys
from common.grading import is_correct, grade_many
assert is_correct(r"\boxed{1/2}", "0.5") and is_correct(r"\boxed{(1, 2]}", "(1,2]") and not is_correct(r"\boxed{7}", "8")
from common.grading import sympy_worker as worker
assert worker.workers[0].process is None, "these need no sympy"
assert is_correct(r"\boxed{1+x}", "x+1") and grade_many([r"\boxed{2+x}"] * 9, ["x+2"] * 9)[8].correct
assert not {"sympy", "math_verify", "torch", "multiprocessing"} & set(sys.modules)
print(*(one.process.pid for one in worker.workers if one.process))
"""


def test_a_flat_script_from_anywhere(tmp_path):
    """No main guard, another working folder; the imports stay light, and the workers end with the script."""
    (tmp_path / "flat.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{SCRIPT}"
    )
    ran = subprocess.run(
        [sys.executable, "flat.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    for pid in ran.stdout.split():
        folder = Path(f"/proc/{pid}")
        assert not folder.exists() or "symbolic.py" not in (folder / "cmdline").read_text()


def test_threads(tmp_path):
    results = []

    def work(first):
        for k in range(
            first, first + 10
        ):  # sqrt(2 k^2) = k sqrt(2); for odd k the gold is k + 1 instead
            results.append(
                is_correct(boxed(rf"\sqrt{{{2 * k * k}}}"), rf"{k + k % 2}\sqrt{{2}}")
                == (k % 2 == 0)
            )

    threads = [threading.Thread(target=work, args=(first,)) for first in (102, 112, 122, 132)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 40 and all(results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_workers_of_its_own():
    assert is_correct(boxed("3+x"), "x+3")
    if not (child := os.fork()):
        os._exit(0 if worker.workers[0].process is None and is_correct(boxed("4+x"), "x+4") else 1)
    assert os.waitpid(child, 0)[1] == 0 and is_correct(boxed("5+x"), "x+5")


@pytest.mark.parametrize(
    "text, answer",
    [
        ("<think>2? No, 3.</think>\n\nIt is 3.", "It is 3."),
        ("<think>2?", ""),
        ("It is 3.", "It is 3."),
        ("no opening</think> so 3", "so 3"),
        ("<|begin_of_thought|>x<|end_of_thought|> 3", "3"),
        ("[THINK]a[/THINK]b[THINK]c[/THINK]d", "d"),
        ("I <think> not", "I <think> not"),
        ("", ""),
    ],
)
def test_thinking_is_not_part_of_a_response(text, answer):
    assert without_thinking(text) == answer
