"""What a training consists of, what it depends on, and what it says it was trained on."""

from types import SimpleNamespace

import pytest

from common.core import prompts
from common.core.errors import InputError
from common.core.files import content_id
from common.core.trainings import check_settings
from common.train import training_run
from tests.runs import rows, run_script, write_rows

FLAGS = ["--name", "a", "--model", "base", "--global-batch", 4, "--save-every", 0]


def row_of(set_name, number, question):
    """Return a row of 03: sft-style, so that its question is what follows the first line."""
    return {
        "id": f"{set_name}-{number}",
        "prompt": prompts.sft_row_prompt(question),
        "completion": [{"role": "assistant", "content": f"It is {number}."}],
    }


@pytest.fixture
def run(tmp_path, tiny_model):
    """Two training sets of 12 rows: of six questions each, two of them in both."""
    (tmp_path / "base").symlink_to(tiny_model)
    folder = tmp_path / "runs" / "a"
    for set_name, first in (("first", 0), ("second", 4)):
        made = [row_of(set_name, n, f"What is {first + n // 2}?") for n in range(12)]
        write_rows(folder / "03_data" / f"{set_name}.jsonl", made)
    return folder


def train(run, *arguments):
    return run_script(run.parent.parent, "04_train.py", *FLAGS, *arguments)


def trained_on(run, name):
    records = rows(run / "04_train" / name / "trained_on.jsonl")
    assert all(record["question_id"] == content_id(record["question"]) for record in records)
    return [record["question"] for record in records]


def test_trained_on_holds_each_question_once_also_of_the_first_stage(run):
    assert train(run, "--arms", "first").returncode == 0
    assert trained_on(run, "first") == [f"What is {n}?" for n in range(6)]
    assert train(run, "--arms", "second", "--after", "first").returncode == 0
    questions = trained_on(run, "second-after-first")
    assert sorted(questions) == [f"What is {n}?" for n in range(10)]
    assert len(set(questions)) == len(questions)


def test_trained_on_leaves_out_the_holdout_and_what_is_over_the_limit(run):
    """Rows 0 to 7 are of questions 0 to 3; of the four rows that are held out none is learned."""
    flags = ["--limit", 8, "--holdout", 7, "--warmup-ratio", 0]
    assert train(run, "--arms", "first", *flags).returncode == 0
    assert len(trained_on(run, "first")) == 1


def test_all_sets_of_03_are_trained_by_default_and_each_has_a_manifest(run):
    assert train(run).returncode == 0
    for name in ("first", "second"):
        manifest = (run / "04_train" / name / "run.json").read_text()
        assert f"03_data/{name}.jsonl" in manifest


def test_other_rows_are_said_in_words_and_nothing_is_removed(run):
    """No hash is printed; settings are, with both values."""
    assert train(run, "--arms", "first").returncode == 0
    path = run / "03_data" / "first.jsonl"
    path.write_text(path.read_text().replace("It is 3.", "It is 4."))
    done = train(run, "--arms", "first", "--learning-rate", 1e-4)
    assert done.returncode == 2
    for fact in ("other rows", "learning_rate 0.0003 -> 0.0001", "--name", "mv "):
        assert fact in done.stderr
    assert "rm " not in done.stderr and "sha256" not in done.stderr
    assert (run / "04_train" / "first" / "step-000003").exists()


def test_settings_that_change_no_result_may_differ(tmp_path):
    config = SimpleNamespace(
        **dict.fromkeys(training_run.RESULT_SETTINGS, 1) | {"method": "full", "keep_last": 3}
    )
    training = SimpleNamespace(plan=[1, 2], files=[])
    settings = training_run.result_settings(training, config, "base", "chatml")
    assert "lora_rank" not in settings and "keep_last" not in settings
    assert settings["steps"] == 2 and settings["template"] == "chatml"
    check_settings(tmp_path / "settings.json", settings)  # nothing exists: no error


@pytest.mark.parametrize("set_names", [["third"], ["first+third"], ["first+first"]])
def test_a_set_that_03_did_not_build_is_named(run, set_names):
    with pytest.raises(InputError) as error:
        training_run.choose_sets(run, set_names)
    assert set_names[0] in str(error.value) and "first second" in str(error.value)
    assert training_run.choose_sets(run, []) == ["first", "second"]
    assert training_run.choose_sets(run, ["second", "second"]) == ["second"]


def test_regular_steps_by_hand():
    assert training_run.regular_steps(3, 10) == {3, 6, 9}
    assert training_run.regular_steps(5, 10) == {5}  # the last step is no matter of regularity
    assert training_run.regular_steps(0, 10) == set()
