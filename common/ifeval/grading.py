"""Outputs of IFEval -> the instructions that each follows -> four shares.

strict: the output as it is. loose: the best of eight readings of it, without its first line, its
last one, or both, each with and without its stars. prompt: all instructions of a prompt are
followed; instruction: each one counts.
"""

import json
import statistics
from functools import partial

from common.core import stats
from common.ifeval.checkers import GRADINGS, check_instruction

MAX_CHARACTERS = 100_000  # 2,048 tokens are some 10,000; a longer output follows nothing


def pack_instructions(record: dict, seed: int = 0) -> dict:
    """Return a record of the test set with its instructions as a text, "instructions".

    The hub fills arguments up with nulls, which are left out. ValueError: see check_instruction.
    """
    instructions = []
    for kind, filled in zip(record["instruction_id_list"], record["kwargs"], strict=True):
        arguments = {name: value for name, value in filled.items() if value is not None}
        check_instruction(kind, arguments)
        instructions.append([kind, arguments])
    if not instructions:
        raise ValueError("no instruction")
    return record | {"instructions": json.dumps(instructions, ensure_ascii=False)}


def grade(text: str, gold: str, grading: str = "reference") -> dict:
    """Return {"strict": [whether each instruction is followed], "loose": [the same]}.

    gold: of pack_instructions. grading: "reference" or "repaired".
    """
    readings = _read_loosely(text) if len(text) <= MAX_CHARACTERS else []
    strict, loose = [], []
    for kind, arguments in json.loads(gold):
        is_followed = partial(GRADINGS[grading][kind], **arguments)
        strict.append(any(map(is_followed, readings[:1])))
        loose.append(any(map(is_followed, readings)))
    return {"strict": strict, "loose": loose}


def _read_loosely(text):
    """Return an output, then the other readings of it; blank ones follow nothing."""
    lines = text.split("\n")
    readings = [text]
    for part in (lines[1:], lines[:-1], lines[1:-1]):
        readings.append("\n".join(part).strip())
    readings += [reading.replace("*", "") for reading in readings]
    return list(filter(str.strip, dict.fromkeys(readings)))


def measure(items: list) -> dict:
    """Return the four shares, strict_prompt to loose_instruction, and the 95% interval of each.

    That of NAME is NAME_interval. items: for each prompt the verdicts of its outputs, as grade
    returns them. The instructions of a prompt are not independent, so all are over prompts.
    """
    shares = {}
    for mode in ("strict", "loose"):
        outputs = [[verdicts[mode] for verdicts in item] for item in items]
        passed = [statistics.fmean(map(all, item)) for item in outputs]
        followed = [sum(map(sum, item)) for item in outputs]
        asked = [sum(map(len, item)) for item in outputs]
        shares[f"{mode}_prompt"], *interval = stats.mean_interval(passed)
        shares[f"{mode}_prompt_interval"] = interval
        shares[f"{mode}_instruction"], *interval = stats.ratio_interval(followed, asked)
        shares[f"{mode}_instruction_interval"] = interval
    return shares
