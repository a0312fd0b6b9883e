"""Which critiqued rows are usable, how long they are, and in which order they are taken."""

import random

import pytest

from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id
from common.core.tokenizer import encode_rows, load_tokenizer
from common.data import selection, training_sets
from common.data.sources import make_row
from common.tiny import base
from tests.conftest import SHARED
from tests.data.test_training_sets import critiqued
from tests.runs import write_rows

TOKENIZER = base.build_tokenizer()


def random_rows(n):
    rng, rows = random.Random(0), []
    for i in range(n):
        row = critiqued(f"Start with {i}", "x" * rng.randint(1, 60), rng.choice(["right", "wrong"]))
        rows.append(row | {"critique": "y" * rng.randint(1, 60)})
    return rows


# --- what 02 and another run left -----------------------------------------------------------------


def test_teachers_are_all_or_the_named_ones():
    rows = [critiqued("q", "r", "right", teacher=name) for name in ("b", "a", "a")]
    assert selection.select_teachers(rows, []) == ["a", "b"]
    assert selection.select_teachers(rows, ["b"]) == ["b"]
    for names in (["c"], ["a", "c"]):
        with pytest.raises(InputError, match="by c.\n.*--teacher a b;"):
            selection.select_teachers(rows, names)
    with pytest.raises(InputError, match="by a teacher.\n.*02_critique.py"):
        selection.select_teachers([], [])


def test_answers_are_those_of_the_first_teacher_who_gave_one(tmp_path):
    def answer(question, teacher, text):
        return {"question_id": question, "teacher": teacher, "answer": text}

    paths = [
        write_rows(tmp_path / "a.jsonl", [answer("1", "a", "A1"), answer("2", "a", " \n")]),
        write_rows(tmp_path / "b.jsonl", [answer("1", "b", "B1"), answer("2", "b", "B2")]),
        write_rows(tmp_path / "c.jsonl", [answer("3", "c", "C3"), answer("4", "c", None)]),
    ]
    assert selection.read_answers(paths, ["a", "b"]) == {"1": "A1", "2": "B2"}
    assert selection.read_answers(paths, ["b", "a"]) == {"1": "B1", "2": "B2"}
    assert selection.read_answers([], ["a"]) == {}


def test_responses_of_another_run_are_finished_ones_once_each(tmp_path):
    finished = make_row("q1", "r1", None, "s", "g", finish_reason="stop")
    unfinished = [
        make_row("q2", "r2", None, "s", "g", finish_reason="length"),
        make_row("q3", " \n", None, "s", "g"),
        make_row("q4", None, None, "s", "g"),
    ]
    paths = [
        write_rows(tmp_path / "a.jsonl", [finished, *unfinished]),
        write_rows(tmp_path / "b.jsonl", [finished]),
    ]
    expected = finished | {"critique_id": None, "verdict": None}
    assert selection.read_finished_responses(paths) == [expected]


# --- what is usable -------------------------------------------------------------------------------


def test_what_cannot_be_used_is_left_out_and_counted():
    first, second = critiqued("q é", "r", "right"), critiqued("q2", "r", "wrong")
    unusable = [
        first | {"verdict": "unparsed"},
        first | {"verdict": None},
        {name: value for name, value in first.items() if name != "verdict"},
        first | {"critique": " \n"},
        first | {"response": ""},
        first | {"question": None},
        first | {"critique": 3},
    ]
    rows, counts = selection.usable_critiques([*unusable, first, second, dict(first)])
    assert rows == [first, second]
    assert counts == {
        "critiques without a verdict": 3,
        "rows with an empty critique": 2,
        "rows with an empty response": 1,
        "rows with an empty question": 1,
        "duplicate critiques": 1,
    }
    assert selection.usable_critiques([first]) == ([first], {})
    # The first one's, "Checked by t: r.", has four words before its conclusion.
    short = {"critique": "Wrong line 2.\n\nConclusion: wrong [END]"}
    rows, counts = selection.usable_critiques([first, second | short], min_words=4)
    assert rows == [first] and list(counts.values()) == [1]
    assert selection.usable_critiques([second | short], min_words=3)[0] == [second | short]
    # Two golds are seen by collect_golds; ids do not tell forms of Unicode apart.
    for change in ({"gold": "another"}, {"question": "q e\u0301"}):
        rows, counts = selection.usable_critiques([first, first | change])
        assert (rows, counts) == ([first], {"duplicate critiques": 1})


# --- lengths --------------------------------------------------------------------------------------


def lengths_of(row):
    return [row[f"{kind}_length"] for kind in ("response", "critique", "row")]


