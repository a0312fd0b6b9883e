"""The training sets of the paper, and controls, as a table: which rows serve, and what is learned from them.

Rows come out in the prompt-completion form that TRL reads as it is, the system message always explicit.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, zip_longest

from common import prompts
from common.files import content_id


@dataclass(frozen=True)
class Given:
    """What the arms are made from, beside the critiqued rows themselves."""

    system: str = prompts.SYSTEM
    answers: dict = field(default_factory=dict)  # {question_id: the teacher's own answer}
    right: dict = field(default_factory=dict)  # {response id: whether the strict grader finds its answer right}, where there is a gold
    length: dict = field(default_factory=dict)  # {critique_id: (response, critique, whole row)}, see choice.measured
    own: list = field(default_factory=list)  # critiques by the base itself (02 --self-critique)
    others: list = field(default_factory=list)  # responses of another run, whose critique_id and verdict are None
    wrong_share: float | None = None
    per_question: int | None = None


def cft(row, system):
    """-> (prompt messages, completion) of one critiqued row."""
    return prompts.critique_row_prompt(row["question"], row["response"], system), f"Critique:\n{row['critique']}"


def _cft(row, given):
    return cft(row, given.system)


def _sft(row, given):
    instruction = prompts.SFT_INSTRUCTIONS.get(row["source"], prompts.SFT_INSTRUCTION)
    return prompts.sft_row_prompt(row["question"], instruction, given.system), row["response"]


def _sft_teacher(row, given):
    prompt = prompts.sft_row_prompt(row["question"], prompts.SFT_TEACHER_INSTRUCTION, given.system)
    return prompt, given.answers[row["question_id"]]


def _verdict(row, given):
    return _cft(row, given)[0], f"Critique:\nConclusion: {row['verdict']} [END]"


def _finished(row, given):
    """A response that was cut by its token limit would teach to stop in the middle."""
    return row["finish_reason"] != "length"


def _as_long_as_answers(rows, given, size):
    """The critiques that are nearest in length to the mean answer of the sft arm."""
    answers = [given.length[row["critique_id"]][0] for row in _take(ARMS["sft"], rows, given, size)[0]]
    mean = sum(answers) / max(1, len(answers))
    return sorted(rows, key=lambda row: abs(math.log(given.length[row["critique_id"]][1] / mean))) if answers else []


def _base_critiques(rows, given, size):
    """In the order of the teacher's rows, so that both arms share their responses where the base gave a verdict."""
    by_response = {row["id"]: row for row in given.own}
    return [by_response[name] for name in dict.fromkeys(row["id"] for row in rows) if name in by_response]


def _shuffled(rows, given):
    """Each row with the critique of another question, or where one question has most rows, of another response; [] where even
    that cannot be. Rows in groups, moved on by the size of the largest, never land in their own."""
    for key in ("question_id", "id"):
        at = sorted(range(len(rows)), key=lambda i: rows[i][key])
        by = max(Counter(row[key] for row in rows).values(), default=0)
        if rows and 2 * by <= len(rows):
            theirs = dict(zip(at, at[by:] + at[:by]))
            return [row | {name: rows[theirs[i]][name] for name in ("critique", "verdict", "critique_id")} for i, row in enumerate(rows)]
    return []


def _with_others(rows, given):
    """Each with an SFT row of the other run behind it, none of a question that is there already; [] where it has no others."""
    there = {row["question_id"] for row in rows}
    others = [row for row in given.others if row["question_id"] not in there][: len(rows)]
    return [row for pair in zip_longest(rows, others) for row in pair if row] if others else []


@dataclass(frozen=True)
class Arm:
    """fits: which rows can serve. But for cft-clean none of them looks at a gold: verified means that the teacher's verdict is right."""

    build: Callable  # (row, given) -> prompt, completion
    needs: str  # what a row must have, for the report
    mend: str = "choose less strictly: --wrong-share, --max-tokens, --decontaminate, ..."  # where no row has it
    once_per: tuple = ("critique_id",)  # rows that agree in these fields would train on the same text: the first stands
    fits: Callable = lambda row, given: True
    pool: Callable = lambda rows, given, size: rows  # of which rows, in which order
    change: Callable = lambda rows, given: rows  # of those that were taken
    shared: bool = True  # takes right and wrong responses, by --wrong-share
    judged: bool = True  # the verdict is about what stands in its rows
    control: bool = False  # built only where it is named
    parts: int = 1  # it holds so many times the rows asked for


