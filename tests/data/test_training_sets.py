"""Training sets: which critiqued rows they take, in which order, and the text that is learned."""

import random
from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest

from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id
from common.data.sources import make_row
from common.data.training_sets import (
    TRAINING_SETS,
    BuildInputs,
    build_training_set,
    choose_rows,
    label_sets,
    training_texts,
)
from common.teacher.critiques import SELF

PLAIN = ("sft", "sft-verified", "sft-teacher", "cft", "cft-verdict")  # each row for itself


def critiqued(question, response, verdict, teacher="t", source="source", lengths=(10, 20)):
    row = make_row(question, response, "gold", source, "generator")
    critique = f"Checked by {teacher}: {response}.\n\nConclusion: {verdict} [END]"
    return row | {
        "critique_id": content_id(row["id"], teacher, critique),
        "critique": critique,
        "verdict": verdict,
        "teacher": teacher,
        "response_length": lengths[0],
        "critique_length": lengths[1],
    }


# Two responses to q1, one judged twice; one to q2; the teacher answered q1 and q3 only.
A, B, C = (
    critiqued("q1", "r1", "wrong", lengths=(10, 40)),
    critiqued("q1", "r2", "right", lengths=(20, 9)),
    critiqued("q2", "r3", "right", lengths=(30, 21)),
)
AGAIN = critiqued("q1", "r1", "right", teacher="u", lengths=(10, 22))
ROWS = [A, B, C, AGAIN]
INPUTS = BuildInputs(
    answers={A["question_id"]: "the teacher's own", content_id("q3"): "unused"},
    correct={
        A["id"]: False,
        B["id"]: False,
    },  # so A's verdict agrees with the gold, B's and AGAIN's do not, C has no gold
    self_critiques=[
        critiqued("q2", "r3", "wrong", teacher=SELF),
        critiqued("q1", "r1", "right", teacher=SELF),
    ],
    other_responses=[
        row | {"critique_id": None, "verdict": None}
        for row in (
            make_row("q9", "elsewhere", None, "source", "g"),
            make_row("q1", "is there", None, "source", "g"),
            *(make_row(f"o{i}", "x", None, "metamath", "g") for i in range(9)),
        )
    ],
)


def made(name, rows=ROWS, size=10, inputs=INPUTS):
    return build_training_set(name, rows, inputs, size)


def responses(name, *arguments, **settings):
    texts = {row["id"]: row["response"] for row in ROWS + INPUTS.other_responses}
    return [texts[row["response_id"]] for row in made(name, *arguments, **settings)]


def completions(rows):
    return [row["completion"][0]["content"] for row in rows]


@pytest.mark.parametrize(
    "name, question, completion",
    [
        (
            "cft",
            f"{prompts.CRITIQUE_INSTRUCTION}\nQuestion:\nq1\n\nSolution:\nr1\n",
            "Critique:\nChecked by t: r1.\n\nConclusion: wrong [END]",
        ),
        (
            "cft-verdict",
            f"{prompts.CRITIQUE_INSTRUCTION}\nQuestion:\nq1\n\nSolution:\nr1\n",
            "Critique:\nConclusion: wrong [END]",
        ),
        ("sft", "Please reason step by step to solve the following question.\nq1", "r1"),
        (
            "sft-teacher",
            "Please analyze and answer the following question step by step:\nq1",
            "the teacher's own",
        ),
    ],
)
def test_the_text_of_a_row(name, question, completion):
    row = made(name)[0]
    assert row["prompt"] == [
        {"role": "system", "content": prompts.SYSTEM},
        {"role": "user", "content": question},
    ]
    assert row["completion"] == [{"role": "assistant", "content": completion}]
    assert (row["arm"], row["response_id"], row["verdict"]) == (
        name,
        A["id"],
        None if name == "sft-teacher" else "wrong",
    )
    assert set(row) == {"id", "prompt", "completion", "arm", "response_id", "verdict"}


@pytest.mark.parametrize(
    "source, instruction",
    [
        ("webinstruct-cft-50k", prompts.SFT_INSTRUCTION),
        ("my.jsonl", prompts.SFT_INSTRUCTION),
        ("metamath", prompts.SFT_TEACHER_INSTRUCTION),
        ("numina", prompts.SFT_TEACHER_INSTRUCTION),
        ("acemath", prompts.SFT_TEACHER_INSTRUCTION),
    ],
)
def test_the_instruction_of_sft_rows_is_that_of_their_source(source, instruction):
    (row,) = made("sft", [critiqued("q", "r", "wrong", source=source)])
    assert row["prompt"][1]["content"] == f"{instruction}\nq"


