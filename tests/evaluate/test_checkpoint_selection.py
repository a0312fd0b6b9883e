"""Which checkpoint is reported: the choice, what it is made on, and that this is no part of what is reported or was trained on."""

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
from common.evaluate.models import Candidate
from common.evaluate.scores import Result
from tests.evaluate.test_models import run  # noqa: F401 a fixture
from tests.evaluate.test_scores import result
from tests.runs import rows, write_rows


def choose(*rights):
    """Checkpoints at steps 10, 20, ... with these verdicts. -> what checkpoint_selection.choose gives"""
    given = [
        Candidate(f"cft--step-{n}", f"f{n}", None, step=10 * n) for n in range(1, len(rights) + 1)
    ]
    return checkpoint_selection.choose(
        Candidate("cft", "", checkpoints=tuple(given)),
        {("tiny", c.label): Result("tiny", c.label, result(r).rows) for c, r in zip(given, rights)},
        "tiny",
    )


def test_the_best_is_chosen_and_of_equals_the_earliest():
    """Against step 10 the chosen one alone is right 8 times, never the other: p = 2/256; of the three pairs two have it, so Holm's is 6/256.
    Against step 30 nothing differs."""
    where, url, table, line = choose([0] * 8 + [1] * 2, [1] * 10, [1] * 10)
    assert where == "f2" and [row["chosen"] for row in table] == [False, True, False]
    assert (table[0]["p"], table[0]["holm"], table[2]["p"]) == (2 / 256, 6 / 256, 1) and table[0][
        "difference"
    ] == 0.8
    assert line == (
        "cft: step 20, chosen of 3 checkpoints, 100.0% of 10 (the best of 3, so it flatters); told apart from 1 of the 2 others (Holm over all pairs); "
        "the nearest is step 30, +0.0 [+0.0, +0.0] points; equal to it, and later: step 30"
    )


def test_equal_checkpoints_are_seldom_told_apart():
    """15 checkpoints of one skill, 100 items: the best is picked by looking, yet it is called different from any in at most 5 % of 60 cases
    (three standard errors: 8), where a correction for the 14 comparisons with the best alone gives about 15 %."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(60):
        _, _, table, _ = choose(
            *(rng.random((15, 100)) < 0.5 + 0.3 * (rng.random(100) < 0.5)).astype(int).tolist()
        )
        found += any(row.get("holm", 1) < 0.05 for row in table)
    assert found <= 8


def test_checkpoints_are_chosen_by_the_mean_over_samples():
    """40 items x 2 samples: p by sign flips, an interval by bootstrap: McNemar would see none of the halves."""
    where, _, table, _ = choose([[1, 0]] * 40, [[1, 1]] * 30 + [[1, 0]] * 10)
    assert (
        where == "f2"
        and table[0]["p"] < 0.001
        and table[1]["accuracy"] == 0.875
        and 0.79 < table[1]["low"] < 0.875 < table[1]["high"] < 0.95
    )


def test_one_checkpoint_is_chosen_without_a_word_on_others():
    where, _, table, line = choose([1, 0])
    assert where == "f1" and line == "cft: step 10, 50.0% of 2" and table[0]["chosen"]


def test_no_checkpoint_is_chosen_on_half_of_the_items():
    with pytest.raises(InputError, match="cft--step-2: 1 items of tiny have no output"):
        choose([1, 0], [1, None])


@pytest.mark.parametrize(
    "choice, reported, name, says",
    [
        ("validation", ["math500", "gsm8k"], "math500_validation", "no part of what is reported"),
        ("paper", ["math"], "math500", "it lies inside the MATH test"),
        ("auto", ["tiny"], "tiny_validation", "no part"),
        ("paper", ["tiny"], "tiny", "it is the test set itself"),
    ],
)
def test_validation_sets(monkeypatch, tmp_path, choice, reported, name, says):
    monkeypatch.setattr(test_sets, "load_items", lambda name, folder, revision, limit, seed: [name])
    found, items, line = checkpoint_selection.validation_set(choice, reported, tmp_path)
    assert (found, items) == (name, [name]) and says in line


@pytest.mark.parametrize(
    "reported", [["math"], ["gsm8k", "math500_validation"], ["tiny_validation"]]
)
def test_the_validation_set_is_not_reported(tmp_path, reported):
    with pytest.raises(InputError, match="lies inside what is reported"):
        checkpoint_selection.validation_set("validation", reported, tmp_path)


def test_arms_of_unequal_length_are_said(run):
    for arm, steps in (("sft", 6), ("cft", 6), ("mix", 12)):
        write_rows(run / "04_train" / arm / "settings.json", [{"steps": steps}])
    assert (
        checkpoint_selection.unequal(run, ["base", "sft", "cft"])
        == []
        == checkpoint_selection.unequal(run, ["mix"])
    )
    (line,) = checkpoint_selection.unequal(run, ["base", "cft", "mix"])
    assert line.endswith("cft 6, mix 12.")


def test_held_out_questions_are_those_that_no_arm_trained_on(run):
    """By question, not by response: another response to a question that was trained on is no held-out question."""
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
    name, items, line = checkpoint_selection.validation_set("heldout", ["math"], run)
    assert (
        name == "heldout"
        and [i["question"] for i in items] == ["What is 2?", "What is 3?", "What is 4?"]
        and "no arm was trained on" in line
    )
    assert [i["gold"] for i in items] == ["2", "3", "4"] and set(items[0]) == {
        "id",
        "question",
        "gold",
    }
    assert (
        test_sets.get_test_set(name).prompt_form == test_sets.MATH_FORM
        and scores.graded(
            run / "05",
            name,
            items,
            [SimpleNamespace(sample=0, prompt="p")] * 3,
            [{"text": "2", "finish_reason": "stop"}] * 3,
        )[0]["strict"]
    )
    elsewhere = models.candidates(run, [f"x={run}/04_train/cft"], selection="heldout")
    checkpoint_selection.validation_set("heldout", ["math"], run, elsewhere)
    with pytest.raises(InputError, match="is no checkpoint of"):
        checkpoint_selection.validation_set("heldout", ["math"], run.parent / "another", elsewhere)
    assert checkpoint_selection.trained_on(run) == {
        "cft": {"whatis0?"},
        "sft": {"whatis1?", "ofanotherrun?"},
    }
    write_rows(
        run / "01_responses.jsonl", [row | {"id": row["id"] + " redrawn"} for row in responses]
    )  # by the text, whatever 01 holds now
    assert [i["question"] for i in checkpoint_selection.heldout(run)] == [
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
        InputError, match="cft was trained on other data than stands in"
    ):  # then nobody knows what it has seen
        checkpoint_selection.heldout(run)
    (run / "04_train" / "cft" / "settings.json").write_text(
        json.dumps(settings | {"data_sha256": [file_hash(run / "03_data" / "cft.jsonl")]})
    )
    with pytest.raises(InputError, match="nothing is held out"):
        checkpoint_selection.heldout(run)
