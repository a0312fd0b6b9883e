"""Answers -> critiqued rows: what is asked, what counts, and the report."""

import json

from common.core import prompts
from common.core.files import content_id
from common.data import training_sets
from common.teacher import critiques
from common.tiny import base
from tests.runs import write_rows

ROW = {
    "id": "r1",
    "question_id": "q1",
    "question": "1+1?",
    "gold": "2",
    "response": "It is \\boxed{2}.",
    "source": "mine",
    "generator": None,
    "sample": 0,
    "finish_reason": "stop",
}
GOOD = {
    "key": "k",
    "text": "Fine.\n\n**Conclusion**: right [END]",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 5, "completion_tokens": 7},
    "model": "m",
    "usd": 0.25,
}
CARRIED = {
    "critique": "Old.\n\nConclusion: wrong [END]",
    "critique_raw": "Old. Conclusion: wrong [END]",
    "verdict": "wrong",
    "teacher": "data",
}


def test_responses_come_from_all_files_by_name_and_each_id_once(tmp_path):
    folder = tmp_path / "run" / "01_responses"
    write_rows(folder / "b.jsonl", [ROW | {"id": "1", "source": "b"}, ROW | {"id": "2"}])
    write_rows(folder / "a.jsonl", [ROW | {"id": "3"}, ROW | {"id": "1", "source": "a"}])
    rows = critiques.read_responses(tmp_path / "run")
    assert [(row["id"], row["source"]) for row in rows] == [
        ("3", "mine"),
        ("1", "a"),
        ("2", "mine"),
    ]


def test_what_is_asked():
    """A model that critiques itself is asked by the text of its training."""
    inputs = training_sets.BuildInputs()
    trained, _ = training_sets.format_critique(ROW | {"critique": "c"}, inputs)
    asked = critiques.build_self_prompt(ROW, base.build_tokenizer())
    assert asked == prompts.render(trained, "chatml")


def test_a_prompt_is_shown_as_it_is_sent():
    shown = critiques.format_prompt(prompts.teacher_answer_prompt("1+1?"))
    assert shown == f"[system]\n{prompts.TEACHER_ANSWER}\n[user]\nQuestion:\n1+1?\n"
    assert critiques.format_prompt("<|im_start|>user\n1+1?") == "<|im_start|>user\n1+1?"


def test_what_counts_as_a_critique():
    texts = {
        "Fine.\n\nConclusion: right [END]": None,
        "Fine.\n\nConclusion: wrong": None,
        "Fine.": "no verdict",
        "Fine.\n\nConclusion: right/wrong [END]": "no verdict",
        "Fine.\n\nConclusion: right [END]\n\nConclusion: wrong [END]": "no verdict",
    }
    assert {text: critiques.check_critique(text) for text in texts} == texts


def test_a_bare_conclusion_is_no_critique():
    """By the words before it; a conclusion with its reasons is a critique."""
    bare = "a bare conclusion (fewer than 3 words before it)"
    reasons = "right, for the sum is two and each of the steps holds [END]"
    texts = {
        "Conclusion: right [END]": bare,
        "**Critique:**\n\n**Conclusion**: wrong": bare,
        "Not quite.\n\nConclusion: wrong [END]": bare,
        "It is two.\n\nConclusion: right [END]": None,
        f"Conclusion: {reasons}": None,
        "": "no verdict",
    }
    assert {text: critiques.check_critique(text, 3) for text in texts} == texts
    carried = ROW | CARRIED
    assert critiques.carry_over(carried, 3)["reason"].endswith(bare)
    assert "reason" not in critiques.carry_over(carried, 1)


def test_what_is_left_out_is_counted():
    answers = [GOOD, GOOD | {"text": "<think>x</think>Fine."}, {"error": "400"}, {"text": ""}]
    failed = [critiques.carry_over(ROW | CARRIED, 3), {"reason": "no verdict"}]
    report = critiques.summarize([ROW | CARRIED], failed, answers)
    assert (report["thinking_removed"], report["bare_conclusions"]) == (1, 1)


# --- rows -----------------------------------------------------------------------------------------


