"""The training sets of the paper, and controls, as a table: which rows fit, and what is learned.

Rows have the prompt-completion form that TRL reads as it is. The system message is always explicit.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from operator import itemgetter

from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id


@dataclass(frozen=True)
class BuildInputs:
    """What training sets are made from, besides the critiqued rows in their order."""

    system: str = prompts.SYSTEM
    answers: dict = field(default_factory=dict)  # {question_id: the teacher's own answer}
    correct: dict = field(default_factory=dict)  # {response id: does it give the gold answer}
    self_critiques: list = field(default_factory=list)  # by the base (02 --self-critique)
    other_responses: list = field(default_factory=list)  # of --mix; without critique and verdict
    wrong_share: float | None = None
    per_question: int | None = None


# --- what is learned from a row: (row, inputs) -> (prompt messages, completion) -------------------


def format_critique(row: dict, inputs: BuildInputs) -> tuple:
    """Return (prompt messages, completion) of a critiqued row: the model learns the critique."""
    prompt = prompts.critique_row_prompt(row["question"], row["response"], inputs.system)
    return prompt, f"Critique:\n{row['critique']}"


def _format_response(row, inputs):
    instruction = prompts.SFT_INSTRUCTIONS.get(row["source"], prompts.SFT_INSTRUCTION)
    return prompts.sft_row_prompt(row["question"], instruction, inputs.system), row["response"]


def _format_answer(row, inputs):
    instruction = prompts.SFT_TEACHER_INSTRUCTION
    prompt = prompts.sft_row_prompt(row["question"], instruction, inputs.system)
    return prompt, inputs.answers[row["question_id"]]


def _format_mixed(row, inputs):
    format_row = format_critique if row["critique_id"] else _format_response
    return format_row(row, inputs)


def _format_verdict(row, inputs):
    prompt, _ = format_critique(row, inputs)
    return prompt, f"Critique:\nConclusion: {row['verdict']} [END]"


# --- which rows fit: (row, inputs) -> bool --------------------------------------------------------


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


def _order_by_answer_length(rows, inputs, size):
    """Return the rows whose critique is nearest in length to the mean answer of sft first.

    Nearest as a ratio: half of it is as near as twice.
    """
    answers = _choose(TRAINING_SETS["sft"], rows, inputs, size)
    mean = sum(row["response_length"] for row in answers) / max(1, len(answers))
    return sorted(rows, key=lambda row: abs(math.log(row["critique_length"] / mean)))


def _take_self_critiques(rows, inputs, size):
    """Return them in the order of the teacher's rows: so both sets share responses."""
    by_response = {row["id"]: row for row in inputs.self_critiques}
    return [by_response[row["id"]] for row in rows if row["id"] in by_response]


def _take_other_responses(rows, inputs, size):
    return inputs.other_responses


# --- what becomes of the chosen rows: (rows, inputs) -> rows --------------------------------------


def _shuffle_critiques(rows, inputs):
    """Return each row with the critique of another question, or at least of another response.

    The second if one question has more than half of the rows; [] if even that is impossible. Rows
    in groups, moved on by the size of the largest group, never land in their own group:
    a a b c moved on by two is b c a a.
    """
    for key in ("question_id", "id"):
        order = sorted(range(len(rows)), key=lambda i: rows[i][key])
        largest = max(Counter(row[key] for row in rows).values(), default=0)
        if 2 * largest <= len(rows):
            shuffled = list(rows)
            for i, donor in zip(order, order[largest:] + order[:largest]):
                names = ("critique", "verdict", "critique_id")
                shuffled[i] = rows[i] | {name: rows[donor][name] for name in names}
            return shuffled
    return []


def _add_other_responses(rows, inputs):
    """Return each row with one of the other run behind it, none of a question that exists already.

    [] if the other run has no further questions.
    """
    questions = {row["question_id"] for row in rows}
    pool = [row for row in inputs.other_responses if row["question_id"] not in questions]
    chosen = _choose(TRAINING_SETS["sft-other"], pool, inputs, len(rows))
    if not chosen:
        return []
    return list(filter(None, chain.from_iterable(zip_longest(rows, chosen))))


# --- the table ------------------------------------------------------------------------------------


CHOOSE_LESS = "choose less strictly: --wrong-share, --max-tokens, --decontaminate, ..."
OTHER_RUN = "name a run with other questions: --mix RUN"


@dataclass(frozen=True)
class TrainingSet:
    """A row of the table. Only cft-clean looks at golds: verified is by the teacher's verdict."""

    format_row: Callable
    fix: str = CHOOSE_LESS  # what a user can do if no row fits
    unique_by: tuple = ("id", "critique")  # rows equal in these would train on the same text
    fits: Callable | None = None  # None: all rows
    pool: Callable | None = None  # None: the rows as they are
    transform: Callable | None = None
    uses_wrong_share: bool = True  # takes right and wrong responses, by --wrong-share
    keeps_verdict: bool = True  # the verdict is about what its rows hold
    is_control: bool = False  # built only if it is named
    per_question: int | None = None  # rows of one question, whatever --per-question says


