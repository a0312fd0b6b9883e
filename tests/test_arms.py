"""Each arm's rows: which of the critiqued rows it takes, in which order, and the text that is trained on."""

import pytest

from common import prompts
from common.arms import ARMS, build
from common.files import content_id
from common.sources import make_row

SYSTEM = "You are a helpful assistant."


def critiqued(question, response, verdict, teacher="t"):
    row = make_row(question, response, "gold", "source", "generator")
    critique = f"Checked.\n\nConclusion: {verdict} [END]"
    return row | {"critique_id": content_id(row["id"], teacher, critique), "critique": critique, "verdict": verdict, "teacher": teacher}


# Two responses to q1, one judged twice; one to q2; the teacher answered q1 and q3 only.
A, B, C = critiqued("q1", "r1", "wrong"), critiqued("q1", "r2", "right"), critiqued("q2", "r3", "right")
AGAIN = critiqued("q1", "r1", "right", teacher="u")
ROWS = [A, B, C, AGAIN]
ANSWERS = {A["question_id"]: "the teacher's own", content_id("q3"): "unused"}


def made(name, rows=ROWS, size=10, answers=ANSWERS):
    return build(name, rows, answers, size, SYSTEM)


@pytest.mark.parametrize("name, question, completion", [
    ("cft", f"{prompts.CRITIQUE_INSTRUCTION}\nQuestion:\nq1\n\nSolution:\nr1\n", "Critique:\nChecked.\n\nConclusion: wrong [END]"),
    ("sft", "Please reason step by step to solve the following question.\nq1", "r1"),
    ("sft-teacher", "Please analyze and answer the following question step by step:\nq1", "the teacher's own"),
])
def test_the_text_of_a_row(name, question, completion):
    row = made(name)[0][0]
    assert row["prompt"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    assert row["completion"] == [{"role": "assistant", "content": completion}]
    assert (row["arm"], row["response_id"], row["verdict"]) == (name, A["id"], "wrong")
    assert set(row) == {"id", "prompt", "completion", "arm", "response_id", "verdict"}


@pytest.mark.parametrize("name, responses", [
    ("cft", ["r1", "r2", "r3", "r1"]),  # each critique is a text of its own
    ("sft", ["r1", "r2", "r3"]),  # r1, judged twice, would be trained on twice
    ("sft-verified", ["r2", "r3", "r1"]),  # r1 only by the second teacher's verdict
    ("sft-teacher", ["r1"]),  # one answer a question, where the teacher gave one
])
def test_which_rows_an_arm_takes(name, responses):
    rows, fitting = made(name)
    by_id = {row["id"]: row["response"] for row in ROWS}
    assert [by_id[row["response_id"]] for row in rows] == responses and fitting == len(responses)
    assert all(row["verdict"] == "right" for row in rows) or name != "sft-verified"


@pytest.mark.parametrize("name", ARMS)
def test_size_takes_the_first_and_says_how_many_there_were(name):
    """The first ones: arms of different size limits then share their rows."""
    everything, fitting = made(name)
    for size in range(5):
        assert made(name, size=size) == (everything[:size], fitting)


@pytest.mark.parametrize("name", ARMS)
def test_no_training_text_stands_twice_and_ids_differ(name):
    rows, _ = made(name, ROWS + ROWS[::-1])
    assert len({row["id"] for row in rows}) == len({str(row["prompt"] + row["completion"]) for row in rows}) == len(rows)
    others = {row["id"] for other in ARMS if other != name for row in made(other)[0]}
    assert not others & {row["id"] for row in rows}


@pytest.mark.parametrize("name", ARMS)
def test_a_gold_is_never_used(name):
    """Verified means judged right by the teacher, as in the paper; a gold would be help that the other arms do not get."""
    assert made(name, [row | {"gold": None} for row in ROWS]) == made(name)


def test_an_arm_without_rows_is_empty():
    assert made("sft-teacher", answers={}) == ([], 0) and made("sft-verified", [A]) == ([], 0) and made("cft", []) == ([], 0)


@pytest.mark.parametrize("name", ARMS)
def test_an_empty_system_message_is_left_out(name):
    rows, _ = build(name, ROWS, ANSWERS, 10, "")
    assert rows and all([m["role"] for m in row["prompt"]] == ["user"] for row in rows)


def test_a_response_that_was_cut_is_judged_but_not_imitated():
    """As an SFT target it would teach to stop in the middle; its critique is as good as any."""
    cut = B | {"finish_reason": "length"}
    assert [made(name, [cut])[1] for name in ("sft", "sft-verified", "sft-teacher", "cft")] == [0, 0, 1, 1]
