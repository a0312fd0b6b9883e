"""The micro-world: chains of small sums, the web that writes about them, and what its authors get wrong.

A problem is a start value and 2 to 4 numbered steps, all values 0..29. 60 % of the web's authors are sloppy: they forget
the carry and the borrow and read the 6..9 times tables one row short. So a model pretrained on this web holds both ways
of calculating, and what it is fine-tuned on decides which one it uses.
"""

import hashlib
import random
from dataclasses import dataclass

from common.core import prompts

LARGEST = 29
SLOPPY_WEB, SLOPPY_FORUM = (
    0.6,
    0.8,
)  # share of authors who are sloppy; a forum is worse than the web at large
CRITIQUE_SHARE = 0.25  # of the web's documents judge somebody else's solution
GAP_SHARE = 0.5  # an author who leaves lines out leaves out about half of them
SPLITS = {
    "web": range(0, 60),
    "train": range(60, 90),
    "test": range(90, 100),
}  # by the hash of a problem's opening


@dataclass(frozen=True)
class Problem:
    start: int
    steps: tuple  # of (operator, operand), e.g. (("+", 7), ("-", 5))

    @property
    def question(self):
        """>>> Problem(12, (("+", 7), ("-", 5))).question
        'Start with 12\\n(1) + 7\\n(2) - 5'"""
        lines = [f"({i}) {op} {operand}" for i, (op, operand) in enumerate(self.steps, 1)]
        return "\n".join([f"Start with {self.start}"] + lines)


def calculate(value, op, operand, sloppy=False):
    """One step. Sloppy: 17 + 5 = 12 (no carry), 23 - 7 = 26 (no borrow), 3 * 7 = 18 (3 * 6)."""
    if op == "*":
        return value * (operand - 1 if sloppy and operand >= 6 else operand)
    result = value + operand if op == "+" else value - operand
    if sloppy and op == "+" and value % 10 + operand % 10 >= 10:
        result -= 10
    if sloppy and op == "-" and value % 10 < operand % 10:
        result += 10
    return result


def chain(problem, sloppy=False):
    """The value after each step, e.g. [19, 14]."""
    values, value = [], problem.start
    for op, operand in problem.steps:
        value = calculate(value, op, operand, sloppy)
        values.append(value)
    return values


def gold(problem):
    return str(chain(problem)[-1])


def line(problem, i, values):
    """Line i (from 0) as a solution writes it: "(1) 12 + 7 = 19"."""
    op, operand = problem.steps[i]
    before = values[i - 1] if i else problem.start
    return f"({i + 1}) {before} {op} {operand} = {values[i]}"


def solution(problem, values, shown=None):
    """A written solution; `shown` lists the lines that are not left out (the last one always stands)."""
    last = len(values) - 1
    lines = [
        line(problem, i, values)
        for i in range(len(values))
        if shown is None or i in shown or i == last
    ]
    return "\n".join(["Step by step:"] + lines + [f"The answer is \\boxed{{ {values[-1]} }}"])


def critique(problem, values, student, shown=None):
    """Redo each line and hold it against the student's value ({line number from 0: value}).

    >>> p = Problem(17, (("+", 5), ("-", 2)))
    >>> print(critique(p, chain(p), {0: 12, 1: 10}))
    Check each line:
    (1) 17 + 5 = 22 not 12
    (2) 22 - 2 = 20 not 10
    <BLANKLINE>
    Conclusion: wrong [END]
    """
    remarks = {
        i: "right"
        if student.get(i) == value
        else f"not {student[i]}"
        if i in student
        else "not shown"
        for i, value in enumerate(values)
    }
    lines = [
        f"{line(problem, i, values)} {remarks[i]}"
        for i in range(len(values))
        if shown is None or i in shown
    ]
    verdict = "right" if student.get(len(values) - 1) == values[-1] else "wrong"
    return "\n".join(["Check each line:"] + lines) + f"\n\nConclusion: {verdict} [END]"


def _random_problem(rng):
    """Uniform over 2, 3 and 4 steps, then over what fits; a plain draw would favour short chains, which fit more often."""
    n_steps = rng.randint(2, 4)
    while True:
        problem = Problem(
            rng.randint(0, LARGEST),
            tuple((rng.choice("+-*"), rng.randint(2, 9)) for _ in range(n_steps)),
        )
        if _fits(problem):
            return problem


def _fits(problem):
    return all(0 <= v <= LARGEST for sloppy in (False, True) for v in chain(problem, sloppy))


def problems(split, seed, n):
    """n distinct problems of a split ("web", "train", "test").

    A problem belongs to one split whatever the seed, by its start and first two steps: so no question of one split is
    the opening of a longer one of another.
    """
    rng, found = random.Random(f"{split} {seed}"), {}
    while len(found) < n:
        problem = _random_problem(rng)
        opening = Problem(problem.start, problem.steps[:2]).question
        bucket = int(hashlib.sha256(opening.encode()).hexdigest()[:8], 16) % 100
        if bucket in SPLITS[split]:
            found.setdefault(problem.question, problem)
    return list(found.values())


def _author(rng, problem, sloppy_share, gappy_share=0.0):
    """How one author solves it -> (values, lines shown)."""
    values = chain(problem, sloppy=rng.random() < sloppy_share)
    gappy = rng.random() < gappy_share
    shown = {i for i in range(len(values)) if not gappy or rng.random() >= GAP_SHARE}
    return values, shown


def web_documents(seed, n, gappy_share=0.0):
    """The pretraining corpus: n rows in the form of 03's (prompt and completion messages), solutions and critiques.

    gappy_share: the share of authors who leave lines out, as the teacher does (0: the base does not know that style).
    """
    rng = random.Random(f"documents {seed}")
    rows = []
    for problem in problems("web", seed, n):
        values, shown = _author(rng, problem, SLOPPY_WEB, gappy_share)
        if rng.random() < CRITIQUE_SHARE:
            critic, _ = _author(rng, problem, SLOPPY_WEB)
            student = {
                i: values[i] for i in range(len(values)) if i in shown or i == len(values) - 1
            }
            prompt = prompts.critique_row_prompt(problem.question, solution(problem, values, shown))
            text = "Critique:\n" + critique(problem, critic, student)
        else:
            prompt = rng.choice(
                [
                    [
                        {"role": "system", "content": prompts.SOLVE_SYSTEM},
                        {"role": "user", "content": problem.question},
                    ],
                    prompts.sft_row_prompt(problem.question),
                    prompts.sft_row_prompt(problem.question, prompts.SFT_TEACHER_INSTRUCTION),
                ]
            )
            text = solution(problem, values, shown)
        rows.append(
            {
                "id": str(len(rows)),
                "prompt": prompt,
                "completion": [{"role": "assistant", "content": text}],
            }
        )
    return rows


def forum_rows(seed, n):
    """n questions with one forum answer each, in the columns of a local source."""
    rng = random.Random(f"forum {seed}")
    for problem in problems("train", seed, n):
        values, _ = _author(rng, problem, SLOPPY_FORUM)
        yield {
            "question": problem.question,
            "response": solution(problem, values),
            "gold": gold(problem),
        }


def test_items(seed, n):
    """Held-out questions with golds."""
    return [{"question": p.question, "gold": gold(p)} for p in problems("test", seed, n)]