TRAINING_SETS = {
    "sft": TrainingSet(_format_response, unique_by=("id",), fits=_is_finished),
    "sft-verified": TrainingSet(
        _format_response, unique_by=("id",), fits=_is_verified, uses_wrong_share=False
    ),
    "sft-teacher": TrainingSet(
        _format_answer,
        fix="run: python 02_critique.py --name {name} --answers",
        unique_by=("question_id", "verdict"),
        fits=_has_answer,
        keeps_verdict=False,
        per_question=1,
    ),
    "cft": TrainingSet(format_critique),
    "cft-short": TrainingSet(format_critique, pool=_order_by_answer_length),
    "cft-clean": TrainingSet(format_critique, fits=_agrees_with_gold),
    "sft-other": TrainingSet(
        _format_response,
        fix=OTHER_RUN,
        unique_by=("id",),
        pool=_take_other_responses,
        uses_wrong_share=False,
    ),
    "mix": TrainingSet(_format_mixed, fix=OTHER_RUN, transform=_add_other_responses),
    "cft-shuffled": TrainingSet(format_critique, transform=_shuffle_critiques, is_control=True),
    "cft-verdict": TrainingSet(_format_verdict, unique_by=("id", "verdict"), is_control=True),
    "cft-self-critique": TrainingSet(
        format_critique,
        fix="run: python 02_critique.py --name {name} --self-critique base",
        pool=_take_self_critiques,
        is_control=True,
    ),
}


# --- building one ---------------------------------------------------------------------------------


def choose_rows(rows: list, size: int, per_question=None, wrong_share=None) -> list:
    """Return the first `size` rows: so many of a question at most, a share with the verdict wrong.

    None: no limit. Fewer than `size` only if there are no more at that share: 3 right rows and
    plenty of wrong ones at a share of 0.7 are 10. Exact for one limit; under both, which only
    sft-teacher has, earlier rows may use up what later ones need.
    """
    quotas = {}
    if wrong_share is not None:
        quotas = _share_quotas(Counter(row["verdict"] for row in rows), size, wrong_share)
    n_question, n_verdict, chosen = Counter(), Counter(), []
    for row in rows:
        question, verdict = row["question_id"], row["verdict"]
        if n_verdict[verdict] == quotas.get(verdict, size):
            continue
        if n_question[question] == per_question or len(chosen) == size:
            continue
        n_question[question] += 1
        n_verdict[verdict] += 1
        chosen.append(row)
    return chosen


def _share_quotas(available, size, wrong_share):
    """Return {verdict: rows to take}, at most `size` in all, given how many are available."""
    shares = {"right": 1 - wrong_share, "wrong": wrong_share}
    bounds = [available[verdict] / share for verdict, share in shares.items() if share]
    total = int(min(size, *bounds) + 1e-6)  # 3 / (1 - 0.7) is a little less than 10
    n_wrong = round(total * wrong_share)
    return {"right": total - n_wrong, "wrong": n_wrong}


def _choose(definition, pool, inputs, size):
    """Return the rows that a set takes of its pool, each training text once."""
    fitting = {}
    for row in pool:
        if not definition.fits or definition.fits(row, inputs):
            fitting.setdefault(itemgetter(*definition.unique_by)(row), row)
    per_question = definition.per_question or inputs.per_question
    wrong_share = inputs.wrong_share if definition.uses_wrong_share else None
    return choose_rows(list(fitting.values()), size, per_question, wrong_share)


def build_training_set(name: str, rows: list, inputs: BuildInputs, size: int) -> list:
    """Return the training rows of the first `size` rows that fit.

    rows: critiqued rows in the order of selection.order_rows, the same for every set, so that sets
    share questions if they can. A training row:
    {"id", "prompt": [system, user], "completion": [assistant], "arm", "response_id", "verdict"}.
    """
    definition = TRAINING_SETS[name]
    if definition.pool:
        rows = definition.pool(rows, inputs, size)
    chosen = _choose(definition, rows, inputs, size)
    if definition.transform:
        chosen = definition.transform(chosen, inputs)
    built = []
    for row in chosen:
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
    return built


def label_sets(names: list, suffix: str) -> dict:
    """Return {training set: its label, with --suffix}: the named ones, or all but the controls.

    Raises InputError for an unknown name, and for a suffix that makes no usable label.
    """
    unknown = set(names) - TRAINING_SETS.keys()
    if unknown:
        raise InputError(
            f"unknown training sets {sorted(unknown)}.\n"
            f"Expected some of: --arms {' '.join(TRAINING_SETS)}"
        )
    names = names or [name for name in TRAINING_SETS if not TRAINING_SETS[name].is_control]
    if not suffix:
        return dict(zip(names, names))
    labels = {name: f"{name}-{suffix}" for name in names}
    is_plain = re.fullmatch(r"[\w.-]{1,60}", suffix)
    # 04 calls second stages A-after-B.
    if not is_plain or "after-" in suffix or TRAINING_SETS.keys() & labels.values():
        raise InputError(
            f"--suffix {suffix[:99]!r} makes the name of another training set, or no plain name "
            "(letters, digits, '.', '_', '-').\nTake another: --suffix half"
        )
    return labels


def training_texts(rows: list) -> list:
    """Return what rows train on, sorted: equal if two sets differ in nothing but their names."""
    return sorted(str(row["prompt"] + row["completion"]) for row in rows)
