"""Outputs -> rows -> scores -> comparisons: by hand, what is refused, and what is graded only once."""

import json
from dataclasses import replace

import pytest

from common import grading
from common.core import stats
from common.data import test_sets
from common.evaluate import paper_tables, scores
from common.evaluate.scores import Result
from common.generate.requests import Request
from common.grading import paper

ITEMS = [{"id": f"i{n}", "question": f"What is {n}?", "gold": str(n)} for n in range(4)]


def output(text, finish="stop", tokens=5):
    return {
        "key": text,
        "text": text,
        "finish_reason": finish,
        "usage": {"completion_tokens": tokens},
    }


def requests(items=ITEMS, k=1):
    return [Request(f"prompt of {item['question']}", sample=s) for item in items for s in range(k)]


def result(rights, model="m", benchmark="tiny", **conditions):
    """A Result of given verdicts: one per item, or a list of samples of each."""
    rows = [
        {
            "id": f"i{n}",
            "sample": s,
            "strict": r,
            "paper": r,
            "extracted": str(r),
            "how": "boxed",
            "finish_reason": "stop",
            "n_tokens": 2,
            "timed_out": False,
            "paper_timed_out": False,
            "benchmark": benchmark,
            "question": f"q{n}",
            "gold": "1",
            "output": f"{model} says {r}",
        }
        for n, of_item in enumerate(rights)
        for s, r in enumerate(of_item if isinstance(of_item, list) else [of_item])
    ]
    return Result(benchmark, model, rows, conditions)


# --- rows -----------------------------------------------------------------------------------------------------------


def test_rows_by_hand(tmp_path):
    """Both graders, what was sent, how the answer was found; an item without an output is graded by neither."""
    said = [
        output("\\boxed{0}"),
        output("So 1.04", "length"),
        {"key": "x", "error": "400 too long"},
        output("It is 4"),
    ]
    rows = scores.graded(tmp_path, "minerva_math", ITEMS, requests(), said)
    assert rows == [
        json.loads(line) for line in (tmp_path / "minerva_math.jsonl").read_text().splitlines()
    ]
    assert list(rows[0]) == [
        "id",
        "benchmark",
        "sample",
        "question",
        "prompt",
        "output",
        "finish_reason",
        "n_tokens",
        "extracted",
        "how",
        "strict",
        "timed_out",
        "paper",
        "paper_timed_out",
        "gold",
        "grader",
    ]
    assert [(r["strict"], r["paper"], r["how"], r["finish_reason"]) for r in rows] == [
        (True, True, "boxed", "stop"),
        (False, True, "last number", "length"),  # 1.04 and 1 agree after rounding to one decimal
        (None, None, "none", "failed"),
        (False, False, "last number", "stop"),
    ]
    assert (
        rows[0]["prompt"] == "prompt of What is 0?"
        and rows[2]["error"] == "400 too long"
        and rows[2]["output"] == ""
    )
    counted = scores.graded(tmp_path, "minerva_math", ITEMS, requests(), said, count_failed=True)
    assert (counted[2]["strict"], counted[2]["paper"], counted[2]["error"]) == (
        False,
        False,
        "400 too long",
    ) and counted[3] == rows[3]


@pytest.mark.parametrize(
    "name, gold, text, strict",
    [
        ("minerva_math", "1.60", "\\boxed{1.61}", True),
        ("minerva_math", "1.60", "\\boxed{1.62}", False),
        ("math500", "1.60", "\\boxed{1.61}", False),
        ("mmlu_pro", "C", "So the answer is (C).", True),
        ("mmlu_pro", "C", "So the answer is (D).", False),
        ("gpqa", "B", "The answer is B", True),
    ],
)
def test_each_benchmark_is_graded_by_its_own_row_of_the_table(tmp_path, name, gold, text, strict):
    items = [{"id": "i", "question": "q", "gold": gold, "options": 4}]
    (row,) = scores.graded(tmp_path, name, items, requests(items), [output(text)])
    assert row["strict"] is strict


