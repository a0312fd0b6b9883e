"""Which critiqued rows can be used, how long they are, and in which order they are taken."""

import random
from types import SimpleNamespace

import pytest

from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id
from common.core.tokenizer import load_tokenizer
from common.data import selection, training_sets
from common.teacher.critiques import SELF
from common.tiny import base
from common.train import tokens
from tests.conftest import SHARED
from tests.data.test_training_sets import critiqued

WORDS = base.build_tokenizer()


def some(n, seed=0):
    rng = random.Random(seed)
    return [
        critiqued(f"Start with {i}", "x" * rng.randint(1, 60), rng.choice(["right", "wrong"]))
        | {"critique": "y" * rng.randint(1, 60)}
        for i in range(n)
    ]


# --- what can be used -----------------------------------------------------------------------------------------------


def test_what_cannot_be_used_is_left_out_and_counted():
    good, other = critiqued("q é", "r", "right"), critiqued("q2", "r", "wrong")
    bad = [
        good | {"verdict": "unparsed"},
        good | {"verdict": None},
        {k: v for k, v in good.items() if k != "verdict"},
        good | {"critique": " \n"},
        good | {"response": ""},
        good | {"question": None},
        good | {"critique": 3},
    ]
    rows, counts = selection.usable_critiques([*bad, good, other, dict(good)])
    assert rows == [good, other]
    assert counts == {
        "critiques without a verdict": 3,
        "rows with an empty critique": 2,
        "rows with an empty response": 1,
        "rows with an empty question": 1,
        "duplicate critiques": 1,
    }
    assert selection.usable_critiques([good]) == ([good], {})
    assert selection.usable_critiques([good, good | {"gold": "another"}]) == (
        [good],
        {"duplicate critiques": 1},
    )  # quality.golds sees the conflict
    decomposed = good | {"question": "q e\u0301"}  # ids do not tell forms of Unicode apart
    assert selection.usable_critiques([good, decomposed]) == ([good], {"duplicate critiques": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"question": "another"},
        {"question": "another", "id": "another"},
        {"response": "another"},
        {"critique": "another"},
        {"verdict": "wrong"},
    ],
)
def test_an_id_names_one_text(change):
    """Of a question, too: it would be looked for in the test sets by one of its two texts."""
    good = critiqued("q", "r", "right")
    with pytest.raises(InputError, match="names two texts.*\n.*01 and 02"):
        selection.usable_critiques([good, good | change])


# --- lengths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["tiny", "qwen2.5-math", "deepseek-llm"])
def test_lengths_are_those_of_training(folder):
    """As 04 will tokenise the same rows: the sums, the end token included."""
    if folder != "tiny" and not (SHARED / "tokenizers" / folder).exists():
        pytest.skip("needs ../shared")
    words = WORDS if folder == "tiny" else load_tokenizer(SHARED / "tokenizers" / folder)
    rows = [
        critiqued("1+1? 🙂", " two\n", "wrong"),
        critiqued("1+1? 🙂", "$\\frac{4}{2}$\n\n", "right"),
        critiqued("Start with 7\n(1) + 9", "16", "right"),
    ]
    built = [
        row
        for name in ("cft", "sft")
        for row in training_sets.build_training_set(name, rows, training_sets.BuildInputs(), 9)[0]
    ]
    expected = [
        (len(prompt), len(completion))
        for prompt, completion in tokens.encode(built, words, prompts.template_for(words))
    ]
    lengths = selection.Lengths(words)
    asked, written = (
        lengths.prompts([row["prompt"] for row in built]),
        lengths.completions([row["completion"][0]["content"] for row in built]),
    )
    assert list(zip(asked, written)) == expected and lengths.unit == "tokens"
    assert lengths.prompts([built[0]["prompt"]] * 2) == asked[:1] * 2  # from memory
    measured = selection.measure_lengths(rows, lengths, prompts.SYSTEM)
    for row, cft, sft in zip(rows, expected[:3], expected[3:]):
        assert measured[row["critique_id"]] == (sft[1], cft[1], sum(cft))
    summary = selection.summarize(
        "both", built, lengths, {row["id"]: row["question_id"] for row in rows}
    )
    assert summary == {
        "arm": "both",
        "rows": 6,
        "questions": 2,
        "right": 4,
        "prompt": sum(a for a, _ in expected),
        "completion": sum(b for _, b in expected),
        "longest": max(map(sum, expected)),
    }


def test_a_prompt_and_a_completion_of_one_text_are_counted_apart():
    """DeepSeek's tokenizer puts a token before a prompt, none before a completion."""
    lengths = selection.Lengths(WORDS)
    lengths.known[hash(("a", True))] = 7
    assert lengths._count(["a"], special=False) == [1] and lengths._count(["a"], special=True) == [
        7
    ]


def test_characters_where_there_is_no_tokenizer():
    row = critiqued("ab", "cde", "right")
    lengths = selection.Lengths()
    prompt, completion = training_sets.format_cft(row, "sys")
    assert lengths.unit == "characters"
    assert selection.measure_lengths([row], lengths, "sys") == {
        row["critique_id"]: (3, len(completion), 3 + len(prompt[1]["content"]) + len(completion))
    }
    assert selection.measure_lengths([], lengths, "sys") == {}


def config(**settings):
    return SimpleNamespace(
        **{
            "tokenizer": "Qwen/Qwen2.5-Math-7B",
            "min_tokens": None,
            "max_tokens": None,
            "select": "random",
        }
        | settings
    )