def test_a_good_answer_makes_a_row():
    """The teacher's own text stays besides the normalized one, and so does its cost."""
    expected = ROW | {
        "critique_id": content_id("r1", "m", GOOD["text"]),
        "teacher": "m",
        "critique": "Fine.\n\nConclusion: right [END]",
        "critique_raw": GOOD["text"],
        "verdict": "right",
        "critique_finish_reason": "stop",
        "usage": GOOD["usage"],
        "usd": 0.25,
    }
    assert critiques.add_critique(ROW, GOOD, "m") == expected
    unpriced = {name: value for name, value in GOOD.items() if name != "usd"}
    assert critiques.add_critique(ROW, unpriced, "m") == expected | {"usd": None}


def test_the_label_that_03_writes_is_not_there_twice():
    text = "Critique:\nFine.\n\nConclusion: right"
    row = critiques.add_critique(ROW, GOOD | {"text": text}, critiques.SELF)
    assert row["critique"] == "Fine.\n\nConclusion: right [END]"
    assert row["critique_raw"].startswith("Critique:")


def test_what_the_teacher_thought_is_in_no_row():
    """It said wrong before it said right; the journal has it."""
    thought = "<think>Hm.\n\nConclusion: wrong [END]</think>\n\n"
    answer = GOOD | {"text": thought + GOOD["text"]}
    assert critiques.add_critique(ROW, answer, "m") == critiques.add_critique(ROW, GOOD, "m")
    assert critiques.add_answer(ROW, answer, "m") == critiques.add_answer(ROW, GOOD, "m")


def test_half_a_character_of_a_server_is_a_question_mark():
    text = "Fine \ud83d.\n\nConclusion: right [END]"
    row = critiques.add_critique(ROW, GOOD | {"text": text}, "m")
    assert row["critique_raw"].startswith("Fine ?.")


def test_an_answer_that_cannot_be_used_makes_a_failed_row():
    """Never a verdict: 03 must not train on it. The teacher's text stays, to be looked at."""
    answers = [
        ({"key": "k", "error": "400 flagged"}, None),
        (GOOD | {"text": "Fine.", "error": "no verdict"}, "Fine."),
    ]
    for answer, raw in answers:
        failure = {"critique_raw": raw, "verdict": "unparsed", "reason": answer["error"]}
        assert critiques.add_critique(ROW, answer, "m") == ROW | {"teacher": "m"} | failure


def test_a_row_that_came_with_a_critique_and_is_asked_again_keeps_nothing_of_the_old():
    """Else the data's critique would be there under the teacher's name."""
    for answer in (GOOD, {"error": "400"}):
        row = critiques.add_critique(ROW | CARRIED, answer, "m")
        assert row["teacher"] == "m" and "Old." not in json.dumps(row)
        assert ("critique" in row) == ("text" in answer)


def test_carried_critiques_stay_as_they_are():
    row = critiques.carry_over(ROW | CARRIED)
    assert row["critique"] == "Old.\n\nConclusion: wrong [END]"
    assert row["critique_raw"] == CARRIED["critique_raw"] and row["teacher"] == "data"
    assert row["usage"] is row["usd"] is None and "reason" not in row
    assert row["critique_id"] != critiques.add_critique(ROW, GOOD, "m")["critique_id"]
    assert critiques.carry_over(ROW | CARRIED | {"verdict": "unparsed"})["reason"]


def test_the_teachers_own_answers():
    row = critiques.add_answer(ROW, GOOD | {"text": "Answer: 2"}, "m")
    assert row == {
        "question_id": "q1",
        "question": "1+1?",
        "gold": "2",
        "teacher": "m",
        "answer": "Answer: 2",
        "finish_reason": "stop",
        "usage": GOOD["usage"],
        "usd": 0.25,
    }
    assert "empty" in critiques.add_answer(ROW, {"error": "empty"}, "m")["reason"]


# --- the report -----------------------------------------------------------------------------------


def test_the_report():
    """By hand: lengths 9, 4 and 5, two of three right; reasons are cut to a line."""
    drawn = [(9, "right"), (4, "wrong"), (5, "right")]
    rows = [ROW | {"critique": "x" * n, "verdict": verdict} for n, verdict in drawn]
    failed = [{"reason": "no verdict"}] * 2 + [{"reason": "y" * 300}]
    report = critiques.summarize(rows, failed, [])
    assert report == {
        "critiques": 3,
        "right": 2,
        "median_characters": 5,
        "failed": 3,
        "failed_for": {"no verdict": 2, "y" * 80: 1},
        "thinking_removed": 0,
        "bare_conclusions": 0,
    }
    text = critiques.format_summary(report)
    assert (
        "3 critiques" in text
        and "66.7%" in text
        and "2 rows without a critique: no verdict" in text
    )