def test_no_text_of_a_private_benchmark_is_written(tmp_path):
    """Outputs repeat questions, and a server's errors prompts; what is graded is the same."""
    items = [{"id": f"i{n}", "question": f"SECRET{n}", "gold": "B", "options": 4} for n in range(2)]
    rows = scores.graded(
        tmp_path,
        "gpqa",
        items,
        [Request("SECRET prompt")] * 2,
        [output("SECRET... The answer is B"), {"error": "400 SECRET"}],
    )
    kept = (tmp_path / "gpqa.jsonl").read_text()
    assert (
        "SECRET" not in kept
        and "The answer" not in kept
        and json.loads(kept.splitlines()[0])["strict"] is True
    )
    assert rows[0]["output"].startswith("SECRET") and "SECRET" not in scores.example(
        [Result("gpqa", "m", rows)]
    )
    assert scores.graded(
        tmp_path,
        "gpqa",
        items,
        [Request("SECRET prompt")] * 2,
        [output("SECRET... The answer is B"), {"error": "x"}],
    )[0]["strict"]


def test_equal_prompts_draw_samples_of_their_own(tmp_path):
    """Ten items with one question are ten items; greedily they are one output, asked once."""
    drawn = scores.requests(["a", "b", "a"], 2, greedy=False)
    assert [(r.prompt, r.sample) for r in drawn] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
        ("a", 2),
        ("a", 3),
    ] and all(r.finished for r in drawn)
    assert [(r.prompt, r.sample) for r in scores.requests(["a", "a"], 1, greedy=True)] == [
        ("a", 0),
        ("a", 0),
    ]
    rows = scores.graded(tmp_path, "gsm8k", ITEMS[:3], drawn, [output(str(n)) for n in range(6)])
    assert [(r["id"], r["sample"]) for r in rows] == [
        (f"i{n}", k) for n in range(3) for k in (0, 1)
    ]


def test_what_this_grader_has_graded_is_taken_over_and_no_other(tmp_path, monkeypatch):
    """Only equal outputs to equal golds, and only of the same code; what ran out of time is tried again."""
    asked = []

    def grade_many(texts, golds, *settings):
        asked.append(len(texts))
        if not texts:
            return []
        return [grading.GradeResult("7" in text, "7", "boxed", "late" in text) for text in texts]

    monkeypatch.setattr(grading, "grade_many", grade_many)
    said = [output("7"), output("late"), output("7 7"), output("no")]

    def again(items=ITEMS):
        rows = scores.graded(tmp_path, "gsm8k", items, requests(items), said)
        scores.write_score(tmp_path, Result("gsm8k", "m", rows), {})
        return rows

    first = again()
    assert [r["strict"] for r in first] == [True, False, True, False] and again() == first
    again([ITEMS[0] | {"gold": "8"}, *ITEMS[1:]])
    again()
    monkeypatch.setitem(
        test_sets.TEST_SETS, "gsm8k", replace(test_sets.TEST_SETS["gsm8k"], tolerance=0.01)
    )  # other rules of the table
    scores.grader_id.cache_clear()
    again()
    for torn in (b"", b'{"id": 1', b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "gsm8k.jsonl").write_bytes(torn)
        again()
    scores.grader_id.cache_clear()
    assert asked == [4, 1, 2, 2, 4, 4, 4, 4, 4]


# --- scores ---------------------------------------------------------------------------------------------------------


def test_a_score_by_hand():
    """3 of 4 right, one answer unboxed, one output cut: the interval is Wilson's."""
    given = result([True, True, True, False])
    given.rows[1] |= {"how": "cue", "finish_reason": "length", "paper": False}
    given.took = {"seconds": 1.3}
    found = scores.score(given)
    low, high = stats.wilson(3, 4)
    assert found == {
        "benchmark": "tiny",
        "model": "m",
        "n": 4,
        "samples": 1,
        "unboxed": 1,
        "cut": 1,
        "timed_out": 0,
        "paper_timed_out": 0,
        "failed": 0,
        "tokens": 8,
        "seconds": 1.3,
        "accuracy": 0.75,
        "low": low,
        "high": high,
        "paper_accuracy": 0.5,
        "paper_low": stats.wilson(2, 4)[0],
        "paper_high": stats.wilson(2, 4)[1],
        "correct": 3,
    }


