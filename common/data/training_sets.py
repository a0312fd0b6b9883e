"""The training sets of the paper, and controls, as a table: which rows serve, and what is learned from them.

Rows come out in the prompt-completion form that TRL reads as it is, the system message always explicit.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest

from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id


@dataclass(frozen=True)
class BuildInputs:
    """What the arms are made from, beside the critiqued rows themselves."""

    system: str = prompts.SYSTEM
    answers: dict = field(default_factory=dict)  # {question_id: the teacher's own answer}
    gives_gold: dict = field(
        default_factory=dict
    )  # {response id: whether the strict grader finds its answer right}, where there is a gold
    length: dict = field(
        default_factory=dict
    )  # {critique_id: (response, critique, whole row)}, see selection.measure_lengths
    self_critiques: list = field(
        default_factory=list
    )  # critiques by the base itself (02 --self-critique)
    others: list = field(
        default_factory=list
    )  # responses of another run, whose critique_id and verdict are None
    wrong_share: float | None = None
    per_question: int | None = None


def format_cft(row, system):
    """-> (prompt messages, completion) of one critiqued row."""
    return prompts.critique_row_prompt(
        row["question"], row["response"], system
    ), f"Critique:\n{row['critique']}"


def _cft(row, given):
    return format_cft(row, given.system)


def _sft(row, given):
    instruction = prompts.SFT_INSTRUCTIONS.get(row["source"], prompts.SFT_INSTRUCTION)
    return prompts.sft_row_prompt(row["question"], instruction, given.system), row["response"]


def _sft_teacher(row, given):
    prompt = prompts.sft_row_prompt(row["question"], prompts.SFT_TEACHER_INSTRUCTION, given.system)
    return prompt, given.answers[row["question_id"]]


def _mixed(row, given):
    return (_cft if row["critique_id"] else _sft)(row, given)


def _verdict(row, given):
    return _cft(row, given)[0], f"Critique:\nConclusion: {row['verdict']} [END]"


def _finished(row, given):
    """A response that was cut by its token limit would teach to stop in the middle."""
    return row["finish_reason"] != "length"


def _as_long_as_answers(rows, given, size):
    """The critiques that are nearest in length to the mean answer of the sft arm, as a ratio: half of it is as near as twice."""
    answers = [
        given.length[row["critique_id"]].response
        for row in _take(TRAINING_SETS["sft"], rows, given, size)[0]
    ]
    mean = sum(answers) / max(1, len(answers))
    return (
        sorted(
            rows, key=lambda row: abs(math.log(given.length[row["critique_id"]].critique / mean))
        )
        if answers
        else []
    )


def _base_critiques(rows, given, size):
    """In the order of the teacher's rows, so that both arms share their responses where the base gave a verdict."""
    by_response = {row["id"]: row for row in given.self_critiques}
    return [
        by_response[name]
        for name in dict.fromkeys(row["id"] for row in rows)
        if name in by_response
    ]


def _shuffled(rows, given):
    """Each row with the critique of another question, or where one question has most rows, of another response; [] where even
    that cannot be. Rows in groups, moved on by the size of the largest, never land in their own."""
    for key in ("question_id", "id"):
        at = sorted(range(len(rows)), key=lambda i: rows[i][key])
        by = max(Counter(row[key] for row in rows).values(), default=0)
        if 2 * by <= len(rows):
            theirs = dict(zip(at, at[by:] + at[:by]))
            return [
                row
                | {name: rows[theirs[i]][name] for name in ("critique", "verdict", "critique_id")}
                for i, row in enumerate(rows)
            ]
    return []


def _with_others(rows, given):
    """Each with an SFT row of the other run behind it, none of a question that is there already; [] where it has no others."""
    there = {row["question_id"] for row in rows}
    others, _ = _take(
        TRAINING_SETS["sft-other"],
        [row for row in given.others if row["question_id"] not in there],
        given,
        len(rows),
    )
    return [row for pair in zip_longest(rows, others) for row in pair if row] if others else []


