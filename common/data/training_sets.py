"""The training sets of the paper, and controls, as a table: which rows fit, and what is learned.

Rows have the prompt-completion form that TRL reads as it is. The system message is always explicit.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id


@dataclass(frozen=True)
class BuildInputs:
    """What training sets are made from, besides the critiqued rows in their order."""

    system: str = prompts.SYSTEM
    answers: dict = field(default_factory=dict)  # {question_id: the teacher's own answer}
    correct: dict = field(default_factory=dict)  # {response id: does it give the gold answer}
    lengths: dict = field(default_factory=dict)  # {critique_id: Length}: selection.measure_lengths
    self_critiques: list = field(default_factory=list)  # by the base (02 --self-critique)
    other_responses: list = field(default_factory=list)  # of --mix; without critique and verdict
    wrong_share: float | None = None
    per_question: int | None = None


# --- what is learned from a row: (row, inputs) -> (prompt messages, completion) -------------------


def format_cft(row: dict, system: str) -> tuple[list, str]:
    """Return (prompt messages, completion) of a critiqued row: the model learns the critique."""
    prompt = prompts.critique_row_prompt(row["question"], row["response"], system)
    return prompt, f"Critique:\n{row['critique']}"


def _format_critique(row, inputs):
    return format_cft(row, inputs.system)


def _format_response(row, inputs):
    instruction = prompts.SFT_INSTRUCTIONS.get(row["source"], prompts.SFT_INSTRUCTION)
    return prompts.sft_row_prompt(row["question"], instruction, inputs.system), row["response"]


def _format_answer(row, inputs):
    instruction = prompts.SFT_TEACHER_INSTRUCTION
    prompt = prompts.sft_row_prompt(row["question"], instruction, inputs.system)
    return prompt, inputs.answers[row["question_id"]]


def _format_mixed(row, inputs):
    format_row = _format_critique if row["critique_id"] else _format_response
    return format_row(row, inputs)


def _format_verdict(row, inputs):
    prompt, _ = _format_critique(row, inputs)
    return prompt, f"Critique:\nConclusion: {row['verdict']} [END]"


# --- which rows fit: (row, inputs) -> bool --------------------------------------------------------


def _fits_always(row, inputs):
    return True


def _is_finished(row, inputs):
    """Return False for a response at its token limit: it would teach to stop in the middle."""
    return row["finish_reason"] != "length"


def _is_verified(row, inputs):
    return row["verdict"] == "right" and _is_finished(row, inputs)


def _has_answer(row, inputs):
    return row["question_id"] in inputs.answers


def _agrees_with_gold(row, inputs):
    return inputs.correct.get(row["id"]) is (row["verdict"] == "right")


# --- the rows to choose from, in order: (rows, inputs, size) -> rows ------------------------------


def _take_all(rows, inputs, size):
    return rows


def _order_by_answer_length(rows, inputs, size):
    """Return the rows whose critique is nearest in length to the mean answer of sft first.

    Nearest as a ratio: half of it is as near as twice.
    """
    answers, _ = _choose(TRAINING_SETS["sft"], rows, inputs, size)
    if not answers:
        return []
    total = sum(inputs.lengths[row["critique_id"]].response for row in answers)
    mean = total / len(answers)

    def distance(row):
        return abs(math.log(inputs.lengths[row["critique_id"]].critique / mean))

    return sorted(rows, key=distance)


def _take_self_critiques(rows, inputs, size):
    """Return them in the order of the teacher's rows: so both sets share responses."""
    by_response = {row["id"]: row for row in inputs.self_critiques}
    ids = dict.fromkeys(row["id"] for row in rows)
    return [by_response[name] for name in ids if name in by_response]


def _take_other_responses(rows, inputs, size):
    return inputs.other_responses


def _take_rows_to_mix(rows, inputs, size):
    return rows if inputs.other_responses else []


# --- what becomes of the chosen rows: (rows, inputs) -> rows --------------------------------------


def _leave(rows, inputs):
    return rows


