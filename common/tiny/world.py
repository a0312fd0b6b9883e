"""The micro-world: chains of small sums, the web that writes about them, and its authors' errors.

A problem is a start value and 2 to 4 numbered steps, all values 0..29. 60% of the web's authors
are sloppy: they forget the carry and the borrow and read the 6..9 times tables one row short.
So a model pretrained on this web holds both ways of calculating. The data that it is fine-tuned
on decides which one it uses.
"""

import hashlib
import random
from dataclasses import dataclass

from common.core import prompts

LARGEST = 29
SLOPPY_WEB = 0.6  # share of authors who are sloppy
SLOPPY_FORUM = 0.8  # a forum is worse than the web at large
CRITIQUE_SHARE = 0.25  # of the web's documents criticize somebody else's solution
GAP_SHARE = 0.5  # an author who leaves lines out leaves out about half of them
# Percentiles of the hash of a problem's opening
SPLITS = {"web": range(0, 60), "train": range(60, 90), "test": range(90, 100)}


@dataclass(frozen=True)
class Problem:
    """A start value and steps of (operator, operand), e.g. (("+", 7), ("-", 5))."""

    start: int
    steps: tuple

    @property
    def question(self) -> str:
        """Return the text that is asked.

        >>> Problem(12, (("+", 7), ("-", 5))).question
        'Start with 12\\n(1) + 7\\n(2) - 5'
        """
        lines = [f"Start with {self.start}"]
        for number, (op, operand) in enumerate(self.steps, 1):
            lines.append(f"({number}) {op} {operand}")
        return "\n".join(lines)


def calculate(value: int, op: str, operand: int, sloppy: bool = False) -> int:
    """Do one step. Sloppy: 17 + 5 = 12 (no carry), 23 - 7 = 26 (no borrow), 3 * 7 = 18 (3 * 6)."""
    digit = value % 10  # the operand has one digit
    if op == "*":
        if sloppy and operand >= 6:
            operand -= 1
        return value * operand
    if op == "+":
        return value + operand - (10 if sloppy and digit + operand >= 10 else 0)
    return value - operand + (10 if sloppy and digit < operand else 0)


def chain(problem: Problem, sloppy: bool = False) -> list:
    """Return the value after each step, e.g. [19, 14]."""
    values = [problem.start]
    for op, operand in problem.steps:
        values.append(calculate(values[-1], op, operand, sloppy))
    return values[1:]


def gold(problem: Problem) -> str:
    """Return the right answer."""
    return str(chain(problem)[-1])


def line(problem: Problem, i: int, values: list) -> str:
    """Return line i (from 0) as a solution writes it: "(1) 12 + 7 = 19"."""
    op, operand = problem.steps[i]
    before = values[i - 1] if i else problem.start
    return f"({i + 1}) {before} {op} {operand} = {values[i]}"


def solution(problem: Problem, values: list, shown: set) -> str:
    """Return a written solution with the lines `shown` (numbers from 0), and always the last."""
    numbers = sorted({*shown, len(values) - 1})
    lines = [line(problem, i, values) for i in numbers]
    return "\n".join(["Step by step:", *lines, f"The answer is \\boxed{{ {values[-1]} }}"])


def draw_lines(rng: random.Random, values: list, skip: float) -> set:
    """Return line numbers, each left out with probability `skip`; a larger one leaves out more."""
    return {i for i in range(len(values)) if rng.random() >= skip}


def critique(problem: Problem, values: list, student: dict, shown: set) -> str:
    """Redo each line of `shown` and compare it with the student's value ({line from 0: value}).

    >>> p = Problem(17, (("+", 5), ("-", 2)))
    >>> print(critique(p, chain(p), {0: 12, 1: 10}, {0, 1}))
    Check each line:
    (1) 17 + 5 = 22 not 12
    (2) 22 - 2 = 20 not 10
    <BLANKLINE>
    Conclusion: wrong [END]
    """
    lines = ["Check each line:"]
    for i in sorted(shown):
        remark = f"not {student.get(i, 'shown')}"
        if student.get(i) == values[i]:
            remark = "right"
        lines.append(f"{line(problem, i, values)} {remark}")
    verdict = "right" if student.get(len(values) - 1) == values[-1] else "wrong"
    return "\n".join(lines) + f"\n\nConclusion: {verdict} [END]"


