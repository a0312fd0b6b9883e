"""Verdicts against golds and against each other: every count and every kappa by hand."""

import random

import pytest

from common import grading
from common.core import files, stats
from common.data import critique_quality, sources
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


# Of teacher t: 1 + 1 + 2 + 1 against golds, one without a gold, one unread. Of u: 3 + 0 + 0 + 2.
DOZEN = [
    row("a", "right"),
    row("b", "wrong"),
    row("c", "right", W),
    row("d", "right", W, source="z"),
    row("e", "wrong", W, source="z"),
    row("f", "right", gold=None),
    row("g", "unparsed"),
    row("a", "right", teacher="u"),
    row("b", "right", teacher="u"),
    row("g", "right", teacher="u"),
    row("c", "wrong", W, teacher="u"),
    row("d", "wrong", W, teacher="u", source="z"),
]
TRUTH = {"a": True, "b": True, "c": False, "d": False, "e": False, "g": True}


def grade(rows):
    return critique_quality.grade_responses(rows, critique_quality.collect_golds(rows))


def counts_of(graded=0, timed_out=0, without=0):
    return {
        "graded": graded,
        "timed out": timed_out,
        "without a clear gold": without,
    }


# --- which responses are right --------------------------------------------------------------------


def test_right_by_hand():
    assert grade(DOZEN) == (TRUTH, counts_of(graded=6, without=1))
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
    assert grade(rows) == (expected, counts_of(graded=3, without=3))


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


def test_each_response_is_graded_once(monkeypatch):
    """Two teachers judged it: the grader sees it once."""
    graded, grade_many = [], grading.grade_many

    def watch(responses, golds):
        graded.extend(responses)
        return grade_many(responses, golds)

    monkeypatch.setattr(grading, "grade_many", watch)
    grade(DOZEN)
    assert graded == [R, R, W, W, W, R]


def test_what_takes_too_long_is_neither_right_nor_wrong(monkeypatch):
    """By the rules of the grader such an answer is wrong "without being known to be"."""
    monkeypatch.setattr(equivalence, "SYMBOLIC_SECONDS", 0.3)
    slow = row("a", gold="\\sin(10^{10^{8}})", response="\\boxed{\\cos(10^{10^{8}})}")
    result = grading.grade(slow["response"], slow["gold"])
    assert result.timed_out and not result.correct
    assert grade([slow, row("b")]) == ({"b": True}, counts_of(graded=1, timed_out=1))


# --- verdicts against golds -----------------------------------------------------------------------


def counts(line):
    names = ("critiques", "right", "wrong", "unparsed", *critique_quality.CASES)
    return [line[name] for name in names]


def test_confusion_of_a_dozen_by_hand():
    table = critique_quality.confusion_table(DOZEN, TRUTH, "teacher", "source")
    assert [(key, counts(line)) for key, line in table.items()] == [
        (("t", "s"), [5, 3, 1, 1, 1, 1, 1, 0]),
        (("t", "z"), [2, 1, 1, 0, 0, 0, 1, 1]),
        (("u", "s"), [4, 3, 1, 0, 3, 0, 0, 1]),
        (("u", "z"), [1, 0, 1, 0, 0, 0, 0, 1]),
    ]
    table = critique_quality.confusion_table(DOZEN, TRUTH, "teacher")
    assert [(key, counts(line)) for key, line in table.items()] == [
        (("t",), [7, 4, 2, 1, 1, 1, 2, 1]),
        (("u",), [5, 3, 2, 0, 3, 0, 0, 2]),
    ]
    table = critique_quality.confusion_table(DOZEN, TRUTH)
    assert counts(table[()]) == [12, 7, 4, 1, 4, 1, 2, 3]


def test_shares_and_their_intervals():
    """t: 2 of 5 verdicts agree, 2 of 3 wrong responses were accepted, 4 of 6 verdicts are right."""
    table = critique_quality.confusion_table(DOZEN, TRUTH, "teacher")
    t, u = table["t",], table["u",]
    assert t["agrees"] == (2 / 5, *stats.wilson(2, 5))
    assert t["accepts"] == (2 / 3, *stats.wilson(2, 3))
    assert t["called_right"] == (4 / 6, *stats.wilson(4, 6))
    assert u["accepts"] == (0, *stats.wilson(0, 2))
    assert u["agrees"][0] == 1


@pytest.mark.parametrize("verdict", ["unparsed", None, "", "Right", ["right"], 1])
def test_what_is_no_verdict_is_counted_apart_and_never_as_wrong(verdict):
    rows = [row("a", verdict), row("b", "wrong", W)]
    line = critique_quality.confusion_table(rows, {"a": True, "b": False})[()]
    assert counts(line) == [2, 0, 1, 1, 0, 0, 0, 1] and line["agrees"][0] == 1
    assert critique_quality.teacher_agreement([rows[0], row("a", teacher="u")]) == []