def _shuffle_critiques(rows, inputs):
    """Return each row with the critique of another question, or at least of another response.

    The second if one question has more than half of the rows; [] if even that is impossible. Rows
    in groups, moved on by the size of the largest group, never land in their own group:
    a a b c moved on by two is b c a a.
    """
    for key in ("question_id", "id"):
        order = sorted(range(len(rows)), key=lambda i: rows[i][key])
        largest = max(Counter(row[key] for row in rows).values(), default=0)
        if 2 * largest > len(rows):
            continue
        shuffled = list(rows)
        for i, donor in zip(order, order[largest:] + order[:largest]):
            critique = {name: rows[donor][name] for name in ("critique", "verdict", "critique_id")}
            shuffled[i] = rows[i] | critique
        return shuffled
    return []


def _add_other_responses(rows, inputs):
    """Return each row with one of the other run behind it, none of a question that exists already.

    [] if the other run has no further questions.
    """
    questions = {row["question_id"] for row in rows}
    pool = [row for row in inputs.other_responses if row["question_id"] not in questions]
    others, _ = _choose(TRAINING_SETS["sft-other"], pool, inputs, len(rows))
    if not others:
        return []
    return [row for pair in zip_longest(rows, others) for row in pair if row]


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainingSet:
    """A row of the table. Only cft-clean looks at a gold: verified means by the teacher's verdict."""

    format_row: Callable
    needs: str  # what a row must have, for messages
    fix: str = "choose less strictly: --wrong-share, --max-tokens, --decontaminate, ..."
    unique_by: tuple = ("id", "critique")  # rows equal in these would train on the same text
    fits: Callable = _fits_always
    pool: Callable = _take_all
    transform: Callable = _leave
    uses_wrong_share: bool = True  # takes right and wrong responses, by --wrong-share
    keeps_verdict: bool = True  # the verdict is about what its rows hold
    is_control: bool = False  # built only if it is named
    parts: int = 1  # it holds this many times --rows
    per_question: int | None = None  # rows of one question, whatever --per-question says


A_CRITIQUE = "a critique with a verdict"
FINISHED = "a finished response"
OTHER_RUN = "name a run with other questions: --mix RUN"
TRAINING_SETS = {
    "sft": TrainingSet(_format_response, FINISHED, unique_by=("id",), fits=_is_finished),
    "sft-verified": TrainingSet(
        _format_response,
        f"{FINISHED} with the verdict right",
        unique_by=("id",),
        fits=_is_verified,
        uses_wrong_share=False,
    ),
    "sft-teacher": TrainingSet(
        _format_answer,
        "an answer of the teacher",
        fix="run: python 02_critique.py --name {name} --answers",
        unique_by=("question_id", "verdict"),
        fits=_has_answer,
        keeps_verdict=False,
        per_question=1,
    ),
    "cft": TrainingSet(_format_critique, A_CRITIQUE),
    "cft-short": TrainingSet(
        _format_critique,
        f"{A_CRITIQUE} and {FINISHED} to be as long as",
        pool=_order_by_answer_length,
    ),
    "cft-clean": TrainingSet(
        _format_critique, "a gold with which the verdict agrees", fits=_agrees_with_gold
    ),
    "sft-other": TrainingSet(
        _format_response,
        f"{FINISHED} of another run",
        fix=OTHER_RUN,
        unique_by=("id",),
        pool=_take_other_responses,
        uses_wrong_share=False,
        keeps_verdict=False,
    ),
    "mix": TrainingSet(
        _format_mixed,
        f"{A_CRITIQUE}, besides another run's responses to other questions",
        fix=OTHER_RUN,
        pool=_take_rows_to_mix,
        transform=_add_other_responses,
        parts=2,
    ),
    "cft-shuffled": TrainingSet(
        _format_critique,
        f"{A_CRITIQUE} of several responses",
        fix="give it critiques of more responses",
        transform=_shuffle_critiques,
        is_control=True,
    ),
    "cft-verdict": TrainingSet(
        _format_verdict, A_CRITIQUE, unique_by=("id", "verdict"), is_control=True
    ),
    "cft-self-critique": TrainingSet(
        _format_critique,
        "a critique by the base itself",
        fix="run: python 02_critique.py --name {name} --self-critique base",
        pool=_take_self_critiques,
        is_control=True,
    ),
}


# --- building one ---------------------------------------------------------------------------------


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


def _choose(definition, pool, inputs, size):
    """Return (the rows that a set takes of its pool, how many fit), each training text once."""
    fitting = {}
    for row in pool:
        if definition.fits(row, inputs):
            fitting.setdefault(tuple(row[name] for name in definition.unique_by), row)
    rows = list(fitting.values())
    n_fitting = len({row["question_id"] for row in rows}) if definition.per_question else len(rows)
    per_question = definition.per_question or inputs.per_question
    wrong_share = inputs.wrong_share if definition.uses_wrong_share else None
    return _first(rows, size, per_question, wrong_share), n_fitting