@pytest.mark.parametrize("folder", ["tiny", "qwen2.5-math", "deepseek-llm"])
def test_lengths_are_those_of_training(folder):
    """As 04 tokenizes the same rows: the sums, the end token included."""
    if folder != "tiny" and not (SHARED / "tokenizers" / folder).exists():
        pytest.skip("needs ../shared")
    tokenizer = TOKENIZER
    if folder != "tiny":
        tokenizer = load_tokenizer(SHARED / "tokenizers" / folder)
    rows = [
        critiqued("1+1? 🙂", " two\n", "wrong"),
        critiqued("1+1? 🙂", "$\\frac{4}{2}$\n\n", "right"),
        critiqued("Start with 7\n(1) + 9", "16", "right"),
    ]
    built = []
    for name in ("cft", "sft"):
        built += training_sets.build_training_set(name, rows, training_sets.BuildInputs(), 9)
    encoded = encode_rows(built, tokenizer, prompts.template_for(tokenizer))
    expected = [(len(prompt), len(completion)) for prompt, completion in encoded]
    assert selection.row_lengths(built, tokenizer) == expected
    measured = selection.add_lengths(rows, tokenizer, prompts.SYSTEM)
    for row, cft, sft in zip(measured, expected[:3], expected[3:]):
        assert lengths_of(row) == [sft[1], cft[1], sum(cft)]
    question_ids = {row["id"]: row["question_id"] for row in rows}
    assert selection.summarize("both", built, tokenizer, question_ids) == {
        "arm": "both",
        "rows": 6,
        "questions": 2,
        "right": 4,
        "length_unit": "tokens",
        "prompt": sum(prompt for prompt, _ in expected),
        "completion": sum(completion for _, completion in expected),
        "longest": max(map(sum, expected)),
    }


def test_characters_if_there_is_no_tokenizer():
    row = critiqued("ab", "cde", "right")
    prompt, completion = training_sets.format_critique(row, training_sets.BuildInputs("sys"))
    n_prompt = 3 + len(prompt[1]["content"])
    (measured,) = selection.add_lengths([row], None, "sys")
    assert lengths_of(measured) == [3, len(completion), n_prompt + len(completion)]
    assert selection.add_lengths([], None, "sys") == []


def test_the_tokenizer_of_a_run(tmp_path, tiny_model, monkeypatch, capsys):
    """Out of reach it is replaced by characters."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run, empty = tmp_path / "runs" / "own", tmp_path / "runs" / "none"
    run.mkdir(parents=True)
    (run / "01_base").symlink_to(tiny_model)
    for name in ("base", str(tiny_model)):
        tokenizer = selection.load_length_tokenizer(name, run)
        assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    for name in ("Qwen/Qwen2.5-Math-7B", "base", "/no/such"):
        assert selection.load_length_tokenizer(name, empty) is None
        printed = capsys.readouterr().out
        assert "characters" in printed and "--tokenizer FOLDER" in printed


# --- the order ------------------------------------------------------------------------------------


def order_ids(rows, seed=0):
    return [row["id"] for row in selection.order_rows(rows, "random", seed)]


@pytest.mark.parametrize(
    "select, key",
    [
        ("longest", lambda response, critique: -critique),
        ("shortest", lambda response, critique: critique),
        (
            "length-matched",
            lambda response, critique: max(critique, response) / min(critique, response),
        ),
    ],
)
def test_by_length(select, key):
    """And by the seed among equal lengths, of which 300 rows of at most 60 have many."""
    rows = selection.add_lengths(random_rows(300), None, "")
    first, second = (selection.order_rows(rows, select, seed) for seed in (0, 1))
    for ordered in (first, second):
        keys = [key(row["response_length"], row["critique_length"]) for row in ordered]
        assert keys == pytest.approx(sorted(keys)) and len(keys) == 300
        assert {row["id"] for row in ordered} == {row["id"] for row in rows}
    assert first != second


def test_random_is_by_seed_alone_and_not_by_how_critiques_are_written():
    rows = random_rows(100)
    ordered = order_ids(rows, 1)
    assert ordered == order_ids(rows[::-1], 1) != order_ids(rows, 2)
    rewritten = [
        row | {"critique": "another", "critique_id": content_id("another", row["id"])}
        for row in rows
    ]
    assert order_ids(rewritten, 1) == ordered


def test_the_order_is_that_of_hashes_by_hand():
    """The k-th critique of a response has a place of its own."""
    rows = random_rows(20)
    second = [row | {"critique_id": f"{row['critique_id']} u"} for row in rows[:9]]
    hashes = [(content_id(5, row["id"]), row["id"]) for row in rows]
    hashes += [(content_id(5, 1, row["id"]), row["id"]) for row in second]
    assert order_ids(rows + second, 5) == [name for _, name in sorted(hashes)]


def test_a_row_that_is_missing_moves_no_other():
    rows = random_rows(60)
    ordered = order_ids(rows, 3)
    for missing in (rows[7], rows[40]):
        left = [row for row in rows if row is not missing]
        assert order_ids(left, 3) == [name for name in ordered if name != missing["id"]]


def test_every_row_is_as_likely_to_be_first():
    rows = random_rows(10)
    firsts = [order_ids(rows, seed)[0] for seed in range(1000)]
    for row in rows:
        assert 50 < firsts.count(row["id"]) < 150  # 100, up to 5 standard deviations
