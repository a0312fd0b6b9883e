"""Strict and loose, shares and their intervals, by hand."""

import json
import random
import subprocess
import sys

import pytest

from common.core import stats
from common.ifeval.grading import MAX_CHARACTERS, grade, measure, pack_instructions
from tests.conftest import ROOT
from tests.ifeval.test_checkers import needs_libraries

NO_COMMA = ["punctuation:no_comma", {}]
QUOTED = ["startend:quotation", {}]
TITLE = ["detectable_format:title", {}]
TWO_BULLETS = ["detectable_format:number_bullet_lists", {"num_bullets": 2}]


def gold(*instructions):
    return json.dumps(instructions)


def test_strict_takes_the_output_as_it_is_and_loose_the_best_of_eight():
    """By hand: what is wrong is in the first line, the last one, in both, or in the stars."""
    asked = gold(NO_COMMA, QUOTED)
    cases = {
        '"a"': ([True, True], [True, True]),
        'Sure, here:\n"a"': ([False, False], [True, True]),
        '"a"\nBye, all': ([False, False], [True, True]),
        'Sure,\n"a"\nBye,': ([False, False], [True, True]),
        '**"a"**': ([True, False], [True, True]),
        'Sure,\n*"a"*\nBye,': ([False, False], [True, True]),
        'x\nx, x\n"a"': ([False, False], [False, False]),
        "": ([False, False], [False, False]),
        " \n*\n": ([True, False], [True, False]),
        "a, b": ([False, False], [False, False]),
    }
    for text, (strict, loose) in cases.items():
        assert grade(text, asked) == {"strict": strict, "loose": loose}, text


def test_each_instruction_has_a_reading_of_its_own():
    """Without its first line the text has no comma, with it two bullets."""
    assert grade("* a, b\n* c", gold(NO_COMMA, TWO_BULLETS))["loose"] == [True, True]


def test_a_blank_reading_follows_nothing():
    assert grade("a,", gold(NO_COMMA)) == {"strict": [False], "loose": [False]}


def test_a_text_beyond_all_bounds_follows_nothing():
    assert grade("a" * MAX_CHARACTERS, gold(NO_COMMA))["strict"] == [True]
    longer = grade("a" * 1_000_000, gold(NO_COMMA))
    assert longer == {"strict": [False], "loose": [False]}


def test_loose_is_never_under_strict():
    rng = random.Random(0)
    asked = gold(NO_COMMA, QUOTED, TITLE, TWO_BULLETS, ["combination:two_responses", {}])
    n_loose = 0
    for _ in range(2000):
        pieces = rng.choices(["a", ",", '"', "<<b>>", "\n", "* ", "- ", "******", " "], k=12)
        verdicts = grade("".join(pieces), asked)
        pairs = list(zip(verdicts["strict"], verdicts["loose"]))
        assert (True, False) not in pairs
        n_loose += pairs.count((False, True))
    assert n_loose > 100


def record(kinds, arguments):
    return {"prompt": "p", "instruction_id_list": kinds, "kwargs": arguments}


def test_nulls_of_the_hub_are_left_out():
    filled = [{"num_bullets": 2, "keywords": None, "relation": None}, {"num_bullets": None}]
    packed = pack_instructions(record([TWO_BULLETS[0], NO_COMMA[0]], filled))
    assert json.loads(packed["instructions"]) == [TWO_BULLETS, NO_COMMA]


@pytest.mark.parametrize(
    "kinds, arguments",
    [
        (["punctuation:no_commas"], [{}]),
        (["punctuation:no_comma"], []),
        (["punctuation:no_comma"], [{}, {}]),
        (["detectable_format:number_bullet_lists"], [{"num_bullets": None}]),
        (["punctuation:no_comma"], [{"letter": "a"}]),
        ([], []),
    ],
)
def test_a_record_with_what_nobody_checks_is_an_error(kinds, arguments):
    with pytest.raises((ValueError, TypeError)):
        pack_instructions(record(kinds, arguments))


def verdicts(*strict):
    return {"strict": list(strict), "loose": [True] * len(strict)}


def test_the_four_shares_by_hand():
    """Three prompts with 1, 2 and 3 instructions: one is followed whole, of six instructions 3."""
    items = [[verdicts(True)], [verdicts(True, False)], [verdicts(False, True, False)]]
    shares = measure(items)
    assert shares["strict_prompt"] == pytest.approx(1 / 3)
    assert tuple(shares["strict_prompt_interval"]) == stats.wilson(1, 3)
    assert shares["strict_instruction"] == 0.5
    low, high = shares["strict_instruction_interval"]
    assert 0 < low < 0.5 < high < 1
    assert (shares["loose_prompt"], shares["loose_instruction"]) == (1, 1)


def test_several_outputs_of_a_prompt_are_one_item():
    """Two prompts, two outputs each: of the prompts (1/2 + 0)/2, of the instructions 4 of 6."""
    one, two = [verdicts(True), verdicts(False)], [verdicts(True, False), verdicts(True, True)]
    shares = measure([one, two])
    assert shares["strict_prompt"] == 0.5
    assert shares["strict_instruction"] == pytest.approx(4 / 6)


TEXTS = ["er det en by i norge", "is it so"]
LANGUAGES = gold(
    ["language:response_language", {"language": "no"}], ["change_case:english_lowercase", {}]
)


@needs_libraries
def test_ten_runs_grade_alike():
    """Language is told by letters that are drawn; what was graded before has no part in it."""
    runs = {json.dumps([grade(text, LANGUAGES) for text in TEXTS]) for _ in range(10)}
    backwards = [grade(text, LANGUAGES) for text in reversed(TEXTS)]
    assert runs == {json.dumps(backwards[::-1])} and "true" in runs.pop()


@needs_libraries
@pytest.mark.slow
def test_ten_processes_grade_alike():
    """Whatever Python hashes with."""
    program = "from tests.ifeval.test_grading import *; print([grade(t, LANGUAGES) for t in TEXTS])"
    outputs = set()
    for seed in range(10):
        environment = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program]
        outputs.add(subprocess.run(command, env=environment, capture_output=True).stdout)
    assert len(outputs) == 1 and b"True" in outputs.pop()
