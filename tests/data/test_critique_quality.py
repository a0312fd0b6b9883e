"""Verdicts against golds: every count by hand."""

import pytest

from common import grading
from common.core import files, stats
from common.data import critique_quality, grades, sources
from common.grading import equivalence
from common.teacher import critiques
from tests.conftest import SHARED

R, W = "It is \\boxed{2}.", "It is \\boxed{3}."


def row(name, verdict="right", response=R, gold="2", teacher="t", source="s", question=None):
    return {
        "id": name,
        "question_id": question or f"q{name}",
        "gold": gold,
        "response": response,
        "teacher": teacher,
        "source": source,
        "verdict": verdict,
    }


# Of teacher t: 1 + 1 + 2 + 1 against golds, one without a gold. Of u: 3 + 0 + 0 + 2.
DOZEN = [
    row("a", "right"),
    row("b", "wrong"),
    row("c", "right", W),
    row("d", "right", W, source="z"),
    row("e", "wrong", W, source="z"),
    row("f", "right", gold=None),
    row("a", "right", teacher="u"),
    row("b", "right", teacher="u"),
    row("g", "right", teacher="u"),
    row("c", "wrong", W, teacher="u"),
    row("d", "wrong", W, teacher="u", source="z"),
]
TRUTH = {"a": True, "b": True, "c": False, "d": False, "e": False, "g": True}


def grade(rows):
    return grades.grade_responses(rows, grades.collect_golds(rows))


def counts_of(graded=0, right=0, timed_out=0, without=0):
    return f"{graded} graded, {right} right, {timed_out} timed out, {without} without a clear gold"


# --- which responses are right --------------------------------------------------------------------


def test_right_by_hand():
    assert grade(DOZEN) == (TRUTH, counts_of(graded=6, right=3, without=1))
    assert grade([]) == ({}, counts_of())


@pytest.mark.parametrize("gold", [None, "", "  \n"])
def test_no_usable_gold(gold):
    rows = [row("a", gold=gold), row("b", gold=gold, question="qa")]
    assert grade(rows) == ({}, counts_of(without=2))


def test_conflicting_golds_leave_the_whole_question_out():
    """Three rows of question q, two golds; the other question stays.

    A row without a gold is no conflict: it shares the other's.
    """
    rows = [
        row("a", question="q"),
        row("b", question="q", gold="3"),
        row("c", question="q"),
        row("d", question="p"),
        row("e", question="p", gold=None, response=W),
        row("f", question="p", gold=" 2 "),
    ]
    expected = {"d": True, "e": False, "f": True}
    assert grade(rows) == (expected, counts_of(graded=3, right=2, without=3))


def test_golds_of_other_types_are_read_as_text():
    """A hand-written file may hold numbers."""
    rows = [row("a", gold=2), row("b", gold=3.0), row("c", gold=0, response="0")]
    assert grade(rows)[0] == {"a": True, "b": False, "c": True}


def test_letters_are_compared_as_options():
    rows = [
        row("a", gold="B", response="So the answer is (B)."),
        row("b", gold="B", response="Solution: Choice_C"),
    ]
    assert grade(rows)[0] == {"a": True, "b": False}


@pytest.fixture
def graded(monkeypatch):
    """The responses that the grader has seen."""
    responses, grade_many = [], grading.grade_many

    def watch(texts, golds):
        responses.extend(texts)
        return grade_many(texts, golds)

    monkeypatch.setattr(grading, "grade_many", watch)
    return responses


def test_each_response_is_graded_once(graded):
    """Two teachers judged it: the grader sees it once."""
    grade(DOZEN)
    assert graded == [R, R, W, W, W, R]


def test_each_row_is_graded_against_its_own_gold():
    """By hand: 2 is right, 3 is not; no gold, no grade."""
    rows = [row("a"), row("b", response=W), row("c", gold=" "), row("b", response=W, gold="3")]
    grades.add_grades(rows)
    assert [line["correct"] for line in rows] == [True, False, None, True]


