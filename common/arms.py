"""The training sets of the paper's Table 2, one function an arm: a critiqued row -> prompt and completion.

Rows come out in the prompt-completion form that TRL reads as it is, the system message always explicit.
"""

from dataclasses import dataclass
from typing import Callable

from common import prompts
from common.files import content_id


def _cft(row, answers, system):
    prompt = prompts.critique_row_prompt(row["question"], row["response"], system)
    return prompt, f"Critique:\n{row['critique']}"


def _sft(row, answers, system):
    return prompts.sft_row_prompt(row["question"], prompts.SFT_INSTRUCTION, system), row["response"]


def _sft_teacher(row, answers, system):
    prompt = prompts.sft_row_prompt(row["question"], prompts.SFT_TEACHER_INSTRUCTION, system)
    return prompt, answers[row["question_id"]]


@dataclass(frozen=True)
class Arm:
    """fits: which rows can serve. None of them looks at a gold: verified means that the teacher's verdict is right."""

    build: Callable
    fits: Callable
    once_per: str  # rows that agree in this field would train on the same text: the first stands
    needs: str  # what a row must have, for the report


ARMS = {
    # A response that was cut by its token limit would teach to stop in the middle.
    "sft": Arm(_sft, lambda row, answers: row["finish_reason"] != "length", "id", "a finished response"),
    "sft-verified": Arm(_sft, lambda row, answers: row["verdict"] == "right" and row["finish_reason"] != "length", "id",
                        "a finished response judged right"),
    "sft-teacher": Arm(_sft_teacher, lambda row, answers: row["question_id"] in answers, "question_id",
                       "an answer of the teacher (02 --answers)"),
    "cft": Arm(_cft, lambda row, answers: True, "critique_id", "a critique with a verdict"),
}


def build(name, rows, answers, size, system):
    """The first `size` rows that fit the arm. -> (training rows, how many rows would have fitted).

    rows: critiqued rows in the order of choice, the same for every arm, so that arms share questions where they can.
    answers: {question_id: the teacher's own answer}.
    """
    arm = ARMS[name]
    fitting = {}
    for row in rows:
        if arm.fits(row, answers):
            fitting.setdefault(row[arm.once_per], row)
    result = []
    for row in list(fitting.values())[:size]:
        prompt, completion = arm.build(row, answers, system)
        result.append({
            "id": content_id(name, row["critique_id"]), "prompt": prompt,
            "completion": [{"role": "assistant", "content": completion}], "arm": name, "response_id": row["id"],
            "verdict": row["verdict"],
        })
    return result, len(fitting)


def trained(folder):
    """The arms that stand in a run's 04_train, the paper's first, then mixed and two-stage ones."""
    found = {settings.parent.name for settings in folder.glob("*/settings.json")}
    return [name for name in ARMS if name in found] + sorted(found - set(ARMS))
