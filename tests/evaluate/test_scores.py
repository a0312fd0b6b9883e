"""Outputs -> rows -> scores: by hand, what failed, and what is graded only once."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from common.core import stats
from common.data import test_sets
from common.evaluate import scores
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
    """Return a Result of these grades: one for each item, or a list of its samples' grades."""
    rows = []
    for number, grades in enumerate(rights):
        for sample, right in enumerate(grades if isinstance(grades, list) else [grades]):
            row = {
                "id": f"i{number}",
                "sample": sample,
                "correct": right,
                "correct_paper": right,
                "extracted": str(right),
                "extraction_method": "boxed",
                "finish_reason": "stop",
                "n_tokens": 2,
                "timed_out": False,
                "paper_timed_out": False,
                "benchmark": benchmark,
                "question": f"q{number}",
                "gold": "1",
                "output": f"{model} says {right}",
            }
            rows.append(row)
    return Result(benchmark, model, rows, conditions)


def note_of(given):
    """Return the second note on a Result: the first is the same for all."""
    given.score = scores.score(given)
    return scores.list_notes([given])[-1]


def test_thinking_that_the_prompt_opened_is_not_graded(tmp_path):
    """Templates of reasoning models end in <think>: an output cut inside it gives no answer."""
    asked = [Request("<|Assistant|><think>\n"), Request("prompt of i1")] * 2
    outputs = [output("So the answer is 0. But the", "length"), output("The answer is 1.")]
    outputs += [output("Is it 7?</think>The answer is 2."), output("The answer is 3.")]
    rows = scores.grade_outputs(tmp_path, "minerva_math", ITEMS, asked, outputs)
    assert [row["correct"] for row in rows] == [False, True, True, True]


# --- rows -----------------------------------------------------------------------------------------


def test_rows_by_hand(tmp_path):
    """Both graders, what was sent, how the answer was found.

    An item without an output is graded by neither.
    """
    said = [
        output("\\boxed{0}"),
        output("So 1.04.", "length"),
        {"key": "x", "error": "400 too long"},
        output("It is 4"),
    ]
    rows = scores.grade_outputs(tmp_path, "minerva_math", ITEMS, requests(), said)
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
        "extraction_method",
        "correct",
        "timed_out",
        "correct_paper",
        "paper_timed_out",
        "gold",
        "grader",
    ]
    assert [
        (r["correct"], r["correct_paper"], r["extraction_method"], r["finish_reason"]) for r in rows
    ] == [
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
    counted = scores.grade_outputs(
        tmp_path, "minerva_math", ITEMS, requests(), said, count_failed=True
    )
    assert (counted[2]["correct"], counted[2]["correct_paper"], counted[2]["error"]) == (
        False,
        False,
        "400 too long",
    ) and counted[3] == rows[3]


BY_BENCHMARK = [
    ("minerva_math", "1.60", "\\boxed{1.61}", True),
    ("minerva_math", "1.60", "\\boxed{1.62}", False),
    ("math500", "1.60", "\\boxed{1.61}", False),
    ("mmlu_pro", "C", "So the answer is (C).", True),
    ("mmlu_pro", "C", "So the answer is (D).", False),
    ("gpqa", "B", "The answer is B", True),
]


def test_each_benchmark_is_graded_by_its_own_row_of_the_table(tmp_path):
    for name, gold, text, strict in BY_BENCHMARK:
        items = [{"id": "i", "question": "q", "gold": gold, "options": 4}]
        (row,) = scores.grade_outputs(tmp_path, name, items, requests(items), [output(text)])
        assert row["correct"] is strict, (name, text)


def test_no_text_of_a_private_benchmark_is_written(tmp_path):
    """Outputs repeat questions, and a server's errors prompts; what is graded is the same."""
    items = [{"id": f"i{n}", "question": f"SECRET{n}", "gold": "B", "options": 4} for n in range(2)]
    outputs = [output("SECRET... The answer is B"), {"error": "400 SECRET"}]
    asked = [Request("SECRET prompt")] * 2
    rows = scores.grade_outputs(tmp_path, "gpqa", items, asked, outputs)
    written = (tmp_path / "gpqa.jsonl").read_text()
    assert "SECRET" not in written and "The answer" not in written
    assert json.loads(written.splitlines()[0])["correct"] is True
    assert rows[0]["output"].startswith("SECRET")
    assert "SECRET" not in scores.format_example([Result("gpqa", "m", rows, {})])
    again = scores.grade_outputs(tmp_path, "gpqa", items, asked, outputs)
    assert again[0]["correct"] is True


def test_equal_prompts_draw_samples_of_their_own(tmp_path):
    """Ten items with one question are ten items; greedily they are one output, asked once."""
    drawn = scores.build_requests(["a", "b", "a"], 2, greedy=False)
    assert [(r.prompt, r.sample) for r in drawn] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
        ("a", 2),
        ("a", 3),
    ] and all(r.must_finish for r in drawn)
    assert [(r.prompt, r.sample) for r in scores.build_requests(["a", "a"], 1, greedy=True)] == [
        ("a", 0),
        ("a", 0),
    ]
    rows = scores.grade_outputs(
        tmp_path, "gsm8k", ITEMS[:3], drawn, [output(str(n)) for n in range(6)]
    )
    assert [(r["id"], r["sample"]) for r in rows] == [
        (f"i{n}", k) for n in range(3) for k in (0, 1)
    ]