def test_the_tokenizer_of_a_run(tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "01_base").symlink_to(tiny_model)
    for name in ("base", str(tiny_model)):
        assert (
            selection.load_length_tokenizer(config(tokenizer=name), tmp_path).get_vocab()
            == WORDS.get_vocab()
        )
    for settings in (dict(), dict(tokenizer="base")):
        assert selection.load_length_tokenizer(config(**settings), tmp_path / "none") is None
        assert "lengths are in characters" in capsys.readouterr().out
    for settings in (
        dict(min_tokens=3),
        dict(max_tokens=3),
        dict(tokenizer="base", max_tokens=3),
        dict(select="longest"),
        dict(tokenizer="/no/such"),
        dict(tokenizer="runs/none/01_base"),
    ):
        with pytest.raises(InputError, match="--tokenizer FOLDER"):
            selection.load_length_tokenizer(config(**settings), tmp_path / "none")


# --- the order ------------------------------------------------------------------------------------------------------


def orders(rows, select, seed=0):
    length = selection.measure_lengths(rows, selection.Lengths(), "")
    return selection.order_rows(rows, select, seed, length), length


@pytest.mark.parametrize(
    "select, key",
    [
        ("longest", lambda n: -n.critique),
        ("shortest", lambda n: n.critique),
        ("length-matched", lambda n: max(n.critique / n.response, n.response / n.critique)),
    ],
)
def test_by_length(select, key):
    """And by the seed where lengths are equal, of which there are many among 300 rows of at most 60."""
    rows = some(300)
    ordered, length = orders(rows, select)
    keys = [key(length[row["critique_id"]]) for row in ordered]
    assert keys == sorted(keys) and sorted(map(id, ordered)) == sorted(map(id, rows))
    other = orders(rows, select, seed=1)[0]
    assert ordered != other and (
        select == "length-matched" or keys == [key(length[row["critique_id"]]) for row in other]
    )


def test_random_is_by_seed_alone_and_not_by_how_critiques_are_written():
    rows = some(100)
    one = selection.order_rows(rows, "random", 1)
    assert (
        one
        == selection.order_rows(rows[::-1], "random", 1)
        != selection.order_rows(rows, "random", 2)
    )
    rewritten = [
        row | {"critique": row["critique"] * 2, "critique_id": content_id("another", row["id"])}
        for row in rows
    ]
    assert [row["id"] for row in selection.order_rows(rewritten, "random", 1)] == [
        row["id"] for row in one
    ]


def test_the_order_of_responses_does_not_depend_on_which_critiques_there_are():
    """A critique that failed, or was left out, moves no other row; with two teachers the second critiques are shuffled for themselves."""
    rows = some(60)
    ids = {row["id"] for row in rows}
    order = [row["id"] for row in selection.order_rows(rows, "random", 3)]
    for missing in (rows[7], rows[40]):
        left = [row for row in rows if row is not missing]
        assert [row["id"] for row in selection.order_rows(left, "random", 3, responses=ids)] == [
            name for name in order if name != missing["id"]
        ]
    both = rows + [
        row | {"teacher": "u", "critique_id": content_id("u", row["id"])} for row in rows[:50]
    ]
    mixed = selection.order_rows(both, "random", 3)
    assert len(mixed) == 110 and len({row["critique_id"] for row in mixed}) == 110
    assert (
        sum(a["id"] == b["id"] for a, b in zip(mixed, mixed[1:])) < 10
    )  # not a response's two together


def test_the_shuffle_is_that_of_the_ids():
    """By hand: the reported runs of the miniature stand on it."""
    rows = some(20)
    ids = sorted(row["id"] for row in rows)
    random.Random(5).shuffle(ids)
    assert [row["id"] for row in selection.order_rows(rows, "random", 5)] == ids


def test_every_row_is_as_likely_to_be_first():
    rows = some(10)
    firsts = [selection.order_rows(rows, "random", seed)[0]["id"] for seed in range(1000)]
    assert all(
        50 < firsts.count(row["id"]) < 150 for row in rows
    )  # 100, up to 5 standard deviations


def test_bounds_are_of_the_whole_row_and_inclusive():
    rows = some(3)
    length = {row["critique_id"]: selection.Length(1, 1, n) for row, n in zip(rows, (9, 10, 12))}
    assert selection.within_length_limits(rows, 10, 11, length) == (
        [rows[1]],
        {"too short (--min-tokens)": 1, "too long (--max-tokens)": 1},
    )
    assert (
        selection.within_length_limits(rows, 9, 12, length)
        == selection.within_length_limits(rows, None, None, length)
        == (rows, {})
    )


# --- teachers -------------------------------------------------------------------------------------------------------


def test_the_teachers():
    rows = [critiqued("q", "r", "right", teacher=name) for name in ("a", "b", SELF)]
    assert selection.select_teachers(rows, [], ["b"]) == (["b"], [rows[1]])
    assert (
        selection.select_teachers(rows, ["all"], ["b"])
        == (["a", "b"], rows[:2])
        == selection.select_teachers(rows, [], None)
    )
    assert selection.select_teachers(rows, [], [SELF]) == (
        ["a", "b"],
        rows[:2],
    )  # the base is no teacher
    for asked in (["c"], [SELF], ["a", "c"]):
        with pytest.raises(
            InputError, match="holds no critique of (c|.the base itself.), but of: --teacher a b"
        ):
            selection.select_teachers(rows, asked, None)
    with pytest.raises(InputError, match="02_critique.py with a teacher"):
        selection.select_teachers(rows[2:], [], [SELF])
