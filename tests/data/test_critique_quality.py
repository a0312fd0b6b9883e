"""Verdicts against golds and against each other: every count and every kappa by hand."""

import json
import random
from collections import Counter

import pytest

from common import grading
from common.core import stats
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


# A dozen rows: of teacher t 1 + 1 + 2 + 1 against golds, one without a gold, one unread; of u 3 + 0 + 0 + 2.
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


def gives_gold(rows):
    return critique_quality.grade_responses(rows, critique_quality.collect_golds(rows))


# --- which responses are right --------------------------------------------------------------------------------------


def test_right_by_hand():
    assert gives_gold(DOZEN) == (
        TRUTH,
        {"graded": 6, "timed out": 0, "without a gold": 1, "conflicting golds (questions)": 0},
    )
    assert gives_gold([]) == (
        {},
        {"graded": 0, "timed out": 0, "without a gold": 0, "conflicting golds (questions)": 0},
    )


@pytest.mark.parametrize("gold", [None, "", "  \n"])
def test_no_usable_gold(gold):
    found, counts = gives_gold([row("a", gold=gold), row("b", gold=gold, question="qa")])
    assert (
        found == {}
        and counts["without a gold"] == 2
        and counts["conflicting golds (questions)"] == 0
    )


def test_conflicting_golds_leave_the_whole_question_out():
    """Three rows of question q, two golds; the other question stays. A row without a gold is no conflict: it shares the other's."""
    rows = [
        row("a", question="q"),
        row("b", question="q", gold="3"),
        row("c", question="q"),
        row("d", question="p"),
        row("e", question="p", gold=None, response=W),
        row("f", question="p", gold=" 2 "),
    ]
    found, counts = gives_gold(rows)
    assert found == {"d": True, "e": False, "f": True}
    assert counts == {
        "graded": 3,
        "timed out": 0,
        "without a gold": 0,
        "conflicting golds (questions)": 1,
    }


def test_golds_of_other_types_are_read_as_text():
    """A hand-written file may hold numbers."""
    assert gives_gold([row("a", gold=2), row("b", gold=3.0), row("c", gold=0, response="0")])[
        0
    ] == {"a": True, "b": False, "c": True}


def test_letters_are_compared_as_options():
    assert gives_gold(
        [
            row("a", gold="B", response="So the answer is (B)."),
            row("b", gold="B", response="Solution: Choice_C"),
        ]
    )[0] == {"a": True, "b": False}


def test_each_response_is_graded_once(monkeypatch):
    """Two teachers judged it: the grader sees it once."""
    seen, grade_many = [], critique_quality.grading.grade_many
    monkeypatch.setattr(
        critique_quality.grading,
        "grade_many",
        lambda texts, golds: seen.extend(texts) or grade_many(texts, golds),
    )
    gives_gold(DOZEN)
    assert seen == [R, R, W, W, W, R]


def test_what_takes_too_long_is_neither_right_nor_wrong(monkeypatch):
    """By the rules of the grader such an answer is wrong "without being known to be"."""
    monkeypatch.setattr(equivalence, "SYMBOLIC_SECONDS", 0.3)
    slow = row("a", gold="\\sin(10^{10^{8}})", response="\\boxed{\\cos(10^{10^{8}})}")
    judged = grading.grade(slow["response"], slow["gold"])
    assert judged.timed_out and not judged.correct
    assert gives_gold([slow, row("b")]) == (
        {"b": True},
        {"graded": 1, "timed out": 1, "without a gold": 0, "conflicting golds (questions)": 0},
    )


# --- verdicts against golds -----------------------------------------------------------------------------------------


def lines(rows, right):
    return {
        (line["teacher"], line["source"]): line for line in critique_quality.confusion_table(rows, right)
    }


def counts(line):
    return [
        line[k]
        for k in (
            "critiques",
            "called_right",
            "called_wrong",
            "unparsed",
            "right_right",
            "right_wrong",
            "wrong_right",
            "wrong_wrong",
        )
    ]