@pytest.mark.parametrize(
    "name, expected",
    [
        ("cft", ["r1", "r2", "r3", "r1"]),  # each critique is a text of its own
        ("sft", ["r1", "r2", "r3"]),  # r1, judged twice, would be trained on twice
        ("sft-verified", ["r2", "r3", "r1"]),  # r1 only by the second teacher's verdict
        (
            "sft-teacher",
            ["r1"],
        ),  # one answer a question, where the teacher gave one that is not blank
        ("cft-clean", ["r1"]),  # by A alone: what no gold speaks of is not clean
        # Answers are 10, 20, 30 long, 20 in the mean;
        # critiques 40, 9, 21, 22: ratios 2, 2.2, 1.05, 1.1.
        ("cft-short", ["r3", "r1", "r1", "r2"]),
        ("cft-self-critique", ["r1", "r3"]),  # by the order of the teacher's rows
        ("sft-other", ["elsewhere", "is there", *["x"] * 8]),
        (
            "mix",
            ["r1", "elsewhere", "r2", "x", "r3", "x", "r1", "x"],
        ),  # one half each, no question twice
    ],
)
def test_which_rows_a_set_takes(name, expected):
    assert responses(name) == expected
    if name == "sft-verified":
        assert {row["verdict"] for row in made(name)} == {"right"}


def test_the_mean_answer_of_cft_short_is_that_of_the_sft_arm_of_the_same_size():
    """One row: r1 of 10. Nearest in ratio is 9, then 21, 22, 40."""
    assert responses("cft-short", size=1) == ["r2"]


@pytest.mark.parametrize("name", PLAIN)
def test_size_takes_the_first(name):
    """Sets of different sizes then share their rows."""
    everything = made(name)
    for size in range(1, 5):
        assert made(name, size=size) == everything[:size]


@pytest.mark.parametrize("name", TRAINING_SETS)
def test_no_training_text_stands_twice_and_ids_differ(name):
    rows = made(name, ROWS + ROWS[::-1])
    assert len({row["id"] for row in rows}) == len(rows) > 0
    if name != "cft-verdict":  # two teachers who say the same word make one text
        assert len({str(row["prompt"] + row["completion"]) for row in rows}) == len(rows)
    others = {row["id"] for other in TRAINING_SETS if other != name for row in made(other)}
    assert not others & {row["id"] for row in rows}


@pytest.mark.parametrize("name", [name for name in TRAINING_SETS if name != "cft-clean"])
def test_a_gold_is_never_used(name):
    """Verified is by the teacher's verdict, as in the paper; a gold would help one set alone."""
    assert made(
        name, [row | {"gold": None} for row in ROWS], inputs=replace(INPUTS, correct={})
    ) == made(name)


@pytest.mark.parametrize(
    "name, without",
    [
        ("sft-teacher", {"answers": {}}),
        ("cft-clean", {"correct": {}}),
        ("cft-self-critique", {"self_critiques": []}),
        ("mix", {"other_responses": []}),
        ("sft-other", {"other_responses": []}),
    ],
)
def test_an_arm_without_its_input_is_empty(name, without):
    assert made(name) and made(name, inputs=replace(INPUTS, **without)) == []


def test_an_arm_without_rows_is_empty():
    assert made("sft-verified", [A]) == []
    assert all(made(name, []) == [] for name in TRAINING_SETS if name != "sft-other")


@pytest.mark.parametrize("name", PLAIN)
def test_an_empty_system_message_is_left_out(name):
    rows = made(name, inputs=replace(INPUTS, system=""))
    assert rows and all([m["role"] for m in row["prompt"]] == ["user"] for row in rows)


def test_a_response_that_was_cut_is_judged_but_not_imitated():
    """As an SFT target it would teach to stop in the middle; its critique is as good as any."""
    cut = A | {"finish_reason": "length"}
    assert [
        len(made(name, [cut]))
        for name in ("sft", "sft-verified", "sft-teacher", "cft", "cft-clean", "cft-verdict")
    ] == [0, 0, 1, 1, 1, 1]
    assert made("mix", [cut])[0]["response_id"] == A["id"]


# --- controls -------------------------------------------------------------------------------------


def many(shape):
    """Critiqued rows of which `shape` gives the number of responses per question."""
    return [
        critiqued(f"q{q}", f"r{q}.{i}", ("right", "wrong")[(q + i) % 2])
        for q, n in enumerate(shape)
        for i in range(n)
    ]


