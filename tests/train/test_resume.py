"""kill -9 in the middle of a stage, then the same command again.

The run must then have the files of a run that nobody disturbed. A kill comes when progress is
visible on disk. `finished` is the undisturbed run if its settings serve.
"""

import json
import shutil

import pytest
from safetensors import safe_open

from common.core.files import content_id, model_id
from common.data import sources
from common.tiny import world
from common.train import training_run
from tests.faults import FaultServer
from tests.runs import (
    SMALL,
    contents,
    kill_when,
    make_base,
    must_run,
    n_lines,
    rows,
    run_script,
    write_rows,
)

KEYS = ("key", "critique_id", "id", "question_id", "step")  # the first that rows have tells them


def assert_whole(run):
    """What has a final name is whole, also right after a kill: JSON parses, tensors load."""
    for path in run.rglob("*"):
        if ".part" in str(path.relative_to(run)) or not path.is_file():
            continue
        appended = "journal" in path.name or path.name == "metrics.jsonl"
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                assert list(file.keys()), path
        elif path.suffix == ".jsonl" and not appended:
            rows(path)


def assert_same(run, undisturbed):
    """The same files, byte for byte; no row twice, nothing left over.

    Manifests are left out; tensors are compared as tensors.
    """
    assert contents(run) == contents(undisturbed)
    assert not [p for p in run.rglob("*") if ".part" in p.name or p.name.startswith("state")]
    for path in run.rglob("*.jsonl"):
        records = rows(path)
        key = next((key for key in KEYS if records and key in records[0]), None)
        names = [record[key] for record in records] if key else []
        assert len(set(names)) == len(names), f"{path} holds a row twice"


def twin_runs(folder):
    """Return the run that is killed, and the one that nobody disturbs."""
    return folder / "killed" / "runs" / "tiny", folder / "undisturbed" / "runs" / "tiny"


@pytest.mark.slow
def test_01_draws_the_same_after_a_kill(tmp_path, tiny_model):
    command = ["01_sample.py", *SMALL["01_sample.py"], "--model", "base", "--samples", 2]
    command += ["--limit", 24, "--batch-size", 4, "--max-new-tokens", 48]
    run, undisturbed = twin_runs(tmp_path)
    make_base(run, tiny_model)
    make_base(undisturbed, tiny_model)
    journal = run / "01_journal.jsonl"
    kill_when(lambda: n_lines(journal) >= 8, tmp_path / "killed", *command)
    assert 8 <= n_lines(journal) < 48 and not (run / "01_responses" / "base.jsonl").exists()
    before = journal.read_bytes()
    journal.write_bytes(before[:-20])  # a kill in the middle of a write: the last record is torn
    must_run(tmp_path / "killed", *command)
    must_run(tmp_path / "undisturbed", *command)
    assert len(rows(journal)) == 48 and journal.read_bytes().startswith(before.rsplit(b"\n", 2)[0])
    # Equal ones are left out: each sample has its own random numbers.
    assert len(rows(run / "01_responses" / "base.jsonl")) == 48
    assert_same(run, undisturbed)


def test_01_keeps_what_was_answered_when_the_server_ends_the_run(tmp_path):
    """A key is refused while other requests are on their way.

    Their answers were paid for and are not asked for again.
    """
    write_rows(tmp_path / "questions.jsonl", [{"question": f"What is {n}?"} for n in range(4)])
    command = ["01_sample.py", "--preset", "paper", "--name", "drawn"]
    command += ["--source", "questions.jsonl", "--model", "served", "--base-url"]
    journal = tmp_path / "runs" / "drawn" / "01_journal.jsonl"
    responses = tmp_path / "runs" / "drawn" / "01_responses" / "served.jsonl"

    def refuse_first(body, nth):
        return "key" if nth == 0 and "What is 1?" in body["prompt"] else None

    def answer_late(body):
        return 0 if "What is 1?" in body["prompt"] else 1

    with FaultServer(fault=refuse_first, latency=answer_late) as server:
        stopped = run_script(tmp_path, *command, server.url)
        assert stopped.returncode == 4 and "OPENAI_API_KEY" in stopped.stderr
        assert not responses.exists()
        assert len(server.asked) == 4 and server.paid() == n_lines(journal) == 3
        must_run(tmp_path, *command, server.url)
        assert server.paid() == len(server.asked) - 1 == 4
        assert n_lines(journal) == len(rows(responses)) == 4


@pytest.mark.slow
def test_02_asks_for_the_rest_after_kills(tmp_path):
    """Killed among the critiques, then among the teacher's own answers; nothing is asked again."""
    responses = [sources.make_row(**row, source="tiny") for row in world.forum_rows(0, 400)]
    run, undisturbed = twin_runs(tmp_path)
    for folder in (run, undisturbed):
        write_rows(folder / "01_responses" / "tiny.jsonl", responses)
    journal, before = run / "02_journal.jsonl", b""
    for until in (40, 440):
        command = ["02_critique.py", "--concurrency", 1]
        kill_when(lambda n=until: n_lines(journal) >= n, tmp_path / "killed", *command)
        assert until <= n_lines(journal) < 800 and not list(run.glob("02_critiques/*.jsonl"))
        assert journal.read_bytes().startswith(before)
        before = journal.read_bytes()[: journal.read_bytes().rindex(b"\n") + 1]
    must_run(tmp_path / "killed", "02_critique.py")
    must_run(tmp_path / "undisturbed", "02_critique.py")
    assert journal.read_bytes().startswith(before)
    assert_same(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("minutes", [0, 1e-9])
@pytest.mark.parametrize("moment", ["after step 5", "after the last checkpoint"])
def test_04_trains_the_same_after_a_kill(finished, run_copy, moment, minutes):
    """Killed in the second training, with a state after each step or before the first state.

    After step 5: without a state the checkpoints of steps 2 and 4 are written again. Or as soon as
    the last checkpoint exists: it is trained, but something may be left to do.
    """
    command = ["04_train.py", *SMALL["04_train.py"], "--state-minutes", minutes]
    first, second, *others = training_run.choose_sets(run_copy, [])
    folder, training = run_copy.parent.parent, run_copy / "04_train" / second
    shutil.rmtree(run_copy / "04_train")
    ready = {
        "after step 5": lambda: n_lines(training / "metrics.jsonl") >= 5,
        "after the last checkpoint": lambda: (training / "step-000006").exists(),
    }[moment]
    kill_when(ready, folder, *command)
    assert not any((run_copy / "04_train" / name / "step-000006").exists() for name in others)
    assert_whole(run_copy)
    printed = must_run(folder, *command)
    assert f"runs/tiny/04_train/{first}/step-000006 exists" in printed
    assert_same(run_copy, finished.run)


@pytest.mark.slow
def test_05_asks_for_the_rest_after_a_kill(finished, run_copy):
    """Killed while the second model is asked."""
    folder = run_copy.parent.parent
    key = content_id(model_id(run_copy / "04_train" / "sft" / "step-000006"))[:12]
    journal = run_copy / "05_journal" / key / "tiny.jsonl"
    shutil.rmtree(run_copy / "05_eval")
    shutil.rmtree(run_copy / "05_journal")
    kill_when(lambda: n_lines(journal) >= 2, folder, "05_eval.py", *SMALL["05_eval.py"])
    assert_whole(run_copy)
    must_run(folder, "05_eval.py", *SMALL["05_eval.py"])
    assert_same(run_copy, finished.run)