# --- scores ---------------------------------------------------------------------------------------


def test_a_score_by_hand():
    """3 of 4 right, one answer unboxed, one output cut: the interval is Wilson's."""
    given = result([True, True, True, False])
    given.rows[1] |= {"extraction_method": "cue", "finish_reason": "length", "correct_paper": False}
    found = scores.score(given)
    low, high = stats.wilson(3, 4)
    assert found == {
        "benchmark": "tiny",
        "model": "m",
        "n": 4,
        "samples": 1,
        "outputs": 4,
        "unboxed": 1,
        "unboxed_right": 1,
        "truncated": 1,
        "truncated_right": 1,
        "stopped_early": 0,
        "timed_out": 0,
        "paper_timed_out": 0,
        "failed": 0,
        "tokens": 8,
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
        row |= {"finish_reason": "failed", "error": "400 too long", "extraction_method": "none"}
    score = scores.score(given)
    assert (score["n"], score["failed"], score["accuracy"], score["unboxed"]) == (2, 2, 0.5, 0)
    assert "2 items got no output, left out of the n" in note_of(given)
    assert "400 too long" in note_of(given)
    for row in given.rows[1::2]:
        row |= {"correct": False, "correct_paper": False}
    assert "2 items got no output, counted as wrong" in note_of(given)
    nothing = scores.score(result([None, None]))
    assert nothing["accuracy"] is None and nothing["n"] == 0


def test_an_item_with_one_failed_sample_is_out_of_the_score():
    score = scores.score(result([[True, None], [True, False]]))
    assert (score["n"], score["accuracy"], score["pass_accuracy"]) == (1, 0.5, 1)


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
    return {"extracted": said, "correct": right}


FIVE, FIVE_AGAIN = row("5", True), row("5.0", True)
MAJORITIES = [
    ([FIVE, FIVE, row("6")], 1),
    ([FIVE, row("6"), row("6")], 0),
    ([FIVE, row("6")], 1 / 2),
    ([FIVE, row("6"), row("7")], 1 / 3),
    ([row(None), row(None), FIVE], 1),
    ([row(None)] * 3, 0),
    # right answers are one, however they are written
    ([FIVE, FIVE_AGAIN, row("6"), row("6")], 1 / 2),
    # three spellings of one wrong answer
    ([FIVE, FIVE, row("1/2"), row("0.5"), row("\\frac{1}{2}")], 0),
    ([FIVE, FIVE, row("1/2"), row("0.6"), row("\\frac{1}{3}")], 1),
    # the largest wrong one ties before it grows
    ([FIVE, FIVE, row("0.5"), row("0.5"), row("\\frac12")], 0),
    ([FIVE, FIVE, row("3"), row("3"), row("0.5"), row("\\frac12")], 1 / 3),
]


def test_majority_by_hand():
    shares = [scores.majority(rows) for rows, _ in MAJORITIES]
    assert shares == pytest.approx([expected for _, expected in MAJORITIES])


def test_average_is_the_plain_mean_of_the_benchmarks():
    """Not of the items: (1/1 + 1/3)/2 = 2/3; 2 of 4 items are right."""
    found = {
        ("gsm8k", "m"): result([True], benchmark="gsm8k"),
        ("math500", "m"): result([True, False, False], benchmark="math500"),
        ("gsm8k", "one"): result([True], "one", "gsm8k"),
        ("gsm8k", "lost"): result([True], "lost", "gsm8k"),
        ("math500", "lost"): result([None], "lost", "math500"),
    }
    scored = [scores.score(r) for r in found.values()]
    (average,) = scores.average_scores(scored)  # a model that lacks a benchmark has none
    assert average["accuracy"] == pytest.approx(2 / 3) and (
        average["model"],
        average["n"],
    ) == ("m", 4)
    assert average["low"] <= average["accuracy"] <= average["high"]


OPTIONS = [
    ("The answer is (C).", "C"),
    ("answer is B, no, the answer is C", "B"),
    ("Answer: D", "D"),
    ("answer: A answer: B\nanswer: C", "B"),
    ("I think D or E", "E"),
    ("nothing", None),
    ("option K", None),
]


def test_the_papers_chain_for_options():
    """The first "answer is", else the last "answer:" of the first line, else the last letter."""
    for text, letter in OPTIONS:
        assert paper.extract_option(text, test_sets.LETTERS) == letter, text


def test_the_example_is_the_first_item_on_which_models_differ():
    shown = scores.format_example([result([1, 1, 0], "a"), result([1, 0, 0], "b")])
    assert shown == "q1\n(gold 1)\n--- a: right\na says 1\n--- b: wrong\nb says 0"
    assert scores.format_example([result([1], "a")]).startswith("q0\n")


def test_a_written_score_says_what_made_it(tmp_path):
    given = result([1, 0], dtype="float32")
    scores.write_score(tmp_path, given, {"folder": "x"})
    kept = json.loads((tmp_path / "tiny.score.json").read_text())
    assert (
        kept["score"]["accuracy"] == 0.5 == given.score["accuracy"]
        and kept["conditions"] == {"dtype": "float32"}
        and kept["engine"] == {"folder": "x"}
    )
    assert {"grader", "versions", "commit", "gpu", "command", "finished"} <= kept.keys() and len(
        kept["grader"]
    ) == 12


# --- what a reader must know of a score -----------------------------------------------------------


def test_outputs_that_were_cut_unboxed_or_ended_early_are_counted():
    """By hand: a box, cut; a cue, right; nothing, cut; nothing at all, once ended by a stop string
    and once by an end token; an answer before a stop string.
    """
    outputs = [
        output("\\boxed{0}", "length"),
        output("The answer is 1"),
        output("Let me", "length"),
        output("") | {"stop_string": True},
        output(""),
        output("\\boxed{5}") | {"stop_string": True},
    ]
    graded = scores.score(rows_of(outputs))
    expected = {
        "outputs": 6,
        "truncated": 2,
        "truncated_right": 1,
        "unboxed": 4,
        "unboxed_right": 1,
        "stopped_early": 1,
    }
    assert {key: graded[key] for key in expected} == expected


def rows_of(outputs):
    items = [{"id": f"i{n}", "question": "q", "gold": str(n)} for n in range(len(outputs))]
    with TemporaryDirectory() as folder:
        rows = scores.grade_outputs(Path(folder), "tiny", items, requests(items), outputs)
    return Result("tiny", "m", rows, {})


def remarks(floor=None, stale=False, **fields):
    counts = {"n": 150, "outputs": 150, "truncated": 0, "unboxed": 0, "stopped_early": 0}
    return scores.add_remarks(counts | fields, floor, stale)


def test_more_than_5_percent_are_a_remark():
    """7 of 150 are 4.7 %, 8 are 5.3 %."""
    assert remarks(truncated=7, unboxed=7)["remarks"] is None
    assert remarks(truncated=8, stopped_early=30)["remarks"] == "5% truncated; 20% stopped early"
    assert "03" in remarks(stale=True)["remarks"]
    assert remarks(n=0, outputs=0)["remarks"] is None


def test_a_score_that_a_constant_answer_may_have_is_called_so():
    """Floors of 10 and 20 %: with 150 items Wilson's intervals end at 15.8 and 27.1 %."""
    floor = {"n": 50, "correct": 5, "paper_correct": 10}
    for accuracy, paper_accuracy, graders in (
        (0.15, 0.27, 2),
        (0.17, 0.27, 1),
        (0.17, 0.28, 0),
        (0.01, 0.50, 1),
    ):
        row = remarks(floor, accuracy=accuracy, paper_accuracy=paper_accuracy)
        assert (row["floor"], row["paper_floor"]) == (0.1, 0.2)
        assert (row["remarks"] or "").count("at the floor") == graders


def test_a_servers_error_is_escaped_on_the_page():
    given = result([1, None])
    given.rows[1] |= {"error": "<img src=x> ![a](http://x) \x1b[2J\n# b", "finish_reason": "failed"}
    note = note_of(given)
    assert note.isprintable() and "\\<img src=x\\>" in note and "\\!" not in note
    assert "!\\[a\\](" in note and "\\# b" in note