@pytest.mark.parametrize(
    "shape, other",
    [
        ([1] * 10, "question_id"),
        ([1, 1], "question_id"),
        ([3, 1, 2], "question_id"),
        ([2, 2], "question_id"),
        ([5, 1, 1], "id"),
        ([7], "id"),
    ],
)
def test_shuffled_critiques_never_stand_by_their_own_response(shape, other):
    """Nor by their own question, unless one has most of the rows. All else is as in cft."""
    rows = many(shape)
    shuffled, plain = made("cft-shuffled", rows), made("cft", rows)
    assert len(plain) == len(rows)
    assert [row["prompt"] for row in shuffled] == [row["prompt"] for row in plain]
    assert Counter(completions(shuffled)) == Counter(completions(plain))
    wrote = {f"Critique:\n{row['critique']}": row for row in rows}
    asked = {row["id"]: row for row in rows}
    for row in shuffled:
        critique = wrote[row["completion"][0]["content"]]
        assert (
            critique[other] != asked[row["response_id"]][other]
            and row["verdict"] == critique["verdict"]
        )


def test_one_response_cannot_be_shuffled():
    assert made("cft-shuffled", [A, AGAIN]) == made("cft-shuffled", [A]) == []


# --- shares ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "share, size, n_right, n_wrong, got",
    [
        (0.5, 10, 20, 20, (5, 5)),
        (0.0, 10, 20, 20, (10, 0)),
        (1.0, 10, 20, 20, (0, 10)),
        (0.25, 10, 20, 20, (8, 2)),
        (0.3, 10, 20, 20, (7, 3)),
        (0.5, 10, 20, 3, (3, 3)),
        (0.9, 100, 2, 50, (2, 18)),
        (0.1, 100, 90, 2, (18, 2)),  # what there is limits the size, not the share
        (1.0, 10, 20, 0, (0, 0)),
        (0.0, 10, 0, 20, (0, 0)),
        (0.5, 1, 5, 5, (1, 0)),
    ],
)
def test_a_share_of_wrong_ones(share, size, n_right, n_wrong, got):
    rows = [
        critiqued(f"q{i}", f"r{i}", "right" if i < n_right else "wrong")
        for i in range(n_right + n_wrong)
    ]
    rows = rows[1::2] + rows[::2]
    taken = made("cft", rows, size, replace(INPUTS, wrong_share=share))
    counts = Counter(row["verdict"] for row in taken)
    assert (counts["right"], counts["wrong"]) == got
    place = {row["id"]: i for i, row in enumerate(rows)}
    places = [place[row["response_id"]] for row in taken]
    assert places == sorted(places)  # in the order of choice
    for verdict in ("right", "wrong"):  # the first ones of each
        firsts = [row["id"] for row in rows if row["verdict"] == verdict][: counts[verdict]]
        assert [row["response_id"] for row in taken if row["verdict"] == verdict] == firsts


def test_a_share_leaves_the_verified_arm_alone():
    assert made("sft-verified", inputs=replace(INPUTS, wrong_share=1.0)) == made("sft-verified")
    assert responses("sft", inputs=replace(INPUTS, wrong_share=1.0)) == ["r1"]


@pytest.mark.parametrize(
    "most, expected", [(1, ["r1", "r3"]), (2, ["r1", "r2", "r3"]), (3, ["r1", "r2", "r3", "r1"])]
)
def test_rows_of_one_question_at_most(most, expected):
    assert responses("cft", inputs=replace(INPUTS, per_question=most)) == expected


@pytest.mark.parametrize("share, n_right, size", [(0.7, 3, 10), (0.44, 14, 25), (0.9, 1, 10)])
def test_a_share_is_not_lost_to_rounding(share, n_right, size):
    rows = [critiqued(f"q{i}", "r", "right" if i < n_right else "wrong") for i in range(60)]
    taken = made("cft", rows, 1000, replace(INPUTS, wrong_share=share))
    assert len(taken) == size and sum(row["verdict"] == "right" for row in taken) == n_right


def test_the_length_of_cft_short_is_that_of_the_answers_taken_under_a_share():
    """Of the wrong responses alone: r1, 10 long, not r2 and r3."""
    assert responses("cft-short", inputs=replace(INPUTS, wrong_share=1.0)) == ["r1"]
    lengths = [(5, 40), (5, 6), (5, 40)] + [(100, 100)] * 3
    rows = [
        critiqued(f"q{i}", "r", "wrong" if i < 3 else "right", lengths=pair)
        for i, pair in enumerate(lengths)
    ]
    chosen = made("cft-short", rows, 1, replace(INPUTS, wrong_share=1.0))
    assert chosen[0]["response_id"] == rows[1]["id"]


def test_two_teachers_who_say_the_same_are_one_row():
    """Of their verdict, or of the whole critique: a text that exists twice would count twice."""
    rows = [A, critiqued("q1", "r1", "wrong", teacher="v"), AGAIN]
    assert len(made("cft-verdict", rows)) == 2
    echo = A | {"teacher": "v", "critique_id": "another"}
    for name in ("cft", "cft-clean", "cft-short"):
        assert made(name, [A, echo]) == made(name, [A])


def test_a_mix_without_other_questions_is_none():
    only_asked = INPUTS.other_responses[1:2]
    assert made("mix", inputs=replace(INPUTS, other_responses=only_asked)) == []