def test_confusion_of_a_dozen_by_hand():
    found = lines(DOZEN, TRUTH)
    assert {key: counts(line) for key, line in found.items()} == {
        ("t", "s"): [5, 3, 1, 1, 1, 1, 1, 0],
        ("t", "z"): [2, 1, 1, 0, 0, 0, 1, 1],
        ("t", None): [7, 4, 2, 1, 1, 1, 2, 1],
        ("u", "s"): [4, 3, 1, 0, 3, 0, 0, 1],
        ("u", "z"): [1, 0, 1, 0, 0, 0, 0, 1],
        ("u", None): [5, 3, 2, 0, 3, 0, 0, 2],
        (None, "s"): [9, 6, 2, 1, 4, 1, 1, 1],
        (None, "z"): [3, 1, 2, 0, 0, 0, 1, 2],
        (None, None): [12, 7, 4, 1, 4, 1, 2, 3],
    }
    assert list(found) == [
        ("t", "s"),
        ("t", "z"),
        ("t", None),
        ("u", "s"),
        ("u", "z"),
        ("u", None),
        (None, "s"),
        (None, "z"),
        (None, None),
    ]


def test_shares_and_their_intervals():
    """t: 2 of 5 verdicts agree, 2 of 3 wrong responses were called right, 4 of 6 verdicts are right."""
    t, u = lines(DOZEN, TRUTH)["t", None], lines(DOZEN, TRUTH)["u", None]
    assert t["agrees"] == (2 / 5, *stats.wilson(2, 5)) and t["accepts"] == (
        2 / 3,
        *stats.wilson(2, 3),
    )
    assert (
        t["positive"] == (4 / 6, *stats.wilson(4, 6))
        and u["accepts"] == (0, *stats.wilson(0, 2))
        and u["agrees"][0] == 1
    )


@pytest.mark.parametrize("verdict", ["unparsed", None, "", "Right", ["right"], 1, "missing"])
def test_what_is_no_verdict_is_counted_apart_and_never_as_wrong(verdict):
    rows = [row("a", verdict), row("b", "wrong", W)]
    if verdict == "missing":
        del rows[0]["verdict"]
    (line, *_) = critique_quality.confusion_table(rows, {"a": True, "b": False})
    assert counts(line) == [2, 0, 1, 1, 0, 0, 0, 1] and line["agrees"][0] == 1
    assert critique_quality.teacher_agreement([rows[0], row("a", teacher="u")]) == []


def test_without_golds_there_are_counts_and_no_shares_of_them():
    (line, *_) = critique_quality.confusion_table(DOZEN, {})
    assert (
        counts(line) == [5, 3, 1, 1, 0, 0, 0, 0]
        and line["agrees"] == line["accepts"] == (None, None, None) != line["positive"]
    )
    assert critique_quality.confusion_table([], {}) == [] and critique_quality.teacher_agreement([]) == []


def test_the_counts_add_up():
    """Each teacher's line is the sum of its sources' lines, and the last that of all teachers; golds and verdicts per row, another way."""
    found = lines(DOZEN, TRUTH)
    for teacher in ("t", "u", None):
        assert counts(found[teacher, None]) == [
            sum(c) for c in zip(counts(found[teacher, "s"]), counts(found[teacher, "z"]))
        ]
    pairs = Counter(
        (TRUTH[r["id"]], r["verdict"])
        for r in DOZEN
        if r["id"] in TRUTH and r["verdict"] != "unparsed"
    )
    assert critique_quality.count_cases(DOZEN, TRUTH) == {
        f"{'right' if was else 'wrong'} called {called}": n for (was, called), n in pairs.items()
    }


# --- teachers against each other ------------------------------------------------------------------------------------


def said(teacher, words):
    """Verdicts on responses 0, 1, ...: r, w, or - for none asked."""
    return [
        row(str(n), {"r": "right", "w": "wrong"}[word], teacher=teacher)
        for n, word in enumerate(words)
        if word != "-"
    ]