def test_without_golds_there_are_counts_and_no_shares_of_them():
    line = critique_quality.confusion_table(DOZEN, {})[()]
    assert counts(line) == [12, 7, 4, 1, 0, 0, 0, 0]
    assert line["agrees"] == line["accepts"] == (None, None, None)
    assert critique_quality.confusion_table([], {}, "teacher") == {}
    assert critique_quality.teacher_agreement([]) == []


# --- teachers against each other ------------------------------------------------------------------


def verdicts_of(teacher, letters):
    """Return rows with verdicts on responses 0, 1, ...: r, w, or - for none."""
    verdicts = {"r": "right", "w": "wrong"}
    return [
        row(str(n), verdicts[letter], teacher=teacher)
        for n, letter in enumerate(letters)
        if letter != "-"
    ]


def test_kappa_by_hand():
    """4 both right, 1 only a, 2 only b, 3 both wrong: as in the docstring (0.7 - 0.5)/(1 - 0.5)."""
    rows = verdicts_of("b", "rrrrwrrwww") + verdicts_of("a", "rrrrrwwwww")
    (pair,) = critique_quality.teacher_agreement(rows)
    kappa = pair.pop("kappa")
    assert pair == {"a": "a", "b": "b", "n": 10, "a_right": 5, "b_right": 6, "agree": 7}
    assert kappa == pytest.approx(0.4, abs=1e-15)


@pytest.mark.parametrize(
    "a, b, kappa",
    [
        ("rrww", "rrww", 1),
        ("rrww", "wwrr", -1),
        ("rwrw", "rrww", 0),
        ("rrrr", "rrrr", None),
        ("rrrr", "rwww", 0),
        ("wwww", "rrrr", 0),
        ("wwww", "wwww", None),
    ],
)
def test_kappa_at_its_ends(a, b, kappa):
    (pair,) = critique_quality.teacher_agreement(verdicts_of("a", a) + verdicts_of("b", b))
    assert pair["kappa"] == kappa


def test_kappa_is_that_of_the_textbook():
    """sum over categories of p_i. x p_.i, on 300 random tables of the four cells."""
    rng = random.Random(0)
    for _ in range(300):
        cells = {pair: rng.randint(0, 9) for pair in ("rr", "rw", "wr", "ww")}
        letters = [pair for pair, number in cells.items() for _ in range(number)]
        a, b = "".join(pair[0] for pair in letters), "".join(pair[1] for pair in letters)
        pairs = critique_quality.teacher_agreement(verdicts_of("a", a) + verdicts_of("b", b))
        if not letters:
            assert pairs == []
            continue
        n = len(letters)
        expected = sum(a.count(v) / n * b.count(v) / n for v in "rw")
        observed = (cells["rr"] + cells["ww"]) / n
        if expected == 1:
            assert pairs[0]["kappa"] is None
        else:
            kappa = (observed - expected) / (1 - expected)
            assert pairs[0]["kappa"] == pytest.approx(kappa, abs=1e-9)


def test_teachers_are_compared_on_the_responses_that_both_judged():
    rows = verdicts_of("c", "rrr--") + verdicts_of("a", "rw-r-")
    rows += verdicts_of("b", "-rrww") + verdicts_of("d", "----r")
    columns = ("a", "b", "n", "a_right", "b_right", "agree")
    pairs = critique_quality.teacher_agreement(rows)
    assert [tuple(pair[column] for column in columns) for pair in pairs] == [
        ("a", "b", 2, 1, 1, 0),
        ("a", "c", 2, 1, 2, 1),
        ("b", "c", 2, 2, 2, 2),
        ("b", "d", 1, 0, 1, 0),
    ]
    assert pairs == critique_quality.teacher_agreement(rows[::-1])


def test_of_several_critiques_of_one_teacher_the_first_with_a_verdict_counts():
    verdicts = [("unparsed", "a"), ("wrong", "a"), ("right", "a"), ("wrong", "b")]
    rows = [row("x", verdict, teacher=teacher) for verdict, teacher in verdicts]
    (pair,) = critique_quality.teacher_agreement(rows)
    assert (pair["n"], pair["a_right"], pair["agree"]) == (1, 0, 1)


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
    assert gold_counts["graded"] == len(correct) == len(labels) == 248
    differing = [name for name in correct if correct[name] != labels[name]]
    assert all(labels[name] for name in differing)
    for truth, cases in ((correct, [119, 11, 114, 120]), (labels, [123, 11, 110, 120])):
        line = critique_quality.confusion_table(rows, truth)[()]
        assert counts(line) == [364, 233, 131, 0, *cases]