def build_training_set(name: str, rows: list, inputs: BuildInputs, size: int) -> tuple[list, int]:
    """Return (the training rows of the first `size` rows that fit, how many fit).

    rows: critiqued rows in the order of selection.order_rows, the same for every set, so that sets
    share questions if they can. A training row:
    {"id", "prompt": [system, user], "completion": [assistant], "arm", "response_id", "verdict"}.
    """
    definition = TRAINING_SETS[name]
    pool = definition.pool(rows, inputs, size)
    chosen, n_fitting = _choose(definition, pool, inputs, size)
    built = []
    for row in definition.transform(chosen, inputs):
        prompt, completion = definition.format_row(row, inputs)
        built.append(
            {
                "id": content_id(name, row["id"], row["critique_id"]),
                "prompt": prompt,
                "completion": [{"role": "assistant", "content": completion}],
                "arm": name,
                "response_id": row["id"],
                "verdict": row["verdict"] if definition.keeps_verdict else None,
            }
        )
    return built, n_fitting


def explain_shortfall(name: str, rows: list, n_fitting: int, inputs: BuildInputs, size: int) -> str:
    """Return why a set has fewer rows than requested, "" if it has them all."""
    definition = TRAINING_SETS[name]
    requested = size * definition.parts
    if len(rows) >= requested:
        return ""
    limits = []
    if definition.uses_wrong_share and inputs.wrong_share is not None:
        limits.append("--wrong-share")
    if inputs.per_question:
        limits.append("--per-question")
    under = f", under {' and '.join(limits)}" if limits and len(rows) < n_fitting else ""
    return f" (rows with {definition.needs}{under}: {n_fitting:,}; --rows asks for {requested:,})"


def describe_differences(summaries: dict) -> list[str]:
    """Return notes on what sets training sets apart besides their definition.

    summaries: {name: summary of selection.summarize}
    """
    notes, learned = [], {}
    for name, summary in summaries.items():
        learned[name] = summary["completion"] / summary["rows"]
    sizes = {summary["rows"] / TRAINING_SETS[name].parts for name, summary in summaries.items()}
    if len(sizes) > 1:
        notes.append(
            "the training sets differ in size: their scores compare different amounts of data"
        )
    if learned.get("cft-short", 0) >= learned.get("cft", math.inf):
        notes.append(
            "a row of cft-short is no shorter than one of cft: "
            "here critiques are no longer than answers"
        )
    return notes


def label_sets(names: list, suffix: str = "") -> dict:
    """Return {training set: its label, with --suffix}: the named ones, or all but the controls.

    Raises InputError for an unknown name, and for a suffix that makes no usable label.
    """
    unknown = [name for name in names if name not in TRAINING_SETS]
    if unknown:
        raise InputError(
            f"unknown training sets {unknown}.\nExpected some of: --arms {' '.join(TRAINING_SETS)}"
        )
    defaults = [name for name, definition in TRAINING_SETS.items() if not definition.is_control]
    labels = {name: f"{name}-{suffix}" if suffix else name for name in names or defaults}
    # 04 calls second stages A-after-B.
    is_plain = re.fullmatch(r"[\w.-]{0,60}", suffix) and "after-" not in suffix
    if not is_plain or suffix and set(labels.values()) & set(TRAINING_SETS):
        raise InputError(
            f"--suffix {suffix[:99]!r} makes the name of another training set, or no plain name "
            "(letters, digits, '.', '_', '-').\nTake another: --suffix half"
        )
    return labels


def same_texts(rows: list, others: list) -> bool:
    """Return True if both training sets hold the same prompts and completions, in any order."""

    def texts(training_rows):
        return {
            (row["prompt"][-1]["content"], row["completion"][0]["content"]) for row in training_rows
        }

    return len(rows) == len(others) and texts(rows) == texts(others)


def list_trained(folder: Path) -> list[str]:
    """Return the sets that a run's 04_train holds: the paper's first, then mixed and two-stage ones."""
    names = {settings.parent.name for settings in folder.glob("*/settings.json")}
    return [name for name in TRAINING_SETS if name in names] + sorted(names - set(TRAINING_SETS))