@dataclass(frozen=True)
class TrainingSet:
    """fits: which rows can serve. But for cft-clean none of them looks at a gold: verified means that the teacher's verdict is right."""

    build: Callable  # (row, given) -> prompt, completion
    needs: str  # what a row must have, for the report
    mend: str = "choose less strictly: --wrong-share, --max-tokens, --decontaminate, ..."  # where no row has it
    once_per: tuple = (
        "id",
        "critique",
    )  # rows that agree in these fields would train on the same text: the first stands
    fits: Callable = lambda row, given: True
    pool: Callable = lambda rows, given, size: rows  # of which rows, in which order
    change: Callable = lambda rows, given: rows  # of those that were taken
    shared: bool = True  # takes right and wrong responses, by --wrong-share
    judged: bool = True  # the verdict is about what stands in its rows
    control: bool = False  # built only where it is named
    parts: int = 1  # it holds so many times the rows asked for
    most: int | None = None  # rows of one question, whatever --per-question says


A_CRITIQUE = "a critique with a verdict"
OTHER_RUN = "name a run with other questions: --mix RUN"
TRAINING_SETS = {
    "sft": TrainingSet(_sft, "a finished response", once_per=("id",), fits=_finished),
    "sft-verified": TrainingSet(
        _sft,
        "a finished response that one of the teachers judged right",
        once_per=("id",),
        shared=False,
        fits=lambda row, given: row["verdict"] == "right" and _finished(row, given),
    ),
    "sft-teacher": TrainingSet(
        _sft_teacher,
        "an answer of the teacher",
        mend="run: python 02_critique.py --name {name} --answers",
        once_per=("question_id", "verdict"),
        most=1,
        judged=False,
        fits=lambda row, given: row["question_id"] in given.answers,
    ),
    "cft": TrainingSet(_cft, A_CRITIQUE),
    "cft-short": TrainingSet(
        _cft, f"{A_CRITIQUE} and a finished response to be as long as", pool=_as_long_as_answers
    ),
    "cft-clean": TrainingSet(
        _cft,
        "a gold with which the verdict agrees",
        fits=lambda row, given: given.gives_gold.get(row["id"]) is (row["verdict"] == "right"),
    ),
    "sft-other": TrainingSet(
        _sft,
        "a finished response of another run",
        mend=OTHER_RUN,
        once_per=("id",),
        judged=False,
        shared=False,
        pool=lambda rows, given, size: given.others,
    ),
    "mix": TrainingSet(
        _mixed,
        f"{A_CRITIQUE}, beside another run's responses to other questions",
        mend=OTHER_RUN,
        parts=2,
        pool=lambda rows, given, size: rows if given.others else [],
        change=_with_others,
    ),
    "cft-shuffled": TrainingSet(
        _cft,
        f"{A_CRITIQUE} of several responses",
        mend="give it critiques of more responses",
        change=_shuffled,
        control=True,
    ),
    "cft-verdict": TrainingSet(_verdict, A_CRITIQUE, once_per=("id", "verdict"), control=True),
    "cft-self-critique": TrainingSet(
        _cft,
        "a critique by the base itself",
        mend="run: python 02_critique.py --name {name} --self-critique base",
        pool=_base_critiques,
        control=True,
    ),
}


def _first(rows, size, most, share):
    """The first `size` rows that can stand together: at most `most` of a question (None: any number), of which this share is judged
    wrong (None: whatever comes); fewer only where there are no more at that share.

    So many right and so many wrong ones can be taken just where neither, nor both together, are more than the questions hold of them,
    `most` of each at most (a question is a polymatroid of two elements, and so is the sum of all of them). That is looked at before
    each row: one is passed over where the rows behind it could not fill the rest.
    """
    ahead, free = (
        {},
        {},
    )  # {question: [right, wrong rows to come]}, {question: how many of it may still be taken}
    for row in rows:
        ahead.setdefault(row["question_id"], [0, 0])[row["verdict"] == "wrong"] += 1
        free[row["question_id"]] = most or len(rows)

    def held(question):
        """Right ones, wrong ones, and both together that can still be taken of it."""
        return [min(n, free[question]) for n in (*ahead[question], sum(ahead[question]))]

    total = [sum(n) for n in zip(*map(held, ahead))] or [0, 0, 0]
    bounds = (
        [] if share is None else [n / part for n, part in zip(total, (1 - share, share)) if part]
    )
    left = int(
        min(size, total[2], *bounds) + 1e-6
    )  # 3 right ones of 0.3 are 10 rows, whatever 3 / (1 - 0.7) is
    quota = [left, left] if share is None else [left - round(left * share), round(left * share)]
    taken = []
    for row in rows:
        question, is_wrong = row["question_id"], row["verdict"] == "wrong"
        elsewhere = [n - own for n, own in zip(total, held(question))]
        ahead[question][is_wrong] -= 1
        if left and quota[is_wrong] and free[question]:
            free[question] -= 1
            quota[is_wrong] -= 1
            right, wrong, both = (n + own for n, own in zip(elsewhere, held(question)))
            if left - 1 <= both and left - 1 - quota[1] <= right and left - 1 - quota[0] <= wrong:
                taken.append(row)
                left -= 1
            else:
                free[question] += 1
                quota[is_wrong] += 1
        total = [n + own for n, own in zip(elsewhere, held(question))]
    return taken


