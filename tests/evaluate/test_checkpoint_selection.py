"""Which checkpoint is reported.

The choice, what it is made on, and that this is no part of what is reported or was trained on.
"""

import json
import shutil

import numpy as np
import pytest

from common.core.errors import InputError
from common.data import test_sets
from common.evaluate import checkpoint_selection, models, scores
from common.evaluate.models import ModelSpec
from common.generate.requests import Request
from tests.evaluate.test_scores import result
from tests.runs import write_rows


def choose(*rights):
    """Choose of checkpoints at steps 10, 20, ... with these grades. -> (location, rows)"""
    steps = range(1, len(rights) + 1)
    specs = [ModelSpec(f"cft--step-{n}", f"f{n}", None, step=10 * n) for n in steps]
    results = [result(grades, spec.label) for grades, spec in zip(rights, specs)]
    arm = ModelSpec("cft", "", checkpoints=tuple(specs))
    chosen, rows = checkpoint_selection.choose_checkpoint(arm, results)
    return chosen.location, rows


def test_the_best_is_chosen_and_of_equals_the_earliest():
    """Against step 10 the chosen one alone is right 8 times, never the other: p = 2/256. Of the
    three pairs two have it, so Holm's is 6/256. Against step 30 nothing differs."""
    location, rows = choose([0] * 8 + [1] * 2, [1] * 10, [1] * 10)
    assert location == "f2" and [row["chosen"] for row in rows] == [False, True, False]
    assert (rows[0]["p"], rows[0]["holm"], rows[2]["p"]) == (2 / 256, 6 / 256, 1)
    assert rows[0]["difference"] == 0.8
    outcomes = [row["outcome"] for row in rows]
    assert outcomes == ["told apart", "chosen", "not distinguishable"]
    sentence = checkpoint_selection.describe_choice(rows)
    for fact in ("cft: step 20", "best of 3", "100.0% of 10"):
        assert fact in sentence


def count_told_apart(draws):
    """Count in how many of `draws` cases 15 checkpoints of one skill are called different."""
    rng, count = np.random.default_rng(0), 0
    for _ in range(draws):
        shares = 0.5 + 0.3 * (rng.random(100) < 0.5)
        _, rows = choose(*(rng.random((15, 100)) < shares).astype(int).tolist())
        count += any(row["outcome"] == "told apart" for row in rows)
    return count


@pytest.mark.slow
def test_equal_checkpoints_are_seldom_told_apart():
    """15 checkpoints of one skill, 100 items: the best is picked by looking. Yet it is called
    different from any in at most 5 % of 60 cases (three standard errors: 8). A correction for the
    14 comparisons with the best alone gives about 15 %."""
    assert count_told_apart(60) <= 8


def test_equal_checkpoints_are_not_told_apart_in_a_few_draws():
    """Of 4 cases at 5 %, two or more occur with probability 1.4 %; the seed is fixed."""
    assert count_told_apart(4) <= 1


def test_checkpoints_are_chosen_by_the_mean_over_samples():
    """40 items x 2 samples: p by the interval, as McNemar sees no halves.

    With 0 and 1 added: mean 36/42, variance 33.5/42 - (36/42)^2 = 0.0629, half width 0.0759.
    """
    location, rows = choose([[1, 0]] * 40, [[1, 1]] * 30 + [[1, 0]] * 10)
    assert location == "f2" and rows[0]["p"] < 0.001 and rows[1]["accuracy"] == 0.875
    assert rows[1]["low"] == pytest.approx(36 / 42 - 0.0759, abs=1e-4)
    assert rows[1]["high"] == pytest.approx(36 / 42 + 0.0759, abs=1e-4)


def test_one_checkpoint_is_chosen():
    location, rows = choose([1, 0])
    assert location == "f1" and rows[0]["chosen"] and "p" not in rows[0]


def test_no_checkpoint_is_chosen_on_half_of_the_items():
    with pytest.raises(InputError, match="cft--step-2: items of tiny have no output"):
        choose([1, 0], [1, None])