def test_failed_items_are_out_of_the_score_and_counted():
    given = result([True, None, False, None])
    for row in given.rows[1::2]:
        row |= {"finish_reason": "failed", "error": "400 too long", "how": "none"}
    found = scores.score(given)
    assert (found["n"], found["failed"], found["accuracy"], found["unboxed"]) == (2, 2, 0.5, 0)
    assert (
        scores.notes([found], {("tiny", "m"): given}, {})[1]
        == "m, tiny: 2 items got no output and are not among the n; the first: 400 too long"
    )
    given.rows[1]["strict"] = given.rows[3]["strict"] = given.rows[1]["paper"] = given.rows[3][
        "paper"
    ] = False
    assert (
        "2 items got no output and count as wrong; "
        in scores.notes([scores.score(given)], {("tiny", "m"): given}, {})[1]
    )
    nothing = result([None, None])
    assert scores.score(nothing)["accuracy"] is None and scores.score(nothing)["n"] == 0


def test_samples_by_hand():
    """avg@4: (1 + 1/2 + 0)/3; pass@4: 2 of 3; maj@4: right, a tie of two and two (1/2), wrong."""
    given = result([[True] * 4, [True, True, False, False], [False] * 4])
    for row, said in zip(given.rows, ["1"] * 4 + ["1", "1", "2", "2"] + ["3"] * 4):
        row["extracted"] = said
    found = scores.score(given)
    assert (
        found["samples"],
        found["n"],
        found["accuracy"],
        found["pass_accuracy"],
        found["majority_accuracy"],
    ) == (4, 3, 0.5, 2 / 3, 0.5)
    assert "correct" not in found and found["low"] <= 0.5 <= found["high"]
    assert (found["pass_low"], found["pass_high"]) == stats.wilson(
        2, 3
    )  # right or wrong as a whole: no bootstrap
    nothing = scores.score(result([[False] * 4] * 30))
    assert (nothing["accuracy"], nothing["high"]) == (0, stats.wilson(0, 30)[1]) and nothing[
        "majority_high"
    ] > 0.1  # 0 of 30 is no certainty


def row(said, right=False):
    return {"extracted": said, "strict": right}


@pytest.mark.parametrize(
    "rows, expected",
    [
        ([row("5", True), row("5", True), row("6")], 1),
        ([row("5", True), row("6"), row("6")], 0),
        ([row("5", True), row("6")], 0.5),
        ([row("5", True), row("6"), row("7")], 1 / 3),
        ([row(None), row(None), row("5", True)], 1),
        ([row(None)] * 3, 0),
        (
            [row("5", True), row("5.0", True), row("6"), row("6")],
            0.5,
        ),  # right answers are one, however written
        (
            [row("5", True), row("5", True), row("1/2"), row("0.5"), row("\\frac{1}{2}")],
            0,
        ),  # three spellings of one wrong answer
        ([row("5", True), row("5", True), row("1/2"), row("0.6"), row("\\frac{1}{3}")], 1),
        (
            [row("5", True), row("5", True), row("0.5"), row("0.5"), row("\\frac12")],
            0,
        ),  # the largest wrong one ties before it grows
        ([row("5", True), row("5", True), row("3"), row("3"), row("0.5"), row("\\frac12")], 1 / 3),
    ],
)
def test_majority_by_hand(rows, expected):
    assert scores.majority(rows) == pytest.approx(expected)


def test_average_is_the_plain_mean_of_the_benchmarks():
    """Not of the items: (1/1 + 1/3)/2 = 2/3, where 2 of 4 items are right."""
    found = {
        ("gsm8k", "m"): result([True], benchmark="gsm8k"),
        ("math500", "m"): result([True, False, False], benchmark="math500"),
        ("gsm8k", "one"): result([True], "one", "gsm8k"),
        ("gsm8k", "lost"): result([True], "lost", "gsm8k"),
        ("math500", "lost"): result([None], "lost", "math500"),
    }
    for r in found.values():
        r.took = scores.took(
            [
                {"key": "a", "seconds": 1.5, "batch_size": 8},
                {"key": "b", "seconds": 0.5},
                {"key": "a", "seconds": 1.5, "batch_size": 8},
                {"error": "x"},
            ]
        )
        assert r.took == {"seconds": 2.0, "batch_sizes": [8]}  # equal requests are one output
    scored = [scores.score(r) for r in found.values()]
    (average,) = scores.averages(
        scored
    )  # a model that lacks a benchmark has none: its mean would stand beside another thing
    assert average["accuracy"] == pytest.approx(2 / 3) and (
        average["model"],
        average["n"],
        average["seconds"],
    ) == ("m", 4, 4.0)
    assert average["low"] <= average["accuracy"] <= average["high"]


