"""Answers -> critiqued rows: what counts, what stands beside them, and the report."""

import json

import pytest

from common.core import prompts
from common.core.files import content_id
from common.data import training_sets
from common.teacher import critiques
from common.tiny import base

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
OWN = {
    "critique": "Old.\n\nConclusion: wrong [END]",
    "critique_raw": "Old. Conclusion: wrong [END]",
    "verdict": "wrong",
    "teacher": "data",
}


@pytest.mark.parametrize(
    "text, why",
    [
        ("Fine.\n\nConclusion: right [END]", None),
        ("Fine.\n\nConclusion: wrong", None),
        ("Fine.", "no verdict"),
        ("Fine.\n\nConclusion: right/wrong [END]", "no verdict"),
        ("Fine.\n\nConclusion: right [END]\n\nConclusion: wrong [END]", "no verdict"),
    ],
)
def test_what_counts_as_a_critique(text, why):
    assert critiques.check_critique(text) == why


def test_what_is_asked():
    """A teacher by messages; a model that critiques itself by the very text that it would be
    trained on.
    """
    assert critiques.build_prompt(ROW, "paper") == prompts.teacher_critique_prompt(
        "1+1?", ROW["response"]
    )
    assert critiques.build_prompt(ROW, "one-shot") == prompts.teacher_critique_prompt(
        "1+1?", ROW["response"], one_shot=True
    )
    trained, _ = training_sets.format_cft(ROW | {"critique": "c"}, prompts.SYSTEM)
    assert critiques.build_prompt(ROW, "paper", base.build_tokenizer()) == prompts.render(
        trained, "chatml"
    )


def test_the_label_that_03_writes_does_not_stand_twice():
    row, _ = critiques.make_row(
        ROW, GOOD | {"text": "Critique:\nFine.\n\nConclusion: right"}, critiques.SELF
    )
    assert row["critique"] == "Fine.\n\nConclusion: right [END]" and row["critique_raw"].startswith(
        "Critique:"
    )


def test_half_a_character_of_a_server_is_a_question_mark():
    row, _ = critiques.make_row(
        ROW, GOOD | {"text": "Fine \ud83d.\n\nConclusion: right [END]"}, "m"
    )
    assert row["critique_raw"].startswith("Fine ?.")


def test_a_good_answer_makes_a_row():
    """What the teacher wrote stays beside the normalised text, and what it cost."""
    row, reason = critiques.make_row(ROW, GOOD, "m")
    assert reason is None and row == ROW | {
        "critique_id": content_id("r1", "m", GOOD["text"]),
        "teacher": "m",
        "critique": "Fine.\n\nConclusion: right [END]",
        "critique_raw": GOOD["text"],
        "verdict": "right",
        "critique_finish_reason": "stop",
        "usage": GOOD["usage"],
        "usd": 0.25,
    }
    assert (
        critiques.make_row(ROW, {k: v for k, v in GOOD.items() if k != "usd"}, "m")[0]["usd"]
        is None
    )


@pytest.mark.parametrize(
    "answer, raw",
    [
        ({"error": "not asked: the run was stopped before"}, None),
        ({"key": "k", "error": "400 flagged"}, None),
        (GOOD | {"text": "Fine.", "error": "no verdict"}, "Fine."),
    ],
)
def test_an_answer_that_cannot_be_used_makes_a_failed_row(answer, raw):
    """Never a verdict: 03 must not train on it. What was written stays, to be looked at."""
    row, reason = critiques.make_row(ROW, answer, "m")
    assert reason == answer["error"] and row == ROW | {
        "teacher": "m",
        "critique_raw": raw,
        "verdict": "unparsed",
    }


@pytest.mark.parametrize("answer", [GOOD, {"error": "400"}])
def test_a_row_that_came_with_a_critique_and_is_asked_again_keeps_nothing_of_the_old(answer):
    """Else the data's critique would stand under the teacher's name."""
    row, _ = critiques.make_row(ROW | OWN, answer, "m")
    assert (
        row["teacher"] == "m"
        and "Old." not in json.dumps(row)
        and ("critique" in row) == ("text" in answer)
    )