def test_sets_of_the_same_texts():
    """cft-short takes all rows of cft here, in another order, under other ids."""
    cft, cft_short, cft_verdict = map(made, ("cft", "cft-short", "cft-verdict"))
    assert training_texts(cft) == training_texts(cft_short)
    for rows in (cft_short[1:], cft_verdict):
        assert training_texts(cft) != training_texts(rows)


def test_labels_of_the_sets():
    defaults = [name for name, definition in TRAINING_SETS.items() if not definition.is_control]
    assert list(label_sets([], "")) == defaults
    assert label_sets(["cft", "cft"], "") == {"cft": "cft"}
    assert label_sets(["cft-verdict"], "half") == {"cft-verdict": "cft-verdict-half"}
    assert list(label_sets([], "half").values()) == [f"{name}-half" for name in defaults]


@pytest.mark.parametrize(
    "names, suffix, flag",
    [
        (["cfd"], "", "--arms"),
        ([], "short", "--suffix"),  # the set cft-short
        ([], "after-sft", "--suffix"),  # 04 calls second stages so
        ([], "a/b", "--suffix"),
        ([], "x" * 80, "--suffix"),
    ],
)
def test_labels_that_cannot_be(names, suffix, flag):
    with pytest.raises(InputError) as error:
        label_sets(names, suffix)
    assert flag in str(error.value) and (names or [suffix])[0] in str(error.value)


# --- the first rows within a limit ----------------------------------------------------------------


def within_limits(rows, per_question, share):
    n_wrong = sum(row["verdict"] == "wrong" for row in rows)
    if share is not None and n_wrong != round(len(rows) * share):
        return False
    questions = Counter(row["question_id"] for row in rows)
    return per_question is None or max(questions.values(), default=0) <= per_question


def first_by_trying(rows, size, per_question, share):
    """Return the first set of this size, in the order of its places, that keeps to the limits."""
    for chosen in combinations(rows, size):
        if within_limits(chosen, per_question, share):
            return list(chosen)
    return None


@pytest.mark.parametrize(
    "per_question, share",
    [(None, None), (1, None), (2, None), (3, None)]
    + [(None, share) for share in (0.0, 0.25, 0.5, 0.7, 1.0)],
)
def test_no_set_of_rows_comes_before_the_chosen_one_nor_is_larger(per_question, share):
    """Of up to 9 rows all sets are tried. Larger: at sizes of which the share is a whole number."""
    rng = random.Random(f"sets {per_question} {share}")
    for _ in range(100):
        n_questions = rng.choice([1, 3, 6])
        rows = [
            {
                "question_id": rng.randrange(n_questions),
                "verdict": rng.choice(["right", "wrong"]),
                "n": n,
            }
            for n in range(rng.randint(0, 9))
        ]
        size = rng.randint(1, 10)
        chosen = choose_rows(rows, size, per_question, share)
        assert chosen == first_by_trying(rows, len(chosen), per_question, share)
        larger = len(chosen) + 1
        is_possible = share is None or (larger * share).is_integer()
        if larger <= min(size, len(rows)) and is_possible:
            assert first_by_trying(rows, larger, per_question, share) is None


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, None])
def test_the_teachers_answers_serve_whichever_verdict_is_requested(share):
    """15 questions, each with a right response and two wrong ones: an answer each, once each."""
    rows = []
    for i, verdict in enumerate(("wrong", "right", "wrong")):
        rows += [critiqued(f"q{q}", f"r{i}", verdict) for q in range(15)]
    answers = {row["question_id"]: "so" for row in rows}
    inputs = replace(INPUTS, answers=answers, wrong_share=share)
    answered = made("sft-teacher", rows, 14, inputs)
    assert len({row["prompt"][1]["content"] for row in answered}) == len(answered) == 14


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, None])
def test_with_one_response_a_question_answers_and_critiques_share_questions(share):
    rows = [critiqued(f"q{q}", "r", ("right", "wrong")[q % 2]) for q in range(30)]
    answers = {row["question_id"]: "so" for row in rows}
    inputs = replace(INPUTS, answers=answers, wrong_share=share)
    answered, critiques = (made(name, rows, 14, inputs) for name in ("sft-teacher", "cft"))
    assert [row["response_id"] for row in answered] == [row["response_id"] for row in critiques]


def test_a_mix_takes_no_more_of_a_question_than_requested():
    responses = [make_row("other", f"r{i}", None, "s", "g") for i in range(5)]
    others = [row | {"critique_id": None, "verdict": None} for row in responses]
    rows = [critiqued(f"q{i}", "r", "right") for i in range(6)]
    mixed = made("mix", rows, inputs=replace(INPUTS, other_responses=others, per_question=1))
    assert sum(row["verdict"] is None for row in mixed) == 1