A_CRITIQUE = "a critique with a verdict"
ARMS = {
    "sft": Arm(_sft, "a finished response", once_per=("id",), fits=_finished),
    "sft-verified": Arm(_sft, "a finished response that one of the teachers judged right", once_per=("id",),
                        fits=lambda row, given: row["verdict"] == "right" and _finished(row, given), shared=False),
    "sft-teacher": Arm(_sft_teacher, "an answer of the teacher", "run: python 02_critique.py --name {name} --answers", ("question_id",),
                       lambda row, given: given.answers.get(row["question_id"], "").strip() != "", judged=False),
    "cft": Arm(_cft, A_CRITIQUE),
    "cft-short": Arm(_cft, A_CRITIQUE + " and a finished response to be as long as", pool=_as_long_as_answers),
    "cft-clean": Arm(_cft, "a gold with which the verdict agrees", fits=lambda row, given: given.right.get(row["id"]) is (row["verdict"] == "right")),
    "sft-other": Arm(_sft, "a finished response of another run", "name that run: --mix RUN", ("id",),
                     pool=lambda rows, given, size: given.others, judged=False, shared=False),
    "mix": Arm(lambda row, given: (_cft if row["critique_id"] else _sft)(row, given), A_CRITIQUE + ", beside another run's responses to other questions", "name that run: --mix RUN",
               pool=lambda rows, given, size: rows if given.others else [], change=_with_others, parts=2),
    "cft-shuffled": Arm(_cft, A_CRITIQUE + " of several responses", change=_shuffled, control=True),
    "cft-verdict": Arm(_verdict, A_CRITIQUE, once_per=("id", "verdict"), control=True),
    "cft-self-critique": Arm(_cft, "a critique by the base itself", "run: python 02_critique.py --name {name} --self-critique base",
                             pool=_base_critiques, control=True),
}


def _fitting(arm, rows, given):
    """Rows that can serve, each training text once."""
    found = {}
    for row in rows:
        if arm.fits(row, given):
            found.setdefault(tuple(row[name] for name in arm.once_per), row)
    return list(found.values())


def _of_each_question(rows, most, wrong_share):
    """At most so many rows of a question: the first ones, or where a share is asked for, those of the verdict that it lacks so far; the
    questions whose responses were all judged alike, which leave no choice, come first."""
    of_question, taken, n_wrong = {}, [], 0
    for row in rows:
        of_question.setdefault(row["question_id"], []).append(row)
    for some in sorted(of_question.values(), key=lambda some: len({row["verdict"] for row in some})):
        for _ in range(min(most, len(some))):
            wanted = "wrong" if wrong_share is not None and n_wrong < wrong_share * (len(taken) + 1) else "right"
            pick = next((row for row in some if row["verdict"] == wanted), some[0]) if wrong_share is not None else some[0]
            some.remove(pick)
            taken.append(pick)
            n_wrong += pick["verdict"] == "wrong"
    chosen = {id(row) for row in taken}
    return [row for row in rows if id(row) in chosen]


def _by_share(rows, wrong_share, size):
    """The first `size` rows, or fewer, of which this share is judged wrong, in the order given."""
    right, wrong = ([row for row in rows if row["verdict"] == verdict] for verdict in ("right", "wrong"))
    most = [len(some) / share for some, share in ((wrong, wrong_share), (right, 1 - wrong_share)) if share]
    size = int(min(size, *most) + 1e-6)  # 3 right ones of 0.3 are 10 rows, whatever 3 / (1 - 0.7) is
    n_wrong = min(round(size * wrong_share), len(wrong))
    taken = {row["critique_id"] for row in chain(wrong[:n_wrong], right[: size - n_wrong])}
    return [row for row in rows if row["critique_id"] in taken]


def _take(arm, rows, given, size):
    """-> (the rows that an arm takes of those in its pool, how many could serve)."""
    fitting = _fitting(arm, rows, given)
    share = given.wrong_share if arm.shared else None
    if given.per_question:
        fitting = _of_each_question(fitting, given.per_question, share)
    return fitting[:size] if share is None else _by_share(fitting, share, size), len(fitting)


def build(name, rows, given, size):
    """The first `size` rows that fit the arm. -> (training rows, how many rows could have served).

    rows: critiqued rows in the order of choice, the same for every arm, so that arms share questions where they can.
    """
    arm = ARMS[name]
    taken, n_fitting = _take(arm, arm.pool(rows, given, size), given, size)
    result = []
    for row in arm.change(taken, given):
        prompt, completion = arm.build(row, given)
        result.append({
            "id": content_id(name, row["id"], row["critique_id"]), "prompt": prompt,
            "completion": [{"role": "assistant", "content": completion}], "arm": name, "response_id": row["id"],
            "verdict": row["verdict"] if arm.judged else None,
        })
    return result, n_fitting


def same(rows, others):
    """Whether two arms train on the same texts."""
    def texts(some):
        return {(row["prompt"][-1]["content"], row["completion"][0]["content"]) for row in some}

    return bool(others) and len(rows) == len(others) and texts(rows) == texts(others)


def trained(folder):
    """The arms that stand in a run's 04_train, the paper's first, then mixed and two-stage ones."""
    found = {settings.parent.name for settings in folder.glob("*/settings.json")}
    return [name for name in ARMS if name in found] + sorted(found - set(ARMS))