def _take(arm, rows, given, size):
    """-> (the rows that an arm takes of those in its pool, how many could serve, each training text once)."""
    texts = {}
    for row in rows:
        if arm.fits(row, given):
            texts.setdefault(tuple(row[name] for name in arm.once_per), row)
    fitting = list(texts.values())
    n_fitting = len({row["question_id"] for row in fitting}) if arm.most else len(fitting)
    return _first(
        fitting, size, arm.most or given.per_question, given.wrong_share if arm.shared else None
    ), n_fitting


def build_training_set(name, rows, given, size):
    """The first `size` rows that fit the arm. -> (training rows, how many rows could have served).

    rows: critiqued rows in the order of choice, the same for every arm, so that arms share questions where they can.
    """
    arm = TRAINING_SETS[name]
    taken, n_fitting = _take(arm, arm.pool(rows, given, size), given, size)
    result = []
    for row in arm.change(taken, given):
        prompt, completion = arm.build(row, given)
        result.append(
            {
                "id": content_id(name, row["id"], row["critique_id"]),
                "prompt": prompt,
                "completion": [{"role": "assistant", "content": completion}],
                "arm": name,
                "response_id": row["id"],
                "verdict": row["verdict"] if arm.judged else None,
            }
        )
    return result, n_fitting


def explain_shortfall(name, rows, n_fitting, given, size):
    """Words on why an arm has not the rows that were asked for, "" where it has them."""
    arm = TRAINING_SETS[name]
    held = {
        "--wrong-share": arm.shared and given.wrong_share is not None,
        "--per-question": given.per_question,
    }
    limits = [flag for flag, holds in held.items() if holds and len(rows) < n_fitting]
    under = f", under {' and '.join(limits)}" if limits else ""
    return (
        ""
        if len(rows) >= size * arm.parts
        else f" (of {n_fitting:,} that have {arm.needs}{under}; {size * arm.parts:,} were asked for)"
    )


def describe_differences(summaries):
    """Lines on what sets arms apart beside what they are. summaries: {name: as selection.summarize gives it}"""
    lines, learned = (
        [],
        {name: one["completion"] / one["rows"] for name, one in summaries.items()},
    )  # by a row
    if len({one["rows"] / TRAINING_SETS[name].parts for name, one in summaries.items()}) > 1:
        lines.append("the arms differ in size, so their scores compare different amounts of data")
    if learned.get("cft-short", 0) >= learned.get("cft", math.inf):
        lines.append(
            "a row of cft-short is no shorter than one of cft: here critiques are no longer than answers"
        )
    return lines


def label_sets(asked, suffix=""):
    """{arm: what it is called with --suffix}: of those asked for, or else of all but the controls. InputError for what cannot be meant."""
    if unknown := [name for name in asked if name not in TRAINING_SETS]:
        raise InputError(f"unknown arms {unknown}; the arms are: --arms {' '.join(TRAINING_SETS)}")
    for label in [f"{name}-{suffix}" for name in TRAINING_SETS if suffix]:
        if (
            label in TRAINING_SETS or "-after-" in label or not re.fullmatch(r"[\w.-]{1,80}", label)
        ):  # 04 calls second stages A-after-B
            raise InputError(
                f"--suffix {suffix!r} would make {label[:99]!r}: another arm, or no plain name.\nTake another: --suffix half"
            )
    return {
        name: f"{name}-{suffix}" if suffix else name
        for name in asked or [name for name, arm in TRAINING_SETS.items() if not arm.control]
    }


def same_texts(rows, others):
    """Whether two arms train on the same texts."""

    def texts(some):
        return {(row["prompt"][-1]["content"], row["completion"][0]["content"]) for row in some}

    return bool(others) and len(rows) == len(others) and texts(rows) == texts(others)


def list_trained(folder):
    """The arms that stand in a run's 04_train, the paper's first, then mixed and two-stage ones."""
    found = {settings.parent.name for settings in folder.glob("*/settings.json")}
    return [name for name in TRAINING_SETS if name in found] + sorted(found - set(TRAINING_SETS))