def test_kappa_by_hand():
    """4 both right, 1 only a, 2 only b, 3 both wrong: as in the docstring (0.7 - 0.5)/(1 - 0.5)."""
    (pair,) = critique_quality.teacher_agreement(said("b", "rrrrwrrwww") + said("a", "rrrrrwwwww"))
    kappa = pair.pop("kappa")
    assert pair == {
        "a": "a",
        "b": "b",
        "n": 10,
        "both_right": 4,
        "only_a": 1,
        "only_b": 2,
        "both_wrong": 3,
        "agrees": (0.7, *stats.wilson(7, 10)),
    }
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
    (pair,) = critique_quality.teacher_agreement(said("a", a) + said("b", b))
    assert pair["kappa"] == kappa


def test_kappa_is_that_of_the_textbook():
    """sum over categories of p_i. x p_.i, on 1,000 random tables of the four cells."""
    rng = random.Random(0)
    for _ in range(1_000):
        both, a, b, neither = (rng.randint(0, 9) for _ in range(4))
        words = [("r", "r")] * both + [("r", "w")] * a + [("w", "r")] * b + [("w", "w")] * neither
        n = len(words)
        pairs = critique_quality.teacher_agreement(
            said("a", [x for x, _ in words]) + said("b", [y for _, y in words])
        )
        if n:
            expected = sum(
                sum(x == v for x, _ in words) / n * sum(y == v for _, y in words) / n for v in "rw"
            )
            observed = sum(x == y for x, y in words) / n
            assert pairs[0]["kappa"] == (
                None
                if expected == 1
                else pytest.approx((observed - expected) / (1 - expected), abs=1e-9)
            )
        else:
            assert pairs == []


def test_three_teachers_make_three_pairs_sorted_on_what_both_judged():
    rows = said("c", "rrr--") + said("a", "rw-r-") + said("b", "-rrww") + said("d", "----r")
    found = [
        (p["a"], p["b"], p["n"], p["both_right"], p["only_a"], p["only_b"], p["both_wrong"])
        for p in critique_quality.teacher_agreement(rows)
    ]
    assert found == [
        ("a", "b", 2, 0, 1, 1, 0),
        ("a", "c", 2, 1, 0, 1, 0),
        ("b", "c", 2, 2, 0, 0, 0),
        ("b", "d", 1, 0, 0, 1, 0),
    ]
    assert critique_quality.teacher_agreement(rows[::-1]) == critique_quality.teacher_agreement(rows)


def test_of_several_critiques_of_one_teacher_the_first_with_a_verdict_counts():
    rows = [
        row("x", "unparsed", teacher="a"),
        row("x", "wrong", teacher="a"),
        row("x", "right", teacher="a"),
        row("x", "wrong", teacher="b"),
    ]
    (pair,) = critique_quality.teacher_agreement(rows)
    assert (pair["n"], pair["both_wrong"]) == (1, 1)


# --- real critiques -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "responses").exists(), reason="no shared data here")
def test_on_real_critiques():
    """364 critiques of 248 answers to three problems, with the labels of those who published them. Their answer matching and ours differ
    where an answer is 12.7 and the gold 8 cube roots of 4 (12.699...): a rounded form, which is not strictly equal. By the labels, 110 of
    230 wrong responses were called right."""
    path = SHARED / "responses" / "oneshot_both_verdicts.jsonl"
    made = [
        critiques.carry_over(row)
        for row in sources.load_rows(str(path), ["gold=gold_answer", "teacher=critique_author"])[0]
    ]
    rows, (right, counted) = [row for row, _ in made], gives_gold([row for row, _ in made])
    labels = {}
    for record in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        labels[sources.make_row(record["question"], record["response"], None, "", "")["id"]] = (
            record["is_correct"]
        )
    assert [reason for _, reason in made] == [None] * 364 and counted["graded"] == len(
        right
    ) == len(labels) == 248
    assert all(labels[i] and not right[i] for i in right if right[i] != labels[i])
    by_grader, by_label = (
        critique_quality.confusion_table(rows, right)[-1],
        critique_quality.confusion_table(rows, labels)[-1],
    )
    assert counts(by_grader) == [364, 233, 131, 0, 119, 11, 114, 120] and counts(by_label) == [
        364,
        233,
        131,
        0,
        123,
        11,
        110,
        120,
    ]