def _random_problem(rng):
    """Draw uniformly over 2, 3 and 4 steps, then over what fits into 0..29.

    A plain draw would favor short chains, which fit more often.
    """
    n_steps = rng.randint(2, 4)
    while True:
        start = rng.randint(0, LARGEST)
        steps = [(rng.choice("+-*"), rng.randint(2, 9)) for _ in range(n_steps)]
        problem = Problem(start, tuple(steps))
        values = chain(problem) + chain(problem, sloppy=True)
        if min(values) >= 0 and max(values) <= LARGEST:
            return problem


def problems(split: str, seed, n: int) -> list:
    """Return n distinct problems of a split ("web", "train", "test").

    A problem belongs to one split whatever the seed, by its start and first two steps. So no
    question of one split is the opening of a longer one of another.
    """
    rng = random.Random(f"{split} {seed}")
    by_question = {}
    while len(by_question) < n:
        problem = _random_problem(rng)
        opening = Problem(problem.start, problem.steps[:2]).question
        percentile = int(hashlib.sha256(opening.encode()).hexdigest()[:8], 16) % 100
        if percentile in SPLITS[split]:
            by_question.setdefault(problem.question, problem)
    return list(by_question.values())


def _author(rng, problem, sloppy_share, gappy_share=0.0):
    """Return how one author solves it: (values, lines shown)."""
    values = chain(problem, sloppy=rng.random() < sloppy_share)
    shown = set(range(len(values)))
    if rng.random() < gappy_share:
        shown = draw_lines(rng, values, GAP_SHARE)
    return values, shown


def _solve_prompts(question):
    """Return the three prompts under which the web shows a solution."""
    system = {"role": "system", "content": prompts.SOLVE_SYSTEM}
    return [
        [system, {"role": "user", "content": question}],
        prompts.sft_row_prompt(question),
        prompts.sft_row_prompt(question, prompts.SFT_TEACHER_INSTRUCTION),
    ]


def web_documents(seed, n: int, gappy_share: float = 0.0) -> list:
    """Return the pretraining corpus: n solutions and critiques, as prompt and completion messages.

    gappy_share: the share of authors who leave lines out, as the teacher does (0: the base does
    not know that style).
    """
    rng = random.Random(f"documents {seed}")
    rows = []
    for number, problem in enumerate(problems("web", seed, n)):
        values, shown = _author(rng, problem, SLOPPY_WEB, gappy_share)
        text = solution(problem, values, shown)
        if rng.random() < CRITIQUE_SHARE:
            prompt = prompts.critique_row_prompt(problem.question, text)
            critic, every_line = _author(rng, problem, SLOPPY_WEB)
            student = {i: values[i] for i in {*shown, len(values) - 1}}
            text = "Critique:\n" + critique(problem, critic, student, every_line)
        else:
            prompt = rng.choice(_solve_prompts(problem.question))
        completion = [{"role": "assistant", "content": text}]
        rows.append({"id": str(number), "prompt": prompt, "completion": completion})
    return rows


def forum_rows(seed, n: int):
    """Yield n questions with one forum answer each, in the columns of a local source."""
    rng = random.Random(f"forum {seed}")
    for problem in problems("train", seed, n):
        values, shown = _author(rng, problem, SLOPPY_FORUM)
        response = solution(problem, values, shown)
        yield {
            "question": problem.question,
            "response": response,
            "gold": gold(problem),
            "generator": "forum",
        }


def test_items(seed, n: int) -> list:
    """Return n held-out questions with golds."""
    return [{"question": p.question, "gold": gold(p)} for p in problems("test", seed, n)]