def test_the_grade_that_02_wrote_is_read(graded):
    """Only what has none is graded here. Golds that came to conflict since then grade nothing."""
    rows = [
        row("a") | {"correct": False},  # against the grader, to know whose it is
        row("b", gold=None, question="qa") | {"correct": None},
        row("c", response=W) | {"correct": "yes"},
        row("d", question="q") | {"correct": True},
        row("e", question="q", gold="3") | {"correct": False},
    ]
    correct, _ = grade(rows)
    assert correct == {"a": False, "b": True, "c": False} and graded == [R, W]


def test_what_takes_too_long_is_neither_right_nor_wrong(monkeypatch):
    """By the rules of the grader such an answer is wrong "without being known to be"."""
    monkeypatch.setattr(equivalence, "SYMBOLIC_SECONDS", 0.3)
    slow = row("a", gold="\\sin(10^{10^{8}})", response="\\boxed{\\cos(10^{10^{8}})}")
    result = grading.grade(slow["response"], slow["gold"])
    assert result.timed_out and not result.correct
    assert grade([slow, row("b")]) == ({"b": True}, counts_of(graded=1, right=1, timed_out=1))
    grades.add_grades([slow])
    assert slow["correct"] is None


# --- verdicts against golds -----------------------------------------------------------------------


def counts(line):
    return [line[name] for name in ("critiques", *critique_quality.CASES)]


def test_cases_of_a_dozen_by_hand():
    table = critique_quality.confusion_table(DOZEN, TRUTH, "teacher")
    assert [(name, counts(line)) for name, line in table.items()] == [
        ("t", [6, 1, 1, 2, 1]),
        ("u", [5, 3, 0, 0, 2]),
    ]
    table = critique_quality.confusion_table(DOZEN, TRUTH, "source")
    assert [(name, counts(line)) for name, line in table.items()] == [
        ("s", [8, 4, 1, 1, 1]),
        ("z", [3, 0, 0, 1, 2]),
    ]
    assert counts(critique_quality.count_cases(DOZEN, TRUTH)) == [11, 4, 1, 2, 3]


def test_shares_and_their_intervals():
    """t: 2 of 5 verdicts agree, 2 of 3 wrong responses were accepted."""
    table = critique_quality.confusion_table(DOZEN, TRUTH, "teacher")
    t, u = table["t"], table["u"]
    assert t["agrees"] == (2 / 5, *stats.wilson(2, 5))
    assert t["accepts"] == (2 / 3, *stats.wilson(2, 3))
    assert u["accepts"] == (0, *stats.wilson(0, 2))
    assert u["agrees"][0] == 1


def test_without_golds_there_are_no_cases_and_no_shares():
    line = critique_quality.count_cases(DOZEN, {})
    assert counts(line) == [11, 0, 0, 0, 0]
    assert line["agrees"] == line["accepts"] == (None, None, None)
    assert critique_quality.confusion_table([], {}, "teacher") == {}


# --- real critiques -------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "responses").exists(), reason="no shared data here")
def test_on_real_critiques():
    """364 critiques of 248 answers to three problems, with the labels of those who published them.

    Their answer matching and ours differ if an answer is 12.7 and the gold 8 cube roots of 4
    (12.699...): a rounded form, which is not strictly equal. By the labels, 110 of 230 wrong
    responses were called right.
    """
    path = SHARED / "responses" / "oneshot_both_verdicts.jsonl"
    columns = ["gold=gold_answer", "teacher=critique_author"]
    carried = [critiques.carry_over(row) for row in sources.load_rows(str(path), columns)[0]]
    rows, failed = critiques.split_failed(carried)
    assert (len(rows), failed) == (364, [])
    labels = {}
    for record in files.read_jsonl(path):
        row = sources.make_row(record["question"], record["response"], None, "", "")
        labels[row["id"]] = record["is_correct"]
    correct, gold_counts = grade(rows)
    assert "248 graded" in gold_counts and len(correct) == len(labels) == 248
    differing = [name for name in correct if correct[name] != labels[name]]
    assert all(labels[name] for name in differing)
    for truth, cases in ((correct, [119, 11, 114, 120]), (labels, [123, 11, 110, 120])):
        assert counts(critique_quality.count_cases(rows, truth)) == [364, *cases]