def test_carried_critiques_stay_as_they_are():
    row, reason = critiques.carry_over(ROW | OWN)
    assert reason is None and (row["critique"], row["critique_raw"]) == (
        "Old.\n\nConclusion: wrong [END]",
        OWN["critique_raw"],
    )
    assert row["teacher"] == "data" and row["usage"] is row["usd"] is None
    assert row["critique_id"] != critiques.make_row(ROW, GOOD, "m")[0]["critique_id"]
    unclear = ROW | OWN | {"verdict": "unparsed"}
    assert critiques.carry_over(unclear) == (
        unclear,
        "the critique that came with the data has no verdict",
    )


def test_new_rows_stand_beside_those_of_other_teachers_in_the_order_of_the_responses():
    """The same teacher's are replaced; those of responses that are gone are dropped; nothing
    depends on how answers arrived.
    """

    def row(name, teacher, text="x"):
        return {"id": name, "teacher": teacher, "critique": text}

    now = [
        {"id": name, "gold": f"gold of {name}", "source": "s", "generator": "g"} for name in "abc"
    ]
    old = [
        row("c", "a", "old"),
        row("a", "b"),
        row("gone", "b"),
        row("c", "b") | {"gold": "a wrong one, mended in 01 since"},
    ]
    new = [row("c", "a", "new"), row("a", "a")]
    expected = [
        row("a", "b"),
        row("a", "a"),
        row("c", "b") | {"gold": "gold of c"},
        row("c", "a", "new"),
    ]
    got = critiques.beside(new, old, ["a"], now, "id")
    assert sorted(got, key=str) == sorted(expected, key=str) and [r["id"] for r in got] == [
        "a",
        "a",
        "c",
        "c",
    ]
    again = critiques.beside(new, got, ["a"], now, "id")
    assert again == critiques.beside(new, again, ["a"], now, "id") and len(again) == 4
    assert critiques.beside([], old, ["a", "b"], now[:1], "id") == []


def test_two_responses_of_one_id_are_both_kept():
    """Ids are of content: the same response drawn twice."""
    rows = [{"id": "a", "teacher": "m", "n": n} for n in range(2)]
    assert (
        critiques.beside(
            rows,
            [],
            ["m"],
            [dict.fromkeys(("id", "gold", "source", "generator"), name) for name in "aab"],
            "id",
        )
        == rows
    )


def test_the_report():
    """By hand.

    Lengths 4, 5 and 9; 3 answers of 12 tokens but one without usage; reasons cut to a line.
    """
    used = GOOD["usage"]
    drawn = [
        (9, "right", used | {"cached_tokens": 3}, "stop"),
        (4, "wrong", None, None),
        (5, "right", used, "stop"),
    ]
    rows = [
        ROW
        | {
            "critique": "x" * n,
            "verdict": verdict,
            "usage": usage,
            "critique_finish_reason": finish,
            "gold": None,
        }
        for n, verdict, usage, finish in drawn
    ]
    failed = [{"reason": "no verdict"}] * 2 + [{"reason": "y" * 300}]
    report = critiques.summarize(rows, failed)
    (cut,) = set(report["failed_for"]) - {"no verdict"}
    assert (
        cut == "y" * len(cut)
        and 40 < len(cut) < 120
        and report
        == {
            "critiques": 3,
            "failed": 3,
            "right": 2,
            "characters": {"median": 5, "shortest": 4, "longest": 9},
            "tokens": 24,
            "finish_reasons": {"stop": 2, "None": 1},
            "failed_for": {"no verdict": 2, cut: 1},
            "against_gold": {},
        }
    )


def test_the_report_holds_verdicts_against_golds_of_a_sample(monkeypatch):
    """Every response that has a gold; of too many, 10 of 95 spread evenly: every tenth."""

    def judged(number, verdict, response):
        return ROW | {
            "id": str(number),
            "question_id": str(number),
            "response": response,
            "verdict": verdict,
            "critique": "x",
            "usage": None,
            "critique_finish_reason": "stop",
        }

    rows = [
        judged(n, "wrong" if n % 10 else "right", "\\boxed{2}" if n % 20 else "\\boxed{3}")
        for n in range(95)
    ]
    assert critiques.summarize(rows, [])["against_gold"] == {
        "wrong called right": 5,
        "right called wrong": 85,
        "right called right": 5,
    }
    monkeypatch.setattr(critiques, "GRADED", 10)
    report = critiques.summarize(rows, [])
    assert report["against_gold"] == {"wrong called right": 5, "right called right": 5}
    assert (
        "verdict and gold agree on 50.0% of 10: wrong called right 5, right called right 5"
        in critiques.format_summary(report)
    )