def test_validation_sets():
    cases = [
        ("validation", ["math500", "gsm8k"], "math500_validation", "no part of what is reported"),
        ("paper", ["math"], "math500", "inside the test set"),
        ("validation", ["tiny"], "tiny_validation", "no part"),
        ("paper", ["tiny"], "tiny", "luckiest"),
        ("heldout", ["math"], "heldout", "not trained on"),
    ]
    for selection, reported, expected, meaning in cases:
        name, sentence = checkpoint_selection.choose_validation_set(selection, reported)
        assert name == expected and name in sentence and meaning in sentence


def test_the_validation_set_is_not_reported():
    for reported in (["math"], ["gsm8k", "math500_validation"], ["tiny_validation"]):
        with pytest.raises(InputError, match="lies inside"):
            checkpoint_selection.choose_validation_set("validation", reported)


@pytest.fixture
def responses(run):
    """Two responses to each of five questions, and what the models of the run were trained on."""
    rows = []
    for number in range(10):
        question = number // 2
        gold = None if number == 9 else str(question)
        rows.append({"id": f"r{number}", "question": f"What is {question}?", "gold": gold})
    write_rows(run / "01_responses" / "a.jsonl", rows)
    twins = [
        {"id": "t0", "question": "what is 0 ?", "gold": "0"},
        {"id": "t1", "question": "What is 2?", "gold": " "},
        {"id": "u7", "question": "Two golds?", "gold": "7"},
        {"id": "u8", "question": "Two golds?", "gold": "8"},
    ]
    write_rows(run / "01_responses" / "b.jsonl", twins)
    train_on(run, "cft", ["What is 0?"])
    train_on(run, "sft", ["What is 1?", "Of another run?"])
    return run


def train_on(run, name, questions):
    """Write what 04 leaves on the data of a training."""
    folder = run / "04_train" / name
    rows = [{"question_id": question, "question": question} for question in questions]
    write_rows(folder / "trained_on.jsonl", rows)
    settings = {"steps": 6, "base": str(run / "01_base"), "after": None}
    (folder / "settings.json").write_text(json.dumps(settings))


def test_held_out_questions_are_those_that_no_model_trained_on(responses):
    """By question, not by response; of two golds nobody knows which is meant."""
    items = checkpoint_selection.load_heldout(responses, [])
    assert [item["question"] for item in items] == ["What is 2?", "What is 3?", "What is 4?"]
    assert [item["gold"] for item in items] == ["2", "3", "4"]
    assert set(items[0]) == {"id", "question", "gold"}
    (item,) = checkpoint_selection.load_heldout(responses, [], limit=1)
    assert item in items
    assert test_sets.get_test_set("heldout").prompt_form == test_sets.MATH_FORM
    requests = [Request("p")] * 3
    outputs = [{"text": "2", "finish_reason": "stop"}] * 3
    rows = scores.grade_outputs(responses / "05", "heldout", items, requests, outputs)
    assert [row["correct"] for row in rows] == [True, False, False]


def test_what_a_model_was_trained_on(responses):
    trained = checkpoint_selection.read_trained_questions(responses)
    assert trained == {"cft": {"whatis0?"}, "sft": {"whatis1?", "ofanotherrun?"}}


def test_nothing_is_held_out_from_other_runs_or_after_training_on_everything(responses):
    specs, _ = models.resolve_models(responses, ["cft"], [], choose=True)
    checkpoint_selection.load_heldout(responses, specs)
    shutil.copytree(responses, responses.parent / "another")
    with pytest.raises(InputError, match="was not trained in"):
        checkpoint_selection.load_heldout(responses.parent / "another", specs)
    train_on(responses, "cft", [f"What is {number}?" for number in range(5)])
    with pytest.raises(InputError, match="was trained on, or none has one"):
        checkpoint_selection.load_heldout(responses, [])
