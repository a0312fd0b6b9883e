"""Which checkpoint is reported.

The choice, what it is made on, and that this is no part of what is reported or was trained on.
"""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from common.core import prompts
from common.core.errors import InputError
from common.core.files import file_hash
from common.data import test_sets
from common.evaluate import checkpoint_selection, models, scores
from common.evaluate.models import ModelSpec
from tests.evaluate.test_scores import result
from tests.runs import rows, write_rows


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
    for fact in ("cft: step 20", "best of 3", "100.0% of 10", "told apart from 1"):
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
    """40 items x 2 samples: p by sign flips, an interval by bootstrap: McNemar sees no halves."""
    location, rows = choose([[1, 0]] * 40, [[1, 1]] * 30 + [[1, 0]] * 10)
    assert location == "f2" and rows[0]["p"] < 0.001 and rows[1]["accuracy"] == 0.875
    assert 0.79 < rows[1]["low"] < 0.875 < rows[1]["high"] < 0.95


def test_one_checkpoint_is_chosen():
    location, rows = choose([1, 0])
    assert location == "f1" and rows[0]["chosen"] and "p" not in rows[0]


def test_no_checkpoint_is_chosen_on_half_of_the_items():
    with pytest.raises(InputError, match="cft--step-2: items of tiny have no output"):
        choose([1, 0], [1, None])


def test_validation_sets():
    cases = [
        ("validation", ["math500", "gsm8k"], "math500_validation", "no part of what is reported"),
        ("paper", ["math"], "math500", "it lies inside the MATH test"),
        ("auto", ["tiny"], "tiny_validation", "no part"),
        ("paper", ["tiny"], "tiny", "is the test set itself"),
        ("heldout", ["math"], "heldout", "not trained on"),
    ]
    for selection, reported, name, meaning in cases:
        assert checkpoint_selection.choose_validation_set(selection, reported) == name
        assert meaning in checkpoint_selection.describe_validation(name)


def test_the_validation_set_is_not_reported():
    for reported in (["math"], ["gsm8k", "math500_validation"], ["tiny_validation"]):
        with pytest.raises(InputError, match="lies inside"):
            checkpoint_selection.choose_validation_set("validation", reported)


def test_held_out_questions_are_those_that_no_arm_trained_on(run):
    """By question, not by response.

    Another response to a question that was trained on is no held-out question.
    """
    responses = [
        {
            "id": f"r{n}",
            "question_id": f"q{n // 2}",
            "question": f"What is {n // 2}?",
            "gold": None if n == 9 else str(n // 2),
        }
        for n in range(10)
    ]
    twins = [
        {"id": "t0", "question_id": "t0", "question": "what is 0 ?", "gold": "0"},
        {"id": "t1", "question_id": "q2", "question": "What is 2?", "gold": " "},
        *(
            {"id": f"u{gold}", "question_id": "u", "question": "Two golds?", "gold": gold}
            for gold in "78"
        ),
    ]
    write_rows(run / "01_responses.jsonl", responses + twins)

    def trained_rows(*questions, make=prompts.sft_row_prompt):
        return [{"prompt": make(question)} for question in questions]

    write_rows(
        run / "03_data" / "cft.jsonl",
        trained_rows(
            "What is 0?", make=lambda q: prompts.critique_row_prompt(q, "r\n\nSolution:\nr")
        ),
    )
    write_rows(run / "03_data" / "sft.jsonl", trained_rows("What is 1?", "Of another run?"))
    settings = {"steps": 6, "base": str(run / "01_base")}
    for arm in ("sft", "cft"):
        (run / "04_train" / arm / "settings.json").write_text(
            json.dumps(settings | {"data_sha256": [file_hash(run / "03_data" / f"{arm}.jsonl")]})
        )
    name, items = "heldout", checkpoint_selection.load_heldout(run, [])
    assert [i["question"] for i in items] == ["What is 2?", "What is 3?", "What is 4?"]
    assert [i["gold"] for i in items] == ["2", "3", "4"] and set(items[0]) == {
        "id",
        "question",
        "gold",
    }
    assert (
        test_sets.get_test_set(name).prompt_form == test_sets.MATH_FORM
        and scores.grade_outputs(
            run / "05",
            name,
            items,
            [SimpleNamespace(sample=0, prompt="p")] * 3,
            [{"text": "2", "finish_reason": "stop"}] * 3,
        )[0]["strict"]
    )
    elsewhere = models.resolve_models(run, [f"x={run}/04_train/cft"], selection="heldout")
    checkpoint_selection.load_heldout(run, elsewhere)
    with pytest.raises(InputError, match="is no checkpoint of"):
        checkpoint_selection.load_heldout(run.parent / "another", elsewhere)
    assert checkpoint_selection.trained_on(run) == {
        "cft": {"whatis0?"},
        "sft": {"whatis1?", "ofanotherrun?"},
    }
    write_rows(
        run / "01_responses.jsonl", [row | {"id": row["id"] + " redrawn"} for row in responses]
    )  # by the text, whatever 01 holds now
    assert [i["question"] for i in checkpoint_selection.load_heldout(run, [])] == [
        "What is 2?",
        "What is 3?",
        "What is 4?",
    ]
    later = settings | {"after": "sft", "data_sha256": [file_hash(run / "03_data" / "cft.jsonl")]}
    write_rows(run / "04_train" / "cft-after-sft" / "settings.json", [later])
    assert checkpoint_selection.trained_on(run)["cft-after-sft"] == {
        "whatis0?",
        "whatis1?",
        "ofanotherrun?",
    }
    shutil.rmtree(run / "04_train" / "cft-after-sft")
    write_rows(
        run / "03_data" / "cft.jsonl",
        trained_rows(*(r["question"] for r in rows(run / "01_responses.jsonl"))),
    )
    assert checkpoint_selection.trained_on(run)["cft"] is None
    with pytest.raises(
        InputError, match="cft was trained on other data"
    ):  # then nobody knows what it has seen
        checkpoint_selection.load_heldout(run, [])
    (run / "04_train" / "cft" / "settings.json").write_text(
        json.dumps(settings | {"data_sha256": [file_hash(run / "03_data" / "cft.jsonl")]})
    )
    with pytest.raises(InputError, match="was trained on, or none has one"):
        checkpoint_selection.load_heldout(run, [])