def test_average_for_a_table_of_the_paper_is_over_its_own_columns():
    """Table 11 has two columns and no AVG, Table 4 five: only a model that has all of them gets one, whatever else it was asked."""
    columns = [c for c in paper_tables.TABLES["table4"].columns if c != "AVG"]
    found = {(name, "cft"): result([True, False], "cft", name) for name in [*columns, "gsm8k"]}
    found |= {(name, "sft"): result([True, True], "sft", name) for name in columns[:-1]}
    scored = [scores.score(r) for r in found.values()]
    ours = scores.for_paper(
        paper_tables.TABLES["table4"],
        scored + scores.averages(scored),
        {"cft": None, "sft": None},
        0.0,
    )
    assert ("cft", "AVG") in ours and ("sft", "AVG") not in ours and ("cft", "gsm8k") not in ours
    assert ours["cft", "AVG"]["paper"] == 0.5 and ours["cft", "AVG"]["n"] == 10


def test_guesses_are_counted_in_expectation(tmp_path):
    """Two of three letters are read, one right; the third has 4 options: (1 + 1/4)/3."""
    items = [{"id": str(n), "question": "q", "gold": "A", "options": 4} for n in range(3)]
    rows = scores.graded(
        tmp_path,
        "mmlu_pro",
        items,
        requests(items),
        [output("answer is (A)"), output("answer is (B)"), output("who knows")],
    )
    share, guesses = scores.with_guesses(rows, items)
    assert (share, guesses) == (pytest.approx(1.25 / 3), 1)
    lost = scores.graded(
        tmp_path,
        "mmlu_pro",
        items,
        requests(items),
        [output("answer is (A)"), output("who knows"), {"error": "400"}],
        count_failed=True,
    )
    assert scores.with_guesses(lost, items) == (
        pytest.approx(1.25 / 3),
        1,
    )  # nothing is guessed for an item without an output
    found = scores.score(Result("mmlu_pro", "m", rows))
    assert found["paper_accuracy"] == pytest.approx(1 / 3) and found["unboxed"] == 1
    assert (
        "41.7% by the paper's rules if, as the released code does, a letter is guessed for the 1 outputs in which it finds none."
        in scores.notes([found], {("mmlu_pro", "m"): Result("", "m", rows)}, {"mmlu_pro": items})[1]
    )


@pytest.mark.parametrize(
    "text, letter",
    [
        ("The answer is (C).", "C"),
        ("answer is B, no, the answer is C", "B"),
        ("Answer: D", "D"),
        ("answer: A answer: B\nanswer: C", "B"),
        ("I think D or E", "E"),
        ("nothing", None),
        ("option K", None),
    ],
)
def test_the_papers_chain_for_options(text, letter):
    """The first "answer is", else the last "answer:" of the first line that has one, else the last lone letter."""
    assert paper.extract_option(text, test_sets.LETTERS) == letter


def test_the_example_is_the_first_item_on_which_models_differ():
    shown = scores.example([result([1, 1, 0], "a"), result([1, 0, 0], "b")])
    assert shown == "q1\n(gold 1)\n--- a: right\na says 1\n--- b: wrong\nb says 0"
    assert scores.example([result([1], "a")]).startswith("q0\n")


def test_a_written_score_says_what_made_it(tmp_path):
    given = result([1, 0], dtype="float32")
    scores.write_score(tmp_path, given, {"engine": {"folder": "x"}})
    kept = json.loads((tmp_path / "tiny.score.json").read_text())
    assert (
        kept["score"]["accuracy"] == 0.5 == given.score["accuracy"]
        and kept["conditions"] == {"dtype": "float32"}
        and kept["engine"] == {"folder": "x"}
    )
    assert {"grader", "versions", "commit", "gpu", "command", "finished"} <= kept.keys() and len(
        kept["grader"]
    ) == 12
